/*-------------------------------------------------------------------------
 *
 * worker_intents.c
 *	  The worker as the keeper of sessions' synchronous calls: it records what
 *	  they are about to do, and when their transactions have ended sees to the
 *	  keys of those that rolled back.
 *
 * What is to be revoked becomes a request of the outbox, with all that it knows
 * of retries, lost answers and copies.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "places.h"
#include "miscadmin.h"
#include "stop_point.h"
#include "utils/fmgrprotos.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"
#include "worker_state.h"

/* A recorded call that has not been done with. */
typedef struct Open
{
	dlist_node	node;			/* in calls, or in added */
	CallRow		row;
	dsm_segment *segment;		/* with what becomes of a batch's calls */
	bool		dirty;			/* its table row is behind */
	bool		done;			/* in the transaction under way */

	/* of one in added */
	int			slot;
	uint32		wish;
} Open;

static dlist_head calls = DLIST_STATIC_INIT(calls);
static dlist_head added = DLIST_STATIC_INIT(added); /* in the transaction
													 * under way */
static bool loaded;
static int	nwaiting;			/* of calls, whose answers are not known yet */

/* What becomes of a transaction's keys. */
typedef enum Fate
{
	FATE_OPEN,
	FATE_COMMITTED,
	FATE_ABORTED,
	FATE_UNKNOWN
} Fate;

/*
 * An Open, zeroed.
 */
static Open *
new_open(void)
{
	return MemoryContextAllocZero(TopMemoryContext, sizeof(Open));
}

/*
 * Free an Open that is in no list.
 */
static void
free_open(Open *open)
{
	if (open->segment)
		dsm_detach(open->segment);
	if (open->row.calls)
		pfree(open->row.calls);
	pfree(open);
}

/*
 * The shared results of a batch, mapped for as long as we want, or NULL when
 * they are gone.
 */
static dsm_segment *
attach(dsm_handle handle)
{
	dsm_segment *segment = dsm_find_mapping(handle);

	if (segment == NULL)
		segment = dsm_attach(handle);
	if (segment)
		dsm_pin_mapping(segment);
	return segment;
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
		Open	   *open = new_open();
		Size		size = Max(rows[i].n, 1) * sizeof(IntentCall);

		open->row = rows[i];
		open->row.calls = MemoryContextAllocHuge(TopMemoryContext, size);
		memcpy(open->row.calls, rows[i].calls, size);
		dlist_push_tail(&calls, &open->node);
		for (int s = 0; s < intent_nslots() && !open->row.answered; s++)
		{
			IntentSlot *slot = intent_slot(s);

			if (slot->database == MyDatabaseId && slot->id == open->row.id && open->row.is_ours && slot->segment != 0)
				open->segment = attach(slot->segment);
		}
	}
	loaded = true;
}

/*
 * Take over what is known of a call that has ended.
 */
static void
take_answer(Open *open, const IntentCall *answer)
{
	CallRow    *row = &open->row;

	row->answered = true;
	if (row->n == 1)
		row->calls[0] = *answer;
	else if (open->segment)
		memcpy(row->calls, dsm_segment_address(open->segment), row->n * sizeof(IntentCall));
	for (int i = 0; i < row->n; i++)
	{
		if (row->calls[i].state == CALL_BEGUN)
			row->answered = false;
	}
	if (!row->answered)
	{
		/* it may have begun until now */
		int64		since = (GetCurrentTimestamp() - row->requested_at) / 1000;

		if (row->n > 1)
			row->timeout = (int) Min(row->timeout + Max(since, 0), INT_MAX / 2);
	}
	if (open->segment)
		dsm_detach(open->segment);
	open->segment = NULL;
	open->dirty = true;
}

/*
 * Count the calls whose answers are not known yet.
 */
static void
count_waiting(void)
{
	dlist_iter	it;

	nwaiting = 0;
	dlist_foreach(it, &calls)
	{
		const CallRow *row = &dlist_container(Open, node, it.cur)->row;

		nwaiting += !row->answered && !row->owned;
	}
}

/*
 * Take the answer that a session has left, if there is one.
 */
static void
take_answer_of(IntentSlot *slot)
{
	uint64		id = pg_atomic_read_u64(&slot->answered);
	dlist_iter	it;

	if (slot->database != MyDatabaseId || id == 0)
		return;
	pg_read_barrier();
	/* it is one of the last */
	dlist_reverse_foreach(it, &calls)
	{
		Open	   *open = dlist_container(Open, node, it.cur);

		if (open->row.id != (int64) id || !open->row.is_ours)
			continue;
		if (!open->row.owned)
			take_answer(open, &slot->answer);
		break;
	}
	pg_atomic_write_u64(&slot->answered, 0);
}

/*
 * Take the answers that sessions have left.
 */
void
worker_take_answers(void)
{
	for (int s = 0; s < intent_nslots(); s++)
		take_answer_of(intent_slot(s));
	count_waiting();
}

/*
 * In a transaction: record the calls that sessions are about to make.
 */
static void
record_calls(void)
{
	for (int s = 0; s < intent_nslots(); s++)
	{
		IntentSlot *slot = intent_slot(s);
		uint32		wish = pg_atomic_read_u32(&slot->wish);
		Open	   *open;
		CallRow    *row;
		const IntentCall *from = &slot->call;

		if ((wish & WISH_MASK) != WISH_RECORD)
			continue;
		pg_read_barrier();
		if (slot->database != MyDatabaseId)
			continue;
		/* it may have come with the wish, and the next one takes its place */
		take_answer_of(slot);
		open = new_open();
		row = &open->row;
		dlist_push_tail(&added, &open->node);
		open->slot = s;
		open->wish = wish;
		row->transaction = slot->transaction;
		row->n = slot->ncalls;
		row->max_use_count = slot->max_use_count;
		row->has_profile = slot->has_profile;
		row->profile = slot->profile;
		row->timeout = slot->timeout;
		row->account = slot->account;
		row->is_ours = true;
		row->requested_at = GetCurrentTimestamp();
		row->has_seam_time = worker.clock_known;
		row->seam_time = worker.clock_known ? worker.clock + (http_now() - worker.clock_at) : 0;
		if (row->n > 1)
		{
			open->segment = attach(slot->segment);
			if (open->segment == NULL)
			{
				/* its session has given up */
				dlist_delete(&open->node);
				free_open(open);
				continue;
			}
			from = dsm_segment_address(open->segment);
		}
		row->calls = MemoryContextAllocHuge(TopMemoryContext, row->n * sizeof(IntentCall));
		memcpy(row->calls, from, row->n * sizeof(IntentCall));
		for (int i = 0; i < row->n; i++)
			row->calls[i].state = CALL_BEGUN;	/* for all that we know */
		work_record_call(row);
	}
}

/*
 * After the commit: let the sessions go on.
 */
static void
calls_are_recorded(void)
{
	if (!dlist_is_empty(&added))
		STOP_POINT("worker-recorded");
	while (!dlist_is_empty(&added))
	{
		Open	   *open = dlist_container(Open, node, dlist_pop_head_node(&added));
		IntentSlot *slot = intent_slot(open->slot);
		uint32		wish = open->wish;

		slot->id = open->row.id;
		pg_write_barrier();
		if (pg_atomic_compare_exchange_u32(&slot->wish, &wish, (wish & ~WISH_MASK) | WISH_RECORDED))
			SetLatch(slot->latch);
		else
		{
			/* withdrawn: no call is made */
			for (int i = 0; i < open->row.n; i++)
				open->row.calls[i].state = CALL_NOT_BEGUN;
			open->row.answered = true;
			open->dirty = true;
		}
		dlist_push_tail(&calls, &open->node);
	}
}

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
	dlist_iter	it;

	for (int i = 0; i < row->n; i++)
	{
		const pg_uuid_t *identity = &row->calls[i].identity;

		if (row->calls[i].state != CALL_ISSUED && row->calls[i].state != CALL_BEGUN)
			continue;
		if (worker_identity_is_busy(identity))
			return true;
		for (int d = 0; d < worker.ndoubts; d++)
		{
			if (memcmp(&worker.doubts[d].identity, identity, UUID_LEN) == 0)
				return true;
		}
		if (worker.doubts_changed)
			return true;		/* not known yet */
	}
	/* other sessions' calls whose answers are not known yet */
	if (nwaiting == 0)
		return false;
	dlist_foreach(it, &calls)
	{
		const Open *other = dlist_container(Open, node, it.cur);

		if (other == open || other->row.answered || other->row.owned || other->done)
			continue;
		for (int i = 0; i < other->row.n; i++)
		{
			for (int j = 0; j < row->n; j++)
			{
				if (memcmp(&other->row.calls[i].identity, &row->calls[j].identity, UUID_LEN) == 0)
					return true;
			}
			if (row->n > 1)
				return true;	/* large batches are not compared */
		}
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

	for (int i = 0; i < row->n; i++)
	{
		IntentCall *one = &row->calls[i];

		if (one->state == CALL_ISSUED || one->state == CALL_BEGUN)
			work_add_orphan(row, one, row->timeout, report);
		if (one->state == CALL_BEGUN)
			worker.doubts_changed = true;
	}
	worker_due_at(&worker.revoking, GetCurrentTimestamp());
	ForceSyncCommit();
}

/*
 * In a transaction: see which calls' transactions have ended.
 */
static void
judge_calls(void)
{
	FullTransactionId last = InvalidFullTransactionId;
	Fate		fate = FATE_OPEN;
	int			timeline = (int) GetWALInsertionTimeLine();
	int			reported = 0;
	dlist_iter	it;

	dlist_foreach(it, &calls)
	{
		Open	   *open = dlist_container(Open, node, it.cur);
		CallRow    *row = &open->row;
		const char *report = NULL;

		if (row->owned)
			continue;
		if (!row->is_ours || !FullTransactionIdEquals(row->transaction, last))
			fate = judge(row);
		last = row->is_ours ? row->transaction : InvalidFullTransactionId;
		if (fate == FATE_OPEN)
			continue;
		STOP_POINT("worker-judge");
		/* what it has left before its end is there by now */
		if (!row->answered)
			worker_take_answers();
		if (fate == FATE_COMMITTED)
		{
			if (!row->answered || is_needed(open))
			{
				row->owned = open->dirty = true;
				continue;
			}
		}
		else
		{
			if (!row->is_ours)
				report = "issued by a synchronous call of the database that this one is a copy of";
			else if (fate == FATE_UNKNOWN)
				report = "the transaction that asked for it is too old to be judged";
			else if (row->timeline != timeline)
				report = "the transaction that asked for it ended with a promotion or restore";
			abandon(open, report);
			reported += report != NULL;
		}
		work_delete_call(row->id);
		open->done = true;
	}
	if (reported > 0)
		ereport(WARNING,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("instant keys of %d synchronous calls may be alive without a row in database \"%s\"", reported, worker.database),
				 errhint("They are in the view seam_instant_key_orphan; delete those that are not wanted.")));
}

/*
 * In a transaction: all of it.
 */
static void
process(void *arg)
{
	bool		judge_too = *(bool *) arg;
	dlist_iter	it;

	worker.gone = !work_begin();
	worker.disowned = !worker.gone && !work_is_ours();
	if (worker.gone || worker.disowned)
	{
		work_end();
		return;
	}
	if (!loaded)
		load_calls();
	record_calls();
	if (!dlist_is_empty(&added))
	{
		STOP_POINT("worker-record");
		ForceSyncCommit();
	}
	if (judge_too)
		judge_calls();
	dlist_foreach(it, &calls)
	{
		Open	   *open = dlist_container(Open, node, it.cur);

		if (open->dirty && !open->done)
			work_answer_call(&open->row);
	}
	work_end();
}

/*
 * Record calls that are about to be made, and, if judge_too is set, judge those
 * whose transactions have ended.  Returns whether that worked.
 */
bool
worker_process_intents(bool judge_too)
{
	ErrorData  *error;
	dlist_mutable_iter it;

	judge_too = judge_too || !loaded;
	worker_take_answers();
	error = worker_transaction(process, &judge_too);
	if (error)
	{
		worker_log_error(error, "record calls");
		while (!dlist_is_empty(&added))
			free_open(dlist_container(Open, node, dlist_pop_head_node(&added)));
	}
	if (judge_too)
		STOP_POINT("worker-judged");
	dlist_foreach_modify(it, &calls)
	{
		Open	   *open = dlist_container(Open, node, it.cur);

		if (error)
			open->done = false;
		else
			open->dirty = false;
		if (open->done)
		{
			dlist_delete(&open->node);
			free_open(open);
		}
	}
	if (!error)
		calls_are_recorded();
	count_waiting();
	return error == NULL;
}

/*
 * Is a session's call for this identity under way, as far as we know?
 */
bool
worker_call_is_open(const pg_uuid_t *identity)
{
	dlist_iter	it;

	if (nwaiting == 0)
		return false;
	dlist_foreach(it, &calls)
	{
		const CallRow *row = &dlist_container(Open, node, it.cur)->row;

		if (row->answered || row->owned)
			continue;
		for (int i = 0; i < row->n; i++)
		{
			if (memcmp(&row->calls[i].identity, identity, UUID_LEN) == 0)
				return true;
		}
	}
	return false;
}

/*
 * Append the identities (pg_uuid_t *) of calls under way, which may come to be
 * in doubt.
 */
List *
worker_called_identities(List *identities)
{
	dlist_iter	it;

	dlist_foreach(it, &calls)
	{
		const CallRow *row = &dlist_container(Open, node, it.cur)->row;

		for (int i = 0; i < row->n && !row->answered; i++)
			identities = lappend(identities, &row->calls[i].identity);
	}
	return identities;
}

/*
 * Is the key, which a list has told of, a session's?  Also if a call that
 * committed may have issued it.
 */
bool
worker_call_owns(const SeamKey *key, const Flight *list)
{
	dlist_iter	it;

	dlist_foreach(it, &calls)
	{
		const CallRow *row = &dlist_container(Open, node, it.cur)->row;
		WorkRow		attempt = {.attempted_at = row->requested_at};
		Doubt		window;

		attempt.attempt_timeout = row->timeout;
		attempt.has_seam_time = row->has_seam_time;
		attempt.seam_time = row->seam_time;
		for (int i = 0; i < row->n; i++)
		{
			const IntentCall *one = &row->calls[i];

			if (one->state == CALL_ISSUED && memcmp(&one->key, &key->instant_key_id, UUID_LEN) == 0)
				return true;
			if (one->state != CALL_BEGUN || !row->owned ||
				memcmp(&one->identity, &key->user_identity_id, UUID_LEN) != 0)
				continue;
			worker_set_window(&attempt, list, &window);
			if (row->has_profile == key->has_customization_profile_id &&
				(!row->has_profile || memcmp(&row->profile, &key->customization_profile_id, UUID_LEN) == 0) &&
				key->created_at >= window.from && key->created_at <= window.until)
				return true;
		}
	}
	return false;
}

/*
 * In a transaction: forget calls whose keys are owned, and that no doubt needs
 * any more.
 */
void
worker_tidy_calls(void)
{
	dlist_mutable_iter it;
	TimestampTz now = GetCurrentTimestamp();

	if (!loaded)
		return;
	dlist_foreach_modify(it, &calls)
	{
		Open	   *open = dlist_container(Open, node, it.cur);
		const CallRow *row = &open->row;

		if (!row->owned || is_needed(open) ||
			(!row->answered && now < row->requested_at + (int64) row->timeout * 1000 + DOUBT_MARGIN_US))
			continue;
		work_delete_call(row->id);
		dlist_delete(&open->node);
		free_open(open);
	}
}
