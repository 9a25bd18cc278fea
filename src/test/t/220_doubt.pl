# Lost answers: whatever is lost, a request ends with exactly one live key.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql keys_of live enqueue states_of owned worker_of up);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep time);

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s',
	'restart_after_crash = on', 'wal_level = replica', 'max_wal_senders = 1');
api_key_file($node, 'seam_test_doubt');
$node->reload;

meet($node, $fake);

# The statuses of an identity's requests, once all have ended.
sub outcome
{
	my ($guest) = @_;
	wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$guest' " .
		"AND next_attempt_at IS NOT NULL") eq '0' });
	return states_of($guest);
}
# What is alive is what the requests have, and so many keys were ever issued.
sub is_right
{
	my ($guest, $live, $ever, $name) = @_;
	is(live($guest), owned($guest), "$name: what lives is what the requests have");
	is(scalar(split /,/, live($guest)) . ' of ' . scalar(keys_of($guest)), "$live of $ever", "$name: so many keys");
}
my $at = 'route=generate_instant_key';

# Issued, but the answer is lost or of no use: adopted.  Not issued: tried again.  (Which
# answers leave doubt, and whose keys are found, is tested by itself, without a server.  Where
# five answers in a row are lost, that is an outage, which uses up no attempt.)
my @cases = map { [ @$_, new_guest ] } ([ 'reset_after', 'issued 1' ], [ 'status=500,issue', 'issued 1' ],
	[ 'notjson', 'issued 1' ], [ 'big=3000000', 'issued 1' ], [ 'reset', 'issued [12]' ],
	[ 'status=503', 'issued [12]' ]);
foreach my $case (@cases)
{
	$fake->behave($case->[2], "$at,$case->[0]", 1);
	enqueue($case->[2]);
}
foreach my $case (@cases)
{
	like(outcome($case->[2]), qr/^$case->[1]$/, "$case->[0]: $case->[1]");
	is_right($case->[2], 1, 1, $case->[0]);
}

# The local clock decides nothing: Seam's may be wrong by minutes, and nobody has seen that yet.
my ($lost, $unissued) = (new_guest, new_guest);
$fake->clock(300);
$fake->behave($lost, "$at,reset_after", 1);
$fake->behave($unissued, "$at,reset", 1);
enqueue($_) foreach $lost, $unissued;
is(outcome($lost), 'issued 1', "Seam's clock is off, answer lost");
like(outcome($unissued), qr/^issued [12]$/, "Seam's clock is off, not issued");
is_right($_, 1, 1, "Seam's clock is off") foreach $lost, $unissued;
$fake->clock(0);
enqueue(new_guest);

# Several lost calls for an identity: each gets one of the keys, if they asked
# for the same; else nobody can tell, and all are issued anew.
my ($same, $differ) = (new_guest, new_guest);
$fake->behave($same, "$at,reset_after", 3);
$fake->behave($differ, "$at,reset_after", 2);
sql("SELECT seam_enqueue_instant_key('$same') FROM generate_series(1, 3)");
sql("SELECT seam_enqueue_instant_key('$differ', g) FROM generate_series(1, 2) g");
is(outcome($same), 'issued 1, issued 1, issued 1', 'three lost, alike');
is_right($same, 3, 3, 'three lost, alike');
like(outcome($differ), qr/issued [12], issued [12], revoked 1, revoked 1/, 'two lost, that asked for different things');
is_right($differ, 2, 4, 'two lost, that asked for different things');

# A key of another issuer: nothing is adopted or revoked.
my ($other, $before) = (new_guest, new_guest);
$fake->behave($other, "$at,hang_after", 1);
my $id = enqueue($other);
wait_for(sub { keys_of($other) > 0 });
$fake->ask('seed-keys', { user_identity_id => $other, count => 1 });
is(outcome($other), 'failed 08007 1', 'another issuer at work');
is(scalar(grep { !$_->{revoked} } keys_of($other)), 2, 'both keys live');
my $error = sql("SELECT error FROM seam_instant_key_request WHERE request_id = $id");
like($error, qr/\Q$_->{instant_key_id}\E/, 'the keys are named') foreach keys_of($other);
unlike($error, qr{ik\.seam\.co}, 'and not by their URLs');

# A key of long before is no candidate, and neither is another request's.
$fake->clock(-3600);
$fake->ask('seed-keys', { user_identity_id => $before, count => 3 });
$fake->clock(0);
enqueue($before);
outcome($before);
$fake->behave($before, "$at,reset", 1);
enqueue($before);
like(outcome($before), qr/^issued 1, issued [12]$/, 'keys of before, and of another request');
is(scalar(grep { !$_->{revoked} } keys_of($before)), 5, 'none of them was touched');

# Nothing else is sent for an identity in doubt, and others do not wait.
$node->append_conf('postgresql.conf', 'seam_ik.settle_delay = 8s');
$node->reload;
wait_for(sub { sql('SHOW seam_ik.settle_delay') eq '8s' });
my ($doubtful, $free) = (new_guest, new_guest);
$fake->behave($doubtful, "$at,reset_after", 1);
my $begin = time;
enqueue($doubtful);
wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$doubtful' " .
	"AND sqlstate = '08007'") eq '1' });
enqueue($doubtful);
enqueue($free);
is(outcome($free), 'issued 1', 'another identity');
is(sql("SELECT string_agg(status, ', ' ORDER BY request_id) FROM seam_instant_key_request " .
	"WHERE user_identity_id = '$doubtful'"), 'in_flight, pending', 'the same one does');
is(outcome($doubtful), 'issued 1, issued 1', 'until it is settled');
cmp_ok(time - $begin, '>', 8, 'after settle_delay');
$node->append_conf('postgresql.conf', 'seam_ik.settle_delay = 1s');
$node->reload;
is_right($doubtful, 2, 2, 'a doubt and a request after it');

# Cancelled while in flight: the key goes, whether the answer comes or not.
my @cancelled = map { new_guest } 1 .. 2;
$fake->behave($cancelled[0], "$at,hold", 1);
$fake->behave($cancelled[1], "$at,hang_after", 1);
foreach my $guest (@cancelled)
{
	my $request = enqueue($guest);
	wait_for(sub { sql("SELECT status FROM seam_instant_key_request WHERE request_id = $request") eq 'in_flight' });
	is(sql("SELECT seam_cancel_instant_key_request($request)"), 'revoking', 'cancelled in flight');
	$fake->release($guest);
}
foreach my $guest (@cancelled)
{
	like(outcome($guest), qr/^revoked/, 'and revoked');
	is(live($guest), '', 'no key lives');
}

# The list fails at first.
my $unlisted = new_guest;
$fake->behave($unlisted, 'route=list,status=500', 2);
$fake->behave($unlisted, "$at,reset_after", 1);
enqueue($unlisted);
is(outcome($unlisted), 'issued 1', 'a list that fails is asked for again');
is_right($unlisted, 1, 1, 'a list that fails');

# An attempt whose record takes longer to commit than a request may take is not made: its
# key might be created when nobody looks for it any more.
my $late = new_guest;
sub syncs_with
{
	my ($standbys) = @_;
	$node->append_conf('postgresql.conf', "synchronous_standby_names = '$standbys'");
	$node->reload;
	return wait_for(sub { sql('SHOW synchronous_standby_names') eq $standbys });
}
syncs_with('nobody');
sql("SET synchronous_commit = local; SELECT seam_enqueue_instant_key('$late')");
ok(wait_for(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' " .
	"AND backend_type = 'seam_ik worker'") eq '1' }), 'the record of an attempt waits for a standby that is away');
sleep 1.5;
syncs_with('');
is(outcome($late), 'issued 2', 'it is not sent then, but the next attempt is');
is(scalar(keys_of($late)), 1, 'and one key is issued');

# The worker is killed, and so is the server, with calls in flight.
my @killed = map { new_guest } 1 .. 6;
foreach my $n (0 .. $#killed)
{
	$fake->behave($killed[$n], $at . ($n % 2 ? ',hang' : ',hang_after'), 1);
}
sub in_flight
{
	return wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE status = 'in_flight'") eq '3' });
}
sql(join '; ', map { "SELECT seam_enqueue_instant_key('$_')" } @killed[0 .. 2]);
in_flight();
kill 'KILL', worker_of();
wait_for(sub { ask($node, 'SELECT 1') eq '1' });
up();
outcome($_) foreach @killed[0 .. 2];
sql(join '; ', map { "SELECT seam_enqueue_instant_key('$_')" } @killed[3 .. 5]);
in_flight();
$node->stop('immediate');
$node->start;
foreach my $n (0 .. $#killed)
{
	is(outcome($killed[$n]), $n % 2 ? 'issued 2' : 'issued 1', 'after a kill');
	is_right($killed[$n], 1, 1, 'after a kill');
}

$node->stop;
done_testing();
