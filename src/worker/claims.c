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
#include "logic/share.h"
#include "utils/timestamp.h"
#include "worker/change.h"
#include "worker/claims.h"
#include "worker/credentials.h"
#include "worker/doubts.h"
#include "worker/flights.h"
#include "worker/intents.h"
#include "worker/queues.h"
#include "worker/seam_clock.h"
#include "worker/sending.h"
#include "worker/stay_clock.h"
#include "worker/step.h"

/* Where so many results cannot be stored, no more keys are issued that nobody can get. */
#define ASIDE_MAX 100

/* A renewal that the API key is not for is tried again so soon. */
#define REFUSED_PAUSE_US (60 * INT64CONST(1000000))

/* Probes that have failed are followed by one for another identity, of so many. */
#define PROBE_CHOICES 16

static Share share;				/* of new keys, revocations and lists */

/*
 * Returns how many requests may be sent now, and which: *may; *again_at: when that may
 * change by itself, on clock_now()'s clock.
 */
static int
allowance(PaceMay *may, int64 *again_at)
{
	if (flights_aside() >= ASIDE_MAX)
	{
		*again_at = PG_INT64_MAX;
		return 0;
	}
	return sending_allowance(flights_flying(), clock_now(), may, again_at);
}

/*
 * Returns how many requests may be sent now; *again_at: when that may change by itself,
 * on clock_now()'s clock.
 */
int
claims_allowance(int64 *again_at)
{
	PaceMay		may;

	return allowance(&may, again_at);
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

	if (flights_flying_of(SEAM_LIST) >= share_most_lists(sending_limit()))
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
 * Asks for the keys of an identity as a probe that leaves nothing in doubt: of one whose
 * doubts are due, or of one for which a key is to be issued.  Each time another one is
 * chosen, in case it is the identity that Seam fails for.  Returns whether there is one.
 */
static bool
claim_probe(void)
{
	int			nfailed = sending_failed_probes();
	int			skip = nfailed / 2 % PROBE_CHOICES;
	const WorkRow *doubt = doubts_first();
	const WorkRow *chosen = NULL;
	WorkRow		row = {.has_identity = true};

	for (int i = 0; doubt && i <= skip;)
	{
		const WorkRow *first = doubt;
		int64		due;

		doubt = doubts_next_identity(first, &due);
		if (when_free(&first->identity, due) > clock_now())
			continue;
		chosen = first;
		i++;
	}
	if (queues_is_due(STATUS_PENDING) && (chosen == NULL || nfailed % 2 == 1))
	{
		if (work_peek(skip, &row.identity) || work_peek(0, &row.identity))
		{
			flights_claim(SEAM_LIST, &row)->probe = true;
			return true;
		}
		queues_none_due(STATUS_PENDING);
	}
	if (chosen)
		(void) flights_claim(SEAM_LIST, chosen);
	return chosen != NULL;
}

/*
 * In a step: a request that is claimed was given a workspace, and the API key is of one by
 * itself: nothing is sent, because it would be for another one.  What renews a key that lives
 * is tried again, for as long as that does.
 */
static void
refuse_workspace(const WorkRow *row)
{
	bool		waits = row->is_renewal && row->former_expires_at != DT_NOEND;
	WorkChange	change = {
		.status = waits ? STATUS_PENDING : STATUS_FAILED,
		.next_attempt_at = waits ? GetCurrentTimestamp() + REFUSED_PAUSE_US : DT_NOEND,
		.finished = !waits,
		.attempts = row->attempts,
		.sqlerrcode = ERRCODE_INVALID_PARAMETER_VALUE,
		.error = "seam_workspace needs a personal access token, and the API key is of one workspace"
	};

	change_request(row, &change);
}

/*
 * Claims at most n requests of a kind.  Returns how many there were.
 */
static int
claim_kind(ShareKind kind, const WorkAttempt *attempt, int n)
{
	WorkRow    *rows;

	switch (kind)
	{
		case SHARE_NEW:
			n = queues_claim(STATUS_PENDING, attempt, doubts_identities(), n, &rows);
			for (int i = 0; i < n; i++)
			{
				if (rows[i].has_workspace && !credentials_choose_workspace())
					refuse_workspace(&rows[i]);
				else
					(void) flights_claim(SEAM_GENERATE, &rows[i]);
			}
			return n;
		case SHARE_REVOKE:
			n = queues_claim(STATUS_REVOKING, attempt, NULL, n, &rows);
			for (int i = 0; i < n; i++)
				(void) flights_claim(SEAM_DELETE, &rows[i]);
			return n;
		default:
			{
				int			lists = claim_lists(n);

				return lists + claim_late_lists(n - lists);
			}
	}
}

/*
 * Claims at most n requests of those kinds that are due, each its share.
 */
static void
claim_shares(ShareNeed *need, const WorkAttempt *attempt, int n)
{
	int			dealt[SHARE_KINDS];
	bool		again = true;

	need->limit = sending_limit();
	need->flying[SHARE_NEW] = flights_flying_of(SEAM_GENERATE);
	need->flying[SHARE_REVOKE] = flights_flying_of(SEAM_DELETE);
	need->flying[SHARE_LIST] = flights_flying_of(SEAM_LIST);
	while (n > 0 && again)
	{
		share_deal(&share, need, n, dealt);
		again = false;
		for (int kind = 0; kind < SHARE_KINDS; kind++)
		{
			int			taken;

			if (dealt[kind] == 0)
				continue;
			taken = claim_kind(kind, attempt, dealt[kind]);
			share_take(&share, kind, taken);
			need->flying[kind] += taken;
			n -= taken;

			/* what a kind does not need is the others' */
			if (taken < dealt[kind])
			{
				need->due[kind] = false;
				again = true;
			}
		}
	}
}

/*
 * In a step: claims what may be sent now.
 */
void
claims_take(void)
{
	PaceMay		may;
	int64		again_at;
	int			n = allowance(&may, &again_at);
	WorkAttempt attempt = {.account = *credentials_id()};
	ShareNeed	need = {.due[SHARE_REVOKE] = queues_is_due(STATUS_REVOKING)};
	StayClock	clock;

	if (n == 0 || (may == PACE_MAY_LIST && claim_probe()))
		return;
	/* if we die, nobody knows when it has ended */
	attempt.timeout = settings_request_timeout + settings_settle_delay;
	attempt.revoke_timeout = Max(settings_request_timeout, settings_settle_delay);
	seam_clock_now(&attempt.has_seam_time, &attempt.seam_time);
	attempt.stays_at = stay_clock_now(&clock) ? clock.latest : DT_NOEND;
	/* to revoke a key leaves nothing in doubt either */
	need.due[SHARE_NEW] = may != PACE_MAY_LIST && queues_is_due(STATUS_PENDING);
	need.due[SHARE_LIST] = claims_list_due() <= clock_now() ||
		queues_next_look() <= GetCurrentTimestamp();
	claim_shares(&need, &attempt, n);
}
