/*-------------------------------------------------------------------------
 *
 * stay.c
 *	  Which key a stay is to have, and when.
 *
 * A stay is what a row says of a guest: who, from when, until when, and whether.  It has
 * one request after another; each has one successor at most, and the newest one counts.
 * What a row's change means is decided without a clock, because the session that makes it
 * has none that counts: where times matter, the request is marked, and the worker decides
 * by Seam's time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/stay.h"

/*
 * Returns whether a key of the newest request may be alive, or is going to be.
 */
bool
stay_is_alive(const StayFacts *newest)
{
	return newest->phase == STAY_WAITS || newest->phase == STAY_FLIES ||
		newest->phase == STAY_HAS_KEY;
}

/*
 * Returns whether the newest request is a renewal that has failed while the key lives that
 * it was to renew.
 */
static bool
leaves_former(const StayFacts *newest, TimestampTz now)
{
	return newest->phase == STAY_FAILED && newest->is_renewal &&
		newest->former_expires_at != DT_NOEND && newest->former_expires_at > now;
}

/*
 * What a change means for a stay whose newest request is alive and whose row wants a key.
 */
static void
change_of_living(const StayFacts *newest, const StayChange *change, StayPlan *plan)
{
	if (change->key_changed && change->shows == STAY_SHOWS_OTHER)
	{
		plan->act = STAY_STOP;
		plan->end = STAY_LEFT;
	}
	else if (change->identity_changed || change->terms_changed)
	{
		/* late keys are looked for by the identity that the call was for */
		plan->act = newest->phase == STAY_WAITS && !newest->is_looked_for ? STAY_FOLLOW : STAY_ASK;
		plan->revoke_formers = true;
	}
	else if (change->key_changed && change->shows == STAY_SHOWS_NOTHING)
	{
		/* what is on its way is the replacement already */
		plan->act = newest->phase == STAY_HAS_KEY ? STAY_ASK : STAY_NOTHING;
		plan->revoke_formers = true;
	}
	else if (change->key_changed && change->shows == STAY_SHOWS_FORMER)
		plan->write_again = newest->phase == STAY_HAS_KEY;
}

/*
 * What a change means for a stay whose newest request is not alive, and whose row wants a
 * key.
 */
static void
change_of_ended(const StayFacts *newest, const StayChange *change, StayPlan *plan)
{
	bool		revives = change->identity_changed;

	/*
	 * a key that somebody has written to the row stays alone for as long as
	 * its guest
	 */
	if (change->shows != STAY_SHOWS_OTHER)
	{
		revives = revives || change->terms_changed || change->wanted_changed;
		revives = revives || (change->key_changed && change->shows == STAY_SHOWS_NOTHING);
		revives = revives || (newest->phase == STAY_ENDED && newest->end == STAY_OVER &&
							  change->dates_changed);
	}
	else if (change->wanted_changed && newest->phase == STAY_ENDED &&
			 newest->end == STAY_UNWANTED)
		revives = true;			/* its guest changed meanwhile */
	else if (change->key_changed)
	{
		revives = false;
		if (newest->phase == STAY_FAILED || newest->end != STAY_LEFT)
		{
			plan->act = STAY_STOP;
			plan->end = STAY_LEFT;
		}
	}
	if (revives)
		plan->act = STAY_ASK;
}

/*
 * What a change means for a stay whose row is gone, or wants no key.
 */
static void
change_of_unwanted(const StayFacts *newest, const StayChange *change, StayPlan *plan)
{
	bool		by_hand = change->key_changed && change->shows == STAY_SHOWS_OTHER;
	bool		was_left = newest->phase == STAY_ENDED && newest->end == STAY_LEFT;

	if (stay_is_alive(newest) || newest->phase == STAY_FAILED || change->deleted ||
		change->shows == STAY_SHOWS_NEWEST || change->shows == STAY_SHOWS_FORMER || by_hand)
	{
		plan->act = STAY_STOP;
		plan->end = by_hand ? STAY_LEFT : STAY_UNWANTED;
		plan->clear = !change->deleted;
	}
	else if (was_left && change->identity_changed)
	{
		plan->act = STAY_STOP;
		plan->end = STAY_UNWANTED;
	}
}

/*
 * Returns what becomes of a stay whose row has changed, was inserted or is gone: newest is
 * the newest request of it, of which only phase and end count.
 */
StayPlan
stay_after_change(const StayFacts *newest, const StayChange *change)
{
	StayPlan	plan = {.act = STAY_NOTHING,.end = STAY_GOES_ON};
	bool		wants = !change->deleted && change->has_identity && change->wanted;

	if (newest->phase == STAY_NONE)
	{
		if (wants && (change->shows == STAY_SHOWS_NOTHING ||
					  (change->identity_changed && !change->key_changed)))
			plan.act = STAY_ASK;
		return plan;
	}
	if (!wants)
		change_of_unwanted(newest, change, &plan);
	else if (stay_is_alive(newest))
		change_of_living(newest, change, &plan);
	else
		change_of_ended(newest, change, &plan);
	plan.dates = change->dates_changed && !change->deleted && plan.act != STAY_ASK;
	return plan;
}

/*
 * Returns when a key is to be renewed, if its stay lasts longer than it: renew_before its
 * end, but not before half of its life has passed, nor when it is too young.
 */
static TimestampTz
renew_at(TimestampTz created_at, TimestampTz expires_at, const StayClock *clock)
{
	TimestampTz at;

	if (expires_at == DT_NOEND)
		return DT_NOEND;
	at = expires_at - clock->renew_before;
	at = Max(at, created_at + (expires_at - created_at) / 2);
	return Max(at, created_at + clock->least_age);
}

/*
 * What is due of a stay that has a key, goes on and has begun.
 */
static StayDue
due_of_key(const StayFacts *newest, const StayClock *clock, TimestampTz *wake_at)
{
	TimestampTz at;

	/* a stay that ends with its key, or before, needs no other one */
	if (newest->valid_until <= newest->expires_at || newest->is_unwritten)
		return STAY_SLEEP;
	at = renew_at(newest->created_at, newest->expires_at, clock);
	if (at > clock->now)
		*wake_at = Min(*wake_at, at);
	else if (newest->is_being_written)
		*wake_at = Min(*wake_at, clock->now + STAY_UNWRITTEN_US);
	else
		return STAY_RENEW;
	return STAY_SLEEP;
}

/*
 * What is due of a stay whose newest request waits.
 */
static StayDue
due_of_waiting(const StayFacts *newest, const StayClock *clock, TimestampTz *wake_at)
{
	if (newest->is_renewal && newest->former_expires_at <= clock->now)
		return STAY_LOST;
	if (newest->is_renewal && newest->issue_at > clock->now + STAY_BEGUN_US)
		return STAY_POSTPONE;
	if (!newest->is_renewal && newest->issue_at > clock->now)
	{
		*wake_at = Min(*wake_at, newest->issue_at);
		return newest->is_queued || newest->is_looked_at ? STAY_HOLD : STAY_SLEEP;
	}
	if (newest->is_renewal)
		*wake_at = Min(*wake_at, newest->former_expires_at);
	if (newest->is_queued || newest->is_looked_at)
		return STAY_SLEEP;
	return newest->has_row && !newest->is_fresh ? STAY_LOOK : STAY_SEND;
}

/*
 * Returns what is due of a stay now, and in *wake_at when something will be due, if nothing
 * happens before: Seam's time, or DT_NOEND for never.
 */
StayDue
stay_due(const StayFacts *newest, const StayClock *clock, TimestampTz *wake_at)
{
	bool		is_over = newest->valid_until <= clock->now;

	*wake_at = newest->valid_until;
	if (!stay_is_alive(newest) && !leaves_former(newest, clock->now))
		return is_over ? STAY_FORGET : STAY_SLEEP;
	if (is_over)
		return STAY_END;
	if (newest->phase == STAY_WAITS)
		return due_of_waiting(newest, clock, wake_at);
	if (newest->issue_at > clock->now + STAY_BEGUN_US)
		return STAY_POSTPONE;
	if (newest->phase == STAY_HAS_KEY)
		return due_of_key(newest, clock, wake_at);
	if (newest->phase == STAY_FLIES && newest->is_renewal &&
		newest->former_expires_at != DT_NOBEGIN)
	{
		if (newest->former_expires_at <= clock->now)
			return STAY_LOST;
		*wake_at = Min(*wake_at, newest->former_expires_at);
	}
	return STAY_SLEEP;
}

/*
 * Returns Seam's time at the moment when an answer had come: told is its Date, in whole
 * seconds, and delay is how long the answer took, in microseconds.  So it is between told
 * and a second and the delay after it; the local clock tells where, if it is right.
 */
TimestampTz
stay_clock_estimate(TimestampTz told, int64 delay, TimestampTz local)
{
	return Min(Max(local, told), told + USECS_PER_SEC + delay);
}
