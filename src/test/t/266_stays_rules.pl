# Rules of keys for stays: what dates mean, what a trigger may be told, and what statements
# of every kind, users' triggers and constraints, and old copies of a row make of its key.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql error_of live sent columns_of enqueue wait_state statuses key_of has_key);
use JSON::PP ();
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_rules'",
	"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '1s'", "timezone = 'UTC'");
meet($node, $fake);

# keeps(table, arguments, name, events): its trigger
sub keeps
{
	my ($table, $more, $name, $update) = @_;
	return sprintf "CREATE TRIGGER %s AFTER INSERT OR %s OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION " .
		"seam_keep_instant_key_trigger(%s);", $name // 'stay', $update // 'UPDATE', $table, $more;
}
my $keeps = "'user_identity_id=guest', 'issue_at=check_in', 'valid_until=check_out', 'instant_key_id=key_id'";

# table(name, type of the dates, more arguments, more columns): statements that make it
sub table
{
	my ($name, $type, $more, $columns) = @_;
	return "CREATE TABLE $name (id int PRIMARY KEY, guest uuid, check_in $type, check_out $type, key_id uuid, " .
		"note text" . ($columns // '') . '); ' . keeps($name, $keeps . ($more // ''));
}
sub has_none
{
	my ($table, $id, $guest) = @_;
	return wait_for(sub { key_of($table, $id) eq '' && live($guest) eq '' });
}
# until there is nothing left to do, but for what sleeps
sub quiet
{
	return wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE wake_at = '-infinity' OR " .
		'next_attempt_at IS NOT NULL OR row_task IS NOT NULL') == 0 });
}

# ---------- dates ----------

my ($tokyo, $york) = map { "SET TimeZone = '$_';" } 'Asia/Tokyo', 'America/New_York';
# the stay of a guest's newest request, in UTC
sub dates
{
	return sql("SELECT to_char(issue_at, 'MM-DD HH24:MI'), to_char(valid_until, 'MM-DD HH24:MI')
		FROM seam_instant_key_request WHERE user_identity_id = '$_[0]' ORDER BY request_id DESC LIMIT 1");
}
sql(table('night', 'date') . table('moment', 'timestamp') . table('berlin', 'date', ", 'time_zone=Europe/Berlin'") .
	table('noon', 'timestamp', ", 'time_zone=Europe/Berlin'"));

my $who = new_guest();
sql("$tokyo INSERT INTO night VALUES (1, '$who', '2040-03-10', '2040-03-12')");
is(dates($who), '03-09 15:00|03-12 15:00', 'from the beginning of a date to the end of one, in the session\'s zone');
sql("$york UPDATE night SET check_out = '2040-03-14' WHERE id = 1");
is(dates($who), '03-09 15:00|03-15 04:00', 'where one changes, the other one stays');
sql("$york UPDATE night SET check_in = '2040-03-09' WHERE id = 1");
is(dates($who), '03-09 05:00|03-15 04:00', 'either of them');
sql("$tokyo UPDATE night SET check_in = check_in, check_out = check_out + 0, note = 'x' WHERE id = 1");
is(dates($who), '03-09 05:00|03-15 04:00', 'the same dates of another zone change nothing');
my $other = new_guest();
sql("$tokyo UPDATE night SET guest = '$other' WHERE id = 1");
is(dates($other), '03-09 05:00|03-15 04:00', 'nor does another guest while the key waits');
$who = new_guest();
sql("$tokyo INSERT INTO night VALUES (2, '$who', '2020-01-01', '2040-03-12')");
ok(has_key('night', 2, $who), 'a stay that has begun');
$other = new_guest();
sql("$york UPDATE night SET guest = '$other' WHERE id = 2");
ok(has_key('night', 2, $other), 'has another guest');
is(dates($other), '12-31 15:00|03-12 15:00', 'for the same days');
sql("UPDATE night SET key_id = NULL, check_out = 'infinity' WHERE id = 2");
is(dates($other), '12-31 15:00|', 'an end that is infinite is none');
like(error_of("INSERT INTO night VALUES (3, '$who', '2040-01-01', '5874897-01-01')"), qr/^22008: /,
	'a date that is no time');

$who = new_guest();
sql("$tokyo INSERT INTO moment VALUES (1, '$who', '2040-03-10 14:00', '2040-03-12 11:00')");
is(dates($who), '03-10 05:00|03-12 02:00', 'timestamps are of the session\'s zone, too');
sql("$york UPDATE moment SET check_in = '2040-03-10 14:30' WHERE id = 1");
is(dates($who), '03-10 19:30|03-12 02:00', 'and each stays until it changes');

$who = new_guest();
sql("$tokyo INSERT INTO berlin VALUES (1, '$who', '2040-03-25', '2040-03-25')");
is(dates($who), '03-24 23:00|03-25 22:00', 'by the argument: a day of 23 hours');
sql("$york UPDATE berlin SET check_out = '2040-03-26' WHERE id = 1");
is(dates($who), '03-24 23:00|03-26 22:00', 'whatever zone the session has');
$who = new_guest();
sql("$tokyo INSERT INTO noon VALUES (1, '$who', '2040-03-24 14:00', '2040-07-01 11:00')");
is(dates($who), '03-24 13:00|07-01 09:00', 'and for timestamps');
foreach my $zones ("'time_zone=Mars/Olympus'", "'time_zone=UTC', 'time_zone=UTC'")
{
	sql(table('wrong', 'date', ", $zones"));
	like(error_of("INSERT INTO wrong VALUES (1, '$who', '2040-01-01', '2040-01-02')"),
		qr/^22023: trigger "stay" of table "wrong": .*time.zone/, $zones);
	sql('DROP TABLE wrong');
}

# ---------- dates that are the wrong way round ----------

sql(table('booking', 'timestamptz', ", 'wanted=confirmed', 'max_use_count=nights'",
	', confirmed boolean DEFAULT true, nights int DEFAULT 3'));
my $ids = 0;
# the id of a booking; times are SQL
sub booking
{
	my ($guest, $in, $out) = @_;
	$ids++;
	sql("INSERT INTO booking (id, guest, check_in, check_out) VALUES ($ids, '$guest', $in, $out)");
	return $ids;
}
$who = new_guest();
my $b = booking($who, "'2040-01-01'", "'2040-01-05'");
like(error_of("UPDATE booking SET $_ WHERE id = $b"), qr/^22023: trigger "stay" of table "booking"/,
	"the wrong way round: $_") for "check_in = '2040-01-06'", "check_out = '2039-12-31'";
sql("UPDATE booking SET check_in = check_out, nights = 4 WHERE id = $b");
is(dates($who), '01-05 00:00|01-05 00:00', 'equal ones are allowed');
sql("UPDATE booking SET confirmed = false WHERE id = $b; UPDATE booking SET check_in = '2040-01-06' WHERE id = $b;
	UPDATE booking SET note = 'x', check_out = '2040-01-07' WHERE id = $b;
	UPDATE booking SET confirmed = true WHERE id = $b");
is(dates($who), '01-06 00:00|01-07 00:00', 'and so is anything while no key is wanted');
$other = new_guest();
$b = booking($other, 'now()', "'infinity'");
ok(has_key('booking', $b, $other), 'a key');
like(error_of("UPDATE booking SET check_out = check_in - interval '1 s' WHERE id = $b"), qr/^22023: /,
	'the wrong way round when there is one');
is(live($other), key_of('booking', $b), 'which stays');

# ---------- a condition by a generated column ----------

sql('CREATE TABLE paid (id int PRIMARY KEY, guest uuid, state text, is_paid boolean, key_id uuid, is_wanted boolean ' .
	"GENERATED ALWAYS AS (state = 'confirmed' AND is_paid) STORED, check_in timestamptz, check_out timestamptz);" .
	keeps('paid', "$keeps, 'wanted=is_wanted'"));
$who = new_guest();
sql("INSERT INTO paid (id, guest, state) VALUES (1, '$who', 'confirmed')");
is(sql('SELECT is_wanted IS NULL FROM paid'), 't', 'a condition that is NULL');
is(columns_of($who, 'status'), '', 'is false');
sql('UPDATE paid SET is_paid = true');
ok(has_key('paid', 1, $who), 'it becomes true: issued');
foreach my $end ([ 'is_paid = NULL', 'is_paid = true' ], [ "state = 'waits'", "state = 'confirmed'" ])
{
	sql("UPDATE paid SET $end->[0]");
	ok(has_none('paid', 1, $who), "$end->[0]: revoked");
	sql("UPDATE paid SET $end->[1]");
	ok(has_key('paid', 1, $who), "$end->[1]: issued");
}
# the writer looks at such a column, too
$who = new_guest();
sql("INSERT INTO paid (id, guest, state, is_paid, check_in) VALUES (2, '$who', 'confirmed', true, " .
	"now() + interval '1 s')");
ok(has_key('paid', 2, $who), 'and so is one that waits for its time');

# ---------- what a trigger may be told ----------

sql('CREATE TABLE shared (id int PRIMARY KEY, guest uuid, second uuid, key_id uuid, second_key uuid, second_url ' .
	'text, check_in timestamptz, check_out timestamptz)');
$who = new_guest();
my $insert = "INSERT INTO shared (id, guest) VALUES (1, '$who')";
foreach my $left_out (qw(guest check_in check_out key_id))
{
	my $list = join ', ', grep { $_ ne $left_out } qw(id guest check_in check_out key_id);
	like(error_of('BEGIN; ' . keeps('shared', $keeps, 'bad', "UPDATE OF $list") . $insert),
		qr/^22023: trigger "bad" of table "shared": .*"$left_out"/, "UPDATE OF a list without $left_out");
}
sql(keeps('shared', $keeps, 'stay', 'UPDATE OF id, guest, check_in, check_out, key_id'));
my $two = "'user_identity_id=second', 'instant_key_id=second_key', 'instant_key_url=second_url'";
my $error = error_of('BEGIN; ' . keeps('shared', "'user_identity_id=second', 'instant_key_id=key_id'", 'twice') .
	$insert);
like($error, qr/^55000: .*column "key_id"/, 'two triggers that fill the same column');
like($error, qr/"$_"/, "it names $_") for 'stay', 'twice';
like(error_of('BEGIN; CREATE TRIGGER call BEFORE INSERT ON shared FOR EACH ROW EXECUTE FUNCTION ' .
	"seam_generate_instant_key_trigger('user_identity_id=second', 'instant_key_id=key_id'); $insert"),
	qr/^55000: .*"stay" and "call"/, 'also one that issues its key inside the transaction');
foreach my $key ('', ', PRIMARY KEY (id) DEFERRABLE')
{
	like(error_of("BEGIN; CREATE TABLE keyless (id int, guest uuid, check_in timestamptz, check_out timestamptz, " .
		"key_id uuid$key); " . keeps('keyless', $keeps) .
		' INSERT INTO keyless (id, guest) VALUES (1, gen_random_uuid())'),
		qr/^55000: .*primary key/, 'a table without a primary key that is checked at once');
}
sql(keeps('shared', $two, 'second'));
($who, $other) = (new_guest(), new_guest());
sql("INSERT INTO shared (id, guest, second) VALUES (1, '$who', '$other')");
my $second = sub { return sql('SELECT second_key FROM shared') };
ok(has_key('shared', 1, $who) && wait_for(sub { my $key = $second->(); $key ne '' && live($other) eq $key }),
	'two guests have a key each');
my ($first_key, $former) = (key_of('shared', 1), $second->());
my $third = new_guest();
sql("UPDATE shared SET second = '$third'");
ok(wait_for(sub { my $key = $second->(); $key ne '' && $key ne $former && live($third) eq $key && live($other) eq '' }),
	'one of them changes');
sql('UPDATE shared SET second = NULL');
ok(wait_for(sub { live($third) eq '' && sql('SELECT num_nulls(second_key, second_url) FROM shared') == 2 }),
	'or leaves');
ok(quiet(), 'all is done');
is(key_of('shared', 1) . sent($who), "${first_key}1", 'the other one keeps its key');
sql('UPDATE shared SET guest = NULL, second = gen_random_uuid()');
ok(has_none('shared', 1, $who) && wait_for(sub { $second->() ne '' }), 'it leaves when another one comes');

# ---------- what users' triggers change besides ----------

sql(table('host', 'timestamptz', ", 'wanted=confirmed'", ', confirmed boolean DEFAULT true, heir uuid') . q{
CREATE FUNCTION besides() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF OLD.key_id IS NULL AND NEW.key_id IS NOT NULL AND NEW.note IS NOT NULL THEN
		CASE NEW.note
			WHEN 'heir' THEN NEW.guest := NEW.heir;
			WHEN 'later' THEN NEW.check_in := now() + interval '10 days';
			WHEN 'over' THEN NEW.check_out := now() - interval '1 s';
			WHEN 'unwanted' THEN NEW.confirmed := false;
			ELSE NEW.note := 'seen, ';
		END CASE;
		NEW.note := NEW.note || ' done';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER besides BEFORE UPDATE ON host FOR EACH ROW EXECUTE FUNCTION besides()});
my %host = map { $_ => new_guest() } qw(plain heir later over unwanted);
my $heir = new_guest();
my $n = 0;
my %id = map { $_ => ++$n } sort keys %host;
sql("INSERT INTO host (id, guest, check_out, note, heir) VALUES ($id{$_}, '$host{$_}', 'infinity', '$_', '$heir')")
	for sort keys %host;
ok(wait_for(sub { sql("SELECT count(*) FROM host WHERE note LIKE '% done'") == 5 }), 'keys are written');
ok(has_key('host', $id{heir}, $heir), 'another guest, by a trigger: a key of that one');
ok(has_none('host', $id{$_}, $host{$_}), "$_, by a trigger: revoked, and cleared") for qw(later over unwanted);
is(live($host{heir}), '', 'the former guest has none');
ok(quiet(), 'all is done');
is(statuses($host{later}), 'revoked, pending', 'put off: another one waits');
is(statuses($host{$_}), 'revoked', "$_: none does") for qw(over unwanted);
is(statuses($host{plain}) . live($host{plain}), 'issued' . key_of('host', $id{plain}),
	'and where nothing else changes, nothing comes of it');
# what the writer clears does not look like a lost phone
sql("UPDATE host SET check_out = now(), check_in = NULL WHERE id = $id{plain}");
ok(has_none('host', $id{plain}, $host{plain}) && quiet(), 'over: cleared');
is(statuses($host{plain}), 'revoked', 'and nothing is asked for');

# One that changes the row again, before our trigger has seen what it was fired for.
sql(table('again', 'timestamptz', ", 'wanted=confirmed'", ', confirmed boolean DEFAULT true, heir uuid') . q{
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	CASE NEW.note
		WHEN 'plain' THEN UPDATE again SET note = NULL WHERE id = NEW.id;
		WHEN 'confirms' THEN UPDATE again SET confirmed = true, note = NULL WHERE id = NEW.id;
		WHEN 'refuses' THEN UPDATE again SET confirmed = false, note = NULL WHERE id = NEW.id;
		WHEN 'later' THEN UPDATE again SET check_in = '2040-01-01', note = NULL WHERE id = NEW.id;
		WHEN 'heir' THEN UPDATE again SET guest = heir, id = -id, note = NULL WHERE id = NEW.id;
		WHEN 'goes' THEN DELETE FROM again WHERE id = NEW.id;
		ELSE NULL;
	END CASE;
	RETURN NULL;
END $$;
CREATE TRIGGER again AFTER INSERT OR UPDATE ON again FOR EACH ROW EXECUTE FUNCTION again()});
$heir = new_guest();
my @again = qw(plain confirms refuses later heir goes);
my (%inserted, %former, %updated);
foreach my $what (@again)
{
	($inserted{$what}, $former{$what}, $updated{$what}) = map { new_guest() } 1 .. 3;
	$id{$what} = ++$n;
	sql("INSERT INTO again (id, guest, confirmed, note, heir) VALUES ($n, '$inserted{$what}', '$what' <> 'confirms', " .
		"'$what', '$heir')");
	$n++;
	sql("INSERT INTO again (id, guest) VALUES ($n, '$former{$what}')");
	ok(has_key('again', $n, $former{$what}), "a key, that another guest comes for ($what)");
	sql("UPDATE again SET guest = '$updated{$what}', note = '$what', heir = '$heir', " .
		"confirmed = '$what' <> 'confirms' WHERE id = $n");
}
ok(quiet(), 'all is done');
foreach my $what (@again)
{
	my $wants = $what =~ /plain|confirms/;
	is(live($inserted{$what}), $wants ? key_of('again', $id{$what}) : '', "inserted, and a trigger before ours: $what");
	is(live($updated{$what}), $wants ? key_of('again', $id{$what} + 1) : '',
		"another guest, and such a trigger: $what");
	is(live($former{$what}), '', 'the former one has none');
	isnt(live($inserted{$what}) . live($updated{$what}), '', '(there are keys)') if $wants;
}
is(statuses($inserted{later}) . ' ' . statuses($updated{later}), 'pending pending', 'what is later waits');
is(sent($inserted{goes}), 0, 'nothing is asked for a row that was gone');
is(join(',', sort map { key_of('again', -$id{heir} - $_) } 0, 1), live($heir), 'an heir has the keys');

# and one that changes a row again which has come from another partition
sql(q{CREATE TABLE hall (id int, hall int, guest uuid, check_in timestamptz, check_out timestamptz,
	confirmed boolean DEFAULT true, key_id uuid, note text, PRIMARY KEY (id, hall)) PARTITION BY LIST (hall);
	CREATE TABLE hall_1 PARTITION OF hall FOR VALUES IN (1); CREATE TABLE hall_2 PARTITION OF hall FOR VALUES IN (2);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF NEW.note = 'refuses' THEN
		UPDATE hall SET confirmed = false, note = NULL WHERE id = NEW.id;
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER again AFTER INSERT OR UPDATE ON hall FOR EACH ROW EXECUTE FUNCTION refuse();} .
	keeps('hall', "$keeps, 'wanted=confirmed'"));
$who = new_guest();
sql("INSERT INTO hall (id, hall, guest) VALUES (1, 1, '$who')");
ok(has_key('hall', 1, $who) && quiet(), 'a key in a partition');
sql("UPDATE hall SET hall = 2, note = 'refuses'");
ok(quiet() && live($who) eq '', 'moved, and refused by a trigger before ours: revoked');

# a column for keys that pads them
sql(table('padded', 'timestamptz') . 'ALTER TABLE padded ALTER key_id TYPE char(40)');
$who = new_guest();
sql("INSERT INTO padded (id, guest) VALUES (1, '$who')");
ok(wait_for(sub { key_of('padded', 1) ne '' }) && quiet(), 'a key in a column that is longer');
is(live($who), key_of('padded', 1) =~ s/ +$//r, 'lives');

# ---------- a clearing that is forbidden ----------

foreach my $how ('ALTER TABLE vault ALTER key_id SET NOT NULL', 'ALTER TABLE vault ADD CHECK (key_id IS NOT NULL)',
	'CREATE TRIGGER no BEFORE UPDATE OF key_id ON vault FOR EACH ROW EXECUTE FUNCTION no()')
{
	foreach my $end ('confirmed = false', 'check_out = now(), check_in = NULL', "guest = NULL")
	{
		my $guest = new_guest();
		sql('DROP TABLE IF EXISTS vault; ' . table('vault', 'timestamptz', ", 'wanted=confirmed'",
			', confirmed boolean DEFAULT true') .
			q{CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';} .
			"INSERT INTO vault (id, guest, check_out) VALUES (1, '$guest', 'infinity')");
		ok(has_key('vault', 1, $guest), 'a key') or diag(columns_of($guest, 'status, error'));
		my $key = key_of('vault', 1);
		sql("$how; UPDATE vault SET $end");
		ok(wait_for(sub { statuses($guest) eq 'revoked' }), ($how =~ /vault (.*)/)[0] . "; $end: revoked all the same");
		is(live($guest), '', 'it opens no door');
		ok(quiet(), 'and the clearing is not tried for ever');
		is(key_of('vault', 1), $key, '(which was forbidden)');
	}
}

# ---------- statements of every kind ----------

# rolled back
my ($waits, $has) = (new_guest(), new_guest());
my ($waits_b, $has_b) = (booking($waits, "'2040-01-01'", "'2040-02-01'"), booking($has, 'NULL', "'2040-02-01'"));
ok(has_key('booking', $has_b, $has) && quiet(), 'a stay with a key, and one that waits');
my $requests = "SELECT string_agg(r::text, ' ' ORDER BY request_id) FROM seam_instant_key_request r WHERE " .
	"user_identity_id IN ('$waits', '$has')";
my $before = sql($requests);
my $gone = new_guest();
my $both = "WHERE id IN ($waits_b, $has_b)";
foreach my $change ("guest = '$gone'", 'confirmed = false', "check_in = '2040-01-20'",
	'check_out = now(), check_in = NULL', 'key_id = NULL', 'key_id = gen_random_uuid()', 'nights = 9', 'id = id + 1000')
{
	sql("BEGIN; UPDATE booking SET $change $both; ROLLBACK; " .
		"BEGIN; SAVEPOINT a; UPDATE booking SET $change $both; ROLLBACK TO a; COMMIT");
}
sql("BEGIN; DELETE FROM booking $both; ROLLBACK; BEGIN; SAVEPOINT a; DELETE FROM booking $both; ROLLBACK TO a; COMMIT;
	BEGIN; INSERT INTO booking (id, guest) VALUES (9999, '$gone'); ROLLBACK");
is(sql($requests), $before, 'what rolls back changes no request');
sql("BEGIN; SAVEPOINT a; UPDATE booking SET guest = '$gone' $both; ROLLBACK TO a; " .
	"UPDATE booking SET check_out = '2040-03-01' $both; COMMIT");
ok(quiet(), 'and of a transaction only what commits counts');
is(dates($waits) . ' ' . dates($has), '01-01 00:00|03-01 00:00 |03-01 00:00', 'as it was made');
is(live($has) . sent($gone), key_of('booking', $has_b) . '0', 'and the guest keeps its key');

# ON CONFLICT
my ($next_waits, $next_has) = (new_guest(), new_guest());
sql("INSERT INTO booking (id, guest, check_in) VALUES ($waits_b, '$gone', '2039-01-01'), ($has_b, '$gone', NULL)
	ON CONFLICT DO NOTHING");
is(columns_of($gone, 'status'), '', 'ON CONFLICT DO NOTHING');
sql("INSERT INTO booking (id, guest, check_in, check_out) VALUES ($waits_b, '$next_waits', '2040-01-02', '2040-01-09'),
	($has_b, '$next_has', NULL, '2040-01-09') ON CONFLICT (id) DO UPDATE SET guest = EXCLUDED.guest,
	check_in = EXCLUDED.check_in, check_out = EXCLUDED.check_out");
ok(has_key('booking', $has_b, $next_has) && wait_for(sub { live($has) eq '' }), 'ON CONFLICT DO UPDATE: the other key');
is(statuses($next_waits) . ' ' . dates($next_waits), 'pending 01-02 00:00|01-09 00:00', 'and what waits');
is(columns_of($waits, 'status'), '', 'follows the row');

# COPY
my %copied = map { $_ => new_guest() } qw(now later);
sql("COPY booking (id, guest, check_in, check_out) FROM stdin;
2001	$copied{now}	\\N	2040-01-01
2002	$copied{later}	2040-01-01	2040-01-02
\\.
");
ok(has_key('booking', 2001, $copied{now}), 'COPY: issued');
is(statuses($copied{later}) . ' ' . dates($copied{later}), 'pending 01-01 00:00|01-02 00:00', 'or kept for its time');
like(error_of("COPY booking (id, guest, check_in, check_out) FROM stdin;
2003	$gone	\\N	2040-01-01
2004	$gone	2040-01-03	2040-01-02
\\.
"), qr/^22023: /, 'a COPY with dates the wrong way round');
is(columns_of($gone, 'status'), '', 'copies nothing');

# MERGE
my %merged = map { $_ => new_guest() } qw(new heir);
sql("MERGE INTO booking b USING (VALUES (2001, '$merged{heir}'::uuid), (2002, NULL), (2005, '$merged{new}'),
	($waits_b, '$next_waits')) v(id, guest) ON b.id = v.id
	WHEN MATCHED AND v.guest IS NULL THEN DELETE
	WHEN MATCHED AND v.id = $waits_b THEN UPDATE SET check_in = '2040-01-05'
	WHEN MATCHED THEN UPDATE SET guest = v.guest
	WHEN NOT MATCHED THEN INSERT (id, guest, check_in) VALUES (v.id, v.guest, NULL)");
ok(has_key('booking', 2001, $merged{heir}) && wait_for(sub { live($copied{now}) eq '' }), 'MERGE: another guest');
ok(has_key('booking', 2005, $merged{new}), 'a new row');
is(statuses($copied{later}), 'cancelled', 'one that goes');
is(dates($next_waits), '01-05 00:00|01-09 00:00', 'and one whose dates change');

# a row that moves to another partition
sql("CREATE TABLE part (id int, place int, guest uuid, check_in timestamptz, check_out timestamptz, confirmed boolean
	DEFAULT true, key_id uuid, PRIMARY KEY (id, place)) PARTITION BY LIST (place);
	CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1); CREATE TABLE part2 PARTITION OF part FOR VALUES IN (2);" .
	keeps('part', "$keeps, 'wanted=confirmed'"));
my %moves = map { $_ => new_guest() } qw(sleeps dated stops heir);
my %part = (sleeps => 1, dated => 2, stops => 3, heir => 4);
sql("INSERT INTO part (id, place, guest, check_in, check_out) VALUES ($part{$_}, 1, '$moves{$_}', " .
	($_ =~ /sleeps|dated/ ? "'2040-01-01'" : 'NULL') . ", '2040-02-01')") for sort keys %moves;
ok(has_key('part', $part{$_}, $moves{$_}), "a row with a key ($_)") for qw(stops heir);
my $left = new_guest();
sql("UPDATE part SET place = 2 WHERE id = $part{sleeps}; UPDATE part SET place = 2, check_in = '2040-01-03'
	WHERE id = $part{dated}; UPDATE part SET place = 2, confirmed = false WHERE id = $part{stops};
	UPDATE part SET place = 2, guest = '$left' WHERE id = $part{heir}");
ok(has_none('part', $part{stops}, $moves{stops}), 'moved, and not wanted any more: revoked');
ok(has_key('part', $part{heir}, $left) && wait_for(sub { live($moves{heir}) eq '' }), 'moved, and of another guest');
is(statuses($moves{sleeps}) . ' ' . dates($moves{sleeps}), 'pending 01-01 00:00|02-01 00:00', 'moved while it waits');
is(statuses($moves{dated}) . ' ' . dates($moves{dated}), 'pending 01-03 00:00|02-01 00:00', 'with another date');
sql("UPDATE part SET place = 1, check_in = now() + interval '1 s' WHERE id = $part{sleeps};
	UPDATE part SET place = 1, check_out = now() WHERE id = $part{heir}");
ok(has_key('part', $part{sleeps}, $moves{sleeps}), 'its key is issued when its time comes');
ok(has_none('part', $part{heir}, $left), 'and revoked when its stay is over');

# replica roles, and history
my $silent = new_guest();
sql("SET session_replication_role = replica; INSERT INTO booking (id, guest) VALUES (3001, '$silent');
	UPDATE booking SET confirmed = false WHERE id = 2005");
my $history = new_guest();
$b = booking($history, "now() - interval '30 days'", "now() - interval '1 min'");
ok(quiet(), 'all that is due is done');
is(columns_of($silent, 'status'), '', 'a replica role asks for nothing');
is(live($merged{new}), key_of('booking', 2005), 'and revokes nothing by itself');
# (Seam's clock is known by now)
is(columns_of($history, 'status'), '', 'nor does history ask for anything');
sql("UPDATE booking SET note = 'x' WHERE id = 3001");
ok(has_key('booking', 3001, $silent), 'a row without a request has one with its next UPDATE');

# ---------- what is written to the filled columns ----------

sql(table('orm', 'timestamptz', ", 'wanted=confirmed', 'instant_key_url=url', 'expires_at=ends'",
	', confirmed boolean DEFAULT true, url text, ends timestamptz'));
$who = new_guest();
sql("INSERT INTO orm (id, guest) VALUES (1, '$who')");
ok(has_key('orm', 1, $who), 'a key');
sql('CREATE TABLE stale AS TABLE orm; UPDATE orm SET key_id = NULL');
ok(has_key('orm', 1, $who), 'is replaced');
my $row = sql('TABLE orm');
isnt($row, sql('TABLE stale'), '(by another one)');
sql('UPDATE orm SET (guest, check_in, check_out, key_id, note, confirmed, url, ends) = (SELECT guest, check_in, ' .
	'check_out, key_id, note, confirmed, url, ends FROM stale)');
ok(wait_for(sub { sql('TABLE orm') eq $row }), 'an old copy is saved: each column shows the newest key again');
ok(quiet(), 'all is done');
is(live($who) . sent($who), key_of('orm', 1) . '2', 'and nothing is revoked or asked for');
my $own = 'ffffffff-0000-4000-8000-000000000000';
sql("UPDATE orm SET key_id = '$own'");
ok(wait_for(sub { live($who) eq '' }), 'another value by hand: the key is revoked');
sql("UPDATE orm SET check_out = '2040-01-01'; UPDATE orm SET confirmed = false; UPDATE orm SET confirmed = true");
ok(quiet(), 'all is done');
is(key_of('orm', 1) . sent($who), "${own}2", 'and the row is left alone');
sql('UPDATE orm SET key_id = NULL');
ok(has_key('orm', 1, $who), 'until the column is cleared');

# ---------- what is told ----------

my $listener = background($node, 'LISTEN seam_instant_key;');
sql(q{CREATE SCHEMA "In n"; CREATE TABLE "In n"."Booked" (room text, night date, n int, guest uuid, key_id uuid,
	check_in timestamptz, check_out timestamptz, PRIMARY KEY (n, room, night));} . keeps('"In n"."Booked"', $keeps));
my %told = map { $_ => new_guest() } qw(issued cancelled failed revoked);
$fake->behave($told{failed}, 'route=generate_instant_key,status=400');
$n = 0;
my %number = map { $_ => ++$n } sort keys %told;
sql(qq{INSERT INTO "In n"."Booked" VALUES (E'a "suite", \\\\o/', '2026-02-0$number{$_}', $number{$_}, '$told{$_}',
	NULL, } . ($_ eq 'cancelled' ? "'2040-01-01', " : 'NULL, ') . "'2041-01-01')") for sort keys %told;
my $states = sub { return join ' ', map { statuses($told{$_}) } sort keys %told };
ok(wait_for(sub { $states->() eq 'pending failed issued issued' }) && quiet(), 'rows whose requests end');
sql(qq{DELETE FROM "In n"."Booked" WHERE n IN ($number{cancelled}, $number{revoked})});
ok(wait_for(sub { statuses($told{cancelled}) . statuses($told{revoked}) eq 'cancelledrevoked' }) && quiet(), 'and end');
my $single = enqueue(new_guest(), "reference => 'no row'");
wait_state('postgres', $single, 'issued -');
$listener->{in} .= "SELECT 1;\n";
my ($heard) = result_of($listener);
my %payloads;
foreach my $payload (map { JSON::PP::decode_json($_) } $heard =~ /with payload "(\{.*\})" received/g)
{
	push @{ $payloads{ join ' ', sort keys %$payload } }, $payload;
}
is_deeply([ map { "$_->{status} $_->{reference}" } @{ $payloads{'reference request_id status'} } ], ['issued no row'],
	'of a request without a row its reference');
my %of_rows;
push @{ $of_rows{ $_->{key}[0] } }, $_ foreach @{ $payloads{'key reference request_id status table'} };
foreach my $end (sort keys %told)
{
	my @payloads = @{ $of_rows{ $number{$end} } };
	is($payloads[-1]{status}, $end, "$end: the status");
	is($payloads[-1]{table}, '"In n"."Booked"', 'the table');
	is_deeply($payloads[-1]{key}, [ $number{$end}, 'a "suite", \o/', "2026-02-0$number{$end}" ], 'and the primary key');
}

# ---------- what is due, and what is scheduled ----------

sub queue
{
	return sql("SELECT string_agg(count::text, ' ' ORDER BY status) FROM seam_instant_key_queue " .
		"WHERE status IN ('pending', 'scheduled')");
}
my ($due, $scheduled) = split / /, queue();
is($due, 0, 'nothing is due');
sql("SELECT seam_ik_pause('to look')");
booking(new_guest(), 'NULL', 'NULL');
booking(new_guest(), "now() - interval '1 h'", 'NULL');
booking(new_guest(), "now() + interval '1 h'", 'NULL');
booking(new_guest(), "'infinity'", 'NULL');
is(queue(), '2 ' . ($scheduled + 2), 'what is due is told from what is scheduled');
sql("UPDATE seam_instant_key_request SET enqueued_at = now() - interval '10 days' WHERE issue_at > " .
	"now() - interval '2 h' AND issue_at < now()");
is(sql("SELECT date_trunc('hour', oldest_age) FROM seam_instant_key_queue WHERE status = 'pending'"), '01:00:00',
	'it waits since then, and not since it was booked');
booking(new_guest(), "now() + interval '2 s'", 'NULL');
ok(wait_for(sub { queue() eq '3 ' . ($scheduled + 2) }), 'so is what becomes due while nobody looks');
sql('SELECT seam_ik_resume()');
ok(wait_for(sub { queue() eq '0 ' . ($scheduled + 2) }), 'and what is done from both');

# ---------- the last night ----------

$who = new_guest();
sql("INSERT INTO berlin VALUES (2, '$who', NULL, (now() AT TIME ZONE 'Europe/Berlin')::date + 1)");
ok(has_key('berlin', 2, $who), 'a stay that ends with a date');
my $midnight = sql("SELECT floor(extract(epoch FROM (check_out + 1)::timestamp AT TIME ZONE 'Europe/Berlin' - now()))
	FROM berlin WHERE id = 2");
# the worker has looked at what is due when Seam's clock is so far from midnight
sub at_midnight
{
	$fake->clock($midnight + $_[0]);
	wait_state('postgres', enqueue(new_guest()), 'issued -') or die;
	return quiet();
}
ok(at_midnight(-60), 'a minute before the end of that date');
is(live($who), key_of('berlin', 2), 'nobody is locked out');
ok(at_midnight(2), 'after it');
ok(has_none('berlin', 2, $who), 'it is over');

$node->stop;
done_testing();
