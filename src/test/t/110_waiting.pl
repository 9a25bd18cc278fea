# A call that waits can always be ended, whatever it waits for.
use strict;
use warnings;

use FakeSeam;
use PostgreSQL::Test::Utils;
use SeamIK;
use List::Util qw(min);
use Test::More;
use Time::HiRes qw(sleep time);

my $fake = FakeSeam->start;
my $stalled_tls = FakeSeam->start('--stall-tls');
my $no_accept = FakeSeam->start('--no-accept');

my $preload = stalled_lookups(30);
my $node;
{
	local $ENV{LD_PRELOAD} = $preload;
	$node = seam_cluster("seam_ik.api_key = 'seam_test_waiting'", 'shared_preload_libraries = seam_ik');
}

# what is waited for => [endpoint, may the key exist]
my %waits = (
	'an answer' => [ $fake->url('hang'), 1 ],
	'a slow answer' => [ $fake->url('drip=50'), 1 ],
	'TLS' => [ $stalled_tls->url, 0 ],
	'a connection' => [ $no_accept->url, 0 ],
	'a name lookup' => [ 'https://stalled.example', 0 ]);

# waiting(pid...): do they come to wait in a call?
sub waiting
{
	my $n = @_;
	my $pids = join ', ', @_;
	return wait_for(sub {
		$node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid IN ($pids) " .
			"AND state = 'active' AND wait_event_type = 'Extension'") == $n;
	});
}

# set_up(what): SQL that makes the next call wait for this
sub set_up
{
	return "SET seam_ik.endpoint = '$waits{$_[0]}[0]'; SET seam_ik.max_retries = 0; " .
		"SET seam_ik.connect_timeout = '60s'; SET seam_ik.request_timeout = '60s';";
}

# context(what): the context line of a call that is ended while it waits for this
sub context
{
	return $waits{$_[0]}[1] ? qr/CONTEXT: .*the instant key may exist/ : qr/CONTEXT: .*no instant key was issued/;
}

# Has a call that waits for this been seen at Seam?  (On a busy machine a timeout may come
# before it is sent.)
sub arrived { my ($what) = @_; return $waits{$what}[1] && grep { ($_->{spec} // '') =~ /hang|drip/ } $fake->requests; }

# all_waiting(): sessions by the name of what they wait for
sub all_waiting
{
	my %s;
	$fake->reset;
	$s{$_} = background($node, set_up($_) . ' ' . CALL . ';') for sort keys %waits;
	ok(waiting(map { $_->{pid} } values %s), 'all wait');
	ok(wait_for(sub { $fake->requests == grep { $_->[1] } values %waits }), 'and what can be sent is');
	return %s;
}

foreach my $what (sort keys %waits)
{
	my ($endpoint, $sent) = @{ $waits{$what} };
	my $set = set_up($what);
	my ($s, $out, $took);

	# how it is ended => [SQL before, SQL to end it, expected]
	my @ends = (
		[ 'pg_cancel_backend', '', sub { "SELECT pg_cancel_backend($_[0])" }, qr/57014/ ],
		[ 'pg_terminate_backend', '', sub { "SELECT pg_terminate_backend($_[0])" }, qr/57P01/ ],
		[ 'statement_timeout', "SET statement_timeout = '300ms';", undef, qr/57014/ ]);
	foreach my $end (@ends)
	{
		my ($how, $before, $by, $expected) = @$end;

		$fake->reset;
		$s = background($node, "$set $before " . CALL . ";\nRESET statement_timeout; SET seam_ik.endpoint = '" .
			$fake->url . "';\nSELECT 'then ' || (seam_generate_instant_key('" . guest . "')).user_identity_id;");
		ok(waiting($s->{pid}) && (!$sent || wait_for(sub { $fake->requests > 0 })), "$what, $how: the wait shows")
			unless $before;
		my $begin = time;
		$node->safe_psql('postgres', $by->($s->{pid})) if $by;
		($out, $took) = result_of($s);
		$took = time - $begin;
		like($out, $expected, "$what, $how: its SQLSTATE");
		like($out, $before && !arrived($what) ? qr/CONTEXT: .*(may exist|no instant key was issued)/ : context($what),
			"$what, $how: says whether the key may exist");
		cmp_ok($took, '<', 20, "$what, $how: at once");
		like($out, qr/^then d92e0c7b/m, "$what, $how: the session goes on") unless $how eq 'pg_terminate_backend';
	}

	$fake->reset;
	$s = background($node, "$set SET seam_ik.request_timeout = '300ms'; " . CALL . ';');
	($out, $took) = result_of($s);
	like($out, arrived($what) ? qr/08007/ : $sent ? qr/0800[17]/ : qr/08001/, "$what: request_timeout");
	cmp_ok($took, '<', 20, "$what: request_timeout is kept");
	next if $sent;
	$s = background($node, "$set SET seam_ik.connect_timeout = '300ms'; " . CALL . ';');
	($out, $took) = result_of($s);
	like($out, qr/08001.*connect_timeout/s, "$what: connect_timeout");
	cmp_ok($took, '<', 20, "$what: connect_timeout is kept");
}

# A cancel that is caught, then another call.
my $s = background($node, "SET seam_ik.endpoint = '" . $fake->url('hang') . "'; SET statement_timeout = '300ms';
DO \$\$ BEGIN
	PERFORM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
EXCEPTION WHEN query_canceled THEN
	SET LOCAL statement_timeout = 0;
	PERFORM set_config('seam_ik.endpoint', '" . $fake->url . "', true);
	RAISE NOTICE 'then %', (seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358')).user_identity_id;
END \$\$;");
like((result_of($s))[0], qr/then d92e0c7b/, 'a call in the handler of a cancelled one');

# Lookups that were given up, in whatever way, go on in threads of their own: no
# more than so many at once, and what needs none is not held up by them.
my $looking = background($node, set_up('a name lookup'));
run_in($looking, "SET statement_timeout = '20ms';\n" . join(";\n", (CALL) x 10) . ";\nRESET statement_timeout",
	'cancelled');
run_in($looking, "SET seam_ik.connect_timeout = '20ms';\n" . join(";\n", (CALL) x 10), 'connect_timeout');
run_in($looking, "SET seam_ik.connect_timeout = '20s'; SET seam_ik.request_timeout = '20ms';\n" .
	join(";\n", (CALL) x 10), 'request_timeout');
run_in($looking, "SELECT 'error rows: ' || count(*) FILTER (WHERE sqlstate = '08001') " .
	"FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 50)))", 'batch');
like($looking->{out}, qr/^error rows: 50$/m, 'a batch of lookups');
cmp_ok(threads_of($looking), '>', 1, 'lookups that were given up go on');
cmp_ok(threads_of($looking), '<=', 1 + 16, 'and no more than sixteen');
is(scalar(() = $looking->{err} =~ /57014/g), 10, 'cancelled while they looked up');
like($looking->{err}, qr/08001.*name lookups that were given up/s, 'beyond that a call fails at once');
run_in($looking, "SET seam_ik.request_timeout = '20s'; SET seam_ik.endpoint = '" . $fake->url .
	"'; SELECT 'then ' || (seam_generate_instant_key('" . guest . "')).user_identity_id", 'no lookup');
like($looking->{out}, qr/^then d92e0c7b/m, 'and one that needs no lookup does not');
result_of($looking);

# connect_timeout is over once there is a connection.
my $begin = time;
$s = background($node, set_up('an answer') . " SET seam_ik.connect_timeout = '1500ms'; " .
	"SET seam_ik.request_timeout = '2500ms'; " . CALL . ';');
like((result_of($s))[0], qr/08007/, 'a connection in time, and no answer');
cmp_ok(time - $begin, '>=', 2.5, 'request_timeout is waited for');

# request_timeout is for all tries together: there is time for two tries, the
# pause after which is at least 200 ms; and none for a pause that ends later.
$fake->reset;
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('delay=400,status=429') .
	"'; SET seam_ik.request_timeout = '1s'; SET seam_ik.max_retries = 10; " . CALL . ';');
like((result_of($s))[0], qr/53400|08007/, 'request_timeout and retries');
cmp_ok(scalar($fake->requests), '<=', 2, 'share their time');
$begin = time;
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('status=429,retry_after=60') .
	"'; SET seam_ik.request_timeout = '30s'; " . CALL . ';');
like((result_of($s))[0], qr/53400/, 'a pause that is longer than request_timeout');
cmp_ok(time - $begin, '<', 25, 'is not waited for');

# The wait burns no CPU, and nothing wakes it but what it waits for.
my %s = all_waiting();
sub cpu_ticks { my @f = split / /, slurp_file("/proc/$_[0]/stat"); return $f[13] + $f[14]; }
sub switches
{
	my $n = 0;
	my $status = slurp_file("/proc/$_[0]/status");
	$n += $1 while $status =~ /ctxt_switches:\s+(\d+)/g;
	return $n;
}
# (what still gets there, on a busy machine, has done so in a later window; what is awake is so in each of them)
my %least = map { $_ => [ 1000, 1000 ] } keys %s;
for (1 .. 5)
{
	my %before = map { $_ => [ cpu_ticks($s{$_}{pid}), switches($s{$_}{pid}) ] } keys %s;
	sleep 2;
	foreach my $what (keys %s)
	{
		my @now = (cpu_ticks($s{$what}{pid}), switches($s{$what}{pid}));
		$least{$what}[$_] = min($least{$what}[$_], $now[$_] - $before{$what}[$_]) for 0, 1;
	}
	last unless grep { $_->[0] > 2 } values %least;
}
foreach my $what (sort keys %s)
{
	my ($ticks, $woken) = @{ $least{$what} };
	note("$what: in two seconds $ticks ticks, woken $woken times");
	cmp_ok($ticks, '<=', 2, "$what: a wait of two seconds takes at most two ticks");
	cmp_ok($woken, '<', 20, "$what: it is no polling") unless $what eq 'a slow answer';
}

# How long after its cancel a call is over, seen by the client.
my @all;
foreach my $what (sort keys %s)
{
	my $one = $s{$what};
	my @took;
	for my $n (1 .. 5)
	{
		my $begin = time;
		kill 'INT', $one->{pid};
		$one->{run}->pump until (() = $one->{err} =~ /CONTEXT/g) >= $n;
		push @took, 1000 * (time - $begin);
		$one->{in} .= CALL . ";\n";
		$one->{run}->pump_nb for 1 .. 3;
		sleep 0.1;
	}
	kill 'INT', $one->{pid};
	my ($out) = result_of($one);
	is(scalar(() = $out =~ /57014/g), 6, "$what: every cancel ended a call");
	push @all, @took;
	note("$what: ms from the cancel to its error: " . join(' ', map { sprintf '%.1f', $_ } sort { $a <=> $b } @took));
}
@all = sort { $a <=> $b } @all;
cmp_ok($all[ @all / 2 ], '<', 5000, 'calls are cancelled at once');

# A client that is gone needs no answer.
$s = background($node, "SET client_connection_check_interval = '100ms'; " . set_up('an answer') . ' ' . CALL . ';');
ok(waiting($s->{pid}), 'it waits');
$s->{run}->signal('KILL');
my $gone = time;
ok(wait_for(sub { $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $s->{pid}") == 0 }),
	'a call ends when its client is gone');
cmp_ok(time - $gone, '<', 20, 'at once');
result_of($s);

# A batch with 50 calls under way, and in a stalled lookup.
foreach my $endpoint ($fake->url('hang'), 'https://stalled.example')
{
	$fake->reset;
	$s = background($node, "SET seam_ik.endpoint = '$endpoint'; SET seam_ik.max_concurrency = 50; " .
		"SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() " .
		"FROM generate_series(1, 200)));");
	ok(waiting($s->{pid}), "a batch waits");
	$endpoint =~ /hang/ ? wait_for(sub { $fake->requests == 50 }) : sleep 0.3;
	my $begin = time;
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($s->{pid})");
	my ($out) = result_of($s);
	cmp_ok(time - $begin, '<', 20, 'a batch is cancelled at once');
	like($out, $endpoint =~ /hang/ ? qr/57014.*CONTEXT: +0 of 200 .* 50 requests were in doubt/s
		: qr/57014.*CONTEXT: +0 of 200 .* 0 requests were in doubt/s, 'and says what was under way');
}

# What a batch had issued when it was ended is in the log: ids, not URLs.
$fake->reset;
my $slow = '00000000-0000-4000-8000-000000000001';
$fake->behave($slow, 'hang');
foreach my $how ('cancel', 'terminate')
{
	my $offset = -s $node->logfile;
	$fake->reset;
	$fake->behave($slow, 'hang');
	$s = background($node, "SET seam_ik.endpoint = '" . $fake->url .
		"'; SET seam_ik.progress_interval = 50; SELECT count(*) " .
		"FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() " .
		"FROM generate_series(1, 5)) || '$slow'::uuid);");
	wait_for(sub { $s->{run}->pump_nb; $s->{err} =~ /5 of 6 requests to Seam done/ && $fake->requests == 6 });
	$node->safe_psql('postgres', "SELECT pg_${how}_backend($s->{pid})");
	my ($out) = result_of($s);
	like($out, qr/5 of 6 instant keys had been issued, and 1 requests were in doubt/, "$how: the context counts");
	my $log = slurp_file($node->logfile, $offset);
	my @missing = grep { index($log, $_->{instant_key_id}) < 0 } $fake->keys;
	is(scalar(@missing), 0, "$how: the log has every id");
	unlike($log, qr/ik\.seam\.co/, "$how: and no URL");
}

# A timeout that comes with the answer: what the context says of the key is true.
# (A large customization makes the answer long to read, so that some may hit it.)
$fake->reset;
$fake->behave(guest, 'delay=30,customization=' . '%7B' . join('%2C', map { "%22k$_%22:%22v%22" } 1 .. 30000) . '%7D');
foreach my $ms (25 .. 90)
{
	my $before = $fake->keys;
	my ($rc, $out, $err) = $node->psql('postgres', "SET seam_ik.endpoint = '" . $fake->url .
		"'; SET statement_timeout = $ms; " . CALL);
	next if $rc == 0;
	my ($id) = $err =~ /instant key (\S+) had been issued/;
	is($fake->keys - $before, 0, "statement_timeout = $ms ms: no key was issued, as it says")
		if $err =~ /no instant key was issued/;
	next unless $id;
	ok(scalar(grep { $_->{instant_key_id} eq $id } $fake->keys), "statement_timeout = $ms ms: the key that it names");
}
$fake->reset;

# A batch tells how far it is.
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('delay=100') .
	"'; SET seam_ik.max_concurrency = 1; SET seam_ik.progress_interval = '150ms'; " .
	"SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 6)));");
like((result_of($s))[0], qr/NOTICE: .*[1-5] of 6 requests to Seam done, 0 of them failed, about \d+ s left/,
	'progress');
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('delay=100') .
	"'; SET seam_ik.max_concurrency = 1; SET seam_ik.progress_interval = 0; " .
	"SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 6)));");
unlike((result_of($s))[0], qr/NOTICE/, 'no progress');

# Elements without a call are no wait, but many of them take their time, too.  (The
# context line is there when the timeout came while they were being looked at.)
$node->safe_psql('postgres', "CREATE TABLE nothing AS SELECT ids, '" . guest .
	"'::uuid || ids AS one FROM array_fill(NULL::uuid, ARRAY[1500000]) ids");
$s = background(
	$node, "SET statement_timeout = '200ms'; SELECT count(*) FROM nothing, seam_generate_instant_keys(ids);");
like((result_of($s))[0], qr/57014.*CONTEXT:  0 of 0 instant keys had been issued/s,
	'statement_timeout ends a batch of NULL elements');
$fake->reset;
$fake->behave(guest, 'delay=1');
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url .
	"'; SET statement_timeout = '200ms'; SELECT count(*) FROM nothing, seam_generate_instant_keys(one);");
# (where all is slow the timeout may come before the answer)
like((result_of($s))[0],
	qr/57014.*CONTEXT:\ \ (instant\ key\ [0-9a-f-]+\ had\ been\ issued|.*the\ instant\ key\ may\ exist|
		no\ request\ to\ Seam\ was\ under\ way)/sx, 'and one that begins with another');

$fake->reset;

# Fast shutdown; then the postmaster dies.
%s = all_waiting();
$begin = time;
$node->stop('fast');
cmp_ok(time - $begin, '<', 40, 'fast shutdown does not wait for the calls');
foreach my $what (sort keys %s)
{
	my ($out) = result_of($s{$what});
	like($out, qr/57P01/, "$what, fast shutdown: its SQLSTATE");
	like($out, context($what), "$what, fast shutdown: says whether the key may exist");
}
{
	local $ENV{LD_PRELOAD} = $preload;
	$node->start;
}
%s = all_waiting();
$begin = time;
$node->kill9;
foreach my $what (sort keys %s)
{
	like((result_of($s{$what}))[0], qr/connection to server was lost/,
		"$what: the backend goes when the postmaster dies");
	note(sprintf '%s: gone %.1f ms after the postmaster was killed', $what, 1000 * (time - $begin));
}
cmp_ok(time - $begin, '<', 40, 'at once');

done_testing();
