# A personal access token and several workspaces: whatever is asked about a key is asked in
# the workspace that it was wanted in, whoever asks, and whatever dies meanwhile.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql error_of keys_of live asked sent enqueue states_of state_of wait_state reported
	settled quiet printed set pause go_on);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my ($own, $north, $south) = map { "$_-3333-4333-8333-333333333333" } '00000000', '11111111', '22222222';
my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.workspace_id = '$own'", "seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s',
	'seam_ik.settle_delay = 1s', 'seam_ik.max_retries = 0', "timezone = 'UTC'");
api_key_file($node, 'seam_at1_properties');
meet($node, $fake);
my $at = 'route=generate_instant_key';

# where(guest): the workspaces of the guest's live keys, in the order of their issue.
sub where { return join ' ', map { $_->{workspace_id} } grep { !$_->{revoked} } keys_of($_[0]); }
sub becomes { my ($guest, $workspaces) = @_; return wait_for(sub { where($guest) eq $workspaces }); }
# asked_in(guest, ...): the workspaces in which Seam was asked about these guests and their keys.
sub asked_in
{
	my %ids = map { $_ => 1 } map { ($_, map { $_->{instant_key_id} } keys_of($_)) } @_;
	my %in;
	foreach my $request ($fake->requests)
	{
		next unless grep { index($request->{body}, $_) >= 0 } keys %ids;
		$in{ join ',', map { $_->[1] } grep { lc $_->[0] eq 'seam-workspace' } @{ $request->{headers} } } = 1;
	}
	return join ' ', sort keys %in;
}
sub generate
{
	my ($guest, $in) = @_;
	return "SELECT (seam_generate_instant_key('$guest', 1, NULL, $in)).workspace_id";
}
# the stay's newest key is to be renewed now: more than half of its life has passed
sub renew
{
	return sql("UPDATE seam_instant_key_request SET instant_key.created_at = now() - interval '1 month', " .
		"seam_time = NULL, wake_at = '-infinity' WHERE status = 'issued' AND user_identity_id = '$_[0]'; " .
		'SELECT seam_enqueue_instant_key(gen_random_uuid())');
}

# ---------- functions ----------

my $guest = new_guest;
is(sql(generate($guest, "'$north'")), $north, 'a key in a workspace');
is(sql(generate($guest, 'NULL')), $own, 'NULL is the workspace of the settings');
is(sql("SELECT (seam_generate_instant_key('$guest')).workspace_id"), $own, 'and so is none');
is(sql("SELECT (seam_generate_instant_key('$guest', 3)).workspace_id"), $own, 'untyped literals mean what they did');
is(sql("SELECT (seam_generate_instant_key('$guest', 3, NULL)).workspace_id"), $own, '(three of them)');
is(sql(generate($guest, "'$south'")), $south, 'a session may ask in one after another');
is(where($guest), "$north $own $own $own $own $south", 'as Seam has it');
my ($key) = keys_of($guest);
is(sql("SELECT seam_delete_instant_key('$key->{instant_key_id}')"), 't', 'a key is revoked by hand where it is');
is(where($guest), "$own $own $own $own $south", 'there');

my @guests = map { new_guest } 1 .. 3;
is(sql("SELECT string_agg(DISTINCT (instant_key).workspace_id::text, ' ') FROM seam_generate_instant_keys('{" .
	join(',', @guests) . "}', seam_workspace => '$north')"), $north, 'a batch in a workspace');
is(asked_in(@guests), $north, 'was asked for there');

# ---------- the outbox ----------

$guest = new_guest;
my $id = enqueue($guest, "seam_workspace => '$south'");
ok(wait_state('postgres', $id, 'issued -'), 'a request for a workspace');
is(where($guest), $south, 'has its key there');
is(sql("SELECT workspace_id = seam_workspace FROM seam_instant_key_request WHERE request_id = $id"), 't',
	'and says so');
sql("SELECT seam_cancel_instant_key_request($id)");
ok(wait_state('postgres', $id, 'revoked -'), 'it is cancelled');
is(where($guest), '', 'and its key revoked');
is(asked_in($guest), $south, 'nowhere else was asked');

# many at once, each in its own workspace
pause();
my %of = map { new_guest() => $_ } ($own, $north, $south) x 4;
enqueue($_, $of{$_} eq $own ? () : "seam_workspace => '$of{$_}'") foreach sort keys %of;
go_on();
ok(settled(), 'requests for several workspaces are sent together');
is(join(' ', map { where($_) } sort keys %of), join(' ', map { $of{$_} } sort keys %of), 'each in its own');

# ---------- a rollback ----------

my ($rolled, $lost, $cut) = map { new_guest } 1 .. 3;
$fake->behave($lost, "$at,hang_after", 1);
$node->psql('postgres', 'BEGIN; ' . generate($rolled, "'$north'") . '; ROLLBACK');
like(error_of(generate($lost, "'$north'")), qr/^08007|^57014|^08/, 'the answer to another call is lost');
ok(becomes($_, ''), 'the key of a call that rolled back is revoked') foreach $rolled, $lost;
ok(quiet(), 'nothing is left to do');
is(scalar(keys_of($_)), 1, '(there was one)') foreach $rolled, $lost;
is(asked_in($rolled, $lost), $north, 'all of it was asked for in its workspace');
is(reported($rolled, $lost), '-', 'nothing is reported');
# ... where the server dies before it knows
my $session = background($node, 'BEGIN; ' . generate($cut, "'$south'") . "; SELECT 'called';");
ok(printed($session, 'called'), 'a call in an open transaction');
$node->stop('immediate');
$node->start;
ok(becomes($cut, ''), 'its key is revoked after a crash');
ok(quiet(), 'nothing is left to do');
is(asked_in($cut), $south, 'in its workspace');

# ... and a call of the database that this one is a copy of
my $copied = new_guest;
sql("INSERT INTO seam_instant_key_call (call_id, transaction_id, top_transaction_id, user_identity_ids, requested_at,
		attempt_timeout, system_identifier, origin, timeline_id, data_directory_id, seam_workspace)
	VALUES (gen_random_uuid(), '3', '3', '{$copied}', now(), 1000, 1, 1, 1, 1, '$south');
	SELECT seam_adopt_instant_key_requests()");
is(sql("SELECT status || ' ' || seam_workspace FROM seam_instant_key_request WHERE user_identity_id = '$copied'"),
	"failed $south", 'what is reported of a copy has its workspace');
sql("SELECT seam_retry_instant_key_request(request_id) FROM seam_instant_key_request
	WHERE user_identity_id = '$copied'");
ok(quiet(), 'tried again, it is settled');
is(asked_in($copied), $south, 'there');

# ---------- a doubt ----------

# The answer is lost with the server; a second key would come of a list in another workspace.
my @doubts = map { new_guest } 1 .. 3;
$fake->behave($_, "$at,hang_after", 1) foreach @doubts;
my @of = ($north, $south, $own);
pause();
enqueue($doubts[$_], $_ == 2 ? () : "seam_workspace => '$of[$_]'") foreach 0 .. 2;
go_on();
ok(wait_for(sub { keys_of($_) == 1 }), 'a key is issued, and its answer late') foreach @doubts;
$node->stop('immediate');
$node->start;
foreach my $i (0 .. 2)
{
	ok(wait_for(sub { states_of($doubts[$i]) =~ /^issued/ }), 'after a crash the key is found');
	is(scalar(keys_of($doubts[$i])), 1, 'and is the only one');
	is(asked_in($doubts[$i]), $of[$i], 'where it was asked for');
}
# ... of one identity, in two workspaces: each list tells of its own (one is named as the settings do)
my $both = new_guest;
$fake->behave($both, "$at,hang_after", 3);
pause();
enqueue($both, "seam_workspace => '$_'") foreach $north, $own;
enqueue($both);
go_on();
ok(wait_for(sub { sent($both) >= 1 }), 'several requests of an identity are in doubt');
ok(wait_for(sub { states_of($both) =~ /^issued \d+, issued \d+, issued \d+$/ }), 'and settled');
is(join(' ', sort split / /, where($both)), "$own $own $north", 'with one key each');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$both' " .
	'AND (instant_key).workspace_id = coalesce(seam_workspace, ' . "'$own')"), 3, 'of its workspace');

# ---------- a request that is deleted while it is sent ----------

my $deleted = new_guest;
set(request_timeout => '60s');
$fake->behave($deleted, "$at,hold", 1);
enqueue($deleted, "seam_workspace => '$north'");
ok(wait_for(sub { sent($deleted) }), 'a request is sent');
sql("DELETE FROM seam_instant_key_request WHERE user_identity_id = '$deleted'");
$fake->release($deleted);
ok(wait_for(sub { states_of($deleted) =~ /^revoked/ }), 'the key that it gets in spite of its end is revoked');
is(where($deleted), '', 'really');
is(asked_in($deleted), $north, 'in its workspace');
set(request_timeout => '1s');

# ---------- triggers inside the transaction ----------

sql(q{CREATE TABLE walk_in (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid, property uuid, key_id uuid,
		workspace uuid);
	CREATE TRIGGER issue BEFORE INSERT OR UPDATE ON walk_in FOR EACH ROW EXECUTE FUNCTION
		seam_generate_instant_key_trigger('user_identity_id=guest', 'seam_workspace=property',
			'instant_key_id=key_id', 'workspace_id=workspace');
	CREATE TRIGGER revoke AFTER DELETE OR UPDATE ON walk_in FOR EACH ROW EXECUTE FUNCTION
		seam_delete_instant_key_trigger('instant_key_id=key_id', 'seam_workspace=property')});
my $walk_in = new_guest;
is(sql("INSERT INTO walk_in (guest, property) VALUES ('$walk_in', '$north') RETURNING workspace"), $north,
	'a walk-in has a key in its workspace');
is(sql('UPDATE walk_in SET property = NULL RETURNING workspace'), $own, 'in another one, when it moves there');
ok(becomes($walk_in, $own), 'and the former key is revoked');
is(sql("UPDATE walk_in SET property = '$south' RETURNING workspace"), $south, 'likewise from that of the settings');
ok(becomes($walk_in, $south), '(it, too)');
sql('DELETE FROM walk_in');
ok(becomes($walk_in, ''), 'and the last one with the row');
ok(quiet(), 'nothing is left to do');
is(reported($walk_in), '-', 'nothing is reported');
# a key of which the outbox knows nothing
my $unknown = new_guest;
my $unknown_id = sql('SET seam_ik.revoke_on_rollback = off; ' .
	"SELECT (seam_generate_instant_key('$unknown', 1, NULL, '$south')).instant_key_id");
sql("INSERT INTO walk_in (property, key_id) VALUES ('$south', '$unknown_id'); DELETE FROM walk_in");
ok(becomes($unknown, ''), 'a key that no request has issued is revoked where its row says');
is(asked_in($unknown), $south, 'and only there');
like(error_of("CREATE TABLE wrong (id int PRIMARY KEY, guest uuid, property int, key_id uuid);
	CREATE TRIGGER stay AFTER INSERT OR UPDATE OR DELETE ON wrong FOR EACH ROW EXECUTE FUNCTION
		seam_keep_instant_key_trigger('user_identity_id=guest', 'seam_workspace=property', 'instant_key_id=key_id');
	INSERT INTO wrong VALUES (1)"), qr/^42804: +.*column "property" does not fit seam_workspace/,
	'the column must fit');

# ---------- a stay ----------

sql(q{CREATE TABLE booking (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid, property uuid,
		check_in timestamptz, check_out timestamptz, key_id uuid, workspace uuid);
	CREATE TRIGGER stay AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
		seam_keep_instant_key_trigger('user_identity_id=guest', 'seam_workspace=property', 'issue_at=check_in',
			'valid_until=check_out', 'instant_key_id=key_id', 'workspace_id=workspace')});
set(renew_before => '7d');
# book(guest, workspace): the row's id
sub book
{
	return sql("INSERT INTO booking (guest, property, check_out) VALUES ('$_[0]', $_[1], now() + interval '1 month') " .
		'RETURNING id');
}
sub shows
{
	my ($row, $in) = @_;
	return wait_for(sub { sql("SELECT workspace FROM booking WHERE id = $row") eq $in });
}
my $stays = new_guest;
my $row = book($stays, "'$north'");
ok(shows($row, $north), 'a booking has its key in its workspace');
renew($stays);
ok(wait_for(sub { keys_of($stays) == 2 }), 'which is renewed');
is(where($stays), "$north $north", 'there');
ok(wait_for(sub { sql("SELECT key_id FROM booking WHERE id = $row") eq (keys_of($stays))[1]{instant_key_id} }),
	'and written');
is(asked_in($stays), $north, 'nothing was asked for elsewhere');
sql("UPDATE booking SET property = '$south' WHERE id = $row");
ok(shows($row, $south), 'a booking that moves to another workspace has a key there');
ok(becomes($stays, $south), 'and the former ones are revoked where they are');
sql("UPDATE booking SET property = NULL WHERE id = $row");
ok(shows($row, $own), 'likewise in that of the settings');
ok(becomes($stays, $own), 'and the former is revoked');
sql("UPDATE booking SET property = '$south' WHERE id = $row");
ok(becomes($stays, $south), 'and back');
sql("DELETE FROM booking WHERE id = $row");
ok(becomes($stays, ''), 'the last one goes with the row');
# what waits follows the row
my $waits = new_guest;
pause();
$row = book($waits, "'$north'");
sql("UPDATE booking SET property = '$south' WHERE id = $row");
go_on();
ok(shows($row, $south), 'a request that waits follows the row');
is(asked_in($waits), $south, 'and nothing was sent before');
# what is looked at before it is sent, or written, has to be of the same workspace
my $unseen = new_guest;
$row = sql("INSERT INTO booking (guest, property, check_in, check_out) VALUES ('$unseen', '$north', " .
	"now() + interval '1 hour', now() + interval '1 month') RETURNING id");
sql("SET session_replication_role = replica; UPDATE booking SET property = '$south' WHERE id = $row");
sql("UPDATE seam_instant_key_request SET issue_at = now(), wake_at = now() - interval '1 minute' " .
	"WHERE user_identity_id = '$unseen'; " .
	'SELECT seam_enqueue_instant_key(gen_random_uuid())');
ok(wait_for(sub { states_of($unseen) =~ /^cancelled/ }), 'where no trigger has seen the change, nothing is sent');
is(sent($unseen), 0, 'to neither workspace');
ok(quiet(), 'nothing is left to do');
is(sql('SELECT count(*) FROM seam_instant_key_orphan'), 0, 'nothing is reported');

# ---------- a workspace that the token is not for ----------

my ($barred, $others) = map { new_guest } 1 .. 2;
$fake->behave($barred, 'status=401');
my $offset = -s $node->logfile;
$id = enqueue($barred, "seam_workspace => '$north'");
ok(wait_for(sub { sent($barred) >= 2 }), 'Seam answers 401, and the request is tried again');
ok(wait_state('postgres', enqueue($others), 'issued -'), 'the others go on');
unlike(slurp_file($node->logfile, $offset), qr/did not accept the API key/, 'nothing is stopped for it');
like(state_of('postgres', $id), qr/28000$/, 'it says why');
set(max_attempts => 2);
ok(wait_state('postgres', $id, 'failed 28000'), 'and fails in the end');
set(max_attempts => undef);

# ---------- an API key of one workspace ----------

my ($kept, $refused) = map { new_guest } 1 .. 2;
$id = enqueue($kept, "seam_workspace => '$north'");
ok(wait_state('postgres', $id, 'issued -'), 'a key in a workspace');
set(workspace_id => undef);
api_key_file($node, 'seam_test_one');
reload($node);
like(error_of(generate($refused, "'$north'")), qr/^22023: +seam_workspace needs a personal access token$/m,
	'an API key of one workspace is not for another');
like(error_of("SELECT seam_generate_instant_keys('{$refused}', seam_workspace => '$north')"),
	qr/^22023: +seam_workspace/, 'nor in a batch');
my $failed = enqueue($refused, "seam_workspace => '$north'");
ok(wait_state('postgres', $failed, 'failed 22023'), 'a request fails, too');
is(sent($refused), 0, 'nothing was sent');
sql("SELECT seam_cancel_instant_key_request($id)");
ok(wait_state('postgres', $id, 'failed 08007'), 'a key of another workspace is not said to be revoked');
is(where($kept), $north, 'because it lives');
api_key_file($node, 'seam_at1_properties');
set(workspace_id => $own);
reload($node);
is(sql("SELECT seam_retry_instant_key_request($_)"), $_ == $id ? 'revoking' : 'pending',
	'with the token it is tried again') foreach $id, $failed;
ok(wait_state('postgres', $id, 'revoked -'), 'the key is revoked');
is(where($kept), '', 'in its workspace');
ok(wait_state('postgres', $failed, 'issued -'), 'and the other one issued');
is(where($refused), $north, 'likewise');
ok(quiet(), 'nothing is left to do');

$node->stop;
done_testing();
