# Thousands of failing calls leave memory and descriptors where they were.
use strict;
use warnings;

use FakeSeam;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node;
{
	local $ENV{LD_PRELOAD} = stalled_lookups(1);
	$node = seam_cluster("seam_ik.api_key = 'seam_test_leaks'", "shared_preload_libraries = 'seam_ik'",
		'max_files_per_process = 100');
}
my $base = $fake->url('');

# One session; after each round it tells its memory and descriptors.
$node->safe_psql('postgres', q{
CREATE FUNCTION calls(base text, n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	spec text;
	specs text[] := ARRAY['status=400', 'status=401', 'status=404', 'status=500', 'status=429', 'notjson',
		'missing=expires_at', 'okfalse', 'identity=00000000-0000-4000-8000-000000000000',
		'reset', 'close_after', 'truncate=20', 'big=1100000', 'nul', 'deep=40', 'trailing', 'redirect=x',
			'customization=%7B%22a%22:%22b%22%7D', 'bigheader=200000'];
BEGIN
	FOR i IN 1 .. n LOOP
		FOREACH spec IN ARRAY specs LOOP
			PERFORM set_config('seam_ik.endpoint', base || spec, false);
			BEGIN
				PERFORM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
			EXCEPTION WHEN OTHERS THEN
				NULL;
			END;
		END LOOP;
		PERFORM set_config('seam_ik.endpoint', 'http://127.0.0.1:1', false);
		BEGIN
			PERFORM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
		-- a batch without answers
		PERFORM set_config('seam_ik.endpoint', base || 'hang', false);
		PERFORM count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 3)));
		PERFORM set_config('seam_ik.endpoint', base || 'status=404', false);
		PERFORM count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 5)));
	END LOOP;
END $$;
});

my $s = background($node, "SET seam_ik.max_retries = 0; SET seam_ik.request_timeout = '20ms'; " .
	"SET seam_ik.max_concurrency = 4;");

sub rss { my ($kb) = slurp_file("/proc/$s->{pid}/status") =~ /VmRSS:\s+(\d+)/; return $kb; }
sub anonymous { my ($kb) = slurp_file("/proc/$s->{pid}/smaps_rollup") =~ /^Anonymous:\s+(\d+)/m; return $kb; }
# what PostgreSQL's own memory contexts hold; asked in the session
sub contexts
{
	run_in($s, 'SELECT \'contexts \' || sum(total_bytes) FROM pg_backend_memory_contexts', "contexts $_[0]");
	my ($bytes) = $s->{out} =~ /contexts (\d+)\ndone contexts $_[0]\n/;
	return $bytes;
}
sub descriptors { my @f = glob "/proc/$s->{pid}/fd/*"; return scalar @f; }
sub sockets { return scalar grep { (readlink // '') =~ /^socket/ } glob "/proc/$s->{pid}/fd/*"; }

# failing at the top level, too: errors that end a statement
my $top = join ";\n", map { "SELECT set_config('seam_ik.endpoint', '$base$_', false) IS NULL; " . CALL } qw(status=400
	notjson reset_after truncate=5 hang) x 20;

# cancelled: a call, a call whose cancel is caught, a batch
sub cancelled
{
	my ($n) = @_;
	my $batch = 'SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() ' .
		'FROM generate_series(1, 3)))';
	my $caught = "DO \$\$ BEGIN PERFORM seam_generate_instant_key('" . guest .
		"'); EXCEPTION WHEN query_canceled THEN RAISE NOTICE 'caught'; END \$\$";

	return "SET seam_ik.request_timeout = '10s'; SET seam_ik.endpoint = '${base}hang'; " .
		"SET statement_timeout = '10ms';\n" .
		join(";\n", (CALL, $caught, $batch) x $n) . ";\nRESET statement_timeout; SET seam_ik.request_timeout = '20ms'";
}

# (as many in one transaction as later: each of them has a subtransaction, which takes memory until its end)
run_in($s, "SELECT calls('$base', 150)", 'warm');
run_in($s, $top, 'warm top');
run_in($s, cancelled(20), 'warm cancelled');
my $contexts = contexts('before');
my ($rss, $fds, $anonymous) = (rss(), descriptors(), anonymous());
$s->{err} = '';
run_in($s, "SELECT calls('$base', 150)", 'long');
run_in($s, $top, "top $_") for 1 .. 5;
run_in($s, cancelled(100), 'cancelled');
is(join(' ', scalar(() = $s->{err} =~ /57014/g), scalar(() = $s->{err} =~ /caught/g)), '200 100',
	'calls were cancelled');
my $contexts_then = contexts('after');
note("VmRSS $rss kB, then " . rss() . " kB; anonymous $anonymous kB, then " . anonymous() .
	" kB; memory contexts $contexts, then $contexts_then; descriptors $fds, then " . descriptors());
# (a leak of 100 bytes a call would be 400 kB)
cmp_ok(anonymous() - $anonymous, '<', 300, '4,000 failing calls, 300 of them cancelled: memory stays');
cmp_ok($contexts_then - $contexts, '<', 20000, 'memory contexts stay');
cmp_ok(descriptors() - $fds, '<=', 2, 'descriptors stay');
is($s->{err} =~ s/^.*?ERROR:  (\w+):.*$/$1/mgr =~ /08007|22023|08P01/, 1, '(they failed)');
# a lookup that is left alone has a thread and descriptors until it ends and the
# session makes its next call
$s->{err} = '';
run_in($s, "SET seam_ik.max_retries = 0; SET seam_ik.request_timeout = '10s'; " .
	"SET seam_ik.endpoint = 'https://stalled.example'; SET statement_timeout = '30ms';\n" . join(";\n", (CALL) x 12) .
	";\nRESET statement_timeout", 'lookups');
is(scalar(() = $s->{err} =~ /57014/g), 12, 'lookups were cancelled');
my $calls = 0;
ok(wait_for(sub { run_in($s, "SET seam_ik.endpoint = '${base}status=404'; " . CALL, 'call ' . ++$calls);
	threads_of($s) == 1 && descriptors() - $fds <= 2 }), 'and leave no thread or descriptor');

# connections that are cancelled while they are made: none is counted for good
my $no_accept = FakeSeam->start('--no-accept');
$s->{err} = '';
run_in($s, "SET seam_ik.connect_timeout = '20s'; SET seam_ik.request_timeout = '20s'; SET seam_ik.endpoint = '" .
	$no_accept->url . "'; SET statement_timeout = '10ms';\n" .
	join(";\n", (CALL, 'SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() ' .
		'FROM generate_series(1, 3)))') x 50) . ";\nRESET statement_timeout", 'connecting');
is(scalar(() = $s->{err} =~ /57014/g), 100, 'connections were cancelled');
$s->{err} = '';
run_in($s, "SET seam_ik.max_retries = 0; SET seam_ik.endpoint = '$base'; SET seam_ik.request_timeout = '100s';\n" .
	join(";\n", map { "SET seam_ik.endpoint = '${base}connection_close'; " . CALL } 1 .. 3), 'after connecting');
is($s->{err}, '', 'and descriptors do not run out');
$fake->reset;
$s->{in} .= "SELECT set_config('seam_ik.endpoint', '" . $fake->url . "', false) IS NULL;\nSELECT 'then " .
	"' || (seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358')).user_identity_id;\n";
like((result_of($s))[0], qr/then d92e0c7b/, 'and the session works');

# Descriptors run out: an error, and no crash.
foreach my $warm (1, 0)
{
	my $name = $warm ? 'a session that has called before' : 'a first call';
	$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('connection_close') .
		"'; SET seam_ik.max_retries = 0;");
	run_in($s, $warm ? CALL : 'SELECT 1', $name);
	$s->{err} = '';
	my %open = map { $_ => 1 } map { m{(\d+)$} } glob "/proc/$s->{pid}/fd/*";
	my ($free) = grep { !$open{$_} } 0 .. 1000;
	system_or_bail('prlimit', '--pid', $s->{pid}, "--nofile=$free:");
	run_in($s, CALL, "short of descriptors");
	like($s->{err}, $warm ? qr/08001: could not connect to Seam: too many open files/
		: qr/ERROR: +(XX000|53...): .*(Too many open files|could not initialize libcurl)/,
		"$name without a free descriptor: an error");
	system_or_bail('prlimit', '--pid', $s->{pid}, '--nofile=1000:');
	$s->{in} .= "SELECT 'then ' || (seam_generate_instant_key('" . guest . "')).user_identity_id;\n";
	like((result_of($s))[0], qr/then d92e0c7b/, 'and then the session works');
}

# Descriptors run out: a batch goes with fewer, and has no error row for it.
is($node->safe_psql('postgres', "SET seam_ik.endpoint = '" . $fake->url('delay=5') .
	"'; SET seam_ik.max_concurrency = 500;
SELECT sqlstate, count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 400)))
GROUP BY 1"), '|400', 'a batch for which descriptors run out');
$fake->reset;

# After a batch few connections are kept, and the next batch has its own again.
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('delay=50') . "'; SET seam_ik.max_concurrency = 1000;");
run_in($s, 'SELECT 1', 'idle');
my $idle = sockets();
foreach my $n (1, 2)
{
	run_in($s, "SELECT 'with a key: ' || count(instant_key) FROM seam_generate_instant_keys(ARRAY(SELECT " .
		"gen_random_uuid() FROM generate_series(1, 400)))", "batch $n");
	cmp_ok(sockets() - $idle, '<=', 8, 'a batch leaves at most eight connections');
}
is(scalar(() = $s->{out} =~ /with a key: 400/g), 2, 'and every call has its key');
my %connections = map { $_->{connection} => 1 } $fake->requests;
cmp_ok(scalar(keys %connections), '>', 16, '(it had more)');
result_of($s);
$fake->reset;

# 100,000 elements: memory grows with the answers only.
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url('status=404') .
	"'; SET seam_ik.max_concurrency = 50; SET work_mem = '1MB'; SET seam_ik.progress_interval = 0;");
run_in($s, 'SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid()
	FROM generate_series(1, 1000)))', 'small');
$rss = rss();
run_in($s, 'SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid()
	FROM generate_series(1, 20000)))', 'large');
note("a batch of 20,000: VmRSS $rss kB, then " . rss() . ' kB');
cmp_ok(rss() - $rss, '<', 20000, 'a batch of 20,000');
like($s->{out}, qr/^20000$/m, 'has its rows');
result_of($s);

# The highest that the session's memory was, in kB.
sub peak { my ($kb) = slurp_file("/proc/$s->{pid}/status") =~ /VmHWM:\s+(\d+)/; return $kb; }

# Elements that are NULL cost little more than their rows, which go to disk.
$s = background($node, "SET work_mem = '1MB';");
run_in($s, "SELECT count(*) FROM seam_generate_instant_keys(array_fill(NULL::uuid, ARRAY[1000]))", 'few');
my $peak = peak();
run_in($s, "SELECT count(*), min(sqlstate), max(sqlstate) FROM seam_generate_instant_keys(array_fill(NULL::uuid, " .
	"ARRAY[500000]))", 'many');
note("a batch of 500,000 NULL elements: VmHWM $peak kB, then " . peak() . ' kB');
cmp_ok(peak() - $peak, '<', 60000, 'a batch of 500,000 NULL elements');
like($s->{out}, qr/^500000\|22004\|22004$/m, 'has its rows');
result_of($s);

# What is wrong with each parameter costs no more than in proportion to what Seam says.
$s = background($node, "SET seam_ik.endpoint = '" . $fake->url . "';");
my $name = 'n' x 40000;
my $children = join ', ', map { "\"$_\": {\"a\": 1}" } 1 .. 4000;
$fake->behave(guest, 'status=400,errors=' . "{\"$name\": {$children, \"last\": {\"_errors\": [\"Required\"]}}}"
	=~ s/,/%2C/gr);
$fake->behave('00000000-0000-4000-8000-000000000000', 'status=400');
run_in($s, "SELECT seam_generate_instant_key('00000000-0000-4000-8000-000000000000')", 'short');
$peak = peak();
run_in($s, CALL, 'long');
note("a long name with 4,000 children: VmHWM $peak kB, then " . peak() . ' kB');
cmp_ok(peak() - $peak, '<', 20000, 'a validation error with a long name and many children');
like($s->{err}, qr/22023.*\n\(\.\.\.\)\.last: Required/s, 'is told');
result_of($s);

# A list of 50,000.
$fake->reset;
$fake->ask('seed-keys', { user_identity_id => guest, count => 50000 });
is($node->safe_psql('postgres', "SET seam_ik.endpoint = '" . $fake->url .
	"'; SELECT count(DISTINCT instant_key_id) FROM seam_list_instant_keys('" . guest . "')"), 50000,
	'a list of 50,000 keys');

$node->stop;
done_testing();
