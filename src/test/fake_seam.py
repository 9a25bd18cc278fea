#!/usr/bin/env python3
"""A stand-in for Seam's API whose misbehaviour the request asks for.

It answers the routes that seam_ik uses as Seam's OpenAPI document says, keeps
a record of every request and of every key that it issued, and misbehaves where
it is told to.  One process, one thread, one event loop that never blocks: a
test may have thousands of slow calls in flight.  Python 3.9, standard library.

    fake_seam.py [--port N] [--tls-cert F --tls-key F] [--detach | --until PID]
                 [--record FILE] [--stall-tls | --no-accept]
    fake_seam.py --ask PORT PATH [JSON]     GET, or POST of JSON, of that path

It listens on 127.0.0.1, prints its port on a line, and serves.  With TLS that
line holds a second port, of a plain listener of the same server, so that a
client without TLS reaches the control routes.

Misbehaviour is a SPEC: names or name=value pairs, separated by commas, values
percent-encoded.  It comes in the path, before the route:

    http://127.0.0.1:PORT/do/delay=50,status=429/user_identities/...

or by POST /fake/behave {"user_identity_id": U or "*", "spec": S, "times": N},
which holds for each request that concerns the identity.  A path's SPEC goes
first, then these rules in the order in which they came; the first that acts
wins.  The names:

  when
    times=N          acts N times, then no more (in a path: counted for all
                     requests with exactly this SPEC)
    tag=TEXT         does nothing; makes two SPECs differ, and their counts
    route=NAME       acts only where the path ends in /NAME
    chance=P         acts with this probability (POST /fake/reset {"seed": N})
  instead of an answer (nothing done; with _after: done, the key is issued)
    hang hang_after              never answers
    reset reset_after            RST
    close close_after            FIN
    die_on_reuse                 a connection's first request is served, a later
                                 one is done and the connection closed instead
    early                        413 before the body is read, then FIN
  when the bytes go
    delay=MS         all of it later
    hold             all of it when POST /fake/release says so
    late=MS          nothing is done before, also if nobody waits any more
    drip=MS          one byte each MS
    slowheaders=MS   the same for the head only
    truncate=N       the whole Content-Length promised, N bytes of body, FIN
    truncate_head=N  N bytes of head, FIN
    close_idle[=MS]  FIN after the answer (MS later) with no word of it before
    connection_close the same, announced
  another answer
    status=N         error body with type=S message=S errors=JSON (validation
                     tree) retry_after=SECONDS, an HTTP date, or date+SECONDS.
                     Below 300: the true answer under this status
    redirect=URL|N   Location, 302 or N (to the true route); status= overrides
    echo_auth        401 whose message holds the Authorization header
    body=BYTES nobody notjson html     in place of the JSON
    raw=BYTES        in place of the whole answer, then FIN
    issue, noissue   do the request's work although the answer is an error;
                     don't do it although the answer is good
  another JSON document (FIELD is looked for in instant_key, then on top)
    missing=FIELD null=FIELD dup=FIELD set=FIELD:JSON top=FIELD:JSON
    identity=UUID customization=JSON okfalse nook
    big=N            N bytes in all, by a field that nobody knows
    deep=N           a field with N nested arrays
    nul[=FIELD] rawnul[=FIELD] badutf8[=FIELD] surrogate[=FIELD]
                     \\u0000, a NUL byte, bytes that are no UTF-8, a lone
                     \\ud800 within a string: instant_key_url, or the message
    trailing bom     garbage after the JSON; a byte order mark before it
  another head
    header=NAME:VALUE noheader=NAME bigheader=N manyheaders=N
    chunked http10 info (a 103 with a seam-request-id of its own comes first)

All may be combined, and an error body can be spoiled as a good one can.  A
name that is not in this list is answered with 599: a typing error shows.

Control, without authorization:
    GET  /fake/requests[?since=N]   what was asked, the last 200,000
    GET  /fake/keys                 every key ever issued
    GET  /fake/stats                counts of requests, keys and connections
    POST /fake/behave               see above; an empty spec forgets the
                                    identity's rules
    POST /fake/release              {"user_identity_id": U or "*"}: what is held
                                    of these goes on
    POST /fake/reset                forget everything; {"seed": N}
    POST /fake/clock                {"offset_seconds": N} moves Date, created_at
    POST /fake/seed-keys            {"user_identity_id": U, "count": N}
"""

import argparse
import asyncio
import base64
import collections
import functools
import gc
import json
import os
import random
import re
import select
import signal
import socket
import ssl
import struct
import sys
import time
import urllib.parse
import urllib.request

REQUESTS_KEPT = 200_000
HEADS_CACHED = 5_000        # parsed heads; clients repeat theirs byte by byte
HEAD_LIMIT = 1 << 20        # more than this without an empty line is no head
LIFETIME = 48 * 3600        # seconds from created_at to expires_at
MANY_BYTES = 1000           # the length of each of manyheaders' headers
OWNER_LOOK = 0.25           # seconds between two looks at --until's process
LINGER_S = 1.0              # how long an early answer's connection is drained

UUID = re.compile(r'[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z')
WORKSPACE = '4d1c24b2-781e-4d1a-8d77-15249ad57c8a'
CUSTOMIZATION = ('{"logo_url":"https://example.com/logo.png",'
                 '"primary_color":"#112233","secondary_color":"#445566"}')
JSON_TYPE = 'application/json; charset=utf-8'

REASONS = {
    200: 'OK', 201: 'Created', 202: 'Accepted', 204: 'No Content',
    301: 'Moved Permanently', 302: 'Found', 303: 'See Other',
    304: 'Not Modified', 307: 'Temporary Redirect', 308: 'Permanent Redirect',
    400: 'Bad Request', 401: 'Unauthorized', 403: 'Forbidden',
    404: 'Not Found', 405: 'Method Not Allowed', 408: 'Request Timeout',
    409: 'Conflict', 411: 'Length Required', 413: 'Payload Too Large',
    422: 'Unprocessable Entity', 429: 'Too Many Requests',
    431: 'Request Header Fields Too Large', 500: 'Internal Server Error',
    502: 'Bad Gateway', 503: 'Service Unavailable', 504: 'Gateway Timeout',
    599: 'Unknown Misbehaviour',
}
# Seam's types of the errors that the fake finds by itself, where a handler does
# not know better; SPECs have "fake_error".
ERROR_TYPES = {400: 'invalid_input', 401: 'unauthorized', 404: 'not_found'}


# ---------------------------------------------------------------------------
# SPECs
# ---------------------------------------------------------------------------

class BadSpec(Exception):
    """A SPEC, or a combination with this answer, that makes no sense."""


def as_flag(value):
    if value:
        raise ValueError('takes no value')
    return True


def as_count(value):
    number = int(value)
    if number < 0:
        raise ValueError('is negative')
    return number


def as_seconds(value):
    return float(value) / 1000 if value else 0.0


def as_status(value):
    number = int(value)
    if not 100 <= number <= 999:
        raise ValueError('is no status')
    return number


def as_text(value):
    return value.decode('utf-8')


def as_field_json(value):
    """NAME:JSON as a pair."""
    name, colon, text = value.decode('utf-8').partition(':')
    if not colon:
        raise ValueError('needs NAME:JSON')
    return name, json.loads(text)


def as_header(value):
    """NAME:VALUE as a pair of bytes; the value may be empty."""
    name, colon, text = value.partition(b':')
    if not colon:
        raise ValueError('needs NAME:VALUE')
    return name, text


ONCE = {
    'times': as_count, 'tag': as_text, 'route': as_text, 'chance': float,
    'hang': as_flag, 'hang_after': as_flag, 'reset': as_flag,
    'reset_after': as_flag, 'close': as_flag, 'close_after': as_flag,
    'die_on_reuse': as_flag, 'early': as_flag,
    'delay': as_seconds, 'hold': as_flag, 'late': as_seconds, 'drip': as_seconds, 'slowheaders': as_seconds,
    'truncate': as_count, 'truncate_head': as_count, 'close_idle': as_seconds,
    'connection_close': as_flag,
    'status': as_status, 'type': as_text, 'message': as_text,
    'errors': json.loads, 'retry_after': as_text, 'redirect': as_text,
    'echo_auth': as_flag, 'body': bytes, 'nobody': as_flag,
    'notjson': as_flag, 'html': as_flag, 'raw': bytes,
    'issue': as_flag, 'noissue': as_flag,
    'identity': as_text, 'customization': json.loads, 'okfalse': as_flag, 'nook': as_flag,
    'big': as_count, 'deep': as_count,
    'nul': as_text, 'rawnul': as_text, 'badutf8': as_text,
    'surrogate': as_text, 'trailing': as_flag, 'bom': as_flag,
    'bigheader': as_count, 'manyheaders': as_count,
    'chunked': as_flag, 'http10': as_flag, 'info': as_flag,
}
MANY = {
    'header': as_header, 'noheader': bytes, 'missing': as_text,
    'null': as_text, 'dup': as_text, 'set': as_field_json,
    'top': as_field_json,
}
# What ends in no answer, in the order of precedence, and whether the
# request's work is done before.
SILENT = {
    'hang': False, 'reset': False, 'close': False,
    'hang_after': True, 'reset_after': True, 'close_after': True,
    'die_on_reuse': True,
}
# What needs the JSON document taken apart.
DOCUMENT = {'missing', 'null', 'dup', 'set', 'top', 'identity',
            'customization', 'okfalse', 'nook', 'big', 'deep', 'nul', 'rawnul',
            'badutf8', 'surrogate', 'trailing', 'bom'}
# A private character marks the place in a string; what JSON makes of it is
# replaced once the document is text.
MARKS = {
    'nul': ('\ue000', b'\\ue000', b'\\u0000'),
    'rawnul': ('\ue001', b'\\ue001', b'\x00'),
    'badutf8': ('\ue002', b'\\ue002', b'\xff\xc0\x80'),
    'surrogate': ('\ue003', b'\\ue003', b'\\ud800'),
}


class Plan(dict):
    """A parsed SPEC: name -> value, and how often it may still act."""

    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        for part in filter(None, spec.split(',')):
            name, _, value = part.partition('=')
            value = urllib.parse.unquote_to_bytes(value)
            try:
                if name in MANY:
                    self.setdefault(name, []).append(MANY[name](value))
                elif name in ONCE:
                    self[name] = ONCE[name](value)
                else:
                    raise BadSpec(f'unknown misbehaviour "{name}"')
            except ValueError as error:
                raise BadSpec(f'misbehaviour "{part}": {error}') from None
        self.left = self.get('times')       # None: no end
        self.spoils = not DOCUMENT.isdisjoint(self)


# ---------------------------------------------------------------------------
# JSON documents, kept as lists of pairs so that a name can stand twice
# ---------------------------------------------------------------------------

def error_pairs(kind, message, tree=None):
    """The pairs of an error answer."""
    error = {'type': kind, 'message': message}
    if tree is not None:
        error['validation_errors'] = tree
    return [('error', list(error.items())), ('ok', False)]


def dump(value):
    """JSON text of a value in which a list of pairs stands for an object."""
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return '{' + ','.join(json.dumps(name) + ':' + dump(inner)
                              for name, inner in value) + '}'
    if isinstance(value, list):
        return '[' + ','.join(map(dump, value)) + ']'
    if isinstance(value, dict):
        return '{' + ','.join(json.dumps(name) + ':' + dump(inner)
                              for name, inner in value.items()) + '}'
    return json.dumps(value)


def error_body(kind, message, tree=None):
    return dump(error_pairs(kind, message, tree)).encode()


def refuse(status, message, kind=None, tree=None):
    """What a handler returns in place of an answer."""
    return status, error_body(kind or ERROR_TYPES[status], message, tree)


def invalid(field, message):
    """A 400 with Seam's tree of validation errors."""
    tree = {'_errors': []}
    if field is None:
        tree['_errors'].append(message)
    else:
        tree[field] = {'_errors': [message]}
    return refuse(400, 'Invalid input: ' + message, tree=tree)


def set_pair(pairs, name, value):
    """Give the first pair of this name a value, or append one."""
    for place, (known, _) in enumerate(pairs):
        if known == name:
            pairs[place] = (name, value)
            return
    pairs.append((name, value))


def spoil(pairs, plan):
    """Apply what the plan wants of the document; return its bytes.

    Changes the pairs.  BadSpec where a field is named that isn't there.
    """
    top = dict(pairs)
    is_error = 'error' in top
    if is_error:
        objects, text_field = [top['error']], 'message'
    else:
        objects, text_field = top.get('instant_keys'), 'instant_key_url'
        if objects is None:
            objects = [top[name] for name in ('instant_key', 'user_identity')
                       if name in top]

    def holders(field):
        """The lists of pairs that have the field."""
        found = [pairs for pairs in objects
                 if any(name == field for name, _ in pairs)]
        if not found and any(name == field for name, _ in pairs):
            found = [pairs]
        if not found and not is_error and 'instant_keys' not in top:
            raise BadSpec(f'the answer has no field "{field}"')
        return found

    if not is_error:
        for name, value in plan.get('set', ()):
            for holder in objects:
                set_pair(holder, name, value)
        if 'identity' in plan:
            for holder in holders('user_identity_id'):
                set_pair(holder, 'user_identity_id', plan['identity'])
        if 'customization' in plan:
            for holder in objects:
                set_pair(holder, 'customization', plan['customization'])
    for option, (mark, _, _) in MARKS.items():
        if option in plan:
            field = plan[option] or text_field
            for holder in holders(field):
                value = dict(holder)[field]
                if not isinstance(value, str):
                    raise BadSpec(f'{option}: "{field}" is no string')
                set_pair(holder, field, value + mark)
    for field in plan.get('null', ()):
        for holder in holders(field):
            set_pair(holder, field, None)
    for field in plan.get('dup', ()):
        for holder in holders(field):
            holder.append((field, dict(holder)[field]))
    for field in plan.get('missing', ()):
        for holder in holders(field):
            holder[:] = [pair for pair in holder if pair[0] != field]
    for name, value in plan.get('top', ()):
        set_pair(pairs, name, value)
    if 'okfalse' in plan:
        set_pair(pairs, 'ok', False)
    if 'nook' in plan:
        pairs[:] = [pair for pair in pairs if pair[0] != 'ok']

    text = dump(pairs).encode()
    for option, (_, dumped, bad) in MARKS.items():
        if option in plan:
            text = text.replace(dumped, bad)
    if 'deep' in plan:
        text = (text[:-1] + b',"nested":' + b'[' * plan['deep'] +
                b']' * plan['deep'] + b'}')
    if 'trailing' in plan:
        text += b' and then some'
    if 'bom' in plan:
        text = b'\xef\xbb\xbf' + text
    if 'big' in plan:
        padding = plan['big'] - len(text) - len(',"padding":""')
        if padding < 0:
            raise BadSpec('big= is less than the answer has already')
        end = text.rindex(b'}')
        text = (text[:end] + b',"padding":"' + b'x' * padding + b'"' +
                text[end:])
    return text


# ---------------------------------------------------------------------------
# Requests
# ---------------------------------------------------------------------------

class Head:
    """A parsed request head; shared by all requests with the same bytes."""

    __slots__ = ('method', 'target', 'path', 'query', 'headers', 'length',
                 'expects', 'closes', 'plan', 'spec', 'workspace', 'handler',
                 'control', 'problem', 'authorization')

    def __init__(self, text, seam):
        """Parse; ValueError where it is no HTTP head.

        Whatever the head alone decides (route, method, authorization, content
        type) is decided here once: problem is the refusal, or None.
        """
        lines = text.decode('latin-1').split('\r\n')
        self.method, self.target, version = lines[0].split(' ')
        if not version.startswith('HTTP/1.'):
            raise ValueError('not HTTP/1')
        self.headers = []
        fields = {}
        for line in lines[1:-2]:
            name, colon, value = line.partition(':')
            if not colon or not name or name != name.strip():
                raise ValueError('no header: ' + line)
            value = value.strip(' \t')
            self.headers.append((name, value))
            fields.setdefault(name.lower(), []).append(value)
        self.length = int(fields.get('content-length', ['0'])[0])
        if self.length < 0:
            raise ValueError('negative Content-Length')
        self.expects = '100-continue' in fields.get('expect', ())
        connection = fields.get('connection', [''])[0].lower()
        self.closes = (connection == 'close' or
                       version == 'HTTP/1.0' and connection != 'keep-alive')
        self.path, _, self.query = self.target.partition('?')
        self.spec = self.plan = self.problem = None
        self.control = self.path.startswith('/fake/')
        if self.path.startswith('/do/'):
            self.spec, slash, rest = self.path[4:].partition('/')
            self.path = slash + rest
            try:
                self.plan = seam.path_plan(self.spec)
            except BadSpec as error:
                self.problem = refuse(599, str(error), 'bad_spec')
        self.handler = seam.routes.get(self.path)
        self.authorization = ', '.join(fields.get('authorization', ()))
        workspaces = fields.get('seam-workspace', [])
        self.workspace = WORKSPACE
        if workspaces and UUID.match(workspaces[0]):
            self.workspace = workspaces[0].lower()
        if not self.control and self.problem is None:
            self.problem = self.judge(fields, workspaces)

    def judge(self, fields, workspaces):
        """The refusal that the head deserves, or None."""
        if self.handler is None:
            return refuse(404, 'No route for ' + self.path)
        if self.method != 'POST':
            return refuse(405, self.method + ' is not allowed here',
                          'method_not_allowed')
        if 'transfer-encoding' in fields or 'content-length' not in fields:
            return refuse(411, 'Send a Content-Length', 'length_required')
        tokens = fields.get('authorization', [])
        if len(tokens) != 1 or not tokens[0].startswith('Bearer '):
            return refuse(401, 'Must send exactly one Authorization header of '
                          'the form: Bearer KEY')
        token = tokens[0][len('Bearer '):]
        if token.startswith(('seam_cst', 'seam_pk')):
            return refuse(401, 'This kind of token cannot be used here')
        if 'revoked' in token or not re.fullmatch(
                r'(seam_test|seam_live|seam_at|ey)\S*', token):
            return refuse(401, 'Invalid API key')
        if token.startswith(('seam_at', 'ey')) and len(workspaces) != 1:
            return refuse(400, 'This token needs a seam-workspace header')
        kinds = fields.get('content-type', [''])
        if kinds[0].split(';')[0].strip().lower() != 'application/json':
            return refuse(400, 'Content-Type must be application/json')
        return None


class Key:
    """An instant key as it was issued, with its JSON ready to be sent."""

    __slots__ = ('key_id', 'url', 'identity', 'count', 'seeded', 'revoked',
                 'text')


class Rule:
    """A misbehaviour for an identity ('*': for all)."""

    __slots__ = ('identity', 'plan')

    def __init__(self, identity, plan):
        self.identity = identity
        self.plan = plan


class Seam:
    """The state of the fake and what each route does with it.

    A handler takes the head, the request's JSON object and whether it may
    change anything, and returns status, body and the key that it issued.
    """

    def __init__(self, record=None):
        self.routes = {
            '/user_identities/generate_instant_key': self.generate,
            '/user_identities/create': self.create_identity,
            '/user_identities/list': self.list_identities,
            '/instant_keys/get': self.get_key,
            '/instant_keys/list': self.list_keys,
            '/instant_keys/delete': self.delete_key,
        }
        self.controls = {
            ('GET', '/fake/requests'): self.tell_requests,
            ('GET', '/fake/keys'): self.tell_keys,
            ('GET', '/fake/stats'): self.tell_stats,
            ('POST', '/fake/behave'): self.behave,
            ('POST', '/fake/release'): self.release,
            ('POST', '/fake/reset'): self.reset,
            ('POST', '/fake/clock'): self.set_clock,
            ('POST', '/fake/seed-keys'): self.seed_keys,
        }
        self.record_file = record
        self.offset = 0.0
        self.second = None          # that date, created and expires are of
        self.open = 0               # connections that made a request
        self.in_flight = 0          # requests whose answer is held back
        self.on_hold = []           # of "hold": identity, and what goes on
        self.forget(None)

    def forget(self, seed):
        """Start afresh: requests, keys, rules, counts, clock."""
        self.random = random.Random(seed)
        self.requests = collections.deque(maxlen=REQUESTS_KEPT)
        self.asked = 0
        self.keys = []              # all, in the order of issue
        self.live = {}              # id -> Key
        self.by_url = {}
        self.by_identity = {}       # identity -> {id: Key}, live ones
        self.lists = {}             # identity or None -> JSON of its keys
        self.identities = []
        self.rules = []
        self.plans = {}             # SPEC of a path -> Plan
        self.heads = {}
        self.connections = 0
        self.max_open = self.open
        self.max_in_flight = self.in_flight
        self.offset = 0.0
        self.second = None

    # -- time -------------------------------------------------------------

    def now(self):
        """The fake's time; also brings the ready-made texts up to date."""
        now = time.time() + self.offset
        second = int(now)
        if second != self.second:
            self.second = second
            self.date = http_date(second).encode()
            self.created = time.strftime('%Y-%m-%dT%H:%M:%S',
                                         time.gmtime(second))
            self.expires = time.strftime('%Y-%m-%dT%H:%M:%S',
                                         time.gmtime(second + LIFETIME))
        return now

    # -- keys -------------------------------------------------------------

    def make_key(self, identity, count, profile, workspace):
        """A new Key, not yet among those that exist."""
        fraction = int(self.now() % 1 * 1e6)
        noise = os.urandom(32).hex()
        name = base64.urlsafe_b64encode(os.urandom(6)).decode()
        key = Key()
        key.key_id = as_uuid(noise)
        key.url = 'https://ik.seam.co/' + name
        key.identity = identity
        key.count = count
        key.seeded = key.revoked = False
        extra = ''
        if profile is not None:
            extra = (f',"customization_profile_id":"{profile}",'
                     f'"customization":{CUSTOMIZATION}')
        key.text = (
            f'{{"instant_key_id":"{key.key_id}",'
            f'"workspace_id":"{workspace}",'
            f'"created_at":"{self.created}.{fraction:06d}Z",'
            f'"expires_at":"{self.expires}.{fraction:06d}Z",'
            f'"instant_key_url":"{key.url}",'
            f'"client_session_id":"{as_uuid(noise[32:])}",'
            f'"user_identity_id":"{identity}"{extra}}}').encode()
        return key

    def add_key(self, key):
        self.keys.append(key)
        self.live[key.key_id] = self.by_url[key.url] = key
        self.by_identity.setdefault(key.identity, {})[key.key_id] = key
        self.lists.pop(key.identity, None)
        self.lists.pop(None, None)

    def find_key(self, fields):
        """The live key that a request names by id or by URL, or None."""
        key_id = fields.get('instant_key_id')
        if isinstance(key_id, str):
            return self.live.get(key_id.lower())
        url = fields.get('instant_key_url')
        return self.by_url.get(url) if isinstance(url, str) else None

    # -- routes -----------------------------------------------------------

    def serve(self, head, body, effect):
        """Status, body and issued key of a request, misbehaviour apart."""
        if head.problem is not None:
            return head.problem + (None,)
        try:
            fields = json.loads(body)
        except ValueError:
            return refuse(400, 'Invalid JSON') + (None,)
        if not isinstance(fields, dict):
            return invalid(None, 'Expected an object') + (None,)
        return head.handler(head, fields, effect)

    def generate(self, head, fields, effect):
        identity = count = profile = None
        for name, value in fields.items():
            if name == 'user_identity_id':
                identity = value
            elif name == 'max_use_count':
                if type(value) is not int:
                    return invalid(name, 'Expected an integer') + (None,)
                if value < 1:
                    return invalid(name, 'Must be 1 or more') + (None,)
                count = value
            elif name == 'customization_profile_id':
                profile = value
                if not is_uuid(profile):
                    return invalid(name, 'Invalid uuid') + (None,)
            else:
                return invalid(name, 'Unrecognized key') + (None,)
        if not is_uuid(identity):
            return invalid('user_identity_id', 'Invalid uuid' if
                           'user_identity_id' in fields else
                           'Required') + (None,)
        key = self.make_key(identity.lower(), 1 if count is None else count,
                            profile and profile.lower(), head.workspace)
        if effect:
            self.add_key(key)
        return 200, b'{"instant_key":' + key.text + b',"ok":true}', key

    def get_key(self, head, fields, effect):
        problem = self.check_names(fields, 'instant_key_id', 'instant_key_url')
        if problem:
            return problem + (None,)
        if len(fields) != 1:
            return invalid(None, 'Send either instant_key_id or '
                           'instant_key_url') + (None,)
        key = self.find_key(fields)
        if key is None:
            return refuse(404, 'Instant key not found',
                          'instant_key_not_found') + (None,)
        return 200, b'{"instant_key":' + key.text + b',"ok":true}', None

    def list_keys(self, head, fields, effect):
        problem = self.check_names(fields, 'user_identity_id')
        if problem:
            return problem + (None,)
        identity = fields.get('user_identity_id')
        if identity is not None:
            identity = identity.lower()
        text = self.lists.get(identity)
        if text is None:
            keys = (self.live if identity is None else
                    self.by_identity.get(identity, {}))
            text = b','.join([key.text for key in keys.values()])
            self.lists[identity] = text
        return 200, b'{"instant_keys":[' + text + b'],"ok":true}', None

    def delete_key(self, head, fields, effect):
        problem = self.check_names(fields, 'instant_key_id')
        if problem:
            return problem + (None,)
        if 'instant_key_id' not in fields:
            return invalid('instant_key_id', 'Required') + (None,)
        key = self.find_key(fields)
        if key is None:
            return refuse(404, 'Instant key not found',
                          'instant_key_not_found') + (None,)
        if effect:
            key.revoked = True
            del self.live[key.key_id], self.by_url[key.url]
            del self.by_identity[key.identity][key.key_id]
            self.lists.pop(key.identity, None)
            self.lists.pop(None, None)
        return 200, b'{"ok":true}', None

    def create_identity(self, head, fields, effect):
        name = fields.pop('full_name', None)
        if fields:
            return invalid(next(iter(fields)), 'Unrecognized key') + (None,)
        if name is not None and (not isinstance(name, str) or not name):
            return invalid('full_name', 'Expected a string') + (None,)
        self.now()
        identity = {
            'user_identity_id': as_uuid(os.urandom(16).hex()),
            'full_name': name, 'display_name': name or 'Guest',
            'user_identity_key': None, 'email_address': None,
            'phone_number': None, 'created_at': self.created + '.000000Z',
            'workspace_id': head.workspace, 'errors': [], 'warnings': [],
            'acs_user_ids': [],
        }
        if effect:
            self.identities.append(identity)
        return 200, json.dumps({'user_identity': identity,
                                'ok': True}).encode(), None

    def list_identities(self, head, fields, effect):
        if fields:
            return invalid(next(iter(fields)), 'Unrecognized key') + (None,)
        return 200, json.dumps({
            'user_identities': self.identities,
            'pagination': {'next_page_cursor': None, 'has_next_page': False,
                           'next_page_url': None},
            'ok': True}).encode(), None

    @staticmethod
    def check_names(fields, *known):
        """The refusal of fields that are not known or no uuid, or None."""
        for name, value in fields.items():
            if name not in known:
                return invalid(name, 'Unrecognized key')
            if name.endswith('_id') and not is_uuid(value):
                return invalid(name, 'Invalid uuid')
            if not isinstance(value, str):
                return invalid(name, 'Expected a string')
        return None

    # -- misbehaviour: which -----------------------------------------------

    def path_plan(self, spec):
        """The one Plan of all paths with this SPEC, which share its count."""
        plan = self.plans.get(spec)
        if plan is None:
            plan = self.plans[spec] = Plan(spec)
        return plan

    def acts(self, plan, connection, head):
        """Whether the plan acts on this request; counts it if it does."""
        if plan.left == 0:
            return False
        if 'route' in plan and not head.path.endswith('/' + plan['route']):
            return False
        if 'die_on_reuse' in plan and connection.served == 0:
            return False
        if 'chance' in plan and self.random.random() >= plan['chance']:
            return False
        if plan.left is not None:
            plan.left -= 1
        return True

    def choose(self, connection, head, body):
        """The plan that acts on this request, or None."""
        if head.plan is not None and self.acts(head.plan, connection, head):
            return head.plan
        if self.rules:
            identity = self.concerned(body)
            for rule in self.rules:
                if (rule.identity in ('*', identity) and
                        self.acts(rule.plan, connection, head)):
                    return rule.plan
        return None

    def concerned(self, body):
        """The identity that a request is about, or None."""
        try:
            fields = json.loads(body)
        except ValueError:
            return None
        if not isinstance(fields, dict):
            return None
        identity = fields.get('user_identity_id')
        if isinstance(identity, str):
            return identity.lower()
        key = self.find_key(fields)
        return key and key.identity

    # -- record and control ------------------------------------------------

    def record(self, connection, head, body, spec, status, key):
        """Keep a request; status None: no answer was sent."""
        self.asked += 1
        entry = (self.asked, connection.number, head, body, time.time(), spec,
                 status, key and key.key_id)
        self.requests.append(entry)
        if self.record_file is not None:
            self.record_file.write(json.dumps(describe(entry)) + '\n')

    def control(self, head, body):
        """Answer a control request: status and body."""
        handler = self.controls.get((head.method, head.path))
        if handler is None:
            return 404, b'{"error":"no such control route"}'
        try:
            wish = json.loads(body) if body else {}
            return 200, json.dumps(handler(head, wish)).encode()
        except (BadSpec, ValueError, KeyError, TypeError) as error:
            return 400, json.dumps({'error': f'{error!r}'}).encode()

    def tell_requests(self, head, wish):
        query = urllib.parse.parse_qs(head.query)
        since = int(query.get('since', ['0'])[0])
        return [describe(entry) for entry in self.requests if entry[0] > since]

    def tell_keys(self, head, wish):
        return [dict(json.loads(key.text), max_use_count=key.count,
                     seeded=key.seeded, revoked=key.revoked)
                for key in self.keys]

    def tell_stats(self, head, wish):
        return {'requests': self.asked, 'keys': len(self.keys),
                'live_keys': len(self.live), 'connections': self.connections,
                'open_connections': self.open,
                'max_open_connections': self.max_open,
                'in_flight': self.in_flight,
                'max_in_flight': self.max_in_flight}

    def behave(self, head, wish):
        identity = wish['user_identity_id'].lower()
        if identity != '*' and not is_uuid(identity):
            raise BadSpec('user_identity_id is neither a uuid nor "*"')
        if not wish['spec']:
            self.rules = [rule for rule in self.rules
                          if rule.identity != identity]
        else:
            plan = Plan(wish['spec'])
            if wish.get('times') is not None:
                plan.left = int(wish['times'])
            self.rules.append(Rule(identity, plan))
        return {'ok': True}

    def release(self, head, wish):
        identity = wish['user_identity_id'].lower()
        held, self.on_hold = self.on_hold, []
        for entry in held:
            if identity in ('*', entry[0]):
                entry[1]()
            else:
                self.on_hold.append(entry)
        return {'ok': True}

    def reset(self, head, wish):
        self.forget(wish.get('seed'))
        return {'ok': True}

    def set_clock(self, head, wish):
        self.offset = float(wish['offset_seconds'])
        self.second = None
        return {'ok': True}

    def seed_keys(self, head, wish):
        identity = wish['user_identity_id'].lower()
        if not is_uuid(identity):
            raise BadSpec('user_identity_id is no uuid')
        for _ in range(int(wish['count'])):
            key = self.make_key(identity, 1, None, WORKSPACE)
            key.seeded = True
            self.add_key(key)
        return {'ok': True}


def is_uuid(value):
    return isinstance(value, str) and UUID.match(value) is not None


def as_uuid(noise):
    """A version 4 uuid of the first 32 hexadecimal digits."""
    return (f'{noise[:8]}-{noise[8:12]}-4{noise[13:16]}-a{noise[17:20]}-'
            f'{noise[20:32]}')


def http_date(seconds):
    """An HTTP date; not by strftime's %a and %b, which follow the locale."""
    at = time.gmtime(seconds)
    day = ('Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun')[at.tm_wday]
    month = ('Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep',
             'Oct', 'Nov', 'Dec')[at.tm_mon - 1]
    return (f'{day}, {at.tm_mday:02d} {month} {at.tm_year} '
            f'{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} GMT')


def describe(entry):
    """A recorded request as /fake/requests and --record show it."""
    number, connection, head, body, when, spec, status, key_id = entry
    return {'n': number, 'connection': connection, 'method': head.method,
            'path': head.path, 'target': head.target, 'headers': head.headers,
            'body': body.decode('utf-8', 'replace'), 'time': when,
            'spec': spec or '', 'status': status, 'instant_key_id': key_id}


# ---------------------------------------------------------------------------
# Connections
# ---------------------------------------------------------------------------

class Connection(asyncio.Protocol):
    """One client.  A request is answered before the next one is looked at."""

    def __init__(self, seam):
        self.seam = seam
        self.loop = asyncio.get_running_loop()
        self.buffer = b''
        self.served = 0             # API requests that were read
        self.busy = False           # an answer is under way, or never comes
        self.held = False           # it is counted in seam.in_flight
        self.continued = False      # 100 Continue was sent for this request
        self.counted = False        # among the connections that are counted
        self.deaf = False           # what comes is thrown away
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.seam.connections += 1
        self.number = self.seam.connections

    def connection_lost(self, error):
        self.release()
        self.deaf = True
        if self.counted:
            self.seam.open -= 1

    def release(self):
        """No answer of this connection is held back any more."""
        if self.held:
            self.held = False
            self.seam.in_flight -= 1

    def data_received(self, data):
        if self.deaf:
            return
        self.buffer = self.buffer + data if self.buffer else data
        while self.buffer and not self.busy and not self.deaf:
            if not self.take_request():
                break

    def take_request(self):
        """Serve the request at the buffer's start; False if more must come."""
        data = self.buffer
        end = data.find(b'\r\n\r\n')
        if end < 0:
            if len(data) > HEAD_LIMIT:
                self.reject(431, 'The head is too long')
            return False
        end += 4
        text = data[:end]
        seam = self.seam
        head = seam.heads.get(text)
        if head is None:
            try:
                head = Head(text, seam)
            except ValueError as error:
                self.reject(400, f'Not a request: {error}')
                return False
            if len(seam.heads) >= HEADS_CACHED:
                seam.heads.clear()
            seam.heads[text] = head
        if (head.plan is not None and 'early' in head.plan and
                seam.acts(head.plan, self, head)):
            self.refuse_early(head, data[end:])
            return False
        total = end + head.length
        if len(data) < total:
            if head.expects and not self.continued:
                self.continued = True
                self.transport.write(b'HTTP/1.1 100 Continue\r\n\r\n')
            return False
        self.continued = False
        self.buffer = data[total:]
        self.serve(head, data[end:total])
        return True

    def serve(self, head, body):
        seam = self.seam
        if head.control:
            if not self.served:
                seam.connections -= 1
            status, text = seam.control(head, body)
            self.transport.write(plain_answer(seam, status, text))
        else:
            if not self.counted:
                self.counted = True
                seam.open += 1
                seam.max_open = max(seam.max_open, seam.open)
            plan = None
            if head.plan is not None or seam.rules:
                plan = seam.choose(self, head, body)
            self.served += 1
            if plan is not None:
                self.misbehave(head, body, plan)
                return
            status, text, key = seam.serve(head, body, True)
            seam.record(self, head, body, head.spec, status, key)
            self.transport.write(plain_answer(seam, status, text))
        if head.closes:
            self.transport.close()

    def reject(self, status, message):
        """Answer what is no request, and close."""
        self.deaf = True
        self.transport.write(plain_answer(
            self.seam, status, error_body('bad_request', message)))
        self.transport.close()

    def refuse_early(self, head, body):
        """413 while the body may still be under way.

        The connection is drained for a while: closing it with unread data
        would send an RST, which can overtake the answer.
        """
        self.served += 1
        self.seam.record(self, head, body, head.spec, 413, None)
        answer = Answer(self.seam, 413, error_body(
            'payload_too_large', 'The request is too large'), {})
        answer.headers['Connection'] = b'close'
        self.deaf = True
        self.transport.write(answer.bytes())
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()

    # -- misbehaviour: how -------------------------------------------------

    def misbehave(self, head, body, plan):
        """Serve one request as the plan says."""
        seam = self.seam
        self.busy = True
        if not (self.held or self.transport.is_closing()):
            self.held = True
            seam.in_flight += 1
            seam.max_in_flight = max(seam.max_in_flight, seam.in_flight)
        if 'late' in plan:
            rest = Plan(','.join(part for part in plan.spec.split(',')
                                 if not part.startswith('late=')))
            self.loop.call_later(plan['late'], self.misbehave, head, body,
                                 rest)
            return
        silent = next((name for name in SILENT if name in plan), None)
        key = answer = None
        if silent is not None:
            if SILENT[silent]:
                key = seam.serve(head, body, True)[2]
            seam.record(self, head, body, plan.spec, None, key)
        else:
            try:
                answer, key = self.spoilt_answer(head, body, plan)
            except BadSpec as error:
                answer = Answer(seam, 599, error_body('bad_spec', str(error)),
                                {})
            seam.record(self, head, body, plan.spec, answer.status, key)
        if 'hold' in plan:
            seam.on_hold.append((seam.concerned(body), functools.partial(
                self.perform, head, plan, silent, answer)))
        elif 'delay' in plan:
            self.loop.call_later(plan['delay'], self.perform, head, plan,
                                 silent, answer)
        else:
            self.perform(head, plan, silent, answer)

    def spoilt_answer(self, head, body, plan):
        """The answer that the plan wants, and the key that was issued."""
        seam = self.seam
        forced = plan.get('status')
        location = None
        if 'redirect' in plan:
            location = plan['redirect']
            if location.isdigit():
                forced = forced or as_status(location)
                location = head.path
            forced = forced or 302
        if 'echo_auth' in plan:
            forced = 401
        good = forced is None or forced < 300
        key = None
        if good or 'issue' in plan:
            status, text, key = seam.serve(head, body, 'noissue' not in plan)
            if 'noissue' in plan:
                key = None
        if good:
            if status == 200 and forced is not None:
                status = forced
            pairs = None
            if plan.spoils:
                pairs = json.loads(text, object_pairs_hook=list)
        else:
            status = forced
            kind, message = 'fake_error', 'A fake error'
            if 'echo_auth' in plan:
                kind = ERROR_TYPES[401]
                message = f'Bad header: {head.authorization}'
            pairs = error_pairs(plan.get('type', kind),
                                plan.get('message', message),
                                plan.get('errors'))
            text = None if plan.spoils else dump(pairs).encode()
        if plan.spoils:
            text = spoil(pairs, plan)
        kind = JSON_TYPE
        if 'nobody' in plan or status in (204, 304) or status < 200:
            text = b''
        elif 'body' in plan:
            text = plan['body']
        elif 'notjson' in plan:
            text, kind = b'this is not JSON', 'text/plain'
        elif 'html' in plan:
            text, kind = (b'<!DOCTYPE html>\n<html><body><h1>Bad gateway</h1>'
                          b'</body></html>\n'), 'text/html'
        answer = Answer(seam, status, text, plan, kind)
        if location is not None:
            answer.headers['Location'] = location.encode()
        if 'retry_after' in plan:
            wish = plan['retry_after']
            if wish.startswith('date+'):
                wish = http_date(int(seam.now() + float(wish[5:])) + 1)
            answer.headers['Retry-After'] = wish.encode()
        return answer, key

    def perform(self, head, plan, silent, answer):
        """Do on the wire what was decided, now that its time has come."""
        transport = self.transport
        if transport.is_closing():
            return
        if silent in ('hang', 'hang_after'):
            return
        if silent in ('reset', 'reset_after'):
            reset(transport)
            return
        if silent is not None:
            transport.close()
            return
        closes = head.closes or not {'truncate', 'truncate_head', 'raw',
                                     'http10', 'connection_close',
                                     'close_idle'}.isdisjoint(plan)
        if 'drip' in plan:
            self.trickle(plan, closes, plan['drip'], answer.bytes(), b'')
        elif 'slowheaders' in plan:
            self.trickle(plan, closes, plan['slowheaders'], answer.head(),
                         answer.body())
        else:
            transport.write(answer.bytes())
            self.answered(plan, closes)

    def trickle(self, plan, closes, pause, slow, rest, at=0):
        """Send the slow bytes one by one, then the rest."""
        if self.transport.is_closing():
            return
        if at < len(slow):
            self.transport.write(slow[at:at + 1])
            self.loop.call_later(pause, self.trickle, plan, closes, pause,
                                 slow, rest, at + 1)
            return
        self.transport.write(rest)
        self.answered(plan, closes)

    def answered(self, plan, closes):
        """The answer is out: close, or go on with what has come since."""
        self.release()
        if closes and plan.get('close_idle'):
            self.loop.call_later(plan['close_idle'], self.transport.close)
        elif closes:
            self.deaf = True
            self.transport.close()
            return
        self.busy = False
        if self.buffer:
            self.loop.call_soon(self.data_received, b'')


class Answer:
    """An answer as bytes, as the plan wants them."""

    def __init__(self, seam, status, text, plan, kind=JSON_TYPE):
        seam.now()
        self.status = status
        self.text = text
        self.plan = plan
        self.headers = {
            'Content-Type': kind.encode(),
            'Content-Length': b'%d' % len(text),
            'Date': seam.date,
            'seam-request-id': as_uuid(os.urandom(16).hex()).encode(),
        }

    def head(self):
        plan, headers = self.plan, dict(self.headers)
        if 'raw' in plan:
            return plan['raw']
        if 'nobody' not in plan and (self.status in (204, 304) or
                                     self.status < 200):
            del headers['Content-Length'], headers['Content-Type']
        elif 'chunked' in plan:
            del headers['Content-Length']
            headers['Transfer-Encoding'] = b'chunked'
        elif 'http10' in plan:
            del headers['Content-Length']
        if 'connection_close' in plan:
            headers['Connection'] = b'close'
        for number in range(plan.get('manyheaders', 0)):
            headers[f'x-many-{number}'] = b'x' * MANY_BYTES
        if 'bigheader' in plan:
            headers['x-big'] = b'x' * plan['bigheader']
        drop = {name.lower() for name in plan.get('noheader', ())}
        drop |= {name.lower() for name, _ in plan.get('header', ())}
        lines = [b'HTTP/1.%d %d %s' % ('http10' not in plan, self.status,
                 REASONS.get(self.status, 'Status').encode())]
        lines += [name.encode() + b': ' + value
                  for name, value in headers.items()
                  if name.lower().encode() not in drop]
        lines += [name + b': ' + value
                  for name, value in plan.get('header', ())]
        out = b'\r\n'.join(lines) + b'\r\n\r\n'
        if 'info' in plan:
            out = (b'HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n'
                   b'seam-request-id: interim\r\n\r\n' + out)
        return out[:plan['truncate_head']] if 'truncate_head' in plan else out

    def body(self):
        plan, text = self.plan, self.text
        if 'raw' in plan or 'truncate_head' in plan:
            return b''
        if 'chunked' in plan:
            third = len(text) // 3 + 1
            parts = [text[at:at + third] for at in range(0, len(text), third)]
            text = b''.join(b'%x\r\n%s\r\n' % (len(part), part)
                            for part in parts) + b'0\r\n\r\n'
        return text[:plan['truncate']] if 'truncate' in plan else text

    def bytes(self):
        return self.head() + self.body()


def plain_answer(seam, status, text):
    """The bytes of an answer without misbehaviour: Answer's, in one go."""
    seam.now()
    return (b'HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n'
            b'Date: %s\r\nseam-request-id: %s\r\n\r\n%s' % (
                status, REASONS[status].encode(), JSON_TYPE.encode(),
                len(text), seam.date,
                as_uuid(os.urandom(16).hex()).encode(), text))


def reset(transport):
    """End a connection by RST."""
    transport.get_extra_info('socket').setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    transport.abort()


class Mute(asyncio.Protocol):
    """Accepts and says nothing: a TLS handshake never gets anywhere."""


# ---------------------------------------------------------------------------
# The process
# ---------------------------------------------------------------------------

SHELLS = {'sh', 'dash', 'bash', 'ash', 'ksh', 'mksh', 'zsh', 'busybox'}


def process(pid):
    """Name, state, parent and start time of a process; None: it is gone."""
    try:
        with open(f'/proc/{pid}/stat', encoding='latin-1') as stat:
            text = stat.read()
    except OSError:
        return None
    name = text[text.index('(') + 1:text.rindex(')')]
    fields = text[text.rindex(')') + 2:].split()
    return name, fields[0], int(fields[1]), fields[19]


def starter():
    """The process that started this one, past the shells in between.

    psql runs `...` by a shell, which may or may not replace itself.
    """
    pid = os.getppid()
    while True:
        known = process(pid)
        if known is None or known[0] not in SHELLS or known[2] <= 1:
            return pid
        pid = known[2]


class Owner:
    """The process without which this one has no business."""

    def __init__(self, pid):
        self.pid = pid
        self.born = (process(pid) or (None,))[-1]

    def gone(self):
        known = process(self.pid)
        return known is None or known[1] in 'ZX' or known[-1] != self.born


def listen(port, backlog):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(('127.0.0.1', port))
    sock.listen(backlog)
    return sock


def fill_backlog(sock):
    """Connect until the kernel answers no more; return what keeps it full."""
    clients = []
    while True:
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.setblocking(False)
        client.connect_ex(sock.getsockname())
        if not select.select([], [client], [], 0.3)[1]:
            client.close()
            return clients
        clients.append(client)


def detach():
    """Leave the foreground; only the child returns."""
    sys.stdout.flush()
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


async def serve(listeners, owner):
    """Serve (socket, protocol factory, TLS context) until the owner is gone."""
    loop = asyncio.get_running_loop()
    # A client that ends a handshake or a connection is no news here.
    loop.set_exception_handler(
        lambda _, context: None if isinstance(context.get('exception'), OSError)
        else loop.default_exception_handler(context))
    for sock, factory, context in listeners:
        await loop.create_server(factory, sock=sock, ssl=context, backlog=4096)
    while owner is None or not owner.gone():
        await asyncio.sleep(OWNER_LOOK if owner else 3600)


def ask(port, path, wish=None):
    """A control request from the command line: print the answer."""
    request = urllib.request.Request(
        f'http://127.0.0.1:{port}{path}',
        data=None if wish is None else wish.encode(),
        headers={'Content-Type': 'application/json'})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        print(answer.read().decode())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--port', type=int, default=0)
    parser.add_argument('--tls-cert', metavar='FILE')
    parser.add_argument('--tls-key', metavar='FILE')
    parser.add_argument('--detach', action='store_true',
                        help='go to the background; end with the starter')
    parser.add_argument('--until', type=int, metavar='PID',
                        help='end when this process does')
    parser.add_argument('--record', metavar='FILE',
                        help='append each request as a line of JSON')
    parser.add_argument('--stall-tls', action='store_true',
                        help='accept connections and say nothing')
    parser.add_argument('--no-accept', action='store_true',
                        help='listen with a full backlog: connecting hangs')
    parser.add_argument('--ask', nargs='+', metavar=('PORT', 'PATH'),
                        help='ask the control route PATH; POST a third word')
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    if options.ask:
        ask(*options.ask)
        return

    owner = None
    if options.detach:
        owner = Owner(starter())
    elif options.until:
        owner = Owner(options.until)

    sock = listen(options.port, 0 if options.no_accept else 4096)
    clients = fill_backlog(sock) if options.no_accept else None
    context = plain = None
    ports = [sock.getsockname()[1]]
    if options.tls_cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls_cert, options.tls_key)
        context.set_alpn_protocols(['http/1.1'])
        plain = listen(0, 4096)
        ports.append(plain.getsockname()[1])
    print(*ports, flush=True)
    if options.detach:
        detach()

    if options.no_accept:
        while clients and (owner is None or not owner.gone()):
            time.sleep(OWNER_LOOK)
        return
    record = (open(options.record, 'a', buffering=1, encoding='utf-8')
              if options.record else None)
    seam = Seam(record)
    if options.stall_tls:
        listeners = [(sock, Mute, None)]
    else:
        listeners = [(sock, lambda: Connection(seam), context)]
        if plain is not None:
            listeners.append((plain, lambda: Connection(seam), None))
    # Hundreds of thousands of records live on: look for cycles rarely.
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    asyncio.run(serve(listeners, owner))


if __name__ == '__main__':
    main()
