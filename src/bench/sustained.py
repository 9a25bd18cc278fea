"""How many keys an hour a worker sustains: bookings are inserted all the time, each gets
its key in its row, and autovacuum keeps up."""

import time

from common import API_KEY

# Calls under way at once, and milliseconds that each takes at Seam.
CASES = ((16, 250), (16, 50), (100, 50), (100, 0))
# Bookings that are inserted at once, whenever fewer of them wait.
PORTION = 2000

TABLE = """
CREATE TABLE booking (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid, key_id uuid,
	url text, expires_at timestamptz);
CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest',
		'instant_key_id=key_id', 'instant_key_url=url', 'expires_at=expires_at')
"""


class Sustained:
    """One case after another, in one cluster with fsync."""

    def __init__(self, bench):
        self.bench = bench
        self.settle, self.measured = (3, 10) if bench.quick else (10, 60)

    def run(self):
        self.bench.machine.let_sleep()
        self.bench.cluster.start(
            "shared_preload_libraries = 'seam_ik'", 'fsync = on', 'autovacuum = on',
            'max_wal_size = 4GB', "seam_ik.api_key = '%s'" % API_KEY)
        self.session = self.bench.cluster.session()
        self.session.ask(TABLE)
        print('Bookings that are inserted all the time, until their rows have their keys, for %d s:'
              ' thousands an hour,\nand what the latency alone would allow.' % self.measured)
        for concurrency, latency_ms in CASES:
            keys = self.keys_an_hour(concurrency, latency_ms)
            print('%4d at once, %3d ms latency%12.0f%12s' % (
                concurrency, latency_ms, keys / 1000,
                '%.0f' % (concurrency * 3600 / latency_ms) if latency_ms else '-'), flush=True)
            self.bench.report.add('hour', 'seam_ik', '%d at once, %d ms' % (concurrency, latency_ms),
                                  keys / 1000)
        print(flush=True)
        self.session.close()

    def keys_an_hour(self, concurrency, latency_ms):
        for name, value in (('endpoint', self.bench.serve(latency_ms)), ('max_concurrency', concurrency)):
            self.session.ask("ALTER SYSTEM SET seam_ik.%s = '%s'" % (name, value))
        self.session.ask('SELECT pg_reload_conf()')
        self.keep_busy(self.settle)
        before, start = self.written(), time.monotonic()
        self.keep_busy(self.measured)
        return (self.written() - before) / (time.monotonic() - start) * 3600

    def written(self):
        """Rows that have their keys."""
        return int(self.session.value('SELECT count(key_id) FROM booking'))

    def keep_busy(self, seconds):
        """Insert bookings for so long, so that there are always some to be sent."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            waiting = int(self.session.value(
                "SELECT count(*) FROM seam_instant_key_request WHERE status = 'pending'"
                ' AND next_attempt_at IS NOT NULL'))
            if waiting < PORTION:
                self.session.ask('INSERT INTO booking (guest) SELECT gen_random_uuid()'
                                 ' FROM generate_series(1, %d)' % PORTION)
            else:
                time.sleep(0.02)
