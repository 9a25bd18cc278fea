/*-------------------------------------------------------------------------
 *
 * seam.h
 *	  Seam's API: what a request says and what an answer means.
 *
 * Builds requests and interprets answers, and nothing else: no network, no
 * SQL.  A failure is a value (SeamResult), so that a function can raise it and
 * a table can hold it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_SEAM_H
#define SEAM_IK_SEAM_H

#include "datatype/timestamp.h"
#include "http.h"
#include "utils/uuid.h"

/* An answer about one key is a kilobyte; this is the limit. */
#define SEAM_MAX_ANSWER (1024 * 1024)

/* Who calls, and where. */
typedef struct SeamAccount
{
	const char *endpoint;		/* without a slash at its end */
	const char *api_key;
	const char *workspace_id;	/* or "" */
	const char *ca_file;		/* or "", for the system's */
} SeamAccount;

/* The parameters of /user_identities/generate_instant_key. */
typedef struct SeamGenerate
{
	pg_uuid_t	user_identity_id;
	int			max_use_count;	/* 0: left out */
	const pg_uuid_t *customization_profile_id;	/* NULL: left out */
} SeamGenerate;

/* Space for the body of a generate request: names, two uuids, an int. */
#define SEAM_GENERATE_BODY_SIZE 256

typedef struct SeamKey
{
	pg_uuid_t	instant_key_id;
	char	   *instant_key_url;	/* ASCII */
	pg_uuid_t	user_identity_id;
	pg_uuid_t	client_session_id;
	pg_uuid_t	workspace_id;
	pg_uuid_t	customization_profile_id;
	bool		has_customization_profile_id;
	char	   *customization;	/* JSON in UTF-8, or NULL */
	TimestampTz created_at;
	TimestampTz expires_at;
} SeamKey;

/* What came of a request. */
typedef struct SeamResult
{
	int			sqlerrcode;		/* 0: it was done, and key is filled in */
	const char *message;
	const char *detail;			/* or NULL */
	const char *hint;			/* or NULL */
	const char *request_id;		/* Seam's, or NULL */
	SeamKey		key;
} SeamResult;

extern const char *seam_api_key_problem(const char *api_key, const char *workspace_id);
extern void seam_profile(const SeamAccount *account, HttpProfile *profile);
extern char *seam_generate_url(const SeamAccount *account);
extern size_t seam_generate_body(const SeamGenerate *what, char *body);
extern void seam_generate_result(const SeamAccount *account, const SeamGenerate *what,
								 const HttpAnswer *answer, SeamResult *result);

#endif							/* SEAM_IK_SEAM_H */
