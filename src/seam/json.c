/*-------------------------------------------------------------------------
 *
 * json.c
 *	  Reading JSON from the network, with the guards that cJSON lacks.
 *
 * The only file that includes cJSON.h.  cJSON's allocation hooks are global to
 * the process and left alone, so a document is malloc'd; a JsonDoc frees it
 * with the memory context that it was parsed in, if json_free() did not do so
 * before.
 *
 * What cJSON accepts and we refuse: bytes that are not UTF-8, NUL (as a byte and
 * as \u0000), nesting beyond a limit (cJSON's own, CJSON_NESTING_LIMIT, protects
 * its stack), and what follows the document.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <cjson/cJSON.h>

#include "seam/json.h"
#include "mb/pg_wchar.h"

/* A parsed text; lives in the memory context that it was parsed in. */
struct JsonDoc
{
	MemoryContextCallback callback; /* frees the nodes with that context */
	cJSON	   *root;			/* or NULL */
};

/*
 * Free the document's nodes; safe to call twice.
 */
static void
free_root(void *arg)
{
	JsonDoc    *doc = arg;

	cJSON_Delete(doc->root);
	doc->root = NULL;
}

/*
 * Returns an empty document, which CurrentMemoryContext will free.
 */
static JsonDoc *
new_doc(void)
{
	JsonDoc    *doc = palloc0(sizeof(JsonDoc));

	doc->callback.func = free_root;
	doc->callback.arg = doc;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &doc->callback);
	return doc;
}

/*
 * Does a string of the text contain an escaped NUL?  An escaped backslash may
 * come before "u0000" and makes it harmless.
 */
static bool
has_escaped_nul(const char *text, size_t len)
{
	const char *end = text + len;

	for (const char *p = text; (p = memchr(p, '\\', end - p)) != NULL; p++)
	{
		const char *first = p;

		if (end - p < 6 || memcmp(p, "\\u0000", 6) != 0)
			continue;
		while (first > text && first[-1] == '\\')
			first--;
		if ((p - first) % 2 == 0)
			return true;
	}
	return false;
}

/*
 * What of the text must not reach cJSON: a description, or NULL.
 */
static const char *
text_problem(const char *text, size_t len)
{
	if (memchr(text, '\0', len) != NULL)
		return "it contains a NUL byte";
	if (pg_encoding_verifymbstr(PG_UTF8, text, (int) len) != (int) len)
		return "it is not valid UTF-8";
	if (has_escaped_nul(text, len))
		return "it contains \\u0000";
	return NULL;
}

/*
 * Is a value nested deeper than so many levels?  The recursion ends there.
 */
static bool
is_too_deep(const cJSON *node, int levels)
{
	if (node->child == NULL)
		return false;
	if (levels <= 0)
		return true;
	for (node = node->child; node; node = node->next)
	{
		if (is_too_deep(node, levels - 1))
			return true;
	}
	return false;
}

/*
 * Parse a UTF-8 text of len bytes, text[len] being a NUL.
 *
 * Returns the document, which lives in CurrentMemoryContext, or NULL with a
 * static description of what is wrong in *problem.  Throws only when out of
 * memory.
 */
JsonDoc *
json_parse(char *text, size_t len, int max_depth, const char **problem)
{
	JsonDoc    *doc;

	*problem = text_problem(text, len);
	if (*problem)
		return NULL;

	doc = new_doc();
	/* the NUL counts in, which makes cJSON require it after the document */
	doc->root = cJSON_ParseWithLengthOpts(text, len + 1, NULL, true);
	if (doc->root == NULL)
	{
		*problem = "it is not JSON";
		return NULL;
	}
	if (is_too_deep(doc->root, max_depth))
	{
		free_root(doc);
		*problem = "it is nested too deep";
		return NULL;
	}
	return doc;
}

/*
 * The document's outermost value.
 */
JsonNode *
json_root(JsonDoc *doc)
{
	return doc->root;
}

/*
 * Free the document now.  doc may be NULL.
 */
void
json_free(JsonDoc *doc)
{
	if (doc)
		free_root(doc);
}

/*
 * Copies a node and all below it into a document of its own in
 * CurrentMemoryContext, whose outermost value is returned.  Throws only when out of
 * memory.
 */
JsonNode *
json_copy(const JsonNode *node)
{
	JsonDoc    *doc = new_doc();

	doc->root = cJSON_Duplicate(node, true);
	if (doc->root == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return doc->root;
}

/*
 * What a value is.  These functions take NULL, too, for a member that is not there.
 */
bool
json_is_object(const JsonNode *node)
{
	return cJSON_IsObject(node);
}

/* See json_is_object(). */
bool
json_is_array(const JsonNode *node)
{
	return cJSON_IsArray(node);
}

/* See json_is_object(). */
bool
json_is_null(const JsonNode *node)
{
	return cJSON_IsNull(node);
}

/* See json_is_object(). */
bool
json_is_true(const JsonNode *node)
{
	return cJSON_IsTrue(node);
}

/* See json_is_object(). */
bool
json_is_number(const JsonNode *node)
{
	return cJSON_IsNumber(node);
}

/*
 * The value of a string in UTF-8, which the document owns, or NULL when the
 * node is none.
 */
const char *
json_string(const JsonNode *node)
{
	return cJSON_IsString(node) ? node->valuestring : NULL;
}

/*
 * Returns the first value in an object or array; NULL where there is none, and of NULL.
 */
JsonNode *
json_first(const JsonNode *node)
{
	return json_is_object(node) || json_is_array(node) ? node->child : NULL;
}

/*
 * Returns the value after this one in its object or array, or NULL.
 */
JsonNode *
json_next(const JsonNode *node)
{
	return node->next;
}

/*
 * Returns a value's name in its object, or NULL.
 */
const char *
json_name(const JsonNode *node)
{
	return node->string;
}

/*
 * Find members of an object by name, case-sensitively.
 *
 * Fills in the value of each, NULL where it is not there.  Returns the name of
 * one that is there twice, or NULL: which of two is meant can't be known.
 */
const char *
json_members(const JsonNode *object, JsonMember *members, int nmembers)
{
	for (int i = 0; i < nmembers; i++)
		members[i].value = NULL;
	for (JsonNode *node = json_first(object); node; node = node->next)
	{
		for (int i = 0; i < nmembers; i++)
		{
			/* (most differ in their first letter already) */
			if (node->string == NULL || node->string[0] != members[i].name[0] ||
				strcmp(node->string, members[i].name) != 0)
				continue;
			if (members[i].value)
				return members[i].name;
			members[i].value = node;
			break;
		}
	}
	return NULL;
}

/*
 * The node as JSON text in UTF-8, palloc'd.  Throws when out of memory.
 */
char *
json_print(const JsonNode *node)
{
	char	   *text = cJSON_PrintUnformatted(node);
	char	   *copy;

	if (text == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	copy = MemoryContextAllocExtended(CurrentMemoryContext, strlen(text) + 1,
									  MCXT_ALLOC_NO_OOM);
	if (copy)
		strcpy(copy, text);
	cJSON_free(text);
	if (copy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return copy;
}

/*
 * Append a UTF-8 text as a JSON string.
 */
void
json_append_string(StringInfo buf, const char *utf8)
{
	appendStringInfoChar(buf, '"');
	for (const unsigned char *p = (const unsigned char *) utf8; *p; p++)
	{
		if (*p == '"' || *p == '\\')
			appendStringInfoChar(buf, '\\');
		if (*p < ' ')
			appendStringInfo(buf, "\\u%04x", *p);
		else
			appendStringInfoChar(buf, *p);
	}
	appendStringInfoChar(buf, '"');
}
