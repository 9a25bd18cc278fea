/*-------------------------------------------------------------------------
 *
 * write_back.c
 *	  Writes issued keys to rows of a user's table.
 *
 * The user's table may have triggers, generated columns, constraints and row
 * security whose code is anybody's, so it is written as the table's owner, in a
 * security-restricted operation.  All of that code has run before the writer is
 * itself again: also what was deferred to the end of the transaction.
 *
 * Rows of a table are written together, each by two statements whose plans are kept.  What
 * is unusual about a row (that it is not there, has a key, or is locked) is left to when it
 * is written alone: then an error is the error of this row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/resource.h>

#include "access/table.h"
#include "base/as_owner.h"
#include "base/clock.h"
#include "base/stop_point.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "outbox/own_write.h"
#include "outbox/writing.h"
#include "shmem/places.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timeout.h"
#include "utils/typcache.h"
#include "worker/row_target.h"
#include "worker/write_back.h"

/* How long a lock is waited for, and how long the code of a row may take. */
#define LOCK_TIMEOUT "20ms"
#define TIME_LIMIT_MS 2000

#define MAX_ARGS (F_NFIELDS + INDEX_MAX_KEYS)

/* Tables whose plans are kept. */
#define PLANS_MAX 100

/* A statement on a user's table, and its plan. */
typedef struct RowStatement
{
	char	   *text;			/* what it was planned for, with the types of
								 * the arguments; NULL: nothing */
	SPIPlanPtr	plan;
} RowStatement;

/* The statements for a table, in TopMemoryContext. */
typedef struct RowPlans
{
	Oid			table;
	RowStatement lock;			/* reads a row, and locks it unless it is
								 * locked */
	RowStatement read;			/* the same without the lock */
	RowStatement update;
	RowStatement look;			/* reads also whether the row is wanted */
	RowStatement clear;
} RowPlans;

/* A batch under way. */
typedef struct Writing
{
	Outbox	   *outbox;
	RowBatch   *batch;
	RowTarget  *targets;		/* by the batch's order */
	char	   *columns[F_NFIELDS]; /* by field, or NULL */
	RowKey	   *row_key;
	RowPlans   *plans;
	bool		alone;			/* the batch is one row */
} Writing;

static struct rusage began_with;	/* what this process had used when the
									 * batch began */
static List *all_plans = NIL;	/* of RowPlans *, in TopMemoryContext */
static int64 since;				/* when the present row's code began to run,
								 * on clock_now()'s clock; 0: none does */

/*
 * Returns when users' code began to run that has not ended, or 0: clock_now()'s clock.
 */
int64
write_back_since(void)
{
	return since;
}

/*
 * The code of a row begins, or that of the batch has ended.  It is cancelled after a
 * while, by this process; and the launcher watches what does not let itself be cancelled.
 */
static void
users_code(bool begins)
{
	since = begins ? clock_now() : 0;
	places_in_users_code(begins);
	if (begins)
		enable_timeout_after(STATEMENT_TIMEOUT, TIME_LIMIT_MS);
	else
		disable_timeout(STATEMENT_TIMEOUT, false);
}

/*
 * Read from a row of writing_lock()'s result what is to be done, and of which stay.
 */
static void
read_task(HeapTuple row, TupleDesc desc, RowTarget *target)
{
	bool		isnull;
	char	   *task = SPI_getvalue(row, desc, WRITING_TASK);
	Datum		value;

	target->looks = strcmp(task, "look") == 0;
	target->clears = strcmp(task, "clear") == 0;
	target->keys = SPI_getbinval(row, desc, WRITING_KEYS, &isnull);
	target->has_keys = !isnull;
	value = SPI_getbinval(row, desc, WRITING_REPLACES_KEY, &isnull);
	target->has_replaces = !isnull;
	if (!isnull)
		target->replaces = *DatumGetUUIDP(value);
	value = SPI_getbinval(row, desc, WRITING_TARGET_HASH, &isnull);
	target->hash = isnull ? 0 : DatumGetInt64(value);
	value = SPI_getbinval(row, desc, WRITING_STAY_ID, &isnull);
	target->stay_id = isnull ? 0 : DatumGetInt64(value);
	value = SPI_getbinval(row, desc, WRITING_HAS_NEWER_STAY, &isnull);
	target->has_newer_stay = !isnull && DatumGetBool(value);
	value = SPI_getbinval(row, desc, WRITING_SEAM_WORKSPACE, &isnull);
	target->has_workspace = !isnull;
	if (!isnull)
		target->workspace = *DatumGetUUIDP(value);
}

/*
 * How long the last row has taken, in microseconds, that took so long by the clock.  A row
 * of a batch that has not waited for anything is not slow when others had the processor
 * meanwhile.
 */
static int64
really_took(int64 took)
{
	struct rusage now;
	int64		used;

	if (took <= TABLE_PACE_SLOW_US || getrusage(RUSAGE_SELF, &now) != 0 ||
		now.ru_nvcsw != began_with.ru_nvcsw)
		return took;
	used = (now.ru_utime.tv_sec + now.ru_stime.tv_sec -
			began_with.ru_utime.tv_sec - began_with.ru_stime.tv_sec) * USECS_PER_SEC +
		now.ru_utime.tv_usec + now.ru_stime.tv_usec -
		began_with.ru_utime.tv_usec - began_with.ru_stime.tv_usec;
	return Min(took, used);
}

/*
 * Read and lock the requests of the batch.  Those that are not to be written any more are
 * skipped.
 */
static void
read_requests(Writing *w)
{
	RowBatch   *batch = w->batch;
	SPITupleTable *found = writing_lock(batch->table, batch->ids, batch->n);
	int			nfound = (int) SPI_processed;
	TupleDesc	key_desc = NULL;

	w->targets = palloc0(batch->n * sizeof(RowTarget));
	for (int i = 0; i < batch->n; i++)
		batch->outcomes[i] = ROW_SKIPPED;
	for (int f = 0; f < nfound; f++)
	{
		HeapTuple	row = found->vals[f];
		TupleDesc	desc = found->tupdesc;
		RowTarget  *target;
		HeapTupleHeader key;
		HeapTupleData key_tuple;
		Datum		value;
		bool		isnull;
		int64		id = DatumGetInt64(SPI_getbinval(row, desc, WRITING_REQUEST_ID, &isnull));
		int			i = 0;

		while (i < batch->n && batch->ids[i] != id)
			i++;
		if (i == batch->n)
			continue;
		target = &w->targets[i];
		read_task(row, desc, target);
		batch->outcomes[i] = ROW_LATER;
		batch->looks[i] = target->looks;
		batch->clears[i] = target->clears;
		batch->hashes[i] = target->hash;
		batch->stays[i] = target->stay_id;
		target->id = id;
		target->key = SPI_getbinval(row, desc, WRITING_TARGET_KEY, &isnull);
		target->fields = SPI_getbinval(row, desc, WRITING_TARGET_FIELDS, &isnull);
		target->identity = *DatumGetUUIDP(SPI_getbinval(row, desc, WRITING_USER_IDENTITY_ID,
														&isnull));
		target->names = SPI_getbinval(row, desc, WRITING_TARGET_COLUMNS, &isnull);
		target->has_names = !isnull;
		target->numbers = SPI_getbinval(row, desc, WRITING_TARGET_NUMBERS, &isnull);
		target->has_numbers = !isnull;
		target->partition = DatumGetObjectId(SPI_getbinval(row, desc, WRITING_TARGET_PARTITION,
														   &isnull));
		if (isnull)
			target->partition = InvalidOid;
		memset(target->nulls, true, sizeof(target->nulls));
		value = SPI_getbinval(row, desc, WRITING_INSTANT_KEY, &isnull);
		if (isnull)
			continue;
		key = DatumGetHeapTupleHeader(value);
		if (key_desc == NULL)
		{
			key_desc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(key),
												   HeapTupleHeaderGetTypMod(key));
			key_check_type(key_desc);
		}
		key_tuple.t_len = HeapTupleHeaderGetDatumLength(key);
		ItemPointerSetInvalid(&key_tuple.t_self);
		key_tuple.t_tableOid = InvalidOid;
		key_tuple.t_data = key;
		heap_deform_tuple(&key_tuple, key_desc, target->values, target->nulls);
	}
}

/*
 * The place of a table's plans, made where there is none.
 */
static RowPlans *
plans_of(Oid table)
{
	MemoryContext old;
	RowPlans   *plans;
	ListCell   *lc;

	foreach(lc, all_plans)
	{
		plans = lfirst(lc);
		if (plans->table == table)
			return plans;
	}
	if (list_length(all_plans) >= PLANS_MAX)
	{
		RowStatement *statements;

		plans = linitial(all_plans);
		statements = &plans->lock;
		for (int i = 0; i < 5; i++)
		{
			if (statements[i].text)
				pfree(statements[i].text);
			if (statements[i].plan)
				SPI_freeplan(statements[i].plan);
		}
		pfree(plans);
		all_plans = list_delete_first(all_plans);
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	plans = palloc0(sizeof(RowPlans));
	plans->table = table;
	all_plans = lappend(all_plans, plans);
	MemoryContextSwitchTo(old);
	return plans;
}

/*
 * Execute a statement on the target, whose plan is made where it is not there for this
 * text and these types.  Raises an error when the result is not as expected.
 */
static void
execute(RowStatement *statement, const StringInfo sql, int nargs, Oid *types, Datum *args,
		const char *nulls, int expected)
{
	int			length = sql->len;
	int			rc;

	for (int i = 0; i < nargs; i++)
		appendStringInfo(sql, "%s%u", i == 0 ? " -- " : " ", types[i]);
	if (statement->text == NULL || strcmp(statement->text, sql->data) != 0)
	{
		SPIPlanPtr	plan;
		char	   *old = statement->text;

		statement->text = NULL;
		if (old)
			pfree(old);
		if (statement->plan)
			SPI_freeplan(statement->plan);
		statement->plan = NULL;
		plan = SPI_prepare(sql->data, nargs, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		statement->plan = plan;
		statement->text = MemoryContextStrdup(TopMemoryContext, sql->data);
	}
	sql->len = length;
	sql->data[length] = '\0';
	rc = SPI_execute_plan(statement->plan, args, nulls, false, 0);
	if (rc != expected)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
}

/*
 * The row was not found when it was to be locked: does a session hold it?  Leaves what the
 * row has in SPI_tuptable, if it is there.
 */
static bool
is_locked(Writing *w, const StringInfo sql, int nargs, Oid *types, Datum *args)
{
	execute(&w->plans->read, sql, nargs, types, args, NULL, SPI_OK_SELECT);
	return SPI_processed > 0;
}

/*
 * The arguments that find the row of a request, and their types.  Raises 55000 where the
 * table cannot be asked for the row that is meant.
 */
static void
row_args(Writing *w, const RowTarget *target, Datum *args, Oid *types)
{
	row_target_check(target, w->row_key);
	if (!row_key_args(w->row_key, target->key, args, types))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the table's primary key is not the one of the request")));
}

/*
 * Does the row that was read show a key?
 */
static bool
shown_key(pg_uuid_t *key)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);

	if (!isnull)
		*key = *DatumGetUUIDP(value);
	return !isnull;
}

/*
 * Appends the beginning of a SELECT of what row_target_why_unwanted() compares: the row's
 * identity, its key's id, and its workspace.
 */
static void
append_identity(const Writing *w, StringInfo sql)
{
	const char *key = w->columns[F_INSTANT_KEY_ID];
	const char *workspace = w->columns[F_SEAM_WORKSPACE];

	appendStringInfo(sql, "SELECT %s::pg_catalog.uuid, %s::pg_catalog.text::pg_catalog.uuid, "
					 "%s::pg_catalog.uuid", quote_identifier(w->columns[F_USER_IDENTITY_ID]),
					 key ? quote_identifier(key) : "NULL",
					 workspace ? quote_identifier(workspace) : "NULL");
}

/*
 * Look whether the row of a request wants its key.  A session that changes it meanwhile has
 * the request changed, too, so nothing is locked.
 */
static RowOutcome
look_at_row(Writing *w, RowTarget *target, const char **reason)
{
	const char *wanted = w->columns[F_WANTED];
	StringInfoData sql;
	Datum		args[MAX_ARGS];
	Oid			types[MAX_ARGS];

	row_args(w, target, args, types);
	initStringInfo(&sql);
	append_identity(w, &sql);
	appendStringInfoString(&sql, ", ");
	if (wanted)
		appendStringInfo(&sql, "coalesce(%s::pg_catalog.bool, false)", quote_identifier(wanted));
	else
		appendStringInfoString(&sql, "true");
	appendStringInfo(&sql, " FROM %s", row_key_table(w->row_key));
	row_key_where(w->row_key, &sql, 1);
	execute(&w->plans->look, &sql, w->row_key->ncolumns, types, args, NULL, SPI_OK_SELECT);
	*reason = row_target_why_unwanted(target, w->batch->table);
	if (*reason == NULL)
		return ROW_LOOKED_AT;
	return w->alone ? ROW_UNWANTED : ROW_ALONE;
}

/*
 * Set the filled columns of a row to NULL, if it shows a key that it is not to show.
 */
static RowOutcome
clear_row(Writing *w, RowTarget *target, const char **reason)
{
	StringInfoData sql;
	Datum		args[MAX_ARGS];
	Oid			types[MAX_ARGS];
	RowKey	   *row_key = w->row_key;
	pg_uuid_t	shown;
	int			length;
	int			n = 0;

	if (w->columns[F_INSTANT_KEY_ID] == NULL)
		return ROW_CLEARED;
	row_args(w, target, args, types);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT NULL::pg_catalog.uuid, %s::pg_catalog.text::pg_catalog.uuid "
					 "FROM %s", quote_identifier(w->columns[F_INSTANT_KEY_ID]),
					 row_key_table(row_key));
	row_key_where(row_key, &sql, 1);
	length = sql.len;
	appendStringInfoString(&sql, " FOR NO KEY UPDATE SKIP LOCKED");
	execute(&w->plans->lock, &sql, row_key->ncolumns, types, args, NULL, SPI_OK_SELECT);
	if (SPI_processed == 0)
	{
		sql.len = length;
		sql.data[length] = '\0';
		*reason = "the row is locked";
		return is_locked(w, &sql, row_key->ncolumns, types, args) ? ROW_LOCKED : ROW_CLEARED;
	}
	if (!shown_key(&shown) || !row_target_may_show(target, &shown))
		return ROW_CLEARED;
	resetStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s SET ", row_key_table(row_key));
	for (int f = 0; f < F_NFIELDS; f++)
	{
		if (trigger_fields[f].use == FIELD_OUT && w->columns[f])
			appendStringInfo(&sql, "%s%s = NULL", n++ == 0 ? "" : ", ",
							 quote_identifier(w->columns[f]));
	}
	row_key_where(row_key, &sql, 1);
	own_write_begin(&shown, NULL);
	execute(&w->plans->clear, &sql, row_key->ncolumns, types, args, NULL, SPI_OK_UPDATE);
	own_write_end();
	return ROW_CLEARED;
}

/*
 * Write the key of a request to its row, as the table's owner.  Raises 55000 where the table
 * cannot be asked for the row that is meant, and what the table's code raises.
 */
static RowOutcome
write_row(Writing *w, RowTarget *target, const char **reason)
{
	StringInfoData sql;
	Datum		args[MAX_ARGS];
	Oid			types[MAX_ARGS];
	Datum		values[MAX_ARGS];
	char		nulls[MAX_ARGS];
	RowKey	   *row_key = w->row_key;
	pg_uuid_t	shown;
	bool		is_shown = false;
	int			length;
	int			n = 0;

	row_args(w, target, args, types);
	initStringInfo(&sql);
	append_identity(w, &sql);
	appendStringInfo(&sql, " FROM %s", row_key_table(row_key));
	row_key_where(row_key, &sql, 1);
	length = sql.len;
	/* whoever has locked the row is not waited for */
	appendStringInfoString(&sql, " FOR NO KEY UPDATE SKIP LOCKED");
	execute(&w->plans->lock, &sql, row_key->ncolumns, types, args, NULL, SPI_OK_SELECT);
	if (SPI_processed == 0)
	{
		if (!w->alone)
			return ROW_ALONE;
		sql.len = length;
		sql.data[length] = '\0';
		*reason = "the row is locked";
		if (is_locked(w, &sql, row_key->ncolumns, types, args))
			return ROW_LOCKED;
	}
	*reason = row_target_why_unwanted(target, w->batch->table);
	if (*reason && !w->alone)
		return ROW_ALONE;
	if (*reason == NULL)
		is_shown = shown_key(&shown);
	if (*reason)
		return row_target_find_keyless(target, w->columns, row_key) ? ROW_WRITTEN : ROW_UNWANTED;

	resetStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s SET ", row_key_table(row_key));
	memset(nulls, ' ', sizeof(nulls));
	for (int f = 0; f < F_NFIELDS; f++)
	{
		int			k = trigger_fields[f].key_column;

		if (trigger_fields[f].use != FIELD_OUT || w->columns[f] == NULL)
			continue;
		values[row_key->ncolumns + n] = target->values[k];
		nulls[row_key->ncolumns + n] = target->nulls[k] ? 'n' : ' ';
		types[row_key->ncolumns + n] = key_columns[k].type;
		appendStringInfo(&sql, "%s%s = $%d", n == 0 ? "" : ", ", quote_identifier(w->columns[f]),
						 row_key->ncolumns + n + 1);
		n++;
	}
	if (n == 0)
		return ROW_WRITTEN;
	memcpy(values, args, row_key->ncolumns * sizeof(Datum));
	row_key_where(row_key, &sql, 1);
	own_write_begin(is_shown ? &shown : NULL, DatumGetUUIDP(target->values[KEY_INSTANT_KEY_ID]));
	execute(&w->plans->update, &sql, row_key->ncolumns + n, types, values, nulls, SPI_OK_UPDATE);
	own_write_end();
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("the row was not updated: a trigger prevented it")));
	return ROW_WRITTEN;
}

/*
 * Was the request enqueued by a trigger with the same arguments?
 */
static bool
has_fields(const RowTarget *target, Datum fields)
{
	Size		size = VARSIZE_ANY(DatumGetPointer(fields));

	return VARSIZE_ANY(DatumGetPointer(target->fields)) == size &&
		memcmp(DatumGetPointer(target->fields), DatumGetPointer(fields), size) == 0;
}

/*
 * Write the rows of the batch whose requests are locked, as the table's owner, until that
 * has taken long enough.
 */
static void
write_rows(Writing *w)
{
	RowBatch   *batch = w->batch;
	ConstraintsSetStmt immediate = {.type = T_ConstraintsSetStmt};
	Datum		fields = (Datum) 0;
	int64		began = clock_now();
	int64		took = 0;
	int			n = 0;

	for (int i = 0; i < batch->n && (n == 0 || table_pace_goes_on(n, took, clock_now() - began));
		 i++)
	{
		RowTarget  *target = &w->targets[i];

		if (batch->outcomes[i] == ROW_SKIPPED)
			continue;
		if (n++ == 0)
		{
			Relation	rel;

			(void) getrusage(RUSAGE_SELF, &began_with);
			users_code(true);
			AfterTriggerSetState(&immediate);
			fields = target->fields;
			rel = table_open(batch->table, NoLock);
			row_target_columns(w->outbox, rel, fields, w->columns);
			w->row_key = row_key_of(rel);
			table_close(rel, NoLock);
			if (w->row_key == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("the table has no primary key any more")));
		}
		else if (has_fields(target, fields))
			users_code(true);
		else
		{
			batch->outcomes[i] = ROW_ALONE;
			continue;
		}
		if (target->looks)
			batch->outcomes[i] = look_at_row(w, target, &batch->reason);
		else if (target->clears)
			batch->outcomes[i] = clear_row(w, target, &batch->reason);
		else
			batch->outcomes[i] = write_row(w, target, &batch->reason);
		took = really_took(clock_now() - since);
		batch->took[i] = took;
	}
	/* what a trigger may have deferred in spite of that */
	AfterTriggerFireDeferred();
	users_code(false);
}

/*
 * Write the keys of issued requests to their rows in one table.  Called in a transaction
 * with SPI connected; the caller notes in the requests what has come of it.  Raises what the
 * table's constraints and triggers raise, and 57014 when they take too long.
 *
 * The caller calls write_back_clean_up() after the end of the transaction, in
 * whatever way it ended.
 */
void
write_back(Outbox *outbox, RowBatch *batch)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"}, {"row_security", "off"}, {"lock_timeout",
		LOCK_TIMEOUT},
	};
	Writing		w = {.outbox = outbox,.batch = batch,.alone = batch->n == 1};
	RowOutcome	all = ROW_LATER;
	Oid			owner;
	AsOwner		as;
	int			level;

	batch->reason = NULL;
	read_requests(&w);
	STOP_POINT("writer-rows");
	/* whoever has locked the table is not waited for; nobody can drop it then */
	if (!ConditionalLockRelationOid(batch->table, RowExclusiveLock))
	{
		batch->reason = "the table is locked";
		all = ROW_LOCKED;
	}
	owner = as_owner_of(batch->table);
	if (all == ROW_LATER && !OidIsValid(owner))
	{
		batch->reason = "the table that the instant key was for is gone";
		all = ROW_UNWANTED;
	}
	if (all != ROW_LATER)
	{
		for (int i = 0; i < batch->n; i++)
		{
			if (batch->outcomes[i] == ROW_LATER)
				batch->outcomes[i] = all;
		}
		return;
	}
	w.plans = plans_of(batch->table);
	level = NewGUCNestLevel();
	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	as = as_owner_begin(owner, AS_OWNER_OF_USERS_TABLE);
	write_rows(&w);
	as_owner_end(as);
	/* also what a trigger has set for the session */
	AtEOXact_GUC(false, level);
	STOP_POINT("writer-rows-written");
	if (w.alone && batch->outcomes[0] == ROW_UNWANTED && !batch->looks[0])
		row_target_check_keyless(outbox, batch->table, &w.targets[0], batch->reason);
}

/*
 * Undo what outlives the transaction of a write_back().
 */
void
write_back_clean_up(void)
{
	if (since != 0)
		users_code(false);
	own_write_end();
	LockReleaseAll(USER_LOCKMETHOD, true);
}
