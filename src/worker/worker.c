/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The worker of a database: sends what is in its outbox.
 *
 * One loop.  A short transaction stores the results of the calls that have
 * ended and claims as many requests as may be sent; it commits durably, so that
 * a crash leaves a trace of every request that may have left.  Then the calls
 * are made, all at once and outside any transaction, by the same engine that a
 * session's calls use.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/dbcommands.h"
#include "base/compat.h"
#include "net/http.h"
#include "shmem/places.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "config/reload.h"
#include "config/settings.h"
#include "base/stop_point.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker_state.h"
#include "worker/write_back.h"

#define CHANNEL "seam_instant_key"

/* Housekeeping: retention, rows of copies, and whatever nobody told us of. */
#define HOUSEKEEPING_US (60 * INT64CONST(1000000))

/* How soon others shall see what was written, in pg_stat_user_tables. */
#define STATS_MS 1000

/* While more is to be deleted. */
#define DELETE_PAUSE_US (100 * INT64CONST(1000))

/* Rows to write that are taken at once. */
#define WRITE_BACKS_AT_ONCE 100

/* How long a user's lock of a recorded call may hold us up. */
#define LOCK_TIMEOUT_SHORT "20ms"

/* Identities in one line of the log. */
#define IDENTITIES_PER_LINE 100

Worker		worker;

static int64 reload_at;			/* not before, after it failed */

static volatile sig_atomic_t waiting;	/* for the network, or anything new */
static volatile sig_atomic_t end_requested;

PGDLLEXPORT void seam_ik_worker_main(Datum main_arg);

/* ---------- transactions ---------- */

/*
 * Run a function in a transaction.  Returns NULL when it has committed, else
 * the error, in the turn's context; the transaction is rolled back then.
 */
ErrorData *
worker_transaction(void (*function) (void *arg), void *arg)
{
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		function(arg);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(worker.turn);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		QueryCancelPending = false;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker.turn);
	return error;
}

/* What worker_work() is to do. */
typedef struct Work
{
	void		(*function) (void *arg);
	void	   *arg;
} Work;

/*
 * In a transaction: that, if the outbox is there and its owner is who we are.
 */
static void
do_work(void *arg)
{
	Work	   *work = arg;

	worker.gone = !work_begin();
	worker.disowned = !worker.gone && !work_is_ours();
	if (!worker.gone && !worker.disowned)
		work->function(work->arg);
	work_end();
}

/*
 * Run a function in a transaction that works on the outbox.  It is not run, and
 * worker.gone or .disowned is set, when the outbox is not ours any more.  Returns as
 * worker_transaction() does.
 */
ErrorData *
worker_work(void (*function) (void *arg), void *arg)
{
	Work		work = {function, arg};

	return worker_transaction(do_work, &work);
}

/*
 * CHECK_FOR_INTERRUPTS between transactions, where there is nothing to cancel.
 */
void
worker_check_interrupts(void)
{
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Log the error of a transaction of ours, as a warning; one of a kind a minute.
 */
void
worker_log_error(const ErrorData *error, const char *what)
{
	static int	last = 0;
	static int64 last_at = 0;

	/* the same again, each second, tells nothing */
	if (error->sqlerrcode == last && clock_now() - last_at < HOUSEKEEPING_US)
		return;
	last = error->sqlerrcode;
	last_at = clock_now();
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("the outbox of database \"%s\" could not %s: %s", worker.database, what,
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}

/* What worker_step() is to do. */
typedef struct Step
{
	void		(*function) (void);
	bool		patient;
} Step;

/*
 * In a transaction: that.
 */
static void
take_step(void *arg)
{
	Step	   *step = arg;

	if (!step->patient)
		(void) set_config_option("lock_timeout", LOCK_TIMEOUT_SHORT, PGC_SUSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	step->function();
}

/*
 * Take a step in a transaction of its own: where a user's lock or trigger is in the
 * way of one, the others go on.  patient: it waits longer for locks.  Returns whether
 * that worked; an error is logged.
 */
bool
worker_step(void (*function) (void), bool patient, const char *what)
{
	Step		step = {function, patient};
	ErrorData  *error;

	if (worker.gone || worker.disowned)
		return false;
	error = worker_work(take_step, &step);
	if (error)
		worker_log_error(error, what);
	return error == NULL && !worker.gone && !worker.disowned;
}

/* ---------- a turn ---------- */

/*
 * The transaction of a turn: store what has ended, claim what may be sent.
 */
static void
turn(void *arg)
{
	bool		may_send = *(bool *) arg;
	WorkRow    *rows;
	dlist_iter	it;
	int			n;

	/* an intent or a key must not be lost, whatever synchronous_commit says */
	ForceSyncCommit();
	dlist_foreach(it, &worker.ended)
	{
		Flight	   *flight = dlist_container(Flight, node, it.cur);

		flight->stored = worker_store(flight);
		if (!flight->stored)
			worker.retry_at = clock_now() + LOCKED_PAUSE_US;
	}
	if (worker.doubts_changed)
		worker_read_doubts();
	if (may_send)
		worker_claim_calls();
	if (worker_is_due(&worker.cancelled))
	{
		n = work_claim(&worker.cancelled, NULL, NULL, WRITE_BACKS_AT_ONCE, &rows);
		for (int i = 0; i < n; i++)
			worker_add_notice(&rows[i], STATUS_CANCELLED);
	}
	if (worker.nto_write == 0 && worker_is_due(&worker.write_backs))
	{
		n = work_claim(&worker.write_backs, NULL, NULL, WRITE_BACKS_AT_ONCE, &rows);
		for (int i = 0; i < n; i++)
			worker.to_write[worker.nto_write++] = rows[i].id;
	}
}

/* ---------- telling who listens ---------- */

/*
 * In a transaction: notify of each end.
 */
static void
notify(void *arg)
{
	ListCell   *lc;

	foreach(lc, worker.notices)
	{
		Notice	   *notice = lfirst(lc);
		StringInfoData payload;

		initStringInfo(&payload);
		appendStringInfo(&payload, "{\"request_id\":" INT64_FORMAT ",\"reference\":", notice->id);
		if (notice->reference)
			escape_json(&payload, notice->reference);
		else
			appendStringInfoString(&payload, "null");
		appendStringInfo(&payload, ",\"status\":\"%s\"}", status_names[notice->status]);
		Async_Notify(CHANNEL, payload.data);
	}
}

/*
 * Tell of what has been stored.  Nobody depends on it, so a failure is only
 * logged.
 */
static void
send_notices(void)
{
	ErrorData  *error;

	if (worker.notices == NIL)
		return;
	error = worker_transaction(notify, NULL);
	if (error)
		worker_log_error(error, "notify of its results");
	worker.notices = NIL;
}

/* ---------- the loop ---------- */

/*
 * Look at every queue: something may have come of which we do not know.
 */
static void
look_at_queues(void)
{
	worker.pending.next_due = worker.revoking.next_due =
		worker.write_backs.next_due = worker.cancelled.next_due = DT_NOBEGIN;
}

/*
 * The local clock was set.
 */
static void
clock_was_set(void)
{
	worker.clock_was_set = true;
	worker.doubts_changed = true;
	worker.housekeeping_at = 0;
	worker.pending.next_full = worker.revoking.next_full =
		worker.write_backs.next_full = worker.cancelled.next_full = 0;
	look_at_queues();
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

	work_end_pauses(all, lengthof(all), now + Max(BACKOFF_MAX_US, attempt), DT_NOBEGIN);
	work_end_pauses(rows, lengthof(rows), now + WRITE_BACK_BACKOFF_MAX_US, DT_NOBEGIN);
	if (!worker.clock_was_set)
		return;
	work_end_pauses(all, lengthof(all), now, now);
	/* not too early either, where it was set ahead */
	work_put_off_looks(now + LATE_KEYS_US);
}

/*
 * In a transaction: what has to be done now and then.
 */
static void
housekeeping(void *arg)
{
	bool	   *more = arg;

	strlcpy(worker.database, get_database_name(MyDatabaseId), NAMEDATALEN);
	work_warn_of_others();
	end_pauses();
	if (settings_retention >= 0)
	{
		dlist_head *lists[] = {&worker.flying, &worker.ended};
		List	   *keep = NIL;
		Datum	   *ids;
		pg_uuid_t  *awaited;
		int			n = work_awaited(&awaited);
		ListCell   *lc;
		dlist_iter	it;

		/*
		 * while a doubt of an identity may come up, its keys' owners are
		 * needed
		 */
		for (int i = 0; i < n; i++)
			keep = lappend(keep, &awaited[i]);
		n = 0;
		for (int i = 0; i < worker.ndoubts; i++)
		{
			if (worker.doubts[i].next_attempt_at != DT_NOEND)
				keep = lappend(keep, &worker.doubts[i].identity);
		}
		for (int i = 0; i < (int) lengthof(lists); i++)
		{
			dlist_foreach(it, lists[i])
				keep = lappend(keep, &dlist_container(Flight, node, it.cur)->row.identity);
		}
		keep = worker_called_identities(keep);
		ids = palloc(Max(list_length(keep), 1) * sizeof(Datum));
		foreach(lc, keep)
			ids[n++] = UUIDPGetDatum(lfirst(lc));
		*more = work_delete_old(GetCurrentTimestamp() - Max(settings_retention * USECS_PER_SEC,
															KEEP_AT_LEAST_US),
								work_array(ids, NULL, n, UUIDOID));
	}
}

/*
 * Do that, and see when it is to be done again.
 */
static void
keep_house(void)
{
	bool		more = false;
	ErrorData  *error = worker_work(housekeeping, &more);

	if (error)
		worker_log_error(error, "tidy up");
	else
		worker.clock_was_set = false;
	worker.housekeeping_at = clock_now() + (more ? DELETE_PAUSE_US : HOUSEKEEPING_US);
	if (settings_retention >= 0 && settings_retention < HOUSEKEEPING_US / USECS_PER_SEC)
		worker.housekeeping_at = Min(worker.housekeeping_at, clock_now() + KEEP_AT_LEAST_US);
	look_at_queues();
	worker.look_again_at = DT_NOBEGIN;
}

/*
 * Forget what a transaction that failed had claimed and stored.
 */
static void
forget_turn(void)
{
	ListCell   *lc;
	dlist_iter	it;

	foreach(lc, worker.claimed)
		worker_free_flight(lfirst(lc));
	worker.claimed = worker.notices = NIL;
	worker.nto_write = 0;
	dlist_foreach(it, &worker.ended)
		dlist_container(Flight, node, it.cur)->stored = false;
	worker.doubts_changed = true;
	worker.look_again_at = DT_NOBEGIN;
	look_at_queues();
}

/*
 * Store what has ended, and send what may be sent.
 */
static void
take_turn(void)
{
	bool		may_send = settings_worker && worker_calls_are_known() && worker_refresh_account();
	ErrorData  *error = worker_work(turn, &may_send);
	dlist_mutable_iter it;
	ListCell   *lc;

	if (error)
	{
		worker_log_error(error, "go on");
		forget_turn();
		worker.paused_until = clock_now() + ERROR_PAUSE_US;
		return;
	}
	dlist_foreach_modify(it, &worker.ended)
	{
		Flight	   *flight = dlist_container(Flight, node, it.cur);

		if (flight->stored)
		{
			STOP_POINT("worker-stored");
			dlist_delete(&flight->node);
			worker_free_flight(flight);
		}
	}
	foreach(lc, worker.claimed)
		worker_start_flight(lfirst(lc));
	worker.claimed = NIL;
	send_notices();
}

/*
 * When there will be something to do, if nothing happens before.
 */
static int64
next_turn(void)
{
	int64		http = clock_now();
	TimestampTz now = GetCurrentTimestamp();
	int64		at = worker.intents_at;
	int64		again_at;

	if (worker.paused_until > http)
		return Min(at, worker.paused_until);
	at = Min(at, Min(worker.housekeeping_at, worker.retry_at));
	if (worker.nto_write > 0)
		return 0;
	at = Min(at, worker_monotonic(worker.write_backs.next_due, now, http));
	at = Min(at, worker_monotonic(worker.cancelled.next_due, now, http));
	if (!settings_worker || !worker_calls_are_known())
		return at;
	if (worker.account_warned || !worker.account_known)
		return Min(at, worker.account_look_at);
	if (worker_send_allowance(http, &again_at) == 0)
	{
		/* only when there is something to send */
		if (worker.nunsettled == 0 && worker.pending.next_due == DT_NOEND &&
			worker.revoking.next_due == DT_NOEND &&
			worker.look_again_at > now)
			return at;
		return Min(at, again_at);
	}
	at = Min(at, worker_monotonic(worker.pending.next_due, now, http));
	at = Min(at, worker_monotonic(worker.revoking.next_due, now, http));
	at = Min(at, worker_monotonic(worker.look_again_at, now, http));
	/* Min() would call it twice */
	again_at = worker_list_due();
	return Min(at, again_at);
}

/*
 * In a transaction: read all settings anew.
 */
static void
reread_settings(void *arg)
{
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT_SHORT, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	reload_settings();
}

/*
 * The configuration was reloaded: what is sent from now on obeys it, and what ALTER
 * DATABASE and ALTER ROLE have set.  What is under way keeps what it began with.
 */
static void
reload(void)
{
	ErrorData  *error;

	ConfigReloadPending = false;
	error = worker_transaction(reread_settings, NULL);
	if (error)
	{
		worker_log_error(error, "read its settings");
		ConfigReloadPending = true;
		reload_at = clock_now() + ERROR_PAUSE_US;
		return;
	}
	pace_set_max(&worker.pace, settings_max_concurrency);
	pace_resume(&worker.pace, clock_now());
	http_set_parallel(worker.run, settings_max_concurrency);
	worker.account_warned = false;
	worker.refused = false;
	worker.housekeeping_at = 0;
	look_at_queues();
}

/*
 * One more identity that is left.
 */
void
worker_add_remaining(Remaining *remaining, const pg_uuid_t *identity)
{
	char		id[SEAM_UUID_TEXT_LEN + 1];

	if (remaining->identities.data == NULL)
		initStringInfo(&remaining->identities);
	if (remaining->n++ >= IDENTITIES_PER_LINE)
		return;
	seam_put_uuid(id, identity);
	appendStringInfo(&remaining->identities, "%s%s", remaining->identities.len ? ", " : "", id);
}

/*
 * What to write after the identities.
 */
const char *
worker_and_more(const Remaining *remaining)
{
	return remaining->n > IDENTITIES_PER_LINE ? ", and more" : "";
}

/*
 * The extension is gone, or is about to go with its database, and with it what the calls
 * under way were for: what they have issued, or may have, and likewise those whose answers
 * were lost, is left to whom reads the log.
 */
static void
log_abandoned(const char *why)
{
	dlist_head *lists[] = {&worker.flying, &worker.ended};
	Remaining	remaining = {0};
	dlist_iter	it;

	for (int i = 0; i < (int) lengthof(lists); i++)
	{
		dlist_foreach(it, lists[i])
		{
			Flight	   *flight = dlist_container(Flight, node, it.cur);

			if (flight->op != SEAM_GENERATE || (i == 1 && flight->result.sqlerrcode != 0 &&
												!flight->result.in_doubt))
				continue;
			worker_add_remaining(&remaining, &flight->row.identity);
		}
	}
	for (int i = 0; i < worker.ndoubts; i++)
	{
		if (worker.doubts[i].has_identity && worker.doubts[i].next_attempt_at != DT_NOEND)
			worker_add_remaining(&remaining, &worker.doubts[i].identity);
	}
	if (remaining.n > 0)
		ereport(WARNING,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("%s, and %d instant keys that the outbox of database \"%s\" has asked for "
						"may exist",
						why, remaining.n, worker.database),
				 errdetail("User identities: %s%s.", remaining.identities.data,
						   worker_and_more(&remaining))));
}

/*
 * Exit for a reason that is no failure.
 */
static void
leave(void)
{
	if (worker.gone)
	{
		log_abandoned("extension seam_ik was dropped");
		worker_log_calls("extension seam_ik was dropped");
	}
	else
	{
		worker_finish_calls();
		if (places_want_exit())
			worker_log_calls("seam_ik had to make way for a command like DROP DATABASE");
		/* after any other command a successor goes on with them */
		if (places_want_drop())
		{
			if (worker.doubts_changed)
				(void) worker_step(worker_read_doubts, false, "see what is in doubt");
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
hear(void)
{
	uint32		calls = places_calls();
	bool		look = calls & (1 << WAKE_JUDGE);

	if (look || (calls & (1 << WAKE_INTENTS)) || worker.intents_at <= clock_now())
		worker.intents_at = worker_process_intents(look);
	if (calls == 0)
		return false;
	if (places_want_exit())
		leave();
	if (calls & (1 << WAKE_WORK))
		look_at_queues();
	if (calls & (1 << WAKE_DOUBTS))
		worker.doubts_changed = true;
	return calls & ~(1 << WAKE_INTENTS);
}

/*
 * Settings that this process needs whatever the configuration says.
 */
static void
set_own_settings(void)
{
	static const char *const settings[][2] = {
		{"role", "none"},
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"transaction_timeout", "0"},	/* from 17 on */
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
	{
		if (GetConfigOption(settings[i][0], true, false) == NULL)
			continue;
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	}
}

/*
 * Make what the loop needs.
 */
static void
set_up(void)
{
	HttpProfile none = {.ca_file = ""};

	dlist_init(&worker.unused);
	dlist_init(&worker.flying);
	dlist_init(&worker.ended);
	worker.turn = AllocSetContextCreate(TopMemoryContext, "seam_ik turn", ALLOCSET_DEFAULT_SIZES);
	worker.old_accounts = AllocSetContextCreate(TopMemoryContext, "seam_ik former accounts",
												ALLOCSET_SMALL_SIZES);
	worker.doubts_context = AllocSetContextCreate(TopMemoryContext, "seam_ik doubts",
												  ALLOCSET_SMALL_SIZES);
	worker.to_write = MemoryContextAlloc(TopMemoryContext, WRITE_BACKS_AT_ONCE * sizeof(int64));
	worker.pending.status = STATUS_PENDING;
	worker.revoking.status = STATUS_REVOKING;
	worker.write_backs.status = STATUS_ISSUED;
	worker.cancelled.status = STATUS_CANCELLED;
	worker.doubts_changed = true;
	worker.retry_at = PG_INT64_MAX;
	worker.wait_event = wait_event_seam();
	write_back_define();
	pace_init(&worker.pace, settings_max_concurrency);
	MemoryContextSwitchTo(TopMemoryContext);
	worker.run = http_begin(&none, settings_max_concurrency);
	http_keep(worker.run);
	MemoryContextSwitchTo(worker.turn);
	look_at_queues();
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
		die(postgres_signal_arg);
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
	worker_finish_calls();
	ProcDiePending = InterruptPending = true;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Main function of the worker.
 */
void
seam_ik_worker_main(Datum main_arg)
{
	WorkerStart start;
	int64		turn_at = 0;

	STOP_POINT("worker-start");
	start = places_attach(main_arg);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, end_worker);
	BackgroundWorkerUnblockSignals();
	reload_prepare();
	BackgroundWorkerInitializeConnectionByOid(start.database, start.owner, CONNECT_WITHOUT_LOGIN);
	set_own_settings();
	set_up();
	worker.careful = start.careful;
	worker.clock_was_set = true;	/* for all that we know */
	keep_house();
	for (;;)
	{
		int64		wake_at;
		long		stats_in;
		HttpRequest *request;

		worker_check_interrupts();
		MemoryContextReset(worker.turn);
		if (worker_watch_clock())
			clock_was_set();
		if (ConfigReloadPending && clock_now() >= reload_at)
			reload();
		if ((hear() || worker.doubts_changed || !dlist_is_empty(&worker.ended) ||
			 clock_now() >= turn_at || next_turn() <= clock_now()) &&
			worker.paused_until <= clock_now())
		{
			if (clock_now() >= worker.housekeeping_at)
				keep_house();
			worker.retry_at = PG_INT64_MAX;
			take_turn();
		}
		if (worker.nto_write > 0)
		{
			worker_write_rows();
			send_notices();
		}
		if (worker.gone || worker.disowned)
			leave();

		stats_in = pgstat_report_stat(worker.nflying == 0);
		turn_at = next_turn();
		/* they are reported by the clock of the last transaction */
		if (stats_in > 0)
			turn_at = Min(turn_at, clock_now() + Min(stats_in, STATS_MS) * 1000);
		/* Min() would call it twice */
		wake_at = worker_tidy_calls();
		wake_at = Min(wake_at, turn_at);
		if (ConfigReloadPending)
			wake_at = Min(wake_at, reload_at);
		waiting = true;
		request = http_wait(worker.run, wake_at, worker.wait_event);
		while (request)
		{
			worker_flight_ended(request->owner);
			request = http_wait(worker.run, 0, worker.wait_event);
		}
		waiting = false;
		if (end_requested)
			end_now();
	}
}
