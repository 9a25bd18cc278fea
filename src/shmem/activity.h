/*-------------------------------------------------------------------------
 *
 * activity.h
 *	  What processes say of themselves: calls, batches, workers, writers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ACTIVITY_H
#define SEAM_IK_ACTIVITY_H

#include "datatype/timestamp.h"

/* What a process is about. */
typedef enum ActivityWhat
{
	ACTIVITY_NONE,				/* nothing of ours */
	ACTIVITY_CALL,				/* a session's call of one request */
	ACTIVITY_BATCH,				/* a session's call of many */
	ACTIVITY_WORKER,
	ACTIVITY_WRITER
} ActivityWhat;

/* What a worker does, or why it sends nothing. */
typedef enum WorkerState
{
	WORKER_STARTING,			/* it has not looked yet */
	WORKER_IDLE,				/* nothing is due */
	WORKER_WAITS_FOR_SEAM,		/* requests are under way */
	WORKER_PAUSED,				/* by seam_ik_pause() */
	WORKER_OFF,					/* by seam_ik.worker */
	WORKER_NO_KEY,				/* no API key can be read */
	WORKER_REFUSED,				/* Seam does not accept the API key */
	WORKER_LIMITED,				/* Seam limits the rate */
	WORKER_AWAY,				/* Seam does not work, or cannot be reached */
	WORKER_STATES
} WorkerState;

/* What a process says of itself; times are 0 where there is none. */
typedef struct Activity
{
	int			pid;
	Oid			database;
	ActivityWhat what;
	TimestampTz since;			/* when it has begun with that */
	int64		done;			/* requests that have ended; of a writer: rows
								 * that it is done with */
	int64		failed;			/* of these */
	int64		total;			/* of a call or batch: requests that are to be
								 * made; 0: not told */

	/* of a worker: */
	WorkerState state;
	TimestampTz until;			/* when that may end by itself */
	TimestampTz turned_at;		/* when it last came round its loop */
	int			under_way;		/* requests that wait for Seam */
	int			limit;			/* how many of them there may be */
} Activity;

extern void activity_request_shared(void);
extern void activity_startup_shared(void);
extern void activity_begin(ActivityWhat what, int64 total);
extern void activity_end(void);
extern void activity_progress(int64 done, int64 failed);
extern void activity_add(int64 done, int64 failed);
extern void activity_turned(WorkerState state, TimestampTz until, int under_way, int limit);
extern int	activity_places(void);
extern bool activity_get(int place, Activity *activity);
extern bool activity_of(Oid database, ActivityWhat what, Activity *activity);
extern const char *activity_what_name(ActivityWhat what);
extern const char *activity_state_name(WorkerState state);

#endif							/* SEAM_IK_ACTIVITY_H */
