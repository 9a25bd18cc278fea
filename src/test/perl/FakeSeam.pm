# FakeSeam: starts and stops the fake Seam, and asks it what it got.
package FakeSeam;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename qw(dirname);
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP ();

our @EXPORT = qw(HANGS);

# A process that has run for so many seconds hangs.
use constant HANGS => 900;

my $program = abs_path(dirname(__FILE__) . '/../fake_seam');
my @running;

# FakeSeam->start(options of the fake, see its --help): an object.
sub start
{
	my ($class, @options) = @_;
	my $self = bless { out => '', tls => scalar(grep { $_ eq '--tls-cert' || $_ eq '--stall-tls' } @options) }, $class;

	$self->{run} = IPC::Run::start([ 'python3', $program, @options ],
		'<', \undef, '>', \$self->{out}, IPC::Run::timeout(HANGS));
	$self->{run}->pump until $self->{out} =~ /\n/;
	($self->{port}, $self->{control}) = $self->{out} =~ /(\d+)(?: (\d+))?/;
	$self->{control} //= $self->{port};
	push @running, $self;
	return $self;
}

sub port { return $_[0]->{port}; }

# The value of seam_ik.endpoint; with a SPEC for misbehaviour, see --help.
sub url
{
	my ($self, $spec, $host) = @_;
	return sprintf('%s://%s:%d%s', $self->{tls} ? 'https' : 'http',
		$host // ($self->{tls} ? 'localhost' : '127.0.0.1'),
		$self->{port}, defined $spec ? "/do/$spec" : '');
}

# Ask a control route; POST when there is something to say.
sub ask
{
	my ($self, $path, $args) = @_;
	# a test may have set a proxy for the server
	delete local @ENV{ grep { /_proxy$/i } CORE::keys %ENV };
	my $http = HTTP::Tiny->new(timeout => 60);
	my $url = "http://127.0.0.1:$self->{control}/fake/$path";
	my $answer = $args
		? $http->post($url, { content => JSON::PP::encode_json($args) })
		: $http->get($url);

	die "$url: $answer->{status} $answer->{content}" unless $answer->{success};
	return JSON::PP::decode_json($answer->{content});
}

# What came in: a list of hashes with n, connection, method, path, headers, body, time.
sub requests { return @{ $_[0]->ask('requests') }; }

# Every key ever issued, with "revoked" and "max_use_count".
sub keys { return @{ $_[0]->ask('keys') }; }

# Forget all that.
sub reset { $_[0]->ask('reset', {}); return; }

# Requests for this identity misbehave, so many times (for ever without).
sub behave
{
	my ($self, $identity, $spec, $times) = @_;
	$self->ask('behave', { user_identity_id => $identity, spec => $spec, defined $times ? (times => $times) : () });
	return;
}

# What "hold" holds of this identity, or of all, is answered.
sub release { $_[0]->ask('release', { user_identity_id => $_[1] // '*' }); return; }

# The fake's clock goes wrong by so many seconds.
sub clock { $_[0]->ask('clock', { offset_seconds => $_[1] }); return; }

# Keys that are issued from now on live for so many seconds.
sub life { $_[0]->ask('life', { seconds => $_[1] }); return; }

sub stop
{
	my ($self) = @_;
	$self->{run}->kill_kill if $self->{run};
	undef $self->{run};
	return;
}

# make_certs(folder): a CA (ca.pem) and certificates signed by it with their
# keys: good (localhost), other (another name), expired; and selfsigned.
sub make_certs
{
	my ($dir) = @_;
	my $run = sub {
		my ($out, $err);
		IPC::Run::run([@_], '<', \undef, '>', \$out, '2>', \$err) or die "@_: $err";
	};
	my @key = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes');

	$run->('openssl', 'req', '-x509', @key, '-subj', '/CN=test CA', '-days', 2,
		'-keyout', "$dir/ca.key", '-out', "$dir/ca.pem");
	$run->('openssl', 'req', '-x509', @key, '-subj', '/CN=localhost', '-days', 2,
		'-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1',
		'-keyout', "$dir/selfsigned.key", '-out', "$dir/selfsigned.pem");
	# 3.4 and later take dates, and earlier ones a negative number of days
	my $dates = `openssl x509 -help 2>&1` =~ /-not_after/;
	my @expired = $dates ? ('-not_before', '20200101000000Z', '-not_after', '20200102000000Z') : ('-days', -1);
	foreach my $c ([ 'good', 'localhost', '-days', 2 ], [ 'other', 'example.com', '-days', 2 ],
		[ 'expired', 'localhost', @expired ])
	{
		my ($name, $host, @validity) = @$c;
		open my $ext, '>', "$dir/$name.ext" or die $!;
		print $ext "subjectAltName=DNS:$host\n";
		close $ext;
		$run->('openssl', 'req', @key, '-subj', "/CN=$host", '-keyout', "$dir/$name.key", '-out', "$dir/$name.csr");
		$run->('openssl', 'x509', '-req', '-in', "$dir/$name.csr", '-CA', "$dir/ca.pem", '-CAkey', "$dir/ca.key",
			'-CAcreateserial', @validity, '-extfile', "$dir/$name.ext", '-out', "$dir/$name.pem");
	}
	return;
}

END
{
	local $?;
	$_->stop for @running;
}

1;
