"""The state of the fake."""

from .api import Api
from .record import Record
from .rules import Rules


class Seam:
    """What all connections share."""

    def __init__(self, record_file=None):
        self.api = Api()
        self.record = Record(record_file)
        self.on_hold = []           # of "hold": the identity, and what goes on
        self.forget(None)

    def forget(self, seed):
        """Start afresh: requests, keys, rules, counts, clock."""
        self.api.forget()
        self.rules = Rules(seed)
        self.heads = {}             # the bytes of a head -> Head
        self.record.forget()
