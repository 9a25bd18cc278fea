"""The functions that decide when the bytes of an answer go, and whether any do."""

import socket
import struct

from .answers import error_body, plain_answer

LINGER_S = 1.0              # how long the connection of an early answer is drained


# ---- EARLY and LATE

def refuse_early(connection, head, body, value):
    """early: 413 while the body may still be under way.

    The connection is drained for a while: closing it with unread data would send an RST, which can overtake the
    answer.
    """
    transport = connection.transport
    connection.served += 1
    connection.seam.record.add(connection, head, body, head.spec, 413, None)
    connection.deaf = True
    transport.write(plain_answer(connection.seam.api, 413, error_body('payload_too_large', 'The request is too large'),
                                 b'Connection: close\r\n'))
    if transport.can_write_eof():
        transport.write_eof()
        connection.loop.call_later(LINGER_S, transport.close)
    else:
        transport.close()


def begin_late(connection, head, body, plan, pause):
    """late: the rest of the plan in a while."""
    connection.loop.call_later(pause, connection.misbehave, head, body, plan.without('late'))


# ---- INSTEAD and INSTEAD_DONE

def hang(connection, value):
    """hang: the connection stays, and nothing more is read from it."""


def reset(connection, value):
    """reset: the connection ends by RST."""
    connection.transport.get_extra_info('socket').setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    connection.transport.abort()


def close(connection, value):
    """close: the connection ends by FIN."""
    connection.transport.close()


# ---- HOLD

def hold(connection, body, go, value):
    """hold: until POST /fake/release lets it go."""
    connection.seam.on_hold.append((connection.seam.api.concerned(body), go))


def delay(connection, body, go, pause):
    """delay: later."""
    connection.loop.call_later(pause, go)


# ---- SEND

def drip(connection, reply, answered, pause):
    """drip: all of the answer, byte by byte."""
    trickle(connection, pause, reply.head_bytes + reply.body_bytes, b'', answered)


def drip_head(connection, reply, answered, pause):
    """slowheaders: the head byte by byte, and the body at once."""
    trickle(connection, pause, reply.head_bytes, reply.body_bytes, answered)


def trickle(connection, pause, slow, rest, answered, at=0):
    """Send the slow bytes one by one, then the rest, then call answered()."""
    if connection.transport.is_closing():
        return
    if at < len(slow):
        connection.transport.write(slow[at:at + 1])
        connection.loop.call_later(pause, trickle, connection, pause, slow, rest, answered, at + 1)
        return
    connection.transport.write(rest)
    answered()


# ---- CLOSE

def close_idle(connection, pause):
    """close_idle: a client that uses the connection until then is served."""
    if pause:
        connection.loop.call_later(pause, connection.transport.close)
    else:
        connection.close()
