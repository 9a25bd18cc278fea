/*-------------------------------------------------------------------------
 *
 * intent.c
 *	  Synchronous calls tell the worker what they are about to do.
 *
 * A key that a transaction has asked for must go when the transaction rolls
 * back, whatever process dies.  So before the call the worker records, in a
 * transaction of its own, which (sub)transaction is about to ask for which
 * key.  That commit is younger than the caller's transaction id, and flushed:
 * after a crash the id is not given out again, and its fate can be read.
 *
 * What came of the call is told through shared memory; if that is lost, the
 * call is in doubt, and Seam's list tells.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_extension.h"
#include "base/compat.h"
#include "net/http.h"
#include "ledger/intent.h"
#include "shmem/places.h"
#include "miscadmin.h"
#include "config/settings.h"
#include "base/stop_point.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

static IntentSlot *slots;		/* by backend; NULL: not preloaded */
static pg_atomic_uint32 *counts;	/* of what was put into each of them: a
									 * look at all of these tells where there
									 * is something */


/* The intent of this session that has not come to its end, or none. */
static struct
{
	IntentSlot *slot;			/* NULL: there is none */
	int64		id;
	IntentCall *calls;			/* in the slot, or in the segment */
	dsm_segment *segment;		/* NULL: there is none */
	int64		begun_at;		/* clock_now()'s clock, or 0 */
	SeamTime	seam_time;
}			current;

/* This transaction, if it or a part of it has anything that the worker must judge. */
static FullTransactionId judged_transaction;

/*
 * What we need of shared memory.
 */
static Size
slots_size(void)
{
	return mul_size(MaxBackends, sizeof(IntentSlot) + sizeof(pg_atomic_uint32));
}

/*
 * Ask for our part of shared memory, in the postmaster.
 */
void
intent_request_shared(void)
{
	RequestAddinShmemSpace(slots_size());
}

/*
 * Find our part of shared memory, and make it what it is at the start.  The caller holds
 * AddinShmemInitLock.
 */
void
intent_startup_shared(void)
{
	bool		found;

	slots = ShmemInitStruct("seam_ik intents", slots_size(), &found);
	counts = (pg_atomic_uint32 *) (slots + MaxBackends);
	if (!found)
	{
		memset(slots, 0, slots_size());
		for (int i = 0; i < MaxBackends; i++)
		{
			pg_atomic_init_u32(&slots[i].state, WISH_NONE);
			SpinLockInit(&slots[i].lock);
			pg_atomic_init_u32(&counts[i], 0);
		}
	}
}

/* ---------- for the worker ---------- */

/*
 * How many places there are.
 */
int
intent_nslots(void)
{
	return MaxBackends;
}

/*
 * How often anything was put into this place.
 */
uint32
intent_count(int i)
{
	return pg_atomic_read_u32(&counts[i]);
}

/*
 * The wish to record an intent, if a session of this database has one there:
 * returns its state, or 0.
 */
uint32
intent_read_wish(int i, IntentWish *wish)
{
	IntentSlot *slot = &slots[i];
	uint32		state;

	SpinLockAcquire(&slot->lock);
	state = pg_atomic_read_u32(&slot->state);
	if ((state & WISH_MASK) != WISH_RECORD || slot->database != MyDatabaseId)
		state = 0;
	else
		*wish = slot->wish;
	SpinLockRelease(&slot->lock);
	return state;
}

/*
 * The id of the intent that was recorded last for a session of this database, and
 * what it is, or 0.
 */
int64
intent_read_recorded(int i, IntentWish *wish)
{
	IntentSlot *slot = &slots[i];
	int64		id = 0;

	SpinLockAcquire(&slot->lock);
	if (slot->database == MyDatabaseId)
	{
		id = slot->id;
		*wish = slot->wish;
	}
	SpinLockRelease(&slot->lock);
	return id;
}

/*
 * Take what sessions of this database have left there.  Returns whether there
 * was anything.
 */
bool
intent_take_news(int i, IntentNews *news)
{
	IntentSlot *slot = &slots[i];
	bool		found;

	SpinLockAcquire(&slot->lock);
	found = false;
	for (int n = 0; n < NEWS && !found; n++)
	{
		found = slot->news[n].database == MyDatabaseId;
		if (!found)
			continue;
		*news = slot->news[n];
		slot->news[n].database = InvalidOid;
	}
	SpinLockRelease(&slot->lock);
	return found;
}

/*
 * Have sessions of this database wake the worker for the next news that they leave.
 * Returns false when some are there already.
 */
bool
intent_listen(void)
{
	bool		found = false;

	for (int i = 0; i < MaxBackends && !found; i++)
	{
		IntentSlot *slot = &slots[i];

		SpinLockAcquire(&slot->lock);
		for (int n = 0; n < NEWS; n++)
			found = found || slot->news[n].database == MyDatabaseId;
		if (slot->database == MyDatabaseId)
			slot->listening = true;
		SpinLockRelease(&slot->lock);
	}
	return !found;
}

/*
 * Tell a session that its wish is fulfilled: the intent has this id.  Returns
 * false when the wish was withdrawn: then no call is made.
 */
bool
intent_fulfil(int i, uint32 state, Latch *latch, int64 id)
{
	IntentSlot *slot = &slots[i];
	bool		done;

	SpinLockAcquire(&slot->lock);
	done = pg_atomic_read_u32(&slot->state) == state;
	if (done)
	{
		slot->id = id;
		pg_atomic_write_u32(&slot->state, (state & ~WISH_MASK) | WISH_RECORDED);
	}
	SpinLockRelease(&slot->lock);
	if (done)
		SetLatch(latch);
	return done;
}

/* ---------- for sessions ---------- */

/*
 * Begin to tell the worker something.  What sessions of other databases have left in
 * this place gives way in the end: their workers then find out without.
 */
static IntentNews *
open_news(IntentSlot *slot)
{
	int			mine = 0;

	SpinLockAcquire(&slot->lock);
	for (int n = 0; n < NEWS; n++)
	{
		if (slot->news[n].database == MyDatabaseId)
			return &slot->news[n];
		if (slot->news[n].database == InvalidOid)
			mine = n;
	}
	memset(&slot->news[mine], 0, sizeof(IntentNews));
	slot->news[mine].database = MyDatabaseId;
	return &slot->news[mine];
}

/*
 * The news are there to be taken.
 */
static void
close_news(IntentSlot *slot)
{
	bool		wake = slot->listening;

	slot->listening = false;
	SpinLockRelease(&slot->lock);
	pg_atomic_fetch_add_u32(&counts[slot - slots], 1);
	if (wake)
		places_wake_now(WAKE_INTENTS);
}

/*
 * Hand the current intent over to the worker, as it is: a call that has begun
 * and not ended is in doubt.  Never throws.
 */
static void
hand_over(void)
{
	IntentSlot *slot = current.slot;
	TimestampTz now;
	IntentNews *news;

	if (slot == NULL)
		return;
	STOP_POINT("hand-over");
	now = GetCurrentTimestamp();
	news = open_news(slot);
	news->answered = current.id;
	news->transaction = slot->wish.transaction;
	news->answer = slot->wish.call;
	news->answered_at = now;
	if (current.seam_time.at != 0)
	{
		news->seam_time = current.seam_time;
		news->account = slot->wish.account;
	}
	close_news(slot);
	current.slot = NULL;
	current.segment = NULL;
}

/*
 * XactCallback: the worker is to judge the transaction's calls.  There is no hurry
 * to know that they are owned.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
		STOP_POINT("before-commit");
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	STOP_POINT("transaction-end");
	hand_over();
	STOP_POINT("handed-over");
	if (!FullTransactionIdIsValid(judged_transaction))
		return;
	if (event != XACT_EVENT_PREPARE)
	{
		IntentSlot *slot = &slots[MY_PROC_NUMBER];
		IntentNews *news = open_news(slot);

		news->ended = U64FromFullTransactionId(judged_transaction);
		close_news(slot);
		if (event == XACT_EVENT_ABORT)
			places_wake_now(WAKE_INTENTS);
	}
	judged_transaction = InvalidFullTransactionId;
}

/*
 * SubXactCallback: likewise for a subtransaction that rolls back.  Those within it
 * have later ids than it, as have those that are still to come.
 */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	FullTransactionId id;
	IntentSlot *slot;
	IntentNews *news;
	uint64		top = U64FromFullTransactionId(judged_transaction);

	if (event != SUBXACT_EVENT_ABORT_SUB || !FullTransactionIdIsValid(judged_transaction))
		return;
	STOP_POINT("subtransaction-end");
	hand_over();
	id = GetCurrentFullTransactionIdIfAny();
	if (!FullTransactionIdIsValid(id))
		return;					/* it has made no call */
	slot = &slots[MY_PROC_NUMBER];
	news = open_news(slot);
	if (news->aborted == 0 || news->top != top || news->aborted > U64FromFullTransactionId(id))
		news->aborted = U64FromFullTransactionId(id);
	news->top = top;
	close_news(slot);
	places_wake_now(WAKE_INTENTS);
}

/*
 * on_shmem_exit callback: whoever gets this place may be in another database, so
 * the worker shall come by before.
 */
static void
at_exit(int code, Datum arg)
{
	places_wake_now(WAKE_INTENTS);
}

/*
 * Say once a session that a rollback will leave keys alive.
 */
static void
warn_unprotected(const char *why, const char *hint)
{
	static bool warned = false;

	if (warned)
		return;
	warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("an instant key will stay alive if its transaction rolls back"),
			 errdetail("%s", why),
			 errhint("%s", hint)));
}

/*
 * End a wish.  If the worker fulfils it nevertheless, that is an intent without
 * a call.
 */
static void
withdraw(int code, Datum arg)
{
	IntentSlot *slot = (IntentSlot *) DatumGetPointer(arg);

	SpinLockAcquire(&slot->lock);
	pg_atomic_write_u32(&slot->state, pg_atomic_read_u32(&slot->state) & ~WISH_MASK);
	SpinLockRelease(&slot->lock);
}

/*
 * Has this transaction created (or altered) the extension?  Then nobody else sees it
 * as it is.
 */
static bool
extension_is_new(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		is_new;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("seam_ik"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	is_new = HeapTupleIsValid(tuple) &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return is_new;
}

/*
 * Wait until the worker has recorded the intent.  Raises 55000 when it has not
 * within seam_ik.connect_timeout.
 */
static void
wait_until_recorded(IntentSlot *slot)
{
	static uint32 wait_event = 0;
	int64		give_up = clock_now() + (int64) settings_connect_timeout * 1000;

	if (wait_event == 0)
		wait_event = wait_event_seam();
	while ((pg_atomic_read_u32(&slot->state) & WISH_MASK) != WISH_RECORDED)
	{
		int64		left = give_up - clock_now();

		if (left <= 0)
		{
			bool		is_new = extension_is_new();

			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the worker of seam_ik has not recorded the call within "
							"seam_ik.connect_timeout"),
					 errdetail("No request was made: the key could not be revoked if the "
							   "transaction rolled back."),
					 is_new ?
					 errhint("The extension was created or altered by this transaction: the worker "
							 "sees it when the transaction has been committed.") :
					 errhint("Look for \"seam_ik worker\" in pg_stat_activity and in the server "
							 "log; max_worker_processes may be too low. A superuser can turn "
							 "seam_ik.revoke_on_rollback off.")));
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) (left / 1000) + 1, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	pg_read_barrier();
}

/*
 * Have the worker record an intent, and return its id.  Raises what
 * wait_until_recorded() raises; then the wish is withdrawn.
 */
static int64
have_recorded(IntentSlot *slot, const IntentWish *wish)
{
	SpinLockAcquire(&slot->lock);
	slot->database = MyDatabaseId;
	slot->wish = *wish;
	slot->id = 0;
	pg_atomic_write_u32(&slot->state, ((pg_atomic_read_u32(&slot->state) | WISH_MASK) +
									   1) | WISH_RECORD);
	SpinLockRelease(&slot->lock);
	pg_atomic_fetch_add_u32(&counts[slot - slots], 1);
	PG_ENSURE_ERROR_CLEANUP(withdraw, PointerGetDatum(slot));
	{
		STOP_POINT("wish");
		places_wake_now(WAKE_INTENTS);
		wait_until_recorded(slot);
	}
	PG_END_ENSURE_ERROR_CLEANUP(withdraw, PointerGetDatum(slot));
	STOP_POINT("fulfilled");
	withdraw(0, PointerGetDatum(slot));
	return slot->id;
}

/*
 * Have the worker record that this (sub)transaction is about to ask for a key
 * for each of the identities; all of them share what else the request says.
 * The caller tells by intent_call() what it does, and then calls intent_end();
 * an abort does it for him.
 *
 * Raises 55000 when the intent cannot be recorded: then no request may be made.
 */
void
intent_begin(const SeamAccount *account, const SeamRequest *request,
			 int ncalls, const pg_uuid_t **identities)
{
	static bool registered = false;
	IntentSlot *slot;
	IntentWish	wish = {.latch = MyLatch};
	IntentCall *calls;
	dsm_segment *segment = NULL;
	int64		id;

	if (!settings_revoke_on_rollback)
		return;
	if (RecoveryInProgress())
	{
		warn_unprotected("This server is a standby.", "Issue instant keys on the primary.");
		return;
	}
	if (slots == NULL)
	{
		warn_unprotected("seam_ik is not in shared_preload_libraries.",
						 "Add seam_ik to shared_preload_libraries and restart the server, or use "
						 "the outbox; seam_ik.revoke_on_rollback = off accepts it without this "
						 "warning.");
		return;
	}
	if (!registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		on_shmem_exit(at_exit, 0);
	}
	registered = true;
	hand_over();

	slot = &slots[MY_PROC_NUMBER];
	wish.transaction = GetCurrentFullTransactionId();
	wish.top = GetTopFullTransactionId();
	wish.max_use_count = request->max_use_count;
	wish.has_profile = request->customization_profile_id != NULL;
	if (wish.has_profile)
		wish.profile = *request->customization_profile_id;
	wish.timeout = settings_request_timeout + settings_settle_delay;
	wish.account = account_id(account);
	wish.ncalls = ncalls;
	calls = &wish.call;
	if (ncalls > 1)
	{
		/* an error drops it with the resource owner */
		segment = dsm_create(mul_size(ncalls, sizeof(IntentCall)), 0);
		calls = dsm_segment_address(segment);
		wish.segment = dsm_segment_handle(segment);
	}
	for (int i = 0; i < ncalls; i++)
	{
		memset(&calls[i], 0, sizeof(IntentCall));
		calls[i].identity = *identities[i];
	}
	judged_transaction = wish.top;
	STOP_POINT("before-wish");
	id = have_recorded(slot, &wish);
	memset(&current, 0, sizeof(current));
	current.id = id;
	current.calls = segment ? calls : &slot->wish.call;
	current.segment = segment;
	current.slot = slot;
}

/*
 * What is known of a call of the current intent (if there is one): before it is
 * made CALL_BEGUN, and afterwards what came of it.  A key that was issued makes
 * the transaction commit durably: the client that is told of it must be right.
 * Never throws.
 */
void
intent_call(int i, CallState state, const pg_uuid_t *key)
{
	if (current.slot == NULL)
		return;
	if (state != CALL_BEGUN)
		STOP_POINT("answer");
	if (key)
		current.calls[i].key = *key;
	pg_write_barrier();
	current.calls[i].state = state;
	if (state == CALL_BEGUN)
	{
		STOP_POINT("before-call");
		current.begun_at = clock_now();
	}
	if (state == CALL_ISSUED)
		ForceSyncCommit();
}

/*
 * Notes Seam's clock, as the answer to a call of the current intent (if there is one)
 * tells it.  Of a batch that began long ago it tells nothing.
 */
void
intent_seam_time(const HttpAnswer *answer)
{
	int64		unix_time;

	if (current.slot == NULL || !http_date(answer, &unix_time))
		return;
	current.seam_time.time = time_t_to_timestamptz((pg_time_t) unix_time);
	current.seam_time.at = clock_now();
	current.seam_time.delay = current.seam_time.at - current.begun_at;
}

/*
 * The calls of the current intent have come to their ends.
 */
void
intent_end(void)
{
	dsm_segment *segment = current.segment;

	STOP_POINT("call-end");
	hand_over();
	if (segment)
		dsm_detach(segment);	/* the worker has it, too */
}
