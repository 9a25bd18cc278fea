/*-------------------------------------------------------------------------
 *
 * keys.c
 *	  The instant keys of an answer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/uuid.h"
#include "seam/keys.h"
#include "seam/values.h"
#include "utils/memutils.h"

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
	const char *name;			/* Seam's */
	FieldType	type;			/* what it must be */
	bool		required;		/* it must be there, and not null */
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
 * Reads an instant_key.  Returns what is wrong with it, static or palloc'd, or
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
				ok = text && uuid_read(text, target);

				break;
			case FIELD_TIME:
				ok = text && values_read_time(text, target);

				break;
			case FIELD_URL:
				ok = text && (*(char **) target = values_read_url(text)) != NULL;

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
 * Reads the key that was asked for; its strings are palloc'd.  Returns what is
 * wrong with it, static or palloc'd, or NULL.
 */
const char *
keys_read_one(const SeamRequest *request, const JsonNode *node, SeamKey *key)
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
 * Reads a list of keys and hands them to the consumer.  Returns what is wrong with
 * the list, static or palloc'd, or NULL; the keys before that one were handed on.
 */
const char *
keys_read_list(const SeamRequest *request, const JsonNode *list,
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
		problem = keys_read_one(request, node, &key);
		if (!problem)
			consume(&key, arg);
		MemoryContextSwitchTo(old);
	}
	if (problem)
		problem = pstrdup(problem);
	MemoryContextDelete(row);
	return problem;
}
