/*-------------------------------------------------------------------------
 *
 * requests.c
 *	  What a session does with requests that are in the outbox: cancel, retry, and
 *	  read the result.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "config/settings.h"
#include "fmgr.h"
#include "session/functions.h"
#include "shmem/places.h"
#include "miscadmin.h"
#include "outbox/stays.h"
#include "session/outbox_session.h"
#include "session/requests.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(seam_delete_instant_key);
PG_FUNCTION_INFO_V1(seam_enqueue_instant_key);
PG_FUNCTION_INFO_V1(seam_instant_key_request_result);
PG_FUNCTION_INFO_V1(seam_cancel_instant_key_request);
PG_FUNCTION_INFO_V1(seam_retry_instant_key_request);
PG_FUNCTION_INFO_V1(seam_cancel_instant_key_requests);
PG_FUNCTION_INFO_V1(seam_retry_instant_key_requests);

/* The longest reference, in bytes; the table has the same as a constraint. */
#define MAX_REFERENCE 200

typedef enum StatementId
{
	ST_LOCK,
	ST_READ,
	ST_LOCK_KEY,
	ST_WORKSPACE,
	ST_LOCK_UNFINISHED,
	ST_LOCK_IN_TROUBLE,
	ST_RESULT,
	ST_CANCEL,
	ST_DISMISS,
	ST_REVOKE,
	ST_RETRY,
	ST_WRITE_AGAIN,
	ST_COUNT
} StatementId;

/*
 * Our requests, $1 the origin, with the SQLSTATE $2, if that is not NULL, that were tried
 * since $3, or enqueued and never tried.
 */
#define MATCHES \
	" origin = $1 AND ($2 IS NULL OR sqlstate = $2)" \
	" AND ($3 IS NULL OR coalesce(attempted_at, enqueued_at) >= $3)"

/* Of these, those that have failed, or whose keys could not be written. */
#define SELECT_IN_TROUBLE \
	"SELECT request_id FROM %r WHERE status IN ('failed', 'issued') AND error IS NOT NULL" \
	" AND dismissed_at IS NULL AND" MATCHES

/* In the order of their ids, as everybody locks requests. */
#define LOCK_ALL(ids) \
	"SELECT request_id, status, stay_id, sqlstate, target_hash FROM %r" \
	" WHERE request_id = ANY (ARRAY(" ids ")) ORDER BY request_id FOR UPDATE"

/*
 * The statements; %r is the table of requests, %c that of calls, and %{ and %} are around
 * what the first may not know of.  What they make due of a request that came along with
 * a copy waits all the same until it is adopted.
 */
static Statement statements[ST_COUNT] =

{
	[ST_LOCK] = {
		"SELECT request_id, status, stay_id, sqlstate, target_hash"
		" FROM %r WHERE request_id = $1 FOR UPDATE",
		{INT8OID}
	},
	[ST_READ] = {
		"SELECT request_id, status, stay_id, sqlstate, target_hash FROM %r WHERE request_id = $1",
		{INT8OID}
	},
	[ST_LOCK_KEY] = {
		"SELECT request_id, status, NULL::int8, sqlstate, NULL::int8"
		" FROM %r WHERE (instant_key).instant_key_id = $1 FOR UPDATE",
		{UUIDOID}
	},
	[ST_WORKSPACE] = {
		"SELECT seam_workspace FROM %r WHERE (instant_key).instant_key_id = $1"
		" AND seam_workspace IS NOT NULL",
		{UUIDOID}
	},
	[ST_LOCK_UNFINISHED] = {
		LOCK_ALL("SELECT request_id FROM %r WHERE status IN ('pending', 'in_flight')"
				 " AND next_attempt_at IS NOT NULL AND" MATCHES " UNION ALL " SELECT_IN_TROUBLE),
		{INT8OID, TEXTOID, TIMESTAMPTZOID}
	},
	[ST_LOCK_IN_TROUBLE] = {
		LOCK_ALL(SELECT_IN_TROUBLE),
		{INT8OID, TEXTOID, TIMESTAMPTZOID}
	},
	[ST_RESULT] = {
		/* the newest key of its stay, where it is of one: also a dead one */
		"SELECT coalesce(k.instant_key, r.instant_key), coalesce(k.status, r.status), "
		"r.enqueued_by, r.system_identifier"
		" FROM %r r LEFT JOIN LATERAL (SELECT instant_key, status FROM %r s"
		" WHERE s.target_hash = r.target_hash AND s.stay_id = r.stay_id AND s.status IN ('issued', "
		"'revoking', 'revoked')"
		" ORDER BY s.request_id DESC LIMIT 1) k ON true WHERE r.request_id = $1",
		{INT8OID}
	},
	[ST_CANCEL] = {
		/* next_attempt_at: the writer is to tell the listeners */
		"UPDATE %r SET status = 'cancelled', finished_at = now(), next_attempt_at = '-infinity'"
		" WHERE request_id = $1",
		{INT8OID}
	},
	[ST_DISMISS] = {
		"UPDATE %r SET dismissed_at = now() WHERE request_id = $1",
		{INT8OID}
	},
	[ST_REVOKE] = {
		/* what is in flight is looked for when its time has come */
		"UPDATE %r SET status = 'revoking', finished_at = NULL, sqlstate = NULL, error = NULL, "
		"dismissed_at = NULL,"
		" attempts = CASE WHEN status IN ('issued', 'failed') THEN 0 ELSE attempts END,"
		" next_attempt_at = CASE WHEN status IN ('issued', 'failed') THEN '-infinity' ELSE "
		"next_attempt_at END"
		" WHERE request_id = $1",
		{INT8OID}
	},
	[ST_RETRY] = {
		/*
		 * What may have a key that nobody wants is to be revoked.  What is
		 * reported may have one that is not known: it is looked for, with the
		 * account that we have now, and asked for again if there is none.
		 * Timeline 0: whose a guest's keys are was known only for a while, so
		 * what is found is reported.  What a call asked for is never sent
		 * again: it is only looked for.  Nor is anything sent for a stay that
		 * has ended, or whose newest request is another one.
		 */
		"UPDATE %r SET status = CASE WHEN (transaction_id IS NOT NULL AND call_id IS NULL) OR "
		"(instant_key).instant_key_id IS NOT NULL THEN 'revoking'"
		" WHEN successor_id IS NOT NULL OR stay_end IS NOT NULL THEN 'revoking'"
		" WHEN sqlstate = '08007' OR call_id IS NOT NULL THEN 'in_flight' ELSE 'pending' END,"
		" attempts = 0, finished_at = NULL, dismissed_at = NULL, next_attempt_at = '-infinity',"
		" former_expires_at = CASE WHEN former_expires_at > clock_timestamp() THEN "
		"former_expires_at END,"
		" wake_at = CASE WHEN wake_at IS NOT NULL THEN '-infinity'::timestamptz END,"
		" account = CASE WHEN (sqlstate = '08007' OR call_id IS NOT NULL) AND (transaction_id IS "
		"NULL OR call_id IS NOT NULL) AND (instant_key).instant_key_id IS NULL THEN NULL ELSE "
		"account END,"
		" timeline_id = CASE WHEN (sqlstate = '08007' OR call_id IS NOT NULL) AND "
		"(instant_key).instant_key_id IS NULL THEN 0 ELSE timeline_id END"
		" WHERE request_id = $1 AND (sqlstate = '08007' OR (instant_key).instant_key_id IS NOT NULL"
		" OR (successor_id IS NULL AND stay_end IS NULL))",
		{INT8OID}
	},
	[ST_WRITE_AGAIN] = {
		/* the key of a call has no row: somebody accepts what was found */
		"UPDATE %r SET next_attempt_at = CASE WHEN call_id IS NULL THEN '-infinity'::timestamptz "
		"END, wake_at = CASE WHEN stay_id IS NOT NULL AND successor_id IS NULL THEN "
		"'-infinity'::timestamptz END,"
		" sqlstate = CASE WHEN call_id IS NULL THEN sqlstate END,"
		" error = CASE WHEN call_id IS NULL THEN error END WHERE request_id = $1",
		{INT8OID}
	},
};

/* A request that was read, and is locked unless it was only read. */
typedef struct Locked
{
	int64		id;				/* request_id */
	char	   *status;			/* palloc'd in SPI's context */
	int64		hash;			/* of the stay that it is of, or 0 */
	bool		has_stay;		/* it is of one */
	bool		has_sqlstate;	/* something went wrong with it */
	bool		reported;		/* it failed, and keys of it may be alive */
	bool		accepted_by_retry;	/* of a call: what was found after its
									 * answer was lost counts as its key then */
} Locked;

/*
 * Read a row of the statements that lock requests.
 */
static Locked
get_locked(uint64 row)
{
	Locked		locked;
	Datum		sqlstate;
	bool		isnull;
	bool		lost;

	locked.id = DatumGetInt64(outbox_session_column(row, 1, &isnull));
	locked.status = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 2);
	(void) outbox_session_column(row, 3, &isnull);
	locked.has_stay = !isnull;
	locked.hash = isnull ? 0 : DatumGetInt64(outbox_session_column(row, 5, &isnull));
	sqlstate = outbox_session_column(row, 4, &isnull);
	locked.has_sqlstate = !isnull;
	lost = !isnull && strcmp(TextDatumGetCString(sqlstate), "08007") == 0;
	locked.reported = lost && strcmp(locked.status, "failed") == 0;
	locked.accepted_by_retry = lost && strcmp(locked.status, "issued") == 0;
	return locked;
}

/*
 * Lock a request, or only read it.  Raises P0002 when there is none with this id.
 */
static Locked
get_request(Session *session, StatementId statement, int64 id)
{
	Datum		args[] = {Int64GetDatum(id)};

	outbox_session_execute(session, &statements[statement], args, NULL);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("there is no request " INT64_FORMAT " for an instant key", id)));
	return get_locked(0);
}

/*
 * Lock a request.  Raises P0002 when there is none with this id.
 */
static Locked
lock_request(Session *session, int64 id)
{
	return get_request(session, ST_LOCK, id);
}

/*
 * Ends that session; returns the status, which may be in SPI's context, as a text.
 */
static Datum
end_with_status(Session *session, const char *status)
{
	char		copy[NAMEDATALEN];

	strlcpy(copy, status, sizeof(copy));
	outbox_session_end(session);
	PG_RETURN_TEXT_P(cstring_to_text(copy));
}

/*
 * Have the key of a request that is locked revoked: returns its new status.
 */
static const char *
revoke_key(Session *session, const Locked *locked)
{
	Datum		args[] = {Int64GetDatum(locked->id)};

	outbox_session_execute(session, &statements[ST_REVOKE], args, NULL);
	places_wake_at_commit(false);
	return "revoking";
}

/*
 * Cancel a request that is locked: returns its new status, static or in SPI's
 * context.  What is reported stays so, whatever becomes of the row that it is for.
 */
static const char *
cancel(Session *session, const Locked *locked)
{
	Datum		args[] = {Int64GetDatum(locked->id)};

	if (locked->reported)
		return locked->status;
	if (strcmp(locked->status, "pending") == 0 || strcmp(locked->status, "failed") == 0)
	{
		outbox_session_execute(session, &statements[ST_CANCEL], args, NULL);
		places_wake_writer_at_commit();
		return "cancelled";
	}
	if (strcmp(locked->status, "in_flight") == 0 || strcmp(locked->status, "issued") == 0)
		return revoke_key(session, locked);
	return locked->status;
}

/*
 * Have a key revoked, whether a request has issued it or not: then it is of this workspace
 * (or NULL).
 */
void
requests_revoke_key(Outbox *outbox, const pg_uuid_t *key, const pg_uuid_t *workspace)
{
	Session		session = outbox_session_begin(outbox);
	Datum		args[] = {UUIDPGetDatum(key)};
	bool		known;

	outbox_session_execute(&session, &statements[ST_LOCK_KEY], args, NULL);
	known = SPI_processed > 0;
	if (known)
	{
		Locked		locked = get_locked(0);

		if (locked.reported)
			revoke_key(&session, &locked);
		else
			cancel(&session, &locked);
	}
	outbox_session_end(&session);
	if (!known)
		outbox_revoke_key(outbox, key, workspace);
}

/*
 * Reads the workspace that the key's request was given into *workspace.  Returns whether
 * there is one.
 */
static bool
find_workspace(Outbox *outbox, const pg_uuid_t *key, pg_uuid_t *workspace)
{
	Session		session = outbox_session_begin(outbox);
	Datum		args[] = {UUIDPGetDatum(key)};
	bool		isnull = true;

	outbox_session_execute(&session, &statements[ST_WORKSPACE], args, NULL);
	if (SPI_processed > 0)
		*workspace = *DatumGetUUIDP(outbox_session_column(0, 1, &isnull));
	outbox_session_end(&session);
	return !isnull;
}

/*
 * seam_delete_instant_key(instant_key_id uuid) RETURNS boolean, strict
 *
 * With an API key for several workspaces it is asked where the key was issued, as far as
 * the outbox knows: elsewhere Seam would say that there is none.
 */
Datum
seam_delete_instant_key(PG_FUNCTION_ARGS)
{
	SeamRequest request = {.op = SEAM_DELETE};
	SeamAccount account;
	SeamResult	result;
	pg_uuid_t	workspace;

	request.instant_key_id = PG_GETARG_UUID_P(0);
	settings_account(&account);
	if (seam_chooses_workspace(account.api_key) &&
		find_workspace(outbox_of_function(fcinfo->flinfo->fn_oid), request.instant_key_id,
					   &workspace))
		request.workspace = &workspace;
	functions_call(fcinfo->flinfo->fn_oid, &account, &request, NULL, NULL, &result);
	PG_RETURN_BOOL(result.deleted);
}

/*
 * seam_enqueue_instant_key(user_identity_id uuid, max_use_count int,
 *		customization_profile_id uuid, reference text, issue_at timestamptz,
 *		valid_until timestamptz, seam_workspace uuid) RETURNS bigint
 *
 * With a time it is for a stay, whose keys are renewed.  Raises 22023 when that ends before
 * it begins.
 */
Datum
seam_enqueue_instant_key(PG_FUNCTION_ARGS)
{
	SeamRequest request = {.op = SEAM_GENERATE};
	OutboxStay	stay = {.issue_at = DT_NOBEGIN,.valid_until = DT_NOEND};
	Datum		reference = (Datum) 0;
	bool		is_stay;

	request.user_identity_id = functions_user_identity(fcinfo, 0);
	request.max_use_count = functions_max_use_count(fcinfo, 1);
	if (!PG_ARGISNULL(2))
		request.customization_profile_id = PG_GETARG_UUID_P(2);
	if (!PG_ARGISNULL(3))
	{
		text	   *given = PG_GETARG_TEXT_PP(3);

		if (VARSIZE_ANY_EXHDR(given) > MAX_REFERENCE)
			ereport(ERROR,
					(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
					 errmsg("reference is longer than %d bytes", MAX_REFERENCE)));
		reference = PointerGetDatum(given);
	}
	if (!PG_ARGISNULL(4))
		stay.issue_at = PG_GETARG_TIMESTAMPTZ(4);
	if (!PG_ARGISNULL(5))
		stay.valid_until = PG_GETARG_TIMESTAMPTZ(5);
	if (stay.issue_at > stay.valid_until && stay.issue_at != DT_NOEND)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the stay ends before it begins")));
	request.workspace = functions_workspace(fcinfo, 6);
	is_stay = !PG_ARGISNULL(4) || !PG_ARGISNULL(5);
	PG_RETURN_INT64(outbox_enqueue(outbox_of_function(fcinfo->flinfo->fn_oid),
								   &request, reference, NULL, is_stay ? &stay : NULL));
}

/*
 * seam_instant_key_request_result(request_id bigint) RETURNS seam_instant_key,
 * strict
 *
 * NULL while there is no key, and when it is to be revoked.  Raises P0002 when
 * there is no such request, and 42501 when somebody else has enqueued it and
 * the caller may not read the table.
 */
Datum
seam_instant_key_request_result(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	Outbox	   *outbox = outbox_of_function(fcinfo->flinfo->fn_oid);
	MemoryContext caller = CurrentMemoryContext;
	Session		session = outbox_session_begin(outbox);
	Datum		args[] = {Int64GetDatum(id)};
	Datum		key;
	bool		no_key;
	bool		isnull;
	bool		own;

	outbox_session_execute(&session, &statements[ST_RESULT], args, NULL);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("there is no request " INT64_FORMAT " for an instant key", id)));
	own = DatumGetObjectId(outbox_session_column(0, 3, &isnull)) == session.as.user && !isnull &&
		DatumGetInt64(outbox_session_column(0, 4, &isnull)) == (int64) GetSystemIdentifier();
	if (!own && pg_class_aclcheck(outbox->table, session.as.user, ACL_SELECT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("request " INT64_FORMAT " for an instant key was enqueued by another "
						"role", id)));
	key = outbox_session_column(0, 1, &no_key);
	if (strcmp(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2), "issued") != 0)
		no_key = true;
	if (!no_key)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		key = PointerGetDatum(DatumGetHeapTupleHeaderCopy(key));
		MemoryContextSwitchTo(old);
	}
	outbox_session_end(&session);
	if (no_key)
		PG_RETURN_NULL();
	return key;
}

/*
 * End the stay that a request is of, which has this hash.  Returns the newest request's id.
 */
static int64
cancel_stay(Outbox *outbox, int64 id, int64 hash)
{
	Stay		stay;
	int64		newest = id;

	if (!stays_of_request(outbox, id, hash, &stay))
		return id;
	newest = stays_newest(&stay)->id;
	stays_stop(&stay, STAY_CANCELLED, false, true);
	stays_apply(&stay);
	stays_release(&stay);
	CommandCounterIncrement();
	return newest;
}

/*
 * Cancels a request at somebody's wish, which has been read: returns its new status, static
 * or in SPI's context.
 *
 * Any request of a stay stands for all of it; the stay's requests are locked in their order,
 * so this one must not be before, unless it is of none.  What is reported stays failed,
 * because its keys may be alive; somebody has looked at it now, so it leaves the view.
 */
static const char *
cancel_or_dismiss(Session *session, const Locked *request)
{
	Datum		args[] = {Int64GetDatum(request->id)};
	int64		newest = request->id;
	Locked		locked;

	if (request->has_stay)
		newest = cancel_stay(session->outbox, request->id, request->hash);
	locked = lock_request(session, request->id);
	if (locked.reported)
		outbox_session_execute(session, &statements[ST_DISMISS], args, NULL);
	if (newest != request->id)
		locked = lock_request(session, newest);
	return cancel(session, &locked);
}

/*
 * Tries a request again that is locked: puts a failed one back; what is reported is looked
 * for first.  Where a key was issued and could not be written to its row, only that is
 * tried again.  Returns whether there was anything to try.
 */
static bool
retry(Session *session, const Locked *locked)
{
	Datum		args[] = {Int64GetDatum(locked->id)};

	if (strcmp(locked->status, "failed") == 0)
	{
		bool		tries;

		outbox_session_execute(session, &statements[ST_RETRY], args, NULL);
		tries = SPI_processed > 0;
		if (tries)
			places_wake_at_commit(true);
		return tries;
	}
	if (strcmp(locked->status, "issued") == 0 && locked->has_sqlstate)
	{
		outbox_session_execute(session, &statements[ST_WRITE_AGAIN], args, NULL);
		places_wake_writer_at_commit();
		return true;
	}
	return false;
}

/*
 * seam_cancel_instant_key_request(request_id bigint) RETURNS text, strict
 */
Datum
seam_cancel_instant_key_request(PG_FUNCTION_ARGS)
{
	Session		session = outbox_session_begin(outbox_of_function(fcinfo->flinfo->fn_oid));
	Locked		request = get_request(&session, ST_READ, PG_GETARG_INT64(0));

	return end_with_status(&session, cancel_or_dismiss(&session, &request));
}

/*
 * seam_retry_instant_key_request(request_id bigint) RETURNS text, strict
 */
Datum
seam_retry_instant_key_request(PG_FUNCTION_ARGS)
{
	Session		session = outbox_session_begin(outbox_of_function(fcinfo->flinfo->fn_oid));
	Locked		locked = lock_request(&session, PG_GETARG_INT64(0));

	if (retry(&session, &locked))
		locked = lock_request(&session, locked.id);
	return end_with_status(&session, locked.status);
}

/* ---------- many at once ---------- */

/*
 * Locks the requests that a statement selects by a function's arguments, sqlstate and
 * since.  Returns them, palloc'd in SPI's context, and their number in *n.
 */
static Locked *
lock_all(Session *session, StatementId id, FunctionCallInfo fcinfo, uint64 *n)
{
	Datum		args[] = {Int64GetDatum(session->outbox->origin), PG_GETARG_DATUM(0),
	PG_GETARG_DATUM(1)};
	char		nulls[] = {' ', PG_ARGISNULL(0) ? 'n' : ' ', PG_ARGISNULL(1) ? 'n' : ' ', '\0'};
	Locked	   *found;

	outbox_session_execute(session, &statements[id], args, nulls);
	*n = SPI_processed;
	found = MemoryContextAllocHuge(CurrentMemoryContext, Max(*n, 1) * sizeof(Locked));
	for (uint64 i = 0; i < *n; i++)
		found[i] = get_locked(i);
	return found;
}

/*
 * seam_cancel_instant_key_requests(sqlstate text, since timestamptz) RETURNS bigint
 *
 * A key that is in order is nobody's trouble, and so is not revoked; what is reported is
 * dismissed only where its SQLSTATE is asked for.
 */
Datum
seam_cancel_instant_key_requests(PG_FUNCTION_ARGS)
{
	Outbox	   *outbox = outbox_of_function(fcinfo->flinfo->fn_oid);
	Session		session = outbox_session_begin(outbox);
	uint64		n;
	Locked	   *found = lock_all(&session, ST_LOCK_UNFINISHED, fcinfo, &n);
	int64		done = 0;

	for (uint64 i = 0; i < n; i++)
	{
		const char *status;

		CHECK_FOR_INTERRUPTS();
		/* another request of its stay may have been cancelled */
		if (found[i].has_stay)
			found[i] = lock_request(&session, found[i].id);
		status = found[i].status;
		/* it may have been issued, or cancelled, since it was found */
		if (((found[i].reported || found[i].accepted_by_retry) && PG_ARGISNULL(0)) ||
			(strcmp(status, "issued") == 0 ? !found[i].has_sqlstate :
			 strcmp(status, "pending") != 0 && strcmp(status, "in_flight") != 0 &&
			 strcmp(status, "failed") != 0))
			continue;
		(void) cancel_or_dismiss(&session, &found[i]);
		done++;
	}
	outbox_session_end(&session);
	PG_RETURN_INT64(done);
}

/*
 * seam_retry_instant_key_requests(sqlstate text, since timestamptz) RETURNS bigint
 *
 * What is only reported is not accepted as somebody's key, unless its SQLSTATE is asked for.
 */
Datum
seam_retry_instant_key_requests(PG_FUNCTION_ARGS)
{
	Outbox	   *outbox = outbox_of_function(fcinfo->flinfo->fn_oid);
	Session		session = outbox_session_begin(outbox);
	uint64		n;
	Locked	   *found = lock_all(&session, ST_LOCK_IN_TROUBLE, fcinfo, &n);
	int64		done = 0;

	for (uint64 i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!(found[i].accepted_by_retry && PG_ARGISNULL(0)) && retry(&session, &found[i]))
			done++;
	}
	outbox_session_end(&session);
	PG_RETURN_INT64(done);
}
