/*-------------------------------------------------------------------------
 *
 * wakes.c
 *	  Stays for which something is due.
 *
 * The newest request of each stay says when that is, by Seam's clock.  What becomes of it
 * is decided by stay_due(), when its time has come, and when it has changed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/stop_point.h"
#include "config/settings.h"
#include "outbox/stay_work.h"
#include "utils/timestamp.h"
#include "worker/change.h"
#include "worker/flights.h"
#include "worker/queues.h"
#include "worker/stay_clock.h"
#include "worker/stay_times.h"
#include "worker/step.h"
#include "worker/wakes.h"

/* Stays that are looked at in one transaction. */
#define AT_ONCE 500

/* A stay of which a session has locked something is looked at so much later. */
#define LOCKED_US (100 * INT64CONST(1000))

/* Seam's clock is asked for so often, where an answer does not tell it. */
#define ASK_US (5 * INT64CONST(1000000))

static bool keys = true;		/* seam_ik.renew_before may be another one */
static int64 not_before;		/* clock_now()'s clock */
static int64 ask_at;			/* likewise: for the time */
static bool asks;				/* the time is needed, and not known */

/*
 * The settings were read: has keys looked at that may have to be renewed earlier.
 */
void
wakes_look_at_keys(void)
{
	keys = true;
	stay_times_look();
}

/*
 * Does what is due of a stay, besides what *set says.
 */
static bool
take(const StayWork *stay, StayDue due, const StayClock *clock, TimestampTz wake_at, StaySet *set)
{
	const StayFacts *facts = &stay->facts;

	*set = (StaySet)
	{
		.id = stay->id,.wake_at = wake_at
	};
	switch (due)
	{
		case STAY_SLEEP:
			if (facts->is_being_written)
				change_needs_writer();
			break;
		case STAY_HOLD:
			set->holds = true;
			break;
		case STAY_SEND:
			set->queues = true;
			queues_due_at(STATUS_PENDING, DT_NOBEGIN);
			break;
		case STAY_LOOK:
			set->looks = true;
			change_needs_writer();
			break;
		case STAY_RENEW:
			stay_work_succeed(stay, true, facts->expires_at > clock->now ? facts->expires_at :
							  DT_NOEND, Min(facts->valid_until, facts->expires_at > clock->now ?
											facts->expires_at : DT_NOEND));
			queues_due_at(STATUS_PENDING, DT_NOBEGIN);
			change_needs_writer();
			return false;
		case STAY_END:
		case STAY_POSTPONE:
			if (!stay_work_lock(stay))
			{
				not_before = clock_now() + LOCKED_US;
				return false;
			}
			stay_work_end(stay);
			if (due == STAY_END)
				stay_work_note_end(stay, NULL);
			else
				stay_work_succeed(stay, false, DT_NOEND, Min(facts->issue_at,
															 facts->valid_until));
			queues_at_once(STATUS_REVOKING, stay->stay_id);
			change_needs_writer();
			return false;
		case STAY_LOST:
			{
				WorkRow		row = {.id = stay->id,.is_renewal = true,
				.reference = stay->reference};

				stay_work_lost(stay);
				change_needs_writer();
				if (facts->former_expires_at != DT_NOBEGIN)
					change_add_notice(&row, STATUS_FAILED);
			}
			return false;
		case STAY_FORGET:
			stay_work_forget(stay);
			return false;
	}
	return true;
}

/*
 * In a step: has Seam asked for the time, by the list of an identity's keys.
 */
static void
ask_for_time(const pg_uuid_t *identity)
{
	WorkRow		row = {.has_identity = true,.identity = *identity};
	Flight	   *flight = flights_claim(SEAM_LIST, &row);

	flight->again = flight->tells_time = true;
	ask_at = clock_now() + ASK_US;
}

/*
 * In a step: does what is due of stays; may_ask: Seam may be asked for the time.  Returns
 * whether it was.
 */
bool
wakes_take(bool may_ask)
{
	StayClock	clock;
	StayWork   *due;
	StaySet    *sets;
	int			n;
	int			nsets = 0;
	pg_uuid_t	identity;
	TimestampTz next = DT_NOEND;
	bool		has_identity = false;

	if (wakes_next(may_ask) > clock_now())
		return false;
	if (keys)
		stay_work_wake_keys(settings_renew_before);
	keys = false;
	asks = false;
	if (!stay_clock_now(&clock))
	{
		asks = stay_work_first(&next, &has_identity, &identity) && has_identity;
		stay_times_set(next);
		if (!asks || !may_ask || clock_now() < ask_at)
			return false;
		ask_for_time(&identity);
		return true;
	}
	n = stay_work_due(clock.now, AT_ONCE, &due);
	sets = palloc(Max(n, 1) * sizeof(StaySet));
	for (int i = 0; i < n; i++)
	{
		TimestampTz wake_at;
		StayDue		is_due = stay_due(&due[i].facts, &clock, &wake_at);

		STOP_POINT("worker-wake");
		nsets += take(&due[i], is_due, &clock, wake_at, &sets[nsets]);
	}
	stay_work_set(sets, nsets);
	if (!stay_work_first(&next, &has_identity, &identity))
		next = DT_NOEND;
	stay_times_set(next);
	/* a session has locked what is due */
	if (n == 0 && next <= clock.now)
		not_before = clock_now() + LOCKED_US;
	return false;
}

/*
 * Returns when something is due of stays, on clock_now()'s clock; may_ask as above.
 */
int64
wakes_next(bool may_ask)
{
	StayClock	clock;
	int64		now = clock_now();
	TimestampTz next = stay_times_next();

	if (asks && !stay_clock_now(&clock))
		return may_ask ? ask_at : PG_INT64_MAX;
	if (next == DT_NOEND)
		return PG_INT64_MAX;
	if (next == DT_NOBEGIN || !stay_clock_now(&clock))
		return not_before;
	return Max(now + Max(next - clock.now, 0), not_before);
}
