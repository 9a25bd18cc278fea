# ALTER EXTENSION UPDATE from an older script: before it the library works with that script,
# during it bookings go on, and after it nothing tells the database from a new one.  A
# library that is older than the script says so.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql error_of call live_keys sent enqueue wait_state quiet up set go_on pause);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', join("\n", "shared_preload_libraries = 'seam_ik'",
	"seam_ik.api_key_file = 'seam_api_key'", "seam_ik.endpoint = '" . $fake->url . "'",
	'seam_ik.request_timeout = 1s', 'seam_ik.settle_delay = 1s') . "\n");
api_key_file($node, 'seam_test_upgrade');
$node->start;
meet($node, $fake);

# The server finds these beside the extension's own scripts.
my $scripts = $ENV{STAGE} . $node->config_data('--sharedir') . '/extension';
my ($version) = slurp_file('seam_ik.control') =~ /^default_version = '(.*)'$/m;
my ($older, $newer) = ('0.9', '99.0');
my ($script) = run_command([ 'perl', 'src/test/upgrade/older', "sql/seam_ik--$version.sql" ]);
cmp_ok(length $script, '>', 1000, 'there is an older script');

# is_script(from to, text): that of the file, whole at once: other tests may look there.
sub is_script
{
	my ($name, $text) = @_;

	append_to_file("$scripts/$name.$$", $text);
	rename "$scripts/$name.$$", "$scripts/seam_ik--$name.sql" or die $!;
	return;
}

is_script($older, "$script\n");
is_script("$version--$newer", q{CREATE FUNCTION seam_ik_requires(script text) RETURNS void
AS 'MODULE_PATHNAME', 'seam_ik_requires' LANGUAGE C STRICT;
} . "SELECT seam_ik_requires('$newer');\n");

# differences(database, other): what the extension has made in one of them alone
sub differences
{
	my ($database, $other) = @_;
	my $catalog = slurp_file('src/test/upgrade/catalog.sql');
	my @of = map { [ split /\n/, sql($_, $catalog) ] } $database, $other;
	my @there = map { my $lines = $_; +{ map { $_ => 1 } @$lines } } @of;

	return ((map { "$database alone has $_" } grep { !$there[1]{$_} } @{ $of[0] }),
		(map { "$other alone has $_" } grep { !$there[0]{$_} } @{ $of[1] }));
}

# ---------- before ----------

sql('CREATE DATABASE fresh');
sql('fresh', 'CREATE EXTENSION seam_ik');
sql("CREATE EXTENSION seam_ik VERSION '$older'");
sql(q{CREATE TABLE booking (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest uuid, key_id uuid, url text);
CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id', 'instant_key_url=url')});
ok(up('postgres'), 'a worker');
cmp_ok(scalar(differences('postgres', 'fresh')), '>=', 8, 'an older extension is told from a new one');

sub book { return sql("INSERT INTO booking (guest) VALUES ('$_[0]') RETURNING id"); }
sub booked
{
	my ($id) = @_;
	return wait_for(sub { ask($node, "SELECT key_id FROM booking WHERE id = $id") ne '' });
}

my %g = map { $_ => new_guest } qw(booked deleted enqueued committed rolled_back pending waiting);
my %id = map { $_ => book($g{$_}) } qw(booked deleted);
ok(booked($id{$_}), "$_: a booking has its key") foreach qw(booked deleted);
sql("DELETE FROM booking WHERE id = $id{deleted}");
ok(wait_for(sub { live_keys($g{deleted}) == 0 }), 'a deleted one has not');
ok(wait_state('postgres', enqueue($g{enqueued}), 'issued -'), 'a request is issued');
is($node->psql('postgres', call($g{committed})), 0, 'a call is made');
is($node->psql('postgres', 'BEGIN; ' . call($g{rolled_back}) . '; ROLLBACK'), 0, 'another one rolls back');
ok(wait_for(sub { live_keys($g{rolled_back}) == 0 }), 'its key is revoked');
is(sent($g{rolled_back}), 1, '(there was one)');
ok(quiet(), 'nothing is left to do');

# ---------- the update ----------

pause();
$id{pending} = enqueue($g{pending});
$id{waiting} = book($g{waiting});
go_on();
# bookings are inserted all the time
my $inserts = 'INSERT INTO booking (guest) SELECT (\'10000000-0000-4000-8000-\' || ' .
	'lpad(nextval(\'guest\')::text, 12, \'0\'))::uuid;';
sql('CREATE SEQUENCE guest');
append_to_file($node->basedir . '/inserts.sql', "$inserts\n");
my ($out, $err) = ('', '');
my $bookings = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-R', '100', '-T', '600',
	'-f', $node->basedir . '/inserts.sql', $node->connstr('postgres') ],
	'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(HANGS));
my $inserted = 'SELECT count(*) FROM booking';
my $count = sql($inserted);
ok(wait_for(sub { sql($inserted) > $count + 20 }), 'bookings are inserted');
is($node->psql('postgres', 'ALTER EXTENSION seam_ik UPDATE'), 0, 'ALTER EXTENSION UPDATE');
$count = sql($inserted);
ok(wait_for(sub { sql($inserted) > $count + 20 }), 'bookings are inserted still');
$bookings->signal('INT');
$bookings->finish;
unlike($err, qr/ERROR|abort/, 'none of them failed') or diag $err;

# ---------- after ----------

# (what `fresh` alone has sql/seam_ik--0.9--1.0.sql should make)
is(join("\n", differences('postgres', 'fresh')), '', 'the catalog is that of a new extension');
ok(wait_for(sub { sql('SELECT count(*) FROM booking WHERE key_id IS NULL') eq '0' }), 'every booking has a key');
ok(wait_state('postgres', $id{pending}, 'issued -'), 'what was pending is issued');
my %live;
$live{ $_->{user_identity_id} }++ foreach grep { !$_->{revoked} } $fake->keys;
is(scalar(grep { $_ != 1 } values %live), 0, 'nobody has two');
is(scalar(grep { /^10000000/ } keys %live), sql("SELECT count(*) FROM booking WHERE guest::text LIKE '10000000%'"),
	'those who have booked have one each');
# requests of before are told from rows as those of now are
sql('ALTER TABLE booking RENAME COLUMN id TO booking_id');
sql("DELETE FROM booking WHERE booking_id IN ($id{booked}, $id{waiting})");
ok(wait_for(sub { live_keys($g{$_}) == 0 }), "$_: a booking of before is deleted, and its key revoked")
	foreach qw(booked waiting);
my $guest = new_guest;
is($node->psql('postgres', 'BEGIN; ' . call($guest) . '; ROLLBACK'), 0, 'a call rolls back');
ok(wait_for(sub { sent($guest) == 1 && live_keys($guest) == 0 }), 'its key is revoked');
ok(quiet(), 'nothing is left to do');

# ---------- a library that is older than the script ----------

my $refused = error_of("ALTER EXTENSION seam_ik UPDATE TO '$newer'");
like($refused, qr/^55000: +the library of extension seam_ik is older than its script$/m, 'a newer script is refused');
like($refused, qr/^DETAIL: +The library is of version \Q$version\E, the script of version \Q$newer\E\.$/m, '(why)');
like($refused, qr/^HINT: +Install version \Q$newer\E of seam_ik, and restart the server\.$/m, '(what to do)');
is(sql("SELECT extversion FROM pg_extension WHERE extname = 'seam_ik'"), $version, 'and has left nothing');
# a copy of the files, or a standby, where an older library is
my $offset = -s $node->logfile;
sql("SET allow_system_table_mods = on; UPDATE pg_extension SET extversion = '$newer' WHERE extname = 'seam_ik'");
like(error_of('SELECT seam_enqueue_instant_key(gen_random_uuid())'),
	qr/^55000: +the library .* is older than its script/, 'what has been made by one is not touched');
sql("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'seam_ik worker' " .
	"AND datname = 'postgres'");
ok(wait_for(sub { slurp_file($node->logfile, $offset)
	=~ /WARNING: +the outbox of database "postgres" .*: the library of extension seam_ik is older than its script\n/ }),
	'nor by the worker, which says so');
sql("SET allow_system_table_mods = on; UPDATE pg_extension SET extversion = '$version' WHERE extname = 'seam_ik'");
ok(wait_state('postgres', enqueue($guest), 'issued -'), 'with a library that fits all goes on');

$node->stop;
done_testing();
