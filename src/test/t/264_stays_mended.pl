# Keys for stays after a request has failed, and when somebody mends it: no key lives that the
# row does not want, and nothing is sent that a newer request stands for.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql live sent set error_of);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_mended'",
	"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '1s'", "timezone = 'UTC'");
meet($node, $fake);
sql(q{CREATE TABLE booking (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid, check_in timestamptz,
		check_out timestamptz, confirmed boolean DEFAULT true, nights int DEFAULT 3, key_id uuid, note text);
	CREATE TRIGGER stay AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW
		EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'issue_at=check_in',
			'valid_until=check_out', 'wanted=confirmed', 'max_use_count=nights', 'instant_key_id=key_id')});

sub request { return "FROM seam_instant_key_request WHERE user_identity_id = '$_[0]'"; }
sub statuses { return sql("SELECT string_agg(status, ', ' ORDER BY request_id) " . request($_[0])); }
sub first_of { return sql('SELECT min(request_id) ' . request($_[0])); }
sub key_of { return sql("SELECT key_id FROM booking WHERE id = $_[0]"); }
# the id of a new booking of a guest
sub booking
{
	return sql("INSERT INTO booking (guest, check_out) VALUES ('$_[0]', now() + interval '1 month') RETURNING id");
}
sub has_key
{
	my ($id, $guest) = @_;
	return wait_for(sub { my $key = key_of($id); $key ne '' && live($guest) eq $key });
}
# the booking's key is renewed now: more than half of its life has passed
sub renew
{
	sql("UPDATE seam_instant_key_request SET instant_key.created_at = now() - interval '1 month', " .
		"seam_time = NULL, wake_at = '-infinity' WHERE status = 'issued' AND user_identity_id = '$_[0]'; " .
		'SELECT seam_enqueue_instant_key(gen_random_uuid())');
}
# there is nothing left to do, but for what sleeps
sub quiet
{
	return sql("SELECT count(*) FROM seam_instant_key_request WHERE wake_at = '-infinity' OR " .
		'next_attempt_at IS NOT NULL OR row_task IS NOT NULL') == 0;
}
# a booking of a new guest, whose key lives, and its renewal has failed for good
sub failed_renewal
{
	my $guest = new_guest();
	my $id = booking($guest);
	ok(has_key($id, $guest), 'a key');
	$fake->behave($guest, 'route=generate_instant_key,status=400');
	renew($guest);
	ok(wait_for(sub { statuses($guest) eq 'issued, failed' }), 'whose renewal fails for good');
	$fake->behave($guest, '');
	isnt(live($guest), '', 'lives on');
	return ($guest, $id);
}
set(renew_before => '7d');

# ---------- the former key of a renewal that has failed ----------

my ($guest, $id) = failed_renewal();
sql("UPDATE booking SET check_in = now() - interval '2 days', check_out = now() WHERE id = $id");
ok(wait_for(sub { live($guest) eq '' }), 'at check-out it is revoked');
($guest, $id) = failed_renewal();
sql("UPDATE booking SET check_in = now() + interval '10 days' WHERE id = $id");
ok(wait_for(sub { live($guest) eq '' }), 'when the stay is put off it is revoked');
ok(wait_for(sub { statuses($guest) eq 'revoked, failed, pending' }), 'and asked for again then');

# ---------- retries ----------

$guest = new_guest();
$fake->behave($guest, 'route=generate_instant_key,status=400');
$id = booking($guest);
ok(wait_for(sub { statuses($guest) eq 'failed' }), 'a request fails');
$fake->behave($guest, '');
sql("UPDATE booking SET nights = 4 WHERE id = $id");
ok(has_key($id, $guest), 'its successor does not');
my $sent = sent($guest);
my $former = first_of($guest);
is(sql("SELECT seam_retry_instant_key_request($former)"), 'failed', 'a retry of the former does nothing');
is(sql('SELECT seam_retry_instant_key_requests()'), 0, 'nor one of all that failed');
sql("UPDATE seam_instant_key_request SET sqlstate = '08007' WHERE request_id = $former");
is(sql("SELECT seam_cancel_instant_key_request($former)"), 'revoking', 'cancelled by a former that is reported');
ok(wait_for(sub { live($guest) eq '' }), 'the key of the stay is revoked');
is(sent($guest), $sent, 'nothing more was sent');

$guest = new_guest();
$fake->behave($guest, 'route=generate_instant_key,status=400');
$id = booking($guest);
ok(wait_for(sub { statuses($guest) eq 'failed' }), 'a request fails');
$fake->behave($guest, '');
sql("UPDATE booking SET confirmed = false WHERE id = $id");
$sent = sent($guest);
is(sql('SELECT seam_retry_instant_key_request(' . first_of($guest) . ')'), 'failed', 'a retry where no key is wanted');
sql("UPDATE booking SET confirmed = true WHERE id = $id");
ok(has_key($id, $guest), 'wanted again: issued');
is(sent($guest), $sent + 1, 'once');

$guest = new_guest();
$fake->behave($guest, 'route=generate_instant_key,status=400');
$id = booking($guest);
ok(wait_for(sub { statuses($guest) eq 'failed' }), 'a request fails');
$fake->behave($guest, '');
sql("UPDATE booking SET check_in = now() - interval '1 day', check_out = now() WHERE id = $id");
ok(wait_for(sub { sql('SELECT stay_end ' . request($guest)) eq 'over' }), 'and its stay is over');
$sent = sent($guest);
is(sql('SELECT seam_retry_instant_key_request(' . first_of($guest) . ')'), 'failed', 'a retry after that');

# ---------- retention ----------

my $lasting = new_guest();
$id = booking($lasting);
has_key($id, $lasting);
renew($lasting);
ok(wait_for(sub { statuses($lasting) eq 'issued, issued' }), 'a key is renewed');
my $first = first_of($lasting);
my $gone = sql("SELECT seam_enqueue_instant_key('" . new_guest() . "')");
ok(wait_for(sub { sql("SELECT status FROM seam_instant_key_request WHERE request_id = $gone") eq 'issued' }),
	'a request without a stay');
sql("UPDATE seam_instant_key_request SET finished_at = now() - interval '1 year' WHERE finished_at IS NOT NULL");
$node->restart;
ok(wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE request_id = $gone") == 0 }),
	'requests of a year ago are deleted');
is(statuses($lasting), 'issued, issued', 'but not those of a stay that lasts');
is(sql("SELECT instant_key_id FROM seam_instant_key_request_result($first)"), key_of($id),
	'so the first one tells the newest key');
is(sent($guest), $sent, 'and what was over was not sent');
sql("UPDATE booking SET confirmed = false WHERE id = $id");
ok(wait_for(sub { live($lasting) eq '' }), 'and both keys are revoked');

# ---------- a session holds what is due ----------

sub scans { return sql("SELECT sum(idx_scan) FROM pg_stat_all_indexes WHERE relname = 'seam_instant_key_request'"); }
$guest = new_guest();
$id = sql("INSERT INTO booking (guest, check_in) VALUES ('$guest', now() + interval '2 s') RETURNING id");
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; SELECT 1 ' . request($guest) . ' FOR UPDATE');
ok(wait_for(sub { sql('SELECT wake_at <= now() ' . request($guest)) eq 't' }), 'a stay is due that a session holds');
my $scans = scans();
sleep 4;
# each turn makes some, and there are ten a second at most; a turn without a pause is a thousand times as fast
cmp_ok(scans() - $scans, '<', 2000, 'the worker looks at it now and then');
$holder->query_safe('COMMIT');
$holder->quit;
ok(has_key($id, $guest), 'and issues its key when it may');

# ---------- rows that no trigger saw go ----------

$guest = new_guest();
$id = booking($guest);
ok(has_key($id, $guest), 'a key');
sql("SET session_replication_role = replica; DELETE FROM booking WHERE id = $id; RESET session_replication_role; " .
	"INSERT INTO booking (id, guest) OVERRIDING SYSTEM VALUE VALUES ($id, '$guest')");
ok(wait_for(sub { statuses($guest) eq 'revoked, issued' }), 'a row went unseen, and came anew: it has one key');
ok(has_key($id, $guest), 'which it shows');
my $key = key_of($id);
sql("SET session_replication_role = replica; DELETE FROM booking WHERE id = $id; RESET session_replication_role; " .
	"INSERT INTO booking (id, guest, key_id) OVERRIDING SYSTEM VALUE VALUES ($id, '$guest', '$key')");
sql("UPDATE booking SET nights = 9 WHERE id = $id");
ok(wait_for(sub { statuses($guest) eq 'revoked, revoked, issued' }), 'one that came back with its key has kept it');

# ---------- keys of a row that is gone, whatever its trigger is now ----------

sql(q{CREATE TABLE room (id int PRIMARY KEY, guest uuid, key_id uuid);
	CREATE TRIGGER stay AFTER INSERT OR UPDATE OR DELETE ON room FOR EACH ROW
		EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')});
$guest = new_guest();
sql("INSERT INTO room VALUES (1, '$guest')");
ok(wait_for(sub { live($guest) ne '' }), 'a key');
sql(q{DROP TRIGGER stay ON room; ALTER TABLE room RENAME key_id TO door_key;
	CREATE TRIGGER stay AFTER INSERT OR UPDATE OR DELETE ON room FOR EACH ROW
		EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=door_key');
	DELETE FROM room});
ok(wait_for(sub { live($guest) eq '' }), 'its column has another name, and the row goes: it is revoked');

# and rows that stay, under a new name of that column
my @named = map { new_guest() } 1 .. 4;
my $soon = "now() + interval '4 s'";
sql("INSERT INTO booking (guest, check_in) VALUES ('$named[0]', NULL), ('$named[1]', NULL), ('$named[2]', $soon)");
ok(wait_for(sub { live($named[0]) ne '' && live($named[1]) ne '' && quiet() }), 'two keys, and one that waits');
sql(q{BEGIN; DROP TRIGGER stay ON booking; ALTER TABLE booking RENAME key_id TO door;
	CREATE TRIGGER stay AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW
		EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'issue_at=check_in',
			'valid_until=check_out', 'wanted=confirmed', 'max_use_count=nights', 'instant_key_id=door');} .
	"UPDATE booking SET confirmed = false WHERE guest = '$named[0]'; UPDATE booking SET guest = '$named[3]' " .
	"WHERE guest = '$named[1]'; UPDATE booking SET note = 'x' WHERE guest = '$named[2]'; COMMIT");
ok(wait_for(sub { live($named[0]) . live($named[1]) eq '' }), 'it has another name: keys are revoked all the same');
ok(wait_for(sub { live($named[2]) ne '' && live($named[3]) ne '' && quiet() }), 'and issued');
is(sent($named[2]), 1, 'once');
sql("UPDATE booking SET confirmed = false WHERE guest = '$named[2]'");
ok(wait_for(sub { live($named[2]) eq '' }), 'that one is revoked, too');
sql(q{BEGIN; DROP TRIGGER stay ON booking; ALTER TABLE booking RENAME door TO key_id;
	CREATE TRIGGER stay AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW
		EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'issue_at=check_in',
			'valid_until=check_out', 'wanted=confirmed', 'max_use_count=nights', 'instant_key_id=key_id'); COMMIT});

# ---------- a trigger beside that revokes what a row loses ----------

sql("CREATE TRIGGER revoke AFTER DELETE OR UPDATE ON booking FOR EACH ROW EXECUTE FUNCTION " .
	"seam_delete_instant_key_trigger('instant_key_id=key_id')");
$guest = new_guest();
$id = booking($guest);
ok(has_key($id, $guest) && quiet(), 'a key');
$key = key_of($id);
renew($guest);
ok(wait_for(sub { key_of($id) ne $key && quiet() }), 'is renewed');
is(live($guest), join(',', sort $key, key_of($id)), 'the former lives on');
sql('DROP TRIGGER revoke ON booking');

# ---------- one of two triggers is disabled ----------

sql(q{CREATE TABLE pair (id int PRIMARY KEY, one uuid, two uuid, from_when timestamptz, key_one uuid, key_two uuid);
	CREATE TRIGGER one AFTER INSERT OR UPDATE OR DELETE ON pair FOR EACH ROW EXECUTE FUNCTION
		seam_keep_instant_key_trigger('user_identity_id=one', 'instant_key_id=key_one', 'issue_at=from_when');
	CREATE TRIGGER two AFTER INSERT OR UPDATE OR DELETE ON pair FOR EACH ROW EXECUTE FUNCTION
		seam_keep_instant_key_trigger('user_identity_id=two', 'instant_key_id=key_two', 'issue_at=from_when')});
my @pair = map { new_guest() } 1 .. 2;
sql("BEGIN; INSERT INTO pair VALUES (1, '$pair[0]', '$pair[1]', now() + interval '1 s'); " .
	'ALTER TABLE pair DISABLE TRIGGER two; COMMIT');
ok(wait_for(sub { live($pair[0]) ne '' }), 'the key of the trigger that is not disabled');
sub waits { return "row_task = 'look' AND row_task_at > '-infinity' " . request($_[0]); }
ok(wait_for(sub { sql('SELECT ' . waits($pair[1])) eq 't' }), 'that of the other one waits');
is(sql("SELECT count FROM seam_instant_key_queue WHERE status = 'pending'"), 1, 'and is due');
sql('ALTER TABLE pair ENABLE TRIGGER two');
ok(wait_for(sub { live($pair[1]) ne '' }), 'until that is enabled');

# ---------- dates that move while a row is looked at ----------

$guest = new_guest();
sql("BEGIN; INSERT INTO booking (guest, check_in) VALUES ('$guest', now() + interval '1 s'); " .
	'ALTER TABLE booking DISABLE TRIGGER stay; COMMIT');
ok(wait_for(sub { sql('SELECT ' . waits($guest)) eq 't' }), 'a key waits for its trigger');
sql('BEGIN; ALTER TABLE booking ENABLE TRIGGER stay; ' .
	"UPDATE booking SET check_in = now() + interval '1 month' WHERE guest = '$guest'; COMMIT");
is(sql('SELECT status, next_attempt_at, row_task, wake_at > now() ' . request($guest)), 'pending|||t',
	'the trigger is back, and the stay is put off: so is the key');
my $other = new_guest();
ok(has_key(booking($other), $other), 'another one is issued');
is(sent($guest), 0, 'but not that one');

# ---------- columns that show a dead key ----------

$guest = new_guest();
$id = booking($guest);
ok(has_key($id, $guest), 'a key');
my $next = new_guest();
sql("UPDATE booking SET guest = '$next', check_in = now() + interval '7 days' WHERE id = $id");
ok(wait_for(sub { key_of($id) eq '' && live($guest) eq '' }), 'another guest, who comes later: no key is shown');
is(statuses($next), 'pending', 'until then');
$guest = new_guest();
$id = booking($guest);
ok(has_key($id, $guest), 'a key');
sql('SELECT seam_cancel_instant_key_request(' . first_of($guest) . ')');
ok(wait_for(sub { live($guest) eq '' }), 'it is cancelled by hand');
sql("UPDATE booking SET confirmed = false WHERE id = $id");
ok(wait_for(sub { key_of($id) eq '' }), 'and not shown when the row does not want one any more');

# ---------- a renewal whose former has expired ----------

($guest, $id) = failed_renewal();
sql('UPDATE seam_instant_key_request SET former_expires_at = now() - interval \'1 hour\' WHERE is_renewal ' .
	"AND user_identity_id = '$guest'");
sql('SELECT seam_retry_instant_key_requests()');
ok(wait_for(sub { statuses($guest) eq 'issued, issued' }), 'a renewal is retried after the former has expired');

# ---------- the former expires while its renewal is under way ----------

$guest = new_guest();
$id = booking($guest);
ok(has_key($id, $guest), 'a key');
$fake->behave($guest, 'route=generate_instant_key,hang_after', 1);
renew($guest);
ok(wait_for(sub { sent($guest) == 2 }), 'its renewal is under way');
my $row = $node->background_psql('postgres');
$row->query_safe("BEGIN; SELECT 1 FROM booking WHERE id = $id FOR UPDATE");
sql("UPDATE seam_instant_key_request SET former_expires_at = now() - interval '1 hour', wake_at = '-infinity' " .
	"WHERE is_renewal AND user_identity_id = '$guest'; SELECT seam_enqueue_instant_key(gen_random_uuid())");
ok(wait_for(sub { sql("SELECT string_agg(status || ' ' || coalesce(row_task, '-'), ', ' ORDER BY request_id) " .
	request($guest)) eq 'issued -, in_flight clear' }), 'the former expires: the row is not to show it');
ok(wait_for(sub { statuses($guest) eq 'issued, issued' }), 'the answer was lost, and is settled');
$row->query_safe('COMMIT');
$row->quit;
ok(wait_for(sub { sql('SELECT bool_and(row_task IS NULL AND next_attempt_at IS NULL) ' . request($guest)) eq 't' }),
	'the row is locked until then');
is(key_of($id), sql('SELECT (instant_key).instant_key_id ' . request($guest) . ' AND is_renewal'),
	'it shows the key that came late');

# ---------- what is over is not sent after a start ----------

Guests::pause();
$guest = new_guest();
my $over = sql("SELECT seam_enqueue_instant_key('$guest', valid_until => now() + interval '1 s')");
sql("UPDATE seam_instant_key_request SET next_attempt_at = '-infinity' WHERE request_id = $over");
ok(wait_for(sub { sql("SELECT valid_until < now() FROM seam_instant_key_request WHERE request_id = $over") eq 't' }),
	'a stay ends while the worker is off');
$node->restart;
Guests::go_on();
ok(wait_for(sub { statuses($guest) eq 'cancelled' }), 'after a start it is over');
is(sent($guest), 0, 'and was not sent');

# ---------- answers that take long ----------

($guest, $other) = (new_guest(), new_guest());
$id = booking($guest);
ok(has_key($id, $guest), 'a key');
$fake->behave('*', 'delay=2200');
$node->restart;
sql("UPDATE booking SET check_in = NULL, check_out = now() WHERE id = $id; " .
	"INSERT INTO booking (guest, check_in) VALUES ('$other', now() + interval '1 s')");
ok(wait_for(sub { live($guest) eq '' && live($other) ne '' }), 'tell what time it is after a start, too');
$fake->behave('*', '');

# ---------- dates ----------

is(error_of("SELECT seam_enqueue_instant_key(gen_random_uuid(), issue_at => 'infinity', valid_until => '2100-01-01')"),
	'', 'never, until a day, without a row');
sql(q{CREATE TABLE old (id int PRIMARY KEY, guest uuid, check_in date, check_out date, key_id uuid, note text);
	INSERT INTO old VALUES (1, gen_random_uuid(), '2100-01-03', '2100-01-01');
	CREATE TRIGGER stay AFTER INSERT OR UPDATE OR DELETE ON old FOR EACH ROW
		EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'issue_at=check_in',
			'valid_until=check_out', 'instant_key_id=key_id')});
like(error_of(q{UPDATE old SET check_out = '1999-12-31'}), qr/^22023/, 'dates the wrong way round');
is(error_of(q{UPDATE old SET note = 'x'}), '', 'are older than the trigger: no matter of another change');
is(sql(q{SELECT count(*) FROM seam_instant_key_request WHERE target_table = 'old'::regclass}), 0,
	'nothing is asked for');
is(error_of(q{INSERT INTO old VALUES (2, gen_random_uuid(), 'infinity', '2100-01-01')}), '', 'never, until a day');

$node->stop;
done_testing();
