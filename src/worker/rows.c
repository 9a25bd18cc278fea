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
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/stop_point.h"
#include "nodes/pg_list.h"
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
#include "worker/row_tables.h"
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

#define UNWRITTEN "the instant key could not be written to its row: "
#define HELD UNWRITTEN "the server has crashed %d times while rows of its table were written"

static int	turn;				/* number of the table that was written to
								 * last */
static int64 served;			/* what it had used then, if its rows go one
								 * by one */
static Oid	writing_to;			/* whose code may be running, or InvalidOid */
static int64 paused_until;		/* after an error of ours */
static TimestampTz next_task = DT_NOBEGIN;	/* when a row is to be looked at
											 * or cleared */
static int64 read_tasks_at;		/* not before, if there is something else to
								 * do */

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

	foreach(lc, row_tables())
	{
		RowTable   *table = lfirst(lc);

		if (!due->all)
			continue;
		table->due.first = table->due.end = 0;
		table->alone.first = table->alone.end = 0;
	}
	for (int i = 0; i < due->n; i++)
	{
		RowTable   *table = row_table_of(due->rows[i].target);

		if (row_table_rows(table) == 0)
			table_pace_join(&table->pace, served);
		(void) id_list_add(&table->due, due->rows[i].id);
		if (row_table_is_held(table) && due->rows[i].sqlerrcode == WRITING_HELD_SQLSTATE)
			table->retry = true;
	}

	for (int i = 0; i < due->ntasks; i++)
	{
		RowTable   *table = row_table_of(due->tables[i]);

		if (!is_in(&table->due, due->tasks[i]) && !is_in(&table->alone, due->tasks[i]))
			(void) id_list_add(&table->due, due->tasks[i]);
	}
	if (due->reads_tasks)
		next_task = due->ntasks == READ_AT_ONCE ? DT_NOBEGIN : due->next_task;
	foreach(lc, row_tables())
	{
		RowTable   *table = lfirst(lc);

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

/* ---------- writing ---------- */

/* Rows that are written together, and their table. */
typedef struct Writing
{
	RowTable   *table;
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
done(RowTable *table)
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
		/* a session has it locked: what is to be looked at is read again */
		if (w->batch.outcomes[i] == ROW_SKIPPED)
			next_task = Min(next_task, GetCurrentTimestamp() + CLEAR_PAUSE_US);
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
warn(RowTable *table, const ErrorData *error)
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
		row_table_set_aside(((Writing *) arg)->table);
}

/*
 * Returns the table whose rows are next, after the one whose turn it was, or NULL.  Those
 * whose rows go one by one come after all others.
 */
static RowTable *
next_table(void)
{
	int			n = list_length(row_tables());
	int64		now = clock_now();
	RowTable   *least = NULL;

	for (int i = 1; i <= n; i++)
	{
		RowTable   *table = list_nth(row_tables(), (turn + i) % n);

		if (!row_table_is_due(table, now))
			continue;
		if (!table->pace.one_by_one || row_table_is_held(table))
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
	RowTable   *table = w->table;
	bool		waits = table->not_before > GetCurrentTimestamp();
	Step		write = {.run = write_batch,.committed = written,.failed = not_written,.arg = w};
	Step		hold = {.run = hold_batch,.committed = left,.failed = not_left,.arg = w,
	.what = "note that rows are not written",.patient = true};
	Step		put_off = {.run = put_off_batch,.committed = left,.failed = not_left,.arg = w,
	.what = "put rows off",.patient = true};
	int			most = TABLE_PACE_ROWS;

	w->list = id_list_length(&table->due) > 0 ? &table->due : &table->alone;
	if (!row_table_is_held(table) && !waits && (table->pace.one_by_one || w->list == &table->alone))
		most = 1;
	w->batch.table = table->oid;
	w->batch.n = Min(id_list_length(w->list), most);
	memcpy(w->batch.ids, w->list->ids + w->list->first, w->batch.n * sizeof(int64));
	return row_table_is_held(table) ? hold : waits ? put_off : write;
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
	Step		step;
	int			stuck;

	if (paused_until > clock_now())
		return false;
	row_tables_look();
	due.reads_tasks = next_task <= GetCurrentTimestamp() &&
		(read_tasks_at <= clock_now() || !row_tables_any_due());
	if ((queues_is_due(STATUS_ISSUED) || due.reads_tasks) && !step_take(&read))
		return false;
	memset(&w, 0, sizeof(w));
	w.table = next_table();
	if (w.table == NULL)
		return queues_is_due(STATUS_ISSUED) || next_task <= GetCurrentTimestamp();
	if (w.table->retry)
	{
		row_table_retry(w.table);
		return true;
	}
	step = next_step(&w);
	stuck = w.table->pace.stuck;
	if (step.run == write_batch)
	{
		if (!row_table_note(w.table))
		{
			row_table_set_aside(w.table);
			return true;
		}
		writing_to = w.table->oid;
		w.began = clock_now();
	}
	(void) step_take(&step);
	writing_to = InvalidOid;
	write_back_clean_up();
	if ((w.table->crashes > 0 && w.table->suspects == 0 && !row_table_is_held(w.table)) ||
		w.table->pace.stuck < stuck)
		row_table_trust(w.table);
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
	foreach(lc, row_tables())
	{
		const RowTable *table = lfirst(lc);

		if (table->aside_until > now && row_table_rows(table) > 0)
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
	if (paused_until <= clock_now())
		row_tables_rest();
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
