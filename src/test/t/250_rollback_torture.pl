# Synchronous calls, and everything goes wrong at random: at the end exactly the
# keys live that committed transactions have returned.
use strict;
use warnings;

use SeamIK;
use Test::More;
use Torture;

my $torture = Torture->new('seam_ik.max_retries = 0', 'max_prepared_transactions = 20');
my $node = $torture->{node};
my $wanted = $ENV{REQUESTS} // 600;

$node->safe_psql('postgres', q{
CREATE TABLE booking (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid NOT NULL, key_id uuid);
CREATE TABLE other (guest uuid, key_id uuid NOT NULL);
CREATE TRIGGER issue BEFORE INSERT ON booking FOR EACH ROW
	EXECUTE FUNCTION seam_generate_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
CREATE FUNCTION caught(again boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		INSERT INTO booking (guest) VALUES (gen_random_uuid());
		RAISE EXCEPTION 'x';
	EXCEPTION WHEN OTHERS THEN NULL;
	END;
	IF again THEN
		INSERT INTO booking (guest) VALUES (gen_random_uuid());
	END IF;
EXCEPTION WHEN OTHERS THEN NULL;
END $$;
});

# What sessions do.  A pgbench client ends with its first error, so a round is
# short.
my $script = q{
\set r random(1, 100)
\set g random(1, 1000000000)
\if :r <= 35
INSERT INTO booking (guest) VALUES (gen_random_uuid());
\elif :r <= 45
BEGIN;
INSERT INTO booking (guest) VALUES (gen_random_uuid());
ROLLBACK;
\elif :r <= 55
BEGIN;
SAVEPOINT s;
INSERT INTO booking (guest) VALUES (gen_random_uuid());
ROLLBACK TO s;
INSERT INTO booking (guest) VALUES (gen_random_uuid());
COMMIT;
\elif :r <= 65
SELECT caught(random() < 0.5);
\elif :r <= 72
SET synchronous_commit = off;
INSERT INTO other SELECT i, (seam_generate_instant_key(i)).instant_key_id FROM (SELECT gen_random_uuid()
	AS i OFFSET 0) x;
\elif :r <= 80
BEGIN;
INSERT INTO other SELECT user_identity_id, (instant_key).instant_key_id
	FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 5)));
COMMIT;
\elif :r <= 86
BEGIN;
INSERT INTO other SELECT user_identity_id, (instant_key).instant_key_id
	FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 5)));
ROLLBACK;
\elif :r <= 91
BEGIN;
INSERT INTO booking (guest) VALUES (gen_random_uuid());
PREPARE TRANSACTION 'c:g';
COMMIT PREPARED 'c:g';
\elif :r <= 96
BEGIN;
INSERT INTO booking (guest) VALUES (gen_random_uuid());
PREPARE TRANSACTION 'r:g';
ROLLBACK PREPARED 'r:g';
\else
BEGIN;
INSERT INTO booking (guest) VALUES (gen_random_uuid());
SELECT pg_terminate_backend(pg_backend_pid());
\endif
};
$torture->run($script, [ '-c', 8 ], sub { $torture->{fake}->ask('stats')->{keys} >= $wanted });
foreach my $gid (split /\n/, ask($torture->{node}, 'SELECT gid FROM pg_prepared_xacts'))
{
	ask($torture->{node}, ($gid =~ /^c/ ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
}
$torture->peace(UNSETTLED);

is($node->safe_psql('postgres', 'SELECT * FROM seam_instant_key_orphan'), '', 'nothing has failed');
$torture->compare(q{
SELECT key_id || '|' || guest FROM booking UNION ALL SELECT key_id || '|' || guest FROM other});

$node->stop;
done_testing();
