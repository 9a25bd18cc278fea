/*-------------------------------------------------------------------------
 *
 * profile.c
 *	  What requests of one account have in common, as libcurl wants it:
 *	  headers, and the CA certificates that are trusted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>

#include "net/profile.h"

/*
 * Gives up one reference; the last wipes the headers, which hold the API key.
 * NULL is allowed.  Never throws.
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
		if (h == NULL || strcmp(h->data, given->headers[i]) != 0)
			return false;
	}
	return h == NULL;
}

/*
 * Returns a malloc'd copy of the caller's profile with one reference, or NULL
 * when out of memory.
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
		struct curl_slist *more = curl_slist_append(p->headers, given->headers[i]);

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

/*
 * Returns the directory of the system's CA certificates where it is hashed
 * (c_rehash), else NULL.  The text is libcurl's.
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
 * Returns the file or directory of the CA certificates that requests of this
 * profile trust, as far as it is known, or "".  The text lives as long as the
 * profile.
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
 * Sets libcurl's handle up with the profile; before is the one that it was set
 * up with until now, or NULL.  Both must outlive that.  Returns whether it could
 * be done.
 */
bool
profile_apply(Profile *p, const Profile *before, CURL *easy)
{
	const char *ca_dir;

	if (curl_easy_setopt(easy, CURLOPT_HTTPHEADER, p->headers) != CURLE_OK)
		return false;
	if (p->ca_file[0] != '\0')
		return curl_easy_setopt(easy, CURLOPT_CAINFO, p->ca_file) == CURLE_OK &&
			curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) == CURLE_OK;
	ca_dir = hashed_ca_directory();
	if (ca_dir != NULL)
		return curl_easy_setopt(easy, CURLOPT_CAINFO, NULL) == CURLE_OK &&
			curl_easy_setopt(easy, CURLOPT_CAPATH, ca_dir) == CURLE_OK;
	/* the built-in default cannot be restored */
	return before == NULL || before->ca_file[0] == '\0';
}
