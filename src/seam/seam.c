/*-------------------------------------------------------------------------
 *
 * seam.c
 *	  Requests to Seam's API: where they go and what they say.
 *
 * The source of the protocol's facts is Seam's OpenAPI document
 * (https://docs.seam.co, POST /user_identities/generate_instant_key) and, for
 * kinds of tokens, the official JavaScript SDK.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/uuid.h"
#include "seam/json.h"
#include "seam/seam.h"

/* The endpoints. */
static const struct
{
	const char *path;			/* behind SeamAccount.endpoint */
	bool		idempotent;		/* asking twice does no harm */
}			ops[] =

{
	[SEAM_GENERATE] = {"/user_identities/generate_instant_key", false},
	[SEAM_GET] = {"/instant_keys/get", true},
	[SEAM_LIST] = {"/instant_keys/list", true},
	[SEAM_DELETE] = {"/instant_keys/delete", true},
};

/*
 * Returns why Seam would not take this key, before it is asked: a static message, or
 * NULL.  The kinds and their prefixes are those of the official SDK.
 */
const char *
seam_api_key_problem(const char *api_key, const char *workspace_id)
{
	if (strncmp(api_key, "seam_cst", 8) == 0)
		return "a client session token may not issue instant keys";
	if (strncmp(api_key, "seam_pk", 7) == 0)
		return "a publishable key may not issue instant keys";
	if (workspace_id[0] == '\0' && strncmp(api_key, "seam_at", 7) == 0)
		return "a personal access token needs seam_ik.workspace_id";
	if (workspace_id[0] == '\0' && strncmp(api_key, "ey", 2) == 0)
		return "a console session token needs seam_ik.workspace_id";
	return NULL;
}

/*
 * Is an API key for several workspaces, so that each request has to name one?  Any other
 * one is of a workspace by itself, and the header seam-workspace is not for it.
 */
bool
seam_chooses_workspace(const char *api_key)
{
	return strncmp(api_key, "seam_at", 7) == 0 || strncmp(api_key, "ey", 2) == 0;
}

/*
 * Returns of which kind an API key is, static: by its prefix, as the official SDK tells
 * kinds apart.
 */
const char *
seam_api_key_kind(const char *api_key)
{
	if (strncmp(api_key, "seam_at", 7) == 0)
		return "a personal access token";
	if (strncmp(api_key, "ey", 2) == 0)
		return "a console session token";
	return strstr(api_key, "test") ? "an API key of a sandbox" : "an API key";
}

/*
 * Returns two strings as one, palloc'd; psprintf() would take five times as long.
 */
static char *
concat(const char *a, const char *b)
{
	size_t		alen = strlen(a);
	size_t		blen = strlen(b);
	char	   *both = palloc(alen + blen + 1);

	memcpy(both, a, alen);
	memcpy(both + alen, b, blen + 1);
	return both;
}

/*
 * Fills in the headers and TLS roots that the account's requests share; as Seam's own SDKs
 * do, two of them name what asks.  (libcurl writes headers byte by byte, anew for each
 * request, so they are few and short.  Its own Accept says that anything is accepted.)
 * The profile points into the account, but for the headers with the API key and the
 * workspace, which are palloc'd.
 */
void
seam_profile(const SeamAccount *account, HttpProfile *profile)
{
	int			n = 0;

	profile->ca_file = account->ca_file;
	profile->headers[n++] = "User-Agent: seam_ik";
	profile->headers[n++] = "Content-Type: application/json";
	profile->headers[n++] = concat("Authorization: Bearer ", account->api_key);
	profile->headers[n++] = "seam-sdk-name: seam_ik";
	profile->headers[n++] = "seam-sdk-version: " SEAM_IK_VERSION;
	if (account->workspace_id[0] != '\0')
		profile->headers[n++] = concat("seam-workspace: ", account->workspace_id);
	profile->nheaders = n;
}

/*
 * Returns where requests of this kind go: palloc'd.
 */
char *
seam_url(const SeamAccount *account, SeamOp op)
{
	return concat(account->endpoint, ops[op].path);
}

/*
 * May the request be made twice without harm?
 */
bool
seam_is_idempotent(SeamOp op)
{
	return ops[op].idempotent;
}

/*
 * Appends a uuid parameter to a body that is being written.
 */
static void
append_uuid(StringInfo body, const char *name, const pg_uuid_t *uuid)
{
	char		text[UUID_TEXT_LEN + 1];

	if (uuid == NULL)
		return;
	uuid_write(text, uuid);
	appendStringInfoString(body, body->len > 1 ? ",\"" : "\"");
	appendStringInfoString(body, name);
	appendStringInfoString(body, "\":\"");
	appendBinaryStringInfo(body, text, UUID_TEXT_LEN);
	appendStringInfoChar(body, '"');
}

/*
 * Writes the request's body, in place of what is in it.  Parameters that are not
 * set are left out: the API does not take null.
 */
void
seam_body(const SeamRequest *request, StringInfo body)
{
	resetStringInfo(body);
	appendStringInfoChar(body, '{');
	append_uuid(body, "user_identity_id", request->user_identity_id);
	append_uuid(body, "instant_key_id", request->instant_key_id);
	append_uuid(body, "customization_profile_id", request->customization_profile_id);
	if (request->max_use_count != 0)
		appendStringInfo(body, ",\"max_use_count\":%d", request->max_use_count);
	if (request->instant_key_url)
	{
		appendStringInfoString(body, "\"instant_key_url\":");
		json_append_string(body, request->instant_key_url);
	}
	appendStringInfoChar(body, '}');
}
