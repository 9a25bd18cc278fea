# TLS: which servers are trusted, and that nothing is sent to others.
use strict;
use warnings;

use File::Temp ();
use FakeSeam;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;
use Time::HiRes qw(time);

my $dir = File::Temp::tempdir(CLEANUP => 1);
chmod 0755, $dir;
FakeSeam::make_certs($dir);
my $node = seam_cluster("seam_ik.api_key = 'seam_test_tls'", "seam_ik.ca_file = '$dir/ca.pem'",
	"shared_preload_libraries = 'seam_ik'");

sub call_of
{
	my ($endpoint, $before) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', ($before // '') . "SET seam_ik.endpoint = '$endpoint'; " . CALL,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $rc == 0 ? 'a key' : $err;
}

my %fakes = map { $_ => FakeSeam->start('--tls-cert', "$dir/$_.pem", '--tls-key', "$dir/$_.key") } qw(good other
	expired selfsigned);

is(call_of($fakes{good}->url), 'a key', 'a certificate of the CA in seam_ik.ca_file');
is(scalar($fakes{good}->requests), 1, 'one request');
$fakes{good}->reset;
foreach my $case ([ other => qr/subject name/ ], [ expired => qr/expired/ ], [ selfsigned => qr/self.signed/ ])
{
	my ($which, $why) = @$case;
	# (ten retries would take a minute)
	my $begin = time;
	my $error = call_of($fakes{$which}->url, "SET seam_ik.max_retries = 10; SET seam_ik.request_timeout = '2min';");
	like($error, qr/08001: could not verify the TLS certificate/, "$which certificate");
	like($error, $why, 'which the error says');
	cmp_ok(time - $begin, '<', 40, 'is not tried again');
}
like(call_of($fakes{good}->url(undef, '127.0.0.1')), qr/08001: could not verify/,
	'a name that the certificate does not have');
like(call_of($fakes{good}->url, 'RESET seam_ik.ca_file; SET seam_ik.ca_file = \'\';'), qr/08001: could not verify/,
	"a CA that is not the system's");
like(call_of($fakes{good}->url, "SET seam_ik.ca_file = '$dir/none.pem';"), qr/08001/, 'no CA file');
like(call_of($fakes{good}->url, "SET seam_ik.ca_file = '$dir/ca.key';"), qr/08001/, 'a CA file without certificates');
my $plain = FakeSeam->start;
like(call_of($plain->url =~ s/^http:/https:/r, "SET seam_ik.connect_timeout = '300ms'; SET seam_ik.max_retries = 0;"),
	qr/08001/, 'a server without TLS');
is(scalar(map { $_->requests } values %fakes, $plain), 0, 'nothing was sent to any of them');

# one session: from the one CA to the other, and back; connections are not mixed up
my ($rc, $out, $err) = $node->psql('postgres', "SET seam_ik.endpoint = '" . $fakes{good}->url . "';
DO \$\$ DECLARE ok text := ''; BEGIN
	FOR i IN 1 .. 6 LOOP
		PERFORM set_config('seam_ik.ca_file',
			CASE WHEN i % 2 = 1 THEN '$dir/ca.pem' ELSE '$dir/selfsigned.pem' END, false);
		BEGIN
			PERFORM seam_generate_instant_key('" . guest . "');
			ok := ok || 'y';
		EXCEPTION WHEN OTHERS THEN
			ok := ok || 'n';
		END;
	END LOOP;
	RAISE NOTICE 'ok: %', ok;
END \$\$");
like($err, qr/ok: ynynyn/, 'a connection that another CA vouched for is not used');

# A CA file that is replaced in place is seen, also where there is a connection that
# the former one vouched for: by a session, and by the worker.
my $live = "$dir/live.pem";
sub trust
{
	open my $file, '>', $live or die $!;
	print $file slurp_file("$dir/$_[0].pem");
	close $file;
	return;
}
trust('ca');
$node->append_conf('postgresql.conf', "seam_ik.ca_file = '$live'\nseam_ik.endpoint = '" . $fakes{good}->url .
	"'\nseam_ik.connect_timeout = '10s'");
$node->reload;
my $s = background($node, 'SET seam_ik.max_retries = 0;');
my $n = 0;
sub call_again
{
	my $mark = 'done ' . ++$n;

	$s->{err} = '';
	$s->{in} .= CALL . ";\nSELECT '$mark';\n";
	$s->{run}->pump until $s->{out} =~ /$mark\n/;
	return $s->{err} eq '' ? 'a key' : $s->{err} =~ /(08001: could not verify)/ ? $1 : $s->{err};
}
sub enqueue { return $node->safe_psql('postgres', "SELECT seam_enqueue_instant_key('" . guest . "')"); }
sub request
{
	return $node->safe_psql('postgres',
		"SELECT status || coalesce(' ' || sqlstate, '') FROM seam_instant_key_request WHERE request_id = $_[0]");
}
is(call_again(), 'a key', 'a CA file');
my $id = enqueue();
ok(wait_for(sub { request($id) eq 'issued' }), 'and the worker has one');
my $replaced = time;
trust('selfsigned');
ok(wait_for(sub { call_again() eq '08001: could not verify' }),
	'a CA file is replaced: a session trusts its server no more');
ok(wait_for(sub { $id = enqueue(); wait_for(sub { request($id) =~ /issued|08001/ }); request($id) eq 'pending 08001' }),
	'nor does the worker');
trust('ca');
ok(wait_for(sub { call_again() eq 'a key' }), 'and back: a session has its key');
$node->safe_psql('postgres', "UPDATE seam_instant_key_request SET next_attempt_at = now() WHERE request_id = $id");
ok(wait_for(sub { request($id) eq 'issued' }), 'and the worker');
cmp_ok(time - $replaced, '<', 120, 'both within a minute');
result_of($s);

# a batch over HTTP/2: over few connections, and from a server that ends each
# connection after 50 requests
my ($port, $ending_port, $single_port, $before_port) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 4;
my $key = '{"instant_key":{"instant_key_id":"1d05c2f6-5b6f-4a9c-b80d-1eca26be12b9",' .
	'"instant_key_url":"https://ik.seam.co/ABCXYZ","user_identity_id":"' . guest . '",' .
	'"client_session_id":"bfe3b1c6-fb9e-48b1-9b5b-c762b2983af6",' .
	'"workspace_id":"4d1c24b2-781e-4d1a-8d77-15249ad57c8a",' .
	'"created_at":"2025-06-14T16:54:17.946559Z","expires_at":"2025-06-16T16:54:17.946559Z"},"ok":true}';
sub server
{
	my ($server_port, $requests) = @_;
	return <<"CONF";
	server {
		listen 127.0.0.1:$server_port ssl http2;
		ssl_certificate $dir/good.pem;
		ssl_certificate_key $dir/good.key;
		keepalive_requests $requests;
		# it reads the whole request before it answers: libcurl fails when an answer comes before it has sent the body
		location / {
			proxy_pass http://unix:$dir/answers.sock;
			proxy_pass_request_body off;
			proxy_set_header Content-Length "";
		}
	}
CONF
}
my $servers = join '', server($port, 100000), server($ending_port, 50), server($single_port, 1000),
	server($before_port, 50);
append_to_file("$dir/nginx.conf", <<"CONF");
worker_processes 1;
pid $dir/nginx.pid;
error_log $dir/nginx.err;
daemon on;
events { worker_connections 1024; }
http {
	log_format own '\$server_port \$server_protocol \$request_uri \$connection';
	access_log $dir/nginx.log own;
	client_body_temp_path $dir/body;
	proxy_temp_path $dir/proxy;
	fastcgi_temp_path $dir/fastcgi;
	uwsgi_temp_path $dir/uwsgi;
	scgi_temp_path $dir/scgi;
	server {
		listen unix:$dir/answers.sock;
		access_log off;
		location / { default_type application/json; return 200 '$key'; }
	}
$servers}
CONF
my @nginx = (-x '/usr/sbin/nginx' ? '/usr/sbin/nginx' : 'nginx', '-c', "$dir/nginx.conf", '-e', "$dir/nginx.err");
system_or_bail(@nginx);
# batch($endpoint, number of calls, at once, SQL before): "SQLSTATE|COUNT" lines
sub batch
{
	my ($endpoint, $n, $at_once, $before) = @_;
	return $node->safe_psql('postgres', ($before // '') . "SET seam_ik.endpoint = '$endpoint';
		SET seam_ik.max_concurrency = $at_once;
SELECT sqlstate, count(*) FROM seam_generate_instant_keys(ARRAY(SELECT '" . guest .
	"'::uuid FROM generate_series(1, $n))) GROUP BY 1 ORDER BY 1 NULLS FIRST");
}
my (%calls, %keys);
foreach my $p ($port, $ending_port)
{
	# without the callback it is not known which ones the server has left alone
	my $may_doubt = $p == $ending_port && $ENV{SEAM_IK_NO_PREREQ};

	$out = batch("https://localhost:$p", 1000, 100);
	like($out, $may_doubt ? qr/^\|\d+(\n08007\|\d+)?$/ : qr/^\|1000$/, 'HTTP/2: every call of a batch has its key');
	($calls{$p}, $keys{$p}) = (1000, $out =~ /^\|(\d+)/);
}
# what is known of those connections holds for no other one
$fakes{good}->reset;
like(batch($fakes{good}->url('die_on_reuse'), 40, 20, "SET seam_ik.max_concurrency = 100; " .
	"SET seam_ik.endpoint = 'https://localhost:$before_port'; DO \$\$ BEGIN PERFORM count(*) " .
	"FROM seam_generate_instant_keys(ARRAY(SELECT '" . guest . "'::uuid FROM generate_series(1, 200))); END \$\$;"),
	qr/^\|\d+\n08007\|\d+$/, 'then a batch over connections that die after a request: in doubt');
is(scalar($fakes{good}->requests), 40, 'each request came once');
is(scalar($fakes{good}->keys), 40, 'and made one key');
# the calls of a session share a connection, too
$node->safe_psql('postgres', "SET seam_ik.endpoint = 'https://localhost:$single_port'; " .
	"SELECT (seam_generate_instant_key('" . guest . "')).workspace_id FROM generate_series(1, 20)");
system_or_bail(@nginx, '-s', 'quit');
my @log = split /\n/, slurp_file("$dir/nginx.log");
foreach my $p ($port, $ending_port)
{
	my $processed = grep { m{^$p HTTP/2\.0 /user_identities/generate_instant_key } } @log;
	cmp_ok($processed, $calls{$p} > $keys{$p} ? '<=' : '==', $calls{$p}, 'each was processed once, over HTTP/2');
	cmp_ok($processed, '>=', $keys{$p}, '(or not, if it is in doubt)');
}
my %connections = map { $_ => 1 } grep { /^$port / } @log;
cmp_ok(scalar(keys %connections), '<=', 2, 'over few connections');
my %singles;
$singles{$_}++ for grep { /^$single_port / } @log;
is_deeply([ values %singles ], [ 20 ], 'the calls of a session share a connection');
like((keys %singles)[0], qr/HTTP\/2\.0/, 'over HTTP/2');

$node->stop;
done_testing();
