/*-------------------------------------------------------------------------
 *
 * recorder.c
 *	  The worker as the keeper of the journal: it records what sessions are about to
 *	  have issued, and decides what becomes of it when their transactions have ended.
 *
 * A session waits only for the record of its intent: one commit for all that wish for
 * one.  When a transaction has rolled back, its keys are revoked at once; that one has
 * committed is no hurry, and is looked at together with others.  What is owned, or has
 * no key, is deleted from the journal with the next record.
 *
 * Nothing here waits for a lock longer than 20 ms, or for one that a session may hold
 * while it waits for the worker: a record takes locks of the journal only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/clock.h"
#include "base/stop_point.h"
#include "config/settings.h"
#include "miscadmin.h"
#include "outbox/outbox.h"
#include "port/atomics.h"
#include "shmem/mailbox.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"
#include "worker/credentials.h"
#include "worker/doubts.h"
#include "worker/intents.h"
#include "worker/queues.h"
#include "worker/recorder.h"
#include "worker/remaining.h"
#include "worker/seam_clock.h"
#include "worker/step.h"

/* Sessions' notes are looked for, while they come, this often, */
#define NOTES_US (200 * INT64CONST(1000))

/* and for so long after the last one, before sessions are asked to wake us. */
#define QUIET_US (1 * INT64CONST(1000000))

/* So long after a transaction has committed its intents are looked at, */
#define COMMITTED_US (50 * INT64CONST(1000))

/* and so long after that they are deleted, if nothing is recorded meanwhile. */
#define DELETE_US (150 * INT64CONST(1000))

/* All transactions are looked at, while intents are open, this often. */
#define LOOK_AGAIN_US (10 * INT64CONST(1000000))

/* While a lock is in the way. */
#define LOCKED_PAUSE_US (100 * INT64CONST(1000))

static bool has_read;			/* what a former worker has recorded */
static bool see_all = true;		/* whatever the mailboxes' counts say */
static uint32 *seen;			/* mailbox_count() of each, as it was looked
								 * at */
static dlist_head added = DLIST_STATIC_INIT(added); /* in the step under way */
static dlist_head decided = DLIST_STATIC_INIT(decided); /* to be deleted */
static bool delete_alone;		/* not with a record, which failed so */

/* When to do what, on clock_now()'s clock. */
static int64 look_at;			/* look at all transactions */
static int64 decide_at = PG_INT64_MAX;	/* at those of which something was
										 * told */
static int64 delete_at = PG_INT64_MAX;
static int64 record_at;			/* not before, after it failed */

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
	look_at = 0;
}

/*
 * What was to be recorded, or read, was not.
 */
static void
forget_added(void *arg, const ErrorData *error)
{
	while (!dlist_is_empty(&added))
		intents_free(dlist_container(Intent, node, dlist_pop_head_node(&added)));
	see_all = true;
}

/* ---------- listening to sessions ---------- */

/*
 * Has intents looked at: those of the transaction top whose own id is from, or a later
 * one; now, or soon.
 */
static void
look_at_transaction(uint64 top, uint64 from, int64 at)
{
	for (Intent *intent = intents_next(NULL); intent; intent = intents_next(intent))
	{
		if (U64FromFullTransactionId(intent->row.top) != top ||
			U64FromFullTransactionId(intent->row.transaction) < from)
			continue;
		intent->look = true;
		decide_at = Min(decide_at, at);
	}
}

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
			look_at_transaction(note.top, note.aborted, now);
		if (note.ended != 0)
			look_at_transaction(note.ended, 0, note.rolled_back ? now : now + COMMITTED_US);
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
	row.timeout = wish->timeout;
	row.account.account = wish->account;
	row.account.api_key = wish->api_key;
	row.is_ours = true;
	intent = intents_new(&row);
	intent->slot = slot;
	intent->wish = state;
	intent->former = intents_find_former(&row.call_id);
	dlist_push_tail(&added, &intent->node);
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

	for (int slot = 0; slot < mailbox_nslots(); slot++)
	{
		uint32		count = mailbox_count(slot);

		if (count == seen[slot] && !see_all)
			continue;
		pg_read_barrier();
		intents_read_slot(slot);
		take_note(slot, now);
		if (now >= record_at)
		{
			take_wish(slot);
			seen[slot] = count;
		}
		any = true;
	}
	if (now >= record_at)
		see_all = false;
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
 * In a step: deletes intents about which is decided, but those that a session has locked.
 */
static void
delete_decided(void *arg)
{
	int			n;
	JournalRow **rows = rows_of(&decided, &n);
	bool	   *locked = palloc(Max(n, 1) * sizeof(bool));
	dlist_iter	it;

	journal_delete((const JournalRow *const *) rows, n, locked);
	n = 0;
	dlist_foreach(it, &decided)
		dlist_container(Intent, node, it.cur)->gone = !locked[n++];
}

/*
 * In a step: the same alone.  What a crash loses is decided again.
 */
static void
delete_alone_now(void *arg)
{
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	delete_decided(arg);
}

/*
 * They are deleted, but those that were locked.
 */
static void
forget_decided(void *arg)
{
	dlist_mutable_iter it;

	delete_at = PG_INT64_MAX;
	dlist_foreach_modify(it, &decided)
	{
		Intent	   *intent = dlist_container(Intent, node, it.cur);

		if (!intent->gone)
		{
			delete_at = clock_now() + STEP_ERROR_PAUSE_US;
			continue;
		}
		dlist_delete(&intent->node);
		intents_free(intent);
	}
	delete_alone = false;
}

/*
 * They are not.
 */
static void
keep_decided(void *arg, const ErrorData *error)
{
	dlist_iter	it;

	dlist_foreach(it, &decided)
		dlist_container(Intent, node, it.cur)->gone = false;
	delete_at = clock_now() + STEP_ERROR_PAUSE_US;
}

/*
 * An intent, which is in no list, is to be deleted.
 */
static void
decide_to_delete(Intent *intent)
{
	dlist_push_tail(&decided, &intent->node);
	delete_at = Min(delete_at, clock_now() + DELETE_US);
}

/*
 * In a step: what a former worker has recorded, and could not tell the session of, is
 * recorded anew.
 */
static void
delete_former(void)
{
	dlist_iter	it;

	dlist_foreach(it, &added)
	{
		const Intent *intent = dlist_container(Intent, node, it.cur);
		const JournalRow *row;
		bool		locked;

		if (intent->former == NULL)
			continue;
		row = &intent->former->row;
		journal_delete(&row, 1, &locked);
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
	int			n;

	/*
	 * Younger than theirs, or they could be given out again after a crash: it
	 * is assigned here, after their wishes were read.
	 */
	Assert(!FullTransactionIdIsValid(GetTopFullTransactionIdIfAny()));
	mine = GetTopFullTransactionId();
	delete_former();
	rows = rows_of(&added, &n);
	for (int i = 0; i < n; i++)
	{
		if (!FullTransactionIdPrecedes(rows[i]->transaction, mine))
			elog(ERROR, "a transaction of an intent is younger than the one that records it");
		/* Seam's time is that of our endpoint, and not of another one */
		if (account_has_endpoint(&rows[i]->account, credentials_id()))
			seam_clock_now(&rows[i]->has_seam_time, &rows[i]->seam_time);
	}
	journal_insert(rows, n, GetCurrentTimestamp());
	if (!delete_alone)
		delete_decided(NULL);
	STOP_POINT("worker-record");
	ForceSyncCommit();
}

/*
 * They are recorded: lets the sessions go on.
 */
static void
recorded(void *arg)
{
	STOP_POINT("worker-recorded");
	if (!delete_alone)
		forget_decided(NULL);
	while (!dlist_is_empty(&added))
	{
		Intent	   *intent = dlist_container(Intent, node, dlist_pop_head_node(&added));

		if (intent->former)
			intents_discard(intent->former);
		intent->former = NULL;
		if (mailbox_fulfil(intent->slot, intent->wish, intent->row.has_seam_time,
						   intent->row.seam_time))
		{
			if (intents_next(NULL) == NULL)
				look_at = clock_now() + LOOK_AGAIN_US;
			intents_open(intent);
		}
		else
		{
			/* withdrawn: no call is made */
			decide_to_delete(intent);
		}
	}
}

/*
 * They are not recorded: they are taken anew, if their sessions still wait.
 */
static void
not_recorded(void *arg, const ErrorData *error)
{
	forget_added(arg, error);
	if (!delete_alone)
		keep_decided(arg, error);
	delete_alone = true;
	record_at = clock_now() + LOCKED_PAUSE_US;
}

/* ---------- deciding ---------- */

/*
 * What has become of an intent's transaction?  Asked before a snapshot is taken that is
 * to show its rows.
 */
static FateXact
xact_of(const JournalRow *row)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		status;
	char	   *name;

	if (!FullTransactionIdPrecedes(row->transaction, ReadNextFullTransactionId()))
		return FATE_XACT_UNKNOWN;
	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = FullTransactionIdGetDatum(row->transaction);
	fcinfo->args[0].isnull = false;
	status = pg_xact_status(fcinfo);
	if (fcinfo->isnull)
		return FATE_XACT_UNKNOWN;	/* too old */
	name = TextDatumGetCString(status);
	if (strcmp(name, "in progress") == 0)
		return FATE_XACT_OPEN;
	return strcmp(name, "committed") == 0 ? FATE_XACT_COMMITTED : FATE_XACT_ABORTED;
}

/*
 * In a step: finds the fates of the intents to be looked at; then sets each one's xact and
 * fate.  Returns them in a list.
 */
static List *
find_fates(void)
{
	List	   *looked_at = NIL;
	const JournalRow **rows;
	bool	   *have;
	int			timeline = (int) GetWALInsertionTimeLine();
	int			n = 0;
	ListCell   *lc;

	for (Intent *intent = intents_next(NULL); intent; intent = intents_next(intent))
	{
		if (!intent->look)
			continue;
		CHECK_FOR_INTERRUPTS();
		intent->xact = xact_of(&intent->row);
		/* what the session knew of its calls is all there by now */
		intents_read_hint(intent, intent->xact != FATE_XACT_OPEN);

		/*
		 * what rolled back is there until somebody needs its place: rather
		 * soon
		 */
		if (intent->xact == FATE_XACT_ABORTED && intents_has(intent, JOURNAL_UNKNOWN))
			intents_read_rows(intent, JOURNAL_ROWS_DEAD);
		looked_at = lappend(looked_at, intent);
	}
	rows = palloc((list_length(looked_at) + 1) * sizeof(JournalRow *));
	have = palloc0((list_length(looked_at) + 1) * sizeof(bool));
	foreach(lc, looked_at)
		rows[n++] = &((Intent *) lfirst(lc))->row;
	STOP_POINT("worker-decide");
	journal_have_rows(rows, n, have);
	n = 0;
	foreach(lc, looked_at)
	{
		Intent	   *intent = lfirst(lc);
		FateFacts	facts = {
			.xact = intent->xact,
			.has_row = have[n++],
			.may_have_key = intents_has(intent, JOURNAL_UNKNOWN) ||
			intents_has(intent, JOURNAL_KEY),
			.is_ours = intent->row.is_ours,
			.same_timeline = intent->row.timeline == timeline,
		};

		intent->fate = fate_of(&facts);
	}
	return looked_at;
}

/*
 * Is an intent revoked or reported, so that it leaves requests in the outbox?
 */
static bool
leaves_requests(const Intent *intent)
{
	return intent->fate != FATE_WAIT && intent->fate != FATE_DELETE;
}

/*
 * Why the keys of an intent are only reported, or NULL where they are revoked.
 */
static const char *
report_of(Fate fate)
{
	switch (fate)
	{
		case FATE_REPORT_DELETED:
			return "the transaction that asked for it has committed, and somebody has deleted its "
				"request";
		case FATE_REPORT_OLD:
			return "the transaction that asked for it is too old to be judged";
		case FATE_REPORT_TIMELINE:
			return "the transaction that asked for it ended with a promotion or restore";
		case FATE_REPORT_COPY:
			return REPORT_OF_COPY;
		default:
			return NULL;
	}
}

/*
 * Sets the window of what an intent has left in doubt: where it is known when its calls
 * had ended, a key can be created for settle_delay after that, and not for longer.
 */
static void
narrow_window(Intent *intent)
{
	JournalRow *row = &intent->row;
	int64		timeout = (intent->ended_at - row->requested_at) / 1000 + 1;

	if (intent->ended_at == 0)
		return;
	/* the clock may have been set back meanwhile */
	if (timeout <= 0)
		timeout = row->timeout;
	else
		timeout += settings_settle_delay;
	row->timeout = (int) Min(timeout, INT_MAX / 2);
}

/*
 * In a step: sees which transactions have ended, and has the keys revoked of those that
 * rolled back.
 */
static void
decide(void *arg)
{
	List	   *looked_at = find_fates();
	const JournalRow **rows = palloc((list_length(looked_at) + 1) * sizeof(JournalRow *));
	bool	   *locked = palloc((list_length(looked_at) + 1) * sizeof(bool));
	int			reported = 0;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, looked_at)
	{
		Intent	   *intent = lfirst(lc);

		if (leaves_requests(intent))
			rows[n++] = &intent->row;
		else if (intent->fate == FATE_WAIT && intents_has(intent, JOURNAL_UNKNOWN))
			intents_read_rows(intent, JOURNAL_ROWS_LIVING);
	}
	if (n == 0)
		return;
	journal_delete(rows, n, locked);
	n = 0;
	foreach(lc, looked_at)
	{
		Intent	   *intent = lfirst(lc);

		if (!leaves_requests(intent))
			continue;
		intent->locked = locked[n++];
		if (intent->locked)
			continue;
		narrow_window(intent);
		journal_add_orphans(&intent->row, intent->elements, intent->keys, report_of(intent->fate));
		reported += intent->fate != FATE_REVOKE;
	}
	ForceSyncCommit();
	if (reported > 0)
		ereport(WARNING,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("instant keys of %d synchronous calls may be alive without a row in "
						"database \"%s\"", reported, step_database()),
				 errhint("They are in the view seam_instant_key_orphan; delete those that are not "
						 "wanted.")));
}

/*
 * It is decided.
 */
static void
is_decided(void *arg)
{
	Intent	   *next;

	STOP_POINT("worker-decided");
	decide_at = PG_INT64_MAX;
	for (Intent *intent = intents_next(NULL); intent; intent = next)
	{
		next = intents_next(intent);
		if (!intent->look)
			continue;
		if (intent->fate != FATE_WAIT && intents_has(intent, JOURNAL_UNKNOWN))
			doubts_read_anew();
		if (leaves_requests(intent) && intent->locked)
		{
			decide_at = clock_now() + LOCKED_PAUSE_US;
			continue;
		}
		intent->look = false;
		if (intent->fate == FATE_WAIT)
			continue;
		intents_close(intent);
		if (intent->fate == FATE_DELETE)
			decide_to_delete(intent);
		else
		{
			queues_due_at(STATUS_REVOKING, GetCurrentTimestamp());
			intents_free(intent);
		}
	}
}

/*
 * It is not: all of it is looked at again.
 */
static void
not_decided(void *arg, const ErrorData *error)
{
	decide_at = clock_now() + STEP_ERROR_PAUSE_US;
}

/*
 * Decides about the intents of which it was told that their transactions have ended;
 * look: about all that are open.
 */
static void
take_decisions(bool look)
{
	Step		step = {.run = decide,.committed = is_decided,.failed = not_decided,
	.what = "see what has become of calls"};

	if (look)
	{
		for (Intent *intent = intents_next(NULL); intent; intent = intents_next(intent))
			intent->look = true;
		look_at = clock_now() + LOOK_AGAIN_US;
	}
	(void) step_take(&step);
}

/*
 * Deletes what is decided about.
 */
static void
delete_now(void)
{
	Step		step = {.run = delete_alone_now,.committed = forget_decided,
	.failed = keep_decided,.what = "delete calls from the journal"};

	if (!dlist_is_empty(&decided))
		(void) step_take(&step);
	else
		delete_at = PG_INT64_MAX;
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
	static int64 heard_at = 0;
	int64		now = clock_now();
	Step		reading = {.run = read_journal,.committed = journal_was_read,
	.failed = forget_added,.what = "read the calls that were recorded"};
	Step		recording = {.run = record,.committed = recorded,.failed = not_recorded,
	.what = "record calls"};
	int64		again;

	if (!has_read && !step_take(&reading))
		return now + STEP_ERROR_PAUSE_US;
	if (listen(now))
		heard_at = now;
	if (!dlist_is_empty(&added))
		(void) step_take(&recording);
	look = look || (now >= look_at && intents_next(NULL));
	if (look || now >= decide_at)
		take_decisions(look);
	if (clock_now() >= delete_at)
		delete_now();
	again = Min(decide_at, delete_at);
	if (see_all)
		again = Min(again, record_at);
	if (intents_next(NULL) == NULL)
		return again;
	/* one that is open for long, or prepared, costs nothing */
	if (now < heard_at + QUIET_US || !mailbox_listen())
		again = Min(again, now + NOTES_US);
	return Min(again, look_at);
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
	take_decisions(true);
	delete_now();
}

/* ---------- leaving ---------- */

/*
 * In a step: calls whose keys wait to be revoked.
 */
static void
find_orphans(void *arg)
{
	pg_uuid_t  *ids;
	int			n = journal_orphans(&ids);

	for (int i = 0; i < n; i++)
		remaining_add(arg, &ids[i]);
}

/*
 * This process leaves, and may have no successor: tells of calls that rolled back or
 * may do so, and whose keys nobody would revoke.
 */
void
recorder_log(const char *why)
{
	Remaining	remaining = {0};
	Step		step = {.run = find_orphans,.arg = &remaining};

	if (!has_read)
		return;
	for (Intent *intent = intents_next(NULL); intent; intent = intents_next(intent))
	{
		FateXact	xact = xact_of(&intent->row);

		if (xact == FATE_XACT_COMMITTED)
			continue;
		intents_read_hint(intent, xact != FATE_XACT_OPEN);
		for (int i = 0; i < intent->row.n; i++)
		{
			if (intent->elements[i] != JOURNAL_NONE)
				remaining_add(&remaining, &intent->row.identities[i]);
		}
	}
	(void) step_take(&step);
	if (remaining.n > 0)
		ereport(WARNING,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("%s, and instant keys of %d synchronous calls of database \"%s\" that "
						"rolled back, or may do so, were not revoked yet",
						why, remaining.n, step_database()),
				 errdetail("User identities: %s%s.", remaining.identities.data,
						   remaining_and_more(&remaining))));
}
