/*-------------------------------------------------------------------------
 *
 * multi.c
 *	  libcurl's multi handles: the one for new requests, and those that are
 *	  used until what is under way in them has ended.
 *
 * A multi handle is used until it is retired: because of an error, or because
 * its connections or a lookup in it shall be of no concern to later requests.
 * Requests that are under way in it then end there, and later ones go to a new
 * one.  It is freed when the last handle has left it.
 *
 * All signals are blocked while libcurl may start a thread, which is in
 * curl_multi_socket_action(): a resolver thread inherits the mask, and
 * PostgreSQL's signal handlers must run on the main thread.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "lib/ilist.h"
#include "net/multi.h"

/* How often it is looked whether the trusted CA certificates have changed. */
#define TRUST_CHECK_US (1000 * 1000)

/* Events taken from the kernel in one go. */
#define EVENTS_AT_ONCE 64

/* A multi handle of libcurl; malloc'd. */
typedef struct Multi
{
	SocketAccount sockets;		/* the open ones; first, see multi_of() */
	dlist_node	node;			/* in retired, or nowhere */
	CURLM	   *curlm;			/* libcurl's */
	int			nhandles;		/* handles in it */
	int64		timer_at;		/* when it wants to be called, or -1 */
	bool		broken;			/* it had an internal error */
	char	   *trust;			/* profile_trust() of its requests */
	struct stat trust_stat;		/* of that, zeroes where there is none */
	int64		trust_seen_at;	/* when trust_stat was last compared */
} Multi;

StaticAssertDecl(offsetof(Multi, sockets) == 0,
				 "a multi handle must begin with its account of sockets");

/* For new requests, or NULL. */
static Multi *current = NULL;

/* Those with requests under way. */
static dlist_head retired = DLIST_STATIC_INIT(retired);

/* CURLMOPT_MAXCONNECTS */
static int	max_connections = MULTI_KEEP;

/* How often a new multi handle was made because the trust was another one. */
static uint32 trust_changes = 0;

/*
 * Returns the multi handle that the handle is in, or NULL.
 */
static Multi *
multi_of(const Handle *handle)
{
	return (Multi *) handle->multi;
}

/*
 * Blocks every signal while libcurl may start a thread, which inherits the
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
 * Undoes enter_curl().
 */
static inline void
leave_curl(const sigset_t *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

/*
 * CURLMOPT_TIMERFUNCTION: libcurl wants to be called in so many milliseconds.
 */
static int
timer_wanted(CURLM *curlm, long timeout_ms, void *multi)
{
	((Multi *) multi)->timer_at = timeout_ms < 0 ? -1 : clock_now() + (int64) timeout_ms * 1000;
	return 0;
}

/*
 * Frees a multi handle that was not used yet (or NULL), and says what is wrong.
 */
pg_noreturn static void
no_multi(Multi *multi)
{
	if (multi && multi->curlm)
		curl_multi_cleanup(multi->curlm);
	if (multi)
		free(multi->trust);
	free(multi);
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("could not initialize libcurl")));
}

/*
 * Makes a multi handle for new requests, which trust this.  Throws when out of
 * memory.
 */
static void
make_multi(const char *trust, int64 now)
{
	Multi	   *multi = calloc(1, sizeof(Multi));

	if (multi == NULL ||
		(multi->trust = strdup(trust)) == NULL ||
		(multi->curlm = curl_multi_init()) == NULL ||
		curl_multi_setopt(multi->curlm, CURLMOPT_SOCKETFUNCTION, sockets_wanted) != CURLM_OK ||
		curl_multi_setopt(multi->curlm, CURLMOPT_SOCKETDATA, &multi->sockets) != CURLM_OK ||
		curl_multi_setopt(multi->curlm, CURLMOPT_TIMERFUNCTION, timer_wanted) != CURLM_OK ||
		curl_multi_setopt(multi->curlm, CURLMOPT_TIMERDATA, multi) != CURLM_OK ||
		curl_multi_setopt(multi->curlm, CURLMOPT_MAXCONNECTS, (long) max_connections) != CURLM_OK)
		no_multi(multi);
#ifdef HAVE_CURLM_QUICK_EXIT
	if (curl_multi_setopt(multi->curlm, CURLMOPT_QUICK_EXIT, 1L) != CURLM_OK)
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
	current = multi;
}

/*
 * Prepares libcurl, on first use in this process.  Throws when out of memory.
 */
void
multi_init(void)
{
	static bool done = false;

	if (done)
		return;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		no_multi(NULL);
	done = true;
	if ((curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS) == 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("host names are looked up without an end in time, and not interruptibly"),
				 errdetail("The libcurl of this server was built without asynchronous lookups."),
				 errhint("Install a libcurl with a threaded resolver or c-ares.")));
}

/*
 * No new request goes to the current multi handle; multi_clean() frees it.
 */
static void
retire_current(void)
{
	dlist_push_tail(&retired, &current->node);
	current = NULL;
}

/*
 * Frees the retired multi handles in which nothing is under way, with their
 * connections; one that had an error is retired before.  Never throws.
 */
void
multi_clean(void)
{
	dlist_mutable_iter it;

	if (current && current->broken)
		retire_current();
	dlist_foreach_modify(it, &retired)
	{
		Multi	   *multi = dlist_container(Multi, node, it.cur);

		if (multi->nhandles > 0)
			continue;
		dlist_delete(&multi->node);
		curl_multi_cleanup(multi->curlm);
		sockets_close_all(&multi->sockets);
		free(multi->trust);
		free(multi);
	}
}

/*
 * To be called before the first request after a while: connections that a server
 * has closed meanwhile are not used.
 */
void
multi_look_at_idle(void)
{
	if (current && sockets_idle_closed(&current->sockets))
		retire_current();
	multi_clean();
}

/*
 * Keep this many connections open between requests.
 */
void
multi_set_connections(int n)
{
	if (n == max_connections)
		return;
	max_connections = n;
	if (current)
		curl_multi_setopt(current->curlm, CURLMOPT_MAXCONNECTS, (long) n);
}

/*
 * To be called when no request is under way: keeps no more than MULTI_KEEP
 * connections.  libcurl cannot be told to close some, only all of them.
 */
void
multi_trim(void)
{
	if (current && current->sockets.n > MULTI_KEEP)
		retire_current();
	multi_clean();
}

/*
 * Is this what the multi handle's connections were made with?  libcurl keeps
 * what it has read of a CA file for a day, and the connections that it vouched
 * for as long as they are used; and a handle of it, sessions of TLS, with which
 * no certificate is looked at.  So all of them go when the file has changed.
 */
static bool
trusts(Multi *multi, const char *trust, int64 now)
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
 * New requests trust this CA file or directory (profile_trust()).  Returns a
 * number: a handle that was used when it was another one must not be used again.
 * Throws when out of memory.
 */
uint32
multi_trust(const char *trust)
{
	int64		now = clock_now();

	if (current && !trusts(current, trust, now))
	{
		retire_current();
		multi_clean();
		trust_changes++;
	}
	if (current == NULL)
		make_multi(trust, now);
	return trust_changes;
}

/*
 * Starts the handle's request; multi_trust() was called before.  Returns whether
 * libcurl could do that; if not, the current multi handle is broken.
 */
bool
multi_add(Handle *handle)
{
	if (curl_multi_add_handle(current->curlm, handle->easy) != CURLM_OK)
	{
		current->broken = true;
		return false;
	}
	handle->multi = &current->sockets;
	current->nhandles++;
	return true;
}

/*
 * Takes a handle out of its multi handle, whatever its request is at.
 */
void
multi_remove(Handle *handle)
{
	Multi	   *multi = multi_of(handle);

	if (curl_multi_remove_handle(multi->curlm, handle->easy) != CURLM_OK)
		multi->broken = true;
	sockets_settle(&handle->sockets);
	multi->nhandles--;
	handle->multi = NULL;
}

/*
 * No new request goes to where this handle is.
 */
void
multi_leave(const Handle *handle)
{
	if (current && multi_of(handle) == current)
		retire_current();
}

/*
 * Has the multi handle that this handle is in had an internal error?  All its
 * requests have to end then.
 */
bool
multi_is_broken(const Handle *handle)
{
	return multi_of(handle)->broken;
}

/*
 * Has libcurl work in a multi handle: on a descriptor that is ready, or on
 * CURL_SOCKET_TIMEOUT.  Signals are blocked.
 */
static void
run_multi(Multi *multi, curl_socket_t fd, int what)
{
	int			running;

	if (!multi->broken &&
		curl_multi_socket_action(multi->curlm, fd, what, &running) != CURLM_OK)
		multi->broken = true;
}

/*
 * Has libcurl do in a multi handle what it wanted to do by now, and hands on
 * what has ended in it.  Signals are blocked.  Returns whether it is broken.
 */
static bool
turn_multi(Multi *multi, int64 now, MultiConsumer ended)
{
	CURLMsg    *msg;
	int			left;

	if (multi->timer_at >= 0 && multi->timer_at <= now)
	{
		multi->timer_at = -1;
		run_multi(multi, CURL_SOCKET_TIMEOUT, 0);
	}
	while ((msg = curl_multi_info_read(multi->curlm, &left)) != NULL)
	{
		Handle	   *handle = NULL;
		CURLcode	rc = msg->data.result;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &handle);
		multi_remove(handle);	/* msg is gone with it */
		ended(handle, rc);
	}
	return multi->broken;
}

/*
 * The same in all of them.  Returns whether one is broken.
 */
static bool
turn_all(int64 now, MultiConsumer ended)
{
	bool		broken = false;
	dlist_iter	it;

	dlist_foreach(it, &retired)
	{
		broken |= turn_multi(dlist_container(Multi, node, it.cur), now, ended);
	}
	if (current)
		broken |= turn_multi(current, now, ended);
	if (!broken)
		multi_clean();
	return broken;
}

/*
 * Returns when libcurl wants to be called, PG_INT64_MAX for never.
 */
static int64
next_timer(void)
{
	int64		at = PG_INT64_MAX;
	dlist_iter	it;

	if (current && current->timer_at >= 0)
		at = current->timer_at;
	dlist_foreach(it, &retired)
	{
		Multi	   *multi = dlist_container(Multi, node, it.cur);

		if (multi->timer_at >= 0)
			at = Min(at, multi->timer_at);
	}
	return at;
}

/*
 * Waits until something is ready, or the time until (clock_now()'s clock;
 * PG_INT64_MAX for never) has come, and has libcurl work.  Where the time has
 * come, look says whether it is looked for what is ready, without waiting.
 *
 * What has ended goes to ended().  *now is the time, before and after the wait;
 * *latch tells whether the latch was set, because of which it was not looked for what is
 * ready; *ready, whether anything was.  Returns whether a multi handle is
 * broken: its requests are to be ended, and multi_clean() to be called.  Exits
 * when the postmaster dies.  Throws when the wait event set cannot be made.
 */
bool
multi_turn(int64 *now, int64 until, bool look, uint32 wait_event,
		   MultiConsumer ended, bool *latch, bool *ready)
{
	WaitEvent	events[EVENTS_AT_ONCE];
	int			nevents = 0;
	bool		broken;
	sigset_t	saved;

	*latch = *ready = false;
	until = Min(until, next_timer());
	if (until > *now || look)
	{
		long		timeout_ms = -1;

		/* rounded up: a deadline is never early by a spin of short waits */
		if (until <= *now)
			timeout_ms = 0;
		else if (until != PG_INT64_MAX)
			timeout_ms = (long) Min((until - *now + 999) / 1000, INT_MAX);
		nevents = sockets_wait(timeout_ms, events, EVENTS_AT_ONCE, wait_event);
		*now = clock_now();
	}

	enter_curl(&saved);
	for (int i = 0; i < nevents; i++)
	{
		SocketAccount *account;
		int			what;

		if (events[i].events & WL_LATCH_SET)
			*latch = true;
		else if ((account = sockets_ready(&events[i], &what)) != NULL)
		{
			run_multi((Multi *) account, events[i].fd, what);
			*ready = true;
		}
	}
	broken = turn_all(*now, ended);
	leave_curl(&saved);
	return broken;
}

/*
 * Takes note of name lookups that have ended, without waiting.  What has ended
 * with them goes to ended().  Returns whether a multi handle is broken.
 */
bool
multi_end_lookups(MultiConsumer ended)
{
	SocketAccount *account;
	bool		broken;
	sigset_t	saved;

	enter_curl(&saved);
	for (int fd = -1; (fd = sockets_next_lookup(fd + 1, &account)) >= 0;)
		run_multi((Multi *) account, fd, CURL_CSELECT_IN);
	broken = turn_all(clock_now(), ended);
	leave_curl(&saved);
	return broken;
}
