# The writer: users' code that is slow, fails, does not end or crashes the server, and that
# calls, other tables and listeners do not wait for it.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql call settled logged wait_sent say_to printed);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_writer'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'restart_after_crash = on');
meet($node, $fake);

# The process that writes, or ''.
sub writer { return ask($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik writer'"); }

# A table with the trigger that enqueues, and one that runs this when a key is written.
sub table
{
	my ($name, $body) = @_;
	sql("CREATE TABLE $name (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid DEFAULT gen_random_uuid(),
		key_id uuid, note text);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON $name FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')");
	return unless defined $body;
	code($name, $body);
	sql("CREATE TRIGGER code BEFORE UPDATE ON $name FOR EACH ROW EXECUTE FUNCTION ${name}_code()");
	return;
}

sub code
{
	my ($name, $body) = @_;
	sql("CREATE OR REPLACE FUNCTION ${name}_code() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN $body RETURN NEW; END \$\$");
	return;
}

# $n bookings in a table; how many rows have their keys.
sub book { my ($name, $n) = @_; sql("INSERT INTO $name (note) SELECT 'n' FROM generate_series(1, $n)"); return; }
sub written { return ask($node, "SELECT count(key_id) FROM $_[0]"); }
sub wait_written { my ($name, $n) = @_; return wait_for(sub { written($name) eq $n }); }

# The SQLSTATEs of the requests for rows of a table, or how many have this one.
sub errors
{
	return ask($node, "SELECT count(*) FROM seam_instant_key_request WHERE target_table = '$_[0]'::regclass " .
		"AND sqlstate = '$_[1]'");
}

table('quick');
is(writer(), '', 'no writer where there is nothing to write');

# ---------- users' code that is slow ----------

table('slow', 'PERFORM pg_sleep(1.5);');
book('slow', 20);
ok(wait_for(sub { ask($node, "SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'seam_ik writer'")
	eq 'PgSleep' }), 'a trigger sleeps');
my $guest = new_guest();
my $before = written('slow');
sql(join ' ', map { call($guest) . ';' } 1 .. 20);
cmp_ok(written('slow') - $before, '<', 10, 'twenty calls do not wait for it');
book('quick', 50);
ok(wait_written('quick', 50), 'rows of another table are written');
cmp_ok(written('slow'), '<', 20, 'before those that wait for the trigger');
sql('DROP TRIGGER code ON slow');
ok(wait_written('slow', 20), 'which are written, too');
ok(settled, 'settled');

# ---------- users' code that fails ----------

table('picky', q{IF NEW.id % 5 = 0 THEN RAISE EXCEPTION 'not this one'; END IF;});
book('picky', 30);
ok(wait_written('picky', 24), 'one row fails, and those that were written with it are written again');
ok(settled, 'settled');
is(errors('picky', 'P0001'), 6, 'its request says why');
is(sql('SELECT count(*) FROM picky WHERE id % 5 <> 0 AND key_id IS NULL'), 0, 'each other has its key');
# an SQLSTATE that PostgreSQL raises when its queue of notifications is full
table('limited', q{RAISE EXCEPTION 'too much' USING ERRCODE = '54000';});
my $listener = background($node, "LISTEN seam_instant_key; SELECT 'listens';");
printed($listener, 'listens');
book('limited', 3);
ok(wait_for(sub { errors('limited', '54000') eq '3' }), 'a trigger raises what a full queue of notifications does');
my @limited = split /\n/, sql("SELECT request_id FROM seam_instant_key_request WHERE sqlstate = '54000'");
ok(wait_for(sub { say_to($listener, 'SELECT;'); @limited == grep { $listener->{out} =~ /"request_id":$_,/ } @limited }),
	'those who listen are told of each all the same');
result_of($listener);
sql(q{CREATE TABLE late (id int PRIMARY KEY); CREATE TABLE deferred (id int PRIMARY KEY, guest uuid, key_id uuid,
	late int DEFAULT 1 REFERENCES late DEFERRABLE INITIALLY DEFERRED);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON deferred FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF NEW.id = 2 THEN NEW.late = 2; END IF; RETURN NEW; END $$;
CREATE TRIGGER spoil BEFORE UPDATE ON deferred FOR EACH ROW EXECUTE FUNCTION spoil();
INSERT INTO late VALUES (1); INSERT INTO deferred SELECT g, gen_random_uuid() FROM generate_series(1, 3) g});
ok(settled, 'a constraint that is deferred, and fails');
is(sql('SELECT string_agg(id::text, \',\' ORDER BY id) FROM deferred WHERE key_id IS NOT NULL') . ' ' .
	errors('deferred', '23503'), '1,3 1', 'is the error of its row');

# ---------- locks ----------

my $session = background($node,
	"BEGIN; LOCK TABLE picky; UPDATE quick SET note = note WHERE id = 60; SELECT 'locked';");
printed($session, 'locked');
table('third');
sql('INSERT INTO third (note) VALUES (1)');
ok(wait_written('third', 1), '(a row)');
my $locked = background($node, 'INSERT INTO picky (note) SELECT generate_series(1, 3);');
sql('INSERT INTO third (note) SELECT generate_series(1, 3)');
ok(wait_written('third', 4), 'a table that a session has locked delays no other');
$session->{in} .= "COMMIT;\n";
result_of($session);
result_of($locked);
ok(wait_written('picky', 27), 'and its rows are written afterwards');
# rows and tables that are locked when their keys come
sql('CREATE TABLE held (id int PRIMARY KEY, guest uuid, key_id uuid);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON held FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger(\'user_identity_id=guest\', \'instant_key_id=key_id\')');
foreach my $lock ('SELECT FROM held WHERE id = 2 FOR UPDATE', 'LOCK TABLE held')
{
	my @who = map { new_guest() } 1 .. 3;
	sql('TRUNCATE held');
	$fake->behave($_, 'route=generate_instant_key,hold', 1) for @who;
	sql(join '', map { "INSERT INTO held VALUES ($_, '$who[$_ - 1]');" } 1 .. 3);
	wait_sent($_) for @who;
	$session = background($node, "BEGIN; $lock; SELECT 'locked';");
	printed($session, 'locked');
	$fake->release;
	ok(wait_for(sub { errors('held', '55P03') > 0 }), "$lock: the request says that it is locked");
	ok(wait_written('held', 2), 'the other rows are written') if $lock =~ /^SELECT/;
	$session->{in} .= "COMMIT;\n";
	result_of($session);
	ok(wait_written('held', 3), 'the row is written afterwards');
	ok(settled, 'settled');
	is(errors('held', '55P03'), 0, 'without an error');
}

# Code that fails as if something were locked: that is tried again, for as long as it takes.
sql('CREATE SEQUENCE tries');
table('contended', q{DECLARE n bigint := nextval('public.tries'); BEGIN IF n <= 12 THEN RAISE EXCEPTION 'not now'
	USING ERRCODE = (ARRAY['55P03', '40P01', '40001'])[n % 3 + 1]; END IF; END;});
book('contended', 1);
ok(wait_for(sub { sql('SELECT last_value FROM tries') >= 7 }), 'locks, deadlocks and serialization failures');
is(sql('SELECT coalesce(sum(crashes + stuck), 0) FROM seam_instant_key_writing'), '0', 'nothing is counted');
ok(wait_written('contended', 1), 'in the end the row is written');
is(sql('SELECT last_value FROM tries'), '13', 'after each of them');

# ---------- the writer is ended ----------

sql('ALTER TABLE slow ALTER note SET DEFAULT 0');
code('slow', 'PERFORM pg_sleep(1);');
sql('CREATE TRIGGER code BEFORE UPDATE ON slow FOR EACH ROW EXECUTE FUNCTION slow_code()');
foreach my $signal (qw(TERM KILL))
{
	my $written = written('slow');
	my $log = -s $node->logfile;

	book('slow', 2);
	ok(wait_for(sub { ask($node, "SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'seam_ik writer'")
		eq 'PgSleep' }), 'a trigger runs');
	my $was = writer();
	kill $signal, $was;
	ok(wait_for(sub { (writer() || $was) ne $was }), "SIG$signal: another writer");
	ok(wait_written('slow', $written + 2), 'which writes the rows');
	ok(wait_for(sub { ask($node, UNSETTLED) eq '0' }), 'settled');
	is(ask($node, "SELECT count(*) FROM seam_instant_key_request r JOIN slow ON guest = user_identity_id
		WHERE (instant_key).instant_key_id IS DISTINCT FROM key_id"), 0, 'and no key is another one');
}
# The crashes that are counted, as soon as the trigger runs (which is a suspect's until all
# its rows are written).
sub counted
{
	my $counted = '';
	wait_for(sub { $counted = ask($node, "SELECT (SELECT sum(crashes) FROM seam_instant_key_writing)
		FROM pg_stat_activity WHERE backend_type = 'seam_ik writer' AND wait_event = 'PgSleep'"); $counted ne '' });
	return $counted;
}
# ... while a session has the table locked in which it notes what it writes to
ok(wait_for(sub { sql('SELECT coalesce(sum(crashes), 0) FROM seam_instant_key_writing') eq '0' }),
	'no table is a suspect any more');
my $written = written('slow');
book('slow', 4);
is(counted(), '0', 'a trigger runs');
$session = background($node, "BEGIN; LOCK TABLE seam_instant_key_writing; SELECT 'locked';");
printed($session, 'locked');
my $was = writer();
kill 'TERM', $was;
ok(wait_for(sub { (writer() || $was) ne $was }), 'the writer is ended while its marks are locked: it goes');
$session->{in} .= "COMMIT;\n";
result_of($session);
is(counted(), '0', 'another one counts no crash');
ok(wait_written('slow', $written + 4), 'and writes the rows');
# ... and with the server
book('slow', 4);
is(counted(), '0', 'a trigger runs');
$node->restart;
is(counted(), '0', 'the server is restarted meanwhile: that is no crash either');
ok(wait_written('slow', $written + 8), 'and the rows are written');
sql('DROP TRIGGER code ON slow');

# ---------- users' code that crashes the server ----------

my $crash = q{COPY (SELECT 1) TO PROGRAM 'kill -SEGV $PPID';};
my $log = -s $node->logfile;
sub crashes { my @n = logged($log) =~ /\(PID \d+\) was terminated by signal 11/g; return scalar @n; }
sub held { my @n = logged($log) =~ /WARNING: +no instant key is written to table "(\w+)"/g; return "@n"; }

sql(q{CREATE FUNCTION inner_code() RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$});
table('crashing', 'PERFORM public.inner_code();' . $crash);
table('innocent');
# (the server may be gone before the session is told)
ask($node, q{BEGIN; INSERT INTO innocent (note) VALUES (1); INSERT INTO crashing (note) SELECT generate_series(1, 5);
	INSERT INTO innocent (note) SELECT generate_series(1, 5); COMMIT});
ok(wait_for(sub { errors('crashing', '57P02') eq '5' }), 'a trigger that crashes the server: its rows are not written');
is(crashes(), 3, 'after three crashes');
is(held(), 'crashing', 'with a warning');
ok(wait_written('innocent', 6), 'rows of another table are');
sql(q{INSERT INTO crashing (note) VALUES (6)});
ok(wait_for(sub { errors('crashing', '57P02') eq '6' }), 'nor is a new row');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE target_table = 'crashing'::regclass AND status = 'issued'"),
	6, 'the requests are issued');
is(crashes() . ' ' . held(), '3 crashing', 'that was all');
# another function
code('crashing', 'PERFORM public.inner_code();');
$node->reload;
ok(wait_written('crashing', 6), 'the trigger gets another function: the rows are written');
ok(settled, 'settled');
is(errors('crashing', '57P02'), 0, 'without an error');
is(sql('SELECT count(*) FROM seam_instant_key_writing WHERE crashes > 0'), 0, 'and nothing is left of it');
# a function that the trigger's calls, of which the server does not know
$log = -s $node->logfile;
sql("CREATE OR REPLACE FUNCTION inner_code() RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN $crash END \$\$");
ask($node, q{INSERT INTO crashing (note) SELECT generate_series(1, 3)});
ok(wait_for(sub { errors('crashing', '57P02') eq '3' }), 'the next time');
is(crashes(), 3, 'after three crashes');
my $one = "SELECT min(request_id) FROM seam_instant_key_request WHERE sqlstate = '57P02'";
# (another process has it locked when the writer sees that)
my $id = sql($one);
my $retries = background($node, "BEGIN; SELECT seam_retry_instant_key_request($id);");
my $holds = background($node, "BEGIN; SELECT 1 FROM seam_instant_key_request WHERE request_id = $id FOR UPDATE; " .
	'SELECT pg_sleep(2); COMMIT;');
ok(wait_for(sub { sql("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $holds->{pid}") eq 'Lock' }),
	'a request is retried, and locked then');
run_in($retries, 'COMMIT', 'retried');
ok(wait_for(sub { crashes() == 4 && errors('crashing', '57P02') eq '3' }), 'retried: one crash more');
sql('CREATE OR REPLACE FUNCTION inner_code() RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$');
sql("SELECT seam_retry_instant_key_request(($one))");
ok(wait_written('crashing', 9), 'mended and retried: all rows are written');
ok(settled, 'settled');
is(crashes(), 4, 'without a crash');

# ---------- and it goes ----------

ok(wait_for(sub { writer() eq '' }), 'a writer with nothing to write goes');
is(sql('SELECT count(*) FROM seam_instant_key_writing'), 0, 'and leaves no mark');
sql('INSERT INTO quick (note) VALUES (1)');
ok(wait_written('quick', 51), 'another one comes when there is a row');

$node->stop('immediate');
done_testing();
