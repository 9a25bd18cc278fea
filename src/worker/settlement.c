/*-------------------------------------------------------------------------
 *
 * settlement.c
 *	  How doubts are settled by Seam's list of keys.
 *
 * A request whose answer was lost is in doubt, and so is one that the table has as in
 * flight and this process does not.  No other request for its user identity is sent until
 * Seam's list of keys has settled it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "ledger/ledger.h"
#include "logic/doubt.h"
#include "logic/pace.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/candidates.h"
#include "worker/change.h"
#include "worker/doubts.h"
#include "worker/local_clock.h"
#include "worker/outcome.h"
#include "worker/queues.h"
#include "worker/seam_clock.h"
#include "worker/sending.h"
#include "worker/settlement.h"
#include "worker/step.h"
#include "worker/window.h"

/*
 * Why a doubt cannot be settled, and is only reported, or NULL.  perhaps: the ids of
 * keys that fit it and are perhaps owned, or NULL.
 */
static const char *
why_unsettled(const WorkRow *row, const Doubt *doubt, const Candidate *candidates,
			  int ncandidates, const char *perhaps)
{
	if (row->timeline == 0 && doubt->verdict != VERDICT_NO_KEY)
		return psprintf("the answer was lost, and it cannot be told any more whose these instant "
						"keys are: %s",
						candidates_of_group(candidates, ncandidates, doubt->group));

	/*
	 * This may be a copy, whose origin has settled it: what is there is not
	 * ours to take or to revoke.
	 */
	if (row->timeline != (int) GetWALInsertionTimeLine() && doubt->verdict != VERDICT_NO_KEY)
		return psprintf("the answer was lost before a promotion or restore, and these instant keys "
						"may be of this request: %s",
						candidates_of_group(candidates, ncandidates, doubt->group));
	if (doubt->verdict == VERDICT_AMBIGUOUS)
		return psprintf("the answer was lost, and another issuer is at work: any of these instant "
						"keys may be of this request: %s",
						candidates_of_group(candidates, ncandidates, doubt->group));
	if (doubt->vague && doubt->verdict != VERDICT_NO_KEY)
		return psprintf("the answer was lost when the clock was set back, and these instant keys "
						"may be of this request: %s",
						candidates_of_group(candidates, ncandidates, doubt->group));
	if (doubt->verdict != VERDICT_NO_KEY)
		return NULL;
	if (perhaps && row->status == STATUS_REVOKING)
		return psprintf("the answer was lost, and a call that has committed may have issued the "
						"instant keys that are there: %s", perhaps);
	if (outcome_is_anothers(row))
		return "the answer was lost, and with the present API key, endpoint and workspace, which "
			"are others, no instant key is found";
	return NULL;
}

/*
 * Put into a change that a key is looked for once more, some time after there was none.
 * After a copy, or when a report is looked at again, it is not known whose keys there are.
 */
static void
look_again(const WorkRow *row, const Doubt *doubt, WorkChange *change)
{
	if (row->timeline == 0)
		return;
	change->look_again = true;
	change->look_again_at = GetCurrentTimestamp() + SETTLEMENT_LATE_US;
	change->look_again_from = doubt->from;
	queues_look_again_at(change->look_again_at);
}

/*
 * A list tells nothing about this doubt, known as that: it waits for another one, unless
 * there is no such identity.
 */
static void
store_no_list(Flight *flight, const WorkRow *row, WorkRow *known)
{
	const SeamResult *result = &flight->result;
	WorkChange	change = change_none(row);
	TimestampTz now = GetCurrentTimestamp();

	if (result->not_found && !outcome_is_anothers(row))
	{
		/* no identity, no key */
		outcome_not_issued(row, true, sending_backoff(row->attempts), &change);
		doubts_settled(known);
		change_request(row, &change);
		return;
	}
	if (result->sqlerrcode != 0)
		change.error = psprintf("could not look for an instant key: %s", answer_error_text(result));
	else if (!flight->has_date)
		change.error = "could not look for an instant key: Seam's answer has no Date";
	else
		change.error = "could not look for an instant key: Seam's answer took too long to tell its "
			"clock";
	if (change.sqlerrcode == 0)
		change.sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	if (outcome_is_anothers(row) &&
		(result->sqlerrcode == ERRCODE_NO_DATA_FOUND ||
		 result->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE))
	{
		/* the identity may be in another workspace */
		outcome_unsettled(&change);
		change.error = "the answer was lost, and with the present API key, endpoint and workspace, "
			"which are others, the user identity is not found";
		doubts_settled(known);
	}
	else
	{
		/* the longer it has waited, the longer it may wait */
		int64		waited = local_clock_surely_elapsed_since(row->attempted_at);

		change.next_attempt_at = now + Max(flight->pause, Min(waited / 4, PACE_LONGEST_US));
		known->next_attempt_at = change.next_attempt_at;
	}
	change_request(row, &change);
}

/*
 * Lock the requests of an identity that are in doubt, ndoubts of those from known on, and
 * see when each may have issued a key.  Fills in rows, doubts, and of: what is known of
 * each.  Returns how many are in doubt still, or -1 when a session has locked one.
 */
static int
lock_doubts(const Flight *flight, WorkRow *known, int ndoubts, WorkRow *rows, Doubt *doubts,
			WorkRow **of)
{
	int			n = 0;

	for (; ndoubts > 0; known++)
	{
		if (known->next_attempt_at == DT_NOEND)
			continue;
		ndoubts--;
		CHECK_FOR_INTERRUPTS();
		if (!work_lock(known->id, &rows[n]))
		{
			/* gone, or locked by a session: then all of them wait */
			if (work_exists(known->id))
				return -1;
			doubts_settled(known);
			continue;
		}
		if (rows[n].has_key || (rows[n].status != STATUS_IN_FLIGHT &&
								rows[n].status != STATUS_REVOKING))
		{
			doubts_settled(known);
			continue;
		}
		memset(&doubts[n], 0, sizeof(Doubt));
		doubts[n].max_use_count = rows[n].max_use_count;
		doubts[n].has_profile = rows[n].has_profile;
		doubts[n].profile = rows[n].profile;
		doubts[n].wanted = rows[n].status == STATUS_IN_FLIGHT;
		window_set(&rows[n], flight, &doubts[n]);
		of[n++] = known;
	}
	return n;
}

/*
 * Settle the doubts of an identity by the list of its keys.
 */
bool
settlement_store(Flight *flight)
{
	const SeamResult *result = &flight->result;
	int			ndoubts;
	WorkRow    *known = doubts_of(&flight->row.identity, &ndoubts);
	WorkRow   **of = palloc(Max(ndoubts, 1) * sizeof(WorkRow *));
	WorkRow    *rows = MemoryContextAllocHuge(CurrentMemoryContext, Max(ndoubts,
																		1) * sizeof(WorkRow));
	Doubt	   *doubts = MemoryContextAllocHuge(CurrentMemoryContext, Max(ndoubts,
																		  1) * sizeof(Doubt));
	Candidate  *candidates;
	int			ncandidates;
	int			nperhaps;
	Bitmapset  *spare = NULL;	/* groups whose keys are not revoked */
	int			n;

	worker_take_answers();
	if (worker_call_is_open(&flight->row.identity) || outcome_is_outdated(flight))
		return true;			/* a session issues a key for it right now, or
								 * the account is asked that we have now */
	n = lock_doubts(flight, known, ndoubts, rows, doubts, of);
	if (n < 0)
		return false;
	if (result->sqlerrcode != 0 || !flight->has_date || !seam_clock_is_known())
	{
		for (int i = 0; i < n; i++)
			store_no_list(flight, &rows[i], of[i]);
		return true;
	}

	ncandidates = candidates_find(flight, &candidates, &nperhaps);
	doubt_settle(doubts, n, candidates, ncandidates);
	for (int i = 0; i < n; i++)
	{
		WorkChange	change = change_none(&rows[i]);
		const char *perhaps = candidates_fitting(&doubts[i], candidates + ncandidates, nperhaps);
		const char *why = why_unsettled(&rows[i], &doubts[i], candidates, ncandidates, perhaps);

		CHECK_FOR_INTERRUPTS();
		if (why)
		{
			outcome_unsettled(&change);
			change.error = why;
			spare = bms_add_member(spare, doubts[i].group);
		}
		else if (doubts[i].verdict == VERDICT_ADOPT)
			outcome_issued(&rows[i], candidates[doubts[i].key].key, &change);
		else
		{
			outcome_not_issued(&rows[i], true, sending_backoff(rows[i].attempts),
							   &change);
			look_again(&rows[i], &doubts[i], &change);
			if (perhaps && rows[i].status == STATUS_IN_FLIGHT)
				ereport(WARNING,
						(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
						 errmsg("request " INT64_FORMAT " in database \"%s\" gets another instant "
								"key, since a synchronous call that has committed may have issued "
								"those that are there: %s",
								rows[i].id, step_database(), perhaps),
						 errdetail("The answers to both were lost.")));
		}
		doubts_settled(of[i]);
		change_request(&rows[i], &change);
	}
	for (int c = 0; c < ncandidates; c++)
	{
		if (!candidates[c].revoke || bms_is_member(candidates[c].group, spare))
			continue;
		work_revoke_copy(&rows[candidates[c].group], candidates[c].key,
						 "issued by a call whose answer was lost, and it cannot be told by which "
						 "one");
		queues_due_at(STATUS_REVOKING, GetCurrentTimestamp());
	}
	return true;
}
