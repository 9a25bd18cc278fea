/*-------------------------------------------------------------------------
 *
 * row_tables.c
 *	  The users' tables whose rows the writer writes, and what is known against them.
 *
 * A table whose code crashes the server is known by its mark (outbox/mark.c), and held
 * after a number of crashes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "nodes/pg_list.h"
#include "outbox/mark.h"
#include "outbox/writing.h"
#include "shmem/places.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/queues.h"
#include "worker/row_tables.h"
#include "worker/step.h"

/* How often it is seen, at least and at most, whether a table that is held has other code. */
#define LOOK_AT_CODE_US (60 * INT64CONST(1000000))
#define LOOK_AGAIN_US (1 * INT64CONST(1000000))

static List *tables;			/* of RowTable *, in TopMemoryContext */
static Oid	marked_suspect;		/* or InvalidOid */
static int64 look_at_code_at;
static int64 looked_at_code;	/* last */
static bool any_held;			/* of the tables */

/*
 * Returns all that are known, RowTables.
 */
const List *
row_tables(void)
{
	return tables;
}

/*
 * Returns what is known of a table, made where there is nothing yet.
 */
RowTable *
row_table_of(Oid oid)
{
	MemoryContext old;
	RowTable   *table;
	ListCell   *lc;

	foreach(lc, tables)
	{
		table = lfirst(lc);
		if (table->oid == oid)
			return table;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	table = palloc0(sizeof(RowTable));
	table->oid = oid;
	table->not_before = DT_NOBEGIN;
	tables = lappend(tables, table);
	MemoryContextSwitchTo(old);
	return table;
}

/*
 * Returns whether no row of the table is written, because of its crashes.
 */
bool
row_table_is_held(const RowTable *table)
{
	return table->crashes >= TABLE_PACE_CRASHES;
}

/*
 * An error of ours, not of its code, with this table: the others go on.
 */
void
row_table_set_aside(RowTable *table)
{
	table->aside_until = clock_now() + STEP_ERROR_PAUSE_US;
}

/*
 * Returns how many rows of the table are to be written.
 */
int
row_table_rows(const RowTable *table)
{
	return id_list_length(&table->due) + id_list_length(&table->alone);
}

/*
 * Returns whether rows of the table are to be written, and it is not set aside.
 */
bool
row_table_is_due(const RowTable *table, int64 now)
{
	return row_table_rows(table) > 0 && table->aside_until <= now;
}

/*
 * Returns whether rows of any table are to be written, and it is not set aside.
 */
bool
row_tables_any_due(void)
{
	int64		now = clock_now();
	ListCell   *lc;

	foreach(lc, tables)
	{
		if (row_table_is_due(lfirst(lc), now))
			return true;
	}
	return false;
}

/*
 * A step: sees which tables have crashed the server, and whose code has changed since.
 */
static void
look_at_code(void *arg)
{
	Mark	   *marks;
	int			n;

	MemoryContextSwitchTo(step_context());
	n = mark_read(&marks);
	looked_at_code = clock_now();
	any_held = false;
	for (int i = 0; i < n; i++)
	{
		RowTable   *table = row_table_of(marks[i].table);

		table->crashes = marks[i].crashes;
		table->pace.stuck = marks[i].stuck;
		table->not_before = marks[i].not_before;
		if (marks[i].crashes > 0 || marks[i].stuck > 0)
			table->pace.one_by_one = true;
		any_held = any_held || (row_table_is_held(table) && !marks[i].changed);
		if (!marks[i].changed)
			continue;
		mark_forget(table->oid);
		writing_release(table->oid);
		table->crashes = 0;
		table->marked = false;
		queues_at_once(STATUS_ISSUED, 0);
	}
}

/*
 * The writer's first step: counts the crash of the one before, if it has crashed, or notes
 * whose code did not let it go.
 */
static void
count_crashes(void *arg)
{
	Oid			stuck = places_stuck_table();
	Oid		   *counted = NULL;
	int			n = 0;

	step_read_database();
	MemoryContextSwitchTo(step_context());
	if (OidIsValid(stuck))
	{
		int			before;

		look_at_code(NULL);
		before = row_table_of(stuck)->pace.stuck;
		mark_stuck(stuck, GetCurrentTimestamp() + table_pace_pause(before + 1));
	}
	if (!places_tell_of_crash())
		mark_leave();
	else
		n = mark_count_crashes(&counted);
	look_at_code(NULL);
	for (int i = 0; i < n; i++)
	{
		RowTable   *table = row_table_of(counted[i]);

		if (table->crashes != TABLE_PACE_CRASHES)
			continue;
		ereport(WARNING,
				(errcode(WRITING_HELD_SQLSTATE),
				 errmsg("no instant key is written to table \"%s\" in database \"%s\" any more: "
						"the server has crashed %d times while that was done",
						get_rel_name(table->oid), step_database(), table->crashes),
				 errdetail("The requests are issued, with SQLSTATE 57P02 and this error."),
				 errhint("They are tried again when a trigger of the table, its function or a "
						 "constraint is another one, or after seam_retry_instant_key_request() "
						 "for one of them.")));
	}
}

/*
 * Learns which tables have crashed the server.  Returns false when that is not possible.
 */
bool
row_tables_set_up(void)
{
	Step		step = {.run = count_crashes,.what = "see what has crashed the server",
	.patient = true};

	look_at_code_at = clock_now() + LOOK_AT_CODE_US;
	if (!step_take(&step))
		return false;
	places_crash_counted();
	return true;
}

/*
 * Something may have happened: sees soon whether a table that is held has other code.
 */
void
row_tables_look_soon(void)
{
	if (any_held)
		look_at_code_at = Min(look_at_code_at, looked_at_code + LOOK_AGAIN_US);
}

/*
 * A step: the code of a table is about to run, and no other suspect's.
 */
static void
mark(void *arg)
{
	const RowTable *table = arg;

	if (OidIsValid(marked_suspect) && (table == NULL || marked_suspect != table->oid))
		mark_end_suspect(marked_suspect);
	if (table && (table->crashes > 0 || !table->marked))
		mark_begin(table->oid);
}

/*
 * It is noted.
 */
static void
marked(void *arg)
{
	RowTable   *table = arg;

	marked_suspect = table && table->crashes > 0 ? table->oid : InvalidOid;
	if (table)
		table->marked = true;
}

/*
 * Notes that the code of a table, or of none (NULL), is about to run.  Returns false when
 * that is not possible, and it must not.
 */
bool
row_table_note(RowTable *table)
{
	Step		step = {.run = mark,.committed = marked,.arg = table,
	.what = "note which table it writes to",.patient = true};
	bool		suspect = table && table->crashes > 0;

	if ((OidIsValid(marked_suspect) ? table && marked_suspect == table->oid : !suspect) &&
		(table == NULL || table->marked))
		return true;
	return step_take(&step);
}

/*
 * A step: nothing is known against the table any more.
 */
static void
forget(void *arg)
{
	mark_forget(((RowTable *) arg)->oid);
}

/*
 * That is noted.
 */
static void
forgotten(void *arg)
{
	RowTable   *table = arg;

	if (marked_suspect == table->oid)
		marked_suspect = InvalidOid;
	table->marked = false;
	table->crashes = 0;
	table->not_before = DT_NOBEGIN;
}

/*
 * The table has shown that it behaves.
 */
void
row_table_trust(RowTable *table)
{
	Step		step = {.run = forget,.committed = forgotten,.arg = table,
	.what = "note which table it writes to",.patient = true};

	(void) step_take(&step);
}

/*
 * A step: somebody has retried a row of a table that is held.  All are tried again, and the
 * next crash holds them again.
 */
static void
retry(void *arg)
{
	RowTable   *table = arg;

	mark_retry(table->oid, TABLE_PACE_CRASHES - 1);
	writing_lock_retried(table->oid);
	writing_release(table->oid);
}

/*
 * That is noted.
 */
static void
retried(void *arg)
{
	RowTable   *table = arg;

	table->crashes = TABLE_PACE_CRASHES - 1;
	table->retry = false;
	queues_read_in_full();
}

/*
 * Tries again to write the rows of a table that is held, because somebody has asked for it;
 * where that is not possible now, the table is set aside.
 */
void
row_table_retry(RowTable *table)
{
	Step		step = {.run = retry,.committed = retried,.arg = table,
	.what = "try again to write rows"};

	if (!step_take(&step))
		row_table_set_aside(table);
}

/*
 * Sees, when it is time to, whose code has changed.
 */
void
row_tables_look(void)
{
	Step		step = {.run = look_at_code,.what = "see whose code has changed",.patient = true};

	if (look_at_code_at > clock_now())
		return;
	look_at_code_at = clock_now() + LOOK_AT_CODE_US;
	(void) step_take(&step);
}

/*
 * There is nothing to write for now: no suspect's code runs.
 */
void
row_tables_rest(void)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		RowTable   *table = lfirst(lc);

		if (table->crashes > 0 && !row_table_is_held(table) && row_table_rows(table) == 0)
			row_table_trust(table);
	}
	(void) row_table_note(NULL);
}
