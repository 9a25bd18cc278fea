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
 * A request is about to be changed: says when its stay is looked at then.  Returns whether
 * that is at once, and the key that it gets is revoked then, because the stay is over or has
 * not begun.
 */
bool
stay_times_after(const WorkRow *row, WorkChange *change)
{
	StayFacts	facts = {.has_row = row->has_target,.is_renewal = row->is_renewal,
		.issue_at = row->issue_at,.valid_until = row->valid_until,
	.former_expires_at = row->former_expires_at};
	StayClock	clock;
	StayDue		due = STAY_SLEEP;
	TimestampTz wake_at;

	if (!row->is_newest_of_stay)
		return false;
	if (change->status == STATUS_PENDING)
		facts.phase = STAY_WAITS;
	else if (change->status == STATUS_ISSUED)
		facts.phase = STAY_HAS_KEY;
	else if (change->status == STATUS_FAILED)
		facts.phase = STAY_FAILED;
	else
		return false;
	facts.is_queued = change->next_attempt_at != DT_NOEND;
	facts.is_being_written = facts.is_queued && facts.phase == STAY_HAS_KEY;
	facts.created_at = change->key ? change->key->created_at : DT_NOEND;
	facts.expires_at = change->key ? change->key->expires_at : DT_NOEND;
	change->wakes = change->status != STATUS_ISSUED || change->key != NULL;
	change->wake_at = DT_NOBEGIN;
	if (change->wakes && stay_clock_now(&clock))
	{
		due = stay_due(&facts, &clock, &wake_at);
		/* what a session has changed meanwhile is looked at in any case */
		if (due == STAY_SLEEP && row->wake_at != DT_NOBEGIN)
			change->wake_at = wake_at;
	}
	if (change->wakes)
		next = Min(next, change->wake_at);
	return facts.phase == STAY_HAS_KEY && (due == STAY_END || due == STAY_POSTPONE);
}
