/*-------------------------------------------------------------------------
 *
 * work_calls.c
 *	  What the worker reads and writes of sessions' synchronous calls.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "access/htup_details.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"
#include "ledger/work_calls.h"
#include "outbox/work.h"
#include "outbox/work_statement.h"

/*
 * What tells this data directory from a copy of it, in which transactions that are
 * open here look as if they had been rolled back by a crash: the inode of a file that
 * is never written again, and when it was born, which no copy can set: neither is
 * enough, because two disks may have the same inode.  (Its device may have another
 * number after a reboot.)  Where births are not known, the time of the last change
 * stands in, which chmod, chown and a hard link set, too.  A snapshot of the disk has
 * the same.
 */
static Datum
data_directory_id(void)
{
	static int64 what[3];		/* once is enough */

	if (what[0] == 0)
	{
		struct stat st;
#ifdef STATX_BTIME
		struct statx stx;
#endif

		if (stat("PG_VERSION", &st) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not stat file \"%s\": %m", "PG_VERSION")));
		what[1] = (int64) st.st_ctime;
#ifdef STATX_BTIME
		if (statx(AT_FDCWD, "PG_VERSION", 0, STATX_BTIME, &stx) == 0 &&
			(stx.stx_mask & STATX_BTIME))
		{
			what[1] = stx.stx_btime.tv_sec;
			what[2] = stx.stx_btime.tv_nsec;
		}
#endif
		what[0] = (int64) st.st_ino;
	}
	return Int64GetDatum((int64) hash_bytes_extended((const unsigned char *) what, sizeof(what),
													 0));
}

static WorkStatement select_calls =
{
	.sql = "SELECT call_id, transaction_id, user_identity_ids, max_use_count, "
	"customization_profile_id, requested_at,"
	" attempt_timeout, seam_time, answered, owned, instant_key_ids, account, timeline_id,"
	" data_directory_id = $3, api_key_hash FROM %c WHERE" OURS,
	.types = {INT8OID}
};

/*
 * The calls that are recorded, in CurrentMemoryContext; none that came along with a
 * logical copy.
 */
int
work_calls(CallRow **calls)
{
	Datum		args[WORK_MAX_ARGS];
	int			n;

	args[2] = data_directory_id();
	work_execute(&select_calls, args, NULL);
	n = (int) SPI_processed;
	*calls = palloc0(Max(n, 1) * sizeof(CallRow));
	for (int i = 0; i < n; i++)
	{
		CallRow    *call = &(*calls)[i];
		Datum		values[15];
		bool		nulls[15];
		Datum	   *ids;
		bool	   *id_nulls;

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
		call->id = DatumGetInt64(values[0]);
		call->transaction = DatumGetFullTransactionId(values[1]);
		deconstruct_array(DatumGetArrayTypePCopy(values[2]), UUIDOID, UUID_LEN, false,
						  TYPALIGN_CHAR, &ids, NULL, &call->n);
		call->calls = MemoryContextAllocHuge(CurrentMemoryContext, Max(call->n,
																	   1) * sizeof(IntentCall));
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

			deconstruct_array(DatumGetArrayTypePCopy(values[10]), UUIDOID, UUID_LEN, false,
							  TYPALIGN_CHAR, &ids, &id_nulls, &nkeys);
			for (int j = 0; j < nkeys && j < call->n; j++)
			{
				if (id_nulls[j])
					continue;
				call->calls[j].key = *DatumGetUUIDP(ids[j]);
				call->calls[j].state = CALL_ISSUED;
			}
		}
		call->account.account = nulls[11] ? 0 : (uint64) DatumGetInt64(values[11]);
		call->account.api_key = nulls[14] ? 0 : (uint64) DatumGetInt64(values[14]);
		call->timeline = DatumGetInt32(values[12]);
		call->is_ours = DatumGetBool(values[13]);
	}
	return n;
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
 * The identities of all the calls' elements as one array, and where each call's
 * start in it, and where the last one's end, in CurrentMemoryContext.
 */
static ArrayType *
all_identities(const CallRow **calls, int n, ArrayType **starts)
{
	Datum	   *start = new_column(n + 1);
	Datum	   *identities;
	int			nidentities = 0;

	for (int i = 0; i < n; i++)
	{
		start[i] = Int32GetDatum(nidentities + 1);
		nidentities += calls[i]->n;
	}
	start[n] = Int32GetDatum(nidentities + 1);
	*starts = work_array(start, NULL, n + 1, INT4OID);
	identities = new_column(nidentities);
	nidentities = 0;
	for (int i = 0; i < n; i++)
	{
		for (int j = 0; j < calls[i]->n; j++)
			identities[nidentities++] = UUIDPGetDatum(&calls[i]->calls[j].identity);
	}
	return work_array(identities, NULL, nidentities, UUIDOID);
}

static WorkStatement insert_calls =
{
	.sql = "INSERT INTO %c (transaction_id, user_identity_ids, max_use_count, "
	"customization_profile_id, requested_at,"
	" attempt_timeout, seam_time, account, timeline_id, data_directory_id, api_key_hash,"
	" system_identifier, origin)"
	" SELECT $3[i], $4[$5[i] : $5[i + 1] - 1], nullif($6[i], 0), $7[i], $10, $8[i], $11[i], $9[i],"
	" $12, $13, $14[i], $1, $2 FROM (SELECT generate_series(1, array_length($3, 1)) AS i) s "
	"RETURNING call_id, transaction_id",
	.types = {XID8ARRAYOID, UUIDARRAYOID, INT4ARRAYOID, INT4ARRAYOID, UUIDARRAYOID, INT4ARRAYOID,
		INT8ARRAYOID,
	TIMESTAMPTZOID, TIMESTAMPTZARRAYOID, INT4OID, INT8OID, INT8ARRAYOID}
};

/*
 * Record n calls, at least one, in one statement: sets their ids, and the time of
 * the requests to now.
 */
void
work_record_calls(CallRow **calls, int n, TimestampTz now)
{
	Datum		args[WORK_MAX_ARGS];
	Datum	   *transactions = new_column(n);
	ArrayType  *starts;
	Datum	   *max_use_counts = new_column(n);
	Datum	   *profiles = new_column(n);
	bool	   *no_profile = palloc(n * sizeof(bool));
	Datum	   *timeouts = new_column(n);
	Datum	   *accounts = new_column(n);
	Datum	   *api_keys = new_column(n);
	Datum	   *seam_times = new_column(n);
	bool	   *no_seam_time = palloc(n * sizeof(bool));
	ArrayType  *identities = all_identities((const CallRow **) calls, n, &starts);
	int			timeline = (int) GetWALInsertionTimeLine();

	for (int i = 0; i < n; i++)
	{
		CallRow    *call = calls[i];

		call->requested_at = now;
		call->timeline = timeline;
		transactions[i] = FullTransactionIdGetDatum(call->transaction);
		max_use_counts[i] = Int32GetDatum(call->max_use_count);
		profiles[i] = UUIDPGetDatum(&call->profile);
		no_profile[i] = !call->has_profile;
		timeouts[i] = Int32GetDatum(call->timeout);
		accounts[i] = Int64GetDatum((int64) call->account.account);
		api_keys[i] = Int64GetDatum((int64) call->account.api_key);
		seam_times[i] = TimestampTzGetDatum(call->seam_time);
		no_seam_time[i] = !call->has_seam_time;
	}
	args[2] = PointerGetDatum(work_array(transactions, NULL, n, XID8OID));
	args[3] = PointerGetDatum(identities);
	args[4] = PointerGetDatum(starts);
	args[5] = PointerGetDatum(work_array(max_use_counts, NULL, n, INT4OID));
	args[6] = PointerGetDatum(work_array(profiles, no_profile, n, UUIDOID));
	args[7] = PointerGetDatum(work_array(timeouts, NULL, n, INT4OID));
	args[8] = PointerGetDatum(work_array(accounts, NULL, n, INT8OID));
	args[9] = TimestampTzGetDatum(now);
	args[10] = PointerGetDatum(work_array(seam_times, no_seam_time, n, TIMESTAMPTZOID));
	args[11] = Int32GetDatum(timeline);
	args[12] = data_directory_id();
	args[13] = PointerGetDatum(work_array(api_keys, NULL, n, INT8OID));
	work_execute(&insert_calls, args, NULL);
	if (SPI_processed != (uint64) n)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger or rule keeps calls from being recorded in "
						"\"seam_instant_key_call\"")));
	for (int i = 0; i < n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		bool		isnull;
		Datum		recorded = SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull);

		if (!FullTransactionIdEquals(DatumGetFullTransactionId(recorded), calls[i]->transaction))
			elog(ERROR, "calls were recorded in another order");
		calls[i]->id = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
	}
}

static WorkStatement update_answers =
{
	.sql = "UPDATE %c SET answered = $4[i], owned = $5[i], attempt_timeout = $6[i],"
	" user_identity_ids = $8[$7[i] : $7[i + 1] - 1],"
	" instant_key_ids = array_replace($9[$7[i] : $7[i + 1] - 1], "
	"'00000000-0000-0000-0000-000000000000', NULL)"
	" FROM generate_series(1, array_length($3, 1)) AS s(i) WHERE call_id = $3[i] AND "
	"transaction_id = $10[i]",
	.types = {INT8ARRAYOID, BOOLARRAYOID, BOOLARRAYOID, INT4ARRAYOID, INT4ARRAYOID, UUIDARRAYOID,
	UUIDARRAYOID, XID8ARRAYOID}
};

/*
 * Note what is known of n recorded calls, at least one, in one statement.
 */
void
work_answer_calls(const CallRow **calls, int n)
{
	Datum		args[WORK_MAX_ARGS];
	static const pg_uuid_t none;	/* NULLs would make a slice slow to find */
	Datum	   *ids = new_column(n);
	Datum	   *transactions = new_column(n);
	Datum	   *answered = new_column(n);
	Datum	   *owned = new_column(n);
	Datum	   *timeouts = new_column(n);
	Datum	   *keys;
	ArrayType  *starts;
	ArrayType  *identities = all_identities(calls, n, &starts);
	int			nkeys = 0;

	for (int i = 0; i < n; i++)
	{
		ids[i] = Int64GetDatum(calls[i]->id);
		transactions[i] = FullTransactionIdGetDatum(calls[i]->transaction);
		answered[i] = BoolGetDatum(calls[i]->answered);
		owned[i] = BoolGetDatum(calls[i]->owned);
		timeouts[i] = Int32GetDatum(calls[i]->timeout);
		nkeys += calls[i]->n;
	}
	keys = new_column(nkeys);
	nkeys = 0;
	for (int i = 0; i < n; i++)
	{
		for (int j = 0; j < calls[i]->n; j++)
		{
			const IntentCall *one = &calls[i]->calls[j];

			keys[nkeys++] = UUIDPGetDatum(one->state == CALL_ISSUED ? &one->key : &none);
		}
	}
	args[2] = PointerGetDatum(work_array(ids, NULL, n, INT8OID));
	args[3] = PointerGetDatum(work_array(answered, NULL, n, BOOLOID));
	args[4] = PointerGetDatum(work_array(owned, NULL, n, BOOLOID));
	args[5] = PointerGetDatum(work_array(timeouts, NULL, n, INT4OID));
	args[6] = PointerGetDatum(starts);
	args[7] = PointerGetDatum(identities);
	args[8] = PointerGetDatum(work_array(keys, NULL, nkeys, UUIDOID));
	args[9] = PointerGetDatum(work_array(transactions, NULL, n, XID8OID));
	work_execute(&update_answers, args, NULL);
}

static WorkStatement update_timeout =
{
	.sql = "UPDATE %c SET attempt_timeout = $4 WHERE call_id = $3",
	.types = {INT8OID, INT4OID}
};

/*
 * Note that a recorded call takes longer: its timeout.
 */
void
work_extend_call(const CallRow *call)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = Int64GetDatum(call->id);
	args[3] = Int32GetDatum(call->timeout);
	work_execute(&update_timeout, args, NULL);
}

static WorkStatement lock_call =
{
	.sql = "SELECT 1 FROM %c WHERE call_id = $3 FOR UPDATE SKIP LOCKED",
	.types = {INT8OID}
};

static WorkStatement find_call =
{
	.sql = "SELECT 1 FROM %c WHERE call_id = $3",
	.types = {INT8OID}
};

/*
 * Has a session locked this call?  If not, we have.
 */
bool
work_call_is_locked(int64 id)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = Int64GetDatum(id);
	work_execute(&lock_call, args, NULL);
	if (SPI_processed > 0)
		return false;
	work_execute(&find_call, args, NULL);
	return SPI_processed > 0;
}

static WorkStatement select_orphans =
{
	.sql = "SELECT user_identity_id FROM %r WHERE status = 'revoking' AND transaction_id IS NOT "
	"NULL"
};

/*
 * The identities of calls that rolled back, and whose keys are to be revoked still:
 * how many, and they, in CurrentMemoryContext.
 */
int
work_orphans(pg_uuid_t **ids)
{
	Datum		args[WORK_MAX_ARGS];

	work_execute(&select_orphans, args, NULL);
	return work_uuids(ids);
}

static WorkStatement delete_calls =
{
	.sql = "DELETE FROM %c USING generate_series(1, array_length($3, 1)) AS s(i)"
	" WHERE call_id = $3[i] AND transaction_id = $4[i]",
	.types = {INT8ARRAYOID, XID8ARRAYOID}
};

/*
 * Forget n calls.  (Where the table has been emptied, and its ids begin anew, others
 * may have their ids.)
 */
void
work_delete_calls(const CallRow **calls, int n)
{
	Datum		args[WORK_MAX_ARGS];
	Datum	   *ids = new_column(n);
	Datum	   *transactions = new_column(n);

	for (int i = 0; i < n; i++)
	{
		ids[i] = Int64GetDatum(calls[i]->id);
		transactions[i] = FullTransactionIdGetDatum(calls[i]->transaction);
	}
	args[2] = PointerGetDatum(work_array(ids, NULL, n, INT8OID));
	args[3] = PointerGetDatum(work_array(transactions, NULL, n, XID8OID));
	work_execute(&delete_calls, args, NULL);
}

static WorkStatement insert_orphans =
{
	.sql = "INSERT INTO %r (user_identity_id, max_use_count, customization_profile_id, status, "
	"attempted_at, attempt_timeout,"
	" seam_time, next_attempt_at, finished_at, instant_key.instant_key_id, sqlstate, error, "
	"transaction_id, account,"
	" timeline_id, api_key_hash, system_identifier, origin)"
	" SELECT i, $4, $5, $6, $7, $8, $9, CASE WHEN $6 = 'failed' THEN NULL WHEN k IS NULL THEN $10 "
	"ELSE '-infinity' END,"
	" CASE WHEN $6 = 'failed' THEN now() END, k,"
	" CASE WHEN $6 = 'failed' THEN '08007' END, $12, $13, $14, $15, $16, $1, $2"
	" FROM unnest($3, $11) AS u(i, k)",
	.types = {UUIDARRAYOID, INT4OID, UUIDOID, TEXTOID, TIMESTAMPTZOID, INT4OID, TIMESTAMPTZOID,
		TIMESTAMPTZOID,
	UUIDARRAYOID, TEXTOID, XID8OID, INT8OID, INT4OID, INT8OID}
};

/*
 * Make requests of the outbox from what a call, whose transaction rolled back, may have
 * issued: to have the keys revoked, or, when there is a report, to be looked at only.
 */
void
work_add_orphans(const CallRow *call, const char *report)
{
	Datum		args[WORK_MAX_ARGS];
	char		nulls[WORK_MAX_ARGS];
	Datum	   *ids = MemoryContextAllocHuge(CurrentMemoryContext, Max(call->n, 1) * sizeof(Datum));
	Datum	   *keys = MemoryContextAllocHuge(CurrentMemoryContext, Max(call->n,
																		1) * sizeof(Datum));
	bool	   *key_nulls = MemoryContextAllocHuge(CurrentMemoryContext, Max(call->n,
																			 1) * sizeof(bool));
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
	/* the clock may have been set back since then */
	args[9] = TimestampTzGetDatum(Min(call->requested_at, GetCurrentTimestamp()) +
								  (int64) call->timeout * 1000);
	args[10] = PointerGetDatum(work_array(keys, key_nulls, n, UUIDOID));
	if (report)
		args[11] = CStringGetTextDatum(report);
	else
		nulls[11] = 'n';
	args[12] = FullTransactionIdGetDatum(call->transaction);
	args[13] = Int64GetDatum((int64) call->account.account);
	args[14] = Int32GetDatum(call->timeline);
	args[15] = Int64GetDatum((int64) call->account.api_key);
	work_execute(&insert_orphans, args, nulls);
	if (SPI_processed != (uint64) n)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger or rule keeps revocations from being recorded in "
						"\"seam_instant_key_request\"")));
}
