"""The stays' part of the benchmark: what a change of dates costs the session that makes
it, what the worker does while a million stays sleep, and how soon their keys are there
when many begin at once."""

import os
import pathlib
import statistics
import time

from common import API_KEY, rotated
from outbox import REQUESTS, Outbox, identity

WANTED_UPDATE = 1.5
WANTED_IDLE = 0.1           # per cent of a processor

COLUMNS = 'id bigint PRIMARY KEY, guest uuid, check_in timestamptz, check_out timestamptz, key_id uuid'
TABLES = """
CREATE TABLE no_trigger (%(columns)s);
CREATE TABLE stay (%(columns)s);
CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON stay FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest',
		'issue_at=check_in', 'valid_until=check_out', 'instant_key_id=key_id');
CREATE TABLE plain_stay (%(columns)s);
CREATE TABLE plain_due (booking bigint PRIMARY KEY, guest uuid, due timestamptz, until timestamptz);
CREATE INDEX ON plain_due (due);
CREATE FUNCTION reschedule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE plain_due SET due = new.check_in, until = new.check_out WHERE booking = new.id;
	RETURN NULL;
END
$$;
CREATE TRIGGER reschedule AFTER UPDATE ON plain_stay FOR EACH ROW EXECUTE FUNCTION reschedule()
""" % {'columns': COLUMNS}

# Bookings of next month.
ROWS = ("INSERT INTO %%s SELECT g, %s, d, d + interval '3 days' FROM generate_series(%%d, %%d) AS g,"
        " LATERAL (SELECT now() + interval '30 days' + g * interval '1 s' AS d) AS s" % identity('g'))


class Stays(Outbox):
    """What is measured, in a cluster with fsync."""

    def run(self):
        self.machine.let_sleep()
        self.cluster.start(
            "shared_preload_libraries = 'seam_ik'", 'fsync = on', 'autovacuum = off',
            'track_commit_timestamp = on', 'max_wal_size = 4GB', 'seam_ik.worker = off',
            "seam_ik.api_key = '%s'" % API_KEY,
            "seam_ik.endpoint = '%s'" % self.bench.web.base['slow http'],
            'seam_ik.max_concurrency = %d' % self.concurrency)
        self.session = self.cluster.session()
        self.session.ask(TABLES)
        self.dates()
        self.begin_at_once()
        self.sleepers()
        self.session.close()

    def dates(self):
        """Change the dates of many bookings in one statement."""
        count, rounds = 100_000, 3 if self.quick else 9
        tables = ('no_trigger', 'stay', 'plain_stay')
        for table in tables:
            self.session.ask(ROWS % (table, 1, count))
        self.session.ask('INSERT INTO plain_due SELECT id, guest, check_in, check_out FROM plain_stay')
        times = {table: [] for table in tables}
        for turn in range(rounds + 1):
            for table in rotated(list(tables), turn):
                # (what the round before has left behind goes)
                self.session.ask('VACUUM ANALYZE')
                self.session.ask('BEGIN')
                start = time.monotonic()
                self.session.ask("UPDATE %s SET check_in = check_in + interval '1 day',"
                                 " check_out = check_out + interval '1 day'" % table)
                elapsed = time.monotonic() - start
                self.session.ask('ROLLBACK')
                if turn > 0:
                    times[table].append(elapsed * 1e6 / count)
        added = {table: [a - b for a, b in zip(times[table], times['no_trigger'])] for table in tables}
        ratio = statistics.median(a / b for a, b in zip(added['stay'], added['plain_stay']))
        whole = statistics.median(a / b for a, b in zip(times['stay'], times['plain_stay']))
        print('The dates of %d bookings change in one statement. Microseconds a row that a trigger'
              ' adds:\nseam_ik %.2f, plpgsql that updates one row by its index %.2f: %.2fx (of the'
              ' whole statements: %.2fx). Wanted: %.1fx.\n'
              % (count, statistics.median(added['stay']), statistics.median(added['plain_stay']),
                 ratio, whole, WANTED_UPDATE), flush=True)
        self.session.ask('TRUNCATE ' + ', '.join(tables) + ', plain_due, seam_instant_key_request')

    def begin_at_once(self):
        """Many stays begin at the same moment."""
        self.configure(worker='on')
        floor = self.bench.floor('multi', self.bench.web.base['slow http'])
        self.drain(1000)
        times, floors = [], []
        for _ in range(1 if self.quick else 3):
            floors.append(floor.ask(REQUESTS, self.concurrency)[0] / 1e6)
            self.session.ask('TRUNCATE stay, seam_instant_key_request')
            begins = self.session.value("SELECT now() + interval '15 s'")
            self.session.ask("INSERT INTO stay SELECT g, %s, '%s' FROM generate_series(1, %d) AS g"
                             % (identity('g'), begins, REQUESTS))
            self.wait('SELECT count(*) FROM stay WHERE key_id IS NULL', '0', 120)
            times.append(float(self.session.value(
                "SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin)) - '%s') FROM stay"
                % begins)) * 1000)
        floor.close()
        print('%d stays begin at one moment, %d ms latency, %d calls at once. Milliseconds until'
              ' the last row has its key: %.0f,\n%.2f times the floor.\n'
              % (REQUESTS, self.latency_ms, self.concurrency, statistics.median(times),
                 statistics.median(a / b for a, b in zip(times, floors))), flush=True)
        self.session.ask('TRUNCATE stay, seam_instant_key_request')

    def used(self):
        """What the worker has used, in seconds, and read from the outbox's indexes."""
        _, process = self.worker_process()
        fields = (pathlib.Path('/proc') / process / 'stat').read_text().rpartition(')')[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return ticks / os.sysconf('SC_CLK_TCK'), int(self.session.value(
            "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes"
            " WHERE relid = 'seam_instant_key_request'::regclass"))

    def sleepers(self):
        """A worker that has nothing to do but to wait for stays."""
        count = 100_000 if self.quick else 1_000_000
        seconds = 20 if self.quick else 60
        self.session.ask(ROWS % ('stay', 1, count))
        self.session.ask('VACUUM ANALYZE')
        # (what its start and the insertion have set off ends first)
        self.wait('SELECT count(*) FROM seam_instant_key_request WHERE next_attempt_at IS NOT NULL',
                  '0', 60)
        time.sleep(10)
        before = self.used()
        time.sleep(seconds)
        after = self.used()
        print('%d stays of next month: in %d s the worker has used %.3f %% of a processor, and read'
              ' %d entries of the\noutbox\'s indexes. Wanted: under %.1f %%, and none.\n'
              % (count, seconds, (after[0] - before[0]) / seconds * 100, after[1] - before[1],
                 WANTED_IDLE), flush=True)
