"""The answer in the making, and the functions that change it."""

import json
import os

from .answers import ERROR_TYPES, JSON_TYPE, REASONS, dump, error_body, error_pairs
from .document import spoil
from .stages import ANSWER, BODY, BYTES, HEAD
from .texts import as_uuid, http_date

MANY_BYTES = 1000           # the length of each of manyheaders' headers


class Reply:
    """An answer that a plan changes on its way to bytes."""

    def __init__(self, api, request):
        self.api = api
        self.request = request              # the Head that is answered
        # until the answer is chosen
        self.status = None                  # None: the one that the request deserves
        self.is_done_anyhow = False         # the request's work is done although the answer is an error
        self.effect = True                  # its work changes something
        self.error_type = 'fake_error'
        self.error_message = 'A fake error'
        self.error_tree = None
        self.more_headers = {}
        # the answer
        self.key = None                     # that was issued
        self.text = b''
        self.kind = JSON_TYPE
        self.is_emptied = False             # it has no body by the plan's wish, and says so
        self.has_body = True                # its status can have one, or it says that it has none
        self.version = 1                    # the digit after "HTTP/1."
        self.headers = {}                   # name -> bytes
        self.last_headers = []              # (name, value) as bytes; a name can stand twice
        # what goes over the wire
        self.head_bytes = b''
        self.body_bytes = b''

    def choose(self, body, plan):
        """Do the request's work where it is to be done, and decide status and text."""
        for function, value in plan.at(ANSWER):
            function(self, value)
        is_good = self.status is None or self.status < 300
        if is_good or self.is_done_anyhow:
            status, text, key = self.api.serve(self.request, body, self.effect)
            self.key = key if self.effect else None
        pairs = None
        if not is_good:
            pairs = error_pairs(self.error_type, self.error_message, self.error_tree)
            text = None if plan.spoils else dump(pairs).encode()
        else:
            if status != 200 or self.status is None:
                self.status = status
            if plan.spoils:
                pairs = json.loads(text, object_pairs_hook=list)
        self.text = spoil(pairs, plan) if plan.spoils else text
        for function, value in plan.at(BODY):
            function(self, value)
        if self.status in (204, 304) or self.status < 200:
            self.has_body = self.is_emptied
            self.text, self.kind = b'', JSON_TYPE

    def write(self, plan=None):
        """Make the bytes of the answer, as the plan wants them or, without one, as they should be."""
        self.api.now()
        self.headers = {
            'Content-Type': self.kind.encode(),
            'Content-Length': b'%d' % len(self.text),
            'Date': self.api.date,
            'seam-request-id': as_uuid(os.urandom(16).hex()).encode(),
            **self.more_headers}
        if not self.has_body:
            del self.headers['Content-Length'], self.headers['Content-Type']
        self.body_bytes = self.text
        for function, value in plan.at(HEAD) if plan else ():
            function(self, value)
        lines = [b'HTTP/1.%d %d %s' % (self.version, self.status, REASONS.get(self.status, 'Status').encode())]
        lines += [name.encode() + b': ' + value for name, value in self.headers.items()]
        lines += [name + b': ' + value for name, value in self.last_headers]
        self.head_bytes = b'\r\n'.join(lines) + b'\r\n\r\n'
        for function, value in plan.at(BYTES) if plan else ():
            function(self, value)


def answer_to(api, head, body, plan):
    """The Reply that the plan wants, its work done; BadSpec."""
    reply = Reply(api, head)
    reply.choose(body, plan)
    reply.write(plan)
    return reply


def bad_spec(api, head, error):
    """The Reply to a SPEC that makes no sense with this answer."""
    reply = Reply(api, head)
    reply.status, reply.text = 599, error_body('bad_spec', str(error))
    reply.write()
    return reply


# ---- ANSWER

def set_status(reply, status):
    reply.status = status


def redirect(reply, target):
    status, url = target
    reply.status = reply.status or status or 302
    reply.more_headers['Location'] = (reply.request.path if url is None else url).encode()


def echo_authorization(reply, value):
    reply.status = 401
    reply.error_type = ERROR_TYPES[401]
    reply.error_message = f'Bad header: {reply.request.authorization}'


def set_error_type(reply, text):
    reply.error_type = text


def set_error_message(reply, text):
    reply.error_message = text


def set_error_tree(reply, tree):
    reply.error_tree = tree


def set_retry_after(reply, wish):
    seconds, text = wish
    if text is None:
        text = http_date(int(reply.api.now() + seconds) + 1)
    reply.more_headers['Retry-After'] = text.encode()


def do_anyhow(reply, value):
    reply.is_done_anyhow = True


def do_nothing(reply, value):
    reply.effect = False


# ---- BODY

def body_html(reply, value):
    reply.text = b'<!DOCTYPE html>\n<html><body><h1>Bad gateway</h1></body></html>\n'
    reply.kind = 'text/html'


def body_not_json(reply, value):
    reply.text, reply.kind = b'this is not JSON', 'text/plain'


def body_bytes(reply, text):
    reply.text, reply.kind = text, JSON_TYPE


def body_none(reply, value):
    reply.text, reply.kind = b'', JSON_TYPE
    reply.is_emptied = True


# ---- HEAD

def send_in_chunks(reply, value):
    text = reply.text
    third = len(text) // 3 + 1
    parts = [text[at:at + third] for at in range(0, len(text), third)]
    reply.body_bytes = b''.join(b'%x\r\n%s\r\n' % (len(part), part) for part in parts) + b'0\r\n\r\n'
    if reply.headers.pop('Content-Length', None) is not None:
        reply.headers['Transfer-Encoding'] = b'chunked'


def send_as_http10(reply, value):
    reply.version = 0
    reply.headers.pop('Content-Length', None)


def announce_close(reply, value):
    reply.headers['Connection'] = b'close'


def add_many_headers(reply, count):
    for number in range(count):
        reply.headers[f'x-many-{number}'] = b'x' * MANY_BYTES


def add_big_header(reply, size):
    reply.headers['x-big'] = b'x' * size


def drop_header(reply, name):
    wanted = name.lower()
    reply.headers = {known: value for known, value in reply.headers.items() if known.lower().encode() != wanted}


def add_header(reply, name_value):
    drop_header(reply, name_value[0])
    reply.last_headers.append(name_value)


# ---- BYTES

def send_interim(reply, value):
    reply.head_bytes = (b'HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nseam-request-id: interim\r\n\r\n' +
                        reply.head_bytes)


def cut_body(reply, size):
    reply.body_bytes = reply.body_bytes[:size]


def cut_head(reply, size):
    reply.head_bytes, reply.body_bytes = reply.head_bytes[:size], b''


def send_raw(reply, text):
    reply.head_bytes, reply.body_bytes = text, b''
