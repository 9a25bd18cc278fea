# seam_ik.notify: whether the ends of requests are told of.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql enqueue wait_state live_keys quiet set up);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'");
meet($node, $fake);
api_key_file($node, 'seam_test_notify');
sql(q{CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid);
	CREATE TRIGGER k AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')});
ok(up('postgres'), 'a worker');
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN seam_instant_key; LISTEN test');
my $writers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'seam_ik writer'";

# What the listener is told of while this goes on, sorted.
sub told
{
	my ($what) = @_;
	my $out = '';

	$what->();
	ok(quiet(), 'nothing is left to do');
	# the writer tells by commits before this one, or comes too late
	ok(wait_for(sub { ask($node, 'SELECT count(*) FROM seam_instant_key_request WHERE status = \'cancelled\'
		AND next_attempt_at IS NOT NULL') eq '0' }), 'what was cancelled, too');
	sql("NOTIFY test, 'the end'");
	ok(wait_for(sub { $out .= $listener->query_safe('SELECT 1'); $out =~ /the end/ }), 'the listener listens');
	return join ' ', sort $out =~ /"status":"(\w+)"/g;
}

my $key = 0;
sub ends
{
	$fake->behave(my $refused = new_guest(), 'status=400');
	sql("INSERT INTO booking VALUES (" . ++$key . ", '" . new_guest() . "')");
	wait_state('postgres', enqueue($refused), 'failed 22023') or die;
	my $id = enqueue(my $guest = new_guest());
	wait_state('postgres', $id, 'issued -') or die;
	sql("SELECT seam_cancel_instant_key_request($id);
		BEGIN; SELECT seam_cancel_instant_key_request(seam_enqueue_instant_key('$refused')); COMMIT");
	wait_for(sub { live_keys($guest) == 0 }) or die;
	return;
}

is(told(\&ends), 'cancelled failed issued issued revoked', 'on');
set(notify => 'off');
reload($node);
is(told(\&ends), '', 'off');
is(sql('SELECT count(key_id) FROM booking'), 2, 'though rows are written');
ok(wait_for(sub { sql($writers) eq '0' }), 'the writer ends');
ok(wait_state('postgres', enqueue(new_guest()), 'issued -'), 'a request without a row');
is(sql($writers), 0, 'needs no writer');
set(notify => undef);
reload($node);
is(told(\&ends), 'cancelled failed issued issued revoked', 'on again');

$listener->quit;
$node->stop;
done_testing();
