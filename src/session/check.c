/*-------------------------------------------------------------------------
 *
 * check.c
 *	  seam_ik_check(): whether an installation works, and what keeps it from it.
 *
 * Each line is looked into in a subtransaction, so that an error is its line, and nothing
 * is waited for but Seam: a table that somebody has locked is a line, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/as_owner.h"
#include "base/clock.h"
#include "base/compat.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "config/settings.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "net/http.h"
#include "outbox/our_triggers.h"
#include "outbox/pause.h"
#include "outbox/row_key.h"
#include "outbox/trigger_plan.h"
#include "pgstat.h"
#include "session/check.h"
#include "shmem/activity.h"
#include "shmem/places.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(seam_ik_check);

/* A worker that has not come round its loop for so long hangs. */
#define TURN_LATE_S 300

/* What is due for so long should have been done. */
#define DUE_LATE_S 60

/* More than so many are not counted. */
#define COUNT_MOST "1000"

/* How long a line waits for a lock, in milliseconds; also this share of the time to connect. */
#define LOCK_TIMEOUT_MS 100
#define LOCK_SHARE 10

#define HINT_PRELOAD \
	"Add seam_ik to shared_preload_libraries and restart the server."

/* ---------- the processes ---------- */

/*
 * The line "preloaded".
 */
static void
look_at_preload(Check *check, Line *line)
{
	line->ok = places_preloaded();
	line->detail = line->ok ? "seam_ik is in shared_preload_libraries" :
		"seam_ik is not in shared_preload_libraries: no request is sent, and no key is revoked "
		"when its transaction rolls back";
	line->hint = line->ok ? NULL : HINT_PRELOAD;
}

/*
 * Returns how many seconds ago that was.
 */
static long
seconds_since(TimestampTz time)
{
	return (long) ((GetCurrentTimestamp() - time) / USECS_PER_SEC);
}

/*
 * The line "worker".
 */
static void
look_at_worker(Check *check, Line *line)
{
	Activity	worker;
	TimestampTz turned_at;

	if (RecoveryInProgress())
	{
		line->ok = true;
		line->detail = "a standby has none";
		return;
	}
	if (!activity_of(MyDatabaseId, ACTIVITY_WORKER, &worker))
	{
		line->detail = "this database has no worker now";
		line->hint = places_preloaded() ?
			"Look for a WARNING in the server log; one that ended badly is started again within a "
			"minute." : HINT_PRELOAD;
		return;
	}
	/* it may hang before it has come round once, too */
	turned_at = worker.turned_at == 0 ? worker.since : worker.turned_at;
	line->ok = seconds_since(turned_at) < TURN_LATE_S;
	line->detail = psprintf("process %d, for %ld s, last came round %ld s ago: %s", worker.pid,
							seconds_since(worker.since), seconds_since(turned_at),
							activity_state_name(worker.state));
	line->hint = line->ok ? NULL : "See in pg_stat_activity and pg_locks what it waits for.";
}

/*
 * The line "worker slots".
 */
static void
look_at_slots(Check *check, Line *line)
{
	static const ActivityWhat kinds[] = {ACTIVITY_WORKER, ACTIVITY_WRITER};
	Activity	activity;
	int			used = 0;
	int			missing = 0;

	for (int i = 1; i <= pgstat_fetch_stat_numbackends(); i++)
	{
		LocalPgBackendStatus *entry = local_beentry(i);

		if (entry && entry->backendStatus.st_backendType == B_BG_WORKER)
			used++;
	}
	/* the writer comes when there is something to write, and needs one then */
	for (int i = 0; i < (int) lengthof(kinds); i++)
		missing += !activity_of(MyDatabaseId, kinds[i], &activity);
	line->ok = used + missing <= max_worker_processes;
	line->detail = psprintf("%d of %d slots of max_worker_processes are taken", used,
							max_worker_processes);
	line->hint = line->ok ? NULL :
		"Raise max_worker_processes: seam_ik needs one for the server, and two for each database.";
}

/* ---------- the outbox ---------- */

/*
 * Finds the outbox; raises why it cannot be used: what it is made of is gone, or newer than
 * the library.
 */
static void
find_outbox(Check *check, Line *line)
{
	if (check->outbox == NULL)
		check->outbox = outbox_of_function(check->function);
}

/*
 * Executes a query of one row as the owner of the outbox: %1$s is the table of requests,
 * $1 the origin.  SPI is connected when it returns.
 */
static void
query(Check *check, const char *sql)
{
	Oid			types[] = {INT8OID};
	Datum		args[1];

	find_outbox(check, NULL);
	args[0] = Int64GetDatum(check->outbox->origin);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(psprintf(sql, check->outbox->name), 1, types, args, NULL, true,
							  1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "SPI failed to look into the outbox");
}

/*
 * Returns a column of that row, 0 for NULL, by value.
 */
static int64
number(int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column,
									  &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

/*
 * The line "due requests".
 */
static void
look_at_due(Check *check, Line *line)
{
	int64		age;

	/*
	 * The first by the index, of each status and kind of pause.  What was
	 * scheduled is due since then, not since it was enqueued; and of a stay
	 * it is due though nobody has looked at it yet.
	 */
	query(check, "SELECT greatest(extract(epoch FROM now() - min(t))::bigint, 0) FROM"
		  " (SELECT d.t FROM (VALUES ('pending'), ('in_flight'), ('revoking'), ('issued'))"
		  " s(status), LATERAL"
		  " (SELECT * FROM (SELECT greatest(coalesce(attempted_at, enqueued_at),"
		  " CASE WHEN r.status = 'pending' THEN issue_at END) AS t FROM %1$s r"
		  " WHERE r.status = s.status AND r.origin = $1 AND r.next_attempt_at = '-infinity'"
		  " ORDER BY r.request_id LIMIT 1) a UNION ALL"
		  " SELECT * FROM (SELECT next_attempt_at AS t FROM %1$s r"
		  " WHERE r.status = s.status AND r.origin = $1 AND r.next_attempt_at > '-infinity'"
		  " AND r.next_attempt_at <= now() ORDER BY r.next_attempt_at LIMIT 1) p) d UNION ALL"
		  " SELECT * FROM (SELECT wake_at AS t FROM %1$s WHERE origin = $1"
		  " AND wake_at > '-infinity' AND wake_at <= now() ORDER BY wake_at LIMIT 1) w UNION ALL"
		  " SELECT * FROM (SELECT row_task_at AS t FROM %1$s WHERE origin = $1"
		  " AND row_task IS NOT NULL AND row_task_at > '-infinity' AND row_task_at <= now()"
		  " ORDER BY row_task_at LIMIT 1) l) due");
	age = number(1);
	SPI_finish();
	line->ok = age < DUE_LATE_S;
	line->detail = age == 0 ? "nothing is due" :
		psprintf("the oldest request that is due has been so for " INT64_FORMAT " s", age);
	line->hint = line->ok ? NULL : "The other lines tell why it waits.";
}

/*
 * The line "pause".
 */
static void
look_at_pause(Check *check, Line *line)
{
	Activity	worker = {0};
	bool		has_worker = activity_of(MyDatabaseId, ACTIVITY_WORKER, &worker);
	char	   *reason;
	TimestampTz since;

	find_outbox(check, NULL);
	if (pause_read(check->outbox->schema, &reason, &since))
	{
		line->detail = psprintf("since %s by seam_ik_pause(): %s", timestamptz_to_str(since),
								reason);
		line->hint = "seam_ik_resume() ends that.";
	}
	else if (!settings_worker || (has_worker && worker.state == WORKER_OFF))
	{
		line->detail = "by seam_ik.worker = off";
		line->hint = "Set it to on, and reload the configuration.";
	}
	else if (has_worker && worker.state >= WORKER_NO_KEY)
	{
		line->detail = worker.until == 0 ? pstrdup(activity_state_name(worker.state)) :
			psprintf("%s, until %s at least", activity_state_name(worker.state),
					 timestamptz_to_str(worker.until));
		line->hint = "A reload of the configuration ends pauses, and has the API key read anew.";
	}
	else
	{
		line->ok = true;
		line->detail = "not paused";
	}
}

/*
 * The line "unwritten keys".
 */
static void
look_at_unwritten(Check *check, Line *line)
{
	int64		n;

	query(check, "SELECT count(*) FROM (SELECT FROM %1$s WHERE status = 'issued' AND error IS NOT "
		  "NULL AND sqlstate IS NOT NULL AND sqlstate <> '08007' LIMIT " COUNT_MOST ") r");
	n = number(1);
	SPI_finish();
	line->ok = n == 0;
	line->detail = psprintf(INT64_FORMAT " keys could not be written to their rows", n);
	line->hint = line->ok ? NULL :
		"The error is in seam_instant_key_request; seam_retry_instant_key_requests() has them "
		"written again.";
}

/*
 * The line "reported keys".
 */
static void
look_at_reported(Check *check, Line *line)
{
	int64		n;

	query(check, "SELECT count(*) FROM (SELECT FROM %1$s WHERE status IN ('failed', 'issued') AND "
		  "error IS NOT NULL AND sqlstate = '08007' AND dismissed_at IS NULL LIMIT " COUNT_MOST
		  ") r");
	n = number(1);
	SPI_finish();
	line->ok = n == 0;
	line->detail = psprintf(INT64_FORMAT " requests may have keys that nobody owns", n);
	line->hint = line->ok ? NULL : "See the view seam_instant_key_orphan.";
}

/*
 * The line "copied requests".
 */
static void
look_at_copies(Check *check, Line *line)
{
	int64		n;

	query(check, "SELECT count(*) FROM (SELECT FROM %1$s WHERE status IN ('pending', 'in_flight', "
		  "'issued', 'revoking') AND next_attempt_at IS NOT NULL AND origin <> $1 LIMIT "
		  COUNT_MOST ") r");
	n = number(1);
	SPI_finish();
	line->ok = n == 0;
	line->detail = psprintf(INT64_FORMAT " unfinished requests came along with a copy", n);
	line->hint = line->ok ? NULL :
		"If their origin will not send them, call seam_adopt_instant_key_requests().";
}

/* ---------- triggers ---------- */

/*
 * Raises what is wrong with a trigger of ours.
 */
static void
check_trigger(const OurTrigger *ours)
{
	TriggerKind kind = strcmp(ours->function, "seam_generate_instant_key_trigger") == 0 ?
	TRIGGER_GENERATES :
	strcmp(ours->function, "seam_delete_instant_key_trigger") == 0 ?
	TRIGGER_REVOKES : TRIGGER_KEEPS;
	Oid			owner;
	Relation	table;

	if (!ConditionalLockRelationOid(ours->table, AccessShareLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("table %s is locked", ours->table_name)));
	table = try_table_open(ours->table, NoLock);
	if (table == NULL)
		return;
	for (int i = 0; table->trigdesc && i < table->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &table->trigdesc->triggers[i];

		if (strcmp(trigger->tgname, ours->name) == 0)
			trigger_check(table, trigger, kind);
	}
	if (kind == TRIGGER_KEEPS && row_key_of(table) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s has no primary key", ours->table_name)));
	owner = as_owner_of(ours->table);
	if (kind == TRIGGER_KEEPS &&
		(schema_aclcheck(RelationGetNamespace(table), owner, ACL_USAGE) != ACLCHECK_OK ||
		 pg_class_aclcheck(ours->table, owner, ACL_SELECT) != ACLCHECK_OK ||
		 pg_class_aclcheck(ours->table, owner, ACL_UPDATE) != ACLCHECK_OK))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of table %s may not read and update it", ours->table_name)));
	if (ours->enabled == TRIGGER_DISABLED || ours->enabled == TRIGGER_FIRES_ON_REPLICA)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg(ours->enabled == TRIGGER_DISABLED ? "trigger %s of table %s is disabled" :
						"trigger %s of table %s fires on a replica only",
						quote_identifier(ours->name), ours->table_name)));
	table_close(table, NoLock);
}

/*
 * The line "triggers".
 */
static void
look_at_triggers(Check *check, Line *line)
{
	List	   *triggers;
	ListCell   *lc;
	int			n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	triggers = our_triggers_read();
	n = list_length(triggers);
	foreach(lc, triggers)
		check_trigger(lfirst(lc));
	SPI_finish();
	line->ok = true;
	line->detail = psprintf("%d triggers of seam_ik fit their tables", n);
}

/* ---------- versions ---------- */

/*
 * The line "versions".
 */
static void
look_at_versions(Check *check, Line *line)
{
	char	   *script;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'seam_ik'",
					true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "extension seam_ik is not there");
	script = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	line->ok = strcmp(script, SEAM_IK_VERSION) == 0;
	line->detail = MemoryContextStrdup(GetMemoryChunkContext(check),
									   psprintf("seam_ik %s, its script %s, %s", SEAM_IK_VERSION,
												script, http_library()));
	line->hint = line->ok ? NULL : "ALTER EXTENSION seam_ik UPDATE, or install the newer library.";
	SPI_finish();
}

/* ---------- the check ---------- */

static const struct
{
	const char *name;
	CheckLook	look;
	bool		asks;			/* Seam, or tells what it has answered */
}			looks[] =

{
	{"preloaded", look_at_preload, false},
	{"worker", look_at_worker, false},
	{"worker slots", look_at_slots, false},
	{"API key", check_api_key, false},
	{"endpoint", check_endpoint, true},
	{"answer", check_answer, true},
	{"clock", check_clock, true},
	{"due requests", look_at_due, false},
	{"pause", look_at_pause, false},
	{"unwritten keys", look_at_unwritten, false},
	{"reported keys", look_at_reported, false},
	{"copied requests", look_at_copies, false},
	{"triggers", look_at_triggers, false},
	{"versions", look_at_versions, false},
};

/*
 * Looks into one line; an error is what it says, but for a wish to end.
 */
static void
take_look(Check *check, CheckLook look, Line *line)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int			settings = NewGUCNestLevel();
		int			lock_timeout = Min(LOCK_TIMEOUT_MS, settings_connect_timeout / LOCK_SHARE);

		(void) set_config_option("lock_timeout", psprintf("%d", Max(lock_timeout, 1)),
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		look(check, line);
		AtEOXact_GUC(true, settings);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->elevel > ERROR)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		line->ok = false;
		line->detail = error->detail ? psprintf("%s: %s", error->message, error->detail) :
			error->message;
		line->hint = error->hint;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/*
 * seam_ik_check() RETURNS TABLE ("check" text, ok boolean, detail text, hint text)
 */
Datum
seam_ik_check(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Check	   *check = palloc0(sizeof(Check));
	Line		lines[lengthof(looks)];
	Line		found;
	AsOwner		as;

	check->started_at = clock_now();
	InitMaterializedSRF(fcinfo, 0);
	check->function = fcinfo->flinfo->fn_oid;
	take_look(check, find_outbox, &found);
	/* without an outbox the other lines are looked into as the caller */
	as = as_owner_begin(check->outbox ? check->outbox->owner : GetUserId(), SECURITY_NOFORCE_RLS);

	/*
	 * Seam is asked last, for what is left of the time after waiting for
	 * locks
	 */
	for (int asks = 0; asks <= 1; asks++)
	{
		for (int i = 0; i < (int) lengthof(looks); i++)
		{
			if (looks[i].asks != asks)
				continue;
			lines[i] = (Line)
			{
				.detail = ""
			};
			take_look(check, looks[i].look, &lines[i]);
		}
	}
	for (int i = 0; i < (int) lengthof(looks); i++)
	{
		Datum		values[4] = {CStringGetTextDatum(looks[i].name)};
		bool		nulls[4] = {0};

		values[1] = BoolGetDatum(lines[i].ok);
		values[2] = CStringGetTextDatum(lines[i].detail);
		nulls[3] = lines[i].hint == NULL;
		if (lines[i].hint)
			values[3] = CStringGetTextDatum(lines[i].hint);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	as_owner_end(as);
	return (Datum) 0;
}
