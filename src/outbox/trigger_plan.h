/*-------------------------------------------------------------------------
 *
 * trigger_plan.h
 *	  What the arguments of our triggers mean for a table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_TRIGGER_PLAN_H
#define SEAM_IK_TRIGGER_PLAN_H

#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "base/compat.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "outbox/key.h"
#include "seam/seam.h"

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
	const char *name;			/* in a trigger's arguments */
	Oid			type;			/* of its values */
	FieldUse	use;			/* which way these go */
	int			key_column;		/* of FIELD_OUT: KEY_... */
	int			min_chars;		/* that a column of text must hold */
} Field;

enum
{
	F_USER_IDENTITY_ID,
	F_MAX_USE_COUNT,
	F_CUSTOMIZATION_PROFILE_ID,
	F_SEAM_WORKSPACE,
	F_INSTANT_KEY_ID,
	F_INSTANT_KEY_URL,
	F_CLIENT_SESSION_ID,
	F_WORKSPACE_ID,
	F_CUSTOMIZATION,
	F_CREATED_AT,
	F_EXPIRES_AT,
	F_ISSUE_AT,
	F_VALID_UNTIL,
	F_WANTED,
	F_NFIELDS
};

extern const Field trigger_fields[F_NFIELDS];

/* A field of this trigger. */
typedef struct Binding
{
	AttrNumber	column;			/* 0: not bound to a column */
	bool		constant;		/* max_use_count only */
	int			value;			/* of the constant */
	ExprState  *cast;			/* between the column and the field, or NULL */
} Binding;

/* What a trigger does, on which it depends which fields it may have. */
typedef enum TriggerKind
{
	TRIGGER_GENERATES,			/* issues a key before the row is written */
	TRIGGER_REVOKES,			/* revokes the former key */
	TRIGGER_KEEPS				/* keeps the key of the row's stay */
} TriggerKind;

/*
 * What a trigger's arguments mean for its table.  Made once a statement; lives
 * in fn_mcxt.
 */
typedef struct TriggerPlan
{
	Oid			relid;			/* the table */
	ExprContext *econtext;		/* for the casts of bindings */
	Binding		bindings[F_NFIELDS];	/* by field */
	const char *time_zone;		/* of an argument, or NULL */
	void	   *extra;			/* of the trigger function; zeroed */
} TriggerPlan;

extern char *trigger_split_argument(const char *argument, char **column);
extern void trigger_begin(TriggerData *td, ErrorContextCallback *callback);
extern void trigger_end(const ErrorContextCallback *callback);
extern TriggerData *trigger_get_data(FunctionCallInfo fcinfo, const char *function,
									 bool before, int16 events, const char *kind);
pg_noreturn extern void trigger_bad_argument(TriggerData *td, int sqlerrcode,
											 const char *problem);
extern TriggerPlan *trigger_get_plan(FunctionCallInfo fcinfo, TriggerData *td,
									 TriggerKind kind);
extern Datum trigger_apply_cast(TriggerPlan *plan, Binding *binding, Datum value,
								bool *isnull);
extern Datum trigger_field(TriggerPlan *plan, TriggerData *td, HeapTuple row,
						   int f, bool *isnull);
extern Datum trigger_key_id(TriggerPlan *plan, TriggerData *td, HeapTuple row, bool *isnull);
extern bool trigger_row_has_key(TriggerPlan *plan, TriggerData *td, HeapTuple row);
extern bool trigger_column_changed(TriggerData *td, HeapTuple old, HeapTuple new,
								   AttrNumber column);
extern const pg_uuid_t *trigger_workspace(TriggerPlan *plan, TriggerData *td, HeapTuple row);
extern void trigger_request(TriggerPlan *plan, TriggerData *td, HeapTuple row,
							const pg_uuid_t *identity, SeamRequest *request);
extern void trigger_check(Relation table, Trigger *trigger, TriggerKind kind);
extern bool trigger_row_loses_key(TriggerData *td, TriggerPlan *plan);
extern const pg_uuid_t *trigger_lost_key(TriggerPlan *plan, TriggerData *td);

#endif							/* SEAM_IK_TRIGGER_PLAN_H */
