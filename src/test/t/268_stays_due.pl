# Keys for stays, by Seam's clock: what is looked at when it is due, renewed, put off or over,
# and what was due while the server was away.
use strict;
use warnings;

use FakeSeam;
use Guests qw(meet new_guest sql error_of live live_keys keys_of sent asked columns_of enqueue wait_state
	statuses key_of has_key mark calls set up);
use POSIX qw(strftime);
use PostgreSQL::Test::Utils;
use SeamIK;
use Test::More;

my $fake = FakeSeam->start;
my ($preload, $set_clock) = movable_clock();
my $node;
{
	local $ENV{LD_PRELOAD} = $preload;
	$node = seam_cluster("shared_preload_libraries = 'seam_ik'", "seam_ik.api_key_file = 'seam_api_key'",
		"seam_ik.endpoint = '" . $fake->url . "'", "seam_ik.settle_delay = '1s'", "timezone = 'UTC'");
}
meet($node, $fake);
api_key_file($node, 'seam_test_due');

my $keep = "EXECUTE FUNCTION seam_keep_instant_key_trigger('user_identity_id=guest', 'issue_at=check_in', " .
	"'valid_until=check_out', 'wanted=confirmed', 'instant_key_id=key_id')";
sub table
{
	my ($name, $more) = @_;
	return "CREATE TABLE $name (id int PRIMARY KEY, guest uuid, check_in timestamptz, check_out timestamptz, " .
		'confirmed boolean DEFAULT true, key_id uuid' . ($more // '') . '); CREATE TRIGGER stay AFTER INSERT OR ' .
		"UPDATE OR DELETE ON $name FOR EACH ROW $keep;";
}
my $ids = 0;
# stay(table, guest, check in, check out): its id.  Times are SQL.
sub stay
{
	my ($table, $guest, $in, $out) = @_;
	$ids++;
	sql("INSERT INTO $table (id, guest, check_in, check_out) VALUES ($ids, '$guest', $in, $out)");
	return $ids;
}
# until there is nothing left to do, but for what sleeps
sub quiet
{
	return wait_for(sub { sql("SELECT count(*) FROM seam_instant_key_request WHERE wake_at = '-infinity' OR " .
		'next_attempt_at IS NOT NULL OR row_task IS NOT NULL') == 0 });
}
# at(hours): it is so many hours later at Seam, which an answer has told the worker, and all
# that is due is done.  What could be done by the one before is not waited for here.
my $hours = 0;
sub at
{
	($hours) = @_;
	$fake->clock(3600 * $hours);
	wait_state('postgres', enqueue(new_guest()), 'issued -') or die;
	# (what is due then is seen, when one of later is: they are looked at in this order)
	my $last = new_guest();
	sql("SELECT seam_enqueue_instant_key('$last', issue_at => now() + interval '$hours hours')");
	ok(wait_for(sub { sent($last) }), "it is $hours hours later") or die;
	return ok(quiet(), 'what is due is done');
}
# the guest's keys that open a door then, in one string
sub alive
{
	my $now = strftime('%Y-%m-%dT%H:%M:%S', gmtime(time + 3600 * $hours));
	return join ',', map { $_->{instant_key_id} } grep { !$_->{revoked} && $_->{expires_at} gt $now } keys_of($_[0]);
}
sub in_hours { return "now() + interval '$_[0] hours'"; }

# ---------- the beginning ----------

sql(table('booking') . table('off') . table('emptied') . table('unwritten', ', CHECK (key_id IS NULL)'));
# (keys live for 48 hours, and are renewed 6 hours before that)
my %guest = map { $_ => new_guest() } qw(plain brief never late arrives switched unwanted deleted other emptied
	unwritten scheduled locked put_off);
my $endless = 'NULL';
my %id = (
	plain => stay('booking', $guest{plain}, 'NULL', $endless),
	brief => stay('booking', $guest{brief}, 'NULL', in_hours(47.8)),
	never => stay('booking', $guest{never}, "'infinity'", $endless),
	late => stay('booking', $guest{late}, 'NULL', $endless),
	arrives => stay('booking', $guest{arrives}, in_hours(24), $endless),
	switched => stay('booking', $guest{switched}, in_hours(24), $endless),
	unwanted => stay('booking', $guest{unwanted}, in_hours(24), $endless),
	deleted => stay('booking', $guest{deleted}, 'NULL', $endless),
	other => stay('booking', $guest{other}, 'NULL', $endless),
	emptied => stay('emptied', $guest{emptied}, 'NULL', $endless),
	scheduled => stay('emptied', $guest{scheduled}, in_hours(24), $endless),
	unwritten => stay('unwritten', $guest{unwritten}, 'NULL', $endless),
	locked => stay('booking', $guest{locked}, 'NULL', in_hours(20)),
	put_off => stay('booking', $guest{put_off}, 'NULL', $endless));
# a stay without a row, of a role that may call functions alone
sql('CREATE ROLE clerk; GRANT EXECUTE ON FUNCTION seam_enqueue_instant_key, seam_instant_key_request_result, ' .
	'seam_cancel_instant_key_request TO clerk');
my @rowless = map { new_guest() } 1 .. 3;
my @first = map { sql("SET ROLE clerk; SELECT seam_enqueue_instant_key('$_', 2, reference => 'of $_', " .
	"valid_until => 'infinity')") } @rowless;
my $ended = new_guest();
my $ended_first = sql("SELECT seam_enqueue_instant_key('$ended', reference => 'ended', issue_at => " . in_hours(24) .
	', valid_until => ' . in_hours(48) . ')');
ok(quiet(), 'stays of every kind');
my %key = map { $_ => key_of('booking', $id{$_}) } qw(plain brief late locked put_off deleted other);
is(live($guest{$_}), $key{$_}, "$_: a key") for sort keys %key;
is(columns_of($guest{unwritten}, 'status, sqlstate') . ' ' . scalar(live_keys($guest{unwritten})), 'issued|23514 1',
	'one of them could not be written');
sql("UPDATE booking SET check_in = 'infinity' WHERE id = $id{put_off}");
ok(quiet(), 'one is put off for ever');
is(live($guest{put_off}) . statuses($guest{put_off}), 'revoked, pending', 'its key is revoked');

# What no trigger sees.
my $another = new_guest();
sql("SET session_replication_role = replica; UPDATE booking SET guest = '$another' WHERE id = $id{switched};
	UPDATE booking SET guest = '$another' WHERE id = $id{other}; DELETE FROM booking WHERE id = $id{deleted};
	UPDATE booking SET confirmed = false WHERE id = $id{unwanted}; TRUNCATE emptied");

# ---------- a day later ----------

# whoever has locked the row does not keep a key alive
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT FROM booking WHERE id = $id{locked} FOR UPDATE");
$fake->clock(21 * 3600);
wait_state('postgres', enqueue(new_guest()), 'issued -') or die;
ok(wait_for(sub { live($guest{locked}) eq '' }), 'a stay is over while its row is locked: revoked');
is(key_of('booking', $id{locked}), $key{locked}, '(which shows the key)');
$holder->query_safe('COMMIT');
$holder->quit;
ok(wait_for(sub { key_of('booking', $id{locked}) eq '' }), 'and cleared when it may');

at(25);
is(key_of('booking', $id{arrives}), live($guest{arrives}), 'the row of an arrival has its key');
is(scalar(live_keys($guest{arrives})), 1, 'one');
foreach my $which (qw(switched unwanted scheduled))
{
	is(statuses($guest{$which}) . sent($guest{$which}), 'cancelled0', "$which, unseen: nothing is sent");
}
is(live($ended), sql("SELECT (seam_instant_key_request_result($ended_first)).instant_key_id"),
	'that of a stay without a row its result');
is(live($guest{$_}) eq '', '', "$_, unseen: nothing is looked at yet") for qw(deleted other emptied);

# ---------- seam_ik.renew_before ----------

like(error_of("SET ROLE clerk; SET seam_ik.renew_before = '1h'"), qr/^42501: /, 'not everybody may set it');
sql('GRANT SET ON PARAMETER seam_ik.renew_before TO clerk');
is(sql("SET ROLE clerk; SET seam_ik.renew_before = '1h'; SHOW seam_ik.renew_before"), '1h', 'who is granted that may');
my $sent = sent($guest{late});
set(renew_before => '24h');
ok(wait_for(sub { statuses($guest{late}) eq 'issued, issued' }), 'longer: keys that were issued are renewed earlier');
ok(quiet(), 'all is done');
is(statuses($guest{$_}), 'issued', "$_ is not: half of its life has not passed") for 'arrives';
is(join(',', live_keys($guest{late})), join(',', sort $key{late}, key_of('booking', $id{late})),
	'the former key lives on');
# (these keys live until the 73rd hour)
set(renew_before => '1h');

# ---------- what a renewal looks at ----------

is(statuses($guest{plain}), 'issued, issued', 'a stay without an end is renewed');
is(statuses($guest{$_}) . live($guest{$_}), 'revoked, cancelled', "$_, unseen: what lives is revoked")
	for qw(deleted other emptied);
is(key_of('booking', $id{other}), $key{other}, 'what the row shows is left to whoever has changed it');
is(statuses($guest{unwritten}) . sent($guest{unwritten}), 'issued1', 'a key that could not be written is not renewed');
is(sent($guest{never}) + sent($guest{put_off}), 1, 'and infinity has not come');
sql('ALTER TABLE unwritten DROP CONSTRAINT unwritten_key_id_check; SELECT seam_retry_instant_key_request(' .
	columns_of($guest{unwritten}, 'request_id') . ')');
ok(wait_for(sub { my $key = key_of('unwritten', $id{unwritten}); $key ne '' && $key eq live($guest{unwritten}) }),
	'it is written');

# ---------- later ----------

at(47.5);
is(statuses($guest{unwritten}), 'issued, issued', 'a key that was written at last is renewed');
is(statuses($guest{brief}) . live($guest{brief}), "issued$key{brief}", 'one that ends before its key is not');
at(60);
is(statuses($guest{plain}), 'issued, issued', 'shorter: keys that were issued are renewed later');
is(live($guest{brief}) . key_of('booking', $id{brief}), '', 'the end of a stay');
is(live($ended) . statuses($ended), 'revoked', 'and of one without a row');
at(72.5);
is(statuses($guest{plain}), 'issued, issued, issued', 'then they are');
is(statuses($guest{arrives}), 'issued, issued', 'those of an arrival, too');

# ---------- stays without a row ----------

foreach my $n (0 .. 2)
{
	my $who = $rowless[$n];
	is(columns_of($who, 'status, reference, enqueued_by::regrole, max_use_count'),
		join("\n", ("issued|of $who|clerk|2") x 3), 'successors have the reference, the role and the count');
	my @ids = split /\n/, columns_of($who, 'request_id');
	is($ids[0], $first[$n], '(the first one is that of the function)');
	my $newest = (keys_of($who))[-1]{instant_key_id};
	is(sql("SET ROLE clerk; SELECT (seam_instant_key_request_result($_)).instant_key_id"), $newest,
		'the result of each is the newest key') for @ids;
	like(sql("SET ROLE clerk; SELECT seam_cancel_instant_key_request($ids[$n])"), qr/revoking/,
		'to cancel number ' . ($n + 1));
	ok(wait_for(sub { alive($who) eq '' }), 'ends them all');
	ok(quiet(), 'for good');
	is(statuses($who), 'issued, revoked, revoked', '(the first had expired)');
	is(sql("SET ROLE clerk; SELECT (seam_instant_key_request_result($first[$n])).instant_key_id"), '',
		'there is no result then');
}

# ---------- a row that cannot be looked at, and a local clock that is set back ----------

my $off = new_guest();
my $off_id = stay('off', $off, in_hours(72.6), 'NULL');
sql('ALTER TABLE off DISABLE TRIGGER stay');
$fake->clock(3600 * ($hours = 73));
wait_state('postgres', enqueue(new_guest()), 'issued -') or die;
ok(wait_for(sub { columns_of($off, 'row_task_at > now()') eq 't' }), 'a look waits while the trigger is off');
$set_clock->(-2 * 3600);
sql('ALTER TABLE off ENABLE TRIGGER stay');
enqueue(new_guest());
ok(has_key('off', $off_id, $off), 'and is made when it is on, whatever the local clock says');
$set_clock->(0);

# ---------- what an old copy of the row shows ----------

my $newest = key_of('booking', $id{plain});
my $live = alive($guest{plain});
$sent = sent($guest{plain});
sql("UPDATE booking SET key_id = '$key{plain}' WHERE id = $id{plain}");
ok(wait_for(sub { key_of('booking', $id{plain}) eq $newest }), 'the key of before two renewals: the newest is shown');
ok(quiet(), 'all is done');
is(alive($guest{plain}) . sent($guest{plain}), "$live$sent", 'and all is as it was');
sql("UPDATE booking SET key_id = gen_random_uuid() WHERE id = $id{plain}");
ok(wait_for(sub { alive($guest{plain}) eq '' }), 'another value: every key is revoked');
at(400);
is(sent($guest{plain}), $sent, 'and none is renewed');
is(sent($guest{never}) + sent($guest{put_off}), 1, 'nor has infinity come');

# ---------- while the server was away ----------

my @arrivals = map { new_guest() } 1 .. 300;
my $over = new_guest();
my $rowless = new_guest();
my @order = sort { ($a * 19) % 301 <=> ($b * 19) % 301 } 1 .. 300;
my $rows = join ', ', map { sprintf "(%d, '%s', %s + %d * interval '1 second', 'infinity')", 1000 + $_,
	$arrivals[ $_ - 1 ], in_hours(401), ($_ * 19) % 301 } 1 .. 300;
sql("BEGIN; INSERT INTO booking (id, guest, check_in, check_out) VALUES $rows, (2000, '$over', " . in_hours(401) .
	', ' . in_hours(402) . "); SELECT seam_enqueue_instant_key('$rowless', issue_at => " . in_hours(402) . '); COMMIT');
ok(quiet(), 'they wait');
set(max_concurrency => 1);
$node->stop('fast');
my $mark = mark();
$set_clock->(403 * 3600);
$fake->clock(403 * 3600);
{
	local $ENV{LD_PRELOAD} = $preload;
	$node->start;
}
ok(wait_for(sub { sql('SELECT count(key_id) FROM booking WHERE id BETWEEN 1001 AND 1300') == 300 && sent($rowless) }),
	'what was due meanwhile is done');
ok(quiet(), 'all of it');
my @calls = calls($mark);
like($calls[0]{path}, qr/list$/, 'a list has told Seam\'s time first');
my %place = map { $arrivals[ $_ - 1 ] => $_ } 1 .. 300;
my @came = map { $_->{body} =~ /"user_identity_id":"([^"]+)"/ && $place{$1} ? $place{$1} : () } grep { $_->{path} =~
	/generate/ } @calls;
is("@came", "@order", 'the earliest arrivals first, each once');
is(sent($over) . statuses($over), '0cancelled', 'what was over meanwhile is not asked for');
is(scalar(asked($rowless)), 1, 'and what has no row is');

$node->stop;
done_testing();
