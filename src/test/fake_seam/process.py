"""The command line, the sockets, and the help text."""

import argparse
import asyncio
import gc
import os
import select
import signal
import socket
import ssl
import sys
import time
import urllib.request

from .connection import Connection, Mute
from .control import control_help
from .misbehaviours import table_help
from .owner import Owner, starter
from .seam import Seam

OWNER_LOOK = 0.25           # seconds between two looks at --until's process
HELP = f"""A stand-in for Seam's API whose misbehaviour the request asks for.

    python3 src/test/fake_seam [--port N] [--tls-cert F --tls-key F]
            [--detach | --until PID] [--record FILE] [--stall-tls | --no-accept]
    python3 src/test/fake_seam --ask PORT PATH [JSON]
            GET, or POST of JSON, of that path

It listens on 127.0.0.1, prints its port on a line, and serves.  With TLS that
line holds a second port, of a plain listener of the same server, so that a
client without TLS reaches the control routes.

Misbehaviour is a SPEC: names or name=value pairs, separated by commas, values
percent-encoded.  It comes in the path, before the route:

    http://127.0.0.1:PORT/do/delay=50,status=429/user_identities/...

or by POST /fake/behave {{"user_identity_id": U or "*", "spec": S, "times": N}},
which holds for each request that concerns the identity.  A path's SPEC goes
first, then these rules in the order in which they came; the first that acts
wins.  The names:

{table_help()}

All may be combined, and an error body can be spoiled as a good one can.  A
name that is not in this list is answered with 599: a typing error shows.

Control, without authorization:

{control_help()}
"""


def listen(port, backlog):
    """A socket that listens; port 0: on one that is free."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(('127.0.0.1', port))
    sock.listen(backlog)
    return sock


def fill_backlog(sock):
    """Connect until the kernel answers no more; return what keeps it full."""
    clients = []
    while True:
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.setblocking(False)
        client.connect_ex(sock.getsockname())
        if not select.select([], [client], [], 0.3)[1]:
            client.close()
            return clients
        clients.append(client)


def detach():
    """Leave the foreground; only the child returns."""
    sys.stdout.flush()
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


async def serve(listeners, owner):
    """Serve (socket, protocol factory, TLS context) until the owner is gone."""
    loop = asyncio.get_running_loop()
    # A client that ends a handshake or a connection is no news here.
    loop.set_exception_handler(
        lambda _, context: None if isinstance(context.get('exception'), OSError)
        else loop.default_exception_handler(context))
    for sock, factory, context in listeners:
        await loop.create_server(factory, sock=sock, ssl=context, backlog=4096)
    while owner is None or not owner.gone():
        await asyncio.sleep(OWNER_LOOK if owner else 3600)


def ask(port, path, wish=None):
    """A control request from the command line: print the answer."""
    request = urllib.request.Request(
        f'http://127.0.0.1:{port}{path}',
        data=None if wish is None else wish.encode(),
        headers={'Content-Type': 'application/json'})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        print(answer.read().decode())


def parsed_options():
    parser = argparse.ArgumentParser(
        prog='fake_seam', description=HELP, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--port', type=int, default=0)
    parser.add_argument('--tls-cert', metavar='FILE')
    parser.add_argument('--tls-key', metavar='FILE')
    parser.add_argument('--detach', action='store_true', help='go to the background; end with the starter')
    parser.add_argument('--until', type=int, metavar='PID', help='end when this process does')
    parser.add_argument('--record', metavar='FILE', help='append each request as a line of JSON')
    parser.add_argument('--stall-tls', action='store_true', help='accept connections and say nothing')
    parser.add_argument('--no-accept', action='store_true', help='listen with a full backlog: connecting hangs')
    parser.add_argument('--ask', nargs='+', metavar=('PORT', 'PATH'),
                        help='ask the control route PATH; POST a third word')
    return parser.parse_args()


def main():
    options = parsed_options()
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    if options.ask:
        ask(*options.ask)
        return

    owner = None
    if options.detach:
        owner = Owner(starter())
    elif options.until:
        owner = Owner(options.until)

    sock = listen(options.port, 0 if options.no_accept else 4096)
    clients = fill_backlog(sock) if options.no_accept else None
    context = plain = None
    ports = [sock.getsockname()[1]]
    if options.tls_cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls_cert, options.tls_key)
        context.set_alpn_protocols(['http/1.1'])
        plain = listen(0, 4096)
        ports.append(plain.getsockname()[1])
    print(*ports, flush=True)
    if options.detach:
        detach()

    if options.no_accept:
        while clients and (owner is None or not owner.gone()):
            time.sleep(OWNER_LOOK)
        return
    seam = Seam(open(options.record, 'a', buffering=1, encoding='utf-8') if options.record else None)
    if options.stall_tls:
        listeners = [(sock, Mute, None)]
    else:
        listeners = [(sock, lambda: Connection(seam), context)]
        if plain is not None:
            listeners.append((plain, lambda: Connection(seam), None))
    # Hundreds of thousands of records live on: look for cycles rarely.
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    asyncio.run(serve(listeners, owner))
