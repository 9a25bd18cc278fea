/*-------------------------------------------------------------------------
 *
 * stretches.c
 *	  How long ago was a time of the local clock, which may have been set since?
 *
 * A table can only hold times of the local clock, for no other one goes on when
 * the machine is started anew.  But a local clock is set: by hand, by NTP after a
 * long time without, by a hypervisor.  A monotonic clock is not.  So the workers
 * look at both each time round, and remember the stretches through which the
 * difference has not changed.  What a worker has read of the local clock belongs
 * to a stretch, and by its offset to a time of the monotonic clock.
 *
 * Two stretches may have shown the same time: the clock was set back.  Then there
 * are two answers, and all between them.  And a stretch may have begun at any
 * moment after the last look before it was seen.  A time that no stretch has
 * shown is of before the first look, when the server was down or just started.
 * It is taken to be of the same clock, if that puts it before the first look; a
 * clock that was set while nobody could look at it cannot be told from one that
 * was not.  Where not even that is possible (it lies in the future), nothing is
 * known but that it was before the first look.
 *
 * Smaller steps than STRETCHES_STEP_US are taken for a drift.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/stretches.h"

/*
 * Takes a reading of the local clock, and of the monotonic one at the same time.
 * Returns by how much the local clock was set since the last look, in microseconds, or 0
 * where it was not.
 */
int64
stretches_look(Stretches *clock, TimestampTz local, int64 now)
{
	ClockStretch *present = &clock->stretches[clock->nsteps % STRETCHES_MAX];
	int64		by;

	if (clock->looked_at == 0)
	{
		clock->looked_at = present->from = now;
		present->until = PG_INT64_MAX;
		present->offset = local - now;
		return 0;
	}
	/* another process may have read later, and been here before */
	if (now < clock->looked_at)
		return 0;
	by = local - now - present->offset;
	if (by >= -STRETCHES_STEP_US && by <= STRETCHES_STEP_US)
	{
		present->offset += by;
		by = 0;
	}
	else
	{
		ClockStretch *next = &clock->stretches[++clock->nsteps % STRETCHES_MAX];

		present->until = now;
		next->from = clock->looked_at;
		next->until = PG_INT64_MAX;
		next->offset = local - now;
	}
	clock->looked_at = now;
	return by;
}

/*
 * Returns the oldest stretch that is remembered, of a clock that was looked at.
 */
static int
oldest(const Stretches *clock)
{
	return Max(clock->nsteps - STRETCHES_MAX + 1, 0);
}

/*
 * Returns since when the clock is watched, as far as that is remembered, on the monotonic
 * clock.
 */
static int64
watched_since(const Stretches *clock)
{
	return clock->stretches[oldest(clock) % STRETCHES_MAX].from;
}

/*
 * Returns how long before now, of the monotonic clock, the local one showed a time; the
 * least is negative where that has yet to come by a drift.  Without a bound, most is
 * PG_INT64_MAX / 2.
 */
Ago
stretches_ago(const Stretches *clock, TimestampTz time, int64 now)
{
	Ago			ago = {PG_INT64_MAX, PG_INT64_MIN, false};
	int64		then = 0;

	for (int i = clock->nsteps; i >= oldest(clock); i--)
	{
		const ClockStretch *stretch = &clock->stretches[i % STRETCHES_MAX];

		then = time - stretch->offset;
		if (then < stretch->from - STRETCHES_STEP_US ||
			then > Min(stretch->until, now) + STRETCHES_STEP_US)
			continue;
		ago.least = Min(ago.least, now - then);
		ago.most = Max(ago.most, now - then);
		ago.sure = i == clock->nsteps;
	}
	if (ago.most != PG_INT64_MIN)
		return ago;

	/* then is what the oldest stretch makes of it */
	if (clock->looked_at == 0 || then <= watched_since(clock))
		ago.least = ago.most = now - then;
	else
	{
		ago.least = now - watched_since(clock);
		ago.most = PG_INT64_MAX / 2;
	}
	return ago;
}

/*
 * Returns how long ago, at least, the local clock showed a time, in microseconds: what was
 * before the first look may have been right before it.
 */
int64
stretches_surely_ago(const Stretches *clock, TimestampTz time, int64 now)
{
	int64		watched = clock->looked_at == 0 ? 0 : now - watched_since(clock);

	return Min(Max(stretches_ago(clock, time, now).least, 0), watched);
}
