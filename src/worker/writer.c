/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  The writer of a database: writes issued keys to users' rows, and tells
 *	  those who listen.
 *
 * Users' code runs here, and a lock of the whole cluster is held while somebody is told;
 * so this is a process of its own, for which nobody waits.  The launcher starts it when the
 * worker or a session has something for it, and it goes when there has been nothing to do
 * for a while.  src/worker/README.md tells what each way of its end leaves.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/stop_point.h"
#include "miscadmin.h"
#include "outbox/mark.h"
#include "pgstat.h"
#include "shmem/activity.h"
#include "shmem/places.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/local_clock.h"
#include "worker/queues.h"
#include "worker/row_tables.h"
#include "worker/rows.h"
#include "worker/step.h"
#include "worker/tell.h"

/* It goes when there was nothing to do for so long. */
#define IDLE_US (10 * INT64CONST(1000000))

PGDLLEXPORT void seam_ik_writer_main(Datum main_arg);

/*
 * before_shmem_exit callback: it ends, and has not crashed.  Nothing is done here that takes
 * its time or may fail, because nothing could interrupt it, and an error would be FATAL.
 */
static void
at_exit(int code, Datum arg)
{
	STOP_POINT("writer-end");
	rows_note_stuck();
}

/*
 * A step: no code of a table runs any more.
 */
static void
drop_marks(void *arg)
{
	mark_leave();
}

/*
 * Ends for a reason that is no failure; another one is to follow at this time
 * (clock_now()'s clock), or when it is asked for (PG_INT64_MAX).  Its marks, which else its
 * successor would see to, go with it.
 */
pg_noreturn static void
leave(int64 due)
{
	Step		step = {.run = drop_marks,.what = "note that it ends"};

	(void) step_take(&step);
	places_write_at(due == PG_INT64_MAX ? 0 : due);
	places_expect_exit();
	proc_exit(0);
}

/*
 * When something will be due, on clock_now()'s clock.
 */
static int64
next_due(void)
{
	int64		clock = clock_now();
	TimestampTz now = GetCurrentTimestamp();
	int64		rows = rows_due();
	int64		cancelled = local_clock_monotonic(queues_next(STATUS_CANCELLED), now, clock);

	if (tell_not_before() > 0)
		cancelled = tell_not_before();
	return Min(Min(rows, cancelled), local_clock_monotonic(rows_next_task(), now, clock));
}

/*
 * Waits for something to do, at most until this time; what was done is counted before.
 */
static void
wait_until(int64 at)
{
	long		ms = (long) Min(Max(at - clock_now(), 0) / 1000 + 1, 60 * 1000);

	(void) pgstat_report_stat(true);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/*
 * Main function of the writer.
 */
void
seam_ik_writer_main(Datum main_arg)
{
	int64		idle_since = 0;

	STOP_POINT("writer-start");
	step_start(main_arg, PLACE_WRITER, die);

	/*
	 * what a crash loses is done again; and nobody is told while a standby is
	 * waited for
	 */
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	queues_set_up();
	MemoryContextSwitchTo(step_context());
	activity_begin(ACTIVITY_WRITER, 0);
	if (!row_tables_set_up())
		proc_exit(step_outbox() == OUTBOX_OURS ? 1 : 0);
	before_shmem_exit(at_exit, (Datum) 0);
	for (;;)
	{
		bool		busy;

		step_check_interrupts();
		MemoryContextReset(step_context());
		(void) step_reload();
		if (local_clock_watch())
			queues_read_in_full();
		if (places_calls() != 0)
		{
			if (places_want_exit())
				leave(PG_INT64_MAX);
			queues_look_at_all();
			rows_look_at_tasks();
			row_tables_look_soon();
		}
		busy = tell();
		busy = rows_write() || busy;
		if (step_outbox() != OUTBOX_OURS)
			leave(PG_INT64_MAX);
		if (busy)
		{
			idle_since = 0;
			continue;
		}
		if (idle_since == 0)
		{
			rows_rest();
			idle_since = clock_now();
		}
		if (clock_now() - idle_since >= IDLE_US && next_due() - clock_now() >= IDLE_US)
			leave(next_due());
		if (!places_is_called())
			wait_until(Min(next_due(), idle_since + IDLE_US));
	}
}
