/*-------------------------------------------------------------------------
 *
 * change.c
 *	  Changes of requests, and what follows from them.
 *
 * A change puts the request into a queue, and its end is told of, when it has committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/async.h"
#include "nodes/pg_list.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "worker/change.h"
#include "worker/queues.h"
#include "worker/step.h"

#define CHANNEL "seam_instant_key"

/* What is to be told when the transaction has committed. */
typedef struct Notice
{
	int64		id;
	char	   *reference;		/* or NULL */
	RequestStatus status;
} Notice;

static List *notices;			/* of Notice *, in step_context(), in turn */

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
	notice->reference = row->reference ? pstrdup(row->reference) : NULL;
	notice->status = status;
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
	bool		queued = change->status == STATUS_PENDING || change->status == STATUS_REVOKING ||
	change->status == STATUS_ISSUED;

	work_change(row->id, change);
	if (queued && change->next_attempt_at == DT_NOBEGIN)
		queues_at_once(change->status, row->id);
	else if (queued && change->next_attempt_at != DT_NOEND)
		queues_due_at(change->status, change->next_attempt_at);
	if (written || change->status == STATUS_FAILED || change->status == STATUS_REVOKED)
		change_add_notice(row, change->status);
}

/*
 * In a transaction: notify of each end.
 */
static void
notify(void *arg)
{
	ListCell   *lc;

	foreach(lc, notices)
	{
		Notice	   *notice = lfirst(lc);
		StringInfoData payload;

		initStringInfo(&payload);
		appendStringInfo(&payload, "{\"request_id\":" INT64_FORMAT ",\"reference\":", notice->id);
		if (notice->reference)
			escape_json(&payload, notice->reference);
		else
			appendStringInfoString(&payload, "null");
		appendStringInfo(&payload, ",\"status\":\"%s\"}", status_names[notice->status]);
		Async_Notify(CHANNEL, payload.data);
	}
}

/*
 * Returns how many ends are to be told of.
 */
int
change_count_notices(void)
{
	return list_length(notices);
}

/*
 * What was done since there were only n ends to be told of is undone: it is not told.
 */
void
change_forget_notices(int n)
{
	notices = list_truncate(notices, n);
}

/*
 * Tells of what has been stored.  Nobody depends on it, so a failure is only logged.
 */
void
change_send_notices(void)
{
	Step		step = {.run = notify,.what = "notify of its results",.bare = true,.patient = true};

	if (notices == NIL)
		return;
	(void) step_take(&step);
	notices = NIL;
}
