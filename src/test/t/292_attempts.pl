# seam_instant_key_attempt: each try of a request, also when a later one went well.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql error_of enqueue wait_state live_keys quiet set up);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '100ms'");
meet($node, $fake);
api_key_file($node, 'seam_test_attempts');
ok(up('postgres'), 'a worker');

# A line for each try of a request, in their order.
sub tries
{
	my ($id) = @_;
	return sql("SELECT concat_ws(' ', purpose, attempt, coalesce(http_status, 0), sqlstate, error)
		FROM seam_instant_key_attempt WHERE request_id = $id ORDER BY attempted_at");
}
sub kept { return sql("SELECT count(*) FROM seam_instant_key_attempt WHERE request_id = $_[0]"); }
# A request for a guest that Seam treats like this, when it has come to its end.
sub ends
{
	my ($spec, $state, $guest) = (@_, new_guest());
	$fake->behave($guest, "$spec,route=generate_instant_key", 1) if $spec ne '';
	my $id = enqueue($guest);
	ok(wait_state('postgres', $id, $state), "$spec: $state") or diag tries($id);
	return $id;
}

# ---------- what is kept ----------

my $who = new_guest();
my $well = ends('', 'issued -', $who);
is(tries($well), 'issue 1 200', 'one that goes well');
is(sql("SELECT a.seam_request_id = r.seam_request_id AND a.attempted_at = r.attempted_at AND a.took > '0' AND
	a.took < clock_timestamp() - a.attempted_at FROM seam_instant_key_attempt a JOIN seam_instant_key_request r
	USING (request_id) WHERE request_id = $well"), 't', 'which, when and how long');
my $lost = ends('status=503', 'issued -');
like(tries($lost), qr/^issue 1 503 58000 .*503.*\nissue 2 200$/s, 'the first error is there, and the last');
is(sql("SELECT sqlstate IS NULL AND error IS NULL FROM seam_instant_key_request WHERE request_id = $lost"), 't',
	'(of which the request says nothing)');
my $failed = ends('status=400', 'failed 22023');
like(tries($failed), qr/^issue 1 400 22023 ./, 'one that fails');
is(kept($failed), 1, 'once');
like(tries(ends('reset', 'issued -')), qr/^issue 1 0 08007 .+\nissue 2 200$/s, 'no answer');
sql("SELECT seam_cancel_instant_key_request($well)");
ok(wait_state('postgres', $well, 'revoked -'), 'a key is revoked');
like(tries($well), qr/^issue 1 200\nrevoke \d 200$/, 'that is a try, too');
is(sql("SELECT count(*) FROM seam_instant_key_attempt WHERE error ~ 'http' OR error ~ 'seam_test'"), 0, 'no secret');

# ---------- who may see it ----------

sql('CREATE ROLE watch IN ROLE pg_monitor; CREATE ROLE clerk');
cmp_ok(sql('SET ROLE watch; SELECT count(*) FROM seam_instant_key_attempt'), '>', 0, 'pg_monitor');
like(error_of('SET ROLE clerk; SELECT * FROM seam_instant_key_attempt'), qr/^42501/, 'nobody else');
like(error_of('SET ROLE clerk; SET seam_ik.keep_attempts = off'), qr/^42501/, 'nor whether it is kept');

# ---------- what keeps it from being kept ----------

set(keep_attempts => 'off');
reload($node);
is(tries(ends('', 'issued -')), '', 'off');
set(keep_attempts => undef);
reload($node);
is(tries(ends('', 'issued -')), 'issue 1 200', 'on again');
my $locks = $node->background_psql('postgres');
$locks->query_safe('BEGIN; LOCK TABLE seam_instant_key_attempt');
my $id = ends('', 'issued -');
$locks->query_safe('ROLLBACK');
$locks->quit;
is(tries($id), '', 'no key waits for a lock on the table');
sql('ALTER TABLE seam_instant_key_attempt ADD CONSTRAINT none CHECK (purpose IS NULL) NOT VALID');
my @ids = map { enqueue(new_guest()) } 1 .. 3;
ok(wait_state('postgres', $_, 'issued -'), 'nor for a constraint') foreach @ids;
like(slurp_file($node->logfile), qr/WARNING: +the outbox of database "postgres" could not keep the tries of requests: /,
	'which is told of');
is(scalar(() = slurp_file($node->logfile) =~ /could not keep the tries/g), 1, 'once');
sql('ALTER TABLE seam_instant_key_attempt DROP CONSTRAINT none');
is(tries(ends('', 'issued -')), 'issue 1 200', 'without it all is as before');

# ---------- how long it is kept ----------

sql("DELETE FROM seam_instant_key_request WHERE request_id = $well");
set(retention => '1d');
ok(wait_for(sub { kept($well) == 0 }), 'as long as the request, if somebody deletes that');
is(kept($failed), 1, 'others stay');
sql("UPDATE seam_instant_key_request SET finished_at = now() - interval '2 days' WHERE request_id = $failed");
set(retention => '12h');
ok(wait_for(sub { kept($failed) == 0 }), 'or its time has come');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE request_id = $failed"), 0, 'as that of its request');

$node->stop;
done_testing();
