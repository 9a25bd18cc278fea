/*-------------------------------------------------------------------------
 *
 * insertion.c
 *	  A table of the extension, open for the insertion of rows.
 *
 * Rows are inserted without a statement: that costs a third of one, and no trigger or
 * rule that somebody has made on the table runs, neither in the worker nor with what the
 * caller of a function is granted by EXECUTE alone.  Constraints and indexes hold.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "outbox/insertion.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/*
 * Finds the columns by their names: a DBA may have added others, which are left NULL.
 * Each is looked for behind the one before it first.  Raises 42703 when one is missing
 * that we cannot do without, and 42804 when one is of another type.
 */
static void
find_columns(Insertion *insertion, const InsertionColumn *columns)
{
	TupleDesc	desc = RelationGetDescr(insertion->table);
	int			next = 0;

	for (int c = 0; c < insertion->ncolumns; c++)
	{
		Form_pg_attribute att = NULL;
		Oid			type = columns[c].type;

		for (int i = 0; i < desc->natts && att == NULL; i++)
		{
			att = TupleDescAttr(desc, (next + i) % desc->natts);
			if (att->attisdropped || strcmp(NameStr(att->attname), columns[c].name) != 0)
				att = NULL;
		}
		insertion->numbers[c] = att ? att->attnum : InvalidAttrNumber;
		if (att == NULL && columns[c].later)
			continue;
		if (att == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("table %s of extension seam_ik has no column \"%s\"",
							RelationGetRelationName(insertion->table), columns[c].name)));
		if (!OidIsValid(type))
			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
								   CStringGetDatum("seam_instant_key"),
								   ObjectIdGetDatum(RelationGetNamespace(insertion->table)));
		if (att->atttypid != type)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of table %s is not of the type that extension seam_ik "
							"made it of",
							columns[c].name, RelationGetRelationName(insertion->table))));
		next = att->attnum;
	}
}

/*
 * Opens a table, with a lock that is kept until the transaction ends, in
 * CurrentMemoryContext and in the name of CurrentResourceOwner; the rows to come are
 * values of these columns, in their order.  Raises what find_columns() raises; then the
 * table is closed again.
 */
void
insertion_open(Insertion *insertion, Oid table, const InsertionColumn *columns, int ncolumns)
{
	MemoryContext old_context = CurrentMemoryContext;

	memset(insertion, 0, sizeof(Insertion));
	insertion->table = table_open(table, RowExclusiveLock);
	PG_TRY();
	{
		insertion->ncolumns = ncolumns;
		insertion->numbers = palloc(ncolumns * sizeof(AttrNumber));
		find_columns(insertion, columns);
		insertion->estate = CreateExecutorState();
		MemoryContextSwitchTo(insertion->estate->es_query_cxt);
		insertion->result = makeNode(ResultRelInfo);
		/* 0: it is in no range table */
		InitResultRelInfo(insertion->result, insertion->table, 0, NULL, 0);
		insertion->result->ri_TrigDesc = NULL;
		ExecOpenIndices(insertion->result, false);
		insertion->slot = MakeSingleTupleTableSlot(RelationGetDescr(insertion->table),
												   &TTSOpsVirtual);
	}
	PG_CATCH();
	{
		table_close(insertion->table, NoLock);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old_context);
}

/*
 * Inserts a row.  Raises what a constraint, an index or the heap raises.
 */
void
insertion_row(Insertion *insertion, const Datum *values, const bool *nulls)
{
	TupleTableSlot *slot = insertion->slot;

	ExecStoreAllNullTuple(slot);
	for (int c = 0; c < insertion->ncolumns; c++)
	{
		AttrNumber	number = insertion->numbers[c];

		if (nulls[c] || number == InvalidAttrNumber)
			continue;
		slot->tts_values[number - 1] = values[c];
		slot->tts_isnull[number - 1] = false;
	}
	ExecSimpleRelationInsert(insertion->result, insertion->estate, slot);
	ExecClearTuple(slot);
	ResetPerTupleExprContext(insertion->estate);
}

/*
 * Changes a row that is locked, past the executor: those columns that replaces says.  Raises
 * what a constraint, an index or the heap raises.
 */
void
insertion_update(Insertion *insertion, TupleTableSlot *row, const Datum *values,
				 const bool *nulls, const bool *replaces)
{
	TupleTableSlot *slot = insertion->slot;
	int			natts = slot->tts_tupleDescriptor->natts;
	EPQState	none;

	slot_getallattrs(row);
	ExecClearTuple(slot);
	memcpy(slot->tts_values, row->tts_values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull, row->tts_isnull, natts * sizeof(bool));
	for (int c = 0; c < insertion->ncolumns; c++)
	{
		AttrNumber	number = insertion->numbers[c];

		if (!replaces[c] || number == InvalidAttrNumber)
			continue;
		slot->tts_values[number - 1] = values[c];
		slot->tts_isnull[number - 1] = nulls[c];
	}
	ExecStoreVirtualTuple(slot);
	/* only triggers would look at it */
	memset(&none, 0, sizeof(none));
	ExecSimpleRelationUpdate(insertion->result, insertion->estate, &none, row, slot);
	ExecClearTuple(slot);
	ResetPerTupleExprContext(insertion->estate);
}

/*
 * Closes the table, in the name of CurrentResourceOwner, which is that of
 * insertion_open(); the lock is kept.
 */
void
insertion_close(Insertion *insertion)
{
	ExecDropSingleTupleTableSlot(insertion->slot);
	ExecCloseIndices(insertion->result);
	table_close(insertion->table, NoLock);
	FreeExecutorState(insertion->estate);
}
