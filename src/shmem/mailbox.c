/*-------------------------------------------------------------------------
 *
 * mailbox.c
 *	  What passes between sessions that call Seam and the worker: wishes and hints.
 *
 * Each backend has one slot.  Before a call the session leaves a wish there, and
 * waits until the worker of its database has recorded the intent.  What became of the
 * last intents stands beside it and is changed in place; the worker reads it when it
 * needs it, so no hint makes another one wait or give way.  That a transaction has
 * ended is a note, which the worker takes.
 *
 * Hints and notes may be lost without harm: with the server, with the next session in
 * this slot, or because a session has had more intents than there are places.  Then
 * the worker finds out by the server's commit log, the outbox, and Seam's list.
 *
 * A slot is written by its session and read by workers under its spinlock, which is
 * held for copies only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "shmem/mailbox.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"

/* Of so many intents of a session it is known what became of them, */
#define HINTS 16

/* and of so many keys which they are. */
#define KEYS MAILBOX_ELEMENTS

/* Notes of so many databases: a slot may have had a session of another one before. */
#define NOTES 2

/*
 * The low bits of a slot's state: what is wanted of the worker.  The others count the
 * wishes, so that a late fulfilment does not meet another wish.
 */
#define WISH_NONE 0
#define WISH_RECORD 1			/* record the intent */
#define WISH_RECORDED 2			/* that was done */
#define WISH_REFUSED 3			/* it cannot be done */
#define WISH_MASK 3

/* An intent that a session has wished for, and what became of it. */
typedef struct KeptHint
{
	/* The session's database; InvalidOid: the place is free. */
	Oid			database;
	/* The intent. */
	pg_uuid_t	call_id;
	/* What tells it from others in this slot. */
	uint32		serial;
	/* As in MailboxHint. */
	TimestampTz ended_at;
	/* As in MailboxHint. */
	uint64		begun[MAILBOX_ELEMENTS / 64];
	/* As in MailboxHint. */
	uint64		none[MAILBOX_ELEMENTS / 64];
} KeptHint;

/* A key that was issued for an element of an intent. */
typedef struct KeptKey
{
	/* The intent's. */
	uint32		serial;
	/* What the worker is told. */
	MailboxKey	key;
} KeptKey;

/* A backend's slot. */
typedef struct Slot
{
	/* The wish's: see above. */
	pg_atomic_uint32 state;
	/* Of all that follows. */
	slock_t		lock;
	/* Of the wish. */
	Oid			database;
	/* The session that waits. */
	Latch	   *latch;
	/* What it is told. */
	MailboxReply reply;
	/* A worker sleeps until it is woken for a note. */
	bool		listening;
	/* How many hints there were ever: the next one's serial, and its place. */
	uint32		nhints;
	/* How many keys: the next one's place. */
	uint32		nkeys;
	/* What became of the last intents. */
	KeptHint	hints[HINTS];
	/* The last keys of these. */
	KeptKey		keys[KEYS];
	/* What the session has left. */
	MailboxNote notes[NOTES];
	/* The intent to be recorded. */
	MailboxWish wish;
} Slot;

static Slot *slots;				/* by backend; NULL: not preloaded */

/* Of what was put into each slot: a look at all of these tells where there is something. */
static pg_atomic_uint32 *counts;

/*
 * Returns the bytes of shared memory that all slots need.
 */
static Size
slots_size(void)
{
	return mul_size(MaxBackends, sizeof(Slot) + sizeof(pg_atomic_uint32));
}

/*
 * shmem_request_hook
 */
void
mailbox_request_shared(void)
{
	RequestAddinShmemSpace(slots_size());
}

/*
 * shmem_startup_hook: finds the slots, and makes them what they are at the start.  The
 * caller holds AddinShmemInitLock.
 */
void
mailbox_startup_shared(void)
{
	bool		found;

	slots = ShmemInitStruct("seam_ik mailbox", slots_size(), &found);
	counts = (pg_atomic_uint32 *) (slots + MaxBackends);
	if (found)
		return;
	memset(slots, 0, slots_size());
	for (int i = 0; i < MaxBackends; i++)
	{
		pg_atomic_init_u32(&slots[i].state, WISH_NONE);
		SpinLockInit(&slots[i].lock);
		pg_atomic_init_u32(&counts[i], 0);
	}
}

/*
 * Is the library preloaded, so that there are slots?
 */
bool
mailbox_is_there(void)
{
	return slots != NULL;
}

/* ---------- for sessions: the wish ---------- */

/*
 * Returns the bytes of a wish for n elements.
 */
static Size
wish_size(int n)
{
	return offsetof(MailboxWish, identities) + n * sizeof(pg_uuid_t);
}

/*
 * Leaves a wish, which is copied, and of which no request was sent yet.  The worker is
 * not woken: see places_wake_now().  latch: of this process.
 */
void
mailbox_wish(const MailboxWish *wish, Latch *latch)
{
	Slot	   *slot = &slots[MY_PROC_NUMBER];
	KeptHint   *kept;

	SpinLockAcquire(&slot->lock);
	slot->database = MyDatabaseId;
	slot->latch = latch;
	memcpy(&slot->wish, wish, wish_size(wish->n));
	kept = &slot->hints[slot->nhints % HINTS];
	memset(kept, 0, sizeof(KeptHint));
	kept->database = MyDatabaseId;
	kept->call_id = wish->call_id;
	kept->serial = ++slot->nhints;
	pg_atomic_write_u32(&slot->state, ((pg_atomic_read_u32(&slot->state) | WISH_MASK) +
									   1) | WISH_RECORD);
	SpinLockRelease(&slot->lock);
	pg_atomic_fetch_add_u32(&counts[slot - slots], 1);
}

/*
 * Returns what has become of this session's wish; then *reply tells more.
 */
MailboxAnswer
mailbox_answer(MailboxReply *reply)
{
	Slot	   *slot = &slots[MY_PROC_NUMBER];
	uint32		state = pg_atomic_read_u32(&slot->state) & WISH_MASK;

	if (state != WISH_RECORDED && state != WISH_REFUSED)
		return MAILBOX_WAITS;
	SpinLockAcquire(&slot->lock);
	*reply = slot->reply;
	SpinLockRelease(&slot->lock);
	return state == WISH_RECORDED ? MAILBOX_RECORDED : MAILBOX_REFUSED;
}

/*
 * Ends the wish of this session.  If the worker fulfils it nevertheless, that is an
 * intent without a call.  Never throws.
 */
void
mailbox_withdraw(void)
{
	Slot	   *slot = &slots[MY_PROC_NUMBER];

	SpinLockAcquire(&slot->lock);
	pg_atomic_write_u32(&slot->state, pg_atomic_read_u32(&slot->state) & ~WISH_MASK);
	SpinLockRelease(&slot->lock);
}

/* ---------- for sessions: hints ---------- */

/*
 * Returns this session's hint about an intent, its slot locked; NULL, and nothing
 * locked, where it had to give way to later ones.
 */
static KeptHint *
lock_hint(const pg_uuid_t *call_id)
{
	Slot	   *slot = &slots[MY_PROC_NUMBER];

	SpinLockAcquire(&slot->lock);
	/* the last one first */
	for (uint32 i = 1; i <= HINTS; i++)
	{
		KeptHint   *kept = &slot->hints[(slot->nhints - i) % HINTS];

		if (kept->database == MyDatabaseId && memcmp(&kept->call_id, call_id, UUID_LEN) == 0)
			return kept;
	}
	SpinLockRelease(&slot->lock);
	return NULL;
}

/*
 * Unlocks the slot of a hint.
 */
static void
unlock_hint(void)
{
	SpinLockRelease(&slots[MY_PROC_NUMBER].lock);
}

/*
 * The request of an element of an intent is about to be sent: a key may exist.
 */
void
mailbox_hint_begun(const pg_uuid_t *call_id, int element)
{
	KeptHint   *hint = lock_hint(call_id);

	if (hint == NULL)
		return;
	hint->begun[element / 64] |= UINT64CONST(1) << (element % 64);
	unlock_hint();
}

/*
 * Of n elements of an intent, from this one on, surely no key was issued, and none will
 * be.
 */
void
mailbox_hint_none(const pg_uuid_t *call_id, int element, int n)
{
	KeptHint   *hint = lock_hint(call_id);

	if (hint == NULL)
		return;
	for (int i = element; i < element + n; i++)
		hint->none[i / 64] |= UINT64CONST(1) << (i % 64);
	unlock_hint();
}

/*
 * This key was issued for an element of an intent.
 */
void
mailbox_hint_key(const pg_uuid_t *call_id, int element, const pg_uuid_t *key)
{
	KeptHint   *hint = lock_hint(call_id);
	KeptKey    *kept;

	if (hint == NULL)
		return;
	kept = &slots[MY_PROC_NUMBER].keys[slots[MY_PROC_NUMBER].nkeys++ % KEYS];
	kept->serial = hint->serial;
	kept->key.element = element;
	kept->key.key = *key;
	unlock_hint();
}

/*
 * The calls of an intent have ended, at this time or before.
 */
void
mailbox_hint_ended(const pg_uuid_t *call_id, TimestampTz at)
{
	KeptHint   *hint = lock_hint(call_id);

	if (hint == NULL)
		return;
	hint->ended_at = at;
	unlock_hint();
}

/*
 * The calls of all intents of this session have ended, at this time or before.  Never
 * throws.
 */
void
mailbox_hints_ended(TimestampTz at)
{
	Slot	   *slot = &slots[MY_PROC_NUMBER];

	SpinLockAcquire(&slot->lock);
	for (int n = 0; n < HINTS; n++)
	{
		if (slot->hints[n].database == MyDatabaseId && slot->hints[n].ended_at == 0)
			slot->hints[n].ended_at = at;
	}
	SpinLockRelease(&slot->lock);
}

/* ---------- for sessions: notes ---------- */

/*
 * Returns the note of this session, its slot locked.  What sessions of other databases
 * have left in this slot gives way in the end.
 */
static MailboxNote *
lock_note(void)
{
	Slot	   *slot = &slots[MY_PROC_NUMBER];
	int			mine = 0;

	SpinLockAcquire(&slot->lock);
	for (int n = 0; n < NOTES; n++)
	{
		if (slot->notes[n].database == MyDatabaseId)
			return &slot->notes[n];
		if (slot->notes[n].database == InvalidOid)
			mine = n;
	}
	memset(&slot->notes[mine], 0, sizeof(MailboxNote));
	slot->notes[mine].database = MyDatabaseId;
	return &slot->notes[mine];
}

/*
 * Unlocks the slot of a note, which is there to be taken.  Returns whether the worker
 * sleeps until it is woken for it.
 */
static bool
unlock_note(void)
{
	Slot	   *slot = &slots[MY_PROC_NUMBER];
	bool		wake = slot->listening;

	slot->listening = false;
	SpinLockRelease(&slot->lock);
	pg_atomic_fetch_add_u32(&counts[slot - slots], 1);
	return wake;
}

/*
 * Notes that a transaction with intents has ended.  Returns whether the worker sleeps
 * until it is woken for that.  Never throws.
 */
bool
mailbox_note_ended(uint64 top, bool rolled_back)
{
	MailboxNote *note = lock_note();

	note->ended = top;
	note->rolled_back = rolled_back;
	return unlock_note();
}

/*
 * Notes that a subtransaction of top has rolled back, whose id, if it is the first of
 * them, stands for all later ones.  Never throws.
 */
void
mailbox_note_aborted(uint64 top, uint64 transaction)
{
	MailboxNote *note = lock_note();

	if (note->aborted == 0 || note->top != top || note->aborted > transaction)
		note->aborted = transaction;
	note->top = top;
	(void) unlock_note();
}

/*
 * Notes Seam's time, as the endpoint of this account (AccountId's) has told it.
 */
void
mailbox_note_clock(const SeamTime *seam_time, uint64 account)
{
	MailboxNote *note = lock_note();

	note->seam_time = *seam_time;
	note->account = account;
	/* there is no hurry to know the time: nobody is woken for that */
	SpinLockRelease(&slots[MY_PROC_NUMBER].lock);
	pg_atomic_fetch_add_u32(&counts[MY_PROC_NUMBER], 1);
}

/* ---------- for the worker ---------- */

/*
 * Returns how many slots there are.
 */
int
mailbox_nslots(void)
{
	return MaxBackends;
}

/*
 * Returns how often anything was put into this slot.
 */
uint32
mailbox_count(int slot)
{
	return pg_atomic_read_u32(&counts[slot]);
}

/*
 * Returns the wish of a session of this database in this slot, palloc'd, and in *state
 * what mailbox_fulfil() takes; NULL where there is none.
 */
MailboxWish *
mailbox_read_wish(int i, uint32 *state)
{
	Slot	   *slot = &slots[i];
	MailboxWish *wish = NULL;
	int			n = 0;

	/*
	 * palloc() under a spinlock is not possible, and the wish may change
	 * before it
	 */
	for (;;)
	{
		bool		found;

		SpinLockAcquire(&slot->lock);
		*state = pg_atomic_read_u32(&slot->state);
		found = (*state & WISH_MASK) == WISH_RECORD && slot->database == MyDatabaseId;
		if (!found || (wish && slot->wish.n <= n))
		{
			if (found)
				memcpy(wish, &slot->wish, wish_size(slot->wish.n));
			SpinLockRelease(&slot->lock);
			return found ? wish : NULL;
		}
		n = slot->wish.n;
		SpinLockRelease(&slot->lock);
		wish = palloc(wish_size(n));
	}
}

/*
 * Tells a session what has become of its wish, as it was read in this state, and wakes it.
 * Returns false when the wish was withdrawn.
 */
static bool
tell_session(int i, uint32 state, uint32 outcome, const MailboxReply *reply)
{
	Slot	   *slot = &slots[i];
	Latch	   *latch = NULL;

	SpinLockAcquire(&slot->lock);
	if (pg_atomic_read_u32(&slot->state) == state)
	{
		slot->reply = *reply;
		latch = slot->latch;
		pg_atomic_write_u32(&slot->state, (state & ~WISH_MASK) | outcome);
	}
	SpinLockRelease(&slot->lock);
	if (latch)
		SetLatch(latch);
	return latch != NULL;
}

/*
 * Tells a session that its wish, as it was read in this state, is fulfilled, and Seam's
 * time of the record, where that was known.  Returns false when the wish was withdrawn:
 * then no call is made.
 */
bool
mailbox_fulfil(int i, uint32 state, bool has_seam_time, TimestampTz seam_time)
{
	MailboxReply reply = {.has_seam_time = has_seam_time,.seam_time = seam_time};

	return tell_session(i, state, WISH_RECORDED, &reply);
}

/*
 * Tells a session that its wish, as it was read in this state, cannot be fulfilled, and
 * why, in at most MAILBOX_REFUSAL - 1 bytes.
 */
void
mailbox_refuse(int i, uint32 state, const char *why)
{
	MailboxReply reply = {0};

	strlcpy(reply.refusal, why, sizeof(reply.refusal));
	(void) tell_session(i, state, WISH_REFUSED, &reply);
}

/*
 * Takes the note that sessions of this database have left in this slot.  Returns
 * whether there was one.
 */
bool
mailbox_take_note(int i, MailboxNote *note)
{
	Slot	   *slot = &slots[i];
	bool		found = false;

	SpinLockAcquire(&slot->lock);
	for (int n = 0; n < NOTES && !found; n++)
	{
		found = slot->notes[n].database == MyDatabaseId;
		if (!found)
			continue;
		*note = slot->notes[n];
		slot->notes[n].database = InvalidOid;
	}
	SpinLockRelease(&slot->lock);
	return found;
}

/*
 * Reads what the session in this slot knows of an intent of this database.  Returns
 * false where that is not there (any more).  It is final when the intent's transaction
 * has ended: what was not sent then never is.
 */
bool
mailbox_read_hint(int i, const pg_uuid_t *call_id, MailboxHint *hint)
{
	Slot	   *slot = &slots[i];
	bool		found = false;

	SpinLockAcquire(&slot->lock);
	for (int n = 0; n < HINTS && !found; n++)
	{
		const KeptHint *kept = &slot->hints[n];

		found = kept->database == MyDatabaseId && memcmp(&kept->call_id, call_id, UUID_LEN) == 0;
		if (!found)
			continue;
		memcpy(hint->begun, kept->begun, sizeof(hint->begun));
		memcpy(hint->none, kept->none, sizeof(hint->none));
		hint->ended_at = kept->ended_at;
		hint->nkeys = 0;
		for (int k = 0; k < KEYS; k++)
		{
			if (slot->keys[k].serial == kept->serial)
				hint->keys[hint->nkeys++] = slot->keys[k].key;
		}
	}
	SpinLockRelease(&slot->lock);
	return found;
}

/*
 * Has sessions of this database wake the worker for the next note that they leave about
 * the end of a transaction.  Returns false when some are there already.
 */
bool
mailbox_listen(void)
{
	bool		found = false;

	for (int i = 0; i < MaxBackends && !found; i++)
	{
		Slot	   *slot = &slots[i];

		SpinLockAcquire(&slot->lock);
		for (int n = 0; n < NOTES; n++)
			found = found || (slot->notes[n].database == MyDatabaseId &&
							  (slot->notes[n].ended != 0 || slot->notes[n].aborted != 0));
		if (slot->database == MyDatabaseId)
			slot->listening = true;
		SpinLockRelease(&slot->lock);
	}
	return !found;
}
