/*-------------------------------------------------------------------------
 *
 * attempts.c
 *	  The tries of requests, which are kept with them.
 *
 * A request has room for one error, its last.  What came before is here, for whoever
 * wants to see how it came to that: nothing is decided by it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "outbox/attempts.h"
#include "outbox/insertion.h"
#include "outbox/work_statement.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* The columns, in their order. */
enum
{
	ATTEMPT_REQUEST_ID,
	ATTEMPT_NUMBER,
	ATTEMPT_PURPOSE,
	ATTEMPT_ATTEMPTED_AT,
	ATTEMPT_TOOK,
	ATTEMPT_HTTP_STATUS,
	ATTEMPT_SQLSTATE,
	ATTEMPT_ERROR,
	ATTEMPT_SEAM_REQUEST_ID,
	ATTEMPT_NCOLUMNS
};

static const InsertionColumn columns[ATTEMPT_NCOLUMNS] =
{
	[ATTEMPT_REQUEST_ID] = {"request_id", INT8OID},
	[ATTEMPT_NUMBER] = {"attempt", INT4OID},
	[ATTEMPT_PURPOSE] = {"purpose", TEXTOID},
	[ATTEMPT_ATTEMPTED_AT] = {"attempted_at", TIMESTAMPTZOID},
	[ATTEMPT_TOOK] = {"took", INTERVALOID},
	[ATTEMPT_HTTP_STATUS] = {"http_status", INT4OID},
	[ATTEMPT_SQLSTATE] = {"sqlstate", TEXTOID},
	[ATTEMPT_ERROR] = {"error", TEXTOID},
	[ATTEMPT_SEAM_REQUEST_ID] = {"seam_request_id", TEXTOID},
};

/*
 * In a step: notes n tries.  Where the table is not there, because an older script has made
 * the extension, or somebody has locked it, nothing is noted: no key waits for that.
 * Raises what insertion_open() and insertion_row() raise.
 */
void
attempts_insert(const Attempt * attempts, int n)
{
	Oid			table = get_relname_relid("seam_instant_key_attempt", work_outbox()->schema);
	Insertion	insertion;
	Datum		issues;
	Datum		revokes;

	if (!OidIsValid(table) || !ConditionalLockRelationOid(table, RowExclusiveLock))
		return;
	insertion_open(&insertion, table, columns, ATTEMPT_NCOLUMNS);
	issues = CStringGetTextDatum("issue");
	revokes = CStringGetTextDatum("revoke");
	for (int i = 0; i < n; i++)
	{
		const		Attempt *attempt = &attempts[i];
		Interval	took = {.time = attempt->took};
		Datum		values[ATTEMPT_NCOLUMNS] = {0};
		bool		nulls[ATTEMPT_NCOLUMNS] = {0};

		values[ATTEMPT_REQUEST_ID] = Int64GetDatum(attempt->request_id);
		values[ATTEMPT_NUMBER] = Int32GetDatum(attempt->number);
		values[ATTEMPT_PURPOSE] = attempt->revokes ? revokes : issues;
		values[ATTEMPT_ATTEMPTED_AT] = TimestampTzGetDatum(attempt->attempted_at);
		values[ATTEMPT_TOOK] = IntervalPGetDatum(&took);
		values[ATTEMPT_HTTP_STATUS] = Int32GetDatum(attempt->http_status);
		nulls[ATTEMPT_HTTP_STATUS] = attempt->http_status == 0;
		nulls[ATTEMPT_SQLSTATE] = nulls[ATTEMPT_ERROR] = attempt->sqlerrcode == 0;
		if (attempt->sqlerrcode != 0)
		{
			values[ATTEMPT_SQLSTATE] =
				CStringGetTextDatum(unpack_sql_state(attempt->sqlerrcode));
			values[ATTEMPT_ERROR] = CStringGetTextDatum(attempt->error);
		}
		nulls[ATTEMPT_SEAM_REQUEST_ID] = attempt->seam_request_id == NULL;
		if (attempt->seam_request_id)
			values[ATTEMPT_SEAM_REQUEST_ID] = CStringGetTextDatum(attempt->seam_request_id);
		insertion_row(&insertion, values, nulls);
	}
	insertion_close(&insertion);
}
