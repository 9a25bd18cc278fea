"""One client: its requests are read, and answered or misbehaved to."""

import asyncio
import functools

from .answers import error_body, plain_answer
from .control import control
from .parsers import BadSpec
from .reply import answer_to, bad_spec
from .request import parsed_head
from .stages import CLOSE, EARLY, HOLD, INSTEAD, INSTEAD_DONE, LATE, SEND

HEAD_LIMIT = 1 << 20        # more than this without an empty line is no head


class Connection(asyncio.Protocol):
    """One client.  A request is answered before the next one is looked at."""

    def __init__(self, seam):
        self.seam = seam
        self.loop = asyncio.get_running_loop()
        self.buffer = b''
        self.served = 0             # API requests that were read
        self.busy = False           # an answer is under way, or never comes
        self.held = False           # it is counted among those in flight
        self.continued = False      # 100 Continue was sent for this request
        self.counted = False        # it is counted among the open connections
        self.deaf = False           # what comes is thrown away
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.seam.record.connections += 1
        self.number = self.seam.record.connections

    def connection_lost(self, error):
        self.release()
        self.deaf = True
        if self.counted:
            self.seam.record.open -= 1

    def release(self):
        """No answer of this connection is held back any more."""
        if self.held:
            self.held = False
            self.seam.record.in_flight -= 1

    def close(self):
        """End the connection by FIN; what has come since is not looked at."""
        self.deaf = True
        self.transport.close()

    def data_received(self, data):
        if self.deaf:
            return
        self.buffer = self.buffer + data if self.buffer else data
        while self.buffer and not self.busy and not self.deaf:
            if not self.take_request():
                break

    # ---- requests

    def take_request(self):
        """Serve the request at the buffer's start; False if more must come."""
        data = self.buffer
        end = data.find(b'\r\n\r\n')
        if end < 0:
            if len(data) > HEAD_LIMIT:
                self.reject(431, 'The head is too long')
            return False
        end += 4
        try:
            head = parsed_head(data[:end], self.seam)
        except ValueError as error:
            self.reject(400, f'Not a request: {error}')
            return False
        early = head.plan and head.plan.first(EARLY)
        if early and self.seam.rules.acts(head.plan, self, head):
            function, value = early
            function(self, head, data[end:], value)
            return False
        total = end + head.length
        if len(data) < total:
            if head.expects and not self.continued:
                self.continued = True
                self.transport.write(b'HTTP/1.1 100 Continue\r\n\r\n')
            return False
        self.continued = False
        self.buffer = data[total:]
        self.serve(head, data[end:total])
        return True

    def serve(self, head, body):
        """Answer a request that is here as a whole."""
        seam = self.seam
        if head.is_control:
            if not self.served:
                seam.record.connections -= 1
            status, text = control(seam, head, body)
            self.transport.write(plain_answer(seam.api, status, text))
        else:
            if not self.counted:
                self.counted = True
                seam.record.count_open()
            plan = None
            if head.plan is not None or seam.rules.of_identities:
                plan = seam.rules.choose(self, head, body)
            self.served += 1
            if plan is not None:
                self.misbehave(head, body, plan)
                return
            status, text, key = seam.api.serve(head, body, True)
            seam.record.add(self, head, body, head.spec, status, key)
            self.transport.write(plain_answer(seam.api, status, text))
        if head.closes:
            self.transport.close()

    def reject(self, status, message):
        """Answer what is no request, and close."""
        self.transport.write(plain_answer(self.seam.api, status, error_body('bad_request', message)))
        self.close()

    # ---- misbehaviour: each stage of stages.py in its turn

    def misbehave(self, head, body, plan):
        """Serve one request as the plan says."""
        seam = self.seam
        self.busy = True
        if not (self.held or self.transport.is_closing()):
            self.held = True
            seam.record.count_in_flight()
        late = plan.first(LATE)
        if late:
            function, value = late
            function(self, head, body, plan, value)
            return
        reply = key = None
        if plan.is_silent:
            if plan.first(INSTEAD) is None:
                key = seam.api.serve(head, body, True)[2]
            seam.record.add(self, head, body, plan.spec, None, key)
        else:
            try:
                reply = answer_to(seam.api, head, body, plan)
            except BadSpec as error:
                reply = bad_spec(seam.api, head, error)
            seam.record.add(self, head, body, plan.spec, reply.status, reply.key)
        go = functools.partial(self.perform, plan, reply, head.closes or plan.closes)
        hold = plan.first(HOLD)
        if hold:
            function, value = hold
            function(self, body, go, value)
        else:
            go()

    def perform(self, plan, reply, closes):
        """Do on the wire what was decided, now that its time has come; without a reply, what the plan does instead."""
        if self.transport.is_closing():
            return
        if reply is None:
            function, value = plan.first(INSTEAD) or plan.first(INSTEAD_DONE)
            function(self, value)
            return
        send = plan.first(SEND)
        if send:
            function, value = send
            function(self, reply, functools.partial(self.answered, plan, closes), value)
        else:
            self.transport.write(reply.head_bytes + reply.body_bytes)
            self.answered(plan, closes)

    def answered(self, plan, closes):
        """The answer is out: close, or go on with what has come since."""
        self.release()
        close = plan.first(CLOSE)
        if close:
            function, value = close
            function(self, value)
        elif closes:
            self.close()
        if self.deaf:
            return
        self.busy = False
        if self.buffer:
            self.loop.call_soon(self.data_received, b'')


class Mute(asyncio.Protocol):
    """Accepts and says nothing: a TLS handshake never gets anywhere."""
