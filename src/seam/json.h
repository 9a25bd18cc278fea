/*-------------------------------------------------------------------------
 *
 * json.h
 *	  Reading JSON from the network, with the guards that cJSON lacks.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_JSON_H
#define SEAM_IK_JSON_H

#include "lib/stringinfo.h"

typedef struct cJSON JsonNode;
typedef struct JsonDoc JsonDoc;

/* A member to look for in an object. */
typedef struct JsonMember
{
	const char *name;			/* what it is called */
	JsonNode   *value;			/* found, or NULL */
} JsonMember;

extern JsonDoc *json_parse(char *text, size_t len, int max_depth,
						   const char **problem);
extern JsonNode *json_root(JsonDoc *doc);
extern void json_free(JsonDoc *doc);
extern JsonNode *json_copy(const JsonNode *node);

extern bool json_is_object(const JsonNode *node);
extern bool json_is_array(const JsonNode *node);
extern bool json_is_null(const JsonNode *node);
extern bool json_is_true(const JsonNode *node);
extern bool json_is_number(const JsonNode *node);
extern const char *json_string(const JsonNode *node);
extern JsonNode *json_first(const JsonNode *node);
extern JsonNode *json_next(const JsonNode *node);
extern const char *json_name(const JsonNode *node);
extern const char *json_members(const JsonNode *object, JsonMember *members,
								int nmembers);
extern char *json_print(const JsonNode *node);
extern void json_append_string(StringInfo buf, const char *utf8);

#endif							/* SEAM_IK_JSON_H */
