# Everything goes wrong at random: at the end each committed booking has exactly
# one live key, and no other key lives.
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
my $wanted = $ENV{REQUESTS} // 5000;
srand($seed);

my $fake = FakeSeam->start;
$fake->ask('reset', { seed => $seed });
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s',
	'seam_ik.max_concurrency = 50', 'seam_ik.max_attempts = 1000', 'restart_after_crash = on', 'log_min_messages = warning');
append_to_file($node->data_dir . '/seam_api_key', 'seam_test_torture');
chmod 0600, $node->data_dir . '/seam_api_key' or die $!;

$node->safe_psql('postgres', q{
CREATE TABLE booking (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid NOT NULL, cleared boolean NOT NULL DEFAULT false, key_id uuid, url text);
CREATE TRIGGER enqueue AFTER INSERT ON booking FOR EACH ROW EXECUTE FUNCTION seam_enqueue_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id', 'instant_key_url=url');
CREATE TRIGGER cancel AFTER DELETE OR UPDATE ON booking FOR EACH ROW EXECUTE FUNCTION seam_cancel_instant_key_request_trigger('instant_key_id=key_id');
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
\set g random(1, 50)
\if :r <= 45
INSERT INTO booking (guest) VALUES (gen_random_uuid());
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
UPDATE booking SET cleared = true, key_id = NULL, url = NULL WHERE id = (SELECT (random() * max(id))::bigint FROM booking);
\else
INSERT INTO booking (guest) SELECT gen_random_uuid() FROM generate_series(1, 10);
\endif
});

sub is_up { my ($rc) = $node->psql('postgres', 'SELECT 1'); return $rc == 0; }
sub ask { my ($rc, $out) = $node->psql('postgres', $_[0]); return $rc == 0 ? $out : ''; }

my %kill = (
	worker => sub { my $pid = ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik worker'"); kill 'KILL', $pid if $pid; },
	terminate => sub { ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'seam_ik%'"); },
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
	# an idle session that holds its rows for a while
	my $locker = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c', 'BEGIN', '-c', 'SELECT 1 FROM booking ORDER BY id DESC LIMIT 3 FOR UPDATE', '-c', '\! sleep 1.5' ],
		'<', \undef, '>', \my $ignored, '2>', \my $ignored_too, IPC::Run::timeout(60));
	my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', 6, '-j', 1, '-T', 2, '-R', 500, '-f', $script, $node->connstr('postgres') ],
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
	eval { $locker->finish; };
	$enqueued = ask('SELECT count(*) FROM seam_instant_key_request') || 0;
	$round++;
}

# Peace: all ends well.
$fake->behave('*', '');
my $left = 'SELECT count(*) FROM seam_instant_key_request WHERE next_attempt_at IS NOT NULL';
wait_for(sub { ask($left) eq '0' }) || wait_for(sub { ask($left) eq '0' }) || wait_for(sub { ask($left) eq '0' });
is($node->safe_psql('postgres', "SELECT status, error FROM seam_instant_key_request WHERE next_attempt_at IS NOT NULL LIMIT 5"), '', 'nothing is left to do');
is($node->safe_psql('postgres', "SELECT request_id, status, sqlstate, error FROM seam_instant_key_request WHERE status NOT IN ('issued', 'revoked', 'cancelled') OR (status = 'issued' AND error IS NOT NULL)"), '', 'nothing has failed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM booking WHERE key_id IS NULL AND NOT cleared'), '0', 'each booking has a key');

my %live = map { $_->{instant_key_id} => $_->{user_identity_id} } grep { !$_->{revoked} } $fake->keys;
my %owned = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{
SELECT key_id || '|' || guest FROM booking WHERE key_id IS NOT NULL
UNION ALL SELECT (instant_key).instant_key_id || '|' || user_identity_id FROM seam_instant_key_request WHERE reference = 'direct' AND status = 'issued'});
is(join(' ', grep { !exists $owned{$_} } sort keys %live), '', 'no other key lives');
is(join(' ', grep { ($live{$_} // '') ne $owned{$_} } sort keys %owned), '', 'each key that is owned lives, and is of that guest');
is($node->safe_psql('postgres', "SELECT count(*) FROM seam_instant_key_request WHERE reference = 'direct' AND status <> 'issued'"), '0', 'each request has a key');
is(scalar(keys %owned), $node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM booking WHERE key_id IS NOT NULL) + (SELECT count(*) FROM seam_instant_key_request WHERE reference = 'direct')}), 'no key is owned twice');
note("SEED=$seed: $enqueued requests in $round rounds (" . join(', ', map { "$_ $killed{$_}" } sort keys %killed) . '), ' . scalar(keys %live) . ' live keys of ' . scalar($fake->keys) . ' ever issued');
cmp_ok(scalar($fake->keys), '>', 0, 'keys were issued');

$node->stop;
done_testing();
