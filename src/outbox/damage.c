/*-------------------------------------------------------------------------
 *
 * damage.c
 *	  Reads a queue around rows that cannot be read.
 *
 * A page of the outbox's table may be damaged.  The index still tells where its rows are,
 * so every read that comes by fails; what can be read before and after them shall go on.
 * Each read is a subtransaction, of half as many rows as the last one that has failed.
 * When it is one row that cannot be read, the mark is moved on: by distances that double
 * until a read succeeds, and then back to the least of these.
 *
 * A queue's marks are in the order of request_id among what is due at once, and of the
 * time among what was paused.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "outbox/damage.h"
#include "outbox/work_statement.h"

/* So many reads fail at most: then the rest waits for another time. */
#define FAILURES_MAX 100

/* What was paused for longer than this is not expected. */
#define LONGEST_PAUSE_US (366 * USECS_PER_DAY)

/* A read. */
typedef struct Try
{
	/* the caller's */
	DamageRead	read;
	/* its argument */
	void	   *arg;
	/* where it begins; moved on if rows are kept */
	WorkMark	mark;
	/* the most rows */
	int			limit;
	/* are they kept? */
	bool		keep;
	/* how many there were */
	int			n;
} Try;

/*
 * Reads, and may throw.
 */
static void
read_some(void *arg)
{
	Try		   *try = arg;

	try->n = try->read(try->arg, &try->mark, try->limit, try->keep);
}

/*
 * Reads in a subtransaction.  Returns false where that fails for what may be one row's
 * reason; throws other errors.
 */
static bool
succeeds(Try *try)
{
	ErrorData  *error = work_try(read_some, try);

	if (error && !work_is_of_one(error->sqlerrcode))
		ReThrowError(error);
	return error == NULL;
}

/*
 * Returns a mark that is so far after another one.
 */
static WorkMark
moved(WorkMark mark, TimestampTz due, int64 distance)
{
	if (due == DT_NOBEGIN)
		mark.id = Max(mark.id, 0) + distance;
	else
		mark.time = Max(mark.time, due - LONGEST_PAUSE_US) + distance;
	return mark;
}

/*
 * The row after the mark cannot be read: moves it to before the next one that can be.
 * Returns how many reads have failed.
 */
static int
skip(Try try, WorkMark *mark, TimestampTz due)
{
	int64		bad = 0;
	int64		good = 1;
	int			failures = 0;

	try.limit = 1;
	try.keep = false;
	for (;; bad = good, good *= 2)
	{
		try.mark = moved(*mark, due, good);
		if (succeeds(&try))
			break;
		if (++failures >= FAILURES_MAX / 2)
			return FAILURES_MAX;
	}
	while (good - bad > 1)
	{
		int64		middle = bad + (good - bad) / 2;

		try.mark = moved(*mark, due, middle);
		if (succeeds(&try))
			good = middle;
		else
		{
			bad = middle;
			failures++;
		}
	}
	*mark = moved(*mark, due, good);
	return failures;
}

/*
 * Reads at most limit rows that come after the mark, which it moves, of a queue; due: as
 * of take() in work.c.  Returns whether there are any that cannot be read.  Throws what is
 * not one row's error.
 */
bool
damage_read(DamageRead read, void *arg, WorkMark *mark, TimestampTz due, int limit)
{
	int			most = limit;
	int			failures = 0;

	while (limit > 0 && failures < FAILURES_MAX)
	{
		Try			try = {read, arg, *mark, Min(most, limit), true, 0};

		if (succeeds(&try))
		{
			*mark = try.mark;
			limit -= try.n;
			if (try.n < try.limit)
				break;
			continue;
		}
		failures++;
		most = try.limit / 2;
		if (most > 0)
			continue;
		failures += skip(try, mark, due);
		most = limit;
	}
	return failures > 0;
}
