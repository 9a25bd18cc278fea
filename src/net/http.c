/*-------------------------------------------------------------------------
 *
 * http.c
 *	  The transport: HTTP requests from their start to their answers.
 *
 * From here down: multi.c has libcurl's multi interface work, sockets.c waits
 * for what it wants, handle.c is one request as libcurl sees it, stream.c knows
 * which requests a server surely did not process, profile.c is what requests
 * have in common.
 *
 * One run at a time uses all that.  It ends by http_finish() or, when an error
 * or a cancel throws past it, by the reset of the memory context that it was
 * begun in.  Connections stay open for the session's next run.
 *
 * Nothing is thrown through libcurl: what ends there is put into lists, whose
 * handles are malloc'd.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/date.h"
#include "net/http.h"
#include "net/multi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"

/*
 * How often it is looked for what has come before deadlines are judged that have passed;
 * a server that never stops sending shall not put them off for ever.
 */
#define MAX_LATE_LOOKS 1000

/* One use of the transport; lives in the memory context of its caller. */
struct HttpRun
{
	MemoryContextCallback callback; /* ends it with that context */
	bool		kept;			/* see http_keep() */
};

/* The run that there is, or NULL. */
static HttpRun *current = NULL;

/* What its requests have in common, or NULL. */
static Profile *profile = NULL;

/* It may have several requests under way at once. */
static bool multiplex = false;

/* No deadline of a busy handle is earlier. */
static int64 next_deadline;

/* Each handle is in one of these: it has no request, */
static dlist_head idle = DLIST_STATIC_INIT(idle);
static int	nidle = 0;

/* it is in a multi handle, */
static dlist_head busy = DLIST_STATIC_INIT(busy);

/* its request has ended and was not yet handed to the caller, */
static dlist_head done = DLIST_STATIC_INIT(done);

/* it was, and http_release() has not come yet, */
static dlist_head handed = DLIST_STATIC_INIT(handed);

/* or it is in a multi handle, and its request was given up in a lookup. */
static dlist_head lost = DLIST_STATIC_INIT(lost);

/*
 * Returns the next handle of a list, taken out of it.
 */
static Handle *
pop(dlist_head *list)
{
	return dlist_container(Handle, node, dlist_pop_head_node(list));
}

/*
 * Puts a handle that is in no list back among the idle ones.
 */
static void
make_idle(Handle *handle)
{
	if (handle->used_up)
	{
		handle_free(handle);
		return;
	}
	handle_rest(handle);
	dlist_push_head(&idle, &handle->node);
	nidle++;
}

/*
 * Gives up a busy handle that looks a name up: the lookup goes on, and its request
 * is nobody's.  Later requests go elsewhere: they share connections, and would wait
 * for that lookup.
 */
static void
lose(Handle *handle)
{
	dlist_delete(&handle->node);
	dlist_push_tail(&lost, &handle->node);
	handle_lose(handle);
	multi_leave(handle);
}

/*
 * Takes a busy handle away from libcurl, whatever its request is at; it is in no
 * list then.
 */
static void
stop(Handle *handle)
{
	dlist_delete(&handle->node);
	multi_remove(handle);
}

/*
 * MultiConsumer: libcurl is done with a handle, which is busy or lost.
 */
static void
transfer_ended(Handle *handle, CURLcode rc)
{
	dlist_delete(&handle->node);
	if (handle->lost)
	{
		handle_free(handle);
		return;
	}
	handle_transfer_ended(handle, rc);
	dlist_push_tail(&done, &handle->node);
}

/*
 * A busy handle's request ends without libcurl.
 */
static void
end_busy(Handle *handle, HttpFailure failure, const char *error)
{
	HttpRequest *req = handle->req;
	bool		sent = handle_was_sent(handle);
	Handle	   *other;

	if (handle_is_looking_up(handle) && failure != HTTP_FAILURE_BROKEN &&
		(other = handle_new()) != NULL)
	{
		/* another one takes the request's end to the caller */
		lose(handle);
		other->req = req;
		req->handle = other;
		handle = other;
	}
	else
		stop(handle);
	handle_answer(handle, sent ? HTTP_IN_DOUBT : HTTP_NOT_SENT, failure, error);
	dlist_push_tail(&done, &handle->node);
}

/*
 * Ends the busy requests whose deadline has passed, and finds the next one.  Those that
 * were not sent and have no time left for it can be ended alone.
 */
static void
expire_deadlines(int64 now, bool only_unsent)
{
	dlist_mutable_iter it;

	next_deadline = PG_INT64_MAX;
	dlist_foreach_modify(it, &busy)
	{
		Handle	   *handle = dlist_container(Handle, node, it.cur);
		bool		connecting;
		int64		deadline = handle_deadline(handle, &connecting);

		if (deadline > now ||
			(only_unsent && (handle_was_sent(handle) || handle->req->deadline > now)))
			next_deadline = Min(next_deadline, deadline);
		else if (connecting)
			end_busy(handle, HTTP_FAILURE_CONNECT_TIMEOUT, handle->looking_up ?
					 "the name lookup timed out" : "the connection timed out");
		else
			end_busy(handle, HTTP_FAILURE_TIMEOUT, "timeout");
	}
}

/*
 * After an internal error of libcurl: ends every request in a multi handle that
 * had one.
 */
static void
end_broken(void)
{
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &busy)
	{
		Handle	   *handle = dlist_container(Handle, node, it.cur);

		if (multi_is_broken(handle))
			end_busy(handle, HTTP_FAILURE_BROKEN, "internal error of libcurl");
	}
	dlist_foreach_modify(it, &lost)
	{
		Handle	   *handle = dlist_container(Handle, node, it.cur);

		if (multi_is_broken(handle))
		{
			stop(handle);
			handle_free(handle);
		}
	}
	multi_clean();
}

/*
 * Deadlines have passed.  That this process was stopped, or did not get the processor, for
 * so long is not the server's fault: whatever has come by now is read before they are
 * judged.  What was not sent, and has no time left for it, is not sent any more.  Returns
 * whether the latch was set meanwhile.
 */
static bool
read_and_expire(int64 now, uint32 wait_event)
{
	bool		any_latch = false;

	expire_deadlines(now, true);
	for (int i = 0; i < MAX_LATE_LOOKS; i++)
	{
		int64		looked_at = now;
		bool		latch;
		bool		ready;

		if (multi_turn(&looked_at, now, true, wait_event, transfer_ended, &latch, &ready))
			end_broken();
		if (latch)
			ResetLatch(MyLatch);
		else if (!ready)
			break;
		any_latch = any_latch || latch;
	}
	expire_deadlines(now, false);
	return any_latch;
}

/*
 * Ends whatever the run has left under way.  Safe to call twice; never throws.
 * The requests themselves are not looked at: after an error they may be gone.
 */
static void
end_run(void *run)
{
	if (current != run)
		return;
	current = NULL;
	while (!dlist_is_empty(&busy))
	{
		Handle	   *handle = dlist_head_element(Handle, node, &busy);

		if (handle_is_looking_up(handle))
			lose(handle);
		else
		{
			stop(handle);
			make_idle(handle);
		}
	}
	while (!dlist_is_empty(&done))
		make_idle(pop(&done));
	while (!dlist_is_empty(&handed))
		make_idle(pop(&handed));
	for (; nidle > MULTI_KEEP; nidle--)
		handle_free(pop(&idle));
	multi_trim();
}

/*
 * Has the requests that the run starts from now on be of this profile, which is
 * copied.  Throws when out of memory.
 */
void
http_set_profile(HttpRun *run, const HttpProfile *given)
{
	Profile    *copy;

	if (profile && profile_matches(profile, given))
		return;
	copy = profile_copy(given);
	if (copy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	profile_unref(profile);
	profile = copy;
}

/*
 * The run lasts as long as the process, which runs SQL meanwhile: no other may
 * begin.
 */
void
http_keep(HttpRun *run)
{
	run->kept = true;
}

/*
 * Throws 0A000 when this process's run is one that is kept.
 */
void
http_check_free(void)
{
	if (current != NULL && current->kept)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("Seam cannot be called by a trigger on the outbox's tables that the "
						"worker of seam_ik fires"),
				 errhint("Enqueue a request instead.")));
}

/*
 * Has the run keep as many connections as requests are started at a time.
 */
void
http_set_parallel(HttpRun *run, int max_parallel)
{
	multi_set_connections(Max(max_parallel, MULTI_KEEP));
	multiplex = max_parallel > 1;
}

/*
 * Begins a run for requests of one profile, at most max_parallel of which will be
 * started at a time.
 *
 * The run lives in CurrentMemoryContext and ends with it, if http_finish() was
 * not called before.  Throws when out of memory.
 */
HttpRun *
http_begin(const HttpProfile *given, int max_parallel)
{
	HttpRun    *run = palloc(sizeof(HttpRun));

	/*
	 * Nothing that waits here runs SQL, so a run that is still there was left
	 * by an error whose memory context has not been reset yet.
	 */
	http_check_free();
	if (current != NULL)
		end_run(current);

	run->kept = false;
	run->callback.func = end_run;
	run->callback.arg = run;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &run->callback);

	multi_init();
	multi_look_at_idle();
	if (handle_any_lost() && multi_end_lookups(transfer_ended))
		end_broken();

	/* the set needs a descriptor, which sockets would take up */
	sockets_watch();
	http_set_profile(run, given);
	http_set_parallel(run, max_parallel);
	next_deadline = PG_INT64_MAX;
	current = run;
	return run;
}

/*
 * Starts a request.  Its answer, a failure to start included, comes from
 * http_wait().  Throws when out of memory.
 */
void
http_start(HttpRun *run, HttpRequest *req)
{
	Handle	   *handle = NULL;
	uint32		trust_changes;
	bool		connecting;

	Assert(current == run);
	req->handle = NULL;
	memset(&req->answer, 0, offsetof(HttpAnswer, error) + 1);
	req->answer.body = (char *) "";
	trust_changes = multi_trust(profile_trust(profile));

	if (!dlist_is_empty(&idle))
	{
		handle = pop(&idle);
		nidle--;
		if (handle->trust_changes != trust_changes)
		{
			handle_free(handle);
			handle = NULL;
		}
	}
	for (int tries = 0; tries < 2; tries++)
	{
		if (handle == NULL)
			handle = handle_new();
		if (handle == NULL || handle_prepare(handle, req, profile, multiplex))
			break;
		handle_free(handle);	/* once more with a fresh one */
		handle = NULL;
	}
	if (handle == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	handle->trust_changes = trust_changes;
	if (multi_add(handle))
	{
		dlist_push_tail(&busy, &handle->node);
		next_deadline = Min(next_deadline, handle_deadline(handle, &connecting));
	}
	else
	{
		handle_answer(handle, HTTP_NOT_SENT, HTTP_FAILURE_BROKEN, "internal error of libcurl");
		dlist_push_tail(&done, &handle->node);
	}
	req->handle = handle;
}

/*
 * Waits for a request to end.
 *
 * Returns it, with its answer filled in and valid until http_release(), or
 * NULL when the latch was set or the time wake_at (clock_now()'s clock;
 * PG_INT64_MAX for never) has come.  With a time that has passed it takes what
 * is there, and does not wait.  The caller checks for interrupts and
 * calls again.  Exits when the postmaster dies.  Throws when the wait event
 * set cannot be made.
 */
HttpRequest *
http_wait(HttpRun *run, int64 wake_at, uint32 wait_event)
{
	Assert(current == run);
	for (;;)
	{
		int64		now = clock_now();
		bool		latch;
		bool		ready;

		if (!dlist_is_empty(&done))
		{
			Handle	   *handle = pop(&done);

			dlist_push_tail(&handed, &handle->node);
			return handle->req;
		}
		if (multi_turn(&now, Min(wake_at, next_deadline), wake_at <= now, wait_event,
					   transfer_ended, &latch, &ready))
			end_broken();
		if (latch)
			ResetLatch(MyLatch);
		if (next_deadline <= now && read_and_expire(now, wait_event))
			latch = true;
		if (dlist_is_empty(&done) && (latch || wake_at <= now))
			return NULL;
	}
}

/*
 * Reads the time in the answer's Date header, in seconds since 1970, into
 * *unix_time.  Returns false when there is none.
 *
 * Servers send the fixed format of RFC 9110, 5.6.7; libcurl reads it, too, and the
 * obsolete ones, but takes a tenth of a whole call for it.
 */
bool
http_date(const HttpAnswer *answer, int64 *unix_time)
{
	time_t		t;

	if (date_read_imf(answer->date, unix_time))
		return true;
	t = answer->date[0] ? curl_getdate(answer->date, NULL) : -1;
	*unix_time = (int64) t;
	return t != -1;
}

/*
 * May bytes of this request, which was started, have left?
 */
bool
http_was_sent(const HttpRequest *req)
{
	return req->handle != NULL && handle_was_sent(req->handle);
}

/*
 * The caller is done with a request that http_wait() returned, and the body of
 * its answer is gone; the rest of the answer stays.  Never throws.
 */
void
http_release(HttpRequest *req)
{
	Handle	   *handle = req->handle;

	if (handle == NULL)
		return;
	req->handle = NULL;
	req->answer.body = (char *) "";
	req->answer.body_len = 0;
	dlist_delete(&handle->node);
	make_idle(handle);
}

/*
 * Ends a run.  Requests that are still under way are abandoned.  Never throws.
 */
void
http_finish(HttpRun *run)
{
	end_run(run);
}

/*
 * Returns the versions of libcurl, and of the libraries that it uses, TLS among them.
 */
const char *
http_library(void)
{
	return curl_version();
}
