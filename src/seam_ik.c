/*-------------------------------------------------------------------------
 *
 * seam_ik.c
 *	  Module entry: puts the parts together, and nothing else.
 *
 * Each hook of the server is taken once, here, and calls the parts in the order in
 * which they stand.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "config/settings.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "outbox/outbox.h"
#include "shmem/activity.h"
#include "shmem/mailbox.h"
#include "shmem/notices.h"
#include "shmem/places.h"
#include "shmem/stats.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "tcop/utility.h"
#include "worker/launcher.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;
static ProcessUtility_hook_type next_process_utility;

/*
 * shmem_request_hook
 */
static void
request_shared(void)
{
	if (next_shmem_request)
		next_shmem_request();
	places_request_shared();
	mailbox_request_shared();
	notices_request_shared();
	activity_request_shared();
	stats_request_shared();
}

/*
 * shmem_startup_hook: also called in the postmaster after a crash, when everything
 * begins anew.
 */
static void
startup_shared(void)
{
	if (next_shmem_startup)
		next_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	places_startup_shared();
	mailbox_startup_shared();
	notices_startup_shared();
	activity_startup_shared();
	stats_startup_shared();
	LWLockRelease(AddinShmemInitLock);
}

/*
 * Runs a utility command as it would be run without us.
 */
static void
run_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
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
	ErrorContextCallback *outer = settings_utility_begins(pstmt->utilityStmt);
	bool		ends_prepared = places_ends_prepared(pstmt->utilityStmt);
	Oid			database;

	outbox_utility_begins();
	database = places_utility_begins(pstmt->utilityStmt);
	if (OidIsValid(database))
	{
		PG_ENSURE_ERROR_CLEANUP(places_release, ObjectIdGetDatum(database));
		{
			places_wait_until_left(database);
			run_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
		}
		PG_END_ENSURE_ERROR_CLEANUP(places_release, ObjectIdGetDatum(database));
		places_release(0, ObjectIdGetDatum(database));
	}
	else
		run_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	if (ends_prepared)
		places_prepared_has_ended();
	error_context_stack = outer;
}

/*
 * Called when the library is loaded.  Shared memory there is only where it is preloaded,
 * and not under pg_upgrade.
 */
void
_PG_init(void)
{
	settings_define();
	next_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		next_shmem_request = shmem_request_hook;
		shmem_request_hook = request_shared;
		next_shmem_startup = shmem_startup_hook;
		shmem_startup_hook = startup_shared;
	}
	launcher_define();
}
