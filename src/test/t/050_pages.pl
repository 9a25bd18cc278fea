# Every block of SQL in README.md and the pages runs, in order, as a reader would run it;
# and what the pages link to is there, also where they are installed.
use strict;
use warnings;

use FakeSeam;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'seam_ik'
seam_ik.endpoint = '@{[$fake->url]}'
seam_ik.api_key = 'seam_test_pages'
CONF
$node->start;

my @pages = ('README.md', sort glob 'src/doc/*.md');
my $installed = $ENV{STAGE} . $node->config_data('--docdir') . '/seam_ik';
foreach my $page (@pages)
{
	my $text = slurp_file($page);
	my ($line, $blocks) = (1, 0);

	while ($text =~ /\G(.*?)^```sql\n(.*?)^```\n/gsm)
	{
		my ($before, $sql) = ($1, $2);

		$line += ($before =~ tr/\n//) + 1;
		$blocks++;
		# a database that has the extension from another page's first block keeps it
		$sql =~ s/^CREATE EXTENSION /CREATE EXTENSION IF NOT EXISTS /mg;
		my ($rc, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 1);
		is($rc, 0, "$page, line $line") or diag("$sql\n$out\n$err");
		unlike($err, qr/WARNING/, "$page, line $line: no warning");
		$line += ($sql =~ tr/\n//) + 1;
	}
	ok(-s "$installed/$page", "$page is installed");
	my ($dir) = $page =~ m{^(.*/)?};
	foreach my $target ($text =~ /(?:\]\(|srcset="|src=")([^)"#]+)/g)
	{
		next if $target =~ m{^https?://};
		ok(-e ($dir // '') . $target, "$page links to $target, which is there");
		next if $target !~ /\.(md|svg)$/ || $target =~ /worker/;	# (that one is about the sources)
		ok(-s "$installed/" . ($dir // '') . $target, "$page links to $target, which is installed");
	}
	my @wide = grep { length > 120 && !/^\|/ } split /\n/, $text;
	is_deeply(\@wide, [], "$page has no line over 120 columns");
}
cmp_ok(scalar(split /\n/, slurp_file('README.md')), '<=', 250, 'README.md is short');

# What the server log may say of ours has its line in the page on operating: messages, each %
# as an X, and the lines of the page's table as patterns.  What a step could not do is
# covered by one line, no other message is.
my $string = qr/"(?:[^"\\]|\\.)*"/;
my $strings = qr/(?:\s*(?:$string|U?INT64_FORMAT))+/;
sub message
{
	my ($text) = @_;
	my $all = join '', map { /^"(.*)"$/s ? $1 : '%d' } $text =~ /($string|U?INT64_FORMAT)/g;
	return $all =~ s/\\"/"/gr =~ s/%[-+.\d]*[a-z]/X/gr;
}
my (%messages, %steps);
foreach my $file (glob 'src/{base,config,net,outbox,seam,session,shmem,worker}/*.c')
{
	my $source = slurp_file($file);
	foreach my $report ($source =~ /ereport\((?:WARNING|LOG|LOG_SERVER_ONLY),(.*?)\);\n/gs)
	{
		my ($condition, $first, $second) = $report =~ /errmsg\(([^",]*\?)?($strings)(?:\s*:($strings))?/ or next;
		$messages{ message($_) } = 1 foreach grep { defined } $first, $second;
	}
	$messages{ message($_) } = 1 foreach $source =~ /remaining_warn\(&\w+,\s*psprintf\(($strings)/g;
	$steps{"the outbox of database \"X\" could not $_: X"} = 1 foreach $source =~ /[.]what = "(.*?)"/g;
}
cmp_ok(scalar(keys %messages), '>', 30, 'there are messages');
cmp_ok(scalar(keys %steps), '>', 15, 'and steps');
delete $messages{'the outbox of database "X" could not X: X'} or die 'steps have another message';
my ($table) = slurp_file('src/doc/operating.md') =~ /^## What a line in the server log asks for\n(.*?)(?:^## |\z)/sm;
my @lines = map { /`(.*?)`/g } map { (split / [|] /)[0] } grep { /^[|] `/ } split /\n/, $table;
my %pattern = map { $_ => join '.+', map { quotemeta } split /[.]{3}/, $_, -1 } @lines;
my ($any_step) = grep { $_ eq 'the outbox of database "..." could not ...: ...' } @lines;
sub covers { my ($line, @of) = @_; return grep { /^$pattern{$line}/ } @of; }
is_deeply([ grep { my $m = $_; !grep { $_ ne $any_step && covers($_, $m) } @lines } sort keys %messages ], [],
	'each message of ours has its line');
is_deeply([ grep { !covers($_, keys %messages, keys %steps) } @lines ], [], 'and each line its message');

# what the trigger of the first screen promises
ok(wait_for(sub { ask($node, 'SELECT count(*) FROM booking WHERE key_url IS NULL AND check_in <= now()') eq '0' }),
	'the bookings that have begun have their keys');
is(ask($node, 'SELECT count(*) FROM booking WHERE key_url IS NOT NULL AND check_in > now()'), '0',
	'and the others have none yet');

$node->stop('immediate');
done_testing();
