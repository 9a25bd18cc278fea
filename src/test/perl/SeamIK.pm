# SeamIK: a cluster with the extension, and sessions of it to be watched from
# outside while they wait.
package SeamIK;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use FakeSeam;
use File::Basename qw(dirname);
use File::Temp ();
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(seam_cluster api_key_file preload stalled_lookups movable_clock reload reread
	ask background run_in threads_of result_of wait_for guest CALL UNSETTLED);

my $preload = abs_path(dirname(__FILE__) . '/../preload');

# Some user identity, and the statement that most tests watch.
use constant guest => 'd92e0c7b-72a1-4063-9ee8-2acefc240358';
use constant CALL => "SELECT seam_generate_instant_key('" . guest . "')";

# A query: how many intents, and requests, have not come to their ends.
use constant UNSETTLED => q{SELECT (SELECT count(*) FROM seam_instant_key_call)
	+ (SELECT count(*) FROM seam_instant_key_request WHERE next_attempt_at IS NOT NULL)};

# seam_cluster(lines of configuration): a started cluster with the extension.
# Without preloading there is no worker that could revoke anything, and no warning
# of that in each session's output.
sub seam_cluster
{
	my @conf = @_;
	my $node = PostgreSQL::Test::Cluster->new('main');

	$node->init;
	$node->append_conf('postgresql.conf', "seam_ik.revoke_on_rollback = off\n")
		unless grep { /shared_preload_libraries/ } @conf;
	$node->append_conf('postgresql.conf', join("\n", @conf) . "\n");
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION seam_ik');
	return $node;
}

# api_key_file($node, key, name): the file of that name (seam_api_key, unless told) in the
# data directory has this API key from now on; its path.
sub api_key_file
{
	my ($node, $key, $name) = @_;
	my $file = $node->data_dir . '/' . ($name // 'seam_api_key');

	unlink "$file.new";
	append_to_file("$file.new", $key);
	chmod 0600, "$file.new" or die $!;
	rename "$file.new", $file or die $!;
	return $file;
}

# preload(name, macros): a value of LD_PRELOAD for a server in which the functions of
# src/test/preload/NAME.c, compiled with these macros, stand in for those of a library.
sub preload
{
	my ($name, %macros) = @_;
	my $dir = File::Temp::tempdir(CLEANUP => 1);

	system_or_bail('cc', '-shared', '-fPIC', (map { "-D$_=$macros{$_}" } sort keys %macros),
		'-o', "$dir/$name.so", "$preload/$name.c", '-ldl');
	return join(':', grep { defined && length } $ENV{LD_PRELOAD}, "$dir/$name.so");
}

# stalled_lookups(seconds): a value of LD_PRELOAD for a server in which lookups of
# names with "stalled" take so long, and then fail.
sub stalled_lookups { return preload('stalled_lookups', STALLED_SECONDS => $_[0]); }

# movable_clock(): a value of LD_PRELOAD for a server whose clock is set by the
# second thing that is returned, a function of the seconds that it is to be wrong, and
# of a process (or none) that is held up for two seconds after it has read it once more.
sub movable_clock
{
	my $dir = File::Temp::tempdir(CLEANUP => 1);
	my $set = sub {
		open my $file, '+<', "$dir/offset" or die $!;
		syswrite $file, pack('qq', $_[0], $_[1] // 0);
	};

	append_to_file("$dir/offset", pack('qq', 0, 0));
	return (preload('movable_clock', OFFSET_FILE => "\"$dir/offset\""), $set);
}

# reload($node): have the configuration read anew, and wait until every process has been
# told.  (The postmaster tells them when it has read it, and before it reads it again.)
sub reload
{
	my ($node) = @_;

	for (1 .. 2)
	{
		my $before = ask($node, 'SELECT pg_conf_load_time()');

		ask($node, 'SELECT pg_reload_conf()');
		wait_for(sub { ask($node, 'SELECT pg_conf_load_time()') !~ /^(\Q$before\E)?$/ })
			or die 'the configuration is not read';
	}
	return;
}

# ask($node, $sql, $database): what psql prints, or nothing where there is an error: the
# server may be away.  (A psql that cannot connect reads no input, so it gets none.)
sub ask
{
	my ($node, $sql, $database) = @_;
	my $out = '';

	IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr($database // 'postgres'), '-c', $sql ],
		'<', \undef, '>', \$out, '2>', \my $err, IPC::Run::timeout(HANGS)) or return '';
	chomp $out;
	return $out;
}

# background($node, $sql, $database): a psql that runs the SQL; a hash with its pid
# at the server.  result_of() takes what it printed.
sub background
{
	my ($node, $sql, $database) = @_;
	my %s = (in => '', out => '', err => '');

	$s{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr($database // 'postgres'), '-f', '-' ],
		'<', \$s{in}, '>', \$s{out}, '2>', \$s{err}, IPC::Run::timeout(HANGS));
	$s{in} .= "SELECT 'pid ' || pg_backend_pid();\n";
	$s{run}->pump until $s{out} =~ /pid (\d+)\n/;
	$s{pid} = $1;
	$s{in} .= "$sql\n";
	$s{run}->pump_nb for 1 .. 3;
	return \%s;
}

# run_in(session, sql, mark): has a session of background() run the SQL, and waits until it
# has; what it printed meanwhile ends with "done MARK".
sub run_in
{
	my ($s, $sql, $mark) = @_;

	$s->{in} .= "$sql;\nSELECT 'done $mark';\n";
	$s->{run}->pump until $s->{out} =~ /done $mark\n/;
	return;
}

# How many threads its server process has.
sub threads_of { my @t = glob "/proc/$_[0]->{pid}/task/*"; return scalar @t; }

# What it printed, errors included, and how many seconds it took from now.
sub result_of
{
	my ($s) = @_;
	my $begin = time;

	# a psql that lost its server has ended, and takes no more input
	local $SIG{PIPE} = 'IGNORE';
	eval { $s->{run}->finish; };
	$s->{out} =~ s/^pid \d+\n//;
	return ($s->{out} . $s->{err}, time - $begin);
}

# reread($node, $database): have the settings of files, databases and roles read again;
# that database's worker obeys them when this returns.  Where there is none: false.
my $marks = 0;
sub reread
{
	my ($node, $database) = @_;
	my $mark = 'reread ' . ++$marks;

	$node->safe_psql('postgres', "ALTER DATABASE $database SET application_name = '$mark'");
	$node->reload;
	return wait_for(sub { ask($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'seam_ik worker' " .
		"AND datname = '$database' AND application_name = '$mark'") eq '1' });
}

# wait_for(sub): until it says yes, at most two minutes, which is long enough for a
# busy machine.
sub wait_for
{
	my ($condition) = @_;
	my $until = time + 120;

	for (;;)
	{
		return 1 if $condition->();
		return 0 if time > $until;
		sleep 0.03;
	}
}

1;
