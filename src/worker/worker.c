/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The worker of a database: sends what is in its outbox.
 *
 * One loop.  A short transaction stores the results of the requests that have
 * ended, and another one claims as many as may be sent; it commits durably, so that
 * a crash leaves a trace of every request that may have left.  Then they are sent, all
 * at once and outside any transaction, by the same engine that a session's use.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/stop_point.h"
#include "catalog/pg_type.h"
#include "config/settings.h"
#include "logic/pace.h"
#include "logic/outcome.h"
#include "miscadmin.h"
#include "outbox/upkeep.h"
#include "outbox/work_statement.h"
#include "outbox/writing.h"
#include "pgstat.h"
#include "shmem/activity.h"
#include "shmem/places.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/change.h"
#include "worker/claims.h"
#include "worker/credentials.h"
#include "worker/doubts.h"
#include "worker/fates.h"
#include "worker/flights.h"
#include "worker/intents.h"
#include "worker/local_clock.h"
#include "worker/pausing.h"
#include "worker/queues.h"
#include "worker/recorder.h"
#include "worker/remaining.h"
#include "worker/sending.h"
#include "worker/stay_times.h"
#include "worker/step.h"
#include "worker/storing.h"
#include "worker/wakes.h"

/* Housekeeping: retention, rows of copies, and whatever nobody told us of. */
#define HOUSEKEEPING_US (60 * INT64CONST(1000000))

/* How soon others shall see what was written, in pg_stat_user_tables. */
#define STATS_MS 1000

/* While more is to be deleted. */
#define DELETE_PAUSE_US (100 * INT64CONST(1000))

/* What was issued stays for so long at least, whatever seam_ik.retention says. */
#define KEEP_AT_LEAST_US (10 * INT64CONST(1000000))

static int64 paused_until;		/* after an error */
static int64 housekeeping_at;
static int64 intents_at;		/* when to look at sessions' calls, unasked */
static bool clock_was_set;		/* pauses may be too long since then */
static volatile sig_atomic_t waiting;	/* for the network, or anything new */
static volatile sig_atomic_t end_requested;

PGDLLEXPORT void seam_ik_worker_main(Datum main_arg);

/* ---------- a turn ---------- */

/*
 * The step of a turn, after what has ended is stored: reads the doubts anew where that is
 * wanted, and claims what may be sent.  arg: whether anything may be.
 */
static void
turn(void *arg)
{
	bool		may_send = *(bool *) arg;

	/*
	 * that a request is on its way must not be lost, whatever
	 * synchronous_commit says
	 */
	ForceSyncCommit();
	if (doubts_are_stale())
	{
		doubts_read();
		intents_doubts_were_read();
	}
	pausing_read();
	may_send = may_send && !pausing_is_on();
	/* before anything is sent: of what ended just now, a stay may be over */
	(void) wakes_take(may_send);
	if (may_send)
		claims_take();
}

/* ---------- the loop ---------- */

/*
 * The local clock was set.
 */
static void
local_clock_set(void)
{
	clock_was_set = true;
	doubts_read_anew();
	housekeeping_at = 0;
	queues_read_in_full();
}

/*
 * In a transaction: end the pauses that cannot be ours, because the clock was set back
 * since they began.  They are longer than any; and where it may have been set just
 * now, those that began in the future are over, too.
 */
static void
end_pauses(void)
{
	static const RequestStatus all[] = {STATUS_PENDING, STATUS_IN_FLIGHT, STATUS_REVOKING,
	STATUS_ISSUED};
	static const RequestStatus rows[] = {STATUS_ISSUED};
	TimestampTz now = GetCurrentTimestamp();
	int64		attempt = ((int64) settings_request_timeout + settings_settle_delay) * 1000;

	upkeep_end_pauses(all, lengthof(all), now + Max(PACE_LONGEST_US, attempt), DT_NOBEGIN);
	upkeep_end_pauses(rows, lengthof(rows), now + WRITING_LONGEST_PAUSE_US, DT_NOBEGIN);
	upkeep_end_task_pauses(clock_was_set ? now : now + WRITING_LONGEST_PAUSE_US);
	if (!clock_was_set)
		return;
	upkeep_end_pauses(all, lengthof(all), now, now);
	/* not too early either, where it was set ahead */
	upkeep_put_off_looks(now + OUTCOME_LATE_US);
}

/* What comes of housekeeping. */
typedef struct House
{
	bool		more;			/* more is to be deleted */
	bool		rows_wait;		/* there is something for the writer */
} House;

/*
 * In a transaction: what has to be done now and then.
 */
static void
housekeeping(void *arg)
{
	House	   *house = arg;

	step_read_database();
	upkeep_warn_of_others();
	end_pauses();
	house->rows_wait = writing_any();
	if (settings_retention >= 0)
	{
		List	   *keep = NIL;
		Datum	   *ids;
		pg_uuid_t  *awaited;
		int			n = work_awaited(&awaited);
		ListCell   *lc;

		/*
		 * while a doubt of an identity may come up, its keys' owners are
		 * needed
		 */
		for (int i = 0; i < n; i++)
			keep = lappend(keep, &awaited[i]);
		n = 0;
		for (const WorkRow *doubt = doubts_next(NULL); doubt; doubt = doubts_next(doubt))
			keep = lappend(keep, unconstify(pg_uuid_t *, &doubt->identity));
		for (Flight *flight = flights_next(NULL); flight; flight = flights_next(flight))
			keep = lappend(keep, &flight->row.identity);
		keep = intents_identities(keep);
		ids = palloc(Max(list_length(keep), 1) * sizeof(Datum));
		foreach(lc, keep)
			ids[n++] = UUIDPGetDatum(lfirst(lc));
		house->more = upkeep_delete_old(GetCurrentTimestamp() -
										Max(settings_retention * USECS_PER_SEC, KEEP_AT_LEAST_US),
										work_array(ids, NULL, n, UUIDOID));
	}
}

/*
 * Does that, and sees when it is to be done again.
 */
static void
keep_house(void)
{
	House		house = {0};
	Step		step = {.run = housekeeping,.arg = &house,.what = "tidy up"};

	if (step_take(&step))
		clock_was_set = false;
	if (house.rows_wait)
		places_wake_other(PLACE_WRITER, WAKE_WORK);
	housekeeping_at = clock_now() + (house.more ? DELETE_PAUSE_US : HOUSEKEEPING_US);
	if (settings_retention >= 0 && settings_retention < HOUSEKEEPING_US / USECS_PER_SEC)
		housekeeping_at = Min(housekeeping_at, clock_now() + KEEP_AT_LEAST_US);
	queues_look_at_all();
	queues_look_again_at(DT_NOBEGIN);
}

/*
 * The step of a turn has committed: sends what it has claimed.
 */
static void
turn_committed(void *arg)
{
	flights_start_claimed();
	change_send_notices();
}

/*
 * The step of a turn has failed: forgets what it had claimed.
 */
static void
turn_failed(void *arg, const ErrorData *error)
{
	flights_forget_claimed();
	queues_be_careful(error);
	change_forget_notices(0);
	queues_look_again_at(DT_NOBEGIN);
	queues_look_at_all();
	stay_times_look();
	if (error)
		paused_until = clock_now() + step_pause_after(error);
}

/*
 * Shows a text in pg_stat_activity, unless it is there.
 */
static void
show(BackendState state, const char *text)
{
	static char told[64];

	if (strcmp(text, told) == 0)
		return;
	strlcpy(told, text, sizeof(told));
	pgstat_report_activity(state, told);
}

/*
 * Sends what may be sent.
 */
static void
take_turn(void)
{
	bool		changed = false;
	bool		may_send = settings_worker && recorder_has_read() &&
	credentials_refresh(flights_flying() == 0, &changed);
	Step		step = {.run = turn,.committed = turn_committed,.failed = turn_failed,
	.arg = &may_send,.what = "go on"};

	if (changed)
	{
		flights_use_account();
		/* which workspace is the settings' may be another one */
		doubts_read_anew();
		sending_trust_account();
	}
	(void) step_take(&step);
}

/*
 * When there will be something to do, if nothing happens before.
 */
static int64
next_turn(void)
{
	int64		http = clock_now();
	TimestampTz now = GetCurrentTimestamp();
	int64		at = intents_at;
	int64		again_at;

	again_at = flights_store_due();
	at = Min(at, again_at);
	if (paused_until > http)
		return Min(at, paused_until);
	at = Min(at, housekeeping_at);
	if (!settings_worker || pausing_is_on() || !recorder_has_read())
		return at;
	again_at = wakes_next(!credentials_are_missing(&again_at));
	at = Min(at, again_at);
	if (credentials_are_missing(&again_at))
		return Min(at, again_at);
	if (claims_allowance(&again_at) == 0)
	{
		/* only when there is something to send */
		if (doubts_unsettled() == 0 && queues_next(STATUS_PENDING) == DT_NOEND &&
			queues_next(STATUS_REVOKING) == DT_NOEND &&
			queues_next_look() > now)
			return at;
		return Min(at, again_at);
	}
	at = Min(at, local_clock_monotonic(queues_next(STATUS_PENDING), now, http));
	at = Min(at, local_clock_monotonic(queues_next(STATUS_REVOKING), now, http));
	at = Min(at, local_clock_monotonic(queues_next_look(), now, http));
	/* Min() would call it twice */
	again_at = claims_list_due();
	return Min(at, again_at);
}

/*
 * Settings were read anew: what is sent from now on obeys them.  What is under way keeps
 * what it began with.
 */
static void
settings_changed(void)
{
	sending_resume();
	flights_set_max();
	credentials_look_now();
	housekeeping_at = 0;
	queues_look_at_all();
	wakes_look_at_keys();
}

/*
 * The extension is gone, or is about to go with its database, and with it what the calls
 * under way were for: what they have issued, or may have, and likewise those whose answers
 * were lost, is left to the readers of the log.
 */
static void
log_abandoned(const char *why)
{
	Remaining	remaining = {0};

	for (Flight *flight = flights_next(NULL); flight; flight = flights_next(flight))
	{
		if (flight->op == SEAM_GENERATE && (!flight->has_ended || flight->result.sqlerrcode == 0 ||
											flight->result.kind == REPLY_DOUBT))
			remaining_add(&remaining, &flight->row.identity);
	}
	for (const WorkRow *doubt = doubts_next(NULL); doubt; doubt = doubts_next(doubt))
	{
		if (doubt->has_identity)
			remaining_add(&remaining, &doubt->identity);
	}
	remaining_warn(&remaining,
				   psprintf("%s, and %d instant keys that the outbox of database \"%s\" has asked "
							"for may exist", why, remaining.n, step_database()));
}

/*
 * In a step: reads what is in doubt.
 */
static void
read_doubts(void *arg)
{
	doubts_read();
}

/*
 * Exit for a reason that is no failure.
 */
static void
leave(void)
{
	if (step_outbox() == OUTBOX_GONE)
	{
		log_abandoned("extension seam_ik was dropped");
		fates_log("extension seam_ik was dropped");
	}
	else
	{
		recorder_finish();
		if (places_want_exit())
			fates_log("seam_ik had to make way for a command like DROP DATABASE");
		/* after any other command a successor goes on with them */
		if (places_want_drop())
		{
			Step		read = {.run = read_doubts,.what = "see what is in doubt"};

			(void) step_take(&read);
			log_abandoned("seam_ik had to make way for DROP DATABASE");
		}
	}
	places_expect_exit();
	proc_exit(0);
}

/*
 * Has a session called?  Then see what it has to tell: sessions wait for their
 * calls to be recorded.  Returns whether there may be something else to do.
 */
static bool
see_to_wakes(void)
{
	uint32		calls = places_calls();
	bool		look = calls & (1 << WAKE_FATES);

	if (look || (calls & (1 << WAKE_INTENTS)) || intents_at <= clock_now())
		intents_at = recorder_run(look);
	if (calls == 0)
		return false;
	if (places_want_exit())
		leave();
	if (calls & (1 << WAKE_WORK))
	{
		queues_look_at_all();
		stay_times_look();
	}
	if (calls & (1 << WAKE_DOUBTS))
		doubts_read_anew();
	if (calls & (1 << WAKE_ROOM))
		change_send_notices();
	return calls & ~((1 << WAKE_INTENTS) | (1 << WAKE_ROOM));
}

/*
 * Makes what the loop needs.
 */
static void
set_up(void)
{
	queues_set_up();
	doubts_set_up();
	sending_set_up();
	flights_set_up();
	recorder_set_up();
	clock_was_set = true;		/* for all that we know */
	MemoryContextSwitchTo(step_context());
}

/*
 * Says what the worker does from now on: to the view seam_ik_activity, and to
 * pg_stat_activity.
 */
static void
tell_state(void)
{
	char		text[64];
	int			under_way = flights_flying();
	int64		now = clock_now();
	int64		again_at = 0;
	WorkerState state;

	if (!settings_worker)
		state = WORKER_OFF;
	else if (pausing_is_on())
		state = WORKER_PAUSED;
	else if (credentials_are_missing(&again_at))
		state = WORKER_NO_KEY;
	else
		state = sending_state(now, &again_at);
	if (state == WORKER_IDLE && under_way > 0)
		state = WORKER_WAITS_FOR_SEAM;
	activity_turned(state, again_at > now ? GetCurrentTimestamp() + (again_at - now) : 0,
					under_way, sending_limit());
	if (under_way > 0)
		snprintf(text, sizeof(text), "waiting for Seam: %d %s", under_way,
				 under_way == 1 ? "call" : "calls");
	else
		strlcpy(text, activity_state_name(state), sizeof(text));
	show(under_way > 0 ? STATE_RUNNING : STATE_IDLE, text);
}

/*
 * Stores what has ended, and says so to pg_stat_activity meanwhile: a constraint, or a commit
 * that waits for a standby, may take its time.
 */
static void
store(void)
{
	int			n = flights_ended();

	if (n > 0)
		show(STATE_RUNNING, psprintf("settling %d %s", n, n == 1 ? "answer" : "answers"));
	storing_run();
}

/*
 * SIGTERM: what is known is noted before the end, unless a transaction is under way,
 * which may wait for anything.
 */
static void
end_worker(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (!waiting)
	{
		die(SIGNAL_GIVEN);
		return;
	}
	end_requested = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * End as SIGTERM wants it.
 */
static void
end_now(void)
{
	recorder_finish();
	ProcDiePending = InterruptPending = true;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Main function of the worker.
 */
void
seam_ik_worker_main(Datum main_arg)
{
	int64		turn_at = 0;

	STOP_POINT("worker-start");
	step_start(main_arg, PLACE_MAIN, end_worker);
	set_up();
	activity_begin(ACTIVITY_WORKER, 0);
	/* the oldest requests may be witnesses */
	intents_at = recorder_run(true);
	keep_house();
	for (;;)
	{
		int64		wake_at;
		long		stats_in;
		bool		due;

		step_check_interrupts();
		MemoryContextReset(step_context());
		if (local_clock_watch())
			local_clock_set();
		if (step_reload())
			settings_changed();
		due = see_to_wakes() || doubts_are_stale() || flights_store_due() <= clock_now() ||
			clock_now() >= turn_at || next_turn() <= clock_now();
		if (due)
			store();
		if (due && paused_until <= clock_now())
		{
			if (clock_now() >= housekeeping_at)
				keep_house();
			take_turn();
		}
		if (step_outbox() != OUTBOX_OURS)
			leave();

		stats_in = pgstat_report_stat(flights_flying() == 0);
		turn_at = next_turn();
		/* they are reported by the clock of the last transaction */
		if (stats_in > 0)
			turn_at = Min(turn_at, clock_now() + Min(stats_in, STATS_MS) * 1000);
		wake_at = step_reload_due();
		wake_at = Min(wake_at, turn_at);
		tell_state();
		waiting = true;
		flights_wait(places_is_called() ? 0 : wake_at);
		waiting = false;
		if (end_requested)
			end_now();
	}
}
