# Keys of synchronous calls when something fails in between: what has committed lives,
# and of what has not nothing is left, or it is reported.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql answers call keys_of live asked quiet worker_of up printed
	open_call intents_of);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep);

my ($fake, $elsewhere) = (FakeSeam->start, FakeSeam->start);
my ($preload, $set_clock) = movable_clock();
my $node;
{
	local $ENV{LD_PRELOAD} = $preload;
	$node = seam_cluster(
		"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
		"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s',
			'seam_ik.max_retries = 0',
		'restart_after_crash = on', 'max_connections = 25', 'max_worker_processes = 20');
}
api_key_file($node, 'seam_test_faults');

meet($node, $fake);
my $at = 'route=generate_instant_key';
sub try
{
	my ($db, $sql, @params) = @_;
	my ($rc, $out, $err) = $node->psql($db, $sql, on_error_stop => 0,
		extra_params => [ '-v', 'VERBOSITY=verbose', @params ]);
	return "$out$err";
}
sub reported
{
	my ($db, $guest) = @_;
	return sql(
		$db, "SELECT status || ': ' || last_error FROM seam_instant_key_orphan WHERE user_identity_id = '$guest'");
}
sub logged { my ($what) = @_; return wait_for(sub { slurp_file($node->logfile) =~ $what }); }

foreach my $db (qw(one two again forced slow changed))
{
	sql('postgres', "CREATE DATABASE $db");
	sql($db, 'CREATE EXTENSION seam_ik');
	up($db);
}

# ---------- batches that take longer than the window of a call ----------

# They run while other things are tried.
my ($long, $done, $part, $last) = map { new_guest } 1 .. 4;
$fake->behave($_, "$at,delay=400") foreach $long, $done, $part;
$fake->behave($last, "$at,delay=400,reset_after", 1);
sub batch { return "SELECT count(*) FROM seam_generate_instant_keys($_[0]);" }
my $long_s = background($node, "SET seam_ik.request_timeout = '3s'; SET seam_ik.max_concurrency = 1; " .
	batch("array_fill('$long'::uuid, ARRAY[2000])"), 'slow');
my $done_s = background($node, "SET seam_ik.request_timeout = '3s'; SET seam_ik.max_concurrency = 1; BEGIN; " .
	batch("array_fill('$done'::uuid, ARRAY[24])"), 'slow');
my $part_s = background($node, "SET seam_ik.request_timeout = '3s'; SET seam_ik.max_concurrency = 1; BEGIN; " .
	batch("array_fill('$part'::uuid, ARRAY[23]) || '$last'::uuid"), 'changed');

# ---------- a lost answer soon after a call that has committed ----------

my ($same, $outbox) = (new_guest, new_guest);
my $mine = sql('postgres', call($same));
my $sync = sql('postgres', call($outbox));
sleep 2.5;						# longer than between two looks at what has committed
$fake->behave($_, "$at,reset", 1) foreach $same, $outbox;
like(try('postgres', call($same)), qr/08007/, 'a call is lost soon after one that committed, for the same identity');
sql('postgres', "SELECT seam_enqueue_instant_key('$outbox')");
ok(quiet('postgres'), 'that is settled');
is(live($same), $mine, 'the key that was committed lives');
is(sql('postgres', "SELECT count(*) FROM seam_instant_key_orphan"), '0', 'and nothing is reported');
my $request = sql('postgres', "SELECT (instant_key).instant_key_id FROM seam_instant_key_request " .
	"WHERE user_identity_id = '$outbox' AND status = 'issued' AND call_id IS NULL");
like($request, qr/^[0-9a-f-]{36}$/, 'a request of the outbox that is lost soon after a call gets a key');
isnt($request, $sync, 'which is not that of the call');
is(live($outbox), join(',', sort $request, $sync), 'and both live');

# ---------- answers for another worker ----------

# Two databases: the second has an open call.
my ($told, $rolled_back, $next) = (new_guest, new_guest, new_guest);
my $s = open_call('two', $rolled_back);
my $worker = worker_of('one');
$fake->behave($told, "$at,hold", 1);
my $s1 = background($node, 'SET seam_ik.request_timeout = 20000; ' . call($told) . ';', 'one');
wait_for(sub { asked($told) > 0 });
kill 'STOP', $worker;			# its answer is not taken now
$fake->release($told);
my ($told_key) = result_of($s1);
wait_for(sub { !kill 0, $s1->{pid} });
# whoever comes next gets the same place, or from 16 on whoever comes last
sql('two', call($next)) foreach 1 .. ($node->pg_version >= 16 ? 25 : 1);
kill 'CONT', $worker;
result_of($s);
ok(quiet('two'), 'sessions of two databases in one place: the one that rolled back is settled');
is(live($told) . "\n", $told_key, 'the key of the one that committed lives');
is(live($rolled_back), '', 'that of the one that rolled back does not');

# The extension cannot be dropped while a call is under way: the request that it will
# insert has its place.
my $before = new_guest;
$fake->behave($before, "$at,hold", 1);
$s1 = background($node, 'SET seam_ik.request_timeout = 20000; ' . call($before) . ';', 'again');
wait_for(sub { asked($before) > 0 });
$worker = worker_of('again');
my $drop = background($node, 'DROP EXTENSION seam_ik; CREATE EXTENSION seam_ik;', 'again');
my $waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DROP EXTENSION%' AND wait_event_type = 'Lock'";
answers('postgres', $waits, '1');
$fake->release($before);
my ($before_key) = result_of($s1);
result_of($drop);
ok(up('again', $worker), 'the extension is created anew while a call is under way');
ok(quiet('again'), 'its worker has nothing to do');
is(live($before) . "\n", $before_key, 'the key of the call lives');

# ---------- another account ----------

# The session's answer is lost, and then the endpoint is another one.
my ($moved, $tenant) = (new_guest, new_guest);
$worker = worker_of('again');
$fake->behave($moved, "$at,reset_after", 1);
like(try('again', call($moved)), qr/08007/, 'an answer is lost');
kill 'STOP', $worker;
sql('postgres', "ALTER DATABASE again SET seam_ik.endpoint = '" . $elsewhere->url . "'");
$node->reload;
kill 'CONT', $worker;
reread($node, 'again');
# ... and a role has its own
sql('postgres', "CREATE ROLE tenant LOGIN; ALTER ROLE tenant SET seam_ik.endpoint = '" . $elsewhere->url .
	"'; GRANT EXECUTE ON FUNCTION seam_generate_instant_key(uuid, int) TO tenant");
$elsewhere->behave($tenant, "$at,reset_after", 1);
like(try('postgres', call($tenant), '-U', 'tenant'), qr/08007/, "an answer to a role's own endpoint is lost");
ok(quiet('again'), 'an answer that was lost before a change of the endpoint is settled');
like(reported('again', $moved), qr/^failed: .*API key, endpoint and workspace/, 'it is reported');
ok(quiet('postgres'), "an answer from a role's own endpoint is settled");
like(reported('postgres', $tenant), qr/^failed: .*API key, endpoint and workspace/, 'it is reported');
is(scalar(split(/,/, live($moved))) . ' ' . scalar(split(/,/, live($tenant, $elsewhere))), '1 1', 'both keys live');

# ---------- dropped with an open transaction ----------

my ($dropped, $forced) = (new_guest, new_guest);
$s = open_call('again', $dropped);
$drop = background($node, 'DROP EXTENSION seam_ik CASCADE;', 'again');
answers('postgres', $waits, '1');
# (the worker does not come in between)
$worker = worker_of('again');
kill 'STOP', $worker;
result_of($_) foreach $s, $drop;
kill 'CONT', $worker;
ok(logged(qr/User identities: .*$dropped/), 'the log tells what a dropped extension leaves');
$s = open_call('forced', $forced);
sql('postgres', 'DROP DATABASE forced WITH (FORCE)');
result_of($s);
ok(logged(qr/User identities: .*$forced/), 'the log tells what a dropped database leaves') or diag live($forced);

# ---------- others' triggers and locks on the table of calls ----------

my ($unrecorded, $recorded, $patient) = map { new_guest } 1 .. 3;
$worker = worker_of('postgres');
sql('postgres', q{
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER nothing BEFORE INSERT ON seam_instant_key_call FOR EACH ROW EXECUTE FUNCTION nothing();
});
$s = open_call('postgres', $recorded);
is(intents_of('postgres', $recorded), '1', 'no trigger keeps a call from being recorded');
result_of($s);
sql('postgres', 'DROP TRIGGER nothing ON seam_instant_key_call');
my $holder = background($node, "BEGIN; LOCK TABLE seam_instant_key_call IN SHARE MODE; SELECT 'locked';");
printed($holder, 'locked');
like(try('postgres', 'SET seam_ik.connect_timeout = 500; ' . call($unrecorded)), qr/ERROR:  55000: /,
	'a call fails that a lock keeps from being recorded');
is(scalar(asked($unrecorded)), 0, 'nothing is sent');
$s = background($node, "SET seam_ik.connect_timeout = '20s'; " . call($patient) . ';');
answers('postgres',
	"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%$patient%' AND wait_event_type = 'Extension'", '1');
sleep 0.5;						# the worker has tried by then
result_of($holder);
is((result_of($s))[0], live($patient) . "\n", 'a call that waits goes on when the lock has gone');
is(worker_of('postgres'), $worker, 'the worker is the same');

my ($locked, @others) = map { new_guest } 1 .. 9;
$s = open_call('postgres', $locked);
my $locker = background($node, "BEGIN; SELECT 'locked' FROM seam_instant_key_call FOR UPDATE;");
printed($locker, 'locked');
$s->{in} .= "COMMIT;\n";
my ($locked_key) = (result_of($s))[0] =~ /^([0-9a-f-]{36}\n)/;
is(join(' ', map { try('postgres', call($_)) } @others), join(' ', map { live($_) } @others),
	'calls go on while a session has locked the rows of earlier ones');
my $undone = new_guest;
sql('postgres', 'BEGIN; ' . call($undone) . '; ROLLBACK');
ok(wait_for(sub { live($undone) eq '' }), 'and what rolls back is revoked');
result_of($locker);
ok(quiet('postgres'), 'all is settled when the lock has gone');
is(live($locked) . "\n", $locked_key, 'a key that was committed during the lock lives');

# ---------- savepoints ----------

# A third of them rolls back, and the worker ends in between.
my @saved = map { new_guest } 0 .. 299;
$worker = worker_of('postgres');
sql('postgres', 'CREATE TABLE kept (guest uuid, key_id uuid)');
$s = background($node, 'BEGIN; ' .
	join('',
	map { "SAVEPOINT s; INSERT INTO kept SELECT '$saved[$_]', " .
	"(seam_generate_instant_key('$saved[$_]')).instant_key_id; " . ($_ % 3 ? 'RELEASE' : 'ROLLBACK TO') .
	' s; ' } 0 .. $#saved) . 'COMMIT;');
wait_for(sub { $s->{run}->pump_nb; keys_of($saved[150]) > 0 });
sql('postgres', "SELECT pg_terminate_backend($worker)");
up('postgres', $worker);
is((result_of($s))[0], '', '300 savepoints, and a worker that ends in between');
ok(quiet('postgres'), 'they are settled');
my %live = map { $_->{instant_key_id} => $_->{user_identity_id} } grep { !$_->{revoked} } $fake->keys;
is(join(' ', sort grep { $live{$_} ge $saved[0] && $live{$_} le $saved[-1] } keys %live), join(' ', sort split /\n/,
	sql('postgres', 'SELECT key_id FROM kept')), 'the keys of those that were released live, and no others');
is(sql('postgres', 'SELECT count(*) FROM kept'), '200', 'there are 200');

# ---------- the long batches again ----------

# The worker makes way for a command (which fails), and another one comes.
wait_for(sub { keys_of($last) > 0 });
answers('changed', "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' " .
	"AND datname = current_database()", '1');
$worker = worker_of('changed');
try('postgres', 'ALTER DATABASE changed RENAME TO postgres');
ok(up('changed', $worker), 'the worker changes while a long batch with a lost answer is open');
result_of($part_s);
ok(quiet('changed'), 'the batch, which rolls back, is settled');
is(live($part) . live($last), '', 'no key of it lives');

# A batch that names an identity often, up to where its session is killed; and what else
# was under way then.
my ($often, $hanging, $crashed) = map { new_guest } 1 .. 3;
wait_for(sub { keys_of($done) == 24 });
ok(keys_of($long) > 24, 'a batch goes on for long');
my $survivor = sql('postgres', call($crashed));
$fake->behave($_, "$at,hang_after", 1) foreach $hanging, $crashed;
my $often_s = background($node, 'SET seam_ik.request_timeout = 2000; BEGIN; ' .
	batch("array_fill('$often'::uuid, ARRAY[3000]) || '$hanging'::uuid"), 'two');
wait_for(sub { keys_of($hanging) > 0 });
my $crashed_s = background($node, 'SET seam_ik.request_timeout = 2000; ' . call($crashed) . ';');
wait_for(sub { keys_of($crashed) == 2 });
kill 'KILL', $often_s->{pid};
my $issued = keys_of($long);
result_of($_) foreach $often_s, $crashed_s, $long_s, $done_s;
up($_) foreach qw(postgres one two slow);
ok(quiet('postgres'), 'a call that a crash meets soon after one that committed is settled');
is(live($crashed), $survivor, 'the one that committed lives');
ok(quiet('two'), 'a batch of 3000 for one identity whose session is killed is settled');
is(live($often) . live($hanging), '', 'no key of it lives');
is(scalar(keys_of($often)), 3000, 'there were 3000');
ok(quiet('slow'), 'long batches that a crash meets are settled');
is(live($long), '', 'no key lives of one that was under way');
is(live($done), '', 'no key lives of one in an open transaction');
is(sql($_, "SELECT count(*) FROM seam_instant_key_orphan"), '0', "nothing is reported in $_") foreach qw(two slow);

# ---------- the clock is set ----------

my $clock = 0;
# Do something while the answer to a call is lost, after that the clock is set.
sub lost_and_set
{
	my ($db, $guest, $spec, $by) = @_;
	my $pid = worker_of($db);

	$fake->behave($guest, "$at,$spec", 1);
	like(try($db, call($guest)), qr/08007/, "$spec: an answer is lost");
	kill 'STOP', $pid;
	$set_clock->($clock += $by);
	kill 'CONT', $pid;
	ok(quiet($db), "$spec: it is settled, although the clock was set by $by s");
	return;
}
# Seam's clock is not known yet.
my ($early, $old) = (new_guest, new_guest);
lost_and_set('one', $early, 'reset_after', 600);
is(live($early), '', 'its key does not live');
is(scalar(keys_of($early)), 1, 'which was there');
# A key of a minute before cannot be of the call.
$fake->clock(-60);
$fake->ask('seed-keys', { user_identity_id => $old, count => 1 });
$fake->clock(0);
my $old_key = live($old);
lost_and_set('one', $old, 'reset', 120);
is(live($old), $old_key, 'a key of a minute before lives');
# ... nor when the clock was set back a while ago, so that the times since then came twice
my $twice = new_guest;
$fake->clock(-60);
$fake->ask('seed-keys', { user_identity_id => $twice, count => 1 });
$fake->clock(0);
my $twice_key = live($twice);
$set_clock->($clock -= 100);
sql('one', call(new_guest));
lost_and_set('one', $twice, 'reset', 0);
is(live($twice), $twice_key, 'a key of a minute before lives, also after the clock was set back');

# ---------- ids of transactions ----------

# Two sessions in turn; the second gets its id while the first one's call is being recorded.
sql('postgres', q{
CREATE TABLE audit (caller xid8, recorder xid8);
CREATE FUNCTION audit(caller xid8) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.audit VALUES (caller, pg_current_xact_id());
	WHILE (pg_stat_file('hold', true)).size IS NOT NULL LOOP PERFORM pg_sleep(0.01); END LOOP;
	RETURN true;
END $$;
ALTER TABLE seam_instant_key_call ADD CONSTRAINT audit CHECK (public.audit(transaction_id)) NOT VALID;
});
my @pair = map { background($node, 'SELECT 1;') } 0, 1;
my @both = (new_guest, new_guest);
foreach my $first (0, 1)
{
	append_to_file($node->data_dir . '/hold', '');
	foreach my $i ($first, 1 - $first)
	{
		$pair[$i]{in} .= 'ROLLBACK; BEGIN; ' . call($both[$i]) . ";\n";
		$pair[$i]{run}->pump_nb for 1 .. 3;
		answers('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pair[$i]{pid} AND backend_xid " .
			"IS NOT NULL AND wait_event_type = 'Extension'", '1');
		answers('postgres', "SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'seam_ik worker' " .
			"AND datname = 'postgres'", 'PgSleep');
	}
	unlink $node->data_dir . '/hold';
	wait_for(sub { @{[ keys_of($both[0]), keys_of($both[1]) ]} == 2 + 2 * $first });
}
is(sql('postgres', 'SELECT count(*) FROM audit'), '4', 'four calls of two sessions');
is(sql('postgres', 'SELECT * FROM audit WHERE recorder <= caller'), '', 'each was recorded by a younger transaction');

# They are open when the server crashes, and while it is down its clock is set.
my ($known, $down) = (new_guest, new_guest);
sql('two', call($known));			# its answer tells Seam's time
$fake->behave($down, "$at,hang_after", 1);
$s = background($node, 'SET seam_ik.request_timeout = 2000; ' . call($down) . ';', 'two');
wait_for(sub { keys_of($down) > 0 });
$node->stop('immediate');
result_of($_) foreach @pair, $s;
$set_clock->($clock += 600);
{
	local $ENV{LD_PRELOAD} = $preload;
	$node->start;
}
up($_) foreach qw(postgres two);
ok(quiet('postgres'), 'two transactions that a crash meets are settled');
is(live($both[0]) . live($both[1]), '', 'their keys do not live');
ok(quiet('two'), 'a call that a crash meets before the clock is set is settled');
is(live($down), '', 'its key does not live');
is(live($told) . "\n", $told_key, 'a key that was committed long before lives');
unlike(slurp_file($node->logfile), qr/was terminated by signal (?!9:)/, 'no process has crashed by itself');

$node->stop;
done_testing();
