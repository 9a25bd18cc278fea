/*-------------------------------------------------------------------------
 *
 * trigger_plan.c
 *	  What the arguments of our triggers mean for a table.
 *
 * A trigger's arguments are "field=column" pairs.  They are checked before any
 * call, and so is that a column can take its field as an INSERT would assign
 * it: a key that was issued and then cannot be stored is a key that nobody
 * knows of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/as_owner.h"
#include "base/uuid.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "base/compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "outbox/trigger_plan.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/*
 * A URL has about 30 characters and no promised limit; a column that holds
 * fewer than this is refused.
 */
#define MIN_URL_CHARS 64

/* A jsonb or a timestamp as text, likewise. */
#define MIN_JSON_CHARS 256
#define MIN_TIME_CHARS 40

const Field trigger_fields[F_NFIELDS] =
{
	[F_USER_IDENTITY_ID] = {"user_identity_id", UUIDOID, FIELD_IN, -1, 0},
	[F_MAX_USE_COUNT] = {"max_use_count", INT4OID, FIELD_IN, -1, 0},
	[F_CUSTOMIZATION_PROFILE_ID] = {"customization_profile_id", UUIDOID, FIELD_IN, -1, 0},
	[F_SEAM_WORKSPACE] = {"seam_workspace", UUIDOID, FIELD_IN, -1, 0},
	[F_INSTANT_KEY_ID] = {"instant_key_id", UUIDOID, FIELD_OUT, KEY_INSTANT_KEY_ID,
	UUID_TEXT_LEN},
	[F_INSTANT_KEY_URL] = {"instant_key_url", TEXTOID, FIELD_OUT, KEY_INSTANT_KEY_URL,
	MIN_URL_CHARS},
	[F_CLIENT_SESSION_ID] = {"client_session_id", UUIDOID, FIELD_OUT, KEY_CLIENT_SESSION_ID,
	UUID_TEXT_LEN},
	[F_WORKSPACE_ID] = {"workspace_id", UUIDOID, FIELD_OUT, KEY_WORKSPACE_ID, UUID_TEXT_LEN},
	[F_CUSTOMIZATION] = {"customization", JSONBOID, FIELD_OUT, KEY_CUSTOMIZATION, MIN_JSON_CHARS},
	[F_CREATED_AT] = {"created_at", TIMESTAMPTZOID, FIELD_OUT, KEY_CREATED_AT, MIN_TIME_CHARS},
	[F_EXPIRES_AT] = {"expires_at", TIMESTAMPTZOID, FIELD_OUT, KEY_EXPIRES_AT, MIN_TIME_CHARS},
	/* these two take dates and timestamps, too, as they are */
	[F_ISSUE_AT] = {"issue_at", TIMESTAMPTZOID, FIELD_IN, -1, 0},
	[F_VALID_UNTIL] = {"valid_until", TIMESTAMPTZOID, FIELD_IN, -1, 0},
	[F_WANTED] = {"wanted", BOOLOID, FIELD_IN, -1, 0},
};

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
 * From here on errors tell which trigger they come from, until trigger_end().
 * The callback is on the caller's stack.
 */
void
trigger_begin(TriggerData *td, ErrorContextCallback *callback)
{
	callback->callback = trigger_context;
	callback->arg = td;
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

/*
 * Undo trigger_begin().
 */
void
trigger_end(const ErrorContextCallback *callback)
{
	error_context_stack = callback->previous;
}

/*
 * The trigger data, when the function was called by a trigger of the right
 * kind; else raises 39P01.
 */
TriggerData *
trigger_get_data(FunctionCallInfo fcinfo, const char *function, bool before,
				 int16 events, const char *kind)
{
	TriggerData *td = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s() must be called as a trigger", function)));
	if (!TRIGGER_FIRED_FOR_ROW(td->tg_event) ||
		(before ? !TRIGGER_FIRED_BEFORE(td->tg_event) : !TRIGGER_FIRED_AFTER(td->tg_event)) ||
		!((TRIGGER_FIRED_BY_INSERT(td->tg_event) && TRIGGER_FOR_INSERT(events)) ||
		  (TRIGGER_FIRED_BY_UPDATE(td->tg_event) && TRIGGER_FOR_UPDATE(events)) ||
		  (TRIGGER_FIRED_BY_DELETE(td->tg_event) && TRIGGER_FOR_DELETE(events))))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" of table \"%s\" is of the wrong kind",
						td->tg_trigger->tgname, RelationGetRelationName(td->tg_relation)),
				 errhint("%s() is for triggers %s FOR EACH ROW.", function, kind)));
	return td;
}

/*
 * Raise what is wrong with an argument of the trigger.
 */
void
trigger_bad_argument(TriggerData *td, int sqlerrcode, const char *problem)
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
		trigger_bad_argument(td, ERRCODE_UNDEFINED_COLUMN,
							 psprintf("there is no column \"%s\" for %s", name, field->name));
	att = TupleDescAttr(desc, column - 1);
	if (att->attgenerated != '\0' && att->attgenerated != ATTRIBUTE_GENERATED_STORED)
		problem = "a virtual generated column is not in the row";
	else if (att->attgenerated != '\0' && (!reads || TRIGGER_FIRED_BEFORE(td->tg_event)))
		problem = "a generated column has no value yet, and takes none";
	else if (field == &trigger_fields[F_ISSUE_AT] || field == &trigger_fields[F_VALID_UNTIL])
	{
		Oid			type = getBaseType(att->atttypid);

		if (type != TIMESTAMPTZOID && type != TIMESTAMPOID && type != DATEOID)
			problem = psprintf("type %s is no date and no time", format_type_be(att->atttypid));
	}
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
		trigger_bad_argument(td, ERRCODE_DATATYPE_MISMATCH,
							 psprintf("column \"%s\" does not fit %s: %s", name, field->name,
									  problem));
	binding->column = column;
}

/*
 * Splits an argument of a trigger of ours.  Returns the field's name, palloc'd, with the
 * column in *column; that is NULL where the argument is no field=column pair.
 */
char *
trigger_split_argument(const char *argument, char **column)
{
	char	   *name = pstrdup(argument);

	*column = strchr(name, '=');
	if (*column)
		*(*column)++ = '\0';
	return name;
}

/*
 * May a trigger of this kind have this field?
 */
static bool
is_field_of(int f, TriggerKind kind)
{
	if (kind == TRIGGER_REVOKES)
		return f == F_INSTANT_KEY_ID || f == F_SEAM_WORKSPACE;
	return kind == TRIGGER_KEEPS || (f != F_ISSUE_AT && f != F_VALID_UNTIL && f != F_WANTED);
}

/*
 * Read the argument time_zone.  Raises 22023 when there is none of that name.
 */
static void
bind_time_zone(TriggerData *td, TriggerPlan *plan, const char *name)
{
	if (plan->time_zone)
		trigger_bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
							 "field \"time_zone\" is given twice");
	if (pg_tzset(name) == NULL)
		trigger_bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
							 psprintf("time zone \"%s\" is not recognized", name));
	plan->time_zone = name;
}

/*
 * Read the trigger's arguments.
 */
static TriggerPlan *
make_plan(FunctionCallInfo fcinfo, TriggerData *td, TriggerKind kind)
{
	TriggerPlan *plan = palloc0(sizeof(TriggerPlan));
	bool		generates = kind != TRIGGER_REVOKES;

	plan->relid = RelationGetRelid(td->tg_relation);
	for (int i = 0; i < td->tg_trigger->tgnargs; i++)
	{
		char	   *column;
		char	   *name = trigger_split_argument(td->tg_trigger->tgargs[i], &column);
		Binding    *binding;
		int			f;

		if (column == NULL)
			trigger_bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
								 psprintf("argument \"%s\" is not a field=column pair", name));
		if (kind == TRIGGER_KEEPS && strcmp(name, "time_zone") == 0)
		{
			bind_time_zone(td, plan, column);
			continue;
		}
		for (f = 0; f < F_NFIELDS; f++)
		{
			if (strcmp(trigger_fields[f].name, name) == 0 && is_field_of(f, kind))
				break;
		}
		if (f == F_NFIELDS)
			trigger_bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
								 psprintf("unknown field \"%s\"", name));
		binding = &plan->bindings[f];
		if (binding->column != 0 || binding->constant)
			trigger_bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
								 psprintf("field \"%s\" is given twice", name));
		for (int other = 0; other < F_NFIELDS; other++)
		{
			/* only what is read may be read twice */
			if ((trigger_fields[f].use == FIELD_OUT || trigger_fields[other].use == FIELD_OUT) &&
				plan->bindings[other].column != 0 &&
				plan->bindings[other].column == SPI_fnumber(RelationGetDescr(td->tg_relation),
															column))
				trigger_bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
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
				trigger_bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
									 psprintf("max_use_count must be a number of at least 1, not "
											  "\"%s\"", column));
			binding->constant = true;
			binding->value = (int) value;
		}
		else
			bind_column(td, &trigger_fields[f], !generates || trigger_fields[f].use == FIELD_IN,
						column, binding);
	}
	if (generates && plan->bindings[F_USER_IDENTITY_ID].column == 0)
		trigger_bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
							 "there is no user_identity_id=column argument");
	if (kind != TRIGGER_GENERATES && plan->bindings[F_INSTANT_KEY_ID].column == 0)
		trigger_bad_argument(td, ERRCODE_INVALID_PARAMETER_VALUE,
							 "there is no instant_key_id=column argument");
	plan->econtext = CreateStandaloneExprContext();
	return plan;
}

/*
 * The plan of this trigger, made at its first row in a statement.
 */
TriggerPlan *
trigger_get_plan(FunctionCallInfo fcinfo, TriggerData *td, TriggerKind kind)
{
	TriggerPlan *plan = fcinfo->flinfo->fn_extra;

	if (plan == NULL || plan->relid != RelationGetRelid(td->tg_relation))
	{
		MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);

		plan = make_plan(fcinfo, td, kind);
		MemoryContextSwitchTo(old);
		fcinfo->flinfo->fn_extra = plan;
	}
	return plan;
}

/*
 * Raises what calling a trigger of this table, of this kind, would raise because of its
 * arguments, or of the table's columns.
 */
void
trigger_check(Relation table, Trigger *trigger, TriggerKind kind)
{
	TriggerData td = {.type = T_TriggerData,.tg_relation = table,.tg_trigger = trigger};

	td.tg_event = TRIGGER_EVENT_ROW |
		(TRIGGER_FOR_BEFORE(trigger->tgtype) ? TRIGGER_EVENT_BEFORE : 0);
	(void) make_plan(NULL, &td, kind);
}

/*
 * Apply a binding's cast to a value, in CurrentMemoryContext.
 */
Datum
trigger_apply_cast(TriggerPlan *plan, Binding *binding, Datum value, bool *isnull)
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
Datum
trigger_field(TriggerPlan *plan, TriggerData *td, HeapTuple row, int f, bool *isnull)
{
	Binding    *binding = &plan->bindings[f];
	Datum		value;

	*isnull = true;
	if (binding->column == 0)
		return (Datum) 0;
	value = heap_getattr(row, binding->column, RelationGetDescr(td->tg_relation), isnull);
	return *isnull ? (Datum) 0 : trigger_apply_cast(plan, binding, value, isnull);
}

/*
 * The key that the row shows, as a uuid, or NULL (isnull): also where the column is of
 * another type and has a text that is none.
 */
Datum
trigger_key_id(TriggerPlan *plan, TriggerData *td, HeapTuple row, bool *isnull)
{
	AttrNumber	column = plan->bindings[F_INSTANT_KEY_ID].column;
	TupleDesc	desc = RelationGetDescr(td->tg_relation);
	Oid			type = getBaseType(TupleDescAttr(desc, column - 1)->atttypid);
	Datum		value = heap_getattr(row, column, desc, isnull);
	pg_uuid_t  *key;
	bool		is_varlena;
	char	   *text;
	Oid			output;

	if (*isnull || type == UUIDOID)
		return value;
	getTypeOutputInfo(type, &output, &is_varlena);
	key = palloc0(sizeof(pg_uuid_t));
	text = OidOutputFunctionCall(output, value);
	/* a longer char(n) is padded */
	if (type == BPCHAROID)
		text[strcspn(text, " ")] = '\0';
	/* what is no uuid is no key of ours */
	(void) uuid_read(text, key);
	return UUIDPGetDatum(key);
}

/*
 * Is any of the filled columns not NULL in the row?
 */
bool
trigger_row_has_key(TriggerPlan *plan, TriggerData *td, HeapTuple row)
{
	for (int f = 0; f < F_NFIELDS; f++)
	{
		if (trigger_fields[f].use == FIELD_OUT && plan->bindings[f].column != 0 &&
			!heap_attisnull(row, plan->bindings[f].column, RelationGetDescr(td->tg_relation)))
			return true;
	}
	return false;
}

/*
 * Does the column differ between the rows?
 */
bool
trigger_column_changed(TriggerData *td, HeapTuple old, HeapTuple new, AttrNumber column)
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
 * The workspace that the row names, or NULL.
 */
const pg_uuid_t *
trigger_workspace(TriggerPlan *plan, TriggerData *td, HeapTuple row)
{
	bool		isnull;
	Datum		value = trigger_field(plan, td, row, F_SEAM_WORKSPACE, &isnull);

	return isnull ? NULL : DatumGetUUIDP(value);
}

/*
 * The request that the row asks for, for this identity.  Raises 22023 when its
 * max_use_count is less than 1.
 */
void
trigger_request(TriggerPlan *plan, TriggerData *td, HeapTuple row,
				const pg_uuid_t *identity, SeamRequest *request)
{
	Binding    *count = &plan->bindings[F_MAX_USE_COUNT];
	bool		isnull;
	Datum		value;

	memset(request, 0, sizeof(SeamRequest));
	request->op = SEAM_GENERATE;
	request->user_identity_id = identity;
	if (count->constant)
		request->max_use_count = count->value;
	value = trigger_field(plan, td, row, F_MAX_USE_COUNT, &isnull);
	if (!isnull)
	{
		request->max_use_count = DatumGetInt32(value);
		if (request->max_use_count < 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("max_use_count must be at least 1"),
					 errhint("A NULL leaves the number of uses to Seam.")));
	}
	value = trigger_field(plan, td, row, F_CUSTOMIZATION_PROFILE_ID, &isnull);
	if (!isnull)
		request->customization_profile_id = DatumGetUUIDP(value);
	request->workspace = trigger_workspace(plan, td, row);
}

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
	AsOwner		as;
	bool		kept;
	char	   *schema = get_namespace_name(get_rel_namespace(root));
	char	   *query = psprintf("SELECT 1 FROM %s WHERE %s OPERATOR(pg_catalog.=) $1 LIMIT 1",
								 quote_qualified_identifier(schema, get_rel_name(root)),
								 quote_identifier(NameStr(att->attname)));

	as = as_owner_begin(as_owner_of(root), AS_OWNER_OF_USERS_TABLE);
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args(query, 1, types, &key, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "SPI failed to look for an instant key");
	kept = SPI_processed > 0;
	SPI_finish();
	as_owner_end(as);
	return kept;
}

/*
 * Is the key that the row shows, which leaves its partition, in no other one?
 */
bool
trigger_row_loses_key(TriggerData *td, TriggerPlan *plan)
{
	bool		isnull;
	Datum		key = heap_getattr(td->tg_trigtuple, plan->bindings[F_INSTANT_KEY_ID].column,
								   RelationGetDescr(td->tg_relation), &isnull);

	return !isnull && !key_is_kept(td, plan, key);
}

/*
 * Returns the key that the row of an AFTER DELETE or UPDATE trigger has lost, because the
 * row went, or its key column was cleared or changed; or NULL.  The trigger has been
 * given an instant_key_id.
 */
const pg_uuid_t *
trigger_lost_key(TriggerPlan *plan, TriggerData *td)
{
	AttrNumber	column = plan->bindings[F_INSTANT_KEY_ID].column;
	HeapTuple	row = td->tg_trigtuple;
	bool		isnull;
	Datum		id = trigger_field(plan, td, row, F_INSTANT_KEY_ID, &isnull);

	if (isnull)
		return NULL;
	if (TRIGGER_FIRED_BY_UPDATE(td->tg_event))
	{
		if (!trigger_column_changed(td, row, td->tg_newtuple, column))
			return NULL;
	}
	else if (HeapTupleHeaderIndicatesMovedPartitions(row->t_data) &&
			 key_is_kept(td, plan, heap_getattr(row, column, RelationGetDescr(td->tg_relation),
												&isnull)))
		return NULL;
	return DatumGetUUIDP(id);
}
