/*-------------------------------------------------------------------------
 *
 * test_stay.c
 *	  Which key a stay is to have, and when: tables of cases, and random stays with a
 *	  simulated clock against a judge.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/stay.h"
#include "unit.h"

#define MINUTE (60 * USECS_PER_SEC)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)

/* ---------- what a change of the row means ---------- */

/* What the row is after a change. */
#define WANTS .has_identity = true,.wanted = true

typedef struct ChangeCase
{
	const char *name;
	StayPhase	phase;
	StayEnd		end;
	StayChange	change;
	StayPlan	plan;
	bool		is_looked_for;
} ChangeCase;

static const ChangeCase changes[] = {
	{"a row that wants a key", STAY_NONE, 0, {WANTS}, {STAY_ASK}},
	{"one that is not wanted", STAY_NONE, 0, {.has_identity = true}, {STAY_NOTHING}},
	{"one without an identity", STAY_NONE, 0, {.wanted = true}, {STAY_NOTHING}},
	{"one that came with a key", STAY_NONE, 0, {WANTS,.shows = STAY_SHOWS_OTHER}, {STAY_NOTHING}},
	{"that one gets another guest",
	STAY_NONE, 0, {WANTS,.identity_changed = true,.shows = STAY_SHOWS_OTHER}, {STAY_ASK}},
	{"and a key with it",
		STAY_NONE, 0, {WANTS,.identity_changed = true,.key_changed = true,
	.shows = STAY_SHOWS_OTHER}, {STAY_NOTHING}},
	{"a row without a request goes", STAY_NONE, 0, {.deleted = true}, {STAY_NOTHING}},

	{"nothing has changed", STAY_WAITS, 0, {WANTS}, {STAY_NOTHING}},
	{"dates change while it waits",
	STAY_WAITS, 0, {WANTS,.dates_changed = true}, {STAY_NOTHING,.dates = true}},
	{"another guest while it waits",
	STAY_WAITS, 0, {WANTS,.identity_changed = true}, {STAY_FOLLOW,.revoke_formers = true}},
	{"another guest while it waits, and a late key of the former one may show",
		STAY_WAITS, 0, {WANTS,.identity_changed = true}, {STAY_ASK,.revoke_formers = true},
	.is_looked_for = true},
	{"another count while it waits",
		STAY_WAITS, 0, {WANTS,.terms_changed = true,.dates_changed = true},
	{STAY_FOLLOW,.revoke_formers = true,.dates = true}},
	{"the column is cleared while a new key waits",
	STAY_WAITS, 0, {WANTS,.key_changed = true}, {STAY_NOTHING,.revoke_formers = true}},
	{"not wanted any more while it waits",
		STAY_WAITS, 0, {.has_identity = true,.wanted_changed = true},
	{STAY_STOP, STAY_UNWANTED,.clear = true}},
	{"a former key while a new one waits",
	STAY_WAITS, 0, {WANTS,.key_changed = true,.shows = STAY_SHOWS_FORMER}, {STAY_NOTHING}},

	{"another guest while it flies",
	STAY_FLIES, 0, {WANTS,.identity_changed = true}, {STAY_ASK,.revoke_formers = true}},
	{"dates change while it flies",
	STAY_FLIES, 0, {WANTS,.dates_changed = true}, {STAY_NOTHING,.dates = true}},
	{"the row goes while it flies",
	STAY_FLIES, 0, {.deleted = true}, {STAY_STOP, STAY_UNWANTED}},

	{"another guest", STAY_HAS_KEY, 0, {WANTS,.identity_changed = true,
	.shows = STAY_SHOWS_NEWEST}, {STAY_ASK,.revoke_formers = true}},
	{"another count", STAY_HAS_KEY, 0, {WANTS,.terms_changed = true,
	.shows = STAY_SHOWS_NEWEST}, {STAY_ASK,.revoke_formers = true}},
	{"dates change", STAY_HAS_KEY, 0, {WANTS,.dates_changed = true,
	.shows = STAY_SHOWS_NEWEST}, {STAY_NOTHING,.dates = true}},
	{"the column is cleared", STAY_HAS_KEY, 0, {WANTS,.key_changed = true},
	{STAY_ASK,.revoke_formers = true}},
	{"a former key is written", STAY_HAS_KEY, 0, {WANTS,.key_changed = true,
	.shows = STAY_SHOWS_FORMER}, {STAY_NOTHING,.write_again = true}},
	{"the newest key is written", STAY_HAS_KEY, 0, {WANTS,.key_changed = true,
	.shows = STAY_SHOWS_NEWEST}, {STAY_NOTHING}},
	{"another value is written", STAY_HAS_KEY, 0, {WANTS,.key_changed = true,
	.shows = STAY_SHOWS_OTHER}, {STAY_STOP, STAY_LEFT}},
	{"another value together with another guest",
		STAY_HAS_KEY, 0, {WANTS,.key_changed = true,.identity_changed = true,
	.shows = STAY_SHOWS_OTHER}, {STAY_STOP, STAY_LEFT}},
	{"the identity becomes NULL", STAY_HAS_KEY, 0, {.wanted = true,.identity_changed = true,
	.shows = STAY_SHOWS_NEWEST}, {STAY_STOP, STAY_UNWANTED,.clear = true}},
	{"the row goes", STAY_HAS_KEY, 0, {.deleted = true,.shows = STAY_SHOWS_NEWEST},
	{STAY_STOP, STAY_UNWANTED}},

	{"dates of a failed one", STAY_FAILED, 0, {WANTS,.dates_changed = true},
	{STAY_NOTHING,.dates = true}},
	{"another guest of a failed one", STAY_FAILED, 0, {WANTS,.identity_changed = true}, {STAY_ASK}},
	{"another count of a failed one", STAY_FAILED, 0, {WANTS,.terms_changed = true}, {STAY_ASK}},
	{"a failed one is wanted anew", STAY_FAILED, 0, {WANTS,.wanted_changed = true}, {STAY_ASK}},
	{"a failed one is cleared", STAY_FAILED, 0, {WANTS,.key_changed = true}, {STAY_ASK}},
	{"a failed one is not wanted", STAY_FAILED, 0, {.has_identity = true,.wanted_changed = true},
	{STAY_STOP, STAY_UNWANTED,.clear = true}},

	{"dates of one that was cancelled", STAY_ENDED, STAY_CANCELLED, {WANTS,.dates_changed = true},
	{STAY_NOTHING,.dates = true}},
	{"another count of it", STAY_ENDED, STAY_CANCELLED, {WANTS,.terms_changed = true}, {STAY_ASK}},
	{"it is cleared", STAY_ENDED, STAY_CANCELLED, {WANTS,.key_changed = true}, {STAY_ASK}},
	{"a stay that was over lasts longer", STAY_ENDED, STAY_OVER, {WANTS,.dates_changed = true},
	{STAY_ASK}},
	{"wanted again", STAY_ENDED, STAY_UNWANTED, {WANTS,.wanted_changed = true}, {STAY_ASK}},
	{"an identity again", STAY_ENDED, STAY_UNWANTED, {WANTS,.identity_changed = true}, {STAY_ASK}},
	{"dates of what is not wanted", STAY_ENDED, STAY_UNWANTED,
	{.has_identity = true,.dates_changed = true}, {STAY_NOTHING,.dates = true}},
	{"it goes", STAY_ENDED, STAY_UNWANTED, {.deleted = true}, {STAY_STOP, STAY_UNWANTED}},
	{"one that was cancelled, which the row shows, is not wanted", STAY_ENDED, STAY_CANCELLED,
		{.has_identity = true,.wanted_changed = true,.shows = STAY_SHOWS_NEWEST},
	{STAY_STOP, STAY_UNWANTED,.clear = true}},
	{"another value is written as it is not wanted any more", STAY_HAS_KEY, 0,
		{.has_identity = true,.wanted_changed = true,.key_changed = true,.shows = STAY_SHOWS_OTHER},
	{STAY_STOP, STAY_LEFT,.clear = true}},
	{"another value is written to what is not wanted", STAY_ENDED, STAY_UNWANTED,
		{.has_identity = true,.key_changed = true,.shows = STAY_SHOWS_OTHER},
	{STAY_STOP, STAY_LEFT,.clear = true}},
	{"and that is wanted", STAY_ENDED, STAY_LEFT,
	{WANTS,.wanted_changed = true,.shows = STAY_SHOWS_OTHER}, {STAY_NOTHING}},
	{"another value, which is not wanted, gets another guest", STAY_ENDED, STAY_LEFT,
		{.has_identity = true,.identity_changed = true,.shows = STAY_SHOWS_OTHER},
	{STAY_STOP, STAY_UNWANTED}},
	{"and is wanted", STAY_ENDED, STAY_UNWANTED,
	{WANTS,.wanted_changed = true,.shows = STAY_SHOWS_OTHER}, {STAY_ASK}},
	{"another value stays alone whatever the count",
		STAY_ENDED, STAY_LEFT, {WANTS,.terms_changed = true,.wanted_changed = true,
	.dates_changed = true,.shows = STAY_SHOWS_OTHER}, {STAY_NOTHING,.dates = true}},
	{"until the guest is another one", STAY_ENDED, STAY_LEFT, {WANTS,.identity_changed = true,
	.shows = STAY_SHOWS_OTHER}, {STAY_ASK}},
	{"or it is cleared", STAY_ENDED, STAY_LEFT, {WANTS,.key_changed = true}, {STAY_ASK}},
	{"a value is written to one that was over", STAY_ENDED, STAY_OVER, {WANTS,.key_changed = true,
	.shows = STAY_SHOWS_OTHER}, {STAY_STOP, STAY_LEFT}},
};

static void
test_changes(void)
{
	for (int i = 0; i < (int) lengthof(changes); i++)
	{
		const ChangeCase *c = &changes[i];
		StayFacts	newest = {.phase = c->phase,.end = c->end,.is_looked_for = c->is_looked_for};
		StayPlan	plan = stay_after_change(&newest, &c->change);

		unit_check(plan.act == c->plan.act && plan.end == c->plan.end &&
				   plan.clear == c->plan.clear && plan.dates == c->plan.dates &&
				   plan.revoke_formers == c->plan.revoke_formers &&
				   plan.write_again == c->plan.write_again,
				   "%s: act %d, end %d, clear %d, formers %d, dates %d, write %d", c->name,
				   plan.act, plan.end, plan.clear, plan.revoke_formers, plan.dates,
				   plan.write_again);
	}
}

/* ---------- what is due ---------- */

#define NOW (1000 * DAY)
#define AT_ONCE .issue_at = DT_NOBEGIN
#define ENDLESS .valid_until = DT_NOEND
#define RENEWAL .is_renewal = true,.issue_at = DT_NOBEGIN,.valid_until = DT_NOEND

/* A key of 48 hours that was issued so long ago. */
#define KEY(age) \
	.phase = STAY_HAS_KEY,.created_at = NOW - (age),.expires_at = NOW - (age) + 48 * HOUR

typedef struct DueCase
{
	const char *name;
	StayFacts	facts;
	StayDue		due;
	TimestampTz wake_at;		/* of STAY_SLEEP and STAY_HOLD */
} DueCase;

static const DueCase dues[] = {
	{"at once", {STAY_WAITS, AT_ONCE, ENDLESS,.is_fresh = true,.has_row = true}, STAY_SEND, 0},
	{"its time is past", {STAY_WAITS,.issue_at = NOW - DAY, ENDLESS,.is_fresh = true,
	.has_row = true}, STAY_SEND, 0},
	{"in a month", {STAY_WAITS,.issue_at = NOW + 30 * DAY, ENDLESS,.is_fresh = true}, STAY_SLEEP,
	NOW + 30 * DAY},
	{"its time has come, of a row",
	{STAY_WAITS,.issue_at = NOW, ENDLESS,.has_row = true}, STAY_LOOK, 0},
	{"its time has come, without a row", {STAY_WAITS,.issue_at = NOW, ENDLESS}, STAY_SEND, 0},
	{"never", {STAY_WAITS,.issue_at = DT_NOEND, ENDLESS}, STAY_SLEEP, DT_NOEND},
	{"over before it has begun", {STAY_WAITS,.issue_at = NOW - 2 * DAY,.valid_until = NOW - DAY,
	.is_fresh = true}, STAY_END, 0},
	{"over at this moment", {STAY_WAITS, AT_ONCE,.valid_until = NOW}, STAY_END, 0},
	{"it is queued", {STAY_WAITS,.issue_at = NOW - DAY,.valid_until = NOW + DAY,.is_queued = true},
	STAY_SLEEP, NOW + DAY},
	{"it is queued, and moved ahead",
		{STAY_WAITS,.issue_at = NOW + DAY,.valid_until = NOW + 2 * DAY,
	.is_queued = true}, STAY_HOLD, NOW + DAY},
	{"its row is looked at", {STAY_WAITS,.issue_at = NOW - DAY, ENDLESS,.has_row = true,
	.is_looked_at = true}, STAY_SLEEP, DT_NOEND},

	{"it flies", {STAY_FLIES, AT_ONCE,.valid_until = NOW + DAY}, STAY_SLEEP, NOW + DAY},
	{"it flies, and is over", {STAY_FLIES, AT_ONCE,.valid_until = NOW - 1}, STAY_END, 0},
	{"it flies, and was moved ahead",
	{STAY_FLIES,.issue_at = NOW + DAY, ENDLESS}, STAY_POSTPONE, 0},

	{"a new key", {KEY(0), AT_ONCE, ENDLESS}, STAY_SLEEP, NOW + 42 * HOUR},
	{"42 hours later", {KEY(42 * HOUR), AT_ONCE, ENDLESS}, STAY_RENEW, 0},
	{"a moment before", {KEY(42 * HOUR - 1), AT_ONCE, ENDLESS}, STAY_SLEEP, NOW + 1},
	{"the stay ends with the key",
		{KEY(42 * HOUR), AT_ONCE,.valid_until = NOW + 6 * HOUR}, STAY_SLEEP,
	NOW + 6 * HOUR},
	{"the stay lasts a second longer", {KEY(42 * HOUR), AT_ONCE,.valid_until = NOW + 6 * HOUR +
	USECS_PER_SEC}, STAY_RENEW, 0},
	{"the key has ended", {KEY(49 * HOUR), AT_ONCE, ENDLESS}, STAY_RENEW, 0},
	{"a key that had ended when it came", {STAY_HAS_KEY, AT_ONCE, ENDLESS,.created_at = NOW,
	.expires_at = NOW - DAY}, STAY_SLEEP, NOW + MINUTE},
	{"a minute later", {STAY_HAS_KEY, AT_ONCE, ENDLESS,.created_at = NOW - MINUTE,
	.expires_at = NOW - DAY}, STAY_RENEW, 0},
	{"a key without an end", {STAY_HAS_KEY, AT_ONCE, ENDLESS,.expires_at = DT_NOEND}, STAY_SLEEP,
	DT_NOEND},
	{"a key that could not be written", {KEY(42 * HOUR), AT_ONCE,.valid_until = NOW + 9 * DAY,
	.is_unwritten = true}, STAY_SLEEP, NOW + 9 * DAY},
	{"a key that is being written", {KEY(42 * HOUR), AT_ONCE, ENDLESS,.is_being_written = true},
	STAY_SLEEP, NOW + MINUTE},
	{"moved ahead",
	{KEY(HOUR),.issue_at = NOW + DAY,.valid_until = NOW + 2 * DAY}, STAY_POSTPONE, 0},
	{"moved ahead by a moment",
		{KEY(HOUR),.issue_at = NOW + USECS_PER_SEC,.valid_until = NOW + DAY},
	STAY_SLEEP, NOW + DAY},
	{"over", {KEY(HOUR), AT_ONCE,.valid_until = NOW - HOUR}, STAY_END, 0},

	{"a renewal's row is looked at first", {STAY_WAITS, RENEWAL,.former_expires_at = NOW + HOUR,
	.has_row = true}, STAY_LOOK, 0},
	{"a renewal is tried until the former ends", {STAY_WAITS, RENEWAL,
	.former_expires_at = NOW + HOUR,.is_queued = true}, STAY_SLEEP, NOW + HOUR},
	{"the former has ended", {STAY_WAITS, RENEWAL,.former_expires_at = NOW,.is_queued = true},
	STAY_LOST, 0},
	{"a renewal flies", {STAY_FLIES, RENEWAL,.former_expires_at = NOW + HOUR}, STAY_SLEEP,
	NOW + HOUR},
	{"the former ends while it does", {STAY_FLIES, RENEWAL,.former_expires_at = NOW}, STAY_LOST, 0},
	{"that is told once", {STAY_FLIES, RENEWAL,.former_expires_at = DT_NOBEGIN}, STAY_SLEEP,
	DT_NOEND},
	{"and it is not sent again", {STAY_WAITS, RENEWAL,.former_expires_at = DT_NOBEGIN}, STAY_LOST,
	0},
	{"a renewal is moved ahead", {STAY_WAITS,.is_renewal = true,.issue_at = NOW + DAY, ENDLESS,
	.former_expires_at = NOW + HOUR}, STAY_POSTPONE, 0},

	{"a failed one is kept",
	{STAY_FAILED, AT_ONCE,.valid_until = NOW + DAY}, STAY_SLEEP, NOW + DAY},
	{"until its stay is over", {STAY_FAILED, AT_ONCE,.valid_until = NOW}, STAY_FORGET, 0},
	{"a renewal that failed leaves the former key until the end", {STAY_FAILED,.is_renewal = true,
	AT_ONCE,.valid_until = NOW + DAY,.former_expires_at = NOW + HOUR}, STAY_SLEEP, NOW + DAY},
	{"which is revoked then", {STAY_FAILED,.is_renewal = true, AT_ONCE,.valid_until = NOW,
	.former_expires_at = NOW + HOUR}, STAY_END, 0},
	{"and when the stay is put off", {STAY_FAILED,.is_renewal = true,.issue_at = NOW + DAY,
	ENDLESS,.former_expires_at = NOW + HOUR}, STAY_POSTPONE, 0},
	{"but not when it has expired", {STAY_FAILED,.is_renewal = true, AT_ONCE,.valid_until = NOW,
	.former_expires_at = NOW}, STAY_FORGET, 0},
	{"so is one that was cancelled",
	{STAY_ENDED, STAY_CANCELLED, AT_ONCE, ENDLESS}, STAY_SLEEP, DT_NOEND},
};

/* How long a key lives, and when it is renewed. */
static const struct
{
	int64		life;
	int64		renew_before;
	int64		expected;
}			lives[] = {
	{48 * HOUR, 6 * HOUR, 42 * HOUR},
	{31 * DAY, 6 * HOUR, 31 * DAY - 6 * HOUR},
	{HOUR, 6 * HOUR, HOUR / 2},
	{12 * HOUR, 6 * HOUR, 6 * HOUR},
	{90 * USECS_PER_SEC, 6 * HOUR, 60 * USECS_PER_SEC},
	{48 * HOUR, 0, 48 * HOUR},
};

static void
test_dues(void)
{
	StayClock	clock = {.now = NOW,.renew_before = 6 * HOUR,.least_age = MINUTE};

	for (int i = 0; i < (int) lengthof(dues); i++)
	{
		TimestampTz wake_at;
		StayDue		due = stay_due(&dues[i].facts, &clock, &wake_at);

		unit_check(due == dues[i].due, "%s: %d", dues[i].name, due);
		if (due == STAY_SLEEP || due == STAY_HOLD)
			unit_check(wake_at == dues[i].wake_at, "%s: wake in %lld s", dues[i].name,
					   (long long) ((wake_at - NOW) / USECS_PER_SEC));
	}
	for (int i = 0; i < (int) lengthof(lives); i++)
	{
		StayFacts	key = {STAY_HAS_KEY, AT_ONCE, ENDLESS,.created_at = NOW,
		.expires_at = NOW + lives[i].life};
		TimestampTz wake_at;

		clock.renew_before = lives[i].renew_before;
		unit_check(stay_due(&key, &clock, &wake_at) == STAY_SLEEP &&
				   wake_at == NOW + lives[i].expected, "life %d", i);
	}
	unit_check(stay_clock_estimate(NOW, 1000, NOW + 400000) == NOW + 400000,
			   "the local clock fits");
	unit_check(stay_clock_estimate(NOW, 1000, NOW + 40 * DAY) == NOW + USECS_PER_SEC + 1000,
			   "the local clock is ahead");
	unit_check(stay_clock_estimate(NOW, 1000, NOW - 40 * DAY) == NOW, "the local clock is behind");
}

/* ---------- random stays ---------- */

#define REQUESTS_MAX 2000
#define STAYS 800

/* A request, as the outbox would have it. */
typedef struct Request
{
	StayFacts	facts;
	int			identity;
	int			terms;
	bool		has_key;
	bool		alive;			/* its key is, at Seam */
	bool		revoking;
	bool		replaced;		/* it has a successor that renews it */
	bool		lost;			/* the answer was */
	bool		over_other;		/* its key may be written over another one */
	TimestampTz wake_at;
	TimestampTz answer_at;		/* of what flies */
} Request;

static Request requests[REQUESTS_MAX];
static int	nrequests;

/* The row; the judge's own knowledge is behind it. */
static struct
{
	bool		exists;
	int			identity;		/* 0: NULL */
	int			terms;
	bool		wanted;
	TimestampTz issue_at;
	TimestampTz valid_until;
	int			shown;			/* the request whose key it shows, -1: NULL,
								 * -2: another */

	/* no key comes until a change that brings one back */
	bool		held;
	/* another key was written by hand */
	bool		left;
}			row;

static StayClock now;
static int64 life;
static int	lost_of_ten;

static bool
is_wanted(void)
{
	return row.exists && row.identity != 0 && row.wanted;
}

/* A key of the request is not to live any more. */
static void
revoke(Request *request)
{
	if (request->facts.phase == STAY_WAITS)
		request->facts.phase = STAY_ENDED;
	else if (request->facts.phase == STAY_FLIES || request->facts.phase == STAY_HAS_KEY)
		request->revoking = true;
	if (request->facts.phase == STAY_HAS_KEY)
	{
		request->alive = request->revoking = false;
		request->facts.phase = STAY_ENDED;
	}
}

static void
revoke_before(int n)
{
	for (int i = 0; i < n; i++)
		revoke(&requests[i]);
}

static Request *
newest(void)
{
	return nrequests > 0 ? &requests[nrequests - 1] : NULL;
}

static Request *
ask(void)
{
	Request    *request = &requests[nrequests++];

	memset(request, 0, sizeof(Request));
	request->facts.phase = STAY_WAITS;
	request->facts.has_row = true;
	request->facts.is_fresh = true;
	request->facts.issue_at = row.issue_at;
	request->facts.valid_until = row.valid_until;
	request->identity = row.identity;
	request->terms = row.terms;
	request->wake_at = DT_NOBEGIN;
	request->over_other = row.shown == -2;
	return request;
}

static void
stop(StayEnd end, bool clear)
{
	Request    *last = newest();

	revoke_before(nrequests);
	if (last->facts.phase != STAY_FAILED || end != STAY_OVER)
		last->facts.end = end;
	if (last->facts.phase == STAY_FAILED)
		last->facts.phase = STAY_ENDED;
	if (clear && row.shown >= 0)
		row.shown = -1;
}

/* What happens in the outbox when a statement has changed the row. */
static void
row_changed(StayChange change)
{
	StayFacts	none = {.phase = STAY_NONE};
	StayFacts	facts = none;
	StayPlan	plan;

	if (newest())
	{
		facts = newest()->facts;
		/* what is to be revoked is not alive */
		if (newest()->revoking)
			facts.phase = STAY_ENDED;
	}
	change.deleted = !row.exists;
	change.has_identity = row.identity != 0;
	change.wanted = row.wanted;
	change.shows = row.shown == -1 ? STAY_SHOWS_NOTHING : row.shown == -2 ? STAY_SHOWS_OTHER :
		row.shown == nrequests - 1 ? STAY_SHOWS_NEWEST : STAY_SHOWS_FORMER;
	plan = stay_after_change(&facts, &change);
	if (plan.dates)
	{
		newest()->facts.issue_at = row.issue_at;
		newest()->facts.valid_until = row.valid_until;
		newest()->facts.is_fresh = true;
		newest()->wake_at = DT_NOBEGIN;
	}
	if (plan.revoke_formers)
		revoke_before(nrequests - 1);
	if (plan.write_again)
		row.shown = nrequests - 1;
	switch (plan.act)
	{
		case STAY_NOTHING:
			break;
		case STAY_ASK:
			revoke_before(nrequests);
			ask();
			break;
		case STAY_FOLLOW:
			newest()->identity = row.identity;
			newest()->terms = row.terms;
			newest()->facts.is_renewal = false;
			newest()->over_other = row.shown == -2;
			break;
		case STAY_STOP:
			stop(plan.end, plan.clear);
			break;
	}
}

/* The writer looks at the row before the newest request is sent. */
static void
look(Request *request)
{
	if (!is_wanted() || row.identity != request->identity ||
		(row.shown == -2 && !request->over_other))
		stop(STAY_UNWANTED, false);
	else
		request->facts.is_queued = true;
}

/* The answer of what flies is there, or what the list tells of a lost one. */
static void
answered(int n)
{
	Request    *request = &requests[n];
	TimestampTz wake_at;
	StayDue		due;

	if (request->lost && unit_random(2) == 0)
	{
		/* the list has it not: it is tried again, if that is to be */
		if (request->revoking)
			request->facts.phase = STAY_ENDED;
		else
		{
			request->facts.phase = STAY_WAITS;
			request->facts.is_queued = true;
			request->wake_at = DT_NOBEGIN;
		}
		request->alive = request->has_key = false;
		return;
	}
	request->facts.phase = STAY_HAS_KEY;
	request->has_key = true;
	request->alive = request->facts.expires_at > now.now;
	due = stay_due(&request->facts, &now, &wake_at);
	if (request->revoking || due == STAY_END)
	{
		if (due == STAY_END && !request->revoking)
			stop(STAY_OVER, true);
		revoke(request);
		return;
	}
	request->wake_at = DT_NOBEGIN;
	if (n == nrequests - 1 && (row.shown != -2 || request->over_other))
		row.shown = n;
}

/* Does what is due of the newest request. */
static void
wake(void)
{
	Request    *request = newest();
	TimestampTz wake_at;
	StayDue		due;

	if (request == NULL || request->revoking || request->wake_at > now.now)
		return;
	due = stay_due(&request->facts, &now, &wake_at);
	request->facts.is_fresh = false;
	request->wake_at = wake_at;
	switch (due)
	{
		case STAY_SLEEP:
		case STAY_FORGET:
			break;
		case STAY_HOLD:
			request->facts.is_queued = false;
			break;
		case STAY_SEND:
			request->facts.is_queued = true;
			break;
		case STAY_LOOK:
			look(request);
			break;
		case STAY_RENEW:
			{
				Request    *former = request;

				request = ask();
				request->facts = former->facts;
				request->facts.phase = STAY_WAITS;
				request->facts.is_queued = request->facts.is_fresh = false;
				request->facts.is_renewal = true;
				request->facts.former_expires_at = former->facts.expires_at > now.now ?
					former->facts.expires_at : DT_NOEND;
				former->replaced = true;
			}
			break;
		case STAY_END:
			stop(STAY_OVER, true);
			break;
		case STAY_POSTPONE:
			revoke_before(nrequests);
			row.shown = row.shown >= 0 ? -1 : row.shown;
			ask();
			break;
		case STAY_LOST:
			request->facts.phase = STAY_FAILED;
			row.held = true;
			if (row.shown >= 0)
				row.shown = -1;
			break;
	}
}

/* Sends what is queued, and lets keys end. */
static void
go_on(void)
{
	Request    *request;

	for (int i = 0; i < nrequests; i++)
	{
		if (requests[i].facts.phase == STAY_FLIES && requests[i].answer_at <= now.now)
			answered(i);
		if (requests[i].alive && requests[i].facts.expires_at <= now.now)
			requests[i].alive = false;
	}
	for (int i = 0; i < 5; i++)
		wake();
	request = newest();
	if (request && request->facts.phase == STAY_WAITS && request->facts.is_queued)
	{
		request->facts.phase = STAY_FLIES;
		request->facts.is_queued = false;
		request->facts.created_at = now.now;
		request->facts.expires_at = now.now + life;
		request->lost = (int) unit_random(10) < lost_of_ten;
		request->alive = true;
		request->answer_at = now.now + (request->lost ? unit_random(40) * MINUTE : 0);
		unit_check(is_wanted() && request->identity == row.identity &&
				   request->facts.issue_at <= now.now && request->facts.valid_until > now.now,
				   "what is sent is what the row wants");
		if (!request->lost)
			answered(nrequests - 1);
	}
}

/* Which keys live must be just those that the row's history says. */
static void
judge(int stay)
{
	int			good = 0;
	bool		flies = false;
	bool		must = is_wanted() && !row.held && !row.left &&
	row.issue_at <= now.now && row.valid_until > now.now;

	for (int i = 0; i < nrequests; i++)
	{
		Request    *request = &requests[i];

		flies = flies || request->facts.phase == STAY_FLIES;
		if (!request->alive || request->facts.phase == STAY_FLIES)
			continue;
		good++;
		unit_check(is_wanted() && request->identity == row.identity &&
				   request->terms == row.terms, "stay %d: a key of another guest lives", stay);
		unit_check(row.valid_until > now.now, "stay %d: a key lives on after the stay", stay);
		unit_check(row.issue_at <= now.now + STAY_BEGUN_US, "stay %d: a key lives before it", stay);
		unit_check(!row.left, "stay %d: a key lives beside another one", stay);
	}
	if (flies)
		return;
	unit_check(!must || good > 0, "stay %d: no key lives", stay);
	unit_check(good <= 2, "stay %d: %d keys live", stay, good);
	if (must && good > 0)
		unit_check(row.shown == nrequests - 1 && newest()->alive,
				   "stay %d: the row shows the newest",
				   stay);
}

/* One change of everything that can be. */
static void
change_something(void)
{
	StayChange	change = {0};

	switch (unit_random(12))
	{
		case 0:
			row.identity = unit_random(4);
			change.identity_changed = true;
			row.held = row.left = false;
			if (row.shown == -2 && row.identity == 0)
				row.shown = -1;
			break;
		case 1:
			row.terms++;
			change.terms_changed = true;
			if (!row.left)
				row.held = false;
			break;
		case 2:
			row.wanted = !row.wanted;
			change.wanted_changed = true;
			if (!row.left)
				row.held = false;
			break;
		case 3:
		case 4:
			row.issue_at = unit_random(8) == 0 ? DT_NOBEGIN :
				now.now + ((int64) unit_random(200) - 100) * HOUR;
			change.dates_changed = true;
			break;
		case 5:
		case 6:
			row.valid_until = unit_random(8) == 0 ? DT_NOEND :
				now.now + ((int64) unit_random(60 * 24) - 48) * HOUR;
			change.dates_changed = true;
			break;
		case 7:
			if (row.shown == -1)
				return;
			row.shown = -1;
			change.key_changed = true;
			row.held = row.left = false;
			break;
		case 8:
			if (nrequests < 2 || row.shown < 0 || !requests[nrequests - 2].has_key)
				return;
			row.shown = nrequests - 2;
			change.key_changed = true;
			break;
		case 9:
			if (unit_random(4) > 0)
				return;
			row.shown = -2;
			row.left = true;
			change.key_changed = true;
			break;
		case 10:
			/* somebody cancels it by hand */
			if (newest() == NULL || newest()->revoking || newest()->facts.phase == STAY_FAILED ||
				newest()->facts.phase == STAY_ENDED)
				return;
			stop(STAY_CANCELLED, false);
			row.held = true;
			return;
		default:
			if (unit_random(20) > 0)
				return;
			row.exists = false;
			break;
	}
	row_changed(change);
}

static void
test_random_stays(void)
{
	for (int stay = 0; stay < STAYS; stay++)
	{
		TimestampTz until;
		StayChange	inserted = {0};

		unit_seed(stay);
		memset(&row, 0, sizeof(row));
		nrequests = 0;
		now = (StayClock)
		{
			.now = NOW,.renew_before = 6 * HOUR,.least_age = MINUTE
		};
		life = HOUR + (int64) unit_random(31 * 24) * HOUR;
		lost_of_ten = unit_random(2) ? 0 : unit_random(5);
		row.exists = true;
		row.identity = unit_random(5);
		row.wanted = unit_random(4) > 0;
		row.shown = -1;
		row.issue_at = NOW + (int64) unit_random(10 * 24) * HOUR - 24 * HOUR;
		row.valid_until = row.issue_at + HOUR + (int64) unit_random(60 * 24) * HOUR;
		until = NOW + 75 * DAY;
		row_changed(inserted);
		for (bool quiet = stay % 3 == 0; now.now < until && nrequests < REQUESTS_MAX - 10;)
		{
			if (!quiet && unit_random(100) == 0)
				change_something();
			for (int i = 0; i < 3; i++)
				go_on();
			judge(stay);
			now.now += MINUTE + (int64) unit_random(40) * MINUTE;
			/* keys end before anybody looks */
			for (int i = 0; i < nrequests; i++)
				requests[i].alive = requests[i].alive && requests[i].facts.expires_at > now.now;
		}
	}
}

int
main(void)
{
	test_changes();
	test_dues();
	test_random_stays();
	return unit_end("stay");
}
