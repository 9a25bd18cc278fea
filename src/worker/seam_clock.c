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

/* Seam's clock, as an answer tells it, is asked for again after this time. */
#define CLOCK_GOOD_US (60 * INT64CONST(1000000))

/* An answer that took longer tells too little of it. */
#define CLOCK_DELAY_US (2 * INT64CONST(1000000))

static AccountId endpoint;		/* whose clock it is: only that of it counts */
static bool has_endpoint;
static SeamTime clock_sample;	/* the clock as it was last learnt; at is 0:
								 * it is not known */

/*
 * The account that requests are sent with has changed to this one: where its endpoint is
 * another one, the clock is not known any more.
 */
void
seam_clock_set_endpoint(const AccountId *account)
{
	if (!has_endpoint || !account_has_endpoint(account, &endpoint))
		clock_sample.at = 0;
	endpoint = *account;
	has_endpoint = true;
}

/*
 * Returns whether Seam's clock is known.
 */
bool
seam_clock_is_known(void)
{
	return clock_sample.at != 0;
}

/*
 * Returns Seam's time at a time of clock_now()'s clock; only where it is known.
 */
static TimestampTz
time_at(int64 at)
{
	return clock_sample.time + (at - clock_sample.at);
}

/*
 * Tells Seam's time now, if it is known.
 */
void
seam_clock_now(bool *known, TimestampTz *time)
{
	*known = seam_clock_is_known();
	*time = *known ? time_at(clock_now()) : 0;
}

/*
 * Tells Seam's time when an answer had come, or up to *uncertain microseconds later.
 *
 * Its own Date tells that badly if it took long, so the clock as it is known is
 * taken, unless they contradict each other: then Seam's was set.
 */
void
seam_clock_of_answer(const SeamTime *sample, TimestampTz *at_end, int64 *uncertain)
{
	*at_end = sample->time;
	*uncertain = sample->delay + USECS_PER_SEC;
	if (seam_clock_is_known() &&
		sample->time >= time_at(sample->at - sample->delay) - DOUBT_MARGIN_US &&
		sample->time <= time_at(sample->at) + clock_sample.delay + USECS_PER_SEC + DOUBT_MARGIN_US)
	{
		*at_end = time_at(sample->at);
		*uncertain = clock_sample.delay + USECS_PER_SEC;
	}
}

/*
 * Learns Seam's time from an answer to a request of this account, ours or a session's.
 */
void
seam_clock_learn(const SeamTime *sample, const AccountId *account)
{
	int64		off;

	if (sample->delay > CLOCK_DELAY_US || !has_endpoint ||
		!account_has_endpoint(account, &endpoint))
		return;
	off = seam_clock_is_known() ? sample->time - time_at(sample->at) : 0;
	if (seam_clock_is_known() && sample->delay >= clock_sample.delay &&
		sample->at - clock_sample.at < CLOCK_GOOD_US &&
		off < DOUBT_MARGIN_US && off > -DOUBT_MARGIN_US)
		return;
	clock_sample = *sample;
}
