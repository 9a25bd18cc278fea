# Synchronous calls, and everything goes wrong at random: at the end exactly the
# keys live that committed transactions have returned.
#
# SEED=N repeats a run's choices (its timing differs), REQUESTS=N makes it longer.
use strict;
use warnings;

use FakeSeam;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep time);

my $seed = $ENV{SEED} // int(time * 1000) % 1_000_000;
my $wanted = $ENV{REQUESTS} // 600;
srand($seed);

my $fake = FakeSeam->start;
$fake->ask('reset', { seed => $seed });
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s',
	'seam_ik.max_retries = 0', 'max_prepared_transactions = 20', 'restart_after_crash = on', 'log_min_messages = warning');
append_to_file($node->data_dir . '/seam_api_key', 'seam_test_torture');
chmod 0600, $node->data_dir . '/seam_api_key' or die $!;

$node->safe_psql('postgres', q{
CREATE TABLE booking (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid NOT NULL, key_id uuid);
CREATE TABLE other (guest uuid, key_id uuid NOT NULL);
CREATE TRIGGER issue BEFORE INSERT ON booking FOR EACH ROW EXECUTE FUNCTION seam_generate_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
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

# What Seam does: issued and not told, told and not issued, slow, busy.
my $generate = 'route=generate_instant_key';
$fake->behave('*', $_) foreach (
	"$generate,chance=0.03,reset_after", "$generate,chance=0.02,reset", "$generate,chance=0.02,status=500,issue", "$generate,chance=0.02,status=503",
	"$generate,chance=0.02,status=429", "$generate,chance=0.01,hang_after", "$generate,chance=0.01,hang", "$generate,chance=0.01,truncate=30",
	"$generate,chance=0.05,delay=300", 'route=list,chance=0.1,status=500', 'route=list,chance=0.05,reset',
	'route=delete,chance=0.1,reset_after', 'route=delete,chance=0.05,status=500');

# What sessions do.  Some identities are shared by many bookings.
my $script = PostgreSQL::Test::Utils::tempdir() . '/torture.pgbench';
append_to_file($script, q{
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
INSERT INTO other SELECT i, (seam_generate_instant_key(i)).instant_key_id FROM (SELECT gen_random_uuid() AS i OFFSET 0) x;
\elif :r <= 80
BEGIN;
INSERT INTO other SELECT user_identity_id, (instant_key).instant_key_id FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 5)));
COMMIT;
\elif :r <= 86
BEGIN;
INSERT INTO other SELECT user_identity_id, (instant_key).instant_key_id FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 5)));
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
});

sub is_up { my ($rc) = $node->psql('postgres', 'SELECT 1'); return $rc == 0; }
sub ask { my ($rc, $out) = $node->psql('postgres', $_[0]); return $rc == 0 ? $out : ''; }

my %kill = (
	worker => sub { my $pid = ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik worker'"); kill 'KILL', $pid if $pid; },
	terminate => sub { ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'seam_ik%'"); },
	backend9 => sub { my $pid = ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' ORDER BY random() LIMIT 1"); kill 'KILL', $pid if $pid; },
	backend => sub { ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench' ORDER BY random() LIMIT 1"); },
	immediate => sub { $node->stop('immediate'); $node->start; },
	reload => sub { ask('SELECT pg_reload_conf()'); },
	nothing => sub { });
my @kinds = sort keys %kill;
my ($enqueued, $round) = (0, 0);
my %killed;

while ($enqueued < $wanted && $round < 200)
{
	my ($out, $err);
	my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', 8, '-j', 1, '-T', 2, '-f', $script, $node->connstr('postgres') ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));

	for (1 .. 2)
	{
		sleep(0.2 + rand(0.8));
		my $kind = $kinds[ rand @kinds ];
		$killed{$kind}++;
		$kill{$kind}->();
	}
	eval { $bench->finish; };
	wait_for(\&is_up) or BAIL_OUT("SEED=$seed: the server does not come back");
	$enqueued = $fake->ask('stats')->{keys};
	$round++;
}

# Peace: all ends well.
$fake->behave('*', '');
foreach my $gid (split /\n/, ask('SELECT gid FROM pg_prepared_xacts'))
{
	ask(($gid =~ /^c/ ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
}
my $left = 'SELECT (SELECT count(*) FROM seam_instant_key_call WHERE NOT owned) + (SELECT count(*) FROM seam_instant_key_request WHERE next_attempt_at IS NOT NULL)';
wait_for(sub { ask($left) eq '0' }) || wait_for(sub { ask($left) eq '0' }) || wait_for(sub { ask($left) eq '0' });
is(ask($left), '0', 'nothing is left to do');
is($node->safe_psql('postgres', "SELECT * FROM seam_instant_key_orphan"), '', 'nothing has failed');

my %live = map { $_->{instant_key_id} => $_->{user_identity_id} } grep { !$_->{revoked} } $fake->keys;
my %owned = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{
SELECT key_id || '|' || guest FROM booking UNION ALL SELECT key_id || '|' || guest FROM other});
is(join(' ', grep { !exists $owned{$_} } sort keys %live), '', 'no other key lives');
is(join(' ', grep { ($live{$_} // '') ne $owned{$_} } sort keys %owned), '', 'each key that was returned lives, and is of that guest');
note("SEED=$seed: $enqueued keys in $round rounds (" . join(', ', map { "$_ $killed{$_}" } sort keys %killed) . '), ' . scalar(keys %live) . ' of them live');

$node->stop;
done_testing();
