# Connections: kept, renewed, never a request twice; and what may not steer them.
use strict;
use warnings;

use File::Temp ();
use FakeSeam;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $proxy = FakeSeam->start;
my $dir = File::Temp::tempdir(CLEANUP => 1);
chmod 0755, $dir;
FakeSeam::make_certs($dir);
my $tls = FakeSeam->start('--tls-cert', "$dir/good.pem", '--tls-key', "$dir/good.key");
# a proxy in the server's environment is not honoured
delete local @ENV{qw(no_proxy NO_PROXY)};
local @ENV{qw(http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy)} = ($proxy->url) x 6;
my $node = seam_cluster("seam_ik.api_key = 'seam_test_conn'", "seam_ik.endpoint = '" . $fake->url . "'",
	"shared_preload_libraries = 'seam_ik'");

sub connections { my %c = map { $_->{connection} => 1 } $fake->requests; return scalar keys %c; }

# states(spec, number, pause): the SQLSTATEs of so many calls of one session,
# with a pause (seconds) before each
sub states
{
	my ($spec, $n, $pause) = @_;
	$pause //= 0;
	$fake->reset;
	return $node->safe_psql('postgres', "SET seam_ik.endpoint = '" . $fake->url($spec) . "';
DO \$\$ BEGIN
	CREATE TEMP TABLE s (n int, state text);
	FOR i IN 1 .. $n LOOP
		PERFORM pg_sleep($pause);
		BEGIN
			PERFORM seam_generate_instant_key('" . guest . "');
			INSERT INTO s VALUES (i, 'ok');
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO s VALUES (i, SQLSTATE);
		END;
	END LOOP;
END \$\$;
SELECT string_agg(state, ' ' ORDER BY n) FROM s");
}

is(states(undef, 5), 'ok ok ok ok ok', 'calls of a session');
is(connections(), 1, 'share a connection');
is(states('connection_close', 3), 'ok ok ok', 'a server that closes');
is(connections(), 3, 'gets a new connection for each');
# (a request that crosses with the close would be in doubt)
is(states('close_idle', 4, 0.5), 'ok ok ok ok', 'a server that closes without saying so');
is(connections(), 4, 'is noticed');
is(scalar($fake->requests), 4, 'and no request is made twice');

foreach my $spec ('die_on_reuse', 'chunked,die_on_reuse')
{
	is(states($spec, 6), 'ok 08007 ok 08007 ok 08007',
		"$spec: a kept connection that dies after the request: in doubt");
	is(scalar($fake->requests), 6, 'each request came once');
	is(scalar($fake->keys), 6, 'and made one key');
}
foreach my $spec (qw(reset reset_after close close_after truncate=50))
{
	is(states($spec, 2), '08007 08007', $spec);
	is(scalar($fake->requests), 2, 'no request was made twice');
}
# in a batch, too
$fake->reset;
is($node->safe_psql('postgres', "SET seam_ik.endpoint = '" . $fake->url('die_on_reuse') .
	"'; SET seam_ik.max_concurrency = 4;
SELECT count(*) FILTER (WHERE sqlstate IS NULL) + count(*) FILTER (WHERE sqlstate = '08007'),
	count(*) FILTER (WHERE sqlstate = '08007') > 5
FROM seam_generate_instant_keys(ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 40)))"), '40|t',
	'a batch whose connections die');
is(scalar($fake->requests), 40, 'each request came once');
is(scalar($fake->keys), 40, 'and made one key');

# redirects are not followed, wherever they lead
my $elsewhere = FakeSeam->start;
foreach my $to ($elsewhere->url . '/user_identities/generate_instant_key', 'file:///etc/passwd', '/other')
{
	is(states('redirect=' . ($to =~ s/([:\/])/sprintf '%%%02x', ord $1/gre), 1), '08P01', "a redirect to $to");
	is(scalar($fake->requests), 1, 'is not followed');
}
is(scalar($elsewhere->requests), 0, 'nothing came there');
is($node->safe_psql('postgres', "SET seam_ik.ca_file = '$dir/ca.pem'; SET seam_ik.endpoint = '" . $tls->url .
	"'; SELECT (seam_generate_instant_key('" . guest . "')).user_identity_id"), guest, 'a call with TLS');
is(scalar($proxy->requests), 0, 'nothing came to the proxy');

# a limit for answers, and answers of every form
is(states('big=1048577', 2), '54000 54000', 'too large');
is(states('big=1048576', 2), 'ok ok', 'not too large');
is(states('manyheaders=1100', 2), '54000 54000', 'too many headers');
is(states('bigheader=1100000', 2), '54000 54000', 'a header that is too large');
is(states('chunked,big=1048577', 2), '54000 54000', 'too large, in chunks');
is(scalar($fake->requests), 2, 'none of that is tried again');
is(states('status=204', 2), '08P01 08P01', '204: no key');
is(states('nobody', 2), '08P01 08P01', 'no body');
is(states('chunked', 2), 'ok ok', 'chunked');
is(states('info', 2), 'ok ok', 'an interim answer first');
is(states('http10', 2), 'ok ok', 'HTTP/1.0');
is(states('drip=1', 1), 'ok', 'byte by byte');

# the request id is that of the final answer
my ($rc, $out, $err) = $node->psql('postgres', "SET seam_ik.endpoint = '" . $fake->url('info,status=400') .
	"'; " . CALL);
like($err, qr/seam-request-id: [0-9a-f]{8}-/, 'the request id of the final answer');

# Of a libcurl that cannot look names up beside something else a session is told, once.
$node->stop;
{
	local $ENV{LD_PRELOAD} = preload('no_async_lookups');
	$node->start;
}
($rc, $out, $err) = $node->psql('postgres', CALL . '; ' . CALL);
is(scalar(() = $err =~ /WARNING:  host names are looked up without an end in time/g), 1,
	'a libcurl without asynchronous lookups');
is($rc, 0, 'and calls are made');

$node->stop;
done_testing();
