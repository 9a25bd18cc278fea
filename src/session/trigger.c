/*-------------------------------------------------------------------------
 *
 * trigger.c
 *	  Trigger functions that issue and revoke instant keys for rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/uuid.h"
#include "session/functions.h"
#include "miscadmin.h"
#include "session/moved_row.h"
#include "session/requests.h"
#include "shmem/places.h"
#include "config/settings.h"
#include "outbox/own_write.h"
#include "outbox/trigger_plan.h"
#include "utils/rel.h"

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

/*
 * Has the row another identity than before, or the same in another workspace?
 */
static bool
guest_changed(TriggerPlan *plan, TriggerData *td, HeapTuple row)
{
	AttrNumber	workspace = plan->bindings[F_SEAM_WORKSPACE].column;

	return trigger_column_changed(td, td->tg_trigtuple, row,
								  plan->bindings[F_USER_IDENTITY_ID].column) ||
		(workspace != 0 && trigger_column_changed(td, td->tg_trigtuple, row, workspace));
}

/* ---------- BEFORE: issue ---------- */

/*
 * Error context callback: the key exists, whatever failed afterwards.
 */
static void
issued_context(void *arg)
{
	char		id[UUID_TEXT_LEN + 1];

	uuid_write(id, &((SeamKey *) arg)->instant_key_id);
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
			values[n] = trigger_apply_cast(plan, binding,
										   key_datums[trigger_fields[f].key_column], &nulls[n]);
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
issue_for_row(Oid function, TriggerPlan *plan, TriggerData *td, HeapTuple row,
			  const pg_uuid_t *identity)
{
	SeamRequest request;
	SeamAccount account;
	SeamResult	result;
	ErrorContextCallback callback;
	HeapTuple	filled;

	trigger_request(plan, td, row, identity, &request);
	settings_account(&account);
	functions_call(function, &account, &request, NULL, NULL, &result);

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
 * when the identity, or its workspace, changed and the statement left the key alone.
 */
Datum
seam_generate_instant_key_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *td = trigger_get_data(fcinfo, "seam_generate_instant_key_trigger",
									   true, TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE,
									   "BEFORE INSERT OR UPDATE");
	TriggerPlan *plan = trigger_get_plan(fcinfo, td, TRIGGER_GENERATES);
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
		MovedRow	moved;
		bool		may_have_moved = moved_row_take(fcinfo, td, &moved);

		if (!no_identity && !trigger_row_has_key(plan, td, row) &&
			!(may_have_moved && moved_row_is(&moved, td, row, NULL)))
			row = issue_for_row(fcinfo->flinfo->fn_oid, plan, td, row, DatumGetUUIDP(identity));
	}
	else
	{
		if (guest_changed(plan, td, row))
		{
			if (no_identity)
				row = fill_row(plan, td, row, NULL);
			else if (!key_changed(plan, td))
				row = issue_for_row(fcinfo->flinfo->fn_oid, plan, td, row, DatumGetUUIDP(identity));
			else
				row = without_former_key(plan, td, row);
		}
		/* an INSERT trigger may be next to see it, in another partition */
		moved_row_note(fcinfo, td, row, NULL);
	}
	trigger_end(&callback);
	return PointerGetDatum(row);
}

/* ---------- AFTER: revoke ---------- */

/*
 * Is it the writer that has put another key, or none, in the place of this one?  That is the
 * matter of a trigger that keeps the row's keys, which knows what is to be revoked.
 */
static bool
is_written_over(TriggerPlan *plan, TriggerData *td, const pg_uuid_t *key)
{
	bool		isnull;
	Datum		value;

	if (!TRIGGER_FIRED_BY_UPDATE(td->tg_event))
		return false;
	value = trigger_field(plan, td, td->tg_newtuple, F_INSTANT_KEY_ID, &isnull);
	return own_write_is(key, isnull ? NULL : DatumGetUUIDP(value));
}

/*
 * seam_delete_instant_key_trigger('instant_key_id=column', 'seam_workspace=column'), AFTER
 * DELETE OR UPDATE FOR EACH ROW
 *
 * Revokes the key of the OLD row when the row goes, or when its key column is
 * cleared or changed: by the outbox, after the commit, or where there is no worker, at once.
 */
Datum
seam_delete_instant_key_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *td = trigger_get_data(fcinfo, "seam_delete_instant_key_trigger",
									   false, TRIGGER_TYPE_DELETE | TRIGGER_TYPE_UPDATE,
									   "AFTER DELETE OR UPDATE");
	TriggerPlan *plan = trigger_get_plan(fcinfo, td, TRIGGER_REVOKES);
	ErrorContextCallback callback;
	const pg_uuid_t *key;

	trigger_begin(td, &callback);
	key = trigger_lost_key(plan, td);
	if (key && is_written_over(plan, td, key))
		key = NULL;
	if (key && places_preloaded())
		requests_revoke_key(outbox_of_function(fcinfo->flinfo->fn_oid), key,
							trigger_workspace(plan, td, td->tg_trigtuple));
	else if (key)
	{
		SeamRequest request = {.op = SEAM_DELETE,.instant_key_id = key};
		SeamAccount account;
		SeamResult	result;

		request.workspace = trigger_workspace(plan, td, td->tg_trigtuple);
		settings_account(&account);
		functions_call(fcinfo->flinfo->fn_oid, &account, &request, NULL, NULL, &result);
	}
	trigger_end(&callback);
	return PointerGetDatum(NULL);
}
