/*-------------------------------------------------------------------------
 *
 * key.h
 *	  An instant key as a row of type seam_instant_key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_KEY_H
#define SEAM_IK_KEY_H

#include "access/tupdesc.h"
#include "seam/keys.h"

/* The columns of type seam_instant_key, in their order. */
enum
{
	KEY_INSTANT_KEY_ID,
	KEY_INSTANT_KEY_URL,
	KEY_USER_IDENTITY_ID,
	KEY_CLIENT_SESSION_ID,
	KEY_WORKSPACE_ID,
	KEY_CUSTOMIZATION_PROFILE_ID,
	KEY_CUSTOMIZATION,
	KEY_CREATED_AT,
	KEY_EXPIRES_AT,
	KEY_NCOLUMNS
};

typedef struct KeyColumn
{
	const char *name;			/* of the column */
	Oid			type;			/* that it must have */
} KeyColumn;

extern const KeyColumn key_columns[KEY_NCOLUMNS];

extern void key_values(const SeamKey *key, Datum *values, bool *nulls);
extern Datum key_row(TupleDesc desc, const SeamKey *key);
extern void key_check_type(TupleDesc desc);

#endif							/* SEAM_IK_KEY_H */
