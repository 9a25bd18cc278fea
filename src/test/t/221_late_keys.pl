# Keys that Seam makes after the caller has given up: they are waited for, and what
# comes later still is reported.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql call keys_of live enqueue states_of owned quiet worker_of up);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 3s', 'seam_ik.settle_delay = 3s',
		'seam_ik.max_retries = 0',
	'restart_after_crash = on');
api_key_file($node, 'seam_test_late');

meet($node, $fake);
sub held { my ($n) = @_; return wait_for(sub { $fake->ask('stats')->{in_flight} == $n }); }
sub late { my ($guest, $ms) = @_; $fake->behave($guest, "route=generate_instant_key,late=$ms", 1); return; }

# A key that Seam makes a second after the caller has given up.
my ($outbox, $cancelled, $session, $later) = map { new_guest } 1 .. 4;
late($_, 4000) foreach $outbox, $cancelled, $session;
# ... and one that nobody waits for any more
late($later, 9000);
my %id = map { $_ => enqueue($_) } $outbox, $cancelled, $later;
my $s = background($node, call($session) . ';');
ok(held(4), 'four requests are under way');
is(sql("SELECT DISTINCT next_attempt_at - attempted_at || ' ' || attempt_timeout FROM seam_instant_key_request"),
	'00:00:06 6000', 'were the worker to die, settle_delay would begin when its requests have ended');
is(sql("SELECT seam_cancel_instant_key_request($id{$cancelled})"), 'revoking', 'one of them is cancelled');
result_of($s);
ok(quiet(), 'they are settled');
is(states_of($outbox), 'issued 1', 'a key that is made after the caller has given up is found');
is(live($outbox), owned($outbox), 'and is the only one');
is(scalar(keys_of($outbox)), 1, 'that was made');
is(scalar(keys_of($_)) . live($_), '1', 'what is not wanted any more is revoked') foreach $cancelled, $session;

# The same when the worker dies meanwhile.
my ($crashed, $open) = map { new_guest } 1 .. 2;
ok(wait_for(sub { keys_of($later) == 2 }), 'a key that is made much later');
late($_, 4000) foreach $crashed, $open;
enqueue($crashed);
$s = background($node, call($open) . ';');
ok(held(2), 'two requests are under way');
my $worker = worker_of();
kill 'KILL', $worker;
result_of($s);
ok(up('postgres', $worker), 'the worker has died');
ok(quiet(), 'they are settled');
is(states_of($crashed), 'issued 1', 'a key that is made after the worker has died is found');
is(live($crashed), owned($crashed), 'and is the only one');
is(scalar(keys_of($open)) . live($open), '1', 'what is not wanted any more is revoked');

# The list is asked once more, some minutes later.
my ($found) = grep { $_ ne owned($later) } split /,/, live($later);
is(states_of($later), 'issued 2', 'a request of which no key was found has been issued anew');
is(sql("SELECT look_again_at > now() + interval '3 min' FROM seam_instant_key_request WHERE request_id = $id{$later}"),
	't', 'it is looked at again later');
# ... which nobody waits for, and which a new worker goes on with
sub look_again
{
	sql("UPDATE seam_instant_key_request SET look_again_at = now() WHERE look_again_at IS NOT NULL");
	$node->reload;
	return;
}
sql("ALTER SYSTEM SET seam_ik.request_timeout = '60s'");
$fake->behave($later, 'route=list,hang', 1);
look_again();
ok(held(1), 'the list is asked for');
my $meanwhile = enqueue($later);
ok(wait_for(sub { sql("SELECT status FROM seam_instant_key_request WHERE request_id = $meanwhile") eq 'issued' }),
	'another request of the guest is issued');
is($fake->ask('stats')->{in_flight}, 1, 'meanwhile');
$worker = worker_of();
sql("SELECT pg_terminate_backend($worker)");
ok(up('postgres', $worker), 'a new worker');
look_again();
ok(wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE look_again_at IS NOT NULL") eq '0' }),
	'goes on with it');
my $report = sql("SELECT request_id FROM seam_instant_key_orphan WHERE user_identity_id = '$later'");
is(sql("SELECT status || ' ' || sqlstate || ' ' || (instant_key).instant_key_id FROM seam_instant_key_request " .
	"WHERE request_id = $report"), "failed 08007 $found", 'the key is reported');
like(sql("SELECT last_error FROM seam_instant_key_orphan WHERE request_id = $report"), qr/request $id{$later}\b/,
	'with its request');
my $perhaps = qq{perhaps of request $id{$later} in database "postgres"};
like(slurp_file($node->logfile),
	qr/WARNING:  an instant key that nobody owns has appeared late, $perhaps: $found\n/,
	'also in the log');
is(scalar(split /,/, live($later)), 3, 'nothing is revoked');
is(states_of($later), 'issued 2, issued 1, failed 08007 0', 'and the requests are as they were');
is(sql("SELECT count(*) FROM seam_instant_key_orphan WHERE user_identity_id <> '$later'"), '0',
	'nothing else is reported');

# What is reported can be revoked, or taken off the view.
is(sql("SELECT seam_retry_instant_key_request($report)"), 'revoking', 'tried again it is revoked');
ok(quiet(), 'that is done');
is(sql("SELECT status FROM seam_instant_key_request WHERE request_id = $report"), 'revoked', 'it says so');
is(live($later), owned($later), 'and what lives is what the requests have');

$node->stop;
done_testing();

