/*-------------------------------------------------------------------------
 *
 * test_window.c
 *	  When can a key have been created: tables of cases, and a simulated world of
 *	  clocks, in which it is known when it was.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "logic/stretches.h"
#include "logic/window.h"
#include "unit.h"

#define S(seconds) ((int64) ((seconds) * USECS_PER_SEC))

/* ---------- the local clock: cases ---------- */

/* What happens to the local clock, and what is known then of a time that it showed. */
typedef struct LocalCase
{
	const char *name;

	/*
	 * the local clock is looked at each second, from 100 on; it is set then,
	 * by so much
	 */
	double		set_at;
	double		by;
	double		set_at2;
	double		by2;

	/* at this time, by the monotonic clock, a reading is asked after */
	double		now;
	double		time;

	/* expected, in seconds */
	double		least;
	double		most;
	bool		sure;
	double		surely;
} LocalCase;

/* The local clock is 1000 s ahead of the monotonic one at first. */
static const LocalCase local_cases[] = {
	{"nobody sets it", 0, 0, 0, 0, 200, 1150, 50, 50, true, 50},
	{"before the first look", 0, 0, 0, 0, 200, 1050, 150, 150, false, 100},
	{"in the future", 0, 0, 0, 0, 200, 9000, 100, -1, false, 100},
	{"set ahead, read before", 150, 500, 0, 0, 200, 1140, 60, 60, false, 60},
	{"set ahead, read after", 150, 500, 0, 0, 200, 1680, 20, 20, true, 20},
	{"set ahead, a time that was left out", 150, 500, 0, 0, 200, 1400, 100, -1, false, 100},
	{"set back, read before, and shown once", 150, -30, 0, 0, 200, 1110, 90, 90, false, 90},
	{"set back, shown twice", 150, -30, 0, 0, 200, 1140, 30, 60, false, 30},
	{"set back, read after, and shown once", 150, -30, 0, 0, 200, 1160, 10, 10, true, 10},
	{"set back, and further ahead, shown before both only",
	120, -10, 125, 500, 200, 1118, 82, 82, false, 82},
	{"set back by a day, and ahead again", 120, -86400, 140, 86400, 200, 1115, 85, 85, false, 85},
	{"a time that was left out then", 120, -86400, 140, 86400, 200, 1130, 100, -1, false, 100},
	{"set back and right again: shown twice", 150, -30, 160, 30, 200, 1125, 45, 75, false, 45},
	{"a drift is no step", 150, 0.9, 0, 0, 200, 1150, 50.9, 50.9, true, 50.9},
};

/* Looks at a clock each second through a case. */
static void
live_through(const LocalCase *c, Stretches *clock)
{
	double		ahead = 1000;
	int			steps = 0;

	memset(clock, 0, sizeof(*clock));
	for (double t = 100; t <= c->now; t++)
	{
		double		by = 0;
		int64		seen;

		if (c->set_at > 0 && t == c->set_at)
			by += c->by;
		if (c->set_at2 > 0 && t == c->set_at2)
			by += c->by2;
		ahead += by;
		seen = stretches_look(clock, S(t + ahead), S(t));
		unit_check(seen == (by * by > 1 ? S(by) : 0), "%s: a step of %g s is seen as " INT64_FORMAT,
				   c->name, by, seen);
		steps += by * by > 1;
	}
	unit_check(clock->nsteps == steps, "%s: %d steps", c->name, clock->nsteps);
}

static void
test_local_cases(void)
{
	Stretches	clock;

	for (int i = 0; i < (int) lengthof(local_cases); i++)
	{
		const LocalCase *c = &local_cases[i];
		Ago			ago;

		live_through(c, &clock);
		ago = stretches_ago(&clock, S(c->time), S(c->now));
		unit_check(ago.least == S(c->least), "%s: least " INT64_FORMAT, c->name, ago.least);
		unit_check(c->most < 0 ? ago.most > S(1e9) : ago.most == S(c->most),
				   "%s: most " INT64_FORMAT, c->name, ago.most);
		unit_check(ago.sure == c->sure, "%s: sure: %d", c->name, ago.sure);
		unit_check(stretches_surely_ago(&clock, S(c->time), S(c->now)) == S(c->surely),
				   "%s: surely " INT64_FORMAT, c->name,
				   stretches_surely_ago(&clock, S(c->time), S(c->now)));
	}

	/* a reading that another process took before comes too late to count */
	memset(&clock, 0, sizeof(clock));
	unit_check(stretches_surely_ago(&clock, S(5), S(100)) == 0, "never looked at: nothing is "
			   "sure");
	(void) stretches_look(&clock, S(1100), S(100));
	(void) stretches_look(&clock, S(1200), S(200));
	unit_check(stretches_look(&clock, S(5000), S(150)) == 0 && clock.nsteps == 0,
			   "a look that is late is none");

	/* set back more often than can be remembered */
	for (int t = 300; t < 300 + 3 * STRETCHES_MAX; t++)
		(void) stretches_look(&clock, S(9000 - 100 * t), S(t));
	unit_check(stretches_surely_ago(&clock, S(1150), S(500)) <=
			   S(500 - 300 - 2 * STRETCHES_MAX + 2), "what was forgotten may have been later");

}

/* ---------- Seam's clock: cases ---------- */

static void
test_seam_clock(void)
{
	/* at 100 s an answer had come that took half a second, and told 5000 s */
	static const SeamTime first = {S(5000), S(100), S(0.5)};
	static const SeamTime slow = {S(5008), S(110), S(30)};
	static const SeamTime other = {S(9000), S(110), S(1)};
	static const struct
	{
		const char *name;
		SeamTime	date;
		bool		learnt;
	}			cases[] = {
		{"a slower answer tells less", {S(5010), S(110), S(0.6)}, false},
		{"a faster one tells more", {S(5010), S(110), S(0.4)}, true},
		{"after a minute any does", {S(5060), S(160), S(1.9)}, true},
		{"unless it took too long", {S(5060), S(160), S(2.1)}, false},
		{"a clock that was set a little", {S(5014), S(110), S(0.6)}, false},
		{"a clock that was set ahead", {S(5016), S(110), S(0.6)}, true},
		{"a clock that was set back", {S(5004), S(110), S(0.6)}, true},
		{"nor does it by an answer that took too long", {S(9999), S(110), S(2.1)}, false},
	};
	SeamNow		now;
	SeamTime	clock = {0};

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		memset(&clock, 0, sizeof(clock));
		window_learn(&clock, &first);
		unit_check(clock.at != 0 && window_seam_time(&clock, S(103)) == S(5003), "Seam's clock");
		window_learn(&clock, &cases[i].date);
		unit_check((clock.at == cases[i].date.at) == cases[i].learnt, "%s", cases[i].name);
	}
	memset(&clock, 0, sizeof(clock));
	now = window_seam_now(&clock, &first, S(103));
	unit_check(now.time == S(5003) && now.uncertain == S(1.5), "by the Date alone");
	window_learn(&clock, &first);
	now = window_seam_now(&clock, &slow, S(111));
	unit_check(now.time == S(5011) && now.uncertain == S(1.5), "by the clock, where the Date is "
			   "uncertain");
	now = window_seam_now(&clock, &other, S(111));
	unit_check(now.time == S(9001) && now.uncertain == S(2), "by the Date, where Seam's clock was "
			   "set");
}

/* ---------- windows: cases ---------- */

/* Seconds; the margin is not in from and until. */
static const struct
{
	const char *name;
	double		least;
	double		most;
	bool		sure;
	double		timeout;
	double		seam_time;		/* 0: not known */
	double		from;			/* expected */
	double		until;
	bool		vague;
}			window_cases[] = {

	/* it is 1000 s at Seam, or up to 2 s later */
	{"from now back", 50, 50, true, 10, 0, 950, 962, false},
	{"as it was recorded, too", 50, 50, true, 10, 951, 950, 962, false},
	{"Seam's clock was set ahead", 50, 50, true, 10, 400, 400, 962, false},
	{"Seam's clock was set back", 50, 50, true, 10, 2000, 950, 2013, false},
	{"the local clock was set: as it was recorded", 50, 50, false, 10, 700, 700, 713, false},
	{"shown twice: as it was recorded", 50, 80, false, 10, 700, 700, 713, false},
	{"shown twice, and not recorded", 50, 80, false, 10, 0, 920, 962, true},
	{"not watched, and not recorded", 50, 50, false, 10, 0, 950, 962, false},
	{"a call without a timeout", 50, 50, true, 0, 0, 950, 952, false},
};

static void
test_window_cases(void)
{
	for (int i = 0; i < (int) lengthof(window_cases); i++)
	{
		WindowFacts facts = {
			.ago = {S(window_cases[i].least), S(window_cases[i].most), window_cases[i].sure},
			.timeout = (int) (window_cases[i].timeout * 1000),
			.has_seam_time = window_cases[i].seam_time != 0,
			.seam_time = S(window_cases[i].seam_time),
			.now = {S(1000), S(2)}
		};
		Window		window = window_of(&facts);

		unit_check(window.from == S(window_cases[i].from) - WINDOW_MARGIN_US &&
				   window.until == S(window_cases[i].until) + WINDOW_MARGIN_US,
				   "%s: " INT64_FORMAT " to " INT64_FORMAT, window_cases[i].name, window.from,
				   window.until);
		unit_check(window.vague == window_cases[i].vague, "%s: vague: %d", window_cases[i].name,
				   window.vague);
	}
	unit_check(window_timeout(S(10), S(12), 5000) == 7001, "the timeout of a lost answer");
	unit_check(window_timeout(S(10), S(10) + INT64CONST(9000000000000), 0) == INT_MAX / 2,
			   "the longest one");
	unit_check(window_list_at(7000, S(3), S(100)) == S(104), "when to ask for the list");
	unit_check(window_list_at(7000, S(9), S(100)) == S(98), "or already");
}

/* ---------- a world of clocks ---------- */

/* How far the clocks of Seam's hosts may be off, either way. */
#define HOST_S 2.5

/* The longest that a list takes; a smaller step of Seam's clock is not seen by it. */
#define LIST_S 30
#define SEAM_STEP_S (LIST_S + 15)

/* All times are of the true clock, which is the monotonic one, in microseconds. */
typedef struct World
{
	int64		now;

	/* what the local clock, and Seam's, show less the true one */
	int64		local_offset;
	int64		seam_offset;

	/* what a worker knows */
	Stretches	local;
	SeamTime	seam;
} World;

/* Returns a random time of up to so many seconds. */
static int64
random_s(double seconds)
{
	return (int64) (unit_random(1000000) * seconds);
}

/* Returns a random time of up to so many seconds, either way. */
static int64
random_off(double seconds)
{
	return random_s(2 * seconds) - S(seconds);
}

/* Lets time go by, while somebody looks at the local clock now and then. */
static void
go_on(World *w, int64 time)
{
	int64		until = w->now + time;
	int64		every = 1 + random_s(20);

	for (; w->now + every < until; w->now += every)
		(void) stretches_look(&w->local, w->now + w->local_offset, w->now);
	w->now = until;
}

/* Returns how far the clock of one of Seam's hosts is off: often as far as it may be. */
static int64
host_off(void)
{
	return unit_random(2) == 0 ? random_off(HOST_S) : S(unit_random(2) == 0 ? HOST_S : -HOST_S);
}

/* Lets an answer come from one of Seam's hosts.  Returns what it tells. */
static SeamTime
answer(World *w, double longest)
{
	int64		sent_at = w->now;
	int64		date_at;
	SeamTime	date;

	go_on(w, random_s(longest));
	date_at = sent_at + (w->now - sent_at) / 100 * unit_random(101);
	date.time = date_at + w->seam_offset + host_off();
	date.time -= date.time % USECS_PER_SEC;
	date.at = w->now;
	date.delay = w->now - sent_at;
	return date;
}

/*
 * Sets a clock at some time soon, by at least so much; the step is seen before the next
 * one.
 */
static void
set(World *w, int64 *offset, int64 least)
{
	static const double by[] = {0.5, 10, 100, 3600, 86400};
	int64		step = least + random_s(by[unit_random(lengthof(by))]);

	go_on(w, random_s(10));
	*offset += unit_random(2) == 0 ? step : -step;
	go_on(w, random_s(10));
	(void) stretches_look(&w->local, w->now + w->local_offset, w->now);
}

/*
 * Has a key created by an attempt, and asks for its window, in a world where clocks are set
 * as it may happen.
 */
static void
test_world(long round)
{
	World		w = {.now = S(1000) + random_s(100000)};
	bool		local_set = false;	/* the local clock was set, */
	bool		unseen = false; /* and nobody knows that any more */
	bool		seam_set = false;	/* Seam's was, after the attempt */
	bool		vague;
	int			timeout = (int) unit_random(60000);
	TimestampTz attempted_at;
	TimestampTz created_at;
	WindowFacts facts = {.timeout = timeout};
	Window		window;
	SeamTime	list;
	int64		widest;

	w.local_offset = S(700000000) + random_off(86400);
	w.seam_offset = S(700000000) + random_off(600);

	/* before the attempt */
	(void) stretches_look(&w.local, w.now + w.local_offset, w.now);
	for (int i = (int) unit_random(4); i > 0; i--)
	{
		if (unit_random(3) == 0)
		{
			set(&w, &w.local_offset, STRETCHES_STEP_US + 1);
			local_set = true;
		}
		/* once: two steps could make a small one */
		if (i == 1 && unit_random(3) == 0)
			set(&w, &w.seam_offset, S(SEAM_STEP_S));
		if (unit_random(2) == 0)
		{
			SeamTime	date = answer(&w, 4);

			window_learn(&w.seam, &date);
		}
		go_on(&w, random_s(90));
	}

	/*
	 * what is known of Seam's clock is of before it was set, perhaps: then it
	 * is wrong
	 */
	if (w.seam.at != 0)
	{
		int64		off = window_seam_time(&w.seam, w.now) - (w.now + w.seam_offset);

		facts.has_seam_time = off <= S(HOST_S) && off >= -S(HOST_S + 3);
	}

	/* the attempt: the worker looks at the clocks, and records it */
	(void) stretches_look(&w.local, w.now + w.local_offset, w.now);
	w.now += random_s(0.5);
	attempted_at = w.now + w.local_offset;
	if (facts.has_seam_time)
		facts.seam_time = window_seam_time(&w.seam, w.now);

	/* the key is created within the timeout */
	{
		int64		ends_at = w.now + (int64) timeout * 1000;

		go_on(&w, (ends_at - w.now) / 1000 * unit_random(1001));
		created_at = w.now + w.seam_offset + host_off();
		go_on(&w, ends_at - w.now);
	}

	/*
	 * until the list is asked for; where both clocks are set, or Seam's and
	 * its time is not known, nothing is promised
	 */
	if (unit_random(4) == 0 && facts.has_seam_time)
	{
		set(&w, &w.seam_offset, S(SEAM_STEP_S));
		seam_set = true;
	}
	for (int i = (int) unit_random(3); i > 0 && !seam_set; i--)
	{
		set(&w, &w.local_offset, STRETCHES_STEP_US + 1);
		local_set = true;
	}
	if (unit_random(4) == 0 && !seam_set)
	{
		/* the server is down, or crashes: a worker begins anew */
		go_on(&w, random_s(300));
		memset(&w.local, 0, sizeof(w.local));
		memset(&w.seam, 0, sizeof(w.seam));
		if (facts.has_seam_time && unit_random(2) == 0)
		{
			w.local_offset += random_off(86400);
			local_set = true;
		}
		unseen = local_set;
		/* two times that nobody knows */
		if (unseen && !facts.has_seam_time)
			return;
	}
	(void) stretches_look(&w.local, w.now + w.local_offset, w.now);
	if (unit_random(2) == 0)
	{
		SeamTime	date = answer(&w, 4);

		window_learn(&w.seam, &date);
		go_on(&w, random_s(90));
	}
	list = answer(&w, LIST_S);
	window_learn(&w.seam, &list);
	go_on(&w, random_s(10));
	(void) stretches_look(&w.local, w.now + w.local_offset, w.now);

	facts.ago = stretches_ago(&w.local, attempted_at, w.now);
	facts.now = window_seam_now(&w.seam, &list, w.now);
	window = window_of(&facts);
	unit_check(created_at >= window.from, "round %ld: " INT64_FORMAT " us too early",
			   round, window.from - created_at);
	unit_check(created_at <= window.until, "round %ld: " INT64_FORMAT " us too late",
			   round, created_at - window.until);

	/* its width, unless clocks were set, or two times are meant */
	vague = facts.ago.least != facts.ago.most && !facts.has_seam_time;
	unit_check(window.vague == vague, "round %ld: vague", round);
	if (seam_set || unseen || vague)
		return;
	widest = (int64) timeout * 1000 + 2 * WINDOW_MARGIN_US +
		Max(facts.now.uncertain, WINDOW_DELAY_US + USECS_PER_SEC) +
		(facts.has_seam_time ? S(2 * HOST_S + 3) : 0);
	unit_check(window.until - window.from <= widest, "round %ld: " INT64_FORMAT " us too wide",
			   round, window.until - window.from - widest);
}

/*
 * Whenever the local clock showed a time: the truth lies between what is known of it, and
 * what is surely known is no more than the truth.
 */
static void
test_local_world(long round)
{
	World		w = {.now = S(1000) + random_s(100000)};
	int64		read_at[8];
	TimestampTz read[8];

	w.local_offset = S(700000000);
	(void) stretches_look(&w.local, w.now + w.local_offset, w.now);
	for (int i = 0; i < (int) lengthof(read); i++)
	{
		if (unit_random(2) == 0)
			set(&w, &w.local_offset, STRETCHES_STEP_US + 1);
		/* another process may read it when nobody has seen its last step */
		if (unit_random(3) == 0)
		{
			w.local_offset += S(1.5) - (S(3) + random_s(100)) * unit_random(2);
			w.now += random_s(5);
		}
		read_at[i] = w.now;
		read[i] = w.now + w.local_offset;
		w.now += random_s(20);
		(void) stretches_look(&w.local, w.now + w.local_offset, w.now);
		go_on(&w, random_s(100));
	}
	(void) stretches_look(&w.local, w.now + w.local_offset, w.now);
	for (int i = 0; i < (int) lengthof(read); i++)
	{
		Ago			ago = stretches_ago(&w.local, read[i], w.now);
		int64		truth = w.now - read_at[i];
		int64		surely = stretches_surely_ago(&w.local, read[i], w.now);

		unit_check(ago.least - S(1) <= truth && truth <= ago.most + S(1),
				   "round %ld: " INT64_FORMAT " us is not in " INT64_FORMAT " to " INT64_FORMAT,
				   round, truth, ago.least, ago.most);
		unit_check(!ago.sure || ago.least == ago.most, "round %ld: what is sure is one time",
				   round);
		unit_check(surely <= truth + S(1), "round %ld: surely " INT64_FORMAT " us too long", round,
				   surely - truth);
	}
}

int
main(int argc, char **argv)
{
	long		rounds = argc > 1 ? atol(argv[1]) : 40000;

	test_local_cases();
	test_seam_clock();
	test_window_cases();
	unit_seed(5);
	for (long round = 0; round < rounds; round++)
	{
		test_local_world(round);
		test_world(round);
	}
	return unit_end("window");
}
