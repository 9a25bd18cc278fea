/*-------------------------------------------------------------------------
 *
 * functions.h
 *	  What the SQL functions and the triggers share: a call whose failure is
 *	  raised, and the columns of type seam_instant_key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_FUNCTIONS_H
#define SEAM_IK_FUNCTIONS_H

#include "seam.h"

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
	const char *name;
	Oid			type;
} KeyColumn;

extern const KeyColumn key_columns[KEY_NCOLUMNS];

extern void call_seam(const SeamAccount *account, const SeamRequest *request,
					  SeamKeyConsumer consume, void *arg, SeamResult *result);
extern void key_values(const SeamKey *key, Datum *values, bool *nulls);

#endif							/* SEAM_IK_FUNCTIONS_H */
