/*-------------------------------------------------------------------------
 *
 * row_target.c
 *	  The row of a user's table that an issued key is for, and whether it
 *	  wants the key.
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

#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "worker/row_target.h"

/* Rows of a guest without a key that are looked at. */
#define MAX_KEYLESS 100

/*
 * The function whose triggers enqueue rows.
 */
static Oid
get_trigger_function(Outbox *outbox)
{
	oidvector  *no_args = buildoidvector(NULL, 0);

	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum("seam_keep_instant_key_trigger"),
						   PointerGetDatum(no_args), ObjectIdGetDatum(outbox->schema));
}

/*
 * How alike are the trigger's arguments and these?  3: they are the same; 2: they name the
 * same column for the key's id; 1: they do not.
 */
static int
likeness(const Trigger *trigger, Datum *fields, int nfields)
{
	static const char key[] = "instant_key_id=";
	bool		same = trigger->tgnargs == nfields;
	bool		same_key = false;

	for (int i = 0; i < nfields; i++)
	{
		const char *field = TextDatumGetCString(fields[i]);

		same = same && strcmp(trigger->tgargs[i], field) == 0;
		for (int a = 0; a < trigger->tgnargs && strncmp(field, key, sizeof(key) - 1) == 0; a++)
			same_key = same_key || strcmp(trigger->tgargs[a], field) == 0;
	}
	return same ? 3 : same_key ? 2 : 1;
}

/*
 * Take the columns from the arguments of the table's trigger, if it has one: the
 * one whose arguments are the most like those that the request says, or the first.  Returns
 * false where it has none, and where that one is disabled.
 */
static bool
read_columns(Relation rel, Oid function, Datum arguments, char **columns)
{
	const Trigger *found = NULL;
	int			best = 0;
	Datum	   *fields;
	int			nfields;

	deconstruct_array(DatumGetArrayTypeP(arguments), TEXTOID, -1, false, TYPALIGN_INT,
					  &fields, NULL, &nfields);
	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];
		int			alike;

		if (trigger->tgfoid != function)
			continue;
		alike = 2 * likeness(trigger, fields, nfields) +
			(trigger->tgenabled != TRIGGER_DISABLED);
		if (alike <= best)
			continue;
		best = alike;
		found = trigger;
	}
	if (found && found->tgenabled == TRIGGER_DISABLED)
		return false;
	for (int i = 0; found && i < found->tgnargs; i++)
	{
		char	   *column;
		char	   *name = trigger_split_argument(found->tgargs[i], &column);

		if (column == NULL)
			continue;
		for (int f = 0; f < F_NFIELDS; f++)
		{
			if (strcmp(trigger_fields[f].name, name) == 0)
				columns[f] = column;
		}
	}
	return columns[F_USER_IDENTITY_ID] != NULL;
}

/*
 * Take the columns from the trigger that the table, or one of its partitions,
 * has now, for a request that was enqueued with these arguments.  Who can write to the
 * outbox cannot have a table written that has none: then 42704 is raised.
 */
void
row_target_columns(Outbox *outbox, Relation rel, Datum arguments, char **columns)
{
	Oid			function = get_trigger_function(outbox);
	bool		found = read_columns(rel, function, arguments, columns);

	if (!found && rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		List	   *partitions = find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL);
		ListCell   *lc;

		foreach(lc, partitions)
		{
			Relation	partition = table_open(lfirst_oid(lc), NoLock);

			found = found || read_columns(partition, function, arguments, columns);
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
void
row_target_check(const RowTarget *target, const RowKey *row_key)
{
	if (!row_key_is(row_key, target->has_names ? &target->names : NULL,
					target->has_numbers ? &target->numbers : NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the table's primary key is not the one of the request, which was (%s)",
						target->has_names ? row_key_columns(target->names) : "?")));
}

/*
 * The row was not found.  Raise 55000 where the partition that it was in is there, and
 * is not of the table any more.
 */
static void
check_partition(const RowTarget *target, Oid table)
{
	Oid			partition = target->partition;

	if (OidIsValid(partition) && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(partition)) &&
		!(get_rel_relispartition(partition) &&
		  list_member_oid(get_partition_ancestors(partition), table)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the partition \"%s\" of the row has been detached from the table",
						get_rel_name(target->partition))));
}

/*
 * May the row show this key, and get the target's in its place?
 */
bool
row_target_may_show(const RowTarget *target, const pg_uuid_t *key)
{
	Datum	   *keys;
	int			n = 0;

	if (!target->looks && !target->nulls[KEY_INSTANT_KEY_ID] &&
		memcmp(key, DatumGetUUIDP(target->values[KEY_INSTANT_KEY_ID]), UUID_LEN) == 0)
		return true;
	if (target->has_replaces && !target->clears &&
		memcmp(key, &target->replaces, UUID_LEN) == 0)
		return true;
	if (target->has_keys)
		deconstruct_array(DatumGetArrayTypeP(target->keys), UUIDOID, UUID_LEN, false,
						  TYPALIGN_CHAR, &keys, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		if (memcmp(key, DatumGetUUIDP(keys[i]), UUID_LEN) == 0)
			return true;
	}
	return false;
}

/*
 * Why the row that was asked for does not want the key, or NULL: the statement's result has
 * its identity, its key's id, its workspace, and, where it is only looked at, whether it is
 * wanted.
 */
const char *
row_target_why_unwanted(const RowTarget *target, Oid table)
{
	Datum		found;
	bool		isnull;

	if (SPI_processed == 0)
	{
		check_partition(target, table);
		return "the row that the instant key was for is gone";
	}
	found = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull || memcmp(DatumGetUUIDP(found), &target->identity, UUID_LEN) != 0)
		return "the row that the instant key was for is of another user identity now";
	found = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &isnull);
	if (target->has_workspace &&
		(isnull || memcmp(DatumGetUUIDP(found), &target->workspace, UUID_LEN) != 0))
		return "the row that the instant key was for is of another workspace now";
	if (target->has_newer_stay)
		return "the row that the instant key was for has been inserted anew";
	if (target->looks &&
		!DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 4, &isnull)))
		return "the row that the instant key was for does not want one now";
	found = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	if (!isnull && !row_target_may_show(target, DatumGetUUIDP(found)))
		return "the row that the instant key was for has another instant key now";
	return NULL;
}

/*
 * The row is not where it was, or another one is there.  Find rows that may be it, under
 * another primary key: those of its guest in which none of the key's columns is filled.
 * Their primary keys, as row_key_value() makes them, are put into *target.  Returns true when a
 * row has the very key, so that nothing is to be written.
 */
bool
row_target_find_keyless(RowTarget *target, char *const *columns, RowKey *row_key)
{
	const char *key_column = columns[F_INSTANT_KEY_ID];
	const char *has_it = key_column == NULL ? "false" :
	psprintf("coalesce(pg_catalog.lower(%s::pg_catalog.text) OPERATOR(pg_catalog.=) "
			 "$2::pg_catalog.text, false)",
			 quote_identifier(key_column));
	Datum		args[] = {UUIDPGetDatum(&target->identity), target->values[KEY_INSTANT_KEY_ID]};
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
					 row_key_table(row_key), quote_identifier(columns[F_USER_IDENTITY_ID]),
					 has_it);
	for (int f = 0; f < F_NFIELDS; f++)
	{
		if (trigger_fields[f].use == FIELD_OUT && columns[f])
			appendStringInfo(&sql, " AND %s IS NULL", quote_identifier(columns[f]));
	}
	appendStringInfo(&sql, ")) LIMIT %d", MAX_KEYLESS);
	execute(sql.data, 2, types, args, NULL, SPI_OK_SELECT);
	target->nkeyless = (int) SPI_processed;
	target->keyless = palloc(Max(target->nkeyless, 1) * sizeof(Datum));
	target->keyless_hash = palloc(Max(target->nkeyless, 1) * sizeof(int64));
	for (int i = 0; i < target->nkeyless; i++)
	{
		bool		isnull;

		if (DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)))
			return true;
		target->keyless[i] = row_key_value(&found, SPI_tuptable->tupdesc, SPI_tuptable->vals[i],
										   &target->keyless_hash[i]);
	}
	return false;
}

/*
 * Raise 55000 where one of the rows that row_target_find_keyless() found has no request of its own,
 * so that it may be the row of this one.  Runs as the outbox's owner, which may read it.
 */
void
row_target_check_keyless(Outbox *outbox, Oid table, const RowTarget *target, const char *reason)
{
	Oid			types[] = {INT8OID, REGCLASSOID, JSONBOID, UUIDOID};

	for (int i = 0; i < target->nkeyless; i++)
	{
		Datum		args[] = {Int64GetDatum(target->keyless_hash[i]), ObjectIdGetDatum(table),
		target->keyless[i], UUIDPGetDatum(&target->identity)};

		execute(psprintf("SELECT 1 FROM %s WHERE target_hash = $1 AND target_table = $2 AND "
						 "target_key = $3 AND user_identity_id = $4 LIMIT 1", outbox->name),
				4, types, args, NULL, SPI_OK_SELECT);
		if (SPI_processed == 0 || target->nkeyless == MAX_KEYLESS)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("%s, but there is a row of its user identity without an instant key, "
							"whose primary key may have changed", reason)));
	}
}
