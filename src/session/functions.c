/*-------------------------------------------------------------------------
 *
 * functions.c
 *	  The SQL-callable functions: arguments in, rows or errors out.
 *
 * The only place where the result of a call becomes an ereport.  Whatever can
 * fail on our side is done before the call: afterwards there is a key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/stop_point.h"
#include "base/uuid.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "session/functions.h"
#include "session/intent.h"
#include "outbox/key.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "config/settings.h"
#include "seam/exchange.h"
#include "session/watched.h"
#include "storage/ipc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

/* Ids in one line of the log about an unfinished batch. */
#define IDS_PER_LOG_LINE 100

PG_FUNCTION_INFO_V1(seam_generate_instant_key);
PG_FUNCTION_INFO_V1(seam_generate_instant_keys);
PG_FUNCTION_INFO_V1(seam_get_instant_key_by_id);
PG_FUNCTION_INFO_V1(seam_get_instant_key_by_url);
PG_FUNCTION_INFO_V1(seam_list_instant_keys);

/* ---------- what became of a call ---------- */

/*
 * Request i has come to its end: whatever ends the statement from now on, this is
 * known of it.  protection: of an exchange that issues keys, or NULL.
 */
static void
request_ended(Exchange *exchange, int64 i, Protection *protection, const SeamResult *result,
			  const HttpAnswer *answer)
{
	if (result->kind == REPLY_DOUBT)
		exchange->in_doubt++;
	else if (result->sqlerrcode == 0)
	{
		exchange->succeeded++;
		exchange->issued_id = result->key.instant_key_id;
	}
	watched_ended(exchange, result);
	if (protection)
		intent_ended(protection, i, result, answer);
}

/*
 * CHECK_FOR_INTERRUPTS while a request waits for its record.
 */
static void
check_interrupts(void *arg)
{
	exchange_check_interrupts(arg);
}

/* ---------- one request ---------- */

/*
 * Gives an exchange the settings of the session.
 */
static void
set_limits(Exchange *exchange)
{
	exchange->connect_timeout = settings_connect_timeout;
	exchange->request_timeout = settings_request_timeout;
	exchange->max_retries = settings_max_retries;
}

/* A single request on its way through exchange_run(). */
typedef struct Single
{
	Exchange	exchange;		/* first */
	const SeamRequest *request; /* the one */
	Protection *protection;		/* of its key, or NULL */
	SeamKeyConsumer consume;	/* of a list's keys, or NULL */
	void	   *arg;			/* its argument */
	SeamResult *result;			/* what comes of it */
} Single;

/*
 * Exchange.request: the one.
 */
static void
single_request(Exchange *exchange, int64 i, SeamRequest *request)
{
	Single	   *single = (Single *) exchange;

	*request = *single->request;
	if (single->protection)
		intent_call(single->protection, i);
}

/*
 * IntentIdentity of a single request.
 */
static const pg_uuid_t *
single_identity(const void *arg, int64 i)
{
	return ((const SeamRequest *) arg)->user_identity_id;
}

/*
 * Exchange.done: understands the answer.
 */
static bool
single_done(Exchange *exchange, int64 i, const HttpAnswer *answer, bool earlier_doubt)
{
	Single	   *single = (Single *) exchange;

	answer_read(exchange->account, single->request, answer,
				single->consume, single->arg, single->result);
	request_ended(exchange, i, single->protection, single->result, answer);

	/* a try of ours whose answer was lost may have deleted it */
	if (single->request->op == SEAM_DELETE && earlier_doubt)
		single->result->deleted = true;
	return true;
}

/*
 * Make one call for this function of the extension, in the workspace that the request names,
 * and raise it when it fails.  Raises 22023 where the API key is not for that.  The
 * result's strings, and those of its key, are in CurrentMemoryContext.  The keys of a
 * list go to consume().
 */
void
functions_call(Oid function, const SeamAccount *account, const SeamRequest *request,
			   SeamKeyConsumer consume, void *arg, SeamResult *result)
{
	SeamAccount in_workspace;
	Single		single = {
		.exchange = {
			.account = account,
			.op = request->op,
			.n = 1,
			.max_parallel = 1,
			.max_answer = request->op == SEAM_LIST ?
			(size_t) settings_max_list_size * 1024 : ANSWER_MAX_SIZE,
			.request = single_request,
			.done = single_done,
		},
		.request = request,
		.consume = consume,
		.arg = arg,
		.result = result,
	};

	if (request->workspace)
	{
		in_workspace = *account;
		settings_choose_workspace(&in_workspace, request->workspace);
		single.exchange.account = account = &in_workspace;
	}
	set_limits(&single.exchange);
	if (request->op == SEAM_GENERATE)
		single.protection = intent_begin(function, account, request, 1, single_identity, request,
										 check_interrupts, &single.exchange);
	watched_run(&single.exchange);
	STOP_POINT("call-end");
	if (result->sqlerrcode != 0)
		ereport(ERROR,
				(errcode(result->sqlerrcode),
				 errmsg("%s", result->message),
				 result->detail ? errdetail("%s", result->detail) : 0,
				 result->hint ? errhint("%s", result->hint) : 0));
}

/* ---------- rows ---------- */

/*
 * The row type of the function's result, blessed; it lives as long as fcinfo's
 * FmgrInfo.
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
	key_check_type(desc);
	fcinfo->flinfo->fn_extra = desc;
	return desc;
}

/*
 * The argument user_identity_id, which must not be NULL.
 */
const pg_uuid_t *
functions_user_identity(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("user_identity_id must not be NULL"),
				 errhint("Give the id of a user identity at Seam.")));
	return PG_GETARG_UUID_P(arg);
}

/*
 * The argument max_use_count: 0 for a NULL, which is left out of a request.
 */
int
functions_max_use_count(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return 0;
	if (PG_GETARG_INT32(arg) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_use_count must be at least 1"),
				 errhint("A NULL leaves the number of uses to Seam.")));
	return PG_GETARG_INT32(arg);
}

/*
 * The argument seam_workspace, or NULL, also where an older script does not have it.
 */
const pg_uuid_t *
functions_workspace(FunctionCallInfo fcinfo, int arg)
{
	return PG_NARGS() > arg && !PG_ARGISNULL(arg) ? PG_GETARG_UUID_P(arg) : NULL;
}

/*
 * seam_generate_instant_key(user_identity_id uuid, max_use_count int
 *							 [, customization_profile_id uuid, seam_workspace uuid])
 *		RETURNS seam_instant_key
 *
 * Issue a key.  Not strict: a NULL identity is an error, the others are left
 * out of the request.
 */
Datum
seam_generate_instant_key(PG_FUNCTION_ARGS)
{
	SeamRequest request = {.op = SEAM_GENERATE};
	SeamAccount account;
	SeamResult	result;
	TupleDesc	desc;

	request.user_identity_id = functions_user_identity(fcinfo, 0);
	request.max_use_count = functions_max_use_count(fcinfo, 1);
	if (PG_NARGS() > 2 && !PG_ARGISNULL(2))
		request.customization_profile_id = PG_GETARG_UUID_P(2);
	request.workspace = functions_workspace(fcinfo, 3);
	desc = key_row_type(fcinfo);
	settings_account(&account);
	functions_call(fcinfo->flinfo->fn_oid, &account, &request, NULL, NULL, &result);
	PG_RETURN_DATUM(key_row(desc, &result.key));
}

/*
 * seam_get_instant_key(instant_key_id uuid) RETURNS seam_instant_key, strict
 */
Datum
seam_get_instant_key_by_id(PG_FUNCTION_ARGS)
{
	SeamRequest request = {.op = SEAM_GET};
	SeamAccount account;
	SeamResult	result;
	TupleDesc	desc = key_row_type(fcinfo);

	request.instant_key_id = PG_GETARG_UUID_P(0);
	settings_account(&account);
	functions_call(fcinfo->flinfo->fn_oid, &account, &request, NULL, NULL, &result);
	PG_RETURN_DATUM(key_row(desc, &result.key));
}

/*
 * seam_get_instant_key(instant_key_url text) RETURNS seam_instant_key, strict
 *
 * A literal without a cast comes here, so an id is taken, too.
 */
Datum
seam_get_instant_key_by_url(PG_FUNCTION_ARGS)
{
	/* what goes wrong from here on must not show the URL */
	ErrorContextCallback *outer = settings_hide_statement();
	char	   *url = text_to_cstring(PG_GETARG_TEXT_PP(0));
	SeamRequest request = {.op = SEAM_GET};
	SeamAccount account;
	SeamResult	result;
	TupleDesc	desc = key_row_type(fcinfo);
	pg_uuid_t	id;

	if (uuid_read(url, &id))
		request.instant_key_id = &id;
	else
		request.instant_key_url = pg_server_to_any(url, strlen(url), PG_UTF8);
	settings_account(&account);
	functions_call(fcinfo->flinfo->fn_oid, &account, &request, NULL, NULL, &result);
	error_context_stack = outer;
	PG_RETURN_DATUM(key_row(desc, &result.key));
}

/*
 * SeamKeyConsumer: put a key into the set that the function returns.
 */
static void
put_listed_key(const SeamKey *key, void *arg)
{
	ReturnSetInfo *rsinfo = arg;
	Datum		values[KEY_NCOLUMNS];
	bool		nulls[KEY_NCOLUMNS];

	CHECK_FOR_INTERRUPTS();
	key_values(key, values, nulls);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * seam_list_instant_keys(user_identity_id uuid) RETURNS SETOF seam_instant_key
 *
 * All keys of the workspace for a NULL.
 */
Datum
seam_list_instant_keys(PG_FUNCTION_ARGS)
{
	SeamRequest request = {.op = SEAM_LIST};
	SeamAccount account;
	SeamResult	result;

	if (!PG_ARGISNULL(0))
		request.user_identity_id = PG_GETARG_UUID_P(0);
	InitMaterializedSRF(fcinfo, 0);
	key_check_type(((ReturnSetInfo *) fcinfo->resultinfo)->setDesc);
	settings_account(&account);
	functions_call(fcinfo->flinfo->fn_oid, &account, &request, put_listed_key, fcinfo->resultinfo,
				   &result);
	return (Datum) 0;
}

/* ---------- batch ---------- */

/* The columns of seam_generate_instant_keys()'s result. */
enum
{
	BATCH_ORDINALITY,
	BATCH_USER_IDENTITY_ID,
	BATCH_INSTANT_KEY,
	BATCH_SQLSTATE,
	BATCH_ERROR,
	BATCH_SEAM_REQUEST_ID,
	BATCH_NCOLUMNS
};

/* A batch on its way through exchange_run(). */
typedef struct Batch
{
	Exchange	exchange;		/* first */
	ReturnSetInfo *rsinfo;		/* where the rows go */
	TupleDesc	key_desc;		/* of seam_instant_key, blessed */
	SeamRequest request;		/* without the identity */
	Protection *protection;		/* of the keys, or NULL */
	int			nelements;		/* of the array */
	Datum	   *elements;		/* of the array */
	bool	   *nulls;			/* which of them are NULL */
	int		   *element;		/* the element of each call */
	HeapTuple  *rows;			/* by element; NULL: not there yet */
	MemoryContext rows_context; /* of these */
	SeamResult	not_made;		/* what the elements get for which no call was
								 * made */
	int			nput;			/* rows before this are in the result */
	MemoryContext row_context;	/* reset for each answer */
	pg_uuid_t  *issued;			/* ids of the keys, for the log */
} Batch;

/*
 * The row of an element.
 */
static HeapTuple
batch_row(Batch *batch, int element, const SeamResult *result)
{
	Datum		values[BATCH_NCOLUMNS] = {0};
	bool		nulls[BATCH_NCOLUMNS];

	memset(nulls, true, sizeof(nulls));
	values[BATCH_ORDINALITY] = Int64GetDatum((int64) element + 1);
	nulls[BATCH_ORDINALITY] = false;
	values[BATCH_USER_IDENTITY_ID] = batch->elements[element];
	nulls[BATCH_USER_IDENTITY_ID] = batch->nulls[element];
	if (result->sqlerrcode == 0)
	{
		values[BATCH_INSTANT_KEY] = key_row(batch->key_desc, &result->key);
		nulls[BATCH_INSTANT_KEY] = false;
	}
	else
	{
		values[BATCH_SQLSTATE] = CStringGetTextDatum(unpack_sql_state(result->sqlerrcode));
		nulls[BATCH_SQLSTATE] = false;
		values[BATCH_ERROR] = CStringGetTextDatum(answer_error_text(result));
		nulls[BATCH_ERROR] = false;
	}
	if (result->request_id)
	{
		values[BATCH_SEAM_REQUEST_ID] = CStringGetTextDatum(result->request_id);
		nulls[BATCH_SEAM_REQUEST_ID] = false;
	}
	return heap_form_tuple(batch->rsinfo->setDesc, values, nulls);
}

/*
 * Put the next row into the result, which may go to disk: the one that has been
 * waiting for those before it, or else that of an element for which there was no
 * call.
 */
static void
put_next_row(Batch *batch)
{
	static const SeamResult is_null = {
		.sqlerrcode = ERRCODE_NULL_VALUE_NOT_ALLOWED,
		.message = "user_identity_id must not be NULL",
	};
	int			element = batch->nput++;
	HeapTuple	row = batch->rows[element];

	if (row == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(batch->row_context);

		row = batch_row(batch, element, batch->nulls[element] ? &is_null : &batch->not_made);
		tuplestore_puttuple(batch->rsinfo->setResult, row);
		MemoryContextSwitchTo(old);
		MemoryContextReset(batch->row_context);
		return;
	}
	tuplestore_puttuple(batch->rsinfo->setResult, row);
	heap_freetuple(row);
	batch->rows[element] = NULL;
}

/*
 * The request of call i.
 */
static SeamRequest
request_of(const Batch *batch, int64 i)
{
	SeamRequest request = batch->request;

	request.user_identity_id = DatumGetUUIDP(batch->elements[batch->element[i]]);
	return request;
}

/*
 * Exchange.request: that of call i.
 */
static void
batch_request(Exchange *exchange, int64 i, SeamRequest *request)
{
	Batch	   *batch = (Batch *) exchange;

	*request = request_of(batch, i);
	if (batch->protection)
		intent_call(batch->protection, i);
}

/*
 * IntentIdentity of a batch.
 */
static const pg_uuid_t *
batch_identity(const void *arg, int64 i)
{
	const Batch *batch = arg;

	return DatumGetUUIDP(batch->elements[batch->element[i]]);
}

/*
 * Exchange.done: makes the element's row, and puts the rows that are next into the
 * result.
 */
static bool
batch_done(Exchange *exchange, int64 i, const HttpAnswer *answer, bool earlier_doubt)
{
	Batch	   *batch = (Batch *) exchange;
	SeamRequest request = request_of(batch, i);
	SeamResult	result;
	HeapTuple	row;
	MemoryContext old = MemoryContextSwitchTo(batch->row_context);

	answer_read(exchange->account, &request, answer, NULL, NULL, &result);
	if (result.sqlerrcode == 0)
		batch->issued[exchange->succeeded] = result.key.instant_key_id;
	request_ended(exchange, i, batch->protection, &result, answer);
	row = batch_row(batch, batch->element[i], &result);
	MemoryContextSwitchTo(batch->rows_context);
	batch->rows[batch->element[i]] = heap_copytuple(row);
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->row_context);

	/* an interrupt ends that, and exchange_run() then raises it */
	while (batch->nput < batch->nelements && !INTERRUPTS_PENDING_CONDITION() &&
		   (batch->rows[batch->nput] || batch->nulls[batch->nput]))
		put_next_row(batch);

	/* a key that Seam does not accept will not be accepted the next time */
	return result.sqlerrcode != ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
}

/*
 * Exchange.held_up: the answer is that of all elements that were not asked for.
 */
static void
batch_held_up(Exchange *exchange, const HttpAnswer *answer)
{
	Batch	   *batch = (Batch *) exchange;
	MemoryContext old = MemoryContextSwitchTo(batch->rows_context);

	answer_read(exchange->account, &batch->request, answer, NULL, NULL, &batch->not_made);
	if (batch->not_made.kind == REPLY_DOUBT)
	{
		/* it is another element's answer: of these nothing was sent */
		batch->not_made.kind = REPLY_LIMITED;
		batch->not_made.sqlerrcode = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
		batch->not_made.message = "not sent: Seam asks to wait";
		batch->not_made.hint = NULL;
	}
	MemoryContextSwitchTo(old);
}

/*
 * The statement does not come to its end, so its rows are lost: what was
 * issued must be found in the server log.  Called on ERROR and on FATAL.
 */
static void
log_issued(int code, Datum arg)
{
	Batch	   *batch = (Batch *) DatumGetPointer(arg);
	int64		n = batch->exchange.succeeded;

	for (int64 i = 0; i < n; i += IDS_PER_LOG_LINE)
	{
		StringInfoData ids;

		initStringInfo(&ids);
		for (int64 j = i; j < Min(n, i + IDS_PER_LOG_LINE); j++)
		{
			char		id[UUID_TEXT_LEN + 1];

			uuid_write(id, &batch->issued[j]);
			appendStringInfo(&ids, " %s", id);
		}
		ereport(LOG_SERVER_ONLY,
				(errmsg("seam_generate_instant_keys() was not finished: " INT64_FORMAT " instant "
						"keys had been issued", n),
				 errdetail("Ids " INT64_FORMAT " to " INT64_FORMAT ":%s",
						   i + 1, Min(n, i + IDS_PER_LOG_LINE), ids.data)));
		pfree(ids.data);
	}
}

/*
 * seam_generate_instant_keys(user_identity_ids uuid[], max_use_count int,
 *							  customization_profile_id uuid, seam_workspace uuid)
 *		RETURNS TABLE (ordinality bigint, user_identity_id uuid,
 *					   instant_key seam_instant_key, sqlstate text, error text,
 *					   seam_request_id text)
 *
 * Issue a key for each element; a failure is a row.
 */
Datum
seam_generate_instant_keys(PG_FUNCTION_ARGS)
{
	Batch	   *batch = palloc0(sizeof(Batch));
	SeamAccount account;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("user_identity_ids must not be NULL"),
				 errhint("Give an array of ids of user identities at Seam; it may be empty.")));
	batch->request.op = SEAM_GENERATE;
	batch->request.max_use_count = functions_max_use_count(fcinfo, 1);
	if (!PG_ARGISNULL(2))
		batch->request.customization_profile_id = PG_GETARG_UUID_P(2);
	batch->request.workspace = functions_workspace(fcinfo, 3);
	InitMaterializedSRF(fcinfo, 0);
	batch->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	batch->key_desc = lookup_rowtype_tupdesc_copy(TupleDescAttr(batch->rsinfo->setDesc,
																BATCH_INSTANT_KEY)->atttypid, -1);
	key_check_type(batch->key_desc);
	batch->key_desc = BlessTupleDesc(batch->key_desc);
	settings_account(&account);
	if (batch->request.workspace)
		settings_choose_workspace(&account, batch->request.workspace);

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), UUIDOID, UUID_LEN, false, TYPALIGN_CHAR,
					  &batch->elements, &batch->nulls, &batch->nelements);
	batch->element = palloc(Max(batch->nelements, 1) * sizeof(int));
	batch->rows = MemoryContextAllocHuge(CurrentMemoryContext, Max(batch->nelements,
																   1) * sizeof(HeapTuple));
	memset(batch->rows, 0, batch->nelements * sizeof(HeapTuple));
	batch->rows_context = CurrentMemoryContext;
	batch->row_context = AllocSetContextCreate(CurrentMemoryContext,
											   "seam_ik batch row", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < batch->nelements; i++)
	{
		if (!batch->nulls[i])
			batch->element[batch->exchange.n++] = i;
	}
	batch->issued = MemoryContextAllocHuge(CurrentMemoryContext, Max(batch->exchange.n,
																	 1) * sizeof(pg_uuid_t));

	batch->exchange.account = &account;
	batch->exchange.op = SEAM_GENERATE;
	set_limits(&batch->exchange);
	batch->exchange.max_parallel = settings_max_concurrency;
	batch->exchange.max_answer = ANSWER_MAX_SIZE;
	batch->exchange.progress_interval = settings_progress_interval;
	batch->exchange.request = batch_request;
	batch->exchange.done = batch_done;
	batch->exchange.held_up = batch_held_up;

	/* there is no other reason for that, unless batch_held_up() sets one */
	batch->not_made.sqlerrcode = ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
	batch->not_made.message = "not sent: Seam did not accept the API key";
	PG_ENSURE_ERROR_CLEANUP(log_issued, PointerGetDatum(batch));
	{
		if (batch->exchange.n > 0)
		{
			batch->protection = intent_begin(fcinfo->flinfo->fn_oid, &account, &batch->request,
											 batch->exchange.n, batch_identity, batch,
											 check_interrupts, &batch->exchange);
			watched_run(&batch->exchange);
			STOP_POINT("call-end");
		}
		while (batch->nput < batch->nelements)
		{
			put_next_row(batch);
			exchange_check_interrupts(&batch->exchange);
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(log_issued, PointerGetDatum(batch));
	return (Datum) 0;
}
