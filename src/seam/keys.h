/*-------------------------------------------------------------------------
 *
 * keys.h
 *	  The instant keys of an answer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_KEYS_H
#define SEAM_IK_KEYS_H

#include "datatype/timestamp.h"
#include "seam/json.h"
#include "seam/seam.h"

/* An instant key, as Seam tells of it. */
typedef struct SeamKey
{
	pg_uuid_t	instant_key_id; /* the members are called as Seam's fields */
	char	   *instant_key_url;	/* ASCII, palloc'd */
	pg_uuid_t	user_identity_id;
	pg_uuid_t	client_session_id;
	pg_uuid_t	workspace_id;
	pg_uuid_t	customization_profile_id;	/* undefined where it has none */
	bool		has_customization_profile_id;	/* it may have none */
	const JsonNode *customization;	/* an object in UTF-8, or NULL; it lives
									 * as long as the answer's JSON */
	TimestampTz created_at;
	TimestampTz expires_at;
} SeamKey;

/* Takes the keys of a list one by one; key's strings are gone afterwards. */
typedef void (*SeamKeyConsumer) (const SeamKey *key, void *arg);

extern const char *keys_read_one(const SeamRequest *request, const JsonNode *node,
								 SeamKey *key);
extern const char *keys_read_list(const SeamRequest *request, const JsonNode *list,
								  SeamKeyConsumer consume, void *arg);

#endif							/* SEAM_IK_KEYS_H */
