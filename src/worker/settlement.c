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

#include "config/settings.h"
#include "logic/doubt.h"
#include "logic/outcome.h"
#include "miscadmin.h"
#include "shmem/stats.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/candidates.h"
#include "worker/change.h"
#include "worker/credentials.h"
#include "worker/doubts.h"
#include "worker/intents.h"
#include "worker/local_clock.h"
#include "worker/queues.h"
#include "worker/seam_clock.h"
#include "worker/settlement.h"

/*
 * Returns what there is to know about a list.
 */
static OutcomeList
list_facts(const Flight *flight)
{
	OutcomeList facts = {
		.kind = flight->result.kind,
		.status = flight->status,
		.has_date = flight->has_date,
		.clock_known = seam_clock_is_known(),
		.pause = flight->pause,
		.is_free = flight->is_free,
		.max_attempts = settings_max_attempts,
		.now = GetCurrentTimestamp()
	};

	return facts;
}

/*
 * Counts how a doubt has ended, where the request whose answer was lost is counted.
 */
static void
count(const WorkRow *row, const Outcome *outcome)
{
	StatRoute	route = row->is_of_session ? STAT_SESSION :
	row->is_renewal ? STAT_RENEWAL : STAT_OUTBOX;

	stats_add(route, outcome->takes_key ? STAT_DOUBTS_FOUND :
			  outcome->text >= TEXT_KEY_ELSEWHERE ? STAT_DOUBTS_REPORTED : STAT_DOUBTS_NONE);
}

/*
 * Stores what becomes of a request in doubt, known as that; see change_of() for the rest.
 */
static void
store_doubt(const WorkRow *row, WorkRow *known, const Outcome *outcome, const Doubt *doubt,
			const SeamResult *result, const SeamKey *key, const char *keys)
{
	WorkChange	change = change_of(row, outcome, result, key, keys);

	change.look_again_from = doubt->from;
	if (change.look_again)
		queues_look_again_at(change.look_again_at);
	change_request(row, &change);
	if (outcome->status == row->status && !outcome->takes_key)
		known->next_attempt_at = change.next_attempt_at;
	else
	{
		count(row, outcome);
		doubts_settled(known);
	}
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
		Window		window;

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
		window = doubts_window(&rows[n], flight);
		doubts[n].from = window.from;
		doubts[n].until = window.until;
		doubts[n].vague = window.vague;
		of[n++] = known;
	}
	return n;
}

/*
 * A list tells nothing about these n requests in doubt.
 */
static void
store_no_list(const Flight *flight, const OutcomeList *list, const WorkRow *rows,
			  const Doubt *doubts, WorkRow **of, int n)
{
	for (int i = 0; i < n; i++)
	{
		OutcomeRequest request = change_facts(&rows[i]);
		int64		waited = local_clock_surely_elapsed_since(rows[i].attempted_at);
		Outcome		outcome = outcome_of_no_list(list, &request, waited);

		store_doubt(&rows[i], of[i], &outcome, &doubts[i], &flight->result, NULL, NULL);
	}
}

/*
 * A list tells which keys there are: settles these n requests in doubt.
 */
static void
store_keys(Flight *flight, const OutcomeList *list, const WorkRow *rows, Doubt *doubts,
		   WorkRow **of, int n)
{
	Candidate  *candidates;
	int			ncandidates = candidates_find(flight, &candidates);
	OutcomeRequest *requests = MemoryContextAllocHuge(CurrentMemoryContext,
													  (n + 1) * sizeof(OutcomeRequest));
	Outcome    *outcomes = MemoryContextAllocHuge(CurrentMemoryContext, (n + 1) * sizeof(Outcome));

	for (int i = 0; i < n; i++)
	{
		requests[i] = change_facts(&rows[i]);
		doubts[i].elsewhere = requests[i].anothers;
	}
	outcome_of_list(list, requests, n, doubts, candidates, ncandidates, outcomes);
	for (int i = 0; i < n; i++)
	{
		const Outcome *outcome = &outcomes[i];
		const char *keys = NULL;

		CHECK_FOR_INTERRUPTS();
		if (outcome->text >= TEXT_WHOSE)
			keys = candidates_of_group(candidates, ncandidates, doubts[i].group);
		store_doubt(&rows[i], of[i], outcome, &doubts[i], NULL,
					outcome->takes_key ? candidates[doubts[i].key].key : NULL, keys);
	}
	for (int c = 0; c < ncandidates; c++)
	{
		if (!candidates[c].revoke)
			continue;
		work_revoke_copy(&rows[candidates[c].group], candidates[c].key,
						 "issued by a call whose answer was lost, and it cannot be told by which "
						 "one");
		queues_due_at(STATUS_REVOKING, GetCurrentTimestamp());
	}
}

/*
 * Settles the doubts of an identity, in a workspace, by the list of its keys.  Returns
 * false when a session has locked one.
 */
bool
settlement_store(Flight *flight)
{
	OutcomeList list = list_facts(flight);
	int			ndoubts;
	WorkRow    *known = doubts_of(&flight->row, &ndoubts);
	WorkRow   **of = palloc(Max(ndoubts, 1) * sizeof(WorkRow *));
	WorkRow    *rows = MemoryContextAllocHuge(CurrentMemoryContext, Max(ndoubts,
																		1) * sizeof(WorkRow));
	Doubt	   *doubts = MemoryContextAllocHuge(CurrentMemoryContext, Max(ndoubts,
																		  1) * sizeof(Doubt));
	int			n;

	/*
	 * There will be another list where a session issues a key for the
	 * identity right now, the account has changed, or a doubt is not known
	 * for long enough.
	 */
	if (intents_are_open(&flight->row.identity) ||
		credentials_have_changed(&flight->account_id) ||
		!doubts_are_older(&flight->row, flight->started_at))
		return true;
	n = lock_doubts(flight, known, ndoubts, rows, doubts, of);
	if (n < 0)
		return false;
	if (outcome_list_tells(&list))
		store_keys(flight, &list, rows, doubts, of, n);
	else
		store_no_list(flight, &list, rows, doubts, of, n);
	return true;
}
