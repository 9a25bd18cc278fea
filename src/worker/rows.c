/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  Writes issued keys to the rows that they are for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "outbox/work_statement.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/change.h"
#include "worker/local_clock.h"
#include "worker/queues.h"
#include "worker/rows.h"
#include "worker/step.h"
#include "worker/write_back.h"

/* The shortest pause between two tries to write a row. */
#define WRITE_BACK_BACKOFF_MIN_US (100 * INT64CONST(1000))

/* How long rows are written before the network has its turn. */
#define WRITE_BACK_TURN_US (5 * INT64CONST(1000))

/* Rows that are taken at once. */
#define AT_ONCE 100

/* A row that is written, or was not. */
typedef struct RowToWrite
{
	int64		id;
	/* of the try, or NULL */
	const ErrorData *error;
} RowToWrite;

static int64 *to_write;			/* ids of requests whose row is to be written */
static int	nto_write;
static bool careful;			/* the last worker may have died of a row */

/*
 * Makes what is needed; once, at the start of the process.  is_careful: the last worker
 * has ended badly, perhaps because of a row.
 */
void
rows_set_up(bool is_careful)
{
	to_write = MemoryContextAlloc(TopMemoryContext, AT_ONCE * sizeof(int64));
	careful = is_careful;
	write_back_define();
}

/*
 * In a step: takes requests whose rows are to be written, if there are none.
 */
void
rows_claim(void)
{
	WorkRow    *claimed;
	int			n;

	if (nto_write > 0 || !queues_is_due(STATUS_ISSUED))
		return;
	n = queues_claim(STATUS_ISSUED, NULL, NULL, AT_ONCE, &claimed);
	for (int i = 0; i < n; i++)
		to_write[nto_write++] = claimed[i].id;
}

/*
 * The step has failed: forgets them.
 */
void
rows_forget(void)
{
	nto_write = 0;
}

/*
 * Returns whether there are rows to write.
 */
bool
rows_any(void)
{
	return nto_write > 0;
}

/*
 * In a transaction: write a key to its row, and note in the request that that
 * is done.
 */
static void
write_row_back(void *arg)
{
	RowToWrite *row_to_write = arg;
	WriteBackOutcome outcome;
	WorkRow		row;
	WorkChange	change;
	const char *reason = NULL;

	/* what a crash loses is done again: the row, and the note of it */
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	outcome = write_back(work_outbox(), row_to_write->id, &reason);
	if ((outcome != WRITE_BACK_DONE && outcome != WRITE_BACK_REVOKE) ||
		!work_lock(row_to_write->id, &row))
		;						/* nothing to note, or its turn comes again */
	else if (row.status != STATUS_ISSUED)
	{
		/* a trigger of the table has had the key revoked meanwhile */
		queues_due_at(STATUS_REVOKING, GetCurrentTimestamp());
	}
	else
	{
		change = change_none(&row);
		change.sqlerrcode = 0;
		change.error = reason;
		if (outcome == WRITE_BACK_DONE)
		{
			change.finished = true;
			change.next_attempt_at = DT_NOEND;
		}
		else
		{
			change.status = STATUS_REVOKING;
			change.attempts = 0;
			change.next_attempt_at = DT_NOBEGIN;
		}
		change_request(&row, &change);
	}
}

/*
 * In a transaction: note in the request that its row could not be written.
 */
static void
note_unwritten(void *arg)
{
	RowToWrite *row_to_write = arg;
	const ErrorData *error = row_to_write->error;
	WorkRow		row;

	if (work_lock(row_to_write->id, &row) && row.status == STATUS_ISSUED)
	{
		WorkChange	change = change_none(&row);

		change.finished = true;
		change.sqlerrcode = error->sqlerrcode;
		change.error = psprintf("the instant key could not be written to its row: %s",
								error->message);
		change.next_attempt_at = DT_NOEND;
		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
			error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
			error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
		{
			/* the longer it has waited, the longer it may wait */
			TimestampTz now = GetCurrentTimestamp();
			int64		waited = local_clock_surely_elapsed_since(row.attempted_at);

			change.next_attempt_at = now + Min(Max(waited / 4, WRITE_BACK_BACKOFF_MIN_US),
											   ROWS_LONGEST_PAUSE_US);
		}
		change_request(&row, &change);
	}
}

/*
 * In a transaction: put off what may be this process's end, so that its
 * successor does other things first.
 */
static void
put_off_row(void *arg)
{
	RowToWrite *row_to_write = arg;
	WorkRow		row;

	if (work_lock(row_to_write->id, &row) && row.status == STATUS_ISSUED &&
		row.next_attempt_at != DT_NOEND)
	{
		WorkChange	change = change_none(&row);

		change.finished = true;
		change.next_attempt_at = GetCurrentTimestamp() + ROWS_LONGEST_PAUSE_US;
		work_change(row.id, &change);
	}
}

/*
 * The row could not be written: notes the error, or that it is to be tried again.
 */
static void
row_failed(void *arg, const ErrorData *error)
{
	RowToWrite *row = arg;
	Step		step = {.run = note_unwritten,.arg = row,.patient = true};

	if (error == NULL)
		return;
	row->error = error;
	step.what = "note that a row could not be written";
	if (!step_take(&step))
		queues_due_at(STATUS_ISSUED, GetCurrentTimestamp() + STEP_ERROR_PAUSE_US);
}

/*
 * Writes issued keys to their rows, for a while.
 */
void
rows_write(void)
{
	int64		until = clock_now() + WRITE_BACK_TURN_US;
	int			n = 0;

	while (n < nto_write && step_outbox() == OUTBOX_OURS && (n == 0 || clock_now() < until))
	{
		RowToWrite	row = {.id = to_write[n++]};
		Step		put_off = {.run = put_off_row,.arg = &row,.patient = true};
		Step		write = {.run = write_row_back,.failed = row_failed,.arg = &row,
		.patient = true};

		step_check_interrupts();
		if (careful)
			(void) step_take(&put_off);
		(void) step_take(&write);
		write_back_clean_up();
	}
	memmove(to_write, to_write + n, (nto_write - n) * sizeof(int64));
	nto_write -= n;
}
