# What is told from a copy, and what is not: the same data directory after a chmod, the
# same database after a restore, and a subscriber's rows.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql call live_keys sent enqueue state_of wait_state up printed);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = PostgreSQL::Test::Cluster->new('main');
my @conf = ("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = '" . $node->data_dir . "/seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', join("\n", @conf) . "\n");
api_key_file($node, 'seam_test_origin');
$node->start;

meet($node, $fake);
sub orphan
{
	my ($db, $guest) = @_;
	return sql($db, "SELECT coalesce(string_agg(status || ' ' || last_error, ' '), '-') FROM seam_instant_key_orphan " .
		"WHERE user_identity_id = '$guest'");
}

# ---------- the data directory ----------

sql('postgres', 'CREATE DATABASE inn');
sql('inn', 'CREATE EXTENSION seam_ik');
ok(up('inn'), 'a worker');
my $open = new_guest;
my $session = background($node, 'BEGIN; ' . call($open) . '; SELECT pg_sleep(600)', 'inn');
ok(wait_for(sub { live_keys($open) == 1 }), 'a call of a transaction that is open at a crash');
$node->stop('immediate');
result_of($session);
# its mode, owner, label and number of names say nothing
my $file = $node->data_dir . '/PG_VERSION';
my $changed = (stat $file)[10];
ok(wait_for(sub { chmod($_, $file) == 1 or die $! for 0640, 0600; (stat $file)[10] != $changed }), 'chmod');
link $file, "$file.backup" or die $!;
$node->start;
ok(up('inn'), 'a worker again');
ok(wait_for(sub { ask($node, UNSETTLED, 'inn') eq '0' }), 'which has done what it had to');
# where files have no birth time, the change is all that is known
my ($born) = run_command([ 'stat', '-c', '%W', $file ]);
is(orphan('inn', $open), $born =~ /^0$|-/
	? 'failed issued by a synchronous call of the database that this one is a copy of' : '-', 'it is no copy');
is(scalar(live_keys($open)), $born =~ /^0$|-/ ? 1 : 0, 'and the key is revoked');

# ---------- a dump that is restored to where it was made ----------

# works(database): a request goes its way, so the worker has looked for work
sub works
{
	my ($db) = @_;
	my $guest = new_guest;

	return wait_state($db, enqueue($db, $guest), 'issued -') && live_keys($guest) == 1;
}

# Have the worker look at everything; what it says then of those that wait.
sub warned
{
	my ($db, $n, $offset) = @_;

	$node->reload;
	return wait_for(sub { slurp_file($node->logfile, $offset)
		=~ /WARNING: +$n requests for instant keys of another database wait in the outbox of database "$db"/ });
}

sql('inn', q{CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
CREATE ROLE clerk;
GRANT EXECUTE ON FUNCTION seam_enqueue_instant_key(uuid, int, uuid, text, timestamptz, timestamptz, uuid),
	seam_instant_key_request_result(bigint) TO clerk});
my %g = map { $_ => new_guest } qw(booked clerks pending called);
sql('inn', "INSERT INTO booking VALUES (1, '$g{booked}')");
ok(wait_for(sub { sql('inn', 'SELECT count(key_id) FROM booking') eq '1' }), 'a booking has its key');
my $clerks = sql('inn', "SET ROLE clerk; SELECT seam_enqueue_instant_key('$g{clerks}')");
ok(wait_state('inn', $clerks, 'issued -'), 'as has a request of somebody');
sql('postgres', 'ALTER SYSTEM SET seam_ik.worker = off');
$node->reload;
ok(wait_for(sub { sql('inn', 'SHOW seam_ik.worker') eq 'off' }), 'no worker sends');
my $pending = enqueue('inn', $g{pending});
$session = background($node, 'BEGIN; ' . call($g{called}) . "; SELECT 'called';", 'inn');
ok(printed($session, 'called'), 'a call of an open transaction');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('inn') ], 'all that is dumped');
$session->{in} .= "COMMIT;\n";
result_of($session);
sql('postgres', 'ALTER SYSTEM RESET seam_ik.worker');
$node->reload;
ok(wait_state('inn', $pending, 'issued -'), 'what was pending gets its key afterwards');

my $offset = -s $node->logfile;
$node->command_ok([ 'pg_restore', '--clean', '--exit-on-error', '-d', $node->connstr('inn'), $dump ],
	'and all is restored to the same database');
is(state_of('inn', $pending), 'pending -', 'with what was pending');
ok(up('inn') && works('inn'), 'a new request is sent');
ok(warned('inn', 1, $offset), 'a warning');
is(state_of('inn', $pending), 'pending -', 'of what waits');
is(sent($g{pending}), 1, 'and is not sent again');
is(orphan('inn', $g{called}), '-', 'the call that was open has committed, and is not reported');
is(sql('inn', "SET ROLE clerk; SELECT (seam_instant_key_request_result($clerks)).instant_key_id"),
	join(' ', live_keys($g{clerks})), 'a role has the result of what it enqueued');
# a key that is to be revoked waits, too: the origin of a copy may go on with it
$offset = -s $node->logfile;
sql('inn', 'DELETE FROM booking');
ok(works('inn'), 'a booking is deleted');
is(scalar(live_keys($g{booked})), 1, 'its key waits');
sql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'seam_ik worker' " .
	"AND datname = 'inn'");
ok(warned('inn', 2, $offset), 'and a worker that starts says so');
is(sql('inn', 'SELECT seam_adopt_instant_key_requests()'), 2, 'adopted');
ok(wait_state('inn', $pending, 'issued -'), 'what was pending is sent now');
is(sent($g{pending}), 2, 'once more');
ok(wait_for(sub { live_keys($g{booked}) == 0 }), 'and the key is revoked');
is(sql('inn', "SET ROLE clerk; SELECT (seam_instant_key_request_result($clerks)).instant_key_id"),
	join(' ', live_keys($g{clerks})), 'a role has its result still');

# ---------- a subscriber ----------

my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->append_conf('postgresql.conf', join("\n", @conf) . "\n");
$subscriber->start;
my $publisher = $node;

# What is in a table of both, but for ids of objects that are named in one of them only.
sub rows_of
{
	my ($of, $table) = @_;

	return $of->safe_psql(
		'inn', "SELECT string_agg((to_jsonb(r) - 'target_table')::text, E'\n' ORDER BY r) FROM $table r");
}

sub are_alike
{
	my ($table) = @_;
	return wait_for(sub { rows_of($publisher, $table) eq rows_of($subscriber, $table) });
}

sql('inn', 'CREATE PUBLICATION everything FOR ALL TABLES');
$publisher->command_ok([ 'pg_dump', '-s', '-Fc', '-f', $dump, '-d', $publisher->connstr('inn') ], 'a schema');
$subscriber->safe_psql('postgres', 'CREATE ROLE clerk; CREATE DATABASE inn');
$subscriber->command_ok([ 'pg_restore', '-d', $subscriber->connstr('inn'), $dump ], 'for a subscriber');
$node = $subscriber;
meet($node);
ok(up('inn'), 'which has a worker');
$node = $publisher;
meet($node);
$subscriber->safe_psql('inn', 'CREATE SUBSCRIPTION s CONNECTION $$' . $publisher->connstr('inn') .
	'$$ PUBLICATION everything');
ok(are_alike('seam_instant_key_request'), 'former requests arrive');
sql('postgres', 'ALTER SYSTEM SET seam_ik.worker = off');
$node->reload;
ok(wait_for(sub { sql('inn', 'SHOW seam_ik.worker') eq 'off' }), 'the publisher sends nothing');
%g = map { $_ => new_guest } qw(pending cancelled called);
$pending = enqueue('inn', $g{pending});
$session = background($node, 'BEGIN; ' . call($g{called}) . "; SELECT 'called';", 'inn');
ok(printed($session, 'called'), 'and has a call of an open transaction');
$node = $subscriber;
meet($node);
ok(are_alike($_), "new rows of $_ arrive") foreach qw(seam_instant_key_request seam_instant_key_call);

# a worker that starts now, and looks at everything, leaves all as it is
$offset = -s $node->logfile;
sql('postgres', "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'seam_ik worker'");
ok(up('inn'), 'a worker starts');
ok(warned('inn', 2, $offset), 'and warns of those that wait');
is(rows_of($subscriber, $_), rows_of($publisher, $_), "$_: nothing is changed")
	foreach qw(seam_instant_key_request seam_instant_key_call);
is(sent($g{pending}), 0, 'nor sent');
is(sql('inn', 'SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> $$r$$'), 0, 'the subscriber keeps up');

# nor does it when the publisher goes on
my $cancelled = $publisher->safe_psql('inn', "SELECT seam_enqueue_instant_key('$g{cancelled}')");
$publisher->safe_psql('inn', "SELECT seam_cancel_instant_key_request($cancelled)");
$session->{in} .= "ROLLBACK;\n";
result_of($session);
$publisher->safe_psql('postgres', 'ALTER SYSTEM RESET seam_ik.worker');
$publisher->reload;
$node = $publisher;
meet($node);
ok(wait_state('inn', $pending, 'issued -') && wait_for(sub { ask($node, UNSETTLED, 'inn') eq '0' }),
	'the publisher goes on');
ok(are_alike($_), "$_ follows") foreach qw(seam_instant_key_request seam_instant_key_call);
is(join(' ', map { scalar live_keys($g{$_}) } qw(pending cancelled called)), '1 0 0', 'one worker has done it');
# until it is to go on there
sql('postgres', 'ALTER SYSTEM SET seam_ik.worker = off');
$node->reload;
ok(wait_for(sub { sql('inn', 'SHOW seam_ik.worker') eq 'off' }), 'the publisher stops');
@g{qw(late left)} = (new_guest, new_guest);
my $late = enqueue('inn', $g{late});
$session = background($node, 'BEGIN; ' . call($g{left}) . "; SELECT 'called';", 'inn');
ok(printed($session, 'called'),
	'with a request, and with a call of an open transaction');
ok(are_alike($_), "$_ follows") foreach qw(seam_instant_key_request seam_instant_key_call);
$node = $subscriber;
meet($node);
sql('inn', 'DROP SUBSCRIPTION s');
is(sql('inn', 'SELECT seam_adopt_instant_key_requests()'), 2, 'which the subscriber adopts');
ok(wait_state('inn', $late, 'issued -'), 'the request is sent there');
is(scalar(live_keys($g{late})), 1, 'once');
is(orphan('inn', $g{left}), 'failed issued by a synchronous call of the database that this one is a copy of',
	'the call is reported');
is(scalar(live_keys($g{left})), 1, 'its key is left alone');
ok(works('inn'), 'new requests have ids of their own');
result_of($session);

$_->stop foreach $publisher, $subscriber;
done_testing();
