# The outbox: what is enqueued, sent, settled, cancelled, tried again and told.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql error_of live_keys mark calls enqueue status settled set pause go_on logged printed);
use JSON::PP ();
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep time);

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_outbox'",
	"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '1s'", 'max_prepared_transactions = 2',
		'track_commit_timestamp = on');
meet($node, $fake);

# field(id, column): of that request
sub field { return sql("SELECT $_[1] FROM seam_instant_key_request WHERE request_id = $_[0]"); }
sub becomes { my ($id, $status) = @_; return wait_for(sub { status($id) eq $status }); }

sub log_end { return -s $node->logfile; }

# Whoever is slow holds up only himself: this one is looked at again at the end.
my $slow = new_guest();
$fake->behave($slow, 'delay=20000,route=generate_instant_key');
my $slow_id = enqueue($slow);
ok(wait_for(sub { calls(0, $slow) }), 'a call that takes 20 s is under way');

# ---------- enqueueing ----------

is(sql(q{SELECT string_agg(attname, ' ' ORDER BY attname) FROM pg_attribute
	WHERE attrelid = 'seam_instant_key_request'::regclass AND attname IN
	('request_id', 'reference', 'user_identity_id', 'max_use_count', 'customization_profile_id', 'status', 'attempts',
		'enqueued_at', 'next_attempt_at', 'attempted_at', 'finished_at', 'instant_key', 'sqlstate', 'error',
		'seam_request_id')}),
	'attempted_at attempts customization_profile_id enqueued_at error finished_at instant_key max_use_count ' .
		'next_attempt_at reference request_id seam_request_id sqlstate status user_identity_id',
		'the columns of the table');
is(sql(q{SELECT attidentity <> '', pg_get_constraintdef(c.oid), atttypid::regtype FROM pg_attribute a } .
	q{JOIN pg_constraint c ON c.conrelid = attrelid AND contype = 'p' } .
	q{WHERE attrelid = 'seam_instant_key_request'::regclass AND attname = 'request_id'}),
	't|PRIMARY KEY (request_id)|bigint', 'its primary key');

my $who = new_guest();
my $mark = mark;
my $id = enqueue($who);
like($id, qr/^\d+$/, 'a request has an id');
ok(becomes($id, 'issued'), 'and is issued');
is(status($slow_id), 'in_flight', 'while the slow one waits');
my @calls = calls($mark, $who);
is(scalar(@calls), 1, 'by one call');
is_deeply(JSON::PP::decode_json($calls[0]{body}), { user_identity_id => $who, max_use_count => 1 }, 'with the default');
my ($key) = live_keys($who);
is(sql("SELECT (instant_key).instant_key_id, (instant_key).user_identity_id, (instant_key).instant_key_url ~ '^https',
	attempts, max_use_count, customization_profile_id, reference, sqlstate, error, next_attempt_at,
	enqueued_at <= attempted_at AND attempted_at <= finished_at AND finished_at <= now(), seam_request_id IS NOT NULL
		FROM seam_instant_key_request WHERE request_id = $id"),
	"$key|$who|t|1|1||||||t|t", 'its row');
is(sql("SELECT (seam_instant_key_request_result($id)).instant_key_id"), $key, 'its result');

$who = new_guest();
my $profile = 'aaaaaaaa-0000-4000-8000-000000000000';
$mark = mark;
ok(becomes(enqueue($who, 7, "'$profile'", "'room 12'"), 'issued'), 'with every argument');
is_deeply([ map { JSON::PP::decode_json($_->{body}) } calls($mark, $who) ],
	[ { user_identity_id => $who, max_use_count => 7, customization_profile_id => $profile } ], 'which Seam gets');
$who = new_guest();
ok(becomes(sql("SELECT seam_enqueue_instant_key(reference => 'named', user_identity_id => '$who', max_use_count => " .
	"NULL)"), 'issued'), 'NULLs');
is_deeply([ map { JSON::PP::decode_json($_->{body}) } calls($mark, $who) ], [ { user_identity_id => $who } ],
	'are left out of the call');

$who = new_guest();
$mark = mark;
my $count = sql('SELECT count(*) FROM seam_instant_key_request');
like(error_of("SELECT seam_enqueue_instant_key(NULL)"), qr/^22004/, 'no identity');
like(error_of("SELECT seam_enqueue_instant_key('$who', $_)"), qr/^22023/, "$_ uses") for 0, -1;
like(error_of("SELECT seam_enqueue_instant_key('$who', reference => $_)"), qr/^22001/, "$_ as a reference")
	for "repeat('x', 201)", "repeat('\xc3\xbc', 100) || 'x'", "repeat(' ', 201)";
is(sql('SELECT count(*) FROM seam_instant_key_request'), $count, 'leave nothing');
foreach my $reference ("repeat('x', 200)", "repeat('\xc3\xbc', 100)", "''", q{E'a"b\\\\c\n\x01/'})
{
	ok(becomes(enqueue(new_guest(), 1, 'NULL', $reference), 'issued'), "$reference as a reference");
}
is(scalar(calls($mark, $who)), 0, 'nothing was sent for what failed');

like(error_of("BEGIN READ ONLY; SELECT seam_enqueue_instant_key('$who')"), qr/^25006/,
	'in a transaction that only reads');

# ---------- transactions ----------

my ($gone, $stays) = (new_guest(), new_guest());
$mark = mark;
sql(qq{
BEGIN; SELECT seam_enqueue_instant_key('$gone'); ROLLBACK;
BEGIN; SAVEPOINT a; SELECT seam_enqueue_instant_key('$gone'); ROLLBACK TO a; SELECT seam_enqueue_instant_key('$stays');
	SAVEPOINT b; SAVEPOINT c; SELECT seam_enqueue_instant_key('$gone'); RELEASE c; ROLLBACK TO b; COMMIT;
DO \$\$ BEGIN BEGIN PERFORM seam_enqueue_instant_key('$gone'); RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN NULL; END; PERFORM seam_enqueue_instant_key('$stays'); END \$\$;
BEGIN; SAVEPOINT a; SELECT seam_enqueue_instant_key('$gone'); ROLLBACK TO a; COMMIT;
});
ok(settled_but($slow_id), 'everything is settled');
is(scalar(calls($mark, $gone)), 0, 'what was rolled back sends nothing');
is(scalar(calls($mark, $stays)), 2, 'and the rest one call each');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$gone'"), 0, 'and leaves no row');

sub settled_but
{
	my ($id) = @_;
	return wait_for(sub { sql(
		"SELECT count(*) FROM seam_instant_key_request WHERE next_attempt_at IS NOT NULL " .
		"AND request_id <> $id") == 0 });
}

# commit to request sent
my @took;
for (1 .. 15)
{
	my $xid;
	$who = new_guest();
	$mark = mark;
	# (what was enqueued waits for the commit)
	$xid = sql("BEGIN; SELECT pg_current_xact_id() FROM (SELECT seam_enqueue_instant_key('$who')) s; " .
		"SELECT pg_sleep(0.05); COMMIT") =~ s/\n//r;
	wait_for(sub { calls($mark, $who) });
	push @took, (calls($mark, $who))[0]{time} - sql("SELECT extract(epoch FROM pg_xact_commit_timestamp('$xid'::xid))");
}
@took = sort { $a <=> $b } @took;
note('commit to request, ms: ' . join(' ', map { sprintf '%.1f', 1000 * $_ } @took));
cmp_ok($took[0], '>', 0, 'nothing is sent before the commit');
# (a worker that is not woken looks once a minute)
cmp_ok($took[7], '<', 5, 'and soon after it');

# two-phase commit
($gone, $stays) = (new_guest(), new_guest());
$mark = mark;
sql("BEGIN; SELECT seam_enqueue_instant_key('$stays'); PREPARE TRANSACTION 'stays'; BEGIN; " .
	"SELECT seam_enqueue_instant_key('$gone'); PREPARE TRANSACTION 'gone'");
$who = new_guest();
ok(becomes(enqueue($who), 'issued'), 'beside prepared transactions');
is(scalar(calls($mark, $stays)), 0, 'a prepared transaction sends nothing');
sql("ROLLBACK PREPARED 'gone'; COMMIT PREPARED 'stays'");
my $begin = time;
ok(wait_for(sub { calls($mark, $stays) }), 'until it commits');
cmp_ok((calls($mark, $stays))[0]{time} - $begin, '<', 30, 'and then soon');
is(scalar(calls($mark, $gone)), 0, 'or does not');

# ---------- who may what ----------

sql(q{CREATE ROLE clerk; CREATE ROLE porter; CREATE ROLE nobody;
GRANT EXECUTE ON FUNCTION seam_enqueue_instant_key(uuid, int, uuid, text, timestamptz, timestamptz, uuid),
	seam_instant_key_request_result(bigint) TO
	clerk, porter});
$who = new_guest();
$id = sql("SET ROLE clerk; SELECT seam_enqueue_instant_key('$who')");
ok(becomes($id, 'issued'), 'a role with EXECUTE only enqueues');
is(sql("SET ROLE clerk; SELECT (seam_instant_key_request_result($id)).instant_key_id"), (live_keys($who))[0],
	'and gets its result');
unlike(($node->psql('postgres', "SET ROLE porter; SELECT seam_instant_key_request_result($id)"))[1], qr/[0-9a-z]/,
	'which another role does not');
like(error_of("SET ROLE porter; SELECT $_"), qr/^42501/, "nor $_") foreach '* FROM seam_instant_key_request',
	'* FROM seam_instant_key_queue', "currval('seam_instant_key_request_request_id_seq')",
	"seam_cancel_instant_key_request($id)", "seam_retry_instant_key_request($id)", 'seam_adopt_instant_key_requests()';
like(error_of("SET ROLE clerk; $_"), qr/^42501/, $_) foreach 'DELETE FROM seam_instant_key_request',
	"UPDATE seam_instant_key_request SET status = 'pending'",
	"INSERT INTO seam_instant_key_request (status, system_identifier, origin) VALUES ('pending', 0, 0)";
like(error_of("SET ROLE nobody; SELECT $_"), qr/^42501/, "a role without EXECUTE: $_")
	foreach "seam_enqueue_instant_key('$who')", "seam_instant_key_request_result($id)";
is(sql("SELECT count(*) FROM pg_proc WHERE proname LIKE 'seam%' AND has_function_privilege('nobody', oid, 'EXECUTE')"),
	0, 'PUBLIC has no EXECUTE on anything');
like(error_of("SET ROLE $_; SELECT seam_instant_key_request_result(999999)"), qr/^P0002/,
	"the result of a request that there is not, for $_") for 'postgres', 'clerk';
is(sql("BEGIN; SELECT seam_instant_key_request_result(seam_enqueue_instant_key('" . new_guest() .
	"')) IS NULL; ROLLBACK"), 't', 'or not yet');

like(error_of("SET ROLE clerk; SET seam_ik.$_"), qr/^42501/, "who may not set: $_") for 'worker = off',
	'rate_limit = 1', 'max_attempts = 1', "retention = '1d'", "settle_delay = '1s'";
sql('GRANT SET ON PARAMETER seam_ik.rate_limit TO clerk; SET ROLE clerk; SET seam_ik.rate_limit = 1');

# ---------- cancelling ----------

sub cancel { return sql("SELECT seam_cancel_instant_key_request($_[0])"); }

pause;
$mark = mark;
$who = new_guest();
$id = enqueue($who);
is(cancel($id), 'cancelled', 'a pending request is cancelled');
is(cancel($id), 'cancelled', 'twice');
is(field($id, 'finished_at IS NOT NULL AND next_attempt_at IS NULL'), 't', 'and finished');
my $other = enqueue(new_guest());
is(sql("BEGIN; SELECT seam_cancel_instant_key_request($other); ROLLBACK; SELECT status FROM seam_instant_key_request " .
	"WHERE request_id = $other"), "cancelled\npending", 'not when it is rolled back');
sleep 0.3;
is(scalar(calls($mark)), 0, 'nothing is sent with seam_ik.worker off');
is(status($other), 'pending', 'and nothing is lost');
go_on;
ok(becomes($other, 'issued'), 'it goes on with seam_ik.worker on');
is(scalar(calls($mark, $who)), 0, 'a cancelled request sends nothing');
is(sql("BEGIN; SELECT seam_cancel_instant_key_request(seam_enqueue_instant_key('$who')); COMMIT"), 'cancelled',
	'cancelled by the transaction that enqueued it');

is(cancel($other), 'revoking', 'an issued one is revoked');
ok(becomes($other, 'revoked'), 'by the worker');
is(scalar(live_keys(field($other, 'user_identity_id'))), 0, 'at Seam');
is(cancel($other), 'revoked', 'once');
is(scalar(calls($mark, field($other, '(instant_key).instant_key_id'), 'delete')), 1, 'by one call');
is(field($other, 'finished_at IS NOT NULL'), 't', 'which ends it');

$who = new_guest();
$fake->behave($who, 'hold,route=generate_instant_key');
$id = enqueue($who);
ok(becomes($id, 'in_flight'), 'in flight');
is(cancel($id), 'revoking', 'one in flight is to be revoked');
is(cancel($id), 'revoking', 'twice');
$fake->release($who);
ok(becomes($id, 'revoked'), 'and is');
is(scalar(live_keys($who)), 0, 'at Seam');

# its call fails: there is nothing to revoke
$who = new_guest();
$fake->behave($who, 'hold,status=400');
$id = enqueue($who);
ok(becomes($id, 'in_flight'), 'in flight');
is(cancel($id), 'revoking', 'one in flight that fails');
$fake->release($who);
ok(wait_for(sub { status($id) =~ /^(cancelled|revoked)$/ }), 'ends, too');

# a cancelling transaction that is open while the answer comes holds up no other
foreach my $end ('ROLLBACK', 'COMMIT')
{
	$who = new_guest();
	$fake->behave($who, 'hold,route=generate_instant_key');
	$id = enqueue($who);
	ok(becomes($id, 'in_flight'), 'in flight');
	my $s = background($node, "BEGIN; SELECT seam_cancel_instant_key_request($id);");
	ok(printed($s, qr/^revoking$/m), 'a session that cancels');
	$fake->release($who);
	ok(becomes(enqueue(new_guest()), 'issued'), 'others go on') for 1 .. 5;
	$s->{in} .= "$end;\n";
	result_of($s);
	ok(becomes($id, $end eq 'COMMIT' ? 'revoked' : 'issued'), "and it ends as the $end says");
	is(scalar(live_keys($who)), $end eq 'COMMIT' ? 0 : 1, 'at Seam');
}

like(error_of('SELECT seam_cancel_instant_key_request(999999)'), qr/^P0002/, 'an unknown request');
like(error_of('SELECT seam_retry_instant_key_request(999999)'), qr/^P0002/, 'to try it again');
is(sql('SELECT seam_cancel_instant_key_request(NULL) IS NULL'), 't', 'NULL');

# ---------- failures ----------

foreach my $f ([ 'status=400,type=invalid_input', '22023' ], [ 'status=403', '42501' ], [ 'status=404', 'P0002' ],
	[ 'status=422', '58000' ], [ 'redirect=307', '08P01' ], [ 'redirect=http%3a%2f%2f127.0.0.1', '08P01' ])
{
	my ($spec, $sqlstate) = @$f;
	$who = new_guest();
	$fake->behave($who, $spec);
	$mark = mark;
	$id = enqueue($who);
	ok(becomes($id, 'failed'), "$spec fails");
	is(sql("SELECT sqlstate, error <> '', attempts, finished_at IS NOT NULL, next_attempt_at, instant_key IS NULL, " .
		"seam_request_id IS NOT NULL FROM seam_instant_key_request WHERE request_id = $id"), "$sqlstate|t|1|t||t|t",
		'at once, and says why');
	is(scalar(calls($mark, $who)), 1, 'by one call');
	is(sql("SELECT seam_instant_key_request_result($id) IS NULL"), 't', 'and has no result');
}

# a failed one is tried again, or cancelled
is(cancel($id), 'cancelled', 'a failed one is cancelled');
$mark = mark;
$who = new_guest();
$fake->behave($who, 'status=400', 1);
$id = enqueue($who);
ok(becomes($id, 'failed'), 'failed');
is(sql("SELECT seam_retry_instant_key_request($id)"), 'pending', 'a failed one is put back');
ok(becomes($id, 'issued'), 'and issued');
is(scalar(calls($mark, $who)), 2, 'by another call');
is(sql("SELECT finished_at IS NOT NULL, sqlstate, error FROM seam_instant_key_request WHERE request_id = $id"), 't||',
	'its error is gone');
$mark = mark;
sql("SELECT seam_retry_instant_key_request($id)");
sleep 0.3;
ok(becomes($id, 'issued'), 'an issued one stays');
is(scalar(calls($mark, $who)), 0, 'and nothing is called again');

# what is tried again by itself
$who = new_guest();
$other = new_guest();
$mark = mark;
$fake->behave($who, 'status=429,retry_after=2', 1);
$id = enqueue($who);
ok(wait_for(sub { field($id, 'attempts') == 1 && status($id) eq 'pending' }), '429: to be tried again');
is(field($id, 'sqlstate'), '53400', 'when it says so');
my $next = enqueue($other);
ok(becomes($_, 'issued'), 'issued then') for $id, $next;
@calls = calls($mark, $who, 'generate_instant_key');
is(scalar(@calls), 2, 'by a second call');
cmp_ok($calls[1]{time} - $calls[0]{time}, '>=', 1.95, 'not before the time');
cmp_ok((calls($mark, $other))[0]{time} - $calls[0]{time}, '>=', 1.95, 'and no other either');
is(field($id, 'attempts'), 2, 'attempts are counted');
$who = new_guest();
$fake->behave($who, 'status=429,retry_after=date+1', 1);
$begin = time;
$id = enqueue($who);
ok(becomes($id, 'issued'), '429 with a date');
cmp_ok(time - $begin, '>', 0.9, 'which is honoured');
cmp_ok(time - $begin, '<', 30, 'and no more');
$who = new_guest();
$fake->behave($who, 'status=429', 1);
ok(becomes(enqueue($who), 'issued'), '429 without a time');

# nothing listens there
my $refused = do { my $f = FakeSeam->start('--stall-tls'); my $p = $f->port; $f->stop; $p };
set(endpoint => "http://127.0.0.1:$refused");
$id = enqueue(new_guest());
ok(wait_for(sub { field($id, 'status, sqlstate, next_attempt_at > attempted_at, finished_at IS ' .
	'NULL') eq 'pending|08001|t|t' }), 'no connection: to be tried again, later');
set(max_attempts => 2);
$who = new_guest();
$id = enqueue($who);
ok(becomes($id, 'failed'), 'seam_ik.max_attempts is the limit');
is(field($id, 'attempts, sqlstate'), '2|08001', 'of attempts');
set(max_attempts => undef);
$id = enqueue($who);
ok(wait_for(sub { field($id, 'attempts') >= 1 && status($id) eq 'pending' }), 'no connection');
set(endpoint => $fake->url);
ok(becomes($id, 'issued'), 'and then one');
is(scalar(live_keys($who)), 1, 'one key');

# in doubt: the key is found, once the time of the call is over
set(request_timeout => '1s');
$who = new_guest();
$fake->behave($who, 'reset_after,route=generate_instant_key', 1);
$id = enqueue($who);
ok(becomes($id, 'issued'), 'an answer is lost');
is(join(' ', live_keys($who)), field($id, '(instant_key).instant_key_id'), 'its key is found');
set(request_timeout => undef);

# ---------- the queue waits ----------

my $log = log_end;
$mark = mark;
$fake->behave('*', 'status=401');
my @ids = map { enqueue(new_guest()) } 1 .. 6;
ok(wait_for(sub { logged($log) =~ /WARNING/ }), '401: a warning');
my $more = enqueue(new_guest());
sleep 1;
cmp_ok(scalar(calls($mark)), '<', 20, 'the queue waits');
is(sql('SELECT count(*) FROM seam_instant_key_request WHERE status = \'pending\' AND request_id IN (' .
	join(',', @ids, $more) . ')'), 7, 'and keeps everything');
is(scalar(() = logged($log) =~ /WARNING/g), 1, 'it warns once');
$fake->behave('*', '');
$mark = mark;
$begin = time;
sql('SELECT pg_reload_conf()');
ok(becomes($_, 'issued'), 'it goes on') for @ids, $more;
cmp_ok((calls($mark))[0]{time} - $begin, '<', 6, 'when the configuration was reloaded');

$log = log_end;
set(api_key => '');
reload($node);
@ids = map { enqueue(new_guest()) } 1 .. 3;
ok(wait_for(sub { logged($log) =~ /WARNING/ }), 'no API key: a warning');
sleep 0.5;
is(scalar(() = logged($log) =~ /WARNING/g), 1, 'one');
is(join(' ', map { field($_, 'status, attempts') } @ids), 'pending|0 pending|0 pending|0', 'the queue waits');
set(api_key => undef);
ok(becomes($_, 'issued'), 'it goes on with a key') for @ids;

# ---------- pace ----------

pause;
set(rate_limit => 10);
$mark = mark;
sql("SELECT seam_enqueue_instant_key(gen_random_uuid(), reference => 'pace') FROM generate_series(1, 25)");
go_on;
ok(wait_for(sub { calls($mark) == 25 }), 'under seam_ik.rate_limit');
my @times = sort { $a <=> $b } map { $_->{time} } calls($mark);
# (a burst of one second's worth is fair)
cmp_ok($times[24] - $times[0], '>', 1.3, 'so many a second');
cmp_ok($times[24] - $times[0], '<', 30, 'and no fewer');
set(rate_limit => undef);

my $second = FakeSeam->start;
$second->behave('*', 'hold');
set(max_concurrency => 3, endpoint => $second->url);
reload($node);
sql("SELECT seam_enqueue_instant_key(gen_random_uuid(), reference => 'three') FROM generate_series(1, 14)");
foreach my $n (3, 3, 3, 3, 2)
{
	ok(wait_for(sub { $second->ask('stats')->{in_flight} == $n }), "so many at once: $n");
	$second->release;
}
ok(wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE reference = 'three' " .
	"AND status = 'issued'") == 14 }), 'under seam_ik.max_concurrency');
is($second->ask('stats')->{max_in_flight}, 3, 'and no more');
set(max_concurrency => undef, endpoint => $fake->url);
reload($node);

# ---------- what is told ----------

$who = new_guest();
$fake->behave($who, 'status=400');
my $reference = q{E'a"b\\\\c\n\x01/' || U&'\00fc'};
my $wait = qq{DO \$\$ BEGIN
	FOR i IN 1 .. 2000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM seam_instant_key_request
			WHERE next_attempt_at IS NOT NULL AND request_id <> $slow_id);
		PERFORM pg_sleep(0.05);
	END LOOP;
	PERFORM pg_sleep(1);
END \$\$;};
my ($rc, $out, $err) = $node->psql('postgres', qq{
LISTEN seam_instant_key;
SELECT 'id ' || seam_enqueue_instant_key('} . new_guest() . qq{', reference => $reference);
SELECT 'id ' || seam_enqueue_instant_key('$who');
BEGIN; SELECT 'id ' || seam_cancel_instant_key_request(seam_enqueue_instant_key('$who', reference => 'off')); COMMIT;
$wait
SELECT 1;
SELECT seam_cancel_instant_key_request(request_id) FROM seam_instant_key_request WHERE reference = $reference
	ORDER BY request_id DESC LIMIT 1;
$wait
SELECT 2;
});
my ($good, $bad) = $out =~ /id (\d+)/g;
my @told = map { JSON::PP::decode_json($_) } $out =~ /notification "seam_instant_key" with payload "(.*)" received/g;
my %told;
push @{ $told{ $_->{status} } }, $_ for @told;
is(scalar(grep { join(' ', sort keys %$_) ne 'reference request_id status' } @told), 0, 'NOTIFY tells three things');
unlike($out, qr/http/, 'and never the URL');
is_deeply($told{issued}, [ { request_id => $good, reference => "a\"b\\c\n\x01/\xfc", status => 'issued' } ],
	'an issued one');
is_deeply($told{failed}, [ { request_id => $bad, reference => undef, status => 'failed' } ], 'a failed one');
is_deeply($told{revoked}, [ { request_id => $good, reference => "a\"b\\c\n\x01/\xfc", status => 'revoked' } ],
	'a revoked one');
is(scalar(@{ $told{cancelled} // [] }), 1, 'a cancelled one');
is($told{pending} // $told{in_flight} // $told{revoking}, undef, 'and nothing else');

is(sql("SELECT count(DISTINCT status) = count(*) AND sum(count) = (SELECT count(*) FROM seam_instant_key_request) " .
	"FROM seam_instant_key_queue"), 't', 'the view counts all');
is(sql("SELECT count(*) FROM seam_instant_key_queue q WHERE count <> (SELECT count(*) " .
	"FROM seam_instant_key_request r WHERE r.status = q.status)"), 0, 'by status');
is(sql("SELECT last_error IS NOT NULL, oldest_age > interval '1 s' AND oldest_age < interval '5 min' " .
	"FROM seam_instant_key_queue WHERE status = 'failed'"), 't|t', 'with the last error and the oldest age');
pause;
$id = enqueue(new_guest());
is(sql("SELECT count, oldest_age < interval '20 s' FROM seam_instant_key_queue WHERE status = 'pending'"), '1|t',
	'of pending ones, too');
go_on;

# of many it reads no more than it must
sql('CREATE DATABASE many');
$node->safe_psql('many', q{CREATE EXTENSION seam_ik;
INSERT INTO seam_instant_key_request (user_identity_id, status, attempted_at, finished_at, next_attempt_at, error,
	system_identifier, origin)
SELECT gen_random_uuid(), s, CASE WHEN g % 5 > 0 THEN now() - g * interval '1 s'
	END, CASE WHEN s IN ('issued', 'failed') THEN now() - g * interval '1 s' END,
	CASE WHEN s IN ('pending', 'revoking') THEN 'infinity'::timestamptz END, CASE WHEN s = 'failed'
		OR g % 3 = 0 THEN 'error ' || g END, 0, 0
FROM (SELECT g, (ARRAY['issued', 'issued', 'issued', 'failed', 'pending', 'revoking'])[1 + g % 6] s
	FROM generate_series(1, 20000) g) r;
VACUUM ANALYZE seam_instant_key_request});
my $plan = $node->safe_psql('many', 'EXPLAIN (COSTS off) SELECT * FROM seam_instant_key_queue');
unlike($plan, qr/Seq Scan on|Sort/, 'of many requests the view reads and sorts none for their last error');
like($plan, qr/Index Scan using seam_instant_key_request_error/, 'but the last of an index');
is($node->safe_psql('many', "SELECT string_agg(concat_ws(' ', status, count, last_error, oldest_age IS NULL), ', ' " .
	"ORDER BY status) FROM seam_instant_key_queue WHERE status IN ('issued', 'failed', 'pending', 'in_flight')"),
	'failed 3333 error 3 f, in_flight 0 t, issued 10001 error 6 f, pending 3333 f', 'and tells the right one');
sql('DROP DATABASE many');

# ---------- another database ----------

# one that has its own settings, encoding, and schema
sql(q{CREATE DATABASE other TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'; } .
	q{ALTER DATABASE other SET seam_ik.endpoint = '} . $second->url . q{'});
sub other { return $node->safe_psql('other', @_); }
other(q{CREATE SCHEMA "Lo""cks"; CREATE EXTENSION seam_ik SCHEMA "Lo""cks"});
$second->behave('*', '');
$who = new_guest();
my $there = other(q{SET search_path = "Lo""cks"; SET client_encoding = 'UTF8'; SELECT seam_enqueue_instant_key('} .
	$who . qq{', reference => '\xc3\xbc')});
sub there
{
	return other(
		qq{SET client_encoding = 'UTF8'; } .
		qq{SELECT $_[0] FROM "Lo""cks".seam_instant_key_request WHERE request_id = $there});
}
ok(wait_for(sub { there('status') eq 'issued' }), 'another database');
is(scalar(grep { index($_->{body}, $who) >= 0 } $second->requests), 1, 'sends where it wants to');
is(there('reference'), "\xc3\xbc", 'in its encoding');
like(($node->psql('other', qq{SET search_path = "Lo""cks"; SELECT seam_enqueue_instant_key('$who', reference => } .
	qq{repeat('\xc3\xbc', 201))}, extra_params => [ '-v', 'VERBOSITY=verbose' ]))[2], qr/22001/,
	'which is what a reference is measured in');
sql('ALTER DATABASE other SET seam_ik.worker = off');
reload($node);
$there = other(qq{SELECT "Lo""cks".seam_enqueue_instant_key('$who')});
$id = enqueue(new_guest());
ok(becomes($id, 'issued'), 'this one goes on');
is(there('status'), 'pending', 'while that one pauses');
sql("ALTER DATABASE other RESET seam_ik.worker; SELECT pg_reload_conf()");
ok(wait_for(sub { there('status') eq 'issued' }), 'until it goes on, too');
my %elsewhere = map { $_ => 1 } split /\n/,
	other(qq{SELECT (instant_key).instant_key_id FROM "Lo""cks".seam_instant_key_request});
sql('DROP DATABASE other');
is(sql("SELECT count(*) FROM pg_database WHERE datname = 'other'"), 0, 'it can be dropped');

# ---------- the end ----------

ok(becomes($slow_id, 'issued'), 'the slow one ends, too');
ok(settled, 'everything is settled');
sub all_live { my ($f) = @_; return map { $_->{instant_key_id} } grep { !$_->{revoked} } $f->keys; }
is(join("\n", sort(all_live($fake), grep { !$elsewhere{$_} } all_live($second))),
	sql("SELECT (instant_key).instant_key_id FROM seam_instant_key_request WHERE status = 'issued' " .
	"ORDER BY ((instant_key).instant_key_id)::text COLLATE \"C\""),
	'one live key for each issued request, and none besides');

# old rows go, whatever ended them; what waits stays
pause;
$id = enqueue(new_guest());
is(sql("SELECT string_agg(DISTINCT status, ' ' ORDER BY status) FROM seam_instant_key_request"),
	'cancelled failed issued pending revoked', 'requests of every kind');
set(worker => undef, retention => '1s');
ok(wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request " .
	"WHERE finished_at < now() - interval '3 s'") == 0 }), 'are deleted after seam_ik.retention');
ok(wait_for(sub { status($id) ne 'pending' }), 'what waited did not go');
sleep 1.2;
# (it looks for them at a reload, too)
set(retention => '0');
ok(wait_for(sub { status($id) eq '' }), 'before it was issued');

$node->stop;
unlike(logged(0), qr/PANIC|terminated by signal|TRAP/, 'nothing crashed');
done_testing();
