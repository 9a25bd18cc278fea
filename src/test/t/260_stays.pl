# Keys for stays: what the row says, the key follows.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql error_of live live_keys sent calls mark settled logged pause go_on set);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep time);

# ---------- a server whose keys may be renewed soon ----------

my $build = PostgreSQL::Test::Utils::tempdir();
mkdir "$build/source" or die $!;
system_or_bail('sh', '-c', "tar -cf - --exclude='*.o' --exclude='*.so' . | tar -xf - -C $build/source");
{
	local $ENV{STAGE} = "$build/stage";
	local $ENV{WORK} = $build;
	system_or_bail('src/tools/stage', '-C', "$build/source", 'WERROR=1', 'with_llvm=no',
		'COPT=-DSEAM_IK_LEAST_RENEWAL_MS=1000 -DSEAM_IK_STOP_POINTS');
}
my $fake = FakeSeam->start;
my $node = seam_cluster(slurp_file("$build/stage.conf"), "shared_preload_libraries = 'seam_ik'",
	"seam_ik.api_key = 'seam_test_stays'", "seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '1s'",
	"timezone = 'UTC'");
meet($node, $fake);

my $keep = "EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'issue_at=check_in', " .
	"'valid_until=check_out', 'wanted=confirmed', 'max_use_count=nights', 'instant_key_id=key_id', " .
	"'instant_key_url=key_url', 'expires_at=key_expires')";
sub table
{
	my ($name, $type, $more) = @_;
	$more //= '';
	return "CREATE TABLE $name (id int PRIMARY KEY, guest uuid, check_in $type, check_out $type, confirmed boolean " .
		"DEFAULT true, nights int DEFAULT 3, key_id uuid, key_url text, key_expires timestamptz, note text $more); " .
		"CREATE TRIGGER stay AFTER INSERT OR UPDATE OR DELETE ON $name FOR EACH ROW $keep;";
}
sql(table('booking', 'timestamptz'));

my $ids = 0;
# booking(guest, check in, check out): its id.  Times are SQL.
sub booking
{
	my ($guest, $in, $out, $more) = @_;
	my $id = ++$ids;
	sql("INSERT INTO booking (id, guest, check_in, check_out) VALUES ($id, '$guest', $in, $out)");
	return $id;
}
sub key_of { return sql("SELECT key_id FROM booking WHERE id = $_[0]"); }
# until the booking shows the guest's only live key
sub has_key { my ($id, $guest) = @_; return wait_for(sub { my $k = key_of($id); $k ne '' && live($guest) eq $k }); }
sub has_none { my ($id, $guest) = @_; return wait_for(sub { key_of($id) eq '' && live($guest) eq '' }); }
sub statuses
{
	return sql("SELECT string_agg(status || coalesce(' ' || stay_end, ''), ', ' ORDER BY request_id)
		FROM seam_instant_key_request WHERE user_identity_id = '$_[0]'");
}
# until the worker has looked at all that is due
sub quiet { return wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE wake_at <= now() OR " .
	"next_attempt_at IS NOT NULL OR row_task IS NOT NULL") == 0 }); }

# ---------- has an identity, is wanted, and its stay is not over ----------

my $who = new_guest();
my $b = booking($who, 'NULL', 'NULL');
ok(has_key($b, $who), 'a NULL issue_at: at once; a NULL valid_until: no end');
$who = new_guest();
$b = booking($who, "now() - interval '1 day'", "now() + interval '1 day'");
ok(has_key($b, $who), 'a past issue_at: at once');
is(sql("SELECT key_expires > now() + interval '47 hours' FROM booking WHERE id = $b"), 't', 'with what was asked for');
my $later = new_guest();
my $later_b = booking($later, "now() + interval '30 days'", "now() + interval '33 days'");
my $never = new_guest();
booking($never, "'infinity'", "'infinity'");
my $history = new_guest();
my $history_b = booking($history, "now() - interval '30 days'", "now() - interval '29 days'");
my $soon = new_guest();
my $soon_b = booking($soon, "now() + interval '2 s'", "now() + interval '1 hour'");
ok(has_key($soon_b, $soon), 'issued at issue_at');
my ($issued) = grep { $_->{body} =~ /$soon/ && $_->{path} =~ /generate/ } $fake->requests;
cmp_ok($issued->{time}, '>=', sql("SELECT extract(epoch FROM check_in) FROM booking WHERE id = $soon_b"), 'not before');
cmp_ok($issued->{time}, '<=', sql("SELECT extract(epoch FROM check_in) + 1 FROM booking WHERE id = $soon_b"),
	'and within a second');
ok(quiet(), 'all that was due is done');
is(sent($later) + sent($never) + sent($history), 0, 'nothing is sent for next month, for ever, or history');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$history' AND status <> 'cancelled'"),
	0, 'and history asks for nothing');
is(sql("SELECT count FROM seam_instant_key_queue WHERE status = 'scheduled'"), 2, 'two are scheduled');
is(sql("SELECT count FROM seam_instant_key_queue WHERE status = 'pending'"), 0, 'and none is due');

# ---------- what waits follows the row ----------

my $other = new_guest();
sql("UPDATE booking SET guest = '$other', nights = 7, check_in = now() + interval '1 s' WHERE id = $later_b");
ok(has_key($later_b, $other), 'what waits follows the row');
is(sent($later), 0, 'nothing is sent for the former guest');
is(scalar(grep { /"max_use_count":7\D/ } map { $_->{body} } calls(0, $other, 'generate_instant_key')), 1, 'and once');

# ---------- issue_at moves ----------

my $key = key_of($later_b);
sql("UPDATE booking SET check_in = now() - interval '1 hour' WHERE id = $later_b");
ok(quiet(), 'issue_at moves back');
is(live($other), $key, 'which changes nothing');
sql("UPDATE booking SET check_in = now() + interval '10 days' WHERE id = $later_b");
ok(has_none($later_b, $other), 'it moves into the future: revoked');
sql("UPDATE booking SET check_in = now() + interval '1 s' WHERE id = $later_b");
ok(has_key($later_b, $other), 'and issued again then');
isnt(key_of($later_b), $key, 'another one');

# ---------- identity, profile or count changes ----------

$key = key_of($later_b);
my $third = new_guest();
sql("UPDATE booking SET guest = '$third' WHERE id = $later_b");
ok(has_key($later_b, $third) && wait_for(sub { live($other) eq '' }), 'another guest: a new key, the former revoked');
$key = key_of($later_b);
sql("UPDATE booking SET nights = 2 WHERE id = $later_b");
ok(wait_for(sub { key_of($later_b) ne $key && live($third) eq key_of($later_b) }), 'another count, too');
my $mark = mark;
sql("UPDATE booking SET note = 'late' WHERE id = $later_b");
sql("UPDATE booking SET nights = 2, guest = guest WHERE id = $later_b");
ok(quiet(), 'another column, or the same values');
is(scalar(calls($mark)), 0, 'do nothing');

# ---------- the key column ----------

$key = key_of($later_b);
sql("UPDATE booking SET key_id = NULL WHERE id = $later_b");
ok(wait_for(sub { my $k = key_of($later_b); $k ne '' && $k ne $key && live($third) eq $k }),
	'cleared: the key is replaced');
sql("UPDATE booking SET key_id = '$key' WHERE id = $later_b");
ok(has_key($later_b, $third), 'a former key is written: the newest is written again');
isnt(key_of($later_b), $key, 'not the former one');
sql("UPDATE booking SET key_id = 'ffffffff-0000-4000-8000-000000000000' WHERE id = $later_b");
ok(wait_for(sub { live($third) eq '' }), 'another value: revoked');
sql("UPDATE booking SET nights = 9, check_out = check_out + interval '1 day' WHERE id = $later_b");
ok(quiet(), 'and the row is left alone');
is(key_of($later_b) . live($third), 'ffffffff-0000-4000-8000-000000000000', 'as it was written');
my $fourth = new_guest();
sql("UPDATE booking SET guest = '$fourth' WHERE id = $later_b");
ok(has_key($later_b, $fourth), 'until its identity changes');

# ---------- not wanted any more ----------

foreach my $end ([ 'confirmed = false', 'confirmed = true' ], [ 'confirmed = NULL', 'confirmed = true' ],
	[ 'guest = NULL', "guest = '$fourth'" ], [ "check_out = now() - interval '1 s', check_in = NULL",
		"check_out = now() + interval '1 day'" ])
{
	sql("UPDATE booking SET $end->[0] WHERE id = $later_b");
	ok(has_none($later_b, $fourth), "$end->[0]: revoked, and cleared");
	is(sql("SELECT num_nulls(key_id, key_url, key_expires) FROM booking WHERE id = $later_b"), 3, 'in every column');
	sql("UPDATE booking SET $end->[1] WHERE id = $later_b");
	ok(has_key($later_b, $fourth), "$end->[1]: issued");
}
sql("DELETE FROM booking WHERE id = $later_b");
ok(wait_for(sub { live($fourth) eq '' }), 'deleted: revoked');
my $gone = new_guest();
$b = booking($gone, "now() + interval '1 day'", "'infinity'");
sql("DELETE FROM booking WHERE id = $b");
is(statuses($gone), 'cancelled unwanted', 'deleted while it waits: cancelled');
$who = new_guest();
$b = booking($who, 'NULL', "now() + interval '3 s'");
ok(has_key($b, $who), 'a short stay');
ok(has_none($b, $who), 'is over: revoked, and cleared');
ok(wait_for(sub { statuses($who) eq 'revoked over' }), 'for that');

# ---------- an answer that comes too late ----------

sql(q{CREATE TABLE written (id int, key_id uuid);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
	'BEGIN INSERT INTO written VALUES (NEW.id, NEW.key_id); RETURN NEW; END';
CREATE TRIGGER note AFTER UPDATE OF key_id ON booking FOR EACH ROW WHEN (NEW.key_id IS NOT NULL)
	EXECUTE FUNCTION note()});
my $ended = background($node, 'LISTEN seam_instant_key;');
my ($over, $put_off) = (new_guest(), new_guest());
$fake->behave($_, 'route=generate_instant_key,hold', 2) for $over, $put_off;
my $over_b = booking($over, 'NULL', "now() + interval '1 hour'");
my $put_off_b = booking($put_off, 'NULL', "now() + interval '60 days'");
my $single = sql("SELECT seam_enqueue_instant_key('$over', valid_until => now() + interval '2 s')");
ok(wait_for(sub { sent($over) + sent($put_off) >= 3 }), 'requests under way');
sql("UPDATE booking SET check_out = now() WHERE id = $over_b; " .
	"UPDATE booking SET check_in = now() + interval '30 days' WHERE id = $put_off_b");
wait_for(sub { sql("SELECT now() > valid_until FROM seam_instant_key_request WHERE request_id = $single") eq 't' });
# held when it has stored an answer, the worker has not ended the stay yet
my $stop = $node->data_dir . '/seam_ik_stop';
mkdir $stop or die $!;
append_to_file("$stop/worker-stored", '');
$fake->release;
ok(wait_for(sub { glob "$stop/worker-stored.*" }), 'an answer is stored');
for (my $n = 0; $n < 20 && sql('SELECT count(*) FROM written') == 0; $n++) { sleep 0.1; }
unlink glob "$stop/worker-stored.*";
ok(wait_for(sub { statuses($over) =~ /revoked over.*revoked over/ && statuses($put_off) eq 'revoked, pending' }),
	'whose stays are over, or put off, when the answers come: revoked');
is(live($over) . live($put_off), '', 'none lives');
ok(quiet(), 'all that was due is done');
is(sql("SELECT count(*) FROM written WHERE id IN ($over_b, $put_off_b)"), 0, 'and no row has shown one');
$ended->{in} .= "SELECT 1;\n";
my ($ends) = result_of($ended);
like($ends, qr/"request_id":$single,"reference":null,"status":"revoked"/, 'its end is told of');
unlike($ends, qr/"request_id":$single,[^}]*"status":"issued"/, 'but not that it was issued');
sql('DROP TRIGGER note ON booking');

# ---------- by hand ----------

$who = new_guest();
$b = booking($who, 'NULL', 'NULL');
has_key($b, $who);
my $id = sql("SELECT request_id FROM seam_instant_key_request WHERE user_identity_id = '$who'");
sql("SELECT seam_cancel_instant_key_request($id)");
ok(wait_for(sub { live($who) eq '' }), 'cancelled by hand');
sql("UPDATE booking SET check_out = now() + interval '1 day', note = 'x' WHERE id = $b");
ok(quiet(), 'a change of dates');
is(live($who), '', 'brings no key back');
sql("UPDATE booking SET nights = 4 WHERE id = $b");
ok(has_key($b, $who), 'one of the count does');

# ---------- transactions ----------

$who = new_guest();
$b = ++$ids;
sql("BEGIN; INSERT INTO booking (id, guest) VALUES ($b, '$who'); ROLLBACK");
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$who'"), 0, 'rolled back: nothing');
$b = booking($who, 'NULL', 'NULL');
has_key($b, $who);
sql("BEGIN; DELETE FROM booking WHERE id = $b; ROLLBACK; " .
	"BEGIN; UPDATE booking SET confirmed = false WHERE id = $b; ROLLBACK");
ok(quiet(), 'a DELETE that rolls back');
is(live($who), key_of($b), 'leaves the key alive');

# ---------- renewals ----------

my $listener = background($node, 'LISTEN seam_instant_key;');
$fake->life(6);
set(renew_before => '3s');
$who = new_guest();
$b = booking($who, 'NULL', "now() + interval '16 s'");
ok(has_key($b, $who), 'a key that lives for 6 s');
my %seen;
my $without = 0;
my $until = time + 40;
while (time < $until)
{
	my ($shown, $over) = split /\|/, sql("SELECT coalesce(key_id::text, '-'), check_out <= now() FROM booking " .
		"WHERE id = $b");
	$seen{$shown} = 1;
	last if $over eq 't' && $shown eq '-';
	$without++ if $shown eq '-' && $over ne 't';
}
cmp_ok(scalar(keys %seen) - 1, '>=', 3, 'is renewed as long as the stay lasts');
is($without, 0, 'and the row always shows one');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$who' AND stay_end = 'over'"), 1,
	'the stay is over');
is(sql("SELECT max(n) FROM (SELECT count(*) AS n FROM seam_instant_key_request WHERE user_identity_id = '$who' " .
	"GROUP BY successor_id HAVING successor_id IS NOT NULL) AS s"), 1, 'and no key has two successors');

# a renewal that fails
$who = new_guest();
$b = booking($who, 'NULL', "now() + interval '1 hour'");
has_key($b, $who);
$fake->behave($who, 'route=generate_instant_key,status=400');
ok(wait_for(sub { statuses($who) eq 'issued, failed' }), 'a renewal that fails for good');
ok(wait_for(sub { key_of($b) eq '' }), 'clears the columns');
$fake->behave($who, '');
$who = new_guest();
$b = booking($who, 'NULL', "now() + interval '1 hour'");
has_key($b, $who);
$fake->behave($who, 'route=generate_instant_key,status=429');
ok(wait_for(sub { statuses($who) eq 'issued, failed' }), 'one whose former expires meanwhile fails');
$fake->behave($who, '');
ok(wait_for(sub { key_of($b) eq '' }), 'and clears the columns, too');
set(renew_before => undef);
$fake->life(48 * 3600);
$listener->{in} .= "SELECT 1;\n";
my ($told) = result_of($listener);
like($told, qr/"status":"renewed","table":"public.booking","key":\[\d+\]}/, 'renewals are told of');
is(() = $told =~ /"status":"renewal_failed","table":"public.booking"/g, 2, 'and their failures');

# ---------- the row is looked at ----------

$who = new_guest();
$b = booking($who, "now() + interval '3 s'", 'NULL');
sql("SET session_replication_role = replica; DELETE FROM booking WHERE id = $b");
ok(wait_for(sub { statuses($who) =~ /cancelled unwanted/ }), 'a row that is gone unseen ends its stay');
is(sent($who), 0, 'and nothing is sent');
$who = new_guest();
$b = booking($who, "now() + interval '2 s'", 'NULL');
my $from = -s $node->logfile;
sql('ALTER TABLE booking DISABLE TRIGGER stay');
ok(wait_for(sub { logged($from) =~ /instant keys for rows of table "booking".*wait/ }),
	'a trigger that is off: a warning');
is(sent($who), 0, 'and it waits');
sql('ALTER TABLE booking ENABLE TRIGGER stay');
sql("UPDATE seam_instant_key_request SET row_task_at = '-infinity' WHERE row_task = 'look'");
booking(new_guest(), 'NULL', 'NULL');
ok(has_key($b, $who), 'until it is on');

# ---------- functions ----------

$who = new_guest();
$id = sql("SELECT seam_enqueue_instant_key('$who', 2, reference => 'r', issue_at => now() + interval '1 s', " .
	"valid_until => now() + interval '6 s')");
is(sql("SELECT (seam_instant_key_request_result($id)).instant_key_id"), '', 'a stay without a row');
ok(wait_for(sub { live($who) ne '' }), 'gets its key');
is(sql("SELECT (seam_instant_key_request_result($id)).instant_key_id"), live($who), 'which its result is');
ok(wait_for(sub { live($who) eq '' }), 'and is revoked at its end');
like(error_of("SELECT seam_enqueue_instant_key('$who', issue_at => '2030-01-02', valid_until => '2030-01-01')"),
	qr/^22023: /, 'dates the wrong way round');

# ---------- errors ----------

$who = new_guest();
like(error_of("INSERT INTO booking (id, guest, check_in, check_out) VALUES (9000, '$who', '2030-01-02', '2030-01-01')"),
	qr/^22023: trigger "stay" of table "booking"/, 'dates the wrong way round');
is(sql("INSERT INTO booking (id, guest, check_in, check_out, confirmed) VALUES (9001, '$who', '2030-01-02', " .
	"'2030-01-01', false) RETURNING id"), '9001', 'unless it is not wanted');
is(sql("INSERT INTO booking (id, guest, check_in, check_out) VALUES (9002, '$who', '2030-01-02', '2030-01-02') " .
	"RETURNING id"), '9002', 'or they are equal');

done_testing();
