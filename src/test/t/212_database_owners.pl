# What the owner of a database, or of the outbox's table, does there: locks, another owner,
# ALTER DATABASE ... SET, DROP DATABASE.  It stops no other database's queue, nor its own
# without a word.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql asked wait_sent enqueue busy status worker_of up);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep time);

my $fake = FakeSeam->start;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', join("\n",
	"shared_preload_libraries = 'seam_ik'",
	"seam_ik.endpoint = '" . $fake->url . "'",
	"seam_ik.api_key_file = 'key_file'",
	# longer than this test waits for anything
	'seam_ik.request_timeout = 600s',
	# tells of each process that is started
	'log_min_messages = debug1',
	'max_worker_processes = 16') . "\n");
foreach my $name (qw(file file2 database database2 role role_database everywhere line))
{
	api_key_file($node, "seam_test_$name", "key_$name");
}
meet($node, $fake);

# works(database, name): a request goes its way
sub works
{
	my ($db, $name) = @_;
	my $id = enqueue($db, new_guest);

	ok(wait_for(sub { status($db, $id) eq 'issued' }), $name);
	return;
}

# lines(pattern, from): of the server log that match
sub lines
{
	my ($pattern, $from) = @_;
	my @lines = grep { /$pattern/ } split /\n/, slurp_file($node->logfile, $from // 0);
	return @lines;
}

$node->start;
sql('postgres', 'CREATE ROLE tenant LOGIN');
sql('postgres', "CREATE DATABASE $_") for qw(d owned);
sql('postgres', 'CREATE DATABASE trap OWNER tenant');
sql('d', 'CREATE EXTENSION seam_ik');
ok(up('d'), 'a worker');
works('d', 'which works');

# ---------- ALTER DATABASE ... SET while a call is under way ----------

my $passed;				# was the machine quick enough for a case?

# The API key with which a new request is sent.
sub key_used
{
	my $guest = new_guest;
	my $id = enqueue('d', $guest);

	wait_for(sub { status('d', $id) eq 'issued' }) or return 'none';
	my %header = map { @$_ } map { @{ $_->{headers} } } asked($guest);
	return $header{Authorization} =~ /^Bearer seam_test_(\w+)$/ ? $1 : '';
}

# becomes(key, name): new requests have this API key, and it is the same worker that sends
# them
my $pid = worker_of('d');
sub becomes
{
	my ($key, $name) = @_;

	reread($node, 'd');
	is(key_used(), $key, $name);
	is(worker_of('d'), $pid, '(by the same worker)');
	return;
}

my $set = 'SET seam_ik.api_key_file =';
my $reset = 'RESET seam_ik.api_key_file';
is(key_used(), 'file', 'the key of the configuration file');
my (undef, $id) = busy('d');
my $guest = new_guest;
$fake->behave($guest, 'delay=3000');
my $slow = enqueue('d', $guest);
wait_sent($guest);
sql('postgres', "ALTER DATABASE d $set 'key_database'");
becomes('database', 'ALTER DATABASE SET is obeyed while a call is under way');
is(status('d', $id), 'in_flight', '(which it is)');
sql('postgres', "ALTER DATABASE d $set 'key_database2'");
becomes('database2', 'another value');
my $owner = sql('d', "SELECT quote_ident(extowner::regrole::text) FROM pg_extension WHERE extname = 'seam_ik'");
sql('postgres', "ALTER ROLE ALL $set 'key_everywhere'; ALTER ROLE $owner $set 'key_role'");
becomes('role', "the owner's comes before the database's");
sql('postgres', "ALTER ROLE $owner IN DATABASE d $set 'key_role_database'");
becomes('role_database', 'and that in this database before all');
sql('postgres', "ALTER ROLE $owner $reset; ALTER ROLE $owner IN DATABASE d $reset");
becomes('database2', "RESET of the two: the database's comes before everybody's");
# the file's value is hidden
$node->append_conf('postgresql.conf', "seam_ik.api_key_file = 'key_file2'");
sql('postgres', "ALTER DATABASE d RESET ALL");
becomes('everywhere', 'RESET ALL of the database');
sql('postgres', "ALTER ROLE ALL $reset");
becomes('file2', 'of the last one: what the configuration file says now');
sql('postgres', "ALTER DATABASE d $set 'key_database'");
becomes('database', '(set again)');
$node->append_conf('postgresql.conf', "seam_ik.api_key_file = 'key_file'");
sql('postgres', "ALTER DATABASE d $reset");
becomes('file', 'RESET, and another value in the file at the same reload');
# a file with an error is not read, but what databases have is obeyed
$node->append_conf('postgresql.conf', 'nonsense nonsense nonsense');
sql('postgres', "ALTER DATABASE d $set 'key_database'");
becomes('database', 'beside an error in the configuration file');
$node->adjust_conf('postgresql.conf', 'nonsense', undef);
sql('postgres', "ALTER DATABASE d $reset");
becomes('file', 'and without it');
is(sql('d', "SELECT status, attempts FROM seam_instant_key_request WHERE request_id = $id"), 'in_flight|1',
	'the call is still under way');
ok(wait_for(sub { status('d', $slow) eq 'issued' }), 'one that was, too, has come to its end');
is(scalar(grep { $_->{user_identity_id} eq $guest } $fake->keys), 1, 'with one key');
is(sql('d', "SELECT attempts FROM seam_instant_key_request WHERE request_id = $slow"), '1', 'at the first attempt');

# the former API key's refusal is not the new one's
my ($key, $from) = ('file');
foreach my $n (1 .. 5)
{
	$guest = new_guest;
	$fake->behave($guest, 'status=401,delay=' . 1000 * $n, 1);
	$slow = enqueue('d', $guest);
	wait_sent($guest);
	$key = $key eq 'file' ? 'database' : 'file';
	sql('postgres', "ALTER DATABASE d $set 'key_$key'");
	$from = -s $node->logfile;
	reread($node, 'd');
	# (a busy machine may be slower than this answer)
	$passed = status('d', $slow) eq 'in_flight';
	works('d', "beside a former key's call");
	ok(wait_for(sub { status('d', $slow) eq 'issued' }), 'which is refused, and made again');
	last if $passed;
}
ok($passed, 'which was under way');
is_deeply([ lines('did not accept the API key', $from) ], [], 'the queue does not wait');
sql('postgres', "ALTER DATABASE d $reset");
becomes('file', '(as before)');

# ---------- DROP DATABASE with calls under way ----------

sql('postgres', 'CREATE DATABASE dropped');
sql('dropped', 'CREATE EXTENSION seam_ik');
my @guests = map { (busy('dropped'))[0] } 1 .. 2;
# (a lost answer)
my $lost = new_guest;
$fake->behave($lost, 'reset_after');
$id = enqueue('dropped', $lost);
ok(wait_for(sub { sql('dropped', "SELECT status || sqlstate FROM seam_instant_key_request " .
	"WHERE request_id = $id") eq 'in_flight08007' }), 'an answer is lost');
$from = -s $node->logfile;
sql('postgres', 'ALTER DATABASE dropped RENAME TO dropped2');
ok(up('dropped2'), 'a RENAME brings the worker back');
is_deeply([ lines('may exist', $from) ], [], 'without a word');
push @guests, (busy('dropped2'))[0];
sql('postgres', 'DROP DATABASE dropped2');
my ($warning) = lines('WARNING: .*database "dropped2".*may exist', $from);
ok($warning, 'DROP DATABASE: a warning') or diag slurp_file($node->logfile, $from);
my ($detail) = lines('DETAIL: .*User identities', $from);
like($detail // '', qr/$_/, "which names $_") foreach @guests, $lost;
sql('postgres', 'CREATE DATABASE dropped');
sql('dropped', 'CREATE EXTENSION seam_ik');
@guests = map { (busy('dropped'))[0] } 1 .. 2;
$from = -s $node->logfile;
sql('dropped', 'DROP EXTENSION seam_ik');
ok(wait_for(sub { lines('DETAIL: .*User identities', $from) }), 'DROP EXTENSION: likewise');
($detail) = lines('DETAIL: .*User identities', $from);
like($detail // '', qr/$_/, "which names $_") foreach @guests;

# ---------- another owner of the outbox ----------

sql('owned', 'CREATE EXTENSION seam_ik');
ok(up('owned'), 'a worker');
foreach my $table (qw(seam_instant_key_request seam_instant_key_call seam_instant_key_writing))
{
	$from = -s $node->logfile;
	my $blocked = sub { return lines('WARNING: .*the outbox of database "owned" has no worker', $from); };
	sql('owned', "ALTER TABLE $table OWNER TO tenant");
	$id = sql('owned', 'SELECT seam_enqueue_instant_key(gen_random_uuid())');
	ok(wait_for($blocked), "ALTER TABLE $table OWNER TO: a warning");
	ok(wait_for(sub { worker_of('owned') eq '' }), 'the worker has left');
	# it would have come back by then: a restart waits for a second, this for three
	sleep 3;
	my $started = 'starting background worker process "seam_ik (?:probe|worker) for database owned"';
	is(scalar(lines($started, $from)), 1, 'no process is started again but one that looks');
	works('d', 'another database goes on');
	is(scalar($blocked->()), 1, 'there is one warning');
	is(status('owned', $id), 'pending', 'the request waits');
	sql('owned', "ALTER TABLE $table OWNER TO $owner");
	ok(wait_for(sub { status('owned', $id) eq 'issued' }), 'and is sent when the owner is the same again');
}
sql('owned', 'ALTER TABLE seam_instant_key_request RENAME TO hidden');
ok(wait_for(sub { worker_of('owned') eq '' && lines('WARNING: .*the outbox of database "owned" has no worker',
	$from) == 2 }), 'without its table: no worker either');
sql('owned', 'ALTER TABLE hidden RENAME TO seam_instant_key_request');
works('owned', 'until it is back');

# ---------- a database whose catalogs are locked by its owner ----------

my $as_tenant = 'SET SESSION AUTHORIZATION tenant;';
my $holds = background($node, "$as_tenant BEGIN; LOCK TABLE pg_catalog.pg_extension IN ACCESS SHARE MODE; " .
	"SELECT pg_sleep(600);", 'trap');
my $locks = "SELECT count(*) FROM pg_locks WHERE relation = 'pg_catalog.pg_extension'::regclass " .
	"AND database = (SELECT oid FROM pg_database WHERE datname = 'trap')";
ok(wait_for(sub { sql('postgres', "$locks AND mode = 'AccessShareLock' AND granted") eq '1' }),
	'its owner reads a catalog');
my $wants = background($node, "$as_tenant VACUUM FULL pg_catalog.pg_extension;", 'trap');
ok(wait_for(sub { sql('postgres', "$locks AND NOT granted") eq '1' }), 'and wants it for himself');
my $looks = background($node, 'CREATE SCHEMA empty; DROP SCHEMA empty;', 'trap');
my $probe = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik probe' AND datname = 'trap' " .
	"AND wait_event_type = 'Lock'";
# (a busy machine may be slower than a probe waits)
$passed = 0;
foreach my $n (1 .. 5)
{
	sql('postgres', "CREATE DATABASE fresh$n");
	wait_for(sub { $pid = sql('postgres', $probe); $pid ne '' }) or last;
	sql("fresh$n", 'CREATE EXTENSION seam_ik');
	ok(up("fresh$n"), 'another database gets its worker');
	$passed = sql('postgres', $probe) eq $pid;
	works("fresh$n", 'which works');
	last if $passed;
}
ok($passed, 'while the same probe waits');
ok(wait_for(sub { sql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") eq '0' }),
	'the probe does not wait for ever');
ok(wait_for(sub { lines('WARNING: .*database "trap"') }), 'which is told');
kill 'TERM', $_->{pid} foreach $holds, $wants;
result_of($_) foreach $holds, $wants, $looks;
sql('trap', 'CREATE EXTENSION seam_ik');
ok(up('trap'), 'and when nothing is locked any more, it is looked at again');
is(scalar(lines('WARNING: .*database "trap"')), 1, 'there is one warning');

# ---------- a setting of the command line ----------

$node->stop;
system_or_bail('pg_ctl', '-w', '-s', '-D', $node->data_dir, '-l', $node->logfile, '-o',
	'-c seam_ik.api_key_file=key_line', 'start');
ok($pid = up('d'), 'a worker');
becomes('line', 'a setting of the command line');
sql('postgres', "ALTER DATABASE d $set 'key_database'");
becomes('database', "a database's hides it");
sql('postgres', "ALTER DATABASE d $reset");
becomes('line', 'until it is RESET');
system_or_bail('pg_ctl', '-w', '-s', '-D', $node->data_dir, '-m', 'fast', 'stop');
done_testing();
