/*-------------------------------------------------------------------------
 *
 * claims.c
 *	  Which requests are sent now.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "config/settings.h"
#include "utils/timestamp.h"
#include "worker/claims.h"
#include "worker/credentials.h"
#include "worker/doubts.h"
#include "worker/flights.h"
#include "worker/intents.h"
#include "worker/queues.h"
#include "worker/seam_clock.h"
#include "worker/sending.h"
#include "worker/step.h"

/*
 * Returns how many lists may be asked for, besides those that are under way.  They shall
 * not keep new keys from being issued.
 */
static int
list_allowance(void)
{
	return Max(Max(sending_limit() / 2, 1) - flights_flying_lists(), 0);
}

/*
 * Returns when the keys of an identity may be asked for whose doubts have waited until
 * due, on clock_now()'s clock: not while another request for it is under way.
 */
static int64
when_free(const pg_uuid_t *identity, int64 due)
{
	int64		now = clock_now();

	if (due > now)
		return due;
	if (flights_is_busy(identity))
		return PG_INT64_MAX;
	return intents_are_open(identity) ? now + STEP_ERROR_PAUSE_US : due;
}

/*
 * Returns when a list may be asked for, if nothing happens before, on clock_now()'s clock.
 */
int64
claims_list_due(void)
{
	int64		now = clock_now();
	int64		first = PG_INT64_MAX;

	if (list_allowance() == 0)
		return first;
	for (const WorkRow *doubt = doubts_first(); doubt && first > now;)
	{
		const pg_uuid_t *identity = &doubt->identity;
		int64		due;

		doubt = doubts_next_identity(doubt, &due);
		due = when_free(identity, due);
		first = Min(first, due);
	}
	return first;
}

/*
 * Asks for the keys of identities whose doubts have all waited long enough, at most limit
 * of them.  Returns how many.
 */
static int
claim_lists(int limit)
{
	int			n = 0;
	const WorkRow *next;

	for (const WorkRow *doubt = doubts_first(); doubt && n < limit; doubt = next)
	{
		int64		due;

		next = doubts_next_identity(doubt, &due);
		if (when_free(&doubt->identity, due) > clock_now())
			continue;
		(void) flights_claim(SEAM_LIST, doubt);
		n++;
	}
	return n;
}

/*
 * Asks once more for the keys of identities for which a lost answer was settled some time
 * ago, at most limit of them.  Nobody waits for that.  Returns how many.
 */
static int
claim_late_lists(int limit)
{
	WorkRow    *rows;
	int			n = queues_claim_looks(limit, &rows);

	for (int i = 0; i < n; i++)
		flights_claim(SEAM_LIST, &rows[i])->again = true;
	return n;
}

/*
 * In a step: claims what may be sent now: first what is to be revoked, then what settles
 * doubts, then new keys.
 */
void
claims_take(void)
{
	int64		again_at;
	int			limit = sending_allowance(flights_flying(), clock_now(), &again_at);
	WorkAttempt attempt = {.account = *credentials_id()};
	WorkRow    *rows;
	int			n;

	/* if we die, nobody knows when it has ended */
	attempt.timeout = settings_request_timeout + settings_settle_delay;
	attempt.revoke_timeout = Max(settings_request_timeout, settings_settle_delay);
	seam_clock_now(&attempt.has_seam_time, &attempt.seam_time);
	if (limit > 0 && queues_is_due(STATUS_REVOKING))
	{
		n = queues_claim(STATUS_REVOKING, &attempt, NULL, limit, &rows);
		for (int i = 0; i < n; i++)
			(void) flights_claim(SEAM_DELETE, &rows[i]);
		limit -= n;
	}
	if (limit > 0)
	{
		/* Min() would call it twice */
		int			lists = list_allowance();

		lists = Min(limit, lists);
		n = claim_lists(lists);
		n += claim_late_lists(lists - n);
		limit -= n;
	}
	if (limit > 0 && queues_is_due(STATUS_PENDING))
	{
		n = queues_claim(STATUS_PENDING, &attempt, doubts_identities(), limit, &rows);
		for (int i = 0; i < n; i++)
			(void) flights_claim(SEAM_GENERATE, &rows[i]);
	}
}
