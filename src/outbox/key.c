/*-------------------------------------------------------------------------
 *
 * key.c
 *	  An instant key as a row of type seam_instant_key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "base/compat.h"
#include "base/encoding.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "seam/json.h"
#include "outbox/key.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

const KeyColumn key_columns[KEY_NCOLUMNS] =
{
	[KEY_INSTANT_KEY_ID] = {"instant_key_id", UUIDOID},
	[KEY_INSTANT_KEY_URL] = {"instant_key_url", TEXTOID},
	[KEY_USER_IDENTITY_ID] = {"user_identity_id", UUIDOID},
	[KEY_CLIENT_SESSION_ID] = {"client_session_id", UUIDOID},
	[KEY_WORKSPACE_ID] = {"workspace_id", UUIDOID},
	[KEY_CUSTOMIZATION_PROFILE_ID] = {"customization_profile_id", UUIDOID},
	[KEY_CUSTOMIZATION] = {"customization", JSONBOID},
	[KEY_CREATED_AT] = {"created_at", TIMESTAMPTZOID},
	[KEY_EXPIRES_AT] = {"expires_at", TIMESTAMPTZOID},
};

/*
 * Pushes a UTF-8 string in the database's encoding.  Returns false where that cannot
 * hold it.
 */
static bool
push_string(JsonbBuilder *builder, JsonbIteratorToken token, const char *utf8)
{
	/*
	 * (what is pushed is read only, so it is copied only where it is
	 * converted)
	 */
	bool		same = GetDatabaseEncoding() == PG_UTF8;
	char	   *text = same ? unconstify(char *, utf8) : encoding_from_utf8(utf8);
	JsonbValue	value = {.type = jbvString};

	if (text == NULL)
		return false;
	value.val.string.val = text;
	value.val.string.len = strlen(text);
	jsonb_push(builder, token, &value);
	return true;
}

/*
 * Pushes a node of an answer, whose depth was limited when it was parsed, with all
 * below it.  token: what it is of its parent, if it is neither object nor array.
 * Returns false where the database's encoding cannot hold a string of it.
 */
static bool
push_node(JsonbBuilder *builder, JsonbIteratorToken token, const JsonNode *node)
{
	bool		is_object = json_is_object(node);

	if (is_object || json_is_array(node))
	{
		jsonb_push(builder, is_object ? WJB_BEGIN_OBJECT : WJB_BEGIN_ARRAY, NULL);
		for (const JsonNode *child = json_first(node); child; child = json_next(child))
		{
			if (is_object && !push_string(builder, WJB_KEY, json_name(child)))
				return false;
			if (!push_node(builder, is_object ? WJB_VALUE : WJB_ELEM, child))
				return false;
		}
		jsonb_push(builder, is_object ? WJB_END_OBJECT : WJB_END_ARRAY, NULL);
	}
	else if (json_string(node))
		return push_string(builder, token, json_string(node));
	else
	{
		JsonbValue	value = {.type = jbvBool};

		/* (a number beyond double precision is printed as null) */
		if (json_is_number(node) && strcmp(json_print(node), "null") != 0)
		{
			Datum		text = CStringGetDatum(json_print(node));

			value.type = jbvNumeric;
			value.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, text,
																	ObjectIdGetDatum(InvalidOid),
																	Int32GetDatum(-1)));
		}
		else if (json_is_number(node) || json_is_null(node))
			value.type = jbvNull;
		else
			value.val.boolean = json_is_true(node);
		jsonb_push(builder, token, &value);
	}
	return true;
}

/*
 * The customization as jsonb, or a NULL with a warning where the database's
 * encoding cannot hold it: the key exists already, so that is no error.
 */
static Datum
customization_datum(const JsonNode *customization, bool *isnull)
{
	JsonbBuilder builder;

	memset(&builder, 0, sizeof(builder));
	*isnull = !push_node(&builder, WJB_VALUE, customization);
	if (*isnull)
	{
		ereport(WARNING,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("the customization of the instant key has characters that the encoding of "
						"the database cannot hold"),
				 errdetail("The row's customization is NULL; the instant key is issued.")));
		return (Datum) 0;
	}
	return JsonbPGetDatum(jsonb_built(&builder));
}

/*
 * The key as values of the columns of seam_instant_key (KEY_NCOLUMNS of them).
 * Some point into the key, others are in CurrentMemoryContext.
 */
void
key_values(const SeamKey *key, Datum *values, bool *nulls)
{
	memset(nulls, 0, KEY_NCOLUMNS * sizeof(bool));
	values[KEY_INSTANT_KEY_ID] = UUIDPGetDatum(&key->instant_key_id);
	values[KEY_INSTANT_KEY_URL] = CStringGetTextDatum(key->instant_key_url);
	values[KEY_USER_IDENTITY_ID] = UUIDPGetDatum(&key->user_identity_id);
	values[KEY_CLIENT_SESSION_ID] = UUIDPGetDatum(&key->client_session_id);
	values[KEY_WORKSPACE_ID] = UUIDPGetDatum(&key->workspace_id);
	values[KEY_CUSTOMIZATION_PROFILE_ID] = UUIDPGetDatum(&key->customization_profile_id);
	nulls[KEY_CUSTOMIZATION_PROFILE_ID] = !key->has_customization_profile_id;
	if (key->customization)
		values[KEY_CUSTOMIZATION] = customization_datum(key->customization,
														&nulls[KEY_CUSTOMIZATION]);
	else
	{
		values[KEY_CUSTOMIZATION] = (Datum) 0;
		nulls[KEY_CUSTOMIZATION] = true;
	}
	values[KEY_CREATED_AT] = TimestampTzGetDatum(key->created_at);
	values[KEY_EXPIRES_AT] = TimestampTzGetDatum(key->expires_at);
}

/*
 * The key as a row of type seam_instant_key.
 */
Datum
key_row(TupleDesc desc, const SeamKey *key)
{
	Datum		values[KEY_NCOLUMNS];
	bool		nulls[KEY_NCOLUMNS];

	key_values(key, values, nulls);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/*
 * Raise 42804 when somebody changed type seam_instant_key.
 */
void
key_check_type(TupleDesc desc)
{
	for (int i = 0; i < KEY_NCOLUMNS; i++)
	{
		if (desc->natts != KEY_NCOLUMNS ||
			TupleDescAttr(desc, i)->atttypid != key_columns[i].type)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("type seam_instant_key is not as extension seam_ik made it")));
	}
}
