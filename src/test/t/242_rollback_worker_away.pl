# Synchronous calls while the worker is slow, busy, away or crashed: their keys
# follow their transactions all the same.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql call say_to printed open_call intents_of keys_of live wait_sent lists_of quiet
	worker_of up);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s',
		'seam_ik.max_retries = 0',
	'restart_after_crash = on', 'autovacuum = off', 'wal_level = replica', 'max_wal_senders = 1',
	'max_prepared_transactions = 1');
api_key_file($node, 'seam_test_trouble');

meet($node, $fake);
sub batch { return "SELECT count(*) FROM seam_generate_instant_keys(ARRAY['" . join("','", @_) . "']::uuid[])"; }
# Is it so before all transactions are looked at again, which is every 10 seconds?
sub soon { my ($what) = @_; my $begin = time; wait_for($what); return time - $begin < 9; }
# A psql in the other database.
sub in_neighbour
{
	return IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('neighbour'), map { ('-c', $_) } @_ ], '<', \undef,
		'>', \my $out, '2>', \my $err, IPC::Run::timeout(HANGS));
}
# So many sessions (one) are at a statement with this in it.
sub busy_with
{
	my ($what, $n) = @_;
	return wait_for(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%$what%' " .
		"AND pid <> pg_backend_pid()") == ($n // 1) });
}
# Time for the worker to look, and to find that somebody has locked what it is about.
sub looked { return sql('SELECT pg_sleep(0.5)'); }
sub worker_waits_for
{
	my ($what) = @_;
	return wait_for(sub { sql("SELECT '$what' IN (wait_event, wait_event_type) FROM pg_stat_activity " .
		"WHERE backend_type = 'seam_ik worker' AND datname = 'postgres'") eq 't' });
}
my $at = 'route=generate_instant_key';

sql('CREATE TABLE kept (key_id uuid)');
sql('CREATE DATABASE neighbour');
$node->safe_psql('neighbour', 'CREATE EXTENSION seam_ik');
foreach my $db ('postgres', 'neighbour')
{
	ok(wait_for(sub { worker_of($db) ne '' }), "$db has a worker");
}

# A batch that takes longer than a call may take; its last answer is lost.
my @long = map { new_guest } 1 .. 9;
$fake->behave($_, "$at,delay=900", 1) foreach @long[0 .. 7];
$fake->behave($long[8], "$at,reset_after", 1);
my $long = in_neighbour("SET seam_ik.request_timeout = '3s'", 'SET seam_ik.max_concurrency = 1', 'BEGIN',
	batch(@long), 'ROLLBACK');

# A key that was committed, and a doubt that lasts for longer than such a key is known anyway.
my ($doubted, $forgotten) = (new_guest, new_guest);
$fake->behave($doubted, 'route=list,status=400');
$fake->behave($doubted, "$at,reset", 1);
$node->safe_psql('neighbour', "SELECT seam_enqueue_instant_key('$doubted')");
wait_for(sub { lists_of($doubted) > 0 });
my $not_doubted = $node->safe_psql('neighbour', call($doubted));
# ... likewise while Seam is to be asked once more whether a key has appeared late
my $looked = new_guest;
$fake->behave($looked, "$at,reset", 1);
$node->safe_psql('neighbour', "SELECT seam_enqueue_instant_key('$looked')");
ok(wait_for(sub { $node->safe_psql('neighbour', "SELECT status FROM seam_instant_key_request " .
	"WHERE user_identity_id = '$looked'") eq 'issued' }), 'a lost answer without a key is settled');
$node->safe_psql('neighbour', call($looked));
$node->safe_psql('neighbour', call($forgotten));
# the requests of calls there
sub known
{
	return $node->safe_psql('neighbour', "SELECT count(*) FROM seam_instant_key_request " .
		"WHERE user_identity_id = '$_[0]' AND call_id IS NOT NULL");
}

# Another database counts its calls by itself.
my ($ours, $theirs) = (new_guest, new_guest);
my $s = open_call($ours);
$node->safe_psql('neighbour', call($theirs));
say_to($s, 'ROLLBACK;');
result_of($s);
wait_for(sub { live($ours) eq '' });
is(live($ours), '', "a call of a neighbour's meanwhile: the key is revoked");
is(lists_of($ours), 0, "and needs no list of Seam's");
isnt(live($theirs), '', "the neighbour's lives");

# The worker does nothing for a while: a call waits for it, and can be cancelled.
my ($cancelled, $other) = (new_guest, new_guest);
my $worker;
sub hold_worker { $worker = worker_of('postgres'); kill 'STOP', $worker; return; }
hold_worker();
$s = background($node, call($cancelled) . ';');
busy_with($cancelled);
is($node->safe_psql('neighbour', call(new_guest) . ' IS NOT NULL'), 't', 'a call of another database does not wait');
sql("SELECT pg_cancel_backend($s->{pid})");
like((result_of($s))[0], qr/ERROR:  57014: /, 'a call that waits for the worker is cancelled');
kill 'CONT', $worker;
sql(call($other));
sql(call($other));
is(scalar(keys_of($cancelled)), 0, 'nothing is sent');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$cancelled'"), '0',
	'and there is nothing to revoke');
is(scalar(split /,/, live($other)), 2, 'others go on');
# ... and another call that is not recorded does not hide that a transaction has ended
my $hidden = new_guest;
$s = open_call($hidden);
hold_worker();
say_to($s, 'ROLLBACK; SET seam_ik.connect_timeout = 200; ' . call($cancelled) . ';');
ok(wait_for(sub { $s->{run}->pump_nb; $s->{err} =~ /ERROR:  55000: / }),
	'a call that the worker does not record, after a rollback');
kill 'CONT', $worker;
ok(wait_for(sub { live($hidden) eq '' }), 'which revokes its key');
result_of($s);
is(lists_of($hidden), 0, "without a list of Seam's");
is(scalar(keys_of($cancelled)), 0, 'and nothing is sent');
# ... also a neighbour's worker is not replaced by ours
my $waiting = new_guest;
$worker = worker_of('neighbour');
kill 'STOP', $worker;
my $run = in_neighbour(call($waiting));
busy_with($waiting);
sql(call(new_guest));
is(scalar(keys_of($waiting)), 0, 'each database has its own worker');
kill 'CONT', $worker;
$run->finish;
isnt(live($waiting), '', 'which goes on');

# Parts of a transaction roll back while the worker is busy: it sees all of them, at once.
my @nested = map { new_guest } 0 .. 3;
$s = background($node, 'BEGIN; ' . call($nested[0]) . '; SAVEPOINT a; ' . call($nested[1]) . '; SAVEPOINT b; ' .
	call($nested[2]) . "; SELECT 'called';");
printed($s, 'called');
hold_worker();
say_to($s, "ROLLBACK TO b; ROLLBACK TO a; SAVEPOINT c; INSERT INTO kept VALUES (NULL); ROLLBACK TO c; " .
	"SELECT 'rolled back';");
printed($s, 'rolled back');
kill 'CONT', $worker;
ok(soon(sub { live($nested[1]) . live($nested[2]) eq '' }), 'savepoints that roll back one after the other');
isnt(live($nested[0]), '', 'the transaction that they are of keeps its key');
# ... also when it cannot judge the first
say_to($s, call($nested[3]) . "; SELECT 'again';");
printed($s, 'again');
my $lock = background(
	$node, "BEGIN; SELECT 'locked' FROM seam_instant_key_call WHERE user_identity_ids[1] = '$nested[3]' FOR UPDATE;");
printed($lock, 'locked');
say_to($s, 'ROLLBACK TO a;');
looked();
say_to($s, "SAVEPOINT d; INSERT INTO kept VALUES (NULL); ROLLBACK TO d; SELECT 'two';");
printed($s, 'two');
sql(call(new_guest));
say_to($lock, 'COMMIT;');
result_of($lock);
ok(soon(sub { live($nested[3]) eq '' }), 'the first of two savepoints cannot be judged at once');
result_of($s);
is(join(' ', map { lists_of($_) } @nested), '0 0 0 0', "without a list of Seam's");
# ... and when the rest follows
my $rest = new_guest;
quiet();
$s = open_call($rest);
hold_worker();
say_to($s, "SAVEPOINT a; INSERT INTO kept VALUES (NULL); ROLLBACK TO a; ROLLBACK; SELECT 'over';");
printed($s, 'over');
kill 'CONT', $worker;
ok(soon(sub { live($rest) eq '' }), 'a savepoint, and then all of its transaction');
result_of($s);
is(lists_of($rest), 0, "without a list of Seam's");

# The worker is slow to commit: who has given up meanwhile is not in the way.
$s = background($node, "INSERT INTO kept VALUES (NULL) \\watch 0.05");
sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
$node->reload;
ok(wait_for(sub { sql("SELECT wait_event FROM pg_stat_activity WHERE pid = $s->{pid}") eq 'SyncRep' }), 'commits wait');
my ($given_up, $next) = (new_guest, new_guest);
my $s2 = background($node, "SET synchronous_commit = local; SET seam_ik.connect_timeout = 200; " . call($given_up) . ";
SET seam_ik.connect_timeout = '30s'; INSERT INTO kept " . call($next) . ';');
busy_with($next);
worker_waits_for('SyncRep');
is(scalar(keys_of($_)), 0, 'nothing is sent before it is recorded') foreach $given_up, $next;
sql('ALTER SYSTEM RESET synchronous_standby_names');
$node->reload;
sql("SELECT pg_terminate_backend($s->{pid})");
result_of($s);
like((result_of($s2))[0], qr/ERROR:  55000: /, 'a call that is not recorded in time fails');
ok(quiet(), 'and the next one of its session');
is(live($next), sql('SELECT key_id FROM kept WHERE key_id IS NOT NULL'), 'has its key');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$given_up'"), '0',
	'the one that failed has left nothing to revoke');

# The worker waits for a lock of somebody's: what comes meanwhile is not lost.
my ($first, $second) = (new_guest, new_guest);
$s = open_call($first);
$fake->behave($second, "$at,delay=500", 1);
$s2 = background($node, "SET seam_ik.request_timeout = '10s'; BEGIN; " . call($second) . '; ROLLBACK;');
wait_sent($second);
$lock = background(
	$node, "BEGIN; SELECT 'locked' FROM seam_instant_key_call WHERE user_identity_ids[1] = '$first' FOR UPDATE;");
printed($lock, 'locked');
say_to($s, 'ROLLBACK;');
looked();
result_of($s2);
say_to($lock, 'COMMIT;');
result_of($_) foreach $lock, $s;
ok(quiet(), 'a call that ends while the worker waits for a lock');
is(live($_), '', 'its key is revoked') foreach $first, $second;
is(lists_of($_), 0, "and needs no list of Seam's") foreach $first, $second;
# ... and what it cannot decide does not hold up others
my $earlier;
($earlier, $first, $second) = map { new_guest } 1 .. 3;
$s = open_call($earlier);
say_to($s, call($first) . "; SELECT 'again';");
printed($s, 'again');
$lock = background(
	$node, "BEGIN; SELECT 'locked' FROM seam_instant_key_call WHERE user_identity_ids[1] = '$first' FOR UPDATE;");
printed($lock, 'locked');
# (both are there when it looks)
$worker = worker_of('postgres');
kill 'STOP', $worker;
say_to($s, 'ROLLBACK;');
$s2 = background($node, "SET seam_ik.connect_timeout = '30s'; BEGIN; " . call($second) . "; SELECT 'called';");
busy_with($second);
result_of($s);
kill 'CONT', $worker;
ok(printed($s2, 'called'), 'a call that waited has its key');
ok(soon(sub { live($earlier) eq '' }), 'what was rolled back is revoked');
isnt(live($first), '', 'but what is locked');
say_to($lock, 'COMMIT;');
result_of($lock);
ok(soon(sub { live($first) eq '' }), 'until the lock is gone');
say_to($s2, 'ROLLBACK;');
result_of($s2);
ok(quiet(), 'whose call is recorded once');
is(live($second), '', 'the key goes when he rolls back');
is(lists_of($second), 0, "without a list of Seam's");
# ... also if a call is recorded meanwhile
($first, $second) = (new_guest, new_guest);
$s = open_call($first);
$lock = background(
	$node, "BEGIN; SELECT 'locked' FROM seam_instant_key_call WHERE user_identity_ids[1] = '$first' FOR UPDATE;");
printed($lock, 'locked');
say_to($s, 'ROLLBACK;');
looked();
say_to($lock, 'COMMIT;');
$s2 = open_call($second);
ok(wait_for(sub { live($first) eq '' }), 'what was rolled back is revoked');
result_of($_) foreach $lock, $s;
say_to($s2, 'ROLLBACK;');
result_of($s2);
quiet();
# ... nor do others' answers wait
($first, $second) = (new_guest, new_guest);
$s = open_call($first);
$lock = background(
	$node, "BEGIN; SELECT 'locked' FROM seam_instant_key_call WHERE user_identity_ids[1] = '$first' FOR UPDATE;");
printed($lock, 'locked');
say_to($s, 'COMMIT;');
sql(call($second));
ok(wait_for(sub { intents_of($second) eq '0' }), 'what has committed leaves the journal while another call is locked');
is(intents_of($first), '1', 'which stays');
say_to($lock, 'COMMIT;');
ok(wait_for(sub { intents_of($first) eq '0' }), 'until the lock is gone');
result_of($_) foreach $lock, $s;
# ... and an answer is not lost by the next call of its session
my @calls = map { new_guest } 1 .. 6;
my $again = new_guest;
my @sessions = map { background($node, '') } 0 .. 6;
$lock = background($node, '');
# one of them, with a place somewhere between the others', makes the worker wait
my $between = splice @sessions, 2, 1;
$fake->behave($_, "$at,hold", 1) foreach @calls;
say_to($sessions[$_], "SET seam_ik.request_timeout = '10s'; BEGIN; " . call($calls[$_]) . '; ' . call($again) .
	'; ROLLBACK;') foreach 0 .. $#calls;
wait_sent($_) foreach @calls;
say_to($lock, "BEGIN; LOCK TABLE seam_instant_key_call IN SHARE MODE; SELECT 'locked';");
printed($lock, 'locked');
say_to($between, call(new_guest) . ';');
$fake->release;
busy_with($again, scalar @calls);
kill 'HUP', worker_of('postgres');
say_to($lock, 'COMMIT;');
result_of($_) foreach @sessions, $between, $lock;
ok(quiet(), 'two calls of a session');
is(join('', map { live($_) } @calls, $again), '', 'both keys are revoked');
is(join(' ', map { lists_of($_) } @calls, $again), '0 0 0 0 0 0 0', "without a list of Seam's");

# The long batch.
$long->finish;
ok(wait_for(sub { join('', map { live($_) } @long) eq '' }), 'a long batch leaves no key');
cmp_ok(lists_of($long[8]), '>', 0, 'what was lost is looked for');
is(lists_of($long[0]), 0, 'and nothing else');

# Whose a key is is known as long as its request is there, whatever becomes of the journal.
ok(wait_for(sub { $node->safe_psql('neighbour', 'SELECT count(*) FROM seam_instant_key_call') eq '0' }),
	'the journal forgets calls that have committed');
is(known($_), '1', 'the outbox does not') foreach $forgotten, $doubted, $looked;
$node->safe_psql('neighbour',
	"UPDATE seam_instant_key_request SET look_again_at = now() WHERE look_again_at IS NOT NULL");
kill 'HUP', worker_of('neighbour');
ok(wait_for(sub { $node->safe_psql('neighbour', "SELECT count(*) FROM seam_instant_key_request " .
	"WHERE user_identity_id = '$looked' AND look_again_at IS NOT NULL") eq '0' }), 'late keys are looked for');
is($node->safe_psql('neighbour', "SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$looked'"),
	'2', 'and nobody is told of keys that are owned');
is(scalar(split /,/, live($looked)), 2, 'which are two');
$fake->behave($doubted, '');

# The worker is away.
my ($before, $meanwhile, $told, $wished) = map { new_guest } 1 .. 4;
my @batch = (new_guest, new_guest);
$s = open_call($before);
$s2 = open_call($meanwhile);
$fake->behave($batch[1], "$at,hold", 1);
my $s3 = background($node, "SET seam_ik.request_timeout = '60s'; BEGIN; " . batch(@batch) . '; ROLLBACK;');
wait_sent($batch[1]);
my $launcher = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik launcher'");
kill 'STOP', $launcher;
sql("SELECT pg_terminate_backend(" . worker_of('postgres') . ', 5000)');
is(worker_of('postgres'), '', 'the worker is away');
say_to($s2, 'ROLLBACK;');
result_of($s2);
my $s4 = background($node, "SET seam_ik.connect_timeout = '30s'; INSERT INTO kept " . call($wished) . ';');
busy_with($wished);
kill 'CONT', $launcher;
result_of($s4);
is(sql("SELECT count(*) FROM kept WHERE key_id = '" . live($wished) . "'"), '1', 'a call waits for its successor');
ok(wait_for(sub { live($meanwhile) eq '' }), 'what was rolled back meanwhile is revoked');
isnt(live($before), '', 'a transaction that is open keeps its key');
$fake->release;
say_to($s, 'ROLLBACK;');
result_of($_) foreach $s, $s3;
ok(quiet(), 'and what ends later');
is(live($_), '', 'is revoked') foreach $before, @batch;
is(lists_of($_), 0, "without a list of Seam's") foreach $before, $meanwhile, @batch;

# What ends while the worker is away is not lost: not to the next worker ...
my ($ended, $lost) = (new_guest, new_guest);
$fake->behave($_, "$at,hold", 1) foreach $ended, $lost;
$fake->behave($lost, "$at,hang_after", 1);
$s = background($node, "SET seam_ik.request_timeout = '60s'; BEGIN; " . call($ended) . "; SELECT 'called';");
$s2 = background($node, "SET seam_ik.request_timeout = '60s'; INSERT INTO kept " . call($lost) . ';');
wait_sent($_) foreach $ended, $lost;
sql("SELECT seam_enqueue_instant_key('$lost')");
wait_for(sub { keys_of($lost) == 2 });
kill 'STOP', $launcher;
sql("SELECT pg_terminate_backend(" . worker_of('postgres') . ', 5000)');
is(worker_of('postgres'), '', 'the worker is away');
$fake->release;
printed($s, 'called');
result_of($s2);
kill 'CONT', $launcher;
up();
sql(call(new_guest));
say_to($s, 'ROLLBACK;');
result_of($s);
ok(quiet(), 'calls that end without a worker');
is(live($ended), '', 'the key of the one that was rolled back is revoked');
is(lists_of($ended), 0, "without a list of Seam's");
is(scalar(keys_of($lost)), 2, 'and the key of the one that committed is not that of a lost answer');
is(live($lost), join(',', sort map { $_->{instant_key_id} } keys_of($lost)), 'which is found');

# ... nor what its successor is told of two calls of a transaction at once, or of a savepoint of before.
my @single = map { new_guest } 1 .. 2;
my @batches = map { [ map { new_guest } 1 .. 3 ] } 1 .. 2;
my $saved = new_guest;
$fake->behave($_, "$at,hold", 1) foreach $single[0], $batches[0][0];
$s3 = background($node, 'BEGIN; SAVEPOINT a; ' . call($saved) . "; SELECT 'called';");
ok(printed($s3, 'called'), 'a call in a savepoint');
my $patient = "SET seam_ik.request_timeout = '60s'; SET seam_ik.connect_timeout = '60s'; BEGIN; ";
$s = background($node, $patient . call($single[0]) . ";\n" . call($single[1]) . ";\nROLLBACK;");
$s2 = background($node, $patient . batch(@{ $batches[0] }) . ";\n" . batch(@{ $batches[1] }) . ";\nROLLBACK;");
wait_sent($_) foreach $single[0], $batches[0][0];
kill 'STOP', $launcher;
sql("SELECT pg_terminate_backend(" . worker_of('postgres') . ', 5000)');
is(worker_of('postgres'), '', 'the worker is away');
$fake->release;
busy_with($_) foreach $single[1], $batches[1][0];
kill 'CONT', $launcher;
up();
say_to($s3, 'ROLLBACK;');
result_of($s3);
ok(soon(sub { live($saved) eq '' }), 'a savepoint of before, and its transaction rolls back');
result_of($_) foreach $s, $s2;
ok(wait_for(sub { join('', map { live($_) } @single, map { @$_ } @batches) eq '' }),
	'calls that end without a worker, and others that wait for it: all keys are revoked');
is(scalar(map { keys_of($_) } @single, map { @$_ } @batches), 8, 'which were there');
is(join(' ', map { lists_of($_) } @single), '0 0', "without a list of Seam's where there was one at a time");

# ... and not to a worker of another database, where a session takes the place of one that has ended.
my ($stays, $goes) = (new_guest, new_guest);
$s = open_call($stays);
$s2 = background($node, '\\c neighbour' . "\nBEGIN; " . call($goes) . "; SELECT 'called';");
printed($s2, 'called');
$node->safe_psql('neighbour', call(new_guest));
$worker = worker_of('postgres');
kill 'STOP', $worker;
say_to($s, 'COMMIT;');
result_of($s);
$node->safe_psql('neighbour', call(new_guest)) foreach 1 .. 12;
say_to($s2, 'ROLLBACK;');
result_of($s2);
ok(wait_for(sub { live($goes) eq '' }), 'a session of another database in the place of one that has ended');
kill 'CONT', $worker;
sql(call(new_guest));
ok(quiet(), 'each worker');
isnt(live($stays), '', 'judges the calls of its own database');
is(lists_of($stays), 0, 'and knows what came of them');

# The doubt that lasted is settled, and the key is known.
ok(wait_for(sub { $node->safe_psql('neighbour', "SELECT status FROM seam_instant_key_request " .
	"WHERE user_identity_id = '$doubted' AND call_id IS NULL") eq 'issued' }), 'a doubt that has lasted is settled');
is(live($doubted), join(',', sort $not_doubted, $node->safe_psql('neighbour', "SELECT (instant_key).instant_key_id " .
	"FROM seam_instant_key_request WHERE user_identity_id = '$doubted' AND call_id IS NULL")), 'each has its own key');

# Calls that were not recorded in time have left nothing that another worker finds.
is(join(' ', map { lists_of($_) } $cancelled, $given_up), '0 0', 'a wish that was withdrawn is no call');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id IN ('$cancelled', '$given_up')"), '0',
	'and has nothing to revoke');

# Housekeeping does not forget a call whose transaction is open.
my $kept_open = new_guest;
$s = open_call($kept_open);
sql(call(new_guest));
kill 'HUP', worker_of('postgres');
sql('SELECT seam_enqueue_instant_key(gen_random_uuid())');
wait_for(sub { sql('SELECT count(*) FROM seam_instant_key_request WHERE next_attempt_at IS NOT NULL') eq '0' });
say_to($s, 'ROLLBACK;');
result_of($s);
ok(quiet(), 'a rollback after the worker has tidied up');
is(live($kept_open), '', 'revokes its key');

# What cannot be judged, or is not ours to revoke, is reported.
my $aborted = sql('BEGIN; SELECT pg_current_xact_id(); ROLLBACK');
my @reported = map { [ @$_, new_guest ] } (
	[ 3, 1, 1, 'too old' ], [ 999999999999, 1, 1, 'too old' ],
	[ $aborted, 0, 1, 'copy' ], [ $aborted, 1, 0, 'promotion or restore' ]);
my $model = new_guest;
$s = open_call($model);
foreach my $case (@reported)
{
	my ($xid, $is_ours, $timeline, $why, $guest) = @$case;
	$fake->ask('seed-keys', { user_identity_id => $guest, count => 1 });
	sql("INSERT INTO seam_instant_key_call (call_id, transaction_id, top_transaction_id, user_identity_ids,
		requested_at, attempt_timeout, system_identifier, origin, data_directory_id, timeline_id)
		SELECT gen_random_uuid(), '$xid', '$xid', ARRAY['$guest'::uuid], now(), 1000, system_identifier, origin,
			CASE $is_ours WHEN 1 THEN data_directory_id ELSE 1 END, $timeline
		FROM seam_instant_key_call WHERE user_identity_ids[1] = '$model'");
}
sql("SELECT pg_terminate_backend(" . worker_of('postgres') . ', 5000)');
result_of($s);
ok(quiet(), 'transactions that cannot be judged, or are not ours');
foreach my $case (@reported)
{
	my ($xid, $is_ours, $timeline, $why, $guest) = @$case;
	like(sql("SELECT status || ' ' || sqlstate || ' ' || last_error FROM seam_instant_key_orphan " .
		"WHERE user_identity_id = '$guest'"), qr/^failed 08007 .*$why/, "$why: reported");
	isnt(live($guest), '', 'and the key lives');
}
ok(slurp_file($node->logfile) =~ /WARNING:  instant keys of 4 synchronous calls may be alive without a row/,
	'the log says so');

# A crash that loses all that no commit has flushed.
sub crash
{
	my ($walwriter) = @_;
	kill 'KILL', $walwriter;
	wait_for(sub { ask($node, 'SELECT 1') eq '' || worker_of('postgres') ne $worker });
	return up();
}
sql('ALTER SYSTEM SET synchronous_commit = off');
$node->reload;
wait_for(sub { sql('SHOW synchronous_commit') eq 'off' });
sql('SELECT seam_enqueue_instant_key(gen_random_uuid())');
quiet();
my ($selected, $inserted, $untold) = map { new_guest } 1 .. 3;
foreach my $case ([ $selected, call($selected) . ', pg_current_xact_id()' ],
	[ $inserted, 'INSERT INTO kept ' . call($inserted) . ' RETURNING key_id, pg_current_xact_id()' ])
{
	my ($guest, $sql) = @$case;
	my $walwriter = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");

	$worker = worker_of('postgres');
	kill 'STOP', $walwriter;
	my ($key, $xid) = split /\|/, sql($sql);
	crash($walwriter);
	ok(quiet(), 'a key that a client was told of, and a crash at once');
	is(live($guest), $key, 'the key lives');
	is(sql("SELECT pg_xact_status('$xid')"), 'committed', 'and its transaction has committed');
}
my $walwriter = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
$worker = worker_of('postgres');
kill 'STOP', $walwriter;
$s = open_call($untold);
crash($walwriter);
result_of($s);
ok(quiet(), 'a crash while the transaction is open');
is(live($untold), '', 'its key is revoked');

# A worker that cannot read yet what calls its predecessor had recorded: it knows of no
# key whose it is.
my $shared = new_guest;
sql("ALTER SYSTEM SET seam_ik.request_timeout = '3s'");
$node->reload;
wait_for(sub { sql('SHOW seam_ik.request_timeout') eq '3s' });
my $mine = sql(call($shared));
$fake->behave($shared, "$at,hang", 1);
sql("SELECT seam_enqueue_instant_key('$shared')");
wait_for(sub { sql("SELECT status FROM seam_instant_key_request WHERE user_identity_id = '$shared' " .
	'AND call_id IS NULL') eq 'in_flight' });
sql('BEGIN; LOCK TABLE seam_instant_key_call; PREPARE TRANSACTION $$reads no calls$$');
$node->stop('immediate');
my $end = -s $node->logfile;
$node->start;
my $cannot = qr/the outbox of database "postgres" could not [^:]*: canceling statement due to lock timeout/;
ok(wait_for(sub { slurp_file($node->logfile, $end) =~ $cannot }), 'calls cannot be read after a crash');
sql('SELECT pg_sleep(6)');
is(lists_of($shared), 0, 'no list is asked for until they are');
sql('ROLLBACK PREPARED $$reads no calls$$');
ok(quiet(), 'a request of a guest who has a key by a call that committed');
like(sql("SELECT status || ' ' || attempts || ' ' || ((instant_key).instant_key_id <> '$mine')
	FROM seam_instant_key_request WHERE user_identity_id = '$shared' AND call_id IS NULL"), qr/^issued 2 true$/,
	'gets its own');
is(scalar(split /,/, live($shared)), 2, 'both live');

$node->stop;
done_testing();
