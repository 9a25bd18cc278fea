/*-------------------------------------------------------------------------
 *
 * work_calls.h
 *	  What the worker reads and writes of synchronous calls.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WORK_CALLS_H
#define SEAM_IK_WORK_CALLS_H

#include "ledger/intent.h"

/* A synchronous call, or several, whose transaction has not been judged. */
typedef struct CallRow
{
	int64		id;
	FullTransactionId transaction;
	int			n;
	IntentCall *calls;			/* n of them, in a chunk of their own */
	int			max_use_count;
	bool		has_profile;
	pg_uuid_t	profile;
	TimestampTz requested_at;
	int			timeout;		/* milliseconds */
	bool		has_seam_time;
	TimestampTz seam_time;
	bool		answered;		/* what came of each is known */
	bool		owned;			/* committed, and remembered for others'
								 * doubts */
	AccountId	account;		/* whose workspace is not known */
	int			timeline;
	bool		is_ours;		/* and not of what this is a physical copy of */
} CallRow;

extern int	work_calls(CallRow **calls);
extern void work_record_calls(CallRow **calls, int n, TimestampTz now);
extern void work_answer_calls(const CallRow **calls, int n);
extern void work_extend_call(const CallRow *call);
extern bool work_call_is_locked(int64 id);
extern int	work_orphans(pg_uuid_t **ids);
extern void work_delete_calls(const CallRow **calls, int n);
extern void work_add_orphans(const CallRow *call, const char *report);

#endif							/* SEAM_IK_WORK_CALLS_H */
