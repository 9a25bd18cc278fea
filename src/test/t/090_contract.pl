# Our requests and the fake's answers, checked against Seam's own OpenAPI
# document by a proxy between them.
use strict;
use warnings;

use File::Copy qw(copy);
use File::Temp ();
use FakeSeam;
use HTTP::Tiny;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $dir = File::Temp::tempdir(CLEANUP => 1);
copy("src/test/contract/$_", "$dir/$_") or die "$_: $!" for qw(package.json package-lock.json document.mjs .npmrc);
# node has its own list of CAs; where a company adds one, it is in the system's
$ENV{NODE_EXTRA_CA_CERTS} //= '/etc/ssl/certs/ca-certificates.crt' if -r '/etc/ssl/certs/ca-certificates.crt';
system_or_bail('npm', 'ci', '--prefix', $dir, '--no-progress', '--loglevel', 'error');
system_or_bail('sh', '-c', "cd '$dir' && node document.mjs > seam.json");

my $fake = FakeSeam->start;
my $port = PostgreSQL::Test::Cluster::get_free_port();
my ($prism_out, $prism) = ('');
# proxy_to(spec): the proxy, in front of the fake that misbehaves so
sub proxy_to
{
	my ($spec) = @_;

	$prism->kill_kill if $prism;
	$prism_out = '';
	$prism = IPC::Run::start([ "$dir/node_modules/.bin/prism", 'proxy', '-h', '127.0.0.1', '-p', $port, '--errors',
		"$dir/seam.json", $fake->url($spec) ],
		'<', \undef, '>&', \$prism_out, IPC::Run::timeout(HANGS));
	$prism->pump until $prism_out =~ /Prism is listening/;
	return;
}

my $node = seam_cluster("seam_ik.api_key = 'seam_test_contract'", "seam_ik.endpoint = 'http://127.0.0.1:$port'",
	"shared_preload_libraries = 'seam_ik'", "seam_ik.request_timeout = '60s'");
sub sql
{
	my ($rc, $out, $err) = $node->psql('postgres', $_[0], extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $rc == 0 ? $out : $err;
}
my $profile = '0a1b2c3d-0000-4000-8000-00000000000f';

proxy_to();
is(sql("SELECT (seam_generate_instant_key('" . guest . "')).user_identity_id"), guest, 'generate');
is(sql("SELECT (seam_generate_instant_key('" . guest . "', 10, '$profile')).customization_profile_id"), $profile,
	'generate with a profile');
is(sql("SELECT (seam_generate_instant_key('" . guest . "', NULL)).user_identity_id"), guest,
	'generate without a count');
is(sql("SELECT count(*) FROM seam_list_instant_keys('" . guest . "')"), 3, 'list');
is(sql("SELECT count(*) FROM seam_list_instant_keys()"), 3, 'list all');
is(sql("SELECT count((seam_get_instant_key(instant_key_id)).instant_key_id) FROM seam_list_instant_keys()"), 3,
	'get by id');
is(sql("SELECT count((seam_get_instant_key(instant_key_url)).instant_key_id) FROM seam_list_instant_keys()"), 3,
	'get by URL');
is(sql("SELECT count(*) FROM seam_list_instant_keys() WHERE seam_delete_instant_key(instant_key_id)"), 3, 'delete');
is(scalar(grep { !$_->{revoked} } $fake->keys), 0, 'all that came through to the fake');

# that the proxy checks anything at all
$fake->reset;
my $http = HTTP::Tiny->new;
my %json = (headers => { 'Content-Type' => 'application/json', 'Authorization' => 'Bearer seam_test_contract' });
is($http->post("http://127.0.0.1:$port/user_identities/generate_instant_key",
	{ %json, content => '{"user_identity_id":"x"}' })->{status}, 422, 'a bad request is refused by the proxy');
is($http->post("http://127.0.0.1:$port/user_identities/generate_instant_key",
	{ headers => { 'Content-Type' => 'application/json' }, content => '{"user_identity_id":"' . guest .
	'"}' })->{status}, 401, 'so is one without a key');
is(scalar($fake->requests), 0, 'and does not reach the fake');
proxy_to('missing=expires_at');
like(sql("SELECT seam_generate_instant_key('" . guest . "')"), qr/58000.*HTTP status 500/s,
	'a bad answer is caught by the proxy');

$prism->kill_kill;
$node->stop;
done_testing();
