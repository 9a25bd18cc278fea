# seam_ik_check(): each line, well and ill; it never throws, shows no secret and is in time.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql error_of status enqueue set pause go_on up worker_of quiet);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(time);

my ($preload, $set_clock) = movable_clock();
my $fake = FakeSeam->start;
my $node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
	"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.connect_timeout = '3s'", "seam_ik.settle_delay = '1s'",
	'restart_after_crash = on');
meet($node, $fake);
my $secret = 'seam_test_check_c0ffee';
api_key_file($node, $secret);
sql('CREATE ROLE watch IN ROLE pg_monitor LOGIN');
my $said = '';

# All lines, by name, in a session with these settings; each is [ok, detail and hint].
sub check
{
	my ($settings) = @_;
	my %lines;
	my $begin = time;

	foreach (split /\x1e/, sql(($settings // '') . q{; SELECT "check" || E'\x1f' || ok || E'\x1f' || detail || } .
		q{E'\x1f' || coalesce(hint, '-') || E'\x1e' FROM seam_ik_check()}))
	{
		s/^\n//;
		my ($name, $ok, $detail, $hint) = split /\x1f/;
		next unless defined $hint;
		$lines{$name} = [ $ok, "$detail | $hint" ];
		$said .= "$detail $hint\n";
	}
	$lines{took} = time - $begin;
	return \%lines;
}

# A line is not well, and says so.
sub ill
{
	my ($lines, $name, $says, $how) = @_;
	is($lines->{$name}[0], 'false', "$how: $name is not well");
	return like($lines->{$name}[1], $says, 'and says why');
}

my @names = ('API key', 'answer', 'clock', 'copied requests', 'due requests', 'endpoint', 'pause', 'preloaded',
	'reported keys', 'triggers', 'unwritten keys', 'versions', 'worker', 'worker slots');
ok(up('postgres'), 'a worker');
sql(q{CREATE TABLE booking (id int PRIMARY KEY, guest uuid, key_id uuid);
	CREATE TRIGGER k AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION
	seam_keep_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id')});
sub well
{
	my ($how) = @_;
	my $lines;
	ok(wait_for(sub { $lines = check(); !grep { $_ ne 'took' && $lines->{$_}[0] ne 'true' } keys %$lines }), $how)
		or diag explain $lines;
	return $lines;
}
my $all = well('everything is well');
is_deeply([ sort grep { $_ ne 'took' } keys %$all ], \@names, 'the lines');
like($all->{'API key'}[1], qr/sandbox.*file that seam_ik.api_key_file names, of the server's user, mode 0600/,
	'the key');
like($all->{endpoint}[1], qr/\Q@{[$fake->url]}\E can be reached/, 'the endpoint');
like($all->{versions}[1], qr{seam_ik 1\.0, its script 1\.0, libcurl/\d\S* \S*(?:SSL|TLS)\S*/\d}, 'the versions');
like($all->{worker}[1], qr/process @{[worker_of()]}, /, 'the worker');
like($all->{triggers}[1], qr/^1 trigger/, 'the trigger');
is(scalar(grep { $_->{path} !~ /list$/ } $fake->requests), 0, 'Seam was asked for nothing but lists');

# the key
api_key_file($node, 'seam_test_check_revoked');
my $lines = check();
ill($lines, 'answer', qr/did not accept the API key/, 'a key that Seam refuses');
is($lines->{endpoint}[0], 'true', 'though it can be reached');
api_key_file($node, $secret);
$fake->behave('*', 'echo_auth,times=1');
ill(check(), 'answer', qr/did not accept the API key.*\*\*/, 'an answer that says which key');
chmod 0644, $node->data_dir . '/seam_api_key';
$lines = check();
ill($lines, 'API key', qr/can be read by other users/, 'a key that others can read');
ill($lines, 'endpoint', qr/no API key/, 'and so');
ill($lines, 'clock', qr/no answer/, 'and so');
unlink $node->data_dir . '/seam_api_key';
ill(check(), 'API key', qr/could not open the file/, 'no key');
like(check("SET seam_ik.api_key = 'seam_at_$secret'; SET seam_ik.workspace_id = 'x'")->{'API key'}[1],
	qr/personal access token.*in seam_ik.api_key/, 'another kind, in the setting');
ill(check("SET seam_ik.api_key = 'seam_pk_$secret'"), 'API key', qr/publishable/, 'a kind that may not call');
api_key_file($node, $secret);
sql("ALTER DATABASE postgres SET seam_ik.api_key = '$secret'");
ill(check(), 'API key', qr/every role can read it.*seam_ik.api_key_file/, 'one that everybody can read');
sql('ALTER DATABASE postgres RESET seam_ik.api_key');

# the way there
$lines = check("SET seam_ik.endpoint = 'http://127.0.0.1:1'");
ill($lines, 'endpoint', qr/127\.0\.0\.1:1: /, 'nobody listens');
ill($lines, 'answer', qr/there was none/, 'and so');
ill(check("SET seam_ik.endpoint = 'https://no-such-host.invalid'"), 'endpoint', qr/no-such-host/, 'no such name');
my $certs = $node->data_dir . '/../certs';
mkdir $certs;
FakeSeam::make_certs($certs);
my $tls = FakeSeam->start('--tls-cert', "$certs/good.pem", '--tls-key', "$certs/good.key");
my $https = "SET seam_ik.endpoint = '" . $tls->url . "'";
ill(check($https), 'endpoint', qr/certificate/, 'a certificate that nobody has signed');
$lines = check("$https; SET seam_ik.ca_file = '$certs/ca.pem'");
like($lines->{endpoint}[1], qr/its certificate is good/, 'one that we trust');
$fake->behave('*', 'hang');
$lines = check("SET seam_ik.connect_timeout = '1s'");
ill($lines, 'answer', qr/no whole answer/, 'no answer');
cmp_ok($lines->{took}, '>', 1.5, 'is waited for');
cmp_ok($lines->{took}, '<', 2.5, 'for twice the time to connect, and psql\'s');
like(error_of("SET statement_timeout = '500ms'; SELECT * FROM seam_ik_check()"), qr/^57014/, 'or it is cancelled');
$fake->behave('*', '');
$fake->behave('*', 'status=503,times=1');
ill(check(), 'answer', qr/503/, 'another status');
$fake->clock(-90);
ill(check(), 'clock', qr/9\d s behind ours/, "Seam's clock is wrong");
$fake->clock(90);
ill(check(), 'clock', qr/(?:89|9\d) s ahead of ours/, 'the other way');
$fake->clock(0);

# the outbox
my $s = 'seam_instant_key_request';
sql("INSERT INTO booking VALUES (1, '" . new_guest() . "')");
ok(quiet(), 'a booking has its key');
well('and all is well');
sql("UPDATE $s SET sqlstate = '23514', error = 'x'");
ill(check(), 'unwritten keys', qr/^1 key/, 'a row that could not be written');
sql("UPDATE $s SET sqlstate = '08007', status = 'failed'");
ill(check(), 'reported keys', qr/^1 request/, 'a key that nobody owns');
sql("UPDATE $s SET sqlstate = NULL, error = NULL, status = 'pending', origin = origin + 1,
	next_attempt_at = '-infinity', finished_at = NULL");
ill(check(), 'copied requests', qr/^1 unfinished/, 'a request of another database');
sql("UPDATE $s SET status = 'issued', origin = origin - 1, next_attempt_at = NULL, finished_at = now()");
sql("SELECT seam_ik_pause('for lunch')");
$fake->behave('*', 'status=429,retry_after=600,route=generate_instant_key');
my $id = enqueue(new_guest());
$lines = check();
ill($lines, 'pause', qr/for lunch/, 'a pause');
sql("UPDATE $s SET enqueued_at = now() - interval '90 s', attempted_at = NULL WHERE request_id = $id");
ill(check(), 'due requests', qr/for 9\d s/, 'a request that waits too long');
sql("UPDATE $s SET enqueued_at = now() - interval '1 month', issue_at = now() WHERE request_id = $id");
is(check()->{'due requests'}[0], 'true', 'what was scheduled a month ago, and is due now, does not');
my $stay = enqueue(new_guest(), "issue_at => now() + interval '1 day'");
is(check()->{'due requests'}[0], 'true', 'nor does what is scheduled');
sql("UPDATE $s SET wake_at = now() - interval '90 s', issue_at = now() - interval '90 s' WHERE request_id = $stay");
ill(check(), 'due requests', qr/for 9\d s/, 'a stay that should have begun');
sql("UPDATE $s SET wake_at = 'infinity', row_task = 'look', row_task_at = now() - interval '90 s'
	WHERE request_id = $stay");
ill(check(), 'due requests', qr/for 9\d s/, 'a row that should have been looked at');
sql("UPDATE $s SET wake_at = 'infinity', row_task = NULL, row_task_at = NULL WHERE request_id = $stay;
	SELECT seam_cancel_instant_key_request($stay)");
sql('SELECT seam_ik_resume()');
ok(wait_for(sub { $lines = check(); $lines->{pause}[1] =~ /rate limit, until/ }), 'a 429 pauses, too');
is($lines->{pause}[0], 'false', 'and is told');
sql("SELECT seam_cancel_instant_key_request($id)");
$fake->behave('*', '');
set(worker => 'off');
ok(wait_for(sub { check()->{pause}[1] =~ /seam_ik.worker = off/ }), 'the worker is off');
set(worker => undef);
well('on again');
foreach my $stop ([ 'no API key', sub { unlink $node->data_dir . '/seam_api_key' } ],
	[ 'API key not accepted', sub { api_key_file($node, 'seam_test_check_revoked') } ],
	[ 'Seam is away', sub { $fake->behave('*', 'status=503,retry_after=600,route=generate_instant_key') } ])
{
	my ($state, $how) = @$stop;

	$how->();
	$id = enqueue(new_guest());
	ok(wait_for(sub { $lines = check(); $lines->{pause}[1] =~ /^\Q$state\E, until / }), "$state: a pause, too")
		or diag explain $lines;
	is($lines->{pause}[0], 'false', 'and is told');
	sql("SELECT seam_cancel_instant_key_request($id)");
	api_key_file($node, $secret);
	$fake->behave('*', '');
	sql('SELECT pg_reload_conf()');
	well('which ends');
}

# triggers
sub trigger_is { my ($sql, $says) = @_; sql($sql); return ill(check(), 'triggers', $says, $sql); }
trigger_is('ALTER TABLE booking RENAME key_id TO key', qr/no column "key_id"/);
sql('ALTER TABLE booking RENAME key TO key_id');
trigger_is('ALTER TABLE booking ALTER key_id TYPE int USING NULL', qr/does not fit/);
sql('ALTER TABLE booking ALTER key_id TYPE uuid USING NULL');
trigger_is('ALTER TABLE booking DROP CONSTRAINT booking_pkey', qr/no primary key/);
sql('ALTER TABLE booking ADD PRIMARY KEY (id)');
trigger_is('CREATE ROLE hotel; ALTER TABLE booking OWNER TO hotel; REVOKE UPDATE ON booking FROM hotel',
	qr/owner of table public.booking may not/);
sql('GRANT UPDATE ON booking TO hotel');
trigger_is('REVOKE USAGE ON SCHEMA public FROM PUBLIC', qr/owner of table public.booking may not/);
sql('GRANT USAGE ON SCHEMA public TO PUBLIC');
trigger_is('ALTER TABLE booking ENABLE REPLICA TRIGGER k', qr/fires on a replica only/);
trigger_is('ALTER TABLE booking DISABLE TRIGGER k', qr/disabled/);
sql('ALTER TABLE booking ENABLE TRIGGER k');
my $holds = $node->background_psql('postgres');
$holds->query_safe('BEGIN; LOCK TABLE booking');
ill(check(), 'triggers', qr/public.booking is locked/, 'a lock');
$holds->query_safe("ROLLBACK; BEGIN; LOCK TABLE $s");
$lines = check();
ill($lines, 'due requests', qr/lock timeout/, 'a lock on the outbox');
is($lines->{answer}[0], 'true', 'holds up no other line');
$fake->behave('*', 'hang');
foreach my $timeout (1000, 200)
{
	is(sql("SET seam_ik.connect_timeout = $timeout; BEGIN; SELECT count(*) FROM seam_ik_check() WHERE ok; " .
		"SELECT clock_timestamp() - now() < 2 * interval '$timeout ms'; COMMIT") =~ /^\d+\n(\w)$/ && $1, 't',
		"nor the end, $timeout ms");
}
$fake->behave('*', '');
$holds->query_safe('ROLLBACK');
$holds->quit;

# who may call it, and where; versions; the worker
is(sql('SET ROLE watch; SELECT count(*) FROM seam_ik_check() WHERE ok'), scalar(@names), 'pg_monitor may call it');
sql('CREATE ROLE clerk');
like(error_of('SET ROLE clerk; SELECT * FROM seam_ik_check()'), qr/^42501/, 'others may not');
is(sql("BEGIN READ ONLY; SELECT count(*) FROM seam_ik_check() WHERE ok; COMMIT"), scalar(@names), 'it only reads');
sql("UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'seam_ik'");
ill(check(), 'versions', qr/script 0\.9/, 'an older script');
sql("UPDATE pg_extension SET extversion = '99.0' WHERE extname = 'seam_ik'");
$lines = check();
ill($lines, 'versions', qr/script 99\.0.*install the newer library/, 'a newer one');
ill($lines, 'due requests', qr/is older than its script/, 'and so');
is($lines->{answer}[0], 'true', 'what has nothing to do with it is told');
is(sql('SET ROLE watch; SELECT count(*) FROM seam_ik_check()'), scalar(@names), 'to pg_monitor, too');
sql("UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'seam_ik'");
sql('ALTER TABLE seam_instant_key_call OWNER TO clerk');
ok(wait_for(sub { worker_of() eq '' }), 'no worker');
ill(check(), 'worker', qr/has no worker/, 'none');
sql('ALTER TABLE seam_instant_key_call OWNER TO CURRENT_USER');
well('everything is well at the end');

# without preloading, and where all slots are taken; PostgreSQL itself has one
$node->append_conf('postgresql.conf', "max_worker_processes = 1\n");
$node->restart;
meet($node, $fake);
ill(check(), 'worker slots', qr/1 of 1 slots/, 'no slot');
$node->append_conf('postgresql.conf', "max_worker_processes = 3\n");
$node->restart;
meet($node, $fake);
ok(up('postgres'), 'a slot for the worker');
ill(check(), 'worker slots', qr/3 of 3 slots/, 'and none for the writer');
$node->append_conf('postgresql.conf', "max_worker_processes = 4\n");
{
	local $ENV{LD_PRELOAD} = $preload;
	$node->restart;
}
meet($node, $fake);
ok(up('postgres'), 'a worker again');
well('a slot for the writer');
kill 'STOP', worker_of();
$set_clock->(400);
ill(check(), 'worker', qr/last came round 4\d\d s ago.*pg_locks/, 'a worker that hangs');
$set_clock->(0);
kill 'CONT', worker_of();
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
meet($node, $fake);
$lines = check('LOAD \'seam_ik\'');
ill($lines, 'preloaded', qr/is not in shared_preload_libraries/, 'not preloaded');
ill($lines, 'worker', qr/has no worker/, 'and so');

unlike($said, qr/c0ffee/, 'no line shows the key');
unlike(slurp_file($node->logfile), qr/ERROR:  (?!permission denied|canceling statement due to statement timeout)/,
	'nothing was thrown');

$tls->stop;
$node->stop('immediate');
done_testing();
