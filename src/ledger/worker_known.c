/*-------------------------------------------------------------------------
 *
 * worker_known.c
 *	  Synchronous calls that the worker knows of: by transaction, until that has
 *	  ended, and by user identity, for as long as a lost answer may be about it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "ledger/worker_known.h"

Known		known;

/*
 * A hash table of 16- or 8-byte keys.
 */
static HTAB *
make_hash(const char *name, Size key, Size entry)
{
	HASHCTL		info = {.keysize = key,.entrysize = entry,.hcxt = TopMemoryContext};

	return hash_create(name, 64, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * An Open, zeroed but for its row, and in no list.
 */
Open *
known_new(const CallRow *row, const IntentCall *from)
{
	Open	   *open = MemoryContextAllocZero(TopMemoryContext, sizeof(Open));
	Size		size = Max(row->n, 1) * sizeof(IntentCall);

	open->slot = -1;
	open->row = *row;
	open->row.calls = MemoryContextAllocHuge(TopMemoryContext, size);
	memcpy(open->row.calls, from, size);
	return open;
}

/*
 * Count a call's elements as waiting for their answers, or no more.
 */
void
known_set_waiting(Open *open, bool waiting)
{
	if (open->waiting == waiting)
		return;
	open->waiting = waiting;
	for (int i = 0; i < open->row.n; i++)
	{
		Identity   *identity = hash_search(known.identities, &open->row.calls[i].identity,
										   HASH_FIND, NULL);

		identity->nwaiting += waiting ? 1 : -1;
		known.nwaiting += waiting ? 1 : -1;
	}
}

/*
 * Make a call findable by its identities.
 */
void
known_add_uses(Open *open)
{
	open->uses = MemoryContextAllocHuge(TopMemoryContext, Max(open->row.n, 1) * sizeof(Use));
	for (int i = 0; i < open->row.n; i++)
	{
		bool		found;
		Identity   *identity = hash_search(known.identities, &open->row.calls[i].identity,
										   HASH_ENTER, &found);

		if (!found)
		{
			dlist_init(&identity->uses);
			identity->nwaiting = 0;
			identity->written_by = InvalidFullTransactionId;
		}
		open->uses[i].open = open;
		if (open->dirty)
			dlist_push_tail(&identity->uses, &open->uses[i].node);
		else
			dlist_push_head(&identity->uses, &open->uses[i].node);
	}
}

/*
 * The opposite.
 */
void
known_remove_uses(Open *open)
{
	if (open->uses == NULL)
		return;
	known_set_waiting(open, false);
	for (int i = 0; i < open->row.n; i++)
	{
		Identity   *identity = hash_search(known.identities, &open->row.calls[i].identity,
										   HASH_FIND, NULL);

		dlist_delete(&open->uses[i].node);
		if (dlist_is_empty(&identity->uses))
			hash_search(known.identities, &open->row.calls[i].identity, HASH_REMOVE, NULL);
	}
	pfree(open->uses);
	open->uses = NULL;
}

/*
 * A call is not in a transaction any more.
 */
void
known_leave_transaction(Open *open)
{
	dlist_delete(&open->node);
	known_set_waiting(open, false);
	known.nloaded -= open->loaded;
	open->loaded = false;
}

/*
 * Free an Open that is in no list of calls.
 */
void
known_free(Open *open)
{
	known_remove_uses(open);
	if (open->slot >= 0 && known.of_slot[open->slot] == open)
		known.of_slot[open->slot] = NULL;
	if (open->dirty)
		dlist_delete(&open->dirty_node);
	if (open->segment)
		dsm_detach(open->segment);
	pfree(open->row.calls);
	pfree(open);
}

/*
 * Have a call's table row written, soon.
 */
void
known_set_dirty(Open *open)
{
	if (open->dirty && !open->written)
		return;
	if (open->written)
		dlist_delete(&open->dirty_node);
	open->dirty = true;
	open->written = false;
	for (int i = 0; open->uses && i < open->row.n; i++)
	{
		Identity   *identity = hash_search(known.identities, &open->row.calls[i].identity,
										   HASH_FIND, NULL);

		dlist_delete(&open->uses[i].node);
		dlist_push_tail(&identity->uses, &open->uses[i].node);
	}
	if (dlist_is_empty(&known.dirty))
		known.write_at = clock_now() + WRITE_US;
	dlist_push_tail(&known.dirty, &open->dirty_node);
}

/*
 * The table row of a call that is dirty is written by the transaction under way.
 */
void
known_set_written(Open *open)
{
	dlist_delete(&open->dirty_node);
	open->written = true;
	dlist_push_tail(&known.written, &open->dirty_node);
}

/*
 * XactCallback: what was written is so if the transaction has committed.
 */
static void
transaction_ends(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	while (!dlist_is_empty(&known.written))
	{
		Open	   *open = dlist_container(Open, dirty_node, dlist_head_node(&known.written));

		if (event == XACT_EVENT_ABORT)
			known_set_dirty(open);
		else
		{
			dlist_delete(&open->dirty_node);
			open->dirty = open->written = false;
		}
	}
}

/*
 * Takes a step of the ledger's.  Returns whether it has committed.
 */
bool
ledger_step(void (*run) (void *arg), bool patient, const char *what)
{
	Step		step = {.run = run,.patient = patient,.what = what};

	return step_take(&step);
}

/*
 * To be called once.
 */
void
known_set_up(void)
{
	known.identities = make_hash("seam_ik identities", sizeof(pg_uuid_t), sizeof(Identity));
	known.by_top = make_hash("seam_ik transactions", sizeof(uint64), sizeof(Transaction));
	dlist_init(&known.transactions);
	dlist_init(&known.kept);
	dlist_init(&known.dirty);
	dlist_init(&known.written);
	known.of_slot = MemoryContextAllocZero(TopMemoryContext, intent_nslots() * sizeof(Open *));
	known.seen = MemoryContextAllocZero(TopMemoryContext, intent_nslots() * sizeof(uint32));
	RegisterXactCallback(transaction_ends, NULL);
}

/*
 * Put a recorded call to its transaction's.
 */
void
known_add_to_transaction(Open *open, FullTransactionId top)
{
	uint64		key = U64FromFullTransactionId(top);
	bool		found;
	Transaction *transaction = hash_search(known.by_top, &key, HASH_ENTER, &found);

	if (!found)
	{
		if (dlist_is_empty(&known.transactions))
			known.look_at = clock_now() + LOOK_AGAIN_US;
		dlist_push_tail(&known.transactions, &transaction->node);
		dlist_init(&transaction->calls);
		transaction->look = transaction->judged = transaction->locked = false;
		transaction->aborted = 0;
	}
	dlist_push_tail(&transaction->calls, &open->node);
	open->transaction = transaction;
}

/*
 * The call that follows this one (NULL: the first one) among those of all
 * transactions, or NULL.
 */
Open *
known_next_open(const Open *open)
{
	dlist_node *node = &known.transactions.head;

	if (open && open->node.next != &open->transaction->calls.head)
		return dlist_container(Open, node, open->node.next);
	if (dlist_is_empty(&known.transactions))
		return NULL;
	if (open)
		node = &open->transaction->node;
	for (node = node->next; node != &known.transactions.head; node = node->next)
	{
		Transaction *transaction = dlist_container(Transaction, node, node);

		if (!dlist_is_empty(&transaction->calls))
			return dlist_head_element(Open, node, &transaction->calls);
	}
	return NULL;
}

/*
 * The keys of a call, which is in no list of calls, are owned: that must be known for
 * a while, and longer if its own answer was lost.
 */
void
known_keep(Open *open)
{
	const CallRow *row = &open->row;
	int64		timeout = (int64) row->timeout * 1000;
	int64		left = 0;

	/* where the clock was set back, it may seem to have been asked for later */
	if (!row->answered)
		left = Min(row->requested_at + timeout - GetCurrentTimestamp(), timeout);
	open->forget_at = clock_now() + Max(left, 0) + KEEP_AT_LEAST_US;
	if (row->n > 0)
		dlist_push_tail(&known.kept, &open->node);
	else
	{
		open->forget_at = 0;
		dlist_push_head(&known.kept, &open->node);
	}
}

/* ---------- for who settles doubts ---------- */

/*
 * Are the calls known that a former worker has recorded?  Before that nobody can tell
 * whose an identity's keys are.
 */
bool
worker_calls_are_known(void)
{
	return known.loaded;
}

/*
 * Is a session's call for this identity under way, as far as we know?
 */
bool
worker_call_is_open(const pg_uuid_t *identity)
{
	const Identity *found = known.nwaiting > 0 ? hash_search(known.identities, identity,
															 HASH_FIND, NULL) : NULL;

	return found && found->nwaiting > 0;
}

/*
 * Is a request for the identity under way, ours or a session's, or its result not
 * stored yet?
 */
bool
worker_identity_is_busy(const pg_uuid_t *identity)
{
	return flights_is_busy(identity) || worker_call_is_open(identity);
}

/*
 * Append the identities (pg_uuid_t *) of calls under way, which may come to be
 * in doubt.
 */
List *
worker_called_identities(List *list)
{
	HASH_SEQ_STATUS scan;
	Identity   *identity;

	if (known.nwaiting == 0)
		return list;
	hash_seq_init(&scan, known.identities);
	while ((identity = hash_seq_search(&scan)) != NULL)
	{
		if (identity->nwaiting > 0)
			list = lappend(list, &identity->id);
	}
	return list;
}

/*
 * What sessions' calls own of an identity's keys: ids, sorted, and windows in which a
 * call that committed, and whose answer was lost, may have issued one.  The list is
 * that by which they are told.
 */
void
worker_call_owners(const pg_uuid_t *id, const Flight *list, CallOwners *owners)
{
	Identity   *identity = known.identities ? hash_search(known.identities, id, HASH_FIND, NULL) :
	NULL;
	const Open *last = NULL;
	int			n = 0;
	dlist_iter	it;

	memset(owners, 0, sizeof(CallOwners));
	if (identity)
	{
		dlist_foreach(it, &identity->uses)
			n++;
	}
	/* there is an array also of none, since bsearch() wants one */
	owners->keys = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(pg_uuid_t));
	owners->windows = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(Doubt));
	if (identity == NULL)
		return;
	dlist_foreach(it, &identity->uses)
	{
		const Use  *use = dlist_container(Use, node, it.cur);
		const CallRow *row = &use->open->row;
		const IntentCall *one = &row->calls[use - use->open->uses];
		WorkRow		attempt = {.attempted_at = row->requested_at};
		Doubt	   *doubt = &owners->windows[owners->nwindows];
		Window		window;

		if (one->state == CALL_ISSUED)
			owners->keys[owners->nkeys++] = one->key;
		/* those of a batch have the same */
		if (one->state != CALL_BEGUN || !row->owned || use->open == last)
			continue;
		last = use->open;
		attempt.attempt_timeout = row->timeout;
		attempt.has_seam_time = row->has_seam_time;
		attempt.seam_time = row->seam_time;
		attempt.account = row->account;
		window = doubts_window(&attempt, list);
		doubt->from = window.from;
		doubt->until = window.until;
		doubt->has_profile = row->has_profile;
		doubt->profile = row->profile;
		owners->nwindows++;
	}
	qsort(owners->keys, owners->nkeys, sizeof(pg_uuid_t), uuid_compare);
}
