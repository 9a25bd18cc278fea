/*-------------------------------------------------------------------------
 *
 * worker_clock.c
 *	  What time it is at Seam, and whether our own clock was set.
 *
 * When a key may have been created that a lost answer was about is known by the
 * local clock, by which the request was recorded, and by Seam's, as answers told
 * it then.  Either may be set meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "places.h"
#include "utils/timestamp.h"
#include "worker_state.h"

/* Seam's clock, as an answer tells it, is asked for again after this time. */
#define CLOCK_GOOD_US (60 * INT64CONST(1000000))

/* An answer that took longer tells too little of it. */
#define CLOCK_DELAY_US (2 * INT64CONST(1000000))

/* How far the local clock may go wrong before that is taken as a step. */
#define CLOCK_STEP_US (1 * INT64CONST(1000000))

/* ---------- Seam's clock ---------- */

/*
 * Seam's time at a time of http_now()'s clock.
 */
static TimestampTz
seam_clock(int64 at)
{
	return worker.clock + (at - worker.clock_at);
}

/*
 * Seam's time now, if it is known.
 */
void
worker_seam_time(bool *known, TimestampTz *time)
{
	*known = worker.clock_known;
	*time = worker.clock_known ? seam_clock(http_now()) : 0;
}

/*
 * Seam's time when this flight had ended, or up to *uncertain later (microseconds).
 *
 * Its own Date tells that badly if it took long, so the clock as it is known is
 * taken, unless they contradict each other: then Seam's was set.
 */
void
worker_seam_time_of(const Flight *flight, TimestampTz *at_end, int64 *uncertain)
{
	*at_end = flight->date;
	*uncertain = flight->ended_at - flight->started_at + USECS_PER_SEC;
	if (worker.clock_known &&
		flight->date >= seam_clock(flight->started_at) - DOUBT_MARGIN_US &&
		flight->date <= seam_clock(flight->ended_at) + worker.clock_delay + USECS_PER_SEC + DOUBT_MARGIN_US)
	{
		*at_end = seam_clock(flight->ended_at);
		*uncertain = worker.clock_delay + USECS_PER_SEC;
	}
}

/*
 * Learn Seam's time from an answer to a request of this account, ours or a session's.
 * What is known is the clock of the endpoint that we have now: keep_account() forgets
 * it with that.
 */
void
worker_learn_clock(const SeamTime *sample, const AccountId *account)
{
	int64		off;

	if (sample->delay > CLOCK_DELAY_US || !worker.account_known ||
		!account_has_endpoint(account, &worker.account_id))
		return;
	off = worker.clock_known ? sample->time - seam_clock(sample->at) : 0;
	if (worker.clock_known && sample->delay >= worker.clock_delay &&
		sample->at - worker.clock_at < CLOCK_GOOD_US &&
		off < DOUBT_MARGIN_US && off > -DOUBT_MARGIN_US)
		return;
	worker.clock_known = true;
	worker.clock = sample->time;
	worker.clock_at = sample->at;
	worker.clock_delay = sample->delay;
}

/* ---------- our own clock ---------- */

/*
 * See whether the local clock was set.  What is known of it is shared, so that a new
 * worker knows, too.
 */
void
worker_watch_clock(void)
{
	ClockWatch *watch = &places->clock;
	TimestampTz local = GetCurrentTimestamp();
	int64		by;

	SpinLockAcquire(&watch->lock);
	if (watch->since == 0)
	{
		watch->since = local;
		watch->offset = local - http_now();
	}
	by = local - http_now() - watch->offset;
	if (by > CLOCK_STEP_US || by < -CLOCK_STEP_US)
	{
		ClockStep  *step = &watch->steps[watch->nsteps++ % CLOCK_STEPS];

		step->until = local - by;
		step->by = by;
	}
	/* small ones add up to a drift that is of no interest */
	watch->offset += by;
	SpinLockRelease(&watch->lock);
}

/*
 * How long ago was this time of the local clock, in microseconds?  At least the
 * result, at most *most: they differ if the clock was set back about then, since the
 * times near that came twice.  *doubtful: the clock was set since then, or nobody
 * watched it, since the server was down.
 */
int64
worker_elapsed_since(TimestampTz time, int64 *most, bool *doubtful)
{
	ClockWatch *watch = &places->clock;
	int64		least = GetCurrentTimestamp() - time;

	SpinLockAcquire(&watch->lock);
	*most = least;
	*doubtful = time < watch->since;
	for (int i = Max(watch->nsteps - CLOCK_STEPS, 0); i < watch->nsteps; i++)
	{
		const ClockStep *step = &watch->steps[i % CLOCK_STEPS];

		if (time > step->until)
			continue;
		*doubtful = true;
		*most -= step->by;
		if (time <= step->until + step->by || step->by > 0)
			least -= step->by;
	}
	SpinLockRelease(&watch->lock);
	return least;
}
