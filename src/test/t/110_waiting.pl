# A call that waits can always be ended, whatever it waits for.
use strict;
use warnings;

use File::Temp ();
use FakeSeam;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep time);

# A name lookup that stalls, preloaded into the server.
my $dir = File::Temp::tempdir(CLEANUP => 1);
append_to_file("$dir/stall.c", <<'C');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	int (*next) (const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");

	if (node && strstr(node, "stalled"))
		sleep(30);
	return next(node, service, hints, result);
}
C
system_or_bail('cc', '-shared', '-fPIC', '-o', "$dir/stall.so", "$dir/stall.c", '-ldl');

my $fake = FakeSeam->start;
my $stalled_tls = FakeSeam->start('--stall-tls');
my $no_accept = FakeSeam->start('--no-accept');

local $ENV{LD_PRELOAD} = join(':', grep { defined && length } $ENV{LD_PRELOAD}, "$dir/stall.so");
my $node = seam_cluster("seam_ik.api_key = 'seam_test_waiting'", 'shared_preload_libraries = seam_ik');
delete $ENV{LD_PRELOAD};

# what is waited for => [endpoint, may the key exist, wait until the fake has the request]
my %waits = (
	'an answer' => [ $fake->url('hang'), 1 ],
	'a slow answer' => [ $fake->url('drip=50'), 1 ],
	'TLS' => [ $stalled_tls->url, 0 ],
	'a connection' => [ $no_accept->url, 0 ],
	'a name lookup' => [ 'https://stalled.example', 0 ]);

sub waiting
{
	my ($pid) = @_;
	return wait_for(sub {
		$node->safe_psql('postgres', "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid AND state = 'active'") eq 'Extension';
	});
}

foreach my $what (sort keys %waits)
{
	my ($endpoint, $sent) = @{ $waits{$what} };
	my $set = "SET seam_ik.endpoint = '$endpoint'; SET seam_ik.max_retries = 0;";
	my $context = $sent ? qr/CONTEXT: .*the instant key may exist/ : qr/CONTEXT: .*no instant key was issued/;
	my ($s, $out, $took);

	# how it is ended => [SQL before, SQL to end it, expected]
	my @ends = (
		[ 'pg_cancel_backend', '', sub { "SELECT pg_cancel_backend($_[0])" }, qr/57014/ ],
		[ 'pg_terminate_backend', '', sub { "SELECT pg_terminate_backend($_[0])" }, qr/57P01/ ],
		[ 'statement_timeout', "SET statement_timeout = '300ms';", undef, qr/57014/ ]);
	foreach my $end (@ends)
	{
		my ($how, $before, $by, $expected) = @$end;

		$s = background($node, "$set $before " . CALL . ";\nRESET statement_timeout; SET seam_ik.endpoint = '" . $fake->url . "';\nSELECT 'then ' || (seam_generate_instant_key('" . guest . "')).user_identity_id;");
		ok(waiting($s->{pid}), "$what, $how: the wait shows") unless $before;
		my $begin = time;
		$node->safe_psql('postgres', $by->($s->{pid})) if $by;
		($out, $took) = result_of($s);
		$took = time - $begin;
		like($out, $expected, "$what, $how: its SQLSTATE");
		like($out, $context, "$what, $how: says whether the key may exist");
		cmp_ok($took, '<', 10, "$what, $how: at once");
		like($out, qr/^then d92e0c7b/m, "$what, $how: the session goes on") unless $how eq 'pg_terminate_backend';
	}

	$s = background($node, "$set SET seam_ik.request_timeout = '300ms'; " . CALL . ';');
	($out, $took) = result_of($s);
	like($out, $sent ? qr/08007/ : qr/08001/, "$what: request_timeout");
	cmp_ok($took, '<', 10, "$what: request_timeout is kept");
	next if $sent;
	$s = background($node, "$set SET seam_ik.connect_timeout = '300ms'; " . CALL . ';');
	($out, $took) = result_of($s);
	like($out, qr/08001.*connect_timeout/s, "$what: connect_timeout");
	cmp_ok($took, '<', 10, "$what: connect_timeout is kept");
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

# The wait burns no CPU.
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('hang') . "'; " . CALL . ';');
ok(waiting($s->{pid}), 'it waits');
sub cpu_ticks { my @f = split / /, slurp_file("/proc/$_[0]/stat"); return $f[13] + $f[14]; }
my $before = cpu_ticks($s->{pid});
sleep 2;
cmp_ok(cpu_ticks($s->{pid}) - $before, '<=', 2, 'a wait of two seconds takes at most two ticks');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($s->{pid})");
result_of($s);

# A batch with 50 calls under way, and in a stalled lookup.
foreach my $endpoint ($fake->url('hang'), 'https://stalled.example')
{
	$s = background($node, "SET seam_ik.endpoint = '$endpoint'; SET seam_ik.max_concurrency = 50; SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 200)));");
	ok(waiting($s->{pid}), "a batch waits");
	wait_for(sub { grep { $_->{spec} eq 'hang' } $fake->requests }) if $endpoint =~ /hang/;
	sleep 0.3;
	my $begin = time;
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($s->{pid})");
	my ($out) = result_of($s);
	cmp_ok(time - $begin, '<', 10, 'a batch is cancelled at once');
	like($out, $endpoint =~ /hang/ ? qr/57014.*CONTEXT: +0 of 200 .* 50 calls were in doubt/s : qr/57014.*CONTEXT: +0 of 200 .* 0 calls were in doubt/s, 'and says what was under way');
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
	$s = background($node, "SET seam_ik.endpoint = '" . $fake->url . "'; SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 5)) || '$slow'::uuid);");
	wait_for(sub { $fake->requests == 6 });
	sleep 0.3;
	$node->safe_psql('postgres', "SELECT pg_${how}_backend($s->{pid})");
	my ($out) = result_of($s);
	like($out, qr/5 of 6 instant keys had been issued, and 1 calls were in doubt/, "$how: the context counts");
	my $log = slurp_file($node->logfile, $offset);
	my @missing = grep { index($log, $_->{instant_key_id}) < 0 } $fake->keys;
	is(scalar(@missing), 0, "$how: the log has every id");
	unlike($log, qr/ik\.seam\.co/, "$how: and no URL");
}

# A batch tells how far it is.
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('delay=100') . "'; SET seam_ik.max_concurrency = 1; SET seam_ik.progress_interval = '150ms'; SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 6)));");
like((result_of($s))[0], qr/NOTICE: .*[1-5] of 6 calls of Seam done, 0 of them failed, about 0 s left/, 'progress');
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('delay=100') . "'; SET seam_ik.max_concurrency = 1; SET seam_ik.progress_interval = 0; SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 6)));");
unlike((result_of($s))[0], qr/NOTICE/, 'no progress');

# Fast shutdown; then the postmaster dies.
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('hang') . "'; " . CALL . ';');
ok(waiting($s->{pid}), 'it waits');
my $begin = time;
$node->stop('fast');
cmp_ok(time - $begin, '<', 20, 'fast shutdown does not wait for the call');
like((result_of($s))[0], qr/57P01/, 'fast shutdown: its SQLSTATE');
$node->start;
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('hang') . "'; " . CALL . ';');
ok(waiting($s->{pid}), 'it waits');
kill 'KILL', $node->{_pid};
ok(wait_for(sub { !kill 0, $s->{pid} }), 'a waiting backend goes when the postmaster dies');
result_of($s);
# (let the test's cluster object know)
wait_for(sub { !-e '/proc/' . $node->{_pid} });
$node->stop('immediate', fail_ok => 1);

done_testing();
