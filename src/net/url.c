/*-------------------------------------------------------------------------
 *
 * url.c
 *	  Where requests may go.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>

#include "net/url.h"

/*
 * Is this host, as curl_url_get() gives it, surely this machine?  Only names
 * and numbers that no resolver can turn elsewhere (libcurl maps "localhost"
 * itself, RFC 6761).
 */
bool
url_is_loopback(const char *host)
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
url_problem(const char *url)
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
		host[0] == '\0' || strstr(url, ":///") != NULL)
		problem = "must be a URL, like https://connect.getseam.com";
	else if (strcmp(scheme, "https") != 0 &&
			 !(strcmp(scheme, "http") == 0 && url_is_loopback(host)))
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
