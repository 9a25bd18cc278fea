/*-------------------------------------------------------------------------
 *
 * outcome.c
 *	  What becomes of a request, after an answer, and after a list of keys.
 *
 * What has to hold, whatever is lost and whoever is killed:
 *
 *	- No second key is asked for while a first one may live.  So a request is tried
 *	  again only after an answer that says that nothing was done, or after a list
 *	  that shows all keys of the identity, and none that may be its own.
 *	- No key is revoked that is owned, or may be.  So a key of a list is revoked
 *	  only where it is of one of our requests, nobody can tell which one, and all
 *	  of these get others, or want none.
 *	- What nobody can tell is said: the request ends as failed, with 08007, and the
 *	  keys that may be meant are named.  Only such a request may have a key that
 *	  it does not name as its own.
 *
 * Seam promises nothing about the list but what it is: the keys of an identity.
 * We take it to be complete settle_delay after a call was given up.  What comes
 * later still is looked for once more, and reported.
 *
 * A list decides about all requests of the identity whose answers were lost, at
 * once (doubt.c).  Requests and keys that may belong together are one group.
 * Where one request of a group with keys has to be reported, because it is of
 * another history or its window is vague, all of it are: its keys may be the
 * others', which would get a second one.
 *
 * The order of the questions, after a list:
 *
 *	1. Whose history is it?  In a copy the origin may have settled the request,
 *	   and own what is found.
 *	2. Does another issuer work for the identity?  Then nobody can tell anything.
 *	3. Is it known when the attempt was made?
 *	4. Is a key found?  Then it is adopted, or revoked with others.
 *	5. Is none found: could it be found with the present account?
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/outcome.h"

/* Where a key that may appear late cannot be looked for, that is tried for so long. */
#define LATE_KEYS_MAX_US (3600 * INT64CONST(1000000))

/* Where there was no file descriptor for a call, it is made so much later. */
#define DESCRIPTOR_PAUSE_US (100 * INT64CONST(1000))

/* The longest pause between two lists. */
#define LIST_PAUSE_MAX_US (3600 * INT64CONST(1000000))

/*
 * Returns the outcome that leaves a request as it is.
 */
static Outcome
unchanged(const OutcomeRequest *request)
{
	Outcome		outcome = {.act = OUTCOME_CHANGE};

	outcome.status = request->status;
	outcome.next_attempt_at = request->next_attempt_at;
	outcome.attempts = request->attempts;
	outcome.text = TEXT_KEPT;
	outcome.sqlerrcode = request->sqlerrcode;
	return outcome;
}

/*
 * A key was issued for it, or adopted.  If nobody wants it any more, it is to be revoked.
 */
static void
set_issued(const OutcomeRequest *request, Outcome *outcome)
{
	outcome->takes_key = true;
	outcome->text = TEXT_NONE;
	outcome->sqlerrcode = 0;
	if (request->status == STATUS_REVOKING)
	{
		outcome->attempts = 0;
		outcome->next_attempt_at = DT_NOBEGIN;
		return;
	}
	/* also where its answer was lost in an outage, which costs nothing */
	outcome->attempts = Max(request->attempts, 1);
	outcome->status = STATUS_ISSUED;
	outcome->finished = true;
	outcome->next_attempt_at = request->has_target ? DT_NOBEGIN : DT_NOEND;
	if (request->is_call)
	{
		/* the caller was told that the answer was lost, and has no key */
		outcome->text = TEXT_FOUND;
		outcome->sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	}
}

/*
 * It has come to its end, with the error that it has by now.
 */
static void
set_end(RequestStatus status, Outcome *outcome)
{
	outcome->status = status;
	outcome->finished = true;
	outcome->next_attempt_at = DT_NOEND;
}

/*
 * Surely no key of it was issued: it is tried again at that time if that may help (retry),
 * and is allowed, but never what a call has asked for.  A request that fails with 08007 may
 * have a key, so one that has lost its answer ends with another SQLSTATE.
 */
static void
set_not_issued(const OutcomeRequest *request, bool retry, TimestampTz at, Outcome *outcome)
{
	if (request->status == STATUS_REVOKING)
		set_end(STATUS_REVOKED, outcome);
	else if (retry && !request->is_call)
	{
		outcome->status = STATUS_PENDING;
		outcome->next_attempt_at = at;
	}
	else
	{
		set_end(STATUS_FAILED, outcome);
		if (outcome->sqlerrcode == ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN)
			outcome->sqlerrcode = ERRCODE_CONNECTION_FAILURE;
	}
}

/*
 * A person has to look.
 */
static void
set_reported(OutcomeText text, Outcome *outcome)
{
	set_end(STATUS_FAILED, outcome);
	outcome->text = text;
	outcome->sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
}

/* ---------- after a call ---------- */

/*
 * Returns whether a request may be tried again that was tried so often.
 */
static bool
may_try_again(const OutcomeRequest *request, int max_attempts)
{
	return request->persists || request->attempts < max_attempts;
}

/*
 * Returns what becomes of a request after the call that issues its key.
 */
Outcome
outcome_of_generate(const OutcomeCall *call, const OutcomeRequest *request)
{
	Outcome		outcome = unchanged(request);
	bool		ours = call->found && !request->has_key &&
	(request->status == STATUS_IN_FLIGHT || request->status == STATUS_REVOKING);

	if (call->locked_by_others)
		outcome.act = OUTCOME_WAIT;
	else if (!ours)
		/* somebody has deleted or changed the request by hand */
		outcome.act = call->kind == REPLY_DONE ? OUTCOME_REVOKE_COPY : OUTCOME_NOTHING;
	if (outcome.act != OUTCOME_CHANGE)
		return outcome;

	outcome.text = TEXT_ANSWER;
	outcome.sqlerrcode = 0;
	if (call->is_free && call->kind != REPLY_DONE)
		outcome.attempts--;
	switch (call->kind)
	{
		case REPLY_DONE:
			set_issued(request, &outcome);
			break;
		case REPLY_DOUBT:
			/* the list is asked for some time after we have given up */
			outcome.next_attempt_at = call->now - call->ended_ago +
				(int64) call->settle_delay * 1000;
			outcome.attempt_timeout = call->timeout;
			break;
		case REPLY_NO_DESCRIPTOR:
			/* no fault of the request: the attempt does not count */
			outcome.attempts = request->attempts - 1;
			set_not_issued(request, true, call->now + DESCRIPTOR_PAUSE_US, &outcome);
			break;
		case REPLY_KEY_REFUSED:
			if (call->may_be_workspace && !call->outdated)
			{
				/* the others need not wait, and this one may do so in vain */
				set_not_issued(request, may_try_again(request, call->max_attempts),
							   call->now + call->pause, &outcome);
				break;
			}
			outcome.attempts = request->attempts - 1;
			set_not_issued(request, true, call->now, &outcome);
			break;
		default:
			if (call->is_free)
				/* all wait for Seam to be back, and this one for nothing else */
				set_not_issued(request, true, call->now, &outcome);
			else if (call->kind == REPLY_NOT_SENT || call->kind == REPLY_LIMITED)
				set_not_issued(request, may_try_again(request, call->max_attempts),
							   call->now + call->pause, &outcome);
			else
				set_not_issued(request, false, 0, &outcome);
	}
	return outcome;
}

/*
 * Returns what becomes of a request after the call that revokes its key.  Its error, where
 * it has one, tells why the key had to be revoked, and is kept.
 */
Outcome
outcome_of_delete(const OutcomeCall *call, const OutcomeRequest *request)
{
	Outcome		outcome = unchanged(request);

	if (call->locked_by_others)
		outcome.act = OUTCOME_WAIT;
	else if (!call->found || request->status != STATUS_REVOKING)
		outcome.act = OUTCOME_NOTHING;
	else if (call->kind == REPLY_DONE)
	{
		outcome.sqlerrcode = 0;
		set_end(STATUS_REVOKED, &outcome);
	}
	else if (call->outdated)
		/* what was not found tells nothing about the account that we have now */
		outcome.next_attempt_at = call->now;
	else if (request->anothers && (call->kind == REPLY_NOTHING_THERE || call->forbidden))
		/* it may be in another workspace, and not ours to revoke any more */
		set_reported(TEXT_KEY_ELSEWHERE, &outcome);
	else if (call->kind == REPLY_NOTHING_THERE)
	{
		outcome.sqlerrcode = 0;
		set_end(STATUS_REVOKED, &outcome);
	}
	else
	{
		/* a key that lives on is never given up */
		outcome.text = TEXT_ANSWER;
		outcome.sqlerrcode = 0;
		outcome.attempts -= call->is_free;
		outcome.next_attempt_at = call->now + (call->is_free ? 0 : call->pause);
	}
	return outcome;
}

/* ---------- after a list ---------- */

/*
 * Returns whether a list tells which keys there are, and when they were created.
 */
bool
outcome_list_tells(const OutcomeList *list)
{
	return list->kind == REPLY_DONE && list->has_date && list->clock_known;
}

/*
 * Returns what becomes of a request in doubt after a list that tells nothing: it waits for
 * another one, the longer the longer it has waited (microseconds), unless there is no such
 * identity.
 */
Outcome
outcome_of_no_list(const OutcomeList *list, const OutcomeRequest *request, int64 waited)
{
	Outcome		outcome = unchanged(request);

	if (list->kind == REPLY_NOTHING_THERE && !request->anothers)
	{
		/* no identity, no key */
		set_not_issued(request, may_try_again(request, list->max_attempts),
					   list->now + request->backoff, &outcome);
		return outcome;
	}
	if (request->anothers && list->kind != REPLY_DONE &&
		(list->status == 404 || list->status == 403))
	{
		/* the identity may be in another workspace */
		set_reported(TEXT_IDENTITY_ELSEWHERE, &outcome);
		return outcome;
	}
	if (list->kind != REPLY_DONE)
		outcome.text = TEXT_LIST_FAILED;
	else
		outcome.text = list->has_date ? TEXT_LIST_TOO_SLOW : TEXT_LIST_WITHOUT_DATE;
	if (outcome.sqlerrcode == 0)
		outcome.sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	outcome.next_attempt_at = list->now +
		(list->is_free ? 0 : Max(list->pause, Min(waited / 4, LIST_PAUSE_MAX_US)));
	return outcome;
}

/*
 * Returns why a doubt that may have keys has to be reported, or TEXT_KEPT.
 */
static OutcomeText
why_reported(const OutcomeRequest *request, const Doubt *doubt)
{
	if (request->origin == ORIGIN_UNKNOWN)
		return TEXT_WHOSE;
	if (request->origin == ORIGIN_BEFORE)
		return TEXT_BEFORE_PROMOTION;
	if (doubt->verdict == VERDICT_AMBIGUOUS)
		return TEXT_OTHER_ISSUER;
	if (doubt->vague)
		return TEXT_CLOCK_SET_BACK;
	/* its transaction has committed: what it may have issued lives */
	if (doubt->verdict == VERDICT_REISSUE && request->is_call &&
		request->status == STATUS_IN_FLIGHT)
		return TEXT_WHICH_CALL;
	return TEXT_KEPT;
}

/*
 * Returns what becomes of a request in doubt whose group has not to be reported.
 */
static Outcome
outcome_of_doubt(const OutcomeList *list, const OutcomeRequest *request, const Doubt *doubt)
{
	Outcome		outcome = unchanged(request);

	if (doubt->verdict == VERDICT_ADOPT)
		set_issued(request, &outcome);
	else if (request->anothers)

		/*
		 * of a group whose keys are revoked, too: its own may not be among
		 * them
		 */
		set_reported(TEXT_NO_KEY_ELSEWHERE, &outcome);
	else
	{
		set_not_issued(request, may_try_again(request, list->max_attempts),
					   list->now + request->backoff, &outcome);
		outcome.look_again = request->origin != ORIGIN_UNKNOWN;
		outcome.look_again_at = list->now + OUTCOME_LATE_US;
	}
	return outcome;
}

/*
 * Decides about the n requests of an identity that are in doubt, and about the keys of the
 * list that nobody owns.  Fills in outcomes, and what doubt_settle() fills in of doubts and
 * candidates; a candidate's revoke holds.
 */
void
outcome_of_list(const OutcomeList *list, const OutcomeRequest *requests, int n, Doubt *doubts,
				Candidate *candidates, int ncandidates, Outcome *outcomes)
{
	doubt_settle(doubts, n, candidates, ncandidates);

	/*
	 * why a group is reported stands with its first doubt; text tells whether
	 * it has keys
	 */
	for (int i = 0; i < n; i++)
		outcomes[i].text = TEXT_NONE;
	for (int c = 0; c < ncandidates; c++)
	{
		if (candidates[c].group >= 0)
			outcomes[candidates[c].group].text = TEXT_KEPT;
	}
	for (int i = 0; i < n; i++)
	{
		Outcome    *first = &outcomes[doubts[i].group];

		if (first->text == TEXT_KEPT)
			first->text = why_reported(&requests[i], &doubts[i]);
	}
	for (int c = 0; c < ncandidates; c++)
	{
		if (candidates[c].revoke && outcomes[candidates[c].group].text != TEXT_KEPT)
			candidates[c].revoke = false;
	}

	/* a group's first doubt is its last one here */
	for (int i = n - 1; i >= 0; i--)
	{
		OutcomeText why = outcomes[doubts[i].group].text;

		if (why == TEXT_KEPT || why == TEXT_NONE)
			outcomes[i] = outcome_of_doubt(list, &requests[i], &doubts[i]);
		else
		{
			outcomes[i] = unchanged(&requests[i]);
			set_reported(why, &outcomes[i]);
		}
	}
}

/* ---------- after a late list ---------- */

/*
 * Returns what becomes of a request of which no key was there, after another list of its
 * identity's keys some time later.
 */
LateOutcome
outcome_of_late_list(const LateFacts *facts)
{
	LateOutcome unknown;

	if (facts->locked_by_others)
		return LATE_WAIT;
	if (!facts->found || !facts->wanted)
		return LATE_GONE;
	if (facts->anothers)
		return LATE_UNKNOWN_ACCOUNT;
	if (facts->outdated || facts->busy)
		unknown = LATE_UNKNOWN_BUSY;
	else if (facts->kind == REPLY_DONE && facts->has_date)
		return LATE_LOOK;
	else if (facts->kind == REPLY_NOTHING_THERE)
		return LATE_END;
	else
		unknown = LATE_UNKNOWN_LIST;
	return facts->age < LATE_KEYS_MAX_US ? LATE_AGAIN : unknown;
}
