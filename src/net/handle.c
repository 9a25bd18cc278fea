/*-------------------------------------------------------------------------
 *
 * handle.c
 *	  One easy handle of libcurl: its options, what it may send, and what comes
 *	  back.
 *
 * A request whose bytes may have left is never sent again by libcurl on its own
 * (see before_request()).  A name lookup is never abandoned, because its thread
 * cannot be ended and would be counted by nobody: where its request is given up,
 * the handle is lost, and stays in its multi handle until the lookup ends.
 *
 * Nothing here throws; callbacks of libcurl neither palloc nor ereport nor check
 * for interrupts.  What is kept is malloc'd.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "base/clock.h"
#include "net/handle.h"
#include "net/url.h"

/*
 * Idle connections older than this are not used again.  Proxies and load
 * balancers commonly close theirs after 60 seconds, and a request that crosses
 * with the close is in doubt.
 */
#define MAX_IDLE_SECONDS 50L

/* Name lookups that were given up and go on; each has a thread. */
#define MAX_LOST_LOOKUPS 16

/* A receive buffer larger than this is given back after the request. */
#define KEEP_BUFFER (16 * 1024)

StaticAssertDecl(HTTP_ERROR_SIZE >= CURL_ERROR_SIZE,
				 "HTTP_ERROR_SIZE must hold libcurl's error text");

/* How many handles are lost. */
static int	nlost = 0;

/* ---------- callbacks ---------- */

/*
 * CURLOPT_RESOLVER_START_FUNCTION: an address is not known yet.  Those that are
 * their own name, which need no lookup, come here, too.
 */
static int
start_lookup(void *resolver, void *reserved, void *data)
{
	Handle	   *handle = data;

	if (!handle->numeric && nlost >= MAX_LOST_LOOKUPS)
	{
		handle->too_many_lookups = true;
		return 1;
	}
	handle->looking_up = !handle->numeric;
	return 0;
}

/*
 * CURLOPT_OPENSOCKETFUNCTION: an address is known, and is connected to.
 */
static curl_socket_t
open_socket(void *data, curlsocktype purpose, struct curl_sockaddr *address)
{
	Handle	   *handle = data;

	handle->looking_up = false;
	if (handle->req == NULL)
		return CURL_SOCKET_BAD; /* it was given up */
	return sockets_open(handle->multi, &handle->sockets, address, &handle->no_descriptor);
}

#ifdef HAVE_CURL_PREREQ
/*
 * CURLOPT_PREREQFUNCTION: a connection is there and the request is about to be
 * sent on it.
 *
 * libcurl sends a request again by itself when a reused connection dies before
 * a byte of the answer came (Curl_retry_request() in its transfer.c): a POST
 * could be processed twice.  It comes through here for that, so the second
 * time is refused and the request ends as one in doubt; unless the server said
 * that it did not and will not process it (see stream.c).
 */
static int
before_request(void *data, char *remote_ip, char *local_ip,
			   int remote_port, int local_port)
{
	Handle	   *handle = data;

	if (handle->req == NULL)
		return CURL_PREREQFUNC_ABORT;	/* it was given up */
	if (handle_was_sent(handle))
	{
		handle->resend = true;
		return CURL_PREREQFUNC_ABORT;
	}
	handle->sent = true;
	handle->looking_up = false;
	if (handle->multiplex)
		stream_sent(&handle->stream, local_ip, local_port, remote_ip, remote_port);
	return CURL_PREREQFUNC_OK;
}

/*
 * CURLOPT_DEBUGFUNCTION: what libcurl tells of its doings.  Used where several
 * requests may share a connection.
 */
static int
debug_text(CURL *easy, curl_infotype type, char *text, size_t len, void *data)
{
	Handle	   *handle = data;

	if (type == CURLINFO_TEXT && handle->req != NULL)
		stream_told(&handle->stream, text, len);
	return 0;
}
#else
/*
 * CURLOPT_READFUNCTION: the request's body.  There is no seek function, so
 * libcurl cannot rewind it to send the request again, and fails instead
 * (CURLE_SEND_FAIL_REWIND).
 */
static size_t
read_body(char *buffer, size_t size, size_t nitems, void *data)
{
	Handle	   *handle = data;
	size_t		n = Min(size * nitems, handle->body_left);

	if (handle->req == NULL)
		return CURL_READFUNC_ABORT; /* it was given up */
	handle->sent = true;
	memcpy(buffer, handle->req->body + (handle->req->body_len - handle->body_left), n);
	handle->body_left -= n;
	return n;
}
#endif

/*
 * Does the header line have this name (given with its colon, in lower case)?
 * If so its value, without the white space around it, goes to dst, which has
 * HTTP_HEADER_VALUE_SIZE bytes.
 */
static bool
header_value(const char *line, size_t len, const char *name, char *dst)
{
	size_t		namelen = strlen(name);

	/* most lines are of another name, which the first letter tells */
	if (len < namelen || (line[0] | 0x20) != name[0] ||
		pg_strncasecmp(line, name, namelen) != 0)
		return false;
	line += namelen;
	len -= namelen;
	while (len > 0 && (*line == ' ' || *line == '\t'))
		line++, len--;
	while (len > 0 && (unsigned char) line[len - 1] <= ' ')
		len--;
	len = Min(len, HTTP_HEADER_VALUE_SIZE - 1);
	memcpy(dst, line, len);
	dst[len] = '\0';
	return true;
}

/*
 * CURLOPT_HEADERFUNCTION: one header line of the answer.
 */
static size_t
header_received(char *line, size_t size, size_t nitems, void *data)
{
	Handle	   *handle = data;
	size_t		len = size * nitems;

	handle->header_bytes += len;
	if (handle->header_bytes > HTTP_MAX_ANSWER_HEADERS)
	{
		handle->too_large = true;
		return 0;
	}
	/* a status line begins anew: an interim answer (1xx) came before */
	if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
		handle->req->answer.request_id[0] = handle->req->answer.date[0] = '\0';
	else if (!header_value(line, len, "seam-request-id:", handle->req->answer.request_id))
		header_value(line, len, "date:", handle->req->answer.date);
	return len;
}

/*
 * CURLOPT_WRITEFUNCTION: a piece of the answer's body.
 */
static size_t
body_received(char *piece, size_t size, size_t nitems, void *data)
{
	Handle	   *handle = data;
	size_t		len = size * nitems;

	if (len > handle->req->max_answer - handle->len)
	{
		handle->too_large = true;
		return 0;
	}
	if (handle->len + len + 1 > handle->cap)
	{
		size_t		cap = Max(handle->cap, 4096);
		char	   *more;

		while (cap < handle->len + len + 1)
			cap *= 2;
		more = realloc(handle->buf, cap);
		if (more == NULL)
			return 0;
		handle->buf = more;
		handle->cap = cap;
	}
	memcpy(handle->buf + handle->len, piece, len);
	handle->len += len;
	handle->buf[handle->len] = '\0';
	return len;
}

/* ---------- handles ---------- */

/*
 * Frees a handle, which must not be in a multi handle.
 */
void
handle_free(Handle *handle)
{
	if (handle->lost)
		nlost--;
	stream_reset(&handle->stream);
	curl_easy_cleanup(handle->easy);
	profile_unref(handle->profile);
	curl_url_cleanup(handle->parsed_url);
	free(handle->url);
	free(handle->buf);
	free(handle);
}

/*
 * Returns a new handle with everything set that no request changes, or NULL when
 * out of memory.
 */
Handle *
handle_new(void)
{
	Handle	   *handle = calloc(1, sizeof(Handle));
	CURLcode	rc = CURLE_OK;
	CURL	   *easy;

#define SET(option, value) \
	do { if (rc == CURLE_OK) rc = curl_easy_setopt(easy, option, value); } while (0)

	if (handle == NULL)
		return NULL;
	handle->easy = easy = curl_easy_init();
	if (easy == NULL)
	{
		free(handle);
		return NULL;
	}
	SET(CURLOPT_PRIVATE, (void *) handle);
	SET(CURLOPT_ERRORBUFFER, handle->errbuf);
	SET(CURLOPT_NOSIGNAL, 1L);

	/* where a request may go, and that nothing from outside changes it */
#ifdef HAVE_CURL_PROTOCOLS_STR
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");		/* also: none from the environment */
	SET(CURLOPT_NOPROXY, "*");	/* and no look at it */
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_MAXAGE_CONN, MAX_IDLE_SECONDS);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_POST, 1L);

	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, handle);
	SET(CURLOPT_CLOSESOCKETFUNCTION, sockets_close);
	SET(CURLOPT_RESOLVER_START_FUNCTION, start_lookup);
	SET(CURLOPT_RESOLVER_START_DATA, handle);
	SET(CURLOPT_HEADERFUNCTION, header_received);
	SET(CURLOPT_HEADERDATA, handle);
	SET(CURLOPT_WRITEFUNCTION, body_received);
	SET(CURLOPT_WRITEDATA, handle);
#ifdef HAVE_CURL_PREREQ
	SET(CURLOPT_PREREQFUNCTION, before_request);
	SET(CURLOPT_PREREQDATA, handle);
	SET(CURLOPT_DEBUGFUNCTION, debug_text);
	SET(CURLOPT_DEBUGDATA, handle);
#else
	SET(CURLOPT_READFUNCTION, read_body);
	SET(CURLOPT_READDATA, handle);
#endif
#ifdef HAVE_CURL_QUICK_EXIT
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
	if (rc != CURLE_OK)
	{
		handle_free(handle);
		return NULL;
	}
	return handle;
}

/*
 * Has the handle's requests go to this URL.  libcurl would parse it, encode its
 * path and put it together again for each request, a tenth of what a request
 * costs; it does not where it is given both the text and the parsed form, and
 * the path apart.  Returns whether it could be done.
 */
static bool
handle_set_url(Handle *handle, const char *url)
{
	char	   *path = NULL;
	char	   *host = NULL;
	struct in_addr addr;
	bool		ok;

	free(handle->url);
	handle->url = strdup(url);
	if (handle->parsed_url == NULL)
		handle->parsed_url = curl_url();
	ok = handle->url != NULL && handle->parsed_url != NULL &&
		curl_url_set(handle->parsed_url, CURLUPART_URL, url, 0) == CURLUE_OK &&
		curl_url_get(handle->parsed_url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		curl_url_get(handle->parsed_url, CURLUPART_PATH, &path, 0) == CURLUE_OK &&
		curl_url_set(handle->parsed_url, CURLUPART_PATH, "/", 0) == CURLUE_OK &&
		curl_easy_setopt(handle->easy, CURLOPT_URL, handle->url) == CURLE_OK &&
		curl_easy_setopt(handle->easy, CURLOPT_CURLU, handle->parsed_url) == CURLE_OK &&
		curl_easy_setopt(handle->easy, CURLOPT_REQUEST_TARGET, path) == CURLE_OK;
	handle->numeric = ok && (url_is_loopback(host) || host[0] == '[' || inet_pton(AF_INET, host,
																				  &addr) == 1);
	curl_free(path);
	curl_free(host);
	return ok;
}

/*
 * Sets up the handle for a request, which must stay valid until the handle rests;
 * of libcurl's options only what differs from the request before is set again.
 * multiplex: others may be under way at the same time.  Returns whether it could
 * be done.
 */
bool
handle_prepare(Handle *handle, HttpRequest *req, Profile *profile, bool multiplex)
{
	CURL	   *easy = handle->easy;
	CURLcode	rc = CURLE_OK;

	/*
	 * Without TLS there is no HTTP/2, which libcurl would wait to learn from
	 * the first answer.
	 */
	multiplex = multiplex && pg_strncasecmp(req->url, "https:", 6) == 0;

	if (handle->profile != profile)
	{
		if (!profile_apply(profile, handle->profile, easy))
			return false;
		profile_unref(handle->profile);
		handle->profile = profile;
		profile->refs++;
	}
	if ((handle->url == NULL || strcmp(handle->url, req->url) != 0) &&
		!handle_set_url(handle, req->url))
		return false;
	if (handle->connect_timeout != req->connect_timeout)
	{
		/*
		 * libcurl divides the time among a server's addresses.  Its end comes
		 * after ours, by which a lookup is not abandoned (see handle_lose()).
		 */
		SET(CURLOPT_CONNECTTIMEOUT_MS, (long) req->connect_timeout + req->connect_timeout / 10 +
			100);
		handle->connect_timeout = req->connect_timeout;
	}
	if (handle->multiplex != multiplex)
	{
		/* wait for a connection that can be shared; be told of its GOAWAY */
		SET(CURLOPT_PIPEWAIT, (long) multiplex);
#ifdef HAVE_CURL_PREREQ
		SET(CURLOPT_VERBOSE, (long) multiplex);
#endif
		handle->multiplex = multiplex;
	}
	SET(CURLOPT_POSTFIELDSIZE, (long) req->body_len);
#ifdef HAVE_CURL_PREREQ
	SET(CURLOPT_POSTFIELDS, req->body);
#endif
#undef SET

	handle->req = req;
	handle->begun_at = clock_now();
	handle->connect_by = handle->begun_at + (int64) req->connect_timeout * 1000;
	handle->looking_up = handle->too_many_lookups = false;
	handle->sockets.n = 0;
	handle->sent = handle->resend = false;
	stream_reset(&handle->stream);
	handle->too_large = handle->no_descriptor = false;
	handle->body_left = req->body_len;
	handle->header_bytes = 0;
	handle->len = 0;
	handle->errbuf[0] = '\0';
	if (handle->buf)
		handle->buf[0] = '\0';
	return rc == CURLE_OK;
}

/*
 * May bytes of the handle's request have left, and be processed?  (Not where the
 * server has said that it surely has not.)
 */
bool
handle_was_sent(const Handle *handle)
{
	bool		sent = handle->sent;

#ifndef HAVE_CURL_PREREQ
	long		request_size = 0;

	/* the headers go before the body's callback is asked */
	curl_easy_getinfo(handle->easy, CURLINFO_REQUEST_SIZE, &request_size);
	sent = sent || request_size > 0;
#endif
	return sent && handle->stream.refused_at == 0;
}

/*
 * Must the handle stay where it is, because it looks a name up?
 */
bool
handle_is_looking_up(const Handle *handle)
{
	return handle->looking_up && !handle_was_sent(handle);
}

/*
 * Returns when the handle's request has to end (clock_now()'s clock), and whether
 * that is because it has not got a connection.
 */
int64
handle_deadline(const Handle *handle, bool *connecting)
{
	int64		connect_by = handle->connect_by;

	/* it is to be sent again, on a new connection */
	if (handle->stream.refused_at != 0)
		connect_by = handle->stream.refused_at + (int64) handle->connect_timeout * 1000;
	*connecting = connect_by < handle->req->deadline && !handle_was_sent(handle);
	return *connecting ? connect_by : handle->req->deadline;
}

/*
 * Gives up the handle's request while it looks a name up: the lookup goes on,
 * and nobody asks for its end.  Until then the handle must stay in its multi
 * handle, and be freed afterwards.
 */
void
handle_lose(Handle *handle)
{
	handle->req = NULL;
	handle->lost = true;
	nlost++;
	/* so that libcurl does not abandon it either */
	curl_easy_setopt(handle->easy, CURLOPT_CONNECTTIMEOUT_MS, (long) INT_MAX);
}

/*
 * Is there a handle that was lost and not freed?
 */
bool
handle_any_lost(void)
{
	return nlost > 0;
}

/*
 * The handle, which is in no multi handle, waits for another request.
 */
void
handle_rest(Handle *handle)
{
	handle->req = NULL;
	if (handle->cap > KEEP_BUFFER)
	{
		free(handle->buf);
		handle->buf = NULL;
		handle->cap = 0;
	}
}

/*
 * Fills in what the request has cost; what is at hand libcurl is not asked for.
 */
static void
set_cost(Handle *handle, HttpAnswer *answer)
{
	long		connections = 0;
	long		sent = 0;

	curl_easy_getinfo(handle->easy, CURLINFO_NUM_CONNECTS, &connections);
	curl_easy_getinfo(handle->easy, CURLINFO_REQUEST_SIZE, &sent);
	answer->opened = connections > 0;
	answer->sent = sent;
	answer->received = (int64) (handle->header_bytes + handle->len);
	answer->took = clock_now() - handle->begun_at;
}

/*
 * Fills in the answer to the handle's request; error is what libcurl says, or we.
 */
void
handle_answer(Handle *handle, HttpOutcome outcome, HttpFailure failure, const char *error)
{
	HttpAnswer *answer = &handle->req->answer;

	answer->outcome = outcome;
	answer->failure = failure;
	answer->body = handle->buf ? handle->buf : (char *) "";
	answer->body_len = handle->len;
	strlcpy(answer->error, error, HTTP_ERROR_SIZE);
	set_cost(handle, answer);

	/* it may quote a certificate, and be cut within a character */
	for (char *p = answer->error; *p; p++)
	{
		if (IS_HIGHBIT_SET(*p))
			*p = '?';
	}
}

/*
 * libcurl is done with the handle's request, with this code: fills in the answer.
 */
void
handle_transfer_ended(Handle *handle, CURLcode rc)
{
	HttpAnswer *answer = &handle->req->answer;
	HttpOutcome outcome;
	HttpFailure failure = HTTP_FAILURE_BROKEN;
	const char *error = handle->errbuf[0] ? handle->errbuf : curl_easy_strerror(rc);
	long		status = 0;
	curl_off_t	retry_after = 0;

	curl_easy_getinfo(handle->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(handle->easy, CURLINFO_RETRY_AFTER, &retry_after);
	answer->status = (int) status;
	answer->retry_after = (int) Min(Max(retry_after, 0), INT_MAX);

	/* newer versions remember it, and fail with it each time */
	handle->used_up = rc == CURLE_SEND_FAIL_REWIND;

	outcome = handle_was_sent(handle) ? HTTP_IN_DOUBT : HTTP_NOT_SENT;
	if (handle->resend)
		error = "the connection was closed before an answer came";
	else if (handle->too_large)
		outcome = HTTP_TOO_LARGE;
	else
	{
		switch (rc)
		{
			case CURLE_OK:
				outcome = HTTP_ANSWERED;
				failure = HTTP_FAILURE_NONE;
				break;
			case CURLE_COULDNT_RESOLVE_HOST:
				failure = HTTP_FAILURE_RESOLVE;
				break;
			case CURLE_COULDNT_CONNECT:
				failure = HTTP_FAILURE_CONNECT;
				break;
			case CURLE_OPERATION_TIMEDOUT:
				failure = HTTP_FAILURE_CONNECT_TIMEOUT;
				break;
			case CURLE_PEER_FAILED_VERIFICATION:
			case CURLE_SSL_CACERT_BADFILE:
			case CURLE_SSL_CERTPROBLEM:
			case CURLE_SSL_ISSUER_ERROR:
				failure = HTTP_FAILURE_CERTIFICATE;
				break;
			case CURLE_SSL_CONNECT_ERROR:
			case CURLE_SSL_CIPHER:
				failure = HTTP_FAILURE_TLS;
				break;
			case CURLE_OUT_OF_MEMORY:

				/*
				 * libcurl says so, too, of a header line over its limit (100
				 * kB); CURLE_TOO_LARGE, since 8.6, is the same.
				 */
				if (handle->header_bytes > 0)
					outcome = HTTP_TOO_LARGE;
				break;
			default:
				if (strncmp(error, "Too large response headers", 26) == 0 ||
					strncmp(error, "Header overflow", 15) == 0 ||
					(int) rc == 100)
					outcome = HTTP_TOO_LARGE;
				break;
		}
	}
	if (handle->no_descriptor && outcome == HTTP_NOT_SENT)
		failure = HTTP_FAILURE_DESCRIPTORS;
	else if (handle->too_many_lookups && outcome == HTTP_NOT_SENT)
	{
		failure = HTTP_FAILURE_RESOLVE;
		error = "too many name lookups that were given up have not ended";
	}
	handle_answer(handle, outcome, failure, error);
}
