# Guests: what most tests do with a server and a fake Seam: statements, identities and
# their keys, requests of the outbox, the worker.
#
# Which server, fake and database is said by meet(), and again when it changes.  A
# database in brackets may be left out: it is that of meet().
package Guests;

use strict;
use warnings;

use Exporter qw(import);
use PostgreSQL::Test::Utils;
use SeamIK;

our @EXPORT_OK = qw(meet new_guest sql answers error_of call keys_of live live_keys asked sent wait_sent
	lists_of mark calls say_to printed open_call intents_of enqueue busy status state_of wait_state columns_of
	states_of statuses key_of has_key owned reported settled quiet worker_of up set pause go_on logged);

my ($node, $fake, $database);
my $guests = 0;

# meet($node, $fake, $database): those are meant from now on; the fake stays where none is
# told, and the database is postgres then.
sub meet
{
	$node = $_[0];
	$fake = $_[1] // $fake;
	$database = $_[2] // 'postgres';
	return;
}

# ---------- identities and statements ----------

# An identity that no other one of the test has.
sub new_guest { return sprintf '00000000-0000-4000-8000-%012d', ++$guests; }

# sql([database,] statements): what psql prints.
sub sql
{
	my $sql = pop;
	return $node->safe_psql($_[0] // $database, $sql);
}

# answers(database, query, answer): until it does; the server may be away.
sub answers { my ($db, $sql, $answer) = @_; return wait_for(sub { ask($node, $sql, $db) eq $answer }); }

# What a failing statement says, its SQLSTATE in front.
sub error_of
{
	my ($sql) = @_;
	my @verbose = (extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return ($node->psql($database, $sql, @verbose))[2] =~ s/^psql:<stdin>:\d+: ERROR:  //r;
}

# The statement with which a session has a key issued.
sub call { return "SELECT (seam_generate_instant_key('$_[0]')).instant_key_id"; }

# ---------- sessions ----------

# say_to(session of background(), statements): it goes on with these; printed(session, what):
# until it has printed that.
sub say_to { my ($s, $sql) = @_; $s->{in} .= "$sql\n"; $s->{run}->pump_nb for 1 .. 3; return; }
sub printed { my ($s, $what) = @_; return wait_for(sub { $s->{run}->pump_nb; $s->{out} =~ /$what/ }); }

# open_call([database,] guest): a session with an open transaction that has issued a key
# for the guest.
sub open_call
{
	my $guest = pop;
	my $s = background($node, 'BEGIN; ' . call($guest) . "; SELECT 'called';", $_[0] // $database);
	printed($s, 'called') or die 'no call';
	return $s;
}

# intents_of([database,] guest): how many calls for the guest are recorded in the journal.
sub intents_of
{
	my $guest = pop;
	return sql(@_, "SELECT count(*) FROM seam_instant_key_call WHERE '$guest' = ANY (user_identity_ids)");
}

# ---------- what Seam has, and was asked ----------

# keys_of(guest, fake): the keys that were ever issued to the guest.
sub keys_of
{
	my ($guest, $of) = @_;
	return grep { $_->{user_identity_id} eq $guest } ($of // $fake)->keys;
}

# live_keys(guest, fake): the ids of those that open a door; live(): in one string, with
# commas.
sub live_keys
{
	my @ids = sort map { $_->{instant_key_id} } grep { !$_->{revoked} } keys_of(@_);
	return @ids;
}

sub live { return join ',', live_keys(@_); }

# asked(guest, route, fake): the requests about the guest that came to this route, or to
# that which issues a key.
sub asked
{
	my ($guest, $route, $of) = @_;
	$route //= 'generate_instant_key';
	return grep { $_->{path} =~ m{/\Q$route\E$} && $_->{body} =~ /\Q$guest\E/ } ($of // $fake)->requests;
}

# How many requests came to issue a key to the guest; and until there is one.
sub sent { return scalar asked($_[0]); }
sub wait_sent { my ($guest) = @_; return wait_for(sub { sent($guest) }); }

# How often Seam was asked which keys the guest has.
sub lists_of { return scalar asked($_[0], 'list'); }

# A mark in time; and calls(mark, guest, route): the requests that came since, or those of
# a guest, or to a route.
sub mark { return $fake->ask('stats')->{requests}; }

sub calls
{
	my ($since, $guest, $route) = @_;
	return grep { (!$guest || index($_->{body}, $guest) >= 0) && (!$route || $_->{path} =~ /\/$route$/) }
		@{ $fake->ask("requests?since=$since") };
}

# ---------- requests of the outbox ----------

# enqueue([database,] guest, further arguments in SQL): the request's id.
sub enqueue
{
	my $db = $_[0] =~ /^[0-9a-f]{8}-/ ? $database : shift;
	my ($guest, @more) = @_;
	return sql($db, 'SELECT seam_enqueue_instant_key(' . join(', ', "'$guest'", @more) . ')');
}

# busy(database): a request hangs there; its guest and its id.
sub busy
{
	my ($db) = @_;
	my $guest = new_guest();

	$fake->behave($guest, 'hang');
	my $id = enqueue($db, $guest);
	wait_sent($guest) or die 'nothing was sent';
	return ($guest, $id);
}

# status([database,] request)
sub status
{
	my $id = pop;
	return sql(@_, "SELECT status FROM seam_instant_key_request WHERE request_id = $id");
}

# state_of(database, request): its status and SQLSTATE (or -); and until it is such.
sub state_of
{
	my ($db, $id) = @_;
	return sql($db, "SELECT status || ' ' || coalesce(sqlstate, '-') FROM seam_instant_key_request
		WHERE request_id = $id");
}

sub wait_state { my ($db, $id, $state) = @_; return wait_for(sub { state_of($db, $id) eq $state }); }

# columns_of(guest, columns): these of the guest's requests, a line for each.
sub columns_of
{
	my ($guest, $columns) = @_;
	return sql("SELECT $columns FROM seam_instant_key_request WHERE user_identity_id = '$guest' ORDER BY request_id");
}

# The statuses of the guest's requests.
sub statuses { return columns_of($_[0], 'status') =~ s/\n/, /gr; }

# What a row of a table shows in its column key_id; and until that is the guest's only live key.
sub key_of { my ($table, $id) = @_; return sql("SELECT key_id FROM $table WHERE id = $id"); }
sub has_key
{
	my ($table, $id, $of) = @_;
	return wait_for(sub { my $key = key_of($table, $id); $key ne '' && live($of) eq $key });
}

# states_of([database,] guest): status, SQLSTATE and attempts of each request of the guest.
sub states_of
{
	my $guest = pop;
	return sql(@_, "SELECT string_agg(status || coalesce(' ' || sqlstate, '') || ' ' || attempts, ', '
		ORDER BY request_id) FROM seam_instant_key_request WHERE user_identity_id = '$guest'");
}

# The keys that the guest's requests have, as live() has them.
sub owned
{
	return sql("SELECT string_agg((instant_key).instant_key_id::text, ',' ORDER BY (instant_key).instant_key_id::text)
		FROM seam_instant_key_request WHERE user_identity_id = '$_[0]' AND status = 'issued'");
}

# Why keys and doubts of these guests are reported, or '-'.
sub reported
{
	my $guests = join ',', map { "'$_'" } @_;
	return sql("SELECT coalesce(string_agg(last_error, ' '), '-') FROM seam_instant_key_orphan
		WHERE user_identity_id IN ($guests)");
}

# Until no request has anything left to be done, but for those of a guest.
sub settled
{
	my $but = $_[0] // '00000000-0000-0000-0000-000000000000';
	return wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request
		WHERE next_attempt_at IS NOT NULL AND user_identity_id IS DISTINCT FROM '$but'") == 0 });
}

# quiet([database]): until no request and no call has.
sub quiet
{
	my $db = $_[0] // $database;
	return wait_for(sub { ask($node, UNSETTLED, $db) eq '0' });
}

# ---------- the worker, settings, the log ----------

# worker_of([database]): the pid of its worker, or ''; also while the server is away.
sub worker_of
{
	my $db = $_[0] // $database;
	return ask($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'seam_ik worker' AND datname = '$db'");
}

# up([database, [pid]]): until it has a worker with another pid: that, or undef.
sub up
{
	my ($db, $not) = @_;
	my $pid;

	wait_for(sub { $pid = worker_of($db); $pid ne '' && $pid ne ($not // '') }) or return undef;
	return $pid;
}

# set(setting => value, ...): by ALTER SYSTEM and a reload; undef for none.
sub set
{
	my (%settings) = @_;

	sql(join(' ', map { defined $settings{$_} ? "ALTER SYSTEM SET seam_ik.$_ = '$settings{$_}';"
			: "ALTER SYSTEM RESET seam_ik.$_;" } sort keys %settings) . ' SELECT pg_reload_conf()');
	return;
}

# No request is sent when pause() returns; go_on() ends that.
sub pause { set(worker => 'off'); reload($node); return; }
sub go_on { set(worker => undef); return; }

# What the server logged from this place on.
sub logged { return slurp_file($node->logfile, $_[0]); }

1;
