# Two primaries whose bookings are replicated to each other, and seam_ik on both: who has
# inserted a booking has its key issued, the other one sees it, and either one's DELETE has
# it revoked.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql live_keys sent up quiet);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my %node = map { $_ => PostgreSQL::Test::Cluster->new($_) } qw(east west);
foreach my $name (sort keys %node)
{
	my $node = $node{$name};

	$node->init(allows_streaming => 'logical');
	$node->append_conf('postgresql.conf', join("\n", "shared_preload_libraries = 'seam_ik'",
		"seam_ik.api_key_file = '" . api_key_file($node, 'seam_test_primaries') . "'",
		"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s') . "\n");
	$node->start;
	meet($node, $fake);
	# each publishes the bookings of its own house, and is sent those of the other one
	sql(qq{CREATE EXTENSION seam_ik;
CREATE TABLE booking (house text, id int, guest uuid, key_id uuid, note text, PRIMARY KEY (house, id));
CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
CREATE TRIGGER revoke AFTER DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_delete_instant_key_trigger('instant_key_id=key_id');
CREATE PUBLICATION houses FOR TABLE booking WHERE (house = '$name')});
	ok(up('postgres'), "$name: a worker");
}
foreach my $pair ([qw(east west)], [qw(west east)])
{
	my ($to, $from) = @$pair;
	$node{$to}->safe_psql('postgres',
		'CREATE SUBSCRIPTION s CONNECTION $$' . $node{$from}->connstr('postgres') . '$$ PUBLICATION houses');
}

sub at { my ($name, $sql) = @_; return $node{$name}->safe_psql('postgres', $sql); }
sub other { return $_[0] eq 'east' ? 'west' : 'east'; }
# key_at(primary, house, id): the key that the booking has there, or ''
sub key_at
{
	my ($name, $house, $id) = @_;
	return at($name, "SELECT key_id FROM booking WHERE (house, id) = ('$house', $id)");
}

my (%guest, %key);
foreach my $house (qw(east west))
{
	$guest{$house} = [ map { new_guest } 1 .. 4 ];
	at($house, "INSERT INTO booking VALUES ('$house', $_, '$guest{$house}[$_ - 1]')") foreach 1 .. 4;
}
foreach my $house (qw(east west))
{
	my $there = other($house);

	ok(wait_for(sub { !grep { key_at($there, $house, $_) eq '' } 1 .. 4 }), "$house: $there sees the keys");
	foreach my $id (1 .. 4)
	{
		is(key_at($there, $house, $id), join(' ', live_keys($guest{$house}[$id - 1])),
			"$house, $id: the one that there is");
		is(sent($guest{$house}[$id - 1]), 1, "$house, $id: and that was asked for once");
	}
	is(at($there, "SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id IN ('"
			. join("','", @{ $guest{$house} }) . "')"), 0, "$house: $there has no requests for them");

	# the other one's changes of such a row ask for nothing
	at($there, "UPDATE booking SET note = 'late' WHERE house = '$house'");
	# who has issued a key has it revoked; and so does who has not, by the second trigger
	at($house, "DELETE FROM booking WHERE (house, id) = ('$house', 1)");
	at($there, "DELETE FROM booking WHERE (house, id) = ('$house', 2)");
	ok(wait_for(sub { live_keys($guest{$house}[$_ - 1]) == 0 }), "$house, $_: deleted, its key is revoked")
		foreach 1, 2;
	ok(wait_for(sub { at($there, "SELECT count(*) FROM booking WHERE house = '$house'") eq '2' }),
		"$there has followed");
	is(scalar(live_keys($guest{$house}[$_ - 1])), 1, "$house, $_: the others live") foreach 3, 4;
}
foreach my $name (sort keys %node)
{
	meet($node{$name});
	ok(quiet(), "$name: nothing is left to do");
	is(at($name, 'SELECT count(*) FROM seam_instant_key_orphan'), 0, "$name: and nothing is reported");
}

# One primary takes over from the other one, which is gone.
at('west', 'ALTER SYSTEM SET seam_ik.worker = off; SELECT pg_reload_conf()');
ok(wait_for(sub { at('west', 'SHOW seam_ik.worker') eq 'off' }), 'west is in trouble');
my $waiting = new_guest;
at('west', "INSERT INTO booking VALUES ('west', 9, '$waiting')");
ok(wait_for(sub { at('east', 'SELECT count(*) FROM booking WHERE id = 9') eq '1' }),
	'a booking of it arrives, without a key');
$node{west}->stop('immediate');
is(at('east', "SELECT count(*) FROM seam_instant_key_request WHERE user_identity_id = '$waiting'"), 0,
	'nobody in the east asks for one');
at('east', "UPDATE booking SET guest = guest WHERE house = 'west'");
ok(wait_for(sub { key_at('east', 'west', 9) ne '' }), 'until its rows are updated once');
is(key_at('east', 'west', 9), join(' ', live_keys($waiting)), 'with its only key');
ok(wait_for(sub { ask($node{east}, UNSETTLED) eq '0' }), 'nothing is left to do');
is(key_at('east', 'west', $_), join(' ', live_keys($guest{west}[$_ - 1])), "west, $_: keeps its only key") foreach 3, 4;
$node{east}->stop;
done_testing();
