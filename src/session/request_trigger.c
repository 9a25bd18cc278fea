/*-------------------------------------------------------------------------
 *
 * request_trigger.c
 *	  Trigger functions that enqueue and cancel requests for rows: they ask
 *	  nothing of the network.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/as_owner.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "session/moved_row.h"
#include "session/requests.h"
#include "outbox/row_key.h"
#include "outbox/trigger_plan.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(seam_enqueue_instant_key_trigger);
PG_FUNCTION_INFO_V1(seam_cancel_instant_key_request_trigger);

/* What such a trigger knows of its table; lives as long as its TriggerPlan. */
typedef struct RequestPlan
{
	Outbox	   *outbox;			/* of the trigger's function */
	RowKey	   *row_key;		/* NULL: the table has no primary key */
	Datum		fields;			/* the trigger's arguments as text[] */
	Datum		columns;		/* of the row's key: names */
	Datum		numbers;		/* and numbers in the root */
	Oid			partition;		/* the table itself, if it is one */
	bool		fills;			/* some column takes a field of the key */
	bool		everywhere;		/* each partition has the trigger */
	bool		everywhere_known;	/* that was found out */
} RequestPlan;

/*
 * The trigger's plan, made at its first row in a statement.
 */
static RequestPlan *
get_request_plan(FunctionCallInfo fcinfo, TriggerData *td, TriggerPlan *plan)
{
	RequestPlan *request_plan = plan->extra;
	MemoryContext old;
	Datum	   *args;

	if (request_plan)
		return request_plan;
	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	request_plan = palloc0(sizeof(RequestPlan));
	request_plan->outbox = outbox_of_function(fcinfo->flinfo->fn_oid);
	request_plan->row_key = row_key_of(td->tg_relation);
	if (request_plan->row_key)
	{
		request_plan->columns = row_key_names(request_plan->row_key);
		request_plan->numbers = row_key_numbers(request_plan->row_key, true);
	}
	if (td->tg_relation->rd_rel->relispartition)
		request_plan->partition = RelationGetRelid(td->tg_relation);
	args = palloc(Max(td->tg_trigger->tgnargs, 1) * sizeof(Datum));
	for (int i = 0; i < td->tg_trigger->tgnargs; i++)
		args[i] = CStringGetTextDatum(td->tg_trigger->tgargs[i]);
	request_plan->fields = PointerGetDatum(construct_array(args, td->tg_trigger->tgnargs, TEXTOID,
														   -1, false, TYPALIGN_INT));
	for (int f = 0; f < F_NFIELDS; f++)
		request_plan->fills |= trigger_fields[f].use == FIELD_OUT && plan->bindings[f].column != 0;
	MemoryContextSwitchTo(old);
	plan->extra = request_plan;
	return request_plan;
}

/*
 * The target that a row is.
 */
static Target
target_of(RequestPlan *plan, TriggerData *td, HeapTuple row)
{
	Target		target = {.table = plan->row_key->root};

	target.fields = plan->fields;
	target.columns = plan->columns;
	target.numbers = plan->numbers;
	target.partition = plan->partition;
	target.key = row_key_value(plan->row_key, RelationGetDescr(td->tg_relation),
							   row, &target.hash);
	return target;
}

/*
 * Did the UPDATE change the row's primary key (if the table has one)?
 */
static bool
row_key_changed(RowKey *row_key, TriggerData *td)
{
	for (int i = 0; row_key && i < row_key->ncolumns; i++)
	{
		if (trigger_column_changed(td, td->tg_trigtuple, td->tg_newtuple,
								   row_key->columns[i].attnum))
			return true;
	}
	return false;
}

/*
 * Is there no row with this primary key?  Asked as the table's owner, so that
 * neither missing privileges nor row security hide it; and restricted, because
 * its types may run anybody's code.
 */
static bool
row_is_gone(Datum target_key, void *arg)
{
	RowKey	   *row_key = arg;
	Datum		args[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	StringInfoData sql;
	AsOwner		as;
	bool		gone = false;

	CommandCounterIncrement();
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT 1 FROM %s", row_key_table(row_key));
	row_key_where(row_key, &sql, 1);

	as = as_owner_begin(as_owner_of(row_key->root), AS_OWNER_OF_USERS_TABLE);
	if (row_key_args(row_key, target_key, args, types))
	{
		SPIPlanPtr	plan;

		/* by the latest snapshot, as the request was found */
		if (SPI_connect() != SPI_OK_CONNECT ||
			(plan = SPI_prepare(sql.data, row_key->ncolumns, types)) == NULL ||
			SPI_execute_snapshot(plan, args, NULL, GetLatestSnapshot(), InvalidSnapshot,
								 false, false, 1) != SPI_OK_SELECT)
			elog(ERROR, "SPI failed to look for a row");
		gone = SPI_processed == 0;
		SPI_finish();
	}
	as_owner_end(as);
	return gone;
}

/*
 * The target that the row was which moves to where the trigger is fired, for which it is
 * target; or nothing, which returns false.
 */
static bool
was_target(FunctionCallInfo fcinfo, TriggerData *td, RequestPlan *plan, const Target *target,
		   Target *was)
{
	MovedRow	moved;
	Relation	rel;

	if (!moved_row_take(fcinfo, td, &moved) || !moved_row_is(&moved, td, td->tg_trigtuple,
															 plan->row_key))
		return false;
	if (!plan->everywhere_known)
		plan->everywhere = moved_row_seen_everywhere(td, fcinfo->flinfo->fn_oid);
	plan->everywhere_known = true;
	if (!plan->everywhere)
		return false;
	*was = *target;
	rel = table_open(moved.relid, AccessShareLock);
	was->key = row_key_value(moved.row_key, RelationGetDescr(rel), moved.row, &was->hash);
	table_close(rel, AccessShareLock);
	return true;
}

/*
 * seam_enqueue_instant_key_trigger(), AFTER INSERT FOR EACH ROW
 *
 * Enqueues a request when there is an identity and no key yet.  Raises 55000
 * when the table has no primary key, by which the writer finds the row.
 */
Datum
seam_enqueue_instant_key_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *td = trigger_get_data(fcinfo, "seam_enqueue_instant_key_trigger",
									   false, TRIGGER_TYPE_INSERT, "AFTER INSERT");
	TriggerPlan *plan = trigger_get_plan(fcinfo, td, true);
	RequestPlan *request_plan = get_request_plan(fcinfo, td, plan);
	HeapTuple	row = td->tg_trigtuple;
	ErrorContextCallback callback;
	Target		target;
	Target		was;
	Datum		identity;
	bool		no_identity;
	bool		moved;

	trigger_begin(td, &callback);
	if (request_plan->row_key == NULL)
		trigger_bad_argument(td, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
							 "the table has no primary key, by which the row could be found again");
	if (td->tg_relation->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		trigger_bad_argument(td, ERRCODE_FEATURE_NOT_SUPPORTED,
							 "the writer cannot write to a temporary table");
	target = target_of(request_plan, td, row);
	moved = was_target(fcinfo, td, request_plan, &target, &was);
	identity = trigger_field(plan, td, row, F_USER_IDENTITY_ID, &no_identity);
	if (moved)
		requests_follow_target(request_plan->outbox, &was, &target);
	else if (!no_identity && !trigger_row_has_key(plan, td, row))
	{
		SeamRequest request;

		trigger_request(plan, td, row, DatumGetUUIDP(identity), &request);
		if (!td->tg_relation->rd_rel->relispartition ||
			!requests_move_target(request_plan->outbox, &request, &target, !request_plan->fills,
								  row_is_gone, request_plan->row_key))
			outbox_enqueue(request_plan->outbox, &request, (Datum) 0, &target);
	}
	trigger_end(&callback);
	return PointerGetDatum(NULL);
}

/*
 * seam_cancel_instant_key_request_trigger('instant_key_id=column'), AFTER
 * DELETE OR UPDATE FOR EACH ROW
 *
 * Has the key of the OLD row revoked when the row goes, or when its key column
 * is cleared or changed; and cancels the requests of a row that goes.
 */
Datum
seam_cancel_instant_key_request_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *td = trigger_get_data(fcinfo, "seam_cancel_instant_key_request_trigger",
									   false, TRIGGER_TYPE_DELETE | TRIGGER_TYPE_UPDATE,
									   "AFTER DELETE OR UPDATE");
	TriggerPlan *plan = trigger_get_plan(fcinfo, td, false);
	RequestPlan *request_plan = get_request_plan(fcinfo, td, plan);
	HeapTuple	row = td->tg_trigtuple;
	ErrorContextCallback callback;
	const pg_uuid_t *key;

	trigger_begin(td, &callback);
	key = trigger_lost_key(plan, td);
	if (TRIGGER_FIRED_BY_UPDATE(td->tg_event))
	{
		if (row_key_changed(request_plan->row_key, td))
		{
			Target		from = target_of(request_plan, td, row);
			Target		to = target_of(request_plan, td, td->tg_newtuple);

			requests_follow_target(request_plan->outbox, &from, &to);
		}
	}
	else if (HeapTupleHeaderIndicatesMovedPartitions(row->t_data))
		moved_row_note(fcinfo, td, row, request_plan->row_key);
	else if (request_plan->row_key)
	{
		Target		target = target_of(request_plan, td, row);

		requests_cancel_target(request_plan->outbox, &target);
	}
	if (key)
		requests_revoke_key(request_plan->outbox, key);
	trigger_end(&callback);
	return PointerGetDatum(NULL);
}
