"""Answers without misbehaviour: errors of Seam's form, and the bytes of an answer."""

import json
import os

from .texts import as_uuid

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
# Seam's types of the errors that the fake finds by itself, where a handler does not know better.
ERROR_TYPES = {400: 'invalid_input', 401: 'unauthorized', 404: 'not_found'}


def error_pairs(kind, message, tree=None):
    """The pairs of an error answer."""
    error = {'type': kind, 'message': message}
    if tree is not None:
        error['validation_errors'] = tree
    return [('error', list(error.items())), ('ok', False)]


def dump(value):
    """JSON text of a value in which a list of pairs stands for an object, so that a name can stand twice."""
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return '{' + ','.join(json.dumps(name) + ':' + dump(inner) for name, inner in value) + '}'
    if isinstance(value, list):
        return '[' + ','.join(map(dump, value)) + ']'
    if isinstance(value, dict):
        return '{' + ','.join(json.dumps(name) + ':' + dump(inner) for name, inner in value.items()) + '}'
    return json.dumps(value)


def error_body(kind, message, tree=None):
    return dump(error_pairs(kind, message, tree)).encode()


def refuse(status, message, kind=None, tree=None):
    """What a handler returns in place of an answer: status, body, and no key."""
    return status, error_body(kind or ERROR_TYPES[status], message, tree), None


def invalid(field, message):
    """A 400 with Seam's tree of validation errors."""
    tree = {'_errors': []}
    if field is None:
        tree['_errors'].append(message)
    else:
        tree[field] = {'_errors': [message]}
    return refuse(400, 'Invalid input: ' + message, tree=tree)


def plain_answer(api, status, text, more=b''):
    """The bytes of an answer without misbehaviour, in one go; more: further header lines, each with its end."""
    api.now()
    return (b'HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n'
            b'Date: %s\r\nseam-request-id: %s\r\n%s\r\n%s' % (
                status, REASONS[status].encode(), JSON_TYPE.encode(), len(text), api.date,
                as_uuid(os.urandom(16).hex()).encode(), more, text))
