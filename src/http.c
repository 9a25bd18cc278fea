/*-------------------------------------------------------------------------
 *
 * http.c
 *	  The transport: libcurl's multi interface driven from a WaitEventSet.
 *
 * It and http_handle.c are the only files that see curl.h.
 *
 * Invariants:
 *
 * - Nothing is thrown through libcurl.  Callbacks neither palloc nor ereport
 *	 nor check for interrupts; what they keep is malloc'd.
 * - All signals are blocked while libcurl may start a thread, which is in
 *	 curl_multi_socket_action(): a resolver thread inherits the mask, and
 *	 PostgreSQL's signal handlers must run on the main thread.
 * - A request whose bytes may have left is never sent again, neither here nor
 *	 by libcurl on its own (see before_request()).
 * - One run at a time uses the engine.  It ends by http_finish() or, when an
 *	 error or a cancel throws past it, by the reset of the memory context that
 *	 it was begun in.  Connections stay open for the session's next call.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "date.h"
#include "http_handle.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

/* Handles (and so connections) that outlive a batch. */
#define KEEP_SLOTS 8

/* A receive buffer larger than this is given back after the request. */
#define KEEP_BUFFER (16 * 1024)

/* Room for sockets in a new wait event set, besides latch and postmaster. */
#define MIN_SET_SOCKETS 6

/* Idle connections that are looked at before a new call. */
#define MAX_LOOKED_AT 32

/*
 * That the other side has closed a connection.  Where there is only POLLIN to
 * tell, a late frame or TLS ticket looks the same and costs a new connection.
 */
#ifdef POLLRDHUP
#define CLOSED_BY_PEER POLLRDHUP
#else
#define CLOSED_BY_PEER POLLIN
#endif

/* Events taken from the kernel in one go. */
#define EVENTS_AT_ONCE 64

/* HTTP/2 connections that a server is ending, to be remembered at once. */
#define GOAWAY_PORTS 16

/* What libcurl wants of a descriptor, and what the wait event set has. */
typedef struct Socket
{
	uint32		wanted;			/* WL_SOCKET_*, 0: not watched */
	uint32		watched;		/* WL_SOCKET_*, 0: not in the set */
	int			pos;			/* position in the set */
	bool		ours;			/* opened by http_open_socket() */
} Socket;

/*
 * The engine of this backend.  It outlives transactions, so that connections
 * do; nothing in it is palloc'd but the wait event set.
 */
static struct
{
	bool		global_init;	/* curl_global_init was called */
	CURLM	   *multi;
	bool		broken;			/* an internal error: remake the multi handle */
	int			max_connections;	/* CURLMOPT_MAXCONNECTS, 0: not set */
	WaitEventSet *set;
	int			set_size;		/* its capacity */
	int			set_used;		/* positions given away */
	bool		set_stale;		/* build a new one before waiting */
	bool		set_behind;		/* a socket is wanted otherwise than watched */
	Socket	   *sockets;		/* indexed by descriptor */
	int			nsockets;
	int64		timer_at;		/* when libcurl wants to be called, or -1 */
	int64		next_deadline;	/* no deadline of a busy slot is earlier */
	dlist_head	idle;
	int			nidle;
	dlist_head	busy;			/* in the multi handle */
	dlist_head	done;			/* ended, not yet handed to the caller */
	dlist_head	handed;			/* until the caller's http_release() */
	Profile    *profile;		/* of the current run */
	bool		woken;			/* the latch was set since http_was_woken() */
	bool		multiplex;		/* the current run has several requests at
								 * once */
	bool		streams_seen;	/* http_debug() understands this libcurl */
	int			goaway_ports[GOAWAY_PORTS]; /* connections that end, by our
											 * port */
	int			goaway_next;
	struct HttpRun *run;		/* who uses the engine now, or NULL */
}			engine;

/* One use of the engine; lives in the memory context of its caller. */
struct HttpRun
{
	MemoryContextCallback callback;
	bool		kept;			/* see http_keep() */
};

/*
 * Microseconds on a clock that never jumps (CLOCK_MONOTONIC).
 */
int64
http_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/*
 * Block every signal while libcurl may start a thread, which inherits the
 * mask.  The mask before goes to *saved.
 */
static inline void
enter_curl(sigset_t *saved)
{
	sigset_t	all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
}

/*
 * Undo enter_curl().
 */
static inline void
leave_curl(const sigset_t *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

/* ---------- callbacks about connections: never throw, never palloc ---------- */

/*
 * The record of a descriptor, or NULL when out of memory.
 */
static Socket *
socket_entry(int fd)
{
	if (fd >= engine.nsockets)
	{
		int			n = Max(fd + 1, engine.nsockets * 2);
		Socket	   *more = realloc(engine.sockets, n * sizeof(Socket));

		if (more == NULL)
			return NULL;
		memset(more + engine.nsockets, 0, (n - engine.nsockets) * sizeof(Socket));
		engine.sockets = more;
		engine.nsockets = n;
	}
	return &engine.sockets[fd];
}

/*
 * CURLMOPT_SOCKETFUNCTION: libcurl names the sockets to watch.
 *
 * A socket that is no longer wanted stays in the wait event set, since the
 * next request on a kept connection wants it again: that saves two system
 * calls a request.  watch_sockets() has the rest of the rule.
 */
static int
socket_wanted(CURL *easy, curl_socket_t fd, int what, void *data, void *entry)
{
	Socket	   *s = socket_entry(fd);

	if (s == NULL)
		return -1;
	switch (what)
	{
		case CURL_POLL_IN:
			s->wanted = WL_SOCKET_READABLE;
			break;
		case CURL_POLL_OUT:
			s->wanted = WL_SOCKET_WRITEABLE;
			break;
		case CURL_POLL_INOUT:
			s->wanted = WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE;
			break;
		default:
			s->wanted = 0;

			/*
			 * Of a descriptor that libcurl opened by itself (the resolver's
			 * socket pair) we do not see the close, so we must not believe
			 * that the set still has it.
			 */
			if (!s->ours && s->watched)
			{
				s->watched = 0;
				engine.set_stale = true;
			}
	}
	if (s->wanted != 0 && s->wanted != s->watched)
		engine.set_behind = true;
	return 0;
}

/*
 * CURLMOPT_TIMERFUNCTION: libcurl wants to be called in so many milliseconds.
 */
static int
timer_wanted(CURLM *multi, long timeout_ms, void *data)
{
	engine.timer_at = timeout_ms < 0 ? -1 : http_now() + (int64) timeout_ms * 1000;
	return 0;
}

/*
 * CURLOPT_OPENSOCKETFUNCTION: count the descriptor as PostgreSQL wants it.
 */
curl_socket_t
http_open_socket(void *slot, curlsocktype purpose, struct curl_sockaddr *address)
{
	int			fd;
	Socket	   *s;

	if (!AcquireExternalFD())
	{
		((HttpSlot *) slot)->no_descriptor = true;
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd < 0)
	{
		if (errno == EMFILE || errno == ENFILE)
			((HttpSlot *) slot)->no_descriptor = true;
		ReleaseExternalFD();
		return CURL_SOCKET_BAD;
	}
	s = socket_entry(fd);
	if (s == NULL)
	{
		close(fd);
		ReleaseExternalFD();
		return CURL_SOCKET_BAD;
	}
	s->wanted = s->watched = 0;
	s->ours = true;
	return fd;
}

/*
 * Our port of a connection, or -1.
 */
static int
local_port(int fd)
{
	struct sockaddr_storage addr;
	socklen_t	len = sizeof(addr);

	if (getsockname(fd, (struct sockaddr *) &addr, &len) != 0)
		return -1;
	if (addr.ss_family == AF_INET)
		return ntohs(((struct sockaddr_in *) &addr)->sin_port);
	if (addr.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *) &addr)->sin6_port);
	return -1;
}

/*
 * Is the server ending the connection with this port of ours?
 */
static bool
is_going_away(int port)
{
	for (int i = 0; i < GOAWAY_PORTS; i++)
	{
		if (engine.goaway_ports[i] == port)
			return true;
	}
	return false;
}

/*
 * CURLOPT_DEBUGFUNCTION: what libcurl tells of its doings.  Used where several
 * requests share an HTTP/2 connection.
 *
 * A server ends such a connection with a GOAWAY frame that names the last
 * stream that it has processed or will process; the requests of later streams
 * surely are not (RFC 9113, 6.8), and may be sent again.  A common server does
 * that after each 1,000 requests, so without this knowledge many requests of a
 * large batch would end in doubt.  libcurl tells of GOAWAY nowhere but here,
 * in the texts of 7.88 ("Using Stream ID: 1", "recveived GOAWAY, error=0,
 * last_stream=1") and of 8.x ("[HTTP/2] [1] OPENED stream for", "received
 * GOAWAY, ...").  Where a version says it otherwise, the requests stay in
 * doubt, which is safe.
 */
int
http_debug(CURL *easy, curl_infotype type, char *text, size_t len, void *data)
{
	HttpSlot   *slot = data;
	char		line[128];
	const char *last;
	unsigned long stream;
	dlist_iter	it;

	if (type != CURLINFO_TEXT)
		return 0;
	len = Min(len, sizeof(line) - 1);
	memcpy(line, text, len);
	line[len] = '\0';

	if (sscanf(line, "Using Stream ID: %lu", &stream) == 1 ||
		(sscanf(line, "[HTTP/2] [%lu]", &stream) == 1 && strstr(line, "] OPENED stream for ")))
	{
		slot->stream = stream;
		engine.streams_seen = true;
	}
	else if (strstr(line, "GOAWAY, error=") && (last = strstr(line, "last_stream=")) != NULL &&
			 sscanf(last, "last_stream=%lu", &stream) == 1)
	{
		engine.goaway_ports[engine.goaway_next++ % GOAWAY_PORTS] = slot->port;
		dlist_foreach(it, &engine.busy)
		{
			HttpSlot   *other = dlist_container(HttpSlot, node, it.cur);

			if (other->sent && other->port == slot->port && other->stream > stream)
				other->refused = true;
		}
	}
	else if (strstr(line, "retrying a fresh connect") && engine.streams_seen &&
			 slot->stream == 0 && is_going_away(slot->port))
	{
		/* it came too late to get a stream on that connection */
		slot->refused = true;
	}
	return 0;
}

/*
 * CURLOPT_CLOSESOCKETFUNCTION: the kernel takes a closed descriptor out of the
 * set by itself.
 */
int
http_close_socket(void *data, curl_socket_t fd)
{
	Socket	   *s = socket_entry(fd);
	int			port = local_port(fd);

	if (s != NULL)
	{
		s->wanted = s->watched = 0;
		s->ours = false;
	}
	for (int i = 0; i < GOAWAY_PORTS; i++)
	{
		if (engine.goaway_ports[i] == port)
			engine.goaway_ports[i] = 0;
	}
	ReleaseExternalFD();
	return close(fd);
}

/* ---------- engine ---------- */

/*
 * Take a busy slot's handle out of the multi handle.
 */
static void
slot_stop(HttpSlot *slot)
{
	dlist_delete(&slot->node);
	if (curl_multi_remove_handle(engine.multi, slot->easy) != CURLM_OK)
		engine.broken = true;
}

/*
 * Collect the transfers that libcurl has finished.
 */
static void
collect_finished(void)
{
	CURLMsg    *msg;
	int			left;

	while ((msg = curl_multi_info_read(engine.multi, &left)) != NULL)
	{
		HttpSlot   *slot = NULL;
		CURLcode	rc = msg->data.result;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &slot);
		slot_stop(slot);		/* msg is gone with it */
		slot_transfer_ended(slot, rc);
		dlist_push_tail(&engine.done, &slot->node);
	}
}

/*
 * End the busy requests whose deadline has passed, and find the next one.
 */
static void
expire_deadlines(int64 now)
{
	dlist_mutable_iter it;

	engine.next_deadline = PG_INT64_MAX;
	dlist_foreach_modify(it, &engine.busy)
	{
		HttpSlot   *slot = dlist_container(HttpSlot, node, it.cur);

		if (slot->req->deadline <= now)
		{
			slot_stop(slot);
			slot_answer(slot, slot_was_sent(slot) ? HTTP_IN_DOUBT : HTTP_NOT_SENT,
						HTTP_FAILURE_TIMEOUT, "timeout");
			dlist_push_tail(&engine.done, &slot->node);
		}
		else
			engine.next_deadline = Min(engine.next_deadline, slot->req->deadline);
	}
}

/*
 * After an internal error of libcurl: end every busy request.
 */
static void
fail_busy(const char *error)
{
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &engine.busy)
	{
		HttpSlot   *slot = dlist_container(HttpSlot, node, it.cur);

		slot_stop(slot);
		slot_answer(slot, slot_was_sent(slot) ? HTTP_IN_DOUBT : HTTP_NOT_SENT,
					HTTP_FAILURE_BROKEN, error);
		dlist_push_tail(&engine.done, &slot->node);
	}
}

/*
 * Drop the multi handle with its connections, and every idle slot.  No slot
 * may be busy.
 */
static void
drop_engine(void)
{
	while (!dlist_is_empty(&engine.idle))
		slot_free(dlist_container(HttpSlot, node, dlist_pop_head_node(&engine.idle)));
	engine.nidle = 0;
	if (engine.multi)
		curl_multi_cleanup(engine.multi);
	engine.multi = NULL;
	engine.max_connections = 0;
	engine.broken = false;
	engine.timer_at = -1;
	engine.set_stale = true;
}

/*
 * Make the wait event set watch what libcurl wants.
 *
 * A set has no removal, so a socket that is not wanted any more stays until it
 * is closed (the kernel drops it then) or fires (http_wait() then asks for a
 * new set, or the wait would spin).  Throws when a set cannot be made; the old
 * one is gone then and the next call makes one.
 */
static void
watch_sockets(void)
{
	while (engine.set == NULL || engine.set_stale || engine.set_behind)
	{
		int			nwanted = 0;
		bool		full = false;

		if (engine.set == NULL || engine.set_stale)
		{
			for (int fd = 0; fd < engine.nsockets; fd++)
			{
				engine.sockets[fd].watched = 0;
				if (engine.sockets[fd].wanted)
					nwanted++;
			}
			if (engine.set)
				FreeWaitEventSet(engine.set);
			engine.set = NULL;
			engine.set_size = 2 + Max(MIN_SET_SOCKETS, 2 * nwanted);
			engine.set = create_session_wait_event_set(engine.set_size);
			engine.set_used = 2;
			AddWaitEventToSet(engine.set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
			if (IsUnderPostmaster)
				AddWaitEventToSet(engine.set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
			engine.set_stale = false;
		}
		for (int fd = 0; fd < engine.nsockets; fd++)
		{
			Socket	   *s = &engine.sockets[fd];

			if (s->wanted == 0 || s->wanted == s->watched)
				continue;
			if (s->watched != 0)
				ModifyWaitEvent(engine.set, s->pos, s->wanted, NULL);
			else if (engine.set_used < engine.set_size)
			{
				s->pos = AddWaitEventToSet(engine.set, s->wanted, fd, NULL, NULL);
				engine.set_used++;
			}
			else
			{
				full = true;
				break;
			}
			s->watched = s->wanted;
		}
		engine.set_behind = false;
		engine.set_stale = full;
	}
}

/*
 * Make what the engine needs, on first use and after an internal error.
 * Throws when out of memory.
 */
static void
prepare_engine(void)
{
	bool		ok = true;

	if (engine.multi != NULL && !engine.broken)
		return;
	if (!engine.global_init)
	{
		dlist_init(&engine.idle);
		dlist_init(&engine.busy);
		dlist_init(&engine.done);
		dlist_init(&engine.handed);
		ok = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
		engine.global_init = ok;
	}
	if (ok)
	{
		drop_engine();
		engine.multi = curl_multi_init();
		ok = engine.multi != NULL &&
			curl_multi_setopt(engine.multi, CURLMOPT_SOCKETFUNCTION, socket_wanted) == CURLM_OK &&
			curl_multi_setopt(engine.multi, CURLMOPT_TIMERFUNCTION, timer_wanted) == CURLM_OK;
#ifdef HAVE_CURLM_QUICK_EXIT
		ok = ok && curl_multi_setopt(engine.multi, CURLMOPT_QUICK_EXIT, 1L) == CURLM_OK;
#endif
		if (!ok)
			engine.broken = true;
	}
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not initialize libcurl")));
}

/*
 * Put a slot that is in no list back among the idle ones.
 */
static void
slot_idle(HttpSlot *slot)
{
	slot->req = NULL;
	if (slot->cap > KEEP_BUFFER)
	{
		free(slot->buf);
		slot->buf = NULL;
		slot->cap = 0;
	}
	dlist_push_head(&engine.idle, &slot->node);
	engine.nidle++;
}

/*
 * End whatever the run has left under way and give the engine back.  Safe to
 * call twice; never throws.  The requests themselves are not looked at: after
 * an error they may be gone.
 */
static void
end_run(void *arg)
{
	if (engine.run != arg)
		return;
	engine.run = NULL;
	while (!dlist_is_empty(&engine.busy))
	{
		HttpSlot   *slot = dlist_head_element(HttpSlot, node, &engine.busy);

		slot_stop(slot);
		slot_idle(slot);
	}
	while (!dlist_is_empty(&engine.done))
		slot_idle(dlist_container(HttpSlot, node, dlist_pop_head_node(&engine.done)));
	while (!dlist_is_empty(&engine.handed))
		slot_idle(dlist_container(HttpSlot, node, dlist_pop_head_node(&engine.handed)));
	while (engine.nidle > KEEP_SLOTS)
	{
		slot_free(dlist_container(HttpSlot, node, dlist_pop_head_node(&engine.idle)));
		engine.nidle--;
	}
}

/*
 * Did the server close a connection that is idle?  A request that is sent on it
 * would be in doubt.  libcurl looks before it uses a connection again; from 8.22
 * on not if it has looked within the last second.
 */
static bool
idle_connection_closed(void)
{
	static int	looks = -1;
	struct pollfd idle[MAX_LOOKED_AT];
	int			n = 0;

	if (looks < 0)
		looks = curl_version_info(CURLVERSION_NOW)->version_num < 0x081600;
	if (looks)
		return false;
	for (int fd = 0; fd < engine.nsockets && n < MAX_LOOKED_AT; fd++)
	{
		if (engine.sockets[fd].ours && engine.sockets[fd].wanted == 0)
		{
			idle[n].fd = fd;
			idle[n++].events = CLOSED_BY_PEER;
		}
	}
	return n > 0 && poll(idle, n, 0) > 0;
}

/*
 * Have the requests that the run starts from now on be of this profile, which
 * is copied.  Throws when out of memory.
 */
void
http_set_profile(HttpRun *run, const HttpProfile *profile)
{
	Profile    *copy;

	if (engine.profile && profile_matches(engine.profile, profile))
		return;
	copy = profile_copy(profile);
	if (copy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	profile_unref(engine.profile);
	engine.profile = copy;
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
 * Raise 0A000 when this process's run is one that is kept.
 */
void
http_check_free(void)
{
	if (engine.run != NULL && engine.run->kept)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("Seam cannot be called by a trigger that the worker of seam_ik fires"),
				 errhint("Enqueue a request instead.")));
}

/*
 * Have the run keep as many connections as requests are started at a time.
 */
void
http_set_parallel(HttpRun *run, int max_parallel)
{
	if (engine.max_connections != Max(max_parallel, KEEP_SLOTS))
	{
		engine.max_connections = Max(max_parallel, KEEP_SLOTS);
		curl_multi_setopt(engine.multi, CURLMOPT_MAXCONNECTS, (long) engine.max_connections);
	}
	engine.multiplex = max_parallel > 1;
}

/*
 * Begin to use the engine for requests of one profile, at most max_parallel of
 * which will be started at a time.
 *
 * The run lives in CurrentMemoryContext and ends with it, if http_finish() was
 * not called before.  Throws when out of memory.
 */
HttpRun *
http_begin(const HttpProfile *profile, int max_parallel)
{
	HttpRun    *run = palloc(sizeof(HttpRun));

	/*
	 * Nothing that waits here runs SQL, so a run that is still there was left
	 * by an error whose memory context has not been reset yet.
	 */
	http_check_free();
	if (engine.run != NULL)
		end_run(engine.run);

	run->kept = false;
	run->callback.func = end_run;
	run->callback.arg = run;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &run->callback);

	prepare_engine();
	if (idle_connection_closed())
	{
		engine.broken = true;
		prepare_engine();
	}

	/* the set needs a descriptor, which sockets would take up */
	watch_sockets();
	http_set_profile(run, profile);
	http_set_parallel(run, max_parallel);
	engine.next_deadline = PG_INT64_MAX;
	engine.run = run;
	return run;
}

/*
 * Start a request.  Its answer, a failure to start included, comes from
 * http_wait().  Throws when out of memory.
 */
void
http_start(HttpRun *run, HttpRequest *req)
{
	HttpSlot   *slot = NULL;

	Assert(engine.run == run);
	req->slot = NULL;
	memset(&req->answer, 0, offsetof(HttpAnswer, error) + 1);
	req->answer.body = (char *) "";

	if (!dlist_is_empty(&engine.idle))
	{
		slot = dlist_container(HttpSlot, node, dlist_pop_head_node(&engine.idle));
		engine.nidle--;
	}
	for (int tries = 0; tries < 2; tries++)
	{
		if (slot == NULL)
			slot = slot_new();
		if (slot == NULL || slot_prepare(slot, req, engine.profile, engine.multiplex))
			break;
		slot_free(slot);		/* once more with a fresh handle */
		slot = NULL;
	}
	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (curl_multi_add_handle(engine.multi, slot->easy) == CURLM_OK)
	{
		dlist_push_tail(&engine.busy, &slot->node);
		engine.next_deadline = Min(engine.next_deadline, req->deadline);
	}
	else
	{
		engine.broken = true;
		slot_answer(slot, HTTP_NOT_SENT, HTTP_FAILURE_BROKEN, "internal error of libcurl");
		dlist_push_tail(&engine.done, &slot->node);
	}
	req->slot = slot;
}

/*
 * Wait for a request to end.
 *
 * Returns it, with its answer filled in and valid until http_release(), or
 * NULL when the latch was set or the time wake_at (http_now()'s clock;
 * PG_INT64_MAX for never) has come.  With a time that has passed it takes what
 * is there, and does not wait.  The caller checks for interrupts and
 * calls again.  Exits when the postmaster dies.  Throws when the wait event
 * set cannot be made.
 */
HttpRequest *
http_wait(HttpRun *run, int64 wake_at, uint32 wait_event)
{
	WaitEvent	events[EVENTS_AT_ONCE];

	Assert(engine.run == run);
	for (;;)
	{
		int64		now = http_now();
		int64		until = Min(wake_at, engine.next_deadline);
		int			nevents = 0;
		bool		latch = false;
		sigset_t	saved;

		if (!dlist_is_empty(&engine.done))
		{
			HttpSlot   *slot = dlist_container(HttpSlot, node,
											   dlist_pop_head_node(&engine.done));

			dlist_push_tail(&engine.handed, &slot->node);
			return slot->req;
		}
		if (engine.timer_at >= 0)
			until = Min(until, engine.timer_at);
		if (until > now || wake_at <= now)
		{
			long		timeout = -1;

			/* rounded up: a deadline is never early by a spin of short waits */
			if (until <= now)
				timeout = 0;
			else if (until != PG_INT64_MAX)
				timeout = (long) Min((until - now + 999) / 1000, INT_MAX);
			watch_sockets();
			nevents = WaitEventSetWait(engine.set, timeout, events,
									   EVENTS_AT_ONCE, wait_event);
			now = http_now();
		}

		enter_curl(&saved);
		for (int i = 0; i < nevents; i++)
		{
			int			fd = events[i].fd;
			int			mask = 0;
			int			running;

			if (events[i].events & WL_LATCH_SET)
			{
				latch = true;
				continue;
			}
			if (fd < 0 || fd >= engine.nsockets || engine.sockets[fd].wanted == 0)
			{
				engine.set_stale = true;
				continue;
			}
			if (events[i].events & WL_SOCKET_READABLE)
				mask |= CURL_CSELECT_IN;
			if (events[i].events & WL_SOCKET_WRITEABLE)
				mask |= CURL_CSELECT_OUT;
			if (curl_multi_socket_action(engine.multi, fd, mask, &running) != CURLM_OK)
				engine.broken = true;
		}
		if (engine.timer_at >= 0 && engine.timer_at <= now)
		{
			int			running;

			engine.timer_at = -1;
			if (curl_multi_socket_action(engine.multi, CURL_SOCKET_TIMEOUT, 0,
										 &running) != CURLM_OK)
				engine.broken = true;
		}
		collect_finished();
		if (engine.broken)
			fail_busy("internal error of libcurl");
		else if (engine.next_deadline <= now)
			expire_deadlines(now);
		leave_curl(&saved);

		if (latch)
		{
			ResetLatch(MyLatch);
			engine.woken = true;
		}
		if (dlist_is_empty(&engine.done) && (latch || wake_at <= now))
			return NULL;
	}
}

/*
 * Was the latch set since the last call of this function?  http_wait() resets
 * the latch also when it returns a request.
 */
bool
http_was_woken(HttpRun *run)
{
	bool		woken = engine.woken;

	Assert(engine.run == run);
	engine.woken = false;
	return woken;
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
	return req->slot != NULL && slot_was_sent(req->slot);
}

/*
 * The caller is done with a request that http_wait() returned, and the body of
 * its answer is gone; the rest of the answer stays.  Never throws.
 */
void
http_release(HttpRequest *req)
{
	HttpSlot   *slot = req->slot;

	if (slot == NULL)
		return;
	req->slot = NULL;
	req->answer.body = (char *) "";
	req->answer.body_len = 0;
	dlist_delete(&slot->node);
	slot_idle(slot);
}

/*
 * End a run.  Requests that are still under way are abandoned.  Never throws.
 */
void
http_finish(HttpRun *run)
{
	end_run(run);
}
