/*-------------------------------------------------------------------------
 *
 * work.c
 *	  What the worker reads and writes of the outbox's requests.
 *
 * No statement waits for a row that a session has locked: it is
 * skipped, and its turn comes later.
 *
 * What is new is due at once, by next_attempt_at = '-infinity', whatever the clock
 * says; only a pause has an end by the clock.  Each of these two parts of a queue
 * is read from where the last read ended, because index entries of requests that are
 * done with gather at its beginning for as long as any old snapshot lives.  What
 * commits late, or was skipped, lies before that mark; so now and then, depending
 * on what it costs, the whole queue is read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "access/htup_details.h"
#include "funcapi.h"
#include "outbox/key.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "outbox/work.h"
#include "outbox/work_statement.h"

/* A whole read of a queue may take this share of the time. */
#define FULL_READ_SHARE 20

/* What cannot be read of a queue is tried again so soon. */
#define DAMAGED_PAUSE_US (60 * INT64CONST(1000000))

/* A key could not be looked for once more: it is tried again so soon. */
#define LOOK_AGAIN_RETRY_S 60

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
	" r.attempts, (r.instant_key).instant_key_id, r.target_table::oid, r.next_attempt_at," \
	" r.attempted_at, r.attempt_timeout, r.seam_time, r.timeline_id, r.sqlstate, r.error, " \
		"r.reference, r.account," \
	" r.api_key_hash, coalesce((r.instant_key).workspace_id, r.workspace_id), r.look_again_from," \
	" r.call_id IS NOT NULL, r.stay_id IS NOT NULL AND r.successor_id IS NULL, r.is_renewal," \
	" r.wake_at, " \
	"r.issue_at, r.valid_until, r.former_expires_at, r.seam_workspace, r.transaction_id IS NOT NULL"
#define ROW_NCOLUMNS 29

/*
 * The SQLSTATE in a text of five characters.
 */
static int
sqlstate_from_text(const char *text)
{
	return strlen(text) == 5 ? MAKE_SQLSTATE(text[0], text[1], text[2], text[3], text[4]) :
		ERRCODE_INTERNAL_ERROR;
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
	row->has_target = !nulls[7];
	row->target = nulls[7] ? InvalidOid : DatumGetObjectId(values[7]);
	row->next_attempt_at = nulls[8] ? DT_NOEND : DatumGetTimestampTz(values[8]);
	row->attempted_at = nulls[9] ? 0 : DatumGetTimestampTz(values[9]);
	row->attempt_timeout = nulls[10] ? 0 : DatumGetInt32(values[10]);
	row->has_seam_time = !nulls[11];
	row->seam_time = nulls[11] ? 0 : DatumGetTimestampTz(values[11]);
	row->timeline = nulls[12] ? 0 : DatumGetInt32(values[12]);
	row->sqlerrcode = nulls[13] ? 0 : sqlstate_from_text(TextDatumGetCString(values[13]));
	row->error = nulls[14] ? NULL : TextDatumGetCString(values[14]);
	row->reference = nulls[15] ? NULL : TextDatumGetCString(values[15]);
	row->account.account = nulls[16] ? 0 : (uint64) DatumGetInt64(values[16]);
	row->account.api_key = nulls[17] ? 0 : (uint64) DatumGetInt64(values[17]);
	if (!nulls[18])
		account_learn_workspace(&row->account, DatumGetUUIDP(values[18]));
	row->look_again_from = nulls[19] ? DT_NOEND : DatumGetTimestampTz(values[19]);
	row->is_call = DatumGetBool(values[20]);
	row->is_newest_of_stay = DatumGetBool(values[21]);
	row->is_renewal = !nulls[22] && DatumGetBool(values[22]);
	row->wake_at = nulls[23] ? DT_NOEND : DatumGetTimestampTz(values[23]);
	row->issue_at = nulls[24] ? DT_NOBEGIN : DatumGetTimestampTz(values[24]);
	row->valid_until = nulls[25] ? DT_NOEND : DatumGetTimestampTz(values[25]);
	row->former_expires_at = nulls[26] ? DT_NOEND : DatumGetTimestampTz(values[26]);
	row->has_workspace = !nulls[27];
	if (!nulls[27])
		row->workspace = *DatumGetUUIDP(values[27]);
	row->is_of_session = DatumGetBool(values[28]);
}

/*
 * Returns the workspace that a request was given, which lives as long as row, or NULL.
 */
const pg_uuid_t *
work_workspace(const WorkRow *row)
{
	return row->has_workspace ? &row->workspace : NULL;
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
 * Returns the rows' ids, in CurrentMemoryContext.
 */
static int64 *
row_ids(const WorkRow *rows, int n)
{
	int64	   *ids = palloc(Max(n, 1) * sizeof(int64));

	for (int i = 0; i < n; i++)
		ids[i] = rows[i].id;
	return ids;
}

/* The due ones of a queue: $3 now, $4 and $5 the mark, $6 how many. */
#define DUE(condition, lock) \
	"SELECT" ROW_COLUMNS " FROM %r r" \
	" WHERE " condition " AND next_attempt_at <= $3 AND (next_attempt_at, request_id) > ($4, $5)" \
	" AND" OURS \
	" ORDER BY next_attempt_at, request_id LIMIT $6" lock
#define LOCKED " FOR UPDATE SKIP LOCKED"
#define DUE_TYPES TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID

/*
 * What is claimed is read first and updated then, by request_id: a join
 * would let the planner choose, by statistics that a queue outruns.
 */
static WorkStatement select_pending =
{
	/* $8: nothing is sent for a stay that is over, or may be */
	.sql = DUE("status = 'pending' AND user_identity_id <> ALL ($7) AND (valid_until IS NULL OR "
			   "valid_until > $8) AND (issue_at IS NULL OR issue_at <= $8 + interval '5 s')",
			   LOCKED),
	.types = {DUE_TYPES, UUIDARRAYOID, TIMESTAMPTZOID}
};

static WorkStatement select_revoking =
{
	.sql = DUE("status = 'revoking' AND (instant_key).instant_key_id IS NOT NULL", LOCKED),
	.types = {DUE_TYPES}
};

static WorkStatement select_issued =
{
	.sql = DUE("status = 'issued'", ""),
	.types = {DUE_TYPES}
};

static WorkStatement select_cancelled =
{
	.sql = DUE("status = 'cancelled'", LOCKED),
	.types = {DUE_TYPES}
};

static WorkStatement select_first =
{
	.sql = "SELECT next_attempt_at FROM %r"
	" WHERE status = $3 AND" OURS "AND next_attempt_at IS NOT NULL ORDER BY status, "
	"next_attempt_at, request_id LIMIT 1",
	.types = {TEXTOID}
};

/* What take() reads. */
typedef struct Reading
{
	const WorkQueue *queue;		/* of it */
	TimestampTz due;			/* what is due then */
	ArrayType  *held;			/* not for these identities */
	TimestampTz stays_at;		/* as WorkAttempt says */
	WorkRow    *rows;			/* what was read, in the context of the first
								 * read */
	int			n;				/* how many these are */
	MemoryContext context;		/* that one */
} Reading;

/*
 * DamageRead: reads rows of a queue.
 */
static int
read_rows(void *arg, WorkMark *mark, int limit, bool keep)
{
	static WorkStatement *const statements[STATUS_COUNT] = {
		[STATUS_PENDING] = &select_pending,
		[STATUS_REVOKING] = &select_revoking,
		[STATUS_ISSUED] = &select_issued,
		[STATUS_CANCELLED] = &select_cancelled,
	};
	Reading    *reading = arg;
	MemoryContext old = MemoryContextSwitchTo(reading->context);
	Datum		args[WORK_MAX_ARGS];
	WorkRow    *rows;
	int			n;

	args[2] = TimestampTzGetDatum(reading->due);
	args[3] = TimestampTzGetDatum(mark->time);
	args[4] = Int64GetDatum(mark->id);
	args[5] = Int64GetDatum(limit);
	args[6] = PointerGetDatum(reading->held);
	args[7] = TimestampTzGetDatum(reading->stays_at);
	work_execute(statements[reading->queue->status], args, NULL);
	n = get_rows(&rows);
	if (keep && n > 0)
	{
		mark->time = rows[n - 1].next_attempt_at;
		mark->id = rows[n - 1].id;
		reading->rows = repalloc(reading->rows, (reading->n + n) * sizeof(WorkRow));
		memcpy(reading->rows + reading->n, rows, n * sizeof(WorkRow));
		reading->n += n;
	}
	MemoryContextSwitchTo(old);
	return n;
}

/*
 * Claims rows that are locked, for this attempt.  Returns how many are claimed, which come
 * first then.
 */
static int
claim(RequestStatus status, const WorkAttempt *attempt, WorkRow *rows, int n)
{
	TimestampTz now = GetCurrentTimestamp();
	bool	   *claimed = palloc(n * sizeof(bool));
	int			nclaimed = 0;

	claim_requests(status, attempt, now, row_ids(rows, n), n, claimed);
	for (int i = 0; i < n; i++)
	{
		WorkRow		row = rows[i];

		if (!claimed[i])
			continue;
		if (status != STATUS_CANCELLED)
		{
			row.attempts++;
			row.attempted_at = now;
		}
		rows[nclaimed++] = row;
	}
	return nclaimed;
}

/*
 * Of the requests of a queue that come after the mark, and are due at this time (or
 * before, DT_NOBEGIN: at once), claim at most limit; see work_claim().
 */
static int
take(WorkQueue *queue, WorkMark *mark, TimestampTz due, const WorkAttempt *attempt,
	 ArrayType *held, int limit, WorkRow **rows)
{
	Reading		reading = {.queue = queue,.due = due,.held = held,
		.stays_at = attempt ? attempt->stays_at : DT_NOEND,
	.rows = palloc(sizeof(WorkRow)),.context = CurrentMemoryContext};

	if (!queue->careful)
		(void) read_rows(&reading, mark, limit, true);
	else if (damage_read(read_rows, &reading, mark, due, limit))
		queue->damaged = true;
	*rows = reading.rows;
	if (queue->status == STATUS_ISSUED || reading.n == 0)
		return reading.n;
	return claim(queue->status, attempt, reading.rows, reading.n);
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
	TimestampTz now = GetCurrentTimestamp();
	int64		begin = clock_now();
	bool		full = begin >= queue->next_full;
	WorkMark   *marks[] = {&queue->at_once, &queue->paused};
	int			first = queue->paused_first ? 1 : 0;
	int			n;

	if (full)
	{
		queue->damaged = false;
		queue->at_once = (WorkMark)
		{
			DT_NOBEGIN, PG_INT64_MIN
		};
		queue->paused = (WorkMark)
		{
			DT_NOBEGIN, PG_INT64_MAX
		};
	}
	queue->paused_first = !queue->paused_first;
	n = take(queue, marks[first], first ? now : DT_NOBEGIN, attempt, held, limit, rows);
	if (n < limit)
	{
		WorkRow    *others;
		int			nothers = take(queue, marks[1 - first], first ? DT_NOBEGIN : now, attempt,
								   held, limit - n, &others);

		*rows = repalloc(*rows, (n + nothers + 1) * sizeof(WorkRow));
		memcpy(*rows + n, others, nothers * sizeof(WorkRow));
		n += nothers;
	}

	if (n == limit)
		queue->next_due = now;
	else if (!full)
	{
		/* nothing more after the marks; before them there may be something */
		queue->next_due = now + Max(queue->next_full - begin, 0);
	}
	else if (queue->damaged)
		queue->next_due = now + DAMAGED_PAUSE_US;
	else
	{
		Datum		args[WORK_MAX_ARGS];

		args[2] = CStringGetTextDatum(status_names[queue->status]);
		work_execute(&select_first, args, NULL);
		queue->next_due = DT_NOEND;
		if (SPI_processed > 0)
		{
			bool		isnull;
			TimestampTz first = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
																  SPI_tuptable->tupdesc, 1,
																  &isnull));

			/* what is due and was not taken is locked, or held */
			queue->next_due = first > now ? first : now + USECS_PER_SEC;
		}
	}
	if (full)
		queue->next_full = clock_now() + (queue->damaged ? DAMAGED_PAUSE_US :
										  FULL_READ_SHARE * (clock_now() - begin));
	/* all of it was read */
	if (n < limit)
		queue->careful = queue->damaged;
	return n;
}

static WorkStatement select_doubts =
{
	.sql = "SELECT" ROW_COLUMNS " FROM %r r WHERE status IN ('in_flight', 'revoking') AND "
	"next_attempt_at IS NOT NULL"
	" AND (instant_key).instant_key_id IS NULL AND request_id <> ALL ($3) AND" OURS,
	.types = {INT8ARRAYOID}
};

/*
 * The requests that are in doubt: called, of which this worker, whose calls are
 * active, knows nothing.  In CurrentMemoryContext.
 */
int
work_doubts(ArrayType *active, WorkRow **rows)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = PointerGetDatum(active);
	work_execute(&select_doubts, args, NULL);
	return get_rows(rows);
}

static WorkStatement give_back_attempts =
{
	.sql = "UPDATE %r SET attempts = attempts - 1 WHERE request_id = ANY ($3) AND attempts > 0"
	" AND status IN ('pending', 'in_flight', 'revoking')",
	.types = {INT8ARRAYOID}
};

/*
 * Has the last attempts of these requests, none of which is under way, count no more.
 */
void
work_give_back(const int64 *ids, int n)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = work_ids(ids, n);
	work_execute(&give_back_attempts, args, NULL);
}

static WorkStatement peek_pending =
{
	.sql = "SELECT user_identity_id FROM %r WHERE status = 'pending' AND next_attempt_at <= $3 AND "
	"user_identity_id IS NOT NULL AND" OURS
	" ORDER BY next_attempt_at, request_id OFFSET $4 LIMIT 1",
	.types = {TIMESTAMPTZOID, INT8OID}
};

/*
 * Reads the identity of a pending request that is due, the one after so many others.
 * Returns whether there is one.
 */
bool
work_peek(int offset, pg_uuid_t *identity)
{
	Datum		args[WORK_MAX_ARGS];
	pg_uuid_t  *found;

	args[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	args[3] = Int64GetDatum(offset);
	work_execute(&peek_pending, args, NULL);
	if (work_uuids(&found) == 0)
		return false;
	*identity = *found;
	return true;
}

/*
 * Executes a statement whose one argument is a request's id.  Returns how many rows it
 * has found.
 */
static uint64
execute_for(WorkStatement *statement, int64 id)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = Int64GetDatum(id);
	work_execute(statement, args, NULL);
	return SPI_processed;
}

static WorkStatement lock_requests =
{
	.sql = "SELECT" ROW_COLUMNS " FROM %r r WHERE request_id = ANY ($3) FOR UPDATE SKIP LOCKED",
	.types = {INT8ARRAYOID}
};

/*
 * Locks requests and reads those of them that are there, and that no session has locked.
 * Returns their number, and the rows, in no order, in CurrentMemoryContext.
 */
int
work_lock_all(const int64 *ids, int n, WorkRow **rows)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = work_ids(ids, n);
	work_execute(&lock_requests, args, NULL);
	return get_rows(rows);
}

/*
 * Lock a request and read it.  Returns false when it is gone, or a session has
 * locked it.  Strings are in CurrentMemoryContext.
 */
bool
work_lock(int64 id, WorkRow *row)
{
	WorkRow    *rows;

	if (work_lock_all(&id, 1, &rows) == 0)
		return false;
	*row = rows[0];
	return true;
}

static WorkStatement find_request =
{
	.sql = "SELECT 1 FROM %r WHERE request_id = $3",
	.types = {INT8OID}
};

/*
 * Does the request exist?
 */
bool
work_exists(int64 id)
{
	return execute_for(&find_request, id) > 0;
}

/*
 * The type of keys in the table, in CurrentMemoryContext.
 */
static TupleDesc
key_type(void)
{
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(work_key_type(), -1);

	key_check_type(desc);
	return BlessTupleDesc(desc);
}

/* What a change is made of, from the first argument on: an array of each. */
enum
{
	CHANGE_ID,
	CHANGE_STATUS,
	CHANGE_NEXT_ATTEMPT_AT,
	CHANGE_FINISHED_AT,
	CHANGE_ATTEMPTS,
	CHANGE_KEY,
	CHANGE_SQLSTATE,
	CHANGE_ERROR,
	CHANGE_SEAM_REQUEST_ID,
	CHANGE_ATTEMPT_TIMEOUT,
	CHANGE_LOOK_AGAIN_AT,
	CHANGE_LOOK_AGAIN_FROM,
	CHANGE_WAKE_AT,
	CHANGE_NARGS
};

/* Keys have columns, which unnest() would take apart: they are found by their place. */
static WorkStatement update_requests =
{
	.sql = "UPDATE %r r SET status = c.status, next_attempt_at = c.next_attempt_at,"
	" finished_at = c.finished_at, attempts = c.attempts,"
	" instant_key = CASE WHEN ($8)[c.place] IS NULL THEN r.instant_key ELSE ($8)[c.place] END,"
	" sqlstate = c.sqlstate, error = c.error,"
	" seam_request_id = coalesce(c.seam_request_id, r.seam_request_id),"
	" attempt_timeout = coalesce(c.attempt_timeout, r.attempt_timeout),"
	" look_again_at = coalesce(c.look_again_at, r.look_again_at),"
	" look_again_from = least(r.look_again_from, c.look_again_from),"
	" wake_at = coalesce(c.wake_at, r.wake_at),"

	/*
	 * a renewal that has failed: the row is not to show a key that is about
	 * to end
	 */
	" row_task = CASE WHEN c.status = 'failed' AND r.is_renewal AND r.target_table IS NOT NULL"
	" THEN 'clear' ELSE r.row_task END,"
	" row_task_at = CASE WHEN c.status = 'failed' AND r.is_renewal AND r.target_table IS NOT NULL"
	" THEN '-infinity' ELSE r.row_task_at END"
	" FROM unnest($3, $4, $5, $6, $7, $9, $10, $11, $12, $13, $14, $15) WITH ORDINALITY"
	" AS c(request_id, status, next_attempt_at, finished_at, attempts, sqlstate, error,"
	" seam_request_id, attempt_timeout, look_again_at, look_again_from, wake_at, place)"
	" WHERE r.request_id = c.request_id",
	.types = {
		[CHANGE_ID] = INT8ARRAYOID,
		[CHANGE_STATUS] = TEXTARRAYOID,
		[CHANGE_NEXT_ATTEMPT_AT] = TIMESTAMPTZARRAYOID,
		[CHANGE_FINISHED_AT] = TIMESTAMPTZARRAYOID,
		[CHANGE_ATTEMPTS] = INT4ARRAYOID,
		[CHANGE_KEY] = WORK_KEY_ARRAY,
		[CHANGE_SQLSTATE] = TEXTARRAYOID,
		[CHANGE_ERROR] = TEXTARRAYOID,
		[CHANGE_SEAM_REQUEST_ID] = TEXTARRAYOID,
		[CHANGE_ATTEMPT_TIMEOUT] = INT4ARRAYOID,
		[CHANGE_LOOK_AGAIN_AT] = TIMESTAMPTZARRAYOID,
		[CHANGE_LOOK_AGAIN_FROM] = TIMESTAMPTZARRAYOID,
		[CHANGE_WAKE_AT] = TIMESTAMPTZARRAYOID
	}
};

/*
 * A text as a Datum, in CurrentMemoryContext; of NULL, none.
 */
static Datum
text_datum(const char *text)
{
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

/*
 * The arguments of a change: values, and which of them are NULL, CHANGE_NARGS of each.
 * Whose key is of this type.
 */
static void
put_change(const WorkChange *change, TupleDesc key_desc, Datum *values, bool *nulls)
{
	memset(nulls, false, CHANGE_NARGS * sizeof(bool));
	values[CHANGE_ID] = Int64GetDatum(change->id);
	values[CHANGE_STATUS] = CStringGetTextDatum(status_names[change->status]);
	values[CHANGE_NEXT_ATTEMPT_AT] = TimestampTzGetDatum(change->next_attempt_at);
	nulls[CHANGE_NEXT_ATTEMPT_AT] = change->next_attempt_at == DT_NOEND;
	values[CHANGE_FINISHED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
	nulls[CHANGE_FINISHED_AT] = !change->finished;
	values[CHANGE_ATTEMPTS] = Int32GetDatum(change->attempts);
	values[CHANGE_KEY] = change->key ? key_row(key_desc, change->key) : (Datum) 0;
	nulls[CHANGE_KEY] = change->key == NULL;
	values[CHANGE_SQLSTATE] = text_datum(change->sqlerrcode == 0 ? NULL :
										 unpack_sql_state(change->sqlerrcode));
	nulls[CHANGE_SQLSTATE] = change->sqlerrcode == 0;
	values[CHANGE_ERROR] = text_datum(change->error);
	nulls[CHANGE_ERROR] = change->error == NULL;
	values[CHANGE_SEAM_REQUEST_ID] = text_datum(change->seam_request_id);
	nulls[CHANGE_SEAM_REQUEST_ID] = change->seam_request_id == NULL;
	values[CHANGE_ATTEMPT_TIMEOUT] = Int32GetDatum(change->attempt_timeout);
	nulls[CHANGE_ATTEMPT_TIMEOUT] = change->attempt_timeout == 0;
	values[CHANGE_LOOK_AGAIN_AT] = TimestampTzGetDatum(change->look_again_at);
	values[CHANGE_LOOK_AGAIN_FROM] = TimestampTzGetDatum(change->look_again_from);
	nulls[CHANGE_LOOK_AGAIN_AT] = nulls[CHANGE_LOOK_AGAIN_FROM] = !change->look_again;
	values[CHANGE_WAKE_AT] = TimestampTzGetDatum(change->wake_at);
	nulls[CHANGE_WAKE_AT] = !change->wakes;
}

/*
 * Changes requests that are locked, n different ones, by one statement: that costs half of
 * what a statement for each does.
 */
void
work_change(WorkChange *const *changes, int n)
{
	Datum		args[WORK_MAX_ARGS];
	Datum	   *values = palloc(n * CHANGE_NARGS * sizeof(Datum));
	bool	   *nulls = palloc(n * CHANGE_NARGS * sizeof(bool));
	Datum	   *column = palloc(n * sizeof(Datum));
	bool	   *column_nulls = palloc(n * sizeof(bool));
	TupleDesc	key_desc = key_type();

	for (int i = 0; i < n; i++)
		put_change(changes[i], key_desc, values + i * CHANGE_NARGS, nulls + i * CHANGE_NARGS);
	for (int c = 0; c < CHANGE_NARGS; c++)
	{
		Oid			array = update_requests.types[c];

		for (int i = 0; i < n; i++)
		{
			column[i] = values[i * CHANGE_NARGS + c];
			column_nulls[i] = nulls[i * CHANGE_NARGS + c];
		}
		args[WORK_OUR_ARGS + c] =
			PointerGetDatum(work_array(column, column_nulls, n, array == WORK_KEY_ARRAY ?
									   work_key_type() : get_element_type(array)));
	}
	work_execute(&update_requests, args, NULL);
}

static WorkStatement select_owned =
{
	.sql = "SELECT (instant_key).instant_key_id FROM %r WHERE (instant_key).instant_key_id = ANY "
	"($3)",
	.types = {UUIDARRAYOID}
};

/*
 * Which of these keys does some request own?  Their ids, in
 * CurrentMemoryContext.
 */
int
work_owned(ArrayType *keys, pg_uuid_t **owned)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = PointerGetDatum(keys);
	work_execute(&select_owned, args, NULL);
	return work_uuids(owned);
}

static WorkStatement insert_copy =
{
	.sql = "INSERT INTO %r (user_identity_id, max_use_count, customization_profile_id, status, "
	"next_attempt_at,"
	" instant_key, error, account, api_key_hash, sqlstate, finished_at, system_identifier, origin,"
	" seam_workspace)"
	" SELECT $3, $4, $5, $6, CASE WHEN $6 = 'revoking' THEN '-infinity'::timestamptz END, $7, $8, "
	"$9, $10,"
	" CASE WHEN $6 = 'failed' THEN '08007' END, CASE WHEN $6 = 'failed' THEN now() END, $1, $2, "
	"$11 RETURNING request_id",
	.types = {UUIDOID, INT4OID, UUIDOID, TEXTOID, WORK_KEY_TYPE, TEXTOID, INT8OID, INT8OID,
	UUIDOID}
};

/*
 * A request of its own for a key that may be this request's: to have it revoked, or a
 * report, which failed.  Returns its id.
 */
static int64
add_copy(const WorkRow *row, const SeamKey *key, RequestStatus status, const char *error)
{
	bool		isnull;
	Datum		args[WORK_MAX_ARGS];
	char		nulls[WORK_MAX_ARGS];

	memset(nulls, ' ', sizeof(nulls));
	args[2] = UUIDPGetDatum(&row->identity);
	args[3] = Int32GetDatum(row->max_use_count);
	if (row->max_use_count == 0)
		nulls[3] = 'n';
	args[4] = UUIDPGetDatum(&row->profile);
	if (!row->has_profile)
		nulls[4] = 'n';
	args[5] = CStringGetTextDatum(status_names[status]);
	args[6] = key_row(key_type(), key);
	args[7] = CStringGetTextDatum(error);
	args[8] = Int64GetDatum((int64) row->account.account);
	args[9] = Int64GetDatum((int64) row->account.api_key);
	if (row->account.account == 0)
		nulls[8] = nulls[9] = 'n';
	args[10] = UUIDPGetDatum(&row->workspace);
	if (!row->has_workspace)
		nulls[10] = 'n';
	work_execute(&insert_copy, args, nulls);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger or rule keeps instant keys from being recorded in "
						"\"seam_instant_key_request\"")));
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * Have a key revoked that is not to be this request's, and was issued with the account
 * that the request has: why.
 */
void
work_revoke_copy(const WorkRow *row, const SeamKey *key, const char *why)
{
	(void) add_copy(row, key, STATUS_REVOKING, why);
}

/*
 * Report a key that nobody owns.  Returns the id of the request that does.
 */
int64
work_report_key(const WorkRow *row, const SeamKey *key, const char *report)
{
	return add_copy(row, key, STATUS_FAILED, report);
}

/* ---------- looking once more ---------- */

static WorkStatement select_again =
{
	.sql = "SELECT" ROW_COLUMNS " FROM %r r WHERE look_again_at <= $3 AND" OURS
	" ORDER BY look_again_at LIMIT $4 FOR UPDATE SKIP LOCKED",
	.types = {TIMESTAMPTZOID, INT8OID}
};

static WorkStatement claim_again =
{
	.sql = "UPDATE %r SET look_again_at = $4 WHERE request_id = ANY ($3)",
	.types = {INT8ARRAYOID, TIMESTAMPTZOID}
};

static WorkStatement select_first_again =
{
	.sql = "SELECT min(look_again_at) FROM %r WHERE look_again_at IS NOT NULL AND" OURS
};

/*
 * Take at most limit requests for whose keys it is time to look once more.  If nothing
 * comes of that they are due again after LOOK_AGAIN_RETRY_S.  *next: when others will
 * be due.  Returns their number, and the rows, in CurrentMemoryContext.
 */
int
work_look_again(int limit, WorkRow **rows, TimestampTz *next)
{
	TimestampTz now = GetCurrentTimestamp();
	Datum		args[WORK_MAX_ARGS];
	bool		isnull;
	int			n;

	args[2] = TimestampTzGetDatum(now);
	args[3] = Int64GetDatum(limit);
	work_execute(&select_again, args, NULL);
	n = get_rows(rows);
	if (n > 0)
	{
		args[2] = work_ids(row_ids(*rows, n), n);
		args[3] = TimestampTzGetDatum(now + LOOK_AGAIN_RETRY_S * USECS_PER_SEC);
		work_execute(&claim_again, args, NULL);
	}
	work_execute(&select_first_again, args, NULL);
	*next = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
											  &isnull));
	if (isnull)
		*next = DT_NOEND;
	else if (*next <= now && n < limit)
		*next = now + USECS_PER_SEC;	/* a session has locked it */
	return n;
}

static WorkStatement end_again =
{
	.sql = "UPDATE %r SET look_again_at = NULL, look_again_from = NULL WHERE request_id = $3",
	.types = {INT8OID}
};

/*
 * There is no need any more to look for a key of this request.
 */
void
work_looked_again(int64 id)
{
	execute_for(&end_again, id);
}

static WorkStatement select_awaited =
{
	.sql = "SELECT user_identity_id FROM %r WHERE look_again_at IS NOT NULL AND user_identity_id "
	"IS NOT NULL AND" OURS
	" ORDER BY user_identity_id"
};

/*
 * The identities whose keys are looked for once more, in order, and with repetitions:
 * how many, and they, in CurrentMemoryContext.
 */
int
work_awaited(pg_uuid_t **ids)
{
	Datum		args[WORK_MAX_ARGS];

	work_execute(&select_awaited, args, NULL);
	return work_uuids(ids);
}
