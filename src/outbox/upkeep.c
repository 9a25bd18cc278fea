/*-------------------------------------------------------------------------
 *
 * upkeep.c
 *	  What is done to the outbox's tables now and then.
 *
 * Like all statements of the worker these skip rows that a session has locked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "outbox/upkeep.h"
#include "outbox/work_statement.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* Requests that are deleted in one transaction. */
#define DELETE_AT_ONCE 1000

/* How often a warning tells that more has come along with a copy. */
#define WARN_AGAIN_US (3600 * INT64CONST(1000000))

static WorkStatement delete_requests =
{
	.sql = "WITH old AS MATERIALIZED (SELECT ctid AS at, request_id FROM %r r"
	" WHERE status = $3 AND finished_at < $4 AND next_attempt_at IS NULL AND look_again_at IS NULL"
	" AND wake_at IS NULL AND row_task IS NULL"

	/*
	 * a stay has its requests until it is over: their keys may live, and tell
	 * whose a key is
	 */
	" AND (stay_id IS NULL OR NOT EXISTS (SELECT FROM %r n WHERE n.target_hash = r.target_hash"
	" AND n.stay_id = r.stay_id AND n.wake_at IS NOT NULL))"
	" AND (user_identity_id IS NULL OR user_identity_id <> ALL ($5))"
	" AND (call_id IS NULL OR NOT EXISTS (SELECT FROM %c c WHERE c.call_id = r.call_id))"
	" ORDER BY status, finished_at LIMIT $6 FOR UPDATE SKIP LOCKED)"
	"%{, tries AS (DELETE FROM %a WHERE request_id = ANY (ARRAY(SELECT request_id FROM old)))%}"
	" DELETE FROM %r WHERE ctid = ANY (ARRAY(SELECT at FROM old))",
	.types = {TEXTOID, TIMESTAMPTZOID, UUIDARRAYOID, INT8OID}
};

/* Of requests that somebody has deleted: those before the oldest that is there. */
static WorkStatement delete_tries =
{
	.sql = "DELETE FROM %a WHERE ctid = ANY (ARRAY(SELECT ctid FROM %a WHERE request_id <"
	" coalesce((SELECT min(request_id) FROM %r), 9223372036854775807)"
	" ORDER BY request_id LIMIT $3))",
	.types = {INT8OID}
};

/*
 * Delete some requests that were finished before this time, with their tries, but none of
 * the identities to keep, and none whose intent is open.  Returns whether there may be more.
 */
bool
upkeep_delete_old(TimestampTz before, ArrayType *keep)
{
	static const RequestStatus final[] = {STATUS_ISSUED, STATUS_FAILED, STATUS_CANCELLED,
	STATUS_REVOKED};
	Datum		args[WORK_MAX_ARGS];
	int64		n = 0;

	for (int i = 0; i < (int) lengthof(final); i++)
	{
		args[2] = CStringGetTextDatum(status_names[final[i]]);
		args[3] = TimestampTzGetDatum(before);
		args[4] = PointerGetDatum(keep);
		args[5] = Int64GetDatum(DELETE_AT_ONCE - n);
		work_execute(&delete_requests, args, NULL);
		n += (int64) SPI_processed;
		if (n >= DELETE_AT_ONCE)
			return true;
	}
	if (!work_outbox()->knows_columns)
		return false;
	args[2] = Int64GetDatum(DELETE_AT_ONCE);
	work_execute(&delete_tries, args, NULL);
	return SPI_processed >= DELETE_AT_ONCE;
}

/* Two ranges, so that none of ours is read. */
#define OTHERS(range) \
	"(SELECT count(*) FROM %r WHERE status = ANY ('{pending,in_flight,issued,revoking}')" \
	" AND origin " range " $2 AND next_attempt_at IS NOT NULL) + (SELECT count(*) FROM %r WHERE" \
	" origin " range " $2 AND wake_at IS NOT NULL AND next_attempt_at IS NULL AND finished_at IS " \
	"NULL)"

static WorkStatement count_others =
{
	.sql = "SELECT " OTHERS("<") " + " OTHERS(">") " + (SELECT count(*) FROM %c c "
	"WHERE" CALL_IS_OPEN_ELSEWHERE("%r") ")"
};

/*
 * Warn of what came along with a copy of the database, and waits, unless all of it was
 * told of before.
 */
void
upkeep_warn_of_others(void)
{
	static int64 told;
	static int64 tell_at;		/* not before, on clock_now()'s clock */
	Datum		args[WORK_MAX_ARGS];
	bool		isnull;
	int64		n;

	work_execute(&count_others, args, NULL);
	n = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (n == 0)
		told = 0;
	if (n <= told || clock_now() < tell_at)
		return;
	told = n;
	tell_at = clock_now() + WARN_AGAIN_US;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg(INT64_FORMAT " requests for instant keys of another database wait in the "
					"outbox of database \"%s\"",
					n, get_database_name(MyDatabaseId)),
			 errdetail("They came along with a copy, a dump, an upgrade or a subscription, and "
					   "their origin may still send them."),
			 errhint("If it will not, call seam_adopt_instant_key_requests().")));
}

/* $3: statuses. */
static WorkStatement end_pauses =
{
	.sql = "UPDATE %r SET next_attempt_at = '-infinity' WHERE request_id = ANY (ARRAY("
	"SELECT request_id FROM %r WHERE status = ANY ($3) AND next_attempt_at > $4 AND "
	"next_attempt_at < 'infinity'"
	" AND (attempted_at > $5) IS NOT FALSE AND" OURS "FOR UPDATE SKIP LOCKED))",
	.types = {TEXTARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

/*
 * End pauses of n statuses: those that go on after until, of attempts that began after
 * began_after.
 */
void
upkeep_end_pauses(const RequestStatus *statuses, int n, TimestampTz until, TimestampTz began_after)
{
	Datum		names[STATUS_COUNT];
	Datum		args[WORK_MAX_ARGS];

	for (int i = 0; i < n; i++)
		names[i] = CStringGetTextDatum(status_names[statuses[i]]);
	args[2] = PointerGetDatum(work_array(names, NULL, n, TEXTOID));
	args[3] = TimestampTzGetDatum(until);
	args[4] = TimestampTzGetDatum(began_after);
	work_execute(&end_pauses, args, NULL);
}

/*
 * Execute a statement whose argument is this time.
 */
static void
execute_at(WorkStatement *statement, TimestampTz time)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = TimestampTzGetDatum(time);
	work_execute(statement, args, NULL);
}

static WorkStatement end_task_pauses =
{
	.sql = "UPDATE %r SET row_task_at = '-infinity' WHERE request_id = ANY (ARRAY("
	"SELECT request_id FROM %r WHERE row_task IS NOT NULL AND row_task_at > $3"
	" AND row_task_at < 'infinity' AND" OURS "FOR UPDATE SKIP LOCKED))",
	.types = {TIMESTAMPTZOID}
};

/*
 * Have the rows looked at and cleared for which that is put off until after this time.
 */
void
upkeep_end_task_pauses(TimestampTz until)
{
	execute_at(&end_task_pauses, until);
}

static WorkStatement put_off_looks =
{
	.sql = "UPDATE %r SET look_again_at = $3 WHERE request_id = ANY (ARRAY("
	"SELECT request_id FROM %r WHERE look_again_at IS NOT NULL AND" OURS "FOR UPDATE SKIP LOCKED))",
	.types = {TIMESTAMPTZOID}
};

/*
 * Have the keys that are looked for once more looked for at this time.
 */
void
upkeep_put_off_looks(TimestampTz at)
{
	execute_at(&put_off_looks, at);
}
