"""The head of a request, and what the head alone decides."""

import re

from .answers import refuse
from .parsers import BadSpec
from .texts import UUID

HEADS_CACHED = 5_000        # parsed heads; clients repeat theirs byte by byte
WORKSPACE = '4d1c24b2-781e-4d1a-8d77-15249ad57c8a'      # of a request that names none


class Head:
    """A parsed request head; shared by all requests with the same bytes."""

    __slots__ = ('method', 'target', 'path', 'query', 'headers', 'length', 'expects', 'closes', 'plan', 'spec',
                 'workspace', 'handler', 'is_control', 'problem', 'authorization')

    def __init__(self, text, seam):
        """Parse; ValueError where it is no HTTP head.

        Whatever the head alone decides (route, method, authorization, content type) is decided here once: problem is
        the refusal, or None.
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
        self.closes = connection == 'close' or version == 'HTTP/1.0' and connection != 'keep-alive'
        self.path, _, self.query = self.target.partition('?')
        self.spec = self.plan = self.problem = None
        self.is_control = self.path.startswith('/fake/')
        if self.path.startswith('/do/'):
            self.spec, slash, rest = self.path[4:].partition('/')
            self.path = slash + rest
            try:
                self.plan = seam.rules.path_plan(self.spec)
            except BadSpec as error:
                self.problem = refuse(599, str(error), 'bad_spec')
        self.handler = seam.api.routes.get(self.path)
        self.authorization = ', '.join(fields.get('authorization', ()))
        workspaces = fields.get('seam-workspace', [])
        self.workspace = WORKSPACE
        if workspaces and UUID.match(workspaces[0]):
            self.workspace = workspaces[0].lower()
        if not self.is_control and self.problem is None:
            self.problem = self.judge(fields, workspaces)

    def judge(self, fields, workspaces):
        """The refusal that the head deserves, or None."""
        if self.handler is None:
            return refuse(404, 'No route for ' + self.path)
        if self.method != 'POST':
            return refuse(405, self.method + ' is not allowed here', 'method_not_allowed')
        if 'transfer-encoding' in fields or 'content-length' not in fields:
            return refuse(411, 'Send a Content-Length', 'length_required')
        tokens = fields.get('authorization', [])
        if len(tokens) != 1 or not tokens[0].startswith('Bearer '):
            return refuse(401, 'Must send exactly one Authorization header of the form: Bearer KEY')
        token = tokens[0][len('Bearer '):]
        if token.startswith(('seam_cst', 'seam_pk')):
            return refuse(401, 'This kind of token cannot be used here')
        if 'revoked' in token or not re.fullmatch(r'(seam_test|seam_live|seam_at|ey)\S*', token):
            return refuse(401, 'Invalid API key')
        if token.startswith(('seam_at', 'ey')) and len(workspaces) != 1:
            return refuse(400, 'This token needs a seam-workspace header')
        kinds = fields.get('content-type', [''])
        if kinds[0].split(';')[0].strip().lower() != 'application/json':
            return refuse(400, 'Content-Type must be application/json')
        return None


def parsed_head(text, seam):
    """The Head of these bytes; ValueError."""
    head = seam.heads.get(text)
    if head is None:
        head = Head(text, seam)
        if len(seam.heads) >= HEADS_CACHED:
            seam.heads.clear()
        seam.heads[text] = head
    return head
