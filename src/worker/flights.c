/*-------------------------------------------------------------------------
 *
 * flights.c
 *	  Requests of the worker on their way over the network.
 *
 * A flight is claimed by a step, sent when that has committed, so that a crash leaves a
 * trace of every request that may have left, and stored by another step when it has ended.
 * All fly at once and outside any transaction, by the same engine that a session's use.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/stop_point.h"
#include "base/uuid.h"
#include "config/settings.h"
#include "net/http.h"
#include "nodes/pg_list.h"
#include "seam/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/credentials.h"
#include "shmem/activity.h"
#include "shmem/stats.h"
#include "worker/flights.h"
#include "worker/seam_clock.h"
#include "worker/sending.h"
#include "worker/stay_clock.h"
#include "worker/step.h"

/* All wait for a list that is a probe, so it may not take as long as others. */
#define PROBE_MAX_US (10 * INT64CONST(1000000))

static HttpRun *run;
static uint32 wait_event;		/* for answers */
static uint32 wait_event_idle;	/* for anything else */
static dlist_head unused = DLIST_STATIC_INIT(unused);
static dlist_head flying = DLIST_STATIC_INIT(flying);
static dlist_head ended = DLIST_STATIC_INIT(ended);
static int	nflying;
static const pg_uuid_t *in_workspace;	/* requests that start now are made
										 * there; NULL: in the account's own */
static pg_uuid_t last_workspace;	/* in_workspace, or of no use */
static List *claimed;			/* of Flight *, in step_context(): to be
								 * started at commit */

static void end(Flight *flight);

/*
 * Makes what flights need; once, at the start of the process.
 */
void
flights_set_up(void)
{
	HttpProfile none = {.ca_file = ""};
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	wait_event = wait_event_seam();
	wait_event_idle = wait_event_worker_idle();
	run = http_begin(&none, settings_max_concurrency);
	http_keep(run);
	MemoryContextSwitchTo(old);
}

/*
 * Has requests that start from now on be made with this account, which is of the one in
 * use, in this workspace, or in its own for NULL.
 */
static void
use(const SeamAccount *account, const pg_uuid_t *workspace)
{
	HttpProfile profile;

	seam_profile(account, &profile);
	http_set_profile(run, &profile);
	in_workspace = NULL;
	if (workspace == NULL)
		return;
	last_workspace = *workspace;
	in_workspace = &last_workspace;
}

/*
 * The account in use has changed: connections are made as it wants them.
 */
void
flights_use_account(void)
{
	use(credentials_account(), NULL);
}

/*
 * Returns whether a flight is, or was, in a workspace of its own: with an API key for
 * several, one that its request was given.
 */
bool
flights_choose_workspace(const Flight *flight)
{
	return flight->row.has_workspace && flight->account_id.chooses;
}

/*
 * Gives a flight, which is about to start, the account in use, in the flight's workspace.
 */
static void
choose_account(Flight *flight)
{
	const pg_uuid_t *workspace = NULL;
	MemoryContext old = MemoryContextSwitchTo(flight->context);

	flight->account = *credentials_account();
	if (flight->row.has_workspace && credentials_choose_workspace())
	{
		char	   *text = palloc(UUID_TEXT_LEN + 1);

		workspace = &flight->row.workspace;
		uuid_write(text, workspace);
		flight->account.workspace_id = text;
	}
	if (workspace == NULL ? in_workspace != NULL : in_workspace == NULL ||
		memcmp(in_workspace, workspace, UUID_LEN) != 0)
		use(&flight->account, workspace);
	MemoryContextSwitchTo(old);
}

/*
 * seam_ik.max_concurrency was read anew.
 */
void
flights_set_max(void)
{
	http_set_parallel(run, settings_max_concurrency);
}

/*
 * A flight for a request, in no list yet.
 */
static Flight *
new_flight(SeamOp op, const WorkRow *row)
{
	Flight	   *flight;

	if (!dlist_is_empty(&unused))
		flight = dlist_container(Flight, node, dlist_pop_head_node(&unused));
	else
	{
		flight = MemoryContextAllocZero(TopMemoryContext, sizeof(Flight));
		flight->context = AllocSetContextCreate(TopMemoryContext, "seam_ik flight",
												ALLOCSET_SMALL_SIZES);
	}
	flight->op = op;
	flight->row = *row;
	flight->row.error = flight->row.reference = NULL;
	flight->again = flight->tells_time = flight->probe = flight->is_free = false;
	flight->account_id = *credentials_id();
	/* the statement that has recorded the attempt may have taken a while */
	flight->claimed_at = clock_now();
	if (op == SEAM_GENERATE)
		flight->claimed_at -= Max(GetCurrentTimestamp() - row->attempted_at, 0);
	flight->keys = NULL;
	flight->nkeys = flight->keys_size = 0;
	flight->stored = false;
	flight->store_at = flight->store_pause = 0;
	return flight;
}

/*
 * Gives back a flight that is in no list.
 */
static void
give_back(Flight *flight)
{
	MemoryContextReset(flight->context);
	dlist_push_head(&unused, &flight->node);
}

/*
 * Has a request sent when the step under way has committed.  Returns its flight.
 */
Flight *
flights_claim(SeamOp op, const WorkRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(step_context());
	Flight	   *flight = new_flight(op, row);

	claimed = lappend(claimed, flight);
	STOP_POINT("worker-claim");
	sending_take();
	MemoryContextSwitchTo(old);
	return flight;
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
 * A flight's time was over when the step that has claimed it had committed, which can wait
 * for a standby: ends it as one that was not sent.
 */
static void
end_unsent(Flight *flight)
{
	HttpAnswer *answer = &flight->http.answer;

	memset(answer, 0, sizeof(HttpAnswer));
	answer->outcome = HTTP_NOT_SENT;
	answer->failure = HTTP_FAILURE_TIMEOUT;
	answer->body = (char *) "";
	strlcpy(answer->error, "it took too long to record the attempt", sizeof(answer->error));
	flight->http.handle = NULL;
	end(flight);
}

/*
 * Sends a flight's request.
 */
static void
start(Flight *flight)
{
	SeamRequest request = seam_request(flight);
	MemoryContext old = MemoryContextSwitchTo(flight->context);

	initStringInfo(&flight->body);
	seam_body(&request, &flight->body);
	MemoryContextSwitchTo(old);
	flight->started_at = clock_now();
	choose_account(flight);
	flight->http.url = credentials_url(flight->op);
	flight->http.body = flight->body.data;
	flight->http.body_len = flight->body.len;

	/*
	 * its time began when the attempt was recorded: a key of it has to lie
	 * within that
	 */
	flight->http.deadline = (flight->op == SEAM_GENERATE ? flight->claimed_at :
							 flight->started_at) + (int64) settings_request_timeout * 1000;
	if (flight->op == SEAM_LIST && sending_is_stopped())
		flight->http.deadline = Min(flight->http.deadline, flight->started_at + PROBE_MAX_US);
	flight->http.connect_timeout = settings_connect_timeout;
	flight->http.max_answer = ANSWER_MAX_SIZE;
	flight->http.owner = flight;
	flight->has_ended = false;
	dlist_push_tail(&flying, &flight->node);
	nflying++;
	sending_sent();
	STOP_POINT(flight->op == SEAM_LIST ? "worker-before-list" : "worker-before-call");
	if (flight->started_at < flight->http.deadline)
		http_start(run, &flight->http);
	else
		end_unsent(flight);
}

/*
 * The step has committed: sends what it has claimed.
 */
void
flights_start_claimed(void)
{
	ListCell   *lc;

	foreach(lc, claimed)
		start(lfirst(lc));
	claimed = NIL;
}

/*
 * The step has failed: forgets what it has claimed.
 */
void
flights_forget_claimed(void)
{
	ListCell   *lc;

	foreach(lc, claimed)
		give_back(lfirst(lc));
	claimed = NIL;
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
 * Keeps what an answer tells besides its own matter: Seam's clock, and of which
 * workspace our API key is.
 */
static void
learn(Flight *flight)
{
	int64		unix_time;

	flight->has_date = http_date(&flight->http.answer, &unix_time);
	if (flight->has_date)
	{
		flight->date.time = time_t_to_timestamptz((pg_time_t) unix_time);
		flight->date.at = flight->ended_at;
		flight->date.delay = flight->ended_at - flight->started_at;
		seam_clock_learn(&flight->date, &flight->account_id);
		if (flight->status >= 200 && flight->status < 500)
			stay_clock_learn(&flight->date, &flight->account_id);
	}
	if (flight->row.has_workspace)
		return;
	if (flight->op == SEAM_GENERATE && flight->result.sqlerrcode == 0)
		credentials_learn_workspace(&flight->account_id, &flight->result.key.workspace_id);
	else if (flight->nkeys > 0)
		credentials_learn_workspace(&flight->account_id, &flight->keys[0].workspace_id);
}

/*
 * Counts a flight whose HTTP request has ended.
 */
static void
count(const Flight *flight)
{
	static const StatRoute routes[] = {
		[SEAM_GENERATE] = STAT_OUTBOX,[SEAM_LIST] = STAT_LIST,[SEAM_DELETE] = STAT_REVOCATION,
	};
	const HttpAnswer *answer = &flight->http.answer;
	StatRoute	route = flight->op == SEAM_GENERATE && flight->row.is_renewal ? STAT_RENEWAL :
	routes[flight->op];
	StatTry		attempt = {.status = answer->status,.opened = answer->opened,
		.again = flight->op != SEAM_LIST && flight->row.attempts > 1,
		.sent = answer->sent,.received = answer->received,.took = answer->took
	};

	activity_add(1, flight->result.sqlerrcode != 0);
	stats_try(route, &attempt);
	stats_end(route, flight->result.sqlerrcode,
			  flight->op == SEAM_GENERATE && flight->result.kind == REPLY_DOUBT);
}

/*
 * A flight's HTTP request has ended: keeps what is to be stored of it.
 */
static void
end(Flight *flight)
{
	const HttpAnswer *answer = &flight->http.answer;
	SeamRequest request = seam_request(flight);
	MemoryContext old = MemoryContextSwitchTo(flight->context);

	STOP_POINT(flight->op == SEAM_LIST ? "worker-list" : "worker-answer");
	dlist_delete(&flight->node);
	nflying--;
	flight->has_ended = true;
	flight->ended_at = clock_now();
	answer_read(&flight->account, &request, answer, keep_listed_key, flight, &flight->result);
	flight->status = answer->status;
	count(flight);
	flight->pause = sending_pause(answer, flight->row.attempts);

	/* what becomes of a former account's requests says nothing of this one */
	if (flight->account.api_key == credentials_account()->api_key)
		flight->is_free = sending_answer(answer, flight->op == SEAM_LIST ? 0 : flight->row.id,
										 flight->row.attempts, flights_choose_workspace(flight),
										 flight->started_at, nflying, flight->ended_at);
	learn(flight);
	MemoryContextSwitchTo(old);
	http_release(&flight->http);
	dlist_push_tail(&ended, &flight->node);
}

/*
 * Waits until this time of clock_now()'s clock, or an answer or the latch before, and
 * takes what has come.
 */
void
flights_wait(int64 wake_at)
{
	HttpRequest *request = http_wait(run, wake_at, nflying > 0 ? wait_event : wait_event_idle);

	while (request)
	{
		end(request->owner);
		request = http_wait(run, 0, wait_event);
	}
}

/*
 * Returns the flight after this one, of those that have ended and are not stored yet; the
 * first for NULL, and NULL after the last.
 */
Flight *
flights_next_ended(Flight *flight)
{
	if (flight == NULL)
		return dlist_is_empty(&ended) ? NULL : dlist_head_element(Flight, node, &ended);
	return dlist_has_next(&ended, &flight->node) ?
		dlist_container(Flight, node, dlist_next_node(&ended, &flight->node)) : NULL;
}

/*
 * Returns when one of these is to be stored, on clock_now()'s clock, or PG_INT64_MAX.
 */
int64
flights_store_due(void)
{
	int64		due = PG_INT64_MAX;

	for (Flight *flight = flights_next_ended(NULL); flight; flight = flights_next_ended(flight))
		due = Min(due, flight->store_at);
	return due;
}

/*
 * The step that has stored flights has committed: they may go.
 */
void
flights_free_stored(void)
{
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &ended)
	{
		Flight	   *flight = dlist_container(Flight, node, it.cur);

		if (!flight->stored)
			continue;
		STOP_POINT("worker-stored");
		dlist_delete(&flight->node);
		give_back(flight);
	}
}

/*
 * It has failed: they are to be stored by another one.
 */
void
flights_keep_stored(void)
{
	dlist_iter	it;

	dlist_foreach(it, &ended)
		dlist_container(Flight, node, it.cur)->stored = false;
}

/*
 * Returns how many are under way.
 */
int
flights_flying(void)
{
	return nflying;
}

/*
 * Returns how many could not be stored, and are tried again.
 */
int
flights_aside(void)
{
	int			n = 0;

	for (Flight *flight = flights_next_ended(NULL); flight; flight = flights_next_ended(flight))
		n += flight->store_pause > 0;
	return n;
}

/*
 * Returns how many of them are for this operation.
 */
int
flights_flying_of(SeamOp op)
{
	int			n = 0;
	dlist_iter	it;

	dlist_foreach(it, &flying)
		n += dlist_container(Flight, node, it.cur)->op == op;
	return n;
}

/*
 * Returns how many have ended and are not stored yet.
 */
int
flights_ended(void)
{
	int			n = 0;
	dlist_iter	it;

	dlist_foreach(it, &ended)
		n++;
	return n;
}

/*
 * Returns the flight after this one, of all that fly and then of all that have ended; the
 * first for NULL, and NULL after the last.
 */
Flight *
flights_next(Flight *flight)
{
	bool		of_ended = flight && flight->has_ended;
	dlist_head *list = of_ended ? &ended : &flying;

	if (flight && dlist_has_next(list, &flight->node))
		return dlist_container(Flight, node, dlist_next_node(list, &flight->node));
	if (flight == NULL && !dlist_is_empty(&flying))
		return dlist_head_element(Flight, node, &flying);
	if (!of_ended && !dlist_is_empty(&ended))
		return dlist_head_element(Flight, node, &ended);
	return NULL;
}

/*
 * Returns whether a request for the identity is under way, or its result not stored yet.
 */
bool
flights_is_busy(const pg_uuid_t *identity)
{
	for (Flight *flight = flights_next(NULL); flight; flight = flights_next(flight))
	{
		if (flight->op != SEAM_DELETE && !flight->again && !flight->stored &&
			memcmp(&flight->row.identity, identity, UUID_LEN) == 0)
			return true;
	}
	return false;
}
