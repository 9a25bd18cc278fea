# Whose a synchronous call's key is: the request that its transaction has inserted is
# asked, and the server's commit log, whatever stands between them and the worker.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql call say_to printed open_call intents_of error_of keys_of live asked sent lists_of
	enqueue states_of owned reported quiet settled worker_of up logged);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(time);

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 2s', 'seam_ik.settle_delay = 1s',
	'seam_ik.max_retries = 0', 'restart_after_crash = on', 'autovacuum = off', 'wal_level = logical',
	'max_wal_senders = 5', 'max_replication_slots = 5', 'max_prepared_transactions = 5', 'max_worker_processes = 20');
api_key_file($node, 'seam_test_witnesses');
meet($node, $fake);
my $at = 'route=generate_instant_key';

sub waits_for
{
	my ($s, $what) = @_;
	return wait_for(sub { sql("SELECT '$what' IN (wait_event, wait_event_type) FROM pg_stat_activity " .
		"WHERE pid = $s->{pid}") eq 't' });
}
# Of many guests at once: the keys that were issued, how many of them live, and for how
# many guests Seam's list was asked.
sub issued_to { my %guest = map { $_ => 1 } @_; return grep { $guest{ $_->{user_identity_id} } } $fake->keys; }
sub still_live { return scalar grep { !$_->{revoked} } issued_to(@_); }
sub lists_for
{
	my $lists = join ' ', map { $_->{body} } grep { $_->{path} =~ m{/list$} } $fake->requests;
	return scalar grep { $lists =~ /$_/ } @_;
}
# The worker that there was is replaced: what its successor looks at first are all intents.
sub new_worker
{
	my $was = worker_of();
	sql("SELECT pg_terminate_backend($was)");
	return up('postgres', $was);
}

ok(up(), 'a worker');
like(error_of('BEGIN READ ONLY; ' . call(new_guest)), qr/^25006/, 'issuing a key is a write');
like(error_of('SET seam_ik.revoke_on_rollback = off; BEGIN READ ONLY; ' . call(new_guest)), qr/^25006/,
	'whether it is protected or not');

# ---------- a commit that a synchronous standby holds up ----------

foreach my $end ('comes back', 'does not, and the wait is cancelled')
{
	my $guest = new_guest;
	my $s = open_call($guest);

	sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	reload($node);
	say_to($s, "COMMIT; SELECT 'over';");
	ok(waits_for($s, 'SyncRep'), "a commit waits for a standby that is away, which $end");
	ok(new_worker(), 'all transactions are looked at');
	# (which it does before anything else, and then its own commit waits)
	sql("SET synchronous_commit = local; SELECT seam_enqueue_instant_key('" . new_guest . "')");
	ok(waits_for({ pid => worker_of() }, 'SyncRep'), 'and the worker goes on');
	is(intents_of($guest), '1', 'the intent is open');
	is(reported($guest), '-', 'nothing is reported');
	isnt(live($guest), '', 'the key lives');
	sql("SELECT pg_cancel_backend($s->{pid})") if $end =~ /cancelled/;
	printed($s, 'over') if $end =~ /cancelled/;
	sql('ALTER SYSTEM RESET synchronous_standby_names');
	reload($node);
	ok(printed($s, 'over'), 'the commit ends');
	result_of($s);
	ok(quiet(), 'and is seen');
	is(owned($guest), live($guest), 'the key has its owner, and lives');
	isnt(live($guest), '', '(there is one)');
}

# ---------- caught exceptions ----------

my @caught = map { new_guest } 1 .. 100;
my $s = background($node, "BEGIN; DO \$\$ DECLARE g uuid; BEGIN FOREACH g IN ARRAY ARRAY['" . join("','", @caught) .
	"']::uuid[] LOOP BEGIN PERFORM seam_generate_instant_key(g); RAISE EXCEPTION 'x'; EXCEPTION WHEN raise_exception " .
	"THEN NULL; END; END LOOP; END \$\$; SELECT 'caught';");
ok(printed($s, 'caught'), '100 exceptions that are caught in one transaction');
my $begin = time;
ok(wait_for(sub { still_live(@caught) == 0 }), 'no key is left, while the transaction is open');
cmp_ok(time - $begin, '<', 9, 'at once');
is(scalar(issued_to(@caught)), 100, 'there were 100');
is(lists_for(@caught), 0, "without a list of Seam's");
say_to($s, 'COMMIT;');
result_of($s);

# ---------- prepared, and the server restarts ----------

my ($prepared, $kept) = (new_guest, new_guest);
sql('BEGIN; ' . call($_) . "; PREPARE TRANSACTION '$_'") foreach $prepared, $kept;
my ($first, $other) = map { live($_) } $prepared, $kept;
$node->stop('immediate');
$node->start;
ok(up(), 'transactions that are prepared, and a crash');
$fake->behave($_, "$at,reset_after", 1) foreach $prepared, $kept;
my @doubts = map { enqueue($_) } $prepared, $kept;
ok(settled(), 'a lost answer for each of their guests is settled');
is(states_of($_), 'issued 1', 'by its own key') foreach $prepared, $kept;
my ($second, $another) = map { owned($_) } $prepared, $kept;
isnt($second, $first, 'and not by that of the transaction');
is(live($prepared), join(',', sort $first, $second), 'both live');
sql("ROLLBACK PREPARED '$prepared'; ");
sql("COMMIT PREPARED '$kept'");
ok(quiet(), 'they end');
is(live($prepared), $second, 'the key that was rolled back dies, and no other');
is(live($kept), join(',', sort $other, $another), 'and none of the other guest');
is(owned($kept), live($kept), 'all have their owners');

# ---------- somebody deletes the request ----------

foreach my $deed ('DELETE FROM seam_instant_key_request', 'TRUNCATE seam_instant_key_request')
{
	my ($guest, $gone) = (new_guest, new_guest);
	my $worker = worker_of();
	my $open = open_call($guest);
	my $rolls_back = open_call($gone);

	kill 'STOP', $worker;
	say_to($open, 'COMMIT;');
	say_to($rolls_back, 'ROLLBACK;');
	result_of($_) foreach $open, $rolls_back;
	sql($deed);
	kill 'CONT', $worker;
	ok(quiet(), "$deed between a commit and the look of the worker");
	isnt(live($guest), '', 'the key lives');
	like(reported($guest), qr/has committed, and somebody has deleted its request/, 'and is reported');
	is(live($gone), '', 'what was rolled back is revoked');
}
# ... nor does retention, while the intent is open
my $retained = new_guest;
$s = open_call($retained);
my $lock = background($node, "BEGIN; SELECT 'locked' FROM seam_instant_key_call FOR UPDATE;");
printed($lock, 'locked');
say_to($s, 'COMMIT;');
result_of($s);
my $old = sql(call(new_guest));
sql("UPDATE seam_instant_key_request SET finished_at = now() - interval '1 hour' WHERE call_id IS NOT NULL");
sub there { return sql("SELECT count(*) FROM seam_instant_key_request WHERE $_[0]"); }
sql('ALTER SYSTEM SET seam_ik.retention = 60');
sql("SELECT pg_reload_conf()");
ok(wait_for(sub { there("(instant_key).instant_key_id = '$old'") eq '0' }), 'an old request is deleted');
is(there("user_identity_id = '$retained'"), '1', 'but not that of an open intent');
say_to($lock, 'COMMIT;');
result_of($lock);
ok(wait_for(sub { intents_of($retained) eq '0' }), 'until that is decided');
sql("SELECT pg_reload_conf()");
ok(wait_for(sub { there("user_identity_id = '$retained'") eq '0' }), 'then it is');
is(reported($retained), '-', 'and nothing is reported');
sql('ALTER SYSTEM RESET seam_ik.retention');
reload($node);

# ---------- a worker that is away while many transactions end ----------

my @sessions = map { { guest => new_guest, end => ('COMMIT', 'ROLLBACK')[ $_ % 2 ] } } 1 .. 20;
$_->{session} = open_call($_->{guest}) foreach @sessions;
my $launcher = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik launcher'");
kill 'STOP', $launcher;
sql('SELECT pg_terminate_backend(' . worker_of() . ', 5000)');
is(worker_of(), '', 'a worker that is away');
foreach my $one (@sessions)
{
	say_to($one->{session}, "$one->{end};");
	result_of($one->{session});
}
kill 'CONT', $launcher;
ok(up(), 'while 20 transactions end');
ok(quiet(), 'its successor sees them all');
is(join(' ', map { live($_->{guest}) eq '' ? 'ROLLBACK' : 'COMMIT' } @sessions), join(' ', map { $_->{end} } @sessions),
	'the keys of those that have committed live');
is(lists_for(map { $_->{guest} } @sessions), 0, "without a list of Seam's");

# ---------- portions of a batch ----------

my @batch = map { new_guest } 1 .. 600;
$fake->behave($batch[550], "$at,hang_after", 1);
$s = background($node, "SET seam_ik.request_timeout = '60s'; SELECT count(*) FROM seam_generate_instant_keys(ARRAY['" .
	join("','", @batch) . "']::uuid[]);");
ok(wait_for(sub { issued_to(@batch) == 600 }), 'a batch in its third portion');
is(sql('SELECT max(cardinality(user_identity_ids)) <= 256 AND count(*) >= 3 FROM seam_instant_key_call'), 't',
	'each of which has an intent of at most 256 elements');
sql("SELECT pg_cancel_backend($s->{pid})");
like((result_of($s))[0], qr/ERROR:  57014: .*CONTEXT:  599 of 600 instant keys had been issued, and 1 requests were/s,
	'is cancelled');
ok(quiet(), 'and settled');
is(still_live(@batch), 0, 'no key of it lives');
is(lists_for(@batch), 1, 'only what is not known is looked for');

# A batch whose answers are all there, or lost, is done with: the transaction that goes on
# does not make the time longer within which a lost key can have been created.
my @done = map { new_guest } 1 .. 3;
$fake->behave($done[1], "$at,reset_after", 1);
$s = background($node, "BEGIN; SELECT 'began ' || clock_timestamp(); SELECT count(*) FROM seam_generate_instant_keys(
	ARRAY['" . join("','", @done) . "']::uuid[]); SELECT 'ended ' || clock_timestamp(); SELECT pg_sleep(3), 'slept';");
ok(printed($s, 'slept'), 'a batch with a lost answer in a transaction that goes on for long');
say_to($s, 'ROLLBACK;');
result_of($s);
my ($from, $to) = map { $s->{out} =~ /$_ (.*)/ } 'began', 'ended';
ok(quiet(), 'and rolls back');
is(sql("SELECT attempt_timeout <= 1002 + 1000 * extract(epoch FROM timestamptz '$to' - timestamptz '$from')
	FROM seam_instant_key_request WHERE user_identity_id = '$done[1]'"), 't',
	'its key is looked for in the time of the call');
is(still_live(@done), 0, 'no key of it lives');

# ---------- DDL on the outbox ----------

my ($before, $after, $later) = map { new_guest } 1 .. 3;
$s = open_call($before);
my $ddl = background($node, 'ALTER TABLE seam_instant_key_request ADD remark text;');
ok(waits_for($ddl, 'Lock'), 'DDL on the outbox waits for a transaction with a call');
my $waiting = background($node, call($later) . ';');
ok(waits_for($waiting, 'Lock'), 'the call of another session waits behind it');
say_to($s, call($after) . "; SELECT 'again';");
ok(printed($s, 'again'), 'which goes on');
say_to($s, 'ROLLBACK;');
result_of($s);
is((result_of($ddl))[0], '', 'then it is the turn of the DDL');
like((result_of($waiting))[0], qr/^[0-9a-f-]{36}\n$/, 'and of the other session');
ok(quiet(), 'all is settled');
is(live($before) . live($after), '', 'what was rolled back is revoked');
is(owned($later), live($later), 'what was not is owned');
# ... and many of both
my $script = PostgreSQL::Test::Utils::tempdir() . '/calls';
append_to_file($script, "BEGIN;\nSELECT seam_generate_instant_key(gen_random_uuid());\n" .
	"SELECT seam_generate_instant_key(gen_random_uuid());\nCOMMIT;\n");
my ($out, $err);
my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', 4, '-t', 25, '-f', $script, $node->connstr('postgres') ],
	'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(HANGS));
sql("ALTER TABLE seam_instant_key_request ADD c$_ text; ALTER TABLE seam_instant_key_request DROP c$_;
	ALTER TABLE seam_instant_key_call ADD c$_ text; ALTER TABLE seam_instant_key_call DROP c$_") foreach 1 .. 10;
$bench->finish;
like($out, qr{processed: 100/100}, 'calls and DDL beside each other');
unlike(logged(), qr/deadlock detected/, 'without a deadlock');
ok(quiet(), 'all is settled');

# ---------- a subscriber whose triggers fire ----------

sql('CREATE DATABASE inn');
$node->safe_psql($_, q{CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid)}) foreach 'postgres', 'inn';
$node->safe_psql('inn', q{
CREATE EXTENSION seam_ik;
CREATE TRIGGER issue BEFORE INSERT ON booking FOR EACH ROW
	EXECUTE FUNCTION seam_generate_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
CREATE SEQUENCE tries;
CREATE FUNCTION twice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.id = 2 AND nextval('public.tries') < 2 THEN RAISE EXCEPTION 'not now'; END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER twice BEFORE INSERT ON booking FOR EACH ROW EXECUTE FUNCTION twice();
ALTER TABLE booking ENABLE ALWAYS TRIGGER issue;
ALTER TABLE booking ENABLE ALWAYS TRIGGER twice});
ok(up('inn'), 'a subscriber');
sql('CREATE PUBLICATION p FOR TABLE booking');
sql("SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
$node->safe_psql('inn', "CREATE SUBSCRIPTION s CONNECTION '" . ($node->connstr('postgres') =~ s/'/''/gr) .
	"' PUBLICATION p WITH (create_slot = false, slot_name = 's', copy_data = false)");
my @applied = map { new_guest } 1 .. 2;
sql("INSERT INTO booking VALUES ($_, '$applied[$_ - 1]')") foreach 1, 2;
ok(wait_for(sub { $node->safe_psql('inn', 'SELECT count(key_id) FROM booking') eq '2' }),
	'rows that are applied there get their keys by triggers that fire always');
ok(quiet('inn'), 'one of them in the second try');
is(live($applied[$_ - 1]), $node->safe_psql('inn', "SELECT key_id FROM booking WHERE id = $_"), 'each has one')
	foreach 1, 2;
is(scalar(keys_of($applied[1])), 2, 'and the key of the try that failed is revoked');
is($node->safe_psql('inn', 'SELECT count(*) FROM seam_instant_key_orphan'), '0', 'nothing is reported');
$node->safe_psql('inn', 'DROP SUBSCRIPTION s');

$node->stop;
done_testing();
