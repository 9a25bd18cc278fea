/*-------------------------------------------------------------------------
 *
 * stay_clock.c
 *	  By what time stays begin, end and are renewed.
 *
 * It is Seam's.  An answer tells it in whole seconds, and between answers a clock goes on
 * that nobody sets.  A step of the local clock of over a minute may mean that the machine
 * has slept, which that clock does not count: then another answer has to tell Seam's time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "config/settings.h"
#include "shmem/places.h"
#include "utils/timestamp.h"
#include "worker/credentials.h"
#include "worker/stay_clock.h"

/* An answer that took longer tells little: only what is not known better. */
#define LEARN_DELAY_US (2 * INT64CONST(1000000))

/* A step of the local clock after which nothing is known. */
#define STEP_US (60 * INT64CONST(1000000))

/* A key is not renewed when it is younger; a test build may lower that. */
#ifndef SEAM_IK_LEAST_RENEWAL_MS
#define SEAM_IK_LEAST_RENEWAL_MS 60000
#endif

static bool is_known;
static int64 offset;			/* from clock_now()'s clock to Seam's */
static int64 known_delay;		/* of the answer that has told it */
static int64 local_offset;		/* from clock_now()'s to the local one, then */
static AccountId endpoint;		/* whose clock it is */

/*
 * Learns Seam's time from an answer to a request of this account.  A slow one leaves it open
 * when within its delay Seam has told it: the earliest moment is taken then, so that nothing
 * is done too early, until a faster answer tells it better.
 */
void
stay_clock_learn(const SeamTime *sample, const AccountId *account)
{
	TimestampTz local = GetCurrentTimestamp() - (clock_now() - sample->at);

	if ((is_known && sample->delay > LEARN_DELAY_US && sample->delay >= known_delay) ||
		!account_has_endpoint(account, credentials_id()))
		return;
	offset = stay_clock_estimate(sample->time, Min(sample->delay, LEARN_DELAY_US), local) -
		sample->at;
	local_offset = local - sample->at;
	known_delay = sample->delay;
	endpoint = *account;
	is_known = true;
	places_tell_seam_offset(offset);
}

/*
 * Tells Seam's time now, and when keys are to be renewed.  Returns false where the time is
 * not known.
 */
bool
stay_clock_now(StayClock *clock)
{
	int64		now = clock_now();
	int64		step = GetCurrentTimestamp() - now - local_offset;

	if (is_known && (step > STEP_US || step < -STEP_US ||
					 !account_has_endpoint(&endpoint, credentials_id())))
	{
		is_known = false;
		places_tell_seam_offset(0);
	}
	clock->now = now + offset;
	clock->latest = clock->now + Max(known_delay - LEARN_DELAY_US, 0);
	clock->renew_before = settings_renew_before * USECS_PER_SEC;
	clock->least_age = SEAM_IK_LEAST_RENEWAL_MS * INT64CONST(1000);
	return is_known;
}
