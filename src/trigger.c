/*-------------------------------------------------------------------------
 *
 * trigger.c
 *	  Trigger functions that issue and revoke instant keys for rows.
 *
 * A trigger's arguments are "field=column" pairs.  They are checked before any
 * call, and so is that a column can take its field as an INSERT would assign
 * it: a key that was issued and then cannot be stored is a key that nobody
 * knows of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "compat.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "functions.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(seam_generate_instant_key_trigger);
PG_FUNCTION_INFO_V1(seam_delete_instant_key_trigger);

/*
 * A URL has about 30 characters and no promised limit; a column that holds
 * fewer than this is refused.
 */
#define MIN_URL_CHARS 64

/* A jsonb or a timestamp as text, likewise. */
#define MIN_JSON_CHARS 256
#define MIN_TIME_CHARS 40

/* What a field is for. */
typedef enum FieldUse
{
	FIELD_IN,					/* a parameter, read from the row */
	FIELD_OUT					/* of the key, written to the row */
} FieldUse;

/*
 * The fields.  user_identity_id and customization_profile_id are also columns
 * of seam_instant_key, but Seam answers with what the request said.
 */
typedef struct Field
{
	const char *name;
	Oid			type;
	FieldUse	use;
	int			key_column;		/* of FIELD_OUT: KEY_... */
	int			min_chars;		/* that a column of text must hold */
} Field;

enum
{
	F_USER_IDENTITY_ID,
	F_MAX_USE_COUNT,
	F_CUSTOMIZATION_PROFILE_ID,
	F_INSTANT_KEY_ID,
	F_INSTANT_KEY_URL,
	F_CLIENT_SESSION_ID,
	F_WORKSPACE_ID,
	F_CUSTOMIZATION,
	F_CREATED_AT,
	F_EXPIRES_AT,
	F_NFIELDS
};

static const Field fields[F_NFIELDS] =
{
	[F_USER_IDENTITY_ID] = {"user_identity_id", UUIDOID, FIELD_IN, -1, 0},
	[F_MAX_USE_COUNT] = {"max_use_count", INT4OID, FIELD_IN, -1, 0},
	[F_CUSTOMIZATION_PROFILE_ID] = {"customization_profile_id", UUIDOID, FIELD_IN, -1, 0},
	[F_INSTANT_KEY_ID] = {"instant_key_id", UUIDOID, FIELD_OUT, KEY_INSTANT_KEY_ID, SEAM_UUID_TEXT_LEN},
	[F_INSTANT_KEY_URL] = {"instant_key_url", TEXTOID, FIELD_OUT, KEY_INSTANT_KEY_URL, MIN_URL_CHARS},
	[F_CLIENT_SESSION_ID] = {"client_session_id", UUIDOID, FIELD_OUT, KEY_CLIENT_SESSION_ID, SEAM_UUID_TEXT_LEN},
	[F_WORKSPACE_ID] = {"workspace_id", UUIDOID, FIELD_OUT, KEY_WORKSPACE_ID, SEAM_UUID_TEXT_LEN},
	[F_CUSTOMIZATION] = {"customization", JSONBOID, FIELD_OUT, KEY_CUSTOMIZATION, MIN_JSON_CHARS},
	[F_CREATED_AT] = {"created_at", TIMESTAMPTZOID, FIELD_OUT, KEY_CREATED_AT, MIN_TIME_CHARS},
	[F_EXPIRES_AT] = {"expires_at", TIMESTAMPTZOID, FIELD_OUT, KEY_EXPIRES_AT, MIN_TIME_CHARS},
};

/* A field of this trigger. */
typedef struct Binding
{
	AttrNumber	column;			/* 0: not bound to a column */
	bool		constant;		/* max_use_count only */
	int			value;			/* of the constant */
	ExprState  *cast;			/* between the column and the field, or NULL */
} Binding;

/*
 * What a trigger's arguments mean for its table.  Made once a statement; lives
 * in fn_mcxt.
 */
typedef struct TriggerPlan
{
	Oid			relid;
	ExprContext *econtext;
	Binding		bindings[F_NFIELDS];
} TriggerPlan;

/*
 * Error context callback of a check or of a call: which trigger.
 */
static void
trigger_context(void *arg)
{
	TriggerData *td = arg;

	errcontext("trigger \"%s\" of table \"%s\"",
			   td->tg_trigger->tgname, RelationGetRelationName(td->tg_relation));
}

/*
 * The trigger data, when the function was called by a trigger of the right
 * kind; else raises 39P01.
 */
static TriggerData *
get_trigger_data(FunctionCallInfo fcinfo, const char *function, bool before,
				 bool insert, bool delete, const char *kind)
{
	TriggerData *td = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s() must be called as a trigger", function)));
	if (!TRIGGER_FIRED_FOR_ROW(td->tg_event) ||
		(before ? !TRIGGER_FIRED_BEFORE(td->tg_event) : !TRIGGER_FIRED_AFTER(td->tg_event)) ||
		!(TRIGGER_FIRED_BY_UPDATE(td->tg_event) ||
		  (insert && TRIGGER_FIRED_BY_INSERT(td->tg_event)) ||
		  (delete && TRIGGER_FIRED_BY_DELETE(td->tg_event))))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" of table \"%s\" is of the wrong kind",
						td->tg_trigger->tgname, RelationGetRelationName(td->tg_relation)),
				 errhint("%s() is for triggers %s FOR EACH ROW.", function, kind)));
	return td;
}

pg_noreturn static void bad_argument(TriggerData *td, int sqlerrcode, const char *problem);

/*
 * Raise what is wrong with an argument of the trigger.
 */
static void
bad_argument(TriggerData *td, int sqlerrcode, const char *problem)
{
	ereport(ERROR,
			(errcode(sqlerrcode),
			 errmsg("trigger \"%s\" of table \"%s\": %s",
					td->tg_trigger->tgname, RelationGetRelationName(td->tg_relation),
					problem),
			 errhint("Arguments are field=column pairs, like 'user_identity_id=guest'.")));
}

/*
 * The assignment cast between two types as an INSERT would apply it, or NULL
 * where nothing is to be done.  *possible tells whether there is one.
 */
static ExprState *
assignment_cast(Oid from, Oid to, int32 to_typmod, bool *possible)
{
	CaseTestExpr *placeholder = makeNode(CaseTestExpr);
	Node	   *cast;

	placeholder->typeId = from;
	placeholder->typeMod = -1;
	placeholder->collation = get_typcollation(from);
	cast = coerce_to_target_type(NULL, (Node *) placeholder, from, to, to_typmod,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	*possible = cast != NULL;
	if (cast == NULL || cast == (Node *) placeholder)
		return NULL;
	return ExecInitExpr(expression_planner((Expr *) cast), NULL);
}

/*
 * Bind a field to a column of the trigger's table, which the trigger reads or
 * writes.  Raises 42703 when there is
 * no such column and 42804 when the types do not fit.
 */
static void
bind_column(TriggerData *td, const Field *field, bool reads, const char *name,
			Binding *binding)
{
	TupleDesc	desc = RelationGetDescr(td->tg_relation);
	Form_pg_attribute att;
	const char *problem = NULL;
	bool		possible;
	int32		typmod;
	Oid			base;
	int			column = SPI_fnumber(desc, name);

	if (column <= 0)
		bad_argument(td, ERRCODE_UNDEFINED_COLUMN,
					 psprintf("there is no column \"%s\" for %s", name, field->name));
	att = TupleDescAttr(desc, column - 1);
	if (att->attgenerated != '\0' && att->attgenerated != ATTRIBUTE_GENERATED_STORED)
		problem = "a virtual generated column is not in the row";
	else if (att->attgenerated != '\0' && TRIGGER_FIRED_BEFORE(td->tg_event))
		problem = "a generated column has no value yet, and takes none";
	else
	{
		Oid			from = reads ? att->atttypid : field->type;
		Oid			to = reads ? field->type : att->atttypid;

		binding->cast = assignment_cast(from, to, reads ? -1 : att->atttypmod, &possible);
		if (!possible)
			problem = psprintf("type %s can't be assigned to type %s",
							   format_type_be(from), format_type_be(to));
	}
	typmod = att->atttypmod;
	base = getBaseTypeAndTypmod(att->atttypid, &typmod);
	if (problem == NULL && !reads && (base == NAMEOID || base == CHAROID))
		problem = psprintf("type %s cuts its values", format_type_be(base));
	if (problem == NULL && !reads &&
		(base == VARCHAROID || base == BPCHAROID) &&
		typmod >= (int32) VARHDRSZ && typmod - (int32) VARHDRSZ < field->min_chars)
		problem = psprintf("%s is too short, it must hold at least %d characters",
						   format_type_with_typemod(base, typmod), field->min_chars);
	if (problem)
		bad_argument(td, ERRCODE_DATATYPE_MISMATCH,
					 psprintf("column \"%s\" does not fit %s: %s", name, field->name, problem));
	binding->column = column;
}

/*
 * Read the trigger's arguments.
 */
static TriggerPlan *
make_plan(FunctionCallInfo fcinfo, TriggerData *td, bool generates)
{
	TriggerPlan *plan = palloc0(sizeof(TriggerPlan));

	plan->relid = RelationGetRelid(td->tg_relation);
	for (int i = 0; i < td->tg_trigger->tgnargs; i++)
	{
		char	   *name = pstrdup(td->tg_trigger->tgargs[i]);
		char	   *column = strchr(name, '=');
		Binding    *binding;
		int			f;

		if (column == NULL)
			bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
						 psprintf("argument \"%s\" is not a field=column pair", name));
		*column++ = '\0';
		for (f = 0; f < F_NFIELDS; f++)
		{
			if (strcmp(fields[f].name, name) == 0 && (generates || f == F_INSTANT_KEY_ID))
				break;
		}
		if (f == F_NFIELDS)
			bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
						 psprintf("unknown field \"%s\"", name));
		binding = &plan->bindings[f];
		if (binding->column != 0 || binding->constant)
			bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
						 psprintf("field \"%s\" is given twice", name));
		for (int other = 0; other < F_NFIELDS; other++)
		{
			/* only what is read may be read twice */
			if ((fields[f].use == FIELD_OUT || fields[other].use == FIELD_OUT) &&
				plan->bindings[other].column != 0 &&
				plan->bindings[other].column == SPI_fnumber(RelationGetDescr(td->tg_relation), column))
				bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
							 psprintf("column \"%s\" is given twice", column));
		}
		if (f == F_MAX_USE_COUNT && column[0] != '\0' &&
			strspn(column, "+-0123456789") == strlen(column))
		{
			char	   *end;
			long		value;

			errno = 0;
			value = strtol(column, &end, 10);
			if (errno != 0 || *end != '\0' || value < 1 || value > PG_INT32_MAX)
				bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
							 psprintf("max_use_count must be a number of at least 1, not \"%s\"", column));
			binding->constant = true;
			binding->value = (int) value;
		}
		else
			bind_column(td, &fields[f], !generates || fields[f].use == FIELD_IN,
						column, binding);
	}
	if (generates && plan->bindings[F_USER_IDENTITY_ID].column == 0)
		bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
					 "there is no user_identity_id=column argument");
	if (!generates && plan->bindings[F_INSTANT_KEY_ID].column == 0)
		bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
					 "there is no instant_key_id=column argument");
	plan->econtext = CreateStandaloneExprContext();
	return plan;
}

/*
 * The plan of this trigger, made at its first row in a statement.
 */
static TriggerPlan *
get_plan(FunctionCallInfo fcinfo, TriggerData *td, bool generates)
{
	TriggerPlan *plan = fcinfo->flinfo->fn_extra;

	if (plan == NULL || plan->relid != RelationGetRelid(td->tg_relation))
	{
		MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);

		plan = make_plan(fcinfo, td, generates);
		MemoryContextSwitchTo(old);
		fcinfo->flinfo->fn_extra = plan;
	}
	return plan;
}

/*
 * Apply a binding's cast to a value, in CurrentMemoryContext.
 */
static Datum
apply_cast(TriggerPlan *plan, Binding *binding, Datum value, bool *isnull)
{
	if (binding->cast == NULL)
		return value;
	plan->econtext->caseValue_datum = value;
	plan->econtext->caseValue_isNull = *isnull;
	return ExecEvalExpr(binding->cast, plan->econtext, isnull);
}

/*
 * The value of an input field in a row, or NULL (isnull).
 */
static Datum
field_of(TriggerPlan *plan, TriggerData *td, HeapTuple row, int f, bool *isnull)
{
	Binding    *binding = &plan->bindings[f];
	Datum		value;

	*isnull = true;
	if (binding->column == 0)
		return (Datum) 0;
	value = heap_getattr(row, binding->column, RelationGetDescr(td->tg_relation), isnull);
	return *isnull ? (Datum) 0 : apply_cast(plan, binding, value, isnull);
}

/*
 * Is any of the filled columns not NULL in the row?
 */
static bool
has_key(TriggerPlan *plan, TriggerData *td, HeapTuple row)
{
	for (int f = 0; f < F_NFIELDS; f++)
	{
		if (fields[f].use == FIELD_OUT && plan->bindings[f].column != 0 &&
			!heap_attisnull(row, plan->bindings[f].column, RelationGetDescr(td->tg_relation)))
			return true;
	}
	return false;
}

/*
 * Does the column differ between the rows?
 */
static bool
column_changed(TriggerData *td, HeapTuple old, HeapTuple new, AttrNumber column)
{
	TupleDesc	desc = RelationGetDescr(td->tg_relation);
	Form_pg_attribute att = TupleDescAttr(desc, column - 1);
	bool		old_null,
				new_null;
	Datum		old_value = heap_getattr(old, column, desc, &old_null);
	Datum		new_value = heap_getattr(new, column, desc, &new_null);

	if (old_null || new_null)
		return old_null != new_null;
	return !datum_image_eq(old_value, new_value, att->attbyval, att->attlen);
}

/*
 * Did the statement itself change one of the filled columns?
 */
static bool
key_changed(TriggerPlan *plan, TriggerData *td)
{
	for (int f = 0; f < F_NFIELDS; f++)
	{
		if (fields[f].use == FIELD_OUT && plan->bindings[f].column != 0 &&
			column_changed(td, td->tg_trigtuple, td->tg_newtuple, plan->bindings[f].column))
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
}			UpdatedRow;

static UpdatedRow * updated_rows = NULL;

/*
 * The statement of a note ends.
 */
static void
drop_note(void *arg)
{
	for (UpdatedRow * *note = &updated_rows; *note; note = &(*note)->next)
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

		if (fields[f].use != FIELD_OUT || binding->column == 0)
			continue;
		columns[n] = binding->column;
		values[n] = (Datum) 0;
		nulls[n] = true;
		if (key)
		{
			nulls[n] = key_nulls[fields[f].key_column];
			values[n] = apply_cast(plan, binding, key_datums[fields[f].key_column], &nulls[n]);
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

	if (column == 0 || column_changed(td, td->tg_trigtuple, row, column))
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
	SeamRequest request = {.op = SEAM_GENERATE};
	SeamAccount account;
	SeamResult	result;
	ErrorContextCallback callback;
	Binding    *count = &plan->bindings[F_MAX_USE_COUNT];
	bool		isnull;
	Datum		value;
	HeapTuple	filled;

	request.user_identity_id = identity;
	if (count->constant)
		request.max_use_count = count->value;
	value = field_of(plan, td, row, F_MAX_USE_COUNT, &isnull);
	if (!isnull)
	{
		request.max_use_count = DatumGetInt32(value);
		if (request.max_use_count < 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("max_use_count must be at least 1"),
					 errhint("A NULL leaves the number of uses to Seam.")));
	}
	value = field_of(plan, td, row, F_CUSTOMIZATION_PROFILE_ID, &isnull);
	if (!isnull)
		request.customization_profile_id = DatumGetUUIDP(value);
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
	TriggerData *td = get_trigger_data(fcinfo, "seam_generate_instant_key_trigger",
									   true, true, false, "BEFORE INSERT OR UPDATE");
	TriggerPlan *plan = get_plan(fcinfo, td, true);
	HeapTuple	row = td->tg_trigtuple;
	ErrorContextCallback callback;
	Datum		identity;
	bool		no_identity;

	callback.callback = trigger_context;
	callback.arg = td;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	if (TRIGGER_FIRED_BY_UPDATE(td->tg_event))
		row = td->tg_newtuple;
	identity = field_of(plan, td, row, F_USER_IDENTITY_ID, &no_identity);
	if (TRIGGER_FIRED_BY_INSERT(td->tg_event))
	{
		if (!no_identity && !has_key(plan, td, row) &&
			!is_moved_row(fcinfo, DatumGetUUIDP(identity)))
			row = issue_for_row(plan, td, row, DatumGetUUIDP(identity));
	}
	else
	{
		note_updated_row(fcinfo, td, no_identity ? NULL : DatumGetUUIDP(identity));
		if (column_changed(td, td->tg_trigtuple, row, plan->bindings[F_USER_IDENTITY_ID].column))
		{
			if (no_identity)
				row = fill_row(plan, td, row, NULL);
			else if (!key_changed(plan, td))
				row = issue_for_row(plan, td, row, DatumGetUUIDP(identity));
			else
				row = without_former_key(plan, td, row);
		}
	}
	error_context_stack = callback.previous;
	return PointerGetDatum(row);
}

/* ---------- AFTER: revoke ---------- */

/*
 * Does any row of the partitioned table that the trigger's partition belongs
 * to have this key?  For a row that moved: AFTER DELETE is all that fires for
 * it, and the new row is not at hand.
 *
 * Asked as the partitioned table's owner, as foreign keys do it, so that neither missing
 * privileges nor row security hide the row.
 */
static bool
key_is_kept(TriggerData *td, TriggerPlan *plan, Datum key)
{
	AttrNumber	column = plan->bindings[F_INSTANT_KEY_ID].column;
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(td->tg_relation), column - 1);
	List	   *ancestors = get_partition_ancestors(RelationGetRelid(td->tg_relation));
	Oid			root = ancestors ? llast_oid(ancestors) : RelationGetRelid(td->tg_relation);
	Oid			types[1] = {att->atttypid};
	Oid			user;
	Oid			owner;
	HeapTuple	tuple;
	int			context;
	bool		kept;
	char	   *query = psprintf("SELECT 1 FROM %s WHERE %s OPERATOR(pg_catalog.=) $1 LIMIT 1",
								 quote_qualified_identifier(get_namespace_name(get_rel_namespace(root)),
															get_rel_name(root)),
								 quote_identifier(NameStr(att->attname)));

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(root));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", root);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner,
						   context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args(query, 1, types, &key, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "SPI failed to look for an instant key");
	kept = SPI_processed > 0;
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	return kept;
}

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
	TriggerData *td = get_trigger_data(fcinfo, "seam_delete_instant_key_trigger",
									   false, false, true, "AFTER DELETE OR UPDATE");
	TriggerPlan *plan = get_plan(fcinfo, td, false);
	AttrNumber	column = plan->bindings[F_INSTANT_KEY_ID].column;
	ErrorContextCallback callback;
	Datum		id;
	bool		isnull;

	callback.callback = trigger_context;
	callback.arg = td;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	id = field_of(plan, td, td->tg_trigtuple, F_INSTANT_KEY_ID, &isnull);
	if (!isnull && TRIGGER_FIRED_BY_UPDATE(td->tg_event))
		isnull = !column_changed(td, td->tg_trigtuple, td->tg_newtuple, column);
	else if (!isnull && HeapTupleHeaderIndicatesMovedPartitions(td->tg_trigtuple->t_data))
	{
		Datum		key = heap_getattr(td->tg_trigtuple, column,
									   RelationGetDescr(td->tg_relation), &isnull);

		isnull = key_is_kept(td, plan, key);
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
	error_context_stack = callback.previous;
	return PointerGetDatum(NULL);
}
