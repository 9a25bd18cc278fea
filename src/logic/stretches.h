/*-------------------------------------------------------------------------
 *
 * stretches.h
 *	  How long ago was a time of the local clock, which may have been set since?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STRETCHES_H
#define SEAM_IK_STRETCHES_H

#include "datatype/timestamp.h"

/* How far the local clock may go wrong before that is taken as a step; microseconds. */
#define STRETCHES_STEP_US (1 * INT64CONST(1000000))

/* Stretches that are remembered; older ones are as if nobody had looked. */
#define STRETCHES_MAX 17

/* A time through which nobody set the local clock.  Bounds are of the monotonic clock. */
typedef struct ClockStretch
{
	/*
	 * The local clock may have been so from then on: it was not when last
	 * looked at.
	 */
	int64		from;

	/* It was not so any more then; PG_INT64_MAX for the present stretch. */
	int64		until;

	/*
	 * What the local clock showed, less what the monotonic one did; as of its
	 * end.
	 */
	int64		offset;
} ClockStretch;

/* What is known of the local clock.  Zeroed: it was never looked at. */
typedef struct Stretches
{
	/* When it was last looked at, on the monotonic clock. */
	int64		looked_at;

	/* How often it was set. */
	int			nsteps;

	/* A ring: the present stretch is at nsteps. */
	ClockStretch stretches[STRETCHES_MAX];
} Stretches;

/* How long ago something was, in microseconds. */
typedef struct Ago
{
	/*
	 * At least so long, and at most; they differ where the clock showed a
	 * time twice.
	 */
	int64		least;
	int64		most;

	/* Whether the clock was watched since, and not set. */
	bool		sure;
} Ago;

extern int64 stretches_look(Stretches *clock, TimestampTz local, int64 now);
extern Ago	stretches_ago(const Stretches *clock, TimestampTz time, int64 now);
extern int64 stretches_surely_ago(const Stretches *clock, TimestampTz time, int64 now);

#endif							/* SEAM_IK_STRETCHES_H */
