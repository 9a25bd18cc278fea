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
 * sent, and one that was answered with 429.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls.h"
#include "common/pg_prng.h"
#include "compat.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/memutils.h"

/*
 * The pause before a retry: doubled each time up to the maximum, then a random
 * half of it taken off, so that many sessions do not come back together.
 */
#define BACKOFF_FIRST_US (200 * 1000)
#define BACKOFF_MAX_US (10 * 1000 * 1000)

/* A call that was begun and has not ended. */
typedef struct Call
{
	dlist_node	node;			/* in unused or waiting; in none while in flight */
	int64		index;
	int			tries;			/* made before the one under way */
	int64		due;			/* when to try again */
	HttpRequest http;
	char		body[SEAM_GENERATE_BODY_SIZE];
} Call;

/*
 * How long to wait before the next try, in microseconds.
 */
static int64
backoff(int tries)
{
	int64		pause = Min((int64) BACKOFF_FIRST_US << Min(tries, 16), BACKOFF_MAX_US);

	return pause - (int64) (pg_prng_double(&pg_global_prng_state) * pause / 2);
}

/*
 * May the request be made once more, and help?
 */
static bool
can_retry(const HttpAnswer *answer)
{
	if (answer->outcome == HTTP_ANSWERED)
		return answer->status == 429;
	if (answer->outcome != HTTP_NOT_SENT)
		return false;

	/* a certificate does not get better, and the whole call's time is over */
	return answer->failure != HTTP_FAILURE_CERTIFICATE &&
		answer->failure != HTTP_FAILURE_TIMEOUT;
}

/*
 * Error context callback: what a statement that ends here leaves behind.
 */
static void
describe_state(void *arg)
{
	const CallsState *state = &((Calls *) arg)->state;

	/* not for what only passes through, like a LOG */
	if (geterrcode() == ERRCODE_SUCCESSFUL_COMPLETION)
		return;
	if (state->total > 1)
		errcontext(INT64_FORMAT " of " INT64_FORMAT " instant keys had been issued, and " INT64_FORMAT " calls were in doubt: their keys may exist",
				   state->issued, state->total, state->in_doubt);
	else if (state->in_doubt > 0)
		errcontext("the request to Seam had been sent: the instant key may exist");
	else
		errcontext("no request to Seam was under way: no instant key was issued");
}

/*
 * CHECK_FOR_INTERRUPTS, with a context line about what is under way.
 */
static void
check_interrupts(Calls *calls, Call *open, int nopen)
{
	ErrorContextCallback callback;

	if (!INTERRUPTS_PENDING_CONDITION())
		return;
	calls->state.in_doubt = 0;
	for (int i = 0; i < nopen; i++)
	{
		if (http_was_sent(&open[i].http))
			calls->state.in_doubt++;
	}
	callback.callback = describe_state;
	callback.arg = calls;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	CHECK_FOR_INTERRUPTS();
	error_context_stack = callback.previous;
}

/*
 * Make the calls, at most max_parallel at a time, and hand each one's answer to
 * calls->done.  Settings give the timeouts and the number of retries; a call's
 * time begins with its first try.
 *
 * Allocates in CurrentMemoryContext, which must not live longer than the
 * statement: its reset abandons what an error left under way.  Throws on
 * cancel and the like, with a context line that says what may exist.
 */
void
calls_run(Calls *calls)
{
	static uint32 wait_event = 0;
	int			nopen = (int) Min(calls->n, calls->max_parallel);
	Call	   *open = palloc0(nopen * sizeof(Call));
	HttpProfile profile;
	HttpRun    *run;
	dlist_head	unused;
	dlist_head	waiting;
	int64		next = 0;		/* the next call to begin */
	int64		last = calls->n;	/* and where to stop */

	if (wait_event == 0)
		wait_event = wait_event_seam();
	dlist_init(&unused);
	dlist_init(&waiting);
	for (int i = 0; i < nopen; i++)
		dlist_push_tail(&unused, &open[i].node);
	calls->state.total = calls->n;

	check_interrupts(calls, open, nopen);
	seam_profile(calls->account, &profile);
	run = http_begin(&profile, nopen);
	for (;;)
	{
		int64		now = http_now();
		int64		wake_at = PG_INT64_MAX;
		dlist_mutable_iter it;
		HttpRequest *ended;

		while (next < last && !dlist_is_empty(&unused))
		{
			Call	   *call = dlist_container(Call, node, dlist_pop_head_node(&unused));

			call->index = next++;
			call->tries = 0;
			call->http.url = calls->url;
			call->http.body = call->body;
			call->http.body_len = calls->body(calls, call->index, call->body);
			call->http.deadline = now + (int64) settings_request_timeout * 1000;
			call->http.connect_timeout = settings_connect_timeout;
			call->http.max_answer = SEAM_MAX_ANSWER;
			call->http.owner = call;
			http_start(run, &call->http);
		}
		dlist_foreach_modify(it, &waiting)
		{
			Call	   *call = dlist_container(Call, node, it.cur);

			if (call->due <= now)
			{
				dlist_delete(&call->node);
				call->tries++;
				http_start(run, &call->http);
			}
			else
				wake_at = Min(wake_at, call->due);
		}
		if (calls->state.done == last)
			break;

		ended = http_wait(run, wake_at, wait_event);
		check_interrupts(calls, open, nopen);
		if (ended)
		{
			Call	   *call = ended->owner;
			HttpAnswer *answer = &ended->answer;
			int64		pause = Max((int64) answer->retry_after * USECS_PER_SEC,
									backoff(call->tries));

			call->due = http_now() + pause;
			if (can_retry(answer) && call->tries < settings_max_retries &&
				call->due < ended->deadline)
			{
				http_release(ended);
				dlist_push_tail(&waiting, &call->node);
				continue;
			}
			calls->state.done++;
			if (!calls->done(calls, call->index, answer))
				last = next;
			http_release(ended);
			dlist_push_tail(&unused, &call->node);
		}
	}
	http_finish(run);
}
