# The API key and the URL of a key are in no message, log line or view of ours.
use strict;
use warnings;

use FakeSeam;
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my $secret = 'seam_test_S3CR3T';
my $node = seam_cluster("seam_ik.endpoint = '" . $fake->url . "'", 'log_min_messages = debug5',
	'log_min_error_statement = error');

# run(SQL, options of psql): what psql printed
sub run
{
	my ($sql, %params) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, %params);
	return ($out // '') . ($err // '');
}

$node->safe_psql('postgres', 'CREATE ROLE clerk LOGIN');

# Once the key is set (by a file that psql reads, so that it is not in a
# statement of ours), nothing that is logged contains it.
my $load = "LOAD 'seam_ik'; SELECT set_config('seam_ik.api_key', '$secret', false) IS NOT NULL;";
$node->append_conf('postgresql.conf', "log_statement = none\n");
$node->reload;

my $offset = -s $node->logfile;
my @statements = (CALL, "SELECT count(*) FROM seam_generate_instant_keys(ARRAY['" . guest . "', NULL]::uuid[])",
	"SELECT * FROM seam_list_instant_keys()");
no warnings 'qw';
my $specs = join ', ', map { "'$_'" } qw(status=400 status=401 status=403 status=404 status=429,retry_after=100
	status=500 echo_auth notjson missing=expires_at identity=00000000-0000-4000-8000-000000000000
	reset_after truncate=200 hang big=2000000 manyheaders=1100 redirect=x);
run("$load SET seam_ik.request_timeout = '300ms'; " . join('; ', @statements) . ";
DO \$\$ DECLARE s text; BEGIN
	FOREACH s IN ARRAY ARRAY[$specs] LOOP
		PERFORM set_config('seam_ik.endpoint', '" . $fake->url('') . "' || s, false);
		BEGIN PERFORM seam_generate_instant_key('" . guest .
			"'); EXCEPTION WHEN OTHERS THEN RAISE LOG '% % %', SQLSTATE, SQLERRM, s; END;
		BEGIN PERFORM seam_list_instant_keys(); EXCEPTION WHEN OTHERS THEN RAISE LOG '% %', SQLSTATE, SQLERRM; END;
		BEGIN PERFORM seam_get_instant_key('https://ik.' || 'seam.co/SECRET');
		EXCEPTION WHEN OTHERS THEN RAISE LOG '% %', SQLSTATE, SQLERRM; END;
	END LOOP;
END \$\$;");
run("$load SET seam_ik.endpoint = '" . $fake->url('echo_auth') . "'; " . CALL);
# the key from a file; and calls that are ended
api_key_file($node, $secret);
foreach my $how ('cancel', 'terminate')
{
	$fake->reset;
	my $waiting = background($node, "SET seam_ik.api_key_file = 'seam_api_key'; " . CALL .
		"; SET seam_ik.endpoint = '" . $fake->url('hang_after') . "'; " . CALL . ';');
	ok(wait_for(sub { $fake->requests == 2 }), "$how: a call waits");
	$node->safe_psql('postgres', "SELECT pg_${how}_backend($waiting->{pid})");
	unlike((result_of($waiting))[0], qr/S3CR3T/, 'its error does not show the API key');
}
my $log = slurp_file($node->logfile, $offset);
# (the set_config() that gave the key succeeds, so debug5 does not show it)
is_deeply([ grep { /S3CR3T/ } split /\n/, $log ], [], 'the API key is not in the log');
is_deeply([ grep { /ik\.seam\.co/ } split /\n/, $log ], [], 'the URL of a key is not in the log');
like($log, qr/08007 no whole answer/, 'the errors are');
like($log, qr/$_/, 'so are the ends') for 'canceling statement', 'terminating connection';

# Refused SETs: the statement is hidden, too.
$offset = -s $node->logfile;
my @refused = (
	"SET seam_ik.api_key = '$secret x'", "SET seam_ik.api_key = E'$secret\\n'",
		"SET SESSION seam_ik.api_key TO '\t$secret'", "SET LOCAL seam_ik.api_key = '$secret x'",
	"SELECT set_config('seam_ik.api_key', '$secret x', false)", "ALTER SYSTEM SET seam_ik.api_key = '$secret x'",
		"ALTER ROLE clerk SET seam_ik.api_key = '$secret x'",
	"ALTER DATABASE postgres SET seam_ik.api_key = '$secret x'", "SET seam_ik.api_kye = '$secret'",
		"SET seam_ik.endpoint = 'https://user:$secret\@example.com'",
	"DO \$do\$ BEGIN SET seam_ik.api_key = '$secret x'; END \$do\$",
		"DO \$do\$ BEGIN PERFORM set_config('seam_ik.api_key', '$secret x', false); END \$do\$",
	"SET ROLE clerk; " .
		"CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql SET seam_ik.api_key = '$secret' AS 'SELECT 1'",
	"SET ROLE clerk; SET seam_ik.api_key = '$secret'", "SET ROLE clerk; ALTER SYSTEM SET seam_ik.api_key = '$secret'",
		"SET ROLE clerk; ALTER ROLE clerk SET seam_ik.api_key = '$secret'",
	"SET ROLE clerk; SET LOCAL seam_ik.api_key = '$secret'", "ALTER SYSTEM SET seam_ik.api_kye = '$secret'",
		"ALTER ROLE ALL SET seam_ik.api_key = '$secret x'", "SET seam_ik.api_key = '$secret', 'x'",
	"SET seam_ik.api_key_file TO '$secret', 'x'", "SET seam_ik.workspace_id = '$secret x'",
		"SELECT 1; SET seam_ik.api_key = '$secret x'",
	"CREATE FUNCTION f() RETURNS int LANGUAGE sql SET seam_ik.api_key = '$secret x' AS 'SELECT 1'",
		"PREPARE p AS SELECT set_config('seam_ik.api_key', \$1, false); EXECUTE p('$secret x')");
foreach my $sql (@refused)
{
	my $out = run("LOAD 'seam_ik'; $sql;");

	like($out, qr/ERROR/, "refused: " . ($sql =~ s/$secret/.../r));
	unlike($out, qr/S3CR3T/, 'and not shown to the client');
	$log = slurp_file($node->logfile, $offset);
	is_deeply([ grep { /S3CR3T/ } split /\n/, $log ], [], 'nor in the log');
	# several statements that come as one
	IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "LOAD 'seam_ik'", '-c', $sql ], '>',
		\my $o, '2>', \$out);
	like($out, qr/ERROR/, 'refused, too, in one message');
	$log = slurp_file($node->logfile, $offset);
	is_deeply([ grep { /S3CR3T/ } split /\n/, $log ], [], 'and not in the log');
	$offset = -s $node->logfile;
}

# Statements that fail, wherever and why: the log shows neither the API key nor the URL in them.
my $url = 'https://ik.seam.co/S3CR3T';
my $get = "SELECT seam_get_instant_key('$url')";
my $set_config = "set_config('seam_ik.api_key', '$secret', false)";
my $define = 'LANGUAGE plpgsql AS $f$ BEGIN';
$node->safe_psql('postgres', "
CREATE FUNCTION sets() RETURNS void $define PERFORM $set_config; PERFORM 1 / 0; END \$f\$;
CREATE FUNCTION sets_wrong() RETURNS void $define PERFORM set_config('seam_ik.api_key', '$secret', false, 1); END \$f\$;
CREATE FUNCTION executes() RETURNS void $define EXECUTE 'SET seam_ik.api_key = ''$secret'' x'; END \$f\$;
CREATE FUNCTION executes(key text) RETURNS void $define EXECUTE format('SET seam_ik.api_key = %L', key); END \$f\$;
CREATE FUNCTION set_to(key text) RETURNS void $define PERFORM set_config('seam_ik.api_key', key, false); END \$f\$;
CREATE FUNCTION gets() RETURNS void $define PERFORM seam_get_instant_key('$url'); END \$f\$;
CREATE FUNCTION gets(url text) RETURNS void $define PERFORM seam_get_instant_key(url); END \$f\$;
CREATE FUNCTION gets_and_fails(url text) RETURNS void $define
	BEGIN PERFORM seam_get_instant_key(url); EXCEPTION WHEN OTHERS THEN NULL; END; PERFORM 1 / 0; END \$f\$;
CREATE FUNCTION gets_and_quotes(url text) RETURNS void $define
	BEGIN PERFORM seam_get_instant_key(url); EXCEPTION WHEN OTHERS THEN NULL; END;
	EXECUTE format('oops %L', url); END \$f\$");
my $hang = "SET seam_ik.api_key_file = 'seam_api_key'; SET seam_ik.endpoint = '" . $fake->url('hang') . "'";
my $found = $hang =~ s/hang/delay=1/r;
my @failing = (
	# a syntax error, an aborted transaction, a role that may not, something else in the statement
	"SET seam_ik.api_key = '$secret' x", "SET \"seam_ik\" . api_key = '$secret' x", "BEGIN; SELECT 1 / 0; " .
		"SET seam_ik.api_key = '$secret'; COMMIT", "SET seam_ik.api_key = '$secret'; SELECT 1 / 0",
		"SELECT 1 / 0; SET seam_ik.api_key = '$secret'",
	"SET ROLE clerk; SELECT $set_config", "SELECT set_config('seam_ik.api_key', '$secret' false)",
		"SELECT set_config('seam_ik.api_key', '$secret')",
		"SELECT set_config('SEAM_IK.API_KEY', '$secret', false), 1 / 0 FROM pg_class",
	"SELECT set_config('seam_ik' || '.api_key', '$secret', false), 1 / count(*) FROM pg_class WHERE false",
	"SET ROLE clerk; PREPARE p AS SELECT set_config('seam_ik.api_key', \$1, false); EXECUTE p('$secret')",
	"DO \$do\$ BEGIN PERFORM $set_config; PERFORM 1 / 0; END \$do\$",
		"DO \$do\$ BEGIN SET seam_ik.api_key = '$secret'; oops; END \$do\$",
	"CREATE FUNCTION f() RETURNS void $define SET seam_ik.api_key = '$secret'; oops END \$f\$",
	'SELECT sets()', 'SELECT sets_wrong()', 'SELECT executes()', 'SET ROLE clerk; SELECT sets()',
		"SELECT executes('$secret'), 1 / (relnatts - relnatts) FROM pg_class",
		"SET ROLE clerk; SELECT executes('$secret')", "SET ROLE clerk; SELECT set_to('$secret')",
	# the same of a URL; and what Seam, or its silence, does
	$get, lc $get =~ s/s3cr3t/S3CR3T/r, "SET ROLE clerk; $get", "$get oops (", "BEGIN; SELECT 1 / 0; $get; COMMIT",
		"SET seam_ik.api_key_file = 'seam_api_key'; $get", "SET seam_ik.api_key_file = 'none'; $get",
	"$hang; SET seam_ik.request_timeout = '50ms'; $get", "$hang; SET statement_timeout = '50ms'; $get",
		"$found; $get WHERE 1 / (SELECT count(*) FROM pg_class WHERE false) > 0",
	"SELECT seam_get_instant_key(u) FROM (VALUES ('$url')) v(u)", "PREPARE g(text) AS " .
		"SELECT seam_get_instant_key(\$1); EXECUTE g('$url')", "BEGIN; DECLARE c CURSOR FOR $get; FETCH c; COMMIT",
	'SELECT gets()', "SELECT gets('$url')", 'SET ROLE clerk; SELECT gets()', "SET ROLE clerk; SELECT gets('$url')",
		"DO \$do\$ BEGIN BEGIN PERFORM seam_get_instant_key('$url'); EXCEPTION WHEN OTHERS THEN NULL; END; " .
		"PERFORM 1 / 0; END \$do\$",
	# an argument that the context, or what was executed within, quotes (what is told for
	# debugging may come before anything is known)
	"SET log_min_messages = warning; DO \$do\$ BEGIN PERFORM gets_and_fails('$url'); END \$do\$",
	"SELECT gets_and_quotes('$url')",
	"DO \$do\$ BEGIN PERFORM set_to('$secret'), 1 / count(*) FROM pg_class WHERE false; END \$do\$");
foreach my $sql (@failing)
{
	my $name = $sql =~ s/S3CR3T/.../gr;
	my $out = '';

	# each statement by itself, and all as one
	$offset = -s $node->logfile;
	like(run("LOAD 'seam_ik'; $sql;", on_error_stop => 0), qr/ERROR/, "fails: $name");
	is_deeply([ grep { /S3CR3T/ } split /\n/, slurp_file($node->logfile, $offset) ], [],
		'and the log does not show what is secret');
	$offset = -s $node->logfile;
	IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "LOAD 'seam_ik'", '-c', $sql ], '>',
		\my $o, '2>', \$out);
	like($out, qr/ERROR/, 'fails, too, in one message');
	is_deeply([ grep { /S3CR3T/ } split /\n/, slurp_file($node->logfile, $offset) ], [],
		'and the log does not show it');
}
# a parameter of a prepared statement, whose value the context shows
foreach my $sql ("SELECT set_config('seam_ik.api_key', :key, false), 1 / count(*) FROM pg_class WHERE false",
	'SELECT gets(:url)', 'SELECT gets_and_fails(:url)', 'SELECT seam_get_instant_key(:url::uuid)',
	'SELECT set_to(:key), 1 / count(*) FROM pg_class WHERE false')
{
	my $script = PostgreSQL::Test::Utils::tempdir . '/parameters.sql';
	my $out = '';

	open my $file, '>', $script or die $!;
	print $file "LOAD 'seam_ik';\nSET log_min_messages = warning;\nSET log_parameter_max_length_on_error = -1;\n" .
		"$sql;\n";
	close $file;
	$offset = -s $node->logfile;
	IPC::Run::run([ 'pgbench', '-n', '-M', 'extended', '-t', 1, '-D', "key=$secret", '-D', "url=$url",
		'-f', $script, $node->connstr('postgres') ], '>', \my $o, '2>', \$out);
	$log = slurp_file($node->logfile, $offset);
	like($log, qr/ERROR/, "fails: $sql");
	is_deeply([ grep { /S3CR3T/ && !/invalid input syntax/ } split /\n/, $log ], [],
		'and the log does not show the value of its parameter');
}
# other statements are logged as ever, also in that session
$offset = -s $node->logfile;
run("$get; SELECT 1 / 0 AS other; " . CALL . ' AS without_key', on_error_stop => 0);
$log = slurp_file($node->logfile, $offset);
like($log, qr/STATEMENT: .*AS $_/, 'the statement of another error is logged') for 'other', 'without_key';
# a call that is ended from outside
foreach my $how ('cancel', 'terminate')
{
	$offset = -s $node->logfile;
	$fake->reset;
	my $waiting = background($node, "$hang; $get;");
	ok(wait_for(sub { $fake->requests == 1 }), "$how: a call with a URL waits");
	$node->safe_psql('postgres', "SELECT pg_${how}_backend($waiting->{pid})");
	like((result_of($waiting))[0], qr/57014|57P01/, 'and is ended');
	is_deeply([ grep { /S3CR3T/ } split /\n/, slurp_file($node->logfile, $offset) ], [],
		'and the log does not show the URL');
}

# What an ordinary role can read.
my $watch = background($node, "$load SELECT seam_generate_instant_key('" . guest . "') IS NULL;\nSELECT pg_sleep(60);");
wait_for(
	sub { $node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $watch->{pid}") =~ /pg_sleep/ });
my $seen = run("SET ROLE clerk; SELECT * FROM pg_stat_activity; SELECT * FROM pg_settings; SHOW ALL; " .
	"SELECT * FROM pg_db_role_setting;");
unlike($seen, qr/S3CR3T|ik\.seam\.co/, 'what an ordinary role can read does not show them');
unlike(run("$load SHOW ALL; SELECT * FROM pg_settings; SHOW seam_ik.api_key"), qr/S3CR3T/,
	'nor what the superuser is shown');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($watch->{pid})");
result_of($watch);

# A key that other roles can read: one warning a session, and what to do.
my $calls = join '; ', (CALL) x 3;
my $warning = qr/WARNING:  every role can read seam_ik\.api_key/;
sub warnings_in { return scalar(() = $_[0] =~ /$warning/g); }
is(warnings_in(run("$load $calls")), 0, 'no warning for a SET');
$node->safe_psql('postgres', "ALTER DATABASE postgres SET seam_ik.api_key = '$secret'");
my $out = run($calls);
is(warnings_in($out), 1, 'ALTER DATABASE: one warning a session');
is(scalar(() = $out =~ /d92e0c7b/g), 3, 'a key from before the library was loaded is used');
like($out, qr/pg_db_role_setting.*api_key_file/s, 'which says what to do');
unlike($out, qr/S3CR3T/, 'and does not show it');
$node->safe_psql('postgres', "ALTER DATABASE postgres RESET seam_ik.api_key; " .
	"ALTER ROLE clerk SET seam_ik.api_key = '$secret'");
is(warnings_in(run("$load $calls")), 1, "ALTER ROLE, also another's: one warning a session");
$node->safe_psql('postgres', 'ALTER ROLE clerk RESET seam_ik.api_key');

$node->append_conf('postgresql.conf', "seam_ik.api_key = '$secret'\n");
$node->reload;
wait_for(sub { warnings_in(run($calls)) });
$out = run($calls);
is(warnings_in($out), 1, 'postgresql.conf without preloading: one warning a session');
like($out, qr/shared_preload_libraries/, 'which says what to do');
is($node->safe_psql('postgres', "SET ROLE clerk; SHOW seam_ik.api_key"), $secret,
	'(that is the hole: a placeholder that anyone can SHOW)');
# (the library is loaded before anything else is done, unless some have another list)
$node->append_conf('postgresql.conf', "session_preload_libraries = 'seam_ik'\n");
$node->reload;
wait_for(sub { run('SHOW session_preload_libraries') =~ /seam_ik/ });
is(warnings_in(run($calls)), 0, 'loaded by each session: no warning');
like(run('SET ROLE clerk; SHOW seam_ik.api_key'), qr/ERROR/, 'nobody can SHOW it');
$node->safe_psql('postgres', 'ALTER ROLE clerk SET session_preload_libraries = plpgsql');
is(warnings_in(run($calls)), 1, 'loaded by some: a warning');
$node->safe_psql('postgres', 'ALTER ROLE clerk RESET session_preload_libraries');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'seam_ik'\n");
$node->restart;
is(warnings_in(run($calls)), 0, 'preloaded: no warning');
like(run('SET ROLE clerk; SHOW seam_ik.api_key'), qr/ERROR/, 'preloaded: nobody can SHOW it');
is($node->safe_psql('postgres', "SELECT (seam_generate_instant_key('" . guest . "')).user_identity_id"), guest,
	'and it works');

$node->stop;
done_testing();
