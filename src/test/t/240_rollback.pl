# Keys of synchronous calls follow their transaction, however it ends.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql call keys_of live asked lists_of states_of owned reported quiet worker_of up);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep time);

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s',
		'seam_ik.max_retries = 0',
	'restart_after_crash = on', 'max_prepared_transactions = 5');
api_key_file($node, 'seam_test_rollback');
api_key_file($node, 'seam_test_other', 'other_api_key');
meet($node, $fake);
my $at = 'route=generate_instant_key';

$node->safe_psql('postgres', q{
CREATE TABLE booking (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid, key_id uuid);
CREATE TRIGGER issue BEFORE INSERT OR UPDATE ON booking FOR EACH ROW
	EXECUTE FUNCTION seam_generate_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
CREATE TABLE kept (key_id uuid);
});
up();

my %expected;
# what happens to my key when: [ name, SQL with G for the guest, number of keys that live at
# the end, number ever issued ]
foreach my $case (
	[ 'commit', 'BEGIN; CALL; COMMIT', 1, 1 ],
	[ 'no transaction block', 'CALL', 1, 1 ],
	[ 'rollback', 'BEGIN; CALL; ROLLBACK', 0, 1 ],
	[ 'a later error', 'BEGIN; CALL; SELECT 1 / 0; COMMIT', 0, 1 ],
	[ 'an error of the same statement',
		"SELECT 1 / (length((seam_generate_instant_key('G')).instant_key_id::text) - 36)", 0, 1 ],
	[ 'savepoint', 'BEGIN; SAVEPOINT s; CALL; ROLLBACK TO s; CALL; COMMIT', 1, 2 ],
	[ 'released savepoint', 'BEGIN; SAVEPOINT s; CALL; RELEASE s; COMMIT', 1, 1 ],
	[ 'released savepoint of a rolled back one', 'BEGIN; SAVEPOINT r; SAVEPOINT s; CALL; RELEASE s; ' .
		'ROLLBACK TO r; COMMIT', 0, 1 ],
	[ 'released savepoint, rollback', 'BEGIN; SAVEPOINT s; CALL; RELEASE s; ROLLBACK', 0, 1 ],
	[ 'caught exception', "DO \$\$ BEGIN BEGIN PERFORM seam_generate_instant_key('G'); RAISE EXCEPTION 'x'; " .
		"EXCEPTION WHEN OTHERS THEN NULL; END; PERFORM seam_generate_instant_key('G'); END \$\$", 1, 2 ],
	[ 'several', "BEGIN; SELECT count(seam_generate_instant_key('G')) FROM generate_series(1, 5); ROLLBACK", 0, 5 ],
	[ 'several, committed', "BEGIN; SELECT count(seam_generate_instant_key('G')) FROM generate_series(1, 5); COMMIT", 5,
		5 ],
	[ 'trigger', "INSERT INTO booking (guest) VALUES ('G')", 1, 1 ],
	[ 'trigger, rollback', "BEGIN; INSERT INTO booking (guest) VALUES ('G'); ROLLBACK", 0, 1 ],
	[ 'trigger, failing statement',
		"INSERT INTO booking (guest) SELECT 'G' FROM generate_series(0, 2) g WHERE 1 / (2 - g) >= 0", 0, 2 ],
	[ 'batch', "SELECT count(*) FROM seam_generate_instant_keys(ARRAY['G', 'G', 'G']::uuid[])", 3, 3 ],
	[ 'batch, rollback', "BEGIN; SELECT count(*) FROM seam_generate_instant_keys(ARRAY['G', 'G', 'G']::uuid[]); " .
		"ROLLBACK", 0, 3 ],
	[ 'batch of one, rollback', "BEGIN; SELECT count(*) FROM seam_generate_instant_keys(ARRAY['G']::uuid[]); ROLLBACK",
		0, 1 ],
	[ 'prepared, committed', "BEGIN; CALL; PREPARE TRANSACTION 'p'; SELECT pg_sleep(0.2); COMMIT PREPARED 'p'", 1, 1 ],
	[ 'prepared, rolled back', "BEGIN; CALL; PREPARE TRANSACTION 'p'; SELECT pg_sleep(0.2); ROLLBACK PREPARED 'p'", 0,
		1 ],
	[ 'no commit at the end of the session', 'BEGIN; CALL', 0, 1 ],
	[ 'terminated', 'BEGIN; CALL; SELECT pg_terminate_backend(pg_backend_pid())', 0, 1 ],
	[ 'read only', 'BEGIN READ ONLY; CALL; ROLLBACK', 0, 0 ],
	[ 'cursor', "BEGIN; DECLARE c CURSOR FOR SELECT seam_generate_instant_key('G') FROM generate_series(1, 9); " .
		"FETCH 2 FROM c; ROLLBACK", 0, 2 ],
	[ 'cursor with hold', "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT seam_generate_instant_key('G') " .
		"FROM generate_series(1, 3); FETCH 1 FROM c; COMMIT", 4, 4 ],
	[ 'protection off', 'SET seam_ik.revoke_on_rollback = off; BEGIN; CALL; ROLLBACK', 1, 1 ])
{
	my ($name, $sql, $live, $ever) = @$case;
	my $guest = new_guest;
	my $call = call('G');
	$sql =~ s/CALL/$call/g;
	$sql =~ s/G(?=['\)])/$guest/g;
	my $begin = time;
	$node->psql('postgres', $sql, on_error_stop => 0);
	ok(quiet(), "$name: settled");
	# (all transactions are looked at every 10 seconds)
	cmp_ok(time - $begin, '<', 9, "$name: soon");
	is(scalar(split /,/, live($guest)) . ' of ' . scalar(keys_of($guest)), "$live of $ever", "$name: $live of $ever");
	is(lists_of($guest), 0, "$name: without a list of Seam's");
	$expected{$guest} = live($guest);
}
is(sql('SELECT count(*) FROM booking WHERE key_id IS NULL'), '0', 'the rows have their keys');

# ROLLBACK TO revokes at once, not at the end of the transaction.
my $inner = new_guest;
my $s = background($node, 'BEGIN; SAVEPOINT s; ' . call($inner) . "; ROLLBACK TO s; SELECT 'rolled back';");
ok(wait_for(sub { keys_of($inner) > 0 && live($inner) eq '' }), 'a savepoint in an open transaction');
$s->{in} .= "SELECT count(*) FROM pg_stat_activity WHERE pid = pg_backend_pid() AND xact_start < state_change;\n";
like((result_of($s))[0], qr/rolled back\n1\n/, 'which goes on');

# Lost answers, and refusals.
foreach my $case ([ 'reset_after', 0, 1 ], [ 'reset', 0, 0 ], [ 'hang_after', 0, 1 ], [ 'status=500,issue', 0, 1 ],
	[ 'notjson', 0, 1 ], [ 'status=400', 0, 0, 'known' ])
{
	my ($spec, $live, $ever, $known) = @$case;
	my $guest = new_guest;
	$fake->behave($guest, "$at,$spec", 1);
	my ($rc, $out, $err) = $node->psql('postgres', call($guest));
	isnt($rc, 0, "$spec: an error");
	ok(quiet(), "$spec: settled");
	is(scalar(split /,/, live($guest)) . ' of ' . scalar(keys_of($guest)), "$live of $ever", "$spec: no key is left");
	is(lists_of($guest) > 0, !$known, "$spec: " . ($known ? "nothing is" : 'a key is') . ' looked for');
}
# ... of a batch of which only one key is issued, as the worker knows before the end
my @refused = map { new_guest } 1 .. 3;
$fake->behave($_, "$at,status=400", 1) foreach @refused[1, 2];
sql("BEGIN; SELECT seam_generate_instant_keys(ARRAY['" . join("','", @refused) .
	"']::uuid[]); SELECT pg_sleep(0.5); ROLLBACK");
ok(quiet(), 'a batch with refusals');
is(join(' ', map { scalar(keys_of($_)) . live($_) } @refused), '1 0 0', 'its key is revoked');
is(join(' ', map { lists_of($_) } @refused), '0 0 0', 'and nothing is looked for');
# ... of a call with a customization profile
my $profile = new_guest;
$fake->behave($profile, "$at,reset_after", 1);
$node->psql('postgres', "SELECT seam_generate_instant_key('$profile', 1, '11111111-1111-4111-8111-111111111111')");
ok(quiet(), 'a lost answer of a call with a profile');
is(scalar(split /,/, live($profile)) . ' of ' . scalar(keys_of($profile)), '0 of 1', 'no key is left');
# ... of a batch that is cancelled: only what is not known is looked for
foreach my $case ([ 'cancelled', "DO \$\$ BEGIN BEGIN CALL; EXCEPTION WHEN query_canceled THEN NULL; END; " .
	"PERFORM pg_sleep(60); END \$\$" ],
	[ 'cancelled in a transaction of its own', 'DO $$ BEGIN CALL; END $$; SELECT pg_sleep(60)' ])
{
	my ($name, $sql) = @$case;
	my @guests = map { new_guest } 1 .. 3;
	my $batch = "PERFORM seam_generate_instant_keys(ARRAY['" . join("','", @guests) . "']::uuid[])";
	$fake->behave($guests[2], "$at,hang_after", 1);
	$sql =~ s/CALL/$batch/;
	$s = background($node, "SET seam_ik.request_timeout = '3s'; SET seam_ik.max_concurrency = 1; $sql;");
	wait_for(sub { keys_of($guests[2]) > 0 });
	sql("SELECT pg_cancel_backend($s->{pid})");
	ok(wait_for(sub { join('', map { live($_) } @guests) eq '' }), "a batch that is $name: no key is left");
	is(join(' ', map { lists_of($_) > 0 } @guests), '  1', 'only what is not known is looked for');
	sql("SELECT pg_terminate_backend($s->{pid})");
	result_of($s);
}
# A batch whose transaction commits keeps what was issued; what is in doubt there is not revoked.
my @batch = map { new_guest } 1 .. 3;
$fake->behave($batch[1], "$at,reset_after", 1);
is(sql("SELECT string_agg(coalesce(sqlstate, 'ok'), ' ' ORDER BY ordinality) FROM seam_generate_instant_keys(ARRAY['" .
	join("','", @batch) . "']::uuid[])"), 'ok 08007 ok', 'a batch with a lost answer');
ok(quiet(), 'is settled after the commit');
is(states_of($batch[1]), 'issued 08007 1', 'what was lost is found');
like(reported($batch[1]), qr/the answer to a call was lost, and this instant key of it was found/, 'and reported');
is(owned($_), live($_), 'each key has its owner') foreach @batch;
is(join(' ', map { scalar split /,/, live($_) } @batch), '1 1 1', 'all are kept, if it commits');
# ... and an outbox request for that identity does not take it, also when the worker has tidied up
kill 'HUP', worker_of();
$fake->behave($batch[1], "$at,reset", 1);
sql("SELECT seam_enqueue_instant_key('$batch[1]')");
ok(quiet(), 'an outbox request of the same identity');
is(states_of($batch[1]), 'issued 08007 1, issued 2', 'gets a key of its own');
is(owned($batch[1]), live($batch[1]), 'and both live');
# ... and is off the view when somebody accepts it, or revokes it
is(retry($batch[1]), 'issued', 'what was found is accepted');
is(states_of($batch[1]) . reported($batch[1]), 'issued 1, issued 2-', 'and not reported any more');
# ... of which nothing is found
my @without = map { new_guest } 1 .. 2;
$fake->behave($without[1], "$at,reset", 1);
sql("SELECT seam_generate_instant_keys(ARRAY['" . join("','", @without) . "']::uuid[])");
ok(quiet(), 'a batch with an answer that is lost without a key');
is(states_of($without[1]), 'failed 08006 1', 'has failed there');
is(sql("SELECT seam_retry_instant_key_request(request_id) FROM seam_instant_key_request WHERE user_identity_id = " .
	"'$without[1]'"), 'in_flight', 'tried again, it is looked for');
ok(quiet(), 'and settled');
like(states_of($without[1]), qr/^failed 080/, 'but never sent again');
is(scalar(asked($without[1])), 1, 'at all');

# ... and where a lost call rolls back as well, the key lives, since it may be of either
my @either = (new_guest, new_guest);
$fake->behave($either[0], "$at,$_", 1) foreach 'reset_after', 'reset';
sql("SELECT seam_generate_instant_keys(ARRAY['" . join("','", @either) . "']::uuid[])");
$node->psql('postgres', call($either[0]));
ok(quiet(), 'two lost answers, one of a transaction that has committed');
is(states_of($either[0]), 'issued 08007 1, revoked 0', 'are settled together');
is(scalar(split /,/, live($either[0])), 1, 'the key lives');
like(reported($either[0]), qr/this instant key of it was found/, 'and is reported');

# The key of a synchronous call is no candidate for a lost answer of the outbox.
my $both = new_guest;
$fake->behave($both, "$at,reset", 1);
sql("SELECT seam_enqueue_instant_key('$both')");
wait_for(sub { sql(
	"SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$both' AND sqlstate = '08007'") eq '1' });
my $own = sql(call($both));
kill 'HUP', worker_of();
ok(quiet(), 'a lost answer, and a synchronous call (and the worker tidies up)');
is(states_of($both), 'issued 2, issued 1', 'each has its own');
is(live($both), owned($both), 'both live');
like(live($both), qr/$own/, 'that of the call, too');

# ... also while the call is under way when the list is asked for, and when the outbox's is under way while it ends
my @both = map { new_guest } 1 .. 2;
$fake->behave($both[0], "$at,reset", 1);
$fake->behave($both[0], "$at,delay=2500", 1);
$fake->behave($both[1], "$at,hang_after", 1);
sql("SELECT seam_enqueue_instant_key('$_')") foreach @both;
wait_for(sub { keys_of($both[1]) == 1 });
my @owned = ('', sql(call($both[1])));
$owned[0] = sql("SET seam_ik.request_timeout = '10s'; " . call($both[0]));
ok(quiet(), 'a call of the outbox and a synchronous one at the same time');
foreach my $i (0, 1)
{
	is(live($both[$i]), join(',', sort $owned[$i], sql("SELECT (instant_key).instant_key_id FROM " .
		"seam_instant_key_request WHERE user_identity_id = '$both[$i]' AND status = 'issued' AND call_id IS NULL")),
		'each has its own');
}
is(sql("SELECT string_agg(attempts::text, ' ' ORDER BY user_identity_id) FROM seam_instant_key_request " .
	"WHERE call_id IS NULL AND user_identity_id IN ('" . join("','", @both) . "')"), '2 1',
	'whether it was issued or not');
# ... also of a transaction that is open
my $still = new_guest;
$fake->behave($still, "$at,reset", 1);
sql("SELECT seam_enqueue_instant_key('$still')");
wait_for(sub { sql(
	"SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$still' AND sqlstate = '08007'") eq '1' });
$s = background($node, 'BEGIN; INSERT INTO kept ' . call($still) . ';');
ok(wait_for(sub { sql("SELECT status || ' ' || attempts FROM seam_instant_key_request " .
	"WHERE user_identity_id = '$still'") eq 'issued 2' }), 'a lost answer, and a call of a transaction that is open');
$s->{in} .= "COMMIT;\n";
result_of($s);
ok(quiet(), 'which commits');
is(live($still), join(',', sort split /\n/,
	sql("SELECT key_id FROM kept UNION ALL SELECT (instant_key).instant_key_id FROM seam_instant_key_request " .
	"WHERE user_identity_id = '$still' AND call_id IS NULL")), 'each has its own');
sql('DELETE FROM kept');
# ... and of two sessions: the key of the one that committed is not that of the other
my $two = new_guest;
$fake->behave($two, "$at,hang_after", 1);
$s = background($node, call($two) . ';');
wait_for(sub { keys_of($two) == 1 });
$own = sql(call($two));
result_of($s);
ok(quiet(), 'two sessions call for a guest, and one loses its answer');
is(live($two), $own, "the other's key lives");
# Two lost answers that asked for different things: nobody can tell whose the keys are.
sql("ALTER SYSTEM SET seam_ik.settle_delay = '2s'");
$node->reload;
wait_for(sub { sql('SHOW seam_ik.settle_delay') eq '2s' });
my $differ = new_guest;
$fake->behave($differ, "$at,reset_after", 2);
sql("SELECT seam_enqueue_instant_key('$differ', 1)");
wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$differ' " .
	"AND sqlstate = '08007'") eq '1' });
$node->psql('postgres', "SELECT seam_generate_instant_key('$differ', 5)");
ok(quiet(), 'lost answers of the outbox and of a session');
is(live($differ), sql("SELECT (instant_key).instant_key_id FROM seam_instant_key_request " .
	"WHERE user_identity_id = '$differ' AND status = 'issued' AND attempts = 2"), 'the request is issued anew');
is(scalar(keys_of($differ)), 3, 'and what cannot be told apart is revoked');
is(sql("SELECT attempt_timeout >= 2000 FROM seam_instant_key_request WHERE user_identity_id = '$differ' " .
	"AND transaction_id IS NOT NULL"), 't', 'after settle_delay');
sql('ALTER SYSTEM RESET seam_ik.settle_delay');
$node->reload;

# Another issuer: reported, nothing revoked.
my $other = new_guest;
$fake->behave($other, "$at,hang_after", 1);
$s = background($node, call($other) . ';');
wait_for(sub { keys_of($other) > 0 });
$fake->ask('seed-keys', { user_identity_id => $other, count => 1 });
result_of($s);
ok(quiet(), 'another issuer at work');
is(scalar(split /,/, live($other)), 2, 'nothing is revoked');
like(sql("SET ROLE pg_monitor; SELECT last_error FROM seam_instant_key_orphan WHERE user_identity_id = '$other'"),
	qr/another issuer/, 'and it is reported');
# Whose keys there are is not known any more when it is tried again later: what is left is not revoked.
sub retry
{
	my ($guest) = @_;
	return sql(
		"SELECT seam_retry_instant_key_request(request_id) FROM seam_instant_key_orphan " .
		"WHERE user_identity_id = '$guest'");
}
sql("SELECT seam_delete_instant_key('" . (split /,/, live($other))[0] . "')");
is(retry($other), 'revoking', 'one of the keys is deleted by hand, and the report tried again');
ok(quiet(), 'it is looked at');
is(scalar(split /,/, live($other)), 1, 'the other key lives');
like(sql("SELECT status || last_error FROM seam_instant_key_orphan WHERE user_identity_id = '$other'"),
	qr/failed.* it cannot be told any more whose these instant keys are: @{[ live($other) ]}/, 'and is reported');
sql("SELECT seam_delete_instant_key('" . live($other) . "')");
retry($other);
ok(quiet(), 'none is left');
is(sql("SELECT count(*) FROM seam_instant_key_orphan WHERE user_identity_id = '$other'"), '0',
	'and nothing is to be reported');

# Pausing stops revocations, not calls.
sql('ALTER SYSTEM SET seam_ik.worker = off');
$node->reload;
my $paused = new_guest;
wait_for(sub { sql('SHOW seam_ik.worker') eq 'off' });
sql('BEGIN; ' . call($paused) . '; ROLLBACK');
wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_orphan WHERE user_identity_id = '$paused'") eq '1' });
is(sql("SELECT status FROM seam_instant_key_orphan WHERE user_identity_id = '$paused'"), 'revoking', 'paused');
is(scalar(split /,/, live($paused)), 1, 'the key waits');
sql('ALTER SYSTEM RESET seam_ik.worker');
$node->reload;
ok(quiet(), 'no longer paused');
is(live($paused), '', 'revoked');

# Whose a key is is written by its transaction.
my @often = map { new_guest } 1 .. 2;
my @first = map { sql(call($_)) } @often;
is(owned($often[$_]), $first[$_], 'it is there at once') foreach 0, 1;
$_ = sql(call($often[0])) foreach my @more = ('') x 3;
is(owned($often[0]), join(',', sort $first[0], @more), 'also of a guest with several keys');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE (instant_key).instant_key_url IS NOT NULL " .
	"AND user_identity_id IN ('" . join("','", @often) . "')"), '0', 'without a URL, which its caller has');
is(sql("SELECT count(*) FROM seam_instant_key_request r WHERE user_identity_id = '$often[0]' AND " .
	"transaction_id::text = xmin::text AND attempts = 1 AND next_attempt_at IS NULL"), '4', 'and in their transaction');

# A key that a client was told of survives a crash, whatever synchronous_commit says, also
# one right after the commit when the same guest is just getting another key.
my ($told, $untold) = (new_guest, new_guest);
sql("SET synchronous_commit = off; INSERT INTO kept " . call($told));
$s = background($node, 'BEGIN; ' . call($untold) . '; SELECT pg_sleep(60);');
wait_for(sub { keys_of($untold) > 0 });
my $worker = worker_of();
# (a second call, and a request of the outbox, whose answers are lost then)
my @needed = map { new_guest } 1 .. 2;
$fake->behave($_, "$at,delay=1", 1) foreach @needed;
$fake->behave($_, "$at,hang_after", 1) foreach @needed;
my $second = background($node, "SET seam_ik.request_timeout = '10s';\n" . call($needed[0]) . ";\n" .
	call($needed[0]) . ';');
my $third = background(
	$node, call($needed[1]) . ";\nSELECT seam_enqueue_instant_key('$needed[1]');\nSELECT pg_sleep(60);");
# (the crash must come before the answers are written anyway)
for (1 .. 1000)
{
	last if keys_of($needed[0]) == 2 && keys_of($needed[1]) == 2;
	sleep 0.002;
}
kill 'KILL', $worker;
ok(up('postgres', $worker), 'a crash');
result_of($s);
ok(quiet(), 'after a crash');
is(live($told), sql('SELECT key_id FROM kept'), 'the key that was told of lives');
is(live($untold), '', 'that of the open transaction does not');
result_of($_) foreach $second, $third;
@first = map { (keys_of($_))[0]{instant_key_id} } @needed;
is(live($needed[0]), $first[0], "a guest's former key lives, that of the call that was cut off does not");
is(live($needed[1]), owned($needed[1]), 'as do that and the one of the outbox');
like(live($needed[1]), qr/$first[1]/, 'which are two');
is(join(' ', map { scalar(keys_of($_)) } @needed), '2 2', 'which found the one that was issued');
is(sql("SELECT count(*) FROM seam_instant_key_orphan WHERE user_identity_id IN ('" . join("','", @needed) . "')"), '0',
	'and nothing is reported');

# Its transaction id is not given out again, since the record of the call is younger: so its fate can be read.
is(sql("SELECT bool_and(pg_xact_status(transaction_id) = 'aborted' AND transaction_id < pg_current_xact_id()) " .
	"FROM seam_instant_key_request WHERE user_identity_id = '$untold' AND call_id IS NULL"), 't',
	'whose id is not used again');

# Another workspace: its keys are not ours to revoke.
my $foreign = new_guest;
$s = background($node, 'BEGIN; ' . call($foreign) . "; SELECT 'called'; SELECT pg_sleep(60);");
wait_for(sub { keys_of($foreign) > 0 });
my $elsewhere = FakeSeam->start;
sql("ALTER SYSTEM SET seam_ik.endpoint = '" . $elsewhere->url . "'");
$node->reload;
wait_for(sub { sql('SHOW seam_ik.endpoint') eq $elsewhere->url });
sql("SELECT pg_terminate_backend($s->{pid})");
result_of($s);
ok(quiet(), 'a rollback after a change of the endpoint');
like(sql("SELECT status || ' ' || last_error FROM seam_instant_key_orphan WHERE user_identity_id = '$foreign'"),
	qr/^failed .*another API key/, 'is reported');
sql('ALTER SYSTEM RESET seam_ik.endpoint');
$node->reload;
wait_for(sub { sql('SHOW seam_ik.endpoint') eq $fake->url });
retry($foreign);
ok(quiet(), 'and can be tried again');
is(live($foreign), '', 'when it is ours again');
# ... likewise with another API key or workspace, where Seam does not find it
foreach my $case ([ 'API key', "seam_ik.api_key_file = 'other_api_key'" ],
	[ 'workspace', "seam_ik.workspace_id = '22222222-2222-4222-8222-222222222222'" ])
{
	my ($name, $setting) = @$case;
	my ($guest, $lost) = (new_guest, new_guest);
	$s = background($node, 'BEGIN; ' . call($guest) . ';');
	wait_for(sub { keys_of($guest) > 0 });
	$fake->behave('*', 'route=delete,status=404,type=instant_key_not_found', 1);
	$fake->behave($lost, "$at,hang_after", 1);
	$fake->behave($lost, 'route=list,status=404,type=user_identity_not_found');
	$second = background($node, call($lost) . ';');
	wait_for(sub { keys_of($lost) > 0 });
	sql("ALTER SYSTEM SET $setting");
	$node->reload;
	kill 'HUP', worker_of();
	sql("SELECT pg_terminate_backend($s->{pid})");
	result_of($s);
	ok(quiet(), "a rollback after a change of the $name");
	is(sql("SELECT status FROM seam_instant_key_orphan WHERE user_identity_id = '$guest'"), 'failed', 'is reported');
	result_of($second);
	like(sql("SELECT status || ' ' || last_error FROM seam_instant_key_orphan WHERE user_identity_id = '$lost'"),
		qr/^failed .* the user identity is not found/, 'as is a lost answer');
	$fake->behave($_, '') foreach '*', $lost;
	sql("ALTER SYSTEM RESET " . (split / /, $setting)[0]);
	$node->reload;
	kill 'HUP', worker_of();
}

# A backend killed while its call is under way.
my $killed = new_guest;
$fake->behave($killed, "$at,hang_after", 1);
$s = background($node, call($killed) . ';');
wait_for(sub { grep { $_->{body} =~ /\Q$killed\E/ } $fake->requests });
kill 'KILL', $s->{pid};
result_of($s);
up();
ok(quiet(), 'a killed backend');
is(live($killed), '', 'leaves no key');

# Prepared before a crash.
my @prepared = (new_guest, new_guest);
sql("BEGIN; " . call($prepared[$_]) . "; PREPARE TRANSACTION 'p$_'") foreach 0, 1;
$node->stop('immediate');
$node->start;
up();
sql("COMMIT PREPARED 'p0'");
sql("ROLLBACK PREPARED 'p1'");
ok(quiet(), 'prepared before a crash');
is(join(' ', map { scalar split /,/, live($_) } @prepared), '1 0', 'ends as it ended');

# The first call of a new database comes before its worker.
sql('CREATE DATABASE new');
like(($node->psql('new', "BEGIN; CREATE EXTENSION seam_ik; SET seam_ik.connect_timeout = '100ms'; " .
	call(new_guest)))[2], qr/HINT: .*created or altered by this transaction/,
	'a call in the transaction that creates the extension fails, and says why');
is($node->safe_psql('new', 'CREATE EXTENSION seam_ik; ' .
	'SELECT (seam_generate_instant_key(gen_random_uuid())).instant_key_id IS NOT NULL'), 't',
	'a call right after CREATE EXTENSION');
sql('DROP DATABASE new');

# A trigger that the writer fires may call Seam like any session: the worker is another process.
$node->safe_psql('postgres', q{
CREATE TABLE stay (id int PRIMARY KEY, guest uuid, key_id uuid);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON stay FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
CREATE FUNCTION one_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	PERFORM public.seam_generate_instant_key(NEW.guest); RETURN NEW; END $$;
CREATE TRIGGER one_more BEFORE UPDATE ON stay FOR EACH ROW EXECUTE FUNCTION one_more();
});
my ($more, $slow) = (new_guest, new_guest);
$fake->behave($slow, "$at,delay=300", 1);
sql("INSERT INTO stay VALUES (1, '$more'); SELECT seam_enqueue_instant_key('$slow')");
ok(quiet(), "a user's trigger that calls Seam");
is(sql("SELECT string_agg(concat_ws(' ', status, sqlstate), ', ') FROM seam_instant_key_request " .
	"WHERE user_identity_id = '$more'"), 'issued, issued', 'gets its key');
is(scalar(split /,/, live($more)), 2, 'which lives');
is(sql("SELECT status || ' ' || attempts FROM seam_instant_key_request WHERE user_identity_id = '$slow'"), 'issued 1',
	'and disturbs no other call');

# No worker: no call.
my $nobody = new_guest;
sql('CREATE DATABASE alone');
$node->safe_psql('alone', 'CREATE EXTENSION seam_ik');
$node->safe_psql('alone', 'SET seam_ik.connect_timeout = 5000; ' . call(new_guest));
sql('ALTER SYSTEM SET max_worker_processes = 1');
$node->restart;
my ($rc, $out, $err) = $node->psql('alone', 'SET seam_ik.connect_timeout = 300; ' . call($nobody),
	extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/ERROR:  55000: .*HINT:/s, 'without a worker a call fails');
is(scalar(keys_of($nobody)), 0, 'and nothing is sent');
# ... and neither does a batch, after which the session goes on
my $after = new_guest;
($rc, $out, $err) = $node->psql('alone', "SET seam_ik.connect_timeout = 300; " .
	"SELECT * FROM seam_generate_instant_keys(ARRAY['$nobody', '$nobody']::uuid[]); " .
	"SET seam_ik.revoke_on_rollback = off; " . call($after), on_error_stop => 0,
	extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/ERROR:  55000: /, 'a batch fails, too');
is(scalar(keys_of($nobody)), 0, 'nothing is sent');
is($out, live($after), 'and the session goes on');

# Not preloaded: a warning, once a session.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
my $alive = new_guest;
($rc, $out, $err) = $node->psql('postgres', 'BEGIN; ' . call($alive) . '; ' . call($alive) . '; ROLLBACK',
	extra_params => [ '-v', 'VERBOSITY=verbose' ]);
is(scalar(() = $err =~ /WARNING:  01000: an instant key will stay alive if its transaction rolls back/g), 1,
	'a warning, once');
is(scalar(split /,/, live($alive)), 2, 'which is true');

# All of the time the keys of what had committed have lived.
is(join(' ', grep { live($_) ne $expected{$_} } sort keys %expected), '', 'what had committed is never revoked');

$node->stop;
done_testing();
