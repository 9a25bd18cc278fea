# A restore to a point in time: nothing that was issued is revoked or issued again; what was
# pending then goes on; what was in doubt is reported with the keys that may be meant.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql call live_keys wait_sent enqueue wait_state reported up pause);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $original = PostgreSQL::Test::Cluster->new('original');
$original->init(allows_streaming => 1, has_archiving => 1);
$original->append_conf('postgresql.conf', join("\n", "shared_preload_libraries = 'seam_ik'",
	"seam_ik.api_key_file = 'seam_api_key'", "seam_ik.endpoint = '" . $fake->url . "'",
	'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s') . "\n");
api_key_file($original, 'seam_test_point_in_time');
$original->start;
meet($original, $fake);
sql(q{CREATE EXTENSION seam_ik;
CREATE TABLE booking (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid, key_id uuid);
CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')});
ok(up('postgres'), 'a worker');

my $node = $original;

# key_of(guest): that of the booking, when it has one
sub key_of
{
	my ($guest) = @_;
	my $key;
	wait_for(sub { $key = ask($node, "SELECT key_id FROM booking WHERE guest = '$guest'"); $key ne '' });
	return $key;
}

sub book { my ($guest) = @_; sql("INSERT INTO booking (guest) VALUES ('$guest')"); return; }

my %g = map { $_ => new_guest } qw(issued called doubt pending open late);
book($g{issued});
my %keys = (issued => key_of($g{issued}));
ok($keys{issued}, 'a booking has its key');
$original->backup('before');

# what is there at the point in time
is($original->psql('postgres', call($g{called})), 0, 'a call is made');
$fake->behave($g{doubt}, 'hang_after', 1);
my %id = (doubt => enqueue($g{doubt}));
ok(wait_sent($g{doubt}), 'an answer is awaited');
pause();
ok(wait_state('postgres', $id{doubt}, 'in_flight 08007'), 'and lost');
$id{pending} = enqueue($g{pending});
my $open = background($original, 'BEGIN; ' . call($g{open}) . "; SELECT 'called';");
ok(wait_for(sub { $open->{run}->pump_nb; $open->{out} =~ /called/ }), 'a transaction is open');
sql("SELECT pg_create_restore_point('then')");

# and what happens afterwards
$open->{in} .= "COMMIT;\n";
result_of($open);
sql('ALTER SYSTEM RESET seam_ik.worker; SELECT pg_reload_conf()');
ok(wait_state('postgres', $id{$_}, 'issued -'), "$_ is issued later") foreach qw(doubt pending);
book($g{late});
ok(key_of($g{late}), 'as is a later booking');
my %before = map { $_ => [ live_keys($g{$_}) ] } keys %g;
is(scalar(@{ $before{$_} }), 1, "$_ has one key") foreach sort keys %g;
sql('SELECT pg_switch_wal()');
$original->stop;

my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($original, 'before', has_restoring => 1, standby => 0);
$restored->append_conf('postgresql.conf', "recovery_target_name = 'then'\nrecovery_target_action = 'promote'\n");
chmod 0600, $restored->data_dir . '/seam_api_key' or die $!;
$restored->start;
$node = $restored;
meet($restored);
ok(up('postgres'), 'the worker of the restored server');

ok(wait_state('postgres', $id{pending}, 'issued -'), 'what was pending is issued');
ok(wait_state('postgres', $id{doubt}, 'failed 08007'), 'what was in doubt is reported');
like(sql("SELECT error FROM seam_instant_key_request WHERE request_id = $id{doubt}"), qr/$before{doubt}[0]/,
	'with its key');
ok(wait_for(sub { reported($g{open}) ne '-' }), 'the call that was open is reported');
is(sql("SELECT key_id FROM booking WHERE guest = '$g{issued}'"), $keys{issued}, 'a booking has the key that it had');
is(sql("SELECT count(*) FROM booking WHERE guest = '$g{late}'"), 0, 'a later one is gone');
ok(wait_for(sub { ask($restored, UNSETTLED) eq '0' }), 'nothing is left to do');
foreach my $guest (sort keys %g)
{
	my @now = live_keys($g{$guest});
	ok((grep { $_ eq $before{$guest}[0] } @now), "$guest: the key that there was lives");
	# the pending one's is in the time that was given up: nobody here can know of it
	is(scalar(@now), $guest eq 'pending' ? 2 : 1, "$guest: and no other one is issued");
}
my $guest = new_guest;
book($guest);
ok(key_of($guest), 'a new booking has its key');
sql("DELETE FROM booking WHERE guest IN ('$guest', '$g{issued}')");
ok(wait_for(sub { live_keys($_) == 0 }), 'a deleted one has none') foreach $guest, $g{issued};

$restored->stop;
done_testing();
