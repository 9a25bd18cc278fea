/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  A clock that never jumps.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "base/clock.h"

/*
 * Returns microseconds on a clock that nobody sets and that only goes on
 * (CLOCK_MONOTONIC).  All processes of a machine have the same, until it is started
 * anew.
 */
int64
clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}
