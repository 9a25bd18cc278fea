"""What was asked, and the counts of it."""

import collections
import json
import time

REQUESTS_KEPT = 200_000


class Record:
    """Every request, and how many connections and answers are open."""

    def __init__(self, file=None):
        self.file = file            # where each request is appended as a line of JSON, or None
        self.open = 0               # connections that made a request
        self.in_flight = 0          # requests whose answer is held back
        self.forget()

    def forget(self):
        """Start afresh, but for what is open."""
        self.requests = collections.deque(maxlen=REQUESTS_KEPT)
        self.asked = 0
        self.connections = 0
        self.max_open = self.open
        self.max_in_flight = self.in_flight

    def add(self, connection, head, body, spec, status, key):
        """Keep a request; status None: no answer was sent."""
        self.asked += 1
        entry = (self.asked, connection.number, head, body, time.time(), spec, status, key and key.key_id)
        self.requests.append(entry)
        if self.file is not None:
            self.file.write(json.dumps(describe(entry)) + '\n')

    def since(self, number):
        """The requests after this one, as JSON shows them."""
        return [describe(entry) for entry in self.requests if entry[0] > number]

    def count_open(self):
        self.open += 1
        self.max_open = max(self.max_open, self.open)

    def count_in_flight(self):
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)


def describe(entry):
    """A recorded request as /fake/requests and --record show it."""
    number, connection, head, body, when, spec, status, key_id = entry
    return {'n': number, 'connection': connection, 'method': head.method,
            'path': head.path, 'target': head.target, 'headers': head.headers,
            'body': body.decode('utf-8', 'replace'), 'time': when,
            'spec': spec or '', 'status': status, 'instant_key_id': key_id}
