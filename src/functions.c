/*-------------------------------------------------------------------------
 *
 * functions.c
 *	  The SQL-callable functions: arguments in, rows or errors out.
 *
 * The only place where the result of a call becomes an ereport.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "calls.h"
#include "encoding.h"
#include "fmgr.h"
#include "funcapi.h"
#include "catalog/pg_type.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(seam_generate_instant_key);

/* The columns of type seam_instant_key, in their order. */
static const Oid key_columns[] =
{
	UUIDOID, TEXTOID, UUIDOID, UUIDOID, UUIDOID, UUIDOID, JSONBOID,
	TIMESTAMPTZOID, TIMESTAMPTZOID
};

/* The call of seam_generate_instant_key(). */
typedef struct SingleCall
{
	Calls		calls;			/* first */
	SeamGenerate what;
	SeamResult	result;
} SingleCall;

/*
 * Raise a result that is not a success.
 */
static void
raise_result(const SeamResult *result)
{
	ereport(ERROR,
			(errcode(result->sqlerrcode),
			 errmsg("%s", result->message),
			 result->detail ? errdetail("%s", result->detail) : 0,
			 result->hint ? errhint("%s", result->hint) : 0));
}

/*
 * The row type of the function's result, blessed; it lives as long as fcinfo's
 * FmgrInfo.  Raises 42804 when somebody changed the type.
 */
static TupleDesc
key_row_type(FunctionCallInfo fcinfo)
{
	TupleDesc	desc = fcinfo->flinfo->fn_extra;
	MemoryContext old;

	if (desc)
		return desc;
	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(CreateTupleDescCopy(desc));
	MemoryContextSwitchTo(old);

	for (int i = 0; i < (int) lengthof(key_columns); i++)
	{
		if (desc->natts != (int) lengthof(key_columns) ||
			TupleDescAttr(desc, i)->atttypid != key_columns[i])
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("type seam_instant_key is not as extension seam_ik made it")));
	}
	fcinfo->flinfo->fn_extra = desc;
	return desc;
}

/*
 * The customization as jsonb, or a NULL with a warning where the database's
 * encoding cannot hold it: the key exists already, so that is no error.
 */
static Datum
customization_datum(const char *utf8, bool *isnull)
{
	char	   *json = encoding_from_utf8(utf8);

	*isnull = json == NULL;
	if (json == NULL)
	{
		ereport(WARNING,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("the customization of the instant key has characters that the encoding of the database cannot hold"),
				 errdetail("The row's customization is NULL; the instant key is issued.")));
		return (Datum) 0;
	}
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
}

/*
 * The key as a row of type seam_instant_key.
 */
static Datum
key_row(TupleDesc desc, const SeamKey *key)
{
	Datum		values[lengthof(key_columns)] = {0};
	bool		nulls[lengthof(key_columns)] = {0};
	int			i = 0;

	values[i++] = UUIDPGetDatum(&key->instant_key_id);
	values[i++] = CStringGetTextDatum(key->instant_key_url);
	values[i++] = UUIDPGetDatum(&key->user_identity_id);
	values[i++] = UUIDPGetDatum(&key->client_session_id);
	values[i++] = UUIDPGetDatum(&key->workspace_id);
	nulls[i] = !key->has_customization_profile_id;
	values[i++] = UUIDPGetDatum(&key->customization_profile_id);
	if (key->customization)
		values[i] = customization_datum(key->customization, &nulls[i]);
	else
		nulls[i] = true;
	i++;
	values[i++] = TimestampTzGetDatum(key->created_at);
	values[i++] = TimestampTzGetDatum(key->expires_at);
	Assert(i == lengthof(key_columns));
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/*
 * Calls' callbacks for a single call.
 */
static size_t
single_body(Calls *calls, int64 i, char *body)
{
	return seam_generate_body(&((SingleCall *) calls)->what, body);
}

static bool
single_done(Calls *calls, int64 i, const HttpAnswer *answer)
{
	SingleCall *single = (SingleCall *) calls;

	seam_generate_result(calls->account, &single->what, answer, &single->result);
	return true;
}

/*
 * seam_generate_instant_key(user_identity_id uuid, max_use_count int
 *							 [, customization_profile_id uuid])
 *		RETURNS seam_instant_key
 *
 * Issue a key.  Not strict: a NULL identity is an error, the others are left
 * out of the request.
 */
Datum
seam_generate_instant_key(PG_FUNCTION_ARGS)
{
	SingleCall *single = palloc0(sizeof(SingleCall));
	SeamAccount account;
	TupleDesc	desc;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("user_identity_id must not be NULL")));
	single->what.user_identity_id = *PG_GETARG_UUID_P(0);
	if (!PG_ARGISNULL(1))
	{
		single->what.max_use_count = PG_GETARG_INT32(1);
		if (single->what.max_use_count < 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("max_use_count must be at least 1")));
	}
	if (PG_NARGS() > 2 && !PG_ARGISNULL(2))
		single->what.customization_profile_id = PG_GETARG_UUID_P(2);

	/* whatever can fail here must fail before there is a key */
	desc = key_row_type(fcinfo);
	settings_account(&account);

	single->calls.account = &account;
	single->calls.url = seam_generate_url(&account);
	single->calls.n = 1;
	single->calls.max_parallel = 1;
	single->calls.body = single_body;
	single->calls.done = single_done;
	calls_run(&single->calls);
	if (single->result.sqlerrcode != 0)
		raise_result(&single->result);
	PG_RETURN_DATUM(key_row(desc, &single->result.key));
}
