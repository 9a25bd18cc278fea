/*-------------------------------------------------------------------------
 *
 * doubts.c
 *	  The requests that are in doubt, by user identity and workspace.
 *
 * A request whose answer was lost is in doubt, and so is one that the table has as in
 * flight and this process does not.  They are read from the table when the process starts,
 * and kept from then on: those whose answers are lost later are added.  They are read anew
 * only when a session has put some back to be looked for, the clock was set, or a step
 * failed that may have changed them.  An entry whose next_attempt_at is DT_NOEND has been
 * settled since.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "catalog/pg_type.h"
#include "outbox/work_statement.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/credentials.h"
#include "worker/doubts.h"
#include "worker/local_clock.h"
#include "worker/seam_clock.h"

static bool stale = true;		/* they are to be read anew */
static int	ndoubts;
static int	nunsettled;			/* of them */
static int	size;				/* room for so many in doubts */
static WorkRow *doubts;			/* by identity, in context */
static MemoryContext context;

/*
 * Makes what the doubts need; once, at the start of the process.
 */
void
doubts_set_up(void)
{
	context = AllocSetContextCreate(TopMemoryContext, "seam_ik doubts", ALLOCSET_SMALL_SIZES);
}

/*
 * It is not known what has changed: has all of them read anew.
 */
void
doubts_read_anew(void)
{
	stale = true;
}

/*
 * Returns whether doubts_read() has anything to read.
 */
bool
doubts_are_stale(void)
{
	return stale;
}

/*
 * Returns how many are not settled.
 */
int
doubts_unsettled(void)
{
	return nunsettled;
}

/*
 * The workspace that a request was given is the settings': then it is as if it had been
 * given none, because one list tells of both.
 */
static void
leave_out_own_workspace(WorkRow *row)
{
	const AccountId *own = credentials_id();

	if (row->has_workspace && own->chooses && own->has_workspace &&
		memcmp(&row->workspace, &own->workspace, UUID_LEN) == 0)
	{
		row->has_workspace = false;
		memset(&row->workspace, 0, sizeof(pg_uuid_t));
	}
}

/*
 * qsort comparator: requests by identity, and by the workspace that they were given.
 */
static int
by_identity(const void *a, const void *b)
{
	const WorkRow *x = a;
	const WorkRow *y = b;
	int			order = memcmp(&x->identity, &y->identity, UUID_LEN);

	if (order == 0)
		order = (int) x->has_workspace - (int) y->has_workspace;
	return order != 0 ? order : memcmp(&x->workspace, &y->workspace, UUID_LEN);
}

/*
 * The place of the first doubt of the identity and workspace that a request has, or where
 * it would be.
 */
static int
place_of(const WorkRow *row)
{
	WorkRow		key = *row;
	int			low = 0;
	int			high = ndoubts;

	leave_out_own_workspace(&key);
	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (by_identity(&doubts[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * Has a doubt the identity and workspace of a request?
 */
static bool
is_alike(const WorkRow *row, const WorkRow *doubt)
{
	WorkRow		key = *row;

	leave_out_own_workspace(&key);
	return by_identity(&key, doubt) == 0;
}

/*
 * The doubts of the identity and workspace that a request has: the first, and how many
 * there are that are not settled; settled ones may be among them.
 */
WorkRow *
doubts_of(const WorkRow *row, int *n)
{
	int			first = place_of(row);

	*n = 0;
	for (int i = first; i < ndoubts && is_alike(row, &doubts[i]); i++)
		*n += doubts[i].next_attempt_at != DT_NOEND;
	return doubts + first;
}

/*
 * Returns whether a list that was asked for at this time, on clock_now()'s clock, may tell
 * of all unsettled doubts of the identity and workspace that a request has.  A later one may
 * have come meanwhile, whose key the list need not have.
 */
bool
doubts_are_older(const WorkRow *row, int64 asked_at)
{
	int			first = place_of(row);

	for (int i = first; i < ndoubts && is_alike(row, &doubts[i]); i++)
	{
		if (doubts[i].next_attempt_at != DT_NOEND && doubts[i].ripe_at > asked_at)
			return false;
	}
	return true;
}

/*
 * Sees when Seam's list may tell of a doubt that was read just now.
 */
static void
set_ripe(WorkRow *doubt)
{
	int64		ago = local_clock_surely_elapsed_since(doubt->attempted_at);

	/* nobody waits for what is only reported */
	doubt->ripe_at = doubt->timeline == 0 ? 0 :
		window_list_at(doubt->attempt_timeout, ago, clock_now());
	doubt->error = doubt->reference = NULL;
	leave_out_own_workspace(doubt);
}

/*
 * Leaves out those that are settled.
 */
static void
compact(void)
{
	int			n = 0;

	for (int i = 0; i < ndoubts; i++)
	{
		if (doubts[i].next_attempt_at != DT_NOEND)
			doubts[n++] = doubts[i];
	}
	ndoubts = n;
}

/*
 * In a step: the answer to a request was lost, which is changed so.  Where the step fails,
 * doubts_read_anew() is to be called.
 */
void
doubts_add(const WorkRow *row, const WorkChange *change)
{
	WorkRow		doubt = *row;
	int			place;

	doubt.status = change->status;
	doubt.next_attempt_at = change->next_attempt_at;
	if (change->attempt_timeout != 0)
		doubt.attempt_timeout = change->attempt_timeout;
	set_ripe(&doubt);

	if (ndoubts > 2 * nunsettled)
		compact();
	if (ndoubts == size)
	{
		size = Max(size * 2, 16);
		doubts = doubts ? repalloc_huge(doubts, size * sizeof(WorkRow)) :
			MemoryContextAllocHuge(context, size * sizeof(WorkRow));
	}
	place = place_of(&doubt);
	memmove(doubts + place + 1, doubts + place, (ndoubts - place) * sizeof(WorkRow));
	doubts[place] = doubt;
	ndoubts++;
	nunsettled++;
}

/*
 * In a step: reads which requests are in doubt, if that is not known.
 */
void
doubts_read(void)
{
	int			n = 0;
	int			room = flights_flying() + 1;
	Datum	   *active;
	MemoryContext old;

	if (!stale)
		return;
	active = palloc(room * sizeof(Datum));
	for (Flight *flight = flights_next(NULL); flight; flight = flights_next(flight))
	{
		if (flight->op != SEAM_GENERATE || flight->stored)
			continue;
		if (n == room)
			active = repalloc(active, (room *= 2) * sizeof(Datum));
		active[n++] = Int64GetDatum(flight->row.id);
	}
	MemoryContextReset(context);
	doubts = NULL;
	ndoubts = nunsettled = size = 0;
	old = MemoryContextSwitchTo(context);
	ndoubts = nunsettled = size = work_doubts(work_array(active, NULL, n, INT8OID), &doubts);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < ndoubts; i++)
		set_ripe(&doubts[i]);
	qsort(doubts, ndoubts, sizeof(WorkRow), by_identity);
	stale = false;
}

/*
 * A doubt is none any more.
 */
void
doubts_settled(WorkRow *doubt)
{
	doubt->next_attempt_at = DT_NOEND;
	nunsettled--;
	if (nunsettled == 0)
		ndoubts = 0;
}

/*
 * Returns the unsettled doubt after this one, the first for NULL, or NULL after the last.
 */
const WorkRow *
doubts_next(const WorkRow *doubt)
{
	for (doubt = doubt ? doubt + 1 : doubts; nunsettled > 0 && doubt < doubts + ndoubts; doubt++)
	{
		if (doubt->next_attempt_at != DT_NOEND)
			return doubt;
	}
	return NULL;
}

/*
 * Looks at the doubts of the same identity and workspace as this one, the first of them.
 * Returns the first of the next, or NULL.  *due: when this one's keys can be asked for, on
 * clock_now()'s clock, which is when all of its doubts have waited for long enough;
 * PG_INT64_MAX: they cannot be, or none is unsettled.
 */
const WorkRow *
doubts_next_identity(const WorkRow *first, int64 *due)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		monotonic = clock_now();
	bool		any = false;
	const WorkRow *next;

	*due = 0;
	for (next = first; next < doubts + ndoubts && by_identity(first, next) == 0; next++)
	{
		if (next->next_attempt_at == DT_NOEND)
			continue;
		any = true;
		*due = Max(*due, next->ripe_at);
		*due = Max(*due, local_clock_monotonic(next->next_attempt_at, now, monotonic));
	}
	if (!any || !first->has_identity)
		*due = PG_INT64_MAX;
	return next < doubts + ndoubts ? next : NULL;
}

/*
 * Returns the first doubt, of which doubts_next_identity() goes on, or NULL.
 */
const WorkRow *
doubts_first(void)
{
	return nunsettled > 0 ? doubts : NULL;
}

/*
 * Returns the identities of the unsettled ones, for which no new request is sent.
 */
ArrayType *
doubts_identities(void)
{
	Datum	   *ids = palloc(Max(ndoubts, 1) * sizeof(Datum));
	int			n = 0;

	for (const WorkRow *doubt = doubts_next(NULL); doubt; doubt = doubts_next(doubt))
		ids[n++] = UUIDPGetDatum(&doubt->identity);
	return work_array(ids, NULL, n, UUIDOID);
}

/*
 * Returns when, by Seam's clock, a key of a request in doubt can have been created, as a
 * list tells it that has a Date.
 */
Window
doubts_window(const WorkRow *row, const Flight *list)
{
	WindowFacts facts = {
		.ago = local_clock_ago(row->attempted_at),
		.timeout = row->attempt_timeout,
		.seam_time = row->seam_time,
		.now = seam_clock_by(&list->date)
	};

	/* a time of another endpoint's clock tells nothing */
	facts.has_seam_time = row->has_seam_time &&
		account_has_endpoint(&row->account, &list->account_id);
	return window_of(&facts);
}
