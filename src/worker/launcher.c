/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The launcher, which starts a worker for each database that has the
 *	  extension, and starts it anew when it has ended; and a writer while
 *	  there are rows to write.
 *
 * The launcher is connected to no database, so it is in nobody's way.  Whether
 * a database has the extension is found out by a process that looks and exits,
 * the probe: when the launcher first sees the database, and again after a
 * CREATE EXTENSION and after a worker's end.  Only then a worker is started,
 * connected as the extension's owner.
 *
 * A probe may meet locks that the database's owner holds for as long as he likes.  It is
 * ended after a while, and others need not wait for it.
 *
 * The launcher starts the writers, too, and not the workers, because it watches them: a
 * worker that ends or waits leaves nobody who would end a writer that users' code does not
 * let go, and what is known of a database's owner, of commands that want the database, and
 * of pauses is here.  Whoever has something for a writer notes that at its place.
 *
 * Everything here needs the library in shared_preload_libraries.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "base/compat.h"
#include "worker/launcher.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "shmem/places.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* How often the launcher looks for databases that nobody told it of. */
#define SCAN_INTERVAL_US (60 * INT64CONST(1000000))

/* The pause before a process is started again that ended badly. */
#define RESTART_FIRST_US (1 * INT64CONST(1000000))
#define RESTART_MAX_US (60 * INT64CONST(1000000))

/*
 * One probe after another, since there may be hundreds of databases; but for one that
 * takes long the others do not wait, and it is ended.
 */
#define PROBE_PATIENCE_US (200 * INT64CONST(1000))
#define PROBE_LIMIT_US (5 * INT64CONST(1000000))
#define PROBES_AT_ONCE 4

/* While there is a writer, it is looked at so often. */
#define WRITER_LOOK_US (500 * INT64CONST(1000))

/* When even the end of its process does not end users' code, that is told of. */
#define STUCK_WARNING_US (30 * INT64CONST(1000000))

/* How long it takes until a slot may be free, and until that is told of again. */
#define SLOT_PAUSE_US (10 * INT64CONST(1000000))
#define SLOT_WARNING_US (3600 * INT64CONST(1000000))

/* pg_database.datconnlimit of a database whose DROP was interrupted. */
#define INVALID_DATABASE (-2)

PGDLLEXPORT void seam_ik_launcher_main(Datum main_arg);

typedef enum DatabaseState
{
	DB_UNKNOWN,					/* to be probed */
	DB_PROBING,
	DB_WITHOUT,					/* has no extension */
	DB_BLOCKED,					/* its owner may not connect */
	DB_DISOWNED,				/* its owner does not own its tables */
	DB_READY,					/* wants a worker */
	DB_WORKING
} DatabaseState;

/* The writer of a database, or that there is none. */
typedef struct Writer
{
	bool		running;		/* as far as is known */
	BackgroundWorkerHandle *handle; /* or NULL: a former launcher started it */
	int64		not_before;		/* none is started before */
	int			failures;		/* that ended badly, one after another */
	int64		started_at;
	int64		ended_at;		/* when it was told to end, or 0 */
	bool		warned;			/* that it does not */
} Writer;

/* A database as the launcher knows it. */
typedef struct Database
{
	Oid			oid;
	char		name[NAMEDATALEN];
	bool		seen;			/* in the last scan */
	DatabaseState state;
	Oid			owner;			/* of the extension */
	BackgroundWorkerHandle *handle; /* of its process, or NULL */
	int64		not_before;		/* no process is started before */
	int			failures;		/* processes that ended badly, one after
								 * another */
	int64		started_at;
	bool		overdue;		/* its probe was told to end */
	bool		warned;			/* of DB_BLOCKED or DB_DISOWNED */
	bool		warned_overdue;
	int64		slot_warned_at; /* that it gets no slot; 0: never */
	Writer		writer;
} Database;

static List *databases = NIL;	/* of Database *, in TopMemoryContext */

/*
 * on_shmem_exit callback of the launcher.
 */
static void
launcher_gone(int code, Datum arg)
{
	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	places->launcher = NULL;
	LWLockRelease(places->lock);
}

/*
 * The database that the launcher knows by this OID, or NULL.
 */
static Database *
find_database(Oid oid)
{
	ListCell   *lc;

	foreach(lc, databases)
	{
		Database   *db = lfirst(lc);

		if (db->oid == oid)
			return db;
	}
	return NULL;
}

/*
 * Read pg_database: new ones are to be probed, those that are gone forgotten.
 */
static void
scan_databases(void)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	ListCell   *lc;

	foreach(lc, databases)
		((Database *) lfirst(lc))->seen = false;
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		Database   *db;

		if (!form->datallowconn || form->datconnlimit == INVALID_DATABASE)
			continue;
		db = find_database(form->oid);
		if (db == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			db = palloc0(sizeof(Database));
			db->oid = form->oid;
			databases = lappend(databases, db);
			MemoryContextSwitchTo(old);
		}
		strlcpy(db->name, NameStr(form->datname), NAMEDATALEN);
		db->seen = true;
		if (db->state == DB_BLOCKED)
			db->state = DB_UNKNOWN;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(TopMemoryContext);

	foreach(lc, databases)
	{
		Database   *db = lfirst(lc);

		if (!db->seen && db->handle == NULL && !db->writer.running)
		{
			databases = foreach_delete_current(databases, lc);
			pfree(db);
		}
	}
}

/* What came of register_process(). */
typedef enum Registered
{
	REGISTERED,					/* it will come */
	REGISTERED_BEFORE,			/* one of a former launcher's is there */
	DATABASE_HELD,				/* a command wants the database for itself */
	NO_SLOT						/* max_worker_processes are there */
} Registered;

/*
 * Have the postmaster start a process in a database: the function, called kind.
 */
static Registered
register_process(Database *db, PlaceRole role, const char *function, const char *kind,
				 BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};
	WorkerStart start = {.database = db->oid,.owner = db->owner};
	Place	   *place;
	PlaceProcess *process = NULL;
	Registered	result = DATABASE_HELD;

	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	place = places_get(db->oid, true);
	if (place && place->processes[role].pid != 0)
		result = REGISTERED_BEFORE;
	else if (place && place->holds == 0)
	{
		process = &place->processes[role];
		process->starting = process->managed = true;
		process->expected = false;
		process->ticket = start.ticket = ++places->tickets;
		worker.bgw_main_arg = Int32GetDatum((int) (place - places->places));
		if (db->state == DB_UNKNOWN)
		{
			place->has_extension = false;
			place->changed = false;
		}
		if (role == PLACE_WRITER)
			place->writer_at = 0;
	}
	LWLockRelease(places->lock);
	if (process == NULL)
		return result;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION |
		BGWORKER_LEAVES_DATABASE;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "seam_ik", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "seam_ik %s for database %s", kind, db->name);
	snprintf(worker.bgw_type, BGW_MAXLEN, "seam_ik %s", kind);
	memcpy(worker.bgw_extra, &start, sizeof(start));
	if (RegisterDynamicBackgroundWorker(&worker, handle))
		return REGISTERED;
	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	process->starting = process->managed = false;
	places_free(place);
	LWLockRelease(places->lock);
	ConditionVariableBroadcast(&places->left);
	*handle = NULL;
	if (db->slot_warned_at == 0 || clock_now() - db->slot_warned_at >= SLOT_WARNING_US)
	{
		db->slot_warned_at = clock_now();
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker slot is free for the outbox of database \"%s\"",
						db->name),
				 errdetail("Its %s cannot be started.", kind),
				 errhint("Raise max_worker_processes.")));
	}
	return NO_SLOT;
}

/*
 * Start the probe or the worker of a database.
 */
static void
start_process(Database *db)
{
	bool		probe = db->state == DB_UNKNOWN;

	db->started_at = clock_now();
	db->overdue = false;
	switch (register_process(db, PLACE_MAIN, probe ? "seam_ik_probe_main" : "seam_ik_worker_main",
							 probe ? "probe" : "worker", &db->handle))
	{
		case REGISTERED:
			db->state = probe ? DB_PROBING : DB_WORKING;
			break;
		case REGISTERED_BEFORE:
			db->state = DB_WORKING; /* we are woken when it ends */
			break;
		case DATABASE_HELD:
			db->not_before = clock_now() + RESTART_FIRST_US;
			break;
		case NO_SLOT:
			db->not_before = clock_now() + SLOT_PAUSE_US;
			break;
	}
}

/*
 * A database that has the extension gets no worker, for a reason that its probe has found
 * again: say so once.
 */
static void
warn_of_no_worker(Database *db)
{
	if (db->warned)
		return;
	db->warned = true;
	if (db->state == DB_BLOCKED)
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the outbox of database \"%s\" has no worker: the owner of extension "
						"seam_ik may not log in", db->name),
				 errhint("From PostgreSQL 17 on that is no obstacle; until then, ALTER ROLE ... "
						 "LOGIN.")));
	else
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the outbox of database \"%s\" has no worker: its tables are not there, or "
						"do not belong to the owner of extension seam_ik", db->name),
				 errhint("Give seam_instant_key_request, seam_instant_key_call and "
						 "seam_instant_key_writing back to that role: ALTER TABLE ... OWNER TO.")));
}

/*
 * A process of a database has ended, or has never begun.  Returns what its place was.
 */
static Place
forget_process(const Database *db, PlaceRole role)
{
	Place	   *place;
	Place		was = {0};

	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	place = places_get(db->oid, false);
	if (place)
	{
		place->processes[role].starting = place->processes[role].managed = false;
		was = *place;
		places_free(place);
	}
	LWLockRelease(places->lock);
	ConditionVariableBroadcast(&places->left);
	return was;
}

/*
 * The probe or the worker of a database has ended.
 */
static void
process_ended(Database *db)
{
	Place		was = forget_process(db, PLACE_MAIN);
	bool		expected = was.processes[PLACE_MAIN].expected;

	if (db->handle)
		pfree(db->handle);
	db->handle = NULL;

	if (expected)
	{
		/* but not one after another */
		if (db->state == DB_WORKING)
			db->failures = 0;
		db->not_before = db->state == DB_WORKING ? db->started_at + RESTART_FIRST_US : 0;
	}
	else
	{
		/* one that had worked for long begins with the shortest pause */
		if (db->state == DB_WORKING && clock_now() - db->started_at > RESTART_MAX_US)
			db->failures = 0;
		db->not_before = clock_now() + Min(RESTART_FIRST_US << Min(db->failures, 8),
										   RESTART_MAX_US);
		db->failures++;
	}
	if (db->state != DB_PROBING || !expected || was.holds > 0 || was.changed)
		db->state = DB_UNKNOWN;
	else if (!was.has_extension)
		db->state = DB_WITHOUT;
	else if (!was.owns_tables)
		db->state = DB_DISOWNED;
	else if (!was.may_login && !CAN_CONNECT_WITHOUT_LOGIN)
		db->state = DB_BLOCKED;
	else
	{
		db->owner = was.owner;
		db->state = DB_READY;
	}
	if (db->state == DB_DISOWNED || db->state == DB_BLOCKED)
	{
		warn_of_no_worker(db);
		db->not_before = db->started_at + RESTART_FIRST_US;
	}
	else if (db->state != DB_UNKNOWN)
		db->warned = false;
	if (db->state != DB_UNKNOWN)
		db->warned_overdue = false;
}

/*
 * End a probe that takes too long: it waits for a lock, or cannot even connect.  It is
 * tried again with longer pauses, as one that failed.
 */
static void
end_probe(Database *db)
{
	db->overdue = true;
	TerminateBackgroundWorker(db->handle);
	if (!db->warned_overdue)
		ereport(WARNING,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not see within %d s whether database \"%s\" has extension seam_ik",
						(int) (PROBE_LIMIT_US / USECS_PER_SEC), db->name),
				 errhint("Look for what holds, or waits for, a lock on a system catalog there; it "
						 "is tried again.")));
	db->warned_overdue = true;
}

/*
 * Start probes that are wanted, and end those that take too long.  Returns when to do it
 * again, on clock_now()'s clock.
 */
static int64
manage_probes(void)
{
	for (;;)
	{
		int64		now = clock_now();
		int64		wake_at = PG_INT64_MAX;
		Database   *next = NULL;
		int			n = 0;
		bool		wait = false;
		ListCell   *lc;

		foreach(lc, databases)
		{
			Database   *db = lfirst(lc);

			if (db->state == DB_PROBING)
			{
				n++;
				if (now < db->started_at + PROBE_PATIENCE_US)
				{
					wait = true;
					wake_at = Min(wake_at, db->started_at + PROBE_PATIENCE_US);
				}
				else if (now < db->started_at + PROBE_LIMIT_US)
					wake_at = Min(wake_at, db->started_at + PROBE_LIMIT_US);
				else if (!db->overdue)
					end_probe(db);
			}
			else if (db->state == DB_UNKNOWN && db->handle == NULL && db->seen)
			{
				if (db->not_before > now)
					wake_at = Min(wake_at, db->not_before);
				else if (next == NULL || db->failures < next->failures)
					next = db;	/* the one that has failed least */
			}
		}
		if (next == NULL || wait || n >= PROBES_AT_ONCE)
			return wake_at;
		start_process(next);
	}
}

/*
 * Has the database such a process of ours?
 */
static bool
has_process(Oid database, PlaceRole role)
{
	Place	   *place;
	bool		has;

	LWLockAcquire(places->lock, LW_SHARED);
	place = places_get(database, false);
	has = place && (place->processes[role].pid != 0 || place->processes[role].starting);
	LWLockRelease(places->lock);
	return has;
}

/* ---------- writers ---------- */

/*
 * The writer of a database has ended.  One that its users' code did not let go is
 * followed by another at once: it has put off what that code belongs to.
 */
static void
writer_ended(Database *db)
{
	Writer	   *writer = &db->writer;
	Place		was = forget_process(db, PLACE_WRITER);

	if (writer->handle)
		pfree(writer->handle);
	if (was.processes[PLACE_WRITER].expected || writer->ended_at != 0)
	{
		writer->failures = 0;
		/* but not one after another */
		writer->not_before = writer->started_at + RESTART_FIRST_US;
	}
	else
	{
		writer->not_before = clock_now() + Min(RESTART_FIRST_US << Min(writer->failures, 8),
											   RESTART_MAX_US);
		writer->failures++;
	}
	writer->handle = NULL;
	writer->running = writer->warned = false;
	writer->ended_at = 0;
}

/*
 * Start the writer of a database.
 */
static void
start_writer(Database *db)
{
	Writer	   *writer = &db->writer;

	writer->started_at = clock_now();
	switch (register_process(db, PLACE_WRITER, "seam_ik_writer_main", "writer", &writer->handle))
	{
		case REGISTERED:
		case REGISTERED_BEFORE:
			writer->running = true;
			break;
		case DATABASE_HELD:
			writer->not_before = clock_now() + RESTART_FIRST_US;
			break;
		case NO_SLOT:
			writer->not_before = clock_now() + SLOT_PAUSE_US;
			break;
	}
}

/*
 * A writer is there: end it when users' code does not let it go.  The lock is held, so
 * that the process is the one that is meant.
 */
static void
watch_writer(Database *db, Place *place)
{
	Writer	   *writer = &db->writer;
	int64		now = clock_now();
	int64		since = (int64) pg_atomic_read_u64(&place->users_code_at);

	if (since == 0 || now - since <= PLACES_USERS_CODE_LIMIT_US)
		return;
	if (writer->ended_at == 0)
	{
		writer->ended_at = now;
		(void) kill(place->processes[PLACE_WRITER].pid, SIGTERM);
	}
	else if (!writer->warned && now - writer->ended_at > STUCK_WARNING_US)
	{
		writer->warned = true;
		ereport(WARNING,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("the writer of the outbox of database \"%s\" cannot be ended", db->name),
				 errdetail("A trigger of a table that it writes to runs on, and does not look "
						   "whether it was cancelled: no other row is written meanwhile.")));
	}
}

/*
 * Start writers that are wanted, and look at those that are there.  Returns when to do it
 * again, on clock_now()'s clock.
 */
static int64
manage_writers(void)
{
	int64		wake_at = PG_INT64_MAX;
	ListCell   *lc;

	foreach(lc, databases)
	{
		Database   *db = lfirst(lc);
		Writer	   *writer = &db->writer;
		int64		now = clock_now();
		int64		at = PG_INT64_MAX;
		Place	   *place;

		LWLockAcquire(places->lock, LW_SHARED);
		place = places_get(db->oid, false);
		if (place && place->processes[PLACE_WRITER].pid != 0)
		{
			writer->running = true; /* perhaps one of a former launcher's */
			watch_writer(db, place);
		}
		if (place && writer->running)
			wake_at = Min(wake_at, now + WRITER_LOOK_US);
		else if (place && pg_atomic_read_u32(&place->processes[PLACE_WRITER].wakes) != 0)
			at = now;
		else if (place && place->writer_at != 0)
			at = place->writer_at;
		LWLockRelease(places->lock);
		if (at == PG_INT64_MAX || !db->seen || db->state != DB_WORKING)
			continue;
		at = Max(at, writer->not_before);
		if (at <= now)
		{
			start_writer(db);
			at = now + WRITER_LOOK_US;
		}
		wake_at = Min(wake_at, at);
	}
	return wake_at;
}

/* ---------- the loop ---------- */

/*
 * Which databases have changed, as their sessions tell; and shall they be
 * scanned?
 */
static bool
note_changes(void)
{
	bool		scan;

	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	scan = places->scan;
	places->scan = false;
	for (int i = 0; i < places->nplaces; i++)
	{
		Place	   *place = &places->places[i];
		Database   *db;

		if (place->database == InvalidOid || !place->changed)
			continue;
		db = find_database(place->database);
		if (db && db->state == DB_PROBING)
			continue;			/* the probe may have looked before */
		if (db == NULL)
			scan = true;
		else if (db->state == DB_WITHOUT || db->state == DB_BLOCKED || db->state == DB_DISOWNED)
			db->state = DB_UNKNOWN;
		place->changed = false;
		places_free(place);
	}
	LWLockRelease(places->lock);
	return scan;
}

/*
 * Main function of the launcher.
 */
void
seam_ik_launcher_main(Datum main_arg)
{
	int64		next_scan = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	places->launcher = MyLatch;
	for (int i = 0; i < places->nplaces; i++)
	{
		for (int r = 0; r < PLACE_ROLES; r++)
		{
			places->places[i].processes[r].starting = false;
			places->places[i].processes[r].managed = false;
		}
	}
	LWLockRelease(places->lock);
	on_shmem_exit(launcher_gone, (Datum) 0);
	BackgroundWorkerInitializeConnectionByOid(InvalidOid, InvalidOid, 0);

	for (;;)
	{
		int64		now;
		int64		wake_at;
		int64		writers_at;
		ListCell   *lc;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (note_changes() || clock_now() >= next_scan)
		{
			scan_databases();
			next_scan = clock_now() + SCAN_INTERVAL_US;
		}
		foreach(lc, databases)
		{
			Database   *db = lfirst(lc);
			pid_t		pid;

			if (db->handle ? GetBackgroundWorkerPid(db->handle, &pid) == BGWH_STOPPED :
				db->state == DB_WORKING && !has_process(db->oid, PLACE_MAIN))
				process_ended(db);
			if (db->writer.handle == NULL ?
				db->writer.running && !has_process(db->oid, PLACE_WRITER) :
				GetBackgroundWorkerPid(db->writer.handle, &pid) == BGWH_STOPPED)
				writer_ended(db);
		}
		now = clock_now();
		/* Min() would call them twice */
		wake_at = manage_probes();
		writers_at = manage_writers();
		wake_at = Min(wake_at, Min(next_scan, writers_at));
		foreach(lc, databases)
		{
			Database   *db = lfirst(lc);

			if (db->handle || !db->seen || db->state != DB_READY)
				continue;
			if (db->not_before <= now)
				start_process(db);
			wake_at = Min(wake_at, Max(db->not_before, now + USECS_PER_SEC));
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Max(wake_at - clock_now(), 0) / 1000 + 1, PG_WAIT_EXTENSION);
	}
}

/*
 * Called once, from _PG_init.  Does nothing where the library is not preloaded,
 * and under pg_upgrade.
 */
void
launcher_define(void)
{
	BackgroundWorker worker = {0};

	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "seam_ik", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "seam_ik_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "seam_ik launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "seam_ik launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
