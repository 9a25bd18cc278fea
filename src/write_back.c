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
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "row_key.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "trigger_plan.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/typcache.h"
#include "write_back.h"

/*
 * How long a lock is waited for, and how long everything may take: other
 * requests wait meanwhile.
 */
#define LOCK_TIMEOUT "20ms"
#define TIME_LIMIT_MS 2000

/* When code that catches the cancel is ended with the whole process. */
#define KILL_LIMIT_MS 4000

#define MAX_ARGS (F_NFIELDS + INDEX_MAX_KEYS)

/* What a request says of its target. */
typedef struct WriteBack
{
	Oid			table;
	Datum		target_key;		/* jsonb */
	Datum		fields;			/* the trigger's arguments then: text[] */
	char	   *columns[F_NFIELDS]; /* by field, or NULL */
	pg_uuid_t	identity;
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

	if (SPI_execute_with_args(psprintf("SELECT target_table, target_key, target_fields, user_identity_id, instant_key"
									   " FROM %s WHERE request_id = $1 AND status = 'issued' AND next_attempt_at IS NOT NULL"
									   " AND target_table IS NOT NULL FOR UPDATE SKIP LOCKED", outbox->name),
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
	key_desc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(key), HeapTupleHeaderGetTypMod(key));
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
		char	   *name = pstrdup(found->tgargs[i]);
		char	   *column = strchr(name, '=');

		if (column == NULL)
			continue;
		*column++ = '\0';
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
 * Write the key to its row, as the table's owner.  Returns WRITE_BACK_DONE or
 * WRITE_BACK_REVOKE, with the reason.
 */
static WriteBackOutcome
write_row(WriteBack *wb, RowKey *row_key, const char **reason)
{
	StringInfoData sql;
	Datum		args[MAX_ARGS];
	Oid			types[MAX_ARGS];
	char		nulls[MAX_ARGS];
	const char *key_column = wb->columns[F_INSTANT_KEY_ID];
	bool		isnull;
	Datum		found;
	int			n = 0;

	memset(nulls, ' ', sizeof(nulls));
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s::pg_catalog.uuid, %s::pg_catalog.text::pg_catalog.uuid FROM %s",
					 quote_identifier(wb->columns[F_USER_IDENTITY_ID]),
					 key_column ? quote_identifier(key_column) : "NULL", row_key_table(row_key));
	row_key_where(row_key, &sql, 1);
	/* whoever has locked the row is not waited for */
	appendStringInfoString(&sql, " FOR NO KEY UPDATE NOWAIT");
	if (!row_key_args(row_key, wb->target_key, args, types))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("the table's primary key is not the one of the request")));
	execute(sql.data, row_key->ncolumns, types, args, NULL, SPI_OK_SELECT);
	if (SPI_processed == 0)
	{
		*reason = "the row that the instant key was for is gone";
		return WRITE_BACK_REVOKE;
	}
	found = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull || memcmp(DatumGetUUIDP(found), &wb->identity, UUID_LEN) != 0)
	{
		*reason = "the row that the instant key was for is of another user identity now";
		return WRITE_BACK_REVOKE;
	}
	found = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	if (!isnull && memcmp(DatumGetUUIDP(found), DatumGetUUIDP(wb->key[KEY_INSTANT_KEY_ID]), UUID_LEN) != 0)
	{
		*reason = "the row that the instant key was for has another instant key now";
		return WRITE_BACK_REVOKE;
	}

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
		appendStringInfo(&sql, "%s%s = $%d", n == 0 ? "" : ", ", quote_identifier(wb->columns[f]), n + 1);
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
		{"search_path", "pg_catalog, pg_temp"}, {"row_security", "off"}, {"lock_timeout", LOCK_TIMEOUT},
	};
	WriteBack	wb = {0};
	WriteBackOutcome outcome;
	ConstraintsSetStmt immediate = {.type = T_ConstraintsSetStmt};
	HeapTuple	tuple;
	Relation	rel;
	RowKey	   *row_key;
	Oid			owner;
	Oid			user;
	int			context;
	int			level;

	if (!read_request(outbox, id, &wb, &outcome))
		return outcome;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(wb.table));
	if (!HeapTupleIsValid(tuple))
	{
		*reason = "the table that the instant key was for is gone";
		return WRITE_BACK_REVOKE;
	}
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	/* whoever has locked the table is not waited for */
	if (!ConditionalLockRelationOid(wb.table, RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the table is locked")));

	level = NewGUCNestLevel();
	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
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
	SetUserIdAndSecContext(user, context);
	/* also what a trigger has set for the session */
	AtEOXact_GUC(false, level);
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
