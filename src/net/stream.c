/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  Which requests a server surely did not process that ended their HTTP/2
 *	  connection.
 *
 * A server ends such a connection with a GOAWAY frame that names the last
 * stream that it has processed or will process; the requests of later streams
 * surely are not (RFC 9113, 6.8), and may be sent again.  A common server does
 * that after each 1,000 requests, so without this knowledge many requests of a
 * large batch would end in doubt.  libcurl tells of GOAWAY nowhere but in its
 * texts for people: those of 7.88 ("Using Stream ID: 1", "recveived GOAWAY,
 * error=0, last_stream=1") and of 8.x ("[HTTP/2] [1] OPENED stream for",
 * "received GOAWAY, ...").  Where a version says it otherwise, the requests stay
 * in doubt, which is safe.
 *
 * A stream that the server refuses (REFUSED_STREAM) was not processed either
 * (8.7), but it stays in doubt: what libcurl says of that ("REFUSED_STREAM,
 * retrying a fresh connect") comes from a flag of its handle that outlives the
 * request, so it is also said of a later one whose connection has died.
 *
 * Everything here is called within libcurl: it neither throws nor allocates.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "net/stream.h"

/* Connections that servers are ending, to be remembered at once. */
#define MAX_ENDING 16

/* Streams that were sent; some of them may have ended. */
static dlist_head sent = DLIST_STATIC_INIT(sent);

/* We understand how this libcurl tells of a request's stream. */
static bool streams_seen = false;

/* Connections that servers are ending, and where the next one goes. */
static StreamEnds ending[MAX_ENDING];
static int	ending_next = 0;

/*
 * Returns our port of a connection, or -1.
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
same_ends(const StreamEnds *a, const StreamEnds *b)
{
	return a->our_port != 0 &&
		a->our_port == b->our_port && a->their_port == b->their_port &&
		strcmp(a->ours, b->ours) == 0 && strcmp(a->theirs, b->theirs) == 0;
}

/*
 * Is the server ending this connection?
 */
static bool
is_ending(const StreamEnds *ends)
{
	for (int i = 0; i < MAX_ENDING; i++)
	{
		if (same_ends(&ending[i], ends))
			return true;
	}
	return false;
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
 * Forgets what is known of a request's stream: the request has ended, or none
 * was sent yet.  A stream whose bytes are all zero is like one that was reset.
 */
void
stream_reset(Stream *stream)
{
	if (stream->ends.our_port != 0)
		dlist_delete(&stream->node);
	stream->ends.our_port = 0;
	stream->id = 0;
	stream->refused_at = 0;
}

/*
 * The stream's request is about to be sent on the connection with these ends.
 */
void
stream_sent(Stream *stream, const char *ours, int our_port,
			const char *theirs, int their_port)
{
	stream_reset(stream);
	if (our_port <= 0)
		return;
	strlcpy(stream->ends.ours, ours, sizeof(stream->ends.ours));
	strlcpy(stream->ends.theirs, theirs, sizeof(stream->ends.theirs));
	stream->ends.our_port = our_port;
	stream->ends.their_port = their_port;
	dlist_push_tail(&sent, &stream->node);
}

/*
 * Takes what libcurl tells of its doings with the stream's request, a text of
 * len bytes; see the head of this file.
 */
void
stream_told(Stream *stream, const char *text, size_t len)
{
	char		line[128];
	const char *last;
	unsigned long id;
	dlist_iter	it;

	len = Min(len, sizeof(line) - 1);
	memcpy(line, text, len);
	line[len] = '\0';

	if (sscanf(line, using_stream(), &id) == 1 ||
		(sscanf(line, "[HTTP/2] [%lu]", &id) == 1 && strstr(line, "] OPENED stream for ")))
	{
		stream->id = id;
		streams_seen = true;
	}
	else if (strstr(line, "GOAWAY, error=") && (last = strstr(line, "last_stream=")) != NULL &&
			 sscanf(last, "last_stream=%lu", &id) == 1)
	{
		ending[ending_next++ % MAX_ENDING] = stream->ends;
		dlist_foreach(it, &sent)
		{
			Stream	   *other = dlist_container(Stream, node, it.cur);

			if (same_ends(&other->ends, &stream->ends) && other->id > id)
				other->refused_at = clock_now();
		}
	}
	else if (strstr(line, "retrying a fresh connect") && streams_seen &&
			 stream->id == 0 && is_ending(&stream->ends))
	{
		/* it came too late to get a stream on that connection */
		stream->refused_at = clock_now();
	}
}

/*
 * The connection of this descriptor is about to be closed: the next one may have
 * the same ends, so it is forgotten that the server was ending it.  (Of one that
 * the server has reset, only our port is still known, and to forget too much is
 * safe.)
 */
void
stream_connection_closed(int fd)
{
	int			port = 0;

	for (int i = 0; i < MAX_ENDING; i++)
	{
		if (ending[i].our_port == 0)
			continue;
		if (port == 0)
			port = local_port(fd);
		if (port < 0 || ending[i].our_port == port)
			ending[i].our_port = 0;
	}
}
