"""The outbox's part of the benchmark: what a request costs the session that
enqueues it, and how soon after the commit its key is there.

Unlike for the other parts, processors may halt, and PostgreSQL runs with fsync
and autovacuum, and with track_commit_timestamp: a commit is timed by PostgreSQL itself, both the one
that enqueued a request and the one that stored its key, so no poll is part of
a figure or disturbs it.
"""

import os
import pathlib
import re
import statistics
import subprocess
import time

from common import (API_KEY, PATH, Failure, command, fdatasync_ms, quantile,
                    rotated, wait_for)

REQUESTS = 10_000
PERIOD_MS = 20              # of the trickle
LATE_IDENTITY = '88888888-0000-4000-8000-000000000001'      # see slow_server.c
SESSION_REQUESTS = 20_000
TURN_REQUESTS = 2_000

WANTED_LATENCY = 1.15       # to the floor, the key in the booking's row
WANTED_FLOOR = 3            # the same without latency
WANTED_FUNCTION = 2         # without rows, without latency
WANTED_P50_MS = 5
WANTED_P99_MS = 20
WANTED_SENT_MS = 5

# Requests that were finished long ago, of rows with lower primary keys.
FINISHED = """
INSERT INTO seam_instant_key_request (user_identity_id, max_use_count,
	target_table, target_key, target_fields, target_hash, status, attempts,
	enqueued_at, attempted_at, finished_at, instant_key, seam_request_id,
	enqueued_by, system_identifier, origin, timeline_id)
SELECT i.id, 1, 'with_seam_ik'::regclass, jsonb_build_object('id', g),
	ARRAY['user_identity_id=guest', 'instant_key_id=key_id'],
	g - %(count)d, 'issued', 1, f.at, f.at, f.at,
	ROW(k.id, 'https://ik.seam.co/ABCXYZ', i.id, k.id, k.id, NULL, NULL,
		f.at, f.at + interval '2 days')::seam_instant_key,
	'0f0e0d0c-0b0a-4908-8706-050403020100', 10, s.system_identifier, 0, 1
FROM generate_series(1, %(count)d) AS g,
	pg_control_system() AS s,
	LATERAL (SELECT now() - interval '20 days' + g * interval '1 ms' AS at) AS f,
	LATERAL (SELECT ('20000000-0000-4000-8000-' || lpad(to_hex(g), 12, '0'))::uuid AS id) AS i,
	LATERAL (SELECT ('30000000-0000-4000-8000-' || lpad(to_hex(g), 12, '0'))::uuid AS id) AS k
"""

TABLES = """
CREATE TABLE without_trigger (id bigint PRIMARY KEY, guest uuid, key_id uuid,
	url text, expires_at timestamptz);
CREATE TABLE with_seam_ik (LIKE without_trigger INCLUDING ALL);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON with_seam_ik FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest',
		'instant_key_id=key_id', 'instant_key_url=url', 'expires_at=expires_at');
CREATE TABLE with_plpgsql (LIKE without_trigger INCLUDING ALL);
CREATE TABLE plain_queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	booking bigint, guest uuid, enqueued_at timestamptz DEFAULT now());
CREATE FUNCTION enqueue_plainly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO plain_queue (booking, guest) VALUES (new.id, new.guest);
	RETURN NULL;
END
$$;
CREATE TRIGGER enqueue AFTER INSERT ON with_plpgsql FOR EACH ROW
	EXECUTE FUNCTION enqueue_plainly()
"""

PG_NET_TABLES = """
CREATE TABLE with_pg_net (LIKE without_trigger INCLUDING ALL);
CREATE FUNCTION enqueue_by_pg_net() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM net.http_post('%s', jsonb_build_object(
		'user_identity_id', new.guest, 'max_use_count', 1));
	RETURN NULL;
END
$$;
CREATE TRIGGER enqueue AFTER INSERT ON with_pg_net FOR EACH ROW
	EXECUTE FUNCTION enqueue_by_pg_net()
"""


def identity(number):
    """SQL: a user identity for a number."""
    return "('10000000-0000-4000-8000-' || lpad(to_hex(%s), 12, '0'))::uuid" % number


class Outbox:
    """What is measured, and the tables of it."""

    def __init__(self, bench, latency_ms, concurrency):
        self.bench = bench
        self.quick = bench.quick
        self.machine, self.work = bench.machine, bench.work
        self.cluster = bench.cluster
        self.latency_ms, self.concurrency = latency_ms, concurrency
        self.log = self.work / 'arrivals'
        self.sent = 1 << 40             # by trickles: identities of their own
        self.has_pg_net = (
            pathlib.Path(command(bench.pg_config, '--sharedir').strip(),
                         'extension/pg_net.control').exists())

    # -- set-up ---------------------------------------------------------

    def run(self):
        # who sleeps for longer than a tick gets the processor late while
        # something spins there, and here everybody does
        self.machine.let_sleep()
        self.slow = self.bench.web.base['slow http']
        self.fast = self.bench.serve(0)
        self.logged = self.bench.serve(self.latency_ms, self.log)
        self.cluster.start(
            "shared_preload_libraries = 'seam_ik%s'"
            % (', pg_net' if self.has_pg_net else ''),
            'fsync = on', 'autovacuum = on', 'track_commit_timestamp = on',
            'max_wal_size = 4GB', 'seam_ik.worker = off',
            "seam_ik.api_key = '%s'" % API_KEY,
            "seam_ik.endpoint = '%s'" % self.slow,
            'seam_ik.max_concurrency = %d' % self.concurrency)
        self.session = self.cluster.session()
        self.session.ask(TABLES)
        if self.has_pg_net:
            self.session.ask('CREATE EXTENSION pg_net')
            self.session.ask(PG_NET_TABLES % (self.slow + PATH))
        else:
            print('pg_net is not installed: left out\n')

        print('The outbox: the processors may halt, and PostgreSQL runs with fsync.'
              ' An fdatasync on this disk takes %.2f ms\n(median; p99 %.2f), and each'
              ' commit waits for one.\n' % fdatasync_ms(self.work), flush=True)
        self.trigger_costs()
        self.select_one()
        self.configure(worker='on')
        self.throughput()
        self.trickle()
        self.behind_a_late_one()
        self.configure(endpoint=self.fast)
        self.drain(1000)
        self.memory()
        self.depth()
        self.turns()
        self.history()
        self.session.close()

    def configure(self, **settings):
        """Change settings of the worker."""
        for name, value in settings.items():
            self.session.ask("ALTER SYSTEM SET seam_ik.%s = '%s'" % (name, value))
        self.session.ask('SELECT pg_reload_conf()')
        time.sleep(0.5)

    # -- enqueueing -----------------------------------------------------

    def trigger_costs(self):
        print('What a trigger adds to an INSERT, AFTER ROW. Microseconds a row,'
              ' medians; nothing is sent meanwhile.')
        labels = ['seam_ik', 'plpgsql, plain table']
        if self.has_pg_net:
            labels.append('pg_net, unlogged')
        columns = {}
        for count, rounds in ((10_000, 5 if self.quick else 15),
                              (100_000, 3 if self.quick else 9)):
            columns['%d rows' % count] = self.added(count, rounds)
        print('%-24s' % '' + ''.join('%18s' % name for name in columns))
        for label in labels:
            row = '%-24s' % label
            for added in columns.values():
                ratio = statistics.median(
                    a / b for a, b in zip(added[label], added[labels[1]]))
                row += '%10.2f %6.2fx' % (statistics.median(added[label]), ratio)
            print(row)
        print('Wanted: no more than the plain table\'s.\n', flush=True)

    def added(self, count, rounds, truncate=True):
        """Microseconds a row beyond the table without a trigger, by label."""
        tables = {'none': 'without_trigger', 'seam_ik': 'with_seam_ik',
                  'plpgsql, plain table': 'with_plpgsql'}
        if self.has_pg_net:
            tables['pg_net, unlogged'] = 'with_pg_net'
        emptied = list(tables.values()) + ['plain_queue']
        if truncate:
            emptied.append('seam_instant_key_request')
        if self.has_pg_net:
            emptied.append('net.http_request_queue')
        times = {label: [] for label in tables}
        for turn in range(rounds + 1):
            for label in rotated(list(tables), turn):
                self.session.ask('TRUNCATE ' + ', '.join(emptied))
                self.session.ask('BEGIN')
                start = time.monotonic()
                self.session.ask('INSERT INTO %s SELECT g, %s FROM generate_series(1, %d) AS g'
                                 % (tables[label], identity('g'), count))
                elapsed = time.monotonic() - start
                # so that pg_net's worker does not see it either
                self.session.ask('ROLLBACK')
                if turn > 0:
                    times[label].append(elapsed * 1e6 / count)
        self.session.ask('TRUNCATE ' + ', '.join(emptied))
        return {label: [mine - none for mine, none in zip(each, times['none'])]
                for label, each in times.items() if label != 'none'}

    def select_one(self):
        """Is a session slower that has enqueued often?"""
        statements = 2000
        rounds = 5 if self.quick else 15
        text = ';'.join(['SELECT 1'] * statements).replace(';', ';\n')
        used, fresh = self.cluster.session(), self.cluster.session()
        used.ask('SET synchronous_commit = off')
        used.ask('DO $$ BEGIN FOR g IN 1..%d LOOP PERFORM seam_enqueue_instant_key(%s);'
                 ' COMMIT; END LOOP; END $$' % (SESSION_REQUESTS, identity('g')))
        times = {'used': [], 'fresh': []}
        for turn in range(rounds + 1):
            for label, session in rotated([('used', used), ('fresh', fresh)], turn):
                start = time.monotonic()
                session.ask(text)
                if turn > 0:
                    times[label].append((time.monotonic() - start) * 1e6 / statements)
        for session in (used, fresh):
            session.close()
        self.session.ask('TRUNCATE seam_instant_key_request')
        ratio = statistics.median(a / b for a, b in zip(times['used'], times['fresh']))
        print('SELECT 1 in a session that enqueued %d requests in as many transactions:'
              ' %.1f us; in a new one: %.1f us;\nratio %.3f. Wanted: 1.\n'
              % (SESSION_REQUESTS, statistics.median(times['used']),
                 statistics.median(times['fresh']), ratio), flush=True)

    # -- sending --------------------------------------------------------

    def wait(self, statement, wanted, seconds, pause=0.1):
        """Wait until a statement's value is the wanted one."""
        deadline = time.monotonic() + seconds
        while self.session.value(statement) != wanted:
            if time.monotonic() > deadline:
                raise Failure('%s is not %s; the queue: %s' % (
                    statement, wanted, self.session.ask('TABLE seam_instant_key_queue')))
            time.sleep(pause)

    def drain(self, count, poll=0.1):
        """Enqueue so many in one statement, and wait until all are issued.

        Returns the seconds from the commit until the first key, a tenth, nine
        tenths and all of them were stored.
        """
        first, last, xid = self.session.ask(
            'BEGIN; SELECT min(id), max(id), pg_current_xact_id() FROM'
            ' (SELECT seam_enqueue_instant_key(%s) AS id FROM generate_series(1, %d) AS g'
            ' OFFSET 0) AS enqueued; COMMIT' % (identity('g'), count))[0]
        table = 'FROM seam_instant_key_request WHERE request_id BETWEEN %s AND %s'
        ids = table % (first, last)
        # the last one is cheap to look at, and among the last to be issued
        self.wait("SELECT count(*) %s AND status = 'issued'" % (table % (last, last)),
                  '1', 60 + count / 500, poll)
        self.wait("SELECT count(*) %s AND status = 'issued'" % ids, str(count), 60, poll)
        return [float(row[0]) for row in self.session.ask(
            "SELECT extract(epoch FROM at - pg_xact_commit_timestamp('%s'::xid)) FROM unnest("
            ' (SELECT percentile_disc(ARRAY[0, 0.1, 0.9, 1])'
            ' WITHIN GROUP (ORDER BY pg_xact_commit_timestamp(xmin)) %s)) AS at' % (xid, ids))]

    def write_backs(self):
        """Seconds from the commit of so many rows until the last has its key."""
        self.session.ask('TRUNCATE with_seam_ik')
        xid = self.session.value(
            'BEGIN; INSERT INTO with_seam_ik SELECT g, %s FROM generate_series(1, %d) AS g;'
            ' SELECT pg_current_xact_id(); COMMIT' % (identity('g'), REQUESTS))
        self.wait('SELECT count(*) FROM with_seam_ik WHERE key_id IS NULL', '0', 120)
        return float(self.session.value(
            "SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin))"
            " - pg_xact_commit_timestamp('%s'::xid)) FROM with_seam_ik" % xid))

    def throughput(self):
        cases = {'%d ms latency' % self.latency_ms: (self.slow, 1 if self.quick else 3),
                 'no latency': (self.fast, 3 if self.quick else 9)}
        floors, mine, written, peers = {}, {}, {}, {}
        for name, (base, rounds) in cases.items():
            self.configure(endpoint=base)
            floor = self.bench.floor('multi', base)
            floor.ask(1000, self.concurrency)
            self.drain(1000)
            floors[name], mine[name], written[name] = [], [], []
            for _ in range(rounds):
                floors[name].append(floor.ask(REQUESTS, self.concurrency)[0] / 1e6)
                mine[name].append(self.drain(REQUESTS)[-1] * 1000)
                written[name].append(self.write_backs() * 1000)
            floor.close()
            if self.has_pg_net:
                peers[name] = self.pg_net(base)
        print('%d requests of one statement, %d calls at once. Milliseconds from the'
              ' commit until the last key is stored\n(and, of rows with the trigger,'
              ' written to the last row), medians, and the ratio to the floor.' % (REQUESTS, self.concurrency))
        print('%-24s' % '' + ''.join('%18s' % name for name in cases))
        print('%-24s' % 'floor' + ''.join(
            '%18.0f' % statistics.median(floors[name]) for name in cases))
        for label, times in (('seam_ik', mine), ('seam_ik, rows written', written)):
            print('%-24s' % label + ''.join('%10.0f %6.3fx' % (
                statistics.median(times[name]),
                statistics.median(a / b for a, b in zip(times[name], floors[name])))
                for name in cases))
        if self.has_pg_net:
            print('%-24s' % 'pg_net' + ''.join('%10.0f %6.1fx' % (
                peers[name], peers[name] / statistics.median(floors[name]))
                for name in cases))
        print('Wanted, with rows: at most %.2f times the floor with latency, %d times without; and'
              ' %d times without either.\n'
              % (WANTED_LATENCY, WANTED_FLOOR, WANTED_FUNCTION), flush=True)

    def pg_net(self, base):
        """Milliseconds of pg_net for so many requests (once: it takes long)."""
        self.session.ask('TRUNCATE net._http_response')
        self.session.ask(
            "SELECT count(net.http_post('%s', jsonb_build_object('user_identity_id', %s,"
            " 'max_use_count', 1))) FROM generate_series(1, %d) AS g"
            % (base + PATH, identity('g'), REQUESTS))
        start = time.monotonic()
        self.wait('SELECT count(*) FROM net._http_response', str(REQUESTS), 300)
        return (time.monotonic() - start) * 1000

    def arrivals(self):
        """When the requests of the server with a log had come, by identity."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return {line[0]: int(line[1]) / 1e6 for line in lines if len(line) == 2}

    def send_trickle(self, count):
        """Commit one request each PERIOD_MS.

        Returns of each, by its id, the identity and the transaction.
        """
        commits = {}
        start = time.monotonic()
        for i in range(count):
            time.sleep(max(0, start + i * PERIOD_MS / 1000 - time.monotonic()))
            self.sent += 1
            request, who, xid = self.session.ask(
                'SELECT seam_enqueue_instant_key(i), i, pg_current_xact_id()'
                ' FROM (SELECT %s AS i OFFSET 0) AS identity' % identity(self.sent))[0]
            commits[request] = (who, xid)
        return commits

    def latencies(self, commits):
        """Seconds from these commits until the request had come, and until its
        key was stored."""
        ids = ','.join(commits)
        self.wait("SELECT count(*) FROM seam_instant_key_request WHERE request_id IN (%s)"
                  " AND status = 'issued'" % ids, str(len(commits)), 30)
        arrivals = self.arrivals()
        committed = [float(row[0]) for row in self.session.ask(
            'SELECT extract(epoch FROM pg_xact_commit_timestamp(x))'
            " FROM unnest('{%s}'::xid[]) WITH ORDINALITY AS u(x, n) ORDER BY n"
            % ','.join(xid for _, xid in commits.values()))]
        stored = dict(self.session.ask(
            'SELECT request_id, extract(epoch FROM pg_xact_commit_timestamp(xmin))'
            ' FROM seam_instant_key_request WHERE request_id IN (%s)' % ids))
        return ([arrivals[who] - at for (who, _), at in zip(commits.values(), committed)],
                [float(stored[request]) - at for request, at in zip(commits, committed)])

    def print_latencies(self, label, sent, stored, beyond):
        print('%-24s%12.2f%12.2f%12.2f%12.2f' % (
            label, quantile(sent, 0.5) * 1000, quantile(sent, 0.99) * 1000,
            quantile(stored, 0.5) * 1000 - beyond, quantile(stored, 0.99) * 1000 - beyond))

    def trickle(self):
        count = 250 if self.quick else 1500
        self.configure(endpoint=self.logged)
        self.latencies(self.send_trickle(10))
        sent, stored = self.latencies(self.send_trickle(count))
        print('One request each %d ms (%d of them) to a server with %d ms latency.'
              ' Milliseconds from the commit until the\nrequest has arrived, and until'
              ' the key is stored, without the latency.'
              % (PERIOD_MS, count, self.latency_ms))
        print('%-24s%12s%12s%12s%12s' % ('', 'sent: p50', 'p99', 'stored: p50', 'p99'))
        self.print_latencies('seam_ik', sent, stored, self.latency_ms)
        print('Wanted: sent within %d, stored within %d and %d.\n'
              % (WANTED_SENT_MS, WANTED_P50_MS, WANTED_P99_MS), flush=True)

    def behind_a_late_one(self):
        """Does a slow call hold up others?"""
        late = self.session.value("SELECT seam_enqueue_instant_key('%s')" % LATE_IDENTITY)
        wait_for('the late request', lambda: LATE_IDENTITY in self.arrivals(), self.log)
        sent, stored = self.latencies(self.send_trickle(50))
        status = "SELECT status FROM seam_instant_key_request WHERE request_id = " + late
        if self.session.value(status) != 'in_flight':
            raise Failure('the late request is done too early')
        print('The same behind a request of 8 s (50 of them, while it is under way):')
        self.print_latencies('seam_ik', sent, stored, self.latency_ms)
        self.wait(status, 'issued', 15)
        print(flush=True)

    # -- size -----------------------------------------------------------

    def worker_process(self):
        """The worker's process, as PostgreSQL names it and as /proc does."""
        pid = self.session.value(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik worker'")

        # PostgreSQL and we may be in a namespace that /proc is not of
        namespace = os.readlink('/proc/self/ns/pid')
        for process in pathlib.Path('/proc').glob('[0-9]*'):
            try:
                status = (process / 'status').read_text()
                if (re.search(r'^NSpid:.*\t(\d+)$', status, re.M).group(1) == pid
                        and os.readlink(process / 'ns/pid') == namespace):
                    return pid, process.name
            except OSError:         # it has ended, or is somebody else's
                continue
        raise Failure('the worker is not found')

    def worker_memory(self):
        """The worker's process, and kilobytes of its anonymous memory."""
        pid, process = self.worker_process()
        text = (pathlib.Path('/proc') / process / 'smaps_rollup').read_text()
        return pid, int(re.search(r'^Anonymous: +(\d+)', text, re.M).group(1))

    def memory(self):
        count = 10_000 if self.quick else 100_000
        self.drain(10_000)
        before = self.worker_memory()
        self.drain(count, 0.5)
        after = self.worker_memory()
        if before[0] != after[0]:
            raise Failure('the worker was started anew')
        print('Memory of the worker before and after %d requests: %d kB, %d kB.'
              ' Wanted: no growth.\n' % (count, before[1], after[1]), flush=True)

    def worker_seconds(self):
        """The worker's process, and the seconds that it has had of a processor."""
        pid, namespaced = self.worker_process()
        ran = (pathlib.Path('/proc') / namespaced / 'schedstat').read_text().split()[0]
        return pid, int(ran) / 1e9

    def turn_cost(self, kind, count):
        """Microseconds of the worker for a request beside so many rows of a kind."""
        self.session.ask('TRUNCATE seam_instant_key_request')
        self.drain(1000)        # what a fresh worker does but once
        self.configure(worker='off')
        if kind == 'scheduled':
            self.session.ask("SELECT count(seam_enqueue_instant_key(%s, issue_at => now() + interval '1 day'))"
                             ' FROM generate_series(1, %d) AS g' % (identity('g'), count))
        else:
            status, due, finished = {'pending': ('pending', "'-infinity'", 'NULL'),
                                     'finished': ('issued', 'NULL', 'now()')}[kind]
            self.session.ask(
                'INSERT INTO seam_instant_key_request (user_identity_id, max_use_count, status,'
                ' next_attempt_at, finished_at, system_identifier, origin)'
                " SELECT %s, 1, '%s', %s, %s, r.system_identifier, r.origin FROM"
                ' generate_series(1, %d) AS g, (SELECT * FROM seam_instant_key_request LIMIT 1) AS r'
                % (identity('g'), status, due, finished, count))
        self.session.ask('VACUUM ANALYZE seam_instant_key_request')
        if kind != 'pending':
            self.session.ask('SELECT count(seam_enqueue_instant_key(%s)) FROM'
                             ' generate_series(1, %d) AS g' % (identity('g'), TURN_REQUESTS))
        issued = 'SELECT count(*) FROM seam_instant_key_request WHERE attempted_at IS NOT NULL' \
                 " AND status = 'issued'"
        already = int(self.session.value(issued))
        before = self.worker_seconds()
        self.configure(worker='on')
        least = min(count, TURN_REQUESTS) if kind == 'pending' else TURN_REQUESTS
        deadline = time.monotonic() + 120
        while (int(self.session.value(issued)) < already + least
               and time.monotonic() < deadline):
            time.sleep(0.05)
        self.configure(worker='off')
        after = self.worker_seconds()
        if before[0] != after[0]:
            raise Failure('the worker was started anew')
        done = int(self.session.value(issued)) - already
        self.configure(worker='on')
        return (after[1] - before[1]) * 1e6 / done

    def turns(self):
        """Does a turn of the worker cost more where much is in the table?"""
        count = 100_000 if self.quick else 1_000_000
        rounds = 1 if self.quick else 3
        print('What a request costs the worker, in microseconds of a processor, by what else'
              ' is in the table.')
        print('%-24s%12s%12s%9s' % ('', '1000', count, 'ratio'))
        for kind in ('pending', 'scheduled', 'finished'):
            few = statistics.median([self.turn_cost(kind, 1000) for _ in range(rounds)])
            many = statistics.median([self.turn_cost(kind, count) for _ in range(rounds)])
            print('%-24s%12.1f%12.1f%8.2fx' % (kind, few, many, many / few), flush=True)
        print('Wanted: at most 1.1 times as much.\n', flush=True)

    def depth(self):
        """Is a long queue as fast as a short one?"""
        count = 100_000 if self.quick else 1_000_000
        short = statistics.median(
            [1000 / self.drain(1000, 0.02)[-1] for _ in range(9)])
        print('Requests a second by the depth of the queue, no latency.')
        print('%-34s%10s%12s%12s' % ('', 'all', 'first 10 %', 'last 10 %'))
        print('%-34s%10.0f' % ('1000 (median of 9)', short))

        def long(label):
            first, tenth, nine_tenths, last = self.drain(count, 0.5)
            print('%-34s%10.0f%12.0f%12.0f%9.2fx' % (
                label, count / last, 0.1 * count / tenth,
                0.1 * count / (last - nine_tenths), count / last / short), flush=True)
        long('%d' % count)
        old = self.cluster.session()
        old.ask('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1')
        long('%d, beside an old snapshot' % count)
        old.ask('COMMIT')
        old.close()
        print('Wanted: the same.\n', flush=True)

    def history(self):
        """Do finished requests slow anything down?"""
        count = 200_000 if self.quick else 10_000_000
        rounds = 3 if self.quick else 7
        rows = {}

        def measure(label):
            # what the filling has left to be written is not what is asked for
            self.session.ask('CHECKPOINT')
            added = self.added(10_000, rounds, truncate=False)
            self.configure(endpoint=self.fast, worker='on')
            self.drain(1000)
            floor = self.bench.floor('multi', self.fast)
            floor.ask(1000, self.concurrency)
            floors, drained = [], []
            for _ in range(rounds):
                floors.append(floor.ask(REQUESTS, self.concurrency)[0] / 1e6)
                drained.append(self.drain(REQUESTS)[-1] * 1000)
            floor.close()
            self.configure(endpoint=self.logged)
            self.latencies(self.send_trickle(10))
            sent, stored = self.latencies(self.send_trickle(100))
            start = time.monotonic()
            self.session.ask('TABLE seam_instant_key_queue')
            view = (time.monotonic() - start) * 1000
            self.configure(worker='off')
            mine, plain = added['seam_ik'], added['plpgsql, plain table']
            rows[label] = (
                statistics.median(mine),
                statistics.median(a / b for a, b in zip(mine, plain)),
                statistics.median(drained),
                statistics.median(a / b for a, b in zip(drained, floors)),
                quantile(sent, 0.5) * 1000,
                quantile(stored, 0.5) * 1000 - self.latency_ms, view)

        self.configure(worker='off')
        self.session.ask('TRUNCATE seam_instant_key_request')
        measure('none before')
        self.session.ask(FINISHED % {'count': count})
        self.session.ask('VACUUM ANALYZE seam_instant_key_request')
        measure('%d finished before' % count)
        print('What finished requests in the table slow down: the trigger (us a row of'
              ' 10000, and the ratio to the plain table\'s),\n%d requests without'
              ' latency (ms, and the ratio to the floor), a trickle (ms, p50, as above),'
              ' the view\nseam_instant_key_queue (ms).' % REQUESTS)
        print('%-28s%16s%18s%12s%12s%12s' % (
            '', 'trigger', 'requests', 'sent', 'stored', 'view'))
        for label, figures in rows.items():
            print('%-28s%8.2f %6.2fx%10.0f %6.3fx%12.2f%12.2f%12.1f' % (label, *figures))
        print('Wanted: the same, but for the view, which counts them.\n', flush=True)
