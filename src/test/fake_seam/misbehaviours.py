"""THE TABLE: each misbehaviour of the fake is one entry.

To add one, add its entry where it belongs, and its function to the file of its stage (see stages.py); a name that
stands in no entry is refused, and --help shows what is here.  Within a stage the entries act in the order of the
table.
"""

import json
import textwrap
from typing import Any, Callable, NamedTuple, Optional

from . import conditions, document, reply, wire
from .parsers import (as_count, as_field_json, as_flag, as_header, as_retry_after, as_seconds, as_status, as_target,
                      as_text)
from .stages import (ANSWER, BODY, BYTES, CLOSE, DOCUMENT, EARLY, HEAD, HOLD, INSTEAD, INSTEAD_DONE, LATE, SEND, TEXT,
                     WHEN)


class Misbehaviour(NamedTuple):
    """One entry of the table."""

    name: str
    usage: str                          # what follows the name in a SPEC
    parser: Callable[[bytes], Any]
    stage: Optional[str]                # None: it does nothing
    function: Optional[Callable]
    doc: str
    is_many: bool = False               # it may stand several times in a SPEC, and acts as often
    closes: bool = False                # the connection ends after the answer
    when: Optional[Callable] = None     # a function of the stage WHEN besides


ENTRY = Misbehaviour
SECTIONS = (
    ('when', (
        ENTRY('times', '=N', as_count, WHEN, conditions.is_left,
              'acts N times, then no more (in a path: counted for all requests with exactly this SPEC)'),
        ENTRY('tag', '=TEXT', as_text, None, None, 'does nothing; makes two SPECs differ, and their counts'),
        ENTRY('route', '=NAME', as_text, WHEN, conditions.is_route, 'acts only where the path ends in /NAME'),
        ENTRY('chance', '=P', float, WHEN, conditions.is_by_chance,
              'acts with this probability (POST /fake/reset {"seed": N})'),
    )),
    ('instead of an answer', (
        ENTRY('early', '', as_flag, EARLY, wire.refuse_early,
              '413 before the body is read, then FIN; only in a path'),
        ENTRY('hang', '', as_flag, INSTEAD, wire.hang, 'never answers; nothing is done'),
        ENTRY('reset', '', as_flag, INSTEAD, wire.reset, 'RST; nothing is done'),
        ENTRY('close', '', as_flag, INSTEAD, wire.close, 'FIN; nothing is done'),
        ENTRY('hang_after', '', as_flag, INSTEAD_DONE, wire.hang, 'never answers; done, the key is issued'),
        ENTRY('reset_after', '', as_flag, INSTEAD_DONE, wire.reset, 'RST; done'),
        ENTRY('close_after', '', as_flag, INSTEAD_DONE, wire.close, 'FIN; done'),
        ENTRY('die_on_reuse', '', as_flag, INSTEAD_DONE, wire.close,
              "a connection's first request is served, a later one is done and the connection closed instead",
              when=conditions.is_reused),
    )),
    ('when the bytes go', (
        ENTRY('late', '=MS', as_seconds, LATE, wire.begin_late,
              'nothing is done before, also if nobody waits any more'),
        ENTRY('hold', '', as_flag, HOLD, wire.hold, 'all of it when POST /fake/release says so'),
        ENTRY('delay', '=MS', as_seconds, HOLD, wire.delay, 'all of it later'),
        ENTRY('drip', '=MS', as_seconds, SEND, wire.drip, 'one byte each MS'),
        ENTRY('slowheaders', '=MS', as_seconds, SEND, wire.drip_head, 'the same for the head only'),
        ENTRY('close_idle', '[=MS]', as_seconds, CLOSE, wire.close_idle,
              'FIN after the answer (MS later) with no word of it before'),
    )),
    ('another answer', (
        ENTRY('status', '=N', as_status, ANSWER, reply.set_status,
              'an error, as the next four say.  Below 300: the true answer under this status'),
        ENTRY('redirect', '=URL|N', as_target, ANSWER, reply.redirect,
              'Location, 302 or N (to the true route); status= overrides'),
        ENTRY('echo_auth', '', as_flag, ANSWER, reply.echo_authorization,
              '401 whose message holds the Authorization header'),
        ENTRY('type', '=S', as_text, ANSWER, reply.set_error_type, "the error's type"),
        ENTRY('message', '=S', as_text, ANSWER, reply.set_error_message, "the error's message"),
        ENTRY('errors', '=JSON', json.loads, ANSWER, reply.set_error_tree, "the error's validation tree"),
        ENTRY('retry_after', '=WHEN', as_retry_after, ANSWER, reply.set_retry_after,
              'Retry-After: seconds, an HTTP date, or date+SECONDS, which makes such a date'),
        ENTRY('issue', '', as_flag, ANSWER, reply.do_anyhow, "do the request's work although the answer is an error"),
        ENTRY('noissue', '', as_flag, ANSWER, reply.do_nothing, "don't do it although the answer is good"),
        ENTRY('html', '', as_flag, BODY, reply.body_html, 'a page of HTML in place of the JSON'),
        ENTRY('notjson', '', as_flag, BODY, reply.body_not_json, 'plain text in place of the JSON'),
        ENTRY('body', '=BYTES', bytes, BODY, reply.body_bytes, 'these bytes in place of the JSON'),
        ENTRY('nobody', '', as_flag, BODY, reply.body_none, 'nothing in place of the JSON'),
    )),
    ('another JSON document (FIELD is looked for in instant_key, then on top)', (
        ENTRY('set', '=FIELD:JSON', as_field_json, DOCUMENT, document.set_field,
              'a field of instant_key has this value', is_many=True),
        ENTRY('identity', '=UUID', as_text, DOCUMENT, document.set_identity, 'user_identity_id is another'),
        ENTRY('customization', '=JSON', json.loads, DOCUMENT, document.set_customization,
              'customization has this value'),
        ENTRY('nul', '[=FIELD]', as_text, DOCUMENT, document.bad_string('nul', '\ue000', b'\\u0000'),
              r'\u0000 within a string: instant_key_url, or the message'),
        ENTRY('rawnul', '[=FIELD]', as_text, DOCUMENT, document.bad_string('rawnul', '\ue001', b'\x00'),
              'the same with a NUL byte'),
        ENTRY('badutf8', '[=FIELD]', as_text, DOCUMENT, document.bad_string('badutf8', '\ue002', b'\xff\xc0\x80'),
              'the same with bytes that are no UTF-8'),
        ENTRY('surrogate', '[=FIELD]', as_text, DOCUMENT, document.bad_string('surrogate', '\ue003', b'\\ud800'),
              r'the same with a lone \ud800'),
        ENTRY('null', '=FIELD', as_text, DOCUMENT, document.set_null, 'the field is null', is_many=True),
        ENTRY('dup', '=FIELD', as_text, DOCUMENT, document.repeat_field, 'the field stands twice', is_many=True),
        ENTRY('missing', '=FIELD', as_text, DOCUMENT, document.drop_field, 'the field is not there', is_many=True),
        ENTRY('top', '=FIELD:JSON', as_field_json, DOCUMENT, document.set_on_top,
              'a field beside instant_key has this value', is_many=True),
        ENTRY('okfalse', '', as_flag, DOCUMENT, document.set_not_ok, '"ok" is false'),
        ENTRY('nook', '', as_flag, DOCUMENT, document.drop_ok, '"ok" is not there'),
        ENTRY('deep', '=N', as_count, TEXT, document.nest, 'a field with N nested arrays'),
        ENTRY('trailing', '', as_flag, TEXT, document.add_garbage, 'garbage after the JSON'),
        ENTRY('bom', '', as_flag, TEXT, document.add_byte_order_mark, 'a byte order mark before the JSON'),
        ENTRY('big', '=N', as_count, TEXT, document.pad, 'N bytes in all, by a field that nobody knows'),
    )),
    ('another head', (
        ENTRY('chunked', '', as_flag, HEAD, reply.send_in_chunks, 'the body in chunks, without Content-Length'),
        ENTRY('http10', '', as_flag, HEAD, reply.send_as_http10, 'HTTP/1.0, without Content-Length, then FIN',
              closes=True),
        ENTRY('connection_close', '', as_flag, HEAD, reply.announce_close, 'FIN after the answer, announced',
              closes=True),
        ENTRY('manyheaders', '=N', as_count, HEAD, reply.add_many_headers, 'N headers more'),
        ENTRY('bigheader', '=N', as_count, HEAD, reply.add_big_header, 'a header of N bytes'),
        ENTRY('noheader', '=NAME', bytes, HEAD, reply.drop_header, 'not this header', is_many=True),
        ENTRY('header', '=NAME:VALUE', as_header, HEAD, reply.add_header,
              'this header, in place of the usual one of that name', is_many=True),
        ENTRY('info', '', as_flag, BYTES, reply.send_interim, 'a 103 with a seam-request-id of its own comes first'),
    )),
    ('other bytes', (
        ENTRY('truncate', '=N', as_count, BYTES, reply.cut_body,
              'the whole Content-Length promised, N bytes of body, FIN', closes=True),
        ENTRY('truncate_head', '=N', as_count, BYTES, reply.cut_head, 'N bytes of head, FIN', closes=True),
        ENTRY('raw', '=BYTES', bytes, BYTES, reply.send_raw, 'these bytes in place of the whole answer, then FIN',
              closes=True),
    )),
)
TABLE = {entry.name: entry for _, entries in SECTIONS for entry in entries}
PLACES = {name: place for place, name in enumerate(TABLE)}


def table_help():
    """The table as the help shows it."""
    lines = []
    for title, entries in SECTIONS:
        lines.append('  ' + title)
        for entry in entries:
            start = f'    {entry.name}{entry.usage}'
            lines += textwrap.wrap(entry.doc, 79, initial_indent=f'{start:22} ', subsequent_indent=' ' * 23)
    return '\n'.join(lines)
