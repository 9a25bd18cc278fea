/*-------------------------------------------------------------------------
 *
 * test_pace.c
 *	  How fast requests may follow each other: with a simulated clock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "datatype/timestamp.h"
#include "logic/pace.h"
#include "unit.h"

#define S(seconds) ((int64) ((seconds) * USECS_PER_SEC))

/* ---------- how many at once ---------- */

/*
 * A step of a queue's life: what its requests' ends say, and what may be under way
 * then.
 */
typedef struct Step
{
	const char *what;
	PaceSign	sign;
	int			times;
	double		at;				/* seconds */
	double		asked;			/* of PACE_LIMITED: the pause, seconds */
	int			nflying;
	int			limit;			/* expected */
	double		paused_until;	/* expected; 0: not asked for */
} Step;

static const Step steps[] = {
	{"answers raise nothing at the most", PACE_GOOD, 100, 0, 0, 7, 8, 0},
	{"a 429 halves", PACE_LIMITED, 1, 10, 5, 7, 4, 15},
	{"those that were sent with it do not", PACE_LIMITED, 3, 10.1, 2, 6, 4, 15},
	{"but may ask for more", PACE_LIMITED, 1, 10.2, 6, 3, 4, 16.2},
	{"a round of answers raises by one", PACE_GOOD, 4, 17, 0, 3, 5, 0},
	{"less than a round does not", PACE_GOOD, 4, 18, 0, 4, 5, 0},
	{"silence tells nothing", PACE_SILENT, 50, 19, 0, 4, 5, 0},
	{"the rest of the round", PACE_GOOD, 1, 20, 0, 4, 6, 0},
	{"a 429 after the pause halves again", PACE_LIMITED, 1, 30, 1, 5, 3, 31},
	{"and again", PACE_LIMITED, 1, 40, 1, 2, 1, 41},
	{"but one may always go", PACE_LIMITED, 1, 50, 1, 0, 1, 51},
	{"no descriptor: no more than are under way", PACE_NO_DESCRIPTOR, 1, 60, 0, 3, 3, 0},
	{"none is under way", PACE_NO_DESCRIPTOR, 1, 61, 0, 0, 1, 0},
	{"in the end it is at its most again", PACE_GOOD, 1000, 70, 0, 0, 8, 0},
};

static void
test_limit(void)
{
	Pace		pace;

	pace_init(&pace, 8);
	for (int i = 0; i < (int) lengthof(steps); i++)
	{
		const Step *step = &steps[i];

		for (int n = 0; n < step->times; n++)
			pace_answer(&pace, step->sign, S(step->asked), step->nflying, S(step->at));
		unit_check(pace.limit == step->limit, "%s: %d", step->what, pace.limit);
		if (step->paused_until > 0)
			unit_check(pace.paused_until == S(step->paused_until), "%s: paused until " INT64_FORMAT,
					   step->what, pace.paused_until);
	}
	pace_set_max(&pace, 20);
	unit_check(pace.limit == 20, "a higher setting holds at once: %d", pace.limit);
	pace_answer(&pace, PACE_LIMITED, S(1), 19, S(80));
	pace_set_max(&pace, 40);
	unit_check(pace.limit == 10, "but not where a 429 has set a slower pace: %d", pace.limit);
	pace_set_max(&pace, 5);
	unit_check(pace.limit == 5, "a lower one always holds: %d", pace.limit);
	pace_resume(&pace);
	unit_check(pace.paused_until <= S(80), "a pause can be ended");
}

/* ---------- pauses ---------- */

static void
test_pauses(void)
{
	int64		max = S(3600);

	for (int tries = 0; tries < 100; tries++)
	{
		int64		longest = pace_backoff(tries, max, 0);
		int64		shortest = pace_backoff(tries, max, 1);

		unit_check(longest <= max && shortest >= longest / 2 && shortest <= longest,
				   "try %d: " INT64_FORMAT " to " INT64_FORMAT, tries, shortest, longest);
		unit_check(tries == 0 || longest >= pace_backoff(tries - 1, max, 0), "try %d waits no "
				   "less", tries);
	}
	unit_check(pace_backoff(0, max, 0) == S(0.2), "the first pause");
	unit_check(pace_backoff(50, max, 0) == max, "the longest pause");
	unit_check(pace_pause(0, 0, max, 0) == S(0.2), "nothing is asked for");
	unit_check(pace_pause(7, 0, max, 0) == S(7), "more is asked for");
	unit_check(pace_pause(1, 50, max, 0) == max, "less is asked for");
	unit_check(pace_pause(86400, 0, max, 0) == PACE_LONGEST_US, "a day is asked for");
	unit_check(pace_pause(INT_MAX, 0, max, 0) == PACE_LONGEST_US, "as much as can be is asked for");
}

/* ---------- a rate ---------- */

/*
 * Sends as much as it may for some time, in steps of a random length.  Returns how much
 * that was.
 */
static int
send_all(PaceBucket *bucket, int rate, int64 *now, double seconds)
{
	int64		until = *now + S(seconds);
	int64		again_at;
	int			sent = 0;

	while (*now < until)
	{
		int			n = pace_bucket_allows(bucket, rate, *now, &again_at);

		for (int i = 0; i < n; i++)
			pace_bucket_take(bucket);
		sent += n;
		if (n == 0)
			unit_check(again_at > *now && again_at <= *now + S(1.0) / rate + 1, "the next may be "
					   "sent soon");
		*now += 1 + unit_random(2000);
	}
	return sent;
}

static void
test_rate(void)
{
	static const int rates[] = {1, 2, 10, 100, 1000, 100000};

	unit_seed(3);
	for (int i = 0; i < (int) lengthof(rates); i++)
	{
		PaceBucket	bucket = {0};
		int64		now = S(1000);
		int64		again_at;
		int			rate = rates[i];
		int			burst = Max(1, rate / 20);
		int			sent;

		/* a million sent without a limit are not owed to it */
		for (int n = 0; n < 1000000; n++)
			pace_bucket_take(&bucket);
		sent = send_all(&bucket, rate, &now, 20);
		unit_check(sent <= 20 * rate + burst, "%d a second: no more than that: %d", rate, sent);
		unit_check(sent >= 19 * rate - 1 || rate > 1000, "%d a second: as much as that: %d", rate,
				   sent);
		now += S(3600);
		unit_check(pace_bucket_allows(&bucket, rate, now, &again_at) <= burst, "%d a second: an "
				   "idle hour saves nothing up", rate);
	}
	{
		PaceBucket	bucket = {0};
		int64		again_at;

		unit_check(pace_bucket_allows(&bucket, 0, S(5), &again_at) > 1000000 &&
				   again_at == PG_INT64_MAX, "no limit");
	}
}

/* ---------- what is left ---------- */

static void
test_time_left(void)
{
	Pace		pace;

	pace_init(&pace, 8);
	unit_check(pace_time_left(&pace, S(0), 10, 20, S(5)) == S(10), "as fast as before");
	unit_check(pace_time_left(&pace, S(0), 10, 0, S(5)) == 0, "nothing is left");
	pace_answer(&pace, PACE_LIMITED, S(100), 7, S(5));
	unit_check(pace_time_left(&pace, S(0), 10, 20, S(6)) == S(99 + 10), "a pause comes on top");
	unit_check(pace_time_left(&pace, S(0), 10, 20, S(105)) == S(210), "and counts as time when it "
			   "is over");
}

int
main(void)
{
	test_limit();
	test_pauses();
	test_rate();
	test_time_left();
	return unit_end("pace");
}
