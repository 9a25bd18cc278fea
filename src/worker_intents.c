/*-------------------------------------------------------------------------
 *
 * worker_intents.c
 *	  The worker as the keeper of sessions' synchronous calls: it records what
 *	  they are about to do, and when their transactions have ended sees to the
 *	  keys of those that rolled back.
 *
 * What is to be revoked becomes a request of the outbox, with all that it knows
 * of retries, lost answers and copies.  What has committed is kept for a while:
 * a call whose answer is lost soon afterwards may be of the same identity, and
 * Seam's list then shows this key, too.
 *
 * Only the record of a call that is about to be made, and the revocation, are
 * urgent.  Answers are written to the table a little later, many at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "intent.h"
#include "places.h"
#include "miscadmin.h"
#include "settings.h"
#include "stop_point.h"
#include "utils/fmgrprotos.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"
#include "worker_known.h"

/* How long a user's lock of a recorded call may hold us up. */
#define LOCK_TIMEOUT_SHORT "20ms"

/* Between two looks whether a key has to be known still. */
#define TIDY_US (1 * INT64CONST(1000000))

/* How often a batch under way is looked at, and how far ahead that is noted. */
#define BATCH_LOOK_US (1 * INT64CONST(1000000))
#define BATCH_AHEAD_US (5 * INT64CONST(1000000))

/* Identities in one line of the log. */
#define IDENTITIES_PER_LINE 100

static dlist_head added = DLIST_STATIC_INIT(added); /* in the transaction
													 * under way */
static Open **of_slot;			/* the last one of each */
static uint32 *seen;			/* intent_count() of each, as it was looked at */
static bool see_all = true;
static bool loaded;
static int64 judge_at;			/* not before, after it failed */
static int64 batches_at;		/* when to look at batches under way */
static List *old_calls;			/* of Open *: what is tidied up */
static int64 tidy_at;

/* What becomes of a transaction's keys. */
typedef enum Fate
{
	FATE_OPEN,
	FATE_COMMITTED,
	FATE_ABORTED,
	FATE_UNKNOWN
} Fate;

/*
 * Make what is kept here.
 */
static void
set_up(void)
{
	known_set_up();
	of_slot = MemoryContextAllocZero(TopMemoryContext, intent_nslots() * sizeof(Open *));
	seen = MemoryContextAllocZero(TopMemoryContext, intent_nslots() * sizeof(uint32));
}

/*
 * Forget a call that is in no list of calls.
 */
static void
forget(Open *open)
{
	if (open->slot >= 0 && of_slot[open->slot] == open)
		of_slot[open->slot] = NULL;
	known_free(open);
}

/*
 * The shared results of a batch, mapped for as long as we want, or NULL when
 * they are gone, or are not those of a batch of this size.
 */
static dsm_segment *
attach(dsm_handle handle, int n)
{
	dsm_segment *segment = dsm_find_mapping(handle);

	if (segment == NULL)
		segment = dsm_attach(handle);
	if (segment == NULL)
		return NULL;
	dsm_pin_mapping(segment);
	if (dsm_segment_map_length(segment) >= mul_size(n, sizeof(IntentCall)))
		return segment;
	dsm_detach(segment);
	return NULL;
}

/*
 * A call whose answer is not known may have begun until this time.
 */
static void
extend_window(CallRow *row, TimestampTz until)
{
	int64		timeout = (until - row->requested_at) / 1000 + settings_settle_delay;

	row->timeout = (int) Min(Max(row->timeout, timeout), INT_MAX / 2);
}

/*
 * In a transaction: read what a former worker has recorded.
 */
static void
load_calls(void)
{
	CallRow    *rows;
	int			n = work_calls(&rows);

	for (int i = 0; i < n; i++)
	{
		Open	   *open = known_new(&rows[i], rows[i].calls);
		CallRow    *row = &open->row;

		for (int s = 0; s < intent_nslots() && !row->answered && row->is_ours; s++)
		{
			IntentWish	wish;

			/* its session may be alive, and have it still */
			if (intent_read_recorded(s, &wish) != row->id ||
				!FullTransactionIdEquals(wish.transaction, row->transaction))
				continue;
			if (row->n > 1 && wish.ncalls == row->n)
				open->segment = attach(wish.segment, row->n);
			of_slot[s] = open;
			open->slot = s;
		}
		known_add_uses(open);
		if (row->owned)
		{
			open->forget_at = http_now() + KEEP_AT_LEAST_US;
			dlist_push_tail(&known.kept, &open->node);
			continue;
		}
		known_set_waiting(open, !row->answered);
		known_add_to_transaction(open, row->transaction);
		open->loaded = true;
		known.nloaded++;
	}
	loaded = true;
	known.look_at = 0;
}

/* ---------- what sessions tell ---------- */

/*
 * Take over what is known of a call that has ended.  Of a batch only what may have
 * issued a key is of interest from now on.
 */
static void
take_answer(Open *open, const IntentNews *news)
{
	CallRow    *row = &open->row;
	int			n = 0;

	/* the session may have gone on when that was too late */
	if (row->owned)
		return;
	known_remove_uses(open);
	if (row->n == 1)
		row->calls[0] = news->answer;
	else if (open->segment)
		memcpy(row->calls, dsm_segment_address(open->segment), row->n * sizeof(IntentCall));
	row->answered = true;
	for (int i = 0; i < row->n; i++)
	{
		if (row->calls[i].state == CALL_BEGUN)
			row->answered = false;
		if (row->calls[i].state == CALL_BEGUN || row->calls[i].state == CALL_ISSUED)
			row->calls[n++] = row->calls[i];
	}
	row->n = n;
	if (!row->answered)
		extend_window(row, news->answered_at);
	if (open->segment)
		dsm_detach(open->segment);
	open->segment = NULL;
	/* what is not known now will not be told any more, but waits for the end */
	known_add_uses(open);
	known_set_waiting(open, !row->answered);
	known_set_dirty(open);
}

/*
 * Have a transaction, or all, looked at.
 */
static void
look_at_transaction(uint64 top, uint64 aborted)
{
	Transaction *transaction = hash_search(known.by_top, &top, HASH_FIND, NULL);
	dlist_iter	it;

	if (transaction && aborted == 0)
		transaction->look = true;
	else if (transaction)
		transaction->aborted = transaction->aborted ? Min(transaction->aborted, aborted) : aborted;
	if (known.nloaded == 0 && top != 0)
		return;
	dlist_foreach(it, &known.transactions)
		dlist_container(Transaction, node, it.cur)->look = true;
}

/*
 * The call that a session's news are about, or NULL.  Ids begin anew when the
 * extension is created anew, so the transaction is compared, too.
 */
static Open *
find_answered(int s, const IntentNews *news)
{
	Open	   *open = of_slot[s];
	dlist_iter	it;

	if (news->answered == 0)
		return NULL;
	if (open && open->row.id == news->answered && FullTransactionIdEquals(open->row.transaction, news->transaction))
		return open;
	if (known.nloaded == 0)
		return NULL;
	dlist_foreach(it, &known.transactions)
	{
		dlist_iter	of;

		dlist_foreach(of, &dlist_container(Transaction, node, it.cur)->calls)
		{
			open = dlist_container(Open, node, of.cur);
			if (open->loaded && open->row.id == news->answered && FullTransactionIdEquals(open->row.transaction, news->transaction))
				return open;
		}
	}
	return NULL;
}

/*
 * Take what the session in this place has left.
 */
static void
take_news(int s)
{
	IntentNews	news;
	Open	   *open;

	if (!intent_take_news(s, &news))
		return;
	if (news.seam_time.at != 0)
		worker_learn_clock(&news.seam_time);
	open = find_answered(s, &news);
	if (open)
		take_answer(open, &news);
	if (news.aborted != 0)
		look_at_transaction(news.top, news.aborted);
	if (news.ended != 0)
		look_at_transaction(news.ended, 0);
}

/*
 * Take the wish of the session in this place, if it has one.
 */
static void
take_wish(int s)
{
	IntentWish	wish;
	uint32		state = intent_read_wish(s, &wish);
	CallRow		row = {.n = wish.ncalls};
	dsm_segment *segment = NULL;
	Open	   *open;

	if (state == 0)
		return;
	row.transaction = wish.transaction;
	row.max_use_count = wish.max_use_count;
	row.has_profile = wish.has_profile;
	row.profile = wish.profile;
	row.timeout = wish.timeout;
	row.account = wish.account;
	row.is_ours = true;
	if (row.n > 1)
	{
		segment = attach(wish.segment, row.n);
		if (segment == NULL)
			return;				/* its session has given up */
	}
	open = known_new(&row, segment ? dsm_segment_address(segment) : &wish.call);
	open->segment = segment;
	for (int i = 0; i < row.n; i++)
		open->row.calls[i].state = CALL_BEGUN;	/* for all that we know */
	open->slot = s;
	open->wish = state;
	open->latch = wish.latch;
	open->top = wish.top;
	dlist_push_tail(&added, &open->node);
}

/*
 * Take what sessions have left, and what they want.
 *
 * What a session has left before its wish is taken with it, since it makes the
 * wish afterwards.
 */
static void
listen(void)
{
	for (int s = 0; s < intent_nslots(); s++)
	{
		uint32		count = intent_count(s);

		if (count == seen[s] && !see_all)
			continue;
		pg_read_barrier();
		take_wish(s);
		take_news(s);
		seen[s] = count;
	}
	see_all = false;
}

/*
 * Take the answers that sessions have left.
 */
void
worker_take_answers(void)
{
	for (int s = 0; s < intent_nslots() && loaded; s++)
	{
		if (intent_count(s) != seen[s])
			take_news(s);
	}
}

/* ---------- recording ---------- */

/*
 * In a transaction: write the answers to other calls of these identities.  If this
 * one's is lost in a crash, it is known then whose keys are the others.  mine: this
 * transaction's id.
 */
static void
write_answers_of(const Open *open, FullTransactionId mine)
{
	if (dlist_is_empty(&known.dirty) && dlist_is_empty(&known.put_off))
		return;
	for (int i = 0; i < open->row.n; i++)
	{
		Identity   *identity = hash_search(known.identities, &open->row.calls[i].identity, HASH_FIND, NULL);
		dlist_iter	it;

		if (identity == NULL || FullTransactionIdEquals(identity->written_by, mine))
			continue;
		identity->written_by = mine;
		known_hurry(identity);
		dlist_foreach(it, &identity->uses)
		{
			Open	   *other = dlist_container(Use, node, it.cur)->open;

			if (!other->dirty || FullTransactionIdEquals(other->written_by, mine))
				continue;
			other->written_by = mine;
			if (!work_call_is_locked(other->row.id))
				work_answer_call(&other->row);
			CHECK_FOR_INTERRUPTS();
		}
	}
}

/*
 * In a transaction: record the calls that sessions are about to make.
 */
static void
record_calls(void)
{
	FullTransactionId mine;
	CallRow   **rows;
	int			n = 0;
	bool		has_seam_time;
	TimestampTz seam_time;
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
		rows[n++] = &open->row;
		write_answers_of(open, mine);
	}
	worker_seam_time(&has_seam_time, &seam_time);
	work_record_calls(rows, n, GetCurrentTimestamp(), has_seam_time ? &seam_time : NULL);
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
			of_slot[open->slot] = open;
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

/* ---------- judging ---------- */

/*
 * What has become of a call's transaction?
 */
static Fate
judge(const CallRow *row)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		status;
	char	   *name;

	if (!row->is_ours || !FullTransactionIdPrecedes(row->transaction, ReadNextFullTransactionId()))
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
	return strcmp(name, "committed") == 0 ? FATE_COMMITTED : FATE_ABORTED;
}

/*
 * May something be settled by the list of the identity's keys for which it must
 * be known who owns this call's key?
 */
static bool
is_needed(const Open *open)
{
	const CallRow *row = &open->row;

	if (worker.doubts_changed)
		return true;			/* not known yet */
	if (known.nwaiting == 0 && worker.ndoubts == 0 && dlist_is_empty(&worker.flying) && dlist_is_empty(&worker.ended))
		return false;
	for (int i = 0; i < row->n; i++)
	{
		const pg_uuid_t *identity = &row->calls[i].identity;
		int			ndoubts;

		(void) worker_doubts_of(identity, &ndoubts);
		if (ndoubts > 0 || worker_identity_is_busy(identity))
			return true;
	}
	return false;
}

/*
 * In a transaction: the call's transaction rolled back, or nobody can tell.
 */
static void
abandon(Open *open, const char *report)
{
	CallRow    *row = &open->row;

	work_add_orphans(row, report);
	worker.doubts_changed = worker.doubts_changed || !row->answered;
	worker_due_at(&worker.revoking, GetCurrentTimestamp());
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
	CallRow    *row = &open->row;
	int64		left = 0;

	if (!row->answered)
		left = row->requested_at + (int64) row->timeout * 1000 - GetCurrentTimestamp();
	row->owned = true;
	known_set_dirty(open);
	known_leave_transaction(open);
	open->forget_at = http_now() + Max(left, 0) + KEEP_AT_LEAST_US;
	if (row->n > 0)
		dlist_push_tail(&known.kept, &open->node);
	else
	{
		open->forget_at = 0;
		dlist_push_head(&known.kept, &open->node);
	}
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
			take_news(open->slot);
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
			report = "issued by a synchronous call of the database that this one is a copy of";
		else if (fate == FATE_UNKNOWN)
			report = "the transaction that asked for it is too old to be judged";
		else if (row->timeline != timeline)
			report = "the transaction that asked for it ended with a promotion or restore";
		abandon(open, report);
		reported += report != NULL;
		work_delete_calls(&row->id, 1);
		open->done = true;
	}
	return reported;
}

/*
 * In a transaction: see which calls' transactions have ended.
 */
static void
judge_calls(void)
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
				 errmsg("instant keys of %d synchronous calls may be alive without a row in database \"%s\"", reported, worker.database),
				 errhint("They are in the view seam_instant_key_orphan; delete those that are not wanted.")));
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
			judge_at = http_now() + LOCKED_PAUSE_US;
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
			forget(open);
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
		Transaction *transaction = dlist_container(Transaction, node, it.cur);
		dlist_iter	of;

		if (!transaction->judged)
			continue;
		transaction->judged = false;
		dlist_foreach(of, &transaction->calls)
			dlist_container(Open, node, of.cur)->done = false;
	}
}

/* ---------- batches under way ---------- */

/*
 * Does the batch, which is under way, go on for longer than its row says by now?
 */
static bool
is_long(const Open *open, TimestampTz now)
{
	int64		elapsed = (now - open->row.requested_at) / 1000;

	return open->waiting && open->segment && open->row.timeout < elapsed + settings_settle_delay + BATCH_LOOK_US / 1000;
}

/*
 * In a transaction: note how long batches take that are under way, so that after a
 * crash it is known, about, until when they have issued keys.
 */
static void
extend_batches(void)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter	it;

	dlist_foreach(it, &known.transactions)
	{
		dlist_iter	of;

		dlist_foreach(of, &dlist_container(Transaction, node, it.cur)->calls)
		{
			Open	   *open = dlist_container(Open, node, of.cur);

			if (!is_long(open, now))
				continue;
			extend_window(&open->row, now + BATCH_AHEAD_US);
			work_extend_call(&open->row);
		}
	}
}

/*
 * Is there such a batch?
 */
static bool
has_long_batch(void)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter	it;

	dlist_foreach(it, &known.transactions)
	{
		dlist_iter	of;

		dlist_foreach(of, &dlist_container(Transaction, node, it.cur)->calls)
		{
			if (is_long(dlist_container(Open, node, of.cur), now))
				return true;
		}
	}
	return false;
}

/* ---------- writing what is known ---------- */

/*
 * May a call's row stay behind?  If it has committed and no other call is known of
 * its identities, nobody asks whose the key is, so most rows are deleted as they were
 * recorded.  After a crash such a call counts as one that may have issued whatever
 * key fits, which is the careful side.
 */
static bool
may_wait(const Open *open)
{
	const CallRow *row = &open->row;

	if (!row->owned || !row->answered || is_needed(open))
		return false;
	for (int i = 0; i < row->n; i++)
	{
		Identity   *identity = hash_search(known.identities, &row->calls[i].identity, HASH_FIND, NULL);

		/* those of one call are side by side */
		if (dlist_head_element(Use, node, &identity->uses)->open != open ||
			dlist_tail_element(Use, node, &identity->uses)->open != open)
			return false;
	}
	return true;
}

/*
 * Put off what may wait.
 */
static void
put_off_answers(void)
{
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &known.dirty)
	{
		Open	   *open = dlist_container(Open, dirty_node, it.cur);

		if (may_wait(open))
			known_put_off(open);
	}
}

/*
 * In a transaction: write to the table what has become known.
 */
static void
write_answers(void)
{
	dlist_iter	it;

	dlist_foreach(it, &known.dirty)
	{
		Open	   *open = dlist_container(Open, dirty_node, it.cur);

		CHECK_FOR_INTERRUPTS();
		work_answer_call(&open->row);
	}
}

/*
 * After the commit.
 */
static void
answers_are_written(void)
{
	dlist_iter	it;

	dlist_foreach(it, &known.dirty)
		dlist_container(Open, dirty_node, it.cur)->dirty = false;
	dlist_init(&known.dirty);
}

/* ---------- all of it ---------- */

/*
 * In a transaction: one of the steps.
 */
static void
step(void *arg)
{
	void		(*function) (void) = *(void (**) (void)) arg;

	worker.gone = !work_begin();
	worker.disowned = !worker.gone && !work_is_ours();
	if (!worker.gone && !worker.disowned)
	{
		/* sessions wait for calls to be recorded, but for nothing else */
		if (function != record_calls)
			(void) set_config_option("lock_timeout", LOCK_TIMEOUT_SHORT, PGC_SUSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
		function();
	}
	work_end();
}

/*
 * Take a step in a transaction of its own: where a user's lock or trigger is in the
 * way of one, the others go on.  Returns whether that worked.
 */
static bool
take_step(void (*function) (void), const char *what)
{
	ErrorData  *error;

	if (worker.gone || worker.disowned)
		return false;
	error = worker_transaction(step, &function);
	if (error)
		worker_log_error(error, what);
	return error == NULL && !worker.gone && !worker.disowned;
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
 * Record calls that are about to be made, judge those whose transactions have
 * ended, and write what has become known.  look: at all transactions.
 *
 * Returns when to do it again, unasked, on http_now()'s clock.
 */
int64
worker_process_intents(bool look)
{
	int64		now = http_now();
	int64		again = PG_INT64_MAX;

	if (known.identities == NULL)
		set_up();
	if (!loaded && !take_step(load_calls, "read the calls that were recorded"))
		return now + ERROR_PAUSE_US;
	listen();
	if (!dlist_is_empty(&added))
	{
		if (take_step(record_calls, "record calls"))
			calls_are_recorded();
		else
		{
			while (!dlist_is_empty(&added))
				forget(dlist_container(Open, node, dlist_pop_head_node(&added)));
			see_all = true;
			again = now + ERROR_PAUSE_US;
		}
	}
	if (look || (now >= known.look_at && !dlist_is_empty(&known.transactions)))
	{
		look_at_transaction(0, 0);
		known.look_at = now + LOOK_AGAIN_US;
	}
	if (has_to_judge())
	{
		if (now < judge_at)
			again = Min(again, judge_at);
		else if (take_step(judge_calls, "see what has become of calls"))
		{
			STOP_POINT("worker-judged");
			calls_are_judged();
			if (has_to_judge())
				again = Min(again, judge_at);
		}
		else
		{
			calls_are_not_judged();
			judge_at = now + ERROR_PAUSE_US;
			again = Min(again, judge_at);
		}
	}
	if (known.nwaiting > 0 && now >= batches_at)
	{
		batches_at = now + BATCH_LOOK_US;
		if (has_long_batch())
			(void) take_step(extend_batches, "note how long batches take");
	}
	if (now >= known.write_at)
		put_off_answers();
	if (!dlist_is_empty(&known.dirty) && now >= known.write_at)
	{
		if (take_step(write_answers, "note the answers to calls"))
			answers_are_written();
		else
			known.write_at = now + ERROR_PAUSE_US;
	}
	if (!dlist_is_empty(&known.dirty))
		again = Min(again, known.write_at);
	if (!dlist_is_empty(&known.transactions))
		again = Min(again, now + ANSWERS_US);
	return again;
}

/* ---------- now and then ---------- */

/*
 * In a transaction: delete the rows of calls that nobody has to know of any more.
 */
static void
delete_calls(void)
{
	int64	   *ids = palloc(list_length(old_calls) * sizeof(int64));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, old_calls)
		ids[n++] = ((Open *) lfirst(lc))->row.id;
	work_delete_calls(ids, n);
}

/*
 * Forget calls whose keys are owned, and that no doubt needs any more.  Returns
 * when to do it again, on http_now()'s clock.
 */
int64
worker_tidy_calls(void)
{
	dlist_mutable_iter it;
	int64		now = http_now();
	ListCell   *lc;

	if (!loaded || dlist_is_empty(&known.kept))
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
	if (old_calls == NIL || !take_step(delete_calls, "forget calls"))
		return tidy_at;
	foreach(lc, old_calls)
	{
		Open	   *open = lfirst(lc);

		dlist_delete(&open->node);
		forget(open);
	}
	return tidy_at;
}

/* What worker_log_calls() has found. */
typedef struct Remaining
{
	int			n;
	StringInfoData identities;
} Remaining;

/*
 * One more.
 */
static void
add_remaining(Remaining *remaining, const pg_uuid_t *identity)
{
	char		id[SEAM_UUID_TEXT_LEN + 1];

	if (remaining->n++ >= IDENTITIES_PER_LINE)
		return;
	seam_put_uuid(id, identity);
	appendStringInfo(&remaining->identities, "%s%s", remaining->identities.len ? ", " : "", id);
}

/*
 * In a transaction: calls whose keys wait to be revoked.
 */
static void
find_orphans(void *arg)
{
	Remaining  *remaining = arg;
	pg_uuid_t	ids[IDENTITIES_PER_LINE];

	if (work_begin())
	{
		int			n = work_orphans(ids, IDENTITIES_PER_LINE);

		for (int i = 0; i < n; i++)
			add_remaining(remaining, &ids[Min(i, IDENTITIES_PER_LINE - 1)]);
	}
	work_end();
}

/*
 * This process leaves, and may have no successor: tell of calls that rolled back or
 * may do so, and whose keys nobody would revoke.
 */
void
worker_log_calls(const char *why)
{
	Remaining	remaining = {0};
	dlist_iter	it;

	if (!loaded)
		return;
	initStringInfo(&remaining.identities);
	dlist_foreach(it, &known.transactions)
	{
		dlist_iter	of;

		dlist_foreach(of, &dlist_container(Transaction, node, it.cur)->calls)
		{
			const CallRow *row = &dlist_container(Open, node, of.cur)->row;

			if (judge(row) == FATE_COMMITTED)
				continue;
			for (int i = 0; i < row->n; i++)
			{
				if (row->calls[i].state == CALL_BEGUN || row->calls[i].state == CALL_ISSUED)
					add_remaining(&remaining, &row->calls[i].identity);
			}
		}
	}
	if (!worker.gone)
		(void) worker_transaction(find_orphans, &remaining);
	if (remaining.n > 0)
		ereport(WARNING,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("%s, and instant keys of %d synchronous calls of database \"%s\" that rolled back, or may do so, were not revoked yet",
						why, remaining.n, worker.database),
				 errdetail("User identities: %s%s.", remaining.identities.data,
						   remaining.n > IDENTITIES_PER_LINE ? ", and more" : "")));
}
