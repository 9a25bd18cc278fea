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
 * The requests are found by their ids.  By the CASE the planner cannot take the queue's
 * index instead, whose entries of requests that are done with it would all read.
 */
#define IN_QUEUE \
	" status = 'issued' AND CASE WHEN next_attempt_at IS NULL THEN false ELSE true END "
#define TO_TELL " RETURNING request_id, reference"

static WorkStatement lock_requests =
{
	.sql = "SELECT request_id, target_key, target_fields, user_identity_id, instant_key"
	"%{, target_columns, target_numbers, target_partition%}"
	" FROM %r WHERE request_id = ANY ($3) AND target_table = $4 AND" IN_QUEUE
	"AND user_identity_id IS NOT NULL AND (instant_key).instant_key_id IS NOT NULL"
	" FOR UPDATE SKIP LOCKED",
	.types = {INT8ARRAYOID, REGCLASSOID}
};

/*
 * Lock those of the requests whose rows in the table are still to be written, and which
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
 * Have the rows of this table written that writing_hold() holds, or has held before somebody
 * retried.
 */
void
writing_release(Oid table)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = ObjectIdGetDatum(table);
	args[3] = CStringGetTextDatum(unpack_sql_state(WRITING_HELD_SQLSTATE));
	work_execute(&release, args, NULL);
}

static WorkStatement select_any =
{
	.sql = "SELECT FROM %r WHERE status IN ('issued', 'cancelled') AND next_attempt_at IS NOT NULL "
	"AND" OURS "LIMIT 1"
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
