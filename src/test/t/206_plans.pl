# The worker's and the writer's statements that are about requests whose ids they have find
# them by these, however many other requests are in the queues: a plan that reads a queue
# instead reads all of it for each hundred.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet sql);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster(
	"shared_preload_libraries = 'seam_ik, auto_explain'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'autovacuum = off',
	'auto_explain.log_min_duration = 0', 'auto_explain.log_nested_statements = on');
api_key_file($node, 'seam_test_plans');
meet($node, $fake);
sql(q{
	CREATE TABLE booking (id int PRIMARY KEY, guest uuid, check_in timestamptz, check_out timestamptz, key_id uuid);
	CREATE TRIGGER stay AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW
		EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'issue_at=check_in',
			'valid_until=check_out', 'instant_key_id=key_id')
});

sub quiet
{
	return wait_for(sub { sql(q{SELECT count(*) FROM seam_instant_key_request WHERE wake_at = '-infinity' OR
		next_attempt_at IS NOT NULL OR row_task IS NOT NULL}) == 0 });
}

# All that is done with the requests of rows: without statistics, and with those of a time
# when the queues were empty.
foreach my $round (0, 1)
{
	my $first = 1000 * $round;
	sql("INSERT INTO booking (id, guest, check_in, check_out)
		SELECT $first + g, gen_random_uuid(), now() + CASE WHEN g % 2 = 0 THEN interval '2 s' END,
			now() + interval '10 days' FROM generate_series(1, 300) g");
	my $without = "SELECT count(*) FROM booking WHERE id > $first AND key_id IS NULL";
	ok(wait_for(sub { sql($without) == 0 }), 'each row has its key');
	ok(quiet(), 'and all is quiet');
	sql("UPDATE booking SET guest = gen_random_uuid() WHERE id BETWEEN $first AND $first + 50");
	sql("UPDATE booking SET key_id = NULL WHERE id BETWEEN $first + 51 AND $first + 100");
	sql("UPDATE booking SET check_in = now() - interval '2 days', check_out = now() - interval '1 day'
		WHERE id BETWEEN $first + 101 AND $first + 150");
	sql("DELETE FROM booking WHERE id > $first + 250");
	ok(quiet(), 'what has changed is followed');
	is(sql("SELECT count(*) FROM booking WHERE id BETWEEN $first + 101 AND $first + 150 AND key_id IS NOT NULL"), 0,
		'rows whose stay is over are cleared');
	sql('ANALYZE seam_instant_key_request');
}

my @plans = grep { /Query Text:.*seam_instant_key_request/ }
	split(/\n(?=\d{4}-\d\d-\d\d )/, slurp_file($node->logfile));
my @filters = grep { /Filter:[^\n]*\brequest_id = (ANY|c\.)/ } @plans;
cmp_ok(scalar(grep { /Index Cond: \(request_id = (ANY|c\.)/ } @plans), '>', 20, 'requests are found by their ids');
is(scalar(@filters), 0, 'by nothing else') or diag($filters[0]);
foreach my $what ('instant_key = CASE', "'look'", "'clear'", 'FOR UPDATE SKIP LOCKED')
{
	ok((grep { index($_, $what) >= 0 } @plans), "a statement with $what was among them");
}
$node->stop;
done_testing();
