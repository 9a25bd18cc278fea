/*-------------------------------------------------------------------------
 *
 * outbox.h
 *	  The outbox's table, and how a request is put into it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_OUTBOX_H
#define SEAM_IK_OUTBOX_H

#include "fmgr.h"
#include "seam.h"

/* The table's columns, in their order. */
enum
{
	REQ_REQUEST_ID,
	REQ_REFERENCE,
	REQ_USER_IDENTITY_ID,
	REQ_MAX_USE_COUNT,
	REQ_CUSTOMIZATION_PROFILE_ID,
	REQ_TARGET_TABLE,
	REQ_TARGET_KEY,
	REQ_TARGET_FIELDS,
	REQ_TARGET_HASH,
	REQ_STATUS,
	REQ_ATTEMPTS,
	REQ_ENQUEUED_AT,
	REQ_NEXT_ATTEMPT_AT,
	REQ_ATTEMPTED_AT,
	REQ_ATTEMPT_TIMEOUT,
	REQ_SEAM_TIME,
	REQ_FINISHED_AT,
	REQ_INSTANT_KEY,
	REQ_SQLSTATE,
	REQ_ERROR,
	REQ_SEAM_REQUEST_ID,
	REQ_ENQUEUED_BY,
	REQ_SYSTEM_IDENTIFIER,
	REQ_DATABASE_ID,
	REQ_TIMELINE_ID,
	REQ_TRANSACTION_ID,
	REQ_ACCOUNT,
	REQ_API_KEY_HASH,
	REQ_WORKSPACE_ID,
	REQ_LOOK_AGAIN_AT,
	REQ_LOOK_AGAIN_FROM,
	REQ_DISMISSED_AT,
	REQ_NCOLUMNS
};

/* A row of a user's table that the key is for. */
typedef struct Target
{
	Oid			table;			/* the root, where it is partitioned */
	Datum		key;			/* jsonb */
	Datum		fields;			/* text[] */
	int64		hash;
} Target;

/* Where the outbox is. */
typedef struct Outbox
{
	Oid			schema;			/* of the extension */
	Oid			table;
	Oid			owner;			/* of the table */
	const char *name;			/* of the table, quoted and qualified */
	const char *calls;			/* of the table of synchronous calls, likewise */
} Outbox;

extern bool outbox_find(Oid schema, Outbox *outbox);
extern Outbox *outbox_of_function(Oid function);
extern int64 outbox_enqueue(Outbox *outbox, const SeamRequest *request,
							Datum reference, const Target *target);
extern void outbox_revoke_key(Outbox *outbox, const pg_uuid_t *key);
extern void outbox_define(void);

#endif							/* SEAM_IK_OUTBOX_H */
