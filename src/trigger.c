/*-------------------------------------------------------------------------
 *
 * trigger.c
 *	  Trigger functions that issue and revoke instant keys for rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "functions.h"
#include "miscadmin.h"
#include "settings.h"
#include "trigger_plan.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(seam_generate_instant_key_trigger);
PG_FUNCTION_INFO_V1(seam_delete_instant_key_trigger);

/*
 * Did the statement itself change one of the filled columns?
 */
static bool
key_changed(TriggerPlan *plan, TriggerData *td)
{
	for (int f = 0; f < F_NFIELDS; f++)
	{
		if (trigger_fields[f].use == FIELD_OUT && plan->bindings[f].column != 0 &&
			trigger_column_changed(td, td->tg_trigtuple, td->tg_newtuple, plan->bindings[f].column))
			return true;
	}
	return false;
}

/* ---------- rows that move between partitions ---------- */

/*
 * An UPDATE that moves a row to another partition fires BEFORE UPDATE there
 * where it was, and BEFORE INSERT where it goes.  The INSERT trigger must see
 * that it is none, and nothing in TriggerData says so.  So the UPDATE trigger
 * leaves a note of the row; if an INSERT trigger of the same statement is fired
 * for the same identity, and the row of the note has moved, that INSERT is the
 * move.
 *
 * A note belongs to the execution of a statement, whose memory context it lives
 * in: a statement of another trigger, in between, has its own.
 */
typedef struct UpdatedRow
{
	MemoryContextCallback callback;
	MemoryContext statement;
	struct UpdatedRow *next;
	Oid			relid;			/* the partition; InvalidOid: no row */
	ItemPointerData tid;
	pg_uuid_t	identity;
} UpdatedRow;

static UpdatedRow *updated_rows = NULL;

/*
 * The statement of a note ends.
 */
static void
drop_note(void *arg)
{
	for (UpdatedRow **note = &updated_rows; *note; note = &(*note)->next)
	{
		if (*note == arg)
		{
			*note = (*note)->next;
			return;
		}
	}
}

/*
 * The note of the statement with this memory context, or NULL.
 */
static UpdatedRow *
get_note(MemoryContext statement)
{
	UpdatedRow *note = updated_rows;

	while (note && note->statement != statement)
		note = note->next;
	return note;
}

/*
 * Leave a note of the row that an UPDATE trigger is fired for, and of the
 * identity that it will have (NULL: none, so that its move is of no interest).
 */
static void
note_updated_row(FunctionCallInfo fcinfo, TriggerData *td, const pg_uuid_t *identity)
{
	MemoryContext statement = fcinfo->flinfo->fn_mcxt;
	UpdatedRow *note;

	if (!td->tg_relation->rd_rel->relispartition ||
		td->tg_relation->rd_rel->relkind != RELKIND_RELATION)
		return;
	note = get_note(statement);
	if (note == NULL)
	{
		note = MemoryContextAllocZero(statement, sizeof(UpdatedRow));
		note->statement = statement;
		note->callback.func = drop_note;
		note->callback.arg = note;
		MemoryContextRegisterResetCallback(statement, &note->callback);
		note->next = updated_rows;
		updated_rows = note;
	}
	note->relid = identity ? RelationGetRelid(td->tg_relation) : InvalidOid;
	note->tid = td->tg_trigtuple->t_self;
	if (identity)
		note->identity = *identity;
}

/*
 * Is the INSERT trigger fired for the row of the note, which moves here?  If
 * so the note is used up.
 */
static bool
is_moved_row(FunctionCallInfo fcinfo, const pg_uuid_t *identity)
{
	UpdatedRow *note = get_note(fcinfo->flinfo->fn_mcxt);
	Relation	rel;
	TupleTableSlot *slot;
	bool		moved = false;

	if (note == NULL || !OidIsValid(note->relid) ||
		memcmp(&note->identity, identity, sizeof(pg_uuid_t)) != 0)
		return false;
	rel = table_open(note->relid, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	if (table_tuple_fetch_row_version(rel, &note->tid, SnapshotAny, slot))
	{
		bool		should_free;
		HeapTuple	row = ExecFetchSlotHeapTuple(slot, false, &should_free);

		moved = HeapTupleHeaderIndicatesMovedPartitions(row->t_data) &&
			TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(row->t_data));
		if (should_free)
			heap_freetuple(row);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	if (moved)
		note->relid = InvalidOid;
	return moved;
}

/* ---------- BEFORE: issue ---------- */

/*
 * Error context callback: the key exists, whatever failed afterwards.
 */
static void
issued_context(void *arg)
{
	char		id[SEAM_UUID_TEXT_LEN + 1];

	seam_put_uuid(id, &((SeamKey *) arg)->instant_key_id);
	errcontext("instant key %s had been issued", id);
}

/*
 * The row with the filled columns set to the key's values, or to NULL for a
 * NULL key.
 */
static HeapTuple
fill_row(TriggerPlan *plan, TriggerData *td, HeapTuple row, const SeamKey *key)
{
	Datum		key_datums[KEY_NCOLUMNS];
	bool		key_nulls[KEY_NCOLUMNS];
	int			columns[F_NFIELDS];
	Datum		values[F_NFIELDS];
	bool		nulls[F_NFIELDS];
	int			n = 0;

	if (key)
		key_values(key, key_datums, key_nulls);
	for (int f = 0; f < F_NFIELDS; f++)
	{
		Binding    *binding = &plan->bindings[f];

		if (trigger_fields[f].use != FIELD_OUT || binding->column == 0)
			continue;
		columns[n] = binding->column;
		values[n] = (Datum) 0;
		nulls[n] = true;
		if (key)
		{
			nulls[n] = key_nulls[trigger_fields[f].key_column];
			values[n] = trigger_apply_cast(plan, binding, key_datums[trigger_fields[f].key_column], &nulls[n]);
		}
		n++;
	}
	return heap_modify_tuple_by_cols(row, RelationGetDescr(td->tg_relation),
									 n, columns, values, nulls);
}

/*
 * The row of another guest, whose key the statement itself wrote in part.  An
 * id that it left alone is that of the former guest's key: it goes, so that the
 * key is revoked with it.
 */
static HeapTuple
without_former_key(TriggerPlan *plan, TriggerData *td, HeapTuple row)
{
	int			column = plan->bindings[F_INSTANT_KEY_ID].column;
	Datum		value = (Datum) 0;
	bool		isnull = true;

	if (column == 0 || trigger_column_changed(td, td->tg_trigtuple, row, column))
		return row;
	return heap_modify_tuple_by_cols(row, RelationGetDescr(td->tg_relation),
									 1, &column, &value, &isnull);
}

/*
 * Issue a key for the row and fill it in.
 */
static HeapTuple
issue_for_row(TriggerPlan *plan, TriggerData *td, HeapTuple row, const pg_uuid_t *identity)
{
	SeamRequest request;
	SeamAccount account;
	SeamResult	result;
	ErrorContextCallback callback;
	HeapTuple	filled;

	trigger_request(plan, td, row, identity, &request);
	settings_account(&account);
	call_seam(&account, &request, NULL, NULL, &result);

	callback.callback = issued_context;
	callback.arg = &result.key;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	filled = fill_row(plan, td, row, &result.key);
	error_context_stack = callback.previous;
	return filled;
}

/*
 * seam_generate_instant_key_trigger(), BEFORE INSERT OR UPDATE FOR EACH ROW
 *
 * On INSERT it issues a key when there is an identity and no key yet; on UPDATE
 * when the identity changed and the statement left the key alone.
 */
Datum
seam_generate_instant_key_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *td = trigger_get_data(fcinfo, "seam_generate_instant_key_trigger",
									   true, TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE,
									   "BEFORE INSERT OR UPDATE");
	TriggerPlan *plan = trigger_get_plan(fcinfo, td, true);
	HeapTuple	row = td->tg_trigtuple;
	ErrorContextCallback callback;
	Datum		identity;
	bool		no_identity;

	trigger_begin(td, &callback);
	if (TRIGGER_FIRED_BY_UPDATE(td->tg_event))
		row = td->tg_newtuple;
	identity = trigger_field(plan, td, row, F_USER_IDENTITY_ID, &no_identity);
	if (TRIGGER_FIRED_BY_INSERT(td->tg_event))
	{
		if (!no_identity && !trigger_row_has_key(plan, td, row) &&
			!is_moved_row(fcinfo, DatumGetUUIDP(identity)))
			row = issue_for_row(plan, td, row, DatumGetUUIDP(identity));
	}
	else
	{
		note_updated_row(fcinfo, td, no_identity ? NULL : DatumGetUUIDP(identity));
		if (trigger_column_changed(td, td->tg_trigtuple, row, plan->bindings[F_USER_IDENTITY_ID].column))
		{
			if (no_identity)
				row = fill_row(plan, td, row, NULL);
			else if (!key_changed(plan, td))
				row = issue_for_row(plan, td, row, DatumGetUUIDP(identity));
			else
				row = without_former_key(plan, td, row);
		}
	}
	trigger_end(&callback);
	return PointerGetDatum(row);
}

/* ---------- AFTER: revoke ---------- */

/*
 * seam_delete_instant_key_trigger('instant_key_id=column'), AFTER DELETE OR
 * UPDATE FOR EACH ROW
 *
 * Revokes the key of the OLD row when the row goes, or when its key column is
 * cleared or changed.
 */
Datum
seam_delete_instant_key_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *td = trigger_get_data(fcinfo, "seam_delete_instant_key_trigger",
									   false, TRIGGER_TYPE_DELETE | TRIGGER_TYPE_UPDATE,
									   "AFTER DELETE OR UPDATE");
	TriggerPlan *plan = trigger_get_plan(fcinfo, td, false);
	AttrNumber	column = plan->bindings[F_INSTANT_KEY_ID].column;
	ErrorContextCallback callback;
	Datum		id;
	bool		isnull;

	trigger_begin(td, &callback);
	id = trigger_field(plan, td, td->tg_trigtuple, F_INSTANT_KEY_ID, &isnull);
	if (!isnull && TRIGGER_FIRED_BY_UPDATE(td->tg_event))
		isnull = !trigger_column_changed(td, td->tg_trigtuple, td->tg_newtuple, column);
	else if (!isnull && HeapTupleHeaderIndicatesMovedPartitions(td->tg_trigtuple->t_data))
	{
		Datum		key = heap_getattr(td->tg_trigtuple, column,
									   RelationGetDescr(td->tg_relation), &isnull);

		isnull = trigger_key_is_kept(td, plan, key);
	}
	if (!isnull)
	{
		SeamRequest request = {.op = SEAM_DELETE};
		SeamAccount account;
		SeamResult	result;

		request.instant_key_id = DatumGetUUIDP(id);
		settings_account(&account);
		call_seam(&account, &request, NULL, NULL, &result);
	}
	trigger_end(&callback);
	return PointerGetDatum(NULL);
}
