/*-------------------------------------------------------------------------
 *
 * recorder.c
 *	  The worker as the keeper of the journal: it records what sessions are about to
 *	  have issued, and has it looked at when their transactions have ended.
 *
 * A session waits only for the record of its intent: one commit for all that wish for
 * one, which also deletes intents about which is decided.
 *
 * Where that fails, because of a constraint of the outbox's owner, say, each wish is
 * recorded in a subtransaction of its own, and the session is told whose is refused.
 *
 * Nothing here waits for a lock longer than 20 ms, or for one that a session may hold
 * while it waits for the worker: a record takes locks of the journal only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/clock.h"
#include "base/stop_point.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "outbox/work_statement.h"
#include "port/atomics.h"
#include "shmem/mailbox.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/credentials.h"
#include "worker/deletions.h"
#include "worker/fates.h"
#include "worker/intents.h"
#include "worker/recorder.h"
#include "worker/seam_clock.h"
#include "worker/step.h"

/* Sessions' notes are looked for, while they come, this often, */
#define NOTES_US (200 * INT64CONST(1000))

/* and for so long after the last one, before sessions are asked to wake us. */
#define QUIET_US (1 * INT64CONST(1000000))

/* So long after a transaction has committed its intents are looked at. */
#define COMMITTED_US (50 * INT64CONST(1000))

/* While a lock is in the way. */
#define LOCKED_PAUSE_US (100 * INT64CONST(1000))

static bool has_read;			/* what a former worker has recorded */
static bool see_all = true;		/* whatever the mailboxes' counts say */
static uint32 *seen;			/* mailbox_count() of each, as it was looked
								 * at */
static dlist_head added = DLIST_STATIC_INIT(added); /* in the step under way */
static int	nadded;				/* how many these are */
static bool alone;				/* each is recorded by itself, and nothing is
								 * deleted, because that has failed together */

/* Not before, after it failed, on clock_now()'s clock. */
static int64 record_at;

/*
 * Makes what the recorder needs; once, at the start of the process.
 */
void
recorder_set_up(void)
{
	intents_set_up();
	seen = MemoryContextAllocZero(TopMemoryContext, mailbox_nslots() * sizeof(uint32));
}

/*
 * Does the worker know what its predecessor has recorded?  Before that nobody can tell
 * whose an identity's keys are.
 */
bool
recorder_has_read(void)
{
	return has_read;
}

/* ---------- reading what there is ---------- */

/*
 * In a step: reads what a former worker has recorded.
 */
static void
read_journal(void *arg)
{
	JournalRow *rows;
	int			n = journal_read(&rows);

	/* the memory is the worker's only when all is read */
	for (int i = 0; i < n; i++)
	{
		Intent	   *intent = intents_new(&rows[i]);

		intent->was_read = true;
		dlist_push_tail(&added, &intent->node);
	}
}

/*
 * That has been read.
 */
static void
journal_was_read(void *arg)
{
	while (!dlist_is_empty(&added))
		intents_open(dlist_container(Intent, node, dlist_pop_head_node(&added)));
	has_read = true;
	fates_look_at_all();
}

/*
 * What was to be recorded, or read, was not.
 */
static void
forget_added(void *arg, const ErrorData *error)
{
	while (!dlist_is_empty(&added))
		intents_free(dlist_container(Intent, node, dlist_pop_head_node(&added)));
	nadded = 0;
	see_all = true;
}

/* ---------- listening to sessions ---------- */

/*
 * Takes the note that sessions have left in this mailbox.
 */
static void
take_note(int slot, int64 now)
{
	MailboxNote note;

	while (mailbox_take_note(slot, &note))
	{
		if (note.seam_time.at != 0)
		{
			AccountId	account = {.account = note.account};

			seam_clock_learn(&note.seam_time, &account);
		}
		if (note.aborted != 0)
			fates_look_at(note.top, note.aborted, now);
		if (note.ended != 0)
			fates_look_at(note.ended, 0, note.rolled_back ? now : now + COMMITTED_US);
	}
}

/*
 * Takes the wish of the session of this mailbox, if it has one.
 */
static void
take_wish(int slot)
{
	uint32		state;
	MailboxWish *wish = mailbox_read_wish(slot, &state);
	JournalRow	row = {0};
	Intent	   *intent;

	if (wish == NULL)
		return;
	row.call_id = wish->call_id;
	row.transaction = wish->transaction;
	row.top = wish->top;
	row.n = wish->n;
	row.identities = wish->identities;
	row.max_use_count = wish->max_use_count;
	row.has_profile = wish->has_profile;
	row.profile = wish->profile;
	row.has_workspace = wish->has_workspace;
	row.workspace = wish->workspace;
	row.timeout = wish->timeout;
	row.account.account = wish->account;
	row.account.api_key = wish->api_key;
	row.is_ours = true;
	intent = intents_new(&row);
	intent->slot = slot;
	intent->wish = state;
	intent->former = intents_find_former(&row.call_id);
	dlist_push_tail(&added, &intent->node);
	nadded++;
	pfree(wish);
}

/*
 * Takes what sessions have left, and what they wish for, into added.  Returns whether
 * there was anything.
 */
static bool
listen(int64 now)
{
	bool		any = false;
	bool		all = now >= record_at;

	for (int slot = 0; slot < mailbox_nslots(); slot++)
	{
		uint32		count = mailbox_count(slot);

		if (count == seen[slot] && !see_all)
			continue;
		pg_read_barrier();
		intents_read_slot(slot);
		take_note(slot, now);
		if (alone && nadded == WORK_ALONE_AT_ONCE)
			all = false;
		if (all)
		{
			take_wish(slot);
			seen[slot] = count;
		}
		any = true;
	}
	see_all = !all;
	return any;
}

/* ---------- recording ---------- */

/*
 * Returns the rows of a list of intents, in CurrentMemoryContext, and in *n their number.
 */
static JournalRow **
rows_of(dlist_head *list, int *n)
{
	JournalRow **rows;
	dlist_iter	it;

	*n = 0;
	dlist_foreach(it, list)
		(*n)++;
	rows = palloc(Max(*n, 1) * sizeof(JournalRow *));
	*n = 0;
	dlist_foreach(it, list)
		rows[(*n)++] = &dlist_container(Intent, node, it.cur)->row;
	return rows;
}

/*
 * In a step: what a former worker has recorded for this intent's wish, and could not tell
 * the session of, is recorded anew.
 */
static void
delete_former(const Intent *intent)
{
	const JournalRow *row;
	bool		locked;

	if (intent->former == NULL)
		return;
	row = &intent->former->row;
	journal_delete(&row, 1, &locked);
}

/*
 * In a step: records one intent.
 */
static void
record_one(void *arg)
{
	Intent	   *intent = arg;
	JournalRow *row = &intent->row;

	delete_former(intent);
	journal_insert(&row, 1, GetCurrentTimestamp());
}

/*
 * In a step: records each intent by itself, and notes which cannot be.
 */
static void
record_each(void)
{
	dlist_iter	it;

	dlist_foreach(it, &added)
	{
		Intent	   *intent = dlist_container(Intent, node, it.cur);
		ErrorData  *error = work_try(record_one, intent);

		if (error == NULL)
			continue;
		if (!work_is_of_one(error->sqlerrcode))
			ReThrowError(error);
		intent->refusal = MemoryContextStrdup(step_context(), error->message);
	}
}

/*
 * In a step: records the intents that sessions wish for.
 */
static void
record(void *arg)
{
	FullTransactionId mine;
	JournalRow **rows;
	dlist_iter	it;
	int			n;

	/*
	 * Younger than theirs, or they could be given out again after a crash: it
	 * is assigned here, after their wishes were read.
	 */
	Assert(!FullTransactionIdIsValid(GetTopFullTransactionIdIfAny()));
	mine = GetTopFullTransactionId();
	rows = rows_of(&added, &n);
	for (int i = 0; i < n; i++)
	{
		if (!FullTransactionIdPrecedes(rows[i]->transaction, mine))
			elog(ERROR, "a transaction of an intent is younger than the one that records it");
		/* Seam's time is that of our endpoint, and not of another one */
		if (account_has_endpoint(&rows[i]->account, credentials_id()))
			seam_clock_now(&rows[i]->has_seam_time, &rows[i]->seam_time);
	}
	if (alone)
		record_each();
	else
	{
		dlist_foreach(it, &added)
			delete_former(dlist_container(Intent, node, it.cur));
		journal_insert(rows, n, GetCurrentTimestamp());
		deletions_do(NULL);
	}
	STOP_POINT("worker-record");
	ForceSyncCommit();
}

/*
 * An intent, which is in no list, cannot be recorded: tells its session why.
 */
static void
refuse(Intent *intent)
{
	int			length = strlen(intent->refusal);

	intent->refusal[pg_mbcliplen(intent->refusal, length, MAILBOX_REFUSAL - 1)] = '\0';
	mailbox_refuse(intent->slot, intent->wish, intent->refusal);
	intents_free(intent);
}

/*
 * They are recorded: lets the sessions go on.
 */
static void
recorded(void *arg)
{
	STOP_POINT("worker-recorded");
	if (!alone)
		deletions_done(NULL);
	alone = alone && see_all;
	nadded = 0;
	while (!dlist_is_empty(&added))
	{
		Intent	   *intent = dlist_container(Intent, node, dlist_pop_head_node(&added));

		if (intent->refusal)
		{
			refuse(intent);
			continue;
		}
		if (intent->former)
			intents_discard(intent->former);
		intent->former = NULL;
		if (mailbox_fulfil(intent->slot, intent->wish, intent->row.has_seam_time,
						   intent->row.seam_time))
		{
			intents_open(intent);
		}
		else
		{
			/* withdrawn: no call is made */
			deletions_add(intent);
		}
	}
}

/*
 * They are not recorded: they are taken anew, if their sessions still wait; each by itself,
 * if one of them may have kept the others from it, or what is deleted.
 */
static void
not_recorded(void *arg, const ErrorData *error)
{
	bool		one_failed = error && !alone && work_is_of_one(error->sqlerrcode);

	forget_added(arg, error);
	if (!alone)
		deletions_failed(arg, error);
	alone = true;
	record_at = one_failed ? 0 : clock_now() + LOCKED_PAUSE_US;
}

/* ---------- for the loop ---------- */

/*
 * Records the intents that sessions wish for, and decides about those whose transactions
 * have ended; look: looks at all of them.
 *
 * Returns when to do it again, unasked, on clock_now()'s clock.
 */
int64
recorder_run(bool look)
{
	static int64 any_at = 0;
	int64		now = clock_now();
	Step		reading = {.run = read_journal,.committed = journal_was_read,
	.failed = forget_added,.what = "read the calls that were recorded"};
	Step		recording = {.run = record,.committed = recorded,.failed = not_recorded,
	.what = "record calls"};
	int64		again;
	int64		due;
	bool		all;

	(void) fates_due(&all);
	if (!has_read && !step_take(&reading))
		return now + STEP_ERROR_PAUSE_US;
	if (listen(now))
		any_at = now;
	if (!dlist_is_empty(&added))
		(void) step_take(&recording);
	due = fates_due(&all);
	if (look || due <= clock_now())
		fates_take(look || all);
	if (deletions_due() <= clock_now())
		deletions_take();
	again = deletions_due();
	due = fates_due(&all);
	again = Min(again, due);
	if (see_all)
		again = Min(again, record_at);
	if (intents_next(NULL) == NULL)
		return again;
	/* one that is open for long, or prepared, costs nothing */
	if (now < any_at + QUIET_US || !mailbox_listen())
		again = Min(again, now + NOTES_US);
	return again;
}

/*
 * This process is about to end: does what can be done at once, for its successor.
 */
void
recorder_finish(void)
{
	if (!has_read)
		return;
	/* a standby that is away must not hold up a shutdown */
	SetConfigOption("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION);
	fates_take(true);
	deletions_take();
}
