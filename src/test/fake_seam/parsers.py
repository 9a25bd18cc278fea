"""The values that stand in a SPEC: each function takes the bytes after the "=" and raises ValueError."""

import json


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
    """Milliseconds as seconds; 0 without a value."""
    return float(value) / 1000 if value else 0.0


def as_status(value):
    number = int(value)
    if not 100 <= number <= 999:
        raise ValueError('is no status')
    return number


def as_text(value):
    return value.decode('utf-8')


def as_target(value):
    """Where a redirect goes, as status and URL: of a number the URL, and of a URL the status is None."""
    text = as_text(value)
    return (as_status(value), None) if text.isdigit() else (None, text)


def as_retry_after(value):
    """When to come again, as seconds from now and text: one of the two is None."""
    text = as_text(value)
    return (float(text[len('date+'):]), None) if text.startswith('date+') else (None, text)


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
