/*-------------------------------------------------------------------------
 *
 * doubts.c
 *	  The requests that are in doubt, by user identity.
 *
 * A request whose answer was lost is in doubt, and so is one that the table has as in
 * flight and this process does not.  They are read from the table when something about
 * them has changed.  An entry whose next_attempt_at is DT_NOEND has been settled since.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "catalog/pg_type.h"
#include "outbox/work_statement.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/doubts.h"
#include "worker/local_clock.h"
#include "worker/seam_clock.h"

static bool stale = true;		/* they are to be read anew */
static int	ndoubts;
static int	nunsettled;			/* of them */
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
 * Something about them has changed: has them read anew.
 */
void
doubts_read_anew(void)
{
	stale = true;
}

/*
 * Returns whether they are to be read anew.
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
 * qsort comparator: requests by identity.
 */
static int
by_identity(const void *a, const void *b)
{
	return memcmp(&((const WorkRow *) a)->identity, &((const WorkRow *) b)->identity, UUID_LEN);
}

/*
 * The doubts of an identity: the first, and how many there are that are not
 * settled; settled ones may be among them.
 */
WorkRow *
doubts_of(const pg_uuid_t *identity, int *n)
{
	WorkRow		key = {.identity = *identity};
	int			low = 0;
	int			high = ndoubts;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (by_identity(&doubts[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*n = 0;
	for (int i = low; i < ndoubts && by_identity(&doubts[i], &key) == 0; i++)
		*n += doubts[i].next_attempt_at != DT_NOEND;
	return doubts + low;
}

/*
 * Read which requests are in doubt.
 */
void
doubts_read(void)
{
	int			n = 0;
	int			size = flights_flying() + 1;
	Datum	   *active = palloc(size * sizeof(Datum));
	MemoryContext old;

	for (Flight *flight = flights_next(NULL); flight; flight = flights_next(flight))
	{
		if (flight->op != SEAM_GENERATE || flight->stored)
			continue;
		if (n == size)
			active = repalloc(active, (size *= 2) * sizeof(Datum));
		active[n++] = Int64GetDatum(flight->row.id);
	}
	MemoryContextReset(context);
	old = MemoryContextSwitchTo(context);
	ndoubts = nunsettled = work_doubts(work_array(active, NULL, n, INT8OID),
									   &doubts);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < ndoubts; i++)
	{
		WorkRow    *row = &doubts[i];
		int64		ago = local_clock_surely_elapsed_since(row->attempted_at);

		/* nobody waits for what is only reported */
		row->ripe_at = row->timeline == 0 ? 0 :
			window_list_at(row->attempt_timeout, ago, clock_now());
	}
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
 * Looks at the doubts of the same identity as this one, the first of them.  Returns the
 * first of the next identity, or NULL.  *due: when this one's keys can be asked for, on
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
