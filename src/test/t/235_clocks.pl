# The local clock is set, or the server comes up with another one: what is due is done at
# once, what pauses does so for no longer than it should, and no lost answer is looked
# after too early.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql live columns_of asked enqueue worker_of up);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep time);

my $fake = FakeSeam->start;
my ($preload, $set_clock) = movable_clock();
my $clock = 3600;
$set_clock->($clock);
my $primary;
{
	local $ENV{LD_PRELOAD} = $preload;
	$primary = seam_cluster(
		"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
		"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 3s',
		'restart_after_crash = on', 'max_prepared_transactions = 5', 'wal_level = replica', 'max_wal_senders = 3',
			'log_min_messages = log');
}
api_key_file($primary, 'seam_test_clocks');
my $node = $primary;

my $at = 'route=generate_instant_key';
meet($node, $fake);
sub of { return columns_of($_[0], $_[1] // 'status'); }
sub becomes { my ($guest, $status) = @_; return wait_for(sub { of($guest) eq $status }); }
sub start_at
{
	my ($offset) = @_;

	local $ENV{LD_PRELOAD} = $preload;
	$set_clock->($clock = $offset);
	$node->start;
	ok(up(), "the server is up, with a clock that is $offset s off");
	return;
}

# A row whose writing fails as if it were locked, for as long as the table says so.
sql(q{
CREATE TABLE room (id int PRIMARY KEY, guest uuid, key_id uuid, key_url text);
CREATE TABLE locked ();
CREATE FUNCTION is_locked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM public.locked) THEN RAISE EXCEPTION 'it is locked' USING ERRCODE = '55P03'; END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER is_locked BEFORE UPDATE ON room FOR EACH ROW EXECUTE FUNCTION is_locked();
CREATE TRIGGER enqueue_key AFTER INSERT OR UPDATE OR DELETE ON room FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id',
		'instant_key_url=key_url');
});

# One request of each kind that waits: enqueued and not committed; that waits for another
# try; whose answer is lost; whose guest's keys cannot be looked at; whose key is to be
# revoked; whose key waits for its row.
my $prepared = 0;
my $rooms = 0;
sub enqueue_all
{
	my %guest = map { $_ => new_guest } qw(prepared paused lost unlisted revoking row);

	sql('TRUNCATE locked; INSERT INTO locked DEFAULT VALUES');
	sql("INSERT INTO room VALUES (" . ++$rooms . ", '$guest{row}')");
	enqueue($guest{revoking});
	becomes($guest{revoking}, 'issued');
	$fake->behave($guest{paused}, "$at,status=429");
	$fake->behave($guest{unlisted}, 'route=list,status=500');
	$fake->behave($guest{$_}, "$at,reset_after", 1) foreach 'lost', 'unlisted';
	$fake->behave($guest{revoking}, 'route=delete,status=500');
	enqueue($guest{unlisted});
	wait_for(sub { asked($guest{unlisted}, 'list') });
	sql("SELECT seam_cancel_instant_key_request(" . of($guest{revoking}, 'request_id') . ')');
	wait_for(
		sub { of($guest{row}, 'error IS NOT NULL') eq 't' && of($guest{revoking}, 'sqlstate IS NOT NULL') eq 't' });
	enqueue($guest{lost});
	wait_for(sub { of($guest{lost}, 'sqlstate') eq '08007' });
	enqueue($guest{paused});
	wait_for(sub { of($guest{paused}, 'sqlstate') eq '53400' });
	$prepared++;
	sql("BEGIN; SELECT seam_enqueue_instant_key('$guest{prepared}'); PREPARE TRANSACTION 'prepared $prepared'");
	return \%guest;
}

# All is well again: they come to their ends, and what is enqueued now, too.
sub ends_well
{
	my ($guest, $name) = @_;
	my $now = new_guest;

	sql("COMMIT PREPARED 'prepared $prepared'; TRUNCATE locked");
	enqueue($now);
	$fake->behave($guest->{paused}, '');
	$fake->behave($guest->{unlisted}, '');
	$fake->behave($guest->{revoking}, '');
	ok(becomes($now, 'issued'), "$name: what is enqueued then");
	ok(becomes($guest->{prepared}, 'issued'), "$name: what was enqueued before, and committed then");
	ok(becomes($guest->{paused}, 'issued'), "$name: what waited for another try");
	ok(becomes($guest->{row}, 'issued') && wait_for(
		sub { sql("SELECT key_id FROM room WHERE id = $rooms") eq live($guest->{row}) }),
		"$name: what waited for its row");
	ok(becomes($guest->{revoking}, 'revoked'), "$name: what was to be revoked");
	is(live($guest->{revoking}), '', "$name: and is");
	# (what was in doubt at a promotion is only reported)
	ok(becomes($guest->{$_}, $name =~ /failover/ ? 'failed' : 'issued'), "$name: what was in doubt ($_)")
		foreach qw(lost unlisted);
	is(scalar(split /,/, live($guest->{$_})), 1, "$name: one key of $_") foreach qw(prepared paused lost unlisted row);
	is(sql('SELECT count(*) FROM seam_instant_key_queue WHERE oldest_age < interval \'0\''), '0',
		"$name: no age is less than nothing");
	is(sql('SELECT count(*) FROM seam_instant_key_request WHERE next_attempt_at IS NOT NULL'), '0',
		"$name: nothing is left to do");
	return;
}

# The list was not asked for before the settle delay had gone by, by a clock that nobody sets.
sub settled_late_enough
{
	my ($guest, $name) = @_;
	my ($call) = asked($guest, 'generate_instant_key');
	# (while Seam seemed to be away the guest's keys may have been asked for to see whether it is back)
	my ($list) = grep { $_->{time} > $call->{time} } asked($guest, 'list');

	cmp_ok($list->{time} - $call->{time}, '>', 2.9, "$name: a lost answer was not looked after too early");
	return;
}

# ---------- a restart with the right clock ----------

my $guest = enqueue_all();
$node->stop('immediate');
start_at(0);
ends_well($guest, 'restart');
settled_late_enough($guest->{lost}, 'restart');

# ---------- the clock of a running server ----------

# A key that may appear late is looked for some minutes after a lost answer was settled.
my $late = new_guest;
sub look_in
{
	return sql("SELECT look_again_at - now() BETWEEN interval '4 min' AND interval '5 min'
		FROM seam_instant_key_request WHERE user_identity_id = '$late'") eq 't';
}
$fake->behave($late, "$at,reset", 1);
enqueue($late);
ok(becomes($late, 'issued') && look_in(), 'a lost answer without a key');

# Set back by less than the longest pause.
$guest = enqueue_all();
$set_clock->($clock -= 900);
ends_well($guest, 'set back');
settled_late_enough($guest->{lost}, 'set back');
ok(wait_for(\&look_in), 'set back: a late key is looked for as soon as it should');

# Set ahead, so that all seems to have been long ago.
my $ahead = new_guest;
$fake->behave($ahead, "$at,reset", 1);
enqueue($ahead);
wait_for(sub { of($ahead, 'sqlstate') eq '08007' });
$set_clock->($clock += 900);
ok(becomes($ahead, 'issued'), 'set ahead: what was in doubt');
settled_late_enough($ahead, 'set ahead');
ok(wait_for(\&look_in), 'set ahead: a late key is not looked for too early');

# Only that one of two readings is late is no step.
my $steps = () = slurp_file($node->logfile) =~ /the clock of this server was set/g;
is($steps, 2, 'each step is logged, once');
for (1 .. 2)
{
	$set_clock->($clock, worker_of());
	my $late = new_guest;
	enqueue($late);
	ok(becomes($late, 'issued'), 'the worker has looked at the clock, and was held up');
}
$steps = () = slurp_file($node->logfile) =~ /the clock of this server was set/g;
is($steps, 2, 'which is no step');

# ---------- failover to a host whose clock is slower, or faster ----------

foreach my $by (-600, 600)
{
	$fake->behave('*', '');
	$node->backup("b$by");
	my $standby = PostgreSQL::Test::Cluster->new("standby$by");
	$standby->init_from_backup($node, "b$by", has_streaming => 1);
	chmod 0600, $standby->data_dir . '/seam_api_key' or die $!;
	my ($preload_there, $set_there) = movable_clock();
	$set_there->($clock + $by);
	{
		local $ENV{LD_PRELOAD} = $preload_there;
		$standby->start;
	}
	$guest = enqueue_all();
	$node->wait_for_catchup($standby, 'replay');
	$node->stop('immediate');
	$node = $standby;
	meet($node);
	$set_clock = $set_there;
	$clock += $by;
	$standby->promote;
	ok(up(), "failover to a host whose clock is $by s off");
	ends_well($guest, "failover ($by s)");
	settled_late_enough($guest->{lost}, "failover ($by s)");
}

# ---------- a clock that is forty days ahead, and stays of next month ----------

my $month = time + 30 * 86400;
sql(qq{CREATE TABLE stay (id int PRIMARY KEY, guest uuid, check_in timestamptz, check_out timestamptz, key_id uuid);
CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON stay FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'issue_at=check_in',
	'valid_until=check_out', 'instant_key_id=key_id');
INSERT INTO stay SELECT g, ('50000000-0000-4000-8000-' || lpad(g::text, 12, '0'))::uuid, to_timestamp($month),
	to_timestamp($month + 86400) FROM generate_series(1, 100) g});
$set_clock->($clock += 40 * 86400);
my $now = new_guest;
enqueue($now);
ok(becomes($now, 'issued'), 'forty days ahead: what is enqueued then');
# (one that is due by Seam's clock is seen when all of them were)
sql('UPDATE stay SET check_in = to_timestamp(' . int(time + 1) . ') WHERE id = 1');
ok(wait_for(sub { sql('SELECT key_id FROM stay WHERE id = 1') ne '' }), "what is due by Seam's clock has its key");
is(scalar(asked('50000000')), 1, 'and nothing is asked for besides');
is(sql("SELECT count(*) FROM seam_instant_key_request WHERE status = 'pending' AND next_attempt_at IS NULL " .
	'AND row_task IS NULL AND wake_at IS NOT NULL'), 99, 'the others sleep');

$node->stop;
done_testing();
