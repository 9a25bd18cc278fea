/*-------------------------------------------------------------------------
 *
 * seam.h
 *	  Requests to Seam's API: where they go and what they say.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_SEAM_H
#define SEAM_IK_SEAM_H

#include "lib/stringinfo.h"
#include "net/request.h"
#include "utils/uuid.h"

/* Who asks, and where. */
typedef struct SeamAccount
{
	const char *endpoint;		/* without a slash at its end */
	const char *api_key;		/* a secret */
	const char *workspace_id;	/* or "" */
	const char *ca_file;		/* or "", for the system's */
} SeamAccount;

/* The endpoints that we use. */
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
	SeamOp		op;				/* which endpoint it goes to */
	const pg_uuid_t *user_identity_id;	/* generate, list */
	const pg_uuid_t *customization_profile_id;	/* generate */
	int			max_use_count;	/* generate; 0: left out */
	const pg_uuid_t *instant_key_id;	/* get, delete */
	const char *instant_key_url;	/* get, in place of the id; UTF-8 */
	const pg_uuid_t *workspace; /* where it is made; NULL: the account's own,
								 * which is the setting's */
} SeamRequest;

extern const char *seam_api_key_kind(const char *api_key);
extern bool seam_chooses_workspace(const char *api_key);
extern const char *seam_api_key_problem(const char *api_key, const char *workspace_id);
extern void seam_profile(const SeamAccount *account, HttpProfile *profile);
extern char *seam_url(const SeamAccount *account, SeamOp op);
extern bool seam_is_idempotent(SeamOp op);
extern void seam_body(const SeamRequest *request, StringInfo body);

#endif							/* SEAM_IK_SEAM_H */
