/*-------------------------------------------------------------------------
 *
 * pace.h
 *	  How fast requests may follow each other, as their answers tell.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_PACE_H
#define SEAM_IK_PACE_H

/* The longest pause of all, also where Seam asks for a longer one; microseconds. */
#define PACE_LONGEST_US (3600 * INT64CONST(1000000))

/* Times are microseconds on a clock that never jumps; "now" comes from the caller. */
typedef struct Pace
{
	int			limit;			/* requests that may be under way at once */
	int			max;			/* the most that limit may be */
	int			credit;			/* answers towards the next raise of limit */
	int64		paused_at;		/* when the last pause of all requests began */
	int64		paused_until;	/* when it ends; by a 429 */
} Pace;

/* What the end of a request says of the pace. */
typedef enum PaceSign
{
	PACE_GOOD,					/* it was answered */
	PACE_LIMITED,				/* the server limits the rate */
	PACE_NO_DESCRIPTOR,			/* this process has no descriptor for more */
	PACE_SILENT					/* nothing */
} PaceSign;

/* Requests that may be sent under a limit of so many a second. */
typedef struct PaceBucket
{
	double		tokens;			/* requests that may be sent, as of: */
	int64		filled_at;
} PaceBucket;

extern void pace_init(Pace *pace, int max);
extern void pace_set_max(Pace *pace, int max);
extern void pace_answer(Pace *pace, PaceSign sign, int64 pause, int nflying, int64 now);
extern void pace_resume(Pace *pace);
extern int64 pace_time_left(const Pace *pace, int64 begun_at, int64 nended, int64 nleft, int64 now);
extern int	pace_bucket_allows(PaceBucket *bucket, int rate, int64 now, int64 *again_at);
extern void pace_bucket_take(PaceBucket *bucket);
extern int64 pace_backoff(int tries, int64 max, double chance);
extern int64 pace_pause(int asked_s, int tries, int64 max, double chance);

#endif							/* SEAM_IK_PACE_H */
