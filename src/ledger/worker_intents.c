/*-------------------------------------------------------------------------
 *
 * worker_intents.c
 *	  The worker as the keeper of sessions' synchronous calls: it records what
 *	  they are about to do, and has what became of them judged and noted.
 *
 * Only the record of a call that is about to be made, and the revocation, are
 * urgent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "access/transam.h"
#include "access/xact.h"
#include "ledger/intent.h"
#include "base/stop_point.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "ledger/worker_known.h"

static dlist_head added = DLIST_STATIC_INIT(added); /* in the transaction
													 * under way */

/*
 * In a transaction: record the calls that sessions are about to make.
 */
static void
record_calls(void *arg)
{
	FullTransactionId mine;
	CallRow   **rows;
	int			n = 0;
	dlist_iter	it;

	/*
	 * Younger than theirs, or they could be given out again after a crash: it
	 * is assigned here, after their wishes were read.
	 */
	Assert(!FullTransactionIdIsValid(GetTopFullTransactionIdIfAny()));
	mine = GetTopFullTransactionId();
	rows = palloc(intent_nslots() * sizeof(CallRow *));
	dlist_foreach(it, &added)
	{
		Open	   *open = dlist_container(Open, node, it.cur);

		if (!FullTransactionIdPrecedes(open->row.transaction, mine))
			elog(ERROR, "a transaction of a call is younger than the one that records it");
		/* Seam's time is that of our endpoint, and not of another one */
		if (account_has_endpoint(&open->row.account, credentials_id()))
			seam_clock_now(&open->row.has_seam_time, &open->row.seam_time);
		rows[n++] = &open->row;
		for (int i = 0; i < open->row.n; i++)
			worker_need_answers(&open->row.calls[i].identity);
	}
	worker_write_needed_answers();
	work_record_calls(rows, n, GetCurrentTimestamp());
	STOP_POINT("worker-record");
	ForceSyncCommit();
}

/*
 * After the commit: let the sessions go on.
 */
static void
calls_are_recorded(void)
{
	STOP_POINT("worker-recorded");
	while (!dlist_is_empty(&added))
	{
		Open	   *open = dlist_container(Open, node, dlist_pop_head_node(&added));

		if (intent_fulfil(open->slot, open->wish, open->latch, open->row.id))
			known.of_slot[open->slot] = open;
		else
		{
			/* withdrawn: no call is made */
			open->row.n = 0;
			open->row.answered = true;
			open->slot = -1;
			known_set_dirty(open);
		}
		known_add_uses(open);
		known_set_waiting(open, !open->row.answered);
		known_add_to_transaction(open, open->top);
	}
}

/*
 * The transaction failed: they are taken anew, if their sessions still wait.
 */
static void
calls_are_not_recorded(void)
{
	while (!dlist_is_empty(&added))
		known_free(dlist_container(Open, node, dlist_pop_head_node(&added)));
	calls_listen_again();
}

/*
 * Record calls that are about to be made, judge those whose transactions have
 * ended, and write what has become known.  look: at all transactions.
 *
 * Returns when to do it again, unasked, on clock_now()'s clock.
 */
int64
worker_process_intents(bool look)
{
	static int64 heard_at = 0;
	int64		now = clock_now();
	int64		again = PG_INT64_MAX;
	int64		at[3];

	if (known.identities == NULL)
		known_set_up();
	if (!known.loaded && !ledger_step(calls_load, false, "read the calls that were recorded"))
	{
		/* none must be known twice */
		if (hash_get_num_entries(known.identities) > 0)
			proc_exit(1);
		return now + STEP_ERROR_PAUSE_US;
	}
	if (calls_listen(&added))
		heard_at = now;
	if (!dlist_is_empty(&added))
	{
		if (ledger_step(record_calls, true, "record calls"))
			calls_are_recorded();
		else
		{
			calls_are_not_recorded();
			again = now + STEP_ERROR_PAUSE_US;
		}
	}
	at[0] = calls_judge(now, look);
	at[1] = calls_watch_batches(now);
	at[2] = calls_write_answers(now);
	for (int i = 0; i < (int) lengthof(at); i++)
		again = Min(again, at[i]);
	if (dlist_is_empty(&known.transactions))
		return again;
	/* one that is open for long, or prepared, costs nothing */
	if (now < heard_at + QUIET_US || !intent_listen())
		again = Min(again, now + ANSWERS_US);
	return Min(again, known.look_at);
}

/*
 * This process is about to end: note what it knows, for its successor.
 */
void
worker_finish_calls(void)
{
	if (!known.loaded)
		return;
	/* a standby that is away must not hold up a shutdown */
	SetConfigOption("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION);
	worker_take_answers();
	(void) calls_judge(clock_now(), true);
	(void) calls_write_answers(PG_INT64_MAX);
}
