/*-------------------------------------------------------------------------
 *
 * fates.c
 *	  What has become of the transactions of open intents.
 *
 * When a transaction has rolled back, its keys are revoked at once; that one has
 * committed is no hurry, and is looked at together with others.  What is to be revoked
 * becomes a request of the outbox, with all that it knows of retries, lost answers and
 * copies.
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
#include "outbox/work_statement.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"
#include "worker/deletions.h"
#include "worker/doubts.h"
#include "worker/fates.h"
#include "worker/queues.h"
#include "worker/remaining.h"
#include "worker/step.h"

/* All transactions are looked at, while intents are open, this often. */
#define LOOK_AGAIN_US (10 * INT64CONST(1000000))

/* While a lock is in the way. */
#define LOCKED_PAUSE_US (100 * INT64CONST(1000))

/* Each intent is stored by itself, because it has failed for all of them. */
static bool alone;

/* When to do what, on clock_now()'s clock. */
static int64 look_at;			/* look at all transactions */
static int64 decide_at = PG_INT64_MAX;	/* at those of which something was
										 * told */

/*
 * Has all open intents looked at.
 */
void
fates_look_at_all(void)
{
	look_at = 0;
}

/*
 * Returns when fates_take() has something to do, on clock_now()'s clock; *all: with all
 * intents that are open.
 */
int64
fates_due(bool *all)
{
	*all = false;
	if (intents_next(NULL) == NULL)
	{
		/* the next one will not have ended at once */
		look_at = clock_now() + LOOK_AGAIN_US;
		return PG_INT64_MAX;
	}
	*all = look_at <= clock_now();
	return Min(decide_at, look_at);
}

/*
 * Has intents looked at: those of the transaction top whose own id is from, or a later
 * one; now, or soon.
 */
void
fates_look_at(uint64 top, uint64 from, int64 at)
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
			return "the transaction that asked for it is too old for the commit log to "
				"tell its end";
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
 * In a step: deletes an intent, and puts what its transaction has left into the outbox.
 */
static void
store_one(void *arg)
{
	Intent	   *intent = arg;
	const JournalRow *row = &intent->row;

	journal_delete(&row, 1, &intent->locked);
	if (intent->locked)
		return;
	narrow_window(intent);
	journal_add_orphans(row, intent->elements, intent->keys, report_of(intent->fate));
}

/*
 * In a step: does that for each by itself, because it has failed for all of them; a
 * constraint of the outbox's owner may refuse one.  That one is tried again later.
 * Returns how many of those that are stored are reports.
 */
static int
store_alone(List *intents)
{
	static int64 told_at = 0;
	int			reported = 0;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, intents)
	{
		Intent	   *intent = lfirst(lc);
		ErrorData  *error;

		if (!leaves_requests(intent))
			continue;
		intent->locked = true;
		if (n++ >= WORK_ALONE_AT_ONCE)
			continue;
		error = work_try(store_one, intent);
		if (error == NULL)
		{
			reported += !intent->locked && intent->fate != FATE_REVOKE;
			continue;
		}
		if (!work_is_of_one(error->sqlerrcode))
			ReThrowError(error);
		intent->locked = true;
		if (told_at != 0 && clock_now() - told_at < STEP_SILENCE_US)
			continue;
		told_at = clock_now();
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("the outbox of database \"%s\" could not note what a call that rolled "
						"back has left: %s",
						step_database(), error->message),
				 errhint("It is tried again from time to time.  Look for constraints and "
						 "triggers on "
						 "\"seam_instant_key_request\".")));
	}
	return reported;
}

/*
 * In a step: does that for all at once, whose n rows these are.  Returns how many are
 * reports.
 */
static int
store_all(List *intents, const JournalRow *const *rows, int n)
{
	bool	   *locked = palloc(n * sizeof(bool));
	int			reported = 0;
	ListCell   *lc;

	journal_delete(rows, n, locked);
	n = 0;
	foreach(lc, intents)
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
	return reported;
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
	int			reported;
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
	ForceSyncCommit();
	if (alone)
		reported = store_alone(looked_at);
	else
		reported = store_all(looked_at, rows, n);
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
	bool		was_alone = alone;

	STOP_POINT("worker-decided");
	decide_at = PG_INT64_MAX;
	alone = false;
	for (Intent *intent = intents_next(NULL); intent; intent = next)
	{
		next = intents_next(intent);
		if (!intent->look)
			continue;
		if (intent->fate != FATE_WAIT && intents_has(intent, JOURNAL_UNKNOWN))
			doubts_read_anew();
		if (leaves_requests(intent) && intent->locked)
		{
			decide_at = clock_now() + (was_alone ? STEP_ERROR_PAUSE_US : LOCKED_PAUSE_US);
			alone = was_alone;
			continue;
		}
		intent->look = false;
		if (intent->fate == FATE_WAIT)
			continue;
		intents_close(intent);
		if (intent->fate == FATE_DELETE)
			deletions_add(intent);
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
	if (error == NULL || alone || !work_is_of_one(error->sqlerrcode))
		return;
	alone = true;
	decide_at = clock_now();
}

/*
 * Decides about the intents of which it was told that their transactions have ended;
 * look: about all that are open.
 */
void
fates_take(bool look)
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
fates_log(const char *why)
{
	Remaining	remaining = {0};
	Step		step = {.run = find_orphans,.arg = &remaining};

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
	remaining_warn(&remaining,
				   psprintf("%s, and instant keys of %d synchronous calls of database \"%s\" that "
							"rolled back, or may do so, were not revoked yet",
							why, remaining.n, step_database()));
}
