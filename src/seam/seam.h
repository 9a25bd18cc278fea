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
#include "logic/pace.h"
#include "net/http.h"
#include "lib/stringinfo.h"
#include "utils/uuid.h"

/* An answer about one key is a kilobyte; this is the limit.  Lists have their own. */
#define SEAM_MAX_ANSWER (1024 * 1024)

/* Who calls, and where. */
typedef struct SeamAccount
{
	const char *endpoint;		/* without a slash at its end */
	const char *api_key;
	const char *workspace_id;	/* or "" */
	const char *ca_file;		/* or "", for the system's */
} SeamAccount;

/* The calls that we make. */
typedef enum SeamOp
{
	SEAM_GENERATE,				/* /user_identities/generate_instant_key */
	SEAM_GET,					/* /instant_keys/get */
	SEAM_LIST,					/* /instant_keys/list */
	SEAM_DELETE					/* /instant_keys/delete */
} SeamOp;

/*
 * A request.  A pointer that is NULL is a parameter that is left out.
 */
typedef struct SeamRequest
{
	SeamOp		op;
	const pg_uuid_t *user_identity_id;	/* generate, list */
	const pg_uuid_t *customization_profile_id;	/* generate */
	int			max_use_count;	/* generate; 0: left out */
	const pg_uuid_t *instant_key_id;	/* get, delete */
	const char *instant_key_url;	/* get, in place of the id; UTF-8 */
} SeamRequest;

typedef struct SeamKey
{
	pg_uuid_t	instant_key_id;
	char	   *instant_key_url;	/* ASCII */
	pg_uuid_t	user_identity_id;
	pg_uuid_t	client_session_id;
	pg_uuid_t	workspace_id;
	pg_uuid_t	customization_profile_id;
	bool		has_customization_profile_id;
	const struct cJSON *customization;	/* an object in UTF-8, or NULL; it
										 * lives as long as the answer's JSON */
	TimestampTz created_at;
	TimestampTz expires_at;
} SeamKey;

/* Takes the keys of a list one by one; key's strings are gone afterwards. */
typedef void (*SeamKeyConsumer) (const SeamKey *key, void *arg);

/* Length of a uuid's text form. */
#define SEAM_UUID_TEXT_LEN 36

/* What came of a request. */
typedef struct SeamResult
{
	int			sqlerrcode;		/* 0: it was done */
	const char *message;
	const char *detail;			/* or NULL */
	const char *hint;			/* or NULL */
	const char *request_id;		/* Seam's, or NULL */
	bool		in_doubt;		/* it may have been done all the same */
	bool		deleted;		/* delete: false when there was no such key */
	bool		not_found;		/* Seam itself says that there is no such
								 * thing */
	SeamKey		key;			/* generate, get */
} SeamResult;

extern const char *seam_api_key_problem(const char *api_key, const char *workspace_id);
extern void seam_profile(const SeamAccount *account, HttpProfile *profile);
extern char *seam_url(const SeamAccount *account, SeamOp op);
extern bool seam_is_idempotent(SeamOp op);
extern bool seam_get_uuid(const char *text, pg_uuid_t *uuid);
extern void seam_put_uuid(char *to, const pg_uuid_t *uuid);
extern void seam_body(const SeamRequest *request, StringInfo body);
extern void seam_pace_answer(const HttpAnswer *answer, PaceAnswer *pace);
extern char *seam_error_text(const SeamResult *result);
extern void seam_result(const SeamAccount *account, const SeamRequest *request,
						const HttpAnswer *answer, SeamKeyConsumer consume,
						void *arg, SeamResult *result);

#endif							/* SEAM_IK_SEAM_H */
