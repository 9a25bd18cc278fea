/*-------------------------------------------------------------------------
 *
 * stay_times.c
 *	  When something is due of a stay, as far as the worker knows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"
#include "worker/stay_clock.h"
#include "worker/stay_times.h"

static TimestampTz next = DT_NOBEGIN;	/* Seam's clock; DT_NOBEGIN: now */

/*
 * Something about stays has changed of which we do not know: has them looked at.
 */
void
stay_times_look(void)
{
	next = DT_NOBEGIN;
}

/*
 * They were looked at: nothing is due before this time of Seam's.
 */
void
stay_times_set(TimestampTz time)
{
	next = time;
}

/*
 * Returns when something is due, by Seam's clock; DT_NOEND: never.
 */
TimestampTz
stay_times_next(void)
{
	return next;
}

/*
 * A request is about to be changed: says when its stay is looked at then.
 */
void
stay_times_after(const WorkRow *row, WorkChange *change)
{
	StayFacts	facts = {.has_row = row->has_target,.is_renewal = row->is_renewal,
		.issue_at = row->issue_at,.valid_until = row->valid_until,
	.former_expires_at = row->former_expires_at};
	StayClock	clock;

	if (!row->is_newest_of_stay)
		return;
	if (change->status == STATUS_PENDING)
		facts.phase = STAY_WAITS;
	else if (change->status == STATUS_ISSUED)
		facts.phase = STAY_HAS_KEY;
	else if (change->status == STATUS_FAILED)
		facts.phase = STAY_FAILED;
	else
		return;
	facts.is_queued = change->next_attempt_at != DT_NOEND;
	facts.is_being_written = facts.is_queued && facts.phase == STAY_HAS_KEY;
	facts.created_at = change->key ? change->key->created_at : DT_NOEND;
	facts.expires_at = change->key ? change->key->expires_at : DT_NOEND;
	change->wakes = change->status != STATUS_ISSUED || change->key != NULL;
	change->wake_at = DT_NOBEGIN;
	/* what a session has changed meanwhile is looked at in any case */
	if (row->wake_at != DT_NOBEGIN && stay_clock_now(&clock))
		change->wake_at = stay_wake_at(&facts, &clock);
	if (change->wakes)
		next = Min(next, change->wake_at);
}
