/*-------------------------------------------------------------------------
 *
 * calls.c
 *	  Calls of Seam's API to their end: retries, pauses, timeouts.
 *
 * A single call is n = 1 of this, a batch is n.  What a call means is its
 * caller's business.
 *
 * A request for a key is not idempotent and Seam knows no idempotency key, so
 * only what was surely not processed is tried again: a request that was not
 * sent, and one that was answered with 429.  An idempotent call is also tried
 * again when its fate is not known.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "base/clock.h"
#include "session/calls.h"
#include "base/compat.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "logic/pace.h"
#include "config/settings.h"
#include "utils/memutils.h"

/* The longest pause before a retry that Seam did not ask for. */
#define BACKOFF_MAX_US (10 * 1000 * 1000)

/* A call that was begun and has not ended. */
typedef struct Call
{
	dlist_node	node;			/* in unused, waiting or flying */
	int64		index;
	int			tries;			/* made before the one under way */
	bool		doubt;			/* one of them may have been processed */
	int64		due;			/* when to try again */
	HttpRequest http;
	StringInfoData body;
} Call;

/* A run of calls. */
typedef struct Run
{
	Calls	   *calls;
	HttpRun    *http;
	uint32		wait_event;
	char	   *url;
	dlist_head	unused;
	dlist_head	waiting;		/* for their next try */
	dlist_head	flying;
	int			nflying;
	Pace		pace;
	int64		held_at;		/* since when 429s are all that comes while
								 * there are calls to begin, or 0 */
	int64		next;			/* the next call to begin */
	bool		stopped;		/* nothing more is sent */
	int64		started_at;
	int64		next_notice;
} Run;

/*
 * Is it not known whether the request was processed?
 */
static bool
is_in_doubt(const HttpAnswer *answer)
{
	if (answer->outcome == HTTP_ANSWERED)
		return answer->status >= 500 || answer->status == 408;
	return answer->outcome == HTTP_IN_DOUBT;
}

/*
 * May the request be made once more, and help?
 */
static bool
can_retry(SeamOp op, const HttpAnswer *answer)
{
	/* the whole call's time is over, and a certificate does not get better */
	if (answer->failure == HTTP_FAILURE_TIMEOUT ||
		answer->failure == HTTP_FAILURE_CERTIFICATE)
		return false;
	if (answer->outcome == HTTP_NOT_SENT)
		return true;
	if (answer->outcome == HTTP_ANSWERED && answer->status == 429)
		return true;
	return seam_is_idempotent(op) && is_in_doubt(answer);
}

/*
 * Error context callback: what a statement that ends here leaves behind.
 */
static void
describe_state(void *arg)
{
	const Calls *calls = arg;
	char		id[SEAM_UUID_TEXT_LEN + 1];

	/* not for what only passes through, like a LOG */
	if (geterrcode() == ERRCODE_SUCCESSFUL_COMPLETION || calls->op != SEAM_GENERATE)
		return;
	if (calls->n != 1)
		errcontext(INT64_FORMAT " of " INT64_FORMAT " instant keys had been issued, and "
				   "" INT64_FORMAT " calls were in doubt: their keys may exist",
				   calls->succeeded, calls->n, calls->in_doubt + calls->sent);
	else if (calls->succeeded > 0)
	{
		seam_put_uuid(id, &calls->issued_id);
		errcontext("instant key %s had been issued", id);
	}
	else if (calls->in_doubt + calls->sent > 0)
		errcontext("the request to Seam had been sent: the instant key may exist");
	else
		errcontext("no request to Seam was under way: no instant key was issued");
}

/*
 * Send a call's request, for the first time or again.
 */
static void
send_call(Run *run, Call *call)
{
	dlist_push_tail(&run->flying, &call->node);
	run->nflying++;
	http_release(&call->http);	/* of the try before */
	http_start(run->http, &call->http);
}

/*
 * Begin the next call, whose time starts now.
 */
static void
begin_call(Run *run, int64 now)
{
	Calls	   *calls = run->calls;
	Call	   *call = dlist_container(Call, node, dlist_pop_head_node(&run->unused));
	SeamRequest request = {.op = calls->op};

	call->index = run->next++;
	call->tries = 0;
	call->doubt = false;
	if (call->body.data == NULL)
		initStringInfo(&call->body);
	/* it may wait for its record meanwhile, and be cancelled */
	calls->sent = run->nflying;
	calls->request(calls, call->index, &request);
	calls->sent = 0;
	seam_body(&request, &call->body);
	call->http.url = run->url;
	call->http.body = call->body.data;
	call->http.body_len = call->body.len;
	call->http.deadline = now + (int64) settings_request_timeout * 1000;
	call->http.connect_timeout = settings_connect_timeout;
	call->http.max_answer = calls->max_answer;
	call->http.owner = call;
	send_call(run, call);
}

/*
 * A call, which is in no list, has ended.
 */
static void
end_call(Run *run, Call *call)
{
	run->calls->ended++;
	if (!run->calls->done(run->calls, call->index, &call->http.answer, call->doubt))
		run->stopped = true;
	http_release(&call->http);
	dlist_push_tail(&run->unused, &call->node);
}

/*
 * A 429 has come while there are calls to begin.  They are given up when nothing
 * but such answers has come, and the pauses that these ask for keep them from
 * beginning for longer than each of them may take.
 */
static void
hold_up(Run *run, const HttpAnswer *answer, int64 now)
{
	Calls	   *calls = run->calls;

	if (run->held_at == 0)
		run->held_at = now;
	if (run->pace.paused_until - run->held_at < (int64) settings_request_timeout * 1000)
		return;
	calls->held_up(calls, answer);
	calls->ended += calls->n - run->next;
	run->next = calls->n;
}

/*
 * The try that is under way has ended: decide what becomes of its call.
 */
static void
try_ended(Run *run, Call *call)
{
	HttpAnswer *answer = &call->http.answer;
	bool		limited = answer->outcome == HTTP_ANSWERED && answer->status == 429;
	bool		retry = can_retry(run->calls->op, answer) && call->tries < settings_max_retries;
	int64		now = clock_now();
	int64		pause = 0;

	dlist_delete(&call->node);
	run->nflying--;
	if (limited || retry)
		pause = pace_pause(answer->retry_after, call->tries, BACKOFF_MAX_US,
						   pg_prng_double(&pg_global_prng_state));
	pace_answer(&run->pace, seam_pace_sign(answer), pause, run->nflying, now);
	if (!limited)
		run->held_at = 0;
	else if (!run->stopped && run->next < run->calls->n)
		hold_up(run, answer, now);
	if (answer->failure == HTTP_FAILURE_DESCRIPTORS && run->nflying > 0)
	{
		/* that is no failure of the call: it waits for another one to end */
		pause = 0;
		call->tries--;
		retry = true;
	}
	call->due = now + pause;
	if (!retry || run->stopped || call->due >= call->http.deadline)
	{
		end_call(run, call);
		return;
	}
	call->doubt |= is_in_doubt(answer);
	dlist_push_tail(&run->waiting, &call->node);
}

/*
 * CHECK_FOR_INTERRUPTS, with a context line about what became of the calls.
 */
void
calls_check_interrupts(Calls *calls)
{
	ErrorContextCallback callback;

	if (!INTERRUPTS_PENDING_CONDITION())
		return;
	callback.callback = describe_state;
	callback.arg = calls;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	CHECK_FOR_INTERRUPTS();
	error_context_stack = callback.previous;
}

/*
 * The same while calls are under way.  What has come by then is taken before: a
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
	run->calls->sent = 0;
	dlist_foreach(it, &run->flying)
	{
		if (http_was_sent(&dlist_container(Call, node, it.cur)->http))
			run->calls->sent++;
	}
	calls_check_interrupts(run->calls);
	run->calls->sent = 0;
}

/*
 * Send whatever may be sent now: calls that wait for their next try first.
 * Returns when there will be more to do, PG_INT64_MAX for an answer only.
 */
static int64
send_calls(Run *run)
{
	/* the time of the first ones includes what it took to get here */
	int64		now = run->next == 0 ? run->started_at : clock_now();
	int64		wake_at = PG_INT64_MAX;
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &run->waiting)
	{
		Call	   *call = dlist_container(Call, node, it.cur);
		int64		due = Max(call->due, run->pace.paused_until);

		if (run->stopped || Max(due, now) >= call->http.deadline)
		{
			/* it ends with the answer that made it wait */
			dlist_delete(&call->node);
			end_call(run, call);
		}
		else if (due > now)
			wake_at = Min(wake_at, due);
		else if (run->nflying < run->pace.limit)
		{
			dlist_delete(&call->node);
			call->tries++;
			send_call(run, call);
		}
	}
	if (run->pace.paused_until > now)
		return Min(wake_at, run->pace.paused_until);
	while (!run->stopped && run->next < run->calls->n &&
		   run->nflying < run->pace.limit && !dlist_is_empty(&run->unused))
		begin_call(run, now);
	return wake_at;
}

/*
 * Tell how far a long set of calls is.
 */
static void
notify_progress(Run *run)
{
	Calls	   *calls = run->calls;
	int64		now = clock_now();

	if (now < run->next_notice)
		return;
	run->next_notice = now + (int64) calls->progress_interval * 1000;
	if (calls->ended == 0)
		ereport(NOTICE,
				(errmsg("0 of " INT64_FORMAT " calls of Seam done", calls->n)));
	else
		ereport(NOTICE,
				(errmsg(INT64_FORMAT " of " INT64_FORMAT " calls of Seam done, " INT64_FORMAT " of "
						"them failed, about " INT64_FORMAT " s left",
						calls->ended, calls->n, calls->ended - calls->succeeded,
						pace_time_left(&run->pace, run->started_at, calls->ended,
									   calls->n - calls->ended, now) / USECS_PER_SEC)));
}

/*
 * Make the calls, at most max_parallel at a time, and hand each one's answer to
 * calls->done.  Settings give the timeouts and the number of retries.
 *
 * When done says that nothing more shall be sent, calls that were not begun
 * yet, or wait for their next try, are left out without being done.
 *
 * Allocates in CurrentMemoryContext, which must not live longer than the
 * statement: its reset abandons what an error left under way.  Throws on
 * cancel and the like, with a context line that says what may exist.
 */
void
calls_run(Calls *calls)
{
	static uint32 wait_event = 0;
	Run			run = {.calls = calls};
	int			nopen = (int) Min(calls->n, calls->max_parallel);
	Call	   *open = palloc0(nopen * sizeof(Call));
	HttpProfile profile;

	if (wait_event == 0)
		wait_event = wait_event_seam();
	run.wait_event = wait_event;
	dlist_init(&run.unused);
	dlist_init(&run.waiting);
	dlist_init(&run.flying);
	for (int i = 0; i < nopen; i++)
		dlist_push_tail(&run.unused, &open[i].node);
	pace_init(&run.pace, nopen);
	run.url = seam_url(calls->account, calls->op);
	run.started_at = clock_now();
	run.next_notice = calls->progress_interval > 0 ?
		run.started_at + (int64) calls->progress_interval * 1000 : PG_INT64_MAX;

	check_interrupts(&run);
	seam_profile(calls->account, &profile);
	run.http = http_begin(&profile, nopen);
	for (;;)
	{
		int64		wake_at = send_calls(&run);
		HttpRequest *ended;

		if (run.nflying == 0 && dlist_is_empty(&run.waiting) &&
			(run.stopped || run.next == calls->n))
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
