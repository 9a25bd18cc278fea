/*-------------------------------------------------------------------------
 *
 * journal.c
 *	  The journal of synchronous calls: intents in and out, and what their
 *	  transactions have left in the outbox.
 *
 * The journal is inserted and deleted, and never updated.  Nobody waits here for a row
 * that a session has locked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "outbox/insertion.h"
#include "outbox/journal.h"
#include "outbox/key.h"
#include "outbox/work.h"
#include "outbox/work_statement.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

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

/* ---------- the journal ---------- */

static WorkStatement select_intents =
{
	.sql = "SELECT call_id, transaction_id, top_transaction_id, user_identity_ids, max_use_count,"
	" customization_profile_id, requested_at, attempt_timeout, seam_time, account, api_key_hash,"
	" timeline_id, data_directory_id = $3, seam_workspace FROM %c WHERE" OURS,
	.types = {INT8OID}
};

/*
 * Reads the intents that are recorded, in CurrentMemoryContext; none that came along
 * with a logical copy.  Returns how many there are.
 */
int
journal_read(JournalRow **rows)
{
	Datum		args[WORK_MAX_ARGS];
	int			n;

	args[2] = data_directory_id();
	work_execute(&select_intents, args, NULL);
	n = (int) SPI_processed;
	*rows = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(JournalRow));
	memset(*rows, 0, n * sizeof(JournalRow));
	for (int i = 0; i < n; i++)
	{
		JournalRow *row = &(*rows)[i];
		Datum		values[14];
		bool		nulls[14];
		Datum	   *ids;

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
		row->call_id = *DatumGetUUIDP(values[0]);
		row->transaction = DatumGetFullTransactionId(values[1]);
		row->top = DatumGetFullTransactionId(values[2]);
		deconstruct_array(DatumGetArrayTypePCopy(values[3]), UUIDOID, UUID_LEN, false,
						  TYPALIGN_CHAR, &ids, NULL, &row->n);
		row->identities = palloc(Max(row->n, 1) * sizeof(pg_uuid_t));
		for (int j = 0; j < row->n; j++)
			row->identities[j] = *DatumGetUUIDP(ids[j]);
		row->max_use_count = nulls[4] ? 0 : DatumGetInt32(values[4]);
		row->has_profile = !nulls[5];
		if (!nulls[5])
			row->profile = *DatumGetUUIDP(values[5]);
		row->requested_at = DatumGetTimestampTz(values[6]);
		row->timeout = DatumGetInt32(values[7]);
		row->has_seam_time = !nulls[8];
		row->seam_time = nulls[8] ? 0 : DatumGetTimestampTz(values[8]);
		row->account.account = nulls[9] ? 0 : (uint64) DatumGetInt64(values[9]);
		row->account.api_key = nulls[10] ? 0 : (uint64) DatumGetInt64(values[10]);
		row->timeline = DatumGetInt32(values[11]);
		row->is_ours = DatumGetBool(values[12]);
		row->has_workspace = !nulls[13];
		if (!nulls[13])
			row->workspace = *DatumGetUUIDP(values[13]);
	}
	return n;
}

/*
 * Returns room for n values, in CurrentMemoryContext.
 */
static Datum *
new_column(int n)
{
	return MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(Datum));
}

/* The columns of the journal, in their order. */
enum
{
	CALL_ID,
	CALL_TRANSACTION,
	CALL_TOP_TRANSACTION,
	CALL_IDENTITIES,
	CALL_MAX_USE_COUNT,
	CALL_PROFILE,
	CALL_REQUESTED_AT,
	CALL_TIMEOUT,
	CALL_SEAM_TIME,
	CALL_ACCOUNT,
	CALL_SYSTEM_IDENTIFIER,
	CALL_ORIGIN,
	CALL_TIMELINE,
	CALL_DATA_DIRECTORY,
	CALL_API_KEY_HASH,
	CALL_SEAM_WORKSPACE,
	CALL_NCOLUMNS
};

static const InsertionColumn columns[CALL_NCOLUMNS] =
{
	[CALL_ID] = {"call_id", UUIDOID},
	[CALL_TRANSACTION] = {"transaction_id", XID8OID},
	[CALL_TOP_TRANSACTION] = {"top_transaction_id", XID8OID},
	[CALL_IDENTITIES] = {"user_identity_ids", UUIDARRAYOID},
	[CALL_MAX_USE_COUNT] = {"max_use_count", INT4OID},
	[CALL_PROFILE] = {"customization_profile_id", UUIDOID},
	[CALL_REQUESTED_AT] = {"requested_at", TIMESTAMPTZOID},
	[CALL_TIMEOUT] = {"attempt_timeout", INT4OID},
	[CALL_SEAM_TIME] = {"seam_time", TIMESTAMPTZOID},
	[CALL_ACCOUNT] = {"account", INT8OID},
	[CALL_SYSTEM_IDENTIFIER] = {"system_identifier", INT8OID},
	[CALL_ORIGIN] = {"origin", INT8OID},
	[CALL_TIMELINE] = {"timeline_id", INT4OID},
	[CALL_DATA_DIRECTORY] = {"data_directory_id", INT8OID},
	[CALL_API_KEY_HASH] = {"api_key_hash", INT8OID},
	[CALL_SEAM_WORKSPACE] = {"seam_workspace", UUIDOID},
};

/*
 * Returns the identities of an intent's elements as an array, in CurrentMemoryContext.
 */
static ArrayType *
identities_of(const JournalRow *row)
{
	Datum	   *identities = new_column(row->n);

	for (int i = 0; i < row->n; i++)
		identities[i] = UUIDPGetDatum(&row->identities[i]);
	return work_array(identities, NULL, row->n, UUIDOID);
}

/*
 * Records n intents, and sets the time of the requests to now.  Raises what
 * insertion_open() and insertion_row() raise.
 */
void
journal_insert(JournalRow **rows, int n, TimestampTz now)
{
	const Outbox *outbox = work_outbox();
	int			timeline = (int) GetWALInsertionTimeLine();
	Insertion	insertion;
	Datum		values[CALL_NCOLUMNS];
	bool		nulls[CALL_NCOLUMNS] = {false};

	insertion_open(&insertion, get_relname_relid("seam_instant_key_call", outbox->schema),
				   columns, CALL_NCOLUMNS);
	values[CALL_REQUESTED_AT] = TimestampTzGetDatum(now);
	values[CALL_SYSTEM_IDENTIFIER] = Int64GetDatum((int64) GetSystemIdentifier());
	values[CALL_ORIGIN] = Int64GetDatum(outbox->origin);
	values[CALL_TIMELINE] = Int32GetDatum(timeline);
	values[CALL_DATA_DIRECTORY] = data_directory_id();
	for (int i = 0; i < n; i++)
	{
		JournalRow *row = rows[i];

		row->requested_at = now;
		row->timeline = timeline;
		values[CALL_ID] = UUIDPGetDatum(&row->call_id);
		values[CALL_TRANSACTION] = FullTransactionIdGetDatum(row->transaction);
		values[CALL_TOP_TRANSACTION] = FullTransactionIdGetDatum(row->top);
		values[CALL_IDENTITIES] = PointerGetDatum(identities_of(row));
		values[CALL_MAX_USE_COUNT] = Int32GetDatum(row->max_use_count);
		nulls[CALL_MAX_USE_COUNT] = row->max_use_count == 0;
		values[CALL_PROFILE] = UUIDPGetDatum(&row->profile);
		nulls[CALL_PROFILE] = !row->has_profile;
		values[CALL_TIMEOUT] = Int32GetDatum(row->timeout);
		values[CALL_SEAM_TIME] = TimestampTzGetDatum(row->seam_time);
		nulls[CALL_SEAM_TIME] = !row->has_seam_time;
		values[CALL_ACCOUNT] = Int64GetDatum((int64) row->account.account);
		values[CALL_API_KEY_HASH] = Int64GetDatum((int64) row->account.api_key);
		values[CALL_SEAM_WORKSPACE] = UUIDPGetDatum(&row->workspace);
		nulls[CALL_SEAM_WORKSPACE] = !row->has_workspace;
		insertion_row(&insertion, values, nulls);
	}
	insertion_close(&insertion);
	/* this transaction's later statements see them */
	CommandCounterIncrement();
}

/*
 * The call ids of n intents, as an array in CurrentMemoryContext.
 */
static ArrayType *
call_ids(const JournalRow *const *rows, int n)
{
	Datum	   *ids = new_column(n);

	for (int i = 0; i < n; i++)
		ids[i] = UUIDPGetDatum(&rows[i]->call_id);
	return work_array(ids, NULL, n, UUIDOID);
}

static WorkStatement delete_intents =
{
	.sql = "DELETE FROM %c WHERE call_id = ANY (ARRAY(SELECT call_id FROM %c WHERE call_id = "
	"ANY ($3) FOR UPDATE SKIP LOCKED))",
	.types = {UUIDARRAYOID}
};

static WorkStatement find_intents =
{
	.sql = "SELECT i::int FROM generate_series(1, array_length($3, 1)) i WHERE (SELECT true FROM %c"
	" WHERE call_id = $3[i])",
	.types = {UUIDARRAYOID}
};

/*
 * Sets have[i] for each number from 1 on that the last statement has returned, clears
 * the others of n.
 */
static void
set_numbers(bool *have, int n)
{
	memset(have, false, n * sizeof(bool));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		have[DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1,
										 &isnull)) - 1] = true;
	}
}

/*
 * Deletes n intents, if there are any, but those that a session has locked: then sets
 * locked[i].  One that is not there is deleted.
 */
void
journal_delete(const JournalRow *const *rows, int n, bool *locked)
{
	Datum		args[WORK_MAX_ARGS];

	memset(locked, false, n * sizeof(bool));
	if (n == 0)
		return;
	args[2] = PointerGetDatum(call_ids(rows, n));
	work_execute(&delete_intents, args, NULL);
	if (SPI_processed == (uint64) n)
		return;
	work_execute(&find_intents, args, NULL);
	set_numbers(locked, n);
}

/* ---------- what transactions have left in the outbox ---------- */

static WorkStatement select_rows =
{
	.sql = "SELECT i::int FROM generate_series(1, array_length($3, 1)) i WHERE (SELECT true FROM %r"
	" WHERE call_id = $3[i] AND call_id IS NOT NULL AND transaction_id = $4[i] LIMIT 1)",
	.types = {UUIDARRAYOID, XID8ARRAYOID}
};

/*
 * Of n intents, sets have[i] where there is a committed request of the call and its
 * transaction.
 */
void
journal_have_rows(const JournalRow *const *rows, int n, bool *have)
{
	Datum		args[WORK_MAX_ARGS];
	Datum	   *transactions = new_column(n);

	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
		transactions[i] = FullTransactionIdGetDatum(rows[i]->transaction);
	args[2] = PointerGetDatum(call_ids(rows, n));
	args[3] = PointerGetDatum(work_array(transactions, NULL, n, XID8OID));
	work_execute(&select_rows, args, NULL);
	set_numbers(have, n);
}

/* The columns of a request that tell of its call. */
typedef struct CallColumns
{
	AttrNumber	transaction;	/* transaction_id */
	AttrNumber	identity;		/* user_identity_id */
	AttrNumber	key;			/* instant_key */
} CallColumns;

/*
 * Reads the key of a request that was found by a call id.  Returns false where it is
 * not of the intent's transaction, or has no key.
 */
static bool
get_key(HeapTuple tuple, TupleDesc desc, const CallColumns *columns, const JournalRow *row,
		JournalKey *key)
{
	Datum		value;
	bool		isnull;

	value = heap_getattr(tuple, columns->transaction, desc, &isnull);
	if (isnull || !FullTransactionIdEquals(DatumGetFullTransactionId(value), row->transaction))
		return false;
	value = heap_getattr(tuple, columns->identity, desc, &isnull);
	if (isnull)
		return false;
	key->identity = *DatumGetUUIDP(value);
	value = heap_getattr(tuple, columns->key, desc, &isnull);
	/* what is stored elsewhere may have gone before the row */
	if (isnull || VARATT_IS_EXTERNAL(DatumGetPointer(value)))
		return false;
	value = GetAttributeByNum(DatumGetHeapTupleHeader(value), KEY_INSTANT_KEY_ID + 1, &isnull);
	if (isnull)
		return false;
	key->key = *DatumGetUUIDP(value);
	return true;
}

/*
 * Reads the keys that an intent's transaction has put into the outbox, in
 * CurrentMemoryContext, and returns how many there are.
 *
 * A dead row is one that the very transaction has inserted: its xmin is compared, and
 * so are the call's id, which nobody can guess, and the transaction's in the row itself,
 * since the index's entry may be older than what is in its place now.
 */
int
journal_keys(const JournalRow *row, JournalRows which, JournalKey **keys)
{
	Outbox	   *outbox = work_outbox();
	Relation	table = table_open(outbox->table, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(table);
	Oid			index = get_relname_relid("seam_instant_key_request_call", outbox->schema);
	AttrNumber	call_id = get_attnum(outbox->table, "call_id");
	CallColumns columns = {
		get_attnum(outbox->table, "transaction_id"),
		get_attnum(outbox->table, "user_identity_id"),
		get_attnum(outbox->table, "instant_key"),
	};
	SnapshotData dirty;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			size = row->n + 1;
	int			n = 0;

	InitDirtySnapshot(dirty);
	*keys = palloc(size * sizeof(JournalKey));
	ScanKeyInit(&key, call_id, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(&row->call_id));
	scan = systable_beginscan(table, index, OidIsValid(index),
							  which == JOURNAL_ROWS_DEAD ? SnapshotAny : &dirty, 1, &key);
	/* another scan may have found out that they are dead */
	if (which == JOURNAL_ROWS_DEAD && scan->iscan)
		scan->iscan->ignore_killed_tuples = false;
	while ((tuple = systable_getnext(scan)) != NULL)
	{
		bool		isnull;
		Datum		id = heap_getattr(tuple, call_id, desc, &isnull);

		if (isnull || memcmp(DatumGetUUIDP(id), &row->call_id, UUID_LEN) != 0)
			continue;
		if (which == JOURNAL_ROWS_DEAD &&
			HeapTupleHeaderGetRawXmin(tuple->t_data) != XidFromFullTransactionId(row->transaction))
			continue;
		if (n == size)
			*keys = repalloc(*keys, (size *= 2) * sizeof(JournalKey));
		if (get_key(tuple, desc, &columns, row, &(*keys)[n]))
			n++;
	}
	systable_endscan(scan);
	table_close(table, AccessShareLock);
	return n;
}

/* ---------- what is to be revoked ---------- */

static WorkStatement select_orphans =
{
	.sql = "SELECT user_identity_id FROM %r WHERE status = 'revoking' AND transaction_id IS NOT "
	"NULL AND call_id IS NULL"
};

/*
 * Reads the identities of calls that rolled back, and whose keys are to be revoked still,
 * in CurrentMemoryContext, and returns how many there are.
 */
int
journal_orphans(pg_uuid_t **ids)
{
	Datum		args[WORK_MAX_ARGS];

	work_execute(&select_orphans, args, NULL);
	return work_uuids(ids);
}

static WorkStatement insert_orphans =
{
	.sql = "INSERT INTO %r (user_identity_id, max_use_count, customization_profile_id, status, "
	"attempted_at, attempt_timeout,"
	" seam_time, next_attempt_at, finished_at, instant_key.instant_key_id, sqlstate, error, "
	"transaction_id, account,"
	" timeline_id, api_key_hash, system_identifier, origin, seam_workspace)"
	" SELECT i, $4, $5, $6, $7, $8, $9, CASE WHEN $6 = 'failed' THEN NULL WHEN k IS NULL THEN $10 "
	"ELSE '-infinity' END,"
	" CASE WHEN $6 = 'failed' THEN now() END, k,"
	" CASE WHEN $6 = 'failed' THEN '08007' END, $12, $13, $14, $15, $16, $1, $2, $17"
	" FROM unnest($3, $11) AS u(i, k)",
	.types = {UUIDARRAYOID, INT4OID, UUIDOID, TEXTOID, TIMESTAMPTZOID, INT4OID, TIMESTAMPTZOID,
		TIMESTAMPTZOID,
	UUIDARRAYOID, TEXTOID, XID8OID, INT8OID, INT4OID, INT8OID, UUIDOID}
};

/*
 * Makes requests of the outbox from what an intent, whose transaction rolled back, may
 * have issued, of which elements and keys tell what is known: to have the keys revoked,
 * or, when there is a report, to be looked at only.
 */
void
journal_add_orphans(const JournalRow *row, const JournalElement *elements,
					const pg_uuid_t *row_keys, const char *report)
{
	Datum		args[WORK_MAX_ARGS];
	char		nulls[WORK_MAX_ARGS];
	Datum	   *ids = new_column(row->n);
	Datum	   *keys = new_column(row->n);
	bool	   *key_nulls = palloc(Max(row->n, 1) * sizeof(bool));
	int			n = 0;

	for (int i = 0; i < row->n; i++)
	{
		if (elements[i] == JOURNAL_NONE)
			continue;
		ids[n] = UUIDPGetDatum(&row->identities[i]);
		keys[n] = UUIDPGetDatum(&row_keys[i]);
		key_nulls[n++] = elements[i] != JOURNAL_KEY;
	}
	if (n == 0)
		return;
	memset(nulls, ' ', sizeof(nulls));
	args[2] = PointerGetDatum(work_array(ids, NULL, n, UUIDOID));
	args[3] = Int32GetDatum(row->max_use_count);
	if (row->max_use_count == 0)
		nulls[3] = 'n';
	args[4] = UUIDPGetDatum(&row->profile);
	if (!row->has_profile)
		nulls[4] = 'n';
	args[5] = CStringGetTextDatum(status_names[report ? STATUS_FAILED : STATUS_REVOKING]);
	args[6] = TimestampTzGetDatum(row->requested_at);
	args[7] = Int32GetDatum(row->timeout);
	args[8] = TimestampTzGetDatum(row->seam_time);
	if (!row->has_seam_time)
		nulls[8] = 'n';
	/* the clock may have been set back since then */
	args[9] = TimestampTzGetDatum(Min(row->requested_at, GetCurrentTimestamp()) +
								  (int64) row->timeout * 1000);
	args[10] = PointerGetDatum(work_array(keys, key_nulls, n, UUIDOID));
	if (report)
		args[11] = CStringGetTextDatum(report);
	else
		nulls[11] = 'n';
	args[12] = FullTransactionIdGetDatum(row->transaction);
	args[13] = Int64GetDatum((int64) row->account.account);
	args[14] = Int32GetDatum(row->timeline);
	args[15] = Int64GetDatum((int64) row->account.api_key);
	args[16] = UUIDPGetDatum(&row->workspace);
	if (!row->has_workspace)
		nulls[16] = 'n';
	work_execute(&insert_orphans, args, nulls);
	if (SPI_processed != (uint64) n)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger or rule keeps revocations from being recorded in "
						"\"seam_instant_key_request\"")));
}
