/*-------------------------------------------------------------------------
 *
 * mark.c
 *	  What outlives a crash of which users' tables the writer writes to.
 *
 * A mark is a row of seam_instant_key_writing.  "writing" is set, durably, before code of
 * the table runs.  The first writer of a database after a crash of the server counts what it
 * finds set: what writers leave that end in any other way the next one unsets.
 *
 * A table that nothing is known against is marked once, when the writer first writes to it,
 * and stays so until the writer ends.  That costs one flush of the WAL for each writer and
 * table, and no crash in the table's code is missed.  But a crash that another table
 * caused is counted, too.  Therefore a table of which a crash is counted is a suspect: it
 * is marked while its own rows are written, and only then; so no second crash is counted
 * that is not its own.  When the rows have been written that may have crashed the server,
 * the mark goes.
 *
 * The commits need not wait for a standby: what they are for is a crash of this server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "nodes/pg_list.h"
#include "outbox/mark.h"
#include "outbox/work_statement.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/*
 * A hash of what tells a table's code from what it was: of these tables' triggers, their
 * functions, constraints and defaults, by the transactions that made them.
 */
#define CODE(tables) \
	"(SELECT pg_catalog.hashtextextended(coalesce(" \
	"pg_catalog.string_agg(x, ',' ORDER BY x), ''), 0)" \
	" FROM (SELECT 't' || t.oid || ' ' || t.xmin || ' ' || p.oid || ' ' || p.xmin AS x" \
	" FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid" \
	" WHERE t.tgrelid = ANY (" tables ")" \
	" UNION ALL SELECT 'c' || oid || ' ' || xmin FROM pg_catalog.pg_constraint" \
	" WHERE conrelid = ANY (" tables ")" \
	" UNION ALL SELECT 'd' || oid || ' ' || xmin FROM pg_catalog.pg_attrdef" \
	" WHERE adrelid = ANY (" tables ")) AS parts)"

static WorkStatement count_crashes =
{
	.sql = "UPDATE %w SET crashes = crashes + 1, writing = false"
	" WHERE origin = $2 AND writing RETURNING target_table"
};

static WorkStatement select_marks =
{
	.sql = "SELECT target_table, crashes, stuck, coalesce(not_before, '-infinity'), code"
	" FROM %w WHERE origin = $2"
};

static WorkStatement select_code =
{
	.sql = "SELECT " CODE("$3"),
	.types = {OIDARRAYOID}
};

static WorkStatement begin =
{
	.sql = "INSERT INTO %w AS w (origin, target_table, writing, code) VALUES ($2, $3, true, "
	CODE("$4") ") ON CONFLICT (origin, target_table) DO UPDATE SET writing = true, code = "
	"excluded.code",
	.types = {OIDOID, OIDARRAYOID}
};

static WorkStatement end_suspect =
{
	.sql = "UPDATE %w SET writing = false WHERE origin = $2 AND target_table = $3",
	.types = {OIDOID}
};

static WorkStatement forget =
{
	.sql = "DELETE FROM %w WHERE origin = $2 AND target_table = $3",
	.types = {OIDOID}
};

static WorkStatement retry =
{
	.sql = "UPDATE %w SET crashes = $4 WHERE origin = $2 AND target_table = $3",
	.types = {OIDOID, INT4OID}
};

static WorkStatement note_stuck =
{
	.sql = "UPDATE %w SET stuck = stuck + 1, not_before = $4 WHERE origin = $2 AND target_table = "
	"$3",
	.types = {OIDOID, TIMESTAMPTZOID}
};

static WorkStatement leave =
{
	.sql = "DELETE FROM %w WHERE origin = $2 AND crashes = 0 AND stuck = 0"
};

static WorkStatement leave_others =
{
	.sql = "UPDATE %w SET writing = false WHERE origin = $2 AND writing"
};

/*
 * Have this transaction outlive a crash of this server from its commit on.
 */
static void
commit_durably(void)
{
	(void) set_config_option("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	ForceSyncCommit();
}

/*
 * The table and its partitions, as an oid[].
 */
static Datum
tables_of(Oid table)
{
	/* (one that was dropped has none) */
	List	   *all = SearchSysCacheExists1(RELOID, ObjectIdGetDatum(table)) ?
	find_all_inheritors(table, NoLock, NULL) : list_make1_oid(table);
	Datum	   *values = palloc(list_length(all) * sizeof(Datum));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, all)
		values[n++] = ObjectIdGetDatum(lfirst_oid(lc));
	return PointerGetDatum(work_array(values, NULL, n, OIDOID));
}

/*
 * The hash of the table's code as it is now.
 */
static int64
code_of(Oid table)
{
	Datum		args[WORK_MAX_ARGS];
	bool		isnull;

	args[2] = tables_of(table);
	work_execute(&select_code, args, NULL);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * In the writer's first transaction: counts the crash of the former writer, if that has
 * crashed, for each table that it may have been writing to.  Returns how many those are, and
 * they, in CurrentMemoryContext.
 */
int
mark_count_crashes(Oid **counted)
{
	Datum		args[WORK_MAX_ARGS];
	int			n;

	commit_durably();
	work_execute(&count_crashes, args, NULL);
	n = (int) SPI_processed;
	*counted = palloc(Max(n, 1) * sizeof(Oid));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		(*counted)[i] = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
													   SPI_tuptable->tupdesc, 1, &isnull));
	}
	return n;
}

/*
 * Reads all marks.  Returns how many there are, and they, in CurrentMemoryContext.
 */
int
mark_read(Mark **marks)
{
	Datum		args[WORK_MAX_ARGS];
	SPITupleTable *all;
	int			n;

	work_execute(&select_marks, args, NULL);
	all = SPI_tuptable;
	n = (int) SPI_processed;
	*marks = palloc0(Max(n, 1) * sizeof(Mark));
	for (int i = 0; i < n; i++)
	{
		Mark	   *mark = &(*marks)[i];
		bool		isnull;
		int64		code;

		mark->table = DatumGetObjectId(SPI_getbinval(all->vals[i], all->tupdesc, 1, &isnull));
		mark->crashes = DatumGetInt32(SPI_getbinval(all->vals[i], all->tupdesc, 2, &isnull));
		mark->stuck = DatumGetInt32(SPI_getbinval(all->vals[i], all->tupdesc, 3, &isnull));
		mark->not_before = DatumGetTimestampTz(SPI_getbinval(all->vals[i], all->tupdesc, 4,
															 &isnull));
		code = DatumGetInt64(SPI_getbinval(all->vals[i], all->tupdesc, 5, &isnull));
		mark->changed = mark->crashes > 0 && code != code_of(mark->table);
	}
	return n;
}

/*
 * In a transaction of its own: rows of this table are going to be written.
 */
void
mark_begin(Oid table)
{
	Datum		args[WORK_MAX_ARGS];

	commit_durably();
	args[2] = ObjectIdGetDatum(table);
	args[3] = tables_of(table);
	work_execute(&begin, args, NULL);
}

/*
 * Rows of this suspect are not written any more for now.
 */
void
mark_end_suspect(Oid table)
{
	Datum		args[WORK_MAX_ARGS];

	commit_durably();
	args[2] = ObjectIdGetDatum(table);
	work_execute(&end_suspect, args, NULL);
}

/*
 * Nothing is known any more against this table.
 */
void
mark_forget(Oid table)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = ObjectIdGetDatum(table);
	work_execute(&forget, args, NULL);
}

/*
 * Somebody wants this table to be written to in spite of its crashes: so many of them still
 * count.
 */
void
mark_retry(Oid table, int crashes)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = ObjectIdGetDatum(table);
	args[3] = Int32GetDatum(crashes);
	work_execute(&retry, args, NULL);
}

/*
 * The code of this table, which is marked, did not let the writer go: it is to wait until
 * this time.
 */
void
mark_stuck(Oid table, TimestampTz until)
{
	Datum		args[WORK_MAX_ARGS];

	args[2] = ObjectIdGetDatum(table);
	args[3] = TimestampTzGetDatum(until);
	work_execute(&note_stuck, args, NULL);
}

/*
 * No code runs of any table: the marks go of those that nothing is known against, and no
 * other one tells of a crash.
 */
void
mark_leave(void)
{
	Datum		args[WORK_MAX_ARGS];

	commit_durably();
	work_execute(&leave, args, NULL);
	work_execute(&leave_others, args, NULL);
}
