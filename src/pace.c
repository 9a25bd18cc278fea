/*-------------------------------------------------------------------------
 *
 * pace.c
 *	  How fast requests may follow each other, as their answers tell.
 *
 * When Seam limits the rate (429), everything pauses, not one call; and after
 * the pause half as many go at once, which then grows again by one for each
 * round of successes, as TCP does it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "datatype/timestamp.h"
#include "pace.h"

/*
 * The pause before a retry: doubled each time up to a maximum, then a random
 * half of it taken off, so that many sessions do not come back together.
 */
#define BACKOFF_FIRST_US (200 * 1000)

/*
 * Begin with max requests at once.
 */
void
pace_init(Pace *pace, int max)
{
	memset(pace, 0, sizeof(Pace));
	pace->limit = pace->max = max;
}

/*
 * The setting changed: from now on max requests at once, unless Seam or the
 * descriptors have set a slower pace.
 */
void
pace_set_max(Pace *pace, int max)
{
	if (pace->limit == pace->max)
		pace->limit = max;
	pace->limit = Min(pace->limit, max);
	pace->max = max;
}

/*
 * Seam, or this process's descriptors, set the pace: a request was answered, a
 * 429 asks for this pause (microseconds), and nflying others are under way.
 */
void
pace_answer(Pace *pace, const HttpAnswer *answer, int64 pause, int nflying)
{
	if (answer->outcome == HTTP_ANSWERED && answer->status == 429)
	{
		int64		until = http_now() + pause;

		/* requests that were sent together are refused together: halve once */
		if (pace->paused_until <= http_now())
			pace->limit = Max(1, pace->limit / 2);
		pace->paused_until = Max(pace->paused_until, until);
		pace->credit = 0;
	}
	else if (answer->failure == HTTP_FAILURE_DESCRIPTORS)
		pace->limit = Max(1, nflying);
	else if (answer->outcome == HTTP_ANSWERED && pace->limit < pace->max &&
			 ++pace->credit >= pace->limit)
	{
		pace->limit++;
		pace->credit = 0;
	}
}

/*
 * How long to wait before the next try, in microseconds, after so many earlier
 * ones; at most max.
 */
int64
pace_backoff(int tries, int64 max)
{
	int64		pause = Min((int64) BACKOFF_FIRST_US << Min(tries, 24), max);

	return pause - (int64) (pg_prng_double(&pg_global_prng_state) * pause / 2);
}

/*
 * The same, but not shorter than the answer asks for.
 */
int64
pace_pause(const HttpAnswer *answer, int tries, int64 max)
{
	return Max((int64) answer->retry_after * USECS_PER_SEC, pace_backoff(tries, max));
}
