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

#include "datatype/timestamp.h"
#include "logic/pace.h"

/*
 * The pause before a retry: doubled each time up to a maximum, then a random
 * half of it taken off, so that many sessions do not come back together.
 */
#define BACKOFF_FIRST_US (200 * 1000)

/* For how long a request stays allowed under a rate while none is sent. */
#define BUCKET_HOLDS_S 0.05

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
 * The server, or this process's descriptors, set the pace: a request has ended now,
 * and nflying others are under way.  pause is what PACE_LIMITED asks for.
 */
void
pace_answer(Pace *pace, PaceSign sign, int64 pause, int nflying, int64 now)
{
	if (sign == PACE_LIMITED)
	{
		/* requests that were sent together are refused together: halve once */
		if (pace->paused_until <= now)
		{
			pace->limit = Max(1, pace->limit / 2);
			pace->paused_at = now;
		}
		pace->paused_until = Max(pace->paused_until, now + pause);
		pace->credit = 0;
	}
	else if (sign == PACE_NO_DESCRIPTOR)
		pace->limit = Max(1, nflying);
	else if (sign == PACE_GOOD && pace->limit < pace->max && ++pace->credit >= pace->limit)
	{
		pace->limit++;
		pace->credit = 0;
	}
}

/*
 * End the pause, if there is one; what follows it goes as slowly.
 */
void
pace_resume(Pace *pace)
{
	pace->paused_until = 0;
}

/*
 * How long nleft more requests will take, in microseconds, when nended (at least
 * one) have ended since begun_at.  What is left of a pause comes on top; the rest
 * goes as it went before the pause.
 */
int64
pace_time_left(const Pace *pace, int64 begun_at, int64 nended, int64 nleft, int64 now)
{
	int64		pause = Max(pace->paused_until - now, 0);
	int64		worked = (pause > 0 ? pace->paused_at : now) - begun_at;

	return nleft == 0 ? 0 : pause + (int64) ((double) worked / nended * nleft);
}

/*
 * How many requests may be sent now under a limit of so many a second; with a
 * rate of 0 there is no limit.  *again_at: when one may be sent, if none may now,
 * else PG_INT64_MAX.
 */
int
pace_bucket_allows(PaceBucket *bucket, int rate, int64 now, int64 *again_at)
{
	double		most = Max(1.0, rate * BUCKET_HOLDS_S);

	*again_at = PG_INT64_MAX;
	if (rate == 0)
		return PG_INT32_MAX;
	bucket->tokens = Min(most, bucket->tokens +
						 (double) (now - bucket->filled_at) * rate / USECS_PER_SEC);
	bucket->filled_at = now;
	if (bucket->tokens < 1.0)
		*again_at = now + (int64) ((1.0 - bucket->tokens) * USECS_PER_SEC / rate) + 1;
	return (int) bucket->tokens;
}

/*
 * A request is sent.  The bucket gets no emptier than empty: what is sent while
 * there is no limit is not owed to one that is set later.
 */
void
pace_bucket_take(PaceBucket *bucket)
{
	bucket->tokens = Max(bucket->tokens - 1.0, 0.0);
}

/*
 * How long to wait before the next try, in microseconds, after so many earlier
 * ones; at most max.  chance, at random from 0 to 1, is how much of the random half is
 * taken off.
 */
int64
pace_backoff(int tries, int64 max, double chance)
{
	int64		pause = Min((int64) BACKOFF_FIRST_US << Min(tries, 24), max);

	return pause - (int64) (chance * pause / 2);
}

/*
 * The same, but not shorter than the answer asks for, in seconds, as far as that is
 * within PACE_LONGEST_US.
 */
int64
pace_pause(int asked_s, int tries, int64 max, double chance)
{
	int64		asked = Min((int64) asked_s * USECS_PER_SEC, PACE_LONGEST_US);
	int64		backoff = pace_backoff(tries, max, chance);

	return Max(asked, backoff);
}
