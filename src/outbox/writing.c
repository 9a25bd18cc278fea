/*-------------------------------------------------------------------------
 *
 * writing.c
 *	  What the writer reads and notes of requests whose rows are to be written.
 *
 * They are issued, and next_attempt_at says when their rows are due: 'infinity' where that
 * is only when the table's code is another one, or somebody retries.  A request that has
 * become another one meanwhile is left alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "outbox/work_statement.h"
#include "outbox/writing.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/*
 * The requests are found by their ids.  By CASE and coalesce() the planner cannot take the
 * index of a queue instead, all of which would be read then, with the entries of requests
 * that are done with it.
 */
#define IN_QUEUE \
	" status = 'issued' AND CASE WHEN next_attempt_at IS NULL THEN false ELSE true END "
#define HAS_TASK(task) " coalesce(row_task, '') = '" task "' "
#define HAS_ANY_TASK " coalesce(row_task, '') <> '' "
#define TO_TELL " RETURNING request_id, reference, is_renewal, target_table::text, " \
	"target_key::text"

static WorkStatement lock_requests =
{
	/*
	 * Those keys that the row may show: of the first request of a stay there
	 * is only its own.  The newest key, while it is alive, is not to be
	 * cleared.
	 */
	.sql = "SELECT request_id, target_key, target_fields, user_identity_id,"
	" CASE WHEN NOT (" IN_QUEUE ") AND row_task = 'clear' AND status = 'issued' AND "
	"successor_id IS NULL THEN NULL ELSE instant_key END,"
	" CASE WHEN" IN_QUEUE "AND (instant_key).instant_key_id IS NOT NULL THEN 'write' ELSE row_task "
	"END, CASE WHEN successor_id IS NOT NULL OR stay_id <> request_id THEN ARRAY("
	"SELECT (s.instant_key).instant_key_id FROM %r s WHERE s.target_hash = r.target_hash AND "
	"s.stay_id = r.stay_id AND (s.instant_key).instant_key_id IS NOT NULL AND (r.row_task IS "
	"DISTINCT FROM 'clear' OR s.successor_id IS NOT NULL OR s.status <> 'issued')) END, "
	"replaces_key, target_hash, stay_id, row_task = 'look' AND EXISTS (SELECT FROM %r n WHERE "
	"n.target_hash = r.target_hash AND n.target_table = r.target_table AND n.target_key = "
	"r.target_key AND n.target_fields = r.target_fields AND n.stay_id > r.stay_id), seam_workspace"
	"%{, target_columns, target_numbers, target_partition%}"
	" FROM %r r WHERE request_id = ANY ($3) AND target_table = $4"
	" AND ((" IN_QUEUE "AND (instant_key).instant_key_id IS NOT NULL) OR row_task IS NOT NULL) AND "
	"user_identity_id IS NOT NULL FOR UPDATE SKIP LOCKED",
	.types = {INT8ARRAYOID, REGCLASSOID}
};

/*
 * Lock those of the requests for whose rows in the table there is something to do, and which
 * no session has locked.  The result, of SPI_processed rows with WRITING_... columns, lives
 * as long as SPI is connected.  (A column that the table does not have is NULL there.)
 */
SPITupleTable *
writing_lock(Oid table, const int64 *ids, int n)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = work_ids(ids, n);
	args[3] = ObjectIdGetDatum(table);
	work_execute(&lock_requests, args, NULL);
	return SPI_tuptable;
}

static WorkStatement note_written =
{
	.sql = "UPDATE %r SET next_attempt_at = NULL, finished_at = clock_timestamp(), sqlstate = "
	"NULL, error = NULL WHERE request_id = ANY ($3) AND" IN_QUEUE TO_TELL,
	.types = {INT8ARRAYOID}
};

/*
 * The rows of these requests were written.  Returns what is to be told: ids and references,
 * in SPI_processed rows.  (A trigger of the table may have had a key revoked meanwhile.)
 */
SPITupleTable *
writing_written(const int64 *ids, int n)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = work_ids(ids, n);
	work_execute(&note_written, args, NULL);
	return SPI_tuptable;
}

static WorkStatement note_locked =
{
	/* the longer it has waited, the longer it may wait */
	.sql = "UPDATE %r SET next_attempt_at = $5 + least(greatest(($5 - attempted_at) / 4, interval "
	"'100 ms'), interval '60 s'),"
	" finished_at = $5, sqlstate = '55P03', error = $4 WHERE request_id = ANY ($3) AND" IN_QUEUE,
	.types = {INT8ARRAYOID, TEXTOID, TIMESTAMPTZOID}
};

/*
 * The rows of these requests are locked, or their table is: they are tried again, after a
 * pause, with this error until then.
 */
void
writing_row_locked(const int64 *ids, int n, const char *error)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = work_ids(ids, n);
	args[3] = CStringGetTextDatum(error);
	args[4] = TimestampTzGetDatum(GetCurrentTimestamp());
	work_execute(&note_locked, args, NULL);
}

static WorkStatement note_failed =
{
	.sql = "UPDATE %r SET next_attempt_at = NULL, finished_at = clock_timestamp(), sqlstate = $4, "
	"error = $5 WHERE request_id = $3 AND" IN_QUEUE TO_TELL,
	.types = {INT8OID, TEXTOID, TEXTOID}
};

/*
 * The row of this request cannot be written, for this reason.  Returns what is to be told.
 */
SPITupleTable *
writing_failed(int64 id, int sqlerrcode, const char *error)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = Int64GetDatum(id);
	args[3] = CStringGetTextDatum(unpack_sql_state(sqlerrcode));
	args[4] = CStringGetTextDatum(error);
	work_execute(&note_failed, args, NULL);
	return SPI_tuptable;
}

static WorkStatement note_unwanted =
{
	.sql = "UPDATE %r SET status = 'revoking', attempts = 0, next_attempt_at = '-infinity', "
	"finished_at = NULL, sqlstate = NULL, error = $4 WHERE request_id = $3 AND" IN_QUEUE,
	.types = {INT8OID, TEXTOID}
};

/*
 * The row of this request does not want the key any more: have it revoked, for this reason.
 * Returns whether it still had to be.
 */
bool
writing_revoke(int64 id, const char *reason)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = Int64GetDatum(id);
	args[3] = CStringGetTextDatum(reason);
	work_execute(&note_unwanted, args, NULL);
	return SPI_processed > 0;
}

static WorkStatement put_off =
{
	.sql = "UPDATE %r SET next_attempt_at = $4 WHERE request_id = ANY ($3) AND" IN_QUEUE,
	.types = {INT8ARRAYOID, TIMESTAMPTZOID}
};

/*
 * Have these rows written at a later time.
 */
void
writing_put_off(const int64 *ids, int n, TimestampTz until)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = work_ids(ids, n);
	args[3] = TimestampTzGetDatum(until);
	work_execute(&put_off, args, NULL);
}

static WorkStatement hold =
{
	.sql = "UPDATE %r SET next_attempt_at = 'infinity', finished_at = clock_timestamp(), sqlstate "
	"= $4, error = $5 WHERE request_id = ANY ($3) AND" IN_QUEUE TO_TELL,
	.types = {INT8ARRAYOID, TEXTOID, TEXTOID}
};

/*
 * Do not write these rows before writing_release(), for this reason.  Returns what is to be
 * told.
 */
SPITupleTable *
writing_hold(const int64 *ids, int n, const char *error)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = work_ids(ids, n);
	args[3] = CStringGetTextDatum(unpack_sql_state(WRITING_HELD_SQLSTATE));
	args[4] = CStringGetTextDatum(error);
	work_execute(&hold, args, NULL);
	return SPI_tuptable;
}

static WorkStatement release =
{
	.sql = "UPDATE %r SET next_attempt_at = '-infinity', sqlstate = NULL, error = NULL"
	" WHERE request_id = ANY (ARRAY(SELECT request_id FROM %r WHERE status = 'issued' AND"
	" next_attempt_at IS NOT NULL AND sqlstate = $4"
	" AND target_table = $3 AND" OURS "FOR UPDATE SKIP LOCKED))",
	.types = {REGCLASSOID, TEXTOID}
};

/*
 * Execute a statement about what writing_hold() has held of this table.
 */
static void
execute_for_held(WorkStatement *statement, Oid table)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = ObjectIdGetDatum(table);
	args[3] = CStringGetTextDatum(unpack_sql_state(WRITING_HELD_SQLSTATE));
	work_execute(statement, args, NULL);
}

/*
 * Have the rows of this table written that writing_hold() holds, or has held before somebody
 * retried.
 */
void
writing_release(Oid table)
{
	execute_for_held(&release, table);
}

static WorkStatement lock_retried =
{
	.sql = "SELECT FROM %r WHERE status = 'issued' AND next_attempt_at = '-infinity'"
	" AND sqlstate = $4 AND target_table = $3 AND" OURS "FOR UPDATE",
	.types = {REGCLASSOID, TEXTOID}
};

/*
 * Lock the requests of this table that somebody has retried, of those that writing_hold()
 * held: writing_release() passes over what is locked by another process, and what it passes
 * over would count as retried after the next crash.
 */
void
writing_lock_retried(Oid table)
{
	execute_for_held(&lock_retried, table);
}

static WorkStatement select_any =
{
	.sql = "SELECT FROM %r WHERE status IN ('issued', 'cancelled') AND next_attempt_at IS NOT NULL "
	"AND" OURS "UNION ALL SELECT FROM %r WHERE row_task IS NOT NULL AND" OURS "LIMIT 1"
};

/*
 * Is there anything that the writer has to see to, now or later?
 */
bool
writing_any(void)
{
	Datum		args[WORK_MAX_ARGS];

	work_execute(&select_any, args, NULL);
	return SPI_processed > 0;
}

/* ---------- looks and clearings ---------- */

static WorkStatement select_tasks =
{
	.sql = "SELECT request_id, target_table::oid FROM %r WHERE row_task_at <= $3 AND row_task IS "
	"NOT NULL AND" OURS "ORDER BY origin, row_task_at, request_id LIMIT $4",
	.types = {TIMESTAMPTZOID, INT8OID}
};

static WorkStatement select_first_task =
{
	.sql = "SELECT row_task_at FROM %r WHERE row_task IS NOT NULL AND row_task_at > $3 AND" OURS
	"ORDER BY origin, row_task_at, request_id LIMIT 1",
	.types = {TIMESTAMPTZOID}
};

/*
 * At most limit requests whose rows are to be looked at or cleared now: their ids and tables,
 * in arrays of the caller's.  *next: when there will be others.  Returns how many.
 */
int
writing_tasks(int limit, int64 *ids, Oid *tables, TimestampTz *next)
{
	TimestampTz now = GetCurrentTimestamp();
	Datum		args[WORK_MAX_ARGS];
	bool		isnull;
	int			n;

	args[2] = TimestampTzGetDatum(now);
	args[3] = Int64GetDatum(limit);
	work_execute(&select_tasks, args, NULL);
	n = (int) SPI_processed;
	for (int i = 0; i < n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];

		ids[i] = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		tables[i] = DatumGetObjectId(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
	}
	work_execute(&select_first_task, args, NULL);
	*next = DT_NOEND;
	if (SPI_processed > 0)
		*next = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
												  &isnull));
	return n;
}

static WorkStatement note_looked =
{
	.sql = "UPDATE %r SET row_task = NULL, row_task_at = NULL, sqlstate = NULL, error = NULL,"
	" next_attempt_at = least(issue_at, clock_timestamp())"
	" WHERE request_id = ANY ($3) AND" HAS_TASK("look") "AND status = 'pending'",
	.types = {INT8ARRAYOID}
};

/*
 * The rows of these requests want the keys: they are to be sent.
 */
void
writing_looked(const int64 *ids, int n)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = work_ids(ids, n);
	work_execute(&note_looked, args, NULL);
}

static WorkStatement note_cleared =
{
	.sql = "UPDATE %r SET row_task = NULL, row_task_at = NULL, error = coalesce(error, $4)"
	" WHERE request_id = ANY ($3) AND" HAS_TASK("clear"),
	.types = {INT8ARRAYOID, TEXTOID}
};

/*
 * The rows of these requests do not show their keys any more; or, for this reason (NULL:
 * there is none), they do, and that stays so.
 */
void
writing_cleared(const int64 *ids, int n, const char *error)
{
	Datum		args[WORK_MAX_ARGS];
	char		nulls[WORK_MAX_ARGS];

	memset(nulls, ' ', sizeof(nulls));
	args[2] = work_ids(ids, n);
	if (error)
		args[3] = CStringGetTextDatum(error);
	else
		nulls[3] = 'n';
	work_execute(&note_cleared, args, nulls);
}

static WorkStatement put_off_tasks =
{
	.sql = "UPDATE %r SET row_task_at = $4, error = coalesce($5, error)"
	" WHERE request_id = ANY ($3) AND" HAS_ANY_TASK,
	.types = {INT8ARRAYOID, TIMESTAMPTZOID, TEXTOID}
};

/*
 * Have these rows looked at, or cleared, at a later time; error tells why, or is NULL.
 */
void
writing_put_off_tasks(const int64 *ids, int n, TimestampTz until, const char *error)
{
	Datum		args[WORK_MAX_ARGS];
	char		nulls[WORK_MAX_ARGS];

	memset(nulls, ' ', sizeof(nulls));
	args[2] = work_ids(ids, n);
	args[3] = TimestampTzGetDatum(until);
	if (error)
		args[4] = CStringGetTextDatum(error);
	else
		nulls[4] = 'n';
	work_execute(&put_off_tasks, args, nulls);
}

/* ---------- what is told ---------- */

static WorkStatement select_ends =
{
	.sql = "SELECT u.id, NULL::text, r.is_renewal, r.target_table::text, r.target_key::text"
	" FROM unnest($3) WITH ORDINALITY AS u(id, place) LEFT JOIN %r r ON r.request_id = u.id"
	" ORDER BY u.place",
	.types = {INT8ARRAYOID}
};

/*
 * What is told of the ends of n requests besides their statuses, in SPI_processed rows of
 * the form that writing_written() returns, in the same order; the references are NULL.
 */
SPITupleTable *
writing_ends(const int64 *ids, int n)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = work_ids(ids, n);
	work_execute(&select_ends, args, NULL);
	return SPI_tuptable;
}
