#!/usr/bin/env python3
"""A fake Seam: the routes that seam_ik calls, and every way they can go wrong.

    fake_seam.py [--port N] [--tls-cert FILE --tls-key FILE] [--detach]
                 [--stall-tls | --no-accept]
    fake_seam.py --ask PORT PATH [JSON]     ask the control routes of a running one

Listens on 127.0.0.1, prints its port, serves; with TLS it prints a second port,
without, for the control routes.  With --detach it goes to the
background and ends when the psql (or other process) that started it has ended.

Misbehaviour is asked for in the path, /do/SPEC/user_identities/...: SPEC is a
comma-separated list of the names in Answer below, `name` or `name=value`, with
percent-encoded values.  `times=N`: only for the first N requests of that very
SPEC.  Or by identity: POST /fake/behave {"user_identity_id": U, "spec": SPEC}.

Control: GET /fake/requests, /fake/keys; POST /fake/reset, /fake/behave,
/fake/clock {"offset_seconds": N}, /fake/seed-keys {"user_identity_id": U,
"count": N}.
"""

import asyncio
import datetime
import email.utils
import json
import os
import re
import socket
import ssl
import struct
import sys
import time
import urllib.parse
import urllib.request
import uuid

UUID = re.compile(r'^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', re.I)
WORKSPACE = '4d1c24b2-781e-4d1a-8d77-15249ad57c8a'
MAX_RECORDED = 200000
# What may be in a SPEC; another name is answered with 599, so that a typing
# error in a test shows.
NAMES = {
    'status', 'type', 'message', 'errors', 'retry_after', 'body', 'header', 'times',
    'hang', 'hang_after', 'delay', 'drip', 'reset', 'reset_after', 'close', 'close_after',
    'truncate', 'die_on_reuse', 'close_idle', 'connection_close', 'big', 'bigheader',
    'manyheaders', 'redirect', 'nobody', 'notjson', 'html', 'okfalse', 'nook', 'missing', 'null',
    'set', 'top', 'dup', 'nul', 'rawnul', 'badutf8', 'surrogate', 'deep', 'trailing',
    'identity', 'customization', 'chunked', 'http10', 'info', 'echo_auth',
}


class Seam:
    """The state of the workspace, shared by all connections."""

    def __init__(self):
        self.offset = 0
        self.connections = 0
        self.reset()

    def reset(self):
        self.requests = []
        self.keys = {}          # by id, in the order of their issue
        self.by_url = {}
        self.by_identity = {}   # ids
        self.behave = {}        # identity -> [spec, times left]
        self.seen = {}          # spec -> number of requests
        self.identities = []

    def now(self):
        return time.time() + self.offset

    def timestamp(self, seconds):
        t = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
        return t.strftime('%Y-%m-%dT%H:%M:%S.%fZ')

    def issue(self, identity, count=1, profile=None, customization=None):
        key_id = str(uuid.uuid4())
        now = self.now()
        key = {
            'client_session_id': str(uuid.uuid4()),
            'created_at': self.timestamp(now),
            'expires_at': self.timestamp(now + 172800),
            'instant_key_id': key_id,
            'instant_key_url': 'https://ik.seam.co/' + key_id[:8].upper(),
            'user_identity_id': identity,
            'workspace_id': WORKSPACE,
        }
        if profile:
            key['customization_profile_id'] = profile
            key['customization'] = {'logo_url': 'https://example.com/logo.png',
                                    'primary_color': '#112233', 'secondary_color': '#445566'}
        if customization is not None:
            key['customization'] = customization
        self.keys[key_id] = {'key': key, 'max_use_count': count, 'revoked': False}
        self.by_url[key['instant_key_url']] = key_id
        self.by_identity.setdefault(identity, []).append(key_id)
        return key

    def live(self, key_id):
        k = self.keys.get(key_id)
        return k if k and not k['revoked'] else None


SEAM = Seam()


def error(status, kind, message, errors=None):
    e = {'type': kind, 'message': message}
    if errors:
        e['validation_errors'] = errors
    return status, {'error': e, 'ok': False}


def check_auth(headers):
    """An error, or None."""
    auth = headers.get('authorization', '')
    if not auth.startswith('Bearer '):
        return error(401, 'unauthorized', 'Must use Bearer authentication')
    token = auth[7:]
    if token.startswith(('seam_cst', 'seam_pk')):
        return error(401, 'unauthorized', 'This kind of token may not call this route')
    if token.startswith(('seam_at', 'ey')):
        if not headers.get('seam-workspace'):
            return error(400, 'invalid_input', 'seam-workspace header is required')
        return None
    if not token.startswith(('seam_test', 'seam_live')) or 'revoked' in token:
        return error(401, 'unauthorized', 'Invalid API key')
    return None


def check_body(body, required, optional):
    """The parameters, and an error or None."""
    try:
        params = json.loads(body)
        assert isinstance(params, dict)
    except (ValueError, AssertionError):
        return {}, error(400, 'invalid_json', 'Invalid JSON')
    bad = {}
    for name in required:
        if name not in params:
            bad[name] = 'Required'
    for name, value in params.items():
        if name not in required and name not in optional:
            bad[name] = 'Unrecognized key'
        elif name == 'max_use_count':
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                bad[name] = 'Number must be greater than or equal to 1'
        elif name.endswith('_id') and (not isinstance(value, str) or not UUID.match(value)):
            bad[name] = 'Invalid uuid'
    if bad:
        tree = {'_errors': []}
        tree.update((n, {'_errors': [m]}) for n, m in bad.items())
        return params, error(400, 'invalid_input', 'Invalid input', tree)
    return params, None


def route(path, body, customization=None):
    """(status, answer) of a request without misbehaviour; an answer may be bytes."""
    if path == '/user_identities/generate_instant_key':
        p, bad = check_body(body, ['user_identity_id'], ['max_use_count', 'customization_profile_id'])
        if bad:
            return bad
        return 200, {'instant_key': SEAM.issue(p['user_identity_id'], p.get('max_use_count', 1),
                                               p.get('customization_profile_id'), customization), 'ok': True}
    if path == '/instant_keys/get':
        p, bad = check_body(body, [], ['instant_key_id', 'instant_key_url'])
        if bad:
            return bad
        k = SEAM.live(p.get('instant_key_id') or SEAM.by_url.get(p.get('instant_key_url')))
        if not k:
            return error(404, 'instant_key_not_found', 'Instant key not found')
        return 200, {'instant_key': k['key'], 'ok': True}
    if path == '/instant_keys/list':
        p, bad = check_body(body, [], ['user_identity_id'])
        if bad:
            return bad
        ids = SEAM.by_identity.get(p['user_identity_id'], []) if 'user_identity_id' in p else SEAM.keys
        return 200, {'instant_keys': [SEAM.keys[i]['key'] for i in ids if not SEAM.keys[i]['revoked']], 'ok': True}
    if path == '/instant_keys/delete':
        p, bad = check_body(body, ['instant_key_id'], [])
        if bad:
            return bad
        k = SEAM.live(p['instant_key_id'])
        if not k:
            return error(404, 'instant_key_not_found', 'Instant key not found')
        k['revoked'] = True
        return 200, {'ok': True}
    if path == '/user_identities/list':
        return 200, {'user_identities': SEAM.identities, 'ok': True}
    if path == '/user_identities/create':
        identity = {'user_identity_id': str(uuid.uuid4()), 'full_name': json.loads(body or b'{}').get('full_name')}
        SEAM.identities.append(identity)
        return 200, {'user_identity': identity, 'ok': True}
    return error(404, 'unknown_route', 'Unknown route')


def control(method, path, body):
    """(status, answer) of a control route."""
    args = json.loads(body) if body else {}
    if path == '/fake/requests':
        return 200, SEAM.requests
    if path == '/fake/keys':
        return 200, [dict(k['key'], max_use_count=k['max_use_count'], revoked=k['revoked'])
                     for k in SEAM.keys.values()]
    if path == '/fake/reset':
        SEAM.reset()
    elif path == '/fake/behave':
        SEAM.behave[args['user_identity_id']] = [args['spec'], args.get('times', sys.maxsize)]
    elif path == '/fake/clock':
        SEAM.offset = args['offset_seconds']
    elif path == '/fake/seed-keys':
        for _ in range(args['count']):
            SEAM.issue(args['user_identity_id'])
    else:
        return 404, {'error': 'unknown control route'}
    return 200, {'ok': True}


def parse_spec(text):
    """The spec as (name, value) pairs, or None when it is not understood."""
    pairs = []
    for item in filter(None, text.split(',')):
        name, _, value = item.partition('=')
        if name not in NAMES:
            return None
        pairs.append((name, urllib.parse.unquote(value)))
    return pairs


class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        SEAM.connections += 1
        self.number = SEAM.connections
        self.served = 0
        self.transport = transport
        self.buffer = b''
        self.busy = False       # an answer is under way: the next request waits
        sock = transport.get_extra_info('socket')
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data):
        self.buffer += data
        self.next_request()

    def next_request(self):
        while not self.busy:
            head, sep, rest = self.buffer.partition(b'\r\n\r\n')
            if not sep:
                return
            lines = head.decode('latin-1').split('\r\n')
            pairs = [tuple(s.strip() for s in line.split(':', 1)) for line in lines[1:]]
            headers = {n.lower(): v for n, v in pairs}
            length = int(headers.get('content-length', 0))
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            method, target, _ = lines[0].split(' ')
            self.busy = True
            self.serve(method, target, pairs, headers, rest[:length])

    def serve(self, method, target, pairs, headers, body):
        if target.startswith('/fake/'):
            self.send(*control(method, target, body))
            return
        self.served += 1
        spec_text, path = '', target
        if target.startswith('/do/'):
            spec_text, _, path = target[4:].partition('/')
            path = '/' + path
        if len(SEAM.requests) < MAX_RECORDED:
            SEAM.requests.append({
                'n': len(SEAM.requests) + 1, 'connection': self.number, 'method': method,
                'path': path, 'target': target, 'headers': pairs,
                'body': body.decode('utf-8', 'replace'), 'time': time.time(), 'spec': spec_text})
        if SEAM.behave:
            match = re.search(rb'"user_identity_id": *"([^"]*)"', body)
            b = SEAM.behave.get(match.group(1).decode()) if match else None
            if b and b[1] > 0:
                b[1] -= 1
                spec_text = b[0]
        spec = parse_spec(spec_text)
        if spec is None:
            self.send(599, {'error': 'unknown spec ' + spec_text})
            return
        do = dict(spec)
        if 'times' in do:
            SEAM.seen[spec_text] = SEAM.seen.get(spec_text, 0) + 1
            if SEAM.seen[spec_text] > int(do['times']):
                spec, do = [], {}
        if 'delay' in do:
            asyncio.get_running_loop().call_later(
                int(do['delay']) / 1000, self.answer, method, path, headers, body, spec, do)
        else:
            self.answer(method, path, headers, body, spec, do)

    def answer(self, method, path, headers, body, spec, do):
        if 'hang' in do:
            return
        if 'reset' in do or 'close' in do:
            self.drop('reset' in do)
            return
        if method != 'POST':
            status, answer = error(405, 'method_not_allowed', 'Use POST')
        elif not headers.get('content-type', '').startswith('application/json'):
            status, answer = error(415, 'unsupported_media_type', 'Use JSON')
        elif 'status' in do:
            status, answer = error(int(do['status']), do.get('type', 'fake_error'), do.get('message', 'A fake error'),
                                   json.loads(do['errors']) if 'errors' in do else None)
            if status < 300:
                status, answer = int(do['status']), route(path, body)[1]
        elif 'echo_auth' in do:
            status, answer = error(401, 'unauthorized', 'Bad header: ' + headers.get('authorization', ''))
        else:
            status, answer = check_auth(headers) or route(
                path, body, json.loads(do['customization']) if 'customization' in do else None)
        if 'hang_after' in do:
            return
        if 'reset_after' in do or 'close_after' in do or ('die_on_reuse' in do and self.served > 1):
            self.drop('reset_after' in do)
            return

        extra = []
        for name, value in spec:
            status, answer = self.distort(name, value, status, answer, extra)
        self.send(status, answer, extra, do)

    @staticmethod
    def distort(name, value, status, answer, extra):
        """Apply one item of a spec to the answer."""
        key = answer.get('instant_key') if isinstance(answer, dict) else None
        if name == 'header':
            extra.append(tuple(value.split(':', 1)))
        elif name == 'retry_after':
            extra.append(('Retry-After', value))
        elif name == 'bigheader':
            extra.append(('X-Big', 'x' * int(value)))
        elif name == 'manyheaders':
            extra += [('X-Many-%d' % i, 'x' * 1000) for i in range(int(value))]
        elif name == 'redirect':
            extra.append(('Location', value))
            status = 307
        elif name == 'body':
            answer = value.encode('utf-8', 'surrogateescape')
        elif name == 'nobody':
            answer = b''
        elif name == 'notjson':
            answer = b'this is not JSON'
        elif name == 'html':
            answer = b'<html><body>a page of a proxy</body></html>'
        elif name == 'okfalse':
            answer['ok'] = False
        elif name == 'nook':
            del answer['ok']
        elif name == 'missing':
            (answer if value in answer else key).pop(value)
        elif name == 'null':
            key[value] = None
        elif name == 'set':
            field, _, text = value.partition(':')
            key[field] = json.loads(text)
        elif name == 'top':
            field, _, text = value.partition(':')
            answer[field] = json.loads(text)
        elif name == 'identity':
            key['user_identity_id'] = value
        elif name == 'big':
            answer['padding'] = ''
            answer['padding'] = 'x' * (int(value) - len(json.dumps(answer)))
        elif name == 'deep':
            answer['deep'] = None
            text = json.dumps(answer).replace('"deep": null', '"deep": ' + '[' * int(value) + ']' * int(value))
            answer = text.encode()
        elif name == 'dup':
            answer = json.dumps(answer).replace('"%s":' % value, '"%s": "x", "%s":' % (value, value), 1).encode()
        elif name == 'nul':
            answer = json.dumps(answer).replace('https://ik', 'https://\\u0000ik').encode()
        elif name == 'rawnul':
            answer = json.dumps(answer).replace('https://ik', 'https://\0ik').encode()
        elif name == 'badutf8':
            answer = json.dumps(answer).encode().replace(b'https://ik', b'https://\xff\xfeik')
        elif name == 'surrogate':
            answer = json.dumps(answer).replace('https://ik', 'https://\\ud800ik').encode()
        elif name == 'trailing':
            answer = json.dumps(answer).encode() + b' {"more": 1}'
        return status, answer

    def drop(self, reset):
        """End the connection without a byte."""
        if reset:
            sock = self.transport.get_extra_info('socket')
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    def send(self, status, answer, extra=(), do=None):
        do = do or {}
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        version = 'HTTP/1.0' if 'http10' in do else 'HTTP/1.1'
        lines = ['%s %d Fake' % (version, status),
                 'Content-Type: application/json; charset=utf-8',
                 'seam-request-id: ' + str(uuid.uuid4()),
                 'Date: ' + email.utils.formatdate(SEAM.now(), usegmt=True)]
        lines += ['%s: %s' % pair for pair in extra]
        if 'connection_close' in do:
            lines.append('Connection: close')
        if 'chunked' in do:
            lines.append('Transfer-Encoding: chunked')
            body = b''.join(b'%x\r\n%s\r\n' % (len(body[i:i + 100]), body[i:i + 100])
                            for i in range(0, len(body), 100)) + b'0\r\n\r\n'
        elif status != 204:
            lines.append('Content-Length: %d' % len(body))
        data = '\r\n'.join(lines).encode() + b'\r\n\r\n' + body
        if 'info' in do:
            data = b'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nseam-request-id: interim\r\n\r\n' + data
        if 'truncate' in do:
            self.transport.write(data[:len(data) - len(body) + int(do['truncate'])])
            self.transport.close()
        elif 'drip' in do:
            asyncio.ensure_future(self.drip(data, int(do['drip']) / 1000))
        else:
            self.transport.write(data)
            if 'http10' in do or 'connection_close' in do or 'close_idle' in do:
                self.transport.close()
            self.busy = False
            if self.buffer:
                self.next_request()

    async def drip(self, data, pause):
        for byte in data:
            if self.transport.is_closing():
                return
            self.transport.write(bytes([byte]))
            await asyncio.sleep(pause)
        self.busy = False


def process_above_the_shell():
    """The process that wants this server: the nearest one above that is no shell."""
    pid = os.getppid()
    while pid > 1:
        with open('/proc/%d/stat' % pid) as f:
            name, _, rest = f.read().partition('(')[2].rpartition(')')
        if name not in ('sh', 'dash', 'bash'):
            break
        pid = int(rest.split()[1])
    return pid


async def end_with(pid):
    """End this process once the other one is gone."""
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            os._exit(0)
        except PermissionError:
            pass
        await asyncio.sleep(0.2)


async def main(options):
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(('127.0.0.1', int(options.get('--port', 0))))
    port = sock.getsockname()[1]
    if '--no-accept' in options:
        # fill the queue, so that another connection is not even acknowledged
        sock.listen(0)
        hold = [socket.socket() for _ in range(3)]
        for s in hold:
            s.setblocking(False)
            s.connect_ex(('127.0.0.1', port))
    elif '--stall-tls' in options:
        await loop.create_server(asyncio.Protocol, sock=sock, backlog=1000)
    else:
        context = None
        if '--tls-cert' in options:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(options['--tls-cert'], options['--tls-key'])
            plain = await loop.create_server(Connection, '127.0.0.1', 0)
            port = '%d %d' % (port, plain.sockets[0].getsockname()[1])
        await loop.create_server(Connection, sock=sock, ssl=context, backlog=1000)
    print(port, flush=True)
    if '--detach' in options:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        loop.create_task(end_with(int(options['--detach'])))
    await asyncio.Event().wait()


def detach():
    """Go to the background; the foreground process copies the port and ends."""
    owner = process_above_the_shell()
    r, w = os.pipe()
    if os.fork():
        os.close(w)
        sys.stdout.write(os.fdopen(r).readline())
        sys.stdout.flush()
        os._exit(0)
    os.setsid()
    os.close(r)
    os.dup2(w, 1)
    os.close(w)
    return str(owner)


def parse_options(args):
    options = {}
    while args:
        name = args.pop(0)
        if name in ('--detach', '--stall-tls', '--no-accept'):
            options[name] = ''
        elif name in ('--port', '--tls-cert', '--tls-key'):
            options[name] = args.pop(0)
        else:
            sys.exit('fake_seam.py: unknown option ' + name)
    return options


if __name__ == '__main__':
    if sys.argv[1:2] == ['--ask']:
        url = 'http://127.0.0.1:%s%s' % (sys.argv[2], sys.argv[3])
        data = sys.argv[4].encode() if len(sys.argv) > 4 else None
        # not through a proxy of the environment
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        print(opener.open(url, data).read().decode())
        sys.exit(0)
    OPTIONS = parse_options(sys.argv[1:])
    if '--detach' in OPTIONS:
        OPTIONS['--detach'] = detach()
    try:
        asyncio.run(main(OPTIONS))
    except KeyboardInterrupt:
        pass
