/*-------------------------------------------------------------------------
 *
 * storing.c
 *	  Stores what came of flights, whatever may keep one of them from it.
 *
 * All that have ended are stored by one step.  Where that fails, because of a constraint
 * or trigger of the outbox's owner, say, or a page of the table that cannot be read, each
 * of them is stored in a subtransaction of its own.  What cannot be stored then is set
 * aside, and tried again by itself, after pauses that double, so that it stops nobody.  Its
 * key is in the memory of this process meanwhile; if that ends, the request is in doubt
 * like any other whose answer was lost.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "config/settings.h"
#include "outbox/attempts.h"
#include "outbox/work_statement.h"
#include "worker/change.h"
#include "worker/doubts.h"
#include "worker/queues.h"
#include "worker/results.h"
#include "worker/sending.h"
#include "worker/step.h"
#include "worker/storing.h"

/* The pauses between two tries to store a result that is set aside. */
#define ASIDE_FIRST_US (1 * INT64CONST(1000000))
#define ASIDE_LONGEST_US (60 * INT64CONST(1000000))

/* How often it is told that tries cannot be kept. */
#define TELL_AGAIN_US (3600 * INT64CONST(1000000))

/* What one step stores. */
typedef struct Storing
{
	/* clock_now()'s */
	int64		now;
	/* those that are to be stored each in its own subtransaction */
	bool		alone;
} Storing;

/*
 * Returns the next flight after this one that this step stores, or NULL.
 */
static Flight *
next_due(const Storing *storing, Flight *flight)
{
	do
		flight = flights_next_ended(flight);
	while (flight && (flight->stored || flight->store_at > storing->now ||
					  (flight->store_pause > 0) != storing->alone));
	return flight;
}

/*
 * Stores one, if no session has its request locked; change_make() is to follow.  May throw.
 */
static void
store(Flight *flight, const ResultsLocked *locked)
{
	flight->stored = results_store(flight, locked);
	if (!flight->stored)
		flight->store_at = clock_now() + RESULTS_LOCKED_PAUSE_US;
}

/*
 * Stores one by itself.  May throw.
 */
static void
store_alone(void *arg)
{
	static const ResultsLocked none;

	store(arg, &none);
	change_make();
}

/*
 * Stores all that are due together: their requests are locked by one statement, and changed
 * by another.  A list may settle, and so change, any request in doubt: those that are
 * stored before it have been changed then, and none of them is in doubt because of it.
 * May throw.
 */
static void
store_together(const Storing *storing)
{
	ResultsLocked locked = {0};
	int64	   *ids;
	int			n = 0;

	for (Flight *flight = next_due(storing, NULL); flight; flight = next_due(storing, flight))
		n++;
	ids = palloc(n * sizeof(int64));
	n = 0;
	for (Flight *flight = next_due(storing, NULL); flight; flight = next_due(storing, flight))
	{
		if (flight->op != SEAM_LIST)
			ids[n++] = flight->row.id;
	}
	if (n > 0)
		results_lock(ids, n, &locked);
	for (Flight *flight = next_due(storing, NULL); flight; flight = next_due(storing, flight))
	{
		if (flight->op == SEAM_LIST)
			change_make();
		store(flight, &locked);
	}
	change_make();
}

/*
 * A flight could not be stored because of this error: sets it aside.
 */
static void
set_aside(Flight *flight, const ErrorData *error, int64 now)
{
	flight->stored = false;
	flight->store_at = now + flight->store_pause;
	if (flight->store_pause == ASIDE_FIRST_US)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("the outbox of database \"%s\" could not store what came of request "
						INT64_FORMAT ": %s",
						step_database(), flight->row.id, error->message),
				 errhint("It is tried again from time to time.  Look for constraints and triggers "
						 "on \"seam_instant_key_request\".")));
	flight->store_pause = Min(flight->store_pause * 2, ASIDE_LONGEST_US);
	doubts_read_anew();
}

/*
 * Stores those that are due, each in a subtransaction of its own, as many as a transaction
 * may have at little cost.  May throw what is not of one of them.
 */
static void
store_each(const Storing *storing)
{
	int			n = 0;

	for (Flight *flight = next_due(storing, NULL); flight && n++ < WORK_ALONE_AT_ONCE;
		 flight = next_due(storing, flight))
	{
		int			nnotices = change_count_notices();
		ErrorData  *error = work_try(store_alone, flight);

		if (error == NULL)
			continue;
		if (!work_is_of_one(error->sqlerrcode))
			ReThrowError(error);
		change_forget_notices(nnotices);
		set_aside(flight, error, storing->now);
	}
}

/*
 * In a step: keeps the tries that it has stored the ends of.
 */
static void
keep_attempts(void *arg)
{
	List	   *flights = arg;
	Attempt    *attempts = palloc(list_length(flights) * sizeof(Attempt));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, flights)
	{
		const Flight *flight = lfirst(lc);
		const SeamResult *result = &flight->result;

		attempts[n++] = (Attempt)
		{
			.request_id = flight->row.id,
				.number = flight->row.attempts,
				.revokes = flight->op == SEAM_DELETE,
				.attempted_at = flight->row.attempted_at,
				.took = flight->ended_at - flight->claimed_at,
				.http_status = flight->status,
				.sqlerrcode = result->sqlerrcode,
				.error = result->sqlerrcode == 0 ? NULL : answer_error_text(result),
				.seam_request_id = result->request_id
		};
	}
	attempts_insert(attempts, n);
}

/*
 * In a step: keeps the tries of what it has stored.  Nothing depends on them: what keeps
 * them from being kept is told of once an hour, after all has been stored without.
 */
static void
keep_stored_attempts(const Storing *storing)
{
	static int64 told_until = 0;	/* clock_now()'s clock */
	List	   *flights = NIL;
	ErrorData  *error;

	for (Flight *flight = flights_next_ended(NULL); flight; flight = flights_next_ended(flight))
	{
		if (flight->stored && flight->op != SEAM_LIST)
			flights = lappend(flights, flight);
	}
	if (!settings_keep_attempts || flights == NIL)
		return;
	if (!storing->alone)
	{
		keep_attempts(flights);
		return;
	}
	error = work_try(keep_attempts, flights);
	if (error == NULL || told_until > storing->now)
		return;
	told_until = storing->now + TELL_AGAIN_US;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("the outbox of database \"%s\" could not keep the tries of requests: %s",
					step_database(), error->message),
			 errhint("Look for constraints on \"seam_instant_key_attempt\".")));
}

/*
 * In a step: stores those that are due.
 */
static void
store_due(void *arg)
{
	Storing    *storing = arg;

	/* a key must not be lost, whatever synchronous_commit says */
	ForceSyncCommit();
	if (storing->alone)
		store_each(storing);
	else
		store_together(storing);
	keep_stored_attempts(storing);
}

/*
 * The step has committed: what it has stored may go, and is told of.
 */
static void
stored(void *arg)
{
	change_send_notices();
	flights_free_stored();
}

/*
 * The step has failed: nothing of it is stored.  Each flight is to be stored by itself
 * now, or all of them later.
 */
static void
not_stored(void *arg, const ErrorData *error)
{
	Storing    *storing = arg;
	int64		pause = step_pause_after(error);

	bool		one_failed = error && !storing->alone && work_is_of_one(error->sqlerrcode);

	flights_keep_stored();
	for (Flight *flight = next_due(storing, NULL); flight; flight = next_due(storing, flight))
	{
		if (one_failed)
			flight->store_pause = ASIDE_FIRST_US;
		else
			flight->store_at = storing->now + pause;
	}
	change_forget_notices(0);
	doubts_read_anew();
	queues_look_again_at(DT_NOBEGIN);
	queues_look_at_all();
}

/* Requests that get back the attempt that an outage has cost them. */
typedef struct GivenBack
{
	int64		ids[PACE_ROW];
	int			n;
} GivenBack;

/*
 * In a step: gives it back.
 */
static void
give_back(void *arg)
{
	GivenBack  *given_back = arg;

	work_give_back(given_back->ids, given_back->n);
}

/*
 * An outage has been recognized: what has failed before for the same reason shall not
 * have used up an attempt.  What is under way pays for it.
 */
static void
give_attempts_back(void)
{
	GivenBack	given_back = {.n = 0};
	Step		step = {.run = give_back,.arg = &given_back,.what = "note that Seam is away"};
	const int64 *ids;
	int			n = sending_take_given_back(&ids);

	for (int i = 0; i < n; i++)
	{
		Flight	   *flight = flights_next(NULL);

		while (flight && (flight->op == SEAM_LIST || flight->row.id != ids[i]))
			flight = flights_next(flight);
		if (flight == NULL)
			given_back.ids[given_back.n++] = ids[i];
		else if (flight->has_ended)
			flight->is_free = true;
	}
	if (given_back.n > 0)
		(void) step_take(&step);
}

/*
 * Stores what has ended and is due to be stored.  Called outside transactions.
 */
void
storing_run(void)
{
	Storing		storing = {.now = clock_now()};
	Step		step = {.run = store_due,.committed = stored,.failed = not_stored,
	.arg = &storing,.what = "store its results"};

	give_attempts_back();
	if (next_due(&storing, NULL))
	{
		/*
		 * why it has failed is told of each one that is not stored alone
		 * either
		 */
		step.what = NULL;
		(void) step_take(&step);
	}
	storing.alone = true;
	step.what = "store its results";
	while (next_due(&storing, NULL))
	{
		if (!step_take(&step))
			break;
	}
}
