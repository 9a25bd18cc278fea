/*-------------------------------------------------------------------------
 *
 * handle.h
 *	  One easy handle of libcurl and what belongs to it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_HANDLE_H
#define SEAM_IK_HANDLE_H

#include <curl/curl.h>

#include "base/compat.h"
#include "net/profile.h"
#include "net/request.h"
#include "net/sockets.h"
#include "net/stream.h"
#include "lib/ilist.h"

/* An easy handle of libcurl with what belongs to it; malloc'd, used again. */
typedef struct Handle
{
	dlist_node	node;			/* in a list of http.c */
	CURL	   *easy;			/* libcurl's */
	SocketAccount *multi;		/* of the multi handle that easy is in, or
								 * NULL */
	uint32		trust_changes;	/* multi_trust() when it was last used */

	/* what easy is set up with */
	Profile    *profile;		/* or NULL */
	char	   *url;			/* or NULL */
	CURLU	   *parsed_url;		/* the same, parsed once; easy refers to it */
	bool		numeric;		/* the URL's host needs no lookup */
	int			connect_timeout;	/* milliseconds */
	bool		multiplex;		/* its request may share a connection */

	/* the request, and how far it has come */
	HttpRequest *req;			/* NULL when there is none, or it was lost */
	bool		lost;			/* its request was given up in a lookup */
	int64		begun_at;		/* clock_now()'s clock */
	int64		connect_by;		/* clock_now()'s clock; until it is sent */
	bool		looking_up;		/* a name lookup may be under way */
	bool		too_many_lookups;	/* one more was refused */
	SocketAccount sockets;		/* opened for the request, and not settled */
	bool		sent;			/* bytes of the request may have left */
	Stream		stream;			/* it, on a connection that it may share */
	bool		resend;			/* libcurl wanted to send it again */
	bool		used_up;		/* easy is good for no other request */
	bool		too_large;		/* the answer is over a limit */
	bool		no_descriptor;	/* there was none for a socket */
	size_t		body_left;		/* bytes of the request's body that are not
								 * read yet, where a callback reads it */

	/* the answer */
	size_t		header_bytes;	/* of all its headers */
	char	   *buf;			/* its body with a NUL behind it, or NULL */
	size_t		len;			/* bytes of the body */
	size_t		cap;			/* bytes of buf */
	char		errbuf[CURL_ERROR_SIZE];	/* libcurl's text about a failure */
} Handle;

extern Handle *handle_new(void);
extern bool handle_prepare(Handle *handle, HttpRequest *req, Profile *profile, bool multiplex);
extern bool handle_was_sent(const Handle *handle);
extern bool handle_is_looking_up(const Handle *handle);
extern int64 handle_deadline(const Handle *handle, bool *connecting);
extern void handle_lose(Handle *handle);
extern bool handle_any_lost(void);
extern void handle_answer(Handle *handle, HttpOutcome outcome, HttpFailure failure,
						  const char *error);
extern void handle_transfer_ended(Handle *handle, CURLcode rc);
extern void handle_rest(Handle *handle);
extern void handle_free(Handle *handle);

#endif							/* SEAM_IK_HANDLE_H */
