/*-------------------------------------------------------------------------
 *
 * worker_rows.c
 *	  Writes issued keys to the rows that they are for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "worker/worker_state.h"
#include "worker/write_back.h"

/* The shortest pause between two tries to write a row. */
#define WRITE_BACK_BACKOFF_MIN_US (100 * INT64CONST(1000))

/* How long rows are written before the network has its turn. */
#define WRITE_BACK_TURN_US (5 * INT64CONST(1000))

/* A row that is written, or was not. */
typedef struct RowToWrite
{
	int64		id;
	const ErrorData *error;		/* of the try, or NULL */
} RowToWrite;

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
		worker_due_at(&worker.revoking, GetCurrentTimestamp());
	}
	else
	{
		change = worker_no_change(&row);
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
		worker_change_request(&row, &change);
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
		WorkChange	change = worker_no_change(&row);

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
			int64		waited = worker_surely_elapsed_since(row.attempted_at);

			change.next_attempt_at = now + Min(Max(waited / 4, WRITE_BACK_BACKOFF_MIN_US),
											   WRITE_BACK_BACKOFF_MAX_US);
		}
		worker_change_request(&row, &change);
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
		WorkChange	change = worker_no_change(&row);

		change.finished = true;
		change.next_attempt_at = GetCurrentTimestamp() + WRITE_BACK_BACKOFF_MAX_US;
		work_change(row.id, &change);
	}
}

/*
 * Write issued keys to their rows, for a while.
 */
void
worker_write_rows(void)
{
	int64		until = clock_now() + WRITE_BACK_TURN_US;
	int			n = 0;

	while (n < worker.nto_write && !worker.gone && !worker.disowned && (n == 0 ||
																		clock_now() < until))
	{
		RowToWrite	row = {.id = worker.to_write[n++]};

		worker_check_interrupts();
		if (worker.careful)
			(void) worker_work(put_off_row, &row);
		row.error = worker_work(write_row_back, &row);
		write_back_clean_up();
		if (row.error)
		{
			ErrorData  *error = worker_work(note_unwritten, &row);

			if (error)
			{
				worker_log_error(error, "note that a row could not be written");
				worker_due_at(&worker.write_backs, GetCurrentTimestamp() + ERROR_PAUSE_US);
			}
		}
	}
	memmove(worker.to_write, worker.to_write + n, (worker.nto_write - n) * sizeof(int64));
	worker.nto_write -= n;
}
