/*-------------------------------------------------------------------------
 *
 * watched.c
 *	  An exchange of a session that others can watch: in the view seam_ik_activity while it
 *	  goes on, and afterwards in seam_ik_stat.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "session/watched.h"
#include "shmem/activity.h"
#include "shmem/stats.h"

/*
 * Exchange.tried: counts it.
 */
static void
count_try(Exchange *exchange, const HttpAnswer *answer, bool again)
{
	StatTry		attempt = {.status = answer->status,.again = again,.opened = answer->opened,
		.sent = answer->sent,.received = answer->received,.took = answer->took
	};

	stats_try(STAT_SESSION, &attempt);
}

/*
 * Does what exchange_run() does, and throws what that throws.
 */
void
watched_run(Exchange *exchange)
{
	exchange->tried = count_try;
	activity_begin(exchange->n == 1 ? ACTIVITY_CALL : ACTIVITY_BATCH, exchange->n);
	PG_TRY();
	{
		exchange_run(exchange);
	}
	PG_FINALLY();
	{
		activity_end();
	}
	PG_END_TRY();
}

/*
 * Another request of the exchange has come to this end, and done() has counted it.
 */
void
watched_ended(const Exchange *exchange, const SeamResult *result)
{
	activity_progress(exchange->ended, exchange->ended - exchange->succeeded);
	stats_end(STAT_SESSION, result->sqlerrcode, result->kind == REPLY_DOUBT);
}
