# seam_ik_pause() and seam_ik_resume(): what waits meanwhile, and what goes on.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql answers error_of call live sent wait_sent enqueue status wait_state quiet worker_of up
	logged);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_pause'",
	"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '1s'", 'max_prepared_transactions = 2',
	'restart_after_crash = on');
meet($node, $fake);
sql(q{CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid);
	CREATE TRIGGER k AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')});

# The worker has taken a turn that began after this was called: it has told of a request
# that was cancelled.
sub turn
{
	my ($id) = sql('BEGIN; SELECT seam_cancel_instant_key_request(seam_enqueue_instant_key(gen_random_uuid()));
		SELECT max(request_id) FROM seam_instant_key_request; COMMIT') =~ /(\d+)$/;
	ok(wait_for(sub { sql("SELECT next_attempt_at IS NULL FROM seam_instant_key_request WHERE request_id = $id") eq
		't' }), 'the worker has taken a turn') or die;
	return;
}

# It is paused: a new request is not sent; its guest and its id.
sub waits
{
	my ($how) = @_;
	my $guest = new_guest();
	my $id = enqueue($guest);

	turn();
	is(sent($guest) . status($id), '0pending', "$how: nothing is sent");
	return ($guest, $id);
}

sub works { my ($how) = @_; my $id = enqueue(new_guest()); return ok(wait_for(sub { status($id) eq 'issued' }), $how); }

works('a worker');
my $under_way = new_guest();
$fake->behave($under_way, 'hold,route=generate_instant_key', 1);
sql("INSERT INTO booking VALUES (1, '$under_way')");
ok(wait_sent($under_way), 'a call is under way');
my $from = -s $node->logfile;
sql("BEGIN; SELECT seam_ik_pause('not this time'); ROLLBACK");
works('a pause that is rolled back is none');
sql("SELECT seam_ik_pause('Seam moves')");
ok(wait_for(sub { logged($from) =~ /LOG: .*outbox of database "postgres" is paused: Seam moves/ }), 'the log tells');
my ($guest, $id) = waits('paused');
is(sql('SELECT reason, since BETWEEN now() - interval \'1 min\' AND now() FROM seam_ik_paused'), 'Seam moves|t',
	'a row says why');
$fake->release($under_way);
ok(answers('postgres', 'SELECT key_id FROM booking', live($under_way)), 'what was under way is stored and written');

# sessions' own calls go on; what they leave behind waits
my $walk_in = new_guest();
my $key = sql(call($walk_in));
is(live($walk_in), $key, 'a call inside a transaction is made');
my $gone = new_guest();
sql('BEGIN; ' . call($gone) . '; ROLLBACK');
turn();
isnt(live($gone), '', 'the key of one that rolled back waits');
sql('CREATE DATABASE other; ');
sql('other', 'CREATE EXTENSION seam_ik');
my $elsewhere = new_guest();
my $there = enqueue('other', $elsewhere);
ok(wait_for(sub { status('other', $there) eq 'issued' }), 'another database goes on');

# it lasts
sql("SELECT seam_ik_pause('Seam still moves')");
is(sql('SELECT string_agg(reason, \',\') FROM seam_ik_paused'), 'Seam still moves', 'another reason takes its place');
my $pid = worker_of();
kill 'KILL', $pid;
ok(up('postgres', $pid), 'a new worker');
waits('after a crash');
$node->restart;
meet($node, $fake);
ok(up('postgres'), 'a restart');
waits('after a restart');
sql('SELECT pg_reload_conf()');
waits('after a reload');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE status = 'pending'"), 4, 'four requests wait');

$from = -s $node->logfile;
sql('SELECT seam_ik_resume()');
my $resumed = time;
ok(wait_for(sub { status($id) eq 'issued' }), 'resumed: it is sent');
cmp_ok(time - $resumed, '<', 20, 'at once, and not when the worker looks by itself');
ok(quiet(), 'all are');
is(live($gone), '', 'the key that was rolled back is revoked');
is(live($walk_in), $key, 'and no other');
like(logged($from), qr/LOG: .*outbox of database "postgres" goes on after a pause/, 'the log tells');
sql('SELECT seam_ik_resume()');
works('resumed twice');

# by a prepared transaction
sql("BEGIN; SELECT seam_ik_pause('prepared'); PREPARE TRANSACTION 'p'");
works('a pause that is only prepared');
sql("COMMIT PREPARED 'p'");
waits('committed');
sql('SELECT seam_ik_resume()');
ok(quiet(), 'and ended');

like(error_of('SELECT seam_ik_pause(NULL)'), qr/^22004/, 'a reason must be given');
like(error_of("SELECT seam_ik_pause(repeat('x', 201))"), qr/^22001/, 'of 200 bytes at most');
sql("BEGIN; SELECT seam_ik_pause(repeat('x', 200)); ROLLBACK");
sql('CREATE ROLE clerk; CREATE ROLE watch IN ROLE pg_monitor');
like(error_of("SET ROLE watch; SELECT $_"), qr/^42501/, "$_ is for whom it is granted to")
	for "seam_ik_pause('x')", 'seam_ik_resume()';
is(sql('SET ROLE watch; SELECT count(*) FROM seam_ik_paused'), 0, 'but pg_monitor sees a pause');
sql("GRANT EXECUTE ON FUNCTION seam_ik_pause(text), seam_ik_resume() TO clerk");
sql("SET ROLE clerk; SELECT seam_ik_pause('mine')");
waits('EXECUTE is all it takes');
sql('SET ROLE clerk; SELECT seam_ik_resume()');
ok(quiet(), 'to end it, too');

# what somebody has done to the table neither runs in the worker nor stops it
sql(q{CREATE ROLE tenant; ALTER TABLE seam_ik_paused OWNER TO tenant;
	CREATE FUNCTION fails() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'not in this role'; END $$;
	ALTER TABLE seam_ik_paused ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON seam_ik_paused USING (fails())});
works('a policy on the table');
sql('ALTER EXTENSION seam_ik DROP VIEW seam_ik_activity; DROP VIEW seam_ik_activity;
	ALTER EXTENSION seam_ik DROP TABLE seam_ik_paused; DROP TABLE seam_ik_paused');
works('no table');

$node->stop('immediate');
done_testing();
