# Torture: sessions at work while Seam, the server and its processes fail at
# random; and the comparison of what lives at the end.
#
# SEED=N repeats a run's choices (its timing differs), REQUESTS=N makes it longer.
package Torture;

use strict;
use warnings;

use FakeSeam;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(sleep time);

# What Seam does: issued and not told, told and not issued, slow, busy.
my $generate = 'route=generate_instant_key';
my @misbehaviour = (
	"$generate,chance=0.03,reset_after", "$generate,chance=0.02,reset", "$generate,chance=0.02,status=500,issue",
		"$generate,chance=0.02,status=503",
	"$generate,chance=0.02,status=429", "$generate,chance=0.01,hang_after", "$generate,chance=0.01,hang",
		"$generate,chance=0.01,truncate=30",
	"$generate,chance=0.05,delay=300", 'route=list,chance=0.1,status=500', 'route=list,chance=0.05,reset',
	'route=delete,chance=0.1,reset_after', 'route=delete,chance=0.05,status=500');

# Torture->new(lines of configuration): an object with a started cluster (node)
# and a fake Seam (fake).
sub new
{
	my ($class, @conf) = @_;
	my $self = bless { seed => $ENV{SEED} // int(time * 1000) % 1_000_000, rounds => 0, killed => {} }, $class;

	srand($self->{seed});
	$self->{fake} = FakeSeam->start;
	$self->{fake}->ask('reset', { seed => $self->{seed} });
	$self->{node} = seam_cluster(
		"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
		"seam_ik.endpoint = '" . $self->{fake}->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s',
		'restart_after_crash = on', 'log_min_messages = warning', @conf);
	api_key_file($self->{node}, 'seam_test_torture');
	return $self;
}

sub kill_one
{
	my ($self) = @_;
	my $pgbench = "FROM pg_stat_activity WHERE application_name = 'pgbench' ORDER BY random() LIMIT 1";
	my $kill = sub { my $pid = ask($self->{node}, $_[0]); kill 'KILL', $pid if $pid; };
	my %ways = (
		worker => sub { $kill->("SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik worker'"); },
		writer => sub { $kill->("SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik writer'"); },
		backend => sub { $kill->("SELECT pid $pgbench"); },
		terminate => sub {
			ask($self->{node},
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'seam_ik%'"); },
		'terminate backend' => sub { ask($self->{node}, "SELECT pg_terminate_backend(pid) $pgbench"); },
		immediate => sub { $self->{node}->stop('immediate'); $self->{node}->start; },
		reload => sub { ask($self->{node}, 'SELECT pg_reload_conf()'); },
		nothing => sub { });
	my @names = sort keys %ways;
	my $name = $names[ rand @names ];

	$self->{killed}{$name}++;
	$ways{$name}->();
	return;
}

# run(script of pgbench, options of pgbench, enough, beside): rounds of two
# seconds until enough->() says so; in each of them beside->() may start a process
# that goes on meanwhile (an IPC::Run).
sub run
{
	my ($self, $script, $options, $enough, $beside) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/torture.pgbench';

	append_to_file($file, $script);
	$self->{fake}->behave('*', $_) foreach @misbehaviour;
	while (!$enough->() && $self->{rounds}++ < 200)
	{
		my ($out, $err);
		my $other = $beside ? $beside->() : undef;
		my $bench = IPC::Run::start(
			[ 'pgbench', '-n', '-j', 1, '-T', 2, @$options, '-f', $file, $self->{node}->connstr('postgres') ],
			'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(HANGS));

		for (1 .. 2)
		{
			sleep(0.2 + rand(0.8));
			$self->kill_one;
		}
		# a pgbench whose server went has failed, and that is fine
		eval { $bench->finish; };
		wait_for(sub { ask($self->{node}, 'SELECT 1') eq '1' })
			or BAIL_OUT("SEED=$self->{seed}: the server does not come back");
		eval { $other->finish; } if $other;
	}
	return;
}

# peace(query): Seam is well again; wait until the query, which counts what is left
# to do, answers 0, and until keys that might have appeared late have been looked for.
sub peace
{
	my ($self, $left) = @_;

	$self->{fake}->behave('*', '');
	for (1 .. 3)
	{
		last if wait_for(sub { ask($self->{node}, $left) eq '0' });
	}
	is(ask($self->{node}, $left), '0', 'nothing is left to do');
	ask($self->{node}, 'UPDATE seam_instant_key_request SET look_again_at = now() WHERE look_again_at IS NOT NULL');
	ask($self->{node}, 'SELECT pg_reload_conf()');
	ok(wait_for(sub { ask($self->{node}, 'SELECT count(*) FROM seam_instant_key_request WHERE look_again_at ' .
		'IS NOT NULL') eq '0' }), 'and no key is looked for any more');
	return;
}

# compare(query): what lives at Seam is what the query answers, lines of a key's id
# and its guest.
sub compare
{
	my ($self, $query) = @_;
	my @issued = $self->{fake}->keys;
	my %live = map { $_->{instant_key_id} => $_->{user_identity_id} } grep { !$_->{revoked} } @issued;
	my @owned = split /\n/, $self->{node}->safe_psql('postgres', $query);
	my %owned = map { split /\|/ } @owned;

	is(join(' ', grep { !exists $owned{$_} } sort keys %live), '', 'no other key lives');
	is(join(' ', grep { ($live{$_} // '') ne $owned{$_} } sort keys %owned), '',
		'each key that is owned lives, and is of that guest');
	is(scalar(keys %owned), scalar(@owned), 'no key is owned twice');
	cmp_ok(scalar(@owned), '>', 0, 'there are keys');
	note("SEED=$self->{seed}: $self->{rounds} rounds (" .
		join(', ', map { "$_ $self->{killed}{$_}" } sort keys %{ $self->{killed} }) . '), ' .
		scalar(keys %live) . ' live keys of ' . scalar(@issued) . ' ever issued');
	return;
}

1;
