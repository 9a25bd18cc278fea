# What a DBA mends by hand: many requests at once, and keys that nobody owns.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql error_of live live_keys sent wait_sent enqueue status wait_state quiet set pause
	go_on);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_mending'",
	"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '1s'");
meet($node, $fake);

# A request that fails so; its guest and its id.
sub failing
{
	my ($spec) = @_;
	my $guest = new_guest();

	$fake->behave($guest, "$spec,route=generate_instant_key");
	my $id = enqueue($guest);
	ok(wait_for(sub { status($id) eq 'failed' }), "$spec: failed");
	$fake->behave($guest, '');
	return ($guest, $id);
}

# What the statuses of these requests are.
sub statuses { return join ' ', map { status($_) } @_; }

# ---------- many requests at once ----------

sql(q{CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid, paid boolean DEFAULT false,
	CHECK (key_id IS NULL OR paid));
	CREATE TRIGGER k AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')});
my $unpaid = new_guest();
sql("INSERT INTO booking VALUES (1, '$unpaid')");
my $unwritten = sql('SELECT max(request_id) FROM seam_instant_key_request');
ok(wait_state('postgres', $unwritten, 'issued 23514'), 'a key that its row does not take');
my ($forbidden, $forbidden_id) = failing('status=403');
my ($bad, $bad_id) = failing('status=400');
my $well = enqueue(my $well_guest = new_guest());
ok(wait_for(sub { status($well) eq 'issued' }), 'a key in order');
my $well_key = live($well_guest);
# what is reported, what a copy brought along, and what somebody has looked at
sub made
{
	my ($columns, $values) = @_;
	return sql("INSERT INTO seam_instant_key_request (user_identity_id, status, sqlstate, error, attempted_at, " .
		"finished_at, system_identifier, origin, $columns) SELECT '" . new_guest() . "', 'failed', '42501', 'made', " .
		"now(), now(), system_identifier, origin, $values FROM seam_instant_key_request LIMIT 1 RETURNING request_id");
}
my $of_copy = made('account', 'NULL');
sql("UPDATE seam_instant_key_request SET origin = origin + 1 WHERE request_id = $of_copy");
my $reported = made('account', 'NULL');
sql("UPDATE seam_instant_key_request SET sqlstate = '08007' WHERE request_id = $reported");
my $seen = made('dismissed_at', 'now()');
pause();
my $after = sql('SELECT clock_timestamp()');
my $waits = enqueue(my $waits_guest = new_guest());

is(sql("SELECT seam_retry_instant_key_requests(since => now() + interval '1 hour')"), 0, 'retry: none since then');
is(sql("SELECT seam_retry_instant_key_requests('40001')"), 0, 'none with this SQLSTATE');
is(sql("SELECT seam_retry_instant_key_requests('42501', '-infinity')"), 1, 'one with this');
is(statuses($forbidden_id, $bad_id, $unwritten), 'pending failed issued', 'namely that');
is(sql("SELECT seam_retry_instant_key_requests(NULL, '$after')"), 0, 'none that was tried since then');
sql('UPDATE booking SET paid = true');
is(sql('SELECT seam_retry_instant_key_requests(since => NULL)'), 3, 'all');
is(statuses($bad_id, $unwritten, $of_copy, $seen), 'pending issued failed failed',
	"but a copy's, and what was dismissed");
is(status($reported), 'in_flight', 'what is reported is looked for');
go_on();
ok(wait_for(sub { statuses($forbidden_id, $bad_id, $waits) eq 'issued issued issued' }), 'they are sent');
is(sent($_), 2, 'once more') for $forbidden, $bad;
ok(wait_for(sub { sql('SELECT key_id FROM booking') eq live($unpaid) }), 'and the key is written');
is(sent($unpaid), 1, 'without another call');
ok(wait_for(sub { status($reported) =~ /^(failed|issued)$/ }), 'what was reported is settled');

sql("UPDATE seam_instant_key_request SET status = 'failed', sqlstate = '08007', error = 'made', " .
	"finished_at = now(), next_attempt_at = NULL WHERE request_id = $reported");
($forbidden, $forbidden_id) = failing('status=403');
($bad, $bad_id) = failing('status=400');
sql("DELETE FROM booking; INSERT INTO booking VALUES (2, '$unpaid')");
$unwritten = sql('SELECT max(request_id) FROM seam_instant_key_request');
ok(wait_state('postgres', $unwritten, 'issued 23514'), 'again a key that its row does not take');
$fake->behave(my $hangs = new_guest(), 'hang_after,route=generate_instant_key');
set(request_timeout => '3s');
my $in_flight = enqueue($hangs);
ok(wait_sent($hangs), 'a call is under way');
pause();
$waits = enqueue(new_guest());
is(sql("SELECT seam_cancel_instant_key_requests('42501')"), 1, 'cancel: one with this SQLSTATE');
is(statuses($forbidden_id, $bad_id), 'cancelled failed', 'namely that');
is(sql('SELECT seam_cancel_instant_key_requests()'), 4, 'all that are unfinished or in trouble');
is(statuses($bad_id, $unwritten, $in_flight, $waits), 'cancelled revoking revoking cancelled', 'each in its way');
is(statuses($well, $of_copy, $reported), 'issued failed failed', 'a key in order is left, and a copy\'s request');
is(sql("SELECT count(*) FROM seam_instant_key_orphan WHERE request_id = $reported"), 1, 'so is what is reported');
is(sql("SELECT seam_cancel_instant_key_requests('08007')"), 1, 'unless it is asked for');
is(sql("SELECT count(*) FROM seam_instant_key_orphan WHERE request_id = $reported"), 0, 'then it leaves the view');
is(sql('SELECT seam_cancel_instant_key_requests()'), 0, 'nothing is cancelled twice');
set(worker => undef, request_timeout => undef);
ok(quiet(), 'settled');
is(live($well_guest), $well_key, 'the key in order opens its door');
is(live($unpaid) . live($hangs), sql("SELECT coalesce(string_agg((instant_key).instant_key_id::text, ','), '') " .
	"FROM seam_instant_key_request WHERE status = 'issued' AND user_identity_id IN ('$unpaid', '$hangs')"),
	'the others are revoked');
sql('CREATE ROLE clerk');
like(error_of("SET ROLE clerk; SELECT $_"), qr/^42501/, "$_ is not for everybody")
	for 'seam_retry_instant_key_requests()', 'seam_cancel_instant_key_requests()', 'seam_unowned_instant_keys()';

# ---------- keys that no row owns ----------

sub unowned { return sql("SELECT string_agg(instant_key_id::text, ',' ORDER BY instant_key_id::text) " .
	"FROM seam_unowned_instant_keys($_[0])") }
sub seed { my ($guest, $n) = @_; $fake->ask('seed-keys', { user_identity_id => $guest, count => $n }); return; }

my $stranger = new_guest();
seed($stranger, 2);
is(unowned("'$stranger'"), live($stranger), 'what another program has issued');
is(sql("SELECT count(*) FROM seam_unowned_instant_keys('$stranger') WHERE user_identity_id = '$stranger' AND
	expires_at > now() AND created_at BETWEEN now() - interval '1 min' AND now() + interval '1 min'"), 2,
	'with its times');
is(unowned("'$well_guest'"), '', "what a request owns is nobody else's");
my ($key) = live_keys($stranger);
sql("UPDATE seam_instant_key_request SET instant_key.instant_key_id = '$key', status = 'failed'
	WHERE request_id = $reported");
like(unowned("'$stranger'"), qr/$key/, 'what is only reported has no owner');
sql("UPDATE seam_instant_key_request SET status = 'revoked', finished_at = now() - interval '1 min'
	WHERE request_id = $reported");
like(unowned("'$stranger'"), qr/$key/, 'nor has what should have been revoked');
$fake->behave($stranger, 'hold,route=list');
my $held = $fake->ask('stats')->{in_flight};
my $asking = background($node, "SELECT 'n ' || count(*) FROM seam_unowned_instant_keys('$stranger');");
ok(wait_for(sub { $fake->ask('stats')->{in_flight} > $held }), 'Seam is asked');
sql("UPDATE seam_instant_key_request SET finished_at = clock_timestamp() WHERE request_id = $reported");
$fake->release($stranger);
like((result_of($asking))[0], qr/n 1/, 'but what is revoked meanwhile has gone');
$fake->behave($stranger, '');
sql("DELETE FROM seam_instant_key_request WHERE request_id = $reported");

# rows of users' tables: of a role that hides them, as text, in partitions
sql(q{CREATE ROLE hotel; CREATE TABLE suite (id int, guest uuid, place int, key_id varchar(40), PRIMARY KEY (id, place))
	PARTITION BY LIST (place); CREATE TABLE suite_1 PARTITION OF suite FOR VALUES IN (1);
	ALTER TABLE suite OWNER TO hotel; ALTER TABLE suite_1 OWNER TO hotel;
	CREATE TRIGGER k AFTER INSERT OR UPDATE OR DELETE ON suite FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
	ALTER TABLE suite ENABLE ROW LEVEL SECURITY; ALTER TABLE suite FORCE ROW LEVEL SECURITY});
sql("INSERT INTO suite VALUES (1, NULL, 1, upper('$key')), (2, NULL, 1, NULL)");
unlike(unowned("'$stranger'"), qr/$key/, 'a row that only its owner sees owns its key');
# (with triggers off, or it would be revoked)
sql('SET session_replication_role = replica; UPDATE suite SET key_id = NULL');
like(unowned("'$stranger'"), qr/$key/, 'until it has it no more');
my (undef, $other) = live_keys($stranger);
sql("INSERT INTO booking (id, paid, key_id) VALUES (3, true, '$other')");
unlike(unowned("'$stranger'"), qr/$other/, 'a row owns what was written to it by hand');
sql('SET session_replication_role = replica; UPDATE booking SET key_id = NULL WHERE id = 3');
like(unowned("'$stranger'"), qr/$other/, 'until it is cleared there');

# what may be of a transaction that is open, or of a lost answer, is not told yet
my $open_guest = new_guest();
$fake->behave($open_guest, 'delay=100');
my $open = $node->background_psql('postgres');
$open->query_safe("BEGIN; SELECT instant_key_id FROM seam_generate_instant_key('$open_guest')");
isnt(live($open_guest), '', 'a key of a transaction that is open');
is(unowned("'$open_guest'"), '', 'is not told');
$open->query_safe('ROLLBACK');
$open->quit;
ok(wait_for(sub { live($open_guest) eq '' }), 'it is revoked');
my $lost = new_guest();
$fake->behave($lost, 'reset_after,route=generate_instant_key', 1);
set(settle_delay => '1h');
reload($node);
my $lost_id = enqueue($lost);
ok(wait_state('postgres', $lost_id, 'in_flight 08007'), 'a lost answer');
isnt(live($lost), '', 'has left a key');
is(unowned("'$lost'"), '', 'which is not told');
seed($lost, 1);
is(unowned("'$lost'"), '', 'nor is one that came later');
like(unowned(''), qr/$other/, 'of the whole workspace');
unlike(unowned(''), qr/$well_key/, 'those that no row owns');
like(error_of('SELECT seam_unowned_instant_keys(); SELECT instant_key_url FROM seam_unowned_instant_keys()'),
	qr/^42703/, 'there is no URL');
my $older = $node->background_psql('postgres');
$older->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
ok(wait_state('postgres', enqueue(my $later = new_guest()), 'issued -'), 'a key that came after a snapshot');
is($older->query_safe("SELECT count(*) FROM seam_unowned_instant_keys('$later')"), 0, 'has its owner there, too');
$older->quit;

$node->stop('immediate');
done_testing();
