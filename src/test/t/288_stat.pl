# seam_ik_stat: what is counted, by database and route; it is kept through a clean stop.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql answers error_of call live enqueue status wait_state quiet up);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(time);

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_stat'",
	"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '300ms'", "seam_ik.revoke_on_rollback = off",
	"seam_ik.max_retries = 1", 'restart_after_crash = on');
meet($node, $fake);

# Columns of a route, of this database.
sub stat_of
{
	my ($route, $columns) = @_;
	return sql("SELECT $columns FROM seam_ik_stat WHERE route = '$route' AND datname = current_database()");
}
sub becomes
{
	my ($route, $columns, $value, $how) = @_;
	my $got;
	return ok(wait_for(sub { ($got = stat_of($route, $columns)) eq $value }), $how) || diag "$got is not $value";
}
my $counts = 'requests, answers_2xx, answers_3xx, answers_4xx, answers_5xx, no_answer, retries, doubts';

# ---------- sessions ----------

my $guest = new_guest();
sql(call($guest));
is(sql('SELECT string_agg(route, \' \' ORDER BY route) FROM seam_ik_stat'), 'list outbox renewal revocation session',
	'a row for each route');
is(stat_of('session', $counts), '1|1|0|0|0|0|0|0', 'a call');
is(stat_of('session', 'sqlstates, connections_opened, connections_reused'), '{}|1|0', 'on a new connection');
is(stat_of('session', "bytes_sent BETWEEN 250 AND 1000 AND bytes_received BETWEEN 300 AND 2000"), 't', 'its bytes');
is(stat_of('outbox', "$counts, mean_ms, p50_ms, max_ms"), '0|0|0|0|0|0|0|0|||', 'no other route');
sql(call($guest) . '; ' . call($guest));
is(stat_of('session', 'requests, connections_opened, connections_reused'), '3|2|1', 'a connection is used again');
sql('SELECT seam_ik_stat_reset()');
is(stat_of('session', "$counts, sqlstates, stats_since > now() - interval '1 min'"), '0|0|0|0|0|0|0|0|{}|t', 'anew');

# each way to end
sub fails { my ($spec, $state) = @_; my $who = new_guest(); $fake->behave($who, $spec);
	like(error_of(call($who)), qr/^$state/, $spec); return; }
fails('status=400', '22023');
fails('status=400', '22023');
fails('redirect=http://127.0.0.1/', '08P01');
fails('status=500', '58000');
fails('status=429', '53400');
fails('reset_after', '08007');
is(stat_of('session', $counts), '7|0|1|4|1|1|1|2', 'are counted by status, tries again and doubts');
is(stat_of('session', 'sqlstates'), '{"08007": 1, "08P01": 1, "22023": 2, "53400": 1, "58000": 1}', 'and by SQLSTATE');
is(sql("SET seam_ik.endpoint = 'http://127.0.0.1:1'; SET seam_ik.max_retries = 0; DO \$\$ BEGIN PERFORM
	seam_list_instant_keys(); EXCEPTION WHEN OTHERS THEN NULL; END \$\$") . stat_of('session', 'no_answer'), 2,
	'no connection');
is(stat_of('session', 'connections_opened + connections_reused'), 7, 'is none that was made or used');

# times: 90 fast ones and 10 slow ones
sql('SELECT seam_ik_stat_reset()');
$fake->behave(my $slow = new_guest(), 'delay=400');
sql("SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 90)))");
sql("SELECT count(*) FROM seam_generate_instant_keys(ARRAY(SELECT '$slow'::uuid FROM generate_series(1, 10)))");
is(stat_of('session', 'requests'), 100, 'a hundred');
is(stat_of('session', 'p50_ms < 300 AND p95_ms BETWEEN 350 AND max_ms AND p99_ms BETWEEN p95_ms AND max_ms
	AND max_ms BETWEEN 400 AND 60000 AND mean_ms BETWEEN 40 AND max_ms AND abs(total_ms - 100 * mean_ms) < 1'), 't',
	'their times') or diag stat_of('session', 'p50_ms, p95_ms, p99_ms, max_ms, mean_ms, total_ms');

# ---------- the worker ----------

my $id = enqueue($guest = new_guest());
ok(wait_state('postgres', $id, 'issued -'), 'a request');
becomes('outbox', $counts, '1|1|0|0|0|0|0|0', 'is of the route outbox');
sql("SELECT seam_cancel_instant_key_request($id)");
becomes('revocation', $counts, '1|1|0|0|0|0|0|0', 'its revocation of another');
ok(quiet(), 'settled');
$fake->behave($guest = new_guest(), 'reset_after,route=generate_instant_key', 1);
ok(wait_state('postgres', enqueue($guest), 'issued -'), 'a lost answer whose key is found');
becomes('outbox', 'doubts, doubts_found, doubts_none, doubts_reported', '1|1|0|0', 'is counted');
becomes('list', $counts, '1|1|0|0|0|0|0|0', 'so is the list');
$fake->behave($guest = new_guest(), 'reset,route=generate_instant_key', 1);
ok(wait_state('postgres', enqueue($guest), 'issued -'), 'one that had none');
becomes('outbox', 'doubts, doubts_found, doubts_none, doubts_reported, retries', '2|1|1|0|1', 'is counted, too');
$fake->behave($guest = new_guest(), 'hold,reset_after,route=generate_instant_key', 1);
$id = enqueue($guest);
ok(wait_for(sub { status($id) eq 'in_flight' && live($guest) ne '' }), 'one that is under way');
$fake->ask('seed-keys', { user_identity_id => $guest, count => 1 });
$fake->release($guest);
ok(wait_state('postgres', $id, 'failed 08007'), 'and of which nobody can tell whose the keys are');
becomes('outbox', 'doubts, doubts_found, doubts_none, doubts_reported', '3|1|1|1', 'is counted as reported');

$fake->behave($guest = new_guest(), 'reset,route=generate_instant_key', 1);
$fake->behave($guest, 'status=404,route=list', 1);
ok(wait_state('postgres', enqueue($guest), 'issued -'), 'one whose identity Seam did not know');
becomes('outbox', 'doubts, doubts_found, doubts_none, doubts_reported', '4|1|2|1', 'had none either');

# each where its call is counted
$fake->behave($guest = new_guest(), 'reset_after,route=generate_instant_key', 1);
like(error_of('SET seam_ik.revoke_on_rollback = on; ' . call($guest)), qr/^08007/, 'a lost answer of a session');
becomes('session', 'doubts, doubts_found, doubts_none', '1|1|0', 'is counted there, whoever finds the key');
ok(quiet(), 'it is revoked');
$id = enqueue($guest = new_guest(), "valid_until => now() + interval '1 month'");
ok(wait_state('postgres', $id, 'issued -'), 'a stay');
$fake->behave($guest, 'reset_after,route=generate_instant_key', 1);
sql("UPDATE seam_instant_key_request SET instant_key.created_at = now() - interval '1 month', seam_time = NULL,
	instant_key.expires_at = now() + interval '1 h', wake_at = '-infinity' WHERE request_id = $id;
	SELECT seam_enqueue_instant_key(gen_random_uuid())");
becomes('renewal', "$counts, doubts_found", '1|0|0|0|0|1|0|1|1', 'its renewal is, too');
becomes('outbox', 'doubts, doubts_found, doubts_none, doubts_reported', '4|1|2|1', 'and not among the others');
sql("SELECT seam_cancel_instant_key_request($id)");
ok(quiet(), 'the stay ends');
# (a stay is forgotten at its end, for which a worker that starts asks what time it is)
sql('DELETE FROM seam_instant_key_request');

# ---------- databases ----------

sql('CREATE DATABASE other');
sql('other', 'CREATE EXTENSION seam_ik; ' . call(new_guest()));
is(sql("SELECT sum(requests) FROM seam_ik_stat WHERE datname = 'other'"), 1, 'another database has rows of its own');
sql('SELECT seam_ik_stat_reset()');
is(sql("SELECT sum(requests) FROM seam_ik_stat WHERE datname = 'other'"), 1, 'and its own beginning');
sql('DROP DATABASE other');
is(sql("SELECT count(*) FROM seam_ik_stat WHERE datname <> 'postgres'"), 0, 'and is gone with it');
sql('CREATE DATABASE other');
sql('other', 'CREATE EXTENSION seam_ik; ' . call(new_guest()));
is(sql("SELECT sum(requests) FROM seam_ik_stat WHERE datname = 'other'"), 1, 'its successor begins anew');

# ---------- stops ----------

sql(call($guest)) for 1 .. 3;
my $all = "$counts, sqlstates, total_ms, p50_ms, stats_since";
my $before = stat_of('session', $all);
like($before, qr/^3\|3\|/, 'three calls');
$node->restart;
meet($node, $fake);
is(stat_of('session', $all), $before, 'are kept through a restart');
$node->stop('fast');
ok(-e $node->data_dir . '/pg_stat/seam_ik.stat', 'in a file');
append_to_file($node->data_dir . '/pg_stat/seam_ik.stat', 'x');
$node->start;
is(stat_of('session', $all), $before, 'whose end does not matter');
ok(!-e $node->data_dir . '/pg_stat/seam_ik.stat', 'and which is gone then');
my $worker = up('postgres') or die;
kill 'KILL', $worker;
ok(up('postgres', $worker), 'a crash');
is(stat_of('session', 'requests'), '', 'loses them');
sql(call($guest));
$node->stop('fast');
open my $file, '>', $node->data_dir . '/pg_stat/seam_ik.stat' or die $!;
print $file 'something else';
close $file;
$node->start;
is(sql('SELECT count(*) FROM seam_ik_stat WHERE requests > 0'), 0, 'so does a file that is none of ours');

sql('CREATE ROLE watch IN ROLE pg_monitor; CREATE ROLE clerk');
sql(call($guest));
is(sql("SET ROLE watch; SELECT requests FROM seam_ik_stat WHERE route = 'session'"), 1, 'pg_monitor sees them');
like(error_of('SET ROLE watch; SELECT seam_ik_stat_reset()'), qr/^42501/, 'and does not reset them');
like(error_of('SET ROLE clerk; SELECT * FROM seam_ik_stat'), qr/^42501/, 'others do not');

$node->stop('immediate');
done_testing();
