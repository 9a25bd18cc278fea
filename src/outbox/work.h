/*-------------------------------------------------------------------------
 *
 * work.h
 *	  What the worker reads and writes of the outbox's requests.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WORK_H
#define SEAM_IK_WORK_H

#include "seam/account.h"
#include "seam/keys.h"
#include "datatype/timestamp.h"
#include "logic/outcome.h"
#include "outbox/claim.h"
#include "outbox/damage.h"
#include "outbox/outbox.h"
#include "utils/array.h"

extern const char *const status_names[STATUS_COUNT];

/* A request, as the worker sees it. */
typedef struct WorkRow
{
	int64		id;				/* request_id */
	RequestStatus status;		/* as it was when it was read */
	bool		has_identity;	/* none, where a key found in a row goes */
	pg_uuid_t	identity;		/* if so: user_identity_id */
	int			max_use_count;	/* 0: left to Seam */
	bool		has_profile;	/* a customization profile was asked for */
	pg_uuid_t	profile;		/* if so */
	bool		has_workspace;	/* it was given one; else it is the settings' */
	pg_uuid_t	workspace;		/* if so, or else zeroes */
	int			attempts;		/* made so far */
	bool		has_key;		/* it is known which key it has */
	pg_uuid_t	key;			/* if so: its id */
	bool		has_target;		/* a row takes the key */
	Oid			target;			/* if so: its table */
	TimestampTz next_attempt_at;	/* DT_NOBEGIN: at once; DT_NOEND for NULL */
	TimestampTz attempted_at;	/* the last attempt, on the local clock */
	int			attempt_timeout;	/* milliseconds */
	int64		ripe_at;		/* when Seam's list may tell of it, if it is
								 * in doubt: clock_now()'s clock */
	bool		has_seam_time;	/* Seam's clock was known at that attempt */
	TimestampTz seam_time;		/* if so: what it said */
	int			timeline;		/* of the server then; 0: nobody's */
	int			sqlerrcode;		/* 0 for NULL */
	char	   *error;			/* or NULL */
	char	   *reference;		/* or NULL */
	AccountId	account;		/* that the last attempt was made with */
	TimestampTz look_again_from;	/* Seam's clock; DT_NOEND for NULL */
	bool		is_call;		/* made by a session's call: never sent again */
	bool		is_of_session;	/* it was, also where its transaction has
								 * rolled back */
	bool		is_newest_of_stay;
	bool		is_renewal;
	TimestampTz wake_at;		/* Seam's clock; DT_NOEND for NULL */
	TimestampTz issue_at;		/* likewise; DT_NOBEGIN for NULL */
	TimestampTz valid_until;	/* likewise; DT_NOEND for NULL */
	TimestampTz former_expires_at;	/* likewise */
} WorkRow;

/* What becomes of a request.  Strings and key may be NULL: left as they are. */
typedef struct WorkChange
{
	int64		id;				/* of the request: change_add() sets it */
	RequestStatus status;		/* from now on */
	TimestampTz next_attempt_at;	/* DT_NOBEGIN: at once; DT_NOEND for NULL */
	bool		finished;		/* now; else it is not */
	int			attempts;		/* from now on */
	int			attempt_timeout;	/* milliseconds; 0: as it is */
	const SeamKey *key;			/* that it has */
	int			sqlerrcode;		/* 0: there is no error (any more) */
	const char *error;			/* what went wrong */
	const char *seam_request_id;	/* of the last answer */

	/* look for a key once more, if look_again is set: */
	bool		look_again;
	TimestampTz look_again_at;	/* when, on the local clock */
	TimestampTz look_again_from;	/* created since then, by Seam's clock */

	/*
	 * its stay is looked at by the worker then, by Seam's clock, if wakes is
	 * set:
	 */
	bool		wakes;
	TimestampTz wake_at;
} WorkChange;

/*
 * The requests of a status for which there is something to do: at once, or after a
 * pause.
 */
typedef struct WorkQueue
{
	RequestStatus status;		/* of its requests */
	TimestampTz next_due;		/* nothing is due before */
	WorkMark	at_once;		/* the last one taken of those, */
	WorkMark	paused;			/* and of those whose pause was over */
	bool		paused_first;	/* the next time, because each goes first in
								 * turn */
	int64		next_full;		/* when to begin before the marks again, on
								 * clock_now()'s clock */
	bool		careful;		/* a read has failed: read around what cannot
								 * be read */
	bool		damaged;		/* there was something since the queue was
								 * last read from its beginning */
} WorkQueue;

extern const pg_uuid_t *work_workspace(const WorkRow *row);
extern int	work_claim(WorkQueue *queue, const WorkAttempt *attempt, ArrayType *held,
					   int limit, WorkRow **rows);
extern int	work_doubts(ArrayType *active, WorkRow **rows);
extern void work_give_back(const int64 *ids, int n);
extern bool work_peek(int offset, pg_uuid_t *identity);
extern int	work_lock_all(const int64 *ids, int n, WorkRow **rows);
extern bool work_lock(int64 id, WorkRow *row);
extern bool work_exists(int64 id);
extern void work_change(WorkChange *const *changes, int n);
extern int	work_owned(ArrayType *keys, pg_uuid_t **owned);
extern void work_revoke_copy(const WorkRow *row, const SeamKey *key, const char *why);
extern int	work_look_again(int limit, WorkRow **rows, TimestampTz *next);
extern void work_looked_again(int64 id);
extern int	work_awaited(pg_uuid_t **ids);
extern int64 work_report_key(const WorkRow *row, const SeamKey *key, const char *report);

#endif							/* SEAM_IK_WORK_H */
