/*-------------------------------------------------------------------------
 *
 * http_handle.h
 *	  One libcurl handle and what belongs to it.  Private to http.c and
 *	  http_handle.c, the only files that see curl.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_HTTP_HANDLE_H
#define SEAM_IK_HTTP_HANDLE_H

#include <curl/curl.h>

#include "base/compat.h"
#include "net/request.h"
#include "lib/ilist.h"

/*
 * A copy of an HttpProfile in the form that libcurl wants, malloc'd.  A handle
 * in flight refers to it, so it is counted.
 */
typedef struct Profile
{
	int			refs;
	struct curl_slist *headers;
	char	   *ca_file;		/* "" for the system's */
} Profile;

/*
 * Both ends of a connection, which together no other one has at the same time;
 * the ports of two servers' connections may be the same.
 */
typedef struct HttpEnds
{
	char		ours[46];		/* address, as text */
	char		theirs[46];		/* likewise */
	int			our_port;		/* 0: no connection */
	int			their_port;
} HttpEnds;

/*
 * The callbacks that see more than one handle, which are the engine's.  The data of
 * all of them is the slot, but for close_socket, which gets NULL: a connection may
 * outlive the slot.
 */
typedef struct HttpCallbacks
{
	int			(*start_lookup) (void *resolver, void *reserved, void *slot);
	curl_socket_t (*open_socket) (void *slot, curlsocktype purpose,
								  struct curl_sockaddr *address);
	int			(*close_socket) (void *data, curl_socket_t fd);
#ifdef HAVE_CURL_PREREQ
	int			(*debug) (CURL *easy, curl_infotype type, char *text, size_t len,
						  void *slot);
#endif
} HttpCallbacks;

/* A libcurl easy handle with what belongs to it; malloc'd, used again. */
typedef struct HttpSlot
{
	dlist_node	node;			/* in engine.idle, .busy, .done, .handed or
								 * .lost */
	CURL	   *easy;
	struct HttpMulti *multi;	/* the multi handle that easy is in, or NULL */
	Profile    *profile;		/* what easy is set up with, or NULL */
	char	   *url;			/* likewise */
	CURLU	   *parsed_url;		/* the same, parsed once; easy refers to it */
	bool		numeric;		/* its host needs no lookup */
	int			connect_timeout;	/* likewise */
	bool		multiplex;		/* likewise */
	uint32		trust_changes;	/* engine.trust_changes when easy was last
								 * used */
	HttpRequest *req;			/* NULL when idle or lost */
	int64		connect_by;		/* clock_now()'s clock; until it is sent */
	bool		looking_up;		/* a name lookup may be under way */
	bool		too_many_lookups;	/* one more was refused */
	int			nsockets;		/* opened for the request, and not settled */
	bool		sent;			/* bytes of the request may have left */
	HttpEnds	ends;			/* of the connection it went to, if multiplex */
	unsigned long stream;		/* its HTTP/2 stream there, 0: not known */
	bool		refused;		/* HTTP/2: surely not processed there */
	bool		resend;			/* libcurl wanted to send it again */
	bool		used_up;		/* easy is good for no other request */
	bool		too_large;
	bool		no_descriptor;
	size_t		body_left;		/* where the body is read by a callback */
	size_t		header_bytes;
	char	   *buf;
	size_t		len;
	size_t		cap;
	char		errbuf[CURL_ERROR_SIZE];
} HttpSlot;

extern Profile *profile_copy(const HttpProfile *given);
extern bool profile_matches(const Profile *p, const HttpProfile *given);
extern void profile_unref(Profile *p);
extern const char *profile_trust(const Profile *p);

extern HttpSlot *slot_new(const HttpCallbacks *callbacks);
extern bool slot_prepare(HttpSlot *slot, HttpRequest *req, Profile *profile,
						 bool multiplex);
extern bool slot_was_sent(const HttpSlot *slot);
extern void slot_answer(HttpSlot *slot, HttpOutcome outcome, HttpFailure failure,
						const char *error);
extern void slot_transfer_ended(HttpSlot *slot, CURLcode rc);
extern void slot_free(HttpSlot *slot);

#endif							/* SEAM_IK_HTTP_HANDLE_H */
