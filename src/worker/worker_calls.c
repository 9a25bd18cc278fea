/*-------------------------------------------------------------------------
 *
 * worker_calls.c
 *	  The calls of the worker: what may be sent, and how it is sent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "logic/doubt.h"
#include "seam/json.h"
#include "config/settings.h"
#include "base/stop_point.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker_state.h"

/* Where Seam did not accept the key, one request is tried this often. */
#define PROBE_FIRST_US (10 * INT64CONST(1000000))
#define PROBE_MAX_US (300 * INT64CONST(1000000))

/* From this length on, a pause that a 429 asked for is told of. */
#define PAUSE_TOLD_US (60 * INT64CONST(1000000))

/* While there is no API key, it is looked for this often. */
#define ACCOUNT_LOOK_US (10 * INT64CONST(1000000))

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
	AccountId	id = account_id(account);
	MemoryContext old;
	HttpProfile profile;

	if (!account_has_endpoint(&id, &worker.account_id))
		worker.clock_known = false;
	if (!account_is_same(&id, &worker.account_id))
		worker.account_id = id;
	if (worker.account_context)
		MemoryContextSetParent(worker.account_context, worker.old_accounts);
	if (worker.nflying == 0)
		MemoryContextDeleteChildren(worker.old_accounts);
	worker.account_context = AllocSetContextCreate(TopMemoryContext, "seam_ik account",
												   ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(worker.account_context);
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
 */
bool
worker_refresh_account(void)
{
	SeamAccount account = {0};
	ErrorData  *error = worker_transaction(read_account, &account);

	if (error)
	{
		if (!worker.account_warned)
			worker_log_error(error, "send anything");
		worker.account_warned = true;
		worker.account_look_at = clock_now() + ACCOUNT_LOOK_US;
		return false;
	}
	worker.account_warned = false;
	if (same_account(&account))
		return true;
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
	int64		now = clock_now();

	if (!worker.refused)
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the outbox of database \"%s\" waits: Seam did not accept the API key",
						worker.database),
				 errhint("Correct the API key; the requests are sent then.")));
		worker.probe_pause = PROBE_FIRST_US;
	}
	else if (now >= worker.probe_at)
		worker.probe_pause = Min(worker.probe_pause * 2, PROBE_MAX_US);
	worker.refused = true;
	worker.probe_at = now + worker.probe_pause;
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
		flight->context = AllocSetContextCreate(TopMemoryContext, "seam_ik call",
												ALLOCSET_SMALL_SIZES);
	}
	flight->op = op;
	flight->row = *row;
	flight->row.error = flight->row.reference = NULL;
	flight->again = false;
	flight->account_id = worker.account_id;
	flight->keys = NULL;
	flight->nkeys = flight->keys_size = 0;
	flight->stored = false;
	return flight;
}

/*
 * Give back a flight that is in no list.
 */
void
worker_free_flight(Flight *flight)
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
void
worker_start_flight(Flight *flight)
{
	SeamRequest request = seam_request(flight);
	MemoryContext old = MemoryContextSwitchTo(flight->context);

	initStringInfo(&flight->body);
	seam_body(&request, &flight->body);
	MemoryContextSwitchTo(old);
	flight->started_at = clock_now();
	flight->account = worker.account;
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
	STOP_POINT(flight->op == SEAM_LIST ? "worker-before-list" : "worker-before-call");
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
		flight->keys[flight->nkeys].customization = json_copy(key->customization);
	flight->nkeys++;
	MemoryContextSwitchTo(old);
}

/*
 * Let the answer to a flight set the pace, and decide when its request may be tried
 * again.  The pause of a 429 is the queue's, so that its end is everybody's; a long
 * one is told of.
 */
static void
keep_pace(Flight *flight)
{
	const HttpAnswer *answer = &flight->http.answer;

	/* a little more than twice as long each time: see README */
	int			tries = flight->row.attempts * 3 / 2;
	int64		told_until = worker.pace.paused_until;
	int64		now = flight->ended_at;

	PaceAnswer	pace = {.begun_at = flight->started_at,.nflying = worker.nflying};

	flight->pause = pace_pause(answer->retry_after, tries, BACKOFF_MAX_US,
							   pg_prng_double(&pg_global_prng_state));
	seam_pace_answer(answer, &pace);
	pace.backoff = flight->pause;
	(void) pace_answer(&worker.pace, &pace, now);
	if (answer->outcome != HTTP_ANSWERED || answer->status != 429)
		return;
	flight->pause = pace_backoff(tries, BACKOFF_MAX_US, pg_prng_double(&pg_global_prng_state));
	if (worker.pace.paused_until - now >= PAUSE_TOLD_US && told_until - now < PAUSE_TOLD_US)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("the outbox of database \"%s\" waits for %d s: Seam's rate limit was "
						"reached",
						worker.database, (int) ((worker.pace.paused_until - now) / USECS_PER_SEC)),
				 answer->retry_after > 0 ? errdetail("Seam asks to wait %d s.",
													 answer->retry_after) : 0,
				 errhint("A reload of the configuration ends the pause.")));
}

/*
 * Learn from the keys of an answer of which workspace our API key is.
 */
static void
learn_workspace(const Flight *flight)
{
	if (!account_is_same(&flight->account_id, &worker.account_id))
		return;
	if (flight->op == SEAM_GENERATE && flight->result.sqlerrcode == 0)
		account_learn_workspace(&worker.account_id, &flight->result.key.workspace_id);
	else if (flight->nkeys > 0)
		account_learn_workspace(&worker.account_id, &flight->keys[0].workspace_id);
}

/*
 * A call has ended: keep what is to be stored of it.
 */
void
worker_flight_ended(Flight *flight)
{
	const HttpAnswer *answer = &flight->http.answer;
	SeamRequest request = seam_request(flight);
	MemoryContext old = MemoryContextSwitchTo(flight->context);
	int64		unix_time;

	STOP_POINT(flight->op == SEAM_LIST ? "worker-list" : "worker-answer");
	dlist_delete(&flight->node);
	worker.nflying--;
	flight->ended_at = clock_now();
	seam_result(&flight->account, &request, answer, keep_listed_key, flight, &flight->result);
	flight->outcome = answer->outcome;
	flight->failure = answer->failure;
	flight->status = answer->status;
	keep_pace(flight);
	flight->has_date = http_date(answer, &unix_time);
	if (flight->has_date)
	{
		SeamTime	sample = {.at = flight->ended_at};

		sample.time = time_t_to_timestamptz((pg_time_t) unix_time);
		sample.delay = flight->ended_at - flight->started_at;
		flight->date = sample.time;
		worker_learn_clock(&sample, &flight->account_id);
	}
	learn_workspace(flight);
	MemoryContextSwitchTo(old);
	http_release(&flight->http);
	dlist_push_tail(&worker.ended, &flight->node);

	/* what becomes of a former account's calls says nothing of this one */
	if (flight->account.api_key != worker.account.api_key)
		return;
	if (flight->result.sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION)
		account_refused();
	else if (flight->status != 0 && worker.refused)
	{
		worker.refused = false;
		ereport(LOG,
				(errmsg("the outbox of database \"%s\" goes on: Seam accepts the API key",
						worker.database)));
	}
	else if (worker.refused)
		worker.probe_at = Max(worker.probe_at, flight->ended_at + worker.probe_pause);
}

/* ---------- claiming ---------- */

/*
 * How many requests may be sent now?  *again_at: when that may change by
 * itself (clock_now()'s clock).
 */
int
worker_send_allowance(int64 now, int64 *again_at)
{
	int			n = worker.pace.limit - worker.nflying;

	*again_at = PG_INT64_MAX;
	if (!settings_worker)
		return 0;
	if (worker.pace.paused_until > now)
	{
		*again_at = worker.pace.paused_until;
		return 0;
	}
	if (worker.refused)
	{
		/* one at a time: its answer tells */
		if (worker.nflying > 0)
			return 0;
		*again_at = worker.probe_at;
		return now >= worker.probe_at ? 1 : 0;
	}
	n = Min(n, pace_bucket_allows(&worker.bucket, settings_rate_limit, now, again_at));
	return Max(n, 0);
}

/*
 * Have a call made when this transaction has committed.
 */
static Flight *
claim(SeamOp op, const WorkRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(worker.turn);
	Flight	   *flight = new_flight(op, row);

	worker.claimed = lappend(worker.claimed, flight);
	STOP_POINT("worker-claim");
	pace_bucket_take(&worker.bucket);
	MemoryContextSwitchTo(old);
	return flight;
}

/*
 * Is a call for the identity under way, ours or a session's, or its result not
 * stored yet?
 */
bool
worker_identity_is_busy(const pg_uuid_t *identity)
{
	dlist_head *lists[] = {&worker.flying, &worker.ended};
	dlist_iter	it;

	for (int i = 0; i < (int) lengthof(lists); i++)
	{
		dlist_foreach(it, lists[i])
		{
			Flight	   *flight = dlist_container(Flight, node, it.cur);

			if (flight->op != SEAM_DELETE && !flight->again && !flight->stored &&
				memcmp(&flight->row.identity, identity, UUID_LEN) == 0)
				return true;
		}
	}
	return worker_call_is_open(identity);
}

/*
 * qsort comparator: requests by identity.
 */
static int
by_identity(const void *a, const void *b)
{
	return memcmp(&((const WorkRow *) a)->identity, &((const WorkRow *) b)->identity, UUID_LEN);
}

/*
 * The doubts of an identity: the first, and how many there are that are not
 * settled; settled ones may be among them.
 */
WorkRow *
worker_doubts_of(const pg_uuid_t *identity, int *n)
{
	WorkRow		key = {.identity = *identity};
	int			low = 0;
	int			high = worker.ndoubts;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (by_identity(&worker.doubts[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*n = 0;
	for (int i = low; i < worker.ndoubts && by_identity(&worker.doubts[i], &key) == 0; i++)
		*n += worker.doubts[i].next_attempt_at != DT_NOEND;
	return worker.doubts + low;
}

/*
 * Read which requests are in doubt.
 */
void
worker_read_doubts(void)
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
	worker.ndoubts = worker.nunsettled = work_doubts(work_array(active, NULL, n, INT8OID),
													 &worker.doubts);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < worker.ndoubts; i++)
	{
		WorkRow    *row = &worker.doubts[i];
		int64		left =
		(int64) row->attempt_timeout * 1000 - worker_surely_elapsed_since(row->attempted_at);

		/* nobody waits for what is only reported */
		row->ripe_at = row->timeline == 0 ? 0 : clock_now() + Max(left, 0);
	}
	qsort(worker.doubts, worker.ndoubts, sizeof(WorkRow), by_identity);
	worker.doubts_changed = false;
}

/*
 * How many lists may be asked for, besides those that are under way?  They shall not
 * keep new keys from being issued.
 */
static int
list_allowance(void)
{
	int			n = Max(worker.pace.limit / 2, 1);
	dlist_iter	it;

	dlist_foreach(it, &worker.flying)
		n -= dlist_container(Flight, node, it.cur)->op == SEAM_LIST;
	return Max(n, 0);
}

/*
 * The doubts of the same identity as this one, the first of them: the number of the one
 * after them.  *due: when its keys can be asked for, on clock_now()'s clock, which is
 * when all of them have waited for long enough.
 */
static int
next_identity(int first, TimestampTz now, int64 http, int64 *due)
{
	const WorkRow *doubt = &worker.doubts[first];
	bool		open = false;
	int			next;

	*due = 0;
	for (next = first; next < worker.ndoubts && by_identity(doubt,
															&worker.doubts[next]) == 0; next++)
	{
		const WorkRow *row = &worker.doubts[next];

		if (row->next_attempt_at == DT_NOEND)
			continue;
		open = true;
		*due = Max(*due, row->ripe_at);
		*due = Max(*due, worker_monotonic(row->next_attempt_at, now, http));
	}
	if (!open || !doubt->has_identity)
		*due = PG_INT64_MAX;
	else if (*due <= http && worker_identity_is_busy(&doubt->identity))
		*due = worker_call_is_open(&doubt->identity) ? http + ERROR_PAUSE_US : PG_INT64_MAX;
	return next;
}

/*
 * When may a list be asked for, if nothing happens before?  On clock_now()'s clock.
 */
int64
worker_list_due(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		http = clock_now();
	int64		first = PG_INT64_MAX;
	int64		due;

	if (worker.nunsettled == 0 || list_allowance() == 0)
		return first;
	for (int i = 0; i < worker.ndoubts && first > http;)
	{
		i = next_identity(i, now, http, &due);
		first = Min(first, due);
	}
	return first;
}

/*
 * Ask for the keys of identities whose doubts have all waited long enough, at
 * most limit of them.  Returns how many.
 */
static int
claim_lists(int limit)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		http = clock_now();
	int			n = 0;
	int			next;

	if (worker.nunsettled == 0)
		return 0;
	for (int i = 0; i < worker.ndoubts && n < limit; i = next)
	{
		int64		due;

		next = next_identity(i, now, http, &due);
		if (due > http)
			continue;
		(void) claim(SEAM_LIST, &worker.doubts[i]);
		n++;
	}
	return n;
}

/*
 * Ask once more for the keys of identities for which a lost answer was settled some time
 * ago, at most limit of them.  Nobody waits for that.  Returns how many.
 */
static int
claim_late_lists(int limit)
{
	WorkRow    *rows;
	int			n;

	if (worker.look_again_at > GetCurrentTimestamp())
		return 0;
	if (limit <= 0)
	{
		/* there are enough lists under way */
		worker.look_again_at = GetCurrentTimestamp() + USECS_PER_SEC;
		return 0;
	}
	n = work_look_again(limit, &rows, &worker.look_again_at);
	for (int i = 0; i < n; i++)
		claim(SEAM_LIST, &rows[i])->again = true;
	return n;
}

/*
 * The identities that no new request is sent for.
 */
static ArrayType *
held_identities(void)
{
	Datum	   *ids = palloc(Max(worker.ndoubts, 1) * sizeof(Datum));
	int			n = 0;

	for (int i = 0; i < worker.ndoubts; i++)
	{
		if (worker.doubts[i].next_attempt_at != DT_NOEND)
			ids[n++] = UUIDPGetDatum(&worker.doubts[i].identity);
	}
	return work_array(ids, NULL, n, UUIDOID);
}

/*
 * Is something of the queue due?
 */
bool
worker_is_due(const WorkQueue *queue)
{
	return queue->next_due <= GetCurrentTimestamp();
}

/*
 * Claim what may be sent now: first what is to be revoked, then what settles
 * doubts, then new keys.
 */
void
worker_claim_calls(void)
{
	int64		again_at;
	int			limit = worker_send_allowance(clock_now(), &again_at);
	WorkAttempt attempt = {.account = worker.account_id};
	WorkRow    *rows;
	int			n;

	/* if we die, nobody knows when it has ended */
	attempt.timeout = settings_request_timeout + settings_settle_delay;
	attempt.revoke_timeout = Max(settings_request_timeout, settings_settle_delay);
	worker_seam_time(&attempt.has_seam_time, &attempt.seam_time);
	if (limit > 0 && worker_is_due(&worker.revoking))
	{
		n = work_claim(&worker.revoking, &attempt, NULL, limit, &rows);
		for (int i = 0; i < n; i++)
			(void) claim(SEAM_DELETE, &rows[i]);
		limit -= n;
	}
	if (limit > 0)
	{
		/* Min() would call it twice */
		int			lists = list_allowance();

		lists = Min(limit, lists);
		n = claim_lists(lists);
		n += claim_late_lists(lists - n);
		limit -= n;
	}
	if (limit > 0 && worker_is_due(&worker.pending))
	{
		n = work_claim(&worker.pending, &attempt, held_identities(), limit, &rows);
		if (n > 0)
			worker_take_answers();
		for (int i = 0; i < n; i++)
		{
			worker_need_answers(&rows[i].identity);
			(void) claim(SEAM_GENERATE, &rows[i]);
		}
		worker_write_needed_answers();
	}
}
