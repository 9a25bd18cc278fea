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

# what the trigger of the first screen promises
ok(wait_for(sub { ask($node, 'SELECT count(*) FROM booking WHERE key_url IS NULL AND check_in <= now()') eq '0' }),
	'the bookings that have begun have their keys');
is(ask($node, 'SELECT count(*) FROM booking WHERE key_url IS NOT NULL AND check_in > now()'), '0',
	'and the others have none yet');

$node->stop('immediate');
done_testing();
