/*-------------------------------------------------------------------------
 *
 * stream.h
 *	  Which requests a server surely did not process that ended their HTTP/2
 *	  connection.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STREAM_H
#define SEAM_IK_STREAM_H

#include "lib/ilist.h"

/*
 * Both ends of a connection, which together no other one has at the same time;
 * the ports of two servers' connections may be the same.
 */
typedef struct StreamEnds
{
	char		ours[46];		/* our address, as text */
	char		theirs[46];		/* the server's address, as text */
	int			our_port;		/* our port; 0: no connection */
	int			their_port;		/* the server's port */
} StreamEnds;

/* A request as a stream of a connection that it may share with others. */
typedef struct Stream
{
	dlist_node	node;			/* in the list of those that were sent, or
								 * nowhere */
	StreamEnds	ends;			/* of the connection it was sent on */
	unsigned long id;			/* its number there, 0: not known */
	int64		refused_at;		/* clock_now() when it turned out that it was
								 * surely not processed, or 0 */
} Stream;

extern void stream_reset(Stream *stream);
extern void stream_sent(Stream *stream, const char *ours, int our_port,
						const char *theirs, int their_port);
extern void stream_told(Stream *stream, const char *text, size_t len);
extern void stream_connection_closed(int fd);

#endif							/* SEAM_IK_STREAM_H */
