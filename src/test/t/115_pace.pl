# How fast requests follow each other: what seam_ik.rate_limit and a 429 of Seam's do
# to the outbox and to a batch.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql lists_of quiet logged);
use PostgreSQL::Test::Utils;
use SeamIK;
use List::Util qw(min);
use Test::More;
use Time::HiRes qw(sleep time);

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_pace'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.settle_delay = 1s');

meet($node, $fake);
sub requests_of { my ($guest) = @_; return grep { $_->{body} =~ /\Q$guest\E/ } $fake->requests; }
sub enqueue { return sql(join '', map { "SELECT seam_enqueue_instant_key('$_');" } @_); }
sub set { return sql(join '', map { "ALTER SYSTEM SET seam_ik.$_;" } @_) . sql('SELECT pg_reload_conf()'); }
sub all_issued
{
	return wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE status <> 'issued'") eq '0' });
}

# A batch of these guests, which is rolled back, so that what is in doubt of it must be
# looked for; the rows, its messages, and how long it took.  What would wait for a very
# long time is ended.
sub batch
{
	my ($settings, @guests) = @_;
	my $begin = time;
	my ($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '90s'; " .
		join('', map { "SET seam_ik.$_;" } @$settings) .
		"BEGIN; SELECT ordinality, sqlstate, replace(error, E'\\n', ' ') FROM seam_generate_instant_keys(ARRAY['" .
			join("','", @guests) . "']::uuid[]); ROLLBACK");
	return ($out, $err, time - $begin);
}

# ---------- seam_ik.rate_limit ----------

# What was sent while there was no limit is not owed to one that is set later.
set('rate_limit = 1000');
enqueue(new_guest);
ok(all_issued(), 'a request under a limit');
set('rate_limit = 0');
enqueue(new_guest);
ok(all_issued(), 'and one without');
sql('SELECT seam_enqueue_instant_key(gen_random_uuid()) FROM generate_series(1, 600)');
ok(all_issued(), 'a worker that is busy without a limit');
set('rate_limit = 1');
enqueue(new_guest);
ok(all_issued(), 'goes on under one that is set then');
set('rate_limit = 0');

# ---------- Retry-After, and the outbox ----------

my $log = -s $node->logfile;
$fake->behave('*', 'status=429,retry_after=1', 1);
enqueue(new_guest);
ok(all_issued(), 'a short pause');
unlike(logged($log), qr/WARNING/, 'is not told of');

# several that were sent together are refused together (a later libcurl makes no more of
# Retry-After than six hours)
my @guests = map { new_guest } 1 .. 3;
$log = -s $node->logfile;
$fake->behave($_, 'delay=300,status=429,retry_after=21600', 1) foreach @guests;
enqueue(@guests);
ok(wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE status = 'pending' " .
	"AND sqlstate = '53400'") eq '3' }), 'Seam asks to wait for six hours');
like(logged($log),
	qr/WARNING:\ \ the\ outbox\ of\ database\ "postgres"\ waits\ for\ 3600\ s:\ Seam's\ rate\ limit\ was\ reached\n
		.*DETAIL:\ \ Seam\ asks\ to\ wait\ 21600\ s\.\n.*HINT:\ \ A\ reload/x,
	'the worker waits for an hour, and says so');
is(scalar(() = logged($log) =~ /WARNING/g), 1, 'once');
push @guests, new_guest;
enqueue($guests[3]);
sleep 1;
is(join(' ', map { scalar requests_of($_) } @guests), '1 1 1 0', 'nothing is sent meanwhile');
sql('SELECT pg_reload_conf()');
ok(all_issued(), 'a reload ends the pause, also for what was refused');
is(join(' ', map { scalar requests_of($_) } @guests), '2 2 2 1', 'each is asked for once more');

# ---------- Retry-After, and a batch ----------

# What cannot begin within request_timeout ends with the 429 that is in its way.
@guests = map { new_guest } 1 .. 6;
$fake->behave($_, 'status=429,retry_after=21600,message=slowly') foreach @guests;
my ($rows, $messages, $took) = batch([ 'max_concurrency = 2' ], @guests);
my $limit = qr/Seam's rate limit was reached HTTP status 429/;
is(scalar(() = $rows =~ /^\d\|53400\|$limit,\ type\ "fake_error":\ slowly\ seam-request-id:\ [0-9a-f-]+
		\ Seam\ asks\ to\ wait\ 21600\ s\.$/mgx), 6,
	'Seam asks a batch to wait for six hours: each element says so');
cmp_ok($took, '<', 80, 'and it is not waited for');
is(join(' ', map { scalar requests_of($_) } @guests), '1 1 0 0 0 0', 'what has not begun sends nothing');
ok(quiet(), 'nothing is in doubt');
is(join(' ', map { lists_of($_) } @guests), '0 0 0 0 0 0', 'nothing is looked for');

# ... and so where it is several pauses that are in its way
@guests = map { new_guest } 1 .. 6;
$fake->behave($_, 'status=429,retry_after=2') foreach @guests;
($rows) = batch([ 'max_concurrency = 2', 'max_retries = 10', "request_timeout = '3s'" ], @guests);
is(scalar(() = $rows =~ /^\d\|53400/mg), 6, 'Seam asks again and again to wait');
is(join(' ', map { scalar requests_of($_) } @guests[2 .. 5]), '0 0 0 0', 'what has not begun sends nothing');
# ... but not where keys are issued between the pauses
@guests = map { new_guest } 1 .. 6;
$fake->behave($_, 'status=429,retry_after=1', 1) foreach @guests;
($rows) = batch([ 'max_concurrency = 1', "request_timeout = '30s'" ], @guests);
is($rows, join("\n", map { "$_||" } 1 .. 6), 'Seam asks to wait before each key: they come');

# The time left, while a batch pauses, is no shorter than the pause, which gets shorter.
@guests = map { new_guest } 1 .. 4;
$fake->behave($guests[2], 'status=429,retry_after=4', 1);
($rows, $messages) = batch([ 'max_concurrency = 1', "progress_interval = '200ms'" ], @guests);
my @left = $messages =~ /NOTICE:  2 of 4 requests to Seam done, 0 of them failed, about (\d+) s left/g;
cmp_ok(scalar(@left), '>=', 2, 'a batch tells that it waits');
cmp_ok($left[0], '>', min(@left), 'and for how long: ' . join(' ', @left));

# ---------- a 429 and a 401 ----------

# What waits for its next try when Seam refuses the API key ends with its own answer.
@guests = map { new_guest } 1 .. 3;
$fake->behave($guests[0], 'status=429,retry_after=20', 1);
$fake->behave($guests[1], 'delay=500,status=401', 1);
my $no_key = 'Seam did not accept the API key';
($rows) = batch([ 'max_concurrency = 2' ], @guests);
like($rows,
	qr/^1\|53400\|$limit.*\n2\|28000\|$no_key.*\n3\|28000\|not sent: $no_key$/,
	'a 401 while another element waits for its next try');
is(join(' ', map { scalar requests_of($_) } @guests), '1 1 0', 'nothing is sent after it');
ok(quiet(), 'nothing is in doubt');
is(join(' ', map { lists_of($_) } @guests), '0 0 0', 'nothing is looked for');

$node->stop;
done_testing();

