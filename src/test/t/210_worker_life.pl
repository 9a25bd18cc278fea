# The processes of the outbox: when they come and go, what never waits for them,
# and that requests survive whatever ends them.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql live_keys wait_sent enqueue busy status worker_of up);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(time);

my $fake = FakeSeam->start;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', join("\n",
	"shared_preload_libraries = 'seam_ik'",
	"seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'",
	'seam_ik.request_timeout = 1s',
	'seam_ik.settle_delay = 1s',
	'restart_after_crash = on',
	'max_prepared_transactions = 2',
	'max_worker_processes = 16') . "\n");
api_key_file($node, 'seam_test_life');
meet($node, $fake);

# refused(database, statements, SQLSTATE, name)
sub refused
{
	my ($db, $sql, $state, $name) = @_;
	my ($rc, $out, $err) = $node->psql($db, $sql, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
	like($err, qr/$state/, $name);
	return;
}

sub wait_issued { my ($db, $id) = @_; return wait_for(sub { status($db, $id) eq 'issued' }); }

# works(database, name): a request goes its way
sub works
{
	my ($db, $name) = @_;
	my $guest = new_guest;
	my $id = enqueue($db, $guest);

	ok(wait_issued($db, $id) && live_keys($guest) == 1, $name)
		or diag sql($db, 'SELECT * FROM seam_instant_key_request ORDER BY 1 DESC LIMIT 3');
	return;
}

# quick(name, database, statement): it succeeds and waits for nothing.  A call
# that hangs would take thirty seconds, and PostgreSQL waits for five until the
# others have left a database.
sub quick
{
	my ($name, $db, $sql) = @_;
	my $begin = time;
	my ($rc, $out, $err) = $node->psql($db, $sql);
	my $took = time - $begin;

	is($rc, 0, $name) or diag $err;
	cmp_ok($took, '<', 20, "$name: quick");
	note sprintf('%s: %.0f ms', $name, 1000 * $took);
	return;
}

# ---------- where there is the extension ----------

$node->start;
my $launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik launcher'";
ok(wait_for(sub { sql('postgres', $launcher) ne '' }), 'there is a launcher');
sql('postgres', "CREATE DATABASE $_") for qw(a b c without);
sql('a', 'BEGIN; CREATE EXTENSION seam_ik; ROLLBACK');
sql('b', 'CREATE EXTENSION seam_ik');
my $begin = time;
ok(up('b'), 'CREATE EXTENSION starts a worker');
cmp_ok(time - $begin, '<', 40, 'at once');
is(worker_of('a'), '', 'not when it is rolled back');
sql('c', 'CREATE SCHEMA s; CREATE EXTENSION seam_ik SCHEMA s');
sql('a', 'BEGIN; CREATE EXTENSION seam_ik; COMMIT');
my %pid = map { $_ => up($_) } qw(a b c);
ok($pid{a} && $pid{b} && $pid{c}, 'each database has its worker');
sql('postgres', "ALTER DATABASE c SET search_path = s, public");
works($_, "$_ works") for qw(a b c);
is(sql('postgres', "SELECT string_agg(backend_type || ' ' || coalesce(datname, '-'), ', ' ORDER BY 1) " .
	"FROM (SELECT backend_type, datname FROM pg_stat_activity WHERE backend_type LIKE 'seam_ik%'
	AND NOT (backend_type = 'seam_ik writer' AND datname IN ('a', 'b', 'c')) ORDER BY 1, 2) x"),
	'seam_ik launcher -, seam_ik worker a, seam_ik worker b, seam_ik worker c', 'nothing runs elsewhere');

sql('a', 'BEGIN; DROP EXTENSION seam_ik; ROLLBACK');
sql('b', 'DROP EXTENSION seam_ik');
$begin = time;
ok(wait_for(sub { worker_of('b') eq '' }), 'DROP EXTENSION ends it');
cmp_ok(time - $begin, '<', 40, 'at once');
is(worker_of('a'), $pid{a}, 'not when it is rolled back');
sql('c', 'DROP SCHEMA s CASCADE');
ok(wait_for(sub { worker_of('c') eq '' }), 'DROP SCHEMA CASCADE ends it');
sql('b', 'CREATE EXTENSION seam_ik');
works('b', 'it comes back with the extension');

# Created within something else.
sql('c', "DO 'BEGIN CREATE EXTENSION seam_ik; END'; SELECT 1");
ok(up('c'), 'CREATE EXTENSION in a DO block');
sql('c', 'DROP EXTENSION seam_ik');
ok(wait_for(sub { worker_of('c') eq '' }), 'gone again');

# ---------- commands that want the database for themselves ----------

my $dir = $node->basedir . '/ts';
mkdir $dir or die $!;
sql('postgres', "CREATE TABLESPACE ts LOCATION '$dir'");
sql('postgres', 'ALTER DATABASE a SET seam_ik.request_timeout = 30000');
ok(reread($node, 'a'), 'the setting of a database is obeyed after a reload');
is(worker_of('a'), $pid{a}, 'by the same worker');

foreach my $load ('idle', 'with a call that hangs', 'with a stream of calls')
{
	$pid{a} = up('a');
	busy('a') if $load =~ /hangs/;
	if ($load =~ /stream/)
	{
		# what it loses is settled sooner
		sql('postgres', 'ALTER DATABASE a RESET seam_ik.request_timeout');
		reread($node, 'a');
		sql('a', 'DELETE FROM seam_instant_key_request');
		$pid{a} = up('a');
		$fake->reset;
		sql('a', 'SELECT count(seam_enqueue_instant_key(gen_random_uuid())) FROM generate_series(1, 10000)');
		wait_for(sub { $fake->requests > 0 });
	}
	quick("RENAME, $load", 'postgres', 'ALTER DATABASE a RENAME TO a2');
	ok($pid{a} = up('a2', $pid{a}), 'the worker comes back');
	quick("RENAME again, $load", 'postgres', 'ALTER DATABASE a2 RENAME TO a');
	ok($pid{a} = up('a', $pid{a}), 'the worker comes back');
	quick("SET TABLESPACE, $load", 'postgres', 'ALTER DATABASE a SET TABLESPACE ts');
	ok($pid{a} = up('a', $pid{a}), 'the worker comes back');
	quick("TEMPLATE, $load", 'postgres', 'CREATE DATABASE copy TEMPLATE a');
	isnt(sql('a', "SELECT count(*) FROM seam_instant_key_request WHERE status = 'pending'"), '0',
		'(all that in the stream)') if $load =~ /stream/;
	ok($pid{a} = up('a', $pid{a}), 'the worker comes back');
	ok(up('copy'), 'and the copy has one');
	busy('copy') if $load =~ /hangs/;
	quick("DROP DATABASE, $load", 'postgres', 'DROP DATABASE copy');
	is(worker_of('copy'), '', 'no worker is left');
	quick("SET TABLESPACE back, $load", 'postgres', 'ALTER DATABASE a SET TABLESPACE pg_default');
	works('a', "requests go on, $load") if $load !~ /stream/;
}
ok(wait_for(sub { sql('a', "SELECT count(*) FROM seam_instant_key_request WHERE status = 'issued'") eq '10000' }),
	'all of the stream are issued');
my %live;
$live{$_->{user_identity_id}}++ for grep { !$_->{revoked} } $fake->keys;
is(scalar(grep { $_ != 1 } values %live), 0, 'with one key each');
$fake->reset;

# What fails, or may not be done, leaves the worker, or it comes back.
sql('postgres', 'CREATE ROLE nobody; CREATE ROLE maker CREATEDB');
$pid{a} = up('a');
refused('postgres', "SET ROLE maker; $_", '42501', "without rights: $_")
	for 'DROP DATABASE a', 'DROP DATABASE a WITH (FORCE)', 'ALTER DATABASE a RENAME TO a2',
		'ALTER DATABASE a SET TABLESPACE ts', 'CREATE DATABASE copy TEMPLATE a';
is(worker_of('a'), $pid{a}, 'sends no worker away');
sql('template1', 'CREATE EXTENSION seam_ik');
ok($pid{template1} = up('template1'), 'a worker in template1');
refused('postgres', "SET ROLE nobody; $_", '42501', "without CREATEDB: $_") for 'CREATE DATABASE copy',
	'CREATE DATABASE copy TEMPLATE template1';
is(worker_of('template1'), $pid{template1}, 'sends no worker away');
quick('CREATE DATABASE', 'postgres', 'SET ROLE maker; CREATE DATABASE copy');
ok(up('copy'), 'who may, does, and the database has a worker');
quick('a template that is for everybody', 'postgres', 'ALTER DATABASE a IS_TEMPLATE true; SET ROLE maker; ' .
	'CREATE DATABASE copy2 TEMPLATE a');
ok(up('copy2'), 'its copy has a worker');
ok(up('a'), 'the worker comes back');
quick('a copy of the database that the session is in', 'a', 'CREATE DATABASE copy3 TEMPLATE a');
ok(up('copy3'), 'its copy has a worker');
sql('template1', 'DROP EXTENSION seam_ik');
refused('postgres', 'DROP DATABASE a', '42809', 'a DROP that fails');
ok(up('a'), 'the worker comes back');
sql('postgres', 'ALTER DATABASE a IS_TEMPLATE false');
refused('postgres', 'ALTER DATABASE a RENAME TO b', '42P04', 'a RENAME that fails');
works('a', 'the worker comes back');
sql('postgres', "DROP DATABASE IF EXISTS $_") for qw(copy copy2 copy3);

# ---------- commands about the extension ----------

# Another version (a later one the library would refuse), which alters the table and adds something.
my $scripts = $ENV{STAGE} . $node->config_data('--sharedir') . '/extension';
append_to_file("$scripts/seam_ik--1.0--0.8.sql", "LOCK TABLE seam_instant_key_request IN ACCESS EXCLUSIVE " .
	"MODE;\nCREATE FUNCTION seam_more() RETURNS int LANGUAGE sql AS 'SELECT 1';\n");
append_to_file("$scripts/seam_ik--0.8--1.0.sql", "DROP FUNCTION seam_more();\n");
my ($guest, $id) = busy('a');
quick('ALTER EXTENSION UPDATE with a busy worker', 'a', "ALTER EXTENSION seam_ik UPDATE TO '0.8'");
works('a', 'and it goes on');
sql('a', "ALTER EXTENSION seam_ik UPDATE TO '1.0'");
unlink "$scripts/seam_ik--1.0--0.8.sql", "$scripts/seam_ik--0.8--1.0.sql";
$fake->behave($guest, '');
ok(wait_issued('a', $id), 'so does what hung');

busy('a');
quick('DROP EXTENSION with a busy worker', 'a', 'DROP EXTENSION seam_ik');
ok(wait_for(sub { worker_of('a') eq '' }), 'the worker is gone');

# A table that takes the other's place has nothing to do with its calls.
sql('a', 'CREATE EXTENSION seam_ik');
ok(up('a'), 'the worker comes back');
my ($former, $latter) = (new_guest, new_guest);
$fake->behave($former, 'delay=700');
enqueue('a', $former);
wait_sent($former);
$fake->behave($latter, 'delay=900');
$id = sql('a', "BEGIN; DROP EXTENSION seam_ik; CREATE EXTENSION seam_ik; " .
	"SELECT seam_enqueue_instant_key('$latter'); COMMIT");
is($id, '1', 'the same id again');
ok(wait_issued('a', $id), 'DROP and CREATE EXTENSION at once: the new request is issued');
is(sql('a', "SELECT (instant_key).user_identity_id FROM seam_instant_key_request WHERE request_id = $id"), $latter,
	'with the key of its own identity');
is(scalar(live_keys($latter)), 1, 'and no other');

sql('c', 'CREATE SCHEMA s; CREATE EXTENSION seam_ik SCHEMA s');
works('c', 'in a schema');
$guest = new_guest;
my $cancel = "BEGIN; SELECT seam_cancel_instant_key_request(seam_enqueue_instant_key('$guest')); COMMIT";
my ($rc, $out, $err) = $node->psql('c', "$cancel; ALTER SCHEMA s RENAME TO t; SET search_path = t; $cancel");
is($out, "cancelled\ncancelled", 'ALTER SCHEMA RENAME: a session goes on');
sql('postgres', 'ALTER DATABASE c SET search_path = t, public');
works('c', 'and the worker');

# Ways to have the extension that are not CREATE EXTENSION seam_ik.
sql('without', "BEGIN; CREATE EXTENSION seam_ik; PREPARE TRANSACTION 'p'");
sql('without', "COMMIT PREPARED 'p'");
ok(up('without'), 'CREATE EXTENSION in a prepared transaction');
$guest = new_guest;
sql('without', "BEGIN; SELECT seam_enqueue_instant_key('$guest'); PREPARE TRANSACTION 'p'");
$begin = time;
sql('without', "COMMIT PREPARED 'p'");
ok(wait_sent($guest), 'a request in a prepared transaction');
cmp_ok(time - $begin, '<', 40, 'is sent soon after COMMIT PREPARED');

# Databases are looked at one by one, so the first has been when the second works.
sql('postgres', "CREATE DATABASE $_") for qw(looked next);
sql('next', 'CREATE EXTENSION seam_ik');
up('next');
append_to_file("$scripts/seam_ik_dependent.control", "default_version = '1'\nrequires = 'seam_ik'\n");
append_to_file("$scripts/seam_ik_dependent--1.sql", "SELECT 1;\n");
sql('looked', 'CREATE EXTENSION seam_ik_dependent CASCADE');
ok(up('looked'), 'CREATE EXTENSION of another one CASCADE');
sql('looked', 'DROP EXTENSION seam_ik CASCADE');
unlink "$scripts/seam_ik_dependent.control", "$scripts/seam_ik_dependent--1.sql";
ok(wait_for(sub { worker_of('looked') eq '' }), 'gone again');

# The probe has its snapshot, and waits for a lock.
my $s = background($node, q{\c looked
BEGIN;
LOCK TABLE pg_catalog.pg_extension IN ACCESS EXCLUSIVE MODE;
DO $$ BEGIN
	FOR i IN 1 .. 400 LOOP
		EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'seam_ik probe'
			AND wait_event_type = 'Lock');
		PERFORM pg_sleep(0.02), pg_stat_clear_snapshot();
	END LOOP;
END $$;
CREATE EXTENSION seam_ik;
COMMIT;
SELECT 'created';});
wait_for(sub { sql('postgres', "SELECT count(*) FROM pg_locks WHERE relation = 'pg_extension'::regclass " .
	"AND mode = 'AccessExclusiveLock' AND granted") eq '1' });
sql('looked', 'CREATE SCHEMA empty; DROP SCHEMA empty');
like((result_of($s))[0], qr/created/, 'the extension is committed while a probe looks');
ok(up('looked'), 'which is not lost');
sql('postgres', "DROP DATABASE $_") for qw(without looked next);

# ---------- a slow call holds nothing ----------

sql('postgres', 'CREATE DATABASE slow; ALTER DATABASE slow SET seam_ik.request_timeout = 30000');
sql('slow', 'CREATE EXTENSION seam_ik');
($guest, $id) = busy('slow');
my $pid = worker_of('slow');
ok(wait_for(sub { sql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND xact_start IS NULL " .
	"AND backend_xmin IS NULL AND backend_xid IS NULL") eq '1' }), 'no transaction or snapshot during a call');
is(sql('postgres', "SELECT count(*) FROM pg_locks WHERE pid = $pid"), '0', 'and no lock');
sql('slow', 'SELECT count(seam_enqueue_instant_key(gen_random_uuid())) FROM generate_series(1, 50)');
$begin = time;
ok(wait_for(sub { sql('slow', "SELECT n_tup_upd >= 101 FROM pg_stat_user_tables " .
	"WHERE relname = 'seam_instant_key_request'") eq 't' }),
	'statistics see what the worker writes while a call hangs');
cmp_ok(time - $begin, '<', 25, '(soon)');
is(worker_of('slow'), $pid, '(which it still');
is(status('slow', $id), 'in_flight', 'does)');
sql('postgres', 'DROP DATABASE slow');

# ---------- processes that are ended ----------

$pid = worker_of('b');
sql('postgres', "SELECT pg_terminate_backend($pid, 5000)");
$guest = new_guest;
$id = enqueue('b', $guest);
ok(wait_issued('b', $id), 'the worker was terminated: another one goes on');
isnt(worker_of('b'), $pid, '(another one)');

$pid = worker_of('b');
($guest, $id) = busy('b');
sql('postgres', "SELECT pg_cancel_backend($pid)");
works('b', 'a cancel request does nothing to it');
is(worker_of('b'), $pid, '(the same worker)');
$fake->behave($guest, '');
ok(wait_issued('b', $id), 'nor to its calls');
is(scalar(live_keys($guest)), 1, '(one key)');

my $former_launcher = sql('postgres', $launcher);
$pid = worker_of('b');
sql('postgres', "SELECT pg_terminate_backend($former_launcher, 5000)");
sql('postgres', 'CREATE DATABASE late');
sql('late', 'CREATE EXTENSION seam_ik');
works('b', 'the launcher was terminated: a worker goes on without it');
ok(up('late'), 'another launcher is there, and does what was missed');
is(worker_of('b'), $pid, 'the worker is still the same');
sql('postgres', "SELECT pg_terminate_backend($pid, 5000)");
ok(up('b', $pid), 'and is known to the new launcher');
quick('DROP DATABASE with a worker of the new launcher', 'postgres', 'DROP DATABASE late');

# One call has issued a key, one has not, one was not made.
# ended(how, sub): exactly one key each
sub ended
{
	my ($how, $end) = @_;
	my @guest = map { new_guest } 1 .. 4;

	$fake->behave($guest[0], 'hang_after', 1);
	$fake->behave($guest[1], 'hang', 1);
	$fake->behave($guest[2], 'delay=300', 1);
	my @id = map { enqueue('b', $_) } @guest[ 0 .. 2 ];
	wait_sent($_) for @guest[ 0 .. 2 ];
	# whatever the client is told when the server goes, it has committed
	$node->psql('b', "SET synchronous_commit = off; SELECT seam_enqueue_instant_key('$guest[3]') FROM pg_switch_wal()");
	# another one of these tells that the server has begun anew
	my $checkpointer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
	my $was = sql('b', $checkpointer);
	$end->();
	ok(wait_for(sub { my $now = ask($node, $checkpointer, 'b'); $now =~ /\d/ && $now ne $was }),
		"$how: the server is back");
	ok(wait_for(sub { sql('b', "SELECT count(*) FROM seam_instant_key_request WHERE status = 'issued' " .
		"AND user_identity_id IN ('" . join("', '", @guest[ 0 .. 2 ]) . "')") eq '3' }), "$how: all are issued")
		or diag sql('b', 'SELECT * FROM seam_instant_key_request ORDER BY 1 DESC LIMIT 4');
	is_deeply([ map { my @k = live_keys($_); scalar @k } @guest[ 0 .. 2 ] ], [ 1, 1, 1 ], "$how: with one key each");
	is_deeply([ map { live_keys($_) } @guest[ 0 .. 2 ] ],
		[ map { sql('b', "SELECT (instant_key).instant_key_id FROM seam_instant_key_request " .
			"WHERE request_id = $_") } @id ], "$how: the ones that are stored");
	return;
}
ended('SIGKILL of the worker', sub { kill 'KILL', worker_of('b') or die $!; });
ended('SIGKILL of the launcher', sub { kill 'KILL', sql('postgres', $launcher) or die $!; });
ended('immediate stop', sub { $node->stop('immediate'); $node->start; });
up('c');
sql('postgres', 'ALTER DATABASE c SET seam_ik.request_timeout = 30000');
reread($node, 'c');
ended('fast shutdown', sub {
	busy('c');
	my $begin = time;
	$node->stop('fast');
	my $took = time - $begin;
	cmp_ok($took, '<', 25, 'fast shutdown with calls that hang: quick');
	note sprintf('fast shutdown: %.0f ms', 1000 * $took);
	$node->start;
});

# ---------- settings ----------

api_key_file($node, 'seam_test_other', 'other_key');
sql('c', 'CREATE EXTENSION IF NOT EXISTS seam_ik');
$pid = up('b');
my $pid_c = up('c');
sql('postgres', "ALTER DATABASE b SET seam_ik.api_key_file = 'other_key'; ALTER DATABASE b SET seam_ik.rate_limit = " .
	"20; ALTER DATABASE b SET seam_ik.max_attempts = 2; ALTER DATABASE b SET seam_ik.retention = '1h'");
# (what is to be looked for once more after a lost answer stays for so long)
sql('b', "UPDATE seam_instant_key_request SET finished_at = now() - interval '2 hours', look_again_at = NULL " .
	"WHERE finished_at IS NOT NULL");
my $old = sql('b', 'SELECT max(request_id) FROM seam_instant_key_request');
ok(reread($node, 'b'), 'a database has settings of its own');
ok(wait_for(sub { sql('b', "SELECT count(*) FROM seam_instant_key_request WHERE request_id <= $old") eq '0' }),
	'retention of a database');
is(worker_of('b'), $pid, 'other settings need no other worker');
is(worker_of('c'), $pid_c, 'nor do those of another database');
$fake->reset;
$guest = new_guest;
sql('b', "SELECT count(seam_enqueue_instant_key('$guest')) FROM generate_series(1, 25)");
ok(wait_for(sub { live_keys($guest) == 25 }), 'rate_limit of a database: all are issued');
my @sent = map { $_->{time} } $fake->requests;
my $took = $sent[-1] - $sent[0];
cmp_ok($took, '>', 24 / 20 * 0.9, '20 a second, not more');
cmp_ok($took, '<', 30, 'and not much less');
is_deeply([ map { my %h = map { @$_ } @{ $_->{headers} }; $h{Authorization} } $fake->requests ],
	[ ('Bearer seam_test_other') x 25 ], 'api_key_file of a database');
$guest = new_guest;
$fake->behave($guest, 'status=429,retry_after=0');
$id = enqueue('b', $guest);
ok(wait_for(sub { status('b', $id) eq 'failed' }), 'max_attempts of a database');
is(sql('b', "SELECT attempts FROM seam_instant_key_request WHERE request_id = $id"), '2', '2 of them');

sql('postgres', 'ALTER DATABASE b RESET ALL; ALTER DATABASE b SET seam_ik.worker = off');
ok(reread($node, 'b'), 'worker = off leaves the worker');
$guest = new_guest;
$id = enqueue('b', $guest);
works('c', 'other databases go on');
is(status('b', $id), 'pending', 'which sends nothing');
sql('postgres', 'ALTER DATABASE b RESET seam_ik.worker');
$node->reload;
ok(wait_issued('b', $id), 'and goes on when it may again');
$pid = worker_of('b');
$node->append_conf('postgresql.conf', 'seam_ik.worker = off');
$node->reload;
wait_for(sub { sql('b', 'SHOW seam_ik.worker') eq 'off' });
$id = enqueue('b', $guest);
refused('b', "SET ROLE nobody; SET $_", '42501', "not for everybody: $_")
	for 'seam_ik.worker = off', 'seam_ik.rate_limit = 1', 'seam_ik.max_attempts = 1', 'seam_ik.retention = 1',
		'seam_ik.settle_delay = 1';
is(status('b', $id), 'pending', 'worker = off in the configuration');
$node->append_conf('postgresql.conf', 'seam_ik.worker = on');
$node->reload;
ok(wait_issued('b', $id), 'and on again');
is(worker_of('b'), $pid, 'needs no other worker');

sql('postgres', 'CREATE ROLE host LOGIN; ALTER DATABASE b OWNER TO host');
refused('postgres', 'SET ROLE host; ALTER DATABASE b SET seam_ik.rate_limit = 7', '42501',
	'the owner of a database needs a privilege');
sql('postgres', 'GRANT SET ON PARAMETER seam_ik.rate_limit TO host; SET ROLE host; ' .
	'ALTER DATABASE b SET seam_ik.rate_limit = 7');
is(sql('b', 'SHOW seam_ik.rate_limit'), '7', 'GRANT SET ON PARAMETER gives it');

# Whatever else is set there does not disturb the worker.
foreach my $settings (
	[ "the owner's", "role = 'host'" ],
	[ 'odd', 'default_transaction_read_only = on', "default_transaction_isolation = 'serializable'",
		'default_transaction_deferrable = on',
		'statement_timeout = 1', 'lock_timeout = 1', 'search_path = nowhere', 'enable_indexscan = off',
			'session_replication_role = replica',
		'row_security = off', 'standard_conforming_strings = off', 'transform_null_equals = on',
			"DateStyle = 'SQL, DMY'", "TimeZone = 'Asia/Kolkata'",
		"IntervalStyle = 'sql_standard'", "client_encoding = 'latin1'", 'check_function_bodies = off',
			'synchronous_commit = off' ])
{
	my ($name, @settings) = @$settings;
	my $mine = "SET role = 'none'; SET statement_timeout = 0; SET default_transaction_read_only = off;";

	$pid = worker_of('b');
	sql('postgres', "ALTER DATABASE b SET $_") for @settings;
	reread($node, 'b');
	foreach my $which ('the worker that reads them anew', 'one that begins with them')
	{
		$guest = new_guest;
		$id = sql('b', "$mine SELECT public.seam_enqueue_instant_key('$guest')");
		ok(wait_for(sub { sql('b', "$mine SELECT status FROM public.seam_instant_key_request " .
			"WHERE request_id = $id") eq 'issued' }), "settings, $name: $which works");
		if ($which =~ /anew/)
		{
			is(worker_of('b'), $pid, '(the same one)');
			sql('postgres', "SELECT pg_terminate_backend($pid, 5000)");
			ok($pid = up('b', $pid), '(another one)');
		}
	}
	sql('postgres', 'ALTER DATABASE b RESET ALL');
	reread($node, 'b');
	works('b', 'without them, too');
	is(worker_of('b'), $pid, '(the same one)');
}

# ---------- the owner of the extension ----------

sql('postgres', "CREATE ROLE admin SUPERUSER LOGIN; CREATE DATABASE o OWNER admin");
sql('o', 'SET ROLE admin; CREATE EXTENSION seam_ik; CREATE SCHEMA empty');
ok($pid = up('o'), 'an extension of another owner');
sql('postgres', 'ALTER ROLE admin NOSUPERUSER');
works('o', 'who is no superuser any more');
sql('postgres', "SELECT pg_terminate_backend($pid, 5000)");
ok(up('o', $pid), 'also with a new worker');
is(sql('postgres', "SELECT usename FROM pg_stat_activity WHERE backend_type = 'seam_ik worker' AND datname = 'o'"),
	'admin', 'it is nobody else');
works('o', 'and works');
sql('postgres', 'CREATE ROLE heir LOGIN');
sql('o', 'REASSIGN OWNED BY admin TO heir');
works('o', 'REASSIGN OWNED');
ok(wait_for(sub { sql('postgres', "SELECT usename FROM pg_stat_activity WHERE backend_type = 'seam_ik worker' " .
	"AND datname = 'o'") eq 'heir' }), 'changes its owner');
$pid = worker_of('o');
my $log = -s $node->logfile;
sql('postgres', "ALTER ROLE heir NOLOGIN; SELECT pg_terminate_backend($pid, 5000)");
$guest = new_guest;
$id = enqueue('o', $guest);
if ($node->pg_version >= 17)
{
	ok(wait_issued('o', $id), 'an owner who may not log in');
}
else
{
	my $blocked = sub { my @n = slurp_file($node->logfile, $log)
		=~ /WARNING: +the outbox of database "o" has no worker/g; return scalar @n; };
	ok(wait_for($blocked), 'an owner who may not log in: a warning');
	# has it probed again
	sql('o', 'DROP SCHEMA empty; CREATE SCHEMA empty');
	sql('o', 'CREATE EXTENSION IF NOT EXISTS seam_ik');
	works('b', '(time passes)');
	is($blocked->(), 1, 'just one');
	is(worker_of('o'), '', 'and no worker');
	is(status('o', $id), 'pending', 'the request waits');
	sql('postgres', 'ALTER ROLE heir LOGIN');
	sql('o', 'DROP SCHEMA empty');
	ok(wait_issued('o', $id), 'until the owner may');
}
sql('o', 'DROP OWNED BY heir CASCADE');
ok(wait_for(sub { worker_of('o') eq '' }), 'DROP OWNED ends the worker');
$node->stop;

# ---------- not preloaded, and not enough processes ----------

$node = PostgreSQL::Test::Cluster->new('small');
meet($node, $fake);
$node->init;
$node->append_conf('postgresql.conf',
	join("\n", "seam_ik.api_key_file = 'seam_api_key'", "seam_ik.endpoint = '" . $fake->url . "'",
	# the launcher, and one more
	'max_worker_processes = 2', 'max_logical_replication_workers = 0') . "\n");
api_key_file($node, 'seam_test_small');
$node->start;
sql('postgres', "CREATE DATABASE $_") for qw(x y);
sql($_, 'CREATE EXTENSION seam_ik') for qw(x y);
$guest = new_guest;
($rc, $out, $err) = $node->psql('x', "SELECT seam_enqueue_instant_key('$guest') FROM generate_series(1, 3)");
is($out, "1\n2\n3", 'not preloaded: enqueueing works');
is(scalar(() = $err =~ /WARNING: +nothing will send this request yet/g), 1, 'and warns, once');
$id = enqueue('y', $guest);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'seam_ik'");
$node->restart;
ok(wait_for(sub { live_keys($guest) > 0 }), 'preloaded: what waited is sent');
ok(wait_for(sub { slurp_file($node->logfile)
	=~ /WARNING: +no background worker slot is free for the outbox of database/ }), 'too few processes: a warning');
my ($has, $lacks) = worker_of('x') ne '' ? qw(x y) : qw(y x);
wait_for(sub { live_keys($guest) == ($has eq 'x' ? 3 : 1) });
sql($has, 'DROP EXTENSION seam_ik');
ok(wait_for(sub { live_keys($guest) == 4 }), 'a process is free: the other database has its turn');
my %warnings;
$warnings{$_}++
	for slurp_file($node->logfile) =~ /no background worker slot is free for the outbox of database "(\w)"/g;
is($warnings{$lacks}, 1, 'there was just one warning of it');
cmp_ok($warnings{$has} // 1, '==', 1, 'and one of the other, which had no writer');

# Under pg_upgrade.
$node->stop;
system_or_bail('pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, '-o', '-b', 'start');
sql($lacks, "SELECT seam_enqueue_instant_key('$guest')");
is(sql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'seam_ik%'"), '0',
	'nothing runs under pg_upgrade');
system_or_bail('pg_ctl', '-w', '-D', $node->data_dir, '-m', 'fast', 'stop');
is(scalar(live_keys($guest)), 4, 'and nothing is sent');
done_testing();
