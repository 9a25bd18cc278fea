/*-------------------------------------------------------------------------
 *
 * worker_judge.c
 *	  What becomes of sessions' calls when their transactions have ended.
 *
 * What is to be revoked becomes a request of the outbox, with all that it knows
 * of retries, lost answers and copies.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "config/settings.h"
#include "base/stop_point.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"
#include "ledger/worker_known.h"

static int64 judge_at;			/* not before, after it failed */

/* What becomes of a transaction's keys. */
typedef enum Fate
{
	FATE_OPEN,
	FATE_COMMITTED,
	FATE_ABORTED,
	FATE_UNKNOWN
} Fate;

/*
 * What has become of a call's transaction?
 */
static Fate
judge(const CallRow *row)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		status;
	char	   *name;

	if (!FullTransactionIdPrecedes(row->transaction, ReadNextFullTransactionId()))
		return FATE_UNKNOWN;
	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = FullTransactionIdGetDatum(row->transaction);
	fcinfo->args[0].isnull = false;
	status = pg_xact_status(fcinfo);
	if (fcinfo->isnull)
		return FATE_UNKNOWN;	/* too old */
	name = TextDatumGetCString(status);
	if (strcmp(name, "in progress") == 0)
		return FATE_OPEN;
	if (strcmp(name, "committed") == 0)
		return FATE_COMMITTED;
	/* in the server that this one is a copy of it may have committed */
	return row->is_ours ? FATE_ABORTED : FATE_UNKNOWN;
}

/*
 * In a transaction: the call's transaction rolled back, or nobody can tell.
 */
static void
abandon(Open *open, const char *report)
{
	CallRow    *row = &open->row;

	work_add_orphans(row, report);
	if (!row->answered)
		doubts_read_anew();
	queues_due_at(STATUS_REVOKING, GetCurrentTimestamp());
	ForceSyncCommit();
}

/*
 * The call's transaction committed: its keys are owned.  That must be known for
 * a while, since a call that begins soon may come to be in doubt, and longer if
 * its own answer was lost.
 */
static void
keep(Open *open)
{
	open->row.owned = true;
	known_set_dirty(open);
	known_leave_transaction(open);
	known_keep(open);
}

/*
 * In a transaction: see what has become of a transaction's calls.  Returns how many
 * are only reported.
 */
static int
judge_transaction(Transaction *transaction, int timeline)
{
	FullTransactionId last = InvalidFullTransactionId;
	Fate		fate = FATE_OPEN;
	int			reported = 0;
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &transaction->calls)
	{
		Open	   *open = dlist_container(Open, node, it.cur);
		CallRow    *row = &open->row;
		const char *report = NULL;

		if (!transaction->look && U64FromFullTransactionId(row->transaction) < transaction->aborted)
			continue;
		if (!row->is_ours || !FullTransactionIdEquals(row->transaction, last))
			fate = judge(row);
		last = row->is_ours ? row->transaction : InvalidFullTransactionId;
		if (fate == FATE_OPEN)
			continue;
		STOP_POINT("worker-judge");
		/* what it has left before its end is there by now */
		if (open->waiting && open->slot >= 0)
			calls_take_news(open->slot);
		if (fate == FATE_COMMITTED)
		{
			keep(open);
			continue;
		}
		if (work_call_is_locked(row->id))
		{
			transaction->locked = true;
			continue;
		}
		if (!row->is_ours)
			report = REPORT_OF_COPY;
		else if (fate == FATE_UNKNOWN)
			report = "the transaction that asked for it is too old to be judged";
		else if (row->timeline != timeline)
			report = "the transaction that asked for it ended with a promotion or restore";
		abandon(open, report);
		reported += report != NULL;
		work_delete_calls((const CallRow **) &row, 1);
		open->done = true;
	}
	return reported;
}

/*
 * In a transaction: see which calls' transactions have ended.
 */
static void
judge_calls(void *arg)
{
	int			timeline = (int) GetWALInsertionTimeLine();
	int			reported = 0;
	dlist_iter	it;

	dlist_foreach(it, &known.transactions)
	{
		Transaction *transaction = dlist_container(Transaction, node, it.cur);

		if (!transaction->look && transaction->aborted == 0)
			continue;
		reported += judge_transaction(transaction, timeline);
		transaction->judged = true;
	}
	if (reported > 0)
		ereport(WARNING,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("instant keys of %d synchronous calls may be alive without a row in "
						"database \"%s\"", reported, step_database()),
				 errhint("They are in the view seam_instant_key_orphan; delete those that are not "
						 "wanted.")));
}

/*
 * After the commit: forget what was judged.
 */
static void
calls_are_judged(void)
{
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &known.transactions)
	{
		Transaction *transaction = dlist_container(Transaction, node, it.cur);
		dlist_mutable_iter of;

		if (!transaction->judged)
			continue;
		if (transaction->locked)
			judge_at = clock_now() + LEDGER_LOCKED_PAUSE_US;
		else
		{
			transaction->look = false;
			transaction->aborted = 0;
		}
		transaction->judged = transaction->locked = false;
		dlist_foreach_modify(of, &transaction->calls)
		{
			Open	   *open = dlist_container(Open, node, of.cur);

			if (!open->done)
				continue;
			known_leave_transaction(open);
			known_free(open);
		}
		if (!dlist_is_empty(&transaction->calls))
			continue;
		dlist_delete(&transaction->node);
		hash_search(known.by_top, &transaction->top, HASH_REMOVE, NULL);
	}
}

/*
 * The transaction failed: they are looked at again.
 */
static void
calls_are_not_judged(void)
{
	dlist_iter	it;

	dlist_foreach(it, &known.transactions)
	{
		dlist_container(Transaction, node, it.cur)->judged = false;
	}
	for (Open *open = known_next_open(NULL); open; open = known_next_open(open))
		open->done = false;
}

/*
 * Is there any transaction to look at?
 */
static bool
has_to_judge(void)
{
	dlist_iter	it;

	dlist_foreach(it, &known.transactions)
	{
		Transaction *transaction = dlist_container(Transaction, node, it.cur);

		if (transaction->look || transaction->aborted != 0)
			return true;
	}
	return false;
}

/*
 * Judge those whose transactions have ended; look: at all.  Returns when to do it
 * again, on clock_now()'s clock.
 */
int64
calls_judge(int64 now, bool look)
{
	if (look || (now >= known.look_at && !dlist_is_empty(&known.transactions)))
	{
		calls_look_at(0, 0);
		known.look_at = now + LOOK_AGAIN_US;
	}
	if (!has_to_judge())
		return PG_INT64_MAX;
	if (now < judge_at)
		return judge_at;
	if (ledger_step(judge_calls, false, "see what has become of calls"))
	{
		STOP_POINT("worker-judged");
		calls_are_judged();
	}
	else
	{
		calls_are_not_judged();
		judge_at = now + STEP_ERROR_PAUSE_US;
	}
	return has_to_judge() ? judge_at : PG_INT64_MAX;
}

/* ---------- leaving ---------- */

/*
 * In a transaction: calls whose keys wait to be revoked.
 */
static void
find_orphans(void *arg)
{
	pg_uuid_t  *ids;
	int			n = work_orphans(&ids);

	for (int i = 0; i < n; i++)
		remaining_add(arg, &ids[i]);
}

/*
 * This process leaves, and may have no successor: tell of calls that rolled back or
 * may do so, and whose keys nobody would revoke.
 */
void
worker_log_calls(const char *why)
{
	Remaining	remaining = {0};
	Step		find = {.run = find_orphans,.arg = &remaining,.patient = true};

	if (!known.loaded)
		return;
	for (const Open *open = known_next_open(NULL); open; open = known_next_open(open))
	{
		const CallRow *row = &open->row;

		if (judge(row) == FATE_COMMITTED)
			continue;
		for (int i = 0; i < row->n; i++)
		{
			if (row->calls[i].state == CALL_BEGUN || row->calls[i].state == CALL_ISSUED)
				remaining_add(&remaining, &row->calls[i].identity);
		}
	}
	(void) step_take(&find);
	if (remaining.n > 0)
		ereport(WARNING,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("%s, and instant keys of %d synchronous calls of database \"%s\" that "
						"rolled back, or may do so, were not revoked yet",
						why, remaining.n, step_database()),
				 errdetail("User identities: %s%s.", remaining.identities.data,
						   remaining_and_more(&remaining))));
}
