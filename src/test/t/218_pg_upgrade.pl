# pg_upgrade: what was unfinished waits until it is adopted, what was issued goes on, and the
# extension is as a new one.  The old server is OLD_PG_CONFIG's, or of the same version.
use strict;
use warnings;

use FakeSeam;
use File::Basename qw(dirname);
use Guests qw(meet new_guest sql live_keys sent wait_sent enqueue state_of wait_state up pause reported);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my ($old_bin) = run_command([ $ENV{OLD_PG_CONFIG} // $ENV{PG_CONFIG} // 'pg_config', '--bindir' ]);
my $old = PostgreSQL::Test::Cluster->new('old', $ENV{OLD_PG_CONFIG} ? (install_path => dirname($old_bin)) : ());
my $new = PostgreSQL::Test::Cluster->new('new');
foreach my $node ($old, $new)
{
	# (both have the same locale, and checksums or none, whatever a version's default is)
	$node->init(extra => [ '--locale=C', '--encoding=UTF8', $node->pg_version >= 18 ? '--no-data-checksums' : () ]);
	$node->append_conf('postgresql.conf', slurp_file($ENV{OLD_CONFIG})) if $node == $old && $ENV{OLD_CONFIG};
	$node->append_conf('postgresql.conf', join("\n", "shared_preload_libraries = 'seam_ik'",
		"seam_ik.api_key_file = '" . api_key_file($node, 'seam_test_pg_upgrade') . "'",
		"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s') . "\n");
}
$old->start;
meet($old, $fake);
sql(q{CREATE EXTENSION seam_ik;
CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid);
CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')});
ok(up('postgres'), 'a worker of version ' . sql('SHOW server_version'));

my %g = map { $_ => new_guest } qw(booked kept doubt pending later);
sql("INSERT INTO booking VALUES (1, '$g{booked}'), (2, '$g{kept}')");
ok(wait_for(sub { sql('SELECT count(key_id) FROM booking') eq '2' }), 'bookings have their keys');
$fake->behave($g{doubt}, 'hang_after', 1);
my %id = (doubt => enqueue($g{doubt}));
ok(wait_sent($g{doubt}), 'an answer is awaited');
pause();
ok(wait_state('postgres', $id{doubt}, 'in_flight 08007'), 'and lost');
$id{pending} = enqueue($g{pending});
sql("INSERT INTO booking VALUES (3, '$g{later}')");
my ($lost) = live_keys($g{doubt});
$old->stop;

chdir $new->basedir or die $!;
$new->command_ok([ 'pg_upgrade', '--no-sync', '-b', $old_bin, '-B', $new->config_data('--bindir'), '-d', $old->data_dir,
	'-D', $new->data_dir, '-p', $old->port, '-P', $new->port, '-s', $new->host ], 'pg_upgrade');
is(sent($g{$_}), 0, "$_: nothing is sent meanwhile") foreach qw(pending later);
$new->start;
meet($new);
ok(up('postgres'), 'a worker of version ' . sql('SHOW server_version'));
ok(wait_for(sub { slurp_file($new->logfile) =~ /WARNING: +3 requests for instant keys of another database wait/ }),
	'which warns of those that wait');
my $new_guest = new_guest;
ok(wait_state('postgres', enqueue($new_guest), 'issued -'), 'a new request is issued');
is(state_of('postgres', $id{pending}), 'pending -', 'what was pending waits');

cmp_ok(sql('SELECT seam_adopt_instant_key_requests()'), '>=', 3, 'all is adopted');
ok(wait_state('postgres', $id{pending}, 'issued -'), 'what was pending is issued');
ok(wait_for(sub { sql('SELECT count(key_id) FROM booking') eq '3' }), 'and a booking has its key');
is(scalar(live_keys($g{$_})), 1, "$_: one") foreach qw(pending later);
ok(wait_state('postgres', $id{doubt}, 'failed 08007'), 'what was in doubt is reported');
like(reported($g{doubt}), qr/$lost/, 'with its key');
is(join(' ', live_keys($g{doubt})), $lost, 'which lives');
sql('DELETE FROM booking WHERE id IN (1, 3)');
ok(wait_for(sub { live_keys($g{$_}) == 0 }), "$_: a booking is deleted, and its key revoked") foreach qw(booked later);
is(scalar(live_keys($g{kept})), 1, 'another one keeps its key');

sql('CREATE DATABASE fresh');
sql('fresh', 'CREATE EXTENSION seam_ik');
my $catalog = slurp_file("$ENV{WORK}/src/src/test/upgrade/catalog.sql");
# (pg_upgrade does not note which privileges an extension's script has given)
sub catalog { return [ sort map { /^object/ ? s/ \|( \{[^|]*\})?$//r : $_ } split /\n/, sql($_[0], $catalog) ]; }
is_deeply(catalog('postgres'), catalog('fresh'), 'the catalog is that of a new extension');

$new->stop;
done_testing();
