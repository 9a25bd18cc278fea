"""The JSON document of an answer, and the functions that spoil it.

Objects are kept as lists of pairs so that a name can stand twice.
"""

import json

from .answers import dump
from .parsers import BadSpec
from .stages import DOCUMENT, TEXT


class Document:
    """A document in the making."""

    def __init__(self, pairs):
        top = dict(pairs)
        self.pairs = pairs              # of the document itself
        self.is_error = 'error' in top
        self.is_list = 'instant_keys' in top
        self.objects = []               # the pairs of each object in which a FIELD is looked for
        self.text_field = 'instant_key_url'     # the string that is spoiled where no FIELD is named
        self.marks = []                 # of private characters in strings: their JSON, and what is to stand there
        if self.is_error:
            self.objects = [top['error']]
            self.text_field = 'message'
        elif self.is_list:
            self.objects = top['instant_keys']
        else:
            self.objects = [top[name] for name in ('instant_key', 'user_identity') if name in top]

    def holders(self, field):
        """The lists of pairs that have the field; BadSpec where one should be and none is."""
        found = [pairs for pairs in self.objects if any(name == field for name, _ in pairs)]
        if not found and any(name == field for name, _ in self.pairs):
            found = [self.pairs]
        if not found and not self.is_error and not self.is_list:
            raise BadSpec(f'the answer has no field "{field}"')
        return found


def spoil(pairs, plan):
    """Apply what the plan wants of the document, whose pairs change; return its bytes, or throw BadSpec."""
    document = Document(pairs)
    for function, value in plan.at(DOCUMENT):
        function(document, value)
    text = dump(pairs).encode()
    for dumped, bad in document.marks:
        text = text.replace(dumped, bad)
    for function, value in plan.at(TEXT):
        text = function(text, value)
    return text


def set_pair(pairs, name, value):
    """Give the first pair of this name a value, or append one."""
    for place, (known, _) in enumerate(pairs):
        if known == name:
            pairs[place] = (name, value)
            return
    pairs.append((name, value))


# ---- DOCUMENT: set, identity and customization leave errors alone

def set_field(document, field_value):
    if not document.is_error:
        for holder in document.objects:
            set_pair(holder, *field_value)


def set_identity(document, identity):
    if not document.is_error:
        for holder in document.holders('user_identity_id'):
            set_pair(holder, 'user_identity_id', identity)


def set_customization(document, customization):
    set_field(document, ('customization', customization))


def bad_string(name, character, bad):
    """The function of the misbehaviour of this name, which puts bytes into a string that JSON would not let in.

    A private character marks the place in the string; what JSON makes of it is replaced once the document is text.
    """
    def spoil_string(document, field):
        field = field or document.text_field
        for holder in document.holders(field):
            value = dict(holder)[field]
            if not isinstance(value, str):
                raise BadSpec(f'{name}: "{field}" is no string')
            set_pair(holder, field, value + character)
        document.marks.append((json.dumps(character)[1:-1].encode(), bad))
    return spoil_string


def set_null(document, field):
    for holder in document.holders(field):
        set_pair(holder, field, None)


def repeat_field(document, field):
    for holder in document.holders(field):
        holder.append((field, dict(holder)[field]))


def drop_field(document, field):
    for holder in document.holders(field):
        holder[:] = [pair for pair in holder if pair[0] != field]


def set_on_top(document, field_value):
    set_pair(document.pairs, *field_value)


def set_not_ok(document, value):
    set_pair(document.pairs, 'ok', False)


def drop_ok(document, value):
    document.pairs[:] = [pair for pair in document.pairs if pair[0] != 'ok']


# ---- TEXT

def nest(text, depth):
    return text[:-1] + b',"nested":' + b'[' * depth + b']' * depth + b'}'


def add_garbage(text, value):
    return text + b' and then some'


def add_byte_order_mark(text, value):
    return b'\xef\xbb\xbf' + text


def pad(text, size):
    padding = size - len(text) - len(',"padding":""')
    if padding < 0:
        raise BadSpec('big= is less than the answer has already')
    end = text.rindex(b'}')
    return text[:end] + b',"padding":"' + b'x' * padding + b'"' + text[end:]
