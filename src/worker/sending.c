/*-------------------------------------------------------------------------
 *
 * sending.c
 *	  How much the worker may send now.
 *
 * The pace that answers set, seam_ik.rate_limit, and an API key that Seam does not accept,
 * each may hold it up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "common/pg_prng.h"
#include "config/settings.h"
#include "logic/pace.h"
#include "seam/answer.h"
#include "worker/sending.h"
#include "worker/step.h"

/* Where Seam did not accept the key, one request is tried this often. */
#define PROBE_FIRST_US (10 * INT64CONST(1000000))
#define PROBE_MAX_US (300 * INT64CONST(1000000))

/* From this length on, a pause that a 429 asked for is told of. */
#define PAUSE_TOLD_US (60 * INT64CONST(1000000))

static Pace pace;
static PaceBucket bucket;		/* of seam_ik.rate_limit */
static bool refused;			/* Seam does not accept the API key */
static int64 probe_at;			/* when to try it again then: clock_now()'s
								 * clock */
static int64 probe_pause;		/* microseconds */

/*
 * Makes the pace what it is at the start of the process.
 */
void
sending_set_up(void)
{
	pace_init(&pace, settings_max_concurrency);
}

/*
 * The configuration was reloaded: pauses end.
 */
void
sending_resume(void)
{
	pace_set_max(&pace, settings_max_concurrency);
	pace_resume(&pace);
	refused = false;
}

/*
 * The account is another one, of which nothing bad is known.
 */
void
sending_trust_account(void)
{
	refused = false;
}

/*
 * Seam did not accept the API key: nothing but a probe is sent until the
 * configuration changes or the probe works.
 */
static void
account_refused(int64 now)
{
	if (!refused)
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the outbox of database \"%s\" waits: Seam did not accept the API key",
						step_database()),
				 errhint("Correct the API key; the requests are sent then.")));
		probe_pause = PROBE_FIRST_US;
	}
	else if (now >= probe_at)
		probe_pause = Min(probe_pause * 2, PROBE_MAX_US);
	refused = true;
	probe_at = now + probe_pause;
}

/*
 * Returns the pause before a request is tried again that was tried so often, in
 * microseconds: a little more than twice as long each time, so that the tries of an hour
 * are few.
 */
int64
sending_backoff(int attempts)
{
	return pace_backoff(attempts * 3 / 2, PACE_LONGEST_US, pg_prng_double(&pg_global_prng_state));
}

/*
 * Lets the answer to a request, which was tried so often, set the pace; nflying: the
 * others that are under way.  Returns the pause before the request may be tried again,
 * in microseconds.  The pause of a 429 is the queue's, so that its end is everybody's; a
 * long one is told of.
 */
int64
sending_answer(const HttpAnswer *answer, int attempts, int nflying, int64 now)
{
	int64		told_until = pace.paused_until;
	int64		pause = pace_pause(answer->retry_after, attempts * 3 / 2, PACE_LONGEST_US,
								   pg_prng_double(&pg_global_prng_state));

	pace_answer(&pace, answer_pace_sign(answer), pause, nflying, now);
	if (answer->outcome != HTTP_ANSWERED || answer->status != 429)
		return pause;
	if (pace.paused_until - now >= PAUSE_TOLD_US && told_until - now < PAUSE_TOLD_US)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("the outbox of database \"%s\" waits for %d s: Seam's rate limit was "
						"reached",
						step_database(), (int) ((pace.paused_until - now) / USECS_PER_SEC)),
				 answer->retry_after > 0 ? errdetail("Seam asks to wait %d s.",
													 answer->retry_after) : 0,
				 errhint("A reload of the configuration ends the pause.")));
	return sending_backoff(attempts);
}

/*
 * An answer to a request with the account in use has come: was its API key refused, or
 * was there any answer of Seam's at all?
 */
void
sending_account_answered(bool is_refused, bool answered, int64 now)
{
	if (is_refused)
		account_refused(now);
	else if (answered && refused)
	{
		refused = false;
		ereport(LOG,
				(errmsg("the outbox of database \"%s\" goes on: Seam accepts the API key",
						step_database())));
	}
	else if (refused)
		probe_at = Max(probe_at, now + probe_pause);
}

/*
 * Returns how many requests may be sent now, while so many are under way; *again_at: when
 * that may change by itself (clock_now()'s clock).
 */
int
sending_allowance(int nflying, int64 now, int64 *again_at)
{
	int			n = pace.limit - nflying;

	*again_at = PG_INT64_MAX;
	if (!settings_worker)
		return 0;
	if (pace.paused_until > now)
	{
		*again_at = pace.paused_until;
		return 0;
	}
	if (refused)
	{
		/* one at a time: its answer tells */
		if (nflying > 0)
			return 0;
		*again_at = probe_at;
		return now >= probe_at ? 1 : 0;
	}
	n = Min(n, pace_bucket_allows(&bucket, settings_rate_limit, now, again_at));
	return Max(n, 0);
}

/*
 * Returns how many requests may be under way at once.
 */
int
sending_limit(void)
{
	return pace.limit;
}

/*
 * One request is about to be sent.
 */
void
sending_take(void)
{
	pace_bucket_take(&bucket);
}
