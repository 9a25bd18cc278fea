/*-------------------------------------------------------------------------
 *
 * outbox.h
 *	  The outbox's table, and how a request is put into it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_OUTBOX_H
#define SEAM_IK_OUTBOX_H

#include "executor/tuptable.h"
#include "fmgr.h"
#include "seam/account.h"
#include "seam/keys.h"
#include "seam/seam.h"
#include "utils/relcache.h"

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
	REQ_ORIGIN,
	REQ_TIMELINE_ID,
	REQ_TRANSACTION_ID,
	REQ_ACCOUNT,
	REQ_TARGET_COLUMNS,
	REQ_TARGET_NUMBERS,
	REQ_TARGET_PARTITION,
	REQ_API_KEY_HASH,
	REQ_WORKSPACE_ID,
	REQ_CALL_ID,
	REQ_DISMISSED_AT,
	REQ_ISSUE_AT,
	REQ_VALID_UNTIL,
	REQ_STAY_ID,
	REQ_SUCCESSOR_ID,
	REQ_IS_RENEWAL,
	REQ_FORMER_EXPIRES_AT,
	REQ_REPLACES_KEY,
	REQ_STAY_END,
	REQ_WAKE_AT,
	REQ_ROW_TASK,
	REQ_ROW_TASK_AT,
	REQ_LOOK_AGAIN_AT,
	REQ_SEAM_WORKSPACE,
	REQ_NCOLUMNS
};

/*
 * A condition: the intent c came along with a copy, has not committed as far as can be
 * told here, and its call has no request in the table whose name is given; $1 is this
 * system's id, $2 our origin.
 */
#define CALL_IS_OPEN_ELSEWHERE(requests) \
	" c.origin <> $2 AND CASE" \
	" WHEN c.system_identifier = $1" \
	" AND c.transaction_id < pg_snapshot_xmax(pg_current_snapshot())" \
	" THEN pg_xact_status(c.transaction_id) IS DISTINCT FROM 'committed' ELSE true END" \
	" AND NOT EXISTS (SELECT FROM " requests " o WHERE o.call_id = c.call_id) "

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

/* What a request says of its stay. */
typedef struct OutboxStay
{
	/* The first request of it; 0: this one is. */
	int64		id;
	/* When its key is to be issued; DT_NOBEGIN: at once. */
	TimestampTz issue_at;
	/* When it ends; DT_NOEND: never. */
	TimestampTz valid_until;
	/* The key that the row shows, or NULL. */
	const pg_uuid_t *replaces;
	/* Who has enqueued the first request, an oid, or 0 for the current role. */
	Datum		enqueued_by;
} OutboxStay;

/* Where the outbox is. */
typedef struct Outbox
{
	Oid			schema;			/* of the extension */
	Oid			table;			/* of requests */
	Oid			owner;			/* of the table */
	const char *name;			/* of the table, quoted and qualified */
	const char *calls;			/* of the table of synchronous calls, likewise */
	const char *writing;		/* of the table of the writer's marks,
								 * likewise */
	const char *attempts;		/* of the table of tries, likewise */
	bool		knows_columns;	/* the table has target_columns, and what the
								 * extension's script made together with it */
	int64		origin;			/* of the rows that belong to it */
} Outbox;

/* A request for a key of a synchronous call, whose answer has come, or was lost. */
typedef struct CallRequest
{
	/* Drawn by outbox_draw_id(). */
	int64		id;
	/* The call, as in seam_instant_key_call. */
	const pg_uuid_t *call_id;
	/* What was asked for. */
	const SeamRequest *request;
	/* The key that was issued; NULL: the answer was lost. */
	const SeamKey *key;
	/* When the call was made, or a little before. */
	TimestampTz attempted_at;
	/* Milliseconds after that within which a key may be created. */
	int			attempt_timeout;
	/* Is attempted_at known by Seam's clock? */
	bool		has_seam_time;
	/* Then it is this. */
	TimestampTz seam_time;
	/* With which account. */
	const AccountId *account;
	/* Why it is not known; NULL where the answer has come. */
	const char *error;
	/* Seam's, or NULL. */
	const char *seam_request_id;
} CallRequest;

extern bool outbox_find(Oid schema, Outbox *outbox);
extern Outbox *outbox_of_function(Oid function);
extern int64 outbox_enqueue(Outbox *outbox, const SeamRequest *request,
							Datum reference, const Target *target, const OutboxStay *stay);
extern Relation outbox_table(Outbox *outbox);
extern AttrNumber outbox_column(int column);
extern TupleDesc outbox_key_desc(void);
extern void outbox_update(TupleTableSlot *row, const Datum *values, const bool *nulls,
						  const bool *replaces);
extern void outbox_revoke_key(Outbox *outbox, const pg_uuid_t *key, const pg_uuid_t *workspace);
extern void outbox_open_for_calls(Outbox *outbox);
extern int64 outbox_draw_id(Outbox *outbox);
extern void outbox_insert_call(Outbox *outbox, const CallRequest *call);
extern void outbox_utility_begins(void);

#endif							/* SEAM_IK_OUTBOX_H */
