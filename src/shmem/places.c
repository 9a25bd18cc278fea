/*-------------------------------------------------------------------------
 *
 * places.c
 *	  In which databases processes of ours are, and how sessions reach them.
 *
 * A session wakes the worker of its database, or the writer.  What it is woken for is
 * noted in shared memory: the latch alone may be reset while the process waits for
 * something else.  Where there is no writer the note has the launcher start one.
 *
 * A command that wants a database for itself (DROP DATABASE and the like) holds
 * the database: its processes are asked to go, and none is started until the
 * command has ended.
 *
 * Everything here needs the library in shared_preload_libraries.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "common/controldata_utils.h"
#include "base/compat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "shmem/places.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* How long a command waits for a process to leave its database. */
#define HOLD_WAIT_MS 10000

/* Databases that are held without having a process. */
#define SPARE_PLACES 64

Places	   *places;				/* NULL: not preloaded */
static Place *my_place;			/* of this process, if it is one of ours */
static PlaceProcess *my_process;	/* likewise */


/* What this transaction has to tell when it commits. */
static bool wake_at_commit;
static bool reread_at_commit;	/* what is in doubt may have changed, too */
static bool change_at_commit;	/* the extension in this database */
static bool scan_at_commit;		/* which databases there are */
static bool writer_at_commit;	/* there is something to write or to tell */

/* ---------- shared memory ---------- */

/*
 * How many databases may have a process of ours, or be held, at once.
 */
int
places_number(void)
{
	return max_worker_processes + SPARE_PLACES;
}

/*
 * The size of Places, in bytes.
 */
static Size
shared_size(void)
{
	return add_size(offsetof(Places, places),
					mul_size(places_number(), sizeof(Place)));
}

/*
 * shmem_request_hook
 */
void
places_request_shared(void)
{
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("seam_ik", 1);
}

/*
 * In the postmaster, before recovery: has the server crashed, or is this a copy of one that
 * was running?
 */
static bool
server_has_crashed(void)
{
	bool		is_good;
	ControlFileData *control = get_controlfile(DataDir, &is_good);
	bool		clean = is_good && (control->state == DB_SHUTDOWNED ||
									control->state == DB_SHUTDOWNED_IN_RECOVERY);

	pfree(control);
	return !clean;
}

/*
 * shmem_startup_hook: also called in the postmaster after a crash, when
 * everything begins anew.
 */
void
places_startup_shared(void)
{
	bool		found;

	places = ShmemInitStruct("seam_ik", shared_size(), &found);
	if (!found)
	{
		memset(places, 0, shared_size());
		places->lock = &GetNamedLWLockTranche("seam_ik")->lock;
		places->nplaces = places_number();
		places->crashed = server_has_crashed();
		ConditionVariableInit(&places->left);
		SpinLockInit(&places->clock.lock);
	}
}

/*
 * The place of a database, made where there is none and make is set; NULL
 * when all are taken.  The lock is held, exclusively to make one.
 */
Place *
places_get(Oid database, bool make)
{
	Place	   *spare = NULL;

	for (int i = 0; i < places->nplaces; i++)
	{
		Place	   *place = &places->places[i];

		if (place->database == database)
			return place;
		if (place->database == InvalidOid && spare == NULL)
			spare = place;
	}
	if (!make || spare == NULL)
		return NULL;
	memset(spare, 0, sizeof(Place));
	for (int r = 0; r < PLACE_ROLES; r++)
		pg_atomic_init_u32(&spare->processes[r].wakes, 0);
	pg_atomic_init_u64(&spare->write_from, PG_INT64_MAX);
	pg_atomic_init_u64(&spare->users_code_at, 0);
	pg_atomic_init_u64(&spare->seam_offset, 0);
	spare->marks_counted = !places->crashed;
	spare->database = database;
	return spare;
}

/*
 * Have all processes of ours left this database, and is none about to come?  The lock is
 * held.
 */
static bool
is_left(const Place *place)
{
	for (int r = 0; r < PLACE_ROLES; r++)
	{
		if (place->processes[r].pid != 0 || place->processes[r].starting)
			return false;
	}
	return true;
}

/*
 * Give a place back that nothing needs any more.  The lock is held exclusively.
 */
void
places_free(Place *place)
{
	if (place->holds > 0 || place->changed || !is_left(place))
		return;
	for (int r = 0; r < PLACE_ROLES; r++)
	{
		if (place->processes[r].managed)
			return;
	}
	place->database = InvalidOid;
	for (int r = 0; r < PLACE_ROLES; r++)
		place->processes[r].ticket = 0;
}

/*
 * Wake the launcher.  The lock is held.
 */
static void
wake_launcher(void)
{
	if (places->launcher)
		SetLatch(places->launcher);
}

/*
 * Wake a process of a place (or NULL) for this; where there is no writer, the launcher,
 * which starts one.  The lock is held.
 *
 * The latch alone would not do: the process may be waiting for something else, in a
 * transaction, and reset it there.
 */
static void
wake_place(Place *place, PlaceRole role, WakeKind kind)
{
	PlaceProcess *process;

	if (place == NULL)
		return;
	process = &place->processes[role];
	pg_atomic_fetch_or_u32(&process->wakes, 1 << kind);
	if (process->pid != 0)
		SetLatch(process->latch);
	else if (role == PLACE_WRITER)
		wake_launcher();
}

/*
 * Is the library preloaded, so that a worker sends what is enqueued?
 */
bool
places_preloaded(void)
{
	return places != NULL;
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

		LWLockAcquire(places->lock, change_at_commit || scan_at_commit ? LW_EXCLUSIVE : LW_SHARED);
		place = places_get(MyDatabaseId, change_at_commit);
		if (change_at_commit)
		{
			if (place)
				place->changed = true;
			else
				places->scan = true;
		}
		if (scan_at_commit)
			places->scan = true;
		if (change_at_commit || scan_at_commit)
			wake_launcher();
		wake_place(place, PLACE_MAIN, WAKE_WORK);
		if (reread_at_commit)
			wake_place(place, PLACE_MAIN, WAKE_DOUBTS);
		if (writer_at_commit)
			wake_place(place, PLACE_WRITER, WAKE_WORK);
		LWLockRelease(places->lock);
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		wake_at_commit = reread_at_commit = change_at_commit = scan_at_commit =
			writer_at_commit = false;
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
places_wake_at_commit(bool reread)
{
	if (places == NULL)
		return;
	if (!wake_at_commit)
		watch_transactions();
	wake_at_commit = true;
	reread_at_commit = reread_at_commit || reread;
}

/*
 * Have the database's writer look for work when this transaction commits, and its worker.
 */
void
places_wake_writer_at_commit(void)
{
	places_wake_at_commit(false);
	writer_at_commit = places != NULL;
}

/*
 * Wake the database's worker now, if there is one.  Never throws.
 */
void
places_wake_now(WakeKind kind)
{
	LWLockAcquire(places->lock, LW_SHARED);
	wake_place(places_get(MyDatabaseId, false), PLACE_MAIN, kind);
	LWLockRelease(places->lock);
}

/*
 * A prepared transaction has ended: it may have enqueued something, issued
 * keys, or created the extension.
 */
void
places_prepared_has_ended(void)
{
	bool		has_extension = OidIsValid(get_extension_oid("seam_ik", true));
	Place	   *place;

	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	place = places_get(MyDatabaseId, has_extension);
	if (place && has_extension)
		place->changed = true;
	wake_place(place, PLACE_MAIN, WAKE_WORK);
	wake_place(place, PLACE_MAIN, WAKE_FATES);
	if (has_extension)
		wake_place(place, PLACE_WRITER, WAKE_WORK);
	wake_launcher();
	LWLockRelease(places->lock);
}

/* ---------- commands that want a database for themselves ---------- */

/*
 * Ask the processes of a database to go, and have none started before
 * places_release().  Returns false when that was not possible:
 * then the command does what it does with any other session.
 */
static bool
hold_database(Oid database, bool drop)
{
	Place	   *place;

	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	place = places_get(database, true);
	if (place)
	{
		place->holds++;
		place->dropping = place->dropping || drop;
		for (int r = 0; r < PLACE_ROLES; r++)
		{
			if (place->processes[r].pid != 0)
				wake_place(place, r, WAKE_WORK);
		}
	}
	LWLockRelease(places->lock);
	return place != NULL;
}

/*
 * Wait until the processes of a database that is held are gone.
 */
void
places_wait_until_left(Oid database)
{
	int64		give_up = clock_now() + HOLD_WAIT_MS * INT64CONST(1000);

	ConditionVariablePrepareToSleep(&places->left);
	for (;;)
	{
		Place	   *place;
		bool		there;

		LWLockAcquire(places->lock, LW_SHARED);
		place = places_get(database, false);
		there = place && !is_left(place);
		LWLockRelease(places->lock);
		if (!there || clock_now() > give_up)
			break;
		ConditionVariableTimedSleep(&places->left, 100, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

/*
 * The command has ended, well or not (also by an ERROR or FATAL: see
 * PG_ENSURE_ERROR_CLEANUP).
 */
void
places_release(int code, Datum database)
{
	Place	   *place;

	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	place = places_get(DatumGetObjectId(database), false);
	if (place)
	{
		if (--place->holds == 0)
			place->dropping = false;
		places_free(place);
	}
	wake_launcher();
	LWLockRelease(places->lock);
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

	/*
	 * of these commands only CREATE DATABASE may want the one that it is
	 * given in
	 */
	if (!OidIsValid(database) || (database == MyDatabaseId && !is_template) ||
		!(is_template ? may_copy(database) : superuser() || database_ownercheck(database,
																				GetUserId())))
		return InvalidOid;
	return database;
}

/*
 * Is that the name of one of the extension's tables?
 */
static bool
is_our_table(const char *name)
{
	return name && (strcmp(name, "seam_instant_key_request") == 0 ||
					strcmp(name, "seam_instant_key_call") == 0 ||
					strcmp(name, "seam_instant_key_writing") == 0);
}

/*
 * Does the command give one of the extension's tables to another owner, or take or give
 * its name?
 */
static bool
changes_our_table(const Node *stmt)
{
	if (IsA(stmt, AlterTableStmt))
	{
		ListCell   *lc;

		foreach(lc, ((const AlterTableStmt *) stmt)->cmds)
		{
			if (((const AlterTableCmd *) lfirst(lc))->subtype == AT_ChangeOwner)
				return is_our_table(((const AlterTableStmt *) stmt)->relation->relname);
		}
	}
	if (IsA(stmt, RenameStmt) && ((const RenameStmt *) stmt)->relation)
		return is_our_table(((const RenameStmt *) stmt)->relation->relname) ||
			is_our_table(((const RenameStmt *) stmt)->newname);
	return IsA(stmt, AlterObjectSchemaStmt) && ((const AlterObjectSchemaStmt *) stmt)->relation &&
		is_our_table(((const AlterObjectSchemaStmt *) stmt)->relation->relname);
}

/*
 * Does the command change which databases have the extension, where, or whose it is?
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
	return IsA(stmt, DropOwnedStmt) || IsA(stmt, ReassignOwnedStmt) || changes_our_table(stmt);
}

/*
 * A utility command begins.  Returns the database that must be left by our processes
 * before it can go on, and is held now, or InvalidOid: then the caller is to wait with
 * places_wait_until_left(), and to give the database free with places_release() however
 * the command ends.
 */
Oid
places_utility_begins(const Node *stmt)
{
	Oid			database;

	if (!places_preloaded())
		return InvalidOid;
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
	if (!OidIsValid(database) || !hold_database(database, IsA(stmt, DropdbStmt)))
		return InvalidOid;
	return database;
}

/*
 * Does the command end a prepared transaction?  Then places_prepared_has_ended() is to
 * be called after it.
 */
bool
places_ends_prepared(const Node *stmt)
{
	return places_preloaded() && IsA(stmt, TransactionStmt) &&
		(((const TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED ||
		 ((const TransactionStmt *) stmt)->kind == TRANS_STMT_ROLLBACK_PREPARED);
}

/* ---------- processes of a database ---------- */

/*
 * on_shmem_exit callback: this process has left its database.  It is registered
 * before the connection is made, so it is called after that has been undone.
 */
static void
leave_place(int code, Datum arg)
{
	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	my_process->pid = 0;
	my_process->latch = NULL;
	if (my_process == &my_place->processes[PLACE_WRITER])
		pg_atomic_write_u64(&my_place->users_code_at, 0);
	wake_launcher();
	LWLockRelease(places->lock);
	ConditionVariableBroadcast(&places->left);
}

/*
 * Take the place that the launcher has made for this process.  main_arg is its
 * number.  Exits when the database is held meanwhile; and when this process is not the
 * one that was registered last: its launcher has died, and another one knows nothing of it.
 */
WorkerStart
places_attach(Datum main_arg, PlaceRole role)
{
	WorkerStart start;
	bool		held;
	bool		late;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	my_place = &places->places[DatumGetInt32(main_arg)];
	my_process = &my_place->processes[role];
	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	late = my_process->ticket != start.ticket;
	held = !late && my_place->holds > 0;
	if (!late)
	{
		my_process->starting = false;
		my_process->expected = held;
		my_process->pid = MyProcPid;
		my_process->latch = MyLatch;
	}
	LWLockRelease(places->lock);
	if (late)
		proc_exit(0);
	on_shmem_exit(leave_place, (Datum) 0);
	if (held)
		proc_exit(0);
	return start;
}

/*
 * This worker knows Seam's clock: it is so far from clock_now()'s; 0: it does not any more.
 */
void
places_tell_seam_offset(int64 offset)
{
	pg_atomic_write_u64(&my_place->seam_offset, (uint64) offset);
}

/*
 * Seam's time at a time of clock_now()'s clock, as the worker of this session's database
 * knows it.  Returns false when it does not.
 */
bool
places_seam_time(int64 at, TimestampTz *time)
{
	int64		offset = 0;

	if (places)
	{
		Place	   *place;

		LWLockAcquire(places->lock, LW_SHARED);
		place = places_get(MyDatabaseId, false);
		if (place && place->processes[PLACE_MAIN].pid != 0)
			offset = (int64) pg_atomic_read_u64(&place->seam_offset);
		LWLockRelease(places->lock);
	}
	*time = at + offset;
	return offset != 0;
}

/*
 * The number of this process's place, less than places_number().
 */
int
places_my_number(void)
{
	return (int) (my_place - places->places);
}

/*
 * From one of our processes: wake another one of the same database, now.
 */
void
places_wake_other(PlaceRole role, WakeKind kind)
{
	LWLockAcquire(places->lock, LW_SHARED);
	wake_place(my_place, role, kind);
	LWLockRelease(places->lock);
}

/*
 * From the worker: the row of the request with this id is to be written.  The writer is
 * told by places_wake_other(), when that has committed.
 */
void
places_rows_due(int64 id)
{
	uint64		least = pg_atomic_read_u64(&my_place->write_from);

	while ((int64) least > id &&
		   !pg_atomic_compare_exchange_u64(&my_place->write_from, &least, (uint64) id))
		;
}

/*
 * The least id that places_rows_due() was told since the last call of this function, or
 * PG_INT64_MAX.
 */
int64
places_write_from(void)
{
	return (int64) pg_atomic_exchange_u64(&my_place->write_from, PG_INT64_MAX);
}

/*
 * Users' code begins or has ended in this process, which the launcher watches.
 */
void
places_in_users_code(bool begins)
{
	pg_atomic_write_u64(&my_place->users_code_at, begins ? (uint64) clock_now() : 0);
}

/*
 * This writer goes; another one is to be started at this time (clock_now()'s clock), or
 * when it is asked for; 0: only then.
 */
void
places_write_at(int64 at)
{
	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	my_place->writer_at = at;
	LWLockRelease(places->lock);
}

/*
 * Do marks that the writer finds tell of a crash?  All that were set after this server
 * started are of writers that have ended in another way.
 */
bool
places_tell_of_crash(void)
{
	return !my_place->marks_counted;
}

/*
 * The writer has seen to the marks of those before it, and to what is stuck.
 */
void
places_crash_counted(void)
{
	my_place->marks_counted = true;
	my_place->stuck_table = InvalidOid;
}

/*
 * The table whose code did not let the last writer go, or InvalidOid.
 */
Oid
places_stuck_table(void)
{
	return my_place->stuck_table;
}

/*
 * The code of this table does not let this writer go.  Never throws.
 */
void
places_note_stuck(Oid table)
{
	my_place->stuck_table = table;
}

/*
 * What this process was woken for since the last call of this function: bits, by
 * WakeKind.
 */
uint32
places_calls(void)
{
	if (pg_atomic_read_u32(&my_process->wakes) == 0)
		return 0;
	return pg_atomic_exchange_u32(&my_process->wakes, 0);
}

/*
 * Returns whether places_calls() has anything.  To be asked before the latch is waited
 * for: a wait for a lock or a standby, inside a transaction, resets that.
 */
bool
places_is_called(void)
{
	return pg_atomic_read_u32(&my_process->wakes) != 0;
}

/*
 * Shall this process leave its database, for a command?
 */
bool
places_want_exit(void)
{
	bool		wanted;

	LWLockAcquire(places->lock, LW_SHARED);
	wanted = my_place->holds > 0;
	LWLockRelease(places->lock);
	return wanted;
}

/*
 * And is that command DROP DATABASE?
 */
bool
places_want_drop(void)
{
	bool		wanted;

	LWLockAcquire(places->lock, LW_SHARED);
	wanted = my_place->dropping;
	LWLockRelease(places->lock);
	return wanted;
}

/*
 * This process is about to exit, and that is no failure: another one may follow
 * at once.
 */
void
places_expect_exit(void)
{
	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	my_process->expected = true;
	LWLockRelease(places->lock);
}

/*
 * Tell the launcher what the probe has found.
 */
void
places_report(bool has_extension, bool may_login, bool owns_tables, Oid owner)
{
	LWLockAcquire(places->lock, LW_EXCLUSIVE);
	my_process->expected = true;
	my_place->has_extension = has_extension;
	my_place->may_login = may_login;
	my_place->owns_tables = owns_tables;
	my_place->owner = owner;
	LWLockRelease(places->lock);
}
