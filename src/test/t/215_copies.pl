# Copies of an outbox: a standby and its promotion, dumps, and databases made
# from another.  No key is issued or revoked twice, or by who should not.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql live_keys sent wait_sent enqueue state_of wait_state worker_of);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(time);

my $fake = FakeSeam->start;
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', join("\n",
	"shared_preload_libraries = 'seam_ik'",
	"seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'",
	'seam_ik.request_timeout = 1s',
	'seam_ik.settle_delay = 5s') . "\n");
api_key_file($primary, 'seam_test_copies');
my $node = $primary;
meet($node, $fake);

# is_state(database, request, state, name): soon
sub is_state
{
	my ($db, $id, $state, $name) = @_;

	ok(wait_state($db, $id, $state), $name)
		or diag sql($db, "SELECT * FROM seam_instant_key_request WHERE request_id = $id");
	return;
}

sub error_of
{
	my ($db, $id) = @_;
	return sql($db, "SELECT error FROM seam_instant_key_request WHERE request_id = $id");
}

# works(database, name): a request goes its way
sub works
{
	my ($db, $name) = @_;
	my $guest = new_guest;

	is_state($db, enqueue($db, $guest), 'issued -', $name);
	is(scalar(live_keys($guest)), 1, '(with one key)');
	return;
}

sub processes { return sql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'seam_ik%'"); }

# The setting of a database, which its worker obeys when this returns.
sub set_worker
{
	my ($db, $value) = @_;

	sql('postgres', "ALTER DATABASE $db SET seam_ik.worker = $value");
	reread($node, $db) or die 'no worker';
	return;
}

# How often the log says that another database's requests wait.
sub warnings_of
{
	my ($db) = @_;
	return scalar(() = slurp_file($node->logfile)
		=~ /WARNING: +\d+ requests for instant keys of another database wait in the outbox of database "$db"/g);
}

# ---------- a standby ----------

$primary->start;
sql('postgres', 'CREATE DATABASE hotel');
sql('hotel', q{CREATE EXTENSION seam_ik;
CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid, url text);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id', 'instant_key_url=url')});
works('hotel', 'the primary works');
$primary->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'b', has_streaming => 1);
chmod 0600, $standby->data_dir . '/seam_api_key' or die $!;
$standby->start;

my %g = map { $_ => new_guest } qw(issued lost cancelled never revoke pending);
$fake->behave($g{$_}, 'hang_after', 1) for qw(lost cancelled);
$fake->behave($g{never}, 'hang', 1);
my %id = map { $_ => enqueue('hotel', $g{$_}) } qw(issued revoke);
is_state('hotel', $id{$_}, 'issued -', "$_ is issued") for qw(issued revoke);
# the answers are lost, and nobody settles it
$id{$_} = enqueue('hotel', $g{$_}) for qw(lost cancelled never);
wait_sent($g{$_}) for qw(lost cancelled never);
set_worker('hotel', 'off');
is_state('hotel', $id{$_}, 'in_flight 08007', "$_ is in doubt") for qw(lost cancelled never);
$id{pending} = enqueue('hotel', $g{pending});
is(sql('hotel', "SELECT seam_cancel_instant_key_request($id{$_})"), 'revoking', "$_ is to be revoked")
	for qw(cancelled revoke);
my %keys = map { $_ => [ live_keys($g{$_}) ] } qw(lost cancelled);

# a session's own call, whose transaction is open when the primary fails
my $open = new_guest;
my $session = IPC::Run::start([ 'psql', '-Xq', '-d', $primary->connstr('hotel'), '-c', 'BEGIN', '-c',
	"SELECT seam_generate_instant_key('$open')", '-c', 'SELECT pg_sleep(600)' ],
	'<', \undef, '>', \my $ignored, '2>', \my $ignored_too, IPC::Run::timeout(HANGS));
ok(wait_for(sub { live_keys($open) == 1 }), 'a call in an open transaction');

# in a copy of the files that is started as it is, that transaction has ended by a crash
$primary->backup('c');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($primary, 'c');
chmod 0600, $copy->data_dir . '/seam_api_key' or die $!;
$copy->start;
$node = $copy;
meet($node);
ok(wait_for(sub { sql('hotel', "SELECT status || ' ' || sqlstate FROM seam_instant_key_orphan " .
	"WHERE user_identity_id = '$open'") eq 'failed 08007' }),
	'a physical copy reports the key of the open transaction');
is(scalar(live_keys($open)), 1, 'and does not revoke it');
$copy->stop;

$primary->wait_for_catchup($standby, 'replay');
$node = $standby;
meet($node);
is(state_of('hotel', $id{pending}), 'pending -', 'the standby has it all');
is(processes(), '0', 'and no process of ours');
is(sql('hotel', q{SELECT detail FROM seam_ik_check() WHERE ok AND "check" = 'worker'}), 'a standby has none',
	'which seam_ik_check() does not miss');
is(sql('hotel', q{SELECT string_agg("check", ', ') FROM seam_ik_check() WHERE ok AND "check" IN ('preloaded',
	'worker slots', 'endpoint', 'answer', 'reported keys', 'triggers', 'versions')}),
	'preloaded, worker slots, endpoint, answer, reported keys, triggers, versions', 'and it tells the rest there, too');
my ($rc, $out, $err) = $node->psql('hotel', "SELECT seam_enqueue_instant_key('$g{issued}')",
	extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
like($err, qr/25006/, 'nothing is enqueued on a standby');
($rc, $out, $err) = $node->psql('hotel', 'SELECT seam_generate_instant_key(gen_random_uuid())');
like($err,
	qr/WARNING:  an instant key will stay alive if its transaction rolls back\nDETAIL:  This server is a standby/,
	'a call there is not protected');
is(sql('hotel', "SELECT (seam_instant_key_request_result($id{issued})).user_identity_id"), $g{issued},
	'a result is read there');
is(sql('hotel', "SELECT count FROM seam_instant_key_queue WHERE status = 'in_flight'"), '2', 'and the queue');

$primary->stop('immediate');
is(sent($g{pending}), 0, '(nothing was sent meanwhile)');
$standby->promote;
ok(wait_for(sub { worker_of('hotel') ne '' }), 'promotion wakes the worker');
set_worker('hotel', 'on');
is_state('hotel', $id{pending}, 'issued -', 'what was pending goes on');
is(scalar(live_keys($g{pending})), 1, 'with one key');
is_state('hotel', $id{revoke}, 'revoked -', 'what was to be revoked is');
is(scalar(live_keys($g{revoke})), 0, 'its key is gone');
foreach my $case (qw(lost cancelled))
{
	is_state('hotel', $id{$case}, 'failed 08007', "$case: what was in doubt is reported");
	like(error_of('hotel', $id{$case}), qr/$keys{$case}[0]/, 'with the key that there is');
	is_deeply([ live_keys($g{$case}) ], $keys{$case}, 'which is neither revoked nor issued again');
}
ok(wait_for(sub { state_of('hotel', $id{never}) =~ /^(failed 08007|issued)/ }),
	'what was in doubt and has no key is reported, or issued');
cmp_ok(scalar(live_keys($g{never})), '<=', 1, 'once');
is(scalar(live_keys($g{issued})), 1, 'what was issued stays');
ok(wait_for(sub { sql('hotel', "SELECT status || ' ' || sqlstate FROM seam_instant_key_orphan " .
	"WHERE user_identity_id = '$open'") eq 'failed 08007' }), 'the key of the open transaction is reported');
is(scalar(live_keys($open)), 1, 'and not revoked');
$session->kill_kill;
works('hotel', 'new requests are sent');

# ---------- an outbox that is copied ----------

%g = map { $_ => new_guest } qw(issued lost pending booked written deleted);
sql('hotel', "DELETE FROM seam_instant_key_request; INSERT INTO booking VALUES (1, '$g{written}'), (2, '$g{deleted}')");
$fake->behave($g{lost}, 'hang_after', 1);
%id = (issued => enqueue('hotel', $g{issued}));
is_state('hotel', $id{issued}, 'issued -', 'a request is issued');
ok(wait_for(sub { sql('hotel', 'SELECT count(key_id) FROM booking') eq '2' }), 'and bookings have their keys');
$id{lost} = enqueue('hotel', $g{lost});
wait_sent($g{lost});
set_worker('hotel', 'off');
$id{pending} = enqueue('hotel', $g{pending});
sql('hotel', "INSERT INTO booking VALUES (3, '$g{booked}')");
$id{booked} = sql('hotel', "SELECT request_id FROM seam_instant_key_request WHERE user_identity_id = '$g{booked}'");
is_state('hotel', $id{lost}, 'in_flight 08007', 'one is in doubt');
my ($lost) = live_keys($g{lost});
my $rows = 'SELECT count(*), max(request_id) FROM seam_instant_key_request';
my $count = sql('hotel', $rows);

my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('hotel') ], 'pg_dump');
sql('postgres', 'CREATE DATABASE twin TEMPLATE hotel');
sql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'pg_restore');
# where there is a worker already
sql('postgres', 'CREATE DATABASE late');
sql('late', 'CREATE EXTENSION seam_ik; CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid, url text)');
ok(wait_for(sub { worker_of('late') ne '' }), 'a database with a worker');
$node->command_ok([ 'pg_restore', '--exit-on-error', '--data-only', '-d', $node->connstr('late'), $dump ],
	'pg_restore of the data only');
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->append_conf('postgresql.conf',
	join("\n", "shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = '" . $node->data_dir . "/seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s') . "\n");
$other->start;
$other->safe_psql('postgres', 'CREATE DATABASE abroad');
$other->command_ok([ 'pg_restore', '--exit-on-error', '-d', $other->connstr('abroad'), $dump ], 'pg_restore elsewhere');

foreach my $copy ([ $standby, 'twin' ], [ $standby, 'restored' ], [ $standby, 'late' ], [ $other, 'abroad' ])
{
	my $db;
	($node, $db) = @$copy;
	meet($node);
	is(sql($db, $rows), $count, "$db: the requests came along");
	my $new = new_guest;
	my $id = enqueue($db, $new);
	cmp_ok($id, '>', (split /\|/, $count)[1], "$db: ids do not collide");
	is_state($db, $id, 'issued -', "$db: a new request is sent");
	$node->reload;				# sooner than within a minute
	ok(wait_for(sub { warnings_of($db) > 0 }), "$db: a warning of those that wait");
}

# The origin goes on: each of its requests gets one key.
$node = $standby;
meet($node);
set_worker('hotel', 'on');
is_state('hotel', $id{$_}, 'issued -', "the origin issues $_") for qw(lost pending booked);
is_deeply([ live_keys($g{lost}) ], [$lost], 'with the key that there was, where there was one');

foreach my $copy ([ $standby, 'twin' ], [ $standby, 'restored' ], [ $standby, 'late' ], [ $other, 'abroad' ])
{
	my $db;
	($node, $db) = @$copy;
	meet($node);
	# nothing that is done with the copy's rows touches the origin's keys
	if ($db ne 'late')
	{
		sql($db, "DELETE FROM booking WHERE id = 2");
		sql($db, "SELECT seam_cancel_instant_key_request($id{issued})");
	}
	# everything is looked at once more
	$node->reload;
	works($db, "$db: new requests are sent");
	is_deeply([ map { scalar live_keys($g{$_}) } qw(issued lost pending booked written deleted) ], [ (1) x 6 ],
		"$db: nothing was issued or revoked for those that came along");
	is(state_of($db, $id{pending}), 'pending -', "$db: they wait");
	is(warnings_of($db), 1, "$db: one warning");
}

# ---------- adoption ----------

foreach my $copy ([ $standby, 'twin' ], [ $other, 'abroad' ])
{
	my $db;
	($node, $db) = @$copy;
	meet($node);
	my %had = map { $_ => scalar live_keys($g{$_}) } qw(pending booked issued written deleted);
	cmp_ok(sql($db, 'SELECT seam_adopt_instant_key_requests()'), '>=', 3, "$db: adopted");
	is_state($db, $id{$_}, 'issued -', "$db: $_ is issued now") for qw(pending booked);
	is(live_keys($g{$_}), $had{$_} + 1, 'once more') for qw(pending booked);
	ok(wait_for(
		sub { sql($db, "SELECT b.key_id = (r.instant_key).instant_key_id FROM booking b, seam_instant_key_request r " .
		"WHERE b.id = 3 AND r.request_id = $id{booked}") eq 't' }), "$db: and written to its row there");
	is_state($db, $id{lost}, 'failed 08007', "$db: what was in doubt is reported");
	like(error_of($db, $id{lost}), qr/$lost/, 'with the key');
	is_deeply([ live_keys($g{lost}) ], [$lost], 'which is neither revoked nor issued again');
	is(sql($db, 'SELECT seam_adopt_instant_key_requests()'), '0', "$db: there is nothing more to adopt");
	is_state($db, $id{issued}, 'revoked -', "$db: what was cancelled is revoked now");
	is(scalar(live_keys($g{deleted})), 0, 'also what a trigger cancelled');
	# what was finished belongs to it, too
	sql($db, 'DELETE FROM booking WHERE id = 1');
	ok(wait_for(sub { sql($db, "SELECT status FROM seam_instant_key_request " .
		"WHERE user_identity_id = '$g{written}'") eq 'revoked' }), "$db: a key that came along can be revoked");
	is(scalar(live_keys($g{written})), 0, 'and is');
}

$_->stop for $standby, $other;
done_testing();
