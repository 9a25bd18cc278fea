/*-------------------------------------------------------------------------
 *
 * stay_work.c
 *	  What the worker reads and writes of stays.
 *
 * Only the newest request of a stay has a wake_at.  Whoever has locked that may change the
 * others; a session locks them first, and the newest last, so the worker does not wait for
 * them: a stay of which a session has locked one has its turn later.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "outbox/stay_work.h"
#include "outbox/work_statement.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static WorkStatement select_due =
{
	.sql = "SELECT request_id, target_hash, stay_id, status, target_table IS NOT NULL, "
	"wake_at = '-infinity', next_attempt_at IS NOT NULL, row_task IS NOT DISTINCT FROM 'look', "
	"sqlstate IS NOT NULL, is_renewal, issue_at, valid_until, former_expires_at, "
	"greatest((instant_key).created_at, seam_time), (instant_key).expires_at, reference"
	" FROM %r WHERE wake_at <= $3 AND" OURS
	" ORDER BY origin, wake_at, request_id LIMIT $4 FOR UPDATE SKIP LOCKED",
	.types = {TIMESTAMPTZOID, INT8OID}
};

/*
 * A time of the last statement's result, or what stands for NULL.
 */
static TimestampTz
time_of(HeapTuple row, int column, TimestampTz none)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? none : DatumGetTimestampTz(value);
}

/*
 * A boolean of it; NULL is false.
 */
static bool
bool_of(HeapTuple row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, SPI_tuptable->tupdesc, column, &isnull);

	return !isnull && DatumGetBool(value);
}

/*
 * A number of it; NULL is 0.
 */
static int64
int_of(HeapTuple row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

/*
 * How far has a request come that has this status?
 */
static StayPhase
phase_of(const char *status)
{
	static const struct
	{
		const char *status;
		StayPhase	phase;
	}			phases[] = {
		{"pending", STAY_WAITS}, {"in_flight", STAY_FLIES}, {"issued", STAY_HAS_KEY},
		{"failed", STAY_FAILED},
	};

	for (int i = 0; i < (int) lengthof(phases); i++)
	{
		if (strcmp(status, phases[i].status) == 0)
			return phases[i].phase;
	}
	return STAY_ENDED;
}

/*
 * Read a row of select_due.  The reference is in CurrentMemoryContext.
 */
static void
read_due(HeapTuple row, StayWork *stay)
{
	StayFacts  *facts = &stay->facts;
	char	   *reference = SPI_getvalue(row, SPI_tuptable->tupdesc, 16);
	bool		is_queued = bool_of(row, 7);

	memset(stay, 0, sizeof(StayWork));
	stay->id = int_of(row, 1);
	stay->hash = int_of(row, 2);
	stay->stay_id = int_of(row, 3);
	stay->reference = reference;
	facts->phase = phase_of(SPI_getvalue(row, SPI_tuptable->tupdesc, 4));
	facts->has_row = bool_of(row, 5);
	facts->is_fresh = bool_of(row, 6);
	facts->is_queued = is_queued;
	facts->is_looked_at = bool_of(row, 8);
	facts->is_being_written = is_queued && facts->phase == STAY_HAS_KEY;
	facts->is_unwritten = !is_queued && facts->phase == STAY_HAS_KEY && bool_of(row, 9);
	facts->is_renewal = bool_of(row, 10);
	facts->issue_at = time_of(row, 11, DT_NOBEGIN);
	facts->valid_until = time_of(row, 12, DT_NOEND);
	facts->former_expires_at = time_of(row, 13, DT_NOEND);
	facts->created_at = time_of(row, 14, DT_NOEND);
	facts->expires_at = time_of(row, 15, DT_NOEND);
}

/*
 * Lock at most limit stays for which something may be due at this time of Seam's, earliest
 * first, and read their newest requests.  Returns how many, in CurrentMemoryContext.
 */
int
stay_work_due(TimestampTz now, int limit, StayWork **due)
{
	Datum		args[WORK_MAX_ARGS];
	int			n;

	args[2] = TimestampTzGetDatum(now);
	args[3] = Int64GetDatum(limit);
	work_execute(&select_due, args, NULL);
	n = (int) SPI_processed;
	*due = palloc(Max(n, 1) * sizeof(StayWork));
	for (int i = 0; i < n; i++)
		read_due(SPI_tuptable->vals[i], &(*due)[i]);
	return n;
}

static WorkStatement select_first =
{
	.sql = "SELECT wake_at, user_identity_id FROM %r WHERE wake_at < 'infinity' AND" OURS
	" ORDER BY origin, wake_at, request_id LIMIT 1"
};

/*
 * When will something be due of a stay, by Seam's clock, and for which identity?  Returns
 * false where there is none.
 */
bool
stay_work_first(TimestampTz *wake_at, bool *has_identity, pg_uuid_t *identity)
{
	Datum		args[WORK_MAX_ARGS];
	bool		isnull;
	Datum		value;

	work_execute(&select_first, args, NULL);
	if (SPI_processed == 0)
		return false;
	*wake_at = time_of(SPI_tuptable->vals[0], 1, DT_NOEND);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	*has_identity = !isnull;
	if (!isnull)
		*identity = *DatumGetUUIDP(value);
	return true;
}

static WorkStatement set_wakes =
{
	/* the earliest arrivals first, whatever the local clock says */
	.sql = "UPDATE %r r SET wake_at = u.wake_at,"
	" next_attempt_at = CASE WHEN u.queues THEN least(r.issue_at, clock_timestamp())"
	" WHEN u.holds THEN NULL ELSE r.next_attempt_at END,"
	" row_task = CASE WHEN u.looks THEN 'look' WHEN u.holds THEN NULL ELSE r.row_task END,"
	" row_task_at = CASE WHEN u.looks THEN least(r.issue_at, clock_timestamp()) WHEN u.holds THEN "
	"NULL ELSE r.row_task_at END"
	" FROM unnest($3, $4, $5, $6, $7) AS u(id, wake_at, queues, holds, looks)"
	" WHERE r.request_id = u.id",
	.types = {INT8ARRAYOID, TIMESTAMPTZARRAYOID, BOOLARRAYOID, BOOLARRAYOID, BOOLARRAYOID}
};

/*
 * Change n requests that stay_work_due() has locked.
 */
void
stay_work_set(const StaySet *sets, int n)
{
	Datum	   *columns[5];
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, BOOLOID, BOOLOID, BOOLOID};
	Datum		args[WORK_MAX_ARGS];

	if (n == 0)
		return;
	for (int c = 0; c < (int) lengthof(columns); c++)
		columns[c] = palloc(n * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		columns[0][i] = Int64GetDatum(sets[i].id);
		columns[1][i] = TimestampTzGetDatum(sets[i].wake_at);
		columns[2][i] = BoolGetDatum(sets[i].queues);
		columns[3][i] = BoolGetDatum(sets[i].holds);
		columns[4][i] = BoolGetDatum(sets[i].looks);
	}
	for (int c = 0; c < (int) lengthof(columns); c++)
		args[2 + c] = PointerGetDatum(work_array(columns[c], NULL, n, types[c]));
	work_execute(&set_wakes, args, NULL);
}

/* Those of a stay's requests, $3 and $4, that are alive, but for the newest, $5. */
#define FORMERS " target_hash = $3 AND stay_id = $4 AND request_id <> $5" \
	" AND status IN ('pending', 'in_flight', 'issued') "

static WorkStatement count_formers =
{
	.sql = "SELECT count(*) FROM %r WHERE" FORMERS,
	.types = {INT8OID, INT8OID, INT8OID}
};

static WorkStatement lock_formers =
{
	.sql = "SELECT 1 FROM %r WHERE" FORMERS "FOR UPDATE SKIP LOCKED",
	.types = {INT8OID, INT8OID, INT8OID}
};

/*
 * The arguments of a statement about a stay.
 */
static void
put_stay(const StayWork *stay, Datum *args)
{
	args[2] = Int64GetDatum(stay->hash);
	args[3] = Int64GetDatum(stay->stay_id);
	args[4] = Int64GetDatum(stay->id);
}

/*
 * Lock what is alive of a stay whose newest request is locked.  Returns false when a session
 * has locked some of it: the stay is to have its turn later.
 */
bool
stay_work_lock(const StayWork *stay)
{
	Datum		args[WORK_MAX_ARGS];
	bool		isnull;
	int64		n;

	put_stay(stay, args);
	work_execute(&count_formers, args, NULL);
	n = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (n == 0)
		return true;
	work_execute(&lock_formers, args, NULL);
	return (int64) SPI_processed == n;
}

static WorkStatement end_stay =
{
	/*
	 * a key that had expired when another one was issued, by Seam's clock, is
	 * dead
	 */
	.sql = "UPDATE %r r SET status = CASE status WHEN 'pending' THEN 'cancelled' ELSE 'revoking' "
	"END, attempts = CASE status WHEN 'issued' THEN 0 ELSE attempts END,"
	" next_attempt_at = CASE status WHEN 'in_flight' THEN next_attempt_at ELSE '-infinity' END,"
	" finished_at = CASE status WHEN 'pending' THEN clock_timestamp() END, sqlstate = NULL, "
	"error = NULL, wake_at = NULL, row_task = NULL, row_task_at = NULL"
	" WHERE target_hash = $3 AND stay_id = $4 AND $5 IS NOT NULL"
	" AND status IN ('pending', 'in_flight', 'issued')"
	" AND (status <> 'issued' OR NOT EXISTS (SELECT FROM %r n WHERE n.target_hash = $3 AND "
	"n.stay_id = $4 AND (n.instant_key).created_at >= (r.instant_key).expires_at))",
	.types = {INT8OID, INT8OID, INT8OID}
};

/*
 * Cancel or revoke all that is alive of a stay that stay_work_lock() has locked.
 */
void
stay_work_end(const StayWork *stay)
{
	Datum		args[WORK_MAX_ARGS];

	put_stay(stay, args);
	work_execute(&end_stay, args, NULL);
}

static WorkStatement note_over =
{
	.sql = "UPDATE %r SET stay_end = $4, wake_at = CASE WHEN $4 <> 'over' THEN "
	"coalesce(valid_until, 'infinity') END, finished_at = coalesce(finished_at, "
	"CASE WHEN status = 'failed' THEN clock_timestamp() END), error = coalesce($5, error),"
	" row_task = CASE WHEN target_table IS NOT NULL AND $4 = 'over' THEN 'clear' END,"
	" row_task_at = CASE WHEN target_table IS NOT NULL AND $4 = 'over' THEN "
	"'-infinity'::timestamptz END WHERE request_id = $3",
	.types = {INT8OID, TEXTOID, TEXTOID}
};

/*
 * The stay, which stay_work_end() has ended, is over, so that the row is not to show its
 * key; or the row does not want one, for this reason (NULL: it is over).
 */
void
stay_work_note_end(const StayWork *stay, const char *unwanted)
{
	Datum		args[WORK_MAX_ARGS];
	char		nulls[WORK_MAX_ARGS];

	memset(nulls, ' ', sizeof(nulls));
	args[2] = Int64GetDatum(stay->id);
	args[3] = CStringGetTextDatum(unwanted ? "unwanted" : "over");
	if (unwanted)
		args[4] = CStringGetTextDatum(unwanted);
	else
		nulls[4] = 'n';
	work_execute(&note_over, args, nulls);
}

static WorkStatement insert_successor =
{
	.sql = "INSERT INTO %r (reference, user_identity_id, max_use_count, customization_profile_id, "
	"target_table, target_key, target_fields, target_hash%{, target_columns, "
	"target_numbers, target_partition%}, status, next_attempt_at, enqueued_by, "
	"system_identifier, origin, issue_at, "
	"valid_until, stay_id, is_renewal, former_expires_at, wake_at, row_task, row_task_at, "
	"replaces_key, seam_workspace)"
	" SELECT reference, user_identity_id, max_use_count, customization_profile_id, target_table, "
	"target_key, target_fields, target_hash%{, target_columns, target_numbers, target_partition%}, "
	"'pending', CASE WHEN $4 AND target_table IS NULL THEN '-infinity'::timestamptz END, "
	"enqueued_by, system_identifier, origin, issue_at, valid_until, stay_id, $4, $5, $6, "
	"CASE WHEN $4 AND target_table IS NOT NULL THEN 'look' END, CASE WHEN $4 AND target_table "
	"IS NOT NULL THEN '-infinity'::timestamptz END, replaces_key, seam_workspace FROM %r WHERE "
	"request_id = $3 RETURNING request_id",
	.types = {INT8OID, BOOLOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static WorkStatement note_successor =
{
	.sql = "UPDATE %r SET successor_id = $4, wake_at = NULL,"
	" row_task = CASE WHEN NOT $5 AND target_table IS NOT NULL THEN 'clear' END,"
	" row_task_at = CASE WHEN NOT $5 AND target_table IS NOT NULL THEN '-infinity'::timestamptz END"
	" WHERE request_id = $3",
	.types = {INT8OID, INT8OID, BOOLOID}
};

/*
 * Give the newest request of a stay a successor, which renews its key, that ends at
 * former_expires_at (DT_NOEND: it has ended), or is to wait until the stay begins; it is
 * looked at next at wake_at, by Seam's clock.
 */
void
stay_work_succeed(const StayWork *stay, bool renews, TimestampTz former_expires_at,
				  TimestampTz wake_at)
{
	Datum		args[WORK_MAX_ARGS];
	char		nulls[WORK_MAX_ARGS];
	bool		isnull;

	memset(nulls, ' ', sizeof(nulls));
	args[2] = Int64GetDatum(stay->id);
	args[3] = BoolGetDatum(renews);
	args[4] = TimestampTzGetDatum(former_expires_at);
	if (!renews || former_expires_at == DT_NOEND)
		nulls[4] = 'n';
	args[5] = TimestampTzGetDatum(wake_at);
	work_execute(&insert_successor, args, nulls);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger or rule keeps instant keys from being recorded in "
						"\"seam_instant_key_request\"")));
	args[3] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	args[4] = BoolGetDatum(renews);
	work_execute(&note_successor, args, NULL);
}

#define FLIES " (status = 'in_flight') "

static WorkStatement note_lost =
{
	/* what is in flight may still get a key, late as it is */
	.sql = "UPDATE %r SET status = CASE WHEN" FLIES "THEN status ELSE 'failed' END,"
	" next_attempt_at = CASE WHEN" FLIES "THEN next_attempt_at END,"
	" finished_at = CASE WHEN NOT" FLIES "THEN clock_timestamp() END,"
	" former_expires_at = CASE WHEN" FLIES "THEN '-infinity' ELSE former_expires_at END,"
	" sqlstate = coalesce(sqlstate, '55000'), error = coalesce(error, 'the instant key expired "
	"before it could be renewed'), wake_at = coalesce(valid_until, 'infinity'),"
	" row_task = CASE WHEN target_table IS NOT NULL THEN 'clear' END,"
	" row_task_at = CASE WHEN target_table IS NOT NULL THEN '-infinity'::timestamptz END"
	" WHERE request_id = $3",
	.types = {INT8OID}
};

/*
 * The key that the newest request was to renew has expired.
 */
void
stay_work_lost(const StayWork *stay)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = Int64GetDatum(stay->id);
	work_execute(&note_lost, args, NULL);
}

static WorkStatement note_forgotten =
{
	/* retention counts from now; nobody is to try again what has failed */
	.sql = "UPDATE %r SET wake_at = NULL, finished_at = clock_timestamp(), stay_end = "
	"coalesce(stay_end, CASE WHEN status = 'failed' THEN 'over' END) WHERE request_id = $3",
	.types = {INT8OID}
};

/*
 * The newest request of a stay that is over, and ended before, need not be kept any more.
 */
void
stay_work_forget(const StayWork *stay)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = Int64GetDatum(stay->id);
	work_execute(&note_forgotten, args, NULL);
}

static WorkStatement wake_keys =
{
	/*
	 * those that would sleep for too long; the others look by themselves, and
	 * sleep on
	 */
	.sql = "UPDATE %r SET wake_at = '-infinity' WHERE request_id = ANY (ARRAY(SELECT request_id "
	"FROM %r WHERE wake_at IS NOT NULL AND status = 'issued' AND" OURS
	"AND wake_at > (instant_key).expires_at - $3 AND wake_at > (instant_key).created_at +"
	" ((instant_key).expires_at - (instant_key).created_at) / 2 AND coalesce(valid_until, "
	"'infinity') > (instant_key).expires_at FOR UPDATE SKIP LOCKED))",
	.types = {INTERVALOID}
};

/*
 * Have the keys looked at that are to be renewed earlier than was known, because
 * seam_ik.renew_before, in seconds, may be longer now.
 */
void
stay_work_wake_keys(int renew_before)
{
	Interval	interval = {.time = renew_before * USECS_PER_SEC};
	Datum		args[WORK_MAX_ARGS];

	args[2] = IntervalPGetDatum(&interval);
	work_execute(&wake_keys, args, NULL);
}
