/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  Rows of users' tables that the writer is to write keys to, table by table.
 *
 * Due requests are read into a list for each table, and the rows of one table are written
 * together; of a table that has been slow or has failed one by one, each when no other table
 * has any left (logic/table_pace.c).  A request stays due until its row is written, so that
 * nothing is lost with these lists; when the queue is read from its beginning again, they
 * begin anew.
 *
 * A table whose code crashes the server is known by its mark (outbox/mark.c), and held
 * after a number of crashes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/stop_point.h"
#include "nodes/pg_list.h"
#include "outbox/mark.h"
#include "outbox/stay_work.h"
#include "outbox/work_statement.h"
#include "outbox/writing.h"
#include "shmem/activity.h"
#include "shmem/places.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/id_list.h"
#include "worker/local_clock.h"
#include "worker/queues.h"
#include "worker/rows.h"
#include "worker/step.h"
#include "worker/tell.h"
#include "worker/write_back.h"

/* Requests that are read at once. */
#define READ_AT_ONCE 1000

/*
 * What is to be looked at or cleared is read from its beginning, and some of it is in the
 * tables' lists already: while these have rows, that may take this share of the time.
 */
#define TASKS_READ_SHARE 20

/* How long a look waits that was not possible, and how often that is warned of. */
#define LOOK_PAUSE_US (60 * INT64CONST(1000000))
#define WARN_AGAIN_US (3600 * INT64CONST(1000000))

/* How long a clearing waits, or the end of a stay, when a session is in its way. */
#define CLEAR_PAUSE_US (1 * INT64CONST(1000000))

/* How often it is seen, at least and at most, whether a table that is held has other code. */
#define LOOK_AT_CODE_US (60 * INT64CONST(1000000))
#define LOOK_AGAIN_US (1 * INT64CONST(1000000))

#define UNWRITTEN "the instant key could not be written to its row: "
#define HELD UNWRITTEN "the server has crashed %d times while rows of its table were written"

/* A user's table. */
typedef struct Table
{
	Oid			oid;
	TablePace	pace;
	IdList		due;			/* rows to be written */
	IdList		alone;			/* likewise, each by itself */
	bool		marked;			/* before its code has run in this process */
	int			crashes;		/* as its mark says */
	int			suspects;		/* rows left of those that may have crashed
								 * the server */
	bool		retry;			/* somebody has retried, though it is held */
	int64		aside_until;	/* after an error of ours with it:
								 * clock_now()'s clock */
	TimestampTz not_before;		/* its code did not end: nothing is written
								 * before */
	int64		warn_at;		/* of rows that cannot be looked at: not
								 * before */
} Table;

static List *tables;			/* of Table *, in TopMemoryContext */
static int	turn;				/* number of the table that was written to
								 * last */
static int64 served;			/* what it had used then, if its rows go one
								 * by one */
static Oid	marked_suspect;		/* or InvalidOid */
static Oid	writing_to;			/* whose code may be running, or InvalidOid */
static int64 look_at_code_at;
static int64 looked_at_code;	/* last */
static bool any_held;			/* of the tables */
static int64 paused_until;		/* after an error of ours */
static TimestampTz next_task = DT_NOBEGIN;	/* when a row is to be looked at
											 * or cleared */
static int64 read_tasks_at;		/* not before, if there is something else to
								 * do */

/*
 * Returns what is known of a table, made where there is nothing yet.
 */
static Table *
table_of(Oid oid)
{
	MemoryContext old;
	Table	   *table;
	ListCell   *lc;

	foreach(lc, tables)
	{
		table = lfirst(lc);
		if (table->oid == oid)
			return table;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	table = palloc0(sizeof(Table));
	table->oid = oid;
	table->not_before = DT_NOBEGIN;
	tables = lappend(tables, table);
	MemoryContextSwitchTo(old);
	return table;
}

/*
 * Returns whether no row of the table is written, because of its crashes.
 */
static bool
is_held(const Table *table)
{
	return table->crashes >= TABLE_PACE_CRASHES;
}

/*
 * An error of ours, not of its code, with this table: the others go on.
 */
static void
set_aside(Table *table)
{
	table->aside_until = clock_now() + STEP_ERROR_PAUSE_US;
}

/*
 * Returns how many rows of the table are to be written.
 */
static int
rows_left(const Table *table)
{
	return id_list_length(&table->due) + id_list_length(&table->alone);
}

/*
 * Returns whether rows of the table are to be written, and it is not set aside.
 */
static bool
is_due(const Table *table, int64 now)
{
	return rows_left(table) > 0 && table->aside_until <= now;
}

/*
 * Returns whether rows of any table are to be written, and it is not set aside.
 */
static bool
any_is_due(void)
{
	int64		now = clock_now();
	ListCell   *lc;

	foreach(lc, tables)
	{
		if (is_due(lfirst(lc), now))
			return true;
	}
	return false;
}

/*
 * An error of ours: after a pause the queue is read again.
 */
static void
take_a_break(void)
{
	paused_until = clock_now() + STEP_ERROR_PAUSE_US;
	queues_read_in_full();
}

/* ---------- reading what is due ---------- */

/* What was read. */
typedef struct Due
{
	bool		all;			/* from the queue's beginning */
	int			n;
	WorkRow    *rows;			/* in step_context() */
	bool		reads_tasks;
	int			ntasks;
	int64	   *tasks;			/* requests whose rows are looked at or
								 * cleared, */
	Oid		   *tables;			/* and these rows' tables; likewise */
	TimestampTz next_task;
} Due;

/*
 * A step: reads what is due.
 */
static void
read_due(void *arg)
{
	Due		   *due = arg;
	int64		from = places_write_from();
	int64		begin;

	if (from != PG_INT64_MAX)
		queues_at_once(STATUS_ISSUED, from);
	due->all = queues_reads_all(STATUS_ISSUED);
	MemoryContextSwitchTo(step_context());
	if (queues_is_due(STATUS_ISSUED))
		due->n = queues_claim(STATUS_ISSUED, NULL, NULL, READ_AT_ONCE, &due->rows);
	if (!due->reads_tasks)
		return;
	begin = clock_now();
	due->tasks = palloc(READ_AT_ONCE * sizeof(int64));
	due->tables = palloc(READ_AT_ONCE * sizeof(Oid));
	due->ntasks = writing_tasks(READ_AT_ONCE, due->tasks, due->tables, &due->next_task);
	read_tasks_at = clock_now() + TASKS_READ_SHARE * (clock_now() - begin);
}

/*
 * Returns whether an id is in a list already.
 */
static bool
is_in(const IdList *list, int64 id)
{
	for (int i = list->first; i < list->end; i++)
	{
		if (list->ids[i] == id)
			return true;
	}
	return false;
}

/*
 * What was read goes into the tables' lists.
 */
static void
sort_due(void *arg)
{
	const Due  *due = arg;
	ListCell   *lc;

	foreach(lc, tables)
	{
		Table	   *table = lfirst(lc);

		if (!due->all)
			continue;
		table->due.first = table->due.end = 0;
		table->alone.first = table->alone.end = 0;
	}
	for (int i = 0; i < due->n; i++)
	{
		Table	   *table = table_of(due->rows[i].target);

		if (rows_left(table) == 0)
			table_pace_join(&table->pace, served);
		(void) id_list_add(&table->due, due->rows[i].id);
		if (is_held(table) && due->rows[i].sqlerrcode == WRITING_HELD_SQLSTATE)
			table->retry = true;
	}

	for (int i = 0; i < due->ntasks; i++)
	{
		Table	   *table = table_of(due->tables[i]);

		if (!is_in(&table->due, due->tasks[i]) && !is_in(&table->alone, due->tasks[i]))
			(void) id_list_add(&table->due, due->tasks[i]);
	}
	if (due->reads_tasks)
		next_task = due->ntasks == READ_AT_ONCE ? DT_NOBEGIN : due->next_task;
	foreach(lc, tables)
	{
		Table	   *table = lfirst(lc);

		/* what has crashed the server was due then, and is so still */
		if (due->all && table->crashes > 0)
			table->suspects = id_list_length(&table->due);
	}
}

/*
 * It was not read.
 */
static void
not_read(void *arg, const ErrorData *error)
{
	queues_be_careful(error);
	take_a_break();
}

/* ---------- marks ---------- */

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
		Table	   *table = table_of(marks[i].table);

		table->crashes = marks[i].crashes;
		table->pace.stuck = marks[i].stuck;
		table->not_before = marks[i].not_before;
		if (marks[i].crashes > 0 || marks[i].stuck > 0)
			table->pace.one_by_one = true;
		any_held = any_held || (is_held(table) && !marks[i].changed);
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
		before = table_of(stuck)->pace.stuck;
		mark_stuck(stuck, GetCurrentTimestamp() + table_pace_pause(before + 1));
	}
	if (!places_tell_of_crash())
		mark_leave();
	else
		n = mark_count_crashes(&counted);
	look_at_code(NULL);
	for (int i = 0; i < n; i++)
	{
		Table	   *table = table_of(counted[i]);

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
rows_set_up(void)
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
rows_look(void)
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
	const Table *table = arg;

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
	Table	   *table = arg;

	marked_suspect = table && table->crashes > 0 ? table->oid : InvalidOid;
	if (table)
		table->marked = true;
}

/*
 * Notes that the code of a table, or of none (NULL), is about to run.  Returns false when
 * that is not possible, and it must not.
 */
static bool
note(Table *table)
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
	mark_forget(((Table *) arg)->oid);
}

/*
 * That is noted.
 */
static void
forgotten(void *arg)
{
	Table	   *table = arg;

	if (marked_suspect == table->oid)
		marked_suspect = InvalidOid;
	table->marked = false;
	table->crashes = 0;
	table->not_before = DT_NOBEGIN;
}

/*
 * The table has shown that it behaves.
 */
static void
trust(Table *table)
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
	Table	   *table = arg;

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
	Table	   *table = arg;

	table->crashes = TABLE_PACE_CRASHES - 1;
	table->retry = false;
	queues_read_in_full();
}

/* ---------- writing ---------- */

/* Rows that are written together, and their table. */
typedef struct Writing
{
	Table	   *table;
	IdList	   *list;			/* of the table, whose first ids they are */
	RowBatch	batch;
	int64		began;			/* clock_now()'s clock */
	bool		revoked;		/* there is something to be sent or revoked
								 * now */
	const ErrorData *error;		/* of the try, or NULL */
} Writing;

/*
 * Puts the ids of rows of which this has come into ids.  Returns how many.
 */
static int
with_outcome(const RowBatch *batch, RowOutcome outcome, int64 *ids)
{
	int			n = 0;

	for (int i = 0; i < batch->n; i++)
	{
		if (batch->outcomes[i] == outcome)
			ids[n++] = batch->ids[i];
	}
	return n;
}

/*
 * Notes in the requests of stays what has come of looks and clearings: of the n of these
 * places in the batch.
 */
static void
note_tasks(Writing *w)
{
	RowBatch   *batch = &w->batch;
	int64		ids[TABLE_PACE_ROWS];
	TimestampTz now = GetCurrentTimestamp();
	int			n = with_outcome(batch, ROW_LOOKED_AT, ids);

	if (n > 0)
		writing_looked(ids, n);
	w->revoked = w->revoked || n > 0;
	n = with_outcome(batch, ROW_CLEARED, ids);
	if (n > 0)
		writing_cleared(ids, n, NULL);
	for (int i = 0; i < batch->n; i++)
	{
		StayWork	stay = {.id = batch->ids[i],.hash = batch->hashes[i],
		.stay_id = batch->stays[i]};

		if (batch->outcomes[i] == ROW_LOCKED && (batch->clears[i] || batch->looks[i]))
			writing_put_off_tasks(&batch->ids[i], 1, now + CLEAR_PAUSE_US, NULL);
		if (batch->outcomes[i] != ROW_UNWANTED)
			continue;
		w->revoked = true;
		if (stay.stay_id == 0)
			(void) writing_revoke(stay.id, batch->reason);
		else if (stay_work_lock(&stay))
		{
			stay_work_end(&stay);
			stay_work_note_end(&stay, batch->reason);
		}
		else if (batch->looks[i])
			writing_put_off_tasks(&stay.id, 1, now + CLEAR_PAUSE_US, NULL);
		else
			writing_row_locked(&stay.id, 1, "another session changes the stay");
	}
	if (with_outcome(batch, ROW_LOCKED, ids) > 0)
		next_task = Min(next_task, now + CLEAR_PAUSE_US);
}

/*
 * A step: writes rows, and notes in their requests what has come of it.
 */
static void
write_batch(void *arg)
{
	Writing    *w = arg;
	int64		ids[TABLE_PACE_ROWS];
	int			n;

	write_back(work_outbox(), &w->batch);
	n = with_outcome(&w->batch, ROW_WRITTEN, ids);
	if (n > 0)
	{
		SPITupleTable *written = writing_written(ids, n);

		tell_ends(written, (int) SPI_processed, STATUS_ISSUED);
	}
	n = with_outcome(&w->batch, ROW_LOCKED, ids);
	if (n > 0)
		writing_row_locked(ids, n, psprintf(UNWRITTEN "%s", w->batch.reason));
	note_tasks(w);
}

/*
 * A row of the table is done with.
 */
static void
done(Table *table)
{
	if (table->suspects > 0)
		table->suspects--;
}

/*
 * That has committed.  What was written, or needs no more, leaves the list; what is unusual
 * goes to the other one.
 */
static void
written(void *arg)
{
	Writing    *w = arg;
	IdList	   *list = w->list;
	int			kept = 0;
	int			ended = 0;

	STOP_POINT("writer-committed");

	for (int i = 0; i < w->batch.n; i++)
	{
		if (w->batch.outcomes[i] == ROW_WRITTEN)
			table_pace_row(&w->table->pace, false, w->batch.took[i]);
		if (w->batch.outcomes[i] == ROW_LATER)
			list->ids[list->first + kept++] = w->batch.ids[i];
		else if (w->batch.outcomes[i] == ROW_ALONE)
			(void) id_list_add(&w->table->alone, w->batch.ids[i]);
		else
			done(w->table);
		ended += w->batch.outcomes[i] == ROW_WRITTEN || w->batch.outcomes[i] == ROW_UNWANTED;
	}
	/* (they are still in their order, at the end of what was read) */
	memmove(list->ids + list->first + w->batch.n - kept, list->ids + list->first,
			kept * sizeof(int64));
	list->first += w->batch.n - kept;
	activity_add(ended, 0);
	if (w->revoked)
		places_wake_other(PLACE_MAIN, WAKE_WORK);
}

/*
 * Tells, now and then, why rows of a table cannot be looked at.
 */
static void
warn(Table *table, const ErrorData *error)
{
	if (clock_now() < table->warn_at)
		return;
	table->warn_at = clock_now() + WARN_AGAIN_US;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("instant keys for rows of table \"%s\" in database \"%s\" wait: %s",
					get_rel_name(table->oid), step_database(), error->message),
			 errhint("They are issued when it can be seen whether the rows still want them.")));
}

/*
 * A step: notes in the request of a stay why its row could not be looked at, which is tried
 * again, or cleared, which is not unless a lock was in the way.
 */
static void
note_task_error(Writing *w)
{
	const ErrorData *error = w->error;
	TimestampTz now = GetCurrentTimestamp();
	bool		locked = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
	error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
	error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE;
	int64		pause = locked ? CLEAR_PAUSE_US : LOOK_PAUSE_US;

	if (w->batch.clears[0] && !locked)
		writing_cleared(w->batch.ids, 1, psprintf("the row's columns could not be set to NULL: %s",
												  error->message));
	else
	{
		writing_put_off_tasks(w->batch.ids, 1, now + pause, error->message);
		next_task = Min(next_task, now + pause);
		if (!locked)
			warn(w->table, error);
	}
}

/*
 * A step: notes in the request why its row could not be written.  A lock is waited for.
 */
static void
note_error(void *arg)
{
	Writing    *w = arg;
	const ErrorData *error = w->error;
	const char *text = psprintf(UNWRITTEN "%s", error->message);

	if (w->batch.looks[0] || w->batch.clears[0])
	{
		note_task_error(w);
		return;
	}

	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
		writing_row_locked(w->batch.ids, 1, text);
	else
	{
		SPITupleTable *failed = writing_failed(w->batch.ids[0], error->sqlerrcode, text);

		tell_ends(failed, (int) SPI_processed, STATUS_ISSUED);
	}
}

/*
 * The rows could not be written.  Of several, each is tried by itself; of one, the error
 * is noted.
 */
static void
not_written(void *arg, const ErrorData *error)
{
	Writing    *w = arg;
	Step		step = {.run = note_error,.arg = w,.what = "note that a row could not be written",
	.patient = true};

	/* the limits of users' code are not those of what follows */
	write_back_clean_up();
	if (error == NULL || tell_is_in_the_way(error))
		return;
	if (w->batch.n > 1)
	{
		table_pace_batch_failed(&w->table->pace);
		return;
	}
	w->error = error;
	table_pace_row(&w->table->pace, true, clock_now() - w->began);
	w->list->first++;
	activity_add(1, 1);
	done(w->table);
	if (!step_take(&step))
		take_a_break();			/* it has left the list */
}

/*
 * A step: does not write rows of a table that is held.
 */
static void
hold_batch(void *arg)
{
	Writing    *w = arg;
	SPITupleTable *ended = writing_hold(w->batch.ids, w->batch.n,
										psprintf(HELD, w->table->crashes));

	tell_ends(ended, (int) SPI_processed, STATUS_ISSUED);
	writing_put_off_tasks(w->batch.ids, w->batch.n, GetCurrentTimestamp() + LOOK_PAUSE_US, NULL);
}

/*
 * A step: puts rows off whose table has to wait.
 */
static void
put_off_batch(void *arg)
{
	Writing    *w = arg;

	writing_put_off(w->batch.ids, w->batch.n, w->table->not_before);
	writing_put_off_tasks(w->batch.ids, w->batch.n, w->table->not_before, NULL);
	next_task = Min(next_task, w->table->not_before);
	queues_due_at(STATUS_ISSUED, w->table->not_before);
}

/*
 * The rows have left their list.
 */
static void
left(void *arg)
{
	Writing    *w = arg;

	w->list->first += w->batch.n;
}

/*
 * The rows are as they were.
 */
static void
not_left(void *arg, const ErrorData *error)
{
	if (!tell_is_in_the_way(error))
		set_aside(((Writing *) arg)->table);
}

/*
 * Returns the table whose rows are next, after the one whose turn it was, or NULL.  Those
 * whose rows go one by one come after all others.
 */
static Table *
next_table(void)
{
	int			n = list_length(tables);
	int64		now = clock_now();
	Table	   *least = NULL;

	for (int i = 1; i <= n; i++)
	{
		Table	   *table = list_nth(tables, (turn + i) % n);

		if (!is_due(table, now))
			continue;
		if (!table->pace.one_by_one || is_held(table))
		{
			turn = (turn + i) % n;
			return table;
		}
		if (least == NULL || table->pace.used < least->pace.used)
			least = table;
	}
	if (least)
		served = least->pace.used;
	return least;
}

/*
 * Chooses rows of a table that are next, and what is done to them.
 */
static Step
next_step(Writing *w)
{
	Table	   *table = w->table;
	bool		waits = table->not_before > GetCurrentTimestamp();
	Step		write = {.run = write_batch,.committed = written,.failed = not_written,.arg = w};
	Step		hold = {.run = hold_batch,.committed = left,.failed = not_left,.arg = w,
	.what = "note that rows are not written",.patient = true};
	Step		put_off = {.run = put_off_batch,.committed = left,.failed = not_left,.arg = w,
	.what = "put rows off",.patient = true};
	int			most = TABLE_PACE_ROWS;

	w->list = id_list_length(&table->due) > 0 ? &table->due : &table->alone;
	if (!is_held(table) && !waits && (table->pace.one_by_one || w->list == &table->alone))
		most = 1;
	w->batch.table = table->oid;
	w->batch.n = Min(id_list_length(w->list), most);
	memcpy(w->batch.ids, w->list->ids + w->list->first, w->batch.n * sizeof(int64));
	return is_held(table) ? hold : waits ? put_off : write;
}

/*
 * Writes rows of one table, for a short while.  Returns whether there may be more.
 */
bool
rows_write(void)
{
	static Writing w;
	Due			due = {0};
	Step		read = {.run = read_due,.committed = sort_due,.failed = not_read,.arg = &due,
	.what = "read what is to be written",.patient = true};
	Step		look = {.run = look_at_code,.what = "see whose code has changed",.patient = true};
	Step		step;
	int			stuck;

	if (paused_until > clock_now())
		return false;
	if (look_at_code_at <= clock_now())
	{
		look_at_code_at = clock_now() + LOOK_AT_CODE_US;
		(void) step_take(&look);
	}
	due.reads_tasks = next_task <= GetCurrentTimestamp() &&
		(read_tasks_at <= clock_now() || !any_is_due());
	if ((queues_is_due(STATUS_ISSUED) || due.reads_tasks) && !step_take(&read))
		return false;
	memset(&w, 0, sizeof(w));
	w.table = next_table();
	if (w.table == NULL)
		return queues_is_due(STATUS_ISSUED) || next_task <= GetCurrentTimestamp();
	if (w.table->retry)
	{
		Step		again = {.run = retry,.committed = retried,.arg = w.table,
		.what = "try again to write rows"};

		if (!step_take(&again))
			set_aside(w.table);
		return true;
	}
	step = next_step(&w);
	stuck = w.table->pace.stuck;
	if (step.run == write_batch)
	{
		if (!note(w.table))
		{
			set_aside(w.table);
			return true;
		}
		writing_to = w.table->oid;
		w.began = clock_now();
	}
	(void) step_take(&step);
	writing_to = InvalidOid;
	write_back_clean_up();
	if ((w.table->crashes > 0 && w.table->suspects == 0 && !is_held(w.table)) ||
		w.table->pace.stuck < stuck)
		trust(w.table);
	return true;
}

/*
 * Something may have come that is to be looked at or cleared.
 */
void
rows_look_at_tasks(void)
{
	next_task = DT_NOBEGIN;
}

/*
 * Returns when a row is to be looked at or cleared, as far as that is known.
 */
TimestampTz
rows_next_task(void)
{
	return next_task;
}

/*
 * Returns when there may be something to write, if nothing happens before, on clock_now()'s
 * clock.
 */
int64
rows_due(void)
{
	int64		now = clock_now();
	int64		at = local_clock_monotonic(queues_next(STATUS_ISSUED), GetCurrentTimestamp(), now);
	ListCell   *lc;

	if (paused_until > now)
		return paused_until;
	foreach(lc, tables)
	{
		const Table *table = lfirst(lc);

		if (table->aside_until > now && rows_left(table) > 0)
			at = Min(at, table->aside_until);
	}
	return at;
}

/*
 * There is nothing to write for now: no suspect's code runs.
 */
void
rows_rest(void)
{
	ListCell   *lc;

	if (paused_until > clock_now())
		return;
	foreach(lc, tables)
	{
		Table	   *table = lfirst(lc);

		if (table->crashes > 0 && !is_held(table) &&
			id_list_length(&table->due) + id_list_length(&table->alone) == 0)
			trust(table);
	}
	(void) note(NULL);
}

/*
 * The process ends, in whatever way but a crash: notes for its successor whose code did not
 * let it go.  Never throws.
 */
void
rows_note_stuck(void)
{
	int64		since = write_back_since();

	if (since != 0 && clock_now() - since >= PLACES_USERS_CODE_LIMIT_US)
		places_note_stuck(writing_to);
}
