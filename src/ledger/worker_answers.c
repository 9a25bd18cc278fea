/*-------------------------------------------------------------------------
 *
 * worker_answers.c
 *	  Keeps the table of sessions' calls up with what is known of them, as far as
 *	  anybody needs that after a crash.
 *
 * Answers are written a little later than they come, many at once; those of an
 * identity that another call is about to be made for, with the record of that.  What
 * has committed is kept for a while: a call whose answer is lost soon afterwards may
 * be of the same identity, and Seam's list then shows this key, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "config/settings.h"
#include "utils/timestamp.h"
#include "ledger/worker_known.h"

/* Between two looks whether a key has to be known still. */
#define TIDY_US (1 * INT64CONST(1000000))

/* How often a batch under way is looked at, and how far ahead that is noted. */
#define BATCH_LOOK_US (1 * INT64CONST(1000000))
#define BATCH_AHEAD_US (5 * INT64CONST(1000000))

static bool write_carefully;	/* a session's lock was in the way */
static bool tidy_carefully;		/* likewise */
static List *long_batches;		/* of Open *, in a turn's context */
static List *old_calls;			/* of Open *: what is tidied up */
static int64 tidy_at;

/*
 * May something be settled by the list of the identity's keys for which it must
 * be known who owns this call's key?
 */
static bool
is_needed(const Open *open)
{
	const CallRow *row = &open->row;

	if (doubts_are_stale())
		return true;			/* not known yet */
	if (known.nwaiting == 0 && doubts_unsettled() == 0 && !flights_any())
		return false;
	for (int i = 0; i < row->n; i++)
	{
		const pg_uuid_t *identity = &row->calls[i].identity;
		int			ndoubts;

		(void) doubts_of(identity, &ndoubts);
		if (ndoubts > 0 || worker_identity_is_busy(identity))
			return true;
	}
	return false;
}

/* ---------- writing what is known ---------- */

/*
 * In a transaction: write what is in known.written; careful: but not what a session
 * has locked, whose turn comes later.
 */
static void
write_rows(bool careful)
{
	const CallRow **rows;
	int			n = 0;
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &known.written)
	{
		n++;
	}
	rows = palloc(Max(n, 1) * sizeof(CallRow *));
	n = 0;
	dlist_foreach_modify(it, &known.written)
	{
		Open	   *open = dlist_container(Open, dirty_node, it.cur);

		CHECK_FOR_INTERRUPTS();
		if (careful && work_call_is_locked(open->row.id))
			known_set_dirty(open);
		else
			rows[n++] = &open->row;
	}
	if (n > 0)
		work_answer_calls(rows, n);
}

/*
 * In a transaction: a call for this identity is about to be made.  If its answer is
 * lost in a crash, it must be known whose the identity's other keys are: have the
 * answers to other calls written by worker_write_needed_answers().
 */
void
worker_need_answers(const pg_uuid_t *id)
{
	Identity   *identity;
	FullTransactionId mine = GetTopFullTransactionId();
	dlist_node *node;

	if (dlist_is_empty(&known.dirty))
		return;
	identity = hash_search(known.identities, id, HASH_FIND, NULL);
	if (identity == NULL || FullTransactionIdEquals(identity->written_by, mine))
		return;
	identity->written_by = mine;
	for (node = dlist_tail_node(&identity->uses);; node = dlist_prev_node(&identity->uses, node))
	{
		Open	   *open = dlist_container(Use, node, node)->open;

		if (!open->dirty)
			break;
		if (!open->written)
			known_set_written(open);
		if (!dlist_has_prev(&identity->uses, node))
			break;
	}
}

/*
 * In a transaction: write them.
 */
void
worker_write_needed_answers(void)
{
	if (!dlist_is_empty(&known.written))
		write_rows(true);
}

/*
 * In a transaction: write to the table what has become known.
 */
static void
write_answers(void *arg)
{
	while (!dlist_is_empty(&known.dirty))
		known_set_written(dlist_container(Open, dirty_node, dlist_head_node(&known.dirty)));
	write_rows(write_carefully);
}

/*
 * Write what is due; now: PG_INT64_MAX, what can be written at all.  Returns when to do
 * it again, on clock_now()'s clock.
 */
int64
calls_write_answers(int64 now)
{
	if (!dlist_is_empty(&known.dirty) && now >= known.write_at)
	{
		write_carefully = write_carefully || now == PG_INT64_MAX;
		write_carefully = !ledger_step(write_answers, false, "note the answers to calls");
		if (write_carefully)
			known.write_at = clock_now() + STEP_ERROR_PAUSE_US;
	}
	return dlist_is_empty(&known.dirty) ? PG_INT64_MAX : known.write_at;
}

/* ---------- batches under way ---------- */

/*
 * Does the batch, which is under way, go on for longer than its row says by now?
 */
static bool
is_long(const Open *open, TimestampTz now)
{
	int64		elapsed = (now - open->row.requested_at) / 1000;

	return open->waiting && open->segment && open->row.timeout < elapsed + settings_settle_delay +
		BATCH_LOOK_US / 1000;
}

/*
 * In a transaction: note how long batches take that are under way, so that after a
 * crash it is known, about, until when they have issued keys.
 */
static void
extend_batches(void *arg)
{
	ListCell   *lc;

	foreach(lc, long_batches)
	{
		Open	   *open = lfirst(lc);

		calls_extend_window(&open->row, GetCurrentTimestamp() + BATCH_AHEAD_US);
		work_extend_call(&open->row);
	}
}

/*
 * Look at them now and then.  Returns when to do it again, on clock_now()'s clock.
 */
int64
calls_watch_batches(int64 now)
{
	static int64 look_at = 0;
	static bool any = false;

	if (known.nwaiting == 0)
		return PG_INT64_MAX;
	if (now < look_at)
		return any ? look_at : PG_INT64_MAX;
	look_at = now + BATCH_LOOK_US;
	any = false;
	long_batches = NIL;
	for (Open *open = known_next_open(NULL); open; open = known_next_open(open))
	{
		any = any || (open->waiting && open->segment);
		if (is_long(open, GetCurrentTimestamp()))
			long_batches = lappend(long_batches, open);
	}
	if (long_batches != NIL)
		(void) ledger_step(extend_batches, false, "note how long batches take");
	return any ? look_at : PG_INT64_MAX;
}

/* ---------- forgetting ---------- */

/*
 * In a transaction: delete the rows of calls that nobody has to know of any more, and no
 * late look at the keys of their identities either; after a lock was in the way, those
 * that no session has locked.
 */
static void
delete_calls(void *arg)
{
	const CallRow **rows = palloc(list_length(old_calls) * sizeof(CallRow *));
	pg_uuid_t  *awaited;
	int			nawaited = work_awaited(&awaited);
	int			n = 0;
	ListCell   *lc;

	foreach(lc, old_calls)
	{
		const CallRow *row = &((Open *) lfirst(lc))->row;
		bool		is_awaited = false;

		for (int i = 0; i < row->n && nawaited > 0 && !is_awaited; i++)
			is_awaited = bsearch(&row->calls[i].identity, awaited, nawaited, sizeof(pg_uuid_t),
								 uuid_compare) != NULL;
		if (is_awaited || (tidy_carefully && work_call_is_locked(row->id)))
			old_calls = foreach_delete_current(old_calls, lc);
		else
			rows[n++] = row;
	}
	if (n > 0)
		work_delete_calls(rows, n);
}

/*
 * Forget calls whose keys are owned, and that no doubt needs any more.  Returns
 * when to do it again, on clock_now()'s clock.
 */
int64
worker_tidy_calls(void)
{
	dlist_mutable_iter it;
	int64		now = clock_now();
	ListCell   *lc;

	if (!known.loaded || dlist_is_empty(&known.kept))
		return PG_INT64_MAX;
	if (now < tidy_at)
		return tidy_at;
	tidy_at = now + TIDY_US;
	old_calls = NIL;
	dlist_foreach_modify(it, &known.kept)
	{
		Open	   *open = dlist_container(Open, node, it.cur);

		if (open->forget_at > now)
		{
			/* those that follow it are younger, or wait for another look */
			if (open->row.answered)
				break;
			continue;
		}
		if (!is_needed(open))
			old_calls = lappend(old_calls, open);
	}
	if (old_calls == NIL)
		return tidy_at;
	tidy_carefully = !ledger_step(delete_calls, false, "forget calls");
	if (tidy_carefully)
		return tidy_at;
	foreach(lc, old_calls)
	{
		Open	   *open = lfirst(lc);

		dlist_delete(&open->node);
		known_free(open);
	}
	return tidy_at;
}
