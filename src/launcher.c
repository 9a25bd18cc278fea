/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The life of the outbox's processes: one launcher, and a worker for each
 *	  database that has the extension.
 *
 * The launcher is connected to no database, so it is in nobody's way.  Whether
 * a database has the extension is found out by a process that looks and exits,
 * the probe: when the launcher first sees the database, and again after a
 * CREATE EXTENSION and after a worker's end.  Only then a worker is started,
 * connected as the extension's owner.
 *
 * A command that wants a database for itself (DROP DATABASE and the like) holds
 * the database: its process is asked to go, and none is started until the
 * command has ended.
 *
 * Everything here needs the library in shared_preload_libraries.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "compat.h"
#include "executor/spi.h"
#include "http.h"
#include "launcher.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* How often the launcher looks for databases that nobody told it of. */
#define SCAN_INTERVAL_US (60 * INT64CONST(1000000))

/* The pause before a process is started again that ended badly. */
#define RESTART_FIRST_US (1 * INT64CONST(1000000))
#define RESTART_MAX_US (60 * INT64CONST(1000000))

/* How long a command waits for a process to leave its database. */
#define HOLD_WAIT_MS 10000

/* pg_database.datconnlimit of a database whose DROP was interrupted. */
#define INVALID_DATABASE (-2)

/* Databases that are held without having a process. */
#define SPARE_PLACES 64

/* A database that has a process of ours, or shall have none. */
typedef struct Place
{
	Oid			database;		/* InvalidOid: the place is free */
	int			holds;			/* commands that want no process of ours there */
	bool		changed;		/* the extension may have come or gone */
	bool		managed;		/* the launcher waits for its process's end */
	bool		starting;		/* a process is registered, and not there yet */
	bool		expected;		/* it says that its end is no failure */
	pg_atomic_uint32 wakes;		/* what its worker has to look at: bits, by
								 * WakeKind */
	pid_t		pid;			/* of the process, or 0 */
	Latch	   *latch;			/* likewise; processes' latches outlive them */

	/* what the probe found */
	bool		has_extension;
	bool		may_login;
	Oid			owner;
} Place;

typedef struct Shared
{
	LWLock	   *lock;			/* of all that follows */
	Latch	   *launcher;		/* NULL: there is none now */
	bool		scan;			/* databases came or went */
	ConditionVariable left;		/* a process has left its database */
	int			nplaces;
	Place		places[FLEXIBLE_ARRAY_MEMBER];
} Shared;

static Shared *shared;			/* NULL: not preloaded */
static Place *my_place;			/* of this worker or probe */

static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;
static ProcessUtility_hook_type next_process_utility;

/* What this transaction has to tell when it commits. */
static bool wake_at_commit;
static bool reread_at_commit;	/* what is in doubt may have changed, too */
static bool change_at_commit;	/* the extension in this database */
static bool scan_at_commit;		/* which databases there are */

PGDLLEXPORT void seam_ik_launcher_main(Datum main_arg);
PGDLLEXPORT void seam_ik_probe_main(Datum main_arg);

/* ---------- shared memory ---------- */

/*
 * How many databases may have a process of ours, or be held, at once.
 */
static int
number_of_places(void)
{
	return max_worker_processes + SPARE_PLACES;
}

/*
 * The size of Shared, in bytes.
 */
static Size
shared_size(void)
{
	return add_size(offsetof(Shared, places),
					mul_size(number_of_places(), sizeof(Place)));
}

/*
 * shmem_request_hook
 */
static void
request_shared(void)
{
	if (next_shmem_request)
		next_shmem_request();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("seam_ik", 1);
}

/*
 * shmem_startup_hook: also called in the postmaster after a crash, when
 * everything begins anew.
 */
static void
startup_shared(void)
{
	bool		found;

	if (next_shmem_startup)
		next_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("seam_ik", shared_size(), &found);
	if (!found)
	{
		memset(shared, 0, shared_size());
		shared->lock = &GetNamedLWLockTranche("seam_ik")->lock;
		shared->nplaces = number_of_places();
		ConditionVariableInit(&shared->left);
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * The place of a database, made where there is none and make is set; NULL
 * when all are taken.  The lock is held, exclusively to make one.
 */
static Place *
get_place(Oid database, bool make)
{
	Place	   *spare = NULL;

	for (int i = 0; i < shared->nplaces; i++)
	{
		Place	   *place = &shared->places[i];

		if (place->database == database)
			return place;
		if (place->database == InvalidOid && spare == NULL)
			spare = place;
	}
	if (!make || spare == NULL)
		return NULL;
	memset(spare, 0, sizeof(Place));
	pg_atomic_init_u32(&spare->wakes, 0);
	spare->database = database;
	return spare;
}

/*
 * Give a place back that nothing needs any more.  The lock is held exclusively.
 */
static void
free_place(Place *place)
{
	if (place->holds == 0 && place->pid == 0 && !place->starting &&
		!place->managed && !place->changed)
		place->database = InvalidOid;
}

/*
 * Wake the launcher.  The lock is held.
 */
static void
wake_launcher(void)
{
	if (shared->launcher)
		SetLatch(shared->launcher);
}

/*
 * Wake the worker of a place (or NULL) for this.  The lock is held.
 *
 * The latch alone would not do: the worker may be waiting for something else,
 * in a transaction, and reset it there.
 */
static void
wake_place(Place *place, WakeKind kind)
{
	if (place == NULL)
		return;
	pg_atomic_fetch_or_u32(&place->wakes, 1 << kind);
	if (place->pid != 0)
		SetLatch(place->latch);
}

/*
 * Is the library preloaded, so that a worker sends what is enqueued?
 */
bool
launcher_is_there(void)
{
	return shared != NULL;
}

/* ---------- transactions ---------- */

/*
 * XactCallback: tell at commit what happened.  Registered once a session.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && (wake_at_commit || change_at_commit || scan_at_commit))
	{
		Place	   *place;

		LWLockAcquire(shared->lock, change_at_commit || scan_at_commit ? LW_EXCLUSIVE : LW_SHARED);
		place = get_place(MyDatabaseId, change_at_commit);
		if (change_at_commit)
		{
			if (place)
				place->changed = true;
			else
				shared->scan = true;
		}
		if (scan_at_commit)
			shared->scan = true;
		if (change_at_commit || scan_at_commit)
			wake_launcher();
		wake_place(place, WAKE_WORK);
		if (reread_at_commit)
			wake_place(place, WAKE_DOUBTS);
		LWLockRelease(shared->lock);
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		wake_at_commit = reread_at_commit = change_at_commit = scan_at_commit = false;
}

/*
 * Once a session: have at_transaction_end() called.
 */
static void
watch_transactions(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(at_transaction_end, NULL);
	registered = true;
}

/*
 * Have the database's worker look for work when this transaction commits; also
 * at what is in doubt, if reread is set.
 */
void
launcher_wake_at_commit(bool reread)
{
	if (shared == NULL)
		return;
	if (!wake_at_commit)
		watch_transactions();
	wake_at_commit = true;
	reread_at_commit = reread_at_commit || reread;
}

/*
 * Wake the database's worker now, if there is one.  Never throws.
 */
void
launcher_wake_now(WakeKind kind)
{
	LWLockAcquire(shared->lock, LW_SHARED);
	wake_place(get_place(MyDatabaseId, false), kind);
	LWLockRelease(shared->lock);
}

/*
 * A prepared transaction has ended: it may have enqueued something, issued
 * keys, or created the extension.
 */
static void
prepared_has_ended(void)
{
	bool		has_extension = OidIsValid(get_extension_oid("seam_ik", true));
	Place	   *place;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	place = get_place(MyDatabaseId, has_extension);
	if (place && has_extension)
		place->changed = true;
	wake_place(place, WAKE_WORK);
	wake_place(place, WAKE_JUDGE);
	wake_launcher();
	LWLockRelease(shared->lock);
}

/* ---------- commands that want a database for themselves ---------- */

/*
 * Ask the process of a database to go, and have none started before
 * release_database().  Returns false when that was not possible:
 * then the command does what it does with any other session.
 */
static bool
hold_database(Oid database)
{
	Place	   *place;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	place = get_place(database, true);
	if (place)
	{
		place->holds++;
		wake_place(place, WAKE_WORK);
	}
	LWLockRelease(shared->lock);
	return place != NULL;
}

/*
 * Wait until the process of a database that is held is gone.
 */
static void
wait_until_left(Oid database)
{
	int64		give_up = http_now() + HOLD_WAIT_MS * INT64CONST(1000);

	ConditionVariablePrepareToSleep(&shared->left);
	for (;;)
	{
		Place	   *place;
		bool		there;

		LWLockAcquire(shared->lock, LW_SHARED);
		place = get_place(database, false);
		there = place && (place->pid != 0 || place->starting);
		LWLockRelease(shared->lock);
		if (!there || http_now() > give_up)
			break;
		ConditionVariableTimedSleep(&shared->left, 100, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

/*
 * The command has ended, well or not (also by an ERROR or FATAL: see
 * PG_ENSURE_ERROR_CLEANUP).
 */
static void
release_database(int code, Datum database)
{
	Place	   *place;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	place = get_place(DatumGetObjectId(database), false);
	if (place)
	{
		place->holds--;
		free_place(place);
	}
	wake_launcher();
	LWLockRelease(shared->lock);
}

/*
 * May the role copy the database?  As createdb() decides it.
 */
static bool
may_copy(Oid database)
{
	bool		may;
	HeapTuple	tuple;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	may = HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (!may || database_ownercheck(database, GetUserId()))
		return may;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	may = HeapTupleIsValid(tuple) && ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return may;
}

/*
 * The database that a command wants for itself, or InvalidOid.  Nobody can send
 * a worker away by a command that he may not give.
 */
static Oid
wanted_database(const Node *stmt)
{
	const char *name = NULL;
	Oid			database;
	bool		is_template = false;
	ListCell   *lc;

	if (IsA(stmt, DropdbStmt))
		name = ((const DropdbStmt *) stmt)->dbname;
	else if (IsA(stmt, RenameStmt) && ((const RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
		name = ((const RenameStmt *) stmt)->subname;
	else if (IsA(stmt, AlterDatabaseStmt))
	{
		foreach(lc, ((const AlterDatabaseStmt *) stmt)->options)
		{
			if (strcmp(((DefElem *) lfirst(lc))->defname, "tablespace") == 0)
				name = ((const AlterDatabaseStmt *) stmt)->dbname;
		}
	}
	else if (IsA(stmt, CreatedbStmt))
	{
		name = "template1";
		is_template = true;
		foreach(lc, ((const CreatedbStmt *) stmt)->options)
		{
			DefElem    *option = lfirst(lc);

			if (strcmp(option->defname, "template") == 0 && option->arg)
				name = defGetString(option);
		}
	}
	if (name == NULL)
		return InvalidOid;
	database = get_database_oid(name, true);
	if (!OidIsValid(database) || database == MyDatabaseId ||
		!(is_template ? may_copy(database) : superuser() || database_ownercheck(database, GetUserId())))
		return InvalidOid;
	return database;
}

/*
 * Does the command change which databases have the extension, or where?
 */
static bool
changes_extension(const Node *stmt)
{
	/* another extension may bring ours along */
	if (IsA(stmt, CreateExtensionStmt))
		return true;
	if (IsA(stmt, DropStmt))
		return ((const DropStmt *) stmt)->removeType == OBJECT_EXTENSION ||
			((const DropStmt *) stmt)->removeType == OBJECT_SCHEMA;
	return IsA(stmt, DropOwnedStmt) || IsA(stmt, ReassignOwnedStmt);
}

/*
 * The next ProcessUtility hook, or the server's own function.
 */
static void
next_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			 ProcessUtilityContext context, ParamListInfo params,
			 QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (next_process_utility)
		next_process_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);
}

/*
 * ProcessUtility hook
 */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	const Node *stmt = pstmt->utilityStmt;
	Oid			database;
	bool		prepared = IsA(stmt, TransactionStmt) &&
	(((const TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED ||
	 ((const TransactionStmt *) stmt)->kind == TRANS_STMT_ROLLBACK_PREPARED);

	if (changes_extension(stmt))
	{
		watch_transactions();
		change_at_commit = true;
	}
	if (IsA(stmt, CreatedbStmt) || IsA(stmt, DropdbStmt) || IsA(stmt, RenameStmt))
	{
		watch_transactions();
		scan_at_commit = true;
	}
	database = IsTransactionState() ? wanted_database(stmt) : InvalidOid;
	if (OidIsValid(database) && hold_database(database))
	{
		PG_ENSURE_ERROR_CLEANUP(release_database, ObjectIdGetDatum(database));
		{
			wait_until_left(database);
			next_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
		}
		PG_END_ENSURE_ERROR_CLEANUP(release_database, ObjectIdGetDatum(database));
		release_database(0, ObjectIdGetDatum(database));
		return;
	}
	next_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	if (prepared)
		prepared_has_ended();
}

/* ---------- processes of a database ---------- */

/*
 * on_shmem_exit callback: this process has left its database.  It is registered
 * before the connection is made, so it is called after that has been undone.
 */
static void
leave_place(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_place->pid = 0;
	my_place->latch = NULL;
	wake_launcher();
	LWLockRelease(shared->lock);
	ConditionVariableBroadcast(&shared->left);
}

/*
 * Take the place that the launcher has made for this process.  main_arg is its
 * number.  Exits when the database is held meanwhile.
 */
WorkerStart
launcher_attach(Datum main_arg)
{
	WorkerStart start;
	bool		held;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	my_place = &shared->places[DatumGetInt32(main_arg)];
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_place->starting = false;
	my_place->expected = held = my_place->holds > 0;
	my_place->pid = MyProcPid;
	my_place->latch = MyLatch;
	LWLockRelease(shared->lock);
	on_shmem_exit(leave_place, (Datum) 0);
	if (held)
		proc_exit(0);
	return start;
}

/*
 * What this worker was woken for since the last call of this function: bits, by
 * WakeKind.
 */
uint32
launcher_calls(void)
{
	if (pg_atomic_read_u32(&my_place->wakes) == 0)
		return 0;
	return pg_atomic_exchange_u32(&my_place->wakes, 0);
}

/*
 * Shall this process leave its database, for a command?
 */
bool
launcher_wants_exit(void)
{
	bool		wanted;

	LWLockAcquire(shared->lock, LW_SHARED);
	wanted = my_place->holds > 0;
	LWLockRelease(shared->lock);
	return wanted;
}

/*
 * This process is about to exit, and that is no failure: another one may follow
 * at once.
 */
void
launcher_expect_exit(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_place->expected = true;
	LWLockRelease(shared->lock);
}

/*
 * Main function of the probe: does the database have the extension, and who
 * owns it?
 */
void
seam_ik_probe_main(Datum main_arg)
{
	WorkerStart start = launcher_attach(main_arg);
	bool		has_extension;
	bool		may_login = false;
	Oid			owner = InvalidOid;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(start.database, InvalidOid, 0);
	/* ALTER DATABASE ... SET role is not meant for us */
	SetConfigOption("role", "none", PGC_SUSET, PGC_S_OVERRIDE);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute("SELECT e.extowner, r.rolcanlogin FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_authid r ON r.oid OPERATOR(pg_catalog.=) e.extowner WHERE e.extname OPERATOR(pg_catalog.=) 'seam_ik'", true, 1) != SPI_OK_SELECT)
		elog(ERROR, "SPI failed to look for the extension");
	has_extension = SPI_processed > 0;
	if (has_extension)
	{
		bool		isnull;
		HeapTuple	row = SPI_tuptable->vals[0];

		owner = DatumGetObjectId(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		may_login = DatumGetBool(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
	}
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_place->expected = true;
	my_place->has_extension = has_extension;
	my_place->may_login = may_login;
	my_place->owner = owner;
	LWLockRelease(shared->lock);
	proc_exit(0);
}

/* ---------- launcher ---------- */

typedef enum DatabaseState
{
	DB_UNKNOWN,					/* to be probed */
	DB_PROBING,
	DB_WITHOUT,					/* has no extension */
	DB_BLOCKED,					/* its owner may not connect */
	DB_READY,					/* wants a worker */
	DB_WORKING
} DatabaseState;

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
	bool		warned;			/* of DB_BLOCKED */
} Database;

static List *databases = NIL;	/* of Database *, in TopMemoryContext */

/*
 * on_shmem_exit callback of the launcher.
 */
static void
launcher_gone(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = NULL;
	LWLockRelease(shared->lock);
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

		if (!db->seen && db->handle == NULL)
		{
			databases = foreach_delete_current(databases, lc);
			pfree(db);
		}
	}
}

/*
 * Start the probe or the worker of a database.
 */
static void
start_process(Database *db)
{
	static bool warned = false;
	BackgroundWorker worker = {0};
	WorkerStart start = {0};
	Place	   *place;
	bool		probe = db->state == DB_UNKNOWN;
	bool		is_there = false;
	int			number = -1;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	place = get_place(db->oid, true);
	is_there = place && place->pid != 0;
	if (place && place->holds == 0 && !is_there)
	{
		number = (int) (place - shared->places);
		place->starting = place->managed = true;
		place->expected = false;
		place->has_extension = false;
		if (probe)
			place->changed = false;
	}
	LWLockRelease(shared->lock);
	if (number < 0)
	{
		/* one of a former launcher's, or held: we are woken when it ends */
		if (is_there)
			db->state = DB_WORKING;
		else
			db->not_before = http_now() + RESTART_FIRST_US;
		return;
	}

	start.database = db->oid;
	start.owner = db->owner;
	start.careful = db->failures > 0;
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION |
		BGWORKER_LEAVES_DATABASE;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = Int32GetDatum(number);
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "seam_ik", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, probe ? "seam_ik_probe_main" : "seam_ik_worker_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "seam_ik %s for database %s", probe ? "probe" : "worker", db->name);
	strlcpy(worker.bgw_type, probe ? "seam_ik probe" : "seam_ik worker", BGW_MAXLEN);
	memcpy(worker.bgw_extra, &start, sizeof(start));
	db->started_at = http_now();
	if (RegisterDynamicBackgroundWorker(&worker, &db->handle))
	{
		db->state = probe ? DB_PROBING : DB_WORKING;
		return;
	}
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	place->starting = place->managed = false;
	free_place(place);
	LWLockRelease(shared->lock);
	ConditionVariableBroadcast(&shared->left);
	db->handle = NULL;
	db->not_before = http_now() + RESTART_MAX_US / 6;
	if (!warned)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker slot is free for the outbox of database \"%s\"", db->name),
				 errhint("Raise max_worker_processes.")));
	warned = true;
}

/*
 * The process of a database has ended.
 */
static void
process_ended(Database *db)
{
	Place	   *place;
	Place		was = {0};

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	place = get_place(db->oid, false);
	if (place)
	{
		place->starting = place->managed = false;	/* it may never have begun */
		was = *place;
		free_place(place);
	}
	LWLockRelease(shared->lock);
	ConditionVariableBroadcast(&shared->left);
	if (db->handle)
		pfree(db->handle);
	db->handle = NULL;

	if (was.expected)
	{
		/* but not one after another */
		if (db->state == DB_WORKING)
			db->failures = 0;
		db->not_before = db->state == DB_WORKING ? db->started_at + RESTART_FIRST_US : 0;
	}
	else
	{
		/* one that had worked for long begins with the shortest pause */
		if (db->state == DB_WORKING && http_now() - db->started_at > RESTART_MAX_US)
			db->failures = 0;
		db->not_before = http_now() + Min(RESTART_FIRST_US << Min(db->failures, 8), RESTART_MAX_US);
		db->failures++;
	}
	if (db->state != DB_PROBING || !was.expected || was.holds > 0 || was.changed)
		db->state = DB_UNKNOWN;
	else if (!was.has_extension)
		db->state = DB_WITHOUT;
	else if (!was.may_login && !CAN_CONNECT_WITHOUT_LOGIN)
	{
		db->state = DB_BLOCKED;
		if (!db->warned)
			ereport(WARNING,
					(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
					 errmsg("the outbox of database \"%s\" has no worker: the owner of extension seam_ik may not log in", db->name),
					 errhint("From PostgreSQL 17 on that is no obstacle; until then, ALTER ROLE ... LOGIN.")));
		db->warned = true;
	}
	else
	{
		db->owner = was.owner;
		db->state = DB_READY;
		db->warned = false;
	}
}

/*
 * Has the database a process of ours?
 */
static bool
has_process(Oid database)
{
	Place	   *place;
	bool		has;

	LWLockAcquire(shared->lock, LW_SHARED);
	place = get_place(database, false);
	has = place && (place->pid != 0 || place->starting);
	LWLockRelease(shared->lock);
	return has;
}

/*
 * Which databases have changed, as their sessions tell; and shall they be
 * scanned?
 */
static bool
take_news(void)
{
	bool		scan;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	scan = shared->scan;
	shared->scan = false;
	for (int i = 0; i < shared->nplaces; i++)
	{
		Place	   *place = &shared->places[i];
		Database   *db;

		if (place->database == InvalidOid || !place->changed)
			continue;
		db = find_database(place->database);
		if (db && db->state == DB_PROBING)
			continue;			/* the probe may have looked before */
		if (db == NULL)
			scan = true;
		else if (db->state == DB_WITHOUT || db->state == DB_BLOCKED)
			db->state = DB_UNKNOWN;
		place->changed = false;
		free_place(place);
	}
	LWLockRelease(shared->lock);
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
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = MyLatch;
	for (int i = 0; i < shared->nplaces; i++)
		shared->places[i].starting = shared->places[i].managed = false;
	LWLockRelease(shared->lock);
	on_shmem_exit(launcher_gone, (Datum) 0);
	BackgroundWorkerInitializeConnectionByOid(InvalidOid, InvalidOid, 0);

	for (;;)
	{
		int64		now;
		int64		wake_at;
		bool		probing = false;
		ListCell   *lc;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (take_news() || http_now() >= next_scan)
		{
			scan_databases();
			next_scan = http_now() + SCAN_INTERVAL_US;
		}
		foreach(lc, databases)
		{
			Database   *db = lfirst(lc);
			pid_t		pid;

			if (db->handle ? GetBackgroundWorkerPid(db->handle, &pid) == BGWH_STOPPED :
				db->state == DB_WORKING && !has_process(db->oid))
				process_ended(db);
			probing = probing || db->state == DB_PROBING;
		}
		now = http_now();
		wake_at = next_scan;
		foreach(lc, databases)
		{
			Database   *db = lfirst(lc);

			if (db->handle || !db->seen || (db->state != DB_UNKNOWN && db->state != DB_READY))
				continue;
			if (db->not_before > now)
				wake_at = Min(wake_at, db->not_before);
			else if (db->state == DB_READY || !probing)
			{
				/* one probe at a time: there may be hundreds of databases */
				start_process(db);
				probing = probing || db->state == DB_PROBING;
				wake_at = Min(wake_at, Max(db->not_before, now + USECS_PER_SEC));
			}
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Max(wake_at - http_now(), 0) / 1000 + 1, PG_WAIT_EXTENSION);
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
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shared;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = startup_shared;
	next_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "seam_ik", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "seam_ik_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "seam_ik launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "seam_ik launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
