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

#include "access/xlog.h"
#include "config/settings.h"
#include "nodes/pg_list.h"
#include "shmem/notices.h"
#include "shmem/places.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/change.h"
#include "worker/credentials.h"
#include "worker/queues.h"
#include "worker/sending.h"
#include "worker/stay_times.h"
#include "worker/step.h"

/* A key that came too late is to be revoked; else its row is written after so long. */
#define DEAD_KEY_US (10 * INT64CONST(1000000))

/* While nobody takes them, so many notices are held; the oldest are dropped then. */
#define HELD_MAX 100000

/* Of the step that is under way: */
static List *changes;			/* of WorkChange *, in step_context(): those
								 * that are to be made */
static List *notices;			/* of Notice *, in step_context(), in turn */
static int64 rows_from = PG_INT64_MAX;	/* the least id whose row is to be
										 * written */
static bool needs_writer;		/* there is something else for it to do */

/* What the writer has to tell, and there was no room for: */
static List *held;				/* of Notice *, in TopMemoryContext, in turn */
static bool dropped;			/* some were, and that was told of */

/* What an outcome says of a request; where it ends in a colon, the keys follow. */
static const char *const texts[] = {
	[TEXT_FOUND] = "the answer to a call was lost, and this instant key of it was found",
	[TEXT_LIST_WITHOUT_DATE] = "could not look for an instant key: Seam's answer has no Date",
	[TEXT_LIST_TOO_SLOW] = "could not look for an instant key: Seam's answer took too long to tell "
	"its clock",
	[TEXT_KEY_ELSEWHERE] = "the instant key was issued with another API key, endpoint or "
	"workspace, and is not found with the present one",
	[TEXT_IDENTITY_ELSEWHERE] = "the answer was lost, and with the present API key, endpoint and "
	"workspace, which are others, the user identity is not found",
	[TEXT_NO_KEY_ELSEWHERE] = "the answer was lost, and with the present API key, endpoint and "
	"workspace, which are others, no instant key is found",
	[TEXT_WHOSE] = "the answer was lost, and it cannot be told any more whose these instant keys "
	"are: ",
	[TEXT_BEFORE_PROMOTION] = "the answer was lost before a promotion or restore, and these "
	"instant keys may be of this request: ",
	[TEXT_OTHER_ISSUER] = "the answer was lost, and another issuer is at work: any of these "
	"instant keys may be of this request: ",
	[TEXT_CLOCK_SET_BACK] = "the answer was lost when the clock was set back, and these instant "
	"keys may be of this request: ",
	[TEXT_WHICH_CALL] = "the answer was lost, and it cannot be told by which call these instant "
	"keys were issued: ",
};

/*
 * Returns what there is to know about a request in order to decide about it.
 */
OutcomeRequest
change_facts(const WorkRow *row)
{
	OutcomeRequest facts = {
		.persists = row->is_renewal && row->former_expires_at != DT_NOEND,
		.status = row->status,
		.has_key = row->has_key,
		.has_target = row->has_target,
		.is_call = row->is_call,
		.attempts = row->attempts,
		.anothers = credentials_are_others(&row->account, work_workspace(row)),
		.sqlerrcode = row->sqlerrcode,
		.next_attempt_at = row->next_attempt_at,
		.backoff = sending_backoff(row->attempts)
	};

	if (row->timeline == 0)
		facts.origin = ORIGIN_UNKNOWN;
	else
		facts.origin = row->timeline == (int) GetWALInsertionTimeLine() ? ORIGIN_OURS :
			ORIGIN_BEFORE;
	return facts;
}

/*
 * Returns the change that an outcome makes to a request.  Of result are the words where
 * they are an answer's; key is the key that is taken, and keys are the ids of those that
 * are reported.  Each may be NULL where the outcome does not need it.
 */
WorkChange
change_of(const WorkRow *row, const Outcome *outcome, const SeamResult *result,
		  const SeamKey *key, const char *keys)
{
	WorkChange	change = {
		.status = outcome->status,
		.next_attempt_at = outcome->next_attempt_at,
		.finished = outcome->finished,
		.attempts = outcome->attempts,
		.attempt_timeout = outcome->attempt_timeout,
		.key = outcome->takes_key ? key : NULL,
		.sqlerrcode = outcome->sqlerrcode,
		.look_again = outcome->look_again,
		.look_again_at = outcome->look_again_at
	};

	switch (outcome->text)
	{
		case TEXT_KEPT:
			change.error = row->error;
			break;
		case TEXT_NONE:
			break;
		case TEXT_ANSWER:
			change.sqlerrcode = result->sqlerrcode;
			change.error = answer_error_text(result);
			break;
		case TEXT_LIST_FAILED:
			change.error = psprintf("could not look for an instant key: %s",
									answer_error_text(result));
			break;
		default:
			change.error = psprintf("%s%s", texts[outcome->text], keys ? keys : "");
	}
	return change;
}

/*
 * Have the listeners told of a request's end, when the transaction has committed, if that
 * is wanted.
 */
void
change_add_notice(const WorkRow *row, RequestStatus status)
{
	MemoryContext old;
	Notice	   *notice;

	if (!settings_notify)
		return;
	old = MemoryContextSwitchTo(step_context());
	notice = palloc(sizeof(Notice));
	notice->id = row->id;
	notice->status = status;
	notice->has_reference = row->reference != NULL;
	strlcpy(notice->reference, row->reference ? row->reference : "", sizeof(notice->reference));
	notices = lappend(notices, notice);
	MemoryContextSwitchTo(old);
}

/*
 * In a step: there is something for the writer to do when it has committed.
 */
void
change_needs_writer(void)
{
	needs_writer = true;
}

/*
 * In a step: has change_make() change a request that is locked, and that has no other
 * change to be made, and sees to what follows from it.  What change points to must live
 * until then.
 */
void
change_add(const WorkRow *row, WorkChange *change)
{
	MemoryContext old;
	WorkChange *copy;
	bool		written = change->status == STATUS_ISSUED && change->next_attempt_at == DT_NOEND;
	bool		queued = change->status == STATUS_PENDING || change->status == STATUS_REVOKING;
	bool		dead = stay_times_after(row, change);

	/* a key that came too late is neither written nor told of */
	if (dead && !written)
		change->next_attempt_at = GetCurrentTimestamp() + DEAD_KEY_US;
	old = MemoryContextSwitchTo(step_context());
	copy = palloc(sizeof(WorkChange));
	*copy = *change;
	copy->id = row->id;
	changes = lappend(changes, copy);
	MemoryContextSwitchTo(old);
	/* its row may have to be cleared */
	needs_writer = needs_writer || (row->is_renewal && change->status == STATUS_FAILED);
	if (change->status == STATUS_ISSUED && !written && !dead)
		rows_from = Min(rows_from, row->id);
	if (queued && change->next_attempt_at == DT_NOBEGIN)
		queues_at_once(change->status, row->id);
	else if (queued && change->next_attempt_at != DT_NOEND)
		queues_due_at(change->status, change->next_attempt_at);
	if ((written && !dead) || change->status == STATUS_FAILED || change->status == STATUS_REVOKED)
		change_add_notice(row, change->status);
}

/*
 * In a step: makes the changes that were added.
 */
void
change_make(void)
{
	int			n = list_length(changes);
	WorkChange **made = palloc(Max(n, 1) * sizeof(WorkChange *));
	ListCell   *lc;

	foreach(lc, changes)
		made[foreach_current_index(lc)] = lfirst(lc);
	changes = NIL;
	if (n > 0)
		work_change(made, n);
}

/*
 * In a step: changes a request that is locked, at once; else as change_add().
 */
void
change_request(const WorkRow *row, WorkChange *change)
{
	change_add(row, change);
	change_make();
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
 * What was done since there were only n ends to be told of is undone: it is not told, and
 * what has not been made is not made.
 */
void
change_forget_notices(int n)
{
	changes = NIL;
	notices = list_truncate(notices, n);
	if (n > 0)
		return;
	rows_from = PG_INT64_MAX;
	needs_writer = false;
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
	wake = wake || needs_writer;
	needs_writer = false;
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
