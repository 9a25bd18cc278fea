# What the outbox does while Seam does not work, or cannot be reached, and how what waits
# shares what may be sent.  What was sent is counted, and timed, by the fake.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql set calls mark enqueue logged);
use List::Util qw(max min);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep);

# The first wave of an outage is as large as this.
use constant AT_ONCE => 10;
use constant MANY => 2000;

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_outages'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.settle_delay = 1s', 'seam_ik.connect_timeout = 5s',
	'seam_ik.max_concurrency = ' . AT_ONCE);

meet($node, $fake);
sub many { return sql('SELECT seam_enqueue_instant_key(gen_random_uuid()) FROM generate_series(1, ' . MANY . ')'); }
sub of_requests { return sql("SELECT $_[0] FROM seam_instant_key_request"); }
sub issued
{
	my $list = join ',', map { "'$_'" } @_;
	return of_requests("count(*) FILTER (WHERE status = 'issued' AND user_identity_id IN ($list))");
}
sub all_issued { return wait_for(sub { of_requests("count(*) FILTER (WHERE status <> 'issued')") eq '0' }); }
sub routes { my ($name, @requests) = @_; return scalar grep { $_->{path} =~ /$name$/ } @requests; }

# Until so many requests have come since the mark.
sub wait_calls { my ($since, $n) = @_; return wait_for(sub { calls($since) >= $n }); }

# How many live keys there are at most for one guest, and how many guests have one.
sub live_guests
{
	my %live;
	$live{ $_->{user_identity_id} }++ foreach grep { !$_->{revoked} } $fake->keys;
	return max(values %live) . ' for each of ' . keys %live;
}

# ---------- a 503 with Retry-After ----------

my $begin = mark();
$fake->behave('*', 'status=503,retry_after=2');
many();
ok(wait_calls($begin, AT_ONCE + 3), 'many are pending, and Seam answers 503 with Retry-After');
my @calls = calls($begin);
my $first = $calls[0]{time};
my @wave = grep { $_->{time} < $first + 1.9 } @calls;
my @probes = @calls[ scalar(@wave) .. $#calls ];
cmp_ok(scalar(@wave), '<=', AT_ONCE, 'what was under way then is all that was sent at once');
is(routes('list', @probes), scalar(@probes), 'afterwards only lists are sent');
cmp_ok(min(map { $probes[$_]{time} - $probes[ $_ - 1 ]{time} } 1 .. $#probes), '>=', 1.9,
	'one each time when the pause that Seam asked for is over');
ok(wait_for(sub { of_requests('max(attempts)') eq '0' }), 'no attempt is used up');
is(of_requests("count(*) FILTER (WHERE status NOT IN ('pending', 'in_flight'))"), '0', 'no request has failed');
cmp_ok(of_requests("count(*) FILTER (WHERE status = 'in_flight')"), '<=', AT_ONCE, 'few are in doubt');

my $back = mark();
$fake->behave('*', '');
$fake->behave('*', 'delay=20');
ok(all_issued(), 'when Seam works again all are issued');
is(live_guests(), '1 for each of ' . MANY, 'each guest has one key');
is(of_requests('max(attempts)'), '1', 'at the first attempt that counts');
@calls = calls($back);
my ($key) = grep { $calls[$_]{path} =~ /generate_instant_key$/ } 0 .. $#calls;
cmp_ok($key, '>', 0, 'before the first request for a key comes a list');
is($fake->ask('stats')->{max_in_flight}, AT_ONCE, 'then all go as fast as before');
$fake->behave('*', '');

# ---------- no connection ----------

sql('TRUNCATE seam_instant_key_request');
my $port = $fake->port;
$fake->stop;
my $log = -s $node->logfile;
many();
ok(wait_for(sub { of_requests("count(*) FILTER (WHERE sqlstate = '08001')") >= 5 }), 'Seam refuses connections');
ok(wait_for(sub { logged($log) =~ /waits: Seam does not answer/ }), 'the log tells that the outbox waits');
ok(wait_for(sub { of_requests('max(attempts)') eq '0' }), 'no attempt is used up');
cmp_ok(of_requests("count(*) FILTER (WHERE sqlstate IS NOT NULL)"), '<=', AT_ONCE, 'few were tried');
is(of_requests("count(*) FILTER (WHERE status <> 'pending')"), '0', 'no request has failed');
$fake = FakeSeam->start('--port', $port);
meet($node, $fake);
ok(all_issued(), 'when Seam is back all are issued');
is(live_guests(), '1 for each of ' . MANY, 'each guest has one key');
like(logged($log), qr/LOG: .* goes on: Seam answers again/, 'and the log tells that, too');

# ---------- an identity for which only errors come ----------

# Others are asked for when it is their turn to be the probe, so it stops nobody for long.
my $cursed = new_guest;
set(max_attempts => 3);
$fake->behave($cursed, 'status=500');
$begin = mark();
my $id = enqueue($cursed);
ok(wait_for(sub { calls($begin, $cursed) > 6 }), 'nothing but errors comes for one guest');
my @guests = map { new_guest } 1 .. 20;
sql(join '', map { "SELECT seam_enqueue_instant_key('$_');" } @guests);
ok(wait_for(sub { issued(@guests) == @guests }), 'who stops no other for long');
set(max_attempts => undef);
sql("SELECT seam_cancel_instant_key_request($id)");
$fake->behave($cursed, '');

# ---------- what waits shares what may be sent ----------

# (a reload ends what the cursed guest may have begun)
sql('TRUNCATE seam_instant_key_request');
sql('SELECT seam_enqueue_instant_key(gen_random_uuid()) FROM generate_series(1, 600)');
ok(all_issued(), 'many keys');
set(rate_limit => 50);
reload($node);
$begin = mark();
sql('SELECT seam_cancel_instant_key_request(request_id) FROM seam_instant_key_request');
ok(wait_calls($begin, 5), 'all are revoked, under a low rate limit');
my $guest = new_guest;
enqueue($guest);
my $before = mark();
ok(wait_for(sub { issued($guest) }), 'a new key is asked for meanwhile');
@calls = calls($before);
my ($place) = grep { $calls[$_]{body} =~ /$guest/ } 0 .. $#calls;
cmp_ok($place // 0, '<', 10, 'few keys were revoked before');
@guests = map { new_guest } 1 .. 20;
$before = mark();
sql("SELECT seam_enqueue_instant_key(g) FROM unnest(ARRAY['" . join("','", @guests) . "']::uuid[]) AS g");
ok(wait_for(sub { issued(@guests) == @guests }), 'many new keys are asked for');
@calls = calls($before);
my ($last) = grep { $calls[$_]{path} =~ /generate/ } reverse 0 .. $#calls;
my $revoked = routes('delete', @calls[ 0 .. $last ]);
cmp_ok($revoked, '>=', 15, 'as many are revoked meanwhile');
cmp_ok($revoked, '<=', 40, 'and not many more');

$node->stop;
done_testing();
