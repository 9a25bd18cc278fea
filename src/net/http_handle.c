/*-------------------------------------------------------------------------
 *
 * http_handle.c
 *	  One libcurl handle: its options, what it may send, and what comes back.
 *
 * Nothing here throws but profile_copy(), when out of memory; callbacks of
 * libcurl neither palloc nor ereport.  What is kept is malloc'd.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <dirent.h>

#include "base/clock.h"
#include "net/http_handle.h"
#include "net/url.h"

/*
 * Idle connections older than this are not used again.  Proxies and load
 * balancers commonly close theirs after 60 seconds, and a request that crosses
 * with the close is in doubt.
 */
#define MAX_IDLE_SECONDS 50L

StaticAssertDecl(HTTP_ERROR_SIZE >= CURL_ERROR_SIZE,
				 "HTTP_ERROR_SIZE must hold libcurl's error text");

/* ---------- profiles ---------- */

/*
 * Give up one reference; the last wipes the headers, which hold the API key.
 */
void
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
bool
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
Profile *
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

/* ---------- callbacks ---------- */

#ifdef HAVE_CURL_PREREQ
/*
 * CURLOPT_PREREQFUNCTION: a connection is there and the request is about to be
 * sent on it.
 *
 * libcurl sends a request again by itself when a reused connection dies before
 * a byte of the answer came (Curl_retry_request() in its transfer.c): a POST
 * could be processed twice.  It comes through here for that, so the second
 * time is refused and the request ends as one in doubt; unless the server said
 * that it did not and will not process it (see the engine's debug callback).
 */
static int
before_request(void *data, char *remote_ip, char *local_ip,
			   int remote_port, int local_port)
{
	HttpSlot   *slot = data;

	if (slot->req == NULL)
		return CURL_PREREQFUNC_ABORT;	/* it was given up */
	if (slot->sent && !slot->refused)
	{
		slot->resend = true;
		return CURL_PREREQFUNC_ABORT;
	}
	slot->sent = true;
	slot->looking_up = false;
	slot->refused = false;
	slot->stream = 0;
	if (slot->multiplex)
	{
		strlcpy(slot->ends.ours, local_ip, sizeof(slot->ends.ours));
		strlcpy(slot->ends.theirs, remote_ip, sizeof(slot->ends.theirs));
		slot->ends.our_port = local_port;
		slot->ends.their_port = remote_port;
	}
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

	if (slot->req == NULL)
		return CURL_READFUNC_ABORT; /* it was given up */
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
		slot->req->answer.request_id[0] = slot->req->answer.date[0] = '\0';
	else if (!header_value(line, len, "seam-request-id:", slot->req->answer.request_id))
		header_value(line, len, "date:", slot->req->answer.date);
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

/* ---------- handles ---------- */

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
	/* cppcheck-suppress readdirCalled; readdir_r() is deprecated */
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
 * The file or directory of the CA certificates that requests of this profile
 * trust, as far as it is known, or "".
 */
const char *
profile_trust(const Profile *p)
{
	const char *ca_dir;
	curl_version_info_data *info;

	if (p->ca_file[0] != '\0')
		return p->ca_file;
	ca_dir = hashed_ca_directory();
	if (ca_dir != NULL)
		return ca_dir;
	info = curl_version_info(CURLVERSION_NOW);
	return info->age >= CURLVERSION_SEVENTH && info->cainfo != NULL ? info->cainfo : "";
}

/*
 * Free a slot.  Its handle must not be in a multi handle.
 */
void
slot_free(HttpSlot *slot)
{
	curl_easy_cleanup(slot->easy);
	profile_unref(slot->profile);
	curl_url_cleanup(slot->parsed_url);
	free(slot->url);
	free(slot->buf);
	free(slot);
}

/*
 * A new slot with everything set that no request changes, or NULL when out of
 * memory.
 */
HttpSlot *
slot_new(const HttpCallbacks *callbacks)
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
	SET(CURLOPT_NOPROXY, "*");	/* and no look at it */
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_MAXAGE_CONN, MAX_IDLE_SECONDS);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_POST, 1L);

	SET(CURLOPT_OPENSOCKETFUNCTION, callbacks->open_socket);
	SET(CURLOPT_OPENSOCKETDATA, slot);
	SET(CURLOPT_CLOSESOCKETFUNCTION, callbacks->close_socket);
	SET(CURLOPT_RESOLVER_START_FUNCTION, callbacks->start_lookup);
	SET(CURLOPT_RESOLVER_START_DATA, slot);
	SET(CURLOPT_HEADERFUNCTION, header_received);
	SET(CURLOPT_HEADERDATA, slot);
	SET(CURLOPT_WRITEFUNCTION, body_received);
	SET(CURLOPT_WRITEDATA, slot);
#ifdef HAVE_CURL_PREREQ
	SET(CURLOPT_PREREQFUNCTION, before_request);
	SET(CURLOPT_PREREQDATA, slot);
	SET(CURLOPT_DEBUGFUNCTION, callbacks->debug);
	SET(CURLOPT_DEBUGDATA, slot);
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
 * Have the slot's requests go to this URL.  libcurl would parse it, encode its
 * path and put it together again for each request, a tenth of what a request
 * costs; it does not where it is given both the text and the parsed form, and
 * the path apart.  Returns whether it could be done.
 */
static bool
slot_set_url(HttpSlot *slot, const char *url)
{
	char	   *path = NULL;
	char	   *host = NULL;
	struct in_addr addr;
	bool		ok;

	free(slot->url);
	slot->url = strdup(url);
	if (slot->parsed_url == NULL)
		slot->parsed_url = curl_url();
	ok = slot->url != NULL && slot->parsed_url != NULL &&
		curl_url_set(slot->parsed_url, CURLUPART_URL, url, 0) == CURLUE_OK &&
		curl_url_get(slot->parsed_url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		curl_url_get(slot->parsed_url, CURLUPART_PATH, &path, 0) == CURLUE_OK &&
		curl_url_set(slot->parsed_url, CURLUPART_PATH, "/", 0) == CURLUE_OK &&
		curl_easy_setopt(slot->easy, CURLOPT_URL, slot->url) == CURLE_OK &&
		curl_easy_setopt(slot->easy, CURLOPT_CURLU, slot->parsed_url) == CURLE_OK &&
		curl_easy_setopt(slot->easy, CURLOPT_REQUEST_TARGET, path) == CURLE_OK;
	slot->numeric = ok && (url_is_loopback(host) || host[0] == '[' || inet_pton(AF_INET, host,
																				&addr) == 1);
	curl_free(path);
	curl_free(host);
	return ok;
}

/*
 * Set up the slot for a request; of the handle only what differs from the
 * request before is set again.  multiplex: others may be under way at the same
 * time.  Returns whether it could be done.
 */
bool
slot_prepare(HttpSlot *slot, HttpRequest *req, Profile *profile, bool multiplex)
{
	CURL	   *easy = slot->easy;
	CURLcode	rc = CURLE_OK;

	/*
	 * Without TLS there is no HTTP/2, which libcurl would wait to learn from
	 * the first answer.
	 */
	multiplex = multiplex && pg_strncasecmp(req->url, "https:", 6) == 0;

	if (slot->profile != profile)
	{
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
	if ((slot->url == NULL || strcmp(slot->url, req->url) != 0) &&
		!slot_set_url(slot, req->url))
		return false;
	if (slot->connect_timeout != req->connect_timeout)
	{
		/*
		 * libcurl divides the time among a server's addresses.  Its end comes
		 * after ours, by which a lookup is not abandoned (see slot_lose()).
		 */
		SET(CURLOPT_CONNECTTIMEOUT_MS, (long) req->connect_timeout + req->connect_timeout / 10 +
			100);
		slot->connect_timeout = req->connect_timeout;
	}
	if (slot->multiplex != multiplex)
	{
		/* wait for a connection that can be shared; hear of its GOAWAY */
		SET(CURLOPT_PIPEWAIT, (long) multiplex);
#ifdef HAVE_CURL_PREREQ
		SET(CURLOPT_VERBOSE, (long) multiplex);
#endif
		slot->multiplex = multiplex;
	}
	SET(CURLOPT_POSTFIELDSIZE, (long) req->body_len);
#ifdef HAVE_CURL_PREREQ
	SET(CURLOPT_POSTFIELDS, req->body);
#endif
#undef SET

	slot->req = req;
	slot->connect_by = clock_now() + (int64) req->connect_timeout * 1000;
	slot->looking_up = slot->too_many_lookups = false;
	slot->nsockets = 0;
	slot->sent = slot->refused = slot->resend = false;
	slot->ends.our_port = 0;
	slot->stream = 0;
	slot->too_large = slot->no_descriptor = false;
	slot->body_left = req->body_len;
	slot->header_bytes = 0;
	slot->len = 0;
	slot->errbuf[0] = '\0';
	if (slot->buf)
		slot->buf[0] = '\0';
	return rc == CURLE_OK;
}

/*
 * May bytes of the slot's request have left, and be processed?
 */
bool
slot_was_sent(const HttpSlot *slot)
{
	bool		sent = slot->sent;

#ifndef HAVE_CURL_PREREQ
	long		request_size = 0;

	/* the headers go before the body's callback is asked */
	curl_easy_getinfo(slot->easy, CURLINFO_REQUEST_SIZE, &request_size);
	sent = sent || request_size > 0;
#endif
	return sent && !slot->refused;
}

/*
 * Fill in the answer to the slot's request.
 */
void
slot_answer(HttpSlot *slot, HttpOutcome outcome, HttpFailure failure, const char *error)
{
	HttpAnswer *answer = &slot->req->answer;

	answer->outcome = outcome;
	answer->failure = failure;
	answer->body = slot->buf ? slot->buf : (char *) "";
	answer->body_len = slot->len;
	strlcpy(answer->error, error, HTTP_ERROR_SIZE);

	/* it may quote a certificate, and be cut within a character */
	for (char *p = answer->error; *p; p++)
	{
		if (IS_HIGHBIT_SET(*p))
			*p = '?';
	}
}

/*
 * libcurl is done with the slot's request: fill in the answer.
 */
void
slot_transfer_ended(HttpSlot *slot, CURLcode rc)
{
	HttpAnswer *answer = &slot->req->answer;
	HttpOutcome outcome;
	HttpFailure failure = HTTP_FAILURE_BROKEN;
	const char *error = slot->errbuf[0] ? slot->errbuf : curl_easy_strerror(rc);
	long		status = 0;
	curl_off_t	retry_after = 0;

	curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(slot->easy, CURLINFO_RETRY_AFTER, &retry_after);
	answer->status = (int) status;
	answer->retry_after = (int) Min(Max(retry_after, 0), INT_MAX);

	/* newer versions remember it, and fail with it each time */
	slot->used_up = rc == CURLE_SEND_FAIL_REWIND;

	outcome = slot_was_sent(slot) ? HTTP_IN_DOUBT : HTTP_NOT_SENT;
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
	else if (slot->too_many_lookups && outcome == HTTP_NOT_SENT)
	{
		failure = HTTP_FAILURE_RESOLVE;
		error = "too many name lookups that were given up have not ended";
	}
	slot_answer(slot, outcome, failure, error);
}
