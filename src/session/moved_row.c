/*-------------------------------------------------------------------------
 *
 * moved_row.c
 *	  Tells the INSERT of a row that moves between partitions from any other.
 *
 * An UPDATE that moves a row to another partition fires BEFORE UPDATE and AFTER DELETE
 * there where it was, and BEFORE and AFTER INSERT where it goes.  An INSERT trigger must
 * see that it is fired for such a row, and nothing in TriggerData says so.  So the trigger
 * that sees the row leave makes a note of it, and the INSERT trigger looks whether there
 * is one of its row.
 *
 * The triggers of a move are fired one after another: BEFORE triggers, because nothing of
 * the statement happens in between, and AFTER triggers in the order of their events.  So
 * the next INSERT that a trigger of ours sees in the same execution of the statement uses
 * the note up, whatever row it is of: if that is another one, nobody has seen the INSERT
 * of the row of the note, whose partition has no such trigger, or a trigger with a
 * condition.  Which row it is, its values tell.  BEFORE triggers know of both rows what
 * they are to be: the primary key is the same, or the whole row where there is none.  AFTER
 * triggers know the one row as it was, and the UPDATE may have changed each of its columns.
 * The parts of the primary key that do not make the partitions must be the same; and
 * other rows may have these in common.  So there the note is only good where the trigger
 * is fired for the rows of every partition.
 *
 * A note belongs to the execution of a statement, whose memory context it lives in: a
 * statement of another trigger, in between, has its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "session/moved_row.h"
#include "outbox/row_key.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* The note of a statement, for BEFORE or for AFTER triggers. */
typedef struct Note
{
	MemoryContextCallback callback; /* takes it off the list at its end */
	struct Note *next;			/* in the list of notes */
	MemoryContext statement;	/* it lives as long as that */
	bool		before;			/* made by a BEFORE trigger */
	MovedRow	moved;			/* the row that has left */
} Note;

static Note *notes = NULL;

/*
 * MemoryContextCallback: the statement of a note ends.
 */
static void
drop_note(void *arg)
{
	for (Note **note = &notes; *note; note = &(*note)->next)
	{
		if (*note == arg)
		{
			*note = (*note)->next;
			return;
		}
	}
}

/*
 * The note of the trigger's statement, or NULL.
 */
static Note *
get_note(FunctionCallInfo fcinfo, TriggerData *td)
{
	Note	   *note = notes;

	while (note && (note->statement != fcinfo->flinfo->fn_mcxt ||
					note->before != (bool) TRIGGER_FIRED_BEFORE(td->tg_event)))
		note = note->next;
	return note;
}

/*
 * Leave a note of the row that the trigger is fired for, which moves, or, BEFORE UPDATE,
 * may be about to: row is what moved_row_is() is to compare.  row_key is the partition's,
 * and lives as long as the statement, or NULL where the caller does not know it.  A note
 * that nobody has used up is replaced.
 */
void
moved_row_note(FunctionCallInfo fcinfo, TriggerData *td, HeapTuple row, RowKey *row_key)
{
	MemoryContext statement = fcinfo->flinfo->fn_mcxt;
	MemoryContext old;
	Note	   *note;

	if (!td->tg_relation->rd_rel->relispartition ||
		td->tg_relation->rd_rel->relkind != RELKIND_RELATION)
		return;
	note = get_note(fcinfo, td);
	if (note == NULL)
	{
		note = MemoryContextAllocZero(statement, sizeof(Note));
		note->statement = statement;
		note->before = TRIGGER_FIRED_BEFORE(td->tg_event);
		note->callback.func = drop_note;
		note->callback.arg = note;
		MemoryContextRegisterResetCallback(statement, &note->callback);
		note->next = notes;
		notes = note;
	}
	if (note->moved.row)
		heap_freetuple(note->moved.row);
	memset(&note->moved, 0, sizeof(MovedRow));
	old = MemoryContextSwitchTo(statement);
	note->moved.row = heap_copytuple(row);
	MemoryContextSwitchTo(old);
	note->moved.relid = RelationGetRelid(td->tg_relation);
	note->moved.tid = td->tg_trigtuple->t_self;
	note->moved.row_key = row_key;
}

/*
 * Use up the note of the INSERT trigger's statement: each INSERT trigger calls this, for
 * each row.  Returns whether there was one that may be of this row, which moved_row_is()
 * tells, then; it is good until the next note is left.  A second AFTER trigger for the
 * same row is told the same.
 */
bool
moved_row_take(FunctionCallInfo fcinfo, TriggerData *td, MovedRow *moved)
{
	Note	   *note = notes ? get_note(fcinfo, td) : NULL;

	if (note == NULL || !OidIsValid(note->moved.relid))
		return false;
	if (!note->before && !OidIsValid(note->moved.to_relid))
	{
		note->moved.to_relid = RelationGetRelid(td->tg_relation);
		note->moved.to_tid = td->tg_trigtuple->t_self;
	}
	*moved = note->moved;
	if (note->before)
		note->moved.relid = InvalidOid;
	else if (moved->to_relid != RelationGetRelid(td->tg_relation) ||
			 !ItemPointerEquals(&moved->to_tid, &td->tg_trigtuple->t_self))
	{
		note->moved.relid = InvalidOid;
		return false;
	}
	return td->tg_relation->rd_rel->relispartition;
}

/*
 * Has the version of the row that the note is of left its partition?
 */
static bool
has_moved(Relation rel, const MovedRow *moved)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ItemPointerData tid = moved->tid;
	bool		has = false;

	if (table_tuple_fetch_row_version(rel, &tid, SnapshotAny, slot))
	{
		bool		should_free;
		HeapTuple	row = ExecFetchSlotHeapTuple(slot, false, &should_free);

		has = HeapTupleHeaderIndicatesMovedPartitions(row->t_data) &&
			TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(row->t_data));
		if (should_free)
			heap_freetuple(row);
	}
	ExecDropSingleTupleTableSlot(slot);
	return has;
}

/*
 * Is a column of one relation's row the same as one of another's, of the same type?
 */
static bool
same_value(Relation from, HeapTuple from_row, AttrNumber from_column,
		   Relation to, HeapTuple to_row, AttrNumber to_column)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(to), to_column - 1);
	bool		from_null;
	bool		to_null;
	Datum		from_value = heap_getattr(from_row, from_column, RelationGetDescr(from),
										  &from_null);
	Datum		to_value = heap_getattr(to_row, to_column, RelationGetDescr(to), &to_null);

	if (from_null || to_null)
		return from_null == to_null;
	return datum_image_eq(from_value, to_value, att->attbyval, att->attlen);
}

/*
 * Is each column of the rows the same, by their names?
 */
static bool
same_columns(Relation from, HeapTuple from_row, Relation to, HeapTuple to_row)
{
	for (int i = 0; i < RelationGetNumberOfAttributes(to); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(to), i);
		AttrNumber	column;

		/* generated columns have no values before the row is written */
		if (att->attisdropped || att->attgenerated != '\0')
			continue;
		column = get_attnum(RelationGetRelid(from), NameStr(att->attname));
		if (column == InvalidAttrNumber || !same_value(from, from_row, column, to, to_row,
													   att->attnum))
			return false;
	}
	return true;
}

/*
 * The partitioned table that the relation is of, or itself.
 */
static Oid
root_of(Relation rel)
{
	List	   *ancestors = rel->rd_rel->relispartition ?
	get_partition_ancestors(RelationGetRelid(rel)) : NIL;

	return ancestors ? llast_oid(ancestors) : RelationGetRelid(rel);
}

/*
 * Is the note of the row that the INSERT trigger is fired for?  row_key is that of the
 * trigger's table, or NULL where the caller does not know it.
 */
bool
moved_row_is(const MovedRow *moved, TriggerData *td, HeapTuple row, RowKey *row_key)
{
	bool		before = TRIGGER_FIRED_BEFORE(td->tg_event);
	Relation	to = td->tg_relation;
	Relation	from = table_open(moved->relid, AccessShareLock);
	RowKey	   *from_key = moved->row_key ? moved->row_key : row_key_of(from);
	RowKey	   *to_key = row_key ? row_key : row_key_of(to);
	bool		same;

	if (from_key && to_key)
		same = from_key->root == to_key->root;
	else
		same = before && root_of(from) == root_of(to) && same_columns(from, moved->row, to, row);
	same = same && (!before || has_moved(from, moved));
	for (int i = 0; same && from_key && i < from_key->ncolumns; i++)
	{
		if (before || !from_key->columns[i].moves)
			same = same_value(from, moved->row, from_key->columns[i].attnum,
							  to, row, to_key->columns[i].attnum);
	}
	table_close(from, AccessShareLock);
	return same;
}

/*
 * Does the partition have a trigger of this function that is fired for each INSERT?
 */
static bool
sees_every_insert(Relation triggers, Oid relid, Oid function)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		sees = false;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (!sees && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		sees = trigger->tgfoid == function && TRIGGER_FOR_INSERT(trigger->tgtype) &&
			heap_attisnull(tuple, Anum_pg_trigger_tgqual, RelationGetDescr(triggers)) &&
			(trigger->tgenabled == TRIGGER_FIRES_ALWAYS ||
			 trigger->tgenabled == (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA ?
									TRIGGER_FIRES_ON_REPLICA : TRIGGER_FIRES_ON_ORIGIN));
	}
	systable_endscan(scan);
	return sees;
}

/*
 * Does every partition of the table that the trigger's partition belongs to have a
 * trigger of this function that is fired for each INSERT?
 */
bool
moved_row_seen_everywhere(TriggerData *td, Oid function)
{
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	List	   *partitions = find_all_inheritors(root_of(td->tg_relation), NoLock, NULL);
	bool		everywhere = true;
	ListCell   *lc;

	foreach(lc, partitions)
	{
		if (everywhere && get_rel_relkind(lfirst_oid(lc)) != RELKIND_PARTITIONED_TABLE)
			everywhere = sees_every_insert(triggers, lfirst_oid(lc), function);
	}
	table_close(triggers, AccessShareLock);
	return everywhere;
}
