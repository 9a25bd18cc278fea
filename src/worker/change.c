/*-------------------------------------------------------------------------
 *
 * change.c
 *	  Changes of requests, and what follows from them.
 *
 * A change puts the request into a queue, and its end is told of, when it has committed.
 * It is the writer that tells, and that writes rows: this process waits for no lock that
 * others hold while they tell.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "shmem/notices.h"
#include "shmem/places.h"
#include "utils/memutils.h"
#include "worker/change.h"
#include "worker/queues.h"
#include "worker/step.h"

/* While nobody takes them, so many notices are held; the oldest are dropped then. */
#define HELD_MAX 100000

/* Of the step that is under way: */
static List *notices;			/* of Notice *, in step_context(), in turn */
static int64 rows_from = PG_INT64_MAX;	/* the least id whose row is to be
										 * written */

/* What the writer has to tell, and there was no room for: */
static List *held;				/* of Notice *, in TopMemoryContext, in turn */
static bool dropped;			/* some were, and that was told of */

/*
 * A change that leaves the request as it is.
 */
WorkChange
change_none(const WorkRow *row)
{
	WorkChange	change = {.status = row->status};

	change.next_attempt_at = row->next_attempt_at;
	change.attempts = row->attempts;
	change.sqlerrcode = row->sqlerrcode;
	change.error = row->error;
	return change;
}

/*
 * Have who listens told of a request's end, when the transaction has committed.
 */
void
change_add_notice(const WorkRow *row, RequestStatus status)
{
	MemoryContext old = MemoryContextSwitchTo(step_context());
	Notice	   *notice = palloc(sizeof(Notice));

	notice->id = row->id;
	notice->status = status;
	notice->has_reference = row->reference != NULL;
	strlcpy(notice->reference, row->reference ? row->reference : "", sizeof(notice->reference));
	notices = lappend(notices, notice);
	MemoryContextSwitchTo(old);
}

/*
 * In a step: changes a request that is locked, and sees to what follows from it.
 */
void
change_request(const WorkRow *row, WorkChange *change)
{
	bool		written = change->status == STATUS_ISSUED && change->next_attempt_at == DT_NOEND;
	bool		queued = change->status == STATUS_PENDING || change->status == STATUS_REVOKING;

	work_change(row->id, change);
	if (change->status == STATUS_ISSUED && !written)
		rows_from = Min(rows_from, row->id);
	if (queued && change->next_attempt_at == DT_NOBEGIN)
		queues_at_once(change->status, row->id);
	else if (queued && change->next_attempt_at != DT_NOEND)
		queues_due_at(change->status, change->next_attempt_at);
	if (written || change->status == STATUS_FAILED || change->status == STATUS_REVOKED)
		change_add_notice(row, change->status);
}

/*
 * The step has failed: nothing of it is told.
 */
void
change_forget_notices(void)
{
	notices = NIL;
	rows_from = PG_INT64_MAX;
}

/*
 * Holds one more notice, for as long as there is no room for it.
 */
static void
hold(const Notice *notice)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Size		size = offsetof(Notice, reference) + strlen(notice->reference) + 1;
	Notice	   *copy = palloc(size);

	memcpy(copy, notice, size);
	held = lappend(held, copy);
	if (list_length(held) > HELD_MAX)
	{
		if (!dropped)
			ereport(WARNING,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("the outbox of database \"%s\" drops notifications", step_database()),
					 errdetail("More than %d wait for a writer.", HELD_MAX)));
		dropped = true;
		pfree(linitial(held));
		held = list_delete_first(held);
	}
	MemoryContextSwitchTo(old);
}

/*
 * The step has committed: has the writer write rows, and tell of what has been stored.
 * Nobody depends on what is told; what the writer has no room for now is held until it has.
 */
void
change_send_notices(void)
{
	bool		wake = rows_from != PG_INT64_MAX;
	ListCell   *lc;
	int			n = 0;

	if (wake)
		places_rows_due(rows_from);
	rows_from = PG_INT64_MAX;
	foreach(lc, held)
	{
		if (!notices_put(lfirst(lc)))
			break;
		pfree(lfirst(lc));
		n++;
	}
	held = list_delete_first_n(held, n);
	foreach(lc, notices)
	{
		if (held != NIL || !notices_put(lfirst(lc)))
			hold(lfirst(lc));
		n++;
	}
	notices = NIL;
	dropped = dropped && held != NIL;
	if (wake || n > 0)
		places_wake_other(PLACE_WRITER, WAKE_WORK);
}
