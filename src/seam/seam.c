/*-------------------------------------------------------------------------
 *
 * seam.c
 *	  Seam's API: what a request says and what an answer means.
 *
 * The source of the protocol's facts is Seam's OpenAPI document
 * (https://docs.seam.co, POST /user_identities/generate_instant_key) and, for
 * kinds of tokens and error bodies, the official JavaScript SDK.
 *
 * Nothing is thrown but out of memory.  Strings of a result are static or in
 * CurrentMemoryContext.  No text made here contains the API key or the URL of
 * a key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "base/encoding.h"
#include "seam/json.h"
#include "seam/seam.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

/* Nesting that an answer may have; the deepest that is known has 5. */
#define MAX_DEPTH 32

/* How much of a text of Seam's goes into a message, and how many errors. */
#define MAX_FOREIGN_CHARS 500
#define MAX_VALIDATION_ERRORS 20

/* Bytes of a validation error's path; of a longer one the rest is left out. */
#define MAX_PATH_LEN 2000

/*
 * The calls.  What may have been done all the same is worth a hint only where
 * doing it twice is harm: a second key is another way through the door.
 */
static const struct
{
	const char *path;
	bool		idempotent;
	const char *not_sent;		/* in a detail, when nothing was sent */
}			ops[] =

{
	[SEAM_GENERATE] = {"/user_identities/generate_instant_key", false,
	"Nothing was sent, so no instant key was issued: "},
	[SEAM_GET] = {"/instant_keys/get", true,
	"Nothing was sent: "},
	[SEAM_LIST] = {"/instant_keys/list", true,
	"Nothing was sent: "},
	[SEAM_DELETE] = {"/instant_keys/delete", true,
	"Nothing was sent, so no instant key was revoked: "},
};

#define HINT_MAY_EXIST \
	"The instant key may exist. Before you try again, look for it with seam_list_instant_keys(), " \
	"and delete the one that is not wanted."
#define HINT_REPEAT \
	"The call can be repeated without harm."

/*
 * What the answers with a status of 4xx and 5xx mean.  Error types are an open
 * set, so the status decides; the types are passed on in the detail.
 */
static const struct
{
	int			status;
	int			sqlerrcode;
	const char *message;
	const char *hint;
}			status_errors[] =

{
	{400, ERRCODE_INVALID_PARAMETER_VALUE,
		"Seam refused the request as invalid",
	"Check the arguments, and that they belong to the workspace of the API key."},
	{401, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
		"Seam did not accept the API key",
		"Check seam_ik.api_key or the file that seam_ik.api_key_file names; some kinds of keys "
	"need seam_ik.workspace_id, too."},
	{403, ERRCODE_INSUFFICIENT_PRIVILEGE,
		"the API key has no permission for this at Seam",
	"Use an API key that may issue instant keys in this workspace."},
	{404, ERRCODE_NO_DATA_FOUND,
		"Seam did not find what was asked for",
	"Check the id, that it belongs to the workspace of the API key, and seam_ik.endpoint."},
	{408, ERRCODE_SYSTEM_ERROR,
		"Seam's API timed out",
	NULL},
	{429, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
		"Seam's rate limit was reached",
	"Nothing was done. Try again later, or raise seam_ik.max_retries and seam_ik.request_timeout."},
};

/*
 * Why Seam would not take this key, before it is asked: a static message, or
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
 * Two strings as one, palloc'd; psprintf() would take five times as long.
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
 * The headers and TLS roots that the account's requests share.  The profile
 * points into the account, but for the value of Authorization, which is
 * palloc'd.
 */
void
seam_profile(const SeamAccount *account, HttpProfile *profile)
{
	int			n = 0;

	profile->ca_file = account->ca_file;
	profile->names[n] = "Authorization";
	profile->values[n++] = concat("Bearer ", account->api_key);
	profile->names[n] = "Content-Type";
	profile->values[n++] = "application/json";
	profile->names[n] = "Accept";
	profile->values[n++] = "application/json";
	profile->names[n] = "User-Agent";
	profile->values[n++] = "seam_ik/" SEAM_IK_VERSION;
	if (account->workspace_id[0] != '\0')
	{
		profile->names[n] = "seam-workspace";
		profile->values[n++] = account->workspace_id;
	}
	profile->nheaders = n;
}

/*
 * Write the uuid's text form and a NUL (SEAM_UUID_TEXT_LEN + 1 bytes).
 */
void
seam_put_uuid(char *to, const pg_uuid_t *uuid)
{
	static const char hex[] = "0123456789abcdef";

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*to++ = '-';
		*to++ = hex[uuid->data[i] >> 4];
		*to++ = hex[uuid->data[i] & 0x0f];
	}
	*to = '\0';
}

/*
 * Read a uuid as the API writes it: 36 characters and nothing else, which is
 * stricter than uuid_in().  Returns whether it is one.
 */
bool
seam_get_uuid(const char *text, pg_uuid_t *uuid)
{
	static const uint8 at[UUID_LEN] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};

	/* the value of a hexadecimal digit, and 1 more, so that 0 is no digit */
	static const uint8 digits[256] = {
		['0'] = 1,['1'] = 2,['2'] = 3,['3'] = 4,['4'] = 5,
		['5'] = 6,['6'] = 7,['7'] = 8,['8'] = 9,['9'] = 10,
		['a'] = 11,['b'] = 12,['c'] = 13,['d'] = 14,['e'] = 15,['f'] = 16,
		['A'] = 11,['B'] = 12,['C'] = 13,['D'] = 14,['E'] = 15,['F'] = 16,
	};

	if (strlen(text) != SEAM_UUID_TEXT_LEN)
		return false;
	for (int i = 0; i < UUID_LEN; i++)
	{
		uint8		high = digits[(unsigned char) text[at[i]]];
		uint8		low = digits[(unsigned char) text[at[i] + 1]];

		if (high == 0 || low == 0)
			return false;
		uuid->data[i] = ((high - 1) << 4) | (low - 1);
	}
	return text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-';
}

/*
 * Read exactly n digits at *p, and move it on.  Returns whether they are there
 * and within min and max.
 */
static bool
get_digits(const char **p, int n, int min, int max, int *value)
{
	*value = 0;
	for (int i = 0; i < n; i++)
	{
		if ((*p)[i] < '0' || (*p)[i] > '9')
			return false;
		*value = *value * 10 + ((*p)[i] - '0');
	}
	*p += n;
	return *value >= min && *value <= max;
}

/*
 * Read an RFC 3339 date-time, which is what OpenAPI's date-time means.  Done by
 * hand since timestamptz_in() depends on settings, throws, and takes much that
 * is not one.  More than six digits of a second's fraction are rounded.
 * Returns whether it is one.
 */
static bool
get_time(const char *p, TimestampTz *time)
{
	int			year,
				month,
				day,
				hour,
				minute,
				second;
	int			fraction = 0;
	int			zone = 0;

	if (!get_digits(&p, 4, 1, 9999, &year) || *p++ != '-' ||
		!get_digits(&p, 2, 1, 12, &month) || *p++ != '-' ||
		!get_digits(&p, 2, 1, day_tab[isleap(year)][month - 1], &day) ||
		(*p != 'T' && *p != 't' && *p != ' '))
		return false;
	p++;
	if (!get_digits(&p, 2, 0, 23, &hour) || *p++ != ':' ||
		!get_digits(&p, 2, 0, 59, &minute) || *p++ != ':' ||
		!get_digits(&p, 2, 0, 60, &second))
		return false;
	if (*p == '.')
	{
		int			scale = 1000000;

		if (p[1] < '0' || p[1] > '9')
			return false;
		for (p++; *p >= '0' && *p <= '9'; p++)
		{
			if (scale > 1)
			{
				scale /= 10;
				fraction += (*p - '0') * scale;
			}
			else if (scale == 1)
			{
				fraction += *p >= '5';
				scale = 0;
			}
		}
	}
	if (*p == 'Z' || *p == 'z')
		p++;
	else if (*p == '+' || *p == '-')
	{
		int			sign = *p++ == '-' ? -1 : 1;
		int			zone_hour,
					zone_minute;

		if (!get_digits(&p, 2, 0, 23, &zone_hour) || *p++ != ':' ||
			!get_digits(&p, 2, 0, 59, &zone_minute))
			return false;
		zone = sign * (zone_hour * MINS_PER_HOUR + zone_minute) * SECS_PER_MINUTE;
	}
	else
		return false;
	if (*p != '\0')
		return false;
	*time = (int64) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY +
		((int64) hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second - zone) * USECS_PER_SEC +
		fraction;
	return true;
}

/*
 * Copy a URL.  What is not printable ASCII is percent-encoded as RFC 3987 maps
 * an IRI to a URI, so that every encoding of a database holds it.  palloc'd;
 * NULL for the empty string.
 */
static char *
get_url(const char *text)
{
	char	   *url;
	char	   *to;

	if (text[0] == '\0')
		return NULL;
	url = to = palloc(strlen(text) * 3 + 1);
	for (const unsigned char *p = (const unsigned char *) text; *p; p++)
	{
		if (*p <= ' ' || *p >= 0x7f)
			to += sprintf(to, "%%%02X", *p);
		else
			*to++ = *p;
	}
	*to = '\0';
	return url;
}

/*
 * Where requests of this kind go: palloc'd.
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
 * Append a uuid parameter to a body that is being written.
 */
static void
append_uuid(StringInfo body, const char *name, const pg_uuid_t *uuid)
{
	char		text[SEAM_UUID_TEXT_LEN + 1];

	if (uuid == NULL)
		return;
	seam_put_uuid(text, uuid);
	appendStringInfoString(body, body->len > 1 ? ",\"" : "\"");
	appendStringInfoString(body, name);
	appendStringInfoString(body, "\":\"");
	appendBinaryStringInfo(body, text, SEAM_UUID_TEXT_LEN);
	appendStringInfoChar(body, '"');
}

/*
 * Write the request's body.  Parameters that are not set are left out: the API
 * does not take null.
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

/* The members of an instant_key that we read. */
typedef enum FieldType
{
	FIELD_UUID,
	FIELD_URL,
	FIELD_TIME,
	FIELD_OBJECT
} FieldType;

static const struct
{
	const char *name;
	FieldType	type;
	bool		required;
	size_t		offset;			/* in SeamKey */
	const char *problem;		/* when it is not of its type */
}			key_fields[] =

{
	{"instant_key_id", FIELD_UUID, true, offsetof(SeamKey, instant_key_id), "is not a uuid"},
	{"instant_key_url", FIELD_URL, true, offsetof(SeamKey, instant_key_url), "is not a URL"},
	{"user_identity_id", FIELD_UUID, true, offsetof(SeamKey, user_identity_id), "is not a uuid"},
	{"client_session_id", FIELD_UUID, true, offsetof(SeamKey, client_session_id), "is not a uuid"},
	{"workspace_id", FIELD_UUID, true, offsetof(SeamKey, workspace_id), "is not a uuid"},
	{"customization_profile_id", FIELD_UUID, false, offsetof(SeamKey, customization_profile_id),
	"is not a uuid"},
	{"customization", FIELD_OBJECT, false, offsetof(SeamKey, customization), "is not an object"},
	{"created_at", FIELD_TIME, true, offsetof(SeamKey, created_at), "is not a time"},
	{"expires_at", FIELD_TIME, true, offsetof(SeamKey, expires_at), "is not a time"},
};

/*
 * Read an instant_key.  Returns what is wrong with it, static or palloc'd, or
 * NULL.
 */
static const char *
read_key(const JsonNode *node, SeamKey *key)
{
	JsonMember	members[lengthof(key_fields)];
	const char *twice;

	memset(key, 0, sizeof(SeamKey));
	if (node == NULL)
		return "instant_key is missing";
	if (!json_is_object(node))
		return "instant_key is not an object";
	for (int i = 0; i < (int) lengthof(key_fields); i++)
		members[i].name = key_fields[i].name;
	twice = json_members(node, members, lengthof(members));
	if (twice)
		return psprintf("%s is there twice", twice);
	for (int i = 0; i < (int) lengthof(key_fields); i++)
	{
		const JsonNode *value = members[i].value;
		const char *text = json_string(value);
		void	   *target = (char *) key + key_fields[i].offset;
		bool		ok = false;

		if (value == NULL || json_is_null(value))
		{
			if (key_fields[i].required)
				return psprintf("%s is missing", key_fields[i].name);
			continue;
		}
		switch (key_fields[i].type)
		{
			case FIELD_UUID:
				ok = text && seam_get_uuid(text, target);

				break;
			case FIELD_TIME:
				ok = text && get_time(text, target);

				break;
			case FIELD_URL:
				ok = text && (*(char **) target = get_url(text)) != NULL;

				break;
			case FIELD_OBJECT:
				ok = json_is_object(value);
				if (ok)
					*(const JsonNode **) target = value;
				break;
		}
		if (!ok)
			return psprintf("%s %s", key_fields[i].name, key_fields[i].problem);
		if (target == &key->customization_profile_id)
			key->has_customization_profile_id = true;
	}
	return NULL;
}

/*
 * Append what Seam says is wrong with each parameter: a tree like the
 * request's, whose nodes may hold "_errors", an array of strings.  path has the
 * names that lead to the node, and is left as it was.
 *
 * Whatever the tree looks like, that takes no more than in proportion to its size:
 * its depth is limited by json_parse(), the path and the number of errors here.
 */
static void
append_validation_errors(StringInfo buf, const JsonNode *node, StringInfo path,
						 const char *const *secrets, int *count)
{
	int			path_len = path->len;

	for (JsonNode *child = json_first(node); child; child = json_next(child))
	{
		const char *name = json_name(child);

		if (name == NULL)
			continue;
		if (strcmp(name, "_errors") == 0)
		{
			for (JsonNode *e = json_first(child); e; e = json_next(e))
			{
				if (json_string(e) == NULL || ++*count > MAX_VALIDATION_ERRORS)
					continue;
				appendStringInfoChar(buf, '\n');
				encoding_append_foreign(buf, path_len > 0 ? path->data : "request",
										MAX_FOREIGN_CHARS, secrets);
				appendStringInfoString(buf, ": ");
				encoding_append_foreign(buf, json_string(e), MAX_FOREIGN_CHARS, secrets);
			}
		}
		else
		{
			if (path_len > 0)
				appendStringInfoChar(path, '.');

			/*
			 * all of a name or nothing: half a secret would not be seen as
			 * one
			 */
			appendStringInfoString(path, path_len + strlen(name) <= MAX_PATH_LEN ? name : "(...)");
			append_validation_errors(buf, child, path, secrets, count);
			path->len = path_len;
			path->data[path_len] = '\0';
		}
	}
}

/*
 * The id by which Seam's support finds the request: palloc'd, of printable
 * ASCII, and not the API key, since a header's bytes may be anything.
 */
static const char *
clean_request_id(const SeamAccount *account, const HttpAnswer *answer)
{
	const char *const secrets[] = {account->api_key, NULL};
	char	   *ascii = pstrdup(answer->request_id);
	StringInfoData clean;

	/* a UUID, which Seam's are, needs no second look */
	if (ascii[strspn(ascii, "0123456789abcdefABCDEF-")] == '\0' &&
		(account->api_key[0] == '\0' || strstr(ascii, account->api_key) == NULL))
		return ascii;
	for (char *p = ascii; *p; p++)
	{
		if (*p <= ' ' || *p >= 0x7f)
			*p = '?';
	}
	initStringInfo(&clean);
	encoding_append_foreign(&clean, ascii, HTTP_HEADER_VALUE_SIZE, secrets);
	return clean.data;
}

/*
 * Append the lines of a detail that every answer has: its status, what Seam
 * says of an error, and the id by which Seam's support finds the request.
 * What Seam writes might quote the API key or the URL of a key.  Returns
 * whether a value is named that is wrong.
 */
static bool
append_answer(StringInfo buf, const SeamAccount *account,
			  const SeamRequest *request, const HttpAnswer *answer)
{
	const char *const secrets[] = {account->api_key, request->instant_key_url, NULL};
	const char *problem;
	JsonDoc    *doc = NULL;
	bool		named = false;

	appendStringInfo(buf, "HTTP status %d", answer->status);
	if (answer->status >= 400 && answer->body_len > 0)
		doc = json_parse(answer->body, answer->body_len, MAX_DEPTH, &problem);
	if (doc)
	{
		JsonMember	error = {"error", NULL};
		JsonMember	members[] = {{"type", NULL}, {"message", NULL}, {"validation_errors", NULL}};
		StringInfoData path;
		int			count = 0;

		json_members(json_root(doc), &error, 1);
		json_members(error.value, members, lengthof(members));
		if (json_string(members[0].value))
		{
			appendStringInfoString(buf, ", type \"");
			encoding_append_foreign(buf, json_string(members[0].value), MAX_FOREIGN_CHARS, secrets);
			appendStringInfoChar(buf, '"');
		}
		if (json_string(members[1].value))
		{
			appendStringInfoString(buf, ": ");
			encoding_append_foreign(buf, json_string(members[1].value), MAX_FOREIGN_CHARS, secrets);
		}
		initStringInfo(&path);
		append_validation_errors(buf, members[2].value, &path, secrets, &count);
		if (count > MAX_VALIDATION_ERRORS)
			appendStringInfo(buf, "\n(and %d more)", count - MAX_VALIDATION_ERRORS);
		/* "_errors" of the outermost node are about the whole request */
		for (JsonNode *child = json_first(members[2].value); child && count > 0; child =
			 json_next(child))
			named = named || (json_name(child) && strcmp(json_name(child), "_errors") != 0);
		json_free(doc);
	}
	if (answer->request_id[0])
		appendStringInfo(buf, "\nseam-request-id: %s", clean_request_id(account, answer));
	return named;
}

/*
 * The call may have been done, or not: say so in the result.
 */
static void
set_in_doubt(const SeamRequest *request, SeamResult *result)
{
	result->in_doubt = true;
	result->hint = request->op == SEAM_GENERATE ? HINT_MAY_EXIST : HINT_REPEAT;
}

/*
 * The result for an answer that is not what the API promises.
 */
static void
not_understood(const SeamAccount *account, const SeamRequest *request,
			   const HttpAnswer *answer, const char *problem, SeamResult *result)
{
	StringInfoData detail;
	static const pg_uuid_t no_id;

	result->sqlerrcode = ERRCODE_PROTOCOL_VIOLATION;
	result->message = psprintf("Seam's answer could not be used: %s", problem);
	set_in_doubt(request, result);
	initStringInfo(&detail);
	append_answer(&detail, account, request, answer);
	if (memcmp(&result->key.instant_key_id, &no_id, sizeof(no_id)) != 0)
	{
		char		id[SEAM_UUID_TEXT_LEN + 1];

		seam_put_uuid(id, &result->key.instant_key_id);
		appendStringInfo(&detail, "\ninstant_key_id: %s", id);
	}
	result->detail = detail.data;
}

/*
 * Did Seam itself answer that there is no such key, or identity?  A proxy, or a wrong
 * endpoint, answers 404, too; but only Seam does with an error object.
 */
static bool
says_not_found(const HttpAnswer *answer)
{
	JsonMember	error = {"error", NULL};
	const char *problem;
	JsonDoc    *doc;
	bool		found;

	if (answer->status != 404)
		return false;
	doc = json_parse(answer->body, answer->body_len, MAX_DEPTH, &problem);
	if (doc == NULL)
		return false;
	json_members(json_root(doc), &error, 1);
	found = json_is_object(error.value);
	json_free(doc);
	return found;
}

/*
 * The result for a status of 4xx or 5xx.
 */
static void
refused(const SeamAccount *account, const SeamRequest *request,
		const HttpAnswer *answer, SeamResult *result)
{
	StringInfoData detail;

	result->sqlerrcode = ERRCODE_SYSTEM_ERROR;
	if (answer->status >= 500)
		result->message = "Seam's API failed";
	else
	{
		result->message = "Seam refused the request";
		result->hint = "Check seam_ik.endpoint.";
	}
	for (int i = 0; i < (int) lengthof(status_errors); i++)
	{
		if (status_errors[i].status != answer->status)
			continue;
		result->sqlerrcode = status_errors[i].sqlerrcode;
		result->message = status_errors[i].message;
		result->hint = status_errors[i].hint;
		break;
	}
	if (answer->status >= 500 || answer->status == 408)
		set_in_doubt(request, result);
	result->not_found = says_not_found(answer);
	initStringInfo(&detail);
	if (append_answer(&detail, account, request, answer) && answer->status == 400)
		result->hint = "Correct the value that the detail names.";
	if (answer->retry_after > 0)
		appendStringInfo(&detail, "\nSeam asks to wait %d s.", answer->retry_after);
	result->detail = detail.data;
}

/*
 * The result for a request to which no whole answer came.
 */
static void
no_answer(const SeamAccount *account, const SeamRequest *request,
		  const HttpAnswer *answer, SeamResult *result)
{
	StringInfoData detail;

	initStringInfo(&detail);
	if (answer->outcome == HTTP_TOO_LARGE)
	{
		result->sqlerrcode = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
		result->message = "Seam's answer is too large";
		set_in_doubt(request, result);
		appendStringInfo(&detail, "%zu bytes had come.", answer->body_len);
		if (request->op == SEAM_LIST)
			result->hint = "Raise seam_ik.max_list_size, or list the keys of one user identity.";
	}
	else if (answer->outcome == HTTP_IN_DOUBT)
	{
		result->sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
		set_in_doubt(request, result);
		if (answer->failure == HTTP_FAILURE_TIMEOUT)
		{
			result->message = "no whole answer came from Seam within seam_ik.request_timeout";
			appendStringInfoString(&detail, "The request had been sent.");
		}
		else
		{
			result->message = "no whole answer came from Seam";
			appendStringInfoString(&detail, "The request had been sent: ");
			encoding_append_foreign(&detail, answer->error, MAX_FOREIGN_CHARS, NULL);
			appendStringInfoChar(&detail, '.');
		}
	}
	else
	{
		result->sqlerrcode = ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
		result->message = "could not connect to Seam";
		result->hint = "Check seam_ik.endpoint and the network of the database server.";
		switch (answer->failure)
		{
			case HTTP_FAILURE_RESOLVE:
				result->message = "could not resolve the host name of Seam's API";
				break;
			case HTTP_FAILURE_CERTIFICATE:
				result->message = "could not verify the TLS certificate of Seam's API";
				result->hint = "Check seam_ik.endpoint and seam_ik.ca_file, or install the "
					"ca-certificates of the system.";
				break;
			case HTTP_FAILURE_TLS:
				result->message = "could not set up TLS with Seam's API";
				break;
			case HTTP_FAILURE_TIMEOUT:
				result->message = "could not connect to Seam within seam_ik.request_timeout";
				break;
			case HTTP_FAILURE_CONNECT_TIMEOUT:
				result->message = "could not connect to Seam within seam_ik.connect_timeout";
				break;
			case HTTP_FAILURE_DESCRIPTORS:
				result->message = "could not connect to Seam: too many open files";
				result->hint = "Raise the limit of open files of the server, or lower "
					"max_files_per_process.";
				break;
			default:
				break;
		}
		appendStringInfoString(&detail, ops[request->op].not_sent);
		encoding_append_foreign(&detail, answer->error, MAX_FOREIGN_CHARS, NULL);
		appendStringInfoChar(&detail, '.');
	}
	if (answer->status != 0)
	{
		appendStringInfoChar(&detail, '\n');
		append_answer(&detail, account, request, answer);
	}
	result->detail = detail.data;
}

/*
 * Read the key that was asked for.  Returns what is wrong with it, or NULL.
 */
static const char *
read_wanted_key(const SeamRequest *request, const JsonNode *node, SeamKey *key)
{
	const char *problem = read_key(node, key);

	if (problem)
		return problem;
	if (request->user_identity_id &&
		memcmp(&key->user_identity_id, request->user_identity_id, sizeof(pg_uuid_t)) != 0)
		return "the instant key is of another user identity";
	if (request->instant_key_id &&
		memcmp(&key->instant_key_id, request->instant_key_id, sizeof(pg_uuid_t)) != 0)
		return "it is another instant key";
	return NULL;
}

/*
 * Read a list of keys and hand them to the consumer.  Returns what is wrong
 * with the list, or NULL.
 */
static const char *
read_list(const SeamRequest *request, const JsonNode *list,
		  SeamKeyConsumer consume, void *arg)
{
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext,
											  "seam_ik instant key", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	const char *problem = NULL;

	if (list == NULL)
		return "instant_keys is missing";
	if (!json_is_array(list))
		return "instant_keys is not an array";
	for (JsonNode *node = json_first(list); node && !problem; node = json_next(node))
	{
		SeamKey		key;

		MemoryContextReset(row);
		MemoryContextSwitchTo(row);
		problem = read_wanted_key(request, node, &key);
		if (!problem)
			consume(&key, arg);
		MemoryContextSwitchTo(old);
	}
	if (problem)
		problem = pstrdup(problem);
	MemoryContextDelete(row);
	return problem;
}

/*
 * Read the answer to a request that was not refused.  Returns what is wrong
 * with it, or NULL.
 */
static const char *
read_answer(const SeamRequest *request, const HttpAnswer *answer,
			SeamKeyConsumer consume, void *arg, SeamResult *result)
{
	JsonMember	members[] = {{"ok", NULL}, {"instant_key", NULL}, {"instant_keys", NULL}};
	const JsonNode *ok;
	const char *problem;
	JsonDoc    *doc;

	if (answer->status < 200)
		return "its status is not known";
	if (answer->body_len == 0)
		return "it has no body";
	doc = json_parse(answer->body, answer->body_len, MAX_DEPTH, &problem);
	if (doc == NULL)
		return problem;
	problem = json_members(json_root(doc), members, lengthof(members));
	ok = members[0].value;
	if (!json_is_object(json_root(doc)))
		problem = "it is not a JSON object";
	else if (problem)
		problem = psprintf("%s is there twice", problem);
	else if (request->op == SEAM_DELETE)
		result->deleted = true;
	else if (request->op == SEAM_LIST)
		problem = read_list(request, members[2].value, consume, arg);
	else
		problem = read_wanted_key(request, members[1].value, &result->key);

	/* "ok" may be missing, in spite of the specification */
	if (ok && !json_is_true(ok))
		problem = "it says that the request failed (ok is not true)";

	/*
	 * the key's customization is a part of the document, which goes with the
	 * context
	 */
	if (problem || result->key.customization == NULL)
		json_free(doc);
	return problem;
}

/*
 * Puts into *pace what the end of a request says of the pace of the others: its sign,
 * and the pause that is asked for.
 */
void
seam_pace_answer(const HttpAnswer *answer, PaceAnswer *pace)
{
	pace->asked = (int64) answer->retry_after * USECS_PER_SEC;
	if (answer->failure == HTTP_FAILURE_DESCRIPTORS)
		pace->sign = PACE_NO_DESCRIPTOR;
	else if (answer->outcome != HTTP_ANSWERED && answer->outcome != HTTP_TOO_LARGE)
		pace->sign = PACE_AWAY;
	else if (answer->status == 408 || answer->status >= 500)
		pace->sign = PACE_AWAY;
	else if (answer->status == 429)
		pace->sign = PACE_LIMITED;
	else
		pace->sign = answer->status == 401 ? PACE_REFUSED : PACE_GOOD;
}

/*
 * A failure in one text, palloc'd: its message, and its detail on further lines.
 */
char *
seam_error_text(const SeamResult *result)
{
	if (result->detail == NULL)
		return pstrdup(result->message);
	return psprintf("%s\n%s", result->message, result->detail);
}

/*
 * What the answer to a request means.  The keys of a list go to consume(), in
 * their order, with arg; an answer that is found wrong half way may have given
 * some already.
 */
void
seam_result(const SeamAccount *account, const SeamRequest *request,
			const HttpAnswer *answer, SeamKeyConsumer consume, void *arg,
			SeamResult *result)
{
	memset(result, 0, sizeof(SeamResult));
	if (answer->request_id[0])
		result->request_id = clean_request_id(account, answer);

	if (answer->outcome != HTTP_ANSWERED)
		no_answer(account, request, answer, result);
	else if (request->op == SEAM_DELETE && says_not_found(answer))
		result->deleted = false;
	else if (answer->status >= 400)
		refused(account, request, answer, result);
	else if (answer->status >= 300)
	{
		not_understood(account, request, answer, "it is a redirect, which is never followed",
					   result);
		result->in_doubt = false;
		result->hint = "Check seam_ik.endpoint.";
	}
	else
	{
		const char *problem = read_answer(request, answer, consume, arg, result);

		if (problem)
			not_understood(account, request, answer, problem, result);
	}
}
