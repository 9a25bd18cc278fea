/*-------------------------------------------------------------------------
 *
 * write_back.c
 *	  Write an issued key to the row that it was issued for.
 *
 * The user's table may have triggers, generated columns, constraints and row
 * security whose code is anybody's, so it is written as the table's owner, in a
 * security-restricted operation.  All of that code has run before the worker is
 * itself again: also what was deferred to the end of the transaction.
 *
 * A key that is not wanted any more is revoked, which nobody can undo: so only where the
 * row is surely gone, or has another guest or key.  That a row is not found proves nothing
 * where the question is not the one that the request was enqueued with: the primary key
 * is made of other columns, or the partition is detached.  And where the question is the
 * same, the row may have got another primary key, which no trigger of ours has seen.  Then
 * it is a row of the same guest without a key, and without a request of its own.  If there
 * is such a row, a person has to look: the key lives, and the request says why it was not
 * written.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/as_owner.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "outbox/row_key.h"
#include "base/stop_point.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "outbox/trigger_plan.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/typcache.h"
#include "worker/write_back.h"

/*
 * How long a lock is waited for, and how long everything may take: other
 * requests wait meanwhile.
 */
#define LOCK_TIMEOUT "20ms"
#define TIME_LIMIT_MS 2000

/* When code that catches the cancel is ended with the whole process. */
#define KILL_LIMIT_MS 4000

#define MAX_ARGS (F_NFIELDS + INDEX_MAX_KEYS)

/* Rows of a guest without a key that are looked at. */
#define MAX_KEYLESS 100

/* What a request says of its target. */
typedef struct WriteBack
{
	Oid			table;
	Datum		target_key;		/* jsonb */
	Datum		names;			/* of its columns: text[] */
	Datum		numbers;		/* likewise, int2[] */
	bool		has_names;
	bool		has_numbers;
	Oid			partition;		/* or InvalidOid */
	Datum		fields;			/* the trigger's arguments then: text[] */
	char	   *columns[F_NFIELDS]; /* by field, or NULL */
	pg_uuid_t	identity;
	int			nkeyless;		/* rows that may be the target, too */
	Datum	   *keyless;		/* their keys: jsonb */
	int64	   *keyless_hash;
	Datum		key[KEY_NCOLUMNS];	/* the key's columns */
	bool		key_null[KEY_NCOLUMNS];
} WriteBack;

static TimeoutId kill_timeout;

/*
 * Timeout handler: a trigger of the table does not let itself be cancelled.  The
 * worker ends, and the next one puts the row off.
 */
static void
give_up(void)
{
	ProcDiePending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/*
 * Called once, at the worker's start.
 */
void
write_back_define(void)
{
	kill_timeout = RegisterTimeout(USER_TIMEOUT, give_up);
}

/*
 * Read the request, and lock it.  *outcome tells why, when it returns false.
 */
static bool
read_request(Outbox *outbox, int64 id, WriteBack *wb, WriteBackOutcome *outcome)
{
	Datum		args[] = {Int64GetDatum(id)};
	Oid			types[] = {INT8OID};
	HeapTuple	tuple;
	TupleDesc	desc;
	bool		isnull;
	HeapTupleHeader key;
	HeapTupleData key_tuple;
	TupleDesc	key_desc;

	if (SPI_execute_with_args(psprintf("SELECT target_table, target_key, target_fields, "
									   "user_identity_id, instant_key%s"
									   " FROM %s WHERE request_id = $1 AND status = 'issued' AND "
									   "next_attempt_at IS NOT NULL"
									   " AND target_table IS NOT NULL FOR UPDATE SKIP LOCKED",
									   outbox->knows_columns ? ", target_columns, target_numbers, "
									   "target_partition" : "",
									   outbox->name),
							  1, types, args, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "SPI failed to read a request");
	*outcome = WRITE_BACK_LOCKED;
	if (SPI_processed == 0)
		return false;
	*outcome = WRITE_BACK_SKIPPED;
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	wb->table = DatumGetObjectId(SPI_getbinval(tuple, desc, 1, &isnull));
	wb->target_key = SPI_getbinval(tuple, desc, 2, &isnull);
	wb->fields = SPI_getbinval(tuple, desc, 3, &isnull);
	wb->identity = *DatumGetUUIDP(SPI_getbinval(tuple, desc, 4, &isnull));
	key = DatumGetHeapTupleHeader(SPI_getbinval(tuple, desc, 5, &isnull));
	if (isnull)
		return false;
	if (outbox->knows_columns)
	{
		wb->names = SPI_getbinval(tuple, desc, 6, &isnull);
		wb->has_names = !isnull;
		wb->numbers = SPI_getbinval(tuple, desc, 7, &isnull);
		wb->has_numbers = !isnull;
		wb->partition = DatumGetObjectId(SPI_getbinval(tuple, desc, 8, &isnull));
	}
	key_desc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(key),
										   HeapTupleHeaderGetTypMod(key));
	key_check_type(key_desc);
	key_tuple.t_len = HeapTupleHeaderGetDatumLength(key);
	ItemPointerSetInvalid(&key_tuple.t_self);
	key_tuple.t_tableOid = InvalidOid;
	key_tuple.t_data = key;
	heap_deform_tuple(&key_tuple, key_desc, wb->key, wb->key_null);
	return true;
}

/*
 * The function whose triggers enqueue rows.
 */
static Oid
get_trigger_function(Outbox *outbox)
{
	oidvector  *no_args = buildoidvector(NULL, 0);

	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum("seam_enqueue_instant_key_trigger"),
						   PointerGetDatum(no_args), ObjectIdGetDatum(outbox->schema));
}

/*
 * Are the trigger's arguments these?
 */
static bool
has_arguments(const Trigger *trigger, Datum *fields, int nfields)
{
	if (trigger->tgnargs != nfields)
		return false;
	for (int i = 0; i < nfields; i++)
	{
		if (strcmp(trigger->tgargs[i], TextDatumGetCString(fields[i])) != 0)
			return false;
	}
	return true;
}

/*
 * Take the columns from the arguments of the table's trigger, if it has one: the
 * one with the arguments that the request says, or the first.
 */
static bool
read_columns(Relation rel, Oid function, WriteBack *wb)
{
	const Trigger *found = NULL;
	Datum	   *fields;
	int			nfields;

	deconstruct_array(DatumGetArrayTypeP(wb->fields), TEXTOID, -1, false, TYPALIGN_INT,
					  &fields, NULL, &nfields);
	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgfoid != function || trigger->tgenabled == TRIGGER_DISABLED)
			continue;
		if (found == NULL || has_arguments(trigger, fields, nfields))
			found = trigger;
	}
	for (int i = 0; found && i < found->tgnargs; i++)
	{
		char	   *column;
		char	   *name = trigger_split_argument(found->tgargs[i], &column);

		if (column == NULL)
			continue;
		for (int f = 0; f < F_NFIELDS; f++)
		{
			if (strcmp(trigger_fields[f].name, name) == 0)
				wb->columns[f] = column;
		}
	}
	return wb->columns[F_USER_IDENTITY_ID] != NULL;
}

/*
 * Take the columns from the trigger that the table, or one of its partitions,
 * has now.  Who can write to the outbox cannot have a table written that has
 * none.
 */
static void
find_columns(Outbox *outbox, Relation rel, WriteBack *wb)
{
	Oid			function = get_trigger_function(outbox);
	bool		found = read_columns(rel, function, wb);

	if (!found && rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		List	   *partitions = find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL);
		ListCell   *lc;

		foreach(lc, partitions)
		{
			Relation	partition = table_open(lfirst_oid(lc), NoLock);

			found = found || read_columns(partition, function, wb);
			table_close(partition, NoLock);
		}
	}
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the table has no enabled trigger that enqueues its rows")));
}

/*
 * Execute a statement on the target.
 */
static void
execute(const char *sql, int nargs, Oid *types, Datum *args, const char *nulls, int expected)
{
	int			rc = SPI_execute_with_args(sql, nargs, types, args, nulls, false, 0);

	if (rc != expected)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(rc));
}

/*
 * Raise 55000 where the table cannot be asked for the row that the request means: its
 * primary key is not the one of the request.
 */
static void
check_question(const WriteBack *wb, const RowKey *row_key)
{
	if (!row_key_is(row_key, wb->has_names ? &wb->names : NULL, wb->has_numbers ? &wb->numbers :
					NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the table's primary key is not the one of the request, which was (%s)",
						wb->has_names ? row_key_columns(wb->names) : "?")));
}

/*
 * The row was not found.  Raise 55000 where the partition that it was in is there, and
 * is not of the table any more.
 */
static void
check_partition(const WriteBack *wb)
{
	if (OidIsValid(wb->partition) && SearchSysCacheExists1(RELOID,
														   ObjectIdGetDatum(wb->partition)) &&
		!(get_rel_relispartition(wb->partition) &&
		  list_member_oid(get_partition_ancestors(wb->partition), wb->table)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the partition \"%s\" of the row has been detached from the table",
						get_rel_name(wb->partition))));
}

/*
 * Why the row that was asked for does not want the key, or NULL: the statement's result has
 * its identity and its key's id.
 */
static const char *
why_unwanted(const WriteBack *wb)
{
	Datum		found;
	bool		isnull;

	if (SPI_processed == 0)
	{
		check_partition(wb);
		return "the row that the instant key was for is gone";
	}
	found = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull || memcmp(DatumGetUUIDP(found), &wb->identity, UUID_LEN) != 0)
		return "the row that the instant key was for is of another user identity now";
	found = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	if (!isnull && memcmp(DatumGetUUIDP(found), DatumGetUUIDP(wb->key[KEY_INSTANT_KEY_ID]),
						  UUID_LEN) != 0)
		return "the row that the instant key was for has another instant key now";
	return NULL;
}

/*
 * The row is not where it was, or another one is there.  Find rows that may be it, under
 * another primary key: those of its guest in which none of the key's columns is filled.
 * Their primary keys, as row_key_value() makes them, are put into *wb.  Returns true when a
 * row has the very key, so that nothing is to be written.
 */
static bool
find_keyless(WriteBack *wb, RowKey *row_key)
{
	const char *key_column = wb->columns[F_INSTANT_KEY_ID];
	const char *has_it = key_column == NULL ? "false" :
	psprintf("coalesce(pg_catalog.lower(%s::pg_catalog.text) OPERATOR(pg_catalog.=) "
			 "$2::pg_catalog.text, false)",
			 quote_identifier(key_column));
	Datum		args[] = {UUIDPGetDatum(&wb->identity), wb->key[KEY_INSTANT_KEY_ID]};
	Oid			types[] = {UUIDOID, UUIDOID};
	RowKey		found = *row_key;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s", has_it);
	found.columns = palloc(found.ncolumns * sizeof(RowKeyColumn));
	for (int i = 0; i < found.ncolumns; i++)
	{
		found.columns[i] = row_key->columns[i];
		found.columns[i].attnum = i + 2;
		appendStringInfo(&sql, ", %s", quote_identifier(row_key->columns[i].name));
	}
	appendStringInfo(&sql, " FROM %s WHERE %s::pg_catalog.uuid OPERATOR(pg_catalog.=) $1 AND (%s "
					 "OR (true",
					 row_key_table(row_key), quote_identifier(wb->columns[F_USER_IDENTITY_ID]),
					 has_it);
	for (int f = 0; f < F_NFIELDS; f++)
	{
		if (trigger_fields[f].use == FIELD_OUT && wb->columns[f])
			appendStringInfo(&sql, " AND %s IS NULL", quote_identifier(wb->columns[f]));
	}
	appendStringInfo(&sql, ")) LIMIT %d", MAX_KEYLESS);
	execute(sql.data, 2, types, args, NULL, SPI_OK_SELECT);
	wb->nkeyless = (int) SPI_processed;
	wb->keyless = palloc(Max(wb->nkeyless, 1) * sizeof(Datum));
	wb->keyless_hash = palloc(Max(wb->nkeyless, 1) * sizeof(int64));
	for (int i = 0; i < wb->nkeyless; i++)
	{
		bool		isnull;

		if (DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)))
			return true;
		wb->keyless[i] = row_key_value(&found, SPI_tuptable->tupdesc, SPI_tuptable->vals[i],
									   &wb->keyless_hash[i]);
	}
	return false;
}

/*
 * Raise 55000 where one of the rows that find_keyless() found has no request of its own,
 * so that it may be the row of this one.  As the worker, who may read the outbox.
 */
static void
check_keyless(Outbox *outbox, const WriteBack *wb, const char *reason)
{
	Oid			types[] = {INT8OID, REGCLASSOID, JSONBOID, UUIDOID};

	for (int i = 0; i < wb->nkeyless; i++)
	{
		Datum		args[] = {Int64GetDatum(wb->keyless_hash[i]), ObjectIdGetDatum(wb->table),
		wb->keyless[i], UUIDPGetDatum(&wb->identity)};

		execute(psprintf("SELECT 1 FROM %s WHERE target_hash = $1 AND target_table = $2 AND "
						 "target_key = $3 AND user_identity_id = $4 LIMIT 1", outbox->name),
				4, types, args, NULL, SPI_OK_SELECT);
		if (SPI_processed == 0 || wb->nkeyless == MAX_KEYLESS)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("%s, but there is a row of its user identity without an instant key, "
							"whose primary key may have changed", reason)));
	}
}

/*
 * Write the key to its row, as the table's owner.  Returns WRITE_BACK_DONE, or
 * WRITE_BACK_REVOKE with the reason, where check_keyless() has nothing against it.
 */
static WriteBackOutcome
write_row(WriteBack *wb, RowKey *row_key, const char **reason)
{
	StringInfoData sql;
	Datum		args[MAX_ARGS];
	Oid			types[MAX_ARGS];
	char		nulls[MAX_ARGS];
	const char *key_column = wb->columns[F_INSTANT_KEY_ID];
	int			n = 0;

	check_question(wb, row_key);
	memset(nulls, ' ', sizeof(nulls));
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s::pg_catalog.uuid, %s::pg_catalog.text::pg_catalog.uuid FROM "
					 "%s",
					 quote_identifier(wb->columns[F_USER_IDENTITY_ID]),
					 key_column ? quote_identifier(key_column) : "NULL", row_key_table(row_key));
	row_key_where(row_key, &sql, 1);
	/* whoever has locked the row is not waited for */
	appendStringInfoString(&sql, " FOR NO KEY UPDATE NOWAIT");
	if (!row_key_args(row_key, wb->target_key, args, types))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the table's primary key is not the one of the request")));
	execute(sql.data, row_key->ncolumns, types, args, NULL, SPI_OK_SELECT);
	*reason = why_unwanted(wb);
	if (*reason)
		return find_keyless(wb, row_key) ? WRITE_BACK_DONE : WRITE_BACK_REVOKE;

	resetStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s SET ", row_key_table(row_key));
	for (int f = 0; f < F_NFIELDS; f++)
	{
		int			k = trigger_fields[f].key_column;

		if (trigger_fields[f].use != FIELD_OUT || wb->columns[f] == NULL)
			continue;
		args[n] = wb->key[k];
		nulls[n] = wb->key_null[k] ? 'n' : ' ';
		types[n] = key_columns[k].type;
		appendStringInfo(&sql, "%s%s = $%d", n == 0 ? "" : ", ", quote_identifier(wb->columns[f]),
						 n + 1);
		n++;
	}
	if (n == 0)
		return WRITE_BACK_DONE;
	row_key_where(row_key, &sql, n + 1);
	(void) row_key_args(row_key, wb->target_key, args + n, types + n);
	execute(sql.data, n + row_key->ncolumns, types, args, nulls, SPI_OK_UPDATE);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("the row was not updated: a trigger prevented it")));
	return WRITE_BACK_DONE;
}

/*
 * Write the key of an issued request to its row.  Called in a transaction with
 * SPI connected; the caller changes the request.  Raises what the table's
 * constraints and triggers raise, 55P03 when the row or the table is locked,
 * and 57014 when it takes too long.
 *
 * The caller calls write_back_clean_up() after the end of the transaction, in
 * whatever way it ended.
 */
WriteBackOutcome
write_back(Outbox *outbox, int64 id, const char **reason)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"}, {"row_security", "off"}, {"lock_timeout",
		LOCK_TIMEOUT},
	};
	WriteBack	wb = {0};
	WriteBackOutcome outcome;
	ConstraintsSetStmt immediate = {.type = T_ConstraintsSetStmt};
	Relation	rel;
	RowKey	   *row_key;
	Oid			owner;
	AsOwner		as;
	int			level;

	if (!read_request(outbox, id, &wb, &outcome))
		return outcome;
	STOP_POINT("worker-write-back");
	/* whoever has locked the table is not waited for */
	if (!ConditionalLockRelationOid(wb.table, RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the table is locked")));
	/* from now on nobody can drop it */
	owner = as_owner_of(wb.table);
	if (!OidIsValid(owner))
	{
		*reason = "the table that the instant key was for is gone";
		return WRITE_BACK_REVOKE;
	}
	level = NewGUCNestLevel();
	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	as = as_owner_begin(owner, AS_OWNER_OF_USERS_TABLE);
	enable_timeout_after(STATEMENT_TIMEOUT, TIME_LIMIT_MS);
	enable_timeout_after(kill_timeout, KILL_LIMIT_MS);
	rel = table_open(wb.table, NoLock);
	find_columns(outbox, rel, &wb);
	row_key = row_key_of(rel);
	table_close(rel, NoLock);
	if (row_key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the table has no primary key any more")));
	AfterTriggerSetState(&immediate);
	outcome = write_row(&wb, row_key, reason);

	/* what a trigger may have deferred in spite of that */
	AfterTriggerFireDeferred();
	disable_timeout(STATEMENT_TIMEOUT, false);
	disable_timeout(kill_timeout, false);
	as_owner_end(as);
	/* also what a trigger has set for the session */
	AtEOXact_GUC(false, level);
	if (outcome == WRITE_BACK_DONE)
		*reason = NULL;
	else
		check_keyless(outbox, &wb, *reason);
	return outcome;
}

/*
 * Undo what outlives the transaction of a write_back().
 */
void
write_back_clean_up(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	disable_timeout(kill_timeout, false);
	LockReleaseAll(USER_LOCKMETHOD, true);
}
