/*-------------------------------------------------------------------------
 *
 * intent.c
 *	  The protection of a call that issues keys: they follow their transaction.
 *
 * A key that a transaction has asked for must go when the transaction rolls back,
 * whatever process dies.  The actors are this session and the worker:
 *
 * Before the call the session has a transaction id, the outbox's table open and locked,
 * and the id of the request that it will insert: what could fail with a key in hand
 * fails here.  Then it leaves a wish in its mailbox, and the worker records the intent
 * in a transaction of its own.  That commit is younger than this transaction's id, and
 * flushed: after a crash the id is not given out again, and its fate can be read.
 *
 * After the call the session inserts the request, with the key, in this
 * (sub)transaction.  If that commits, the key has its owner there; if it rolls back, no
 * request is seen, and the worker revokes the key.  The mailbox tells it which.
 *
 * A batch has its elements recorded in portions, when they may be sent, so that it is
 * known to about a second when each key can have been created.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/stop_point.h"
#include "catalog/pg_extension.h"
#include "config/settings.h"
#include "miscadmin.h"
#include "net/http.h"
#include "outbox/outbox.h"
#include "session/intent.h"
#include "shmem/mailbox.h"
#include "shmem/places.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* An element is sent at most so long after it was recorded, or it is recorded anew. */
#define PORTION_GOOD_US (1 * INT64CONST(1000000))

/* Elements that are recorded together. */
typedef struct Portion
{
	/* The first of them; those of the next portion are not in this one. */
	int64		first;
	/* How many were recorded and not recorded anew. */
	int			n;
	/* Of how many of these the request has come to its end. */
	int			nended;
	/* Their intent. */
	pg_uuid_t	call_id;
	/* When they were recorded, or a little before. */
	TimestampTz recorded_at;
	/* Is that known by Seam's clock? */
	bool		has_seam_time;
	/* Then it is this. */
	TimestampTz seam_time;
	/* Until when they may be sent, on clock_now()'s clock. */
	int64		good_until;
	/* Ids of their requests, n of them. */
	int64	   *ids;
} Portion;

struct Protection
{
	/* Where the requests go. */
	Outbox	   *outbox;
	/* With which account the call is made. */
	AccountId	account;
	/* What is asked for, without the identity. */
	SeamRequest request;
	/* How many elements there are. */
	int64		n;
	/* For whom each is. */
	IntentIdentity identity;
	/* identity()'s argument. */
	const void *arg;
	/* Checks for interrupts, and may throw. */
	void		(*check) (void *arg);
	/* check()'s argument. */
	void	   *check_arg;
	/* What was recorded, in order. */
	Portion    *portions;
	/* How many of these there are. */
	int			nportions;
	/* How many there is room for. */
	int			portions_size;
	/* When the last call began, on clock_now()'s clock. */
	int64		begun_at;
	/* Where all of this is. */
	MemoryContext context;
};

/* This transaction, if it has intents. */
static FullTransactionId my_transaction;

/* ---------- the end of a transaction ---------- */

/*
 * XactCallback: the worker is to look at the transaction's intents.  There is no hurry
 * to know that keys have their owner.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	uint64		top = U64FromFullTransactionId(my_transaction);

	if (!FullTransactionIdIsValid(my_transaction))
		return;
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
		STOP_POINT("before-commit");
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	STOP_POINT("transaction-end");
	my_transaction = InvalidFullTransactionId;
	mailbox_hints_ended(GetCurrentTimestamp());
	/* what is prepared has not ended */
	if (event != XACT_EVENT_PREPARE &&
		(mailbox_note_ended(top, event == XACT_EVENT_ABORT) || event == XACT_EVENT_ABORT))
		places_wake_now(WAKE_INTENTS);
	STOP_POINT("told");
}

/*
 * SubXactCallback: likewise for a subtransaction that rolls back.  Those within it have
 * later ids than it, as have those that are still to come.
 */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	FullTransactionId id;

	if (event != SUBXACT_EVENT_ABORT_SUB || !FullTransactionIdIsValid(my_transaction))
		return;
	STOP_POINT("subtransaction-end");
	id = GetCurrentFullTransactionIdIfAny();
	if (!FullTransactionIdIsValid(id))
		return;					/* it has made no call */
	mailbox_hints_ended(GetCurrentTimestamp());
	mailbox_note_aborted(U64FromFullTransactionId(my_transaction), U64FromFullTransactionId(id));
	places_wake_now(WAKE_INTENTS);
}

/*
 * on_shmem_exit callback: whoever gets this slot may be in another database, so the
 * worker shall come by before.
 */
static void
at_exit(int code, Datum arg)
{
	places_wake_now(WAKE_INTENTS);
}

/* ---------- the record ---------- */

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
 * Raise 55000: the worker has not recorded the call, so no request was made.
 */
pg_noreturn static void
raise_unrecorded(void)
{
	bool		is_new = extension_is_new();

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the worker of seam_ik has not recorded the call within "
					"seam_ik.connect_timeout"),
			 errdetail("The request was not made: the key could not be revoked if the "
					   "transaction rolled back."),
			 is_new ?
			 errhint("The extension was created or altered by this transaction: the worker "
					 "sees it when the transaction has been committed.") :
			 errhint("Look for \"seam_ik worker\" in pg_stat_activity and in the server "
					 "log; max_worker_processes may be too low. A superuser can turn "
					 "seam_ik.revoke_on_rollback off.")));
}

/*
 * Wait until the worker has recorded the intent.  Raises 55000 when it has not
 * within seam_ik.connect_timeout, or cannot.
 */
static void
wait_until_recorded(const Protection *protection, Portion *portion)
{
	static uint32 wait_event = 0;
	int64		give_up = clock_now() + (int64) settings_connect_timeout * 1000;
	MailboxAnswer answer;
	MailboxReply reply;

	if (wait_event == 0)
		wait_event = wait_event_seam();
	while ((answer = mailbox_answer(&reply)) == MAILBOX_WAITS)
	{
		int64		left = give_up - clock_now();

		if (left <= 0)
			raise_unrecorded();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) (left / 1000) + 1, wait_event);
		ResetLatch(MyLatch);
		protection->check(protection->check_arg);
	}
	if (answer == MAILBOX_REFUSED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the worker of seam_ik could not record the call: %s", reply.refusal),
				 errdetail("The request was not made: the key could not be revoked if the "
						   "transaction rolled back."),
				 errhint("Look for constraints and indexes on \"seam_instant_key_call\".")));
	portion->has_seam_time = reply.has_seam_time;
	portion->seam_time = reply.seam_time;
}

/*
 * Error cleanup callback: the wish is withdrawn.
 */
static void
withdraw(int code, Datum arg)
{
	mailbox_withdraw();
}

/*
 * How many elements are recorded next: about as many as may be sent while they are good.
 * Those of the last portion from this one on had to wait for too long.
 */
static int
portion_size(const Protection *protection, int64 first)
{
	int64		n = settings_max_concurrency;

	if (protection->nportions > 0)
		n = 2 * (first - protection->portions[protection->nportions - 1].first);
	return (int) Min(Min(n, MAILBOX_ELEMENTS), protection->n - first);
}

/*
 * Fill in the wish for a portion whose first element is set, and draw the ids of its
 * requests.
 */
static void
fill_in_wish(Protection *protection, Portion *portion, MailboxWish *wish)
{
	const SeamRequest *request = &protection->request;
	MemoryContext old = MemoryContextSwitchTo(protection->context);

	portion->n = portion_size(protection, portion->first);
	portion->ids = palloc(portion->n * sizeof(int64));
	MemoryContextSwitchTo(old);
	if (!pg_strong_random(&portion->call_id, UUID_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	/* as RFC 9562 marks a random one */
	portion->call_id.data[6] = (portion->call_id.data[6] & 0x0f) | 0x40;
	portion->call_id.data[8] = (portion->call_id.data[8] & 0x3f) | 0x80;
	wish->call_id = portion->call_id;
	wish->transaction = GetCurrentFullTransactionId();
	wish->top = GetTopFullTransactionId();
	wish->max_use_count = request->max_use_count;
	wish->has_profile = request->customization_profile_id != NULL;
	if (wish->has_profile)
		wish->profile = *request->customization_profile_id;
	wish->has_workspace = request->workspace != NULL;
	if (wish->has_workspace)
		wish->workspace = *request->workspace;
	wish->timeout = settings_request_timeout + settings_settle_delay;
	/* one alone is sent at once */
	if (protection->n > 1)
		wish->timeout += PORTION_GOOD_US / 1000;
	wish->account = protection->account.account;
	wish->api_key = protection->account.api_key;
	wish->n = portion->n;
	for (int i = 0; i < portion->n; i++)
	{
		wish->identities[i] = *protection->identity(protection->arg, portion->first + i);
		portion->ids[i] = outbox_draw_id(protection->outbox);
	}
}

/*
 * If all requests of a portion have come to their ends, notes the time: what is in doubt
 * of them was created before, or soon after, however long the transaction goes on.
 */
static void
note_end(const Portion *portion)
{
	if (portion->nended == portion->n)
		mailbox_hint_ended(&portion->call_id, GetCurrentTimestamp());
}

/*
 * Have the worker record that this (sub)transaction is about to ask for keys for the
 * elements from this one on.  Raises what wait_until_recorded() raises: then no request
 * may be made.
 */
static void
record_portion(Protection *protection, int64 first)
{
	Portion    *portion;
	MailboxWish *wish = palloc(sizeof(MailboxWish));

	if (protection->nportions == protection->portions_size)
		protection->portions =
			repalloc_huge(protection->portions,
						  (protection->portions_size *= 2) * sizeof(Portion));
	portion = &protection->portions[protection->nportions];
	if (protection->nportions > 0 && first < portion[-1].first + portion[-1].n)
	{
		/*
		 * it had to wait for too long: what is left of that portion is in
		 * this one
		 */
		int			sent = (int) (first - portion[-1].first);

		mailbox_hint_none(&portion[-1].call_id, sent, portion[-1].n - sent);
		portion[-1].n = sent;
		note_end(&portion[-1]);
	}
	memset(portion, 0, sizeof(Portion));
	portion->first = first;
	fill_in_wish(protection, portion, wish);
	my_transaction = wish->top;
	STOP_POINT("before-wish");
	portion->recorded_at = GetCurrentTimestamp();
	portion->good_until = clock_now() + PORTION_GOOD_US;
	mailbox_wish(wish, MyLatch);
	PG_ENSURE_ERROR_CLEANUP(withdraw, (Datum) 0);
	{
		STOP_POINT("wish");
		places_wake_now(WAKE_INTENTS);
		wait_until_recorded(protection, portion);
	}
	PG_END_ENSURE_ERROR_CLEANUP(withdraw, (Datum) 0);
	STOP_POINT("fulfilled");
	mailbox_withdraw();
	pfree(wish);
	protection->nportions++;
}

/*
 * The portion that an element was recorded with: the last one that begins with it or
 * before.
 */
static Portion *
portion_of(const Protection *protection, int64 i)
{
	int			p = protection->nportions - 1;

	while (protection->portions[p].first > i)
		p--;
	return &protection->portions[p];
}

/* ---------- for callers ---------- */

/*
 * A call of a function of the extension, or a batch, is about to ask for n keys.
 * Returns its protection, in CurrentMemoryContext, which must live until the last
 * call has ended, or NULL, perhaps with a warning, where keys do not follow their
 * transaction here.  request is without the identity, which identity(arg, i) tells; it
 * and account must live as long.  check(check_arg) is called while the session waits,
 * and may throw.
 *
 * Raises 0A000 in the worker, 25006 in a transaction that is READ ONLY (on a standby it
 * is not protected), 25000 in a parallel one, and what the outbox's table raises that is
 * not as the extension made it.
 */
Protection *
intent_begin(Oid function, const SeamAccount *account, const SeamRequest *request, int64 n,
			 IntentIdentity identity, const void *arg, void (*check) (void *arg),
			 void *check_arg)
{
	static bool registered = false;
	Protection *protection;

	if (!RecoveryInProgress())
	{
		PreventCommandIfReadOnly("issuing an instant key");
		PreventCommandIfParallelMode("issuing an instant key");
	}
	if (!settings_revoke_on_rollback)
		return NULL;
	if (RecoveryInProgress())
	{
		warn_unprotected("This server is a standby.", "Issue instant keys on the primary.");
		return NULL;
	}
	if (!mailbox_is_there())
	{
		warn_unprotected("seam_ik is not in shared_preload_libraries.",
						 "Add seam_ik to shared_preload_libraries and restart the server, or use "
						 "the outbox; seam_ik.revoke_on_rollback = off accepts it without this "
						 "warning.");
		return NULL;
	}
	/* the worker would wait for itself */
	http_check_free();
	if (!registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		on_shmem_exit(at_exit, 0);
	}
	registered = true;
	protection = palloc0(sizeof(Protection));
	protection->outbox = outbox_of_function(function);
	protection->account = account_id(account);
	protection->request = *request;
	protection->n = n;
	protection->identity = identity;
	protection->arg = arg;
	protection->check = check;
	protection->check_arg = check_arg;
	protection->context = CurrentMemoryContext;
	protection->portions_size = (int) Min(1 + n / MAILBOX_ELEMENTS, 16);
	protection->portions = palloc(protection->portions_size * sizeof(Portion));
	outbox_open_for_calls(protection->outbox);
	return protection;
}

/*
 * The request of element i, all of whose predecessors were begun, is sent when this
 * returns; its intent has been recorded then.  Raises what record_portion() raises.
 */
void
intent_call(Protection *protection, int64 i)
{
	Portion    *portion = protection->nportions == 0 ? NULL :
	&protection->portions[protection->nportions - 1];

	if (portion == NULL || i >= portion->first + portion->n || clock_now() > portion->good_until)
	{
		record_portion(protection, i);
		portion = &protection->portions[protection->nportions - 1];
	}
	mailbox_hint_begun(&portion->call_id, (int) (i - portion->first));
	STOP_POINT("before-call");
	protection->begun_at = clock_now();
}

/*
 * Note Seam's clock, as the answer to the last call tells it.
 */
static void
note_clock(const Protection *protection, const HttpAnswer *answer)
{
	SeamTime	seam_time;
	int64		unix_time;

	if (!http_date(answer, &unix_time))
		return;
	seam_time.time = time_t_to_timestamptz((pg_time_t) unix_time);
	seam_time.at = clock_now();
	seam_time.delay = seam_time.at - protection->begun_at;
	mailbox_note_clock(&seam_time, protection->account.account);
}

/*
 * The request of element i has come to its end: whatever ends the statement from now
 * on, this is known of it.  What was issued, and of a batch also what is in doubt, goes
 * into the outbox.  Raises what the insertion raises.
 */
void
intent_ended(Protection *protection, int64 i, const SeamResult *result, const HttpAnswer *answer)
{
	Portion    *portion = portion_of(protection, i);
	int			element = (int) (i - portion->first);
	SeamRequest request = protection->request;
	CallRequest call = {
		.id = portion->ids[element],
		.call_id = &portion->call_id,
		.request = &request,
		.attempted_at = portion->recorded_at,
		.attempt_timeout = settings_request_timeout,
		.has_seam_time = portion->has_seam_time,
		.seam_time = portion->seam_time,
		.account = &protection->account,
		.seam_request_id = result->request_id,
	};

	STOP_POINT("answer");
	portion->nended++;
	note_end(portion);
	request.user_identity_id = protection->identity(protection->arg, i);
	if (protection->n == 1)
	{
		/* a batch that began long ago tells nothing of the time */
		note_clock(protection, answer);
		/* its error ends the (sub)transaction */
		if (result->kind == REPLY_DOUBT)
			return;
	}
	if (result->kind == REPLY_DOUBT)
	{
		int64		took = clock_now() - (portion->good_until - PORTION_GOOD_US);

		call.error = answer_error_text(result);
		call.attempt_timeout = (int) Min(took / 1000 + 1 + settings_settle_delay, INT_MAX / 2);
	}
	else if (result->sqlerrcode != 0)
	{
		mailbox_hint_none(&portion->call_id, element, 1);
		return;
	}
	else
	{
		call.key = &result->key;
		mailbox_hint_key(&portion->call_id, element, &result->key.instant_key_id);
	}
	outbox_insert_call(protection->outbox, &call);
	STOP_POINT("inserted");
}
