# What a worker's successor, a promoted standby, and copies know of calls that have
# committed: whose the keys are.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql call live_keys reported quiet worker_of printed);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf',
	join("\n", "shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s',
		'seam_ik.max_retries = 0') . "\n");
api_key_file($node, 'seam_test_successors');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION seam_ik');

meet($node, $fake);
sub are_decided { return wait_for(sub { sql('SELECT count(*) FROM seam_instant_key_call') eq '0' }); }
my $at = 'route=generate_instant_key';

# lose_others(guests): each has a key of a call that has committed.  Now the first one's
# call is lost with its key, the second one's without, the third one's request of the
# outbox with its key, the fourth one's without.
sub lose_others
{
	my @guests = @_;
	$fake->behave($guests[$_], "$at," . ('reset_after', 'reset')[ $_ % 2 ], 1) foreach 0 .. 3;
	$node->psql('postgres', call($_)) foreach @guests[ 0, 1 ];
	sql("SELECT seam_enqueue_instant_key('$_')") foreach @guests[ 2, 3 ];
	return quiet();
}

# The keys are those that were told of, and one more of each request.
sub are_right
{
	my ($name, $guests, $keys) = @_;
	is(join(' ', live_keys($guests->[$_])), $keys->[$_], "$name: the key that was told of lives, alone") foreach 0, 1;
	foreach my $n (2, 3)
	{
		my $other = sql("SELECT (instant_key).instant_key_id FROM seam_instant_key_request " .
			"WHERE user_identity_id = '$guests->[$n]' AND status = 'issued' AND call_id IS NULL");
		is(join(' ', sort(live_keys($guests->[$n]))), join(' ', sort($keys->[$n], $other)),
			"$name: it lives, and that of the request");
	}
	is(reported(@$guests), '-', "$name: nothing is reported");
	return;
}

wait_for(sub { worker_of('postgres') ne '' });

my (@guests, @keys);
# The worker ends right after the commits.
foreach my $case (
	[ 'a command that fails', sub { $node->psql('template1', 'ALTER DATABASE postgres RENAME TO template1'); } ],
	[ 'terminated', sub { sql('SELECT pg_terminate_backend(' . worker_of('postgres') . ')') } ],
	[ 'fast restart', sub { $node->restart } ],
	[ 'crash', sub { $node->stop('immediate'); $node->start; } ])
{
	my ($name, $end) = @$case;
	my @guests = map { new_guest } 1 .. 4;
	my $worker = worker_of('postgres');
	my @keys = map { sql(call($_)) } @guests;
	$end->();
	ok(wait_for(sub { my $now = worker_of('postgres'); $now ne '' && $now ne $worker }), "$name: a new worker");
	ok(lose_others(@guests), "$name: lost answers of the same guests");
	are_right($name, \@guests, \@keys);
}

# ... which waits neither for a standby that is away, nor for a call that somebody has locked
@guests = map { new_guest } 1 .. 4;
my $locked = new_guest;
my $open = background($node, 'BEGIN; ' . call($locked) . "; SELECT 'called';");
ok(printed($open, 'called'), 'a call');
my $lock = background(
	$node, "BEGIN; SELECT 'locked' FROM seam_instant_key_call WHERE user_identity_ids[1] = '$locked' FOR UPDATE;");
ok(printed($lock, 'locked'), 'is locked');
my $worker = worker_of('postgres');
$open->{in} .= "COMMIT;\n";
$open->{run}->pump_nb for 1 .. 3;
@keys = split /\n/, sql(join('; ', map { call($_) } @guests));
kill 'STOP', $worker;
sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
$node->reload;
ok(wait_for(sub { sql('SHOW synchronous_standby_names') eq 'nobody' }), 'a standby is away');
# (the checkpointer knows of it, too)
ok(wait_for(sub { sql("SELECT pg_sleep(0.5) IS NOT NULL") eq 't' }), 'for a while');
kill $_, $worker foreach 'TERM', 'CONT';
ok(wait_for(sub { !kill 0, $worker }), 'the worker ends');
is(sql("SELECT string_agg(user_identity_ids[1]::text, ' ') FROM seam_instant_key_call WHERE user_identity_ids[1] " .
	"IN ('" . join("','", @guests, $locked) . "')"), $locked, 'and has done what it could');
sql('ALTER SYSTEM RESET synchronous_standby_names');
$node->reload;
result_of($_) foreach $open, $lock;
ok(lose_others(@guests), 'lost answers of the same guests');
are_right('no standby', \@guests, \@keys);

# A server at another place, whose data directory was copied.
@guests = map { new_guest } 1 .. 3;
@keys = map { sql(call($_)) } @guests;
$node->stop('fast');
rename $node->data_dir, $node->data_dir . '.old' or die $!;
system_or_bail('cp', '-a', $node->data_dir . '.old', $node->data_dir);
$node->start;
ok(wait_for(sub { worker_of('postgres') ne '' }), 'a data directory that was moved');
ok(quiet(), 'has nothing to do');
is(reported(@guests), '-', 'and nothing to report');

# Databases that are copied.
sql('CREATE DATABASE hotel');
$node->safe_psql('hotel', 'CREATE EXTENSION seam_ik');
ok(wait_for(sub { worker_of('hotel') ne '' }), 'another database');
@guests = map { new_guest } 1 .. 3;
$open = new_guest;
my $s = background($node, 'BEGIN; ' . call($open) . '; SELECT pg_sleep(60);', 'hotel');
ok(wait_for(sub { live_keys($open) == 1 }), 'a transaction is open');
@keys = map { $node->safe_psql('hotel', call($_)) } @guests;
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
system_or_bail('pg_dump', '-f', $dump, '-d', $node->connstr('hotel'));
my ($journal) = slurp_file($dump) =~ /^COPY \S*\bseam_instant_key_call .*?\n(.*?)\n\\\.\n/ms;
unlike($journal, qr/$_/, 'pg_dump: the journal of what has committed is not in it') foreach @guests;
like($journal, qr/$open/, 'what is open is');
sql('CREATE DATABASE restored');
system_or_bail('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('restored'));
sql("SELECT pg_terminate_backend($s->{pid})");
result_of($s);
$node->safe_psql('hotel', call($_)) foreach @guests;
sql('CREATE DATABASE twin TEMPLATE hotel');
my $orphans = "SELECT coalesce(string_agg(user_identity_id::text || ' ' || status, ' '), '') " .
	"FROM seam_instant_key_orphan";
foreach my $copy ([ 'restored', "$open failed" ], [ 'twin', '' ])
{
	my ($db, $reported) = @$copy;
	ok(wait_for(sub { worker_of($db) ne '' }), "$db: has a worker");
	is($node->safe_psql($db, $orphans), '', "$db: which reports nothing");
	is($node->safe_psql($db, 'SELECT seam_adopt_instant_key_requests()'), $reported ? 1 : 0, "$db: adopted");
	is($node->safe_psql($db, $orphans), $reported, "$db: now what was open is reported, nothing else");
	is($node->safe_psql($db, 'SELECT count(*) FROM seam_instant_key_call'), 0, "$db: and nothing more is known");
}
ok(wait_for(sub { live_keys($open) == 0 }), 'and is revoked where it was');
is(join(' ', map { scalar live_keys($_) } @guests), '2 2 2', 'the others live');
# a dump can be made of a copy whose calls are of a time to come here
$node->safe_psql('restored', "INSERT INTO seam_instant_key_call (call_id, transaction_id, top_transaction_id,
	user_identity_ids, requested_at, attempt_timeout, system_identifier, origin, data_directory_id, timeline_id)
	SELECT gen_random_uuid(), '999999999999', '999999999999', ARRAY['$open'::uuid], now(), 1000, 1, 1, 1, 1");
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('restored') ], 'a dump of a restored dump');

# A standby is promoted: right after the commits, and when the journal was empty.
$node->backup('base');
foreach my $name ('promotion', 'promotion right after the commits')
{
	my $standby = PostgreSQL::Test::Cluster->new($name =~ / / ? 'second' : 'first');
	$standby->init_from_backup($node, 'base', has_streaming => 1);
	chmod 0600, $standby->data_dir . '/seam_api_key' or die $!;
	$standby->start;
	@guests = map { new_guest } 1 .. 4;
	$worker = worker_of('postgres');
	if ($name eq 'promotion')
	{
		@keys = split /\n/, sql(join('; ', map { call($_) } @guests));
		are_decided();
	}
	else
	{
		# (the answers come when the worker has recorded the calls, and is held)
		$fake->behave($_, "$at,hold", 1) foreach @guests;
		my @sessions = map { background($node, "SET seam_ik.request_timeout = '5s'; " . call($_) . ';') } @guests;
		wait_for(sub { $fake->ask('stats')->{in_flight} == @guests });
		kill 'STOP', $worker;
		$fake->release;
		@keys = map { (result_of($_))[0] =~ /([0-9a-f-]{36})/ } @sessions;
		is(scalar(@keys), 4, "$name: calls that commit");
		cmp_ok(sql('SELECT count(*) FROM seam_instant_key_call'), '>', 0, "$name: the journal has them still");
	}
	$node->wait_for_catchup($standby);
	my $primary = $node;
	$primary->stop('immediate');
	$standby->promote;
	$node = $standby;
	meet($node);
	ok(wait_for(sub { worker_of('postgres') ne '' }), "$name: has a worker");
	ok(lose_others(@guests), "$name: lost answers of the same guests");
	are_right($name, \@guests, \@keys);
	$node->stop;
	$node = $primary;
	meet($node);
	$node->start;
	wait_for(sub { worker_of('postgres') ne '' });
}
$node->stop;
done_testing();
