# A hundred stays go through arrival, renewals, a change of guest and check-out, while the
# server and its processes are killed: then the keys live that the rows show, and no others.
#
# SEED=N repeats a run's choices.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet sql set);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep time);

my $seed = $ENV{SEED} // int rand 1_000_000;
srand $seed;
note "SEED=$seed";
my $build = PostgreSQL::Test::Utils::tempdir();
mkdir "$build/source" or die $!;
system_or_bail('sh', '-c', "tar -cf - --exclude='*.o' --exclude='*.so' . | tar -xf - -C $build/source");
{
	local $ENV{STAGE} = "$build/stage";
	local $ENV{WORK} = $build;
	system_or_bail('src/tools/stage', '-C', "$build/source", 'WERROR=1', 'with_llvm=no',
		'COPT=-DSEAM_IK_LEAST_RENEWAL_MS=1000');
}
my $fake = FakeSeam->start;
my $node = seam_cluster(slurp_file("$build/stage.conf"), "shared_preload_libraries = 'seam_ik'",
	"seam_ik.api_key = 'seam_test_kills'", "seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '1s'",
	"seam_ik.request_timeout = '2s'", "seam_ik.renew_before = '4s'", 'restart_after_crash = on');
meet($node, $fake);
$fake->life(9);
sql(q{
CREATE TABLE booking (id int PRIMARY KEY, guest uuid, check_in timestamptz, check_out timestamptz, key_id uuid,
	url text);
CREATE TRIGGER stay AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'issue_at=check_in', 'valid_until=check_out',
	'instant_key_id=key_id', 'instant_key_url=url');
INSERT INTO booking SELECT g, gen_random_uuid(), now() + g * interval '50 ms', now() + interval '1 hour'
	FROM generate_series(1, 100) g;
});
$fake->behave('*', $_) for 'route=generate_instant_key,chance=0.03,reset_after',
	'route=generate_instant_key,chance=0.03,status=503', 'route=delete,chance=0.05,status=500';
my $pid_of = sub { return ask($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik $_[0]'"); };
my $until = time + 25;
for (my $n = 0; time < $until; $n++)
{
	my $what = ('worker', 'writer', 'nothing', 'immediate')[ rand 4 ];
	if ($what eq 'immediate') { $node->stop('immediate'); $node->start; }
	elsif ($what ne 'nothing') { my $pid = $pid_of->($what); kill 'KILL', $pid if $pid; }
	wait_for(sub { ask($node, 'SELECT 1') eq '1' }) or die 'the server is away';
	ask($node, 'UPDATE booking SET guest = gen_random_uuid() WHERE id % 10 = ' . int rand 10) if $n % 3 == 1;
	sleep 1 + rand 2;
}

# ---------- peace ----------

$fake->behave('*', '');
$fake->life(48 * 3600);
my $begun = time;
my $left = "SELECT count(*) FROM seam_instant_key_request WHERE wake_at <= now() OR next_attempt_at IS NOT NULL " .
	"OR row_task IS NOT NULL OR (stay_id IS NOT NULL AND successor_id IS NULL AND status = 'issued' AND " .
	"(instant_key).expires_at < now() + interval '1 hour')";
ok(wait_for(sub { ask($node, $left) eq '0' }), 'each key was renewed once more');
sql(q{UPDATE booking SET guest = gen_random_uuid() WHERE id IN (SELECT id FROM booking WHERE key_id IS NULL)});
ok(wait_for(sub { ask($node, $left) eq '0' }), 'what a renewal has failed of has another guest');
is(sql('SELECT count(key_id) FROM booking'), 100, 'each row shows a key');
# (what was renewed last has expired then)
sleep 10;
my @now = gmtime;
my $now = sprintf '%04d-%02d-%02dT%02d:%02d:%02d', $now[5] + 1900, $now[4] + 1, @now[ 3, 2, 1, 0 ];
my %live = map { $_->{instant_key_id} => $_ } grep { !$_->{revoked} && $_->{expires_at} gt $now } $fake->keys;
my %shown = map { split /\|/ } split /\n/, sql('SELECT key_id, guest FROM booking');
is(join(' ', grep { !$live{$_} || $live{$_}{user_identity_id} ne $shown{$_} } sort keys %shown), '',
	'which lives, and is of that guest');
is(join(' ', grep { !$shown{$_} } sort keys %live), '', 'and no other one does');
is(sql("SELECT count(*) FROM (SELECT successor_id FROM seam_instant_key_request WHERE successor_id IS NOT NULL " .
	"GROUP BY successor_id HAVING count(*) > 1) AS s"), 0, 'no request has two predecessors');
cmp_ok(sql("SELECT max(n) FROM (SELECT count(*) AS n FROM seam_instant_key_request GROUP BY stay_id) AS s"), '>=', 4,
	'there were renewals');
sql('UPDATE booking SET check_out = now(), check_in = NULL');
ok(wait_for(sub { ask($node, $left) eq '0' }), 'all check out');
is(sql('SELECT count(key_id) FROM booking'), 0, 'no row shows a key');
%live = map { $_->{instant_key_id} => 1 } grep { !$_->{revoked} } $fake->keys;
is(join(' ', grep { $live{$_} } sort keys %shown), '', 'and none of them lives');

$node->stop('immediate');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'nothing crashed by itself');
done_testing();
