/*-------------------------------------------------------------------------
 *
 * stays.c
 *	  The requests of a stay, as a session reads and changes them.
 *
 * A trigger may do so for each row of a large UPDATE, and who makes that needs no privilege
 * on the table.  So it is done past the executor, like the insertion of a request.  The
 * requests of a row are found by the hash of its primary key, as the latest snapshot shows
 * them; those that are alive are locked then, and read again as they are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "outbox/key.h"
#include "outbox/stays.h"
#include "shmem/places.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* Values for columns of a request. */
typedef struct StayValues
{
	Datum		values[REQ_NCOLUMNS];
	bool		nulls[REQ_NCOLUMNS];
	bool		replaces[REQ_NCOLUMNS];
} StayValues;

static const char *const end_names[] = {
	[STAY_OVER] = "over",[STAY_UNWANTED] = "unwanted",[STAY_CANCELLED] = "cancelled",
	[STAY_LEFT] = "left",
};

/* What tells the requests that are looked for. */
typedef struct Search
{
	/* the row, or NULL */
	const StayRow *row;
	/* without a row: the stay of this request */
	int64		id;
} Search;

/*
 * A column's value in the slot of a request; NULL where the table does not have the column.
 */
static Datum
value_of(TupleTableSlot *slot, int column, bool *isnull)
{
	AttrNumber	number = outbox_column(column);

	*isnull = true;
	return number == InvalidAttrNumber ? (Datum) 0 : slot_getattr(slot, number, isnull);
}

/*
 * Is this text the value?
 */
static bool
text_is(Datum value, const char *expected)
{
	const		text *found = DatumGetTextPP(value);
	size_t		length = strlen(expected);

	return VARSIZE_ANY_EXHDR(found) == length &&
		memcmp(VARDATA_ANY(found), expected, length) == 0;
}

/*
 * Is this array's value, or jsonb's, the one in the slot?
 */
static bool
is_same(TupleTableSlot *slot, int column, Datum value)
{
	bool		isnull;
	Datum		found = value_of(slot, column, &isnull);

	return !isnull && datum_image_eq(found, value, false, -1);
}

/*
 * Is the request for this user identity?
 */
bool
stays_is_for(const StayRequest *request, const pg_uuid_t *identity)
{
	bool		isnull;
	Datum		found = value_of(request->slot, REQ_USER_IDENTITY_ID, &isnull);

	return !isnull && memcmp(DatumGetUUIDP(found), identity, UUID_LEN) == 0;
}

/* Whose a request of the row is, by the column that showed its key when it was made. */
typedef enum Maker
{
	MAKER_OTHER,				/* another trigger's, which the table has */
	MAKER_GONE,					/* none's that the table has now */
	MAKER_THIS					/* the trigger's that looks for it */
} Maker;

/*
 * Which trigger has made a request of the row?
 */
static Maker
maker_of(TupleTableSlot *slot, const StayRow *row)
{
	bool		isnull;
	Datum		fields = value_of(slot, REQ_TARGET_FIELDS, &isnull);
	Maker		maker = MAKER_GONE;
	Datum	   *field;
	int			n;

	if (isnull)
		return MAKER_OTHER;
	if (datum_image_eq(fields, row->target->fields, false, -1))
		return MAKER_THIS;
	deconstruct_array(DatumGetArrayTypeP(fields), TEXTOID, -1, false, TYPALIGN_INT, &field, NULL,
					  &n);
	for (int i = 0; i < n; i++)
	{
		ListCell   *lc;

		if (text_is(field[i], row->slot))
			return MAKER_THIS;
		foreach(lc, row->slots)
		{
			if (text_is(field[i], lfirst(lc)))
				maker = MAKER_OTHER;
		}
	}
	return maker;
}

/*
 * Is the request, which has the same hash, of the stay that is looked for?
 */
static bool
is_found(TupleTableSlot *slot, const Search *search, int64 origin)
{
	const Target *target = search->row ? search->row->target : NULL;
	bool		is_copy;
	bool		isnull;
	Datum		value;

	(void) value_of(slot, REQ_STAY_ID, &isnull);
	if (isnull)
		return false;
	value = value_of(slot, REQ_TARGET_TABLE, &isnull);
	if (target == NULL)
		return true;
	if (isnull || DatumGetObjectId(value) != target->table ||
		!is_same(slot, REQ_TARGET_KEY, target->key))
		return false;
	/* in a copy that was not adopted columns may have other numbers */
	is_copy = DatumGetInt64(value_of(slot, REQ_ORIGIN, &isnull)) != origin;
	(void) value_of(slot, REQ_TARGET_NUMBERS, &isnull);
	if (!isnull && !is_copy && !is_same(slot, REQ_TARGET_NUMBERS, target->numbers))
		return false;
	if (isnull || is_copy)
	{
		(void) value_of(slot, REQ_TARGET_COLUMNS, &isnull);
		if (!isnull && !is_same(slot, REQ_TARGET_COLUMNS, target->columns))
			return false;
	}
	return true;
}

/*
 * How far has a request come that has this status?
 */
static StayPhase
phase_of(Datum status)
{
	if (text_is(status, "pending"))
		return STAY_WAITS;
	if (text_is(status, "in_flight"))
		return STAY_FLIES;
	if (text_is(status, "issued"))
		return STAY_HAS_KEY;
	return text_is(status, "failed") ? STAY_FAILED : STAY_ENDED;
}

/*
 * Read what the slot of a request says.
 */
static void
read_request(StayRequest *request)
{
	TupleTableSlot *slot = request->slot;
	StayFacts  *facts = &request->facts;
	bool		isnull;
	Datum		value;

	memset(facts, 0, sizeof(StayFacts));
	request->id = DatumGetInt64(value_of(slot, REQ_REQUEST_ID, &isnull));
	request->stay_id = DatumGetInt64(value_of(slot, REQ_STAY_ID, &isnull));
	value = value_of(slot, REQ_SUCCESSOR_ID, &isnull);
	request->successor_id = isnull ? 0 : DatumGetInt64(value);
	facts->phase = phase_of(value_of(slot, REQ_STATUS, &isnull));
	value = value_of(slot, REQ_STAY_END, &isnull);
	for (int e = STAY_OVER; !isnull && e <= STAY_LEFT; e++)
	{
		if (text_is(value, end_names[e]))
			facts->end = e;
	}
	value = value_of(slot, REQ_SQLSTATE, &isnull);
	request->reported = !isnull && facts->phase == STAY_FAILED && text_is(value, "08007");
	value = value_of(slot, REQ_ISSUE_AT, &isnull);
	facts->issue_at = isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
	value = value_of(slot, REQ_VALID_UNTIL, &isnull);
	facts->valid_until = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	value = value_of(slot, REQ_IS_RENEWAL, &isnull);
	facts->is_renewal = !isnull && DatumGetBool(value);
	(void) value_of(slot, REQ_NEXT_ATTEMPT_AT, &isnull);
	facts->is_queued = !isnull;
	value = value_of(slot, REQ_ROW_TASK, &isnull);
	facts->is_looked_at = !isnull && text_is(value, "look");
	(void) value_of(slot, REQ_LOOK_AGAIN_AT, &isnull);
	facts->is_looked_for = !isnull;
	(void) value_of(slot, REQ_TARGET_TABLE, &isnull);
	facts->has_row = !isnull;
	value = value_of(slot, REQ_REFERENCE, &isnull);
	request->reference = isnull ? (Datum) 0 : value;
	value = value_of(slot, REQ_ENQUEUED_BY, &isnull);
	request->enqueued_by = isnull ? (Datum) 0 : value;
	value = value_of(slot, REQ_INSTANT_KEY, &isnull);
	request->has_key = false;
	facts->created_at = facts->expires_at = DT_NOEND;
	if (!isnull)
	{
		HeapTupleHeader key = DatumGetHeapTupleHeader(value);
		HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(key),.t_data = key};
		TupleDesc	desc = outbox_key_desc();

		value = heap_getattr(&tuple, KEY_INSTANT_KEY_ID + 1, desc, &isnull);
		request->has_key = !isnull;
		if (!isnull)
			request->key = *DatumGetUUIDP(value);
		value = heap_getattr(&tuple, KEY_CREATED_AT + 1, desc, &isnull);
		if (!isnull)
			facts->created_at = DatumGetTimestampTz(value);
		value = heap_getattr(&tuple, KEY_EXPIRES_AT + 1, desc, &isnull);
		if (!isnull)
			facts->expires_at = DatumGetTimestampTz(value);
	}
}

/*
 * qsort comparator: requests by id.
 */
static int
by_id(const void *a, const void *b)
{
	int64		x = ((const StayRequest *) a)->id;
	int64		y = ((const StayRequest *) b)->id;

	return x < y ? -1 : x > y;
}

/*
 * Begin to scan the requests of a hash.  key is memory for the scan.
 */
static SysScanDesc
begin_scan(Outbox *outbox, Relation table, int64 hash, Snapshot snapshot, ScanKeyData * key)
{
	Oid			index = get_relname_relid("seam_instant_key_request_target", outbox->schema);

	ScanKeyInit(key, outbox_column(REQ_TARGET_HASH), BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(hash));
	return systable_beginscan(table, index, OidIsValid(index), snapshot, 1, key);
}

/*
 * Is there any request whose target_hash this is?  Costs little where there is none.
 */
bool
stays_may_be_of(Outbox *outbox, int64 hash)
{
	ScanKeyData key;
	SysScanDesc scan = begin_scan(outbox, outbox_table(outbox), hash, SnapshotSelf, &key);
	bool		found = HeapTupleIsValid(systable_getnext(scan));

	systable_endscan(scan);
	return found;
}

/*
 * Find the requests of a hash that are looked for.
 */
static void
find(Relation table, int64 hash, const Search *search, Snapshot snapshot, Stay *stay)
{
	TupleTableSlot *slot = NULL;
	int			size = 4;
	ScanKeyData key;
	SysScanDesc scan = begin_scan(stay->outbox, table, hash, snapshot, &key);
	HeapTuple	tuple;

	stay->n = 0;
	stay->requests = palloc(size * sizeof(StayRequest));
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (slot == NULL)
			slot = table_slot_create(table, NULL);
		ExecForceStoreHeapTuple(tuple, slot, false);
		slot->tts_tid = tuple->t_self;
		if (!is_found(slot, search, stay->outbox->origin))
			continue;
		if (stay->n == size)
			stay->requests = repalloc(stay->requests, (size *= 2) * sizeof(StayRequest));
		stay->requests[stay->n].slot = slot;
		read_request(&stay->requests[stay->n++]);
		slot = NULL;
	}
	systable_endscan(scan);
	if (slot)
		ExecDropSingleTupleTableSlot(slot);
	if (stay->n > 1)
		qsort(stay->requests, stay->n, sizeof(StayRequest), by_id);
}

/*
 * Keep those that are of this stay, or for the guest: others may have the same hash, or be
 * of a row that had the same primary key before.
 */
static void
keep_stay(Stay *stay, int64 stay_id, const pg_uuid_t *guest)
{
	int			n = 0;

	for (int i = 0; i < stay->n; i++)
	{
		if (stay->requests[i].stay_id == stay_id ||
			(guest && stays_is_for(&stay->requests[i], guest)))
			stay->requests[n++] = stay->requests[i];
		else
			ExecDropSingleTupleTableSlot(stay->requests[i].slot);
	}
	stay->n = n;
}

/*
 * The stay that is looked for: of this request, or the newest one that the trigger has made
 * for the row; 0: there is none.  Where the column that shows the key had another name, it is
 * the newest one of the row's guest.
 */
static int64
stay_id_of(const Stay *stay, const Search *search)
{
	const StayRow *row = search->row;
	int64		of_guest = 0;
	int64		stay_id = 0;

	for (int i = 0; i < stay->n; i++)
	{
		const StayRequest *request = &stay->requests[i];
		Maker		maker = row ? maker_of(request->slot, row) : MAKER_THIS;

		if (maker == MAKER_THIS && (row || request->id == search->id))
			stay_id = request->stay_id;
		else if (maker == MAKER_GONE && row->guest && stays_is_for(request, row->guest))
			of_guest = request->stay_id;
	}
	return stay_id != 0 ? stay_id : of_guest;
}

/*
 * Lock a request, and read it as it is now.  Returns false when it is gone.
 */
static bool
lock(Relation table, Snapshot snapshot, StayRequest *request)
{
	ItemPointerData tid = request->slot->tts_tid;
	TM_FailureData failure;

	if (table_tuple_lock(table, &tid, snapshot, request->slot, GetCurrentCommandId(true),
						 LockTupleNoKeyExclusive, LockWaitBlock,
						 TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure) != TM_Ok)
		return false;
	read_request(request);
	return true;
}

/*
 * Find the requests of a stay, and lock the newest and those that are alive.  Another
 * session, or the worker, may have changed them before they could be locked, and the newest
 * may have got a successor: then they are looked for anew.
 */
static void
find_and_lock(Outbox *outbox, int64 hash, const Search *search, Stay *stay)
{
	Relation	table = outbox_table(outbox);
	const StayRow *row = search->row;
	bool		changed;

	stay->outbox = outbox;
	stay->newest = palloc0(sizeof(StayValues));
	stay->has_changed = false;
	do
	{
		Snapshot	snapshot;

		CommandCounterIncrement();
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		find(table, hash, search, snapshot, stay);
		keep_stay(stay, stay_id_of(stay, search), row && row->is_gone ? row->guest : NULL);
		changed = false;
		for (int i = 0; i < stay->n && !changed; i++)
		{
			StayRequest *request = &stay->requests[i];
			StayPhase	phase = request->facts.phase;

			if (i == stay->n - 1 || phase == STAY_WAITS || phase == STAY_FLIES ||
				phase == STAY_HAS_KEY)
				changed = !lock(table, snapshot, request);
		}
		if (stay->n > 0 && stay->requests[stay->n - 1].successor_id != 0)
			changed = true;
		UnregisterSnapshot(snapshot);
		if (changed)
			stays_release(stay);
	} while (changed);
}

/*
 * The requests of a row of a user's table, of the trigger that looks for them.  Of a row that
 * is gone, all that it had for this guest as well, as if they were of one stay: another
 * trigger may have made them.  To be given back by stays_release().
 */
void
stays_of_row(Outbox *outbox, const StayRow *row, Stay *stay)
{
	Search		search = {.row = row};

	find_and_lock(outbox, row->target->hash, &search, stay);
}

/*
 * The requests of the stay that this request is of, whose target_hash this is.  Returns
 * false when it is of none.  To be given back by stays_release() if it is.
 */
bool
stays_of_request(Outbox *outbox, int64 id, int64 hash, Stay *stay)
{
	Search		search = {.id = id};

	find_and_lock(outbox, hash, &search, stay);
	return stay->n > 0;
}

/*
 * Give back what stays_of_row() or stays_of_request() has taken, but for the locks.
 */
void
stays_release(Stay *stay)
{
	for (int i = 0; i < stay->n; i++)
		ExecDropSingleTupleTableSlot(stay->requests[i].slot);
	stay->n = 0;
}

/*
 * The newest request of a stay, or NULL where it has none.
 */
const StayRequest *
stays_newest(const Stay *stay)
{
	return stay->n > 0 ? &stay->requests[stay->n - 1] : NULL;
}

/*
 * What does a row show that shows this key, or NULL?
 */
StayShows
stays_shows(const Stay *stay, const pg_uuid_t *shown)
{
	if (shown == NULL)
		return STAY_SHOWS_NOTHING;
	for (int i = stay->n - 1; i >= 0; i--)
	{
		const StayRequest *request = &stay->requests[i];

		if (request->has_key && memcmp(&request->key, shown, UUID_LEN) == 0)
			return i == stay->n - 1 ? STAY_SHOWS_NEWEST : STAY_SHOWS_FORMER;
	}
	return STAY_SHOWS_OTHER;
}

/* ---------- changes ---------- */

/*
 * Put a value, or NULL, into a change.
 */
static void
set(StayValues *change, int column, Datum value, bool isnull)
{
	change->values[column] = value;
	change->nulls[column] = isnull;
	change->replaces[column] = true;
}

static void
set_null(StayValues *change, int column)
{
	set(change, column, (Datum) 0, true);
}

static void
set_text(StayValues *change, int column, const char *text)
{
	set(change, column, CStringGetTextDatum(text), false);
}

static void
set_time(StayValues *change, int column, TimestampTz time)
{
	set(change, column, TimestampTzGetDatum(time), false);
}

/*
 * Change a request that is locked.
 */
static void
apply(StayRequest *request, const StayValues *change)
{
	outbox_update(request->slot, change->values, change->nulls, change->replaces);
}

/*
 * The change of the newest request, which stays_apply() carries out.
 */
static StayValues *
change_newest(Stay *stay)
{
	stay->has_changed = true;
	return stay->newest;
}

/*
 * Put into a change that no key of the request is to live, if one may.  Returns whether
 * that changes anything.
 */
static bool
set_revoked(const StayRequest *request, StayValues *change)
{
	switch (request->facts.phase)
	{
		case STAY_WAITS:
			set_text(change, REQ_STATUS, "cancelled");
			set_time(change, REQ_FINISHED_AT, GetCurrentTransactionStartTimestamp());
			/* the writer is to tell the listeners */
			set_time(change, REQ_NEXT_ATTEMPT_AT, DT_NOBEGIN);
			places_wake_writer_at_commit();
			break;
		case STAY_HAS_KEY:
		case STAY_FLIES:
			/* what is in flight is looked for when its time has come */
			if (request->facts.phase == STAY_HAS_KEY)
			{
				set(change, REQ_ATTEMPTS, Int32GetDatum(0), false);
				set_time(change, REQ_NEXT_ATTEMPT_AT, DT_NOBEGIN);
			}
			set_text(change, REQ_STATUS, "revoking");
			set_null(change, REQ_FINISHED_AT);
			set_null(change, REQ_SQLSTATE);
			set_null(change, REQ_ERROR);
			set_null(change, REQ_DISMISSED_AT);
			break;
		default:
			return false;
	}
	set_null(change, REQ_WAKE_AT);
	set_null(change, REQ_ROW_TASK);
	set_null(change, REQ_ROW_TASK_AT);
	return true;
}

/*
 * Has the key of the request expired before another one of its stay was issued?  By Seam's
 * clock, which has told both.
 */
static bool
has_expired(const Stay *stay, const StayRequest *request)
{
	if (request->facts.phase != STAY_HAS_KEY)
		return false;
	for (int i = 0; i < stay->n; i++)
	{
		const StayRequest *other = &stay->requests[i];

		if (other->has_key && other->facts.created_at != DT_NOEND &&
			other->facts.created_at >= request->facts.expires_at)
			return true;
	}
	return false;
}

/*
 * Have every key revoked that is not of the newest request.
 */
void
stays_revoke_formers(Stay *stay)
{
	for (int i = 0; i < stay->n - 1; i++)
	{
		StayValues	change = {0};

		if (has_expired(stay, &stay->requests[i]) || !set_revoked(&stay->requests[i], &change))
			continue;
		apply(&stay->requests[i], &change);
		/* it is done, also where that is wanted twice */
		stay->requests[i].facts.phase = STAY_ENDED;
	}
}

/*
 * Put into a change that the row is not to show a key of the stay any more.
 */
static void
clear_row(StayValues *change)
{
	set_text(change, REQ_ROW_TASK, "clear");
	set_time(change, REQ_ROW_TASK_AT, DT_NOBEGIN);
	places_wake_writer_at_commit();
}

/*
 * Have every key of the stay revoked, and what waits cancelled, and note why; clear: the
 * row shows one of them, and is not to.  keep: the newest request is kept until the stay
 * would be over.
 */
void
stays_stop(Stay *stay, StayEnd end, bool clear, bool keep)
{
	StayRequest *newest = &stay->requests[stay->n - 1];
	StayValues *change = change_newest(stay);

	stays_revoke_formers(stay);
	(void) set_revoked(newest, change);
	set_text(change, REQ_STAY_END, end_names[end]);
	if (keep)
		set_time(change, REQ_WAKE_AT, newest->facts.valid_until);
	else
		set_null(change, REQ_WAKE_AT);
	if (clear)
		clear_row(change);
}

/*
 * Ask for a key for the row, as the successor of the newest request, if there is one:
 * whatever else of the stay is alive is revoked.  Fills in what of *what the successor
 * inherits.  Returns the id of the request.
 */
int64
stays_ask(Stay *stay, const SeamRequest *request, const Target *target, OutboxStay *what)
{
	StayRequest *newest = stay->n > 0 ? &stay->requests[stay->n - 1] : NULL;
	StayValues *change;
	int64		id;

	if (newest == NULL)
		return outbox_enqueue(stay->outbox, request, (Datum) 0, target, what);
	what->id = newest->stay_id;
	what->enqueued_by = newest->enqueued_by;
	id = outbox_enqueue(stay->outbox, request, newest->reference, target, what);
	stays_revoke_formers(stay);
	change = change_newest(stay);
	(void) set_revoked(newest, change);
	set(change, REQ_SUCCESSOR_ID, Int64GetDatum(id), false);
	/* the successor is kept in its place */
	set_null(change, REQ_WAKE_AT);
	set_null(change, REQ_ROW_TASK);
	set_null(change, REQ_ROW_TASK_AT);
	/* until that has a key the row is not to show one that is dead */
	if (what->replaces && what->issue_at > GetCurrentTimestamp())
		clear_row(change);
	return id;
}

/*
 * The newest request, which waits, is for this identity and of these terms from now on.
 * shown: the key that the row shows, or NULL.
 */
void
stays_follow(Stay *stay, const SeamRequest *request, const pg_uuid_t *shown)
{
	StayRequest *newest = &stay->requests[stay->n - 1];
	StayValues *change = change_newest(stay);

	set(change, REQ_USER_IDENTITY_ID, UUIDPGetDatum(request->user_identity_id), false);
	set(change, REQ_MAX_USE_COUNT, Int32GetDatum(request->max_use_count),
		request->max_use_count == 0);
	set(change, REQ_CUSTOMIZATION_PROFILE_ID, UUIDPGetDatum(request->customization_profile_id),
		request->customization_profile_id == NULL);
	set(change, REQ_SEAM_WORKSPACE, UUIDPGetDatum(request->workspace), request->workspace == NULL);
	set(change, REQ_REPLACES_KEY, UUIDPGetDatum(shown), shown == NULL);
	set(change, REQ_ATTEMPTS, Int32GetDatum(0), false);
	set_null(change, REQ_IS_RENEWAL);
	set_null(change, REQ_FORMER_EXPIRES_AT);
	set_null(change, REQ_SQLSTATE);
	set_null(change, REQ_ERROR);
	if (newest->facts.is_queued)
		set_time(change, REQ_NEXT_ATTEMPT_AT, DT_NOBEGIN);
}

/*
 * The stay has these dates from now on.  What is alive is looked at anew by the worker;
 * what waits for a time that is still to come, by the local clock, sleeps until then: the
 * worker, which goes by Seam's, wakes it at once if it has come.
 */
void
stays_set_dates(Stay *stay, TimestampTz issue_at, TimestampTz valid_until)
{
	StayRequest *newest = &stay->requests[stay->n - 1];
	StayFacts  *facts = &newest->facts;
	StayValues *change = change_newest(stay);
	TimestampTz wake_at = DT_NOBEGIN;

	if (facts->phase == STAY_WAITS && !facts->is_renewal && issue_at > GetCurrentTimestamp())
	{
		wake_at = Min(issue_at, valid_until);
		set_null(change, REQ_NEXT_ATTEMPT_AT);
		facts->is_queued = false;
		if (facts->is_looked_at)
		{
			set_null(change, REQ_ROW_TASK);
			set_null(change, REQ_ROW_TASK_AT);
		}
	}
	set(change, REQ_ISSUE_AT, TimestampTzGetDatum(issue_at), issue_at == DT_NOBEGIN);
	set(change, REQ_VALID_UNTIL, TimestampTzGetDatum(valid_until), valid_until == DT_NOEND);
	set_time(change, REQ_WAKE_AT, wake_at);
	facts->issue_at = issue_at;
	facts->valid_until = valid_until;
}

/*
 * Have the key of the newest request written to its row again.
 */
void
stays_write_again(Stay *stay)
{
	set_time(change_newest(stay), REQ_NEXT_ATTEMPT_AT, DT_NOBEGIN);
	places_wake_writer_at_commit();
}

/*
 * Carry out what was changed of the newest request.
 */
void
stays_apply(Stay *stay)
{
	if (stay->has_changed)
		apply(&stay->requests[stay->n - 1], stay->newest);
	stay->has_changed = false;
}
