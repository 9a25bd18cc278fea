/*-------------------------------------------------------------------------
 *
 * activity.c
 *	  What processes say of themselves: calls, batches, workers, writers.
 *
 * Each process has an entry by its number, which nobody else writes; its lock is held for
 * as long as the entry is copied.  Without shared memory of ours nothing is said.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "miscadmin.h"
#include "shmem/activity.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A process's entry. */
typedef struct Entry
{
	slock_t		lock;
	Activity	activity;
} Entry;

static Entry *entries;			/* MaxBackends; NULL: not preloaded */
static Entry *mine;				/* of this process, or NULL */

/*
 * shmem_request_hook
 */
void
activity_request_shared(void)
{
	RequestAddinShmemSpace(mul_size(MaxBackends, sizeof(Entry)));
}

/*
 * shmem_startup_hook
 */
void
activity_startup_shared(void)
{
	bool		found;
	Size		size = mul_size(MaxBackends, sizeof(Entry));

	entries = ShmemInitStruct("seam_ik activity", size, &found);
	if (found)
		return;
	memset(entries, 0, size);
	for (int i = 0; i < MaxBackends; i++)
		SpinLockInit(&entries[i].lock);
}

/*
 * Replaces this process's entry.
 */
static void
publish(const Activity *activity)
{
	SpinLockAcquire(&mine->lock);
	mine->activity = *activity;
	SpinLockRelease(&mine->lock);
}

/*
 * on_shmem_exit callback: the process is about nothing any more.
 */
static void
leave(int code, Datum arg)
{
	activity_end();
}

/*
 * Says that the process has begun something; total: requests that are to be made, or 0.
 * Until activity_end().
 */
void
activity_begin(ActivityWhat what, int64 total)
{
	Activity	activity = {.pid = MyProcPid,.database = MyDatabaseId,.what = what,.total = total};

	if (entries == NULL || MY_PROC_NUMBER >= MaxBackends)
		return;
	if (mine == NULL)
	{
		mine = &entries[MY_PROC_NUMBER];
		on_shmem_exit(leave, (Datum) 0);
	}
	activity.since = GetCurrentTimestamp();
	publish(&activity);
}

/*
 * It is done with that, or was never about anything.  Never throws.
 */
void
activity_end(void)
{
	Activity	nothing = {0};

	if (mine)
		publish(&nothing);
}

/*
 * Says how many requests have ended (of a writer: rows), and how many of them have failed.
 */
void
activity_progress(int64 done, int64 failed)
{
	if (mine == NULL)
		return;
	SpinLockAcquire(&mine->lock);
	mine->activity.done = done;
	mine->activity.failed = failed;
	SpinLockRelease(&mine->lock);
}

/*
 * Says that so many more have ended, and how many of these have failed.
 */
void
activity_add(int64 done, int64 failed)
{
	if (mine)
		activity_progress(mine->activity.done + done, mine->activity.failed + failed);
}

/*
 * A worker comes round its loop: says what it does now, until when at least (0: nobody
 * knows), how many requests are under way, and how many may be.
 */
void
activity_turned(WorkerState state, TimestampTz until, int under_way, int limit)
{
	TimestampTz now = GetCurrentTimestamp();

	if (mine == NULL)
		return;
	SpinLockAcquire(&mine->lock);
	mine->activity.state = state;
	mine->activity.until = until;
	mine->activity.turned_at = now;
	mine->activity.under_way = under_way;
	mine->activity.limit = limit;
	SpinLockRelease(&mine->lock);
}

/*
 * Returns how many entries there are; 0 without shared memory of ours.
 */
int
activity_places(void)
{
	return entries ? MaxBackends : 0;
}

/*
 * Copies an entry, from 0 on.  Returns whether a process is about something there.
 */
bool
activity_get(int place, Activity *activity)
{
	Entry	   *entry = &entries[place];

	SpinLockAcquire(&entry->lock);
	*activity = entry->activity;
	SpinLockRelease(&entry->lock);
	return activity->what != ACTIVITY_NONE;
}

/*
 * Copies an entry of a database's process that is about this.  Returns whether there is one.
 */
bool
activity_of(Oid database, ActivityWhat what, Activity *activity)
{
	for (int i = 0; i < activity_places(); i++)
	{
		if (activity_get(i, activity) && activity->what == what && activity->database == database)
			return true;
	}
	return false;
}

/*
 * Returns what the view calls that, static.
 */
const char *
activity_what_name(ActivityWhat what)
{
	static const char *const names[] = {
		[ACTIVITY_NONE] = "none",[ACTIVITY_CALL] = "call",[ACTIVITY_BATCH] = "batch",
		[ACTIVITY_WORKER] = "worker",[ACTIVITY_WRITER] = "writer",
	};

	return names[what];
}

/*
 * Returns what the view and pg_stat_activity call a worker's state, static.
 */
const char *
activity_state_name(WorkerState state)
{
	static const char *const names[WORKER_STATES] = {
		[WORKER_STARTING] = "starting",
		[WORKER_IDLE] = "idle",
		[WORKER_WAITS_FOR_SEAM] = "waiting for Seam",
		[WORKER_PAUSED] = "paused",
		[WORKER_OFF] = "off",
		[WORKER_NO_KEY] = "no API key",
		[WORKER_REFUSED] = "API key not accepted",
		[WORKER_LIMITED] = "rate limit",
		[WORKER_AWAY] = "Seam is away",
	};

	return names[state];
}
