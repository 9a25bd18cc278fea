"""The process without which the fake has no business: it ends when that one does."""

import os

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
