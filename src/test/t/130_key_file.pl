# seam_ik.api_key_file: which files are taken, and that they are read at use.
use strict;
use warnings;

use FakeSeam;
use PostgreSQL::Test::Utils;
use POSIX qw(mkfifo);
use SeamIK;
use Test::More;
use Time::HiRes qw(time);

my $fake = FakeSeam->start;
my $node = seam_cluster("seam_ik.endpoint = '" . $fake->url . "'", "shared_preload_libraries = 'seam_ik'");
my $dir = $node->data_dir;
my $call = "SELECT (seam_generate_instant_key('" . guest . "')).user_identity_id";

# call_with(file, SQL before): SQLSTATE, or the row; and the message
sub call_with
{
	my ($file, $before) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', ($before // '') . "SET seam_ik.api_key_file = '$file'; $call",
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $rc == 0 ? $out : $err;
}

sub write_key
{
	my ($name, $content, $mode) = @_;
	unlink "$dir/$name";
	open my $f, '>', "$dir/$name" or die $!;
	print $f $content;
	close $f;
	chmod $mode // 0600, "$dir/$name";
	return "$dir/$name";
}

like(call_with("$dir/none"), qr/58P01/, 'missing');
like(call_with("$dir/PG_VERSION/key"), qr/58P01/, 'missing, below a file');
foreach my $mode (0640, 0604, 0660, 0644, 0601, 0666)
{
	like(call_with(write_key('k', 'seam_test_file', $mode)), qr/F0000/, sprintf('mode %04o', $mode));
}
is(call_with(write_key('k', 'seam_test_file', $_)), guest, sprintf('mode %04o', $_)) for 0600, 0400, 0700;
like(call_with('/etc/hosts'), qr/F0000/, "root's file that others can read");
like(call_with($dir), qr/F0000/, 'a directory');
like(call_with('/dev/zero'), qr/F0000/, 'a device');
mkfifo("$dir/fifo", 0600) or die $!;
# (a call that opens it and waits is let go after a while)
my $writer = IPC::Run::start([ 'sh', '-c', "sleep 60; : <>'$dir/fifo'" ]);
my $begin = time;
like(call_with("$dir/fifo"), qr/F0000/, 'a FIFO');
cmp_ok(time - $begin, '<', 30, 'which does not block');
$writer->kill_kill;
symlink "$dir/k", "$dir/link" or die $!;
is(call_with("$dir/link"), guest, 'a symbolic link to a good file');
like(call_with(write_key('k', $_)), qr/55000.*DETAIL: .*is empty/s, 'empty, which the error says') for '', "\n";
unlike(call_with(''), qr/DETAIL/, '(not so without a file)');
like(call_with(write_key('k', 'x' x 1000000)), qr/F0000/, 'too large');
is(call_with(write_key('k', "seam_test_file\n")), guest, 'with a newline');
is(call_with(write_key('k', "seam_test_file\r\n")), guest, 'with a newline of another system');
foreach my $content ("seam_test a", "seam_test\nX-Evil: 1\n", " seam_test", "seam_test\0x", "seam_test\xe9", "********")
{
	my $out = call_with(write_key('k', $content));
	like($out, qr/F0000/, 'content that is no key');
	unlike($out, qr/seam_test[ _x]|Evil/, 'and is not shown');
}
is(call_with('k2', "LOAD 'seam_ik';") =~ /58P01/, 1, 'a relative path starts in the data directory ...');
write_key('k2', 'seam_test_relative');
is(call_with('k2'), guest, '... and is found there');

# read at use; and not when seam_ik.api_key is set
write_key('k', 'seam_test_one');
$fake->reset;
my $s = background($node, "SET seam_ik.api_key_file = '$dir/k'; $call;");
wait_for(sub { $fake->requests == 1 });
write_key('k', 'seam_test_two');
$s->{in} .= "$call;\n";
$s->{run}->pump_nb;
wait_for(sub { $s->{run}->pump_nb; $fake->requests == 2 });
write_key('k', 'seam_test_three', 0644);
$s->{in} .= "$call;\nSET seam_ik.api_key = 'seam_test_set';\n$call;\n";
my ($rotated) = result_of($s);
is(scalar(() = $rotated =~ /^d92e0c7b/mg), 3, 'a set key comes before the file');
like($rotated, qr/F0000/, 'a rotated file that others can read is refused');
my @keys = map { my %h = map { @$_ } @{ $_->{headers} }; $h{Authorization} } $fake->requests;
is_deeply(\@keys, [ 'Bearer seam_test_one', 'Bearer seam_test_two', 'Bearer seam_test_set' ],
	'each call used the key of its moment');

# whoever was granted the setting, and nobody else
$node->safe_psql('postgres', 'CREATE ROLE clerk; CREATE ROLE porter; GRANT SET ON PARAMETER seam_ik.api_key_file TO ' .
	'clerk; GRANT EXECUTE ON FUNCTION seam_generate_instant_key(uuid, int) TO clerk, porter');
write_key('k', 'seam_test_four');
is(call_with("$dir/k", 'SET ROLE clerk; '), guest, 'a role that was granted SET');
like(call_with("$dir/k", 'SET ROLE porter; '), qr/42501/, 'a role that was not');
is($node->safe_psql('postgres', "SET seam_ik.api_key_file = '$dir/k'; SET ROLE porter; $call"), guest,
	'which may still call with the file that is set');
like(($node->psql('postgres', "SET seam_ik.api_key_file = '$dir/k'; SET ROLE porter; SHOW seam_ik.api_key_file"))[2],
	qr/must be superuser|permission denied/, 'and not see which');

# a file that has rested is looked at only, but a change of it shows
$fake->reset;
write_key('k', 'seam_test_old');
sleep 3;
$s = background($node, "SET seam_ik.api_key_file = '$dir/k'; $call;\n$call;");
wait_for(sub { $fake->requests == 2 });
# in place, of the same length
open my $same, '+<', "$dir/k" or die $!;
print $same 'seam_test_new';
close $same;
$s->{in} .= "$call;\n";
$s->{run}->pump_nb;
wait_for(sub { $s->{run}->pump_nb; $fake->requests == 3 });
chmod 0644, "$dir/k";
$s->{in} .= "$call;\n";
like((result_of($s))[0], qr/F0000/, 'a rested file that others can read now');
@keys = map { my %h = map { @$_ } @{ $_->{headers} }; $h{Authorization} } $fake->requests;
is_deeply(\@keys, [ 'Bearer seam_test_old', 'Bearer seam_test_old', 'Bearer seam_test_new' ],
	'a rested file that was changed in place');

$node->stop;
done_testing();
