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
#include "seam/seam.h"

/* The table's columns that a request is enqueued with, about in their order. */
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
	REQ_INSTANT_KEY,
	REQ_ENQUEUED_BY,
	REQ_SYSTEM_IDENTIFIER,
	REQ_ORIGIN,
	REQ_TARGET_COLUMNS,
	REQ_TARGET_NUMBERS,
	REQ_TARGET_PARTITION,
	REQ_NCOLUMNS
};

/*
 * A condition: the synchronous call came along with a copy, and has not committed as far
 * as can be told here; $1 is this system's id, $2 our origin.
 */
#define CALL_IS_OPEN_ELSEWHERE \
	" NOT owned AND origin <> $2 AND CASE" \
	" WHEN system_identifier = $1 AND transaction_id < pg_snapshot_xmax(pg_current_snapshot())" \
	" THEN pg_xact_status(transaction_id) IS DISTINCT FROM 'committed' ELSE true END "

/* What is reported of it. */
#define REPORT_OF_COPY "issued by a synchronous call of the database that this one is a copy of"

/* A row of a user's table that the key is for. */
typedef struct Target
{
	Oid			table;			/* the root, where it is partitioned */
	Datum		key;			/* jsonb */
	Datum		columns;		/* the key's, text[] */
	Datum		numbers;		/* of these columns in the table, int2[] */
	Oid			partition;		/* the row's; InvalidOid: not partitioned */
	Datum		fields;			/* text[] */
	int64		hash;			/* of table and key */
} Target;

/* Where the outbox is. */
typedef struct Outbox
{
	Oid			schema;			/* of the extension */
	Oid			table;			/* of requests */
	Oid			owner;			/* of the table */
	const char *name;			/* of the table, quoted and qualified */
	const char *calls;			/* of the table of synchronous calls, likewise */
	bool		knows_columns;	/* the table has target_columns, and what the
								 * extension's script made together with it */
	int64		origin;			/* of the rows that belong to it */
} Outbox;

extern bool outbox_find(Oid schema, Outbox *outbox);
extern Outbox *outbox_of_function(Oid function);
extern int64 outbox_enqueue(Outbox *outbox, const SeamRequest *request,
							Datum reference, const Target *target);
extern void outbox_revoke_key(Outbox *outbox, const pg_uuid_t *key);
extern void outbox_utility_begins(void);

#endif							/* SEAM_IK_OUTBOX_H */
