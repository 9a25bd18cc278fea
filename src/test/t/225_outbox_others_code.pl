# Others' code and changes around the outbox: types and triggers of users, changes
# that a DBA makes to its table, sessions that hold it.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql keys_of live settled printed);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(time sleep);

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s');
api_key_file($node, 'seam_test_others');
$node->reload;

meet($node, $fake);
sub try
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err;
}
sub of
{
	return sql("SELECT string_agg(status || coalesce(' ' || sqlstate, ''), ', ' ORDER BY request_id) " .
		"FROM seam_instant_key_request WHERE user_identity_id = '$_[0]'");
}
my $fields = "'user_identity_id=guest', 'instant_key_id=key_id', 'instant_key_url=url'";
# A table with both triggers.
sub table
{
	my ($name, $columns, $more) = @_;
	sql("CREATE TABLE $name ($columns, guest uuid, key_id uuid, url text" . ($more // '') . ";
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON $name FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger($fields)");
	return;
}

# A type in a primary key runs its owner's code: never as the owner of the outbox.
sql(q{
CREATE ROLE mallory; CREATE SCHEMA m AUTHORIZATION mallory;
GRANT EXECUTE ON FUNCTION seam_keep_instant_key_trigger() TO mallory;
SET SESSION AUTHORIZATION mallory;
CREATE FUNCTION m.evil(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN IF current_user <> 'mallory' THEN
	EXECUTE 'ALTER ROLE mallory SUPERUSER'; END IF; RETURN true; END $$;
CREATE DOMAIN m.d AS int CHECK (m.evil(VALUE));
CREATE TABLE m.t (id m.d[], place int, guest uuid, key_id uuid, url text, PRIMARY KEY (id, place))
	PARTITION BY LIST (place);
CREATE TABLE m.t1 PARTITION OF m.t FOR VALUES IN (1);
CREATE TABLE m.t2 PARTITION OF m.t FOR VALUES IN (2)});
sql("SET SESSION AUTHORIZATION mallory; " .
	"CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON m.t FOR EACH ROW " .
	"EXECUTE FUNCTION seam_keep_instant_key_trigger($fields)");
my $guest = new_guest;
sql("SET SESSION AUTHORIZATION mallory; INSERT INTO m.t VALUES (array[1], 1, '$guest'); UPDATE m.t SET place = 2");
ok(settled, "a primary key whose type runs its owner's code");
is(sql('SELECT key_id FROM m.t'), live($guest), 'its row has its key');
is(sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"), 'f', 'and its owner no more rights than before');

# Who may write to the outbox cannot have other tables written.
sql(q{CREATE TABLE salary (id int PRIMARY KEY, who uuid, note text);
	INSERT INTO salary VALUES (1, '00000000-0000-4000-8000-0000000000aa', 'none');
INSERT INTO seam_instant_key_request (user_identity_id, target_table, target_key, target_fields, status,
	next_attempt_at, instant_key, system_identifier, origin)
SELECT '00000000-0000-4000-8000-0000000000aa', 'salary', '[1]', '{user_identity_id=who,instant_key_url=note}',
	'issued', now(),
	ROW(gen_random_uuid(), 'forged', '00000000-0000-4000-8000-0000000000aa', gen_random_uuid(), gen_random_uuid(), NULL,
		NULL, now(), now())::seam_instant_key, (pg_control_system()).system_identifier,
	(SELECT origin FROM seam_instant_key_request LIMIT 1);
SELECT pg_reload_conf()});
ok(settled, 'a forged request');
is(of('00000000-0000-4000-8000-0000000000aa'), 'issued 42704', 'is refused');
is(sql('SELECT note FROM salary'), 'none', 'and writes nothing');

# A trigger of the table that undoes the write-back.
table('undone', 'id int PRIMARY KEY', ')');
sql(q{CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.key_id IS NOT NULL THEN DELETE
	FROM public.undone WHERE id = NEW.id; END IF; RETURN NULL; END $$;
CREATE TRIGGER undo AFTER UPDATE ON undone FOR EACH ROW EXECUTE FUNCTION undo()});
$guest = new_guest;
sql("INSERT INTO undone VALUES (1, '$guest')");
ok(settled, 'a trigger that deletes the row as its key is written');
is(of($guest), 'revoked', 'has the key revoked');
is(live($guest), '', 'no key lives');

# A primary key that is used again.
table('b', 'id int PRIMARY KEY', ')');
my ($first, $second) = (new_guest, new_guest);
sql("INSERT INTO b VALUES (1, '$first')");
settled;
sql('UPDATE b SET id = 2');
sql("INSERT INTO b VALUES (1, '$second')");
settled;
sql('DELETE FROM b WHERE id = 1');
ok(settled, 'a primary key that is used again');
is(live($second), '', 'the key of the row that went is revoked');
is(sql('SELECT key_id FROM b WHERE id = 2'), live($first), 'and not that of the row that had it before');
# ... also where no trigger has seen it change
my $third = new_guest;
sql('SET session_replication_role = replica; UPDATE b SET id = 3 WHERE id = 2');
sql("INSERT INTO b VALUES (2, '$third')");
settled;
sql('DELETE FROM b WHERE id = 2');
ok(settled, 'a primary key that changes unseen, and is used again');
is(live($third), '', 'the key of the row that went is revoked');
is(sql('SELECT key_id FROM b WHERE id = 3'), live($first), 'and not that of the row that had it before');
# ... and one that changes while the request waits
sql('ALTER SYSTEM SET seam_ik.worker = off');
$node->reload;
wait_for(sub { sql('SHOW seam_ik.worker') eq 'off' });
my $renumbered = new_guest;
sql("INSERT INTO b VALUES (5, '$renumbered'); UPDATE b SET id = 6 WHERE id = 5");
sql('ALTER TABLE b RENAME id TO number');
sql('ALTER SYSTEM RESET seam_ik.worker');
$node->reload;
ok(settled, 'a primary key that changes, and is renamed');
is(sql('SELECT key_id FROM b WHERE number = 6'), live($renumbered), 'the row has its key');
is(length(live($renumbered)), 36, 'one');

# Rebooked to another partition, and the place given to another guest.
table('room', 'room int, day date', ', PRIMARY KEY (room, day)) PARTITION BY RANGE (day)');
sql("CREATE TABLE room26 PARTITION OF room FOR VALUES FROM ('2026-01-01') TO ('2027-01-01'); " .
	"CREATE TABLE room27 PARTITION OF room FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')");
my ($moves, $follows) = (new_guest, new_guest);
sql("INSERT INTO room VALUES (500, '2026-05-01', '$moves')");
settled;
sql("BEGIN; UPDATE room SET day = '2027-05-01' WHERE room = 500; " .
	"INSERT INTO room VALUES (500, '2026-05-01', '$follows'); COMMIT");
ok(settled, 'a row that moves, and another one in its place');
is(sql("SELECT key_id FROM room WHERE guest = '$_'"), live($_), 'each has its key') foreach $moves, $follows;
is(length(live($follows)), 36, 'also the second');
# A booking that an older snapshot does not see is not gone.
my $same = new_guest;
sql('ALTER SYSTEM SET seam_ik.worker = off');
$node->reload;
wait_for(sub { sql('SHOW seam_ik.worker') eq 'off' });
my $s = background($node, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'seen ' || count(*) FROM room;");
printed($s, 'seen');
sql("INSERT INTO room VALUES (101, '2026-05-01', '$same')");
$s->{in} .= "INSERT INTO room VALUES (101, '2026-05-02', '$same'); COMMIT;\n";
result_of($s);
sql('ALTER SYSTEM RESET seam_ik.worker');
$node->reload;
ok(settled, 'two days of a room, by two snapshots');
is(sql("SELECT count(DISTINCT key_id) FROM room WHERE guest = '$same'"), '2', 'are two keys');
# Bookings of one room do not wait for each other.
$s = background($node, "BEGIN; INSERT INTO room VALUES (102, '2026-05-01', '" . new_guest . "'); SELECT 'held';");
printed($s, 'held');
my $begin = time;
my $free = new_guest;
sql("SET lock_timeout = '60s'; INSERT INTO room VALUES (102, '2026-05-02', '$free')");
ok(wait_for(sub { of($free) eq 'issued' }), 'another booking of the same room');
cmp_ok(time - $begin, '<', 30, 'does not wait');
$s->{in} .= "COMMIT;\n";
result_of($s);

# A temporary table is of one session.
like(try("CREATE TEMP TABLE t (id int PRIMARY KEY, guest uuid, key_id uuid, url text);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger($fields);
	INSERT INTO t VALUES (1, gen_random_uuid())"), qr/ERROR:  0A000: /, 'a temporary table');

# What a DBA does to the table, and sessions in subtransactions.
sql('ALTER TABLE seam_instant_key_request ADD CONSTRAINT few CHECK (max_use_count < 100)');
like(try("SELECT seam_enqueue_instant_key(gen_random_uuid(), 100)"), qr/ERROR:  23514: /, 'a constraint of the DBA');
sql('ALTER TABLE seam_instant_key_request DROP CONSTRAINT few');
my $truncating = new_guest;
is(try("BEGIN; SELECT seam_enqueue_instant_key('$truncating');
DO \$\$ BEGIN BEGIN TRUNCATE seam_instant_key_request; PERFORM seam_enqueue_instant_key(gen_random_uuid());
	RAISE EXCEPTION 'x'; EXCEPTION WHEN raise_exception THEN NULL; END; END \$\$;
SELECT seam_enqueue_instant_key('$truncating'); COMMIT"), '', 'TRUNCATE in a subtransaction that rolls back');
ok(settled, '(settled)');
is(of($truncating), 'issued, issued', 'loses nothing');
sql('CREATE DATABASE fresh');
is(scalar(($node->psql('fresh', "DO \$\$ BEGIN BEGIN CREATE EXTENSION seam_ik; " .
	"PERFORM seam_enqueue_instant_key(gen_random_uuid()); RAISE EXCEPTION 'x'; " .
	"EXCEPTION WHEN raise_exception THEN NULL; END; END \$\$"))[2]), '', 'CREATE EXTENSION in one');

# A session that has locked a request in doubt: it is not asked for again and again.
my $held = new_guest;
$fake->behave($held, 'route=generate_instant_key,reset', 1);
my $id = sql("SELECT seam_enqueue_instant_key('$held')");
wait_for(sub { of($held) eq 'in_flight 08007' });
$s = background($node, "BEGIN; SELECT 'held ' || seam_cancel_instant_key_request($id);");
printed($s, 'held');
sleep 2;
cmp_ok(scalar(grep { $_->{path} =~ m{/instant_keys/list} && $_->{body} =~ /\Q$held\E/ } $fake->requests), '<=', 3,
	'a doubt that a session has locked');
$free = new_guest;
sql("SELECT seam_enqueue_instant_key('$free')");
ok(wait_for(sub { of($free) eq 'issued' }), 'others go on');
$s->{in} .= "COMMIT;\n";
result_of($s);
ok(settled, 'and it is settled afterwards');
is(of($held), 'revoked', 'as the session wanted');

# A trigger that does not let itself be cancelled.
table('stubborn', 'id int PRIMARY KEY', ')');
sql(q{CREATE FUNCTION hangs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN LOOP BEGIN PERFORM pg_sleep(1);
	EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$;
CREATE TRIGGER hangs BEFORE UPDATE ON stubborn FOR EACH ROW EXECUTE FUNCTION hangs()});
my ($stuck, $next) = (new_guest, new_guest);
sql("INSERT INTO stubborn VALUES (1, '$stuck')");
wait_for(sub { of($stuck) eq 'issued' });
sql("SELECT seam_enqueue_instant_key('$next')");
ok(wait_for(sub { of($next) eq 'issued' }), 'a trigger that catches the cancel stops the others for seconds only');
ok(wait_for(sub { sql("SELECT next_attempt_at > now() + interval '2 s' FROM seam_instant_key_request " .
	"WHERE user_identity_id = '$stuck'") eq 't' }), 'and its row is put off');
ok(wait_for(sub { sql("SELECT max(stuck) > 1 FROM seam_instant_key_writing
	WHERE not_before > now() + interval '10 s'") eq 't' }), 'for longer the next time');
my $after = new_guest;
sql("SELECT seam_enqueue_instant_key('$after')");
ok(wait_for(sub { of($after) eq 'issued' }), 'others go on');
sql('DROP TRIGGER hangs ON stubborn; SELECT seam_cancel_instant_key_request(request_id)
	FROM seam_instant_key_request WHERE user_identity_id = ' . "'$stuck'");
ok(settled, 'and when it is away');
is(of($stuck) . live($stuck), 'revoked', 'all is well');

$node->stop('immediate');
done_testing();
