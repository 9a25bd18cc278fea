# seam_ik_activity and pg_stat_activity: what goes on, and what it waits for.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql answers error_of enqueue busy status set up worker_of quiet);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.revoke_on_rollback = off");
meet($node, $fake);
api_key_file($node, 'seam_test_activity');
set(api_key_file => 'seam_api_key');
my $pid = up('postgres');
ok($pid, 'a worker');

# The view's row of a process, as these columns say it, becomes this.
sub shows
{
	my ($process, $columns, $becomes, $how) = @_;
	my $got;
	return ok(wait_for(sub { $got = ask($node, "SELECT $columns FROM seam_ik_activity WHERE pid = $process");
		$got =~ $becomes }), $how) || diag $got;
}
# The worker's state; and what pg_stat_activity shows of it.
sub state_is { my ($state, $how) = @_; return shows($pid, 'state', qr/^\Q$state\E$/, $how // $state); }
sub query_is
{
	my ($query) = @_;
	my $got;
	return ok(wait_for(sub { $got = ask($node, "SELECT state || ': ' || query FROM pg_stat_activity WHERE pid = $pid");
		$got eq $query }), "pg_stat_activity: $query") || diag $got;
}
sub waits_for
{
	my ($event) = @_;
	$event = 'Extension' if $node->pg_version < 17;
	return ok(answers('postgres', "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid", $event), "waits: $event");
}

# ---------- the worker ----------

state_is('idle');
query_is('idle: idle');
waits_for('SeamIkIdle');
is(sql("SELECT datname, what, total IS NULL, under_way, max_under_way, done, failed, state_until IS NULL,
	since < now() AND turned_at BETWEEN since AND clock_timestamp() FROM seam_ik_activity WHERE pid = $pid"),
	'postgres|worker|t|0|16|0|0|t|t', 'its row');
my ($guest) = busy('postgres');
state_is('waiting for Seam');
shows($pid, 'under_way', qr/^1$/, 'a call is under way');
query_is('active: waiting for Seam: 1 call');
waits_for('SeamApiCall');
busy('postgres');
query_is('active: waiting for Seam: 2 calls');
my $bad = new_guest();
$fake->behave($bad, 'status=400');
enqueue($_) for $bad, new_guest(), new_guest();
shows($pid, "done || ' ' || failed", qr/^3 1$/, 'what has ended, and what of that has failed');
sql(q{CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NEW; END $$;
	CREATE TRIGGER slow BEFORE UPDATE ON seam_instant_key_request FOR EACH ROW WHEN (NEW.status = 'issued')
	EXECUTE FUNCTION slow()});
enqueue(new_guest());
query_is('active: settling 1 answer');
sql('DROP TRIGGER slow ON seam_instant_key_request');
sql("SELECT seam_ik_pause('a walk')");
state_is('paused');
is(sql("SELECT paused_reason, paused_since < now() FROM seam_ik_activity WHERE pid = $pid"), 'a walk|t', 'why');
sql('SELECT seam_ik_resume()');
set(worker => 'off');
state_is('off');
set(worker => undef);
state_is('waiting for Seam', 'on');
unlink $node->data_dir . '/seam_api_key';
enqueue(new_guest());
state_is('no API key');
api_key_file($node, 'seam_test_activity_revoked');
sql('SELECT pg_reload_conf()');
state_is('API key not accepted');
is(sql("SELECT state_until > now() - interval '1 min' FROM seam_ik_activity WHERE pid = $pid"), 't', 'until a probe');
api_key_file($node, 'seam_test_activity');
sql('SELECT pg_reload_conf()');
state_is('waiting for Seam', 'accepted');
$fake->behave(my $limited = new_guest(), 'status=429,retry_after=600,route=generate_instant_key');
my $id = enqueue($limited);
state_is('rate limit');
is(sql("SELECT state_until > now() + interval '8 min' FROM seam_ik_activity WHERE pid = $pid"), 't', 'so long');
sql("SELECT seam_cancel_instant_key_request($id); SELECT pg_reload_conf()");
state_is('waiting for Seam', 'a reload ends that');
$fake->behave(my $away = new_guest(), 'status=503,retry_after=600,route=generate_instant_key');
$id = enqueue($away);
state_is('Seam is away');
is(sql("SELECT state_until > now() + interval '8 min' FROM seam_ik_activity WHERE pid = $pid"), 't', 'likewise');
sql("SELECT seam_cancel_instant_key_request($id); SELECT pg_reload_conf()");
state_is('waiting for Seam', 'a reload ends that, too');

# ---------- sessions ----------

my $who = new_guest();
$fake->behave($who, 'hold');
my $call = background($node, "SELECT seam_generate_instant_key('$who');");
shows($call->{pid}, "what || ' ' || total || ' ' || done || ' ' || coalesce(state, '-') || ' ' || (since <= now())",
	qr/^call 1 0 - true$/, 'a call');
$fake->release($who);
result_of($call);
is(sql("SELECT count(*) FROM seam_ik_activity WHERE what IN ('call', 'batch')"), 0, 'until it ends');
my $batch = background($node, "SELECT count(*) FROM seam_generate_instant_keys(" .
	"ARRAY['$bad', gen_random_uuid()::text, '$who', '$bad']::uuid[]);");
shows($batch->{pid}, "what || ' ' || done || ' ' || failed || ' ' || total", qr/^batch 3 2 4$/, 'a batch');
sql("SELECT pg_cancel_backend($batch->{pid})");
result_of($batch);
is(sql("SELECT count(*) FROM seam_ik_activity WHERE what IN ('call', 'batch')"), 0, 'until it is cancelled');
$call = background($node, "SELECT seam_generate_instant_key('$who');");
shows($call->{pid}, 'what', qr/^call$/, 'a session');
sql("SELECT pg_terminate_backend($call->{pid})");
result_of($call);
ok(answers('postgres', "SELECT count(*) FROM seam_ik_activity WHERE what IN ('call', 'batch')", 0),
	'until it is ended');
# ... also where the session goes on
my $mine = 'SELECT count(*) FROM seam_ik_activity WHERE pid = pg_backend_pid()';
is(sql("SELECT (seam_generate_instant_key('" . new_guest() . "')).instant_key_id IS NOT NULL; $mine"), "t\n0",
	'a call that has ended');
is(sql("DO \$\$ BEGIN PERFORM seam_generate_instant_key('$bad'); EXCEPTION WHEN OTHERS THEN NULL; END \$\$; $mine"), 0,
	'one that has failed');
is(sql("DO \$\$ BEGIN SET LOCAL seam_ik.request_timeout = '200ms';
	PERFORM seam_generate_instant_keys(ARRAY['$who']::uuid[]); END \$\$; $mine"), 0, 'a batch');
is((($node->psql('postgres', "SET statement_timeout = '200ms'; SELECT seam_generate_instant_key('$who');
	RESET statement_timeout; $mine", on_error_stop => 0))[1]), 0, 'one that was cancelled');

# ---------- the writer ----------

sql("CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid, CHECK (id < 3 OR key_id IS NULL));
	CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
	INSERT INTO booking SELECT n, gen_random_uuid() FROM generate_series(1, 3) n");
shows("(SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik writer')",
	"what || ' ' || done || ' ' || failed || ' ' || (total IS NULL AND state IS NULL)", qr/^writer 3 1 true$/,
	'what it has written, and what could not be');

# ---------- who may see it ----------

sql('CREATE ROLE watch IN ROLE pg_monitor; CREATE ROLE clerk');
is(sql("SET ROLE watch; SELECT what FROM seam_ik_activity WHERE what = 'worker'"), 'worker', 'pg_monitor sees it');
like(error_of('SET ROLE clerk; SELECT * FROM seam_ik_activity'), qr/^42501/, 'others do not');
my $old = $pid;
sql("SELECT pg_terminate_backend($old)");
$pid = up('postgres', $old);
is(sql("SELECT string_agg(pid::text, ',') FROM seam_ik_activity WHERE what = 'worker'"), $pid,
	'a worker that has ended is not shown');

$node->stop('immediate');
done_testing();
