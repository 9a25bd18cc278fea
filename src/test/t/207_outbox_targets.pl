# Which row a request is for: when rows move, when their primary keys change, and when
# the table that is asked does.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql error_of live columns_of settled);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_targets'",
	"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '1s'");
meet($node, $fake);

sub of { return columns_of($_[0], $_[1] // "status || coalesce(' ' || sqlstate, '')"); }
sub retry
{
	my ($identity) = @_;
	sql('SELECT seam_retry_instant_key_request(' . of($identity, 'request_id') . ')');
	return settled;
}

my $fields = "'user_identity_id=guest', 'instant_key_id=key_id'";
my $keep = "EXECUTE FUNCTION seam_keep_instant_key_trigger($fields)";
sub keeps
{
	my ($table) = @_;
	return "CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON $table FOR EACH ROW $keep;";
}

# Requests that are made by the statements wait until the second ones have run: their
# keys are issued then, and written.
sub meanwhile
{
	my ($first, $then) = @_;
	sql("ALTER SYSTEM SET seam_ik.worker = 'off'; SELECT pg_reload_conf()");
	# the worker has seen it when a request is left alone
	wait_for(sub { my $guest = new_guest(); sql("SELECT seam_enqueue_instant_key('$guest')");
		select undef, undef, undef, 0.2; of($guest) eq 'pending' });
	sql($first);
	sql($then);
	sql('ALTER SYSTEM RESET seam_ik.worker; SELECT pg_reload_conf()');
	return settled;
}

# ---------- a row that moves, beside a new one of the same guest ----------

# Partition 3 has no triggers, so that nobody sees a row arrive there.
sub three
{
	my ($table, $columns, $by, $bounds) = @_;
	return "DROP TABLE IF EXISTS $table; CREATE TABLE $table ($columns, guest uuid, key_id uuid) PARTITION BY $by;" .
		join('', map { "CREATE TABLE $table$_ PARTITION OF $table FOR VALUES " . $bounds->($_) . ';' } 1 .. 3);
}
my $list = sub { return "IN ($_[0])"; };
my $range = sub { return "FROM ($_[0]) TO (" . ($_[0] + 1) . ')'; };
foreach my $t (
	[ 'a new row of another number', 'id int, place int, PRIMARY KEY (id, place)', 'LIST (place)', $list, 12 ],
	[ 'a new row of the same number', 'id int, place int, PRIMARY KEY (id, place)', 'LIST (place)', $list, 10 ],
	[ 'a primary key that makes the partitions', 'id int, place int PRIMARY KEY', 'RANGE (place)', $range, 12 ])
{
	my ($name, $columns, $by, $bounds, $new) = @$t;
	foreach my $how ('MERGE', 'a CTE', 'a CTE, another table')
	{
		my $who = new_guest();
		my $table = $how =~ /another/ ? 'elsewhere' : 'stay';
		sql(three('stay', $columns, $by, $bounds) . keeps('stay1') . keeps('stay2') .
			three('elsewhere', $columns, $by, $bounds) . keeps('elsewhere') .
			"INSERT INTO stay VALUES (10, 1, '$who')");
		ok(settled, "$name, $how");
		sql($how eq 'MERGE'
			? "MERGE INTO stay s USING (VALUES (1), (2)) v(n) ON v.n = s.place WHEN MATCHED THEN UPDATE " .
				"SET place = 3 WHEN NOT MATCHED THEN INSERT (id, place, guest) VALUES ($new, 2, '$who')"
			: "WITH m AS (UPDATE stay SET place = 3 RETURNING 1), one AS (SELECT count(*) FROM m) INSERT INTO $table " .
				"SELECT $new, 2, '$who' FROM one");
		ok(settled, 'one row moves, and one is inserted');
		is(sql('SELECT count(*) FROM stay3'), 1, '(the first has moved)');
		like(sql("SELECT key_id FROM $table WHERE place = 2"), qr/^[0-9a-f-]{36}$/, 'the second has a key');
		is(join(' ', sort split /,/, live($who)), sql('SELECT string_agg(key_id::text, \' \' ORDER BY key_id) ' .
			'FROM (TABLE stay UNION ALL TABLE elsewhere) r'), 'the keys of the rows live, and no others');
	}
}
# A row that two triggers enqueue, and that moves before its keys are there.
my $guest = new_guest();
sql("DROP TABLE stay, elsewhere; CREATE TABLE stay (id int, place int, guest uuid, key_id uuid, second uuid, PRIMARY KEY
	(id, place)) PARTITION BY LIST (place);
CREATE TABLE stay1 PARTITION OF stay FOR VALUES IN (1); CREATE TABLE stay2 PARTITION OF stay FOR VALUES IN (2);" .
	keeps('stay') .
"CREATE TRIGGER second AFTER INSERT OR UPDATE OR DELETE ON stay FOR EACH ROW " .
	"EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=second')");
ok(meanwhile("INSERT INTO stay VALUES (1, 1, '$guest')", 'UPDATE stay SET place = 2'),
	'a row with two keys that moves');
is(join(' ', sort map { split /\|/ } sql('SELECT key_id, second FROM stay')), join(' ', sort split /,/, live($guest)),
	'has both, and no more live');
is(scalar(split /,/, live($guest)), 2, '(they are two)');
sql('DROP TABLE stay');

# ---------- another primary key ----------

# two columns of a type, each of which could be the primary key; the rows' values cross
sub booking
{
	sql('DROP TABLE IF EXISTS booking; CREATE TABLE booking (gone int, id int CONSTRAINT pk PRIMARY KEY, code int ' .
		'NOT NULL UNIQUE, guest uuid, key_id uuid); ALTER TABLE booking DROP COLUMN gone;' . keeps('booking'));
	return;
}
my $other_key = 'ALTER TABLE booking DROP CONSTRAINT pk, ADD CONSTRAINT pk PRIMARY KEY (code)';
my $former_key = 'ALTER TABLE booking DROP CONSTRAINT pk, ADD CONSTRAINT pk PRIMARY KEY (id)';
foreach my $swapped (0, 1)
{
	booking();
	my ($mine, $yours) = (new_guest(), new_guest());
	# (the names may even be the same as before)
	my ($forth, $back) = $swapped ? ('ALTER TABLE booking DROP CONSTRAINT pk; ALTER TABLE booking RENAME id TO x; ' .
		'ALTER TABLE booking RENAME code TO id; ALTER TABLE booking ADD CONSTRAINT pk PRIMARY KEY (id)',
		'ALTER TABLE booking DROP CONSTRAINT pk; ALTER TABLE booking RENAME id TO code; ' .
			'ALTER TABLE booking RENAME x TO id; ALTER TABLE booking ADD CONSTRAINT pk PRIMARY KEY (id)')
			: ($other_key, $former_key);
	ok(meanwhile("INSERT INTO booking VALUES (1, 2, '$mine'), (2, 1, '$mine'), (3, 4, '$yours')", $forth),
		'the primary key is another column' . ($swapped ? ' of the same name' : ''));
	is(of($mine), "issued 55000\nissued 55000", 'the requests say so');
	like(of($mine, 'error'), qr/primary key/, 'in words');
	is(sql('SELECT count(key_id) FROM booking'), 0, 'nothing is written to what may be other rows');
	is(of($yours), 'issued 55000', 'nor is anything revoked');
	is(length(live($yours)), 36, 'the key lives');
	# a row that goes is not the one whose values these were
	sql("BEGIN; DELETE FROM booking WHERE guest = '$yours' AND key_id IS NULL; UPDATE booking SET " .
		($swapped ? 'id' : 'code') . " = 3 WHERE guest = '$mine' AND " . ($swapped ? 'x' : 'id') .
		' = 1; DELETE FROM booking WHERE ' . ($swapped ? 'id' : 'code') . ' = 3; COMMIT');
	ok(settled, 'rows go meanwhile');
	# (as a row without a request it has asked for a key, before it went)
	is(of($mine), "issued 55000\nissued 55000\ncancelled", 'no request is taken for that of another row');
	is(scalar(split /,/, live($mine)), 2, 'and no key is revoked');
	sql($back);
	sql("SELECT seam_retry_instant_key_request(request_id) FROM seam_instant_key_request " .
		"WHERE user_identity_id IN ('$mine', '$yours')");
	ok(settled, 'the primary key is as it was');
	is(of($mine), "revoked\nissued\ncancelled", 'the row that is there has its key, and the other one has none');
	is(sql('SELECT string_agg(key_id::text, \' \') FROM booking'), live($mine), 'which lives');
	is(of($yours) . live($yours), 'revoked', 'the key of the row that has gone is revoked');
}
# none at all
booking();
$guest = new_guest();
ok(meanwhile("INSERT INTO booking VALUES (1, 2, '$guest')", 'ALTER TABLE booking DROP CONSTRAINT pk'),
	'no primary key');
is(of($guest), 'issued 55000', 'the request says so');
sql($former_key =~ s/DROP CONSTRAINT pk, //r);
ok(retry($guest), 'it is there again');
is(sql('SELECT key_id FROM booking'), live($guest), 'the row has its key');
# a renamed column is the same, and so is one of another type
booking();
$guest = new_guest();
ok(meanwhile("INSERT INTO booking VALUES (1, 2, '$guest')", 'ALTER TABLE booking RENAME id TO number; ' .
	'ALTER TABLE booking RENAME code TO id; ALTER TABLE booking ALTER number TYPE bigint'),
	'a renamed column of the primary key');
is(sql('SELECT key_id FROM booking WHERE number = 1'), live($guest), 'the row has its key');
is(length(live($guest)), 36, 'one');

# ---------- a copy ----------

# Columns have other numbers in a restored table, and may have other names in a copied one.
booking();
my ($dumped, $copied) = (new_guest(), new_guest());
sql("ALTER SYSTEM SET seam_ik.worker = 'off'; SELECT pg_reload_conf()");
wait_for(sub { my $who = new_guest(); sql("SELECT seam_enqueue_instant_key('$who')"); select undef, undef, undef, 0.2;
	of($who) eq 'pending' });
sql("INSERT INTO booking VALUES (1, 2, '$dumped')");
my $dump = $node->basedir . '/rows.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'a dump');
sql('CREATE DATABASE restored');
$node->safe_psql('restored', '\i ' . $dump);
is($node->safe_psql('restored', "SELECT attnum FROM pg_attribute WHERE attrelid = 'booking'::regclass " .
	"AND attname = 'id'"), 1, '(a column has another number there)');
$node->safe_psql('restored', "DELETE FROM seam_instant_key_request WHERE target_table IS NULL; " .
	"UPDATE booking SET code = 1, id = 5; UPDATE booking SET id = 1; SELECT seam_adopt_instant_key_requests()");
sql("DELETE FROM seam_instant_key_request WHERE user_identity_id = '$dumped'; DELETE FROM booking; " .
	"ALTER SYSTEM RESET seam_ik.worker; SELECT pg_reload_conf()");
meet($node, $fake, 'restored');
ok(settled, 'requests of a dump are adopted');
is(of($dumped), 'issued', 'issued');
is(sql('SELECT key_id FROM booking WHERE id = 1'), live($dumped), 'the row has its key');
is(length(live($dumped)), 36, 'one');
$guest = new_guest();
sql("INSERT INTO booking VALUES (7, 7, '$guest')");
ok(settled, 'a new row there');
is(sql('SELECT key_id FROM booking WHERE id = 7'), live($guest), 'has its key');
meet($node, $fake);
$node->safe_psql('postgres', 'DROP DATABASE restored WITH (FORCE)');

# ---------- partitions that come and go ----------

sub stay
{
	my ($primary_key) = @_;
	sql("DROP TABLE IF EXISTS stay, stay2; CREATE TABLE stay (gone int, id int, place int, guest uuid, key_id uuid,
		$primary_key) PARTITION BY LIST (place); ALTER TABLE stay DROP COLUMN gone;
CREATE TABLE stay1 PARTITION OF stay FOR VALUES IN (1); CREATE TABLE stay2 PARTITION OF stay FOR VALUES IN (2)
	PARTITION BY RANGE (id); CREATE TABLE stay2a PARTITION OF stay2 DEFAULT;" . keeps('stay'));
	return;
}
foreach my $moved (0, 1)
{
	foreach my $partition (qw(stay2 stay2a))
	{
		my $stays = new_guest();
		$guest = new_guest();
		stay('PRIMARY KEY (id, place)');
		ok(meanwhile("INSERT INTO stay VALUES (1, " . (2 - $moved) . ", '$guest'), (2, 1, '$stays');" .
			($moved ? 'UPDATE stay SET place = 2 WHERE id = 1' : ''),
			'ALTER TABLE ' . ($partition eq 'stay2' ? 'stay' : 'stay2') . " DETACH PARTITION $partition"),
				"$partition is detached" . ($moved ? ', to which the row has moved' : ''));
		is(of($guest), 'issued 55000', 'the request says so');
		like(of($guest, 'error'), qr/detached/, 'in words');
		is(length(live($guest)), 36, 'the key lives');
		is(sql('SELECT key_id FROM stay WHERE id = 2'), live($stays), 'another row has its key');
		sql($partition eq 'stay2' ? 'ALTER TABLE stay ATTACH PARTITION stay2 FOR VALUES IN (2)'
			: 'ALTER TABLE stay2 ATTACH PARTITION stay2a DEFAULT');
		ok(retry($guest), 'it is attached again');
		is(of($guest) . ' ' . sql('SELECT key_id FROM stay WHERE id = 1'), 'issued ' . live($guest),
			'the row has its key');
	}
}
# a partition that is dropped takes its rows along
$guest = new_guest();
stay('PRIMARY KEY (id, place)');
ok(meanwhile("INSERT INTO stay VALUES (1, 2, '$guest')", 'DROP TABLE stay2'), 'a partition is dropped');
is(of($guest) . live($guest), 'revoked', 'the key is revoked');
# a table that becomes a partition
$guest = new_guest();
sql('CREATE TABLE single (key_id uuid, place int, id int, guest uuid, PRIMARY KEY (id, place));' .
	keeps('single') . 'DROP TABLE stay; CREATE TABLE stay (gone int, id int, place int, guest uuid, key_id uuid, ' .
	'PRIMARY KEY (id, place)) PARTITION BY LIST (place); ALTER TABLE stay DROP COLUMN gone');
ok(meanwhile("INSERT INTO single VALUES (NULL, 3, 1, '$guest')",
	'ALTER TABLE stay ATTACH PARTITION single FOR VALUES IN (3)'), 'a table is attached');
is(of($guest) . ' ' . sql('SELECT key_id FROM stay WHERE id = 1'), 'issued ' . live($guest), 'the row has its key');
is(length(live($guest)), 36, 'one');

# ---------- a primary key that gets another value ----------

booking();
# where both triggers are there the request follows its row
my ($waiting, $written) = (new_guest(), new_guest());
sql("INSERT INTO booking VALUES (20, 20, '$written')");
ok(settled, 'a row with its key');
ok(meanwhile("INSERT INTO booking VALUES (1, 1, '$waiting')", 'UPDATE booking SET id = id + 100'),
	'rows get other numbers');
is(sql("SELECT key_id FROM booking WHERE guest = '$_'"), live($_), 'each has its key') for $waiting, $written;
is(length(live($_)), 36, 'one') for $waiting, $written;
is(of($_), 'issued', 'and the request knows') for $waiting, $written;
# where nobody sees it, what may be the row is known by its guest
foreach my $reused (0, 1)
{
	my ($another, $gone, $twice) = map { new_guest() } 1 .. 3;
	$waiting = new_guest();
	sql('DROP TABLE booking; CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid, note text);' .
		keeps('booking'));
	ok(meanwhile("INSERT INTO booking VALUES (1, '$waiting'), (2, '$gone'), (3, '$twice'), (4, '$twice')",
		'SET session_replication_role = replica; UPDATE booking SET id = 100 WHERE id = 1; ' .
			'DELETE FROM booking WHERE id IN (2, 3); RESET session_replication_role;' .
			($reused ? "INSERT INTO booking VALUES (1, '$another')" : '')),
		'a number changes unseen' . ($reused ? ', and is used again' : ''));
	is(of($waiting), 'issued 55000', 'the request says so');
	like(of($waiting, 'error'), qr/primary key may have changed/, 'in words');
	is(length(live($waiting)), 36, 'the key lives');
	is(of($gone) . live($gone), 'revoked', 'that of a row that has gone is revoked');
	is(of($twice), "revoked\nissued", 'also when the guest has another row, with a request of its own');
	is(sql("SELECT key_id FROM booking WHERE guest = '$twice'"), live($twice), 'which has its key');
	is(sql("SELECT key_id FROM booking WHERE guest = '$another'"), live($another), 'and so has the new row') if $reused;
	# by hand
	sql("SET session_replication_role = replica; UPDATE booking SET key_id = " .
		"(SELECT (instant_key).instant_key_id FROM seam_instant_key_request " .
		"WHERE user_identity_id = '$waiting') WHERE guest = '$waiting'");
	ok(retry($waiting), 'tried again when the row has its key');
	is(of($waiting) . ' ' . sql("SELECT key_id FROM booking WHERE guest = '$waiting'"), 'issued ' . live($waiting),
		'which is as well');
	# TRUNCATE and the like leave nothing to doubt
	$waiting = new_guest();
	ok(meanwhile("INSERT INTO booking VALUES (9, '$waiting')", 'TRUNCATE booking'), 'TRUNCATE');
	is(of($waiting) . live($waiting), 'revoked', 'has the key revoked');
}
# columns of other types
$waiting = new_guest();
my $gone = new_guest();
sql('DROP TABLE booking; CREATE DOMAIN guest AS uuid; ' .
	'CREATE TABLE booking (id int PRIMARY KEY, guest guest, key_id varchar(36));' . keeps('booking'));
ok(meanwhile("INSERT INTO booking VALUES (1, '$waiting', NULL), (2, '$gone', NULL), (3, NULL, NULL), (4, '$waiting', " .
	"'no key'), (5, '$gone', 'no key')", 'SET session_replication_role = replica; ' .
	'UPDATE booking SET id = 10 WHERE id = 1; DELETE FROM booking WHERE id = 2'),
	'columns of other types');
is(of($waiting), 'issued 55000', 'the request says so');
is(of($gone) . live($gone), 'revoked', 'and the other key is revoked');
sql("SET session_replication_role = replica; " .
	"UPDATE booking SET key_id = upper('" . live($waiting) . "') WHERE id = 10");
ok(retry($waiting), 'the key is written by hand');
is(of($waiting), 'issued', 'which is as well');
sql('DROP TABLE booking; DROP DOMAIN guest');

# ---------- the outbox's table, when somebody has changed it ----------

sub bookings_work
{
	my ($how) = @_;
	my ($booked, $cancelled) = (new_guest(), new_guest());
	sql("DROP TABLE IF EXISTS booking; CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid);" .
		keeps('booking') .
		"INSERT INTO booking VALUES (1, '$booked'), (2, '$cancelled'); UPDATE booking SET id = 3 WHERE id = 1; " .
			"DELETE FROM booking WHERE id = 2");
	ok(settled, $how);
	is(of($booked) . ' ' . sql('SELECT key_id FROM booking WHERE id = 3'), 'issued ' . live($booked),
		'a booking gets its key');
	like(of($cancelled) . live($cancelled), qr/^(cancelled|revoked)$/, 'and a deleted one loses it');
	sql('DELETE FROM booking');
	ok(settled, 'deleted');
	is(live($booked), '', 'and revoked');
	return;
}
bookings_work('the table as it was made');
sql('ALTER TABLE seam_instant_key_request ADD note text, ADD noted timestamptz');
bookings_work('with columns of the DBA');
sql('ALTER TABLE seam_instant_key_request DROP note');
bookings_work('less one that is dropped again');
sql('ALTER TABLE seam_instant_key_request ADD tenant text NOT NULL DEFAULT 0');
like(error_of("INSERT INTO booking VALUES (50, '" . new_guest() . "')"), qr/^23502: .*"tenant"/,
	'one that must not be NULL is named');
sql('ALTER TABLE seam_instant_key_request DROP tenant; ALTER TABLE seam_instant_key_request RENAME reference TO label');
like(error_of("INSERT INTO booking VALUES (50, '" . new_guest() . "')"), qr/^42703: .*"reference"/,
	'and so is one that is missing');
sql('ALTER TABLE seam_instant_key_request RENAME label TO reference; ' .
	'ALTER TABLE seam_instant_key_request ALTER max_use_count TYPE bigint');
like(error_of("INSERT INTO booking VALUES (50, '" . new_guest() . "')"), qr/^42804: .*"max_use_count"/,
	'and one of another type');
sql('ALTER TABLE seam_instant_key_request ALTER max_use_count TYPE int');
bookings_work('as it was');
# a session that has enqueued before the table changes
$guest = new_guest();
sql("BEGIN; INSERT INTO booking VALUES (60, '$guest'); ALTER TABLE seam_instant_key_request ADD late text; " .
	"INSERT INTO booking VALUES (61, '$guest'); COMMIT; ALTER TABLE seam_instant_key_request DROP late; " .
	"INSERT INTO booking VALUES (62, '$guest')");
ok(settled, 'changed within a transaction');
is(sql("SELECT count(DISTINCT key_id) FROM booking WHERE guest = '$guest'"), 3, 'each has its key');
# the table that the former version made, until ALTER EXTENSION UPDATE
sql('ALTER TABLE seam_instant_key_request DROP target_columns, DROP target_numbers, DROP target_partition');
bookings_work('a table without the later columns');
stay('PRIMARY KEY (id, place)');
$guest = new_guest();
ok(meanwhile("INSERT INTO stay VALUES (1, 1, '$guest')", 'UPDATE stay SET place = 2'), 'a row that moves');
is(of($guest) . ' ' . sql('SELECT key_id FROM stay'), 'issued ' . live($guest), 'has its key');

$node->stop('immediate');
done_testing();
