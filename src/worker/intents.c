/*-------------------------------------------------------------------------
 *
 * intents.c
 *	  The intents that are open, as the worker knows them: by user identity, for who
 *	  settles doubts.
 *
 * While an intent is open it has to be known, for each key at Seam, whether it is its
 * own.  A key that was issued is told by the session's hint, or stands in the outbox,
 * in a row that is not committed yet.  As long as an element is not known, nothing is
 * settled for its identity.  An intent whose transaction has ended, and which has left a
 * doubt, counts as open until the doubts are read anew, so that there is no time
 * between in which neither knows of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "shmem/mailbox.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "worker/intents.h"

/* An element of an intent that counts as open. */
typedef struct IntentUse
{
	/* In its identity's uses. */
	dlist_node	node;
	/* The intent. */
	Intent	   *intent;
} IntentUse;

/* A user identity of open intents. */
typedef struct Identity
{
	/* The hash key. */
	pg_uuid_t	id;
	/* Elements for it. */
	dlist_head	uses;
} Identity;

static HTAB *identities;		/* of Identity */
static dlist_head *slots;		/* intents about which each mailbox may tell
								 * more */
static int	nread;				/* open ones that were read from the journal */
static dlist_head open_intents = DLIST_STATIC_INIT(open_intents);
static dlist_head lingering = DLIST_STATIC_INIT(lingering);

/*
 * Makes what the intents need; once, at the start of the process.
 */
void
intents_set_up(void)
{
	HASHCTL		info = {.keysize = sizeof(pg_uuid_t),.entrysize = sizeof(Identity),
	.hcxt = TopMemoryContext};

	identities = hash_create("seam_ik identities", 64, &info,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	slots = MemoryContextAlloc(TopMemoryContext, mailbox_nslots() * sizeof(dlist_head));
	for (int slot = 0; slot < mailbox_nslots(); slot++)
		dlist_init(&slots[slot]);
}

/*
 * Returns an intent with a copy of this row, of whose elements nothing is known, and
 * which is in no list.
 */
Intent *
intents_new(const JournalRow *row)
{
	Intent	   *intent = MemoryContextAllocZero(TopMemoryContext, sizeof(Intent));
	int			n = Max(row->n, 1);

	intent->row = *row;
	intent->row.identities = MemoryContextAlloc(TopMemoryContext, n * sizeof(pg_uuid_t));
	memcpy(intent->row.identities, row->identities, row->n * sizeof(pg_uuid_t));
	intent->elements = MemoryContextAllocZero(TopMemoryContext, n * sizeof(JournalElement));
	intent->keys = MemoryContextAllocZero(TopMemoryContext, n * sizeof(pg_uuid_t));
	intent->slot = -1;
	return intent;
}

/*
 * Counts an intent, which is in no list, as open.
 */
void
intents_open(Intent *intent)
{
	int			n = intent->row.n;

	intent->uses = MemoryContextAlloc(TopMemoryContext, Max(n, 1) * sizeof(IntentUse));
	for (int i = 0; i < n; i++)
	{
		bool		found;
		Identity   *identity = hash_search(identities, &intent->row.identities[i], HASH_ENTER,
										   &found);

		if (!found)
			dlist_init(&identity->uses);
		intent->uses[i].intent = intent;
		dlist_push_tail(&identity->uses, &intent->uses[i].node);
	}
	dlist_push_tail(&open_intents, &intent->node);
	if (intent->slot >= 0)
	{
		dlist_push_tail(&slots[intent->slot], &intent->slot_node);
		intent->in_slot = true;
	}
	nread += intent->was_read;
}

/*
 * An intent's mailbox has nothing more to tell about it.
 */
static void
leave_slot(Intent *intent)
{
	if (intent->in_slot)
		dlist_delete(&intent->slot_node);
	intent->in_slot = false;
}

/*
 * Nobody has to ask any more whose the keys of this intent are.
 */
static void
drop_uses(Intent *intent)
{
	if (intent->uses == NULL)
		return;
	for (int i = 0; i < intent->row.n; i++)
	{
		Identity   *identity = hash_search(identities, &intent->row.identities[i], HASH_FIND, NULL);

		dlist_delete(&intent->uses[i].node);
		if (dlist_is_empty(&identity->uses))
			hash_search(identities, &intent->row.identities[i], HASH_REMOVE, NULL);
	}
	pfree(intent->uses);
	intent->uses = NULL;
}

/*
 * The transaction of an open intent has ended, and it is decided what becomes of it: it
 * is in no list any more.  Where it may have left a doubt, it lingers.
 */
void
intents_close(Intent *intent)
{
	dlist_delete(&intent->node);
	leave_slot(intent);
	nread -= intent->was_read;
	if (intents_has(intent, JOURNAL_UNKNOWN))
	{
		intent->lingers = true;
		dlist_push_tail(&lingering, &intent->lingering_node);
	}
	else
		drop_uses(intent);
}

/*
 * Forgets an open intent in whose place there is another one.
 */
void
intents_discard(Intent *intent)
{
	dlist_delete(&intent->node);
	leave_slot(intent);
	nread -= intent->was_read;
	intents_free(intent);
}

/*
 * The journal has this intent no more, which is in no list: frees it, at the latest
 * when it lingers no longer.
 */
void
intents_free(Intent *intent)
{
	intent->gone = true;
	if (intent->lingers)
		return;
	drop_uses(intent);
	pfree(intent->row.identities);
	pfree(intent->elements);
	pfree(intent->keys);
	pfree(intent);
}

/*
 * The doubts were read anew: what open intents had left is among them.
 */
void
intents_doubts_were_read(void)
{
	while (!dlist_is_empty(&lingering))
	{
		dlist_node *node = dlist_pop_head_node(&lingering);
		Intent	   *intent = dlist_container(Intent, lingering_node, node);

		intent->lingers = false;
		drop_uses(intent);
		if (intent->gone)
			intents_free(intent);
	}
}

/*
 * Returns the open intent after this one, the first for NULL, or NULL after the last.
 */
Intent *
intents_next(const Intent *intent)
{
	const dlist_node *node = intent ? &intent->node : &open_intents.head;

	if (dlist_is_empty(&open_intents) || node->next == &open_intents.head)
		return NULL;
	return dlist_container(Intent, node, node->next);
}

/*
 * Returns the open intent with this id that was read from the journal, or NULL.
 */
Intent *
intents_find_former(const pg_uuid_t *call_id)
{
	if (nread == 0)
		return NULL;
	for (Intent *intent = intents_next(NULL); intent; intent = intents_next(intent))
	{
		if (intent->was_read && memcmp(&intent->row.call_id, call_id, UUID_LEN) == 0)
			return intent;
	}
	return NULL;
}

/*
 * Is this known of any element of the intent?
 */
bool
intents_has(const Intent *intent, JournalElement what)
{
	for (int i = 0; i < intent->row.n; i++)
	{
		if (intent->elements[i] == what)
			return true;
	}
	return false;
}

/* ---------- what is known of the elements ---------- */

/*
 * Is this key known already of an element of the intent?
 */
static bool
has_key(const Intent *intent, const pg_uuid_t *key)
{
	for (int i = 0; i < intent->row.n; i++)
	{
		if (intent->elements[i] == JOURNAL_KEY && memcmp(&intent->keys[i], key, UUID_LEN) == 0)
			return true;
	}
	return false;
}

/*
 * A key of this element, or of another one for the same identity, is known.
 */
static void
add_key(Intent *intent, int element, const pg_uuid_t *key)
{
	const JournalRow *row = &intent->row;
	int			i = element;

	if (has_key(intent, key))
		return;
	/* which of an identity's elements it is of is all the same */
	if (intent->elements[i] != JOURNAL_UNKNOWN)
	{
		for (i = 0; i < row->n; i++)
		{
			if (intent->elements[i] == JOURNAL_UNKNOWN &&
				memcmp(&row->identities[i], &row->identities[element], UUID_LEN) == 0)
				break;
		}
	}
	/* there is room for each, because no element has two */
	if (i == row->n)
		return;
	intent->elements[i] = JOURNAL_KEY;
	intent->keys[i] = *key;
}

/*
 * Reads the hint of an intent's session.  Returns false where that is lost.
 */
static bool
find_hint(Intent *intent, MailboxHint *hint)
{
	if (intent->slot >= 0)
		return mailbox_read_hint(intent->slot, &intent->row.call_id, hint);
	if (intent->searched)
		return false;
	/* its wish was fulfilled by another process */
	intent->searched = true;
	for (int slot = 0; slot < mailbox_nslots(); slot++)
	{
		if (!mailbox_read_hint(slot, &intent->row.call_id, hint))
			continue;
		intent->slot = slot;
		return true;
	}
	return false;
}

/*
 * Finds out what the intent's session has left in its mailbox, if that is there still.
 * ended: the transaction has, so what was not sent by now never is.  Without a hint
 * nothing is assumed of what was not sent when the last one was read.
 */
void
intents_read_hint(Intent *intent, bool ended)
{
	MailboxHint hint;

	if (!intents_has(intent, JOURNAL_UNKNOWN))
		return;
	if (!find_hint(intent, &hint))
	{
		leave_slot(intent);
		return;
	}
	intent->ended_at = hint.ended_at;
	for (int i = 0; i < intent->row.n && i < MAILBOX_ELEMENTS; i++)
	{
		uint64		bit = UINT64CONST(1) << (i % 64);

		if (intent->elements[i] == JOURNAL_UNKNOWN &&
			((hint.none[i / 64] & bit) || (ended && !(hint.begun[i / 64] & bit))))
			intent->elements[i] = JOURNAL_NONE;
	}
	for (int k = 0; k < hint.nkeys; k++)
	{
		if (hint.keys[k].element < intent->row.n)
			add_key(intent, hint.keys[k].element, &hint.keys[k].key);
	}
	if (!intents_has(intent, JOURNAL_UNKNOWN))
		leave_slot(intent);
}

/*
 * The session of this mailbox has left something: finds out what it tells of its open
 * intents, before later ones take the place of these hints.
 */
void
intents_read_slot(int slot)
{
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &slots[slot])
	{
		intents_read_hint(dlist_container(Intent, slot_node, it.cur), false);
	}
}

/*
 * In a step: finds out which keys the intent's transaction has put into the outbox.
 */
void
intents_read_rows(Intent *intent, JournalRows which)
{
	JournalKey *found;
	int			n = journal_keys(&intent->row, which, &found);

	for (int k = 0; k < n; k++)
	{
		for (int i = 0; i < intent->row.n; i++)
		{
			if (memcmp(&intent->row.identities[i], &found[k].identity, UUID_LEN) != 0)
				continue;
			add_key(intent, i, &found[k].key);
			break;
		}
	}
	pfree(found);
}

/* ---------- for the settlement of doubts ---------- */

/*
 * Finds out what can be found out of this element now, and returns whether it is not
 * known all the same.
 */
static bool
is_unknown(const IntentUse *use)
{
	Intent	   *intent = use->intent;
	int			i = (int) (use - intent->uses);

	if (intent->elements[i] != JOURNAL_UNKNOWN || intent->lingers)
		return intent->elements[i] == JOURNAL_UNKNOWN;
	intents_read_hint(intent, false);
	if (intent->elements[i] == JOURNAL_UNKNOWN && IsTransactionState())
		intents_read_rows(intent, JOURNAL_ROWS_LIVING);
	return intent->elements[i] == JOURNAL_UNKNOWN;
}

/*
 * Is there an open intent of whose element for this identity it is not known which key it
 * has issued?  Inside a step this is found out, as far as that is possible.
 */
bool
intents_are_open(const pg_uuid_t *id)
{
	const Identity *identity = hash_search(identities, id, HASH_FIND, NULL);
	dlist_iter	it;

	if (identity == NULL)
		return false;
	dlist_foreach(it, unconstify(dlist_head *, &identity->uses))
	{
		if (is_unknown(dlist_container(IntentUse, node, it.cur)))
			return true;
	}
	return false;
}

/*
 * Reads the keys that open intents have issued for an identity, as far as they are known,
 * in CurrentMemoryContext.  Returns how many there are.
 */
int
intents_keys(const pg_uuid_t *id, pg_uuid_t **keys)
{
	const Identity *identity = hash_search(identities, id, HASH_FIND, NULL);
	int			n = 0;
	dlist_iter	it;

	*keys = NULL;
	if (identity == NULL)
		return 0;
	dlist_foreach(it, unconstify(dlist_head *, &identity->uses))
		n++;
	*keys = palloc(n * sizeof(pg_uuid_t));
	n = 0;
	dlist_foreach(it, unconstify(dlist_head *, &identity->uses))
	{
		const IntentUse *use = dlist_container(IntentUse, node, it.cur);
		int			i = (int) (use - use->intent->uses);

		if (use->intent->elements[i] == JOURNAL_KEY)
			(*keys)[n++] = use->intent->keys[i];
	}
	return n;
}

/*
 * Appends the identities (pg_uuid_t *) of open intents, which may come to be in doubt.
 */
List *
intents_identities(List *list)
{
	HASH_SEQ_STATUS scan;
	Identity   *identity;

	hash_seq_init(&scan, identities);
	while ((identity = hash_seq_search(&scan)) != NULL)
		list = lappend(list, &identity->id);
	return list;
}
