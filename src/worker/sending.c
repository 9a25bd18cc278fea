/*-------------------------------------------------------------------------
 *
 * sending.c
 *	  How much the worker may send now.
 *
 * The pace that answers set, and seam_ik.rate_limit, may hold it up.  While Seam does not
 * work, or does not accept the API key, nothing but probes is sent, and what failed for
 * that reason has not used up an attempt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "common/pg_prng.h"
#include "config/settings.h"
#include "seam/answer.h"
#include "worker/sending.h"
#include "worker/step.h"

/* From this length on, a pause or an outage is told of. */
#define PAUSE_TOLD_US (60 * INT64CONST(1000000))

static Pace pace;				/* of the account in use */
static PaceBucket bucket;		/* of seam_ik.rate_limit */
static bool stop_told;			/* the log has a warning that nothing is sent */

/*
 * Requests that have failed in a row, and used up an attempt for that, as long as it is
 * not known whether the row is the beginning of an outage.
 */
static int64 row[PACE_ROW];
static int	nrow;

/*
 * Those of them that get the attempt back, because it was.
 */
static int64 given_back[PACE_ROW];
static int	ngiven_back;

/*
 * Makes the pace what it is at the start of the process.
 */
void
sending_set_up(void)
{
	pace_init(&pace, settings_max_concurrency);
}

/*
 * The configuration was reloaded: pauses end.
 */
void
sending_resume(void)
{
	pace_set_max(&pace, settings_max_concurrency);
	pace_resume(&pace, clock_now());
	stop_told = false;
}

/*
 * The account is another one, of which nothing bad is known.
 */
void
sending_trust_account(void)
{
	pace_init(&pace, settings_max_concurrency);
	pace_resume(&pace, clock_now());
	stop_told = false;
}

/*
 * Returns the pause before a request is tried again that was tried so often, in
 * microseconds: a little more than twice as long each time, so that the tries of an hour
 * are few.
 */
int64
sending_backoff(int attempts)
{
	return pace_backoff(attempts * 3 / 2, PACE_LONGEST_US, pg_prng_double(&pg_global_prng_state));
}

/*
 * Tells the log of a pause that Seam's rate limit asks for, if it is a long one and began
 * just now: told_until is when pauses ended before.
 */
static void
tell_of_pause(const PaceAnswer *answer, int64 told_until, int64 now)
{
	if (answer->sign != PACE_LIMITED || pace.paused_until - now < PAUSE_TOLD_US ||
		told_until - now >= PAUSE_TOLD_US)
		return;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("the outbox of database \"%s\" waits for %d s: Seam's rate limit was "
					"reached",
					step_database(), (int) ((pace.paused_until - now) / USECS_PER_SEC)),
			 answer->asked > 0 ? errdetail("Seam asks to wait %d s.",
										   (int) (answer->asked / USECS_PER_SEC)) : 0,
			 errhint("A reload of the configuration ends the pause.")));
}

/*
 * Tells the log that nothing is sent any more, or that it goes on; stop is what was
 * stopped before.  An outage is told of when it is known to last: so long that a probe
 * waits for its turn, or Seam has said so.
 */
static void
tell_of_stop(PaceStop before, int64 now)
{
	if (pace.stop == PACE_STOPPED_REFUSED && before != PACE_STOPPED_REFUSED)
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the outbox of database \"%s\" waits: Seam did not accept the API key",
						step_database()),
				 errhint("Correct the API key; the requests are sent then.")));
		stop_told = true;
	}
	else if (pace.stop == PACE_STOPPED_AWAY && !stop_told &&
			 (pace.nprobes > 0 || pace.probe_at - now >= PAUSE_TOLD_US))
	{
		ereport(WARNING,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the outbox of database \"%s\" waits: Seam does not answer, or answers "
						"that it does not work",
						step_database()),
				 errdetail("It is asked again from time to time.  No request fails meanwhile.")));
		stop_told = true;
	}
	else if (pace.stop == PACE_GOES && before != PACE_GOES && stop_told)
	{
		ereport(LOG,
				(errmsg(before == PACE_STOPPED_REFUSED ?
						"the outbox of database \"%s\" goes on: Seam accepts the API key" :
						"the outbox of database \"%s\" goes on: Seam answers again",
						step_database())));
		stop_told = false;
	}
}

/*
 * A request has failed because the server is away: it has used up an attempt, unless that
 * is the beginning of an outage.
 */
static void
add_to_row(int64 id)
{
	if (nrow < PACE_ROW)
		row[nrow++] = id;
}

/*
 * Lets the answer to a request with the account in use set the pace: begun_at is when it
 * was sent; id: of a request of the outbox, which was tried so often, or 0 for a list;
 * may_be_workspace: it was made in a workspace that it was given;
 * nflying: the others that are under way.  Returns whether it has failed because the
 * server is away, or the API key is not accepted, for which it shall not pay with an
 * attempt.
 */
bool
sending_answer(const HttpAnswer *http, int64 id, int attempts, bool may_be_workspace,
			   int64 begun_at, int nflying, int64 now)
{
	PaceAnswer	answer = {
		.may_be_workspace = may_be_workspace,.begun_at = begun_at,.nflying = nflying
	};
	PaceStop	before = pace.stop;
	int64		told_until = pace.paused_until;
	bool		is_free;

	answer_pace(http, &answer);
	answer.backoff = sending_backoff(attempts);
	is_free = pace_answer(&pace, &answer, now);
	if (pace.stop == PACE_STOPPED_AWAY && before == PACE_GOES)
	{
		memcpy(given_back, row, sizeof(row));
		ngiven_back = nrow;
	}
	if (pace.nbad == 0)
		nrow = 0;
	else if (answer.sign == PACE_AWAY && !is_free && id != 0)
		add_to_row(id);
	tell_of_pause(&answer, told_until, now);
	tell_of_stop(before, now);
	return is_free || (answer.sign == PACE_REFUSED && !may_be_workspace);
}

/*
 * Returns the pause before a request may be tried again that was tried so often.  The
 * pause that a 429 asks for is the queue's, so that its end is everybody's.
 */
int64
sending_pause(const HttpAnswer *answer, int attempts)
{
	if (answer->outcome == HTTP_ANSWERED && answer->status == 429)
		return sending_backoff(attempts);
	return pace_pause(answer->retry_after, attempts * 3 / 2, PACE_LONGEST_US,
					  pg_prng_double(&pg_global_prng_state));
}

/*
 * Takes the requests that have failed in the row with which an outage began, and get the
 * attempt back.  Returns how many; *ids lives until the next answer.
 */
int
sending_take_given_back(const int64 **ids)
{
	int			n = ngiven_back;

	*ids = given_back;
	ngiven_back = 0;
	return n;
}

/*
 * Returns how many requests may be sent now, while so many are under way, and which: *may;
 * *again_at: when that may change by itself (clock_now()'s clock).
 */
int
sending_allowance(int nflying, int64 now, PaceMay *may, int64 *again_at)
{
	int			n;
	int64		bucket_at;
	int			most;

	*may = PACE_MAY_SEND;
	*again_at = PG_INT64_MAX;
	if (!settings_worker)
		return 0;
	n = pace_allows(&pace, nflying, now, may, again_at);
	if (n == 0)
		return 0;
	most = pace_bucket_allows(&bucket, settings_rate_limit, now, &bucket_at);
	if (most == 0)
		*again_at = bucket_at;
	return Min(n, most);
}

/*
 * Returns how many probes have failed since nothing else is sent.
 */
int
sending_failed_probes(void)
{
	return pace.nprobes;
}

/*
 * Returns whether nothing but probes is sent.
 */
bool
sending_is_stopped(void)
{
	return pace.stop != PACE_GOES;
}

/*
 * A request is sent.
 */
void
sending_sent(void)
{
	if (pace.stop != PACE_GOES)
		pace_probe_sent(&pace);
}

/*
 * Returns how many requests may be under way at once.
 */
int
sending_limit(void)
{
	return pace.limit;
}

/*
 * One request is about to be sent.
 */
void
sending_take(void)
{
	pace_bucket_take(&bucket);
}

/*
 * Returns why nothing but a probe is sent now, and until when in *until (clock_now()'s
 * clock), or WORKER_IDLE.
 */
WorkerState
sending_state(int64 now, int64 *until)
{
	if (pace.stop != PACE_GOES)
	{
		*until = Max(pace.probe_at, pace.paused_until);
		return pace.stop == PACE_STOPPED_REFUSED ? WORKER_REFUSED : WORKER_AWAY;
	}
	if (pace.paused_until > now)
	{
		*until = pace.paused_until;
		return WORKER_LIMITED;
	}
	return WORKER_IDLE;
}
