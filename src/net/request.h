/*-------------------------------------------------------------------------
 *
 * request.h
 *	  An HTTP request, and what comes of it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_REQUEST_H
#define SEAM_IK_REQUEST_H

/* Headers that a caller may set on its requests. */
#define HTTP_MAX_HEADERS 8

/* All headers of one answer together; libcurl's own limits are lower. */
#define HTTP_MAX_ANSWER_HEADERS (1024 * 1024)

/* A header value that is handed on (request id, date), with its end. */
#define HTTP_HEADER_VALUE_SIZE 128

/* Text of libcurl about a failure; CURL_ERROR_SIZE, checked in handle.c. */
#define HTTP_ERROR_SIZE 256

/* What is known of a request's fate. */
typedef enum HttpOutcome
{
	HTTP_ANSWERED,				/* a whole answer, of whatever status */
	HTTP_NOT_SENT,				/* not a byte of the request left */
	HTTP_IN_DOUBT,				/* it may have been received and processed */
	HTTP_TOO_LARGE				/* an answer came, over the limit */
} HttpOutcome;

/* Why a request has no whole answer. */
typedef enum HttpFailure
{
	HTTP_FAILURE_NONE,			/* it has one */
	HTTP_FAILURE_RESOLVE,		/* name not resolved */
	HTTP_FAILURE_CONNECT,		/* no connection */
	HTTP_FAILURE_CERTIFICATE,	/* the server's certificate, or our CA file */
	HTTP_FAILURE_TLS,			/* TLS handshake */
	HTTP_FAILURE_TIMEOUT,		/* the request's deadline */
	HTTP_FAILURE_CONNECT_TIMEOUT,	/* connect_timeout */
	HTTP_FAILURE_DESCRIPTORS,	/* no file descriptor left for a socket */
	HTTP_FAILURE_BROKEN			/* anything else: reset, truncated, not HTTP */
} HttpFailure;

/* What came of a request. */
typedef struct HttpAnswer
{
	HttpOutcome outcome;		/* what is known of the request's fate */
	HttpFailure failure;		/* why there is no whole answer */
	int			status;			/* HTTP status, 0 when none came */
	int			retry_after;	/* seconds asked for by the server, or 0 */
	char	   *body;			/* ends in a NUL beyond body_len; may be
								 * changed */
	size_t		body_len;		/* bytes */
	char		request_id[HTTP_HEADER_VALUE_SIZE]; /* seam-request-id */
	char		date[HTTP_HEADER_VALUE_SIZE];	/* Date, or "" */
	char		error[HTTP_ERROR_SIZE]; /* what libcurl says of a failure */
	bool		opened;			/* a connection was made for it */
	int64		sent;			/* bytes of the request */
	int64		received;		/* bytes of the answer, its head included */
	int64		took;			/* microseconds */
} HttpAnswer;

/* What requests of one account have in common. */
typedef struct HttpProfile
{
	const char *ca_file;		/* CA bundle, or "" for the system's */
	int			nheaders;		/* of the next */
	const char *headers[HTTP_MAX_HEADERS];	/* "Name: value" */
} HttpProfile;

/*
 * A request.  The caller owns it and fills in the first part, which must stay
 * valid until http_release().
 */
typedef struct HttpRequest
{
	const char *url;			/* one that url_problem() allows */
	const char *body;			/* sent by POST, as it is */
	size_t		body_len;		/* bytes */
	int64		deadline;		/* on clock_now()'s clock */
	int			connect_timeout;	/* milliseconds */
	size_t		max_answer;		/* bytes of an answer's body */
	void	   *owner;			/* the caller's */

	/* the transport's */
	HttpAnswer	answer;			/* filled in when the request has ended */
	struct Handle *handle;		/* until http_release(), or NULL */
} HttpRequest;

#endif							/* SEAM_IK_REQUEST_H */
