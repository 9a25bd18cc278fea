/*-------------------------------------------------------------------------
 *
 * pace.c
 *	  How fast requests may follow each other, as their answers tell.
 *
 * When Seam limits the rate (429), everything pauses, not one call; and after
 * the pause half as many go at once, which then grows again by one for each
 * round of successes, as TCP does it.
 *
 * When Seam does not work, or cannot be reached, everything stops: after PACE_ROW
 * such answers in a row, or after one that asks for a pause.  From then on a probe
 * is sent now and then, with pauses that double.  It is a list first, which does
 * nothing and so leaves nothing in doubt; once a list is answered it is one request
 * of any kind, since a server may answer lists and nothing else; and when that is
 * answered, too, everything goes on as fast as it went before.  The same probe tells
 * when an API key is accepted that was refused (401), for which one answer is enough.
 *
 *		goes --- PACE_ROW x away, or one with Retry-After ---> stopped (away)
 *		goes --- one refused -------------------------------> stopped (refused)
 *		stopped --- list answered, then a POST answered ----> goes
 *		stopped --- probe away or refused ------------------> stopped (as it says)
 *
 * Only probes move a stopped pace, and only what was sent afterwards one that goes on
 * again: requests that were under way at a change say nothing of the time after it.
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

/* When a probe that told nothing, for want of a descriptor, is tried again. */
#define PROBE_AGAIN_US (100 * INT64CONST(1000))

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
 * Everything pauses for so long.
 */
static void
pause_all(Pace *pace, int64 pause, int64 now)
{
	if (pace->paused_until <= now)
		pace->paused_at = now;
	pace->paused_until = Max(pace->paused_until, now + Min(pause, PACE_LONGEST_US));
}

/*
 * Everything but probes stops, or stays stopped because one has failed: the next one is
 * sent when the server asks for it, or after a pause that is twice as long each time.
 */
static void
stop(Pace *pace, PaceStop why, int64 asked, int64 now)
{
	int64		first = why == PACE_STOPPED_AWAY ? PACE_AWAY_FIRST_US : PACE_REFUSED_FIRST_US;
	int64		longest = why == PACE_STOPPED_AWAY ? PACE_AWAY_LONGEST_US : PACE_REFUSED_LONGEST_US;
	int64		pause;

	if (pace->stop == PACE_GOES)
	{
		pace->since = now;
		pace->nprobes = 0;
	}
	else
		pace->nprobes++;
	if (pace->stop != why)
		pace->probe_pause = first;
	pace->stop = why;
	pause = asked > 0 ? Min(asked, PACE_LONGEST_US) : pace->probe_pause;
	pace->probe_at = now + pause;
	pace->probe_pause = Min(pace->probe_pause * 2, longest);
	pace->listed = false;
	pace->nbad = 0;
}

/*
 * Anything may be sent again.
 */
static void
go_on(Pace *pace, int64 now)
{
	pace->stop = PACE_GOES;
	pace->since = now;
	pace->nbad = 0;
	pace->listed = pace->probing = false;
}

/*
 * The answer to a probe.
 */
static void
probe_ended(Pace *pace, const PaceAnswer *answer, int64 now)
{
	pace->probing = false;
	switch (answer->sign)
	{
		case PACE_GOOD:
			if (pace->listed)
				go_on(pace, now);
			pace->listed = !pace->listed && pace->stop != PACE_GOES;
			pace->probe_at = now;
			break;
		case PACE_AWAY:
			stop(pace, PACE_STOPPED_AWAY, answer->asked, now);
			break;
		case PACE_REFUSED:
			stop(pace, PACE_STOPPED_REFUSED, 0, now);
			break;
		case PACE_LIMITED:
			pace->probe_at = pace->paused_until;
			break;
		case PACE_NO_DESCRIPTOR:
			pace->probe_at = now + PROBE_AGAIN_US;
			break;
	}
}

/*
 * A request has ended now, and its answer sets the pace.  Returns whether it ended so
 * because the server is away, which is no fault of the request and shall cost it
 * nothing.  (Of the row that has stopped the pace, the last one only.)
 */
bool
pace_answer(Pace *pace, const PaceAnswer *told, int64 now)
{
	PaceAnswer	adjusted = *told;
	const PaceAnswer *answer = &adjusted;
	bool		late = answer->begun_at <= pace->since;

	/* it says nothing of the other workspaces, unless these are refused, too */
	if (answer->sign == PACE_REFUSED && answer->may_be_workspace &&
		pace->stop != PACE_STOPPED_REFUSED)
		adjusted.sign = PACE_GOOD;

	if (answer->sign == PACE_LIMITED)
	{
		/* requests that were sent together are refused together: halve once */
		if (pace->paused_until <= now)
			pace->limit = Max(1, pace->limit / 2);
		pause_all(pace, Max(answer->asked, answer->backoff), now);
		pace->credit = 0;
	}
	else if (answer->sign == PACE_AWAY && answer->asked > 0)
		pause_all(pace, answer->asked, now);
	else if (answer->sign == PACE_NO_DESCRIPTOR)
		pace->limit = Max(1, answer->nflying);
	else if (answer->sign == PACE_GOOD && pace->limit < pace->max &&
			 ++pace->credit >= pace->limit)
	{
		pace->limit++;
		pace->credit = 0;
	}

	if (late)
		return answer->sign == PACE_AWAY;
	if (pace->stop != PACE_GOES)
	{
		probe_ended(pace, answer, now);
		return answer->sign == PACE_AWAY;
	}
	if (answer->sign == PACE_GOOD)
		pace->nbad = 0;
	else if (answer->sign == PACE_REFUSED)
		stop(pace, PACE_STOPPED_REFUSED, 0, now);
	else if (answer->sign == PACE_AWAY && (++pace->nbad >= PACE_ROW || answer->asked > 0))
		stop(pace, PACE_STOPPED_AWAY, answer->asked, now);
	return pace->stop == PACE_STOPPED_AWAY;
}

/*
 * How many requests may be sent now, when nflying are under way, and which: *may.
 * *again_at: when there may be more by itself, else PG_INT64_MAX.
 */
int
pace_allows(const Pace *pace, int nflying, int64 now, PaceMay *may, int64 *again_at)
{
	int64		from = pace->paused_until;

	*may = PACE_MAY_SEND;
	*again_at = PG_INT64_MAX;
	if (pace->stop != PACE_GOES)
	{
		*may = pace->listed ? PACE_MAY_POST : PACE_MAY_LIST;
		if (pace->probing)
			return 0;
		from = Max(from, pace->probe_at);
	}
	if (from > now)
	{
		*again_at = from;
		return 0;
	}
	return pace->stop != PACE_GOES ? 1 : Max(pace->limit - nflying, 0);
}

/*
 * What pace_allows() allowed while all else is stopped is sent.
 */
void
pace_probe_sent(Pace *pace)
{
	pace->probing = true;
}

/*
 * End the pause and the stop, if there is one; what follows goes as slowly.
 */
void
pace_resume(Pace *pace, int64 now)
{
	pace->paused_until = 0;
	go_on(pace, now);
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
