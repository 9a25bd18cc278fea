# A process that was stopped for longer than its request may take finds the answer when it
# goes on, and takes it.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql call live keys_of lists_of enqueue wait_sent wait_state worker_of);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep);

# Seconds: of a request; and how much longer the processes are stopped.
use constant TIMEOUT => 5;

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_stalled'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = ' . TIMEOUT . 's',
	'seam_ik.settle_delay = 1s',
	'seam_ik.max_retries = 0', 'seam_ik.max_concurrency = 100');

meet($node, $fake);

# A call, a batch whose answers are more than are read at once, a list that is long, and a
# request of the outbox.
my ($called, $enqueued, $listed) = map { new_guest } 1 .. 3;
my @batch = map { new_guest } 1 .. 100;
$fake->ask('seed-keys', { user_identity_id => $listed, count => 3000 });
$fake->behave('*', 'hold');
my @sessions = (
	background($node, call($called) . ';'),
	background($node, "SELECT count((instant_key).instant_key_id), string_agg(DISTINCT error, ' ') FROM " .
		"seam_generate_instant_keys(ARRAY['" . join("','", @batch) . "']::uuid[]);"),
	background($node, "SELECT count(*) FROM seam_list_instant_keys('$listed');"));
my $id = enqueue($enqueued);
wait_for(sub { $fake->ask('stats')->{in_flight} >= 103 }) or die 'not all have been sent';
my @pids = (worker_of(), map { $_->{pid} } @sessions);
kill 'STOP', @pids;
$fake->release;
sleep TIMEOUT + 1;
kill 'CONT', @pids;
my ($key, $keys, $list) = map { (result_of($_))[0] } @sessions;
is($key, live($called) . "\n", 'a call that was stopped has its key');
like($keys, qr{^100\|$}m, 'a batch has all of them');
is($list, "3000\n", 'a list, too');
ok(wait_state('postgres', $id, 'issued -'), 'a worker stores the key');
is(join(' ', map { scalar keys_of($_) } $called, $enqueued), '1 1', 'one for each');
is(lists_of($enqueued), 0, 'and nothing was in doubt');

# The worker is busy with something else for that long when an answer comes.
my ($slow, $waiting) = (new_guest, new_guest);
sql("CREATE FUNCTION public.stall() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(" . (TIMEOUT + 1) .
	"); RETURN new; END'; CREATE TRIGGER stall BEFORE UPDATE ON seam_instant_key_request FOR EACH ROW " .
	"WHEN (new.user_identity_id = '$slow' AND new.status = 'issued') EXECUTE FUNCTION public.stall()");
$fake->behave('*', '');
$fake->behave($waiting, 'hold', 1);
$id = enqueue($waiting);
wait_sent($waiting);
enqueue($slow);
ok(wait_for(sub { sql("SELECT wait_event FROM pg_stat_activity WHERE pid = $pids[0]") eq 'PgSleep' }),
	'the worker is held up while it stores a key');
$fake->release;
ok(wait_state('postgres', $id, 'issued -'), 'it takes the answer that came meanwhile');
is(lists_of($waiting), 0, 'which was not in doubt');

$node->stop;
done_testing();
