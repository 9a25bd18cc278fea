/*-------------------------------------------------------------------------
 *
 * local_clock.h
 *	  Whether our own clock was set, and how long ago a time of it is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_LOCAL_CLOCK_H
#define SEAM_IK_LOCAL_CLOCK_H

#include "logic/stretches.h"

extern bool local_clock_watch(void);
extern Ago	local_clock_ago(TimestampTz time);
extern int64 local_clock_surely_elapsed_since(TimestampTz time);
extern int64 local_clock_monotonic(TimestampTz time, TimestampTz now, int64 monotonic);

#endif							/* SEAM_IK_LOCAL_CLOCK_H */
