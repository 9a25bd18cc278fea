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

#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "compat.h"
#include "http.h"
#include "intent.h"
#include "places.h"
#include "miscadmin.h"
#include "settings.h"
#include "stop_point.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

static IntentSlot *slots;		/* by backend; NULL: not preloaded */

static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;

/* The intent of this session that has not come to its end, or none. */
static struct
{
	IntentSlot *slot;			/* NULL: there is none */
	int64		id;
	IntentCall *calls;			/* in the slot, or in the segment */
	dsm_segment *segment;		/* NULL: there is none */
}			current;

/* Has this transaction, or a part of it, anything that the worker must judge? */
static bool pending_judgement;

/*
 * shmem_request_hook
 */
static void
request_slots(void)
{
	if (next_shmem_request)
		next_shmem_request();
	RequestAddinShmemSpace(mul_size(MaxBackends, sizeof(IntentSlot)));
}

/*
 * shmem_startup_hook
 */
static void
startup_slots(void)
{
	bool		found;

	if (next_shmem_startup)
		next_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	slots = ShmemInitStruct("seam_ik intents", mul_size(MaxBackends, sizeof(IntentSlot)), &found);
	if (!found)
	{
		memset(slots, 0, mul_size(MaxBackends, sizeof(IntentSlot)));
		for (int i = 0; i < MaxBackends; i++)
		{
			pg_atomic_init_u32(&slots[i].wish, WISH_NONE);
			pg_atomic_init_u64(&slots[i].answered, 0);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * Called once, from _PG_init.  Does nothing where the library is not preloaded,
 * and under pg_upgrade.
 */
void
intent_define(void)
{
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = request_slots;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = startup_slots;
}

/*
 * The places, for the worker.
 */
int
intent_nslots(void)
{
	return MaxBackends;
}

/*
 * The place with this number.
 */
IntentSlot *
intent_slot(int i)
{
	return &slots[i];
}

/*
 * A number that tells accounts apart.
 */
uint64
intent_account(const SeamAccount *account)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) account->api_key, strlen(account->api_key), 0);

	hash = hash_bytes_extended((const unsigned char *) account->endpoint, strlen(account->endpoint), hash);
	return hash_bytes_extended((const unsigned char *) account->workspace_id, strlen(account->workspace_id), hash);
}

/*
 * Hand the current intent over to the worker, as it is: a call that has begun
 * and not ended is in doubt.  Never throws.
 */
static void
hand_over(void)
{
	IntentSlot *slot = current.slot;

	if (slot == NULL)
		return;
	slot->answer = slot->call;
	pg_write_barrier();
	STOP_POINT("hand-over");
	pg_atomic_write_u64(&slot->answered, (uint64) current.id);
	current.slot = NULL;
	current.segment = NULL;
}

/*
 * XactCallback: the worker is to judge the transaction's calls.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			STOP_POINT("before-commit");
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			STOP_POINT("transaction-end");
			hand_over();
			STOP_POINT("handed-over");
			if (pending_judgement)
				places_wake_now(WAKE_JUDGE);
			pending_judgement = false;
			break;
		default:
			break;
	}
}

/*
 * SubXactCallback: likewise for a subtransaction that rolls back.
 */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB || !pending_judgement)
		return;
	STOP_POINT("subtransaction-end");
	hand_over();
	places_wake_now(WAKE_JUDGE);
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

	pg_atomic_write_u32(&slot->wish, pg_atomic_read_u32(&slot->wish) & ~WISH_MASK);
}

/*
 * Wait until the worker has recorded the intent.  Raises 55000 when it has not
 * within seam_ik.connect_timeout.
 */
static void
wait_until_recorded(IntentSlot *slot)
{
	static uint32 wait_event = 0;
	int64		give_up = http_now() + (int64) settings_connect_timeout * 1000;

	if (wait_event == 0)
		wait_event = wait_event_seam();
	while ((pg_atomic_read_u32(&slot->wish) & WISH_MASK) != WISH_RECORDED)
	{
		int64		left = give_up - http_now();

		if (left <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the worker of seam_ik has not recorded the call within seam_ik.connect_timeout"),
					 errdetail("No request was made: the key could not be revoked if the transaction rolled back."),
					 errhint("Look for \"seam_ik worker\" in pg_stat_activity and in the server log; max_worker_processes may be too low. A superuser can turn seam_ik.revoke_on_rollback off.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) (left / 1000) + 1, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	pg_read_barrier();
}

/*
 * Have the worker record what is in the place.  Raises what
 * wait_until_recorded() raises; then the wish is withdrawn.
 */
static void
have_recorded(IntentSlot *slot)
{
	pg_write_barrier();
	pg_atomic_write_u32(&slot->wish, ((pg_atomic_read_u32(&slot->wish) | WISH_MASK) + 1) | WISH_RECORD);
	PG_ENSURE_ERROR_CLEANUP(withdraw, PointerGetDatum(slot));
	{
		STOP_POINT("wish");
		places_wake_now(WAKE_RECORD);
		wait_until_recorded(slot);
	}
	PG_END_ENSURE_ERROR_CLEANUP(withdraw, PointerGetDatum(slot));
	STOP_POINT("fulfilled");
	withdraw(0, PointerGetDatum(slot));
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
	IntentCall *calls;
	dsm_segment *segment = NULL;

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
						 "Add seam_ik to shared_preload_libraries and restart the server, or use the outbox; seam_ik.revoke_on_rollback = off accepts it without this warning.");
		return;
	}
	if (!registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
	}
	registered = true;
	hand_over();

	slot = &slots[MY_PROC_NUMBER];
	slot->database = MyDatabaseId;
	slot->latch = MyLatch;
	slot->transaction = GetCurrentFullTransactionId();
	slot->max_use_count = request->max_use_count;
	slot->has_profile = request->customization_profile_id != NULL;
	if (slot->has_profile)
		slot->profile = *request->customization_profile_id;
	slot->timeout = Max(settings_request_timeout, settings_settle_delay);
	slot->account = intent_account(account);
	slot->ncalls = ncalls;
	slot->segment = 0;
	calls = &slot->call;
	if (ncalls > 1)
	{
		/* an error drops it with the resource owner */
		segment = dsm_create(mul_size(ncalls, sizeof(IntentCall)), 0);
		calls = dsm_segment_address(segment);
		slot->segment = dsm_segment_handle(segment);
	}
	for (int i = 0; i < ncalls; i++)
	{
		memset(&calls[i], 0, sizeof(IntentCall));
		calls[i].identity = *identities[i];
	}
	pending_judgement = true;
	STOP_POINT("before-wish");
	have_recorded(slot);
	current.id = slot->id;
	current.calls = calls;
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
		STOP_POINT("before-call");
	if (state == CALL_ISSUED)
		ForceSyncCommit();
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
