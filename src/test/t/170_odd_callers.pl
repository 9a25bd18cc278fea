# Killed backends, odd callers, odd sessions.
use strict;
use warnings;

use FakeSeam;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster("seam_ik.api_key_file = 'seam_api_key'", "seam_ik.endpoint = '" . $fake->url . "'",
	'restart_after_crash = on', 'max_prepared_transactions = 2', 'wal_level = replica', 'max_wal_senders = 4');

api_key_file($node, 'seam_test_crash');

# A waiting backend is killed: the others crash with it, as PostgreSQL does it,
# and everything works again.
my $s = background($node, "SET seam_ik.endpoint = '" . $fake->url('hang') . "'; " . CALL . ';');
wait_for(sub { $fake->requests > 0 });
kill 'KILL', $s->{pid};
result_of($s);
ok(wait_for(sub { ask($node, 'SELECT 1') eq '1' }), 'the server is back');
is($node->safe_psql('postgres', "SELECT (seam_generate_instant_key('" . guest . "')).user_identity_id"), guest,
	'and a call works');

# Who can call it, and how.
$fake->reset;
is($node->safe_psql('postgres', "BEGIN; SELECT count(seam_generate_instant_key('" . guest .
	"')); ROLLBACK; SELECT count(seam_generate_instant_key('" . guest . "'))"), "1\n1",
	'in a transaction that is rolled back, and after');
is(scalar(grep { !$_->{revoked} } $fake->keys), 2, 'which takes no key back');
is($node->safe_psql('postgres', "BEGIN; SELECT count(seam_generate_instant_key('" . guest .
	"')); PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p'"), '1', 'in a prepared transaction');
is($node->safe_psql('postgres', "DECLARE c CURSOR WITH HOLD FOR " .
	"SELECT (seam_generate_instant_key(gen_random_uuid())).workspace_id IS NOT NULL FROM generate_series(1, 10); " .
	"FETCH 3 FROM c; FETCH 2 FROM c; CLOSE c"), join("\n", ('t') x 5), 'in a cursor');
$node->safe_psql('postgres', q{
CREATE FUNCTION quick(id uuid) RETURNS uuid LANGUAGE sql SET seam_ik.request_timeout = '1ms'
	AS 'SELECT (seam_generate_instant_key(id)).user_identity_id';
CREATE TABLE t (guest uuid, key_id uuid);
CREATE FUNCTION issue() RETURNS trigger LANGUAGE plpgsql
	AS $$ BEGIN NEW.key_id := (seam_generate_instant_key(NEW.guest)).instant_key_id; RETURN NEW; END $$;
CREATE TRIGGER issue BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION issue();
});
my ($rc, $out, $err) = $node->psql('postgres', "SET seam_ik.endpoint = '" . $fake->url('delay=200') .
	"'; SELECT quick('" . guest . "')", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/0800[17]/, "a function's own request_timeout");
is($node->safe_psql('postgres', "SET seam_ik.endpoint = '" . $fake->url('delay=200') .
	"'; DO \$\$ BEGIN PERFORM quick('" . guest .
	"'); EXCEPTION WHEN OTHERS THEN NULL; END \$\$; SHOW seam_ik.request_timeout"), '30s', 'ends with it');
$fake->reset;
is($node->safe_psql('postgres', 'INSERT INTO t SELECT gen_random_uuid() FROM generate_series(1, 100); ' .
	'SELECT count(DISTINCT key_id) FROM t'), '100', "in somebody's trigger");
is(scalar($fake->requests), 100, 'one request a row');

# A session whose settings go to parallel workers, which load the library anew.
($rc, $out, $err) = $node->psql('postgres', q{
CREATE TABLE big AS SELECT g, gen_random_uuid() AS id FROM generate_series(1, 10000) g;
ANALYZE big;
SET seam_ik.api_key = 'seam_test_parallel';
SELECT (seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358')).user_identity_id;
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT count(*) > 0 FROM big WHERE g % 2 = 0;
EXPLAIN (COSTS off) SELECT seam_generate_instant_key(id) FROM big;
});
is($err, '', 'no warning from parallel workers');
like($out, qr/Workers Launched: [1-9]/, '(there were some)');
is(scalar(() = $out =~ /Gather/g), 1, 'a call is not made by a parallel worker');
$fake->reset;
my $call = "SELECT (seam_generate_instant_key('" . guest . "')).user_identity_id;";
is($node->safe_psql('postgres', "$call SET seam_ik.api_key = 'seam_test_set'; $call DISCARD ALL; $call"),
	join("\n", (guest) x 3), 'after DISCARD ALL');
is_deeply([ map { my %h = map { @$_ } @{ $_->{headers} }; $h{Authorization} } $fake->requests ],
	[ map { "Bearer seam_test_$_" } qw(crash set crash) ], 'with the key that is set then');

# A foreign table as a partition.
my $server = sprintf q{SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres')},
	$node->host, $node->port;
is($node->safe_psql('postgres', qq{
CREATE EXTENSION postgres_fdw;
CREATE $server;
CREATE USER MAPPING FOR CURRENT_USER SERVER loop;
CREATE TABLE far (id int, place int, guest uuid, key_id uuid);
CREATE TABLE stay (id int, place int, guest uuid, key_id uuid) PARTITION BY LIST (place);
CREATE TABLE stay1 PARTITION OF stay FOR VALUES IN (1);
CREATE FOREIGN TABLE stay2 PARTITION OF stay FOR VALUES IN (2) SERVER loop OPTIONS (table_name 'far');
CREATE TRIGGER issue BEFORE INSERT OR UPDATE ON stay FOR EACH ROW
	EXECUTE FUNCTION seam_generate_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
CREATE TRIGGER revoke AFTER DELETE OR UPDATE ON stay FOR EACH ROW
	EXECUTE FUNCTION seam_delete_instant_key_trigger('instant_key_id=key_id');
INSERT INTO stay VALUES (1, 2, gen_random_uuid()), (2, 1, gen_random_uuid());
BEGIN;
UPDATE stay SET id = 5 WHERE id = 1;
INSERT INTO stay VALUES (3, 1, gen_random_uuid());
WITH u AS (UPDATE stay SET id = 6 WHERE id = 5 RETURNING 1) INSERT INTO stay SELECT 4, 1, gen_random_uuid() FROM u;
COMMIT;
SELECT count(DISTINCT key_id) FROM stay}), '4', 'a foreign partition');

# On a standby it is a call like any other.
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
chmod 0600, $standby->data_dir . '/seam_api_key' or die $!;
$standby->start;
is($standby->safe_psql('postgres', "SELECT (seam_generate_instant_key('" . guest . "')).user_identity_id"), guest,
	'on a standby');
$standby->stop;
$node->stop;
done_testing();
