/*-------------------------------------------------------------------------
 *
 * late_keys.c
 *	  Keys that appear after a doubt was settled.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"
#include "worker/candidates.h"
#include "worker/change.h"
#include "worker/doubts.h"
#include "worker/intents.h"
#include "worker/late_keys.h"
#include "worker/outcome.h"
#include "worker/step.h"

/* Where a key that may appear late cannot be looked for, that is tried for so long. */
#define LATE_KEYS_MAX_US (3600 * INT64CONST(1000000))

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

/*
 * See by the list of an identity's keys, some time after a lost answer was settled,
 * whether a key of it has appeared since.  Where that cannot be told now, there will be
 * another list.
 */
bool
late_keys_store(Flight *flight)
{
	const SeamResult *result = &flight->result;
	const char *why = NULL;
	WorkRow		row;
	int			ndoubts;

	if (!work_lock(flight->row.id, &row))
		return !work_exists(flight->row.id);
	if (row.look_again_from == DT_NOEND)
		return true;
	(void) doubts_of(&row.identity, &ndoubts);
	if (outcome_is_anothers(&row))
		why = "The request was made with another API key, endpoint or workspace.";
	else if (outcome_is_outdated(flight) || doubts_are_stale() || ndoubts > 0 ||
			 flights_is_busy(&row.identity) || intents_are_open(&row.identity))
		why = "Other instant keys of the same user identity are always being issued.";
	else if (result->sqlerrcode == 0 && flight->has_date)
		report_late_keys(&row, flight);
	else if (!result->not_found)
		why = "Seam does not tell which instant keys there are.";
	if (why && !outcome_is_anothers(&row) &&
		GetCurrentTimestamp() - row.attempted_at < LATE_KEYS_MAX_US)
		return true;
	if (why)
		ereport(WARNING,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("it cannot be told whether an instant key of request " INT64_FORMAT " in "
						"database \"%s\" has appeared late",
						row.id, step_database()),
				 errdetail("%s", why)));
	work_looked_again(row.id);
	return true;
}
