# The fake Seam itself: each misbehaviour as it is seen on the wire, by a client
# that is nothing but a socket.
use strict;
use warnings;

use Errno qw(ECONNRESET EINPROGRESS);
use FakeSeam;
use File::Temp ();
use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Test::More;
use Time::HiRes qw(time sleep);

my $guest = 'd92e0c7b-72a1-4063-9ee8-2acefc240358';
my $other = '0a1b2c3d-0000-4000-8000-00000000000f';
my $uuid = qr/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;
my $stamp = qr/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z/;
my $generate = '/user_identities/generate_instant_key';
my $fake = FakeSeam->start;
my $json = JSON::PP->new->utf8->canonical;

# ---------- the client ----------

sub dial
{
	my ($port) = @_;
	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port // $fake->port, Timeout => 5)
	  or die "connect: $@";
	setsockopt($s, IPPROTO_TCP, TCP_NODELAY, 1);
	return $s;
}

# The bytes of a request; %o: auth, type, method, length, extra
sub request
{
	my ($path, $body, %o) = @_;
	$body = $json->encode($body) if ref $body;
	$body //= '';
	return join("\r\n",
		($o{method} // 'POST') . " $path HTTP/1.1", 'Host: fake',
		exists $o{auth} ? (defined $o{auth} ? "Authorization: $o{auth}" : ()) : 'Authorization: Bearer seam_test_key',
		'Content-Type: ' . ($o{type} // 'application/json'),
		'Content-Length: ' . ($o{length} // length $body),
		@{ $o{extra} // [] }, '', '') . $body;
}

# Read until $done->(bytes) or the end; returns bytes and how it ended: 'done',
# 'eof', 'reset' or 'open' (nothing more within $patience seconds).
sub receive
{
	my ($s, $done, $patience) = @_;
	my $got = '';
	my $select = IO::Select->new($s);
	while (1)
	{
		return ($got, 'done') if $done->($got);
		return ($got, 'open') unless $select->can_read($patience // 5);
		my $n = sysread($s, my $piece, 1 << 20);
		return ($got, $! == ECONNRESET ? 'reset' : "error $!") if !defined $n;
		return ($got, 'eof') if $n == 0;
		$got .= $piece;
	}
}

# Whether the bytes hold a whole answer with a Content-Length or in chunks.
sub whole
{
	my ($got) = @_;
	$got =~ s/\AHTTP\/1.1 103 .*?\r\n\r\n//s;
	my ($head, $body) = $got =~ /\A(.*?\r\n)\r\n(.*)\z/s or return 0;
	return $body =~ /\r\n0\r\n\r\n\z/ if $head =~ /^transfer-encoding: chunked/im;
	return $head =~ /^content-length: (\d+)/im && length $body >= $1;
}

sub until_end { return 0; }

# The parts of an answer: status, head, body, and the body as JSON where it is.
sub parts
{
	my ($got) = @_;
	my ($head, $body) = $got =~ /\A(.*?)\r\n\r\n(.*)\z/s;
	my ($status) = ($head // '') =~ /\AHTTP\/1.\d (\d+)/;
	return { status => $status // '', head => $head // '', body => $body // '',
		json => scalar(eval { $json->decode($body) }) };
}

# One call with a SPEC on a connection of its own.
sub call
{
	my ($spec, %o) = @_;
	my $s = $o{on} // dial();
	$s->syswrite(request((defined $spec ? "/do/$spec" : '') . ($o{path} // $generate),
		$o{body} // { user_identity_id => $guest }, %o));
	my ($got, $end) = receive($s, $o{done} // \&whole, $o{patience});
	return { %{ parts($got) }, got => $got, end => $end, socket => $s };
}

sub issued { return scalar(() = $fake->keys); }

# A call that must end in this way without a byte; and whether it issued a key.
sub silent
{
	my ($spec, $end, $keys) = @_;
	$fake->reset;
	my $r = call($spec, done => \&until_end, patience => $end eq 'open' ? 0.3 : 5);
	is("$r->{end}/$r->{got}", "$end/", "$spec: no byte, $end");
	is(issued(), $keys, "$spec: keys issued");
	my ($q) = $fake->requests;
	is($q->{spec}, $spec, "$spec: recorded");
	return;
}

# ---------- as Seam answers ----------

my $r = call(undef);
is($r->{status}, 200, 'generate');
like($r->{head}, qr/^Content-Type: application\/json/m, 'as JSON');
like($r->{head}, qr/^seam-request-id: $uuid\r?$/m, 'with a request id');
like($r->{head}, qr/^Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r?$/m, 'and a date');
my $key = $r->{json}{instant_key};
is(join(' ', sort keys %{ $r->{json} }), 'instant_key ok', 'two fields on top');
is(join(' ', sort keys %$key),
	'client_session_id created_at expires_at instant_key_id instant_key_url user_identity_id workspace_id',
		'the required fields and no other');
like($key->{$_}, qr/\A$uuid\z/, $_) for qw(client_session_id instant_key_id user_identity_id workspace_id);
like($key->{$_}, qr/\A$stamp\z/, $_) for qw(created_at expires_at);
is($key->{user_identity_id}, $guest, 'of the identity');

my ($q) = $fake->requests;
is("$q->{method} $q->{path} $q->{status}", "POST $generate 200", 'recorded');
is($q->{body}, qq({"user_identity_id":"$guest"}), 'with its body');
ok(grep({ $_->[0] eq 'Authorization' && $_->[1] eq 'Bearer seam_test_key' } @{ $q->{headers} }),
	'and its headers in their case');
is($q->{instant_key_id}, $key->{instant_key_id}, 'and what it was given');

$r = call(undef, body => { user_identity_id => $guest, max_use_count => 7, customization_profile_id => $other });
is($r->{json}{instant_key}{customization_profile_id}, $other, 'a profile');
like($r->{json}{instant_key}{customization}{logo_url}, qr/^https:/, 'and its customization');
is(($fake->keys)[1]{max_use_count}, 7, 'the count is kept');

foreach my $c (
	[ 400, { user_identity_id => 'x' }, 'user_identity_id' ], [ 400, {}, 'user_identity_id' ],
	[ 400, { user_identity_id => $guest, max_use_count => 0 }, 'max_use_count' ],
	[ 400, { user_identity_id => $guest, max_use_count => '1' }, 'max_use_count' ],
	[ 400, { user_identity_id => $guest, customization_profile_id => undef }, 'customization_profile_id' ],
	[ 400, { user_identity_id => $guest, colour => 1 }, 'colour' ])
{
	my ($status, $body, $field) = @$c;
	my $name = $json->encode($body);
	$r = call(undef, body => $body);
	is($r->{status}, $status, "$name is refused");
	is(ref $r->{json}{error}{validation_errors}{$field}{_errors}, 'ARRAY', 'and the tree says where');
}
is(call(undef, body => '{')->{status}, 400, 'no JSON');
is(call(undef, body => '[]')->{status}, 400, 'no object');
is(call(undef, type => 'text/plain')->{status}, 400, 'no JSON type');
is(call(undef, method => 'GET', body => '')->{status}, 405, 'no POST');
is(call(undef, path => '/nowhere')->{status}, 404, 'no such route');
foreach my $c (
	[ 401, undef ], [ 401, 'bearer seam_test_key' ], [ 401, 'Bearer nonsense' ], [ 401, 'Bearer seam_test_revoked' ],
	[ 401, 'Bearer seam_cst1_x' ], [ 401, 'Bearer seam_pk1_x' ], [ 400, 'Bearer seam_at1_x' ], [ 400, 'Bearer eyJx' ],
	[ 200, 'Bearer seam_live_x' ], [ 200, 'Bearer seam_at1_x', "seam-workspace: $other" ])
{
	my ($status, $auth, $workspace) = @$c;
	$r = call(undef, auth => $auth, extra => [ $workspace // () ]);
	is($r->{status}, $status, 'authorization: ' . ($auth // 'none'));
}
is($r->{json}{instant_key}{workspace_id}, $other, 'the workspace that was asked for');

# the life of a key
$fake->reset;
my @keys = map { call(undef)->{json}{instant_key} } 1 .. 2;
call(undef, body => { user_identity_id => $other });
is_deeply(call(undef, path => '/instant_keys/get',
	body => { instant_key_id => $keys[0]{instant_key_id} })->{json}{instant_key}, $keys[0], 'get by id');
is_deeply(call(undef, path => '/instant_keys/get',
	body => { instant_key_url => $keys[1]{instant_key_url} })->{json}{instant_key}, $keys[1], 'get by URL');
is(call(undef, path => '/instant_keys/get', body => { instant_key_id => $other })->{status}, 404,
	'get of an unknown key');
is(call(undef, path => '/instant_keys/get', body => {})->{status}, 400, 'get of nothing');
is_deeply(call(undef, path => '/instant_keys/list', body => { user_identity_id => $guest })->{json}{instant_keys},
	\@keys, 'list of an identity');
is(scalar @{ call(undef, path => '/instant_keys/list', body => {})->{json}{instant_keys} }, 3, 'list of all');
is_deeply(call(undef, path => '/instant_keys/delete', body => { instant_key_id => $keys[0]{instant_key_id} })->{json},
	{ ok => JSON::PP::true }, 'delete');
is(call(undef, path => '/instant_keys/delete', body => { instant_key_id => $keys[0]{instant_key_id} })->{status},
	404, 'once');
is(call(undef, path => '/instant_keys/get', body => { instant_key_url => $keys[0]{instant_key_url} })->{status}, 404,
	'it is gone');
is_deeply(call(undef, path => '/instant_keys/list', body => { user_identity_id => $guest })->{json}{instant_keys},
	[ $keys[1] ], 'from the list, too');
is(join(' ', map { $_->{revoked} ? 1 : 0 } $fake->keys), '1 0 0', 'but not from the record');
my $name = call(undef, path => '/user_identities/create', body => { full_name => 'Ada' })->{json}{user_identity};
is_deeply(call(undef, path => '/user_identities/list', body => {})->{json}{user_identities}, [$name], 'an identity');

# ---------- no answer ----------

silent('hang', 'open', 0);
silent('hang_after', 'open', 1);
silent('reset', 'reset', 0);
silent('reset_after', 'reset', 1);
silent('close', 'eof', 0);
silent('close_after', 'eof', 1);

$fake->reset;
$r = call('die_on_reuse');
is($r->{status}, 200, 'die_on_reuse: the first request is served');
$r = call('die_on_reuse', on => $r->{socket});
is("$r->{end}/$r->{got}", 'eof/', 'the second is not');
is(issued(), 2, 'but done');

$fake->reset;
$r = call('early', length => 100000, done => \&until_end);
is("$r->{status} $r->{end}", '413 eof', 'early: before the body');
is(issued(), 0, 'and nothing is done');

# ---------- when the bytes go ----------

sub timed
{
	my $start = time;
	my $answer = call(@_);
	return ($answer, (time - $start) * 1000);
}
my ($d, $ms) = timed('delay=150');
ok($d->{status} == 200 && $ms >= 150, "delay ($ms ms)");
($d, $ms) = timed('drip=1');
ok($d->{status} == 200 && $ms >= 500, "drip ($ms ms for " . length($d->{got}) . ' bytes)');
$r = call('slowheaders=5', done => sub { length $_[0] });
ok(length $r->{got} < 20, 'slowheaders: a bit of the head');
my ($rest) = receive($r->{socket}, sub { whole($r->{got} . $_[0]) });
is(parts($r->{got} . $rest)->{status}, 200, 'and in the end all of it');
# two that wait do not wait for each other, nor does a third
my @slow = map { dial() } 1 .. 50;
$_->syswrite(request("/do/hold$generate", { user_identity_id => $guest })) for @slow;
is(call(undef)->{status}, 200, 'one more');
is($fake->ask('stats')->{in_flight}, 50, 'does not wait for those that are in flight');
$fake->release;
is(scalar(grep { (receive($_, \&whole))[1] eq 'done' } @slow), 50, 'which are answered at the same time');
is($fake->ask('stats')->{in_flight}, 0, 'and then no more');

$r = call('truncate=10', done => \&until_end);
like($r->{head}, qr/^Content-Length: [1-9]\d\d/m, 'truncate: the whole length promised');
is(length($r->{body}) . " $r->{end}", '10 eof', 'a bit of it sent');
is(call('truncate_head=10', done => \&until_end)->{got}, 'HTTP/1.1 2', 'truncate_head');
foreach my $c ([ 'close_idle', '' ], [ 'connection_close', 'close' ], [ 'http10', '' ])
{
	$r = call($c->[0], done => \&until_end);
	my ($connection) = $r->{head} =~ /^Connection: (\w+)/m;
	is("$r->{end} " . ($connection // ''), "eof $c->[1]", "$c->[0]: the connection is closed");
	ok($r->{json}{ok}, 'after the answer');
}
($d, $ms) = timed('close_idle=150', done => \&until_end);
ok($d->{end} eq 'eof' && $ms >= 150, 'close_idle=MS: later');
is(call('http10', done => \&until_end)->{got} =~ /^(\S+)/ && $1, 'HTTP/1.0', 'http10');

# ---------- another answer ----------

foreach my $c ([ 'status=500', 500 ], [ 'status=429', 429 ], [ 'status=404', 404 ], [ 'status=499', 499 ])
{
	$fake->reset;
	$r = call($c->[0]);
	is($r->{status}, $c->[1], $c->[0]);
	is(ref $r->{json}{error}, 'HASH', 'with an error');
	is(issued(), 0, 'and nothing is done');
}
call('status=500,issue');
is(issued(), 1, 'issue: done, although it fails');
$r = call('set=workspace_id:1,noissue');
is("$r->{status} " . issued(), '200 1', 'noissue: not done, although it succeeds');
is(call('status=201')->{json}{instant_key}{user_identity_id}, $guest, 'status below 300: the true answer');
$r = call('status=204', done => sub { $_[0] =~ /\r\n\r\n/ });
is("$r->{status} $r->{body}", '204 ', '204 has no body');
$r = call('status=400,type=a%2Cb,message=c%20d,errors=' . join('', map { sprintf '%%%02x', ord } split //,
	'{"x":{"_errors":["y"]}}'));
is_deeply($r->{json}{error}, { type => 'a,b', message => 'c d', validation_errors => { x => { _errors => ['y'] } } },
	'type, message, errors');
like(call('status=429,retry_after=7')->{head}, qr/^Retry-After: 7\r?$/m, 'retry_after');
like(call('status=429,retry_after=date+7')->{head}, qr/^Retry-After: \w{3}, .* GMT\r?$/m, 'retry_after as a date');
$r = call('redirect=308');
is($r->{status}, 308, 'redirect=N');
like($r->{head}, qr/^Location: $generate\r?$/m, 'to the true route');
$r = call('redirect=http:%2F%2Fexample.com');
is($r->{status}, 302, 'redirect=URL');
like($r->{head}, qr/^Location: http:\/\/example.com\r?$/m, 'to it');
$r = call('echo_auth');
is("$r->{status} $r->{json}{error}{message}", '401 Bad header: Bearer seam_test_key', 'echo_auth');
is(call('body=%00%ffx')->{body}, "\0\xffx", 'body');
is(call('status=503,body=')->{status}, 503, 'body under a status');
like(call('nobody')->{got}, qr/Content-Length: 0\r\n.*\r\n\r\n\z/s, 'nobody');
is(call('notjson')->{json}, undef, 'notjson');
like(call('html')->{body}, qr/<html>/, 'html');
is(call('raw=nonsense', done => \&until_end)->{got}, 'nonsense', 'raw');

# ---------- another document ----------

sub key_of { return call($_[0])->{json}{instant_key}; }
ok(!exists key_of('missing=expires_at')->{expires_at}, 'missing');
ok(!call('missing=instant_key')->{json}{instant_key}, 'missing, on top');
is(join(' ', map { $_ // 'null' } key_of('null=expires_at')->{expires_at}), 'null', 'null');
is(key_of('set=created_at:%22never%22')->{created_at}, 'never', 'set');
is_deeply(key_of('set=a:[1],set=b:2')->{a}, [1], 'set, twice');
is(call('top=extra:5')->{json}{extra}, 5, 'top');
is(key_of("identity=$other")->{user_identity_id}, $other, 'identity');
is_deeply(key_of('customization={}')->{customization}, {}, 'customization');
is(call('okfalse')->{json}{ok}, JSON::PP::false, 'okfalse');
ok(!exists call('nook')->{json}{ok}, 'nook');
is(scalar(() = call('dup=created_at')->{body} =~ /"created_at"/g), 2, 'dup');
$r = call('big=1048577');
is(length $r->{body}, 1048577, 'big');
ok($r->{json}{ok}, 'still valid');
like(call('deep=1000')->{body}, qr/\[{1000}\]{1000}\}\z/, 'deep');
like(call('nul')->{body}, qr/"instant_key_url": ?"[^"]*\\u0000"/, 'nul');
like(call('nul=created_at')->{body}, qr/"created_at": ?"[^"]*\\u0000"/, 'nul in another field');
like(call('rawnul')->{body}, qr/"instant_key_url": ?"[^"]*\0"/, 'rawnul');
like(call('badutf8')->{body}, qr/"instant_key_url": ?"[^"]*\xff\xc0\x80"/, 'badutf8');
like(call('surrogate')->{body}, qr/"instant_key_url": ?"[^"]*\\ud800"/, 'surrogate');
like(call('status=400,badutf8')->{body}, qr/"message": ?"[^"]*\xff/, 'an error message is spoiled as well');
like(call('trailing')->{body}, qr/\} \S/, 'trailing');
like(call('bom')->{body}, qr/\A\xef\xbb\xbf\{/, 'bom');
$fake->reset;
call(undef) for 1 .. 2;
my $list = call('missing=expires_at', path => '/instant_keys/list', body => {})->{json}{instant_keys};
is(scalar(grep { !exists $_->{expires_at} } @$list), 2, 'each key of a list');

# ---------- another head ----------

like(call('header=X-A:b%20c,header=X-D:e')->{head}, qr/^X-A: b c\r\nX-D: e/m, 'header');
is(scalar(() = call('header=content-type:text%2Fplain')->{head} =~ /content-type/ig), 1,
	'header in place of the usual one');
unlike(call('noheader=seam-request-id')->{head}, qr/seam-request-id/i, 'noheader');
ok(length call('bigheader=100000')->{head} > 100000, 'bigheader');
is(scalar(() = call('manyheaders=50')->{head} =~ /^x-many-/mg), 50, 'manyheaders');
$r = call('chunked');
unlike($r->{head}, qr/Content-Length/, 'chunked');
my ($text, $left) = ('', $r->{body});
while ($left =~ s/\A([0-9a-f]+)\r\n// && hex $1)
{
	$text .= substr $left, 0, hex $1;
	$left = substr $left, 2 + hex $1;
}
ok($json->decode($text)->{ok}, 'its chunks make the answer');
like(call('info')->{got}, qr/\AHTTP\/1.1 103 .*?\r\n\r\nHTTP\/1.1 200 /s, 'info');

# ---------- when ----------

$fake->reset;
is(join(' ', map { call('status=500,times=2')->{status} } 1 .. 3), '500 500 200', 'times');
is(call('status=500,times=2,tag=b')->{status}, 500, 'tag: another count');
is(call('status=500,route=list')->{status}, 200, 'route: another one');
is(call('status=500,route=list', path => '/instant_keys/list', body => {})->{status}, 500, 'route: this one');
$fake->ask('reset', { seed => 1 });
my $hits = grep { call('status=500,chance=0.5')->{status} == 500 } 1 .. 100;
ok($hits > 20 && $hits < 80, "chance ($hits of 100)");
my $held = call('hold', done => \&until_end, patience => 0.3);
is("$held->{end}/$held->{got}", 'open/', 'hold: no answer');
is($fake->ask('stats')->{in_flight}, 1, 'it is in flight');
$fake->release($other);
is((receive($held->{socket}, \&whole, 0.3))[1], 'open', 'release of another identity: no answer');
$fake->release($guest);
my ($released) = receive($held->{socket}, \&whole);
is(parts($released)->{status}, 200, 'release: the answer');
$d = call('delay=50,status=429,retry_after=1,times=3');
is($d->{status}, 429, 'combined');
is(call('statsu=500')->{status}, 599, 'a typing error');
is(call('missing=nothing')->{status}, 599, 'a field that is not there');
is(call('status=abc')->{status}, 599, 'no number');
is(call('redirect=99')->{status}, 599, 'no status');
is(call('status=429,retry_after=date+soon')->{status}, 599, 'no date');
is(call('late')->{status}, 200, 'late without a time');

$fake->reset;
$fake->behave($guest, 'status=500', 2);
is(call(undef, body => { user_identity_id => $other })->{status}, 200, 'behave: another identity');
is(join(' ', map { call(undef)->{status} } 1 .. 3), '500 500 200', 'behave: this one, so many times');
$fake->behave('*', 'status=503,route=delete');
is(call(undef)->{status}, 200, 'behave: another route');
is(call(undef, path => '/instant_keys/delete', body => { instant_key_id => $other })->{status}, 503,
	'behave: everybody');
$fake->behave('*', '');
is(call(undef, path => '/instant_keys/delete', body => { instant_key_id => $other })->{status}, 404, 'behave: no more');
ok(!eval { $fake->behave($guest, 'statsu=500'); 1 }, 'behave: a typing error');

# ---------- connections and control ----------

$fake->reset;
$r = call(undef);
call(undef, on => $r->{socket});
call(undef);
is(join(' ', map { $_->{connection} } $fake->requests), '1 1 2', 'connections are told apart');
is($fake->ask('stats')->{connections}, 2, 'and counted, without those of control');
# a request may come in pieces, or two in one
my $s = dial();
foreach my $piece (split //, request($generate, { user_identity_id => $guest }))
{
	$s->syswrite($piece);
}
is(parts((receive($s, \&whole))[0])->{status}, 200, 'a request byte by byte');
$s->syswrite(request("/do/delay=20$generate", { user_identity_id => $guest }) . request('/nowhere'));
my ($both) = receive($s, sub { $_[0] =~ / 200 OK.* 404 Not Found.*ok/s });
like($both, qr/ 200 OK.* 404 Not Found/s, 'two at once, in their order');
$s->syswrite(request($generate, '', length => 10, extra => ['Expect: 100-continue']));
like((receive($s, sub { $_[0] =~ /\r\n\r\n/ }))[0], qr/ 100 Continue/, '100-continue');
$s = dial();
$s->syswrite("nonsense\r\n\r\n");
is(parts((receive($s, \&until_end))[0])->{status}, 400, 'no HTTP');

$fake->clock(-300);
$r = call(undef);
my ($year, $month, $day, $hour, $minute, $second) = $r->{json}{instant_key}{created_at} =~ /(\d+)/g;
my $created = do { local $ENV{TZ} = 'UTC'; POSIX::tzset();
	POSIX::mktime($second, $minute, $hour, $day, $month - 1, $year - 1900) };
ok(abs(time - 300 - $created) < 60, 'clock moves created_at');
like($r->{head}, qr/^Date: .* \Q$hour:$minute:\E/m, 'and Date');
$fake->clock(0);

$fake->reset;
$fake->ask('seed-keys', { user_identity_id => $guest, count => 50000 });
my ($length, @seconds);
foreach my $once (1 .. 2)
{
	$s = dial();
	my $start = time;
	$s->syswrite(request('/instant_keys/list', { user_identity_id => $guest }));
	my ($head) = receive($s, sub { $_[0] =~ /\r\n\r\n/ });
	push @seconds, time - $start;
	($length) = $head =~ /^Content-Length: (\d+)/m;
	close $s;
}
ok($length > 50000 * 350 && $length < 50000 * 400, "50,000 keys ($length bytes)");
note("listed in $seconds[0] s, then $seconds[1] s");
$fake->reset;
is(issued(), 0, 'reset');

# ---------- TLS, and no TLS ----------

my $dir = File::Temp::tempdir(CLEANUP => 1);
FakeSeam::make_certs($dir);
foreach my $c ([ 'good', 'OK' ], [ 'expired', 'expired' ], [ 'selfsigned', 'self.signed' ],
	[ 'other', 'ostname mismatch' ])
{
	my ($cert, $verdict) = @$c;
	my $tls = FakeSeam->start('--tls-cert', "$dir/$cert.pem", '--tls-key', "$dir/$cert.key");
	my $port = $tls->port;
	my $names = '-verify_hostname localhost -servername localhost';
	like(`openssl s_client -connect 127.0.0.1:$port -CAfile $dir/ca.pem $names </dev/null 2>&1`,
		qr/Verif\S+[^\n]*$verdict/i, "certificate: $cert");
	is(scalar($tls->requests), 0, 'control without TLS');
	$tls->stop;
}
my $mute = FakeSeam->start('--stall-tls');
$s = dial($mute->port);
$s->syswrite("\x16\x03\x01");
is((receive($s, sub { 0 }, 0.2))[1], 'open', '--stall-tls: connected, and silence');
my $deaf = FakeSeam->start('--no-accept');
ok(!IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $deaf->port, Timeout => 0.5),
	'--no-accept: not even connected');

# ---------- the end ----------

my $fake_program = 'src/test/fake_seam';
like(`python3 $fake_program --help`, qr/^ +deep=N +a field with N nested arrays$/m, '--help: what a misbehaviour does');
my $port = `sh -c 'sh -c "python3 $fake_program --detach"; sleep 0.3'`;
like($port, qr/\A\d+\n\z/, '--detach: prints its port and lets its starter go on');
my $background = `python3 $fake_program --detach`;
ok(dial($background), 'it serves');
my $gone = `perl -e 'print qx(python3 $fake_program --detach)'`;
my $alive = 1;
for (1 .. 600)
{
	$alive = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $gone, Timeout => 1) or last;
	sleep 0.05;
}
ok(!$alive, 'and ends soon after its starter');

done_testing();
