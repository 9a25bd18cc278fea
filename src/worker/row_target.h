/*-------------------------------------------------------------------------
 *
 * row_target.h
 *	  The row of a user's table that an issued key is for, and whether it
 *	  wants the key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ROW_TARGET_H
#define SEAM_IK_ROW_TARGET_H

#include "outbox/outbox.h"
#include "outbox/row_key.h"
#include "outbox/trigger_plan.h"

/* What an issued request says of its row, and the key for it. */
typedef struct RowTarget
{
	int64		id;				/* of the request */
	Datum		key;			/* of the row, as row_key_value() made it:
								 * jsonb */
	Datum		names;			/* of that key's columns: text[] */
	Datum		numbers;		/* likewise, int2[] */
	bool		has_names;
	bool		has_numbers;
	Oid			partition;		/* or InvalidOid */
	Datum		fields;			/* the trigger's arguments then: text[] */
	pg_uuid_t	identity;
	bool		has_workspace;	/* the request was given one, as the row has
								 * it */
	pg_uuid_t	workspace;		/* if so */
	Datum		values[KEY_NCOLUMNS];	/* the instant key's columns */
	bool		nulls[KEY_NCOLUMNS];
	bool		looks;			/* it is only to be seen whether the row wants
								 * a key */
	bool		clears;			/* the row is not to show the key any more */
	Datum		keys;			/* that the row may show besides: uuid[] */
	bool		has_keys;
	pg_uuid_t	replaces;		/* likewise */
	bool		has_replaces;
	int64		hash;			/* of the request */
	int64		stay_id;		/* likewise; 0: of none */
	bool		has_newer_stay; /* the row has been inserted anew since */
	int			nkeyless;		/* rows that may be it, too, as
								 * row_target_find_keyless() found them */
	Datum	   *keyless;		/* their keys: jsonb */
	int64	   *keyless_hash;
} RowTarget;

extern void row_target_columns(Outbox *outbox, Relation rel, Datum arguments, char **columns);
extern void row_target_check(const RowTarget *target, const RowKey *row_key);
extern bool row_target_may_show(const RowTarget *target, const pg_uuid_t *key);
extern const char *row_target_why_unwanted(const RowTarget *target, Oid table);
extern bool row_target_find_keyless(RowTarget *target, char *const *columns, RowKey *row_key);
extern void row_target_check_keyless(Outbox *outbox, Oid table, const RowTarget *target,
									 const char *reason);

#endif							/* SEAM_IK_ROW_TARGET_H */
