/*-------------------------------------------------------------------------
 *
 * work.c
 *	  What the worker reads and writes in the outbox.
 *
 * Everything here happens in a short transaction between work_begin() and
 * work_end().  No statement waits for a row that a session has locked: it is
 * skipped, and its turn comes later.
 *
 * A queue is read from where the last read ended, since index entries of
 * requests that are done with gather at its beginning for as long as any old
 * snapshot lives.  What commits late, or was skipped, lies before that mark; so
 * now and then, depending on what it costs, the whole queue is read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "http.h"
#include "key.h"
#include "commands/dbcommands.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"
#include "utils/typcache.h"
#include "work.h"

/* A whole read of a queue may take this share of the time. */
#define FULL_READ_SHARE 20

/* Requests that are deleted in one transaction. */
#define DELETE_AT_ONCE 1000

/* How long a statement waits for a lock on the table. */
#define LOCK_TIMEOUT "1s"

const char *const status_names[STATUS_COUNT] =
{
	[STATUS_PENDING] = "pending",
	[STATUS_IN_FLIGHT] = "in_flight",
	[STATUS_ISSUED] = "issued",
	[STATUS_FAILED] = "failed",
	[STATUS_CANCELLED] = "cancelled",
	[STATUS_REVOKING] = "revoking",
	[STATUS_REVOKED] = "revoked",
};

/* What get_row() reads; r is the request. */
#define ROW_COLUMNS \
	" r.request_id, r.status, r.user_identity_id, r.max_use_count, r.customization_profile_id," \
	" r.attempts, (r.instant_key).instant_key_id, r.target_table IS NOT NULL, r.next_attempt_at," \
	" r.attempted_at, r.attempt_timeout, r.seam_time, r.timeline_id, r.sqlstate, r.error, r.reference, r.account"
#define ROW_NCOLUMNS 17

/* Ours: the arguments $1 and $2 of every statement. */
#define OURS " system_identifier = $1 AND database_id = $2 "

typedef enum WorkStatement
{
	WS_DUE_PENDING,
	WS_DUE_REVOKING,
	WS_DUE_ISSUED,
	WS_DUE_CANCELLED,
	WS_CLAIM,
	WS_CLAIM_REVOKING,
	WS_TOLD,
	WS_FIRST,
	WS_DOUBTS,
	WS_LOCK,
	WS_EXISTS,
	WS_CHANGE,
	WS_OWNED,
	WS_REVOKE_COPY,
	WS_CALLS,
	WS_CALLS_RECORD,
	WS_CALL_ANSWER,
	WS_CALL_EXTEND,
	WS_CALL_DELETE,
	WS_CALL_LOCK,
	WS_CALL_EXISTS,
	WS_ORPHAN,
	WS_ORPHANS,
	WS_DELETE,
	WS_SET_ASIDE,
	WS_SETTINGS,
	WS_COUNT
} WorkStatement;

/* The due ones of a queue: $3 now, $4 and $5 the mark, $6 how many. */
#define DUE(condition, lock) \
	"SELECT" ROW_COLUMNS " FROM %r r" \
	" WHERE " condition " AND next_attempt_at <= $3 AND (next_attempt_at, request_id) > ($4, $5)" \
	" AND" OURS \
	" ORDER BY next_attempt_at, request_id LIMIT $6" lock
#define LOCKED " FOR UPDATE SKIP LOCKED"
#define DUE_TYPES INT8OID, OIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID

#define MAX_ARGS 16

/* The statements; %r is the table, %c that of synchronous calls. */
static const struct
{
	const char *sql;
	int			nargs;
	Oid			types[MAX_ARGS];
}			statements[WS_COUNT] =

{
	/*
	 * What is claimed is read first and updated then, by request_id: a join
	 * would let the planner choose, by statistics that a queue outruns.
	 */
	[WS_DUE_PENDING] = {
		DUE("status = 'pending' AND user_identity_id <> ALL ($7)", LOCKED),
		7, {DUE_TYPES, UUIDARRAYOID}
	},
	[WS_DUE_REVOKING] = {
		DUE("status = 'revoking' AND (instant_key).instant_key_id IS NOT NULL", LOCKED),
		6, {DUE_TYPES}
	},
	[WS_DUE_ISSUED] = {
		DUE("status = 'issued'", ""),
		6, {DUE_TYPES}
	},
	[WS_DUE_CANCELLED] = {
		DUE("status = 'cancelled'", LOCKED),
		6, {DUE_TYPES}
	},
	[WS_CLAIM] = {
		"UPDATE %r SET status = 'in_flight', attempts = attempts + 1, attempted_at = $4,"
		" next_attempt_at = $4 + $5 * interval '1 ms', attempt_timeout = $5, seam_time = $6, timeline_id = $7"
		" WHERE request_id = ANY ($3)",
		7, {INT8OID, OIDOID, INT8ARRAYOID, TIMESTAMPTZOID, INT4OID, TIMESTAMPTZOID, INT4OID}
	},
	[WS_CLAIM_REVOKING] = {
		"UPDATE %r SET attempts = attempts + 1, attempted_at = $4, next_attempt_at = $4 + $5 * interval '1 ms'"
		" WHERE request_id = ANY ($3)",
		5, {INT8OID, OIDOID, INT8ARRAYOID, TIMESTAMPTZOID, INT4OID}
	},
	[WS_TOLD] = {
		"UPDATE %r SET next_attempt_at = NULL WHERE request_id = ANY ($3)",
		3, {INT8OID, OIDOID, INT8ARRAYOID}
	},
	[WS_FIRST] = {
		"SELECT next_attempt_at," OURS " FROM %r"
		" WHERE status = $3 AND next_attempt_at IS NOT NULL ORDER BY status, next_attempt_at, request_id LIMIT 1",
		3, {INT8OID, OIDOID, TEXTOID}
	},
	[WS_DOUBTS] = {
		"SELECT" ROW_COLUMNS " FROM %r r WHERE status IN ('in_flight', 'revoking') AND next_attempt_at IS NOT NULL"
		" AND (instant_key).instant_key_id IS NULL AND request_id <> ALL ($3) AND" OURS,
		3, {INT8OID, OIDOID, INT8ARRAYOID}
	},
	[WS_LOCK] = {
		"SELECT" ROW_COLUMNS " FROM %r r WHERE request_id = $3 FOR UPDATE SKIP LOCKED",
		3, {INT8OID, OIDOID, INT8OID}
	},
	[WS_EXISTS] = {
		"SELECT 1 FROM %r WHERE request_id = $3",
		3, {INT8OID, OIDOID, INT8OID}
	},
	[WS_CHANGE] = {
		"UPDATE %r SET status = $4, next_attempt_at = $5, finished_at = $6, attempts = $7,"
		" instant_key = CASE WHEN $8 IS NULL THEN instant_key ELSE $8 END,"
		" sqlstate = $9, error = $10, seam_request_id = coalesce($11, seam_request_id)"
		" WHERE request_id = $3",
		11, {INT8OID, OIDOID, INT8OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, InvalidOid, TEXTOID, TEXTOID, TEXTOID}
	},
	[WS_OWNED] = {
		"SELECT (instant_key).instant_key_id FROM %r WHERE (instant_key).instant_key_id = ANY ($3)",
		3, {INT8OID, OIDOID, UUIDARRAYOID}
	},
	[WS_REVOKE_COPY] = {
		"INSERT INTO %r (user_identity_id, max_use_count, customization_profile_id, status, next_attempt_at,"
		" instant_key, error, system_identifier, database_id)"
		" SELECT $3, $4, $5, 'revoking', now(), $6, $7, $1, $2",
		7, {INT8OID, OIDOID, UUIDOID, INT4OID, UUIDOID, InvalidOid, TEXTOID}
	},
	[WS_CALLS] = {
		"SELECT call_id, transaction_id, user_identity_ids, max_use_count, customization_profile_id, requested_at,"
		" attempt_timeout, seam_time, answered, owned, instant_key_ids, account, timeline_id,"
		OURS "AND data_directory_id = $3 FROM %c",
		3, {INT8OID, OIDOID, INT8OID}
	},
	[WS_CALLS_RECORD] = {
		"INSERT INTO %c (transaction_id, user_identity_ids, max_use_count, customization_profile_id, requested_at,"
		" attempt_timeout, seam_time, account, timeline_id, data_directory_id, system_identifier, database_id)"
		" SELECT $3[i], $4[$5[i] : $5[i + 1] - 1], nullif($6[i], 0), $7[i], $10, $8[i], $11, $9[i],"
		" $12, $13, $1, $2 FROM (SELECT generate_series(1, array_length($3, 1)) AS i) s RETURNING call_id, transaction_id",
		13, {INT8OID, OIDOID, XID8ARRAYOID, UUIDARRAYOID, INT4ARRAYOID, INT4ARRAYOID, UUIDARRAYOID, INT4ARRAYOID, INT8ARRAYOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, INT8OID}
	},
	[WS_CALL_ANSWER] = {
		"UPDATE %c SET answered = $4, owned = $5, instant_key_ids = $6, user_identity_ids = $7, attempt_timeout = $8"
		" WHERE call_id = $3",
		8, {INT8OID, OIDOID, INT8OID, BOOLOID, BOOLOID, UUIDARRAYOID, UUIDARRAYOID, INT4OID}
	},
	[WS_CALL_EXTEND] = {
		"UPDATE %c SET attempt_timeout = $4 WHERE call_id = $3",
		4, {INT8OID, OIDOID, INT8OID, INT4OID}
	},
	[WS_CALL_DELETE] = {
		"DELETE FROM %c WHERE call_id = ANY ($3)",
		3, {INT8OID, OIDOID, INT8ARRAYOID}
	},
	[WS_CALL_LOCK] = {
		"SELECT 1 FROM %c WHERE call_id = $3 FOR UPDATE SKIP LOCKED",
		3, {INT8OID, OIDOID, INT8OID}
	},
	[WS_CALL_EXISTS] = {
		"SELECT 1 FROM %c WHERE call_id = $3",
		3, {INT8OID, OIDOID, INT8OID}
	},
	[WS_ORPHANS] = {
		"SELECT user_identity_id FROM %r WHERE status = 'revoking' AND transaction_id IS NOT NULL",
		2, {INT8OID, OIDOID}
	},
	[WS_ORPHAN] = {
		"INSERT INTO %r (user_identity_id, max_use_count, customization_profile_id, status, attempted_at, attempt_timeout,"
		" seam_time, next_attempt_at, finished_at, instant_key.instant_key_id, sqlstate, error, transaction_id, account,"
		" timeline_id, system_identifier, database_id)"
		" SELECT i, $4, $5, $6, $7, $8, $9, CASE WHEN $6 = 'failed' THEN NULL WHEN k IS NULL THEN $10 ELSE now() END,"
		" CASE WHEN $6 = 'failed' THEN now() END, k,"
		" CASE WHEN $6 = 'failed' THEN '08007' END, $12, $13, $14, $15, $1, $2"
		" FROM unnest($3, $11) AS u(i, k)",
		15, {INT8OID, OIDOID, UUIDARRAYOID, INT4OID, UUIDOID, TEXTOID, TIMESTAMPTZOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		UUIDARRAYOID, TEXTOID, XID8OID, INT8OID, INT4OID}
	},
	[WS_DELETE] = {
		"DELETE FROM %r WHERE ctid = ANY (ARRAY(SELECT ctid FROM %r"
		" WHERE status = $3 AND finished_at < $4 AND next_attempt_at IS NULL"
		" AND (user_identity_id IS NULL OR user_identity_id <> ALL ($5))"
		" ORDER BY status, finished_at LIMIT $6 FOR UPDATE SKIP LOCKED))",
		6, {INT8OID, OIDOID, TEXTOID, TIMESTAMPTZOID, UUIDARRAYOID, INT8OID}
	},
	[WS_SET_ASIDE] = {
		"UPDATE %r SET next_attempt_at = 'infinity'"
		" WHERE next_attempt_at < 'infinity' AND (system_identifier <> $1 OR database_id <> $2)",
		2, {INT8OID, OIDOID}
	},
	[WS_SETTINGS] = {
		"SELECT hashtextextended(string_agg(s::text, '' ORDER BY setdatabase, setrole), 0)"
		" FROM pg_db_role_setting s WHERE setdatabase IN (0, $2) AND setrole IN (0, $3)",
		3, {INT8OID, OIDOID, OIDOID}
	},
};

/* The statements' plans for this table. */
static SPIPlanPtr plans[WS_COUNT];

static Outbox outbox;			/* as work_begin() found it */
static char *plans_name;		/* the table's name in the plans */
static Oid	key_type;			/* seam_instant_key */
static int	guc_level;

/*
 * Begin to work on the outbox, in a transaction.  Returns false when the
 * extension is not there any more, or was created anew.
 */
bool
work_begin(void)
{
	static const char *const settings[][2] = {
		/* every statement has its index, whatever the statistics say */
		{"enable_seqscan", "off"}, {"enable_hashjoin", "off"}, {"enable_mergejoin", "off"},
		{"enable_bitmapscan", "off"}, {"enable_indexscan", "on"}, {"plan_cache_mode", "force_generic_plan"}, {"jit", "off"},
		{"lock_timeout", LOCK_TIMEOUT},
	};
	Oid			before = outbox.table;

	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	guc_level = NewGUCNestLevel();
	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (!OidIsValid(outbox.schema))
	{
		bool		isnull;

		if (SPI_execute("SELECT extnamespace FROM pg_catalog.pg_extension WHERE extname = 'seam_ik'", true, 1) != SPI_OK_SELECT)
			elog(ERROR, "SPI_execute failed");
		if (SPI_processed == 0)
			return false;
		outbox.schema = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	/* another table of that name knows nothing of the calls under way */
	if (!outbox_find(outbox.schema, &outbox) || (OidIsValid(before) && outbox.table != before))
		return false;
	if (plans_name == NULL || strcmp(plans_name, outbox.name) != 0)
	{
		plans_name = MemoryContextStrdup(TopMemoryContext, outbox.name);
		for (int i = 0; i < WS_COUNT; i++)
		{
			if (plans[i])
				SPI_freeplan(plans[i]);
			plans[i] = NULL;
		}
		key_type = get_atttype(outbox.table, REQ_INSTANT_KEY + 1);
	}
	return true;
}

/*
 * Undo work_begin(), before the commit.
 */
void
work_end(void)
{
	AtEOXact_GUC(true, guc_level);
	SPI_finish();
	PopActiveSnapshot();
}

/*
 * The outbox that work_begin() found.
 */
Outbox *
work_outbox(void)
{
	return &outbox;
}

/*
 * Does the outbox belong to whom we are connected as?
 */
bool
work_is_ours(void)
{
	return outbox.owner == GetUserId();
}

/*
 * A statement with the names of the tables put in, palloc'd.
 */
static char *
with_names(const char *sql)
{
	StringInfoData text;

	initStringInfo(&text);
	for (; *sql; sql++)
	{
		if (*sql != '%')
			appendStringInfoChar(&text, *sql);
		else
			appendStringInfoString(&text, *++sql == 'r' ? outbox.name : outbox.calls);
	}
	return text.data;
}

/*
 * Execute a statement.  args and nulls have MAX_ARGS places, of which the first
 * two are filled in here; nulls may be NULL.
 */
static void
execute(WorkStatement id, Datum *args, const char *nulls)
{
	MemoryContext caller = CurrentMemoryContext;
	int			rc;

	if (plans[id] == NULL)
	{
		Oid			types[MAX_ARGS];
		SPIPlanPtr	plan;

		for (int i = 0; i < statements[id].nargs; i++)
			types[i] = OidIsValid(statements[id].types[i]) ? statements[id].types[i] : key_type;
		plan = SPI_prepare(with_names(statements[id].sql),
						   statements[id].nargs, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		plans[id] = plan;
	}
	args[0] = Int64GetDatum((int64) GetSystemIdentifier());
	args[1] = ObjectIdGetDatum(MyDatabaseId);
	rc = SPI_execute_plan(plans[id], args, nulls, false, 0);
	MemoryContextSwitchTo(caller);	/* SPI has left its own */
	if (rc < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
}

/*
 * The SQLSTATE in a text of five characters.
 */
static int
sqlstate_from_text(const char *text)
{
	return strlen(text) == 5 ? MAKE_SQLSTATE(text[0], text[1], text[2], text[3], text[4]) : ERRCODE_INTERNAL_ERROR;
}

/*
 * Read ROW_COLUMNS.  Strings are in CurrentMemoryContext.
 */
static void
get_row(HeapTuple tuple, TupleDesc desc, WorkRow *row)
{
	Datum		values[ROW_NCOLUMNS];
	bool		nulls[ROW_NCOLUMNS];
	const char *status;

	Assert(desc->natts == ROW_NCOLUMNS);
	heap_deform_tuple(tuple, desc, values, nulls);
	memset(row, 0, sizeof(WorkRow));
	row->id = DatumGetInt64(values[0]);
	status = TextDatumGetCString(values[1]);
	for (int i = 0; i < STATUS_COUNT; i++)
	{
		if (strcmp(status, status_names[i]) == 0)
			row->status = i;
	}
	row->has_identity = !nulls[2];
	if (!nulls[2])
		row->identity = *DatumGetUUIDP(values[2]);
	row->max_use_count = nulls[3] ? 0 : DatumGetInt32(values[3]);
	row->has_profile = !nulls[4];
	if (!nulls[4])
		row->profile = *DatumGetUUIDP(values[4]);
	row->attempts = DatumGetInt32(values[5]);
	row->has_key = !nulls[6];
	if (!nulls[6])
		row->key = *DatumGetUUIDP(values[6]);
	row->has_target = DatumGetBool(values[7]);
	row->next_attempt_at = nulls[8] ? DT_NOEND : DatumGetTimestampTz(values[8]);
	row->attempted_at = nulls[9] ? 0 : DatumGetTimestampTz(values[9]);
	row->attempt_timeout = nulls[10] ? 0 : DatumGetInt32(values[10]);
	row->has_seam_time = !nulls[11];
	row->seam_time = nulls[11] ? 0 : DatumGetTimestampTz(values[11]);
	row->timeline = nulls[12] ? 0 : DatumGetInt32(values[12]);
	row->sqlerrcode = nulls[13] ? 0 : sqlstate_from_text(TextDatumGetCString(values[13]));
	row->error = nulls[14] ? NULL : TextDatumGetCString(values[14]);
	row->reference = nulls[15] ? NULL : TextDatumGetCString(values[15]);
	row->account = nulls[16] ? 0 : (uint64) DatumGetInt64(values[16]);
}

/*
 * The rows of the last statement's result, in CurrentMemoryContext.
 */
static int
get_rows(WorkRow **rows)
{
	int			n = (int) SPI_processed;

	*rows = palloc(Max(n, 1) * sizeof(WorkRow));
	for (int i = 0; i < n; i++)
		get_row(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, &(*rows)[i]);
	return n;
}

/*
 * An array of n values, or NULLs, in CurrentMemoryContext.
 */
ArrayType *
work_array(Datum *values, bool *nulls, int n, Oid type)
{
	int			lower = 1;
	int16		length;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	return construct_md_array(values, nulls, 1, &n, &lower, type, length, by_value, align);
}

/*
 * An int8[] of the rows' ids.
 */
static ArrayType *
row_ids(const WorkRow *rows, int n)
{
	Datum	   *ids = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(rows[i].id);
	return work_array(ids, NULL, n, INT8OID);
}

/*
 * Claim rows that are locked, for this attempt.
 */
static void
claim(RequestStatus status, const WorkAttempt *attempt, TimestampTz now, WorkRow *rows, int n)
{
	Datum		args[MAX_ARGS];
	char		nulls[MAX_ARGS];

	memset(nulls, ' ', sizeof(nulls));
	args[2] = PointerGetDatum(row_ids(rows, n));
	if (status == STATUS_CANCELLED)
	{
		execute(WS_TOLD, args, nulls);
		return;
	}
	args[3] = TimestampTzGetDatum(now);
	args[4] = Int32GetDatum(attempt->timeout);
	for (int i = 0; i < n; i++)
	{
		rows[i].attempts++;
		rows[i].attempted_at = now;
	}
	if (status == STATUS_REVOKING)
	{
		execute(WS_CLAIM_REVOKING, args, nulls);
		return;
	}
	args[5] = TimestampTzGetDatum(attempt->seam_time);
	if (!attempt->has_seam_time)
		nulls[5] = 'n';
	args[6] = Int32GetDatum((int32) GetWALInsertionTimeLine());
	execute(WS_CLAIM, args, nulls);
}

/*
 * Take at most limit requests that are due from a queue.
 *
 * Pending ones are claimed for this attempt, unless their identity is one of
 * held; a key that is to be revoked is not due again before the attempt's
 * timeout; issued ones are those whose row is to be written, left as they are;
 * of cancelled ones nothing is due any more.  Returns their number, and the
 * rows, as they were but for the attempt, in CurrentMemoryContext.
 */
int
work_claim(WorkQueue *queue, const WorkAttempt *attempt, ArrayType *held,
		   int limit, WorkRow **rows)
{
	static const WorkStatement due[STATUS_COUNT] = {
		[STATUS_PENDING] = WS_DUE_PENDING,
		[STATUS_REVOKING] = WS_DUE_REVOKING,
		[STATUS_ISSUED] = WS_DUE_ISSUED,
		[STATUS_CANCELLED] = WS_DUE_CANCELLED,
	};
	TimestampTz now = GetCurrentTimestamp();
	int64		begin = http_now();
	bool		full = begin >= queue->next_full;
	Datum		args[MAX_ARGS];
	int			n;

	args[2] = TimestampTzGetDatum(now);
	args[3] = TimestampTzGetDatum(full ? DT_NOBEGIN : queue->mark_time);
	args[4] = Int64GetDatum(full ? 0 : queue->mark_id);
	args[5] = Int64GetDatum(limit);
	args[6] = PointerGetDatum(held);
	execute(due[queue->status], args, NULL);
	n = get_rows(rows);
	if (full)
		queue->mark_time = DT_NOBEGIN;
	if (n > 0)
	{
		queue->mark_time = (*rows)[n - 1].next_attempt_at;
		queue->mark_id = (*rows)[n - 1].id;
		if (queue->status != STATUS_ISSUED)
			claim(queue->status, attempt, now, *rows, n);
	}

	if (n == limit)
		queue->next_due = now;
	else if (!full)
	{
		/* nothing more after the mark; before it there may be something */
		queue->next_due = now + Max(queue->next_full - begin, 0);
	}
	else
	{
		args[2] = CStringGetTextDatum(status_names[queue->status]);
		execute(WS_FIRST, args, NULL);
		queue->next_due = DT_NOEND;
		if (SPI_processed > 0)
		{
			bool		isnull;
			TimestampTz first = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
			bool		ours = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));

			/* what is due and was not taken is locked, or held */
			queue->next_due = first > now ? first : now + USECS_PER_SEC;
			if (!ours && first <= now)
				work_set_aside();
		}
	}
	if (full)
		queue->next_full = http_now() + FULL_READ_SHARE * (http_now() - begin);
	return n;
}

/*
 * The requests that are in doubt: called, of which this worker, whose calls are
 * active, knows nothing.  In CurrentMemoryContext.
 */
int
work_doubts(ArrayType *active, WorkRow **rows)
{
	Datum		args[MAX_ARGS];

	args[2] = PointerGetDatum(active);
	execute(WS_DOUBTS, args, NULL);
	return get_rows(rows);
}

/*
 * Lock a request and read it.  Returns false when it is gone, or a session has
 * locked it.  Strings are in CurrentMemoryContext.
 */
bool
work_lock(int64 id, WorkRow *row)
{
	Datum		args[MAX_ARGS];

	args[2] = Int64GetDatum(id);
	execute(WS_LOCK, args, NULL);
	if (SPI_processed == 0)
		return false;
	get_row(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, row);
	return true;
}

/*
 * Does the request exist?
 */
bool
work_exists(int64 id)
{
	Datum		args[MAX_ARGS];

	args[2] = Int64GetDatum(id);
	execute(WS_EXISTS, args, NULL);
	return SPI_processed > 0;
}

/*
 * A key as a Datum for the table.
 */
static Datum
key_datum(const SeamKey *key)
{
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(key_type, -1);

	key_check_type(desc);
	return key_row(BlessTupleDesc(desc), key);
}

/*
 * Change a request that is locked.
 */
void
work_change(int64 id, const WorkChange *change)
{
	Datum		args[MAX_ARGS];
	char		nulls[MAX_ARGS];

	memset(nulls, ' ', sizeof(nulls));
	args[2] = Int64GetDatum(id);
	args[3] = CStringGetTextDatum(status_names[change->status]);
	args[4] = TimestampTzGetDatum(change->next_attempt_at);
	if (change->next_attempt_at == DT_NOEND)
		nulls[4] = 'n';
	args[5] = TimestampTzGetDatum(GetCurrentTimestamp());
	if (!change->finished)
		nulls[5] = 'n';
	args[6] = Int32GetDatum(change->attempts);
	if (change->key)
		args[7] = key_datum(change->key);
	else
		nulls[7] = 'n';
	if (change->sqlerrcode != 0)
		args[8] = CStringGetTextDatum(unpack_sql_state(change->sqlerrcode));
	else
		nulls[8] = 'n';
	if (change->error)
		args[9] = CStringGetTextDatum(change->error);
	else
		nulls[9] = 'n';
	if (change->seam_request_id)
		args[10] = CStringGetTextDatum(change->seam_request_id);
	else
		nulls[10] = 'n';
	execute(WS_CHANGE, args, nulls);
}

/*
 * Which of these keys does some request own?  Their ids, in
 * CurrentMemoryContext.
 */
int
work_owned(ArrayType *keys, pg_uuid_t **owned)
{
	Datum		args[MAX_ARGS];
	int			n;

	args[2] = PointerGetDatum(keys);
	execute(WS_OWNED, args, NULL);
	n = (int) SPI_processed;
	*owned = palloc(Max(n, 1) * sizeof(pg_uuid_t));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		(*owned)[i] = *DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	return n;
}

/*
 * Have a key revoked that may be this request's or another's.
 */
void
work_revoke_copy(const WorkRow *row, const SeamKey *key)
{
	Datum		args[MAX_ARGS];
	char		nulls[MAX_ARGS];

	memset(nulls, ' ', sizeof(nulls));
	args[2] = UUIDPGetDatum(&row->identity);
	args[3] = Int32GetDatum(row->max_use_count);
	if (row->max_use_count == 0)
		nulls[3] = 'n';
	args[4] = UUIDPGetDatum(&row->profile);
	if (!row->has_profile)
		nulls[4] = 'n';
	args[5] = key_datum(key);
	args[6] = CStringGetTextDatum("issued by a call whose answer was lost, and it cannot be told by which one");
	execute(WS_REVOKE_COPY, args, nulls);
}

/* ---------- synchronous calls ---------- */

/*
 * What tells this data directory from a copy of it, in which transactions that are
 * open here look as if they had been rolled back by a crash: the inode of a file
 * that is never written again.  A snapshot of the disk has the same.
 */
static Datum
data_directory_id(void)
{
	static struct stat st;		/* once is enough */

	if (st.st_ino == 0 && stat("PG_VERSION", &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", "PG_VERSION")));
	return Int64GetDatum((int64) st.st_ino);
}

/*
 * The calls that are recorded, in CurrentMemoryContext.
 */
int
work_calls(CallRow **calls)
{
	Datum		args[MAX_ARGS];
	int			n;

	args[2] = data_directory_id();
	execute(WS_CALLS, args, NULL);
	n = (int) SPI_processed;
	*calls = palloc0(Max(n, 1) * sizeof(CallRow));
	for (int i = 0; i < n; i++)
	{
		CallRow    *call = &(*calls)[i];
		Datum		values[14];
		bool		nulls[14];
		Datum	   *ids;
		bool	   *id_nulls;

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
		call->id = DatumGetInt64(values[0]);
		call->transaction = DatumGetFullTransactionId(values[1]);
		deconstruct_array(DatumGetArrayTypePCopy(values[2]), UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &ids, NULL, &call->n);
		call->calls = MemoryContextAllocHuge(CurrentMemoryContext, Max(call->n, 1) * sizeof(IntentCall));
		call->answered = DatumGetBool(values[8]);
		for (int j = 0; j < call->n; j++)
		{
			memset(&call->calls[j], 0, sizeof(IntentCall));
			call->calls[j].identity = *DatumGetUUIDP(ids[j]);
			call->calls[j].state = call->answered ? CALL_NOT_ISSUED : CALL_BEGUN;
		}
		call->max_use_count = nulls[3] ? 0 : DatumGetInt32(values[3]);
		call->has_profile = !nulls[4];
		if (!nulls[4])
			call->profile = *DatumGetUUIDP(values[4]);
		call->requested_at = DatumGetTimestampTz(values[5]);
		call->timeout = DatumGetInt32(values[6]);
		call->has_seam_time = !nulls[7];
		call->seam_time = nulls[7] ? 0 : DatumGetTimestampTz(values[7]);
		call->owned = DatumGetBool(values[9]);
		if (!nulls[10])
		{
			int			nkeys;

			deconstruct_array(DatumGetArrayTypePCopy(values[10]), UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &ids, &id_nulls, &nkeys);
			for (int j = 0; j < nkeys && j < call->n; j++)
			{
				if (id_nulls[j])
					continue;
				call->calls[j].key = *DatumGetUUIDP(ids[j]);
				call->calls[j].state = CALL_ISSUED;
			}
		}
		call->account = nulls[11] ? 0 : (uint64) DatumGetInt64(values[11]);
		call->timeline = DatumGetInt32(values[12]);
		call->is_ours = DatumGetBool(values[13]);
	}
	return n;
}

/*
 * The identities of a call's elements, as an array in CurrentMemoryContext.
 */
static Datum
call_identities(const CallRow *call)
{
	Datum	   *ids = MemoryContextAllocHuge(CurrentMemoryContext, Max(call->n, 1) * sizeof(Datum));

	for (int i = 0; i < call->n; i++)
		ids[i] = UUIDPGetDatum(&call->calls[i].identity);
	return PointerGetDatum(work_array(ids, NULL, call->n, UUIDOID));
}

/*
 * Room for n values, in CurrentMemoryContext.
 */
static Datum *
new_column(int n)
{
	return MemoryContextAllocHuge(CurrentMemoryContext, n * sizeof(Datum));
}

/*
 * Record n calls, at least one, in one statement: sets their ids, and the time of
 * the requests to now and Seam's (NULL: not known).
 */
void
work_record_calls(CallRow **calls, int n, TimestampTz now, const TimestampTz *seam_time)
{
	Datum		args[MAX_ARGS];
	char		nulls[MAX_ARGS];
	Datum	   *transactions = new_column(n);
	Datum	   *starts = new_column(n + 1); /* of its identities; and their
											 * end */
	Datum	   *max_use_counts = new_column(n);
	Datum	   *profiles = new_column(n);
	bool	   *no_profile = palloc(n * sizeof(bool));
	Datum	   *timeouts = new_column(n);
	Datum	   *accounts = new_column(n);
	Datum	   *identities;
	int			nidentities = 0;
	int			timeline = (int) GetWALInsertionTimeLine();

	for (int i = 0; i < n; i++)
	{
		CallRow    *call = calls[i];

		call->requested_at = now;
		call->has_seam_time = seam_time != NULL;
		call->seam_time = seam_time ? *seam_time : 0;
		call->timeline = timeline;
		transactions[i] = FullTransactionIdGetDatum(call->transaction);
		starts[i] = Int32GetDatum(nidentities + 1);
		nidentities += call->n;
		max_use_counts[i] = Int32GetDatum(call->max_use_count);
		profiles[i] = UUIDPGetDatum(&call->profile);
		no_profile[i] = !call->has_profile;
		timeouts[i] = Int32GetDatum(call->timeout);
		accounts[i] = Int64GetDatum((int64) call->account);
	}
	starts[n] = Int32GetDatum(nidentities + 1);
	identities = new_column(nidentities);
	nidentities = 0;
	for (int i = 0; i < n; i++)
	{
		for (int j = 0; j < calls[i]->n; j++)
			identities[nidentities++] = UUIDPGetDatum(&calls[i]->calls[j].identity);
	}
	memset(nulls, ' ', sizeof(nulls));
	args[2] = PointerGetDatum(work_array(transactions, NULL, n, XID8OID));
	args[3] = PointerGetDatum(work_array(identities, NULL, nidentities, UUIDOID));
	args[4] = PointerGetDatum(work_array(starts, NULL, n + 1, INT4OID));
	args[5] = PointerGetDatum(work_array(max_use_counts, NULL, n, INT4OID));
	args[6] = PointerGetDatum(work_array(profiles, no_profile, n, UUIDOID));
	args[7] = PointerGetDatum(work_array(timeouts, NULL, n, INT4OID));
	args[8] = PointerGetDatum(work_array(accounts, NULL, n, INT8OID));
	args[9] = TimestampTzGetDatum(now);
	if (seam_time)
		args[10] = TimestampTzGetDatum(*seam_time);
	else
		nulls[10] = 'n';
	args[11] = Int32GetDatum(timeline);
	args[12] = data_directory_id();
	execute(WS_CALLS_RECORD, args, nulls);
	if (SPI_processed != (uint64) n)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger or rule keeps calls from being recorded in \"seam_instant_key_call\"")));
	for (int i = 0; i < n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		bool		isnull;

		if (!FullTransactionIdEquals(DatumGetFullTransactionId(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull)),
									 calls[i]->transaction))
			elog(ERROR, "calls were recorded in another order");
		calls[i]->id = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
	}
}

/*
 * Note what is known of a recorded call.
 */
void
work_answer_call(const CallRow *call)
{
	Datum		args[MAX_ARGS];
	Datum	   *ids = MemoryContextAllocHuge(CurrentMemoryContext, Max(call->n, 1) * sizeof(Datum));
	bool	   *id_nulls = MemoryContextAllocHuge(CurrentMemoryContext, Max(call->n, 1) * sizeof(bool));

	for (int i = 0; i < call->n; i++)
	{
		ids[i] = UUIDPGetDatum(&call->calls[i].key);
		id_nulls[i] = call->calls[i].state != CALL_ISSUED;
	}
	args[2] = Int64GetDatum(call->id);
	args[3] = BoolGetDatum(call->answered);
	args[4] = BoolGetDatum(call->owned);
	args[5] = PointerGetDatum(work_array(ids, id_nulls, call->n, UUIDOID));
	args[6] = call_identities(call);
	args[7] = Int32GetDatum(call->timeout);
	execute(WS_CALL_ANSWER, args, NULL);
}

/*
 * Note that a recorded call takes longer: its timeout.
 */
void
work_extend_call(const CallRow *call)
{
	Datum		args[MAX_ARGS];

	args[2] = Int64GetDatum(call->id);
	args[3] = Int32GetDatum(call->timeout);
	execute(WS_CALL_EXTEND, args, NULL);
}

/*
 * Has a session locked this call?  If not, we have.
 */
bool
work_call_is_locked(int64 id)
{
	Datum		args[MAX_ARGS];

	args[2] = Int64GetDatum(id);
	execute(WS_CALL_LOCK, args, NULL);
	if (SPI_processed > 0)
		return false;
	execute(WS_CALL_EXISTS, args, NULL);
	return SPI_processed > 0;
}

/*
 * The identities of calls that rolled back, and whose keys are to be revoked still:
 * how many, and of at most max of them.
 */
int
work_orphans(pg_uuid_t *ids, int max)
{
	Datum		args[MAX_ARGS];

	execute(WS_ORPHANS, args, NULL);
	for (int i = 0; i < max && i < (int) SPI_processed; i++)
	{
		bool		isnull;

		ids[i] = *DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	return (int) SPI_processed;
}

/*
 * Forget n calls.
 */
void
work_delete_calls(const int64 *call_ids, int n)
{
	Datum		args[MAX_ARGS];
	Datum	   *ids = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(call_ids[i]);
	args[2] = PointerGetDatum(work_array(ids, NULL, n, INT8OID));
	execute(WS_CALL_DELETE, args, NULL);
}

/*
 * Make requests of the outbox from what a call, whose transaction rolled back, may have
 * issued: to have the keys revoked, or, when there is a report, to be looked at only.
 */
void
work_add_orphans(const CallRow *call, const char *report)
{
	Datum		args[MAX_ARGS];
	char		nulls[MAX_ARGS];
	Datum	   *ids = MemoryContextAllocHuge(CurrentMemoryContext, Max(call->n, 1) * sizeof(Datum));
	Datum	   *keys = MemoryContextAllocHuge(CurrentMemoryContext, Max(call->n, 1) * sizeof(Datum));
	bool	   *key_nulls = MemoryContextAllocHuge(CurrentMemoryContext, Max(call->n, 1) * sizeof(bool));
	int			n = 0;

	for (int i = 0; i < call->n; i++)
	{
		const IntentCall *one = &call->calls[i];

		if (one->state != CALL_ISSUED && one->state != CALL_BEGUN)
			continue;
		ids[n] = UUIDPGetDatum(&one->identity);
		keys[n] = UUIDPGetDatum(&one->key);
		key_nulls[n++] = one->state != CALL_ISSUED;
	}
	if (n == 0)
		return;
	memset(nulls, ' ', sizeof(nulls));
	args[2] = PointerGetDatum(work_array(ids, NULL, n, UUIDOID));
	args[3] = Int32GetDatum(call->max_use_count);
	if (call->max_use_count == 0)
		nulls[3] = 'n';
	args[4] = UUIDPGetDatum(&call->profile);
	if (!call->has_profile)
		nulls[4] = 'n';
	args[5] = CStringGetTextDatum(status_names[report ? STATUS_FAILED : STATUS_REVOKING]);
	args[6] = TimestampTzGetDatum(call->requested_at);
	args[7] = Int32GetDatum(call->timeout);
	args[8] = TimestampTzGetDatum(call->seam_time);
	if (!call->has_seam_time)
		nulls[8] = 'n';
	args[9] = TimestampTzGetDatum(call->requested_at + (int64) call->timeout * 1000);
	args[10] = PointerGetDatum(work_array(keys, key_nulls, n, UUIDOID));
	if (report)
		args[11] = CStringGetTextDatum(report);
	else
		nulls[11] = 'n';
	args[12] = FullTransactionIdGetDatum(call->transaction);
	args[13] = Int64GetDatum((int64) call->account);
	args[14] = Int32GetDatum(call->timeline);
	execute(WS_ORPHAN, args, nulls);
	if (SPI_processed != (uint64) n)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger or rule keeps revocations from being recorded in \"seam_instant_key_request\"")));
}

/* ---------- now and then ---------- */

/*
 * Delete some requests that were finished before this time, but none of the
 * identities to keep.  Returns whether there may be more.
 */
bool
work_delete_old(TimestampTz before, ArrayType *keep)
{
	static const RequestStatus final[] = {STATUS_ISSUED, STATUS_FAILED, STATUS_CANCELLED, STATUS_REVOKED};
	int64		n = 0;

	for (int i = 0; i < (int) lengthof(final); i++)
	{
		Datum		args[MAX_ARGS];

		args[2] = CStringGetTextDatum(status_names[final[i]]);
		args[3] = TimestampTzGetDatum(before);
		args[4] = PointerGetDatum(keep);
		args[5] = Int64GetDatum(DELETE_AT_ONCE - n);
		execute(WS_DELETE, args, NULL);
		n += (int64) SPI_processed;
		if (n >= DELETE_AT_ONCE)
			return true;
	}
	return false;
}

/*
 * Move requests that came along with a copy of the database out of the way,
 * with a warning of those that were not there yet.
 */
void
work_set_aside(void)
{
	Datum		args[MAX_ARGS];
	int64		n;

	execute(WS_SET_ASIDE, args, NULL);
	n = (int64) SPI_processed;
	if (n > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg(INT64_FORMAT " requests for instant keys of another database wait in the outbox of database \"%s\"",
						n, get_database_name(MyDatabaseId)),
				 errdetail("They came along with a copy, a dump or an upgrade, and their origin may still send them."),
				 errhint("If it will not, call seam_adopt_instant_key_requests().")));
}

/*
 * A hash of what ALTER DATABASE and ALTER ROLE have set for this worker.
 */
uint64
work_settings(void)
{
	Datum		args[MAX_ARGS];
	bool		isnull;
	Datum		hash;

	args[2] = ObjectIdGetDatum(GetUserId());
	execute(WS_SETTINGS, args, NULL);
	hash = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? 0 : (uint64) DatumGetInt64(hash);
}
