# The outbox, and everything goes wrong at random: at the end each committed
# booking has exactly one live key, and no other key lives.
use strict;
use warnings;

use FakeSeam;
use IPC::Run ();
use SeamIK;
use Test::More;
use Torture;

my $torture = Torture->new('seam_ik.max_concurrency = 50', 'seam_ik.max_attempts = 1000');
my $node = $torture->{node};
my $wanted = $ENV{REQUESTS} // 5000;

$node->safe_psql('postgres', q{
CREATE TABLE booking (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid NOT NULL, cleared boolean
	NOT NULL DEFAULT false, key_id uuid, url text);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id', 'instant_key_url=url');
CREATE TABLE troubled (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid NOT NULL, key_id uuid, url text);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON troubled FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id', 'instant_key_url=url');
});

# A trigger of the second table is slow, fails, does not end or crashes the server.
sub trouble
{
	my ($body) = @_;
	$node->safe_psql('postgres', "CREATE OR REPLACE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS \$\$
DECLARE r float8 := random();
BEGIN $body RETURN NEW; END \$\$");
	return;
}
trouble(q{
	IF r < 0.02 THEN PERFORM pg_sleep(0.1);
	ELSIF r < 0.03 THEN RAISE EXCEPTION 'trouble';
	ELSIF r < 0.04 THEN RAISE EXCEPTION 'again' USING ERRCODE = '40001';
	ELSIF r < 0.042 THEN PERFORM pg_sleep(10);
	ELSIF r < 0.044 THEN COPY (SELECT 1) TO PROGRAM 'kill -SEGV $PPID';
	END IF;});
$node->safe_psql('postgres', q{CREATE TRIGGER trouble BEFORE UPDATE ON troubled FOR EACH ROW
	EXECUTE FUNCTION trouble()});

# What sessions do.  Some identities are shared by many bookings.
my $script = q{
\set r random(1, 100)
\set g random(1, 50)
\if :r <= 33
INSERT INTO booking (guest) VALUES (gen_random_uuid());
\elif :r <= 45
INSERT INTO troubled (guest) VALUES (gen_random_uuid());
\elif :r <= 55
INSERT INTO booking (guest) VALUES (('00000000-0000-4000-8000-' || lpad((:g)::text, 12, '0'))::uuid);
\elif :r <= 62
BEGIN;
INSERT INTO booking (guest) VALUES (gen_random_uuid());
ROLLBACK;
\elif :r <= 70
BEGIN;
SAVEPOINT s;
INSERT INTO booking (guest) VALUES (gen_random_uuid());
ROLLBACK TO s;
INSERT INTO booking (guest) VALUES (gen_random_uuid());
COMMIT;
\elif :r <= 78
SELECT seam_enqueue_instant_key(gen_random_uuid(), reference => 'direct');
\elif :r <= 83
BEGIN;
SET LOCAL synchronous_commit = off;
INSERT INTO booking (guest) VALUES (gen_random_uuid());
COMMIT;
\elif :r <= 90
DELETE FROM booking WHERE id = (SELECT (random() * max(id))::bigint FROM booking);
\elif :r <= 94
BEGIN;
DELETE FROM booking WHERE id = (SELECT (random() * max(id))::bigint FROM booking);
ROLLBACK;
\elif :r <= 97
UPDATE booking SET cleared = true, key_id = NULL, url = NULL WHERE id = (SELECT (random() * max(id))::bigint
	FROM booking);
\else
INSERT INTO booking (guest) SELECT gen_random_uuid() FROM generate_series(1, 10);
\endif
};
# an idle session that holds its rows for a while
my $locker = sub {
	return IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c', 'BEGIN', '-c',
		'SELECT 1 FROM booking ORDER BY id DESC LIMIT 3 FOR UPDATE', '-c', '\! sleep 1.5' ],
		'<', \undef, '>', \my $ignored, '2>', \my $ignored_too, IPC::Run::timeout(HANGS));
};
$torture->run($script, [ '-c', 6, '-R', 500 ],
	sub { (ask($torture->{node}, 'SELECT count(*) FROM seam_instant_key_request') || 0) >= $wanted }, $locker);
# the trigger is mended, and what it has left is tried again
wait_for(sub { ask($node, 'SELECT 1') eq '1' });
trouble('');
$node->safe_psql('postgres', 'ALTER TABLE troubled DISABLE TRIGGER trouble');
sub retry
{
	ask($node, "SELECT seam_retry_instant_key_request(request_id) FROM seam_instant_key_request " .
		"WHERE status = 'issued' AND sqlstate IS NOT NULL");
	return ask($node, "SELECT count(*) FROM seam_instant_key_request WHERE status = 'issued' AND sqlstate IS NOT NULL")
		eq '0';
}
ok(wait_for(\&retry), 'a trigger is mended');
$torture->peace('SELECT count(*) FROM seam_instant_key_request WHERE next_attempt_at IS NOT NULL');

is($node->safe_psql('postgres', "SELECT request_id, status, sqlstate, error FROM seam_instant_key_request " .
	"WHERE status NOT IN ('issued', 'revoked', 'cancelled') OR (status = 'issued' AND error IS NOT NULL)"), '',
	'nothing has failed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM booking WHERE key_id IS NULL AND NOT cleared'), '0',
	'each booking has a key');
is($node->safe_psql('postgres', 'SELECT count(*) FROM troubled WHERE key_id IS NULL'), '0',
	'and so has each one whose trigger was in trouble');
is($node->safe_psql('postgres', "SELECT count(*) FROM seam_instant_key_request WHERE reference = 'direct' " .
	"AND status <> 'issued'"), '0', 'each request has a key');
$torture->compare(q{
SELECT key_id || '|' || guest FROM booking WHERE key_id IS NOT NULL
UNION ALL SELECT key_id || '|' || guest FROM troubled
UNION ALL SELECT (instant_key).instant_key_id || '|' || user_identity_id FROM seam_instant_key_request
	WHERE reference = 'direct' AND status = 'issued'});

$node->stop;
done_testing();
