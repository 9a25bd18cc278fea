/*-------------------------------------------------------------------------
 *
 * stay_work.h
 *	  What the worker reads and writes of stays.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STAY_WORK_H
#define SEAM_IK_STAY_WORK_H

#include "logic/stay.h"
#include "utils/uuid.h"

/* The newest request of a stay, for which something is due. */
typedef struct StayWork
{
	int64		id;
	/* By these two the other requests of the stay are found. */
	int64		hash;
	int64		stay_id;
	/* What is decided by. */
	StayFacts	facts;
	/* NULL: none */
	char	   *reference;
} StayWork;

/* What becomes of a request: columns of it. */
typedef struct StaySet
{
	int64		id;
	/* DT_NOEND: not before something changes */
	TimestampTz wake_at;

	/*
	 * It is put into the queue, or, where that is not so, taken out, or left
	 * as it is.
	 */
	bool		queues;
	bool		holds;
	/* Its row is to be looked at. */
	bool		looks;
} StaySet;

extern int	stay_work_due(TimestampTz now, int limit, StayWork **due);
extern bool stay_work_first(TimestampTz *wake_at, bool *has_identity, pg_uuid_t *identity);
extern void stay_work_set(const StaySet *sets, int n);
extern bool stay_work_lock(const StayWork *stay);
extern void stay_work_end(const StayWork *stay);
extern void stay_work_note_end(const StayWork *stay, const char *unwanted);
extern void stay_work_succeed(const StayWork *stay, bool renews, TimestampTz former_expires_at,
							  TimestampTz wake_at);
extern void stay_work_lost(const StayWork *stay);
extern void stay_work_forget(const StayWork *stay);
extern void stay_work_wake_keys(int renew_before);

#endif							/* SEAM_IK_STAY_WORK_H */
