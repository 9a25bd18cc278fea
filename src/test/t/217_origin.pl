# What is told from a copy, and what is not: the same data directory after a chmod, the
# same database after a restore, and a subscriber's rows.
use strict;
use warnings;

use FakeSeam;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = PostgreSQL::Test::Cluster->new('main');
my @conf = ("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = '" . $node->data_dir . "/seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', join("\n", @conf) . "\n");
append_to_file($node->data_dir . '/seam_api_key', 'seam_test_origin');
chmod 0600, $node->data_dir . '/seam_api_key' or die $!;
$node->start;

my $guests = 0;
sub new_guest { return sprintf '00000000-0000-4000-8000-%012d', ++$guests; }
sub sql { my ($db, $sql) = @_; return $node->safe_psql($db, $sql); }
sub live { my ($guest) = @_; return map { $_->{instant_key_id} } grep { $_->{user_identity_id} eq $guest && !$_->{revoked} } $fake->keys; }
sub call { return "SELECT (seam_generate_instant_key('$_[0]')).instant_key_id"; }
sub orphan { my ($db, $guest) = @_; return sql($db, "SELECT coalesce(string_agg(status || ' ' || last_error, ' '), '-') FROM seam_instant_key_orphan WHERE user_identity_id = '$guest'"); }
sub has_worker { my ($db) = @_; return wait_for(sub { ask($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'seam_ik worker' AND datname = '$db'") eq '1' }); }

# ---------- the data directory ----------

sql('postgres', 'CREATE DATABASE inn');
sql('inn', 'CREATE EXTENSION seam_ik');
ok(has_worker('inn'), 'a worker');
my $open = new_guest;
my $session = background($node, 'BEGIN; ' . call($open) . '; SELECT pg_sleep(600)', 'inn');
ok(wait_for(sub { live($open) == 1 }), 'a call of a transaction that is open at a crash');
$node->stop('immediate');
result_of($session);
# its mode, owner, label and number of names say nothing
my $file = $node->data_dir . '/PG_VERSION';
my $changed = (stat $file)[10];
ok(wait_for(sub { chmod($_, $file) == 1 or die $! for 0640, 0600; (stat $file)[10] != $changed }), 'chmod');
link $file, "$file.backup" or die $!;
$node->start;
ok(has_worker('inn'), 'a worker again');
ok(wait_for(sub { ask($node, UNSETTLED, 'inn') eq '0' }), 'which has done what it had to');
# where files have no birth time, the change is all that is known
my ($born) = run_command([ 'stat', '-c', '%W', $file ]);
is(orphan('inn', $open), $born =~ /^0$|-/ ? 'failed issued by a synchronous call of the database that this one is a copy of' : '-', 'it is no copy');
is(scalar(live($open)), $born =~ /^0$|-/ ? 1 : 0, 'and the key is revoked');

$node->stop;
done_testing();
