/*-------------------------------------------------------------------------
 *
 * results.c
 *	  What becomes of a request when its flight has ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "base/clock.h"
#include "base/stop_point.h"
#include "config/settings.h"
#include "utils/timestamp.h"
#include "worker/change.h"
#include "worker/doubts.h"
#include "worker/late_keys.h"
#include "worker/outcome.h"
#include "worker/queues.h"
#include "worker/results.h"
#include "worker/settlement.h"

/*
 * Lock a flight's request.  Returns false when it is gone; then *later tells
 * whether it is only locked by a session.
 *
 * A request with its id that was not claimed with it is another one: the table
 * may have been emptied, and its sequence begun anew.
 */
static bool
lock_request(const Flight *flight, WorkRow *row, bool *later)
{
	*later = false;
	if (work_lock(flight->row.id, row))
		return row->attempted_at == flight->row.attempted_at &&
			row->attempts == flight->row.attempts &&
			row->has_identity == flight->row.has_identity &&
			memcmp(&row->identity, &flight->row.identity, UUID_LEN) == 0;
	*later = work_exists(flight->row.id);
	return false;
}

/*
 * Store what came of a call that issues a key.  Returns false when that is not
 * possible now.
 */
static bool
store_generate(Flight *flight)
{
	const SeamResult *result = &flight->result;
	WorkRow		row;
	WorkChange	change;
	bool		later;

	if (!lock_request(flight, &row, &later) ||
		(row.status != STATUS_IN_FLIGHT && (row.status != STATUS_REVOKING || row.has_key)))
	{
		/* somebody has deleted or changed the request by hand */
		if (later)
			return false;
		if (result->sqlerrcode == 0)
		{
			WorkRow		copy = flight->row;

			copy.account = flight->account_id;
			work_revoke_copy(&copy, &result->key, "issued for a request that was deleted or "
							 "changed meanwhile");
		}
		queues_due_at(STATUS_REVOKING, GetCurrentTimestamp());
		return true;
	}
	change = change_none(&row);
	change.seam_request_id = result->request_id;
	if (result->sqlerrcode == 0)
		outcome_issued(&row, &result->key, &change);
	else if (result->in_doubt)
	{
		/* Seam's list settles it, some time after we have given up */
		TimestampTz now = GetCurrentTimestamp();
		int64		since = clock_now() - flight->ended_at;
		int64		took = Max(flight->ended_at - flight->started_at,
							   now - since - row.attempted_at);

		outcome_error(result, &change);
		change.next_attempt_at = now - since + (int64) settings_settle_delay * 1000;
		change.attempt_timeout = (int) Min(took / 1000 + 1 + settings_settle_delay, INT_MAX / 2);
		if (flight->is_free)
			change.attempts--;
		doubts_add(&row, &change);
	}
	else if (flight->is_free ||
			 result->sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION ||
			 flight->failure == HTTP_FAILURE_DESCRIPTORS)
	{
		/* no fault of the request */
		outcome_error(result, &change);
		change.attempts--;
		row.attempts = 0;
		if (flight->failure == HTTP_FAILURE_DESCRIPTORS)
			outcome_not_issued(&row, true, RESULTS_LOCKED_PAUSE_US, &change);
		else
			outcome_not_issued(&row, true, 0, &change);
	}
	else
	{
		outcome_error(result, &change);
		outcome_not_issued(&row, flight->outcome == HTTP_NOT_SENT || flight->status == 429,
						   flight->pause, &change);
	}
	change_request(&row, &change);
	return true;
}

/*
 * Store what came of a call that revokes a key.
 */
static bool
store_delete(Flight *flight)
{
	const SeamResult *result = &flight->result;
	WorkRow		row;
	WorkChange	change;
	bool		later;

	if (!lock_request(flight, &row, &later))
		return !later;
	if (row.status != STATUS_REVOKING)
		return true;
	change = change_none(&row);
	change.seam_request_id = result->request_id;
	if (outcome_is_outdated(flight) && !result->deleted)
		change.next_attempt_at = GetCurrentTimestamp();
	else if (outcome_is_anothers(&row) &&
			 ((result->sqlerrcode == 0 && !result->deleted) ||
			  result->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE))
	{
		/* it may be in another workspace, and not ours to revoke any more */
		outcome_unsettled(&change);
		change.error = "the instant key was issued with another API key, endpoint or workspace, "
			"and is not found with the present one";
	}
	else if (result->sqlerrcode == 0)
	{
		/* also when there was no such key (any more) */
		change.status = STATUS_REVOKED;
		change.sqlerrcode = 0;
		change.finished = true;
		change.next_attempt_at = DT_NOEND;
	}
	else
	{
		/* a key that lives on is never given up */
		outcome_error(result, &change);
		change.attempts -= flight->is_free;
		change.next_attempt_at = GetCurrentTimestamp() + (flight->is_free ? 0 : flight->pause);
	}
	change_request(&row, &change);
	return true;
}

/*
 * Store what came of a call, in a transaction.  Returns false when that is not
 * possible now, because a session has locked the request.
 */
bool
results_store(Flight *flight)
{
	STOP_POINT(flight->op == SEAM_LIST ? "worker-store-list" : "worker-store");
	if (flight->probe)
		return true;
	switch (flight->op)
	{
		case SEAM_GENERATE:
			return store_generate(flight);
		case SEAM_DELETE:
			return store_delete(flight);
		default:
			return flight->again ? late_keys_store(flight) : settlement_store(flight);
	}
}
