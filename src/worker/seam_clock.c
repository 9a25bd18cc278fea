/*-------------------------------------------------------------------------
 *
 * seam_clock.c
 *	  What time it is at Seam.
 *
 * The Date headers of answers tell it.  It is the clock of one endpoint, and is forgotten
 * with that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "utils/timestamp.h"
#include "worker/seam_clock.h"

static AccountId endpoint;		/* whose clock it is: only that of it counts */
static bool has_endpoint;
static SeamTime best;			/* of its answers; at is 0: there is none */

/*
 * The account that requests are sent with has changed to this one: where its endpoint is
 * another one, the clock is not known any more.
 */
void
seam_clock_set_endpoint(const AccountId *account)
{
	if (!has_endpoint || !account_has_endpoint(account, &endpoint))
		best.at = 0;
	endpoint = *account;
	has_endpoint = true;
}

/*
 * Returns whether Seam's clock is known.
 */
bool
seam_clock_is_known(void)
{
	return best.at != 0;
}

/*
 * Tells Seam's time now, if it is known.
 */
void
seam_clock_now(bool *known, TimestampTz *time)
{
	*known = seam_clock_is_known();
	*time = *known ? window_seam_time(&best, clock_now()) : 0;
}

/*
 * Returns what time it is at Seam, by this answer and by the best one.
 */
SeamNow
seam_clock_by(const SeamTime *answer)
{
	return window_seam_now(&best, answer, clock_now());
}

/*
 * Learns Seam's time from an answer to a request of this account, ours or a session's.
 */
void
seam_clock_learn(const SeamTime *answer, const AccountId *account)
{
	if (has_endpoint && account_has_endpoint(account, &endpoint))
		(void) window_learn(&best, answer);
}
