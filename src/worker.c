/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The worker of a database: sends what is in its outbox.
 *
 * One loop.  A short transaction stores the results of the calls that have
 * ended and claims as many requests as may be sent; it commits durably, so that
 * a crash leaves a trace of every request that may have left.  Then the calls
 * are made, all at once and outside any transaction, by the same engine that a
 * session's calls use.
 *
 * A call whose answer was lost is in doubt, and so is one that the table knows
 * as in flight and this process does not.  No other request for its user
 * identity is sent until Seam's list of keys has settled it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/dbcommands.h"
#include "compat.h"
#include "doubt.h"
#include "http.h"
#include "launcher.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "pace.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "seam.h"
#include "settings.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "work.h"
#include "write_back.h"

#define CHANNEL "seam_instant_key"

/* The longest pause between two tries of a call, of a revocation, and of a row. */
#define BACKOFF_MAX_US (3600 * INT64CONST(1000000))
#define WRITE_BACK_BACKOFF_MAX_US (60 * INT64CONST(1000000))
#define WRITE_BACK_BACKOFF_MIN_US (100 * INT64CONST(1000))

/* Housekeeping: retention, rows of copies, and whatever nobody told us of. */
#define HOUSEKEEPING_US (60 * INT64CONST(1000000))

/* Where Seam did not accept the key, one request is tried this often. */
#define PROBE_FIRST_US (10 * INT64CONST(1000000))
#define PROBE_MAX_US (300 * INT64CONST(1000000))

/* After a transaction of ours failed, and while a result cannot be stored. */
#define ERROR_PAUSE_US (1 * INT64CONST(1000000))
#define LOCKED_PAUSE_US (100 * INT64CONST(1000))

/* Rows that are written back before the network has its turn. */
#define WRITE_BACKS_AT_ONCE 100
#define WRITE_BACK_TURN_US (5 * INT64CONST(1000))

/* How long a request stays allowed under rate_limit while none is sent. */
#define RATE_BURST_S 0.05

/* Seam's clock, as an answer tells it, is asked for again after this time. */
#define CLOCK_GOOD_US (60 * INT64CONST(1000000))

/* An answer that took longer tells too little of it. */
#define CLOCK_DELAY_US (2 * INT64CONST(1000000))

/* A call on its way, or ended and not stored yet. */
typedef struct Flight
{
	dlist_node	node;			/* in worker.unused, .flying or .ended */
	SeamOp		op;
	WorkRow		row;			/* of a list only the identity */
	MemoryContext context;		/* of what follows */
	int64		started_at;		/* http_now()'s clock */
	HttpRequest http;
	StringInfoData body;

	/* when it has ended */
	SeamResult	result;
	HttpOutcome outcome;
	HttpFailure failure;
	int			status;
	int64		pause;			/* before another try, microseconds */
	bool		has_date;
	TimestampTz date;			/* Seam's clock */
	int64		ended_at;
	SeamKey    *keys;			/* of a list */
	int			nkeys;
	int			keys_size;
	bool		stored;			/* in the transaction under way */
} Flight;

/* What is to be told when the transaction has committed. */
typedef struct Notice
{
	int64		id;
	char	   *reference;		/* or NULL */
	RequestStatus status;
} Notice;

static struct
{
	char		database[NAMEDATALEN];
	MemoryContext turn;			/* reset each time round */
	HttpRun    *run;
	uint32		wait_event;
	dlist_head	unused;
	dlist_head	flying;
	dlist_head	ended;
	int			nflying;

	bool		account_known;
	MemoryContext account_context;
	SeamAccount account;
	char	   *urls[SEAM_DELETE + 1];
	bool		account_warned;

	Pace		pace;
	double		tokens;			/* requests that rate_limit allows now */
	int64		tokens_at;
	bool		refused;		/* Seam does not accept the API key */
	int64		probe_at;
	int64		probe_pause;

	/* Seam's clock: at clock_at it was clock, or a little later */
	bool		clock_known;
	TimestampTz clock;
	int64		clock_at;
	int64		clock_delay;	/* what the sample took */

	WorkQueue	pending;
	WorkQueue	revoking;
	WorkQueue	write_backs;
	WorkQueue	cancelled;
	bool		doubts_changed;
	int			ndoubts;
	WorkRow    *doubts;			/* in a context of their own */
	MemoryContext doubts_context;
	int64	   *to_write;		/* ids of requests whose row is to be written */
	int			nto_write;

	List	   *notices;		/* of Notice *, in turn */
	List	   *claimed;		/* of Flight *, in turn: to be started at
								 * commit */
	int64		retry_at;		/* after an error, or a locked request */
	int64		housekeeping_at;
	uint64		settings;		/* of ALTER DATABASE and ALTER ROLE */
	bool		settings_known;
	bool		draining;		/* they have changed: send nothing more */
	bool		gone;			/* the extension is */
	bool		disowned;		/* the extension has another owner */
	bool		careful;		/* the last worker may have died of a row */
}			worker;

PGDLLEXPORT void seam_ik_worker_main(Datum main_arg);

/* ---------- transactions ---------- */

/*
 * Run a function in a transaction.  Returns NULL when it has committed, else
 * the error, in the turn's context; the transaction is rolled back then.
 */
static ErrorData *
transaction(void (*function) (void *arg), void *arg)
{
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		function(arg);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(worker.turn);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		QueryCancelPending = false;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker.turn);
	return error;
}

/*
 * Log the error of a transaction of ours, as a warning.
 */
static void
log_error(const ErrorData *error, const char *what)
{
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("the outbox of database \"%s\" could not %s: %s", worker.database, what, error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}

/* ---------- account ---------- */

/*
 * Read the account's settings, in a transaction.
 */
static void
read_account(void *arg)
{
	SeamAccount *account = arg;
	MemoryContext old = MemoryContextSwitchTo(worker.turn);

	settings_account(account);
	MemoryContextSwitchTo(old);
}

/*
 * Keep a copy of the account, and make what depends on it.
 */
static void
keep_account(const SeamAccount *account)
{
	MemoryContext old = MemoryContextSwitchTo(worker.account_context);
	HttpProfile profile;

	MemoryContextReset(worker.account_context);
	worker.account.endpoint = pstrdup(account->endpoint);
	worker.account.api_key = pstrdup(account->api_key);
	worker.account.workspace_id = pstrdup(account->workspace_id);
	worker.account.ca_file = pstrdup(account->ca_file);
	for (int op = 0; op <= SEAM_DELETE; op++)
		worker.urls[op] = seam_url(&worker.account, op);
	MemoryContextSwitchTo(worker.turn);
	seam_profile(&worker.account, &profile);
	http_set_profile(worker.run, &profile);
	MemoryContextSwitchTo(old);
	worker.account_known = true;
}

/*
 * Is the account the one that is kept?
 */
static bool
same_account(const SeamAccount *account)
{
	return worker.account_known &&
		strcmp(account->endpoint, worker.account.endpoint) == 0 &&
		strcmp(account->api_key, worker.account.api_key) == 0 &&
		strcmp(account->workspace_id, worker.account.workspace_id) == 0 &&
		strcmp(account->ca_file, worker.account.ca_file) == 0;
}

/*
 * Take the account as it is set now, also when the key file has changed.
 * Returns whether there is one that can be used.
 *
 * The URLs of calls under way point into the account that is kept, so a change
 * waits until they have ended.
 */
static bool
refresh_account(void)
{
	SeamAccount account = {0};
	ErrorData  *error = transaction(read_account, &account);

	if (error)
	{
		if (!worker.account_warned)
			log_error(error, "send anything");
		worker.account_warned = true;
		return false;
	}
	worker.account_warned = false;
	if (same_account(&account))
		return true;
	if (worker.nflying > 0 || !dlist_is_empty(&worker.ended))
		return false;
	keep_account(&account);
	worker.refused = false;
	return true;
}

/*
 * Seam did not accept the API key: nothing but a probe is sent until the
 * configuration changes or the probe works.
 */
static void
account_refused(void)
{
	int64		now = http_now();

	if (!worker.refused)
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the outbox of database \"%s\" waits: Seam did not accept the API key", worker.database),
				 errhint("Correct the API key; the requests are sent then.")));
		worker.probe_pause = PROBE_FIRST_US;
	}
	else if (now >= worker.probe_at)
		worker.probe_pause = Min(worker.probe_pause * 2, PROBE_MAX_US);
	worker.refused = true;
	worker.probe_at = now + worker.probe_pause;
}

/* ---------- Seam's clock ---------- */

/*
 * Seam's time at a time of http_now()'s clock.
 */
static TimestampTz
seam_clock(int64 at)
{
	return worker.clock + (at - worker.clock_at);
}

/*
 * Learn Seam's time from an answer.
 */
static void
learn_clock(const Flight *flight)
{
	int64		delay = flight->ended_at - flight->started_at;
	int64		off;

	if (!flight->has_date || delay > CLOCK_DELAY_US)
		return;
	off = worker.clock_known ? flight->date - seam_clock(flight->ended_at) : 0;
	if (worker.clock_known && delay >= worker.clock_delay &&
		flight->ended_at - worker.clock_at < CLOCK_GOOD_US &&
		off < DOUBT_MARGIN_US && off > -DOUBT_MARGIN_US)
		return;
	worker.clock_known = true;
	worker.clock = flight->date;
	worker.clock_at = flight->ended_at;
	worker.clock_delay = delay;
}

/* ---------- calls ---------- */

/*
 * A flight for a request, in no list yet.
 */
static Flight *
new_flight(SeamOp op, const WorkRow *row)
{
	Flight	   *flight;

	if (!dlist_is_empty(&worker.unused))
		flight = dlist_container(Flight, node, dlist_pop_head_node(&worker.unused));
	else
	{
		flight = MemoryContextAllocZero(TopMemoryContext, sizeof(Flight));
		flight->context = AllocSetContextCreate(TopMemoryContext, "seam_ik call", ALLOCSET_SMALL_SIZES);
	}
	flight->op = op;
	flight->row = *row;
	flight->row.error = flight->row.reference = NULL;
	flight->keys = NULL;
	flight->nkeys = flight->keys_size = 0;
	flight->stored = false;
	return flight;
}

/*
 * Give back a flight that is in no list.
 */
static void
free_flight(Flight *flight)
{
	MemoryContextReset(flight->context);
	dlist_push_head(&worker.unused, &flight->node);
}

/*
 * The request of a flight, as it is put to Seam.
 */
static SeamRequest
seam_request(Flight *flight)
{
	SeamRequest request = {.op = flight->op};

	if (flight->op == SEAM_DELETE)
		request.instant_key_id = &flight->row.key;
	else
		request.user_identity_id = &flight->row.identity;
	if (flight->op == SEAM_GENERATE)
	{
		request.max_use_count = flight->row.max_use_count;
		if (flight->row.has_profile)
			request.customization_profile_id = &flight->row.profile;
	}
	return request;
}

/*
 * Send a flight's request.
 */
static void
start_flight(Flight *flight)
{
	SeamRequest request = seam_request(flight);
	MemoryContext old = MemoryContextSwitchTo(flight->context);

	initStringInfo(&flight->body);
	seam_body(&request, &flight->body);
	MemoryContextSwitchTo(old);
	flight->started_at = http_now();
	flight->http.url = worker.urls[flight->op];
	flight->http.body = flight->body.data;
	flight->http.body_len = flight->body.len;
	flight->http.deadline = flight->started_at + (int64) settings_request_timeout * 1000;
	flight->http.connect_timeout = settings_connect_timeout;
	flight->http.max_answer = flight->op == SEAM_LIST ?
		(size_t) settings_max_list_size * 1024 : SEAM_MAX_ANSWER;
	flight->http.owner = flight;
	dlist_push_tail(&worker.flying, &flight->node);
	worker.nflying++;
	http_start(worker.run, &flight->http);
}

/*
 * SeamKeyConsumer: remember a key of a list.
 */
static void
keep_listed_key(const SeamKey *key, void *arg)
{
	Flight	   *flight = arg;
	MemoryContext old = MemoryContextSwitchTo(flight->context);

	if (flight->nkeys == flight->keys_size)
	{
		flight->keys_size = Max(16, flight->keys_size * 2);
		flight->keys = flight->keys ?
			repalloc_huge(flight->keys, flight->keys_size * sizeof(SeamKey)) :
			MemoryContextAllocHuge(flight->context, flight->keys_size * sizeof(SeamKey));
	}
	flight->keys[flight->nkeys] = *key;
	flight->keys[flight->nkeys].instant_key_url = pstrdup(key->instant_key_url);
	if (key->customization)
		flight->keys[flight->nkeys].customization = pstrdup(key->customization);
	flight->nkeys++;
	MemoryContextSwitchTo(old);
}

/*
 * A call has ended: keep what is to be stored of it.
 */
static void
flight_ended(Flight *flight)
{
	const HttpAnswer *answer = &flight->http.answer;
	SeamRequest request = seam_request(flight);
	MemoryContext old = MemoryContextSwitchTo(flight->context);
	int64		unix_time;

	dlist_delete(&flight->node);
	worker.nflying--;
	flight->ended_at = http_now();
	seam_result(&worker.account, &request, answer, keep_listed_key, flight, &flight->result);
	flight->outcome = answer->outcome;
	flight->failure = answer->failure;
	flight->status = answer->status;
	/* a little more than twice as long each time: see README */
	flight->pause = pace_pause(answer, flight->row.attempts * 3 / 2, BACKOFF_MAX_US);
	pace_answer(&worker.pace, answer, flight->pause, worker.nflying);
	flight->has_date = http_date(answer, &unix_time);
	if (flight->has_date)
		flight->date = time_t_to_timestamptz((pg_time_t) unix_time);
	learn_clock(flight);
	MemoryContextSwitchTo(old);
	http_release(&flight->http);
	dlist_push_tail(&worker.ended, &flight->node);

	if (flight->result.sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION)
		account_refused();
	else if (flight->status != 0 && worker.refused)
	{
		worker.refused = false;
		ereport(LOG,
				(errmsg("the outbox of database \"%s\" goes on: Seam accepts the API key", worker.database)));
	}
}

/* ---------- storing results ---------- */

/*
 * Something is due at this time.
 */
static void
due_at(WorkQueue *queue, TimestampTz time)
{
	queue->next_due = Min(queue->next_due, time);
}

/*
 * Change a request that is locked, and see to what follows from it.
 */
static void
change_request(const WorkRow *row, WorkChange *change)
{
	bool		written = change->status == STATUS_ISSUED && change->next_attempt_at == DT_NOEND;

	work_change(row->id, change);
	if (change->next_attempt_at != DT_NOEND)
	{
		switch (change->status)
		{
			case STATUS_PENDING:
				due_at(&worker.pending, change->next_attempt_at);
				break;
			case STATUS_REVOKING:
				due_at(&worker.revoking, change->next_attempt_at);
				break;
			case STATUS_ISSUED:
				due_at(&worker.write_backs, change->next_attempt_at);
				break;
			default:
				break;
		}
	}
	if (written || change->status == STATUS_FAILED || change->status == STATUS_REVOKED)
	{
		MemoryContext old = MemoryContextSwitchTo(worker.turn);
		Notice	   *notice = palloc(sizeof(Notice));

		notice->id = row->id;
		notice->reference = row->reference ? pstrdup(row->reference) : NULL;
		notice->status = change->status;
		worker.notices = lappend(worker.notices, notice);
		MemoryContextSwitchTo(old);
	}
}

/*
 * The change to a request that a key was issued for, or adopted.
 */
static void
set_issued(const WorkRow *row, const SeamKey *key, WorkChange *change)
{
	TimestampTz now = GetCurrentTimestamp();

	change->key = key;
	change->sqlerrcode = 0;
	change->error = NULL;
	if (row->status == STATUS_REVOKING)
	{
		change->attempts = 0;
		change->next_attempt_at = now;
		return;
	}
	change->status = STATUS_ISSUED;
	change->finished = true;
	change->next_attempt_at = row->has_target ? now : DT_NOEND;
}

/*
 * The change to a request of which no key was issued: try again if that may
 * help and is allowed.
 */
static void
set_not_issued(const WorkRow *row, bool retry, int64 pause, WorkChange *change)
{
	if (row->status == STATUS_REVOKING)
		change->status = STATUS_REVOKED;
	else if (retry && row->attempts < settings_max_attempts)
	{
		change->status = STATUS_PENDING;
		change->next_attempt_at = GetCurrentTimestamp() + pause;
		return;
	}
	else
		change->status = STATUS_FAILED;
	change->finished = true;
	change->next_attempt_at = DT_NOEND;
}

/*
 * A change that leaves the request as it is.
 */
static WorkChange
no_change(const WorkRow *row)
{
	WorkChange	change = {.status = row->status};

	change.next_attempt_at = row->next_attempt_at;
	change.attempts = row->attempts;
	change.sqlerrcode = row->sqlerrcode;
	change.error = row->error;
	return change;
}

/*
 * Put a failure into a change.
 */
static void
set_error(const SeamResult *result, WorkChange *change)
{
	change->sqlerrcode = result->sqlerrcode;
	change->error = seam_error_text(result);
}

/*
 * Lock a flight's request.  Returns false when it is gone; then *later tells
 * whether it is only locked by a session.
 *
 * A request with its id that was not claimed with it is another one: the table
 * may have been emptied, and its sequence begun anew.
 */
static bool
lock_request(const Flight *flight, WorkRow *row, bool *later)
{
	*later = false;
	if (work_lock(flight->row.id, row))
		return row->attempted_at == flight->row.attempted_at &&
			row->attempts == flight->row.attempts &&
			row->has_identity == flight->row.has_identity &&
			memcmp(&row->identity, &flight->row.identity, UUID_LEN) == 0;
	*later = work_exists(flight->row.id);
	return false;
}

/*
 * Store what came of a call that issues a key.  Returns false when that is not
 * possible now.
 */
static bool
store_generate(Flight *flight)
{
	const SeamResult *result = &flight->result;
	WorkRow		row;
	WorkChange	change;
	bool		later;

	if (!lock_request(flight, &row, &later) ||
		(row.status != STATUS_IN_FLIGHT && (row.status != STATUS_REVOKING || row.has_key)))
	{
		/* somebody has deleted or changed the request by hand */
		if (later)
			return false;
		if (result->sqlerrcode == 0)
			outbox_revoke_key(work_outbox(), &result->key.instant_key_id);
		due_at(&worker.revoking, GetCurrentTimestamp());
		return true;
	}
	change = no_change(&row);
	change.seam_request_id = result->request_id;
	if (result->sqlerrcode == 0)
		set_issued(&row, &result->key, &change);
	else if (result->in_doubt)
	{
		/* it stays as it is until Seam's list has settled it */
		set_error(result, &change);
		worker.doubts_changed = true;
	}
	else if (result->sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION ||
			 flight->failure == HTTP_FAILURE_DESCRIPTORS)
	{
		/* no fault of the request */
		set_error(result, &change);
		change.attempts--;
		row.attempts = 0;
		set_not_issued(&row, true, flight->failure == HTTP_FAILURE_DESCRIPTORS ? LOCKED_PAUSE_US : 0, &change);
	}
	else
	{
		set_error(result, &change);
		set_not_issued(&row, flight->outcome == HTTP_NOT_SENT || flight->status == 429,
					   flight->pause, &change);
	}
	change_request(&row, &change);
	return true;
}

/*
 * Store what came of a call that revokes a key.
 */
static bool
store_delete(Flight *flight)
{
	const SeamResult *result = &flight->result;
	WorkRow		row;
	WorkChange	change;
	bool		later;

	if (!lock_request(flight, &row, &later))
		return !later;
	if (row.status != STATUS_REVOKING)
		return true;
	change = no_change(&row);
	change.seam_request_id = result->request_id;
	if (result->sqlerrcode == 0)
	{
		/* also when there was no such key (any more) */
		change.status = STATUS_REVOKED;
		change.sqlerrcode = 0;
		change.finished = true;
		change.next_attempt_at = DT_NOEND;
	}
	else
	{
		/* a key that lives on is never given up */
		set_error(result, &change);
		change.next_attempt_at = GetCurrentTimestamp() + flight->pause;
	}
	change_request(&row, &change);
	return true;
}

/*
 * An array of uuids or int8s, in CurrentMemoryContext.
 */
static ArrayType *
make_array(Datum *values, int n, Oid type)
{
	if (type == UUIDOID)
		return construct_array(values, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR);
	return construct_array(values, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
}

/*
 * The keys of a list that no request owns.
 */
static int
unowned_keys(Flight *flight, Candidate **candidates)
{
	Datum	   *ids = palloc(Max(flight->nkeys, 1) * sizeof(Datum));
	pg_uuid_t  *owned;
	int			nowned;
	int			n = 0;

	*candidates = palloc(Max(flight->nkeys, 1) * sizeof(Candidate));
	for (int i = 0; i < flight->nkeys; i++)
		ids[i] = UUIDPGetDatum(&flight->keys[i].instant_key_id);
	nowned = work_owned(make_array(ids, flight->nkeys, UUIDOID), &owned);
	for (int i = 0; i < flight->nkeys; i++)
	{
		bool		is_owned = false;

		for (int j = 0; j < nowned && !is_owned; j++)
			is_owned = memcmp(&owned[j], &flight->keys[i].instant_key_id, UUID_LEN) == 0;
		if (!is_owned)
			(*candidates)[n++].key = &flight->keys[i];
	}
	return n;
}

/*
 * The times between which a call may have issued a key, by Seam's clock: both
 * as it was known when the call was made, and as the list's answer tells it, in
 * case one of the clocks has been set meanwhile.
 */
static void
set_window(const WorkRow *row, const Flight *list, Doubt *doubt)
{
	int64		ago = GetCurrentTimestamp() - (http_now() - list->ended_at) - row->attempted_at;

	doubt->from = list->date - ago;
	doubt->until = doubt->from + (list->ended_at - list->started_at) + USECS_PER_SEC;
	if (row->has_seam_time)
	{
		doubt->from = Min(doubt->from, row->seam_time);
		doubt->until = Max(doubt->until, row->seam_time);
	}
	doubt->from -= DOUBT_MARGIN_US;
	doubt->until += (int64) row->attempt_timeout * 1000 + DOUBT_MARGIN_US;
}

/*
 * The ids of the keys of a group, for a message.
 */
static char *
group_keys(const Candidate *candidates, int n, int group)
{
	StringInfoData ids;

	initStringInfo(&ids);
	for (int c = 0; c < n; c++)
	{
		char		id[SEAM_UUID_TEXT_LEN + 1];

		if (candidates[c].group != group)
			continue;
		seam_put_uuid(id, &candidates[c].key->instant_key_id);
		appendStringInfo(&ids, "%s%s", ids.len ? ", " : "", id);
	}
	return ids.data;
}

/*
 * Settle the doubts of an identity by the list of its keys.
 */
static bool
store_list(Flight *flight)
{
	const SeamResult *result = &flight->result;
	WorkRow    *rows = palloc(Max(worker.ndoubts, 1) * sizeof(WorkRow));
	Doubt	   *doubts = palloc0(Max(worker.ndoubts, 1) * sizeof(Doubt));
	Candidate  *candidates;
	int			ncandidates;
	int			n = 0;
	int			timeline = (int) GetWALInsertionTimeLine();

	worker.doubts_changed = true;
	for (int i = 0; i < worker.ndoubts; i++)
	{
		if (memcmp(&worker.doubts[i].identity, &flight->row.identity, UUID_LEN) != 0)
			continue;
		if (!work_lock(worker.doubts[i].id, &rows[n]))
		{
			/*
			 * gone, or locked by a session: all of them wait for the next
			 * list
			 */
			if (work_exists(worker.doubts[i].id))
				return true;
			continue;
		}
		if (rows[n].has_key || (rows[n].status != STATUS_IN_FLIGHT && rows[n].status != STATUS_REVOKING))
			continue;
		doubts[n].max_use_count = rows[n].max_use_count;
		doubts[n].has_profile = rows[n].has_profile;
		doubts[n].profile = rows[n].profile;
		doubts[n].wanted = rows[n].status == STATUS_IN_FLIGHT;
		set_window(&rows[n], flight, &doubts[n]);
		n++;
	}
	if (result->sqlerrcode != 0 || !flight->has_date)
	{
		for (int i = 0; i < n; i++)
		{
			WorkChange	change = no_change(&rows[i]);

			if (result->sqlerrcode != 0)
				change.error = psprintf("could not look for an instant key: %s", seam_error_text(result));
			else
				change.error = "could not look for an instant key: Seam's answer has no Date";
			if (change.sqlerrcode == 0)
				change.sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
			change.next_attempt_at = GetCurrentTimestamp() + flight->pause;
			change_request(&rows[i], &change);
		}
		return true;
	}

	ncandidates = unowned_keys(flight, &candidates);
	doubt_settle(doubts, n, candidates, ncandidates);
	for (int i = 0; i < n; i++)
	{
		WorkChange	change = no_change(&rows[i]);
		const char *keys = group_keys(candidates, ncandidates, doubts[i].group);

		if (rows[i].timeline != timeline && doubts[i].verdict != VERDICT_NO_KEY)
		{
			/*
			 * This may be a copy, whose origin has settled it: what is there
			 * is not ours to take or to revoke.
			 */
			doubts[i].verdict = VERDICT_AMBIGUOUS;
			change.error = psprintf("the answer was lost before a promotion or restore, and these instant keys may be of this request: %s", keys);
			for (int c = 0; c < ncandidates; c++)
				candidates[c].revoke = false;
		}
		else if (doubts[i].verdict == VERDICT_AMBIGUOUS)
			change.error = psprintf("the answer was lost, and another issuer is at work: any of these instant keys may be of this request: %s", keys);
		switch (doubts[i].verdict)
		{
			case VERDICT_ADOPT:
				set_issued(&rows[i], candidates[doubts[i].key].key, &change);
				break;
			case VERDICT_NO_KEY:
			case VERDICT_REISSUE:
				set_not_issued(&rows[i], true, pace_backoff(rows[i].attempts * 3 / 2, BACKOFF_MAX_US), &change);
				break;
			case VERDICT_AMBIGUOUS:
				change.status = STATUS_FAILED;
				change.sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
				change.finished = true;
				change.next_attempt_at = DT_NOEND;
				break;
		}
		change_request(&rows[i], &change);
	}
	for (int c = 0; c < ncandidates; c++)
	{
		if (!candidates[c].revoke)
			continue;
		work_revoke_copy(&rows[candidates[c].group], candidates[c].key);
		due_at(&worker.revoking, GetCurrentTimestamp());
	}
	return true;
}

/* ---------- claiming ---------- */

/*
 * How many requests may be sent now?  *again_at: when that may change by
 * itself (http_now()'s clock).
 */
static int
send_allowance(int64 now, int64 *again_at)
{
	int			n = worker.pace.limit - worker.nflying;

	*again_at = PG_INT64_MAX;
	if (!settings_worker || worker.draining)
		return 0;
	if (worker.pace.paused_until > now)
	{
		*again_at = worker.pace.paused_until;
		return 0;
	}
	if (worker.refused)
	{
		*again_at = worker.probe_at;
		return now >= worker.probe_at && worker.nflying == 0 ? 1 : 0;
	}
	if (settings_rate_limit > 0)
	{
		double		most = Max(1.0, settings_rate_limit * RATE_BURST_S);

		worker.tokens = Min(most, worker.tokens + (double) (now - worker.tokens_at) * settings_rate_limit / USECS_PER_SEC);
		worker.tokens_at = now;
		if (worker.tokens < 1.0)
			*again_at = now + (int64) ((1.0 - worker.tokens) * USECS_PER_SEC / settings_rate_limit) + 1;
		n = Min(n, (int) worker.tokens);
	}
	return Max(n, 0);
}

/*
 * Have a call made when this transaction has committed.
 */
static void
claim(SeamOp op, const WorkRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(worker.turn);

	worker.claimed = lappend(worker.claimed, new_flight(op, row));
	worker.tokens -= 1.0;
	MemoryContextSwitchTo(old);
}

/*
 * Is a call for the identity under way, or its result not stored yet?
 */
static bool
identity_is_busy(const pg_uuid_t *identity)
{
	dlist_head *lists[] = {&worker.flying, &worker.ended};
	dlist_iter	it;

	for (int i = 0; i < (int) lengthof(lists); i++)
	{
		dlist_foreach(it, lists[i])
		{
			Flight	   *flight = dlist_container(Flight, node, it.cur);

			if (flight->op != SEAM_DELETE && !flight->stored &&
				memcmp(&flight->row.identity, identity, UUID_LEN) == 0)
				return true;
		}
	}
	return false;
}

/*
 * Read which requests are in doubt.
 */
static void
read_doubts(void)
{
	dlist_head *lists[] = {&worker.flying, &worker.ended};
	Datum	   *active = palloc((worker.nflying + 1) * sizeof(Datum));
	int			size = worker.nflying + 1;
	int			n = 0;
	dlist_iter	it;
	MemoryContext old;

	for (int i = 0; i < (int) lengthof(lists); i++)
	{
		dlist_foreach(it, lists[i])
		{
			Flight	   *flight = dlist_container(Flight, node, it.cur);

			if (flight->op != SEAM_GENERATE || flight->stored)
				continue;
			if (n == size)
				active = repalloc(active, (size *= 2) * sizeof(Datum));
			active[n++] = Int64GetDatum(flight->row.id);
		}
	}
	MemoryContextReset(worker.doubts_context);
	old = MemoryContextSwitchTo(worker.doubts_context);
	worker.ndoubts = work_doubts(make_array(active, n, INT8OID), &worker.doubts);
	MemoryContextSwitchTo(old);
	worker.doubts_changed = false;
}

/*
 * Ask for the keys of identities whose doubts have all waited long enough, at
 * most limit of them.  Returns how many.
 */
static int
claim_lists(int limit)
{
	TimestampTz now = GetCurrentTimestamp();
	int			n = 0;

	for (int i = 0; i < worker.ndoubts && n < limit; i++)
	{
		WorkRow    *row = &worker.doubts[i];
		bool		ready = row->has_identity;

		for (int j = 0; j < worker.ndoubts && ready; j++)
		{
			if (memcmp(&worker.doubts[j].identity, &row->identity, UUID_LEN) != 0)
				continue;
			/* the first of the identity asks for all */
			if (j < i || worker.doubts[j].next_attempt_at > now)
				ready = false;
		}
		if (ready && !identity_is_busy(&row->identity))
		{
			claim(SEAM_LIST, row);
			n++;
		}
	}
	return n;
}

/*
 * The identities that no new request is sent for.
 */
static ArrayType *
held_identities(void)
{
	Datum	   *ids = palloc(Max(worker.ndoubts, 1) * sizeof(Datum));

	for (int i = 0; i < worker.ndoubts; i++)
		ids[i] = UUIDPGetDatum(&worker.doubts[i].identity);
	return make_array(ids, worker.ndoubts, UUIDOID);
}

/*
 * Is something of the queue due?
 */
static bool
is_due(const WorkQueue *queue)
{
	return queue->next_due <= GetCurrentTimestamp();
}

/*
 * Claim what may be sent now: first what is to be revoked, then what settles
 * doubts, then new keys.
 */
static void
claim_calls(void)
{
	int64		again_at;
	int			limit = send_allowance(http_now(), &again_at);
	WorkAttempt attempt = {.timeout = Max(settings_request_timeout, settings_settle_delay)};
	WorkRow    *rows;
	int			n;

	attempt.has_seam_time = worker.clock_known;
	attempt.seam_time = worker.clock_known ? seam_clock(http_now()) : 0;
	if (limit > 0 && is_due(&worker.revoking))
	{
		n = work_claim(&worker.revoking, &attempt, NULL, limit, &rows);
		for (int i = 0; i < n; i++)
			claim(SEAM_DELETE, &rows[i]);
		limit -= n;
	}
	if (limit > 0)
		limit -= claim_lists(limit);
	if (limit > 0 && is_due(&worker.pending))
	{
		n = work_claim(&worker.pending, &attempt, held_identities(), limit, &rows);
		for (int i = 0; i < n; i++)
			claim(SEAM_GENERATE, &rows[i]);
	}
}

/*
 * The transaction of a turn: store what has ended, claim what may be sent.
 */
static void
turn(void *arg)
{
	bool		may_send = *(bool *) arg;
	WorkRow    *rows;
	dlist_iter	it;
	int			n;

	worker.gone = !work_begin();
	if (worker.gone)
	{
		work_end();
		return;
	}
	worker.disowned = !work_is_ours();
	if (worker.disowned)
	{
		work_end();
		return;
	}
	/* an intent or a key must not be lost, whatever synchronous_commit says */
	ForceSyncCommit();
	dlist_foreach(it, &worker.ended)
	{
		Flight	   *flight = dlist_container(Flight, node, it.cur);

		switch (flight->op)
		{
			case SEAM_GENERATE:
				flight->stored = store_generate(flight);
				break;
			case SEAM_DELETE:
				flight->stored = store_delete(flight);
				break;
			default:
				flight->stored = store_list(flight);
				break;
		}
		if (!flight->stored)
			worker.retry_at = http_now() + LOCKED_PAUSE_US;
	}
	if (worker.doubts_changed)
		read_doubts();
	if (may_send)
		claim_calls();
	if (is_due(&worker.cancelled))
	{
		n = work_claim(&worker.cancelled, NULL, NULL, WRITE_BACKS_AT_ONCE, &rows);
		for (int i = 0; i < n; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(worker.turn);
			Notice	   *notice = palloc(sizeof(Notice));

			notice->id = rows[i].id;
			notice->reference = rows[i].reference ? pstrdup(rows[i].reference) : NULL;
			notice->status = STATUS_CANCELLED;
			worker.notices = lappend(worker.notices, notice);
			MemoryContextSwitchTo(old);
		}
	}
	if (worker.nto_write == 0 && is_due(&worker.write_backs))
	{
		n = work_claim(&worker.write_backs, NULL, NULL, WRITE_BACKS_AT_ONCE, &rows);
		for (int i = 0; i < n; i++)
			worker.to_write[worker.nto_write++] = rows[i].id;
	}
	work_end();
}

/* ---------- telling who listens ---------- */

/*
 * In a transaction: notify of each end.
 */
static void
notify(void *arg)
{
	ListCell   *lc;

	foreach(lc, worker.notices)
	{
		Notice	   *notice = lfirst(lc);
		StringInfoData payload;

		initStringInfo(&payload);
		appendStringInfo(&payload, "{\"request_id\":" INT64_FORMAT ",\"reference\":", notice->id);
		if (notice->reference)
			escape_json(&payload, notice->reference);
		else
			appendStringInfoString(&payload, "null");
		appendStringInfo(&payload, ",\"status\":\"%s\"}", status_names[notice->status]);
		Async_Notify(CHANNEL, payload.data);
	}
}

/*
 * Tell of what has been stored.  Nobody depends on it, so a failure is only
 * logged.
 */
static void
send_notices(void)
{
	ErrorData  *error;

	if (worker.notices == NIL)
		return;
	error = transaction(notify, NULL);
	if (error)
		log_error(error, "notify of its results");
	worker.notices = NIL;
}

/* ---------- write-back ---------- */

/* A row that is written, or was not. */
typedef struct RowToWrite
{
	int64		id;
	const ErrorData *error;		/* of the try, or NULL */
} RowToWrite;

/*
 * In a transaction: write a key to its row, and note in the request that that
 * is done.
 */
static void
write_row_back(void *arg)
{
	RowToWrite *row_to_write = arg;
	WriteBackOutcome outcome;
	WorkRow		row;
	WorkChange	change;
	const char *reason = NULL;

	worker.gone = !work_begin();
	if (worker.gone)
	{
		work_end();
		return;
	}
	outcome = write_back(work_outbox(), row_to_write->id, &reason);
	if ((outcome == WRITE_BACK_DONE || outcome == WRITE_BACK_REVOKE) && work_lock(row_to_write->id, &row))
	{
		change = no_change(&row);
		change.sqlerrcode = 0;
		change.error = reason;
		if (outcome == WRITE_BACK_DONE)
		{
			change.finished = true;
			change.next_attempt_at = DT_NOEND;
		}
		else
		{
			change.status = STATUS_REVOKING;
			change.attempts = 0;
			change.next_attempt_at = GetCurrentTimestamp();
		}
		change_request(&row, &change);
	}
	work_end();
}

/*
 * In a transaction: note in the request that its row could not be written.
 */
static void
note_unwritten(void *arg)
{
	RowToWrite *row_to_write = arg;
	const ErrorData *error = row_to_write->error;
	WorkRow		row;

	if (!work_begin())
		worker.gone = true;
	else if (work_lock(row_to_write->id, &row) && row.status == STATUS_ISSUED)
	{
		WorkChange	change = no_change(&row);

		change.finished = true;
		change.sqlerrcode = error->sqlerrcode;
		change.error = psprintf("the instant key could not be written to its row: %s", error->message);
		change.next_attempt_at = DT_NOEND;
		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
			error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
			error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
		{
			/* the longer it has waited, the longer it may wait */
			TimestampTz now = GetCurrentTimestamp();
			int64		waited = now - row.attempted_at;

			change.next_attempt_at = now + Min(Max(waited / 4, WRITE_BACK_BACKOFF_MIN_US), WRITE_BACK_BACKOFF_MAX_US);
		}
		change_request(&row, &change);
	}
	work_end();
}

/*
 * In a transaction: put off what may be this process's end, so that its
 * successor does other things first.
 */
static void
put_off_row(void *arg)
{
	RowToWrite *row_to_write = arg;
	WorkRow		row;

	if (!work_begin())
		worker.gone = true;
	else if (work_lock(row_to_write->id, &row) && row.status == STATUS_ISSUED && row.next_attempt_at != DT_NOEND)
	{
		WorkChange	change = no_change(&row);

		change.finished = true;
		change.next_attempt_at = GetCurrentTimestamp() + WRITE_BACK_BACKOFF_MAX_US;
		work_change(row.id, &change);
	}
	work_end();
}

/*
 * Write issued keys to their rows, for a while.
 */
static void
write_rows(void)
{
	int64		until = http_now() + WRITE_BACK_TURN_US;
	int			n = 0;

	while (n < worker.nto_write && !worker.gone && (n == 0 || http_now() < until))
	{
		RowToWrite	row = {.id = worker.to_write[n++]};

		CHECK_FOR_INTERRUPTS();
		if (worker.careful)
			(void) transaction(put_off_row, &row);
		row.error = transaction(write_row_back, &row);
		write_back_clean_up();
		if (row.error)
		{
			ErrorData  *error = transaction(note_unwritten, &row);

			if (error)
			{
				log_error(error, "note that a row could not be written");
				due_at(&worker.write_backs, GetCurrentTimestamp() + ERROR_PAUSE_US);
			}
		}
	}
	memmove(worker.to_write, worker.to_write + n, (worker.nto_write - n) * sizeof(int64));
	worker.nto_write -= n;
}

/* ---------- the loop ---------- */

/*
 * Look at every queue: something may have come of which we do not know.
 */
static void
look_at_queues(void)
{
	worker.pending.next_due = worker.revoking.next_due =
		worker.write_backs.next_due = worker.cancelled.next_due = DT_NOBEGIN;
}

/*
 * In a transaction: what has to be done now and then.
 */
static void
housekeeping(void *arg)
{
	bool	   *more = arg;
	uint64		settings;

	*more = false;
	worker.gone = !work_begin();
	worker.disowned = !worker.gone && !work_is_ours();
	if (worker.gone || worker.disowned)
	{
		work_end();
		return;
	}
	strlcpy(worker.database, get_database_name(MyDatabaseId), NAMEDATALEN);
	settings = work_settings();
	if (worker.settings_known && settings != worker.settings)
		worker.draining = true;
	worker.settings = settings;
	worker.settings_known = true;
	(void) work_set_aside();
	if (settings_retention >= 0)
	{
		dlist_head *lists[] = {&worker.flying, &worker.ended};
		List	   *keep = NIL;
		Datum	   *ids;
		int			n = 0;
		ListCell   *lc;
		dlist_iter	it;

		/*
		 * while a doubt of an identity may come up, its keys' owners are
		 * needed
		 */
		for (int i = 0; i < worker.ndoubts; i++)
			keep = lappend(keep, &worker.doubts[i].identity);
		for (int i = 0; i < (int) lengthof(lists); i++)
		{
			dlist_foreach(it, lists[i])
				keep = lappend(keep, &dlist_container(Flight, node, it.cur)->row.identity);
		}
		ids = palloc(Max(list_length(keep), 1) * sizeof(Datum));
		foreach(lc, keep)
			ids[n++] = UUIDPGetDatum(lfirst(lc));
		*more = work_delete_old(GetCurrentTimestamp() - (int64) settings_retention * USECS_PER_SEC,
								make_array(ids, n, UUIDOID)) >= 1000;
	}
	work_end();
}

/*
 * Forget what a transaction that failed had claimed and stored.
 */
static void
forget_turn(void)
{
	ListCell   *lc;
	dlist_iter	it;

	foreach(lc, worker.claimed)
		free_flight(lfirst(lc));
	worker.claimed = worker.notices = NIL;
	worker.nto_write = 0;
	dlist_foreach(it, &worker.ended)
		dlist_container(Flight, node, it.cur)->stored = false;
	worker.doubts_changed = true;
	look_at_queues();
}

/*
 * Store what has ended, and send what may be sent.
 */
static void
take_turn(void)
{
	bool		may_send = !worker.draining && settings_worker && refresh_account();
	ErrorData  *error = transaction(turn, &may_send);
	dlist_mutable_iter it;
	ListCell   *lc;

	if (error)
	{
		log_error(error, "go on");
		forget_turn();
		worker.retry_at = http_now() + ERROR_PAUSE_US;
		return;
	}
	dlist_foreach_modify(it, &worker.ended)
	{
		Flight	   *flight = dlist_container(Flight, node, it.cur);

		if (flight->stored)
		{
			dlist_delete(&flight->node);
			free_flight(flight);
		}
	}
	foreach(lc, worker.claimed)
		start_flight(lfirst(lc));
	worker.claimed = NIL;
	send_notices();
}

/*
 * A time of the local clock on http_now()'s.
 */
static int64
monotonic(TimestampTz time, TimestampTz now, int64 http)
{
	if (TIMESTAMP_NOT_FINITE(time))
		return time == DT_NOBEGIN ? 0 : PG_INT64_MAX;
	return http + Max(time - now, 0);
}

/*
 * When there will be something to do, if nothing happens before.
 */
static int64
next_turn(void)
{
	int64		http = http_now();
	TimestampTz now = GetCurrentTimestamp();
	int64		at = Min(worker.housekeeping_at, worker.retry_at);
	int64		again_at;

	if (worker.draining)
		return at;
	if (worker.nto_write > 0)
		return 0;
	at = Min(at, monotonic(worker.write_backs.next_due, now, http));
	at = Min(at, monotonic(worker.cancelled.next_due, now, http));
	if (worker.account_warned || !worker.account_known)
		return Min(at, http + PROBE_FIRST_US);
	if (send_allowance(http, &again_at) == 0)
	{
		/* only when there is something to send */
		if (worker.ndoubts == 0 && worker.pending.next_due == DT_NOEND && worker.revoking.next_due == DT_NOEND)
			return at;
		return Min(at, again_at);
	}
	at = Min(at, monotonic(worker.pending.next_due, now, http));
	at = Min(at, monotonic(worker.revoking.next_due, now, http));
	for (int i = 0; i < worker.ndoubts; i++)
	{
		if (!identity_is_busy(&worker.doubts[i].identity))
			at = Min(at, monotonic(worker.doubts[i].next_attempt_at, now, http));
	}
	return at;
}

/*
 * The configuration was reloaded.
 */
static void
reload(void)
{
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	pace_set_max(&worker.pace, settings_max_concurrency);
	http_set_parallel(worker.run, settings_max_concurrency);
	worker.account_warned = false;
	worker.refused = false;
	worker.housekeeping_at = 0;
	look_at_queues();
}

/*
 * The extension is gone, and with it what the calls under way were for: what
 * they have issued, or may have, is left to whom reads the log.
 */
static void
log_abandoned(void)
{
	dlist_head *lists[] = {&worker.flying, &worker.ended};
	dlist_iter	it;

	for (int i = 0; i < (int) lengthof(lists); i++)
	{
		dlist_foreach(it, lists[i])
		{
			Flight	   *flight = dlist_container(Flight, node, it.cur);
			char		id[SEAM_UUID_TEXT_LEN + 1];

			if (flight->op != SEAM_GENERATE || (i == 1 && flight->result.sqlerrcode != 0 && !flight->result.in_doubt))
				continue;
			seam_put_uuid(id, &flight->row.identity);
			ereport(WARNING,
					(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
					 errmsg("extension seam_ik was dropped while an instant key was being issued: it may exist"),
					 errdetail("User identity %s, in the outbox of database \"%s\".", id, worker.database)));
		}
	}
}

/*
 * Exit for a reason that is no failure.
 */
static void
leave(void)
{
	if (worker.gone)
		log_abandoned();
	launcher_expect_exit();
	proc_exit(0);
}

/*
 * Has a session called?  Then look what it has to tell.
 */
static bool
hear(void)
{
	bool		reread;

	if (!launcher_was_called(&reread))
		return false;
	if (launcher_wants_exit())
		leave();
	look_at_queues();
	if (reread)
		worker.doubts_changed = true;
	return true;
}

/*
 * Settings that this process needs whatever the configuration says.
 */
static void
set_own_settings(void)
{
	static const char *const settings[][2] = {
		{"role", "none"},
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * Make what the loop needs.
 */
static void
set_up(void)
{
	HttpProfile none = {.ca_file = ""};

	dlist_init(&worker.unused);
	dlist_init(&worker.flying);
	dlist_init(&worker.ended);
	worker.turn = AllocSetContextCreate(TopMemoryContext, "seam_ik turn", ALLOCSET_DEFAULT_SIZES);
	worker.account_context = AllocSetContextCreate(TopMemoryContext, "seam_ik account", ALLOCSET_SMALL_SIZES);
	worker.doubts_context = AllocSetContextCreate(TopMemoryContext, "seam_ik doubts", ALLOCSET_SMALL_SIZES);
	worker.to_write = MemoryContextAlloc(TopMemoryContext, WRITE_BACKS_AT_ONCE * sizeof(int64));
	worker.pending.status = STATUS_PENDING;
	worker.revoking.status = STATUS_REVOKING;
	worker.write_backs.status = STATUS_ISSUED;
	worker.cancelled.status = STATUS_CANCELLED;
	worker.doubts_changed = true;
	worker.retry_at = PG_INT64_MAX;
	worker.wait_event = wait_event_seam();
	pace_init(&worker.pace, settings_max_concurrency);
	MemoryContextSwitchTo(TopMemoryContext);
	worker.run = http_begin(&none, settings_max_concurrency);
	MemoryContextSwitchTo(worker.turn);
	look_at_queues();
}

/*
 * Main function of the worker.
 */
void
seam_ik_worker_main(Datum main_arg)
{
	WorkerStart start = launcher_attach(main_arg);

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(start.database, start.owner, CONNECT_WITHOUT_LOGIN);
	set_own_settings();
	set_up();
	worker.careful = start.careful;
	for (;;)
	{
		int64		wake_at;
		int64		now;
		HttpRequest *request;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(worker.turn);
		if (ConfigReloadPending)
			reload();
		now = http_now();
		if (now >= worker.housekeeping_at)
		{
			bool		more = false;
			ErrorData  *error = transaction(housekeeping, &more);

			if (error)
				log_error(error, "tidy up");
			worker.housekeeping_at = http_now() + (more ? LOCKED_PAUSE_US : HOUSEKEEPING_US);
			look_at_queues();
		}
		worker.retry_at = PG_INT64_MAX;
		take_turn();
		if (worker.nto_write > 0)
		{
			write_rows();
			send_notices();
		}
		if (worker.gone || worker.disowned || (worker.draining && worker.nflying == 0 && dlist_is_empty(&worker.ended)))
			leave();

		pgstat_report_stat(worker.nflying == 0);
		wake_at = hear() ? 0 : next_turn();
		request = http_wait(worker.run, wake_at, worker.wait_event);
		while (request)
		{
			flight_ended(request->owner);
			request = http_wait(worker.run, 0, worker.wait_event);
		}
	}
}
