/*-------------------------------------------------------------------------
 *
 * profile.h
 *	  What requests of one account have in common, as libcurl wants it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_PROFILE_H
#define SEAM_IK_PROFILE_H

#include <curl/curl.h>

#include "net/request.h"

/*
 * A copy of an HttpProfile in the form that libcurl wants, malloc'd.  A handle
 * refers to it while its request is under way, so it is counted.
 */
typedef struct Profile
{
	/* how many refer to it */
	int			refs;

	/* "Name: value", one of them with the API key */
	struct curl_slist *headers;

	/* the CA bundle, or "" for the system's */
	char	   *ca_file;
} Profile;

extern Profile *profile_copy(const HttpProfile *given);
extern bool profile_matches(const Profile *p, const HttpProfile *given);
extern void profile_unref(Profile *p);
extern const char *profile_trust(const Profile *p);
extern bool profile_apply(Profile *p, const Profile *before, CURL *easy);

#endif							/* SEAM_IK_PROFILE_H */
