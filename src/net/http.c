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
 * - A multi handle is used until it is retired: because of an error, or since
 *	 its connections or a lookup in it shall be of no concern to later requests.
 *	 Requests that are under way in it then end there, and later ones go to a new
 *	 one.  It is freed when the last handle has left it.
 * - A name lookup is never abandoned, since its thread cannot be ended and
 *	 would be counted by nobody: its handle stays in its multi handle.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/date.h"
#include "net/http.h"
#include "net/http_handle.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

/* Handles, and connections, that outlive a batch. */
#define KEEP_SLOTS 8

/* Name lookups that were given up and go on; each has a thread. */
#define MAX_LOST_LOOKUPS 16

/* How often it is looked whether the trusted CA certificates have changed. */
#define TRUST_CHECK_US (1000 * 1000)

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
#define MAX_ENDING 16

/* A multi handle of libcurl; malloc'd. */
typedef struct HttpMulti
{
	dlist_node	node;			/* in engine.retired, but for engine.multi */
	CURLM	   *handle;
	int			nslots;			/* handles in it */
	int			nsockets;		/* open sockets of open_socket() */
	int64		timer_at;		/* when it wants to be called, or -1 */
	bool		broken;			/* it had an internal error */
	char	   *trust;			/* profile_trust() of its requests */
	struct stat trust_stat;		/* of that, zeroes where there is none */
	int64		trust_seen_at;	/* when trust_stat was last compared */
} HttpMulti;

/* What libcurl wants of a descriptor, and what the wait event set has. */
typedef struct Socket
{
	HttpMulti  *multi;			/* whose it is, if wanted or ours */
	uint32		wanted;			/* WL_SOCKET_*, 0: not watched */
	uint32		watched;		/* WL_SOCKET_*, 0: not in the set */
	int			pos;			/* position in the set */
	bool		ours;			/* opened by open_socket() */
	dev_t		device;			/* with inode: which socket it is, if ours */
	ino_t		inode;
	HttpSlot   *opener;			/* for which it was opened, until that leaves */
} Socket;

/*
 * The engine of this backend.  It outlives transactions, so that connections
 * do; nothing in it is palloc'd but the wait event set.
 */
static struct
{
	bool		global_init;	/* curl_global_init was called */
	HttpMulti  *multi;			/* for new requests, or NULL */
	dlist_head	retired;		/* those with requests under way */
	int			max_connections;	/* CURLMOPT_MAXCONNECTS */
	uint32		trust_changes;	/* see trusts() */
	WaitEventSet *set;
	int			set_size;		/* its capacity */
	int			set_used;		/* positions given away */
	bool		set_stale;		/* build a new one before waiting */
	bool		set_behind;		/* a socket is wanted otherwise than watched */
	Socket	   *sockets;		/* indexed by descriptor */
	int			nsockets;
	int64		next_deadline;	/* no deadline of a busy slot is earlier */
	dlist_head	idle;
	int			nidle;
	dlist_head	busy;			/* in the multi handle */
	dlist_head	done;			/* ended, not yet handed to the caller */
	dlist_head	handed;			/* until the caller's http_release() */
	dlist_head	lost;			/* given up while they look a name up */
	int			nlost;
	Profile    *profile;		/* of the current run */
	bool		multiplex;		/* the current run has several requests at
								 * once */
#ifdef HAVE_CURL_PREREQ
	bool		streams_seen;	/* debug_text() understands this libcurl */
	HttpEnds	ending[MAX_ENDING]; /* connections that servers are ending */
	int			ending_next;
#endif
	struct HttpRun *run;		/* who uses the engine now, or NULL */
}			engine;

/* One use of the engine; lives in the memory context of its caller. */
struct HttpRun
{
	MemoryContextCallback callback;
	bool		kept;			/* see http_keep() */
};

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
socket_wanted(CURL *easy, curl_socket_t fd, int what, void *multi, void *entry)
{
	Socket	   *s = socket_entry(fd);

	if (s == NULL)
		return -1;
	s->multi = multi;
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
			if (!s->ours)
				s->multi = NULL;

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
timer_wanted(CURLM *handle, long timeout_ms, void *multi)
{
	((HttpMulti *) multi)->timer_at = timeout_ms < 0 ? -1 : clock_now() + (int64) timeout_ms * 1000;
	return 0;
}

/*
 * A socket of ours is closed: PostgreSQL shall know.
 */
static void
socket_closed(Socket *s)
{
	if (s->opener)
		s->opener->nsockets--;
	s->multi->nsockets--;
	memset(s, 0, sizeof(Socket));
	ReleaseExternalFD();
}

/*
 * Is the descriptor still the socket that was opened?
 */
static bool
socket_is_open(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 &&
		st.st_dev == engine.sockets[fd].device && st.st_ino == engine.sockets[fd].inode;
}

/*
 * A slot's handle has left its multi handle: settle the account of what was
 * opened for it.  Some versions of libcurl (7.87 to 7.88) close a socket that
 * is still being connected without telling.
 */
static void
settle_sockets(HttpSlot *slot)
{
	for (int fd = 0; fd < engine.nsockets && slot->nsockets > 0; fd++)
	{
		Socket	   *s = &engine.sockets[fd];

		if (s->opener != slot)
			continue;
		if (socket_is_open(fd))
		{
			/* it is a connection that is kept */
			s->opener = NULL;
			slot->nsockets--;
		}
		else
			socket_closed(s);
	}
}

/*
 * CURLOPT_RESOLVER_START_FUNCTION: an address is not known yet.  Those that are
 * their own name, which need no lookup, come here, too.
 */
static int
start_lookup(void *resolver, void *reserved, void *data)
{
	HttpSlot   *slot = data;

	if (!slot->numeric && engine.nlost >= MAX_LOST_LOOKUPS)
	{
		slot->too_many_lookups = true;
		return 1;
	}
	slot->looking_up = !slot->numeric;
	return 0;
}

/*
 * CURLOPT_OPENSOCKETFUNCTION: count the descriptor as PostgreSQL wants it.
 */
static curl_socket_t
open_socket(void *data, curlsocktype purpose, struct curl_sockaddr *address)
{
	HttpSlot   *slot = data;
	int			fd;
	Socket	   *s;
	struct stat st;

	slot->looking_up = false;
	if (slot->req == NULL)
		return CURL_SOCKET_BAD; /* it was given up */
	if (!AcquireExternalFD())
	{
		slot->no_descriptor = true;
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd < 0)
	{
		if (errno == EMFILE || errno == ENFILE)
			slot->no_descriptor = true;
		ReleaseExternalFD();
		return CURL_SOCKET_BAD;
	}
	s = socket_entry(fd);
	if (s == NULL || fstat(fd, &st) != 0)
	{
		close(fd);
		ReleaseExternalFD();
		return CURL_SOCKET_BAD;
	}
	if (s->ours)
		socket_closed(s);		/* unseen, and the number is used again */
	s->wanted = s->watched = 0;
	s->ours = true;
	s->device = st.st_dev;
	s->inode = st.st_ino;
	s->opener = slot;
	slot->nsockets++;
	s->multi = slot->multi;
	s->multi->nsockets++;
	return fd;
}

#ifdef HAVE_CURL_PREREQ
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
 * Is this the same connection?
 */
static bool
same_ends(const HttpEnds *a, const HttpEnds *b)
{
	return a->our_port != 0 &&
		a->our_port == b->our_port && a->their_port == b->their_port &&
		strcmp(a->ours, b->ours) == 0 && strcmp(a->theirs, b->theirs) == 0;
}

/*
 * Is the server ending this connection?
 */
static bool
is_ending(const HttpEnds *ends)
{
	for (int i = 0; i < MAX_ENDING; i++)
	{
		if (same_ends(&engine.ending[i], ends))
			return true;
	}
	return false;
}

/*
 * Forget that a server is ending the connection of this descriptor, which is
 * closed: the next one may have the same ends.  (Of one that the server has
 * reset, only our port is still known, and to forget too much is safe.)
 */
static void
forget_ending(int fd)
{
	int			port = local_port(fd);

	for (int i = 0; i < MAX_ENDING; i++)
	{
		if (port < 0 || engine.ending[i].our_port == port)
			engine.ending[i].our_port = 0;
	}
}

/*
 * The slot's request was surely not processed, and may be sent again.
 */
static void
slot_refused(HttpSlot *slot)
{
	slot->refused = true;
	/* for a new connection */
	slot->connect_by = clock_now() + (int64) slot->connect_timeout * 1000;
}

/*
 * How the libcurl that runs (not the one that this was compiled with) tells of a
 * request's stream: before 7.84 in hexadecimal digits.
 */
static const char *
using_stream(void)
{
	static const char *format = NULL;

	if (format == NULL)
		format = curl_version_info(CURLVERSION_NOW)->version_num < 0x075400 ?
			"Using Stream ID: %lx" : "Using Stream ID: %lu";
	return format;
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
 * doubt, which is safe.  None of this exists where it is not known which
 * connection a request goes to (see before_request()).
 *
 * A stream that the server refuses (REFUSED_STREAM) was not processed either
 * (8.7), but it stays in doubt: what libcurl says of that ("REFUSED_STREAM,
 * retrying a fresh connect") comes from a flag of its handle that outlives the
 * request, so it is also said of a later one whose connection has died.
 */
static int
debug_text(CURL *easy, curl_infotype type, char *text, size_t len, void *data)
{
	HttpSlot   *slot = data;
	char		line[128];
	const char *last;
	unsigned long stream;
	dlist_iter	it;

	if (type != CURLINFO_TEXT || slot->req == NULL)
		return 0;
	len = Min(len, sizeof(line) - 1);
	memcpy(line, text, len);
	line[len] = '\0';

	if (sscanf(line, using_stream(), &stream) == 1 ||
		(sscanf(line, "[HTTP/2] [%lu]", &stream) == 1 && strstr(line, "] OPENED stream for ")))
	{
		slot->stream = stream;
		engine.streams_seen = true;
	}
	else if (strstr(line, "GOAWAY, error=") && (last = strstr(line, "last_stream=")) != NULL &&
			 sscanf(last, "last_stream=%lu", &stream) == 1)
	{
		engine.ending[engine.ending_next++ % MAX_ENDING] = slot->ends;
		dlist_foreach(it, &engine.busy)
		{
			HttpSlot   *other = dlist_container(HttpSlot, node, it.cur);

			if (other->sent && same_ends(&other->ends, &slot->ends) && other->stream > stream)
				slot_refused(other);
		}
	}
	else if (strstr(line, "retrying a fresh connect") && engine.streams_seen &&
			 slot->stream == 0 && is_ending(&slot->ends))
	{
		/* it came too late to get a stream on that connection */
		slot_refused(slot);
	}
	return 0;
}
#endif

/*
 * CURLOPT_CLOSESOCKETFUNCTION: the kernel takes a closed descriptor out of the
 * set by itself.
 */
static int
close_socket(void *data, curl_socket_t fd)
{
#ifdef HAVE_CURL_PREREQ
	forget_ending(fd);
#endif
	if (fd < engine.nsockets && engine.sockets[fd].ours)
		socket_closed(&engine.sockets[fd]);
	return close(fd);
}

static const HttpCallbacks callbacks = {
	.start_lookup = start_lookup,
	.open_socket = open_socket,
	.close_socket = close_socket,
#ifdef HAVE_CURL_PREREQ
	.debug = debug_text,
#endif
};

/* ---------- engine ---------- */

/*
 * Take a slot's handle out of its multi handle, and the slot out of its list.
 */
static void
slot_stop(HttpSlot *slot)
{
	HttpMulti  *multi = slot->multi;

	dlist_delete(&slot->node);
	if (curl_multi_remove_handle(multi->handle, slot->easy) != CURLM_OK)
		multi->broken = true;
	settle_sockets(slot);
	multi->nslots--;
	slot->multi = NULL;
}

/*
 * No new request goes to the current multi handle; clean_retired() frees it.
 */
static void
retire_multi(void)
{
	dlist_push_tail(&engine.retired, &engine.multi->node);
	engine.multi = NULL;
}

/*
 * Must the slot's handle stay where it is, since it looks a name up?
 */
static bool
is_looking_up(const HttpSlot *slot)
{
	return slot->looking_up && !slot_was_sent(slot);
}

/*
 * Give up a busy slot that looks a name up: the lookup goes on, and its request
 * is nobody's.  The multi handle is retired with it, or later requests, which
 * share connections, would wait for that lookup.
 */
static void
slot_lose(HttpSlot *slot)
{
	dlist_delete(&slot->node);
	slot->req = NULL;
	dlist_push_tail(&engine.lost, &slot->node);
	engine.nlost++;
	if (slot->multi == engine.multi)
		retire_multi();
	/* so that libcurl does not abandon it either */
	curl_easy_setopt(slot->easy, CURLOPT_CONNECTTIMEOUT_MS, (long) INT_MAX);
}

/*
 * Collect the transfers that libcurl has finished in a multi handle.
 */
static void
collect_finished(HttpMulti *multi)
{
	CURLMsg    *msg;
	int			left;

	while ((msg = curl_multi_info_read(multi->handle, &left)) != NULL)
	{
		HttpSlot   *slot = NULL;
		CURLcode	rc = msg->data.result;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &slot);
		slot_stop(slot);		/* msg is gone with it */
		if (slot->req == NULL)
		{
			slot_free(slot);
			engine.nlost--;
			continue;
		}
		slot_transfer_ended(slot, rc);
		dlist_push_tail(&engine.done, &slot->node);
	}
}

/*
 * A busy slot's request ends without libcurl.
 */
static void
end_busy(HttpSlot *slot, HttpFailure failure, const char *error)
{
	HttpRequest *req = slot->req;
	bool		sent = slot_was_sent(slot);
	HttpSlot   *other;

	if (is_looking_up(slot) && failure != HTTP_FAILURE_BROKEN && (other =
																  slot_new(&callbacks)) != NULL)
	{
		/* another one takes the request's end to the caller */
		slot_lose(slot);
		other->req = req;
		req->slot = other;
		slot = other;
	}
	else
		slot_stop(slot);
	slot_answer(slot, sent ? HTTP_IN_DOUBT : HTTP_NOT_SENT, failure, error);
	dlist_push_tail(&engine.done, &slot->node);
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
		bool		connecting = slot->connect_by < slot->req->deadline && !slot_was_sent(slot);
		int64		deadline = connecting ? slot->connect_by : slot->req->deadline;

		if (deadline > now)
			engine.next_deadline = Min(engine.next_deadline, deadline);
		else if (connecting)
			end_busy(slot, HTTP_FAILURE_CONNECT_TIMEOUT, slot->looking_up ? "the name lookup timed "
					 "out" : "the connection timed out");
		else
			end_busy(slot, HTTP_FAILURE_TIMEOUT, "timeout");
	}
}

/*
 * After an internal error of libcurl: end every request in the multi handle.
 */
static void
fail_multi(HttpMulti *multi)
{
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &engine.busy)
	{
		HttpSlot   *slot = dlist_container(HttpSlot, node, it.cur);

		if (slot->multi == multi)
			end_busy(slot, HTTP_FAILURE_BROKEN, "internal error of libcurl");
	}
	dlist_foreach_modify(it, &engine.lost)
	{
		HttpSlot   *slot = dlist_container(HttpSlot, node, it.cur);

		if (slot->multi == multi)
		{
			slot_stop(slot);
			slot_free(slot);
			engine.nlost--;
		}
	}
	if (multi == engine.multi)
		retire_multi();
}

/*
 * Free a multi handle, which has no slot any more, with its connections.
 */
static void
free_multi(HttpMulti *multi)
{
	curl_multi_cleanup(multi->handle);
	for (int fd = 0; fd < engine.nsockets; fd++)
	{
		Socket	   *s = &engine.sockets[fd];

		if (s->multi != multi)
			continue;
		/* libcurl has lost it, or closed it unseen */
		if (s->ours && socket_is_open(fd))
			close(fd);
		if (s->ours)
			socket_closed(s);
		else
			memset(s, 0, sizeof(Socket));
	}
	free(multi->trust);
	free(multi);
	engine.set_stale = true;
}

/*
 * Free the retired multi handles in which nothing is under way.
 */
static void
clean_retired(void)
{
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &engine.retired)
	{
		HttpMulti  *multi = dlist_container(HttpMulti, node, it.cur);

		if (multi->nslots == 0)
		{
			dlist_delete(&multi->node);
			free_multi(multi);
		}
	}
}

/*
 * Have libcurl work in a multi handle: on a descriptor that is ready, or on
 * CURL_SOCKET_TIMEOUT.  Signals are blocked.
 */
static void
run_multi(HttpMulti *multi, curl_socket_t fd, int mask)
{
	int			running;

	if (!multi->broken &&
		curl_multi_socket_action(multi->handle, fd, mask, &running) != CURLM_OK)
		multi->broken = true;
}

/*
 * Have libcurl do in a multi handle what it wanted to do by now, and take what
 * has ended in it.  Signals are blocked.
 */
static void
turn_multi(HttpMulti *multi, int64 now)
{
	if (multi->timer_at >= 0 && multi->timer_at <= now)
	{
		multi->timer_at = -1;
		run_multi(multi, CURL_SOCKET_TIMEOUT, 0);
	}
	collect_finished(multi);
	if (multi->broken)
		fail_multi(multi);
}

/*
 * The same in all of them.
 */
static void
turn_all(int64 now)
{
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &engine.retired)
	{
		turn_multi(dlist_container(HttpMulti, node, it.cur), now);
	}
	if (engine.multi)
		turn_multi(engine.multi, now);
	clean_retired();
}

/*
 * Take lookups that were given up and have ended meanwhile.
 */
static void
take_lost(void)
{
	sigset_t	saved;

	if (engine.nlost == 0)
		return;
	enter_curl(&saved);
	for (int fd = 0; fd < engine.nsockets; fd++)
	{
		Socket	   *s = &engine.sockets[fd];

		/* libcurl's own descriptors are what its lookups tell their ends by */
		if (s->wanted != 0 && !s->ours)
			run_multi(s->multi, fd, CURL_CSELECT_IN);
	}
	turn_all(clock_now());
	leave_curl(&saved);
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
 * Free a multi handle that was not used yet, and say what is wrong.
 */
pg_noreturn static void
no_multi(HttpMulti *multi)
{
	if (multi && multi->handle)
		curl_multi_cleanup(multi->handle);
	if (multi)
		free(multi->trust);
	free(multi);
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("could not initialize libcurl")));
}

/*
 * Make a multi handle for new requests, which trust this.  Throws when out of
 * memory.
 */
static void
make_multi(const char *trust, int64 now)
{
	HttpMulti  *multi = calloc(1, sizeof(HttpMulti));

	if (multi == NULL ||
		(multi->trust = strdup(trust)) == NULL ||
		(multi->handle = curl_multi_init()) == NULL ||
		curl_multi_setopt(multi->handle, CURLMOPT_SOCKETFUNCTION, socket_wanted) != CURLM_OK ||
		curl_multi_setopt(multi->handle, CURLMOPT_SOCKETDATA, multi) != CURLM_OK ||
		curl_multi_setopt(multi->handle, CURLMOPT_TIMERFUNCTION, timer_wanted) != CURLM_OK ||
		curl_multi_setopt(multi->handle, CURLMOPT_TIMERDATA, multi) != CURLM_OK ||
		curl_multi_setopt(multi->handle, CURLMOPT_MAXCONNECTS,
						  (long) engine.max_connections) != CURLM_OK)
		no_multi(multi);
#ifdef HAVE_CURLM_QUICK_EXIT
	if (curl_multi_setopt(multi->handle, CURLMOPT_QUICK_EXIT, 1L) != CURLM_OK)
		no_multi(multi);
#endif
	multi->timer_at = -1;

	/*
	 * Before libcurl reads it, so that a change in between is seen.  One that
	 * comes right after another may leave times and size as they are.
	 */
	multi->trust_seen_at = now;
	if (stat(trust, &multi->trust_stat) == 0)
	{
		int64		age = time(NULL) - Max(multi->trust_stat.st_mtime, multi->trust_stat.st_ctime);

		if (age >= 0 && age < 2)
			multi->trust_stat.st_size = -1; /* like no file */
	}
	engine.multi = multi;
}

/*
 * What the engine needs, on first use.  Throws when out of memory.
 */
static void
prepare_engine(void)
{
	if (engine.global_init)
		return;
	dlist_init(&engine.retired);
	dlist_init(&engine.idle);
	dlist_init(&engine.busy);
	dlist_init(&engine.done);
	dlist_init(&engine.handed);
	dlist_init(&engine.lost);
	engine.max_connections = KEEP_SLOTS;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		no_multi(NULL);
	engine.global_init = true;
	if ((curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS) == 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("host names are looked up without an end in time, and not interruptibly"),
				 errdetail("The libcurl of this server was built without asynchronous lookups."),
				 errhint("Install a libcurl with a threaded resolver or c-ares.")));
}

/*
 * Is this what the multi handle's connections were made with?  libcurl keeps
 * what it has read of a CA file for a day, and the connections that it vouched
 * for as long as they are used; and a handle of it, sessions of TLS, with which
 * no certificate is looked at.  So all of them go when the file has changed.
 */
static bool
trusts(HttpMulti *multi, const char *trust, int64 now)
{
	struct stat st;

	if (strcmp(multi->trust, trust) != 0)
		return false;
	if (now < multi->trust_seen_at + TRUST_CHECK_US)
		return true;
	multi->trust_seen_at = now;
	if (stat(trust, &st) != 0)
		memset(&st, 0, sizeof(st));
	return st.st_dev == multi->trust_stat.st_dev &&
		st.st_ino == multi->trust_stat.st_ino &&
		st.st_size == multi->trust_stat.st_size &&
		memcmp(&st.st_mtim, &multi->trust_stat.st_mtim, sizeof(st.st_mtim)) == 0 &&
		memcmp(&st.st_ctim, &multi->trust_stat.st_ctim, sizeof(st.st_ctim)) == 0;
}

/*
 * A multi handle for a request of the current profile: the one that is there, or
 * a new one.  Throws when out of memory.
 */
static void
prepare_multi(void)
{
	const char *trust = profile_trust(engine.profile);
	int64		now = clock_now();

	if (engine.multi && !trusts(engine.multi, trust, now))
	{
		retire_multi();
		clean_retired();
		engine.trust_changes++;
	}
	if (engine.multi == NULL)
		make_multi(trust, now);
}

/*
 * Put a slot that is in no list back among the idle ones.
 */
static void
slot_idle(HttpSlot *slot)
{
	if (slot->used_up)
	{
		slot_free(slot);
		return;
	}
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

		if (is_looking_up(slot))
			slot_lose(slot);
		else
		{
			slot_stop(slot);
			slot_idle(slot);
		}
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
	/* libcurl cannot be told to close some connections, only all of them */
	if (engine.multi && (engine.multi->broken || engine.multi->nsockets > KEEP_SLOTS))
		retire_multi();
	clean_retired();
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
		if (engine.sockets[fd].ours && engine.sockets[fd].wanted == 0 &&
			engine.sockets[fd].multi == engine.multi)
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
		if (engine.multi)
			curl_multi_setopt(engine.multi->handle, CURLMOPT_MAXCONNECTS,
							  (long) engine.max_connections);
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
	if (engine.multi && idle_connection_closed())
		retire_multi();
	clean_retired();
	take_lost();

	/* the set needs a descriptor, which sockets would take up */
	watch_sockets();
	http_set_profile(run, profile);
	http_set_parallel(run, max_parallel);
	engine.next_deadline = PG_INT64_MAX;
	engine.run = run;
	return run;
}

/*
 * When libcurl wants to be called, PG_INT64_MAX for never.
 */
static int64
next_timer(void)
{
	int64		at = PG_INT64_MAX;
	dlist_iter	it;

	if (engine.multi && engine.multi->timer_at >= 0)
		at = engine.multi->timer_at;
	dlist_foreach(it, &engine.retired)
	{
		HttpMulti  *multi = dlist_container(HttpMulti, node, it.cur);

		if (multi->timer_at >= 0)
			at = Min(at, multi->timer_at);
	}
	return at;
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
	prepare_multi();

	if (!dlist_is_empty(&engine.idle))
	{
		slot = dlist_container(HttpSlot, node, dlist_pop_head_node(&engine.idle));
		engine.nidle--;
		if (slot->trust_changes != engine.trust_changes)
		{
			slot_free(slot);
			slot = NULL;
		}
	}
	for (int tries = 0; tries < 2; tries++)
	{
		if (slot == NULL)
			slot = slot_new(&callbacks);
		if (slot == NULL || slot_prepare(slot, req, engine.profile, engine.multiplex))
			break;
		slot_free(slot);		/* once more with a fresh handle */
		slot = NULL;
	}
	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	slot->trust_changes = engine.trust_changes;
	if (curl_multi_add_handle(engine.multi->handle, slot->easy) == CURLM_OK)
	{
		slot->multi = engine.multi;
		slot->multi->nslots++;
		dlist_push_tail(&engine.busy, &slot->node);
		engine.next_deadline = Min(engine.next_deadline, Min(req->deadline, slot->connect_by));
	}
	else
	{
		engine.multi->broken = true;
		slot_answer(slot, HTTP_NOT_SENT, HTTP_FAILURE_BROKEN, "internal error of libcurl");
		dlist_push_tail(&engine.done, &slot->node);
	}
	req->slot = slot;
}

/*
 * Wait for a request to end.
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
	WaitEvent	events[EVENTS_AT_ONCE];

	Assert(engine.run == run);
	for (;;)
	{
		int64		now = clock_now();
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
		until = Min(until, next_timer());
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
			now = clock_now();
		}

		enter_curl(&saved);
		for (int i = 0; i < nevents; i++)
		{
			int			fd = events[i].fd;
			int			mask = 0;

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
			run_multi(engine.sockets[fd].multi, fd, mask);
		}
		turn_all(now);
		if (engine.next_deadline <= now)
			expire_deadlines(now);
		leave_curl(&saved);

		if (latch)
		{
			ResetLatch(MyLatch);
		}
		if (dlist_is_empty(&engine.done) && (latch || wake_at <= now))
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
