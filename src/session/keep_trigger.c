/*-------------------------------------------------------------------------
 *
 * keep_trigger.c
 *	  The trigger function that keeps the key of a row's stay: it asks nothing
 *	  of the network.
 *
 * What a change of the row means is decided by stay_after_change(); here is found out what
 * has changed, and which requests the row has.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/as_owner.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "outbox/own_write.h"
#include "outbox/row_key.h"
#include "outbox/stays.h"
#include "outbox/trigger_plan.h"
#include "session/moved_row.h"
#include "session/row_requests.h"
#include "session/stay_dates.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(seam_keep_instant_key_trigger);

/* What such a trigger knows of its table; lives as long as its TriggerPlan. */
typedef struct KeepPlan
{
	Outbox	   *outbox;
	RowKey	   *row_key;
	Datum		fields;			/* the trigger's arguments as text[] */
	Datum		columns;		/* of the row's key: names */
	Datum		numbers;		/* and numbers in the root */
	Oid			partition;		/* the table itself, if it is one */
	const char *slot;			/* the argument that says which column shows
								 * the key */
	List	   *slots;			/* those of all such triggers of the table */
	bool		everywhere;		/* each partition has the trigger */
	bool		everywhere_known;
} KeepPlan;

/* A version of a row. */
typedef struct Version
{
	HeapTuple	row;
	bool		has_identity;
	pg_uuid_t	identity;
	bool		wanted;
	/* the key that it shows; key is of no use where it shows none */
	bool		shows_key;
	pg_uuid_t	key;
	/* another one of the filled columns is not NULL */
	bool		is_filled;
} Version;

/* ---------- the plan ---------- */

/*
 * Does the trigger fill this column?  function: whether it is one of ours that fills any.
 */
static bool
fills_column(const Trigger *trigger, const char *column)
{
	for (int i = 0; i < trigger->tgnargs; i++)
	{
		char	   *other;
		char	   *name = trigger_split_argument(trigger->tgargs[i], &other);

		for (int f = 0; other && f < F_NFIELDS; f++)
		{
			if (trigger_fields[f].use == FIELD_OUT && strcmp(trigger_fields[f].name, name) == 0 &&
				strcmp(other, column) == 0)
				return true;
		}
	}
	return false;
}

/*
 * Raise 55000 where another trigger of ours fills a column that this one fills.
 */
static void
check_other_triggers(FunctionCallInfo fcinfo, TriggerData *td, TriggerPlan *plan)
{
	TriggerDesc *all = td->tg_relation->trigdesc;
	TupleDesc	desc = RelationGetDescr(td->tg_relation);
	Oid			schema = get_func_namespace(fcinfo->flinfo->fn_oid);

	for (int i = 0; all && i < all->numtriggers; i++)
	{
		const Trigger *other = &all->triggers[i];
		const char *function;

		if (other->tgoid == td->tg_trigger->tgoid || other->tgenabled == TRIGGER_DISABLED ||
			get_func_namespace(other->tgfoid) != schema)
			continue;
		function = get_func_name(other->tgfoid);
		if (function == NULL || (strcmp(function, "seam_keep_instant_key_trigger") != 0 &&
								 strcmp(function, "seam_generate_instant_key_trigger") != 0))
			continue;
		for (int f = 0; f < F_NFIELDS; f++)
		{
			AttrNumber	number = plan->bindings[f].column;
			const char *column;

			if (trigger_fields[f].use != FIELD_OUT || number == 0)
				continue;
			column = NameStr(TupleDescAttr(desc, number - 1)->attname);
			if (fills_column(other, column))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("triggers \"%s\" and \"%s\" of table \"%s\" both fill column "
								"\"%s\"",
								td->tg_trigger->tgname, other->tgname,
								RelationGetRelationName(td->tg_relation), column),
						 errhint("Give each of them columns of its own, or drop one.")));
		}
	}
}

/*
 * Raise 39P01 where the trigger is not fired for all that can happen to a row, and 22023
 * where its UPDATE OF list leaves out a column that it has to see.
 */
static void
check_events(TriggerData *td, TriggerPlan *plan)
{
	const Trigger *trigger = td->tg_trigger;

	if (!TRIGGER_FOR_INSERT(trigger->tgtype) || !TRIGGER_FOR_UPDATE(trigger->tgtype) ||
		!TRIGGER_FOR_DELETE(trigger->tgtype))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" of table \"%s\" is of the wrong kind",
						trigger->tgname, RelationGetRelationName(td->tg_relation)),
				 errhint("seam_keep_instant_key_trigger() is for triggers AFTER INSERT OR UPDATE "
						 "OR DELETE FOR EACH ROW.")));
	for (int f = 0; trigger->tgnattr > 0 && f < F_NFIELDS; f++)
	{
		AttrNumber	column = plan->bindings[f].column;
		bool		found = column == 0;

		for (int i = 0; i < trigger->tgnattr && !found; i++)
			found = trigger->tgattr[i] == column;
		if (!found)
			trigger_bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
								 psprintf("its list of columns leaves out \"%s\"",
										  NameStr(TupleDescAttr(RelationGetDescr(td->tg_relation),
																column - 1)->attname)));
	}
}

/*
 * The trigger's argument that says which column shows the key, palloc'd, or NULL.
 */
static char *
slot_of(const Trigger *trigger)
{
	static const char key[] = "instant_key_id=";

	for (int i = 0; i < trigger->tgnargs; i++)
	{
		if (strncmp(trigger->tgargs[i], key, sizeof(key) - 1) == 0)
			return pstrdup(trigger->tgargs[i]);
	}
	return NULL;
}

/*
 * Those of all triggers of this function that the table has, in CurrentMemoryContext.
 */
static List *
slots_of(const TriggerDesc * all, Oid function)
{
	List	   *slots = NIL;

	for (int i = 0; all && i < all->numtriggers; i++)
	{
		char	   *slot = all->triggers[i].tgfoid == function ? slot_of(&all->triggers[i]) : NULL;

		if (slot)
			slots = lappend(slots, slot);
	}
	return slots;
}

/*
 * The trigger's plan, made at its first row in a statement.  Raises 55000 when the table
 * has no primary key, by which the row is found again, and what the checks raise.
 */
static KeepPlan *
get_keep_plan(FunctionCallInfo fcinfo, TriggerData *td, TriggerPlan *plan)
{
	KeepPlan   *keep = plan->extra;
	const Trigger *trigger = td->tg_trigger;
	MemoryContext old;
	Datum	   *args;

	if (keep)
		return keep;
	check_events(td, plan);
	if (td->tg_relation->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		trigger_bad_argument(td, ERRCODE_FEATURE_NOT_SUPPORTED,
							 "the writer cannot write to a temporary table");
	check_other_triggers(fcinfo, td, plan);
	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	keep = palloc0(sizeof(KeepPlan));
	keep->row_key = row_key_of(td->tg_relation);
	if (keep->row_key == NULL)
		trigger_bad_argument(td, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
							 "the table has no primary key, by which the row could be found again");
	keep->outbox = outbox_of_function(fcinfo->flinfo->fn_oid);
	keep->columns = row_key_names(keep->row_key);
	keep->numbers = row_key_numbers(keep->row_key, true);
	if (td->tg_relation->rd_rel->relispartition)
		keep->partition = RelationGetRelid(td->tg_relation);
	args = palloc(Max(trigger->tgnargs, 1) * sizeof(Datum));
	for (int i = 0; i < trigger->tgnargs; i++)
		args[i] = CStringGetTextDatum(trigger->tgargs[i]);
	keep->slot = slot_of(trigger);
	keep->slots = slots_of(td->tg_relation->trigdesc, fcinfo->flinfo->fn_oid);
	keep->fields = PointerGetDatum(construct_array(args, trigger->tgnargs, TEXTOID, -1, false,
												   TYPALIGN_INT));
	MemoryContextSwitchTo(old);
	plan->extra = keep;
	return keep;
}

/* ---------- the row ---------- */

/*
 * The last version of a row that the trigger is fired for: another trigger of the same event
 * may have changed the row again before, and that change has been acted on already, or, where
 * the trigger is deferred, will be.  NULL where the row is gone from the table.
 */
static HeapTuple
last_version(Relation rel, HeapTuple row)
{
	HeapTuple	last = NULL;
	ItemPointerData tid = row->t_self;
	TupleTableSlot *slot;
	TableScanDesc scan;

	if ((row->t_data->t_infomask & HEAP_XMAX_INVALID) != 0 ||
		HEAP_XMAX_IS_LOCKED_ONLY(row->t_data->t_infomask))
		return row;
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan_tid(rel, SnapshotSelf);
	table_tuple_get_latest_tid(scan, &tid);
	if (table_tuple_fetch_row_version(rel, &tid, SnapshotSelf, slot))
		last = ExecCopySlotHeapTuple(slot);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return last;
}

/*
 * The target that a row is.
 */
static Target
target_of(KeepPlan *keep, TriggerData *td, HeapTuple row)
{
	Target		target = {.table = keep->row_key->root};

	target.fields = keep->fields;
	target.columns = keep->columns;
	target.numbers = keep->numbers;
	target.partition = keep->partition;
	target.key = row_key_value(keep->row_key, RelationGetDescr(td->tg_relation), row,
							   &target.hash);
	return target;
}

/*
 * Did the UPDATE change the row's primary key?
 */
static bool
row_key_changed(RowKey *row_key, TriggerData *td)
{
	for (int i = 0; i < row_key->ncolumns; i++)
	{
		if (trigger_column_changed(td, td->tg_trigtuple, td->tg_newtuple,
								   row_key->columns[i].attnum))
			return true;
	}
	return false;
}

/*
 * Read what counts of a version of the row.
 */
static void
read_version(TriggerPlan *plan, TriggerData *td, HeapTuple row, Version *version)
{
	bool		isnull;
	Datum		value = trigger_field(plan, td, row, F_USER_IDENTITY_ID, &isnull);

	version->row = row;
	version->has_identity = !isnull;
	if (!isnull)
		version->identity = *DatumGetUUIDP(value);
	version->wanted = plan->bindings[F_WANTED].column == 0;
	if (!version->wanted)
	{
		value = trigger_field(plan, td, row, F_WANTED, &isnull);
		version->wanted = !isnull && DatumGetBool(value);
	}
	value = trigger_key_id(plan, td, row, &isnull);
	version->shows_key = !isnull;
	if (!isnull)
		version->key = *DatumGetUUIDP(value);
	version->is_filled = version->shows_key || trigger_row_has_key(plan, td, row);
}

/*
 * Is the column of an input field another one?
 */
static bool
field_changed(TriggerPlan *plan, TriggerData *td, HeapTuple old, HeapTuple new, int f)
{
	AttrNumber	column = plan->bindings[f].column;

	return column != 0 && trigger_column_changed(td, old, new, column);
}

/*
 * Is there no row with this primary key?  Asked as the table's owner, so that
 * neither missing privileges nor row security hide it; and restricted, since
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

/* ---------- what is to be done ---------- */

/*
 * The dates that the stay has from now on: those that have changed are read from the row,
 * and so are all where the stay has no request yet.  Raises 22023 when they are the wrong
 * way round, if that is to be checked.
 */
static void
read_dates(TriggerPlan *plan, TriggerData *td, const Version *version, bool issue_changed,
		   bool until_changed, const StayRequest *newest, bool check, TimestampTz *issue_at,
		   TimestampTz *valid_until)
{
	*issue_at = newest ? newest->facts.issue_at : DT_NOBEGIN;
	*valid_until = newest ? newest->facts.valid_until : DT_NOEND;
	if (newest == NULL || issue_changed)
		*issue_at = stay_date(plan, td, version->row, F_ISSUE_AT);
	if (newest == NULL || until_changed)
		*valid_until = stay_date(plan, td, version->row, F_VALID_UNTIL);
	if (check && *issue_at > *valid_until && *issue_at != DT_NOEND)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger \"%s\" of table \"%s\": the stay ends before it begins",
						td->tg_trigger->tgname, RelationGetRelationName(td->tg_relation)),
				 errdetail("It begins at %s and ends at %s.",
						   pstrdup(timestamptz_to_str(*issue_at)),
						   pstrdup(timestamptz_to_str(*valid_until)))));
}

/*
 * What the requests of a row are looked for by, whose version this is, or was until now.
 */
static StayRow
stay_row(const KeepPlan *keep, const Target *target, const Version *version)
{
	StayRow		row = {.target = target,.slot = keep->slot,.slots = keep->slots};

	row.guest = version->has_identity ? &version->identity : NULL;
	return row;
}

/*
 * Carry out a plan for a row.
 */
static void
carry_out(TriggerPlan *plan, TriggerData *td, const Target *target, const Version *version,
		  Stay *stay, const StayPlan *what, TimestampTz issue_at, TimestampTz valid_until)
{
	const pg_uuid_t *shown = version->shows_key ? &version->key : NULL;
	OutboxStay	outbox_stay = {.issue_at = issue_at,.valid_until = valid_until,.replaces = shown};
	SeamRequest request;

	if (what->act == STAY_ASK || what->act == STAY_FOLLOW)
		trigger_request(plan, td, version->row, &version->identity, &request);
	if (what->dates)
		stays_set_dates(stay, issue_at, valid_until);
	if (what->revoke_formers)
		stays_revoke_formers(stay);
	if (what->write_again)
		stays_write_again(stay);
	switch (what->act)
	{
		case STAY_NOTHING:
			break;
		case STAY_ASK:
			stays_ask(stay, &request, target, &outbox_stay);
			break;
		case STAY_FOLLOW:
			stays_follow(stay, &request, shown);
			break;
		case STAY_STOP:
			stays_stop(stay, what->end, what->clear && shown, version->row != NULL);
			break;
	}
	stays_apply(stay);
}

/*
 * A row has come, changed or gone: from the old version, which may be the new one or gone, to
 * the new one, NULL where change->deleted.  The change is filled in but for what the new
 * version says.
 */
static void
keep(TriggerPlan *plan, TriggerData *td, KeepPlan *keep_plan, const Target *target,
	 const Version *old, const Version *new, StayChange *change, bool issue_changed,
	 bool until_changed)
{
	StayFacts	none = {.phase = STAY_NONE};
	Version		gone = {.row = NULL};
	StayRow		row = stay_row(keep_plan, target, old);
	const StayRequest *newest;
	TimestampTz issue_at = DT_NOBEGIN;
	TimestampTz valid_until = DT_NOEND;
	StayPlan	what;
	Stay		stay;
	bool		changes;

	row.is_gone = change->deleted;
	stays_of_row(keep_plan->outbox, &row, &stay);
	newest = stays_newest(&stay);
	change->dates_changed = issue_changed || until_changed;
	changes = change->dates_changed || change->identity_changed || change->terms_changed ||
		change->wanted_changed || change->key_changed;
	if (new)
	{
		change->has_identity = new->has_identity;
		change->wanted = new->wanted;
		change->shows = stays_shows(&stay, new->shows_key ? &new->key : NULL);
		if (newest == NULL && new->is_filled)
			change->shows = STAY_SHOWS_OTHER;
	}
	what = stay_after_change(newest ? &newest->facts : &none, change);
	if (new && (what.act == STAY_ASK || what.dates || change->dates_changed))
		read_dates(plan, td, new, issue_changed, until_changed, newest, new->wanted && changes,
				   &issue_at, &valid_until);

	/*
	 * history: nothing is asked for, where Seam's clock is known to say so,
	 * or the dates are older than the trigger and the wrong way round
	 */
	if (what.act == STAY_ASK && newest == NULL &&
		(stay_is_over(valid_until) || issue_at > valid_until))
		what.act = STAY_NOTHING;
	carry_out(plan, td, target, new ? new : &gone, &stay, &what, issue_at, valid_until);
	stays_release(&stay);
}

/*
 * A row was inserted where a key may live of one that went without a trigger that saw it, as
 * under a replica role or by TRUNCATE.  Returns whether that is so, and it is of the same
 * guest: then its stay goes on with the new row.  That of another guest may have got another
 * primary key unseen, so that its key is left to the next look at its row.
 */
static bool
row_came_back(TriggerPlan *plan, TriggerData *td, KeepPlan *keep_plan, const Target *target,
			  const Version *new)
{
	StayChange	change = {.wanted_changed = true};
	StayRow		row = stay_row(keep_plan, target, new);
	const StayRequest *newest;
	bool		is_alive = false;
	Stay		stay;

	if (!stays_may_be_of(keep_plan->outbox, target->hash))
		return false;
	stays_of_row(keep_plan->outbox, &row, &stay);
	newest = stays_newest(&stay);
	if (newest)
	{
		is_alive = stay_is_alive(&newest->facts) && new->has_identity &&
			stays_is_for(newest, &new->identity);
		change.key_changed = new->shows_key;
		/* the row has come back with the key that it had, or is a new one */
		change.identity_changed = !new->shows_key ||
			stays_shows(&stay, &new->key) != STAY_SHOWS_NEWEST;
	}
	stays_release(&stay);
	if (is_alive)
		keep(plan, td, keep_plan, target, new, new, &change, true, true);
	return is_alive;
}

/*
 * A row was inserted, and did not come from another partition, as far as a trigger of ours
 * has seen.
 */
static void
row_inserted(TriggerPlan *plan, TriggerData *td, KeepPlan *keep_plan, const Target *target)
{
	OutboxStay	stay = {.id = 0};
	SeamRequest request;
	TimestampTz issue_at;
	TimestampTz valid_until;
	Version		new;
	bool		wants;

	read_version(plan, td, td->tg_trigtuple, &new);
	read_dates(plan, td, &new, true, true, NULL, new.wanted, &issue_at, &valid_until);
	stay.issue_at = issue_at;
	stay.valid_until = valid_until;
	wants = new.has_identity && new.wanted && !new.is_filled;
	if (wants && td->tg_relation->rd_rel->relispartition)
	{
		trigger_request(plan, td, new.row, &new.identity, &request);
		if (row_requests_move(keep_plan->outbox, &request, target, false, row_is_gone,
							  keep_plan->row_key))
			return;
	}
	if (row_came_back(plan, td, keep_plan, target, &new))
		return;
	/* history: nothing is asked for, where Seam's clock is known to say so */
	if (!wants || stay_is_over(valid_until))
		return;
	trigger_request(plan, td, new.row, &new.identity, &request);
	(void) outbox_enqueue(keep_plan->outbox, &request, (Datum) 0, target, &stay);
}

/*
 * Fills in what has changed between two versions of a row.  Returns whether it is anything
 * that the trigger is to act on.
 */
static bool
compare(TriggerPlan *plan, TriggerData *td, const Version *old, const Version *new,
		StayChange *change, bool *issue_changed, bool *until_changed)
{
	const pg_uuid_t *from = old->shows_key ? &old->key : NULL;
	const pg_uuid_t *to = new->shows_key ? &new->key : NULL;

	/* in another workspace it is another one */
	change->identity_changed = field_changed(plan, td, old->row, new->row, F_USER_IDENTITY_ID) ||
		field_changed(plan, td, old->row, new->row, F_SEAM_WORKSPACE);
	change->terms_changed = field_changed(plan, td, old->row, new->row, F_MAX_USE_COUNT) ||
		field_changed(plan, td, old->row, new->row, F_CUSTOMIZATION_PROFILE_ID);
	change->wanted_changed = old->wanted != new->wanted;
	change->key_changed = trigger_column_changed(td, old->row, new->row,
												 plan->bindings[F_INSTANT_KEY_ID].column) &&
		!own_write_is(from, to);
	*issue_changed = field_changed(plan, td, old->row, new->row, F_ISSUE_AT);
	*until_changed = field_changed(plan, td, old->row, new->row, F_VALID_UNTIL);
	return change->identity_changed || change->terms_changed || change->wanted_changed ||
		change->key_changed || *issue_changed || *until_changed;
}

/*
 * A row was updated.
 */
static void
row_updated(TriggerPlan *plan, TriggerData *td, KeepPlan *keep_plan)
{
	StayChange	change = {0};
	Version		old;
	Version		new;
	bool		issue_changed;
	bool		until_changed;
	bool		moves = row_key_changed(keep_plan->row_key, td);
	Target		target;

	read_version(plan, td, td->tg_trigtuple, &old);
	read_version(plan, td, td->tg_newtuple, &new);
	/* besides a change, a row that has no request yet is acted on */
	if (!compare(plan, td, &old, &new, &change, &issue_changed, &until_changed) && !moves &&
		(!new.has_identity || !new.wanted || new.is_filled))
		return;
	target = target_of(keep_plan, td, td->tg_newtuple);
	if (moves)
	{
		Target		from = target_of(keep_plan, td, td->tg_trigtuple);

		row_requests_follow(keep_plan->outbox, &from, &target);
	}
	keep(plan, td, keep_plan, &target, &old, &new, &change, issue_changed, until_changed);
}

/*
 * The row as it was, in the form that the trigger's table has: by the columns' names.
 */
static HeapTuple
in_this_form(TriggerData *td, Relation from, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(td->tg_relation);
	Datum	   *values = palloc0(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		AttrNumber	column = att->attisdropped ? InvalidAttrNumber :
		get_attnum(RelationGetRelid(from), NameStr(att->attname));

		nulls[i] = true;
		if (column != InvalidAttrNumber)
			values[i] = heap_getattr(row, column, RelationGetDescr(from), &nulls[i]);
	}
	return heap_form_tuple(desc, values, nulls);
}

/*
 * The row has come from another partition, if it has: then its requests follow it, and what
 * the UPDATE has changed besides is acted on: last is the row's last version, which is the
 * target.  Returns whether it has.
 */
static bool
row_moved(FunctionCallInfo fcinfo, TriggerData *td, TriggerPlan *plan, KeepPlan *keep_plan,
		  const Target *target, HeapTuple last)
{
	StayChange	change = {0};
	MovedRow	moved;
	Relation	rel;
	Target		was = *target;
	Version		old;
	Version		new;
	bool		issue_changed;
	bool		until_changed;

	if (!moved_row_take(fcinfo, td, &moved) ||
		!moved_row_is(&moved, td, td->tg_trigtuple, keep_plan->row_key))
		return false;
	if (!keep_plan->everywhere_known)
		keep_plan->everywhere = moved_row_seen_everywhere(td, fcinfo->flinfo->fn_oid);
	keep_plan->everywhere_known = true;
	if (!keep_plan->everywhere)
		return false;
	rel = table_open(moved.relid, AccessShareLock);
	was.key = row_key_value(moved.row_key, RelationGetDescr(rel), moved.row, &was.hash);
	read_version(plan, td, in_this_form(td, rel, moved.row), &old);
	table_close(rel, AccessShareLock);
	read_version(plan, td, last, &new);
	row_requests_follow(keep_plan->outbox, &was, target);
	(void) compare(plan, td, &old, &new, &change, &issue_changed, &until_changed);
	keep(plan, td, keep_plan, target, &old, &new, &change, issue_changed, until_changed);
	return true;
}

/*
 * seam_keep_instant_key_trigger(), AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW
 */
Datum
seam_keep_instant_key_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *td = trigger_get_data(fcinfo, "seam_keep_instant_key_trigger", false,
									   TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE |
									   TRIGGER_TYPE_DELETE,
									   "AFTER INSERT OR UPDATE OR DELETE");
	TriggerPlan *plan = trigger_get_plan(fcinfo, td, TRIGGER_KEEPS);
	KeepPlan   *keep_plan = get_keep_plan(fcinfo, td, plan);
	TriggerData now = *td;
	HeapTuple	last;
	ErrorContextCallback callback;

	trigger_begin(td, &callback);
	if (TRIGGER_FIRED_BY_INSERT(td->tg_event))
	{
		Target		target = target_of(keep_plan, td, td->tg_trigtuple);

		last = last_version(td->tg_relation, td->tg_trigtuple);
		if (last)
		{
			now.tg_trigtuple = last;
			target = target_of(keep_plan, &now, last);
		}
		if (!row_moved(fcinfo, td, plan, keep_plan, &target, now.tg_trigtuple) && last)
			row_inserted(plan, &now, keep_plan, &target);
	}
	else if (TRIGGER_FIRED_BY_UPDATE(td->tg_event))
	{
		last = last_version(td->tg_relation, td->tg_newtuple);
		if (last)
			now.tg_newtuple = last;
		row_updated(plan, &now, keep_plan);
	}
	else if (HeapTupleHeaderIndicatesMovedPartitions(td->tg_trigtuple->t_data) &&
			 !trigger_row_loses_key(td, plan))
		moved_row_note(fcinfo, td, td->tg_trigtuple, keep_plan->row_key);
	else
	{
		Target		target = target_of(keep_plan, td, td->tg_trigtuple);
		StayChange	change = {.deleted = true};
		Version		old;

		if (HeapTupleHeaderIndicatesMovedPartitions(td->tg_trigtuple->t_data))
			moved_row_note(fcinfo, td, td->tg_trigtuple, keep_plan->row_key);
		read_version(plan, td, td->tg_trigtuple, &old);
		keep(plan, td, keep_plan, &target, &old, NULL, &change, false, false);
	}
	trigger_end(&callback);
	return PointerGetDatum(NULL);
}
