/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  Claims requests that were read and are locked: what is about to be sent is noted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "outbox/claim.h"
#include "outbox/work_statement.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* Of those that cannot be claimed, only one is told of in so long a time. */
#define UNCLAIMED_SILENCE_US (60 * INT64CONST(1000000))

static WorkStatement claim_pending =
{
	.sql = "UPDATE %r SET status = 'in_flight', attempts = attempts + 1, attempted_at = $4,"
	" next_attempt_at = $4 + $5 * interval '1 ms', attempt_timeout = $5, seam_time = $6, "
	"timeline_id = $7,"
	" account = $8, api_key_hash = $9, workspace_id = coalesce(seam_workspace, $10)"
	" WHERE request_id = ANY ($3)",
	.types = {INT8ARRAYOID, TIMESTAMPTZOID, INT4OID, TIMESTAMPTZOID, INT4OID, INT8OID, INT8OID,
	UUIDOID}
};

static WorkStatement claim_revoking =
{
	.sql = "UPDATE %r SET attempts = attempts + 1, attempted_at = $4, next_attempt_at = $4 + $5 * "
	"interval '1 ms'"
	" WHERE request_id = ANY ($3)",
	.types = {INT8ARRAYOID, TIMESTAMPTZOID, INT4OID}
};

static WorkStatement note_told =
{
	.sql = "UPDATE %r SET next_attempt_at = NULL WHERE request_id = ANY ($3)",
	.types = {INT8ARRAYOID}
};

/* Rows that are locked, and are to be claimed. */
typedef struct Claim
{
	RequestStatus status;		/* of all of them */
	const WorkAttempt *attempt; /* that is about to be made */
	TimestampTz now;			/* when it is */
	const int64 *ids;			/* these */
	int			n;				/* how many there are */
} Claim;

/*
 * Claims them.
 */
static void
claim_all(void *arg)
{
	const Claim *claim = arg;
	const WorkAttempt *attempt = claim->attempt;
	Datum		args[WORK_MAX_ARGS];
	char		nulls[WORK_MAX_ARGS];

	memset(nulls, ' ', sizeof(nulls));
	args[2] = work_ids(claim->ids, claim->n);
	if (claim->status == STATUS_CANCELLED)
	{
		work_execute(&note_told, args, nulls);
		return;
	}
	args[3] = TimestampTzGetDatum(claim->now);
	args[4] = Int32GetDatum(attempt->timeout);
	if (claim->status == STATUS_REVOKING)
	{
		args[4] = Int32GetDatum(attempt->revoke_timeout);
		work_execute(&claim_revoking, args, nulls);
		return;
	}
	args[5] = TimestampTzGetDatum(attempt->seam_time);
	if (!attempt->has_seam_time)
		nulls[5] = 'n';
	args[6] = Int32GetDatum((int32) GetWALInsertionTimeLine());
	args[7] = Int64GetDatum((int64) attempt->account.account);
	args[8] = Int64GetDatum((int64) attempt->account.api_key);
	args[9] = UUIDPGetDatum(&attempt->account.workspace);
	if (!attempt->account.has_workspace)
		nulls[9] = 'n';
	work_execute(&claim_pending, args, nulls);
}

/*
 * A request could not be claimed because of this error.
 */
static void
warn_of_unclaimed(int64 id, const ErrorData *error)
{
	static int64 tell_at = 0;	/* not before, on clock_now()'s clock */

	if (clock_now() < tell_at)
		return;
	tell_at = clock_now() + UNCLAIMED_SILENCE_US;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("the outbox of database \"%s\" could not begin with request " INT64_FORMAT
					": %s",
					get_database_name(MyDatabaseId), id, error->message),
			 errhint("It is tried again from time to time.  Look for constraints and triggers on "
					 "\"seam_instant_key_request\".")));
}

/*
 * Claims n requests that are locked, for this attempt, which is made now.  Where that fails,
 * each of them by itself, as far as a transaction may have subtransactions at little cost.
 * Sets claimed[i] for those that are claimed, and clears the others.
 */
void
claim_requests(RequestStatus status, const WorkAttempt *attempt, TimestampTz now,
			   const int64 *ids, int n, bool *claimed)
{
	Claim		all = {status, attempt, now, ids, n};
	ErrorData  *error = work_try(claim_all, &all);

	memset(claimed, error == NULL, n * sizeof(bool));
	n = Min(n, WORK_ALONE_AT_ONCE);
	for (int i = 0; i < n && !claimed[i]; i++)
	{
		Claim		one = {status, attempt, now, &ids[i], 1};

		if (error && !work_is_of_one(error->sqlerrcode))
			ReThrowError(error);
		error = work_try(claim_all, &one);
		if (error)
			warn_of_unclaimed(ids[i], error);
		else
			claimed[i] = true;
	}
}
