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
	int64		by;
	bool		was_set;

	if (!read_clocks(&local, &http))
		return false;
	SpinLockAcquire(&watch->lock);
	by = stretches_look(&watch->clock, local, http);
	was_set = seen >= 0 && seen != watch->clock.nsteps;
	seen = watch->clock.nsteps;
	SpinLockRelease(&watch->lock);
	if (by != 0)
		ereport(LOG,
				(errmsg("the clock of this server was set %s by %.1f s",
						by < 0 ? "back" : "ahead", fabs((double) by) / USECS_PER_SEC)));
	return was_set;
}

/*
 * Returns what is known of the local clock.
 */
static Stretches
what_is_known(void)
{
	ClockWatch *watch = &places->clock;
	Stretches	clock;

	SpinLockAcquire(&watch->lock);
	clock = watch->clock;
	SpinLockRelease(&watch->lock);
	return clock;
}

/*
 * Returns how long ago this time of the local clock was.
 */
Ago
local_clock_ago(TimestampTz time)
{
	Stretches	clock = what_is_known();

	return stretches_ago(&clock, time, clock_now());
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
 * Returns how long ago, at least, this time of the local clock was, in microseconds: only
 * what has gone by since somebody watched the clock is sure.
 */
int64
local_clock_surely_elapsed_since(TimestampTz time)
{
	Stretches	clock = what_is_known();

	return stretches_surely_ago(&clock, time, clock_now());
}
