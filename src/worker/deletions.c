/*-------------------------------------------------------------------------
 *
 * deletions.c
 *	  Intents about which is decided, until the journal has them no more.
 *
 * They are deleted with the next record, or soon alone.  What a crash loses of that is
 * decided again, with the same result.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "utils/guc.h"
#include "worker/deletions.h"
#include "worker/step.h"

/* So long after it was decided an intent is deleted, if nothing is recorded meanwhile. */
#define DELETE_US (150 * INT64CONST(1000))

static dlist_head decided = DLIST_STATIC_INIT(decided);
static int64 delete_at = PG_INT64_MAX;	/* on clock_now()'s clock */

/*
 * Returns when deletions_take() has something to do, on clock_now()'s clock.
 */
int64
deletions_due(void)
{
	return delete_at;
}

/*
 * In a step: deletes intents about which is decided, but those that a session has locked.
 */
void
deletions_do(void *arg)
{
	int			n = 0;
	const JournalRow **rows;
	bool	   *locked;
	dlist_iter	it;

	dlist_foreach(it, &decided)
		n++;
	rows = palloc(Max(n, 1) * sizeof(JournalRow *));
	locked = palloc(Max(n, 1) * sizeof(bool));
	n = 0;
	dlist_foreach(it, &decided)
		rows[n++] = &dlist_container(Intent, node, it.cur)->row;
	journal_delete(rows, n, locked);
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
	deletions_do(arg);
}

/*
 * They are deleted, but those that were locked.
 */
void
deletions_done(void *arg)
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
}

/*
 * They are not.
 */
void
deletions_failed(void *arg, const ErrorData *error)
{
	dlist_iter	it;

	dlist_foreach(it, &decided)
		dlist_container(Intent, node, it.cur)->gone = false;
	delete_at = clock_now() + STEP_ERROR_PAUSE_US;
}

/*
 * An intent, which is in no list, is to be deleted.
 */
void
deletions_add(Intent *intent)
{
	dlist_push_tail(&decided, &intent->node);
	delete_at = Min(delete_at, clock_now() + DELETE_US);
}

/*
 * Deletes what is decided about.
 */
void
deletions_take(void)
{
	Step		step = {.run = delete_alone_now,.committed = deletions_done,
	.failed = deletions_failed,.what = "delete calls from the journal"};

	if (!dlist_is_empty(&decided))
		(void) step_take(&step);
	else
		delete_at = PG_INT64_MAX;
}
