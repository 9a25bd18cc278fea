/*-------------------------------------------------------------------------
 *
 * answer.c
 *	  What an answer of Seam's means, and the words in which it is told.
 *
 * The source of the protocol's facts is Seam's OpenAPI document
 * (https://docs.seam.co, POST /user_identities/generate_instant_key) and, for
 * error bodies, the official JavaScript SDK.
 *
 * Nothing is thrown but out of memory.  Strings of a result are static or in
 * CurrentMemoryContext.  No text made here contains the API key or the URL of
 * a key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/encoding.h"
#include "base/uuid.h"
#include "seam/answer.h"
#include "seam/json.h"

/* Nesting that an answer may have; the deepest that is known has 5. */
#define MAX_DEPTH 32

/* How much of a text of Seam's goes into a message, and how many errors. */
#define MAX_FOREIGN_CHARS 500
#define MAX_VALIDATION_ERRORS 20

/* Bytes of a validation error's path; of a longer one the rest is left out. */
#define MAX_PATH_LEN 2000

/*
 * What may have been done all the same is worth a hint only where doing it twice
 * is harm: a second key is another way through the door.
 */
#define HINT_MAY_EXIST \
	"The instant key may exist. Before you try again, look for it with seam_list_instant_keys(), " \
	"and delete the one that is not wanted."
#define HINT_REPEAT \
	"The call can be repeated without harm."

/* Of a request that was not sent, by its SeamOp. */
static const char *const not_sent[] = {
	[SEAM_GENERATE] = "Nothing was sent, so no instant key was issued: ",
	[SEAM_GET] = "Nothing was sent: ",
	[SEAM_LIST] = "Nothing was sent: ",
	[SEAM_DELETE] = "Nothing was sent, so no instant key was revoked: ",
};

/*
 * What the answers with a status of 4xx and 5xx mean.  Error types are an open
 * set, so the status decides; the types are passed on in the detail.
 */
static const struct
{
	int			status;			/* of HTTP */
	int			sqlerrcode;		/* these: see SeamResult */
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
 * Appends what Seam says is wrong with each parameter: a tree like the
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
 * Returns the id by which Seam's support finds the request: palloc'd, of printable
 * ASCII, and not the API key, because a header's bytes may be anything.
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
 * Appends the lines of a detail that every answer has: its status, what Seam
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
 * Returns what the transport tells of the end of a request, as if the body of a whole
 * answer were what the API promises.
 */
static ReplyFacts
reply_facts(const HttpAnswer *answer)
{
	ReplyFacts	facts = {
		.sent = answer->outcome != HTTP_NOT_SENT,
		.whole = answer->outcome == HTTP_ANSWERED,
		.status = answer->status,
		.usable = true,
		.no_descriptor = answer->failure == HTTP_FAILURE_DESCRIPTORS
	};

	/*
	 * the whole time is over, a certificate does not get better, nor an
	 * answer smaller
	 */
	facts.hopeless = answer->failure == HTTP_FAILURE_TIMEOUT ||
		answer->failure == HTTP_FAILURE_CERTIFICATE || answer->outcome == HTTP_TOO_LARGE;
	return facts;
}

/*
 * Returns whether a request may have been processed, or not, for all that the transport
 * tells.
 */
bool
answer_leaves_doubt(const HttpAnswer *answer)
{
	ReplyFacts	facts = reply_facts(answer);

	return reply_kind(&facts) == REPLY_DOUBT;
}

/*
 * Returns whether a request may be made once more after this answer, and that may help.
 */
bool
answer_try_again(const HttpAnswer *answer, SeamOp op)
{
	ReplyFacts	facts = reply_facts(answer);

	return reply_try_again(&facts, seam_is_idempotent(op));
}

/*
 * Makes the result for an answer that is not what the API promises.
 */
static void
not_understood(const SeamAccount *account, const SeamRequest *request,
			   const HttpAnswer *answer, const char *problem, SeamResult *result)
{
	StringInfoData detail;
	static const pg_uuid_t no_id;

	result->sqlerrcode = ERRCODE_PROTOCOL_VIOLATION;
	result->message = psprintf("Seam's answer could not be used: %s", problem);
	initStringInfo(&detail);
	append_answer(&detail, account, request, answer);
	if (memcmp(&result->key.instant_key_id, &no_id, sizeof(no_id)) != 0)
	{
		char		id[UUID_TEXT_LEN + 1];

		uuid_write(id, &result->key.instant_key_id);
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
 * Makes the result for a status of 4xx or 5xx.
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
	initStringInfo(&detail);
	if (append_answer(&detail, account, request, answer) && answer->status == 400)
		result->hint = "Correct the value that the detail names.";
	if (answer->retry_after > 0)
		appendStringInfo(&detail, "\nSeam asks to wait %d s.", answer->retry_after);
	result->detail = detail.data;
}

/*
 * Makes the result for a request to which no whole answer came.
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
		appendStringInfo(&detail, "%zu bytes had come.", answer->body_len);
		if (request->op == SEAM_LIST)
			result->hint = "Raise seam_ik.max_list_size, or list the keys of one user identity.";
	}
	else if (answer->outcome == HTTP_IN_DOUBT)
	{
		result->sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
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
		appendStringInfoString(&detail, not_sent[request->op]);
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
 * Reads the answer to a request that was not refused.  Returns what is wrong with
 * it, static or palloc'd, or NULL.
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
		problem = keys_read_list(request, members[2].value, consume, arg);
	else
		problem = keys_read_one(request, members[1].value, &result->key);

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
answer_pace(const HttpAnswer *answer, PaceAnswer *pace)
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
answer_error_text(const SeamResult *result)
{
	if (result->detail == NULL)
		return pstrdup(result->message);
	return psprintf("%s\n%s", result->message, result->detail);
}

/*
 * Makes the result for an answer, but for its kind.
 */
static void
read_result(const SeamAccount *account, const SeamRequest *request,
			const HttpAnswer *answer, SeamKeyConsumer consume, void *arg,
			SeamResult *result)
{
	if (answer->outcome != HTTP_ANSWERED)
		no_answer(account, request, answer, result);
	else if (answer->status >= 400)
		refused(account, request, answer, result);
	else if (answer->status >= 300)
	{
		not_understood(account, request, answer, "it is a redirect, which is never followed",
					   result);
		result->hint = "Check seam_ik.endpoint.";
	}
	else
	{
		const char *problem = read_answer(request, answer, consume, arg, result);

		if (problem)
			not_understood(account, request, answer, problem, result);
	}
}

/*
 * Finds out what the answer to a request means.  Strings of the result are static
 * or in CurrentMemoryContext.  The keys of a list go to consume(), in their order,
 * with arg; an answer that is found wrong half way may have given some already.
 */
void
answer_read(const SeamAccount *account, const SeamRequest *request,
			const HttpAnswer *answer, SeamKeyConsumer consume, void *arg,
			SeamResult *result)
{
	ReplyFacts	facts = reply_facts(answer);

	memset(result, 0, sizeof(SeamResult));
	if (answer->request_id[0])
		result->request_id = clean_request_id(account, answer);
	facts.nothing_there = facts.whole && says_not_found(answer);
	/* a key that is not there needs not be deleted */
	if (request->op != SEAM_DELETE || !facts.nothing_there)
		read_result(account, request, answer, consume, arg, result);
	facts.usable = result->sqlerrcode == 0;
	result->kind = reply_kind(&facts);
	if (result->kind == REPLY_DOUBT && result->hint == NULL)
		result->hint = request->op == SEAM_GENERATE ? HINT_MAY_EXIST : HINT_REPEAT;
}
