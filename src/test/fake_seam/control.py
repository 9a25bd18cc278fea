"""The control routes, which tell what was asked and say what is to go wrong.

Each function takes the Seam, the head and the request's JSON object, and returns what is answered as JSON.
"""

import json
import textwrap
import urllib.parse

from .parsers import BadSpec
from .plan import Plan
from .request import WORKSPACE
from .rules import ALL
from .texts import is_uuid

OK = {'ok': True}


def tell_requests(seam, head, wish):
    query = urllib.parse.parse_qs(head.query)
    return seam.record.since(int(query.get('since', ['0'])[0]))


def tell_keys(seam, head, wish):
    return [dict(json.loads(key.text), max_use_count=key.count, seeded=key.seeded, revoked=key.revoked)
            for key in seam.api.keys]


def tell_stats(seam, head, wish):
    record = seam.record
    return {'requests': record.asked, 'keys': len(seam.api.keys),
            'live_keys': len(seam.api.live), 'connections': record.connections,
            'open_connections': record.open,
            'max_open_connections': record.max_open,
            'in_flight': record.in_flight,
            'max_in_flight': record.max_in_flight}


def behave(seam, head, wish):
    identity = wish['user_identity_id'].lower()
    if identity != ALL and not is_uuid(identity):
        raise BadSpec('user_identity_id is neither a uuid nor "*"')
    if not wish['spec']:
        seam.rules.remove(identity)
    else:
        times = wish.get('times')
        seam.rules.add(identity, Plan(wish['spec'], None if times is None else int(times)))
    return OK


def release(seam, head, wish):
    identity = wish['user_identity_id'].lower()
    held, seam.on_hold = seam.on_hold, []
    for entry in held:
        if identity in (ALL, entry[0]):
            entry[1]()
        else:
            seam.on_hold.append(entry)
    return OK


def reset(seam, head, wish):
    seam.forget(wish.get('seed'))
    return OK


def set_clock(seam, head, wish):
    seam.api.set_clock(float(wish['offset_seconds']))
    return OK


def set_life(seam, head, wish):
    seam.api.set_life(int(wish['seconds']))
    return OK


def seed_keys(seam, head, wish):
    identity = wish['user_identity_id'].lower()
    if not is_uuid(identity):
        raise BadSpec('user_identity_id is no uuid')
    for _ in range(int(wish['count'])):
        key = seam.api.make_key(identity, 1, None, WORKSPACE)
        key.seeded = True
        seam.api.add_key(key)
    return OK


# method, path, what it takes, function, doc
TABLE = (
    ('GET', '/fake/requests', '[?since=N]', tell_requests, 'what was asked, the last 200,000'),
    ('GET', '/fake/keys', '', tell_keys, 'every key ever issued'),
    ('GET', '/fake/stats', '', tell_stats, 'counts of requests, keys and connections'),
    ('POST', '/fake/behave', ' {"user_identity_id": U or "*", "spec": S, "times": N}', behave,
     'each request that concerns the identity misbehaves, N times; an empty spec forgets the identity\'s rules'),
    ('POST', '/fake/release', ' {"user_identity_id": U or "*"}', release, 'what is held of these goes on'),
    ('POST', '/fake/reset', ' {"seed": N}', reset, 'forget everything; the seed is that of "chance"'),
    ('POST', '/fake/clock', ' {"offset_seconds": N}', set_clock, 'moves Date and created_at'),
    ('POST', '/fake/life', ' {"seconds": N}', set_life, 'how long keys live that are issued from now on'),
    ('POST', '/fake/seed-keys', ' {"user_identity_id": U, "count": N}', seed_keys, 'so many keys more'),
)
FUNCTIONS = {(method, path): function for method, path, _, function, _ in TABLE}


def control(seam, head, body):
    """Answer a control request: status and body."""
    function = FUNCTIONS.get((head.method, head.path))
    if function is None:
        return 404, b'{"error":"no such control route"}'
    try:
        wish = json.loads(body) if body else {}
        return 200, json.dumps(function(seam, head, wish)).encode()
    except (BadSpec, ValueError, KeyError, TypeError) as error:
        return 400, json.dumps({'error': f'{error!r}'}).encode()


def control_help():
    """The table as the help shows it."""
    lines = []
    for method, path, takes, _, doc in TABLE:
        lines.append(f'    {method:4} {path}{takes}')
        lines += textwrap.wrap(doc, 79, initial_indent=' ' * 9, subsequent_indent=' ' * 9)
    return '\n'.join(lines)
