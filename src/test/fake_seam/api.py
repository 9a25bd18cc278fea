"""The keys and identities, and what each route of Seam's API does with them."""

import base64
import json
import os
import time

from .answers import invalid, refuse
from .texts import as_uuid, http_date, is_uuid

LIFETIME = 48 * 3600        # seconds from created_at to expires_at
CUSTOMIZATION = ('{"logo_url":"https://example.com/logo.png",'
                 '"primary_color":"#112233","secondary_color":"#445566"}')


class Key:
    """An instant key as it was issued, with its JSON ready to be sent."""

    __slots__ = ('key_id', 'url', 'identity', 'workspace', 'count', 'seeded', 'revoked', 'text')


class Api:
    """What Seam knows.

    A handler of a route takes the head, the request's JSON object and whether it may change anything, and returns
    status, body and the key that it issued.
    """

    def __init__(self):
        self.routes = {
            '/user_identities/generate_instant_key': self.generate,
            '/user_identities/create': self.create_identity,
            '/user_identities/list': self.list_identities,
            '/instant_keys/get': self.get_key,
            '/instant_keys/list': self.list_keys,
            '/instant_keys/delete': self.delete_key,
        }
        self.forget()

    def forget(self):
        """Start afresh: keys, identities, clock, the keys' lives."""
        self.lifetime = LIFETIME
        self.keys = []              # all, in the order of issue
        self.live = {}              # id -> Key
        self.by_url = {}            # URL -> Key, live ones
        self.by_identity = {}       # identity -> {id: Key}, live ones
        self.lists = {}             # (workspace, identity or None) -> JSON of its keys
        self.identities = []
        self.set_clock(0.0)

    # ---- time

    def set_clock(self, offset):
        """Seconds between the machine's clock and that of the fake."""
        self.offset = offset
        self.second = None          # that date, created and expires are of

    def set_life(self, seconds):
        """How long keys live that are issued from now on."""
        self.lifetime = seconds
        self.second = None

    def now(self):
        """The fake's time; also brings the ready-made texts up to date."""
        now = time.time() + self.offset
        second = int(now)
        if second != self.second:
            self.second = second
            self.date = http_date(second).encode()
            self.created = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))
            self.expires = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second + self.lifetime))
        return now

    # ---- keys

    def make_key(self, identity, count, profile, workspace):
        """A new Key, not yet among those that exist."""
        fraction = int(self.now() % 1 * 1e6)
        noise = os.urandom(32).hex()
        name = base64.urlsafe_b64encode(os.urandom(6)).decode()
        key = Key()
        key.key_id = as_uuid(noise)
        key.url = 'https://ik.seam.co/' + name
        key.identity = identity
        key.workspace = workspace
        key.count = count
        key.seeded = key.revoked = False
        extra = ''
        if profile is not None:
            extra = f',"customization_profile_id":"{profile}","customization":{CUSTOMIZATION}'
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
        self.forget_lists(key)

    def revoke_key(self, key):
        key.revoked = True
        del self.live[key.key_id], self.by_url[key.url]
        del self.by_identity[key.identity][key.key_id]
        self.forget_lists(key)

    def forget_lists(self, key):
        """The ready-made lists with this key are no longer true."""
        self.lists.pop((key.workspace, key.identity), None)
        self.lists.pop((key.workspace, None), None)

    def find_key(self, fields, workspace=None):
        """The live key that a request names by id or by URL, or None; in any workspace for None."""
        key_id = fields.get('instant_key_id')
        if isinstance(key_id, str):
            key = self.live.get(key_id.lower())
        else:
            url = fields.get('instant_key_url')
            key = self.by_url.get(url) if isinstance(url, str) else None
        return None if key is None or workspace not in (None, key.workspace) else key

    # ---- requests

    def serve(self, head, body, effect):
        """Status, body and issued key of a request, misbehaviour apart."""
        if head.problem is not None:
            return head.problem
        try:
            fields = json.loads(body)
        except ValueError:
            return refuse(400, 'Invalid JSON')
        if not isinstance(fields, dict):
            return invalid(None, 'Expected an object')
        return head.handler(head, fields, effect)

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

    # ---- routes

    def generate(self, head, fields, effect):
        identity = count = profile = None
        for name, value in fields.items():
            if name == 'user_identity_id':
                identity = value
            elif name == 'max_use_count':
                if type(value) is not int:
                    return invalid(name, 'Expected an integer')
                if value < 1:
                    return invalid(name, 'Must be 1 or more')
                count = value
            elif name == 'customization_profile_id':
                profile = value
                if not is_uuid(profile):
                    return invalid(name, 'Invalid uuid')
            else:
                return invalid(name, 'Unrecognized key')
        if not is_uuid(identity):
            return invalid('user_identity_id', 'Invalid uuid' if 'user_identity_id' in fields else 'Required')
        key = self.make_key(identity.lower(), 1 if count is None else count, profile and profile.lower(),
                            head.workspace)
        if effect:
            self.add_key(key)
        return 200, b'{"instant_key":' + key.text + b',"ok":true}', key

    def get_key(self, head, fields, effect):
        problem = check_names(fields, 'instant_key_id', 'instant_key_url')
        if problem:
            return problem
        if len(fields) != 1:
            return invalid(None, 'Send either instant_key_id or instant_key_url')
        key = self.find_key(fields, head.workspace)
        if key is None:
            return refuse(404, 'Instant key not found', 'instant_key_not_found')
        return 200, b'{"instant_key":' + key.text + b',"ok":true}', None

    def list_keys(self, head, fields, effect):
        problem = check_names(fields, 'user_identity_id')
        if problem:
            return problem
        identity = fields.get('user_identity_id')
        if identity is not None:
            identity = identity.lower()
        text = self.lists.get((head.workspace, identity))
        if text is None:
            keys = self.live if identity is None else self.by_identity.get(identity, {})
            text = b','.join([key.text for key in keys.values() if key.workspace == head.workspace])
            self.lists[head.workspace, identity] = text
        return 200, b'{"instant_keys":[' + text + b'],"ok":true}', None

    def delete_key(self, head, fields, effect):
        problem = check_names(fields, 'instant_key_id')
        if problem:
            return problem
        if 'instant_key_id' not in fields:
            return invalid('instant_key_id', 'Required')
        key = self.find_key(fields, head.workspace)
        if key is None:
            return refuse(404, 'Instant key not found', 'instant_key_not_found')
        if effect:
            self.revoke_key(key)
        return 200, b'{"ok":true}', None

    def create_identity(self, head, fields, effect):
        name = fields.pop('full_name', None)
        if fields:
            return invalid(next(iter(fields)), 'Unrecognized key')
        if name is not None and (not isinstance(name, str) or not name):
            return invalid('full_name', 'Expected a string')
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
        return 200, json.dumps({'user_identity': identity, 'ok': True}).encode(), None

    def list_identities(self, head, fields, effect):
        if fields:
            return invalid(next(iter(fields)), 'Unrecognized key')
        return 200, json.dumps({
            'user_identities': self.identities,
            'pagination': {'next_page_cursor': None, 'has_next_page': False, 'next_page_url': None},
            'ok': True}).encode(), None


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
