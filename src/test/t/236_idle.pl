# A worker that waits costs nothing: whatever it waits for, it sleeps until there is
# something to do.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql answers call asked enqueue worker_of printed);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep);

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.settle_delay = 0', 'seam_ik.request_timeout = 1s',
		'seam_ik.max_retries = 0',
	'max_prepared_transactions = 5', 'max_worker_processes = 20', 'autovacuum = off');
api_key_file($node, 'seam_test_idle');

my $at = 'route=generate_instant_key';
meet($node, $fake);

# How often a process has gone to sleep, and how many seconds it has had of a processor.
sub usage
{
	my ($pid) = @_;
	my ($sleeps) = slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
	my ($cpu) = slurp_file("/proc/$pid/schedstat") =~ /^(\d+)/;

	return ($sleeps, $cpu / 1e9);
}

# Change requests by hand; and have the worker read again what is in doubt, as it does
# when a request is tried again.
sub change
{
	my ($db, $update) = @_;
	my $refused = new_guest;

	$fake->behave($refused, 'status=400', 1);
	my $id = enqueue($db, $refused);
	answers($db, "SELECT status FROM seam_instant_key_request WHERE request_id = $id", 'failed');
	sql($db, "$update; SELECT seam_retry_instant_key_request($id)");
	ok(answers($db, "SELECT status FROM seam_instant_key_request WHERE request_id = $id", 'issued'),
		"$db: the worker has seen a change");
	return;
}

my @waits = qw(probe lists apart prepared lost open);
foreach my $db (@waits)
{
	sql('postgres', "CREATE DATABASE $db");
	# a worker has as many lists under way as half of its calls
	sql('postgres', "ALTER DATABASE $db SET seam_ik.max_concurrency = 4");
	sql('postgres', "ALTER DATABASE $db SET seam_ik.request_timeout = '100s'") if $db eq 'probe' || $db eq 'lists';
	sql($db, 'CREATE EXTENSION seam_ik');
	ok(wait_for(sub { worker_of($db) ne '' }), "$db has a worker");
}

# Seam did not accept the key, and does not answer the request that tries again.
my $probe = new_guest;
$fake->behave($probe, 'status=401', 1);
$fake->behave($probe, 'hang');
enqueue('probe', $probe);

# Lost answers of more guests than may be asked for at once, and Seam does not tell.  (With
# one more it would be an outage.)
my @lists = map { new_guest } 1 .. 4;
foreach my $guest (@lists)
{
	$fake->behave($guest, "$at,reset", 1);
	$fake->behave($guest, 'route=list,hang');
	enqueue('lists', $guest);
}
answers('lists', "SELECT count(*) FROM seam_instant_key_request WHERE sqlstate = '08007'", '4');
change('lists',
	"UPDATE seam_instant_key_request SET attempt_timeout = 0, next_attempt_at = now() WHERE status = 'in_flight'");

# Lost answers of one guest, the second of which may be looked after later only.
my $apart = new_guest;
$fake->behave($apart, "$at,delay=1000,reset");
$fake->behave($apart, 'route=list,status=400');
enqueue('apart', $apart) for 1 .. 2;
ok(answers('apart', "SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$apart' " .
	"AND error LIKE 'could not look%'", '2'), 'a guest with two lost answers');
change('apart', "UPDATE seam_instant_key_request SET next_attempt_at = now() + CASE WHEN request_id = (SELECT " .
	"max(request_id) FROM seam_instant_key_request WHERE status = 'in_flight') THEN interval '20 min' ELSE '0' END " .
	"WHERE status = 'in_flight'");

# Synchronous calls whose transactions do not end.
my ($prepared, $lost, $open) = map { new_guest } 1 .. 3;
sql('prepared', 'BEGIN; ' . call($prepared) . "; PREPARE TRANSACTION 'prepared'");
$fake->behave($lost, "$at,reset_after", 1);
is(sql('lost', "BEGIN; SELECT sqlstate FROM seam_generate_instant_keys(ARRAY['$lost']::uuid[]); " .
	"PREPARE TRANSACTION 'lost'"), '08007', 'an answer is lost');
my $s = background($node, 'BEGIN; ' . call($open) . "; SELECT 'called';", 'open');
ok(printed($s, 'called'), 'an open transaction with a key');

ok(wait_for(sub { grep({ asked($_, 'list') } @lists) == 2 }), 'two lists are under way');
ok(wait_for(sub { asked($probe, 'list') }), 'a list tries the API key');
sleep 2;						# what has happened is noted by now

my %pid = map { $_ => worker_of($_) } @waits;
my %before = map { $_ => [ usage($pid{$_}) ] } @waits;
sleep 4;
foreach my $db (@waits)
{
	my ($sleeps, $cpu) = usage($pid{$db});

	$sleeps -= $before{$db}[0];
	$cpu -= $before{$db}[1];
	note(sprintf '%s: %d times awake, %.0f ms', $db, $sleeps, 1000 * $cpu);
	cmp_ok($sleeps, '<', 10, "$db: the worker sleeps");
	cmp_ok($cpu, '<', 0.1, "$db: and does not spin");
}

# And then they go on.
$fake->behave($_, '') foreach $apart;
sql('prepared', "ROLLBACK PREPARED 'prepared'");
sql('lost', "ROLLBACK PREPARED 'lost'");
$s->{in} .= "COMMIT;\n";
result_of($s);
ok(answers('open', 'SELECT count(*) FROM seam_instant_key_call', '0'),
	'the end of a transaction that was open for long is seen');
foreach my $guest ([ prepared => $prepared ], [ lost => $lost ])
{
	ok(answers($guest->[0], UNSETTLED, '0'), "a transaction ($guest->[0]) that was prepared is settled");
	is(scalar(grep { !$_->{revoked} && $_->{user_identity_id} eq $guest->[1] } $fake->keys), 0, 'and its key revoked');
}
$node->stop('immediate');
done_testing();

