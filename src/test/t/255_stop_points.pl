# Sessions, the worker, the postmaster, or all of them are killed, terminated or
# cancelled at each step between the record of a call, its request, its answer and
# the end of its transaction: at the end exactly the keys live that committed
# transactions have returned.
#
# What ends a step is tried with one way to come there, chosen at random; with
# ALL=1, with every one; with ALL=PATTERN, with those whose name it fits.
use strict;
use warnings;

use Guests qw(meet live_keys quiet worker_of);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep);
use Torture;

# ---------- a server that can be held ----------

my $build = PostgreSQL::Test::Utils::tempdir();
mkdir "$build/source" or die $!;
system_or_bail('sh', '-c', "tar -cf - --exclude='*.o' --exclude='*.so' . | tar -xf - -C $build/source");
{
	local $ENV{STAGE} = "$build/stage";
	local $ENV{WORK} = $build;
	system_or_bail('src/tools/stage', '-C', "$build/source", 'WERROR=1', 'with_llvm=no', 'COPT=-DSEAM_IK_STOP_POINTS');
}
my $torture = Torture->new(slurp_file("$build/stage.conf"), 'seam_ik.max_retries = 0',
	'max_prepared_transactions = 20');
my ($node, $fake) = @$torture{qw(node fake)};
meet($node, $fake);
my $folder = $node->data_dir . '/seam_ik_stop';
mkdir $folder or die $!;
$node->safe_psql('postgres', q{
CREATE TABLE kept (guest uuid NOT NULL, key_id uuid NOT NULL);
CREATE FUNCTION caught(guest uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO kept SELECT guest, (seam_generate_instant_key(guest)).instant_key_id;
	RAISE EXCEPTION 'x';
EXCEPTION WHEN OTHERS THEN NULL;
END $$;
});

# ---------- the ways to come to a step ----------

# (STOP: before that nothing is held)

my $keep = "INSERT INTO kept SELECT 'GUEST', (seam_generate_instant_key('GUEST')).instant_key_id;";
my $keep3 = "INSERT INTO kept SELECT user_identity_id, (instant_key).instant_key_id " .
	"FROM seam_generate_instant_keys(array_fill('GUEST'::uuid, ARRAY[3]));";
my %ways = (
	'commit' => "BEGIN; $keep COMMIT;",
	'rollback' => "BEGIN; $keep ROLLBACK;",
	'savepoint' => "BEGIN; SAVEPOINT s; $keep ROLLBACK TO s; $keep COMMIT;",
	'caught exception' => "BEGIN; SELECT caught('GUEST'); $keep COMMIT;",
	'batch' => "BEGIN; $keep3 COMMIT;",
	'batch, rollback' => "BEGIN; $keep3 ROLLBACK;",
	'prepared' => "BEGIN; $keep PREPARE TRANSACTION 'COMMIT GUEST'; COMMIT PREPARED 'COMMIT GUEST';",
	'prepared, rollback' => "BEGIN; $keep PREPARE TRANSACTION 'ROLLBACK GUEST'; ROLLBACK PREPARED 'ROLLBACK GUEST';",
	'lost answer' => $keep,
	'lost answer after a call' => "$keep STOP $keep",
	'outbox' => "SELECT seam_enqueue_instant_key('GUEST');",
	'outbox, lost answer' => "SELECT seam_enqueue_instant_key('GUEST');",
	'outbox, lost answer after a call' => "$keep STOP SELECT seam_enqueue_instant_key('GUEST');");
my @called = grep { !/outbox/ } sort keys %ways;
my @answered = grep { !/lost/ } @called;
my @lost = grep { /lost/ } sort keys %ways;
my @outbox = grep { /outbox/ } sort keys %ways;
my @rolled_back = ('rollback', 'savepoint', 'caught exception', 'batch, rollback', 'prepared, rollback');

# steps, in their order: which ways come there
my @steps = (
	[ 'before-wish', @called ], [ 'wish', @called ], [ 'worker-record', @called ], [ 'worker-recorded', @called ],
		[ 'fulfilled', @called ],
	[ 'before-call', @called ], [ 'answer', @called ], [ 'inserted', @answered ], [ 'call-end', @answered ],
	[ 'subtransaction-end', 'savepoint', 'caught exception' ],
	[ 'before-commit', grep { !/^(batch, )?rollback/ } @answered ], [ 'transaction-end', @called ],
		[ 'told', @called ],
	[ 'worker-decide', @called ], [ 'worker-decided', @called ],
	[ 'worker-claim', @rolled_back, @outbox ], [ 'worker-before-call', @rolled_back, @outbox ],
		[ 'worker-answer', @rolled_back, @outbox ],
	[ 'worker-store', @rolled_back, @outbox ], [ 'worker-stored', @rolled_back, 'outbox' ],
	[ 'worker-before-list', @lost ], [ 'worker-list', @lost ], [ 'worker-store-list', @lost ]);

# ---------- what happens there ----------

# The processes of the server, but for the postmaster.
sub children
{
	my $postmaster = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/ ? $1 : die;
	my @children;

	foreach my $file (glob '/proc/[0-9]*/stat')
	{
		open(my $stat, '<', $file) or next;	# it has ended meanwhile
		push @children, $1 if (<$stat> // '') =~ /^(\d+) \(.*\) \S (\d+)/ && $2 == $postmaster;
	}
	return @children;
}

# by name; with the pids of the session, the worker and all of the postmaster's
my %deeds = (
	'the session is killed' => sub { kill 'KILL', $_[0]; },
	'the worker is killed' => sub { kill 'KILL', $_[1]; },
	'the session is terminated' => sub { kill 'TERM', $_[0]; },
	'the worker is terminated' => sub { kill 'TERM', $_[1]; },
	'the session is cancelled' => sub { kill 'INT', $_[0]; },
	'the postmaster is killed' => sub { $node->kill9; },
	'all are killed' => sub { my ($session, $worker, @children) = @_; $node->kill9; kill 'KILL', @children; });

# ---------- a cancel when the answer is there ----------

# What was answered is known: the key goes without a look at Seam's list.
foreach my $deed ('the session is cancelled', 'the session is terminated')
{
	my $guest = $deed =~ /cancelled/ ? '00000000-0000-4000-8001-000000000001' : '00000000-0000-4000-8001-000000000002';

	append_to_file("$folder/answer", '');
	my $session = background($node, $keep =~ s/GUEST/$guest/gr);
	ok(wait_for(sub { $session->{run}->pump_nb; my @held = glob "$folder/answer.*"; @held > 0 }),
		"$deed with its answer there");
	$deeds{$deed}->($session->{pid});
	unlink glob "$folder/*";
	like((result_of($session))[0], qr/CONTEXT:  instant key [0-9a-f-]+ had been issued/, "$deed: says what was issued");
	ok(quiet(), "$deed: settled");
	is(join(' ', map { $_->{path} =~ m{/(\w+)$} } grep { $_->{body} =~ /\Q$guest\E/ } $fake->requests),
		'generate_instant_key', "$deed: nothing is in doubt");
	is(scalar(live_keys($guest)), 0, "$deed: and no key is left");
}

# ---------- all of it ----------

my $bookings = 0;
my %cases;						# name by guest
my %told;						# guests of whom a client was told that the transaction committed
foreach my $step (@steps)
{
	my ($point, @ways) = @$step;

	# in this order no process is terminated so often in turn that it is started late
	foreach my $n (0 .. ($ENV{ALL} ? $#ways : 0))
	{
		foreach my $deed (sort keys %deeds)
		{
			my $way = $ENV{ALL} ? $ways[$n] : $ways[ rand @ways ];
			my $name = "$way: at $point $deed";

			next if ($ENV{ALL} // '1') ne '1' && $name !~ /$ENV{ALL}/;
			my $guest = sprintf '00000000-0000-4000-8000-%012d', 1 + keys %cases;
			$cases{$guest} = $name;
			my $sql = "$ways{$way} SELECT 'committed';";

			wait_for(sub { worker_of() }) or BAIL_OUT('there is no worker');
			$sql =~ s/GUEST/$guest/g;
			# (that call's answer is not lost)
			$fake->behave($guest, 'route=generate_instant_key,delay=1', 1) if $way =~ /after a call/;
			$fake->behave($guest, 'route=generate_instant_key,reset_after', 1) if $way =~ /lost/;
			$sql =~ s{STOP}{COPY (SELECT) TO '$folder/$point';} or append_to_file("$folder/$point", '');
			my $session = background($node, $sql);
			my $held = wait_for(sub { $session->{run}->pump_nb; my @held = glob "$folder/$point.*"; @held > 0 });
			ok($held, "$name, which is reached");
			my @children = children();
			$deeds{$deed}->($session->{pid}, worker_of(), @children);
			unlink glob "$folder/*";
			my ($said) = result_of($session);
			$told{$guest} = 1 if $said =~ /committed/ && $said !~ /ERROR/ && $way !~ /rollback|lost|outbox/;
			if ($deed =~ /all|postmaster/)
			{
				wait_for(sub { !grep { kill 0, $_ } @children }) or BAIL_OUT("$name: processes stay");
				$node->start;
			}
			wait_for(sub { ask($node, 'SELECT 1') eq '1' }) or BAIL_OUT("$name: the server does not come back");
		}
	}
}

foreach my $gid (split /\n/, ask($node, 'SELECT gid FROM pg_prepared_xacts'))
{
	ask($node, ($gid =~ /^(\w+)/)[0] . " PREPARED '$gid'");
}
$torture->peace(UNSETTLED);
is($node->safe_psql('postgres', 'SELECT * FROM seam_instant_key_orphan'), '', 'nothing has failed');

my (%live, %owned);
push @{ $live{ $_->{user_identity_id} } }, $_->{instant_key_id} foreach grep { !$_->{revoked} } $fake->keys;
foreach my $row (split /\n/, $node->safe_psql('postgres', q{
	SELECT guest, key_id FROM kept UNION ALL
	SELECT user_identity_id, (instant_key).instant_key_id FROM seam_instant_key_request WHERE status = 'issued'
	AND call_id IS NULL}))
{
	my ($guest, $key) = split /\|/, $row;
	push @{ $owned{$guest} }, $key;
}
foreach my $guest (sort keys %cases)
{
	is(join(' ', sort @{ $live{$guest} // [] }), join(' ', sort @{ $owned{$guest} // [] }),
		"$cases{$guest}: the keys of what has committed live, and no others");
	isnt($owned{$guest}, undef, "$cases{$guest}: what the client was told of is there") if $told{$guest};
}
cmp_ok(scalar(keys %told), '>', 0, 'clients were told of commits') if ($ENV{ALL} // '1') eq '1';
# a table that is dropped when the writer is about to write to it
$node->safe_psql('postgres', q{CREATE TABLE dropped (id int PRIMARY KEY, guest uuid, key_id uuid);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON dropped FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')});
append_to_file("$folder/writer-rows", '');
$node->safe_psql('postgres', 'INSERT INTO dropped VALUES (1, gen_random_uuid())');
ok(wait_for(sub { my @held = glob "$folder/*.*"; @held > 0 }), 'the writer is about to write a row');
$node->safe_psql('postgres', 'DROP TABLE dropped');
unlink glob "$folder/*";
ok(wait_for(sub { ask($node, 'SELECT count(*) FROM seam_instant_key_request WHERE next_attempt_at ' .
	'IS NOT NULL') eq '0' }), 'whose table is dropped');
is(ask($node, 'SELECT status, error FROM seam_instant_key_request ORDER BY request_id DESC LIMIT 1'),
	'revoked|the table that the instant key was for is gone', 'the key is revoked');

# The writer is killed or terminated with rows that are written and not committed, or before:
# they are written by the next one.
$node->safe_psql('postgres', q{CREATE TABLE booked (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	guest uuid, key_id uuid);
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON booked FOR EACH ROW
	EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')});
foreach my $point ('writer-start', 'writer-rows', 'writer-rows-written', 'writer-committed', 'writer-end')
{
	foreach my $signal ('TERM', 'KILL')
	{
		my $guest = sprintf '00000000-0000-4000-8002-%012d', ++$bookings;
		my $idle = $point =~ /start|end/;
		my $writer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik writer'";

		wait_for(sub { my $pid = ask($node, $writer); kill 'TERM', $pid if $pid; $pid eq '' }) if $idle;
		append_to_file("$folder/$point", '');
		ask($node, "INSERT INTO booked (guest) VALUES ('$guest'), ('$guest')");
		my $held;
		if ($point eq 'writer-end')
		{
			wait_for(sub { my $pid = ask($node, $writer); kill 'TERM', $pid if $pid; $pid ne '' });
		}
		ok(wait_for(sub { ($held) = map { /\.(\d+)$/ } glob "$folder/$point.*"; $held }),
			"$point: the writer is there");
		kill $signal, $held;
		unlink glob "$folder/*";
		ok(wait_for(sub { ask($node, "SELECT count(DISTINCT key_id) FROM booked WHERE guest = '$guest'") eq '2' }),
			"SIG$signal: the next one writes the rows");
		ok(quiet(), 'settled');
		is(join(' ', live_keys($guest)), ask($node, "SELECT string_agg(key_id::text, ' ' ORDER BY key_id) FROM booked
			WHERE guest = '$guest'"), 'they have the keys, and no other lives');
	}
}
is(ask($node, "SELECT count(*) FROM seam_instant_key_writing WHERE crashes > 1"), '0', 'and no table is held for that');

note("SEED=$torture->{seed}: " . keys(%cases) . ' cases, ' . keys(%told) . ' of them told of their commit, ' .
	keys(%owned) . ' with keys');

# ---------- one worker for a database ----------

# A process that is late: its launcher has ended meanwhile, and the next one has started
# another.
my $launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik launcher'";
my ($was, $is) = worker_of();
append_to_file("$folder/worker-start", '');
ask($node, "SELECT pg_terminate_backend($was, 5000)");
my $late;
ok(wait_for(sub { ($late) = map { /worker-start\.(\d+)$/ } glob "$folder/*"; $late }), 'a worker is late');
ask($node, "SELECT pg_terminate_backend(($launcher), 5000)");
ok(wait_for(sub { $is = worker_of(); $is ne '' }), 'another launcher starts another one');
unlink glob "$folder/*";
# it is connected, or has given up
wait_for(sub { !kill(0, $late)
	|| ask($node, "SELECT pid FROM pg_stat_activity WHERE pid = $late AND datname IS NOT NULL") ne '' });
is(ask($node, "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'seam_ik worker'"), $is,
	'which is the only one');
my $id = ask($node, "SELECT seam_enqueue_instant_key('" . guest . "')");
ok(wait_for(sub { ask($node, "SELECT status FROM seam_instant_key_request WHERE request_id = $id") eq 'issued' }),
	'and works');

$node->stop;
done_testing();
