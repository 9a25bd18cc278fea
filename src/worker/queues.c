/*-------------------------------------------------------------------------
 *
 * queues.c
 *	  When something in the outbox is due, as far as this process knows.
 *
 * The queues are the statuses in which there is something to do: at once, or after a
 * pause.  What comes of which nobody tells is found by a look at all of them, now and then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "outbox/work_statement.h"
#include "utils/timestamp.h"
#include "worker/queues.h"

/* What is not found, or for which there are enough lists under way, is looked for so much later. */
#define LOOK_PAUSE_US USECS_PER_SEC

/* Of each status; of others than those in queued[] they are not used. */
static WorkQueue queues[STATUS_COUNT];
static const RequestStatus queued[] = {STATUS_PENDING, STATUS_REVOKING, STATUS_ISSUED,
STATUS_CANCELLED};
static TimestampTz look_again_at;	/* when late keys are to be looked for */

/*
 * Makes the queues what they are at the start of the process.
 */
void
queues_set_up(void)
{
	for (int i = 0; i < (int) lengthof(queued); i++)
		queues[queued[i]].status = queued[i];
	queues_look_at_all();
}

/*
 * Has every queue looked at: something may have come of which we do not know.
 */
void
queues_look_at_all(void)
{
	for (int i = 0; i < (int) lengthof(queued); i++)
		queues[queued[i]].next_due = DT_NOBEGIN;
}

/*
 * Has each read from its beginning, because the clock was set.
 */
void
queues_read_in_full(void)
{
	for (int i = 0; i < (int) lengthof(queued); i++)
		queues[queued[i]].next_full = 0;
	queues_look_at_all();
}

/*
 * A read of the queues has failed with this error: from now on what cannot be read is read
 * around, if it may be the fault of single rows.
 */
void
queues_be_careful(const ErrorData *error)
{
	for (int i = 0; error && i < (int) lengthof(queued) && work_is_of_one(error->sqlerrcode); i++)
	{
		queues[queued[i]].careful = true;
		queues[queued[i]].next_full = 0;
	}
}

/*
 * Something with this status is due at this time.
 */
void
queues_due_at(RequestStatus status, TimestampTz time)
{
	queues[status].next_due = Min(queues[status].next_due, time);
}

/*
 * The request with this id is due at once: requests do not end in the order in which they
 * began, so the queue is read from it on.
 */
void
queues_at_once(RequestStatus status, int64 id)
{
	queues_due_at(status, DT_NOBEGIN);
	queues[status].at_once.id = Min(queues[status].at_once.id, id - 1);
}

/*
 * Returns whether something with this status is due.
 */
bool
queues_is_due(RequestStatus status)
{
	return queues[status].next_due <= GetCurrentTimestamp();
}

/*
 * Nothing with this status was found to be due: looks again a little later.
 */
void
queues_none_due(RequestStatus status)
{
	queues[status].next_due = Max(queues[status].next_due, GetCurrentTimestamp() + LOOK_PAUSE_US);
}

/*
 * Returns whether the next queues_claim() begins at the beginning.
 */
bool
queues_reads_all(RequestStatus status)
{
	return clock_now() >= queues[status].next_full;
}

/*
 * Returns when something with this status will be due, or DT_NOEND.
 */
TimestampTz
queues_next(RequestStatus status)
{
	return queues[status].next_due;
}

/*
 * In a step: claims what is due, as work_claim() does.
 */
int
queues_claim(RequestStatus status, const WorkAttempt *attempt, ArrayType *held, int limit,
			 WorkRow **rows)
{
	return work_claim(&queues[status], attempt, held, limit, rows);
}

/*
 * Late keys of a request are to be looked for at this time.
 */
void
queues_look_again_at(TimestampTz time)
{
	look_again_at = Min(look_again_at, time);
}

/*
 * Returns when late keys are to be looked for.
 */
TimestampTz
queues_next_look(void)
{
	return look_again_at;
}

/*
 * In a step: takes requests whose late keys are to be looked for, at most limit of them,
 * which may be none.  Returns how many.
 */
int
queues_claim_looks(int limit, WorkRow **rows)
{
	if (look_again_at > GetCurrentTimestamp())
		return 0;
	if (limit <= 0)
	{
		look_again_at = GetCurrentTimestamp() + LOOK_PAUSE_US;
		return 0;
	}
	return work_look_again(limit, rows, &look_again_at);
}
