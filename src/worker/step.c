/*-------------------------------------------------------------------------
 *
 * step.c
 *	  Steps of the worker and the writer: transactions of their own, and what follows from them.
 *
 * Each step begins with a look whether the outbox is there and still ours, so that
 * nothing is done to one that is not.  A step never throws: it logs its error, once a
 * minute for each kind, and says whether it has committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "commands/dbcommands.h"
#include "config/reload.h"
#include "miscadmin.h"
#include "outbox/work_statement.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "worker/step.h"

/* Locks that are in the way for longer are told of. */
#define LOCK_TOLD_US (1 * INT64CONST(1000000))

/* How long a user's lock may hold up a step that is not patient. */
#define LOCK_TIMEOUT_SHORT "20ms"

static MemoryContext turn_context;	/* reset each time round the loop */
static char database[NAMEDATALEN];
static OutboxState outbox_state;
static int64 reload_at;			/* not before, after it failed: clock_now()'s
								 * clock */

/*
 * Makes what steps need, and the settings that this process needs whatever the
 * configuration says.
 */
static void
set_up(void)
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
	turn_context = AllocSetContextCreate(TopMemoryContext, "seam_ik turn", ALLOCSET_DEFAULT_SIZES);
}

/*
 * The beginning of the main function of the worker and the writer: takes the place that the
 * launcher has made for it, connects, and makes what steps need.  main_arg: as of main().
 */
void
step_start(Datum main_arg, PlaceRole role, pqsigfunc on_sigterm)
{
	WorkerStart start = places_attach(main_arg, role);

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, on_sigterm);
	BackgroundWorkerUnblockSignals();
	reload_prepare();
	BackgroundWorkerInitializeConnectionByOid(start.database, start.owner, CONNECT_WITHOUT_LOGIN);
	set_up();
}

/*
 * Returns the memory context of what lives until the loop comes round.
 */
MemoryContext
step_context(void)
{
	return turn_context;
}

/*
 * Returns what the last step that works on the outbox has found.
 */
OutboxState
step_outbox(void)
{
	return outbox_state;
}

/*
 * In a transaction: reads the name of our database, which ALTER DATABASE may change.
 */
void
step_read_database(void)
{
	strlcpy(database, get_database_name(MyDatabaseId), NAMEDATALEN);
}

/*
 * Returns the name of our database, as it was read last, for messages.
 */
const char *
step_database(void)
{
	return database;
}

/*
 * CHECK_FOR_INTERRUPTS between transactions, where there is nothing to cancel.
 */
void
step_check_interrupts(void)
{
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Returns how long to wait before what has failed with this error, or NULL, is tried
 * again, in microseconds.
 */
int64
step_pause_after(const ErrorData *error)
{
	return error && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ? STEP_LOCKED_PAUSE_US :
		STEP_ERROR_PAUSE_US;
}

/*
 * Returns whether locks are in the way for the first time, or have been for so short that
 * nobody is to be told.
 */
static bool
is_short_lock(const ErrorData *error)
{
	static int64 since = 0;
	static int64 last_at = 0;
	int64		now = clock_now();

	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		return false;
	if (now - last_at > LOCK_TOLD_US)
		since = now;
	last_at = now;
	return now - since < LOCK_TOLD_US;
}

/*
 * Logs the error of a step as a warning; one of a kind a minute, because the same again,
 * each second, tells nothing.
 */
static void
log_error(const ErrorData *error, const char *what)
{
	static int	last = 0;
	static int64 last_at = 0;

	if (is_short_lock(error) ||
		(error->sqlerrcode == last && clock_now() - last_at < STEP_SILENCE_US))
		return;
	last = error->sqlerrcode;
	last_at = clock_now();
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("the outbox of database \"%s\" could not %s: %s", database, what,
					error->message),
	/* that of a constraint shows the row, and with it the key's URL */
			 error->detail && ERRCODE_TO_CATEGORY(error->sqlerrcode) !=
			 ERRCODE_TO_CATEGORY(ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION) ?
			 errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}

/*
 * Runs a step inside the transaction of step_take(); unless it is patient, a lock that is
 * not free within 20 ms ends it.  On the outbox it is run only if that is there and its
 * owner is our role.
 */
static void
run(const Step *step)
{
	bool		is_ours = true;

	if (database[0] == '\0')	/* what fails now is told with its name */
		step_read_database();
	if (!step->bare)
	{
		outbox_state = !work_begin() ? OUTBOX_GONE : work_is_ours() ? OUTBOX_OURS : OUTBOX_DISOWNED;
		is_ours = outbox_state == OUTBOX_OURS;
	}
	if (!step->patient)
		(void) set_config_option("lock_timeout", LOCK_TIMEOUT_SHORT, PGC_SUSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (is_ours)
		step->run(step->arg);
	if (!step->bare)
		work_end();
}

/*
 * Takes a step in a transaction of its own.  Never throws but what ends the process:
 * calls exactly one of committed() and failed(), and returns whether it was the former.
 * The error is in step_context().
 */
bool
step_take(const Step *step)
{
	ErrorData  *volatile error = NULL;
	bool		done;

	if (!step->bare && outbox_state != OUTBOX_OURS)
	{
		if (step->failed)
			step->failed(step->arg, NULL);
		return false;
	}
	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		run(step);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(turn_context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		QueryCancelPending = false;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(turn_context);
	if (error && step->what)
		log_error(error, step->what);
	done = error == NULL && (step->bare || outbox_state == OUTBOX_OURS);
	if (done && step->committed)
		step->committed(step->arg);
	else if (!done && step->failed)
		step->failed(step->arg, error);
	return done;
}

/* ---------- settings ---------- */

/*
 * A step: reads all settings anew.
 */
static void
reread_settings(void *arg)
{
	reload_settings();
}

/*
 * If the configuration was reloaded, reads it, and with it what ALTER DATABASE and ALTER
 * ROLE have set.  Returns whether there was anything.
 */
bool
step_reload(void)
{
	Step		step = {.run = reread_settings,.what = "read its settings",.bare = true};

	if (step_reload_due() > clock_now())
		return false;
	ConfigReloadPending = false;
	if (step_take(&step))
		return true;
	ConfigReloadPending = true;
	reload_at = clock_now() + STEP_ERROR_PAUSE_US;
	return false;
}

/*
 * Returns when step_reload() has something to do, on clock_now()'s clock.
 */
int64
step_reload_due(void)
{
	return ConfigReloadPending ? reload_at : PG_INT64_MAX;
}
