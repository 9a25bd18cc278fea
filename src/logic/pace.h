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

/* So many answers in a row that are PACE_AWAY stop all but probes. */
#define PACE_ROW 5

/* The pauses between probes of a server that does not work, */
#define PACE_AWAY_FIRST_US (1 * INT64CONST(1000000))
#define PACE_AWAY_LONGEST_US (60 * INT64CONST(1000000))

/* and of one that does not accept the API key. */
#define PACE_REFUSED_FIRST_US (10 * INT64CONST(1000000))
#define PACE_REFUSED_LONGEST_US (300 * INT64CONST(1000000))

/* What the end of a request says of the pace. */
typedef enum PaceSign
{
	PACE_GOOD,					/* it was answered by a server that works */
	PACE_LIMITED,				/* the server limits the rate (429) */
	PACE_AWAY,					/* 5xx, 408, a timeout, or no connection */
	PACE_REFUSED,				/* the server does not accept the API key
								 * (401) */
	PACE_NO_DESCRIPTOR			/* this process has no descriptor for more */
} PaceSign;

/* The end of a request. */
typedef struct PaceAnswer
{
	PaceSign	sign;
	int64		begun_at;		/* when it was sent */
	int64		asked;			/* the pause that its Retry-After asks for, or
								 * 0 */
	int64		backoff;		/* the pause of PACE_LIMITED that asks for
								 * less */
	int			nflying;		/* others that are under way */
	bool		may_be_workspace;	/* PACE_REFUSED may be of the workspace
									 * that it was made in alone */
} PaceAnswer;

/* Why nothing but a probe may be sent. */
typedef enum PaceStop
{
	PACE_GOES,					/* anything may be sent */
	PACE_STOPPED_AWAY,			/* the server does not work, or cannot be
								 * reached */
	PACE_STOPPED_REFUSED		/* it does not accept the API key */
} PaceStop;

/* What may be sent. */
typedef enum PaceMay
{
	PACE_MAY_SEND,				/* any request */
	PACE_MAY_LIST,				/* a probe, which leaves nothing in doubt: a
								 * list */
	PACE_MAY_POST				/* a probe after a list that was answered: any
								 * one request, which costs no attempt */
} PaceMay;

/* Times are microseconds on a clock that never jumps; "now" comes from the caller. */
typedef struct Pace
{
	int			limit;			/* requests that may be under way at once */
	int			max;			/* the most that limit may be */
	int			credit;			/* answers towards the next raise of limit */
	int64		paused_at;		/* when the last pause of all requests began */
	int64		paused_until;	/* when it ends; by Retry-After or a 429 */

	PaceStop	stop;			/* whether probes are all that may be sent */
	int64		since;			/* when that last began or ended: what was
								 * sent before tells nothing of the time after */
	int			nbad;			/* answers in a row that were PACE_AWAY */
	bool		probing;		/* a probe is under way */
	bool		listed;			/* its list was answered, and a POST is next */
	int64		probe_at;		/* when the next probe may be sent */
	int64		probe_pause;	/* before the probe after that one; 0: the
								 * shortest */
	int			nprobes;		/* probes that have failed since "since" */
} Pace;

/* Requests that may be sent under a limit of so many a second. */
typedef struct PaceBucket
{
	double		tokens;			/* requests that may be sent, as of: */
	int64		filled_at;
} PaceBucket;

extern void pace_init(Pace *pace, int max);
extern void pace_set_max(Pace *pace, int max);
extern bool pace_answer(Pace *pace, const PaceAnswer *answer, int64 now);
extern int	pace_allows(const Pace *pace, int nflying, int64 now, PaceMay *may, int64 *again_at);
extern void pace_probe_sent(Pace *pace);
extern void pace_resume(Pace *pace, int64 now);
extern int64 pace_time_left(const Pace *pace, int64 begun_at, int64 nended, int64 nleft, int64 now);
extern int	pace_bucket_allows(PaceBucket *bucket, int rate, int64 now, int64 *again_at);
extern void pace_bucket_take(PaceBucket *bucket);
extern int64 pace_backoff(int tries, int64 max, double chance);
extern int64 pace_pause(int asked_s, int tries, int64 max, double chance);

#endif							/* SEAM_IK_PACE_H */
