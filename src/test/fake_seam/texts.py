"""Uuids and dates as texts."""

import re
import time

UUID = re.compile(r'[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z')


def is_uuid(value):
    return isinstance(value, str) and UUID.match(value) is not None


def as_uuid(noise):
    """A version 4 uuid of the first 32 hexadecimal digits."""
    return f'{noise[:8]}-{noise[8:12]}-4{noise[13:16]}-a{noise[17:20]}-{noise[20:32]}'


def http_date(seconds):
    """An HTTP date; not by strftime's %a and %b, because they follow the locale."""
    at = time.gmtime(seconds)
    day = ('Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun')[at.tm_wday]
    month = ('Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec')[at.tm_mon - 1]
    return (f'{day}, {at.tm_mday:02d} {month} {at.tm_year} '
            f'{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} GMT')
