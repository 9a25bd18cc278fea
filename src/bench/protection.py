"""The part of the benchmark about keys that follow their transaction: what it
costs that a call is recorded before it is made, and that its transaction
commits durably.

PostgreSQL runs with fsync, on all processors, which may halt.
"""

import os
import re
import statistics
import subprocess
import time

from common import API_KEY, Failure, fdatasync_ms, quantile, rotated

SESSIONS = 64
CALLS = 10                  # of a transaction, where several share one
LONG_SESSION = 20_000

WANTED_MS = 0.15            # beyond a call without protection and two flushes
WANTED_MANY_MS = 2.5
WANTED_BESIDE_MS = 2

# The median time of a call, in microseconds: all in one transaction, or each in
# one of its own.  The identities are new ones.
PROCEDURE = """
CREATE PROCEDURE measure(calls int, commits boolean, INOUT us float8) LANGUAGE plpgsql AS $$
DECLARE
	times float8[] := '{}';
	start timestamptz;
BEGIN
	FOR i IN 1 .. calls LOOP
		start := clock_timestamp();
		PERFORM seam_generate_instant_key(gen_random_uuid());
		IF commits THEN
			COMMIT;
		END IF;
		times[i] := extract(epoch FROM clock_timestamp() - start) * 1000000;
	END LOOP;
	SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t) INTO us FROM unnest(times) t;
END
$$
"""
# The least that a durable record before a call and another after it can cost: a row of a
# plain table with one index, and one of a plain table with three, each committed by the
# session itself, around a call that is not protected.
LEAST_TABLES = """
CREATE TABLE least_before (call_id uuid PRIMARY KEY, transaction_id xid8, called_at timestamptz);
CREATE TABLE least_after (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid,
	key_id uuid, issued_at timestamptz);
CREATE INDEX ON least_after (guest);
CREATE INDEX ON least_after (key_id)
"""
LEAST = """
CREATE PROCEDURE measure_least(calls int, INOUT us float8) LANGUAGE plpgsql AS $$
DECLARE
	times float8[] := '{}';
	start timestamptz;
BEGIN
	FOR i IN 1 .. calls LOOP
		start := clock_timestamp();
		INSERT INTO least_before VALUES (gen_random_uuid(), '1', now());
		COMMIT;
		PERFORM seam_generate_instant_key(gen_random_uuid());
		INSERT INTO least_after (guest, key_id, issued_at)
			VALUES (gen_random_uuid(), gen_random_uuid(), now());
		COMMIT;
		times[i] := extract(epoch FROM clock_timestamp() - start) * 1000000;
	END LOOP;
	SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t) INTO us FROM unnest(times) t;
END
$$
"""
# The times of calls, each in a transaction of its own, in milliseconds.
TIMES = """
CREATE PROCEDURE times(calls int, INOUT ms float8[]) LANGUAGE plpgsql AS $$
DECLARE
	start timestamptz;
BEGIN
	ms := '{}';
	FOR i IN 1 .. calls LOOP
		start := clock_timestamp();
		PERFORM seam_generate_instant_key(gen_random_uuid());
		COMMIT;
		ms[i] := extract(epoch FROM clock_timestamp() - start) * 1000;
	END LOOP;
END
$$
"""

# A table whose trigger takes its time when a key is written.
SLEEPY = """
CREATE TABLE sleepy (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid, key_id uuid);
CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON sleepy FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest',
		'instant_key_id=key_id');
CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN PERFORM pg_sleep(1.5); RETURN new; END';
CREATE TRIGGER sleep BEFORE UPDATE ON sleepy FOR EACH ROW EXECUTE FUNCTION sleep()
"""
SLEEPY_ROWS = 2             # of each round
CALL = 'SELECT seam_generate_instant_key(gen_random_uuid());\n'
LEAST_CALL = """INSERT INTO least_before VALUES (gen_random_uuid(), '1', now());
%sINSERT INTO least_after (guest, key_id, issued_at)
	VALUES (gen_random_uuid(), gen_random_uuid(), now());
""" % CALL


class Protection:
    """What is measured, and the tables of it."""

    def __init__(self, bench, serve):
        self.bench = bench
        self.quick = bench.quick
        self.cluster = bench.cluster
        self.fast = serve(0)
        self.slow = bench.web.base['slow http']

    def run(self, latency_ms):
        self.bench.machine.let_sleep()
        self.cluster.start(
            "shared_preload_libraries = 'seam_ik'", 'fsync = on', 'autovacuum = on',
            'max_connections = 100', "seam_ik.api_key = '%s'" % API_KEY,
            "seam_ik.endpoint = '%s'" % self.fast)
        os.sched_setaffinity(self.cluster.server.pid, os.sched_getaffinity(0))
        session = self.cluster.session()
        for text in (PROCEDURE, LEAST_TABLES, LEAST):
            session.ask(text)
        flush = fdatasync_ms(self.bench.work)
        self.flush_ms = flush[0]
        print('Keys that follow their transaction: the processors may halt, and'
              ' PostgreSQL runs with fsync, on all of them.\nAn fdatasync on this disk'
              ' takes %.2f ms (median; p99 %.2f).\n' % flush, flush=True)
        self.one_session()
        for base, label in ((self.slow, 'a server with %d ms latency' % latency_ms),
                            (self.fast, 'no latency')):
            self.many_sessions(base, label)
        self.beside_users_code(session)
        self.long_session(session)
        session.close()

    def protected(self, protected, *more):
        """A session with, or without, the protection."""
        return self.cluster.session(
            'SET seam_ik.revoke_on_rollback = %s' % ('on' if protected else 'off'), *more)

    def one_session(self):
        calls, rounds = (200, 5) if self.quick else (1000, 15)
        off, on = self.protected(False), self.protected(True)
        contenders = {
            'not protected': (off, 'measure(%d, false, NULL)'),
            'protected, in one transaction': (on, 'measure(%d, false, NULL)'),
            'protected, each its own transaction': (on, 'measure(%d, true, NULL)'),
            'not protected, between two plain commits': (off, 'measure_least(%d, NULL)'),
        }
        times = {label: [] for label in contenders}
        for turn in range(rounds + 1):
            for label in rotated(list(contenders), turn):
                session, procedure = contenders[label]
                took = float(session.value('CALL ' + procedure % calls)) / 1000
                if turn > 0:            # the first one warms up
                    times[label].append(took)
        off.close()
        on.close()
        plain, recorded, committed, least = (statistics.median(t) for t in times.values())
        print('A call of one session, no latency (milliseconds, medians).')
        print('%-40s%8.3f' % ('not protected', plain))
        print('%-40s%8.3f%8.3f for the record of it' % (
            'protected, in one transaction', recorded, recorded - plain))
        print('%-40s%8.3f%8.3f for the durable commit' % (
            'protected, each its own transaction', committed, committed - recorded))
        print('%-40s%8.3f' % (list(times)[3], least))
        print('Beyond a call that is not protected, and two flushes: %.2f; two plain commits: %.2f.'
              '  Wanted: %.2f.\n'
              % (committed - plain - 2 * self.flush_ms, least - plain - 2 * self.flush_ms,
                 WANTED_MS), flush=True)

    def beside_users_code(self, session):
        """Do calls wait for users' triggers?"""
        calls, rounds = (100, 4) if self.quick else (200, 10)
        session.ask(TIMES)
        session.ask(SLEEPY)
        protected = self.protected(True)
        took = {'alone': [], 'beside a trigger that sleeps': []}
        for _ in range(rounds):
            for label, times in took.items():
                if label != 'alone':
                    session.ask('INSERT INTO sleepy (guest) SELECT gen_random_uuid()'
                                ' FROM generate_series(1, %d)' % SLEEPY_ROWS)
                    self.wait(session, "SELECT count(*) FROM pg_stat_activity WHERE"
                              " backend_type LIKE 'seam_ik %' AND wait_event = 'PgSleep'", '1')
                text = protected.value("CALL times(%d, NULL)" % calls)
                times += [float(ms) for ms in text.strip('{}').split(',')]
            self.wait(session, 'SELECT count(*) FROM sleepy WHERE key_id IS NULL', '0')
        protected.close()
        print('Protected calls alone, and while a trigger of the outbox sleeps for 1.5 s'
              ' (milliseconds).\n%-40s%10s%10s' % ('', 'p50', 'p99'))
        for label, times in took.items():
            print('%-40s%10.2f%10.2f' % (label, quantile(times, 0.5), quantile(times, 0.99)))
        print('Wanted: a p99 within %d of each other.\n' % WANTED_BESIDE_MS, flush=True)

    def wait(self, session, statement, wanted):
        """Wait until a statement's value is the wanted one."""
        deadline = time.monotonic() + 60
        while session.value(statement) != wanted:
            if time.monotonic() > deadline:
                raise Failure('%s is not %s' % (statement, wanted))
            time.sleep(0.02)

    def pgbench(self, script, protected, base):
        """Median milliseconds of a transaction of one of the sessions."""
        work = self.bench.work
        (work / 'script').write_text(script)
        for old in work.glob('log.*'):
            old.unlink()
        options = '-c seam_ik.revoke_on_rollback=%s -c seam_ik.endpoint=%s' % (
            'on' if protected else 'off', base)
        done = subprocess.run(
            [self.cluster.bin / 'pgbench', '-n', '-c', str(SESSIONS), '-T',
             '2' if self.quick else '5', '-f', work / 'script', '-h', work, '-U', 'postgres',
             '-l', '--log-prefix', work / 'log', 'postgres'],
            env=dict(os.environ, PGOPTIONS=options), text=True, capture_output=True, check=False)
        times = [int(line.split()[2]) / 1000 for log in work.glob('log.*')
                 for line in log.read_text().splitlines()]
        if done.returncode != 0 or not times or not re.search('failed transactions: 0 ', done.stdout):
            raise Failure('pgbench: %s' % (done.stderr.strip() or done.stdout.strip()))
        return statistics.median(times)

    def many_sessions(self, base, label):
        rounds = 3 if self.quick else 7
        shared = 'BEGIN;\n' + CALL * CALLS + 'COMMIT;\n'
        contenders = {
            'not protected': (shared, False, CALLS),
            'protected, %d in a transaction' % CALLS: (shared, True, CALLS),
            'not protected, one in a transaction': (CALL, False, 1),
            'protected, one in a transaction': (CALL, True, 1),
            'not protected, between two plain commits': (LEAST_CALL, False, 1),
        }
        times = {name: [] for name in contenders}
        for turn in range(rounds):
            for name in rotated(list(contenders), turn):
                script, protected, calls = contenders[name]
                times[name].append(self.pgbench(script, protected, base) / calls)
        medians = [statistics.median(t) for t in times.values()]
        shared_off, shared_on, off, on, least = times.values()
        more = [None if base is None else statistics.median(b - a for a, b in zip(base, took))
                for base, took in ((None, shared_off), (shared_off, shared_on), (None, off),
                                   (off, on), (off, least))]
        print('A call of each of %d sessions at once, %s (milliseconds, medians).'
              % (SESSIONS, label))
        for name, took, added in zip(times, medians, more):
            print('%-40s%8.2f%s' % (name, took, '' if added is None else '%8.2f more' % added))
        print('Wanted: not more than %.1f more.\n' % WANTED_MANY_MS, flush=True)

    def long_session(self, session):
        """Does a session that has made many calls stay fast?"""
        rounds = 3 if self.quick else 9
        calls = LONG_SESSION // (10 if self.quick else 1)
        session.ask('CALL measure(%d, true, NULL)' % calls)
        ratios = []
        for turn in range(rounds):
            new = self.protected(True)
            new.ask('CALL measure(50, true, NULL)')
            took = {}
            for name, one in rotated([('old', session), ('new', new)], turn):
                took[name] = float(one.value('CALL measure(500, true, NULL)'))
            new.close()
            ratios.append(took['old'] / took['new'])
        print('A session that has made %d calls, each in a transaction of its own,'
              ' beside a new one: %.2f times its time (median).\nWanted: the same.\n'
              % (calls, statistics.median(ratios)), flush=True)
