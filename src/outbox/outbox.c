/*-------------------------------------------------------------------------
 *
 * outbox.c
 *	  The outbox's table, and how a request is put into it.
 *
 * A request is inserted past the executor: a trigger may enqueue one for each
 * row of a large INSERT, and the role that enqueues needs no privilege on the
 * table.  The table and its indexes are opened once a transaction.  They are
 * closed before any utility command, which might be about to alter them, and
 * before the commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/as_owner.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "shmem/places.h"
#include "miscadmin.h"
#include "outbox/insertion.h"
#include "outbox/key.h"
#include "outbox/outbox.h"
#include "outbox/script.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/xid8.h"

/* What the columns must be. */
static const InsertionColumn columns[REQ_NCOLUMNS] =
{
	[REQ_REQUEST_ID] = {"request_id", INT8OID, false},
	[REQ_REFERENCE] = {"reference", TEXTOID, false},
	[REQ_USER_IDENTITY_ID] = {"user_identity_id", UUIDOID, false},
	[REQ_MAX_USE_COUNT] = {"max_use_count", INT4OID, false},
	[REQ_CUSTOMIZATION_PROFILE_ID] = {"customization_profile_id", UUIDOID, false},
	[REQ_TARGET_TABLE] = {"target_table", REGCLASSOID, false},
	[REQ_TARGET_KEY] = {"target_key", JSONBOID, false},
	[REQ_TARGET_FIELDS] = {"target_fields", TEXTARRAYOID, false},
	[REQ_TARGET_HASH] = {"target_hash", INT8OID, false},
	[REQ_STATUS] = {"status", TEXTOID, false},
	[REQ_ATTEMPTS] = {"attempts", INT4OID, false},
	[REQ_ENQUEUED_AT] = {"enqueued_at", TIMESTAMPTZOID, false},
	[REQ_NEXT_ATTEMPT_AT] = {"next_attempt_at", TIMESTAMPTZOID, false},
	[REQ_ATTEMPTED_AT] = {"attempted_at", TIMESTAMPTZOID, false},
	[REQ_ATTEMPT_TIMEOUT] = {"attempt_timeout", INT4OID, false},
	[REQ_SEAM_TIME] = {"seam_time", TIMESTAMPTZOID, false},
	[REQ_FINISHED_AT] = {"finished_at", TIMESTAMPTZOID, false},
	[REQ_INSTANT_KEY] = {"instant_key", InvalidOid, false},
	[REQ_SQLSTATE] = {"sqlstate", TEXTOID, false},
	[REQ_ERROR] = {"error", TEXTOID, false},
	[REQ_SEAM_REQUEST_ID] = {"seam_request_id", TEXTOID, false},
	[REQ_ENQUEUED_BY] = {"enqueued_by", OIDOID, false},
	[REQ_SYSTEM_IDENTIFIER] = {"system_identifier", INT8OID, false},
	[REQ_ORIGIN] = {"origin", INT8OID, false},
	[REQ_TIMELINE_ID] = {"timeline_id", INT4OID, false},
	[REQ_TRANSACTION_ID] = {"transaction_id", XID8OID, false},
	[REQ_ACCOUNT] = {"account", INT8OID, false},
	[REQ_TARGET_COLUMNS] = {"target_columns", TEXTARRAYOID, true},
	[REQ_TARGET_NUMBERS] = {"target_numbers", INT2ARRAYOID, true},
	[REQ_TARGET_PARTITION] = {"target_partition", OIDOID, true},
	[REQ_API_KEY_HASH] = {"api_key_hash", INT8OID, false},
	[REQ_WORKSPACE_ID] = {"workspace_id", UUIDOID, false},
	[REQ_CALL_ID] = {"call_id", UUIDOID, false},
	[REQ_DISMISSED_AT] = {"dismissed_at", TIMESTAMPTZOID, false},
	[REQ_ISSUE_AT] = {"issue_at", TIMESTAMPTZOID, false},
	[REQ_VALID_UNTIL] = {"valid_until", TIMESTAMPTZOID, false},
	[REQ_STAY_ID] = {"stay_id", INT8OID, false},
	[REQ_SUCCESSOR_ID] = {"successor_id", INT8OID, false},
	[REQ_IS_RENEWAL] = {"is_renewal", BOOLOID, false},
	[REQ_FORMER_EXPIRES_AT] = {"former_expires_at", TIMESTAMPTZOID, false},
	[REQ_REPLACES_KEY] = {"replaces_key", UUIDOID, false},
	[REQ_STAY_END] = {"stay_end", TEXTOID, false},
	[REQ_WAKE_AT] = {"wake_at", TIMESTAMPTZOID, false},
	[REQ_ROW_TASK] = {"row_task", TEXTOID, false},
	[REQ_ROW_TASK_AT] = {"row_task_at", TIMESTAMPTZOID, false},
	[REQ_LOOK_AGAIN_AT] = {"look_again_at", TIMESTAMPTZOID, false},
	[REQ_SEAM_WORKSPACE] = {"seam_workspace", UUIDOID, false},
};

/* The table, open for insertion, in this transaction. */
typedef struct RequestInsertion
{
	Insertion	rows;			/* of requests */
	Oid			sequence;		/* of request_id */
	int64		origin;			/* of what is inserted */
	Datum		pending;		/* a status, as text */
	Datum		revoking;		/* the other status of a new request */
	Datum		issued;			/* of a call's request */
	Datum		in_flight;		/* of one whose answer was lost */
	Datum		lost;			/* that one's SQLSTATE */
	TupleDesc	key_desc;		/* of type seam_instant_key, or NULL */
} RequestInsertion;

static RequestInsertion *insertion; /* in TopTransactionContext, or NULL */
static SubTransactionId inserting_in = InvalidSubTransactionId; /* in which a row is
																 * being inserted */
static bool warned;				/* in this transaction, that there is no
								 * worker */


/*
 * The origin of the rows that belong to an outbox: a hash of what tells it from that
 * of another server (a system identifier), from that of a database made from this one
 * (its OID), and from that of an extension that was dropped and created anew (the
 * number that its installation has).  A standby has the same.  Raises 42P01 when
 * somebody has dropped the sequence that holds the number, and what script_check()
 * raises.
 */
static int64
origin_of(const Outbox *outbox)
{
	static Oid	known_table = InvalidOid;	/* its installation's alone */
	static int64 known;
	int64		what[3];
	Oid			sequence;
	AsOwner		as;

	if (outbox->table == known_table)
		return known;
	script_check();
	sequence = get_relname_relid("seam_instant_key_installation", outbox->schema);
	if (!OidIsValid(sequence))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("sequence seam_instant_key_installation of extension seam_ik does not "
						"exist")));
	as = as_owner_begin(as_owner_of(sequence), 0);
	what[0] = DatumGetInt64(DirectFunctionCall1(pg_sequence_last_value,
												ObjectIdGetDatum(sequence)));
	as_owner_end(as);
	what[1] = (int64) GetSystemIdentifier();
	what[2] = (int64) MyDatabaseId;
	known = (int64) hash_bytes_extended((const unsigned char *) what, sizeof(what), 0);
	known_table = outbox->table;
	return known;
}

/*
 * Find the outbox of the extension in this schema.  Its names are palloc'd.
 * Returns false when it is not there.  Raises what origin_of() raises.
 */
bool
outbox_find(Oid schema, Outbox *outbox)
{
	outbox->schema = schema;
	outbox->table = OidIsValid(schema) ? get_relname_relid("seam_instant_key_request", schema) :
		InvalidOid;
	outbox->owner = as_owner_of(outbox->table);
	if (!OidIsValid(outbox->owner))
		return false;
	outbox->name = quote_qualified_identifier(get_namespace_name(schema),
											  "seam_instant_key_request");
	outbox->calls = quote_qualified_identifier(get_namespace_name(schema), "seam_instant_key_call");
	outbox->writing = quote_qualified_identifier(get_namespace_name(schema),
												 "seam_instant_key_writing");
	outbox->attempts = quote_qualified_identifier(get_namespace_name(schema),
												  "seam_instant_key_attempt");
	outbox->knows_columns = get_attnum(outbox->table, "target_columns") != InvalidAttrNumber;
	outbox->origin = origin_of(outbox);
	return true;
}

/*
 * The outbox that belongs to a function of the extension: palloc'd.  Raises
 * 42P01 when somebody has dropped it.
 */
Outbox *
outbox_of_function(Oid function)
{
	Outbox	   *outbox = palloc(sizeof(Outbox));

	if (!outbox_find(get_func_namespace(function), outbox))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table seam_instant_key_request of extension seam_ik does not exist")));
	return outbox;
}

/*
 * Open the table for insertion, in the whole transaction's name: a
 * subtransaction may roll back, and the next one goes on with it.
 */
static void
open_insertion(Outbox *outbox)
{
	MemoryContext old_context = MemoryContextSwitchTo(TopTransactionContext);
	ResourceOwner old_owner = CurrentResourceOwner;
	RequestInsertion *ins = palloc0(sizeof(RequestInsertion));

	CurrentResourceOwner = TopTransactionResourceOwner;
	PG_TRY();
	{
		ins->origin = outbox->origin;
		ins->sequence = get_relname_relid("seam_instant_key_request_request_id_seq",
										  outbox->schema);
		if (!OidIsValid(ins->sequence))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("sequence seam_instant_key_request_request_id_seq of extension seam_ik "
							"does not exist")));
		ins->pending = CStringGetTextDatum("pending");
		ins->revoking = CStringGetTextDatum("revoking");
		ins->issued = CStringGetTextDatum("issued");
		ins->in_flight = CStringGetTextDatum("in_flight");
		ins->lost = CStringGetTextDatum(unpack_sql_state(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN));
		insertion_open(&ins->rows, outbox->table, columns, REQ_NCOLUMNS);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = old_owner;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old_context);
	insertion = ins;
}

/*
 * Close what open_insertion() opened, keeping the locks.
 */
static void
close_insertion(void)
{
	ResourceOwner old_owner = CurrentResourceOwner;
	RequestInsertion *ins = insertion;

	if (ins == NULL)
		return;
	insertion = NULL;
	CurrentResourceOwner = TopTransactionResourceOwner;
	insertion_close(&ins->rows);
	CurrentResourceOwner = old_owner;
}

/*
 * XactCallback.  An abort closes by itself what the transaction had open.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			close_insertion();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			insertion = NULL;
			inserting_in = InvalidSubTransactionId;
			warned = false;
			break;
		default:
			break;
	}
}

/*
 * SubXactCallback.  What a subtransaction did to the table is undone, and what
 * is open might not be what is there then.
 */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	/* one within a constraint's function has nothing to do with the insertion */
	if (inserting_in != InvalidSubTransactionId && mine > inserting_in)
		return;
	inserting_in = InvalidSubTransactionId;
	close_insertion();
}

/*
 * A utility command begins, which may be about to alter the table.  (An aborted
 * transaction has nothing open.)
 */
void
outbox_utility_begins(void)
{
	if (insertion && inserting_in == InvalidSubTransactionId && IsTransactionState())
		close_insertion();
}

/*
 * Have the table open.  Raises 25006 in a read-only transaction and on a
 * standby.
 */
static void
begin_insertion(Outbox *outbox)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
	}
	registered = true;
	PreventCommandDuringRecovery("enqueueing a request for an instant key");
	PreventCommandIfReadOnly("enqueueing a request for an instant key");
	if (inserting_in != InvalidSubTransactionId)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a constraint of the outbox's table cannot insert into it")));
	if (insertion == NULL)
		open_insertion(outbox);
}

/*
 * Insert a row into the outbox, which is open: values of a request's columns; those
 * that every row has alike are set here.
 */
static void
insert_row(Datum *values, bool *nulls)
{
	values[REQ_ENQUEUED_AT] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	if (nulls[REQ_ENQUEUED_BY])
		values[REQ_ENQUEUED_BY] = ObjectIdGetDatum(GetUserId());
	/* 0: the request is the first of its stay */
	if (!nulls[REQ_STAY_ID] && DatumGetInt64(values[REQ_STAY_ID]) == 0)
		values[REQ_STAY_ID] = values[REQ_REQUEST_ID];
	/* a stay without a row is found by its first request */
	if (!nulls[REQ_STAY_ID] && nulls[REQ_TARGET_HASH])
	{
		values[REQ_TARGET_HASH] = values[REQ_STAY_ID];
		nulls[REQ_TARGET_HASH] = false;
	}
	values[REQ_SYSTEM_IDENTIFIER] = Int64GetDatum((int64) GetSystemIdentifier());
	values[REQ_ORIGIN] = Int64GetDatum(insertion->origin);
	nulls[REQ_REQUEST_ID] = nulls[REQ_ATTEMPTS] = nulls[REQ_ENQUEUED_AT] =
		nulls[REQ_ENQUEUED_BY] = nulls[REQ_SYSTEM_IDENTIFIER] = nulls[REQ_ORIGIN] =
		nulls[REQ_STATUS] = false;

	inserting_in = GetCurrentSubTransactionId();
	insertion_row(&insertion->rows, values, nulls);
	inserting_in = InvalidSubTransactionId;
}

/*
 * Insert a request that is new to the worker.  Returns its id.
 */
static int64
insert_new(Datum *values, bool *nulls)
{
	int64		id = nextval_internal(insertion->sequence, false);

	values[REQ_REQUEST_ID] = Int64GetDatum(id);
	values[REQ_ATTEMPTS] = Int32GetDatum(0);
	if (nulls[REQ_WAKE_AT])
	{
		/* at once, whatever the worker's clock says */
		values[REQ_NEXT_ATTEMPT_AT] = TimestampTzGetDatum(DT_NOBEGIN);
		nulls[REQ_NEXT_ATTEMPT_AT] = false;
	}
	insert_row(values, nulls);

	places_wake_at_commit(false);
	if (!places_preloaded() && !warned)
	{
		warned = true;
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("nothing will send this request yet: seam_ik is not in "
						"shared_preload_libraries"),
				 errhint("Add seam_ik to shared_preload_libraries and restart the server; the "
						 "request waits until then.")));
	}
	return id;
}

/*
 * What a request says of its stay: values of its columns.  A key that is to come at once is
 * claimed like any other; for one that has times the worker asks Seam's clock.
 */
static void
put_stay(const OutboxStay *stay, Datum *values, bool *nulls)
{
	bool		begins = stay->issue_at != DT_NOBEGIN;
	bool		ends = stay->valid_until != DT_NOEND;

	values[REQ_STAY_ID] = Int64GetDatum(stay->id);
	nulls[REQ_STAY_ID] = false;
	values[REQ_ISSUE_AT] = TimestampTzGetDatum(stay->issue_at);
	nulls[REQ_ISSUE_AT] = !begins;
	values[REQ_VALID_UNTIL] = TimestampTzGetDatum(stay->valid_until);
	nulls[REQ_VALID_UNTIL] = !ends;
	values[REQ_WAKE_AT] =
		TimestampTzGetDatum(stay->issue_at > GetCurrentTimestamp() ?
							Min(stay->issue_at, stay->valid_until) : DT_NOBEGIN);
	nulls[REQ_WAKE_AT] = !begins && !ends;
	if (stay->replaces)
		values[REQ_REPLACES_KEY] = UUIDPGetDatum(stay->replaces);
	nulls[REQ_REPLACES_KEY] = stay->replaces == NULL;
	values[REQ_ENQUEUED_BY] = stay->enqueued_by;
	nulls[REQ_ENQUEUED_BY] = stay->enqueued_by == (Datum) 0;
}

/*
 * Enqueue a request for a key, with a reference (text, or 0 for NULL), a target (or NULL)
 * and a stay (NULL: for a single key).  Returns its id.
 */
int64
outbox_enqueue(Outbox *outbox, const SeamRequest *request, Datum reference,
			   const Target *target, const OutboxStay *stay)
{
	Datum		values[REQ_NCOLUMNS];
	bool		nulls[REQ_NCOLUMNS];

	memset(nulls, true, sizeof(nulls));
	begin_insertion(outbox);
	values[REQ_STATUS] = insertion->pending;
	values[REQ_USER_IDENTITY_ID] = UUIDPGetDatum(request->user_identity_id);
	nulls[REQ_USER_IDENTITY_ID] = false;
	values[REQ_MAX_USE_COUNT] = Int32GetDatum(request->max_use_count);
	nulls[REQ_MAX_USE_COUNT] = request->max_use_count == 0;
	if (request->customization_profile_id)
	{
		values[REQ_CUSTOMIZATION_PROFILE_ID] = UUIDPGetDatum(request->customization_profile_id);
		nulls[REQ_CUSTOMIZATION_PROFILE_ID] = false;
	}
	values[REQ_SEAM_WORKSPACE] = UUIDPGetDatum(request->workspace);
	nulls[REQ_SEAM_WORKSPACE] = request->workspace == NULL;
	values[REQ_REFERENCE] = reference;
	nulls[REQ_REFERENCE] = reference == (Datum) 0;
	if (target)
	{
		values[REQ_TARGET_TABLE] = ObjectIdGetDatum(target->table);
		values[REQ_TARGET_KEY] = target->key;
		values[REQ_TARGET_FIELDS] = target->fields;
		values[REQ_TARGET_HASH] = Int64GetDatum(target->hash);
		values[REQ_TARGET_COLUMNS] = target->columns;
		values[REQ_TARGET_NUMBERS] = target->numbers;
		values[REQ_TARGET_PARTITION] = ObjectIdGetDatum(target->partition);
		nulls[REQ_TARGET_TABLE] = nulls[REQ_TARGET_KEY] =
			nulls[REQ_TARGET_FIELDS] = nulls[REQ_TARGET_HASH] =
			nulls[REQ_TARGET_COLUMNS] = nulls[REQ_TARGET_NUMBERS] = false;
		nulls[REQ_TARGET_PARTITION] = !OidIsValid(target->partition);
	}
	if (stay)
		put_stay(stay, values, nulls);
	return insert_new(values, nulls);
}

/*
 * The table of requests, open to be written to in this transaction.  Raises what
 * begin_insertion() raises.
 */
Relation
outbox_table(Outbox *outbox)
{
	begin_insertion(outbox);
	return insertion->rows.table;
}

/*
 * The number of a column of the table that outbox_table() has opened.
 */
AttrNumber
outbox_column(int column)
{
	return insertion->rows.numbers[column];
}

/*
 * The type of keys in the table that outbox_table() has opened.
 */
TupleDesc
outbox_key_desc(void)
{
	if (insertion->key_desc == NULL)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(insertion->rows.table),
											  insertion->rows.numbers[REQ_INSTANT_KEY] - 1);
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		insertion->key_desc = lookup_rowtype_tupdesc_copy(att->atttypid, -1);
		MemoryContextSwitchTo(old);
	}
	return insertion->key_desc;
}

/*
 * Change columns of a request that is locked, past the executor: those that replaces says.
 */
void
outbox_update(TupleTableSlot *row, const Datum *values, const bool *nulls, const bool *replaces)
{
	inserting_in = GetCurrentSubTransactionId();
	insertion_update(&insertion->rows, row, values, nulls, replaces);
	inserting_in = InvalidSubTransactionId;
	places_wake_at_commit(false);
}

/*
 * Have a key revoked that no request has issued, in this workspace (or NULL).
 */
void
outbox_revoke_key(Outbox *outbox, const pg_uuid_t *key, const pg_uuid_t *workspace)
{
	Datum		values[REQ_NCOLUMNS];
	bool		nulls[REQ_NCOLUMNS];
	Datum	   *key_values;
	bool	   *key_nulls;

	memset(nulls, true, sizeof(nulls));
	begin_insertion(outbox);
	(void) outbox_key_desc();
	values[REQ_STATUS] = insertion->revoking;
	values[REQ_SEAM_WORKSPACE] = UUIDPGetDatum(workspace);
	nulls[REQ_SEAM_WORKSPACE] = workspace == NULL;
	key_values = palloc0(insertion->key_desc->natts * sizeof(Datum));
	key_nulls = palloc(insertion->key_desc->natts * sizeof(bool));
	memset(key_nulls, true, insertion->key_desc->natts * sizeof(bool));
	key_values[0] = UUIDPGetDatum(key);
	key_nulls[0] = false;
	values[REQ_INSTANT_KEY] = heap_copy_tuple_as_datum(heap_form_tuple(insertion->key_desc,
																	   key_values, key_nulls),
													   insertion->key_desc);
	nulls[REQ_INSTANT_KEY] = false;
	(void) insert_new(values, nulls);
}

/*
 * Have the outbox open for what synchronous calls issue, and locked until the
 * transaction ends: what could fail when there is a key fails now.  Raises what
 * begin_insertion() raises.
 */
void
outbox_open_for_calls(Outbox *outbox)
{
	begin_insertion(outbox);
	(void) outbox_key_desc();
	key_check_type(insertion->key_desc);
}

/*
 * Returns the id of a request that is to be inserted by outbox_insert_call().
 */
int64
outbox_draw_id(Outbox *outbox)
{
	begin_insertion(outbox);
	return nextval_internal(insertion->sequence, false);
}

/*
 * The key of a synchronous call for the table, without the URL, which its caller has, and
 * without the customization.
 */
static Datum
call_key(const SeamKey *key)
{
	SeamKey		bare = *key;
	Datum		values[KEY_NCOLUMNS];
	bool		nulls[KEY_NCOLUMNS];

	bare.customization = NULL;
	bare.instant_key_url = "";
	key_values(&bare, values, nulls);
	nulls[KEY_INSTANT_KEY_URL] = true;
	return heap_copy_tuple_as_datum(heap_form_tuple(insertion->key_desc, values, nulls),
									insertion->key_desc);
}

/*
 * Insert the request for what a synchronous call has issued, or may have, in this
 * (sub)transaction, which will commit durably: the client that is told of the key must
 * be right.  It is never sent; what was lost is settled after the commit.
 */
void
outbox_insert_call(Outbox *outbox, const CallRequest *call)
{
	Datum		values[REQ_NCOLUMNS];
	bool		nulls[REQ_NCOLUMNS];
	const SeamRequest *request = call->request;

	memset(nulls, true, sizeof(nulls));
	begin_insertion(outbox);
	values[REQ_REQUEST_ID] = Int64GetDatum(call->id);
	values[REQ_USER_IDENTITY_ID] = UUIDPGetDatum(request->user_identity_id);
	values[REQ_MAX_USE_COUNT] = Int32GetDatum(request->max_use_count);
	values[REQ_CUSTOMIZATION_PROFILE_ID] = UUIDPGetDatum(request->customization_profile_id);
	values[REQ_ATTEMPTS] = Int32GetDatum(1);
	values[REQ_ATTEMPTED_AT] = TimestampTzGetDatum(call->attempted_at);
	values[REQ_ATTEMPT_TIMEOUT] = Int32GetDatum(call->attempt_timeout);
	values[REQ_SEAM_TIME] = TimestampTzGetDatum(call->seam_time);
	values[REQ_TIMELINE_ID] = Int32GetDatum((int32) GetWALInsertionTimeLine());
	values[REQ_TRANSACTION_ID] = FullTransactionIdGetDatum(GetCurrentFullTransactionId());
	values[REQ_ACCOUNT] = Int64GetDatum((int64) call->account->account);
	values[REQ_API_KEY_HASH] = Int64GetDatum((int64) call->account->api_key);
	values[REQ_CALL_ID] = UUIDPGetDatum(call->call_id);
	nulls[REQ_USER_IDENTITY_ID] = nulls[REQ_ATTEMPTED_AT] = nulls[REQ_ATTEMPT_TIMEOUT] =
		nulls[REQ_TIMELINE_ID] = nulls[REQ_TRANSACTION_ID] = nulls[REQ_ACCOUNT] =
		nulls[REQ_API_KEY_HASH] = nulls[REQ_CALL_ID] = false;
	nulls[REQ_MAX_USE_COUNT] = request->max_use_count == 0;
	nulls[REQ_CUSTOMIZATION_PROFILE_ID] = request->customization_profile_id == NULL;
	values[REQ_SEAM_WORKSPACE] = UUIDPGetDatum(request->workspace);
	nulls[REQ_SEAM_WORKSPACE] = request->workspace == NULL;
	nulls[REQ_SEAM_TIME] = !call->has_seam_time;
	if (call->seam_request_id)
	{
		values[REQ_SEAM_REQUEST_ID] = CStringGetTextDatum(call->seam_request_id);
		nulls[REQ_SEAM_REQUEST_ID] = false;
	}
	if (call->key)
	{
		values[REQ_STATUS] = insertion->issued;
		values[REQ_INSTANT_KEY] = call_key(call->key);
		values[REQ_FINISHED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
		nulls[REQ_INSTANT_KEY] = nulls[REQ_FINISHED_AT] = false;
	}
	else
	{
		values[REQ_STATUS] = insertion->in_flight;
		values[REQ_NEXT_ATTEMPT_AT] = TimestampTzGetDatum(call->attempted_at +
														  (int64) call->attempt_timeout * 1000);
		values[REQ_SQLSTATE] = insertion->lost;
		values[REQ_ERROR] = CStringGetTextDatum(call->error);
		nulls[REQ_NEXT_ATTEMPT_AT] = nulls[REQ_SQLSTATE] = nulls[REQ_ERROR] = false;
		places_wake_at_commit(true);
	}
	ForceSyncCommit();
	insert_row(values, nulls);
}
