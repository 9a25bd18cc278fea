# A page of the outbox's table that cannot be read stops none but the requests that are on it.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql set enqueue wait_state mark calls pause go_on logged);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

# So many requests are on several pages.
use constant MANY => 400;

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik'", "seam_ik.api_key = 'seam_test_damaged'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.max_concurrency = 50', 'autovacuum = off');
meet($node, $fake);
# (what is asked here shall not come by the page either)
sql('ALTER DATABASE postgres SET enable_seqscan = off; ALTER DATABASE postgres SET enable_bitmapscan = off');

pause();
sql('SELECT seam_enqueue_instant_key(gen_random_uuid()) FROM generate_series(1, ' . MANY . ')');
my $block = "(ctid::text::point)[0]::int";
my %page = map { split /\|/ } split /\n/, sql("SELECT user_identity_id, $block FROM seam_instant_key_request");
my $damaged = sql("SELECT max($block) / 2 FROM seam_instant_key_request");
my @lost = grep { $page{$_} == $damaged } keys %page;
cmp_ok(scalar(@lost), '>', 5, 'pending requests on a page');
cmp_ok(scalar(grep { $page{$_} > $damaged } keys %page), '>', 50, 'and on later ones');
my $file = $node->data_dir . '/' . sql("SELECT pg_relation_filepath('seam_instant_key_request')");
$node->stop;
open my $table, '+<', $file or die $!;
seek $table, $damaged * 8192, 0;
print $table "\xff" x 8192;
close $table or die $!;
# (if the free space map said that there is room on it, the server would choose it for new versions of any row)
unlink $file . '_fsm';
$node->start;
my $log = -s $node->logfile;
my $last = mark();
go_on();
ok(wait_for(sub { $fake->keys >= MANY - @lost }), 'which is damaged: all others are asked for')
	or diag sql('SET zero_damaged_pages = on; SELECT status, next_attempt_at, sqlstate, count(*) ' .
		'FROM seam_instant_key_request GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT 20'), logged($log);
like(logged($log), qr/WARNING: .*could not go on: invalid page in block $damaged /, 'the log tells of it');
my %issued = map { $_->{user_identity_id} => 1 } $fake->keys;
is(join(' ', grep { $issued{$_} } @lost), '', 'what is on it is not');
my $guest = new_guest;
my $id = enqueue($guest);
ok(wait_state('postgres', $id, 'issued -'), 'what comes later is issued');
sql("SELECT seam_cancel_instant_key_request($id)");
ok(wait_state('postgres', $id, 'revoked -'), 'and revoked');
is(scalar(grep { $_->{path} =~ /generate/ } calls($last)), MANY - @lost + 1, 'each once');

$node->stop;
done_testing();
