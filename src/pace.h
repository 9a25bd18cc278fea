/*-------------------------------------------------------------------------
 *
 * pace.h
 *	  How fast requests may follow each other, as their answers tell.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_PACE_H
#define SEAM_IK_PACE_H

#include "http.h"

typedef struct Pace
{
	int			limit;			/* requests that may be under way at once */
	int			max;			/* the most that limit may be */
	int			credit;			/* answers towards the next raise of limit */
	int64		paused_until;	/* on http_now()'s clock, by a 429 */
} Pace;

extern void pace_init(Pace *pace, int max);
extern void pace_set_max(Pace *pace, int max);
extern void pace_answer(Pace *pace, const HttpAnswer *answer, int64 pause, int nflying);
extern int64 pace_backoff(int tries, int64 max);
extern int64 pace_pause(const HttpAnswer *answer, int tries, int64 max);

#endif							/* SEAM_IK_PACE_H */
