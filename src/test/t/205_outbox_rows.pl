# The outbox's triggers: keys that are written to rows, and revoked with them.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql error_of keys_of live columns_of mark calls settled pause go_on printed);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep time);

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_rows'",
	"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '1s'", 'max_prepared_transactions = 2',
		'wal_level = logical');
meet($node, $fake);

# The requests for an identity: statuses, or another column.
sub of { return columns_of($_[0], $_[1] // 'status'); }

# the first call for an identity waits for $fake->release
sub slow { $fake->behave($_[0], 'route=generate_instant_key,hold', 1); return; }
sub in_flight
{
	my @who = @_;
	my $list = join(', ', map { "'$_'" } @who);
	return wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE status = 'in_flight' " .
		"AND user_identity_id IN ($list)") == @who });
}

# The trigger for a table.
my $keep = "EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')";
sub triggers
{
	my ($table) = @_;
	return "CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON $table FOR EACH ROW $keep;";
}

# ---------- every field ----------

sql(q{
CREATE TABLE booking (id int PRIMARY KEY, guest uuid, nights int, profile uuid, key_id uuid, url text, session uuid,
	workspace varchar(36), look jsonb, made timestamptz, ends timestamptz, note text DEFAULT 'as it was');
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'max_use_count=nights',
	'customization_profile_id=profile',
	'instant_key_id=key_id', 'instant_key_url=url', 'client_session_id=session', 'workspace_id=workspace',
		'customization=look', 'created_at=made', 'expires_at=ends');
});
my $who = new_guest();
sql("INSERT INTO booking VALUES (1, '$who', 3, 'aaaaaaaa-0000-4000-8000-000000000000')");
ok(settled, 'a booking');
is(sql(q{SELECT count(*) FROM booking b JOIN seam_instant_key_request r ON guest = user_identity_id
	AND (key_id, url, session, workspace, look, made, ends) =
	((instant_key).instant_key_id, (instant_key).instant_key_url, (instant_key).client_session_id,
		(instant_key).workspace_id::text, (instant_key).customization, (instant_key).created_at,
		(instant_key).expires_at)
	WHERE nights = r.max_use_count AND profile = r.customization_profile_id AND status = 'issued'
		AND target_table = 'booking'::regclass AND note = 'as it was' AND error IS NULL}), 1, 'gets every field');
is(live($who), sql('SELECT key_id FROM booking'), 'of its live key');
is((calls(0, $who))[0]{body} =~ /"max_use_count":3\D/ && scalar(calls(0, $who)), 1, 'by one call');

my $mark = mark;
sql('INSERT INTO booking VALUES (2, NULL, 3)');
is(sql('SELECT count(*) FROM seam_instant_key_request'), 1, 'no identity: nothing is enqueued');
$who = new_guest();
sql("BEGIN; INSERT INTO booking VALUES (3, '$who', 3); ROLLBACK; BEGIN; SAVEPOINT a; " .
	"INSERT INTO booking VALUES (3, '$who', 3); ROLLBACK TO a; COMMIT");
is(of($who), '', 'nor by what is rolled back');
sql("INSERT INTO booking VALUES (1, '$who', 3) ON CONFLICT DO NOTHING; " .
	"INSERT INTO booking VALUES (1, '$who', 3) ON CONFLICT (id) DO UPDATE SET note = 'twice'");
is(of($who), '', 'nor by a conflict');
is(error_of("INSERT INTO booking VALUES (4, '$who', 0)") =~ s/:.*//sr, '22023', 'max_use_count of 0');
sql("INSERT INTO booking VALUES (5, '$who', 3) ON CONFLICT DO NOTHING;
MERGE INTO booking USING (VALUES (6)) v(id) ON booking.id = v.id WHEN NOT MATCHED THEN INSERT (id, guest)
	VALUES (6, '$who');
COPY booking (id, guest) FROM stdin;
7	$who
8	$who
\\.
INSERT INTO booking (id, guest) SELECT g, '$who' FROM generate_series(10, 29) g");
ok(settled, 'ON CONFLICT, MERGE, COPY, and many');
is(sql("SELECT count(DISTINCT key_id) FROM booking WHERE guest = '$who' AND id <> 2"), 24, 'get a key each');
is(live($who), join(',', sort map { $_->{instant_key_id} } keys_of($who)), 'which lives');
is(scalar(calls($mark, $who)), 24, 'one call each');

# arguments and timing, as those of the other trigger
foreach my $t ([ 'BEFORE INSERT ON booking FOR EACH ROW', "'user_identity_id=guest'" ],
	[ 'AFTER INSERT ON booking FOR EACH STATEMENT', "'user_identity_id=guest'" ],
	[ 'AFTER INSERT ON booking FOR EACH ROW', "'user_identity_id=nobody'" ],
	[ 'AFTER INSERT ON booking FOR EACH ROW', "'instant_key_id=key_id'" ], [ 'AFTER INSERT ON booking FOR EACH ROW',
		"'user_identity_id=guest', 'instant_key_id=nights'" ],
		[ 'AFTER INSERT ON booking FOR EACH ROW', "'user_identity_id=guest', 'color=note'" ])
{
	like(error_of("BEGIN; CREATE TRIGGER bad $t->[0] EXECUTE FUNCTION seam_keep_instant_key_trigger($t->[1]); " .
		"INSERT INTO booking VALUES (200, '$who', 1)"), qr/^[0-9A-Z]{5}: /, "$t->[0] with $t->[1]");
}
like(error_of('SELECT seam_keep_instant_key_trigger()'), qr/^(0A000|39P01|55000)/, 'no trigger at all');
sql('CREATE TABLE keyless (guest uuid, key_id uuid); ' . triggers('keyless'));
like(error_of("INSERT INTO keyless VALUES ('$who')"), qr/primary key/, 'a table without a primary key');

# ---------- primary keys of every kind ----------

sql(q{SET client_min_messages = error; CREATE SCHEMA "In n"; CREATE TYPE "In n".floor AS ENUM ('ground', 'first'); } .
	q{CREATE TYPE "In n".pair AS (a int, "B" text); CREATE DOMAIN "In n".code AS varchar(9) CHECK (value <> '')});
my @kinds = (
	[ 'text' => q{E'a"b\\\\c\\'d{},\n\u00fc%$1'} ], [ 'text' => q{''} ],
		[ 'uuid' => q{'0f0e0d0c-0b0a-4908-8706-050403020100'} ], [ 'date' => q{'2026-02-01'} ],
		[ 'date' => q{'infinity'} ],
	[ 'timestamptz' => q{'2026-10-25 01:30:00.123456+00'} ], [ 'timestamp' => q{'2026-02-01 00:00:00.000001'} ],
		[ 'time' => q{'23:59:59.999999'} ], [ 'interval' => q{'1 mon 2 days -03:00:00.5'} ],
	[ 'numeric' => q{12345678901234567890.1230} ], [ 'numeric' => q{'NaN'} ],
		[ 'float8' => q{0.1::float8 + 0.2::float8} ], [ 'float8' => q{'-infinity'} ], [ 'float4' => q{'1.1'} ],
	[ 'bigint' => q{9223372036854775807} ], [ 'smallint' => q{-3} ], [ 'boolean' => q{true} ],
		[ 'bytea' => q{'\x00ff27'} ], [ 'char(5)' => q{'ab'} ], [ 'name' => q{'x'} ], [ '"char"' => q{'x'} ],
		[ 'int[]' => q{'{{1,2},{3,4}}'} ], [ 'text[]' => q{ARRAY['a,"', NULL]} ],
	[ '"In n".floor' => q{'first'} ], [ '"In n".code' => q{'x'} ], [ 'inet' => q{'10.0.0.1/8'} ],
		[ 'int4range' => q{'[1,4)'} ], [ 'jsonb' => q{'{"a": [1, null]}'} ], [ 'oid' => q{4294967295} ],
		[ 'bit varying' => q{B'0101'} ], [ '"In n".pair' => q{(1, E'a"b\\\\')} ]);
$who = new_guest();
foreach my $n (0 .. $#kinds)
{
	# (the session prints its values in a way of its own)
	sql(qq{SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard'; SET TimeZone = 'Asia/Kathmandu';
		SET bytea_output = 'escape'; SET extra_float_digits = -15; SET lc_monetary = 'C';
CREATE TABLE "In n"."kind ""$n" (gone int, "the id" $kinds[$n][0] PRIMARY KEY, guest uuid, key_id uuid);
ALTER TABLE "In n"."kind ""$n" DROP COLUMN gone;} . triggers("\"In n\".\"kind \"\"$n\"") .
	qq{INSERT INTO "In n"."kind ""$n" VALUES ($kinds[$n][1], '$who')});
}
ok(settled, 'primary keys of every kind');
foreach my $n (0 .. $#kinds)
{
	is(sql(qq{SELECT key_id IS NOT NULL FROM "In n"."kind ""$n"}), 't', "a primary key of $kinds[$n][0]: $kinds[$n][1]")
		or diag(of($who, 'target_table, target_key, status, sqlstate, error'));
}
sql(q{CREATE TABLE composite (part date, "Name" text, n int, guest uuid, key_id uuid, PRIMARY KEY ("Name", n, part));} .
	triggers('composite'));
sql("INSERT INTO composite VALUES ('2026-03-04', E'it''s \\\\', 1, '$who'), ('2026-03-05', E'it''s \\\\', 1, " .
	"'$who'), ('2026-03-04', 'Name', 1, '$who')");
ok(settled, 'a primary key of three columns');
is(sql('SELECT count(DISTINCT key_id) FROM composite'), 3, 'each row gets its key');
# columns are known by their names, whatever a table was made of
$who = new_guest();
slow($who);
sql("INSERT INTO composite VALUES ('2026-03-06', 'x', 1, '$who')");
ok(in_flight($who), 'in flight');
sql('ALTER TABLE composite RENAME TO renamed; ALTER TABLE renamed ADD extra int, ALTER n TYPE bigint; ' .
	'ALTER TABLE renamed SET SCHEMA "In n"');
$fake->release;
ok(settled, 'while the table is renamed');
is(sql("SELECT key_id FROM \"In n\".renamed WHERE guest = '$who'"), live($who), 'the row gets its key');
cmp_ok(length(live($who)), '==', 36, 'one');

# ---------- rows that go, or change hands, before the key is there ----------

{
	sql('DROP TABLE IF EXISTS stay; CREATE TABLE stay (id int PRIMARY KEY, guest uuid, key_id uuid, note text);' .
		triggers('stay'));
	my %who = map { $_ => new_guest() } qw(deleted handed nobody noted renumbered again rolled);
	slow($_) for values %who;
	my $n = 0;
	my %id = map { $_ => ++$n } sort keys %who;
	sql(join(' ', map { "INSERT INTO stay VALUES ($id{$_}, '$who{$_}');" } sort keys %who));
	ok(in_flight(values %who), 'in flight');
	my ($new, $heir) = (new_guest(), new_guest());
	sql("DELETE FROM stay WHERE id = $id{deleted}; UPDATE stay SET guest = '$heir' WHERE id = $id{handed};
		UPDATE stay SET guest = NULL WHERE id = $id{nobody}; UPDATE stay SET note = 'x' WHERE id = $id{noted};
UPDATE stay SET id = 100 WHERE id = $id{renumbered}; DELETE FROM stay WHERE id = $id{again};
	INSERT INTO stay VALUES ($id{again}, '$new'); BEGIN; DELETE FROM stay WHERE id = $id{rolled}; ROLLBACK");
	$fake->release;
	ok(settled, 'rows that change while the call is made');
	is(of($who{$_}), 'revoked', "$_: the request") for qw(deleted handed nobody again);
	is(live($who{$_}), '', "$_: no key lives") for qw(deleted handed nobody again);
	is(of($who{$_}), 'issued', "$_: the request") for qw(noted rolled);
	is(sql("SELECT key_id FROM stay WHERE id = $id{$_}"), live($who{$_}), "$_: the key lives, and the row has it")
		for qw(noted rolled);
	is(length(live($who{$_})), 36, "$_: one") for qw(noted rolled);
	is(length(live($who{renumbered})), 36, 'renumbered: its key lives');
	is(sql('SELECT key_id FROM stay WHERE id = 100'), live($who{renumbered}), 'and the row has it');
	is(sql("SELECT key_id IS NULL FROM stay WHERE id = $id{nobody}"), 't', 'nobody: nothing is written');
	is(sql("SELECT key_id FROM stay WHERE id = $id{handed}"), live($heir), 'handed: it has the key of the new guest');
	is(sql("SELECT key_id FROM stay WHERE id = $id{again}"), live($new), "another row with the same key has its own");
	is(length(live($new)), 36, 'one');

	# the whole table goes
	my $dropped = new_guest();
	slow($dropped);
	sql("INSERT INTO stay VALUES (50, '$dropped')");
	ok(in_flight($dropped), 'in flight');
	sql('DROP TABLE stay');
	$fake->release;
	ok(settled, 'a table that is dropped meanwhile');
	is(of($dropped), 'revoked', 'as if the row had gone');
	is(live($dropped), '', 'no key lives');
}

# ---------- partitions ----------

sub places
{
	sql('DROP TABLE IF EXISTS part;
		CREATE TABLE part (id int, place int, guest uuid, key_id uuid, PRIMARY KEY (id, place))
		PARTITION BY LIST (place);
CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1);
CREATE TABLE part2 (gone int, key_id uuid, guest uuid, place int NOT NULL, id int NOT NULL);
ALTER TABLE part2 DROP COLUMN gone;
ALTER TABLE part ATTACH PARTITION part2 FOR VALUES IN (2);
CREATE TABLE part3 PARTITION OF part FOR VALUES IN (3) PARTITION BY RANGE (id);
CREATE TABLE part3a PARTITION OF part3 FOR VALUES FROM (0) TO (1000);
CREATE INDEX ON part (key_id);' . triggers('part'));
	return;
}

{
	places;
	my %who = map { $_ => new_guest() } qw(stays moved twice both back renumbered rolled open first handed deleted);
	my $n = 0;
	my %id = map { $_ => ++$n } sort keys %who;
	slow($who{$_}) for keys %who;
	sql(join(' ', map { "INSERT INTO part VALUES ($id{$_}, 1, '$who{$_}');" } grep { $_ ne 'first' } sort keys %who) .
		"BEGIN; INSERT INTO part VALUES ($id{first}, 1, '$who{first}'); " .
		"UPDATE part SET place = 2 WHERE id = $id{first}; COMMIT");
	ok(in_flight(values %who), 'in flight');
	my $new = new_guest();
	sql("UPDATE part SET place = 2 WHERE id = $id{moved};
UPDATE part SET place = 2 WHERE id = $id{twice}; UPDATE part SET place = 3 WHERE id = $id{twice};
BEGIN; UPDATE part SET place = 2 WHERE id = $id{both}; UPDATE part SET place = 3 WHERE id = $id{both}; COMMIT;
UPDATE part SET place = 2 WHERE id = $id{back}; UPDATE part SET place = 1 WHERE id = $id{back};
BEGIN; UPDATE part SET place = 2 WHERE id = $id{rolled}; ROLLBACK;
UPDATE part SET place = 2, guest = '$new' WHERE id = $id{handed};
BEGIN; UPDATE part SET place = 2 WHERE id = $id{deleted}; DELETE FROM part WHERE id = $id{deleted}; COMMIT;
UPDATE part SET place = 2, id = 200 WHERE id = $id{renumbered}");
	# one moves while its key is to be written
	my $holder = background($node, "BEGIN; UPDATE part SET place = 2 WHERE id = $id{open}; SELECT 5;");
	ok(printed($holder, qr/^5$/m), 'a session that moves one');
	$fake->release;
	ok(settled($who{open}), 'the others end while it is open');
	$holder->{in} .= "COMMIT;\n";
	result_of($holder);
	ok(settled, "rows that move before the key is there");
	foreach my $which (qw(stays moved twice both back rolled open first))
	{
		is(sql("SELECT key_id FROM part WHERE id = $id{$which}"), live($who{$which}),
			"$which: the row has the key that lives");
		is(length(live($who{$which})), 36, "$which: one");
		is(of($who{$which}), 'issued', "$which: one request")
			or diag(of($who{$which}, 'request_id, target_table, target_key, status, error'));
	}
	is(live($who{$_}), '', "$_: no key lives") for qw(handed deleted);
	is(sql("SELECT coalesce(key_id::text, '') FROM part WHERE id = 200"), live($who{renumbered}),
		'renumbered: it has its key, or none lives');

	# before the call
	my ($waits, $goes) = (new_guest(), new_guest());
	pause;
	sql("INSERT INTO part VALUES (300, 1, '$waits'), (301, 1, '$goes'); UPDATE part SET place = 2 " .
		"WHERE id IN (300, 301); UPDATE part SET place = 3 WHERE id IN (300, 301); " .
		"UPDATE part SET place = 1 WHERE id = 300; DELETE FROM part WHERE id = 301");
	go_on;
	ok(settled, "rows that move before the call");
	is(of($waits), 'issued', 'one request');
	is(sql('SELECT key_id FROM part WHERE id = 300'), live($waits), 'whose key the row has');
	is(length(live($waits)), 36, 'one');
	is(live($goes), '', 'a row that moved and was deleted has none');

	# and afterwards
	my $was = sql('SELECT id, key_id FROM part WHERE key_id IS NOT NULL ORDER BY id');
	$mark = mark;
	sql('UPDATE part SET place = 4 - place; UPDATE part SET place = 2; UPDATE part SET place = 3; ' .
		'UPDATE part SET place = 1 WHERE id % 2 = 0');
	ok(settled, "rows that move with their key");
	is(sql('SELECT id, key_id FROM part WHERE key_id IS NOT NULL ORDER BY id'), $was, 'keep it');
	is(sql("SELECT key_id FROM part WHERE id = $id{$_}"), live($who{$_}), "$_: the row has the key that lives")
		for qw(stays moved twice both back rolled open first);
	is(mark, $mark, 'and nothing is called');
	# beside rows that are new
	my $fresh = new_guest();
	sql("BEGIN; UPDATE part SET place = 2 WHERE id = $id{stays}; INSERT INTO part VALUES (500, 2, '$fresh'); COMMIT;
MERGE INTO part p USING (VALUES ($id{stays}), (501)) v(id) ON p.id = v.id WHEN MATCHED THEN UPDATE SET place = 3 WHEN
	NOT MATCHED THEN INSERT VALUES (v.id, 3, '$fresh')");
	ok(settled, 'new rows beside rows that move');
	is(sql("SELECT count(DISTINCT key_id) FROM part WHERE guest = '$fresh'"), 2, 'get their keys');
	is(sql("SELECT key_id FROM part WHERE id = $id{stays}"), live($who{stays}), 'and the other keeps its own');
	# moved, and handed on, cleared, or deleted, when the key was there
	sql("UPDATE part SET place = 2, key_id = NULL WHERE id = $id{moved}; BEGIN; UPDATE part SET place = 2 " .
		"WHERE id = $id{back}; DELETE FROM part WHERE id = $id{back}; COMMIT; DELETE FROM part WHERE id = $id{twice}");
	ok(settled, 'moved and cleared, or deleted');
	is(live($who{$_}), '', "$_: no key lives") for qw(back twice);
	is(live($who{moved}), sql("SELECT key_id FROM part WHERE id = $id{moved}"), 'moved and cleared: another one');
	# cleared, failed or cancelled before
	my ($cleared, $failed, $cancelled) = (new_guest(), new_guest(), new_guest());
	$fake->behave($failed, 'status=400', 1);
	sql("INSERT INTO part VALUES (700, 1, '$cleared'), (701, 1, '$failed')");
	ok(settled, 'two more');
	pause;
	sql("UPDATE part SET key_id = NULL WHERE id = 700; INSERT INTO part VALUES (702, 1, '$cancelled'); " .
		"SELECT seam_cancel_instant_key_request(" . 'max(request_id)) FROM seam_instant_key_request');
	go_on;
	ok(settled, 'one cleared, one failed, one cancelled');
	is(join(' ', map { of($_) } $cleared, $failed, $cancelled), "revoked\nissued failed cancelled", '(they are)');
	sql('UPDATE part SET place = 2 WHERE id >= 700');
	ok(settled, 'move');
	is(join(' ', map { of($_) } $cleared, $failed, $cancelled), "revoked\nissued failed cancelled",
		'and ask for nothing');
	is(join('', map { live($_) } $failed, $cancelled), '', 'no key lives');
}
# a partition of its own
$who = new_guest();
sql("INSERT INTO part1 VALUES (600, 1, '$who')");
ok(settled, 'a row that was inserted into the partition');
is(sql('SELECT key_id FROM part WHERE id = 600'), live($who), 'has its key');

# ---------- what the row's table makes of it ----------

# refused(name, SQL after the table was made): a request that is issued, whose row says no
sub refused
{
	my ($name, $change, $sqlstate) = @_;
	my $guest = new_guest();
	sql('DROP TABLE IF EXISTS odd CASCADE; CREATE TABLE odd (id int PRIMARY KEY, guest uuid, key_id uuid, note text);' .
		triggers('odd') . $change);
	my $since = mark;
	sql("INSERT INTO odd VALUES (1, '$guest')");
	ok(settled, $name);
	is(of($guest, "status, error <> '', finished_at IS NOT NULL" . ($sqlstate ? ', sqlstate' : '')), 'issued|t|t' .
		($sqlstate ? "|$sqlstate" : ''), 'stays issued, and says so') or diag(of($guest, 'status, sqlstate, error'));
	is(length(live($guest)), 36, 'the key lives');
	is(scalar(calls($since, $guest)), 1, 'after one call');
	return $guest;
}

sql(q{CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	RAISE 'no, %', NEW.key_id USING ERRCODE = 'P0042'; END $$;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$});
refused('a constraint', 'ALTER TABLE odd ADD CONSTRAINT c CHECK (key_id IS NULL)', '23514');
my $guest = refused('a trigger that fails', 'CREATE TRIGGER no BEFORE UPDATE ON odd FOR EACH ROW EXECUTE FUNCTION no()',
	'P0042');
# it can be tried again, which calls nothing
my $id = of($guest, 'request_id');
my $was = of($guest, 'xmin, ctid');
sleep 1;
is(of($guest, 'xmin, ctid'), $was, 'nothing loops');
$mark = mark;
sql("SELECT seam_retry_instant_key_request($id)");
ok(wait_for(sub { of($guest, 'xmin, ctid') ne $was }) && settled, 'tried again');
is(of($guest, 'status, sqlstate'), 'issued|P0042', 'in vain');
sql("DROP TRIGGER no ON odd; SELECT seam_retry_instant_key_request($id)");
ok(wait_for(sub { sql('SELECT key_id FROM odd') ne '' }), 'tried again when it can be written');
ok(settled, 'settled');
is(sql('SELECT key_id FROM odd'), live($guest), 'writes the key');
is(of($guest, 'status, error'), 'issued|', 'and the error is gone');
is(mark, $mark, 'without a call');
refused('a trigger that lets nothing be written',
	'CREATE TRIGGER nothing BEFORE UPDATE ON odd FOR EACH ROW EXECUTE FUNCTION nothing()');
refused('a foreign key', 'CREATE TABLE IF NOT EXISTS known (key_id uuid PRIMARY KEY); ' .
	'ALTER TABLE odd ADD FOREIGN KEY (key_id) REFERENCES known', '23503');
refused('a deferred foreign key',
	'ALTER TABLE odd ADD FOREIGN KEY (key_id) REFERENCES known DEFERRABLE INITIALLY DEFERRED', '23503');
refused('a deferred trigger that fails', 'CREATE CONSTRAINT TRIGGER no AFTER UPDATE ' .
	'ON odd DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no()', 'P0042');
$guest = new_guest();
sql('DROP TABLE IF EXISTS odd CASCADE; CREATE TABLE odd (id int PRIMARY KEY, guest uuid, key_id uuid, note text);' .
	triggers('odd'));
slow($guest);
sql("INSERT INTO odd VALUES (1, '$guest')");
ok(in_flight($guest), 'in flight');
sql('ALTER TABLE odd RENAME key_id TO lost');
$fake->release;
ok(settled, 'a key column that is gone');
is(of($guest, "status, error <> ''"), 'issued|t', 'stays issued, and says so');
is(length(live($guest)), 36, 'the key lives');

# a locked row is written when it is free, and holds up nobody
sql('DROP TABLE odd; CREATE TABLE odd (id int PRIMARY KEY, guest uuid, key_id uuid, note text);' . triggers('odd') .
	'CREATE TABLE whole (LIKE odd INCLUDING ALL);' . triggers('whole'));
my ($locked, $whole) = (new_guest(), new_guest());
pause;
sql("INSERT INTO odd VALUES (1, '$locked'); INSERT INTO whole VALUES (1, '$whole')");
my $holder = background($node, 'BEGIN; SELECT id FROM odd WHERE id = 1 FOR UPDATE; LOCK TABLE whole; SELECT 5;');
ok(wait_for(sub { sql("SELECT count(*) FROM pg_locks WHERE pid = $holder->{pid} AND relation = 'whole'::regclass " .
	"AND granted") == 1 }), 'a session that holds locks');
go_on;
foreach my $waits ($locked, $whole)
{
	ok(wait_for(sub { of($waits, "status || ((instant_key).instant_key_id IS NOT NULL)::text") eq 'issuedtrue' }),
		'the key is stored first');
}
my $number = 1000;				# of a row that no other one has
my $until = time + 2.5;
while (time < $until)
{
	my $other = new_guest();
	my $begin = time;
	$number++;
	sql("INSERT INTO odd VALUES ($number, '$other')");
	ok(wait_for(sub { sql("SELECT key_id FROM odd WHERE id = $number") ne '' }), 'others go on');
	cmp_ok(time - $begin, '<', 30, 'without delay');
	sleep 0.1;
}
is(of($_), 'issued', 'the locked ones wait') for $locked, $whole;
$holder->{in} .= "COMMIT;\n";
result_of($holder);
ok(settled, 'the locks are gone');
is(sql("SELECT key_id FROM odd WHERE id = 1"), live($locked), 'the row has its key');
is(sql("SELECT key_id FROM whole WHERE id = 1"), live($whole), 'and so has the other');
is(length(live($_)), 36, 'one') for $locked, $whole;
is(of($_, 'attempts, error'), '1|', 'from one call') for $locked, $whole;
# deleted by whoever held the lock
my $pending = new_guest();
$locked = new_guest();
pause;
$mark = mark;
sql("INSERT INTO odd VALUES (2, '$pending'); INSERT INTO whole VALUES (2, '$locked')");
$holder = background($node, 'BEGIN; DELETE FROM odd WHERE id = 2; DELETE FROM whole WHERE id = 2; SELECT 5;');
ok(printed($holder, qr/^5$/m), 'a session that deletes');
go_on;
is(of($_), 'pending', 'what the session cancels waits for its end') for $pending, $locked;
$holder->{in} .= "COMMIT;\n";
result_of($holder);
ok(settled, 'the rows are gone');
is(live($locked), '', 'and so is the key');
is(of($pending), 'cancelled', 'or the request');
is(scalar(calls($mark, $pending)), 0, 'for which nothing was sent');

# row security of any kind
sql(q{CREATE ROLE hotel; GRANT CREATE ON SCHEMA public TO hotel;
	GRANT EXECUTE ON FUNCTION seam_keep_instant_key_trigger() TO hotel;
CREATE ROLE clerk; SET ROLE hotel; CREATE TABLE secured (id int PRIMARY KEY, guest uuid, key_id uuid);} .
	triggers('secured') .
q{GRANT INSERT, SELECT, DELETE, UPDATE ON secured TO clerk; ALTER TABLE secured ENABLE ROW LEVEL SECURITY; } .
	q{CREATE POLICY p ON secured TO clerk USING (true)});
foreach my $force ('NO FORCE', 'FORCE')
{
	$who = new_guest();
	sql("ALTER TABLE secured $force ROW LEVEL SECURITY; SET ROLE clerk; INSERT INTO secured VALUES (1, '$who')");
	ok(settled, "row security, $force");
	is(length(live($who)), 36, 'the key lives');
	is(of($who, 'status, error'), 'issued|', 'and nothing is wrong');
	is(sql("SELECT key_id FROM secured WHERE id = 1"), live($who), 'the row has it');
	sql('SET ROLE clerk; DELETE FROM secured');
	ok(settled, 'a clerk deletes');
	is(live($who), '', 'the key is revoked');
}

# ---------- what a user's trigger leaves behind ----------

my $worker = sql(
	"SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'seam_ik%worker' OR backend_type LIKE 'seam_ik worker%'");
sql(q{CREATE TABLE mess (id int PRIMARY KEY, guest uuid, key_id uuid, what text); GRANT ALL ON mess TO hotel;
CREATE TABLE seen (who text, session text, what text); GRANT ALL ON seen TO hotel; ALTER TABLE mess OWNER TO hotel;
	ALTER TABLE seen OWNER TO hotel;
CREATE SCHEMA evil AUTHORIZATION hotel;} . triggers('mess') . q{
SET ROLE hotel;
CREATE FUNCTION mess() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen
	VALUES (current_user, session_user, NEW.what); EXECUTE NEW.what; RETURN NEW; END $$;
CREATE TRIGGER mess AFTER UPDATE ON mess FOR EACH ROW EXECUTE FUNCTION mess();
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (current_user,
	session_user, 'late'); BEGIN ALTER ROLE hotel SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN NEW; END $$;
CREATE TABLE behind (n int);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON behind DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
	EXECUTE FUNCTION late();
CREATE FUNCTION rise() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen
	VALUES (current_user, session_user, 'rise'); ALTER ROLE hotel SUPERUSER; RETURN 1; END $$;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM public.rise();
	RETURN clock_timestamp(); END $$;});
my @messes = (
	q{SELECT set_config('statement_timeout', '1ms', false)}, q{SELECT set_config('search_path', 'evil, pg_catalog', } .
		q{false)}, q{SELECT set_config('default_transaction_read_only', 'on', false)},
	q{SELECT set_config('DateStyle', 'German', false), set_config('TimeZone', 'Asia/Kathmandu', false), } .
		q{set_config('lock_timeout', '1', false)},
		q{SELECT set_config('seam_ik.request_timeout', '1ms', false), } .
		q{set_config('seam_ik.max_concurrency', '1', false)},
	q{SELECT pg_advisory_lock(4711)}, q{SELECT pg_advisory_lock_shared(4712)}, q{SELECT pg_advisory_xact_lock(4713)},
		q{LISTEN mess}, q{SET CONSTRAINTS ALL DEFERRED},
		q{SET CONSTRAINTS ALL DEFERRED; INSERT INTO public.behind VALUES (1)}, q{INSERT INTO public.behind VALUES (1)},
	q{SET ROLE postgres}, q{RESET ROLE}, q{SET SESSION AUTHORIZATION DEFAULT}, q{RESET SESSION AUTHORIZATION},
		q{SELECT set_config('role', 'postgres', false)}, q{SELECT set_config('role', 'none', false)},
		q{SELECT set_config('session_authorization', 'postgres', false)},
	q{SELECT public.rise()}, q{CREATE TEMP TABLE t (n int); CREATE INDEX ON t ((public.rise()))},
		q{DECLARE c CURSOR WITH HOLD FOR SELECT public.rise()}, q{PREPARE p AS SELECT public.rise()},
		q{CREATE TEMP TABLE pg_class (n int)}, q{SET LOCAL search_path = evil},
	q{COMMIT}, q{ROLLBACK}, q{PREPARE TRANSACTION 'mess'}, q{BEGIN}, q{SELECT pg_notify('mess', 'x')},
		q{SELECT set_config('session_replication_role', 'replica', false)}, q{TRUNCATE public.mess},
		q{DROP TABLE public.mess}, q{DELETE FROM public.mess},
	q{SELECT pg_reload_conf()}, q{UPDATE public.seam_instant_key_request SET status = 'pending'},
		q{TABLE public.seam_instant_key_request}, q{SELECT public.seam_enqueue_instant_key(gen_random_uuid())},
		q{SELECT public.seam_generate_instant_key(gen_random_uuid())}, q{ALTER ROLE hotel SUPERUSER},
		q{SELECT lo_create(0)}, q{DISCARD ALL}, q{LOAD 'auto_explain'}, q{DO $d$ BEGIN RAISE WARNING 'x'; END $d$},
		q{DO $d$ BEGIN RAISE 'x' USING ERRCODE = '57014'; END $d$},
		q{DO $d$ BEGIN RAISE 'x' USING ERRCODE = '57P01'; END $d$}, q{SELECT pg_terminate_backend(pg_backend_pid())});
sql("INSERT INTO seen VALUES ('start', '', '')");
my $n = 0;
my $log = -s $node->logfile;
foreach my $what (@messes)
{
	$n++;
	$who = new_guest();
	sql("INSERT INTO mess VALUES ($n, '$who', NULL, \$w\$$what\$w\$)");
	ok(settled, $what);
	# (whether it could be written or not: all of these rows are there)
	my ($end, $key) = split /\|/, of($who, "status, (instant_key).instant_key_id, sqlstate, error");
	my $goes = $what =~ /^DELETE/;
	is($end, $goes ? 'revoked' : 'issued', 'has an end');
	is(live($who), $goes ? '' : $key, 'with its key');
	is(sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), 0, 'no lock stays') if $what =~ /advisory/;
	# others are as before
	$who = new_guest();
	my $begin = time;
	sql("INSERT INTO booking (id, guest) VALUES ($n + 10000, '$who')");
	ok(wait_for(sub { sql("SELECT key_id IS NOT NULL FROM booking WHERE id = $n + 10000") eq 't' }),
		'the next request is as any');
	cmp_ok(time - $begin, '<', 30, 'and in time');
}
# functions that run because the row is written
sql(q{SET ROLE hotel;
CREATE FUNCTION note(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (current_user,
	session_user, what); BEGIN ALTER ROLE hotel SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END; END $$;
CREATE FUNCTION checks(v uuid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('domain');
	RETURN true; END $$;
CREATE FUNCTION indexes(v uuid) RETURNS uuid IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('index');
	RETURN v; END $$;
CREATE FUNCTION generates(v uuid) RETURNS uuid IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('generated');
	RETURN v; END $$;
CREATE TYPE link AS ENUM ('link');
CREATE FUNCTION casts(v text) RETURNS link LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('cast');
	RETURN 'link'::public.link; END $$;
CREATE CAST (text AS link) WITH FUNCTION casts(text) AS ASSIGNMENT;
CREATE FUNCTION limits(v uuid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('constraint');
	RETURN true; END $$;
CREATE DOMAIN key_id AS uuid CHECK (value IS NULL OR checks(value));
CREATE TABLE calls (id int PRIMARY KEY, guest uuid, key_id key_id, url link, made uuid GENERATED ALWAYS
	AS (generates(key_id::uuid)) STORED, CHECK (limits(key_id)));
CREATE INDEX ON calls ((indexes(key_id)));
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON calls FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id', 'instant_key_url=url')});
$who = new_guest();
sql("INSERT INTO seen VALUES ('start', '', ''); SET ROLE hotel; INSERT INTO calls VALUES (1, '$who')");
ok(settled, 'functions of constraints, indexes, casts and the like');
is(sql('SELECT key_id FROM calls'), live($who), 'the key is written') or diag(of($who, 'status, sqlstate, error'));
is(sql("SELECT string_agg(DISTINCT what, ' ' ORDER BY what) FROM seen WHERE what IN ('cast', 'constraint', 'domain', " .
	"'generated', 'index')"), 'cast constraint domain generated index', 'by all of them');
# a trigger that takes its time holds up others for as long only, and not for ever
sql(q{CREATE FUNCTION sleeps() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	PERFORM pg_catalog.pg_sleep(NEW.nights / 10.0); RETURN NEW; END $$;
CREATE TABLE sleepy (LIKE booking INCLUDING ALL);} . triggers('sleepy') .
	q{CREATE TRIGGER sleeps BEFORE UPDATE ON sleepy FOR EACH ROW EXECUTE FUNCTION sleeps()});
my $asked;
foreach my $tenths (2, 600)
{
	my $sleepy = new_guest();
	my $long = $tenths == 600;
	sql("INSERT INTO sleepy (id, guest, nights) VALUES ($tenths, '$sleepy', $tenths)");
	ok(wait_for(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'seam_ik writer'
		AND wait_event = 'PgSleep'") }),
		'a trigger that sleeps') if $long;
	$who = new_guest();
	$asked = time;
	sql("INSERT INTO booking (id, guest) VALUES ($tenths + 9000, '$who')");
	ok(wait_for(sub { sql("SELECT key_id IS NOT NULL FROM booking WHERE id = $tenths + 9000") eq 't' }),
		'another request');
	cmp_ok(time - $asked, '<', 40, 'goes on soon') if $long;
	ok(settled, 'settled');
	is(of($sleepy, "status, error <> ''"), $long ? 'issued|t' : 'issued|', 'and so does that one');
}
# what can be tried again is, and others go on
sql(q{CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF (SELECT count(*)
	FROM public.known) = 0 THEN RAISE 'again' USING ERRCODE = NEW.what; END IF; RETURN NEW; END $$;
CREATE TABLE retried (LIKE mess INCLUDING ALL);} . triggers('retried') .
	q{CREATE TRIGGER again BEFORE UPDATE ON retried FOR EACH ROW EXECUTE FUNCTION again()});
my @retried = map { new_guest() } 1 .. 3;
sql("INSERT INTO retried VALUES (1, '$retried[0]', NULL, '40001'), (2, '$retried[1]', NULL, '40P01'), (3, " .
	"'$retried[2]', NULL, '55P03')");
foreach my $waits (@retried)
{
	ok(wait_for(sub { of($waits) eq 'issued' }), 'issued');
}
$who = new_guest();
$asked = time;
sql("INSERT INTO booking (id, guest) VALUES (9000, '$who')");
ok(wait_for(sub { sql('SELECT key_id IS NOT NULL FROM booking WHERE id = 9000') eq 't' }),
	'beside rows that cannot be written yet');
cmp_ok(time - $asked, '<', 30, 'in time');
sql('INSERT INTO known VALUES (gen_random_uuid())');
ok(settled, 'which are, then');
is(sql("SELECT key_id FROM retried WHERE id = $_"), live($retried[ $_ - 1 ]), 'with their keys') for 1 .. 3;

is(sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'hotel'"), 'f', 'nobody rose');
is(sql("SELECT string_agg(DISTINCT who, ' ') FROM seen WHERE who <> 'start'"), 'hotel',
	'whatever ran was the owner of the table');
is(sql("SELECT count(*) FROM pg_prepared_xacts"), 0, 'no transaction was prepared');
is(sql("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'seam_ik%worker' " .
	"OR backend_type LIKE 'seam_ik worker%'"), $worker, 'the worker is the same');

# ---------- rows that go ----------

sub bookings
{
	my ($statement) = @_;
	my $guest = new_guest();
	sql("DROP TABLE IF EXISTS room; CREATE TABLE room (id int PRIMARY KEY, guest uuid, key_id uuid, note text);" .
		triggers('room') . "INSERT INTO room VALUES (1, '$guest')");
	ok(wait_for(sub { sql('SELECT key_id FROM room') ne '' }) && settled, 'a room with its key');
	is(live($guest), sql('SELECT key_id FROM room'), 'which lives');
	my $key = live($guest);
	sql($statement);
	ok(settled, $statement);
	return ($guest, $key);
}

foreach my $statement ('DELETE FROM room', 'UPDATE room SET guest = NULL', 'UPDATE room ' .
	'SET key_id = gen_random_uuid()', 'BEGIN; SAVEPOINT a; DELETE FROM room; ROLLBACK TO a; DELETE FROM room; COMMIT',
	'BEGIN; UPDATE room SET guest = NULL; DELETE FROM room; COMMIT',
		"BEGIN; DELETE FROM room; PREPARE TRANSACTION 'room'; COMMIT PREPARED 'room'")
{
	$mark = mark;
	my ($who, $key) = bookings($statement);
	is(live($who), '', 'revokes the key');
	is(of($who), 'revoked', 'and the request knows');
	is(scalar(calls($mark, $key)), 1, 'by one call');
}
foreach my $statement ('BEGIN; DELETE FROM room; ROLLBACK', 'BEGIN; UPDATE room SET key_id = NULL; ROLLBACK',
	'BEGIN; SAVEPOINT a; DELETE FROM room; ROLLBACK TO a; COMMIT', "UPDATE room SET note = 'x'",
	'UPDATE room SET key_id = key_id, id = 2', 'TRUNCATE room',
	"BEGIN; DELETE FROM room; PREPARE TRANSACTION 'room'; ROLLBACK PREPARED 'room'",
		'SET session_replication_role = replica; DELETE FROM room')
{
	$mark = mark;
	my ($who, $key) = bookings($statement);
	is(live($who), $key, 'revokes nothing');
	is(of($who), 'issued', 'and the request stays');
	is(scalar(calls($mark, $key)), 0, 'nothing is called');
}
# before it is sent
pause;
$mark = mark;
my @who = map { new_guest() } 1 .. 4;
sql("INSERT INTO room VALUES (11, '$who[0]'), (12, '$who[1]'), (13, '$who[2]'), (14, '$who[3]'); " .
	"DELETE FROM room WHERE id = 11; BEGIN; DELETE FROM room WHERE id = 12; ROLLBACK; " .
	"UPDATE room SET note = 'x' WHERE id = 13; UPDATE room SET id = 14 + 1 WHERE id = 14");
is(of($who[0]), 'cancelled', 'a pending request of a row that is deleted is cancelled');
is(of($_), 'pending', 'one of a row that stays is not') for @who[ 1, 2 ];
go_on;
ok(settled, 'settled');
is(scalar(calls($mark, $who[0])), 0, 'nothing was sent for it');
is(sql("SELECT key_id FROM room WHERE id = $_->[0]"), live($_->[1]), 'the others have theirs')
	for [ 12, $who[1] ], [ 13, $who[2] ], [ 15, $who[3] ];
$who = new_guest();
$mark = mark;
sql("BEGIN; INSERT INTO room VALUES (16, '$who'); DELETE FROM room WHERE id = 16; COMMIT; BEGIN; " .
	"INSERT INTO room VALUES (16, '$who'); UPDATE room SET note = 'x' WHERE id = 16; " .
	"DELETE FROM room WHERE id = 16; COMMIT");
ok(settled, 'inserted and deleted by one transaction');
is(scalar(calls($mark, $who)), 0, 'nothing is sent');
# in flight
$who = new_guest();
slow($who);
sql("INSERT INTO room VALUES (17, '$who')");
ok(in_flight($who), 'in flight');
my $begin = time;
sql('DELETE FROM room WHERE id = 17');
cmp_ok(time - $begin, '<', 20, 'a DELETE waits for no answer');
$fake->release;
ok(settled, 'deleted while the call is made');
is(of($who), 'revoked', 'it is revoked');
is(live($who), '', 'no key lives');
# keys that no request of the row has issued
$who = new_guest();
my $own = sql("SELECT (seam_generate_instant_key('$who')).instant_key_id");
is(live($who), $own, 'a key of a call');
sql("INSERT INTO room VALUES (18, NULL, '$own'); DELETE FROM room WHERE id = 18");
ok(settled, 'a row with such a key is deleted');
is(live($who), $own, 'and the key is left alone');
sql('SELECT seam_cancel_instant_key_request(' . of($who, 'request_id') . ')');
# a row that has its key already gets no other
$who = new_guest();
sql("INSERT INTO room VALUES (27, '$who', gen_random_uuid())");
is(of($who), '', 'a row that is inserted with a key');
# a request that was cancelled already
$who = new_guest();
sql("INSERT INTO room VALUES (22, '$who')");
ok(wait_for(sub { sql('SELECT key_id FROM room WHERE id = 22') ne '' }) && settled, 'a room with its key');
sql('SELECT seam_cancel_instant_key_request(' . of($who, 'request_id') . ')');
ok(wait_for(sub { of($who) eq 'revoked' }), 'revoked by hand');
sql('DELETE FROM room WHERE id = 22');
ok(settled, 'and deleted');
is(of($who), 'revoked', 'stays revoked');
# many at once
$who = new_guest();
sql("INSERT INTO room SELECT g, '$who' FROM generate_series(1001, 1080) g");
ok(wait_for(sub { sql('SELECT count(*) FROM room WHERE id > 1000 AND key_id IS NOT NULL') > 20 }), 'many');
sql('DELETE FROM room WHERE id > 1000');
ok(settled, 'are deleted while they are issued');
is(live($who), '', 'none lives');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$who' AND " .
	"status NOT IN ('cancelled', 'revoked')"), 0, 'each request has its end');
# the same primary key in another table
sql('CREATE TABLE other_room (LIKE room INCLUDING ALL);' . triggers('other_room'));
my ($here, $there) = (new_guest(), new_guest());
pause;
sql("INSERT INTO room VALUES (23, '$here'); INSERT INTO other_room VALUES (23, '$there'); DELETE FROM other_room");
is(of($here) . ' ' . of($there), 'pending cancelled', "another table's row of that key is another row");
go_on;
ok(settled, 'settled');
is(sql('SELECT key_id FROM room WHERE id = 23'), live($here), 'it gets its key');
# at the end of the transaction
$who = new_guest();
sql("CREATE TABLE deferred (LIKE room INCLUDING ALL); CREATE CONSTRAINT TRIGGER enqueue AFTER INSERT OR UPDATE
	OR DELETE ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW $keep;
INSERT INTO deferred VALUES (1, '$who')");
ok(wait_for(sub { sql('SELECT key_id FROM deferred') ne '' }), 'a deferred trigger');
sql('DELETE FROM deferred');
ok(settled, 'that sees a DELETE, too');
is(live($who), '', 'revokes');
# the trigger that revokes what calls have issued, without a call in the transaction
sql("CREATE TABLE walk_in (id int, guest uuid, key_id uuid); CREATE TRIGGER revoke AFTER DELETE OR UPDATE ON walk_in " .
	"FOR EACH ROW EXECUTE FUNCTION seam_delete_instant_key_trigger('instant_key_id=key_id')");
$who = new_guest();
$own = sql("SELECT (seam_generate_instant_key('$who')).instant_key_id");
sql("INSERT INTO walk_in VALUES (1, NULL, '$own'); BEGIN; DELETE FROM walk_in; ROLLBACK");
ok(settled, 'a DELETE that rolls back');
is(live($who), $own, 'leaves its key alive');
sql('DELETE FROM walk_in');
ok(settled, 'one that commits');
is(live($who), '', 'has it revoked');
# while Seam is away
$who = new_guest();
$own = sql("SELECT (seam_generate_instant_key('$who')).instant_key_id");
$fake->behave($who, 'status=503,route=delete', 1);
sql("INSERT INTO walk_in VALUES (20, NULL, '$own'); DELETE FROM walk_in WHERE id = 20");
ok(settled, 'one that Seam does not revoke at once');
is(live($who), '', 'is revoked later');
# or never
$who = new_guest();
$own = sql("SELECT (seam_generate_instant_key('$who')).instant_key_id");
$fake->behave($who, 'status=403,route=delete');
$mark = mark;
sql("INSERT INTO walk_in VALUES (24, NULL, '$own'); DELETE FROM walk_in WHERE id = 24");
ok(wait_for(sub { calls($mark, $own) }), 'one that Seam never revokes');
sleep 1;
cmp_ok(scalar(calls($mark, $own)), '<', 5, 'is not asked for without end');
note(sql('SELECT status, next_attempt_at - now(), sqlstate, error FROM seam_instant_key_request ' .
	'ORDER BY request_id DESC LIMIT 1'));
$fake->behave($who, '');
# the creator needs EXECUTE, whoever fires it nothing
like(error_of("SET ROLE clerk; CREATE TEMP TABLE t (id int PRIMARY KEY, guest uuid, key_id uuid); " .
	"CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW $keep"), qr/^42501/, 'a trigger made without EXECUTE');
$who = new_guest();
sql("GRANT ALL ON room TO clerk; SET ROLE clerk; INSERT INTO room VALUES (21, '$who')");
ok(wait_for(sub { sql('SELECT key_id FROM room WHERE id = 21') ne '' }), 'fired by a role without any');
sql('SET ROLE clerk; DELETE FROM room WHERE id = 21');
ok(settled, 'deleted by it');
is(live($who), '', 'and revoked');

# ---------- sessions that get into each other's way ----------

my $seed = $ENV{SEED} // int rand 1_000_000;
srand $seed;
note "SEED=$seed";
places;
sql('ALTER TABLE part ADD note text');
$fake->behave('*', 'route=generate_instant_key,delay=60,chance=0.5');

# a statement, or a transaction, about one of a few rows
sub anything
{
	my ($inside) = @_;
	my ($row, $place) = (1 + int rand 15, 1 + int rand 3);
	my @simple = ("INSERT INTO part SELECT $row, $place, gen_random_uuid() WHERE NOT EXISTS (SELECT FROM part " .
		"WHERE id = $row)") x 3;
	push @simple, ("UPDATE part SET place = $place WHERE id = $row") x 2, "DELETE FROM part WHERE id = $row",
		"UPDATE part SET key_id = NULL WHERE id = $row",
		"UPDATE part SET place = $place, key_id = NULL WHERE id = $row",
		"UPDATE part SET guest = gen_random_uuid() WHERE id = $row", "UPDATE part SET note = 'x' WHERE id = $row";
	return $simple[ rand @simple ] if $inside || rand() < 0.7;
	my ($one, $two) = (anything(1), anything(1));
	return (map { "BEGIN; $_; COMMIT" } "$one; SAVEPOINT a; $two; ROLLBACK TO a", "$one; $two",
		"$one; SELECT pg_sleep(0.1); $two")[ rand 3 ] if rand() < 0.8;
	return "BEGIN; $one; $two; ROLLBACK";
}

my @sessions = map { background($node, "SET lock_timeout = '2s'; SET deadlock_timeout = '100ms'; " .
	"SET client_min_messages = error;" .
	join("\n", map { anything() . sprintf('; SELECT pg_sleep(%.3f);', rand 0.03) } 1 .. 150)) } 1 .. 5;
foreach my $s (@sessions)
{
	my ($said) = result_of($s);
	is(join(' ', grep { !/^(23505|25P02|3B001|40001|40P01|55P03)/ } $said =~ /ERROR:  (.*)/g), '',
		'only their conflicts are errors');
}
ok(settled, 'sessions that insert, move, clear and delete the same rows');
$fake->behave('*', '');
my %rows = map { split /\|/ } split /\n/, sql("SELECT coalesce(key_id::text, 'no key ' || id), guest FROM part");
my %ours = map { $_ => 1 } split /\n/,
	sql("SELECT DISTINCT user_identity_id FROM seam_instant_key_request WHERE target_table = 'part'::regclass");
my %lives = map { $_->{instant_key_id} => $_->{user_identity_id} } grep { !$_->{revoked}
	&& $ours{ $_->{user_identity_id} } } $fake->keys;
cmp_ok(scalar(keys %ours), '>', 30, 'of many');
is_deeply(\%lives, \%rows, 'the keys of the rows live, and none besides');

# ---------- under odd settings ----------

sql('ALTER TABLE "In n".renamed RENAME TO composite; ALTER TABLE "In n".composite SET SCHEMA public; ' .
	'ALTER TABLE odd ADD CHECK (key_id IS NULL) NOT VALID');
my @odd = ([ default_transaction_read_only => 'on', 'off' ], [ default_transaction_deferrable => 'on', 'off' ],
	[ statement_timeout => '1ms', '0' ], [ lock_timeout => '1ms', '0' ],
	[ idle_in_transaction_session_timeout => '1ms', '0' ], [ idle_session_timeout => '10ms', '0' ],
	[ search_path => 'evil', 'public' ], [ DateStyle => 'German', 'ISO' ], [ TimeZone => 'Asia/Kathmandu', 'UTC' ],
		[ IntervalStyle => 'sql_standard', 'postgres' ], [ standard_conforming_strings => 'off', 'on' ],
		[ bytea_output => 'escape', 'hex' ], [ transform_null_equals => 'on', 'off' ],
	[ array_nulls => 'off', 'on' ], [ quote_all_identifiers => 'on', 'off' ], [ row_security => 'off', 'on' ],
		[ synchronous_commit => 'off', 'on' ], [ enable_indexscan => 'off', 'on' ], [ jit_above_cost => '0', '-1' ],
		[ check_function_bodies => 'off', 'on' ], [ plan_cache_mode => 'force_generic_plan', 'auto' ]);
foreach my $isolation ('repeatable read', 'serializable')
{
	my @set = ([ default_transaction_isolation => $isolation, 'read committed' ], $isolation eq 'serializable'
		? @odd : ());
	# (the test's own sessions stay as they are)
	local $ENV{PGOPTIONS} = join(' ', map { "-c $_->[0]=" . ($_->[2] =~ s/ /\\ /gr) } @set);
	sql(join(' ', map { "ALTER SYSTEM SET $_->[0] = '$_->[1]';" } @set));
	reload($node);
	my ($here, $there, $fails) = (new_guest(), new_guest(), new_guest());
	$number++;
	sql("INSERT INTO room VALUES ($number, '$here'); " .
		"INSERT INTO composite VALUES ('2026-05-05', 'a\\b', $number, '$there'); " .
		"INSERT INTO odd VALUES ($number, '$fails')");
	ok(settled, scalar(@set) . ' odd settings');
	is(of($_), 'issued', 'issued') for $here, $there, $fails;
	is(sql("SELECT key_id FROM room WHERE guest = '$here'"), live($here), 'the row has its key');
	is(sql("SELECT key_id FROM composite WHERE guest = '$there'"), live($there), 'and the other');
	is(of($fails, "error <> ''"), 't', 'what fails says so');
	sql("DELETE FROM room WHERE guest = '$here'");
	ok(settled, 'deleted');
	is(live($here), '', 'and revoked');
	sql('ALTER SYSTEM RESET ALL; SELECT pg_reload_conf()');
}

# ---------- all in all ----------

ok(settled, 'everything is settled');
my %alive = map { $_->{instant_key_id} => $_ } grep { !$_->{revoked} } $fake->keys;
my %owned = map { $_ => 1 } split /\n/, sql("SELECT (instant_key).instant_key_id FROM seam_instant_key_request " .
	"WHERE status = 'issued'");
is(join("\n", map { "$_ of $alive{$_}{user_identity_id}: " . of($alive{$_}{user_identity_id}) }
	grep { !$owned{$_} } keys %alive), '', 'no key lives that no request has issued');
is(join("\n", grep { !$alive{$_} } keys %owned), '', 'and each that is issued does');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal|TRAP/, 'nothing crashed');
done_testing();
