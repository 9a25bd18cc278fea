# A result that cannot be stored, because a constraint or a trigger of the owner on the
# outbox's table refuses it, stops nobody else, and is stored when it can be.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql call keys_of live asked lists_of mark calls enqueue status wait_state sent wait_sent
	quiet set worker_of logged);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

# Sessions that call at once: more than are recorded in one transaction where one is refused.
use constant CALLS => 70;

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_unstorable'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.settle_delay = 1s', 'seam_ik.max_concurrency = 200');

meet($node, $fake);
my $table = 'seam_instant_key_request';
sql("CREATE FUNCTION public.refuses() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN RAISE ''refuses''; END'");
sub enqueue_all { return sql(join '', map { "SELECT seam_enqueue_instant_key('$_');" } @_); }
sub without_key { return sql("SELECT count(*) FROM $table WHERE status NOT IN ('issued', 'revoked')"); }

# Their answers come all at once, so that they would be stored together.
sub all_at_once
{
	my (@guests) = @_;
	$fake->behave('*', 'hold', scalar(@guests));
	enqueue_all(@guests);
	wait_for(sub { $fake->ask('stats')->{in_flight} >= @guests }) or die 'they are not sent';
	$fake->release;
	return;
}

# ---------- a constraint ----------

my @guests = map { new_guest } 1 .. 150;
my @refused = @guests[ 3, 70 ];
my $list = join ',', map { "'$_'" } @refused;
my $log = -s $node->logfile;
sql("ALTER TABLE $table ADD CONSTRAINT no_key CHECK (status <> 'issued' OR user_identity_id NOT IN ($list))");
all_at_once(@guests);
ok(wait_for(sub { without_key() eq '2' }), 'a constraint refuses two keys: the others are stored');
is(join(' ', map { status(sql("SELECT request_id FROM $table WHERE user_identity_id = '$_'")) } @refused),
	'in_flight in_flight', 'those two are not');
my $guest = new_guest;
my $id = enqueue($guest);
ok(wait_state('postgres', $id, 'issued -'), 'what comes later is issued');
like(logged($log), qr/WARNING: .*could not store what came of request \d+: new row .*"no_key"/, 'the log tells why');
is(scalar(() = logged($log) =~ /could not store/g), 2, 'once for each');
unlike(logged($log), qr/WARNING: .*\n.*ik\.seam\.co|DETAIL/, 'but nothing of the key');
sql("ALTER TABLE $table DROP CONSTRAINT no_key");
ok(wait_for(sub { without_key() eq '0' }), 'they are stored when they can be');
is(join(' ', map { scalar keys_of($_) } @refused), '1 1', 'the keys that were issued');
is(join(' ', map { lists_of($_) } @refused), '0 0', 'Seam is not asked for them again');

# the same by a trigger that runs at the commit
@guests = map { new_guest } 1 .. 10;
sql("CREATE CONSTRAINT TRIGGER no_key AFTER UPDATE ON $table DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
	WHEN (new.user_identity_id = '$guests[3]' AND new.status = 'issued') EXECUTE FUNCTION public.refuses()");
all_at_once(@guests);
ok(wait_for(sub { without_key() eq '1' }), 'a deferred trigger refuses one key: the others are stored');
sql("DROP TRIGGER no_key ON $table");
ok(wait_for(sub { without_key() eq '0' }), 'and that one when it can be');

# ---------- what calls that rolled back have left ----------

sql("ALTER TABLE $table ADD CONSTRAINT few_uses CHECK (max_use_count < 100)");
my ($unstorable, @storable) = map { new_guest } 1 .. 3;
$log = -s $node->logfile;
is(($node->psql('postgres', "SELECT seam_generate_instant_key('$unstorable', 100)"))[0], 3,
	"a constraint refuses a call's request");
sql("BEGIN; SELECT seam_generate_instant_key('$_', 1); ROLLBACK") foreach @storable;
ok(wait_for(sub { !grep { live($_) ne '' } @storable }), "others' keys are revoked all the same");
isnt(live($unstorable), '', 'this one cannot be');
like(logged($log), qr/WARNING: .*could not note what a call that rolled back has left: .*"few_uses"/, 'the log tells');
sql("ALTER TABLE $table DROP CONSTRAINT few_uses");
ok(wait_for(sub { live($unstorable) eq '' }), 'and is when it can be');

# ---------- a call that cannot be recorded ----------

# All wait until the worker, which is stopped, records them together.
my $journal = 'seam_instant_key_call';
sub waiting { return sql("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT seam%'
	AND wait_event_type = 'Extension'"); }
foreach my $how ("ALTER TABLE $journal ADD CONSTRAINT refuses CHECK (user_identity_ids[1] <> 'GUEST')",
	"CREATE INDEX refuses ON $journal ((1 / (user_identity_ids[1] <> 'GUEST')::int))")
{
	my $bad = new_guest;
	my $others = PostgreSQL::Test::Utils::tempdir() . '/calls';
	my ($out, $err);
	my $worker = worker_of();
	my $last = mark();

	append_to_file($others, "SELECT seam_generate_instant_key(gen_random_uuid());\n");
	sql($how =~ s/GUEST/$bad/r);
	kill 'STOP', $worker;
	my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', CALLS, '-t', 1, '-f', $others, $node->connstr('postgres') ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(HANGS));
	wait_for(sub { waiting() == CALLS });
	my $refused = background($node, "SELECT seam_generate_instant_key('$bad');");
	ok(wait_for(sub { waiting() == CALLS + 1 }), "many calls wait to be recorded, and one cannot be: $how");
	kill 'CONT', $worker;
	$bench->finish;
	like($out, qr{processed: ${\ CALLS}/${\ CALLS}}, 'the others are made');
	like((result_of($refused))[0],
		qr/ERROR:  55000: the worker of seam_ik could not record the call: (new row .*"refuses"|division by zero)/,
		'that one is refused, and told why');
	is(scalar(calls($last, $bad)), 0, 'nothing was sent for it');
	sql($how =~ /^ALTER/ ? "ALTER TABLE $journal DROP CONSTRAINT refuses" : 'DROP INDEX refuses');
	ok(quiet(), 'all is settled');
	like(sql(call($bad)), qr/^[0-9a-f-]{36}$/, 'it is made when it can be');
}

# ---------- a trigger, and a request in doubt ----------

sql("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
	CREATE TRIGGER refuse BEFORE UPDATE ON $table FOR EACH ROW
	WHEN (new.user_identity_id = '$refused[0]' AND new.status = 'revoked') EXECUTE FUNCTION public.refuse()");
sql("SELECT seam_cancel_instant_key_request(request_id) FROM $table");
ok(wait_for(sub { sql("SELECT count(*) FROM $table WHERE status <> 'revoked'") eq '1' }),
	'a trigger refuses a revocation: the others are stored');
is(live($refused[0]), '', 'the key is revoked');
my $doubted = new_guest;
$fake->behave($doubted, 'reset_after', 1);
$id = enqueue($doubted);
ok(wait_state('postgres', $id, 'issued -'), 'a lost answer is found meanwhile');
is(scalar(keys_of($doubted)), 1, 'and kept');

# ---------- a claim ----------

# What cannot be claimed is not sent, and stops nobody either.
sql("DROP TRIGGER refuse ON $table");
ok(wait_for(sub { without_key() eq '0' }), 'the revocation is stored when it can be');
@guests = map { new_guest } 1 .. 20;
sql("CREATE TRIGGER refuse BEFORE UPDATE ON $table FOR EACH ROW
	WHEN (new.user_identity_id = '$guests[4]' AND new.status = 'in_flight') EXECUTE FUNCTION public.refuse()");
enqueue_all(@guests);
ok(wait_for(sub { without_key() eq '1' }), 'a request that cannot be claimed stops no other');
is(sent($guests[4]), 0, 'it is not sent');
sql("DROP TRIGGER refuse ON $table");
ok(wait_for(sub { live($guests[4]) }), 'it is when it can be');

# ---------- a lock ----------

# The outbox is locked, by DDL say, for longer than the worker waits for a lock.
my $held = new_guest;
$fake->behave($held, 'hold', 1);
my $held_id = enqueue($held);
wait_sent($held);
$log = -s $node->logfile;
my $locking = background($node, "BEGIN; LOCK TABLE $table IN ACCESS EXCLUSIVE MODE; SELECT 'locked';");
$locking->{run}->pump until $locking->{out} =~ /locked/;
$fake->release($held);
ok(wait_for(sub { logged($log) =~ /could not .*lock timeout/ }), 'a lock on the outbox is told of when it lasts');
$locking->{in} .= "COMMIT;\n";
result_of($locking);
$guest = new_guest;
$id = enqueue($guest);
ok(wait_state('postgres', $_, 'issued -'), 'the worker goes on afterwards') foreach $held_id, $id;
is(scalar(keys_of($held)), 1, 'with the answer that came meanwhile');

# ---------- a list that is too long ----------

# It is an answer that cannot be used: the doubt waits for another one.
$guest = new_guest;
$fake->behave($guest, 'route=generate_instant_key,reset_after', 1);
$fake->behave($guest, 'route=list,big=1200000');
$id = enqueue($guest);
ok(wait_for(sub { lists_of($guest) >= 2 }), 'a list of more than a megabyte is asked for again');
ok(wait_for(sub { sql("SELECT error FROM $table WHERE request_id = $id") =~
	/could not look for an instant key: Seam's answer is too large/ }), 'the request says why');
is(status($id), 'in_flight', 'it is still in doubt');
is(sent($guest), 1, 'no other key is asked for');
$fake->behave($guest, '');
ok(wait_state('postgres', $id, 'issued -'), 'a shorter one settles it');
is(scalar(keys_of($guest)), 1, 'with the key that was issued');

$node->stop;
done_testing();
