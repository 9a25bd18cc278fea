/*-------------------------------------------------------------------------
 *
 * http.c
 *	  The transport: libcurl's multi interface driven from a WaitEventSet.
 *
 * The only file that includes curl.h.
 *
 * Invariants:
 *
 * - Nothing is thrown through libcurl.  Callbacks neither palloc nor ereport
 *	 nor check for interrupts; what they keep is malloc'd.
 * - All signals are blocked while libcurl runs: a resolver thread inherits
 *	 the mask, and PostgreSQL's signal handlers must run on the main thread.
 * - A request whose bytes may have left is never sent again, neither here nor
 *	 by libcurl on its own (see before_request()).
 * - One run at a time uses the engine.  It ends by http_finish() or, when an
 *	 error or a cancel throws past it, by the reset of the memory context that
 *	 it was begun in.  Connections stay open for the session's next call.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <dirent.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "compat.h"
#include "http.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

/*
 * Idle connections older than this are not used again.  Proxies and load
 * balancers commonly close theirs after 60 seconds, and a request that crosses
 * with the close is in doubt.
 */
#define MAX_IDLE_SECONDS 50L

/* Handles (and so connections) that outlive a batch. */
#define KEEP_SLOTS 8

/* A receive buffer larger than this is given back after the request. */
#define KEEP_BUFFER (16 * 1024)

/* Room for sockets in a new wait event set, besides latch and postmaster. */
#define MIN_SET_SOCKETS 6

/* Events taken from the kernel in one go. */
#define EVENTS_AT_ONCE 64

StaticAssertDecl(HTTP_ERROR_SIZE >= CURL_ERROR_SIZE,
				 "HTTP_ERROR_SIZE must hold libcurl's error text");

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

/* A libcurl easy handle with what belongs to it; malloc'd, used again. */
typedef struct HttpSlot
{
	dlist_node	node;			/* in engine.idle, .busy, .done or .handed */
	CURL	   *easy;
	Profile    *profile;		/* what easy is set up with, or NULL */
	char	   *url;			/* likewise */
	int			connect_timeout;	/* likewise */
	HttpRequest *req;			/* NULL when idle */
	bool		sent;			/* bytes of the request may have left */
	bool		resend;			/* libcurl wanted to send it again */
	bool		too_large;
	bool		no_descriptor;
	size_t		body_left;		/* where the body is read by a callback */
	size_t		header_bytes;
	char	   *buf;
	size_t		len;
	size_t		cap;
	char		errbuf[CURL_ERROR_SIZE];
} HttpSlot;

/* What libcurl wants of a descriptor, and what the wait event set has. */
typedef struct Socket
{
	uint32		wanted;			/* WL_SOCKET_*, 0: not watched */
	uint32		watched;		/* WL_SOCKET_*, 0: not in the set */
	int			pos;			/* position in the set */
	bool		ours;			/* opened by open_socket() */
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
	struct HttpRun *run;		/* who uses the engine now, or NULL */
}			engine;

/* One use of the engine; lives in the memory context of its caller. */
struct HttpRun
{
	MemoryContextCallback callback;
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
 * Block every signal while libcurl runs, so that a thread that it starts
 * inherits the mask.  The mask before goes to *saved.
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

/*
 * Is this host, as curl_url_get() gives it, surely this machine?  Only names
 * and numbers that no resolver can turn elsewhere (libcurl maps "localhost"
 * itself, RFC 6761).
 */
static bool
is_loopback(const char *host)
{
	struct in_addr addr;

	if (pg_strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
		return true;
	return inet_pton(AF_INET, host, &addr) == 1 &&
		(ntohl(addr.s_addr) >> 24) == 127;
}

/*
 * Why requests must not go to this URL: a static text that fits after the
 * setting's name ("must ..."), or NULL when they may.  Never throws, keeps
 * nothing.
 */
const char *
http_url_problem(const char *url)
{
	const char *problem = NULL;
	CURLU	   *u;
	char	   *scheme = NULL;
	char	   *host = NULL;
	char	   *part = NULL;

	for (const char *p = url; *p; p++)
	{
		if ((unsigned char) *p <= ' ' || (unsigned char) *p >= 0x7f || *p == '\\')
			return "must be a URL without white space, control or non-ASCII characters";
	}
	u = curl_url();
	if (u == NULL)
		return "could not be checked: out of memory";
	if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
		curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
		curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
		host[0] == '\0')
		problem = "must be a URL, like https://connect.getseam.com";
	else if (strcmp(scheme, "https") != 0 &&
			 !(strcmp(scheme, "http") == 0 && is_loopback(host)))
		problem = "must use https, or http to a loopback host";
	else if (curl_url_get(u, CURLUPART_USER, &part, 0) == CURLUE_OK ||
			 curl_url_get(u, CURLUPART_PASSWORD, &part, 0) == CURLUE_OK)
		problem = "must not contain a user name or a password";
	else if (curl_url_get(u, CURLUPART_QUERY, &part, 0) == CURLUE_OK ||
			 curl_url_get(u, CURLUPART_FRAGMENT, &part, 0) == CURLUE_OK ||
			 strchr(url, '?') != NULL || strchr(url, '#') != NULL)
		problem = "must not contain a query or a fragment";
	curl_free(part);
	curl_free(scheme);
	curl_free(host);
	curl_url_cleanup(u);
	return problem;
}

/* ---------- profiles ---------- */

/*
 * Give up one reference; the last wipes the headers, which hold the API key.
 */
static void
profile_unref(Profile *p)
{
	if (p == NULL || --p->refs > 0)
		return;
	for (struct curl_slist *h = p->headers; h; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	curl_slist_free_all(p->headers);
	free(p->ca_file);
	free(p);
}

/*
 * Does the copy say the same as the caller's profile?
 */
static bool
profile_matches(const Profile *p, const HttpProfile *given)
{
	struct curl_slist *h = p->headers;

	if (strcmp(p->ca_file, given->ca_file) != 0)
		return false;
	for (int i = 0; i < given->nheaders; i++, h = h->next)
	{
		size_t		len = strlen(given->names[i]);

		if (h == NULL ||
			strncmp(h->data, given->names[i], len) != 0 ||
			strncmp(h->data + len, ": ", 2) != 0 ||
			strcmp(h->data + len + 2, given->values[i]) != 0)
			return false;
	}
	return h == NULL;
}

/*
 * A counted, malloc'd copy of the caller's profile, or NULL when out of
 * memory.
 */
static Profile *
profile_copy(const HttpProfile *given)
{
	Profile    *p = calloc(1, sizeof(Profile));

	if (p == NULL)
		return NULL;
	p->refs = 1;
	p->ca_file = strdup(given->ca_file);
	for (int i = 0; p->ca_file && i < given->nheaders; i++)
	{
		char	   *line = psprintf("%s: %s", given->names[i], given->values[i]);
		struct curl_slist *more = curl_slist_append(p->headers, line);

		explicit_bzero(line, strlen(line));
		pfree(line);
		if (more == NULL)
		{
			profile_unref(p);
			return NULL;
		}
		p->headers = more;
	}
	if (p->ca_file == NULL)
	{
		profile_unref(p);
		return NULL;
	}
	return p;
}

/* ---------- callbacks of libcurl: never throw, never palloc ---------- */

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
static curl_socket_t
open_socket(void *slot, curlsocktype purpose, struct curl_sockaddr *address)
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
 * CURLOPT_CLOSESOCKETFUNCTION: the kernel takes a closed descriptor out of the
 * set by itself.
 */
static int
close_socket(void *data, curl_socket_t fd)
{
	Socket	   *s = socket_entry(fd);

	if (s != NULL)
	{
		s->wanted = s->watched = 0;
		s->ours = false;
	}
	ReleaseExternalFD();
	return close(fd);
}

#ifdef HAVE_CURL_PREREQ
/*
 * CURLOPT_PREREQFUNCTION: a connection is there and the request is about to be
 * sent on it.
 *
 * libcurl sends a request again by itself when a reused connection dies before
 * a byte of the answer came (Curl_retry_request() in its transfer.c): a POST
 * could be processed twice.  It comes through here for that, so the second
 * time is refused and the request ends as one in doubt.
 */
static int
before_request(void *data, char *remote_ip, char *local_ip,
			   int remote_port, int local_port)
{
	HttpSlot   *slot = data;

	if (slot->sent)
	{
		slot->resend = true;
		return CURL_PREREQFUNC_ABORT;
	}
	slot->sent = true;
	return CURL_PREREQFUNC_OK;
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
	HttpSlot   *slot = data;
	size_t		n = Min(size * nitems, slot->body_left);

	slot->sent = true;
	memcpy(buffer, slot->req->body + (slot->req->body_len - slot->body_left), n);
	slot->body_left -= n;
	return n;
}
#endif

/*
 * Does the header line have this name (given with its colon, in lower case)?
 * If so its value, without the white space around it, goes to dst.
 */
static bool
header_value(const char *line, size_t len, const char *name, char *dst)
{
	size_t		namelen = strlen(name);

	if (len < namelen || pg_strncasecmp(line, name, namelen) != 0)
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
	HttpSlot   *slot = data;
	size_t		len = size * nitems;

	slot->header_bytes += len;
	if (slot->header_bytes > HTTP_MAX_ANSWER_HEADERS)
	{
		slot->too_large = true;
		return 0;
	}
	/* a status line begins anew: an interim answer (1xx) came before */
	if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
		slot->req->answer.request_id[0] = '\0';
	else
		header_value(line, len, "seam-request-id:", slot->req->answer.request_id);
	return len;
}

/*
 * CURLOPT_WRITEFUNCTION: a piece of the answer's body.
 */
static size_t
body_received(char *piece, size_t size, size_t nitems, void *data)
{
	HttpSlot   *slot = data;
	size_t		len = size * nitems;

	if (len > slot->req->max_answer - slot->len)
	{
		slot->too_large = true;
		return 0;
	}
	if (slot->len + len + 1 > slot->cap)
	{
		size_t		cap = Max(slot->cap, 4096);
		char	   *more;

		while (cap < slot->len + len + 1)
			cap *= 2;
		more = realloc(slot->buf, cap);
		if (more == NULL)
			return 0;
		slot->buf = more;
		slot->cap = cap;
	}
	memcpy(slot->buf + slot->len, piece, len);
	slot->len += len;
	slot->buf[slot->len] = '\0';
	return len;
}

/* ---------- slots ---------- */

/*
 * The directory of the system's CA certificates where it is hashed
 * (c_rehash), else NULL.
 *
 * Debian's libcurl is built with a bundle and a directory and reads the bundle
 * for each new connection: 16 ms for 140 certificates.  OpenSSL looks a single
 * certificate up in a hashed directory at need, which costs a tenth.
 */
static const char *
hashed_ca_directory(void)
{
	static bool looked = false;
	static const char *found = NULL;
	curl_version_info_data *info;
	DIR		   *dir;
	struct dirent *de;

	if (looked)
		return found;
	looked = true;
	info = curl_version_info(CURLVERSION_NOW);
	if (info->age < CURLVERSION_SEVENTH || info->capath == NULL ||
		info->ssl_version == NULL || strncmp(info->ssl_version, "OpenSSL", 7) != 0)
		return NULL;
	dir = opendir(info->capath);
	if (dir == NULL)
		return NULL;
	while (found == NULL && (de = readdir(dir)) != NULL)
	{
		/* the name of a hash link: eight hexadecimal digits, dot, number */
		if (strspn(de->d_name, "0123456789abcdef") == 8 &&
			strcmp(de->d_name + 8, ".0") == 0)
			found = info->capath;
	}
	closedir(dir);
	return found;
}

/*
 * Free a slot.  Its handle must not be in the multi handle.
 */
static void
slot_free(HttpSlot *slot)
{
	curl_easy_cleanup(slot->easy);
	profile_unref(slot->profile);
	free(slot->url);
	free(slot->buf);
	free(slot);
}

/*
 * A new slot with everything set that no request changes, or NULL when out of
 * memory.  Signals are blocked by the caller.
 */
static HttpSlot *
slot_new(void)
{
	HttpSlot   *slot = calloc(1, sizeof(HttpSlot));
	CURLcode	rc = CURLE_OK;
	CURL	   *easy;

#define SET(option, value) \
	do { if (rc == CURLE_OK) rc = curl_easy_setopt(easy, option, value); } while (0)

	if (slot == NULL)
		return NULL;
	slot->easy = easy = curl_easy_init();
	if (easy == NULL)
	{
		free(slot);
		return NULL;
	}
	SET(CURLOPT_PRIVATE, (void *) slot);
	SET(CURLOPT_ERRORBUFFER, slot->errbuf);
	SET(CURLOPT_NOSIGNAL, 1L);

	/* where a request may go, and that nothing from outside changes it */
#ifdef HAVE_CURL_PROTOCOLS_STR
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");		/* also: none from the environment */
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_PIPEWAIT, 1L);
	SET(CURLOPT_MAXAGE_CONN, MAX_IDLE_SECONDS);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_POST, 1L);

	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, slot);
	SET(CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	SET(CURLOPT_HEADERFUNCTION, header_received);
	SET(CURLOPT_HEADERDATA, slot);
	SET(CURLOPT_WRITEFUNCTION, body_received);
	SET(CURLOPT_WRITEDATA, slot);
#ifdef HAVE_CURL_PREREQ
	SET(CURLOPT_PREREQFUNCTION, before_request);
	SET(CURLOPT_PREREQDATA, slot);
#else
	SET(CURLOPT_READFUNCTION, read_body);
	SET(CURLOPT_READDATA, slot);
#endif
#ifdef HAVE_CURL_QUICK_EXIT
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
	if (rc != CURLE_OK)
	{
		slot_free(slot);
		return NULL;
	}
	return slot;
}

/*
 * Set up the slot's handle for a request; only what differs from the request
 * before is set again.  Returns whether it could be done.
 */
static bool
slot_prepare(HttpSlot *slot, HttpRequest *req)
{
	CURL	   *easy = slot->easy;
	CURLcode	rc = CURLE_OK;

	if (slot->profile != engine.profile)
	{
		Profile    *profile = engine.profile;
		const char *ca_dir = NULL;

		SET(CURLOPT_HTTPHEADER, profile->headers);
		if (profile->ca_file[0] != '\0')
		{
			SET(CURLOPT_CAINFO, profile->ca_file);
			SET(CURLOPT_CAPATH, NULL);
		}
		else if ((ca_dir = hashed_ca_directory()) != NULL)
		{
			SET(CURLOPT_CAINFO, NULL);
			SET(CURLOPT_CAPATH, ca_dir);
		}
		else if (slot->profile != NULL && slot->profile->ca_file[0] != '\0')
			return false;		/* the built-in default cannot be restored */
		profile_unref(slot->profile);
		slot->profile = profile;
		profile->refs++;
	}
	if (slot->url == NULL || strcmp(slot->url, req->url) != 0)
	{
		free(slot->url);
		slot->url = strdup(req->url);
		if (slot->url == NULL)
			return false;
		SET(CURLOPT_URL, slot->url);
	}
	if (slot->connect_timeout != req->connect_timeout)
	{
		SET(CURLOPT_CONNECTTIMEOUT_MS, (long) req->connect_timeout);
		slot->connect_timeout = req->connect_timeout;
	}
	SET(CURLOPT_POSTFIELDSIZE, (long) req->body_len);
#ifdef HAVE_CURL_PREREQ
	SET(CURLOPT_POSTFIELDS, req->body);
#endif
	return rc == CURLE_OK;
#undef SET
}

/* ---------- engine ---------- */

/*
 * Fill in the answer and queue the slot for the caller.  Its handle is no
 * longer in the multi handle.
 */
static void
slot_done(HttpSlot *slot, HttpOutcome outcome, HttpFailure failure, const char *error)
{
	HttpAnswer *answer = &slot->req->answer;

	answer->outcome = outcome;
	answer->failure = failure;
	answer->body = slot->buf ? slot->buf : (char *) "";
	answer->body_len = slot->len;
	strlcpy(answer->error, error, HTTP_ERROR_SIZE);
	dlist_push_tail(&engine.done, &slot->node);
}

/*
 * A transfer ended: say how.
 */
static void
transfer_done(HttpSlot *slot, CURLcode rc)
{
	HttpAnswer *answer = &slot->req->answer;
	HttpOutcome outcome;
	HttpFailure failure = HTTP_FAILURE_BROKEN;
	const char *error = slot->errbuf[0] ? slot->errbuf : curl_easy_strerror(rc);
	long		status = 0;
	curl_off_t	retry_after = 0;

#ifndef HAVE_CURL_PREREQ
	long		request_size = 0;

	/* the headers go before the body's callback is asked */
	curl_easy_getinfo(slot->easy, CURLINFO_REQUEST_SIZE, &request_size);
	if (request_size > 0)
		slot->sent = true;
#endif
	curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(slot->easy, CURLINFO_RETRY_AFTER, &retry_after);
	answer->status = (int) status;
	answer->retry_after = (int) Min(Max(retry_after, 0), INT_MAX);

	outcome = slot->sent ? HTTP_IN_DOUBT : HTTP_NOT_SENT;
	if (slot->resend)
		error = "the connection was closed before an answer came";
	else if (slot->too_large)
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
				if (slot->header_bytes > 0)
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
	if (slot->no_descriptor && outcome == HTTP_NOT_SENT)
		failure = HTTP_FAILURE_DESCRIPTORS;
	slot_done(slot, outcome, failure, error);
}

/*
 * Take a busy slot's handle out of the multi handle.  Signals are blocked by
 * the caller.
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
		transfer_done(slot, rc);
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
			slot_done(slot, slot->sent ? HTTP_IN_DOUBT : HTTP_NOT_SENT,
					  HTTP_FAILURE_TIMEOUT, "timeout");
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
		slot_done(slot, slot->sent ? HTTP_IN_DOUBT : HTTP_NOT_SENT,
				  HTTP_FAILURE_BROKEN, error);
	}
}

/*
 * Drop the multi handle with its connections, and every idle slot.  No slot
 * may be busy.  Signals are blocked by the caller.
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
	engine.broken = false;
	engine.timer_at = -1;
	engine.set_stale = true;
}

/*
 * Make what the engine needs, on first use and after an internal error.
 * Throws when out of memory.
 */
static void
prepare_engine(void)
{
	sigset_t	saved;
	bool		ok = true;

	if (engine.multi != NULL && !engine.broken)
		return;
	enter_curl(&saved);
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
	leave_curl(&saved);
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
	sigset_t	saved;

	if (engine.run != arg)
		return;
	engine.run = NULL;
	enter_curl(&saved);
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
	leave_curl(&saved);
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
	if (engine.run != NULL)
		end_run(engine.run);

	run->callback.func = end_run;
	run->callback.arg = run;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &run->callback);

	prepare_engine();
	if (engine.profile == NULL || !profile_matches(engine.profile, profile))
	{
		Profile    *copy = profile_copy(profile);

		if (copy == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of memory")));
		profile_unref(engine.profile);
		engine.profile = copy;
	}
	curl_multi_setopt(engine.multi, CURLMOPT_MAXCONNECTS,
					  (long) Max(max_parallel, KEEP_SLOTS));
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
	sigset_t	saved;
	HttpSlot   *slot = NULL;

	Assert(engine.run == run);
	req->slot = NULL;
	memset(&req->answer, 0, offsetof(HttpAnswer, error) + 1);
	req->answer.body = (char *) "";

	enter_curl(&saved);
	if (!dlist_is_empty(&engine.idle))
	{
		slot = dlist_container(HttpSlot, node, dlist_pop_head_node(&engine.idle));
		engine.nidle--;
	}
	for (int tries = 0; tries < 2; tries++)
	{
		if (slot == NULL)
			slot = slot_new();
		if (slot == NULL || slot_prepare(slot, req))
			break;
		slot_free(slot);		/* once more with a fresh handle */
		slot = NULL;
	}
	if (slot == NULL)
	{
		leave_curl(&saved);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	}
	slot->req = req;
	slot->sent = slot->resend = slot->too_large = slot->no_descriptor = false;
	slot->body_left = req->body_len;
	slot->header_bytes = 0;
	slot->len = 0;
	slot->errbuf[0] = '\0';
	if (slot->buf)
		slot->buf[0] = '\0';
	if (curl_multi_add_handle(engine.multi, slot->easy) == CURLM_OK)
	{
		dlist_push_tail(&engine.busy, &slot->node);
		engine.next_deadline = Min(engine.next_deadline, req->deadline);
	}
	else
	{
		engine.broken = true;
		slot_done(slot, HTTP_NOT_SENT, HTTP_FAILURE_BROKEN, "internal error of libcurl");
	}
	req->slot = slot;
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
 * Wait for a request to end.
 *
 * Returns it, with its answer filled in and valid until http_release(), or
 * NULL when the latch was set or the time wake_at (http_now()'s clock;
 * PG_INT64_MAX for never) has come.  The caller checks for interrupts and
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
		if (until > now)
		{
			long		timeout = -1;

			/* rounded up: a deadline is never early by a spin of short waits */
			if (until != PG_INT64_MAX)
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
			ResetLatch(MyLatch);
		if (dlist_is_empty(&engine.done) && (latch || wake_at <= now))
			return NULL;
	}
}

/*
 * May bytes of this request, which was started, have left?
 */
bool
http_was_sent(const HttpRequest *req)
{
	return req->slot != NULL && req->slot->sent;
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
