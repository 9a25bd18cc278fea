/*-------------------------------------------------------------------------
 *
 * late_keys.c
 *	  Keys that appear after a doubt was settled.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/outcome.h"
#include "utils/timestamp.h"
#include "worker/candidates.h"
#include "worker/change.h"
#include "worker/credentials.h"
#include "worker/doubts.h"
#include "worker/intents.h"
#include "worker/late_keys.h"
#include "worker/local_clock.h"
#include "worker/step.h"

/*
 * Report the keys of a list that may be of a request whose answer was lost, and which
 * nobody owns.  None was there when that was settled.
 */
static void
report_late_keys(const WorkRow *row, Flight *flight)
{
	Doubt		doubt = {.has_profile = row->has_profile,.profile = row->profile,
	.from = row->look_again_from,.until = DT_NOEND};
	Candidate  *candidates;
	int			n = candidates_find(flight, &candidates);
	const char *report = psprintf("this instant key has appeared after the lost answer to request "
								  "" INT64_FORMAT " was settled, and nobody owns it", row->id);
	char	   *ids = candidates_fitting(&doubt, candidates, n);

	if (ids == NULL)
		return;
	for (int i = 0; i < n; i++)
	{
		WorkRow		copy = *row;

		if (candidates[i].group < 0)
			continue;
		copy.id = work_report_key(row, candidates[i].key, report);
		copy.reference = NULL;
		change_add_notice(&copy, STATUS_FAILED);
	}
	ereport(WARNING,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("an instant key that nobody owns has appeared late, perhaps of request "
					"" INT64_FORMAT " in database \"%s\": %s",
					row->id, step_database(), ids),
			 errdetail("The answer was lost, and seam_ik.settle_delay later there was no such "
					   "key."),
			 errhint("It is in the view seam_instant_key_orphan; seam_retry_instant_key_request() "
					 "revokes it.")));
}

/* Why it cannot be told whether a key has appeared. */
static const char *const reasons[] = {
	[LATE_UNKNOWN_ACCOUNT] = "The request was made with another API key, endpoint or workspace.",
	[LATE_UNKNOWN_BUSY] = "Other instant keys of the same user identity are always being issued.",
	[LATE_UNKNOWN_LIST] = "Seam does not tell which instant keys there are.",
};

/*
 * Sees by the list of an identity's keys, some time after a lost answer was settled,
 * whether a key of it has appeared since.  Returns false when a session has locked the
 * request.
 */
bool
late_keys_store(Flight *flight)
{
	LateFacts	facts = {.kind = flight->result.kind,.has_date = flight->has_date};
	LateOutcome outcome;
	WorkRow		row;
	int			ndoubts;

	facts.found = work_lock(flight->row.id, &row);
	if (facts.found)
	{
		(void) doubts_of(&row, &ndoubts);
		facts.wanted = row.look_again_from != DT_NOEND;
		facts.anothers = credentials_are_others(&row.account, work_workspace(&row));
		facts.outdated = credentials_have_changed(&flight->account_id);
		facts.busy = doubts_are_stale() || ndoubts > 0 ||
			flights_is_busy(&row.identity) || intents_are_open(&row.identity);
		facts.age = local_clock_surely_elapsed_since(row.attempted_at);
	}
	else
		facts.locked_by_others = work_exists(flight->row.id);
	outcome = outcome_of_late_list(&facts);
	switch (outcome)
	{
		case LATE_WAIT:
			return false;
		case LATE_GONE:
		case LATE_AGAIN:
			return true;
		case LATE_LOOK:
			report_late_keys(&row, flight);
			break;
		case LATE_END:
			break;
		default:
			ereport(WARNING,
					(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
					 errmsg("it cannot be told whether an instant key of request " INT64_FORMAT
							" in database \"%s\" has appeared late",
							row.id, step_database()),
					 errdetail("%s", reasons[outcome])));
	}
	work_looked_again(row.id);
	return true;
}
