/*-------------------------------------------------------------------------
 *
 * local_clock.c
 *	  Whether our own clock was set, and how long ago a time of it is.
 *
 * When a key may have been created that a lost answer was about is known by the local
 * clock, by which the request was recorded, and that may be set meanwhile.  The watch is
 * shared by all workers, so that a new one knows what a former one has seen.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "base/clock.h"
#include "shmem/places.h"
#include "utils/timestamp.h"
#include "worker/local_clock.h"

/* How far the local clock may go wrong before that is taken as a step. */
#define CLOCK_STEP_US (1 * INT64CONST(1000000))

/* Two readings with so much between them tell nothing, */
#define CLOCK_READ_US (100 * INT64CONST(1000))

/* and are tried again so often. */
#define CLOCK_READS 3

/*
 * Read the local clock and clock_now()'s at the same time.  Returns false when that is
 * not possible, because this process does not get the processor for long enough.
 */
static bool
read_clocks(TimestampTz *local, int64 *http)
{
	for (int i = 0; i < CLOCK_READS; i++)
	{
		int64		before = clock_now();

		*local = GetCurrentTimestamp();
		*http = clock_now();
		if (*http - before < CLOCK_READ_US)
			return true;
	}
	return false;
}

/*
 * See whether the local clock was set.  What is known of it is shared, so that a new
 * worker knows, too.  Returns whether it was, since this process last asked.
 */
bool
local_clock_watch(void)
{
	static int	seen = -1;		/* steps; -1: this is the first look */
	ClockWatch *watch = &places->clock;
	TimestampTz local;
	int64		http;
	int64		by = 0;
	bool		was_set;

	if (!read_clocks(&local, &http))
		return false;
	SpinLockAcquire(&watch->lock);
	if (watch->since == 0)
	{
		watch->since = local;
		watch->since_at = http;
		watch->offset = local - http;
	}
	/* another worker may have read later, and been here before */
	if (http >= watch->looked_at)
	{
		by = local - http - watch->offset;
		watch->looked_at = http;
		/* small ones add up to a drift that is of no interest */
		watch->offset += by;
	}
	if (by > CLOCK_STEP_US || by < -CLOCK_STEP_US)
	{
		ClockStep  *step = &watch->steps[watch->nsteps++ % CLOCK_STEPS];

		step->until = local - by;
		step->by = by;
	}
	else
		by = 0;
	was_set = seen >= 0 && seen != watch->nsteps;
	seen = watch->nsteps;
	SpinLockRelease(&watch->lock);
	if (by != 0)
		ereport(LOG,
				(errmsg("the clock of this server was set %s by %.1f s",
						by < 0 ? "back" : "ahead", fabs((double) by) / USECS_PER_SEC)));
	return was_set;
}

/*
 * How long ago was this time of the local clock, in microseconds?  At least the
 * result, at most *most: they differ if the clock was set back about then, since the
 * times near that came twice.  *doubtful: the clock was set since then, or nobody
 * watched it, since the server was down.
 */
int64
local_clock_elapsed_since(TimestampTz time, int64 *most, bool *doubtful)
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

/*
 * A time of the local clock, now being the present one, on clock_now()'s.
 */
int64
local_clock_monotonic(TimestampTz time, TimestampTz now, int64 http)
{
	if (TIMESTAMP_NOT_FINITE(time))
		return time == DT_NOBEGIN ? 0 : PG_INT64_MAX;
	return http + Max(time - now, 0);
}

/*
 * At least how long ago, in microseconds, was it this time of the local clock?  By a
 * clock that nobody sets: of what was before this server started, and before anybody
 * watched the local one, only the time since then is sure.  Times that came twice are
 * taken for the later ones, if these have come.
 */
int64
local_clock_surely_elapsed_since(TimestampTz time)
{
	ClockWatch *watch = &places->clock;
	int64		elapsed = GetCurrentTimestamp() - time;
	int64		watched;

	SpinLockAcquire(&watch->lock);
	watched = watch->since == 0 ? 0 : clock_now() - watch->since_at;
	for (int i = watch->nsteps - 1; i >= Max(watch->nsteps - CLOCK_STEPS, 0); i--)
	{
		const ClockStep *step = &watch->steps[i % CLOCK_STEPS];

		if (elapsed >= 0 && time > step->until + step->by)
			break;				/* it was after this step */
		elapsed -= step->by;
	}
	SpinLockRelease(&watch->lock);
	return elapsed < 0 ? watched : Min(elapsed, watched);
}
