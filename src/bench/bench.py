"""Measure seam_ik against a bare libcurl loop and against other ways.

Started by src/bench/inside, which stages the extension, makes the
certificates, builds floor and slow_server, and puts the benchmark's own CA
among the system's, in a mount namespace that ends with the run.  Everything is
on loopback and below WORK.

All that is compared is measured in turns within one run: the contenders take
short rounds one after another, in an order that rotates, and a ratio is the
median of the ratios to the floor within the same round.  So what else the
machine does in the meantime hits all alike.
"""

import argparse
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading

from common import (API_KEY, ANSWER, BODY, IDENTITY, Cluster, Failure, Floor,
                    Machine, command, free_ports, rotated, wait_for)
from outbox import Outbox
from protection import Protection
from report import Report
from stays import Stays
from sustained import Sustained

HERE = pathlib.Path(__file__).resolve().parent
LATENCY_MS = 50
BATCH_SIZE = 1000
BATCH_CONCURRENCY = 100
PARTS = ('warm', 'connect', 'batch', 'protection', 'outbox', 'stays', 'sustained')

# What issue and README promise, as multiples of the floor or in milliseconds.
WANTED_WARM = 1.05
WANTED_CONNECT_MS = 3.0
WANTED_BATCH_LATENCY = 1.15
WANTED_BATCH_IDEAL = 1.3
WANTED_BATCH = 1.25


class Web:
    """nginx with the fixed answer, and the server that waits."""

    def __init__(self, machine, work):
        (work / 'answer.json').write_text(ANSWER)
        slow = machine.start(
            machine.server_cpu,
            [work / 'slow_server', LATENCY_MS, work / 'answer.json'],
            stdout=subprocess.PIPE, text=True)
        ports = {'SLOW': int(slow.stdout.readline())}
        ports.update(zip(('HTTP', 'HTTPS', 'HTTP2', 'CLOSING'), free_ports(4)))
        text = (HERE / 'nginx.conf.in').read_text()
        values = dict(ports, WORK=work, ANSWER=ANSWER)
        for name, value in values.items():
            text = text.replace('@%s@' % name, str(value))
        (work / 'nginx.conf').write_text(text)
        machine.start(machine.server_cpu,
                      ['nginx', '-e', work / 'nginx.log', '-c', work / 'nginx.conf'])
        self.base = {
            'http': 'http://127.0.0.1:%(HTTP)d' % ports,
            'https': 'https://127.0.0.1:%(HTTPS)d' % ports,
            'https h2': 'https://127.0.0.1:%(HTTP2)d' % ports,
            'closing': 'https://127.0.0.1:%(CLOSING)d' % ports,
            'slow http': 'http://127.0.0.1:%(SLOW)d' % ports,
            'slow https': 'https://127.0.0.1:%(HTTPS)d/slow' % ports,
            'slow https h2': 'https://127.0.0.1:%(HTTP2)d/slow' % ports,
        }
        self.port = ports['HTTP']
        wait_for('nginx', lambda: self.counters() is not None, work / 'nginx.log')

    def counters(self):
        """Connections accepted and requests answered by nginx so far."""
        try:
            with socket.create_connection(('127.0.0.1', self.port)) as s:
                s.sendall(b'GET /status HTTP/1.0\r\n\r\n')
                text = s.makefile().read()
        except ConnectionError:
            return None
        accepted, _, requests = re.search(r'(\d+) (\d+) (\d+)', text).groups()
        return int(accepted), int(requests)


class Catcher:
    """A server for a few requests, whose bytes it keeps."""

    def __init__(self):
        self.requests = []
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.base = 'http://127.0.0.1:%d' % self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.listener.accept()
            with connection:
                data = b''
                while not data.endswith(BODY[-1:].encode()):
                    data += connection.recv(65536)
                self.requests.append(data.decode())
                connection.sendall(
                    ('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'
                     'Connection: close\r\nContent-Length: %d\r\n\r\n%s'
                     % (len(ANSWER), ANSWER)).encode())


def loop(call, count):
    """SQL: microseconds a call of `count` calls, timed by the server.

    The function is volatile and stands in the list of a subquery that OFFSET 0
    fences off, so it is called once for each row; Bench.check() counts.
    """
    return ("SELECT extract(epoch FROM clock_timestamp() - statement_timestamp())"
            " * 1e6 / %d, n FROM (SELECT count(k) AS n"
            " FROM (SELECT %s AS k FROM generate_series(1, %d) OFFSET 0) AS calls)"
            " AS loop" % (count, call, count))


class Bench:
    """What is measured, and the table of it."""

    def __init__(self, options, work):
        self.quick = options.quick
        self.parts = options.parts or PARTS
        self.work = work
        self.machine = Machine(options.let_sleep)
        self.report = Report()
        self.headers = [
            'User-Agent: seam_ik', 'Accept: application/json',
            'Content-Type: application/json', 'Authorization: Bearer ' + API_KEY,
        ]

    # -- set-up ---------------------------------------------------------

    def run(self, pg_config):
        self.pg_config = pg_config
        self.web = Web(self.machine, self.work)
        self.cluster = Cluster(self.machine, self.work, pg_config)
        self.cluster.start()
        session = self.cluster.session()
        session.ask('CREATE EXTENSION seam_ik')
        session.ask((HERE / 'peers.sql').read_text())
        extensions = {row[0] for row in session.ask(
            'SELECT extname FROM pg_extension')}
        self.has_plpython = 'plpython3u' in extensions
        self.has_pgsql_http = 'http' in extensions
        self.has_batch = session.value(
            "SELECT to_regproc('seam_generate_instant_keys') IS NOT NULL") == 't'
        session.close()
        self.same_request()
        self.introduce()
        if 'connect' in self.parts:
            first = self.first_calls(preloaded=False)
        self.cluster.start("shared_preload_libraries = 'seam_ik'")
        if 'warm' in self.parts:
            self.warm_calls()
            self.pieces()
        if 'connect' in self.parts:
            self.first_and_reconnect(first)
        if 'batch' in self.parts:
            self.batches()
        if 'protection' in self.parts:
            Protection(self, self.serve).run(LATENCY_MS)
        if 'outbox' in self.parts:
            Outbox(self, LATENCY_MS, BATCH_CONCURRENCY).run()
        if 'stays' in self.parts:
            Stays(self, LATENCY_MS, BATCH_CONCURRENCY).run()
        if 'sustained' in self.parts:
            Sustained(self).run()
        folder = self.work / 'keep' / 'bench'
        folder.mkdir()
        self.report.write(folder)

    def serve(self, delay_ms, *log):
        """Start a server that answers after a delay, and return its URL."""
        server = self.machine.start(
            self.machine.server_cpu,
            [self.work / 'slow_server', delay_ms, self.work / 'answer.json', *log],
            stdout=subprocess.PIPE, text=True)
        return 'http://127.0.0.1:%d' % int(server.stdout.readline())

    def seam_session(self, base, *more, api_key="api_key = '%s'" % API_KEY):
        """A session whose calls are compared with the floor's: what the protection
        of their keys costs is a part of its own."""
        return self.cluster.session(
            'SET seam_ik.revoke_on_rollback = off',
            'SET seam_ik.' + api_key,
            "SET seam_ik.endpoint = '%s'" % base, *more)

    def pgsql_http_session(self):
        # as a setting, keep-alive is lost when it is SET before the library is there
        return self.cluster.session(
            "LOAD 'http'", "SELECT http_set_curlopt('CURLOPT_TCP_KEEPALIVE', '1')")

    def floor(self, mode, base):
        return Floor(self.machine, self.work, self.headers, mode, base)

    def same_request(self):
        """Give the floor the headers that seam_ik sends, and compare."""
        catcher = Catcher()
        session = self.seam_session(catcher.base)
        session.ask(loop(self.seam_call(), 1))
        session.close()
        ours = catcher.requests[0]
        self.headers = [
            line for line in ours.split('\r\n\r\n')[0].split('\r\n')[1:]
            if not line.lower().startswith(('host:', 'content-length:'))]
        self.first_floor(catcher.base)
        theirs = catcher.requests[1]

        def parts(request):
            head, body = request.split('\r\n\r\n')
            lines = head.split('\r\n')
            return [lines[0], *sorted(line.lower() for line in lines[1:]), body]
        if parts(ours) != parts(theirs):
            raise Failure('the floor sends another request than seam_ik:\n%s\n%s'
                          % (ours, theirs))

    def introduce(self):
        machine = self.machine
        curl = command('curl-config', '--version').split()[1]
        self.report.measured_on(self.cluster.version, curl)
        print('%s, libcurl %s, nginx on loopback' % (self.cluster.version, curl))
        if machine.server_cpu == machine.client_cpu:
            print('servers and clients share the one processor')
        else:
            print('servers are pinned to processor %d, clients and PostgreSQL to'
                  ' processor %d' % (machine.server_cpu, machine.client_cpu))
        print('the processors are %s to halt when idle'
              % ('not allowed' if machine.spinner else 'allowed'))
        for name, there in (('plpython3u', self.has_plpython),
                            ('pgsql-http', self.has_pgsql_http)):
            if not there:
                print('%s is not installed: left out' % name)
        print(flush=True)

    # -- the calls ------------------------------------------------------

    @staticmethod
    def seam_call():
        return "seam_generate_instant_key('%s', 1)" % IDENTITY

    @staticmethod
    def plpython_call(base):
        return "plpython_key('%s', '%s', '%s', 1)" % (base, API_KEY, IDENTITY)

    @staticmethod
    def pgsql_http_call(base):
        return "pgsql_http_key('%s', '%s', '%s', 1)" % (base, API_KEY, IDENTITY)

    def first_floor(self, base):
        """Microseconds of the first request of a new process."""
        floor = self.floor('first', base)
        microseconds = int(floor.process.stdout.read()) / 1000
        floor.close()
        return microseconds

    # -- warm calls -----------------------------------------------------

    def warm_calls(self):
        rounds, calls = (30, 100) if self.quick else (100, 200)
        key_file = self.work / 'api_key'
        key_file.write_text(API_KEY + '\n')
        key_file.chmod(0o600)
        schemes = ('http', 'https', 'https h2')
        contenders = {}
        sessions = []

        def add(label, scheme, session, call):
            sessions.append(session)
            session.ask('PREPARE calls AS ' + loop(call, calls))
            contenders[label, scheme] = (
                lambda: float(session.ask('EXECUTE calls')[0][0]))

        for scheme in schemes:
            base = self.web.base[scheme]
            floor = self.floor('easy', base)
            sessions.append(floor)
            contenders['floor', scheme] = (
                lambda floor=floor: floor.ask(calls)[0] / 1000 / calls)
            add('seam_ik', scheme, self.seam_session(base), self.seam_call())
            add('seam_ik, key file', scheme, self.seam_session(
                base, api_key="api_key_file = '%s'" % key_file), self.seam_call())
            if scheme == 'https h2':
                continue
            if self.has_plpython:
                add('plpython3u', scheme, self.cluster.session(),
                    self.plpython_call(base))
            if self.has_pgsql_http:
                add('pgsql-http', scheme, self.pgsql_http_session(),
                    self.pgsql_http_call(base))

        for (label, scheme), contender in contenders.items():
            self.check(label, scheme, contender, calls)
        times = {name: [] for name in contenders}
        for turn in range(rounds):
            for name in rotated(list(contenders), turn):
                times[name].append(contenders[name]())
        for session in sessions:
            session.close()

        print('One call after another in a warm session, row and all.'
              ' Microseconds a call: medians of\n%d rounds of %d calls;'
              ' and the ratio to the floor.  Wanted: at most %.2f.'
              % (rounds, calls, WANTED_WARM))
        print('%-20s' % '' + ''.join('%18s' % scheme for scheme in schemes))
        for label in dict.fromkeys(label for label, _ in contenders):
            row = '%-20s' % label
            for scheme in schemes:
                if (label, scheme) not in times:
                    row += '%18s' % '-'
                    continue
                mine, floor = times[label, scheme], times['floor', scheme]
                ratio = statistics.median(a / b for a, b in zip(mine, floor))
                row += '%10.1f %6.3fx' % (statistics.median(mine), ratio)
                self.report.add('warm', label, scheme, statistics.median(mine))
            print(row)
        print(flush=True)

    def check(self, label, scheme, contender, calls):
        """Warm up, and see that so many calls are requests on one connection."""
        contender()
        accepted, requests = self.web.counters()
        contender()
        accepted_after, requests_after = self.web.counters()
        # the second look is itself a connection and a request
        made = requests_after - requests - 1
        opened = accepted_after - accepted - 1
        if made != calls or opened > 0:
            raise Failure('%s over %s: %d calls made %d requests on %d new'
                          ' connections' % (label, scheme, calls, made, opened))

    # -- connections ----------------------------------------------------

    def first_call(self, session, call):
        """Microseconds of a session's first call: alone, and its statement."""
        alone, whole, _ = session.ask(
            "SELECT extract(epoch FROM b - a) * 1e6,"
            " extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1e6,"
            " k FROM (SELECT clock_timestamp() AS a, %s AS k,"
            " clock_timestamp() AS b OFFSET 0) AS calls" % call)[0]
        return float(alone), float(whole)

    def first_calls(self, preloaded):
        """Times of first https calls of new sessions and processes, by label."""
        base = self.web.base['https']
        times = {}

        def add(label, microseconds):
            times.setdefault(label, []).append(microseconds)

        for _ in range(5 if self.quick else 21):
            if preloaded:
                add('floor', self.first_floor(base))
            session = self.seam_session(base)
            alone, whole = self.first_call(session, self.seam_call())
            session.close()
            add('seam_ik', alone)
            add('seam_ik statement', whole)
            if preloaded and self.has_plpython:
                session = self.cluster.session()
                add('plpython3u', self.first_call(
                    session, self.plpython_call(base))[0])
                session.close()
            if preloaded and self.has_pgsql_http:
                session = self.pgsql_http_session()
                add('pgsql-http', self.first_call(
                    session, self.pgsql_http_call(base))[0])
                session.close()
        return {label: statistics.median(each) / 1000
                for label, each in times.items()}

    def reconnects(self):
        """Times of calls that each need a new TLS connection, by label."""
        rounds, calls = (3, 5) if self.quick else (9, 10)
        base = self.web.base['closing']
        floor = self.floor('easy', base)
        sessions = [floor]
        contenders = {
            'floor': lambda: floor.ask(calls)[0] / 1000 / calls,
        }

        def add(label, session, call):
            sessions.append(session)
            session.ask(loop(call, 2))
            contenders[label] = (
                lambda: float(session.ask(loop(call, calls))[0][0]))

        floor.ask(2)
        add('seam_ik', self.seam_session(base), self.seam_call())
        if self.has_plpython:
            add('plpython3u', self.cluster.session(), self.plpython_call(base))
        if self.has_pgsql_http:
            add('pgsql-http', self.pgsql_http_session(), self.pgsql_http_call(base))
        times = {label: [] for label in contenders}
        for turn in range(rounds):
            for label in rotated(list(contenders), turn):
                times[label].append(contenders[label]())
        for session in sessions:
            session.close()
        return {label: statistics.median(each) / 1000
                for label, each in times.items()}

    def first_and_reconnect(self, not_preloaded):
        first = self.first_calls(preloaded=True)
        again = self.reconnects()
        wanted = 'wanted: under %.0f' % WANTED_CONNECT_MS
        print('New TLS connections, with the system\'s CA certificates (%d of them).'
              ' Milliseconds, medians.'
              % pathlib.Path(os.environ['CA_BUNDLE']).read_text().count('BEGIN CERT'))
        print('%-20s%18s%18s' % ('', 'first call', 'reconnect'))
        for label in ('floor', 'seam_ik', 'plpython3u', 'pgsql-http'):
            if label in first:
                self.report.add('connect', label, 'first call', first[label])
                self.report.add('connect', label, 'later', again[label])
                print('%-20s%18.2f%18.2f%s' % (
                    label, first[label], again[label],
                    '    ' + wanted if label == 'seam_ik' else ''))
        print('seam_ik\'s library is preloaded above; its first statement takes'
              ' %.2f ms with planning and cold\ncaches. Not preloaded: call'
              ' %.2f, statement with the loading of the library %.2f ms.'
              % (first['seam_ik statement'], not_preloaded['seam_ik'],
                 not_preloaded['seam_ik statement']))
        print(flush=True)

    # -- batches --------------------------------------------------------

    def batches(self):
        """A batch of keys against a bare libcurl multi loop."""
        rounds = 2 if self.quick else 5
        cases = ('http', 'slow http', 'slow https', 'slow https h2')
        ideal = LATENCY_MS * BATCH_SIZE / BATCH_CONCURRENCY
        print('%d keys, %d requests in flight, on warm connections. Milliseconds,'
              ' medians of %d; the server\'s\nlatency is %d ms where it is slow, so'
              ' %.0f would be ideal.' % (BATCH_SIZE, BATCH_CONCURRENCY, rounds,
                                         LATENCY_MS, ideal))
        print('%-20s' % '' + ''.join('%18s' % case for case in cases))
        floors, mine = {}, {}
        for case in cases:
            floor = self.floor('multi', self.web.base[case])
            session = None
            if self.has_batch:
                session = self.seam_session(
                    self.web.base[case],
                    'SET seam_ik.max_concurrency = %d' % BATCH_CONCURRENCY,
                    'SET seam_ik.progress_interval = 0')
            floors[case], mine[case] = [], []
            for turn in range(rounds + 1):
                milliseconds = floor.ask(BATCH_SIZE, BATCH_CONCURRENCY)[0] / 1e6
                if turn > 0:
                    floors[case].append(milliseconds)
                if session:
                    milliseconds = self.batch(session)
                    if turn > 0:
                        mine[case].append(milliseconds)
            floor.close()
            if session:
                session.close()
        print('%-20s' % 'floor' + ''.join(
            '%18.0f' % statistics.median(floors[case]) for case in cases))
        for label, times in (('floor', floors), ('seam_ik', mine)):
            for case in cases:
                if times[case]:
                    self.report.add('batch', label, case, statistics.median(times[case]))
        if self.has_batch:
            row = '%-20s' % 'seam_ik'
            for case in cases:
                ratio = statistics.median(
                    a / b for a, b in zip(mine[case], floors[case]))
                row += '%10.0f %6.3fx' % (statistics.median(mine[case]), ratio)
            print(row)
            print('Wanted: at most %.2f times the floor and %.0f ms on the slow'
                  ' server, %.2f times the floor on the other.'
                  % (WANTED_BATCH_LATENCY, WANTED_BATCH_IDEAL * ideal, WANTED_BATCH))
        if self.has_pgsql_http:
            base = self.web.base['slow http']
            session = self.pgsql_http_session()
            count = 10 if self.quick else 40
            each = float(session.ask(
                loop(self.pgsql_http_call(base), count))[0][0])
            session.close()
            self.report.add('batch', 'pgsql-http', 'slow http', each * BATCH_SIZE / 1000)
            print('pgsql-http, row by row, on the slow server over http: %.0f ms'
                  ' (%d calls, taken times %d)'
                  % (each * BATCH_SIZE / 1000, count, BATCH_SIZE // count))
        print(flush=True)

    @staticmethod
    def batch(session):
        milliseconds, made = session.ask(
            "SELECT extract(epoch FROM clock_timestamp() - statement_timestamp())"
            " * 1e3, n FROM (SELECT count((b.instant_key).instant_key_url) AS n"
            " FROM seam_generate_instant_keys(array_fill('%s'::uuid, ARRAY[%d]))"
            " AS b) AS batch" % (IDENTITY, BATCH_SIZE))[0]
        if int(made) != BATCH_SIZE:
            raise Failure('a batch of %d made %s keys' % (BATCH_SIZE, made))
        return float(milliseconds)

    # -- context --------------------------------------------------------

    def pieces(self):
        """What parts of a call cost where no request is made."""
        answer = ANSWER.replace("'", "''")
        pieces = (
            ('a row of the loop with a trivial C function', 'clock_timestamp()'),
            ('the answer\'s text to jsonb and to the row, no request',
             "(random()::text, jsonb_populate_record(NULL::peer_key,"
             " '%s'::text::jsonb -> 'instant_key'))" % answer),
        )
        session = self.cluster.session()
        print('Pieces of a call, for scale. Microseconds.')
        for label, call in pieces:
            session.ask(loop(call, 2000))
            times = [float(session.ask(loop(call, 2000))[0][0]) for _ in range(9)]
            print('%-60s%8.2f' % (label, statistics.median(times)))
        print(flush=True)
        session.close()


def main():
    parser = argparse.ArgumentParser(prog='src/bench/run', description=(
        'Compare seam_ik with a bare libcurl loop, plpython3u and pgsql-http.'))
    parser.add_argument('--quick', action='store_true',
                        help='fewer rounds: about three minutes')
    parser.add_argument('--let-sleep', action='store_true',
                        help='let idle processors halt')
    parser.add_argument('parts', nargs='*', metavar='PART',
                        help='%s; all by default' % ', '.join(PARTS))
    options = parser.parse_args()
    for part in options.parts:
        if part not in PARTS:
            parser.error('there is no part "%s"' % part)

    def end(number, _):
        raise Failure('ended by signal %d' % number)
    signal.signal(signal.SIGTERM, end)
    bench = Bench(options, pathlib.Path(os.environ['WORK']))
    try:
        bench.run(os.environ['PG_CONFIG'])
    except (Failure, KeyboardInterrupt) as failure:
        sys.exit('bench: %s' % (failure or 'interrupted'))
    finally:
        bench.machine.stop()


if __name__ == '__main__':
    main()
