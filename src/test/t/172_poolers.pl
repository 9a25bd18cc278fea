# Sessions of a pooler that pools transactions (PgBouncer): whoever the server's session is
# lent to next has calls, batches and requests as if it was theirs.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql call live_keys asked sent wait_sent wait_state quiet up);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", 'seam_ik.request_timeout = 10s', 'seam_ik.settle_delay = 1s');
api_key_file($node, 'seam_test_poolers');
meet($node, $fake);
ok(up('postgres'), 'a worker');

# One session of the server for all clients.
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
append_to_file("$dir/ini", <<"INI");
[databases]
* = host=@{[$node->host]} port=@{[$node->port]} user=@{[scalar getpwuid $>]}
[pgbouncer]
listen_addr =
listen_port = $port
unix_socket_dir = $dir
auth_type = any
pool_mode = transaction
default_pool_size = 1
logfile = $dir/log
INI
my $pooler = IPC::Run::start([ 'env', "PATH=$ENV{PATH}:/usr/sbin", 'pgbouncer', "$dir/ini" ],
	'<', \undef, '>', \my $said, '2>&1', IPC::Run::timeout(HANGS));
my $through = "host=$dir port=$port dbname=postgres";

# client(sql): a psql of the pooler's that runs it.
sub client
{
	my ($sql) = @_;
	my %c = (in => "$sql\n", out => '', err => '');

	$c{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $through, '-f', '-' ],
		'<', \$c{in}, '>', \$c{out}, '2>', \$c{err}, IPC::Run::timeout(HANGS));
	$c{run}->pump_nb for 1 .. 3;
	return \%c;
}

# what it printed, when it has ended
sub end_of { my ($c) = @_; $c->{run}->finish; chomp $c->{out}; return wantarray ? ($c->{out}, $c->{err}) : $c->{out}; }
sub by_client { return scalar end_of(client($_[0])); }
sub connections { my %c = map { $_->{connection} => 1 } map { asked($_) } @_; return scalar keys %c; }

# (a client that is not let in takes no input)
$SIG{PIPE} = 'IGNORE';
ok(wait_for(sub { (eval { by_client('SELECT 1') } // '') eq '1' }), 'a pooler') or diag slurp_file("$dir/log");
my $session = by_client('SELECT pg_backend_pid()');

# ---------- calls ----------

my @guests = map { new_guest } 1 .. 8;
my @clients = map { client(call($_) . ';') } @guests;
my @keys = map { scalar end_of($_) } @clients;
is(join(' ', @keys), join(' ', map { live_keys($_) } @guests), 'each client has its key');
is(connections(@guests), 1, 'over one connection to Seam, which the session keeps');
is(by_client('SELECT pg_backend_pid()'), $session, 'and it was one session');
is(sql('SELECT count(*) FROM seam_instant_key_request WHERE status = $$issued$$'), 8, 'which owns them');

my $guest = new_guest;
is(by_client('BEGIN; ' . call($guest) . '; ROLLBACK;') ne '', 1, 'a transaction rolls back');
ok(wait_for(sub { sent($guest) == 1 && live_keys($guest) == 0 }), 'and its key is revoked');
is(by_client('SELECT pg_backend_pid()'), $session, '(the session goes on)');
is(by_client("DISCARD ALL;\n" . call($guest) . ';'), join(' ', live_keys($guest)), 'so it does after DISCARD ALL');

# a client that is killed in its transaction, and one that cancels
my ($killed, $cancels) = (new_guest, new_guest);
my $client = client('BEGIN; ' . call($killed) . "; SELECT 'called';");
ok(wait_for(sub { $client->{run}->pump_nb; $client->{out} =~ /called/ }), 'a client is in its transaction');
$client->{run}->kill_kill;
ok(wait_for(sub { live_keys($killed) == 0 }), 'killed, it leaves no key');
is(sent($killed), 1, '(there was one)');
$fake->behave($cancels, 'hang', 1);
$client = client(call($cancels) . ';');
ok(wait_sent($cancels), 'a call hangs');
$client->{run}->signal('INT');
like((end_of($client))[1], qr/ERROR:  57014:/, 'Ctrl-C cancels it');
ok(quiet(), 'nothing of these is left');

# ---------- settings ----------

# What a client SETs for its transaction is its own; without LOCAL, it is the next one's.
my $with = new_guest;
$fake->behave($with, 'hang', 1);
like((end_of(client("BEGIN; SET LOCAL seam_ik.request_timeout = '100ms'; " . call($with) . ';')))[1],
	qr/ERROR:  08007:/, 'SET LOCAL holds for a call');
is(by_client('SHOW seam_ik.request_timeout'), '10s', 'and ends with the transaction');
by_client("SET seam_ik.request_timeout = '9s'");
is(by_client('SHOW seam_ik.request_timeout'), '9s', 'another SET holds for the next client');
by_client('RESET seam_ik.request_timeout');

# ---------- requests ----------

sql(q{CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid);
CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')});
my %guest = map { $_ => new_guest } 1 .. 10;
end_of($_) foreach map { client("INSERT INTO booking VALUES ($_, '$guest{$_}');") } sort keys %guest;
ok(wait_for(sub { sql('SELECT count(key_id) FROM booking') eq '10' }), 'bookings of clients have their keys');
is(join(' ', map { scalar live_keys($guest{$_}) } sort keys %guest), join(' ', (1) x 10), 'one each');
my $id = by_client("SELECT seam_enqueue_instant_key('$guests[0]')");
ok(wait_state('postgres', $id, 'issued -'), 'a request is issued');
is(by_client("SELECT (seam_instant_key_request_result($id)).user_identity_id"), $guests[0],
	'and another client of the same role has its result');

$pooler->signal('INT');
$pooler->finish;
$node->stop;
done_testing();
