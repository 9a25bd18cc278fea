# Another endpoint, workspace or API key than requests were made with: what is not found
# there is reported, and one endpoint's clock tells nothing about another's.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql keys_of live asked enqueue states_of reported quiet worker_of);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my ($fake, $elsewhere) = (FakeSeam->start, FakeSeam->start);
$elsewhere->clock(300);
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s',
		'seam_ik.max_retries = 0');
api_key_file($node, 'seam_test_first');
meet($node, $fake);

my $at = 'route=generate_instant_key';
sub becomes
{
	my ($guest, $state, $name) = @_;
	wait_for(sub { states_of($guest) =~ $state });
	return like(states_of($guest), $state, $name);
}
sub request_of { return sql("SELECT request_id FROM seam_instant_key_request WHERE user_identity_id = '$_[0]'"); }
sub cancel { return sql('SELECT seam_cancel_instant_key_request(' . request_of($_[0]) . ')'); }
sub retry { return sql('SELECT seam_retry_instant_key_request(' . request_of($_[0]) . ')'); }
# The worker obeys these settings when this returns.
sub set
{
	my (%settings) = @_;
	my $loaded = sql('SELECT pg_conf_load_time()');
	my $worker = worker_of();
	sql(join(' ', map { "ALTER SYSTEM SET seam_ik.$_ = '$settings{$_}';" } sort keys %settings) .
		' SELECT pg_reload_conf()');
	wait_for(sub { sql('SELECT pg_conf_load_time()') ne $loaded });
	kill 'HUP', $worker;
	return;
}
sub issued { my ($guest, $name) = @_; enqueue($guest); return becomes($guest, qr/^issued/, $name); }

sql(q{
CREATE TABLE booking (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid, key_id uuid);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
});

# ---------- no identity, no key ----------

# What is in doubt, and whose identity Seam does not know: it is tried again, which fails as it should.
my ($unknown, $proxied) = (new_guest, new_guest);
$fake->behave($unknown, "$at,hang", 1);
$fake->behave($unknown, "$at,status=404,type=user_identity_not_found");
$fake->behave($unknown, 'route=list,status=404,type=user_identity_not_found');
enqueue($unknown);
# (a proxy's 404 is no answer of Seam's)
$fake->behave($proxied, "$at,hang", 1);
$fake->behave($proxied, 'route=list,status=404,notjson');
enqueue($proxied);
becomes($unknown, qr/^in_flight 08007/, 'a request is in doubt');
enqueue($unknown);
becomes($unknown, qr/^failed P0002 2, failed P0002 1$/, 'whose identity Seam does not know: nobody waits for it');
is(reported($unknown), '-', 'nothing is reported');
ok(wait_for(sub { asked($proxied, 'list') > 1 }), "a 404 that is not Seam's is no answer");
is(states_of($proxied), 'in_flight 08007 1', 'the request waits for one');
$fake->behave($proxied, '');
becomes($proxied, qr/^issued 2$/, 'and goes on then');

# ---------- what is reported stays so ----------

my @reported = map { new_guest } 1 .. 2;
$fake->behave($_, "$at,hang_after", 1) foreach @reported;
enqueue($reported[0]);
sql("INSERT INTO booking (guest) VALUES ('$reported[1]')");
foreach my $guest (@reported)
{
	wait_for(sub { keys_of($guest) > 0 });
	$fake->ask('seed-keys', { user_identity_id => $guest, count => 1 });
}
becomes($_, qr/^failed 08007/, 'a request of which it is not known which key it has') foreach @reported;
is(cancel($reported[0]), 'failed', 'is not said to be cancelled');
is(states_of($reported[0]), 'failed 08007 1', 'nor is it');
is(reported($reported[0]), '-', 'but somebody has looked at it');
sql('DELETE FROM booking');
is(states_of($reported[1]), 'failed 08007 1', 'when its booking goes, it stays');
like(reported($reported[1]), qr/another issuer/, 'and is reported still');
# ... nor is another key asked for while there may be one
is(retry($reported[0]), 'in_flight', 'tried again, it is looked for');
becomes($reported[0], qr/^failed 08007 0$/, 'and reported again');
is(scalar(keys_of($reported[0])), 2, 'no other key is issued');
isnt(reported($reported[0]), '-', 'somebody has to look at it again');
sql("SELECT seam_delete_instant_key('$_')") foreach split /,/, live($reported[0]);
retry($reported[0]);
becomes($reported[0], qr/^issued 1$/, 'when its keys were revoked by hand, it gets another one');
is(scalar(split /,/, live($reported[0])), 1, 'which is the only one');

# ---------- another endpoint ----------

my ($booked, $lost, $gone, $doomed, $deleted) = map { new_guest } 1 .. 5;
issued($_, 'a request of the first endpoint') foreach $booked, $gone;
# (nothing is settled there, however long the test takes)
foreach my $guest ($lost, $doomed)
{
	$fake->behave($guest, "$at,hang_after", 1);
	$fake->behave($guest, 'route=list,status=500');
	enqueue($guest);
}
wait_for(sub { keys_of($lost) && keys_of($doomed) });
is(cancel($doomed), 'revoking', 'one that is in flight is cancelled');
set(request_timeout => '60s');
$fake->behave($deleted, "$at,hold", 1);
enqueue($deleted);
ok(wait_for(sub { asked($deleted) }), 'the request of another one is sent');
sql("DELETE FROM seam_instant_key_request WHERE user_identity_id = '$deleted'");
set(endpoint => $elsewhere->url, request_timeout => '1s');
my $there = new_guest;
issued($there, 'another endpoint');
is(live($there, $elsewhere) ne '', 1, 'is used from now on');
is(cancel($booked), 'revoking', 'a request of before is cancelled');
becomes($_, qr/^failed 08007/, 'what is not found there is reported') foreach $booked, $lost, $doomed;
like(reported($booked), qr/^the instant key was issued with another API key, endpoint or workspace/, 'as a key');
my $present = 'the present API key, endpoint and workspace, which are others';
like(reported($_), qr/^the answer was lost, and with $present, no instant key is found/,
	'as a lost answer') foreach $lost, $doomed;
is(scalar(asked($lost, 'generate_instant_key', $elsewhere)), 0, 'and not issued anew');
is(scalar(map { split /,/, live($_) } $booked, $lost, $doomed), 3, 'the keys live');
$fake->release($deleted);
ok(wait_for(sub { states_of($deleted) =~ /^failed/ }), 'the key of a request that was deleted meanwhile is reported');
like(reported($deleted), qr/^the instant key was issued with another API key, endpoint or workspace/,
	'and not said to be revoked');
set(endpoint => $fake->url);
is(retry($booked), 'revoking', 'with the first endpoint the key is revoked, when that is tried again');
becomes($booked, qr/^revoked/, 'which works');
is(live($booked), '', 'there');

# ---------- another API key ----------

# The workspace of the first one is known by now; of the second one it is not.
my ($found, $expired, $in_doubt, $new) = map { new_guest } 1 .. 4;
issued($_, 'a request with the first API key') foreach $found, $expired;
$fake->behave($_, 'route=delete,status=404,type=instant_key_not_found') foreach $expired, $gone;
$fake->behave($in_doubt, "$at,hang", 1);
enqueue($in_doubt);
becomes($in_doubt, qr/^in_flight/, 'another one is in flight');
api_key_file($node, 'seam_test_second');
is(cancel($_), 'revoking', 'those are cancelled with another API key') foreach $found, $expired;
becomes($found, qr/^revoked/, 'a key that is found is revoked');
becomes($expired, qr/^failed 08007/, 'one that is not found is reported');
becomes($in_doubt, qr/^failed 08007/, 'so is a lost answer without a key');
issued($new, 'an answer that tells the workspace');
is(retry($expired), 'revoking', 'as it is the same as before');
becomes($expired, qr/^revoked/, 'a key that is not found does not exist');
# ... now it is known of both, before a request is made
my $rotated = new_guest;
$fake->behave($rotated, "$at,hang", 1);
enqueue($rotated);
becomes($rotated, qr/^in_flight/, 'a request in flight');
api_key_file($node, 'seam_test_third');
issued(new_guest, 'a third API key');
becomes($rotated, qr/^issued 2$/, 'of the same workspace: what has no key is issued anew');

# ---------- another workspace ----------

# Where it is set, tokens may be rotated.
my ($first, $second) = map { "$_-2222-4222-8222-222222222222" } '11111111', '22222222';
my ($kept, $moved) = (new_guest, new_guest);
api_key_file($node, 'seam_at1_first');
set(workspace_id => $first);
issued($_, 'a request with a workspace') foreach $kept, $moved;
$fake->behave($_, 'route=delete,status=404,type=instant_key_not_found') foreach $kept, $moved;
api_key_file($node, 'seam_at1_second');
cancel($kept);
becomes($kept, qr/^revoked/, 'with another token of the same one, a key that is not found does not exist');
set(workspace_id => $second);
cancel($moved);
becomes($moved, qr/^failed 08007/, 'with another one it is reported');
# ... also where it was told by the first API key
cancel($gone);
becomes($gone, qr/^failed 08007/, 'also if the API key itself has told the first one');
sql('ALTER SYSTEM RESET seam_ik.workspace_id');
api_key_file($node, 'seam_test_first');
$node->reload;
ok(quiet('postgres'), 'nothing else is to be done');

# ---------- clocks ----------

# Endpoints whose clocks differ by five minutes: a worker that changes to the other one, and
# one that stays, while a role's own calls go there.
sql('CREATE DATABASE stays');
sql("ALTER DATABASE stays SET seam_ik.endpoint = '" . $fake->url . "'");
sql("CREATE ROLE tenant LOGIN; ALTER ROLE tenant IN DATABASE stays SET seam_ik.endpoint = '" . $elsewhere->url . "'");
sql('stays', 'CREATE EXTENSION seam_ik; GRANT EXECUTE ON FUNCTION seam_generate_instant_key(uuid, int) TO tenant');
my ($tenant, $stays, $changes) = map { new_guest } 1 .. 3;
foreach my $db ('postgres', 'stays')
{
	enqueue($db, new_guest);
	ok(quiet($db), "$db: the clock of the endpoint is known");
}
$node->psql('stays', "SELECT seam_generate_instant_key('$tenant')", extra_params => [ '-U', 'tenant' ]);
is(scalar(keys_of($tenant, $elsewhere)), 1, "a role's own endpoint is asked");
is(sql('stays', "SELECT seam_time IS NULL FROM seam_instant_key_request WHERE user_identity_id = '$tenant'"), 't',
	"and the call is not dated by the worker's");
set(endpoint => $elsewhere->url, request_timeout => '2s');
$fake->behave($stays, "$at,hang_after", 1);
$elsewhere->behave($changes, "$at,hang_after", 1);
enqueue('stays', $stays);
enqueue($changes);
ok(wait_for(sub { keys_of($stays) && keys_of($changes, $elsewhere) }), 'requests to both');
$node->stop('immediate');
$node->start;
foreach my $case ([ 'stays', $stays, $fake ], [ 'postgres', $changes, $elsewhere ])
{
	my ($db, $guest, $of) = @$case;
	ok(quiet($db), "$db: a request that a crash met is settled");
	is(states_of($db, $guest), 'issued 1', 'its key is found');
	is(scalar(keys_of($guest, $of)), 1, 'and is the only one');
}

$node->stop;
done_testing();
