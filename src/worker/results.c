/*-------------------------------------------------------------------------
 *
 * results.c
 *	  What becomes of a request when its flight has ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/stop_point.h"
#include "config/settings.h"
#include "logic/outcome.h"
#include "logic/window.h"
#include "utils/timestamp.h"
#include "worker/change.h"
#include "worker/credentials.h"
#include "worker/doubts.h"
#include "worker/late_keys.h"
#include "worker/queues.h"
#include "worker/results.h"
#include "worker/settlement.h"

/*
 * qsort() and bsearch(): by id.
 */
static int
compare_rows(const void *a, const void *b)
{
	int64		x = ((const WorkRow *) a)->id;
	int64		y = ((const WorkRow *) b)->id;

	return x < y ? -1 : x > y;
}

/*
 * Locks the requests of flights that are about to be stored, in CurrentMemoryContext: one
 * statement costs much less than one for each of them.
 */
void
results_lock(const int64 *ids, int n, ResultsLocked *locked)
{
	locked->n = work_lock_all(ids, n, &locked->rows);
	qsort(locked->rows, locked->n, sizeof(WorkRow), compare_rows);
}

/*
 * Lock a flight's request, unless it is among those that are.  Returns false when it is
 * gone; then *later tells whether it is only locked by a session.
 *
 * A request with its id that was not claimed with it is another one: the table
 * may have been emptied, and its sequence begun anew.
 */
static bool
lock_request(const Flight *flight, const ResultsLocked *locked, WorkRow *row, bool *later)
{
	const WorkRow *found = bsearch(&flight->row, locked->rows, locked->n, sizeof(WorkRow),
								   compare_rows);

	*later = false;
	if (found)
		*row = *found;
	if (found || work_lock(flight->row.id, row))
		return row->attempted_at == flight->row.attempted_at &&
			row->attempts == flight->row.attempts &&
			row->has_identity == flight->row.has_identity &&
			memcmp(&row->identity, &flight->row.identity, UUID_LEN) == 0;
	*later = work_exists(flight->row.id);
	return false;
}

/*
 * Returns what there is to know about the end of a flight, whose request was found and
 * locked, or not; later: it is only locked by a session.
 */
static OutcomeCall
call_facts(const Flight *flight, bool found, bool later)
{
	OutcomeCall facts = {
		.found = found,
		.locked_by_others = later,
		.kind = flight->result.kind,
		.forbidden = flight->status == 403,
		.may_be_workspace = flights_choose_workspace(flight),
		.outdated = credentials_have_changed(&flight->account_id),
		.pause = flight->pause,
		.is_free = flight->is_free,
		.max_attempts = settings_max_attempts,
		.now = GetCurrentTimestamp(),
		.ended_ago = clock_now() - flight->ended_at,
		.settle_delay = settings_settle_delay
	};

	facts.timeout = window_timeout(flight->claimed_at, flight->ended_at, settings_settle_delay);
	return facts;
}

/*
 * Stores what came of a flight that issues or revokes a key; change_make() is to follow.
 * Returns false when that is not possible now.
 */
static bool
store_call(Flight *flight, const ResultsLocked *locked)
{
	WorkRow		row = flight->row;
	bool		later;
	bool		found = lock_request(flight, locked, &row, &later);
	OutcomeCall call = call_facts(flight, found, later);
	OutcomeRequest request = change_facts(&row);
	Outcome		outcome = flight->op == SEAM_GENERATE ? outcome_of_generate(&call, &request) :
	outcome_of_delete(&call, &request);
	WorkChange	change;

	switch (outcome.act)
	{
		case OUTCOME_WAIT:
			return false;
		case OUTCOME_REVOKE_COPY:
			row = flight->row;	/* with the workspace that it was given */
			row.account = flight->account_id;
			work_revoke_copy(&row, &flight->result.key, "issued for a request that was deleted or "
							 "changed meanwhile");
			queues_due_at(STATUS_REVOKING, GetCurrentTimestamp());
			break;
		case OUTCOME_CHANGE:
			change = change_of(&row, &outcome, &flight->result, &flight->result.key, NULL);
			change.seam_request_id = flight->result.request_id;
			change_add(&row, &change);
			if (flight->result.kind == REPLY_DOUBT && flight->op == SEAM_GENERATE)
				doubts_add(&row, &change);
			break;
		default:
			break;
	}
	return true;
}

/*
 * Store what came of a call, in a transaction; change_make() is to follow.  Returns false
 * when that is not possible now, because a session has locked the request.
 */
bool
results_store(Flight *flight, const ResultsLocked *locked)
{
	STOP_POINT(flight->op == SEAM_LIST ? "worker-store-list" : "worker-store");
	if (flight->probe || flight->tells_time)
		return true;
	if (flight->op != SEAM_LIST)
		return store_call(flight, locked);
	return flight->again ? late_keys_store(flight) : settlement_store(flight);
}
