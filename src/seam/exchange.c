/*-------------------------------------------------------------------------
 *
 * exchange.c
 *	  One request to Seam, or n, carried to the end: retries, pauses, timeouts.
 *
 * A single request is n = 1 of this, a batch is n.  What a request means is its
 * caller's business.
 *
 * A request for a key is not idempotent and Seam knows no idempotency key, so
 * only what was surely not processed is tried again: a request that was not
 * sent, and one that was answered with 429.  An idempotent request is also tried
 * again when its fate is not known.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/uuid.h"
#include "common/pg_prng.h"
#include "lib/ilist.h"
#include "logic/pace.h"
#include "miscadmin.h"
#include "seam/answer.h"
#include "seam/exchange.h"
#include "utils/memutils.h"

/* The longest pause before a retry that Seam did not ask for. */
#define BACKOFF_MAX_US (10 * 1000 * 1000)

/* A request that was begun and has not ended. */
typedef struct Request
{
	dlist_node	node;			/* in unused, waiting or flying */
	int64		index;			/* which of the exchange's it is */
	int			tries;			/* made before the one under way */
	bool		doubt;			/* one of them may have been processed */
	int64		due;			/* when to try again, on clock_now()'s clock */
	HttpRequest http;			/* the try under way */
	StringInfoData body;		/* of each of them */
} Request;

/* An exchange under way. */
typedef struct Run
{
	Exchange   *exchange;		/* the caller's */
	HttpRun    *http;			/* the transport's */
	uint32		wait_event;		/* that pg_stat_activity shows */
	char	   *url;			/* of all requests */
	dlist_head	unused;			/* no request has begun in these */
	dlist_head	waiting;		/* for their next try */
	dlist_head	flying;			/* under way */
	int			nflying;		/* how many these are */
	Pace		pace;			/* how many may be, and when */
	int64		held_at;		/* since when answers that ask to wait are all
								 * that comes while there are requests to
								 * begin, or 0 */
	int64		next;			/* the next request to begin */
	bool		stopped;		/* nothing more is sent */
	int64		started_at;		/* on clock_now()'s clock */
	int64		next_notice;	/* likewise; PG_INT64_MAX: never */
} Run;

/*
 * Error context callback: what a statement that ends here leaves behind.
 */
static void
describe_state(void *arg)
{
	const Exchange *exchange = arg;
	char		id[UUID_TEXT_LEN + 1];

	/* not for what only passes through, like a LOG */
	if (geterrcode() == ERRCODE_SUCCESSFUL_COMPLETION || exchange->op != SEAM_GENERATE)
		return;
	if (exchange->n != 1)
		errcontext(INT64_FORMAT " of " INT64_FORMAT " instant keys had been issued, and "
				   "" INT64_FORMAT " requests were in doubt: their keys may exist",
				   exchange->succeeded, exchange->n, exchange->in_doubt + exchange->sent);
	else if (exchange->succeeded > 0)
	{
		uuid_write(id, &exchange->issued_id);
		errcontext("instant key %s had been issued", id);
	}
	else if (exchange->in_doubt + exchange->sent > 0)
		errcontext("the request to Seam had been sent: the instant key may exist");
	else
		errcontext("no request to Seam was under way: no instant key was issued");
}

/*
 * Sends a request, for the first time or again.
 */
static void
send_request(Run *run, Request *request)
{
	dlist_push_tail(&run->flying, &request->node);
	run->nflying++;
	http_release(&request->http);	/* of the try before */
	http_start(run->http, &request->http);
}

/*
 * Begins the next request, whose time starts now, without what its caller waits for when
 * it fills it in.
 */
static void
begin_request(Run *run, int64 now)
{
	Exchange   *exchange = run->exchange;
	Request    *request = dlist_container(Request, node, dlist_pop_head_node(&run->unused));
	int64		waited;
	SeamRequest what = {.op = exchange->op};

	request->index = run->next++;
	request->tries = 0;
	request->doubt = false;
	if (request->body.data == NULL)
		initStringInfo(&request->body);
	/* its caller may wait for something meanwhile, and be cancelled */
	exchange->sent = run->nflying;
	waited = clock_now();
	exchange->request(exchange, request->index, &what);
	waited = clock_now() - waited;
	exchange->sent = 0;
	seam_body(&what, &request->body);
	request->http.url = run->url;
	request->http.body = request->body.data;
	request->http.body_len = request->body.len;
	request->http.deadline = now + waited + (int64) exchange->request_timeout * 1000;
	request->http.connect_timeout = exchange->connect_timeout;
	request->http.max_answer = exchange->max_answer;
	request->http.owner = request;
	send_request(run, request);
}

/*
 * A request, which is in no list, has ended.
 */
static void
end_request(Run *run, Request *request)
{
	run->exchange->ended++;
	if (!run->exchange->done(run->exchange, request->index, &request->http.answer, request->doubt))
		run->stopped = true;
	http_release(&request->http);
	dlist_push_tail(&run->unused, &request->node);
}

/*
 * An answer has come that has all wait while there are requests to begin: a 429, or a
 * 503 with Retry-After.  They are given up when nothing
 * but such answers has come, and the pauses that these ask for keep them from
 * beginning for longer than each of them may take.
 */
static void
hold_up(Run *run, const HttpAnswer *answer, int64 now)
{
	Exchange   *exchange = run->exchange;

	if (run->held_at == 0)
		run->held_at = now;
	if (run->pace.paused_until - run->held_at < (int64) exchange->request_timeout * 1000)
		return;
	exchange->held_up(exchange, answer);
	exchange->ended += exchange->n - run->next;
	run->next = exchange->n;
}

/*
 * The try that is under way has ended: decides what becomes of its request.
 */
static void
try_ended(Run *run, Request *request)
{
	const Exchange *exchange = run->exchange;
	HttpAnswer *answer = &request->http.answer;
	bool		retry = answer_try_again(answer, exchange->op) &&
	request->tries < exchange->max_retries;
	int64		now = clock_now();
	int64		pause = 0;
	PaceAnswer	pace = {.begun_at = now};
	bool		all_wait;

	dlist_delete(&request->node);
	run->nflying--;
	if (exchange->tried)
		exchange->tried(run->exchange, answer, request->tries > 0);
	answer_pace(answer, &pace);
	all_wait = pace.sign == PACE_LIMITED || (pace.sign == PACE_AWAY && pace.asked > 0);
	if (all_wait || retry)
		pause = pace_pause(answer->retry_after, request->tries, BACKOFF_MAX_US,
						   pg_prng_double(&pg_global_prng_state));
	pace.backoff = pause;
	pace.nflying = run->nflying;
	(void) pace_answer(&run->pace, &pace, now);
	if (!all_wait)
		run->held_at = 0;
	else if (!run->stopped && run->next < exchange->n)
		hold_up(run, answer, now);
	if (answer->failure == HTTP_FAILURE_DESCRIPTORS && run->nflying > 0)
	{
		/* that is no failure of the request: it waits for another one to end */
		pause = 0;
		request->tries--;
		retry = true;
	}
	request->due = now + pause;
	if (!retry || run->stopped || request->due >= request->http.deadline)
	{
		end_request(run, request);
		return;
	}
	request->doubt |= answer_leaves_doubt(answer);
	dlist_push_tail(&run->waiting, &request->node);
}

/*
 * CHECK_FOR_INTERRUPTS, with a context line about what became of the
 * requests.
 */
void
exchange_check_interrupts(Exchange *exchange)
{
	ErrorContextCallback callback;

	if (!INTERRUPTS_PENDING_CONDITION())
		return;
	callback.callback = describe_state;
	callback.arg = exchange;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	CHECK_FOR_INTERRUPTS();
	error_context_stack = callback.previous;
}

/*
 * The same while requests are under way.  What has come by then is taken before: a
 * cancel puts nothing in doubt whose answer is there.
 */
static void
check_interrupts(Run *run)
{
	dlist_iter	it;

	if (!INTERRUPTS_PENDING_CONDITION())
		return;
	if (run->nflying > 0)
	{
		HttpRequest *ended;

		/* a latch that is set would keep us from looking at the sockets */
		ResetLatch(MyLatch);
		while ((ended = http_wait(run->http, 0, run->wait_event)) != NULL)
			try_ended(run, ended->owner);
	}
	run->exchange->sent = 0;
	dlist_foreach(it, &run->flying)
	{
		if (http_was_sent(&dlist_container(Request, node, it.cur)->http))
			run->exchange->sent++;
	}
	exchange_check_interrupts(run->exchange);
	run->exchange->sent = 0;
}

/*
 * Sends whatever may be sent now: requests that wait for their next try first.
 * Returns when there will be more to do, PG_INT64_MAX for an answer only.
 */
static int64
send_due(Run *run)
{
	/* the time of the first ones includes what it took to get here */
	int64		now = run->next == 0 ? run->started_at : clock_now();
	int64		wake_at = PG_INT64_MAX;
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &run->waiting)
	{
		Request    *request = dlist_container(Request, node, it.cur);
		int64		due = Max(request->due, run->pace.paused_until);

		if (run->stopped || Max(due, now) >= request->http.deadline)
		{
			/* it ends with the answer that made it wait */
			dlist_delete(&request->node);
			end_request(run, request);
		}
		else if (due > now)
			wake_at = Min(wake_at, due);
		else if (run->nflying < run->pace.limit)
		{
			dlist_delete(&request->node);
			request->tries++;
			send_request(run, request);
		}
	}
	if (run->pace.paused_until > now)
		return Min(wake_at, run->pace.paused_until);
	while (!run->stopped && run->next < run->exchange->n &&
		   run->nflying < run->pace.limit && !dlist_is_empty(&run->unused))
		begin_request(run, now);
	return wake_at;
}

/*
 * Tells how far a long exchange is.
 */
static void
notify_progress(Run *run)
{
	Exchange   *exchange = run->exchange;
	int64		now = clock_now();

	if (now < run->next_notice)
		return;
	run->next_notice = now + (int64) exchange->progress_interval * 1000;
	if (exchange->ended == 0)
		ereport(NOTICE,
				(errmsg("0 of " INT64_FORMAT " requests to Seam done", exchange->n)));
	else
		ereport(NOTICE,
				(errmsg(INT64_FORMAT " of " INT64_FORMAT " requests to Seam done, "
						INT64_FORMAT " of them failed, about " INT64_FORMAT " s left",
						exchange->ended, exchange->n, exchange->ended - exchange->succeeded,
						pace_time_left(&run->pace, run->started_at, exchange->ended,
									   exchange->n - exchange->ended, now) / USECS_PER_SEC)));
}

/*
 * Makes the requests, at most max_parallel at a time, and hands each one's answer to
 * exchange->done.
 *
 * When done says that nothing more shall be sent, requests that were not begun
 * yet, or wait for their next try, are left out without being done.
 *
 * Allocates in CurrentMemoryContext, which must not live longer than the
 * statement: its reset abandons what an error left under way.  Throws on
 * cancel and the like, with a context line that says what may exist.
 */
void
exchange_run(Exchange *exchange)
{
	static uint32 wait_event = 0;
	Run			run = {.exchange = exchange};
	int			nrequests = (int) Min(exchange->n, exchange->max_parallel);
	Request    *requests = palloc0(nrequests * sizeof(Request));
	HttpProfile profile;

	if (wait_event == 0)
		wait_event = wait_event_seam();
	run.wait_event = wait_event;
	dlist_init(&run.unused);
	dlist_init(&run.waiting);
	dlist_init(&run.flying);
	for (int i = 0; i < nrequests; i++)
		dlist_push_tail(&run.unused, &requests[i].node);
	pace_init(&run.pace, nrequests);
	run.url = seam_url(exchange->account, exchange->op);
	run.started_at = clock_now();
	run.next_notice = exchange->progress_interval > 0 ?
		run.started_at + (int64) exchange->progress_interval * 1000 : PG_INT64_MAX;

	check_interrupts(&run);
	seam_profile(exchange->account, &profile);
	run.http = http_begin(&profile, nrequests);
	for (;;)
	{
		int64		wake_at = send_due(&run);
		HttpRequest *ended;

		if (run.nflying == 0 && dlist_is_empty(&run.waiting) &&
			(run.stopped || run.next == exchange->n))
			break;
		ended = http_wait(run.http, Min(wake_at, run.next_notice), wait_event);
		if (ended)
			try_ended(&run, ended->owner);
		check_interrupts(&run);
		if (run.next_notice != PG_INT64_MAX)
			notify_progress(&run);
	}
	http_finish(run.http);
}
