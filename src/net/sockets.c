/*-------------------------------------------------------------------------
 *
 * sockets.c
 *	  The sockets of libcurl: counted as PostgreSQL wants it, and waited for in
 *	  a WaitEventSet.
 *
 * There are two kinds.  Those that we open for libcurl (sockets_open()) are
 * connections; each is on the account of its multi handle, and, until its
 * request's handle has left that, on the account of the request.  Those that
 * libcurl opens by itself are what its name lookups tell their ends by; we see
 * that it wants them, and not that it closes them.
 *
 * The callbacks of libcurl neither throw nor palloc; what they keep is malloc'd.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "net/sockets.h"
#include "net/stream.h"
#include "storage/fd.h"
#include "utils/memutils.h"

/* Room for sockets in a new wait event set, besides latch and postmaster. */
#define MIN_SET_SOCKETS 6

/* Idle connections that are looked at before a new request. */
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

/* What libcurl wants of a descriptor, and what the wait event set has. */
typedef struct Socket
{
	SocketAccount *multi;		/* whose it is, if wanted or ours */
	uint32		wanted;			/* WL_SOCKET_*, 0: not watched */
	uint32		watched;		/* WL_SOCKET_*, 0: not in the set */
	int			pos;			/* position in the set */
	bool		ours;			/* opened by sockets_open() */
	dev_t		device;			/* with inode: which socket it is, if ours */
	ino_t		inode;			/* see device */
	SocketAccount *request;		/* for which it was opened, until that leaves */
} Socket;

/* The records, malloc'd, by descriptor, and how many there are. */
static Socket *sockets = NULL;
static int	nsockets = 0;

/* The wait event set; it lives as long as the session. */
static WaitEventSet *set = NULL;
static int	set_size = 0;		/* its capacity */
static int	set_used = 0;		/* positions given away */
static bool set_stale = false;	/* build a new one before waiting */
static bool set_behind = false; /* a socket is wanted otherwise than watched */

/*
 * Returns the record of a descriptor, or NULL when out of memory.
 */
static Socket *
socket_entry(int fd)
{
	if (fd >= nsockets)
	{
		int			n = Max(fd + 1, nsockets * 2);
		Socket	   *more = realloc(sockets, n * sizeof(Socket));

		if (more == NULL)
			return NULL;
		memset(more + nsockets, 0, (n - nsockets) * sizeof(Socket));
		sockets = more;
		nsockets = n;
	}
	return &sockets[fd];
}

/*
 * CURLMOPT_SOCKETFUNCTION: libcurl names the sockets to watch.  multi is the
 * account of its multi handle.
 *
 * A socket that is no longer wanted stays in the wait event set, because the
 * next request on a kept connection wants it again: that saves two system
 * calls a request.  sockets_watch() has the rest of the rule.
 */
int
sockets_wanted(CURL *easy, curl_socket_t fd, int what, void *multi, void *entry)
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
				set_stale = true;
			}
	}
	if (s->wanted != 0 && s->wanted != s->watched)
		set_behind = true;
	return 0;
}

/*
 * A socket of ours is closed: PostgreSQL shall know.
 */
static void
socket_closed(Socket *s)
{
	if (s->request)
		s->request->n--;
	s->multi->n--;
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
		st.st_dev == sockets[fd].device && st.st_ino == sockets[fd].inode;
}

/*
 * Opens a socket, which is on both accounts then.  Returns CURL_SOCKET_BAD where
 * it cannot be, with *none_left set where descriptors have run out.
 */
curl_socket_t
sockets_open(SocketAccount *multi, SocketAccount *request,
			 const struct curl_sockaddr *address, bool *none_left)
{
	int			fd;
	Socket	   *s;
	struct stat st;

	if (!AcquireExternalFD())
	{
		*none_left = true;
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd < 0)
	{
		if (errno == EMFILE || errno == ENFILE)
			*none_left = true;
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
	s->request = request;
	request->n++;
	s->multi = multi;
	multi->n++;
	return fd;
}

/*
 * CURLOPT_CLOSESOCKETFUNCTION: closes a socket that sockets_open() opened.  The
 * kernel takes a closed descriptor out of the set by itself.  Nothing is given as
 * data, because a connection may outlive the handle that it was made for.
 */
int
sockets_close(void *data, curl_socket_t fd)
{
	stream_connection_closed(fd);
	if (fd < nsockets && sockets[fd].ours)
		socket_closed(&sockets[fd]);
	return close(fd);
}

/*
 * The request's handle has left its multi handle: clears the account of the
 * request.  Some versions of libcurl (7.87 to 7.88) close a socket that is still
 * being connected without telling.
 */
void
sockets_settle(SocketAccount *request)
{
	for (int fd = 0; fd < nsockets && request->n > 0; fd++)
	{
		Socket	   *s = &sockets[fd];

		if (s->request != request)
			continue;
		if (socket_is_open(fd))
		{
			/* it is a connection that is kept */
			s->request = NULL;
			request->n--;
		}
		else
			socket_closed(s);
	}
}

/*
 * The multi handle is gone: closes what libcurl has lost of its sockets, takes
 * note of what it has closed unseen, and clears the account.
 */
void
sockets_close_all(SocketAccount *multi)
{
	for (int fd = 0; fd < nsockets; fd++)
	{
		Socket	   *s = &sockets[fd];

		if (s->multi != multi)
			continue;
		if (s->ours && socket_is_open(fd))
			close(fd);
		if (s->ours)
			socket_closed(s);
		else
			memset(s, 0, sizeof(Socket));
	}
	set_stale = true;
}

/*
 * Did a server close a connection of the multi handle that is idle?  A request
 * that is sent on it would be in doubt.  libcurl looks before it uses a
 * connection again; from 8.22 on not if it has looked within the last second.
 */
bool
sockets_idle_closed(const SocketAccount *multi)
{
	static int	looks = -1;
	struct pollfd idle[MAX_LOOKED_AT];
	int			n = 0;

	if (looks < 0)
		looks = curl_version_info(CURLVERSION_NOW)->version_num < 0x081600;
	if (looks)
		return false;
	for (int fd = 0; fd < nsockets && n < MAX_LOOKED_AT; fd++)
	{
		if (sockets[fd].ours && sockets[fd].wanted == 0 && sockets[fd].multi == multi)
		{
			idle[n].fd = fd;
			idle[n++].events = CLOSED_BY_PEER;
		}
	}
	return n > 0 && poll(idle, n, 0) > 0;
}

/*
 * Returns the next descriptor, from fd on, by which a name lookup will tell its
 * end, with the account of its multi handle; or -1.
 */
int
sockets_next_lookup(int fd, SocketAccount **multi)
{
	for (; fd < nsockets; fd++)
	{
		if (sockets[fd].wanted != 0 && !sockets[fd].ours)
		{
			*multi = sockets[fd].multi;
			return fd;
		}
	}
	return -1;
}

/*
 * Makes the wait event set watch what libcurl wants.
 *
 * A set has no removal, so a socket that is not wanted any more stays until it
 * is closed (the kernel drops it then) or fires (sockets_ready() then asks for a
 * new set, or the wait would spin).  Throws when a set cannot be made; the old
 * one is gone then and the next call makes one.
 */
void
sockets_watch(void)
{
	while (set == NULL || set_stale || set_behind)
	{
		int			nwanted = 0;
		bool		full = false;

		if (set == NULL || set_stale)
		{
			for (int fd = 0; fd < nsockets; fd++)
			{
				sockets[fd].watched = 0;
				if (sockets[fd].wanted)
					nwanted++;
			}
			if (set)
				FreeWaitEventSet(set);
			set = NULL;
			set_size = 2 + Max(MIN_SET_SOCKETS, 2 * nwanted);
			set = create_session_wait_event_set(set_size);
			set_used = 2;
			AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
			if (IsUnderPostmaster)
				AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
			set_stale = false;
		}
		for (int fd = 0; fd < nsockets; fd++)
		{
			Socket	   *s = &sockets[fd];

			if (s->wanted == 0 || s->wanted == s->watched)
				continue;
			if (s->watched != 0)
				ModifyWaitEvent(set, s->pos, s->wanted, NULL);
			else if (set_used < set_size)
			{
				s->pos = AddWaitEventToSet(set, s->wanted, fd, NULL, NULL);
				set_used++;
			}
			else
			{
				full = true;
				break;
			}
			s->watched = s->wanted;
		}
		set_behind = false;
		set_stale = full;
	}
}

/*
 * Waits for what libcurl wants, for the latch, and for at most so many
 * milliseconds (-1: for ever).  Returns how many events there are.  Exits when
 * the postmaster dies.  Throws when the wait event set cannot be made.
 */
int
sockets_wait(long timeout_ms, WaitEvent *events, int max_events, uint32 wait_event)
{
	sockets_watch();
	return WaitEventSetWait(set, timeout_ms, events, max_events, wait_event);
}

/*
 * Returns the account of the multi handle whose socket the event is about, with
 * CURL_CSELECT_* in *what, or NULL where nobody wants to know.
 */
SocketAccount *
sockets_ready(const WaitEvent *event, int *what)
{
	if (event->fd < 0 || event->fd >= nsockets || sockets[event->fd].wanted == 0)
	{
		set_stale = true;
		return NULL;
	}
	*what = 0;
	if (event->events & WL_SOCKET_READABLE)
		*what |= CURL_CSELECT_IN;
	if (event->events & WL_SOCKET_WRITEABLE)
		*what |= CURL_CSELECT_OUT;
	return sockets[event->fd].multi;
}
