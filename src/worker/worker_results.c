/*-------------------------------------------------------------------------
 *
 * worker_results.c
 *	  What becomes of a request when its call has ended.
 *
 * A call whose answer was lost is in doubt, and so is one that the table knows
 * as in flight and this process does not.  No other request for its user
 * identity is sent until Seam's list of keys has settled it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "base/clock.h"
#include "base/uuid.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "logic/doubt.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "config/settings.h"
#include "base/stop_point.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker_state.h"

/* Ids in one message. */
#define KEYS_IN_MESSAGE 20

/* Where a key that may appear late cannot be looked for, that is tried for so long. */
#define LATE_KEYS_MAX_US (3600 * INT64CONST(1000000))

/*
 * Something is due at this time.
 */
void
worker_due_at(WorkQueue *queue, TimestampTz time)
{
	queue->next_due = Min(queue->next_due, time);
}

/*
 * Have who listens told of a request's end, when the transaction has committed.
 */
void
worker_add_notice(const WorkRow *row, RequestStatus status)
{
	MemoryContext old = MemoryContextSwitchTo(worker.turn);
	Notice	   *notice = palloc(sizeof(Notice));

	notice->id = row->id;
	notice->reference = row->reference ? pstrdup(row->reference) : NULL;
	notice->status = status;
	worker.notices = lappend(worker.notices, notice);
	MemoryContextSwitchTo(old);
}

/*
 * Change a request that is locked, and see to what follows from it.
 */
void
worker_change_request(const WorkRow *row, WorkChange *change)
{
	bool		written = change->status == STATUS_ISSUED && change->next_attempt_at == DT_NOEND;
	WorkQueue  *queues[STATUS_COUNT] = {
		[STATUS_PENDING] = &worker.pending,
		[STATUS_REVOKING] = &worker.revoking,
		[STATUS_ISSUED] = &worker.write_backs,
	};
	WorkQueue  *queue = queues[change->status];

	work_change(row->id, change);
	if (queue && change->next_attempt_at != DT_NOEND)
	{
		worker_due_at(queue, change->next_attempt_at);
		/* requests do not end in the order in which they began */
		if (change->next_attempt_at == DT_NOBEGIN)
			queue->at_once.id = Min(queue->at_once.id, row->id - 1);
	}
	if (written || change->status == STATUS_FAILED || change->status == STATUS_REVOKED)
		worker_add_notice(row, change->status);
}

/*
 * The change to a request that a key was issued for, or adopted.
 */
static void
set_issued(const WorkRow *row, const SeamKey *key, WorkChange *change)
{
	change->key = key;
	change->sqlerrcode = 0;
	change->error = NULL;
	if (row->status == STATUS_REVOKING)
	{
		change->attempts = 0;
		change->next_attempt_at = DT_NOBEGIN;
		return;
	}
	change->status = STATUS_ISSUED;
	change->finished = true;
	change->next_attempt_at = row->has_target ? DT_NOBEGIN : DT_NOEND;
}

/*
 * The change to a request of which no key was issued: try again if that may
 * help and is allowed.  A request that fails with 08007 may have a key, so one that has
 * lost its answer, and none by now, ends with another SQLSTATE.
 */
static void
set_not_issued(const WorkRow *row, bool retry, int64 pause, WorkChange *change)
{
	if (row->status == STATUS_REVOKING)
		change->status = STATUS_REVOKED;
	else if (retry && row->attempts < settings_max_attempts)
	{
		change->status = STATUS_PENDING;
		change->next_attempt_at = GetCurrentTimestamp() + pause;
		return;
	}
	else
	{
		change->status = STATUS_FAILED;
		if (change->sqlerrcode == ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN)
			change->sqlerrcode = ERRCODE_CONNECTION_FAILURE;
	}
	change->finished = true;
	change->next_attempt_at = DT_NOEND;
}

/*
 * A change that leaves the request as it is.
 */
WorkChange
worker_no_change(const WorkRow *row)
{
	WorkChange	change = {.status = row->status};

	change.next_attempt_at = row->next_attempt_at;
	change.attempts = row->attempts;
	change.sqlerrcode = row->sqlerrcode;
	change.error = row->error;
	return change;
}

/*
 * Put a failure into a change.
 */
static void
set_error(const SeamResult *result, WorkChange *change)
{
	change->sqlerrcode = result->sqlerrcode;
	change->error = answer_error_text(result);
}

/*
 * Put into a change that a person has to look: its error is to be set.
 */
static void
set_unsettled(WorkChange *change)
{
	change->status = STATUS_FAILED;
	change->sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	change->finished = true;
	change->next_attempt_at = DT_NOEND;
}

/*
 * Was a request made with another account than we have now, or perhaps so?  Then what
 * is not found may exist all the same.
 */
static bool
is_anothers(const WorkRow *row)
{
	return account_match(&row->account, &worker.account_id) != ACCOUNT_OURS;
}

/*
 * Did the account change while this call was under way?  Then what it has not found
 * tells nothing about the account that we have now.
 */
static bool
is_outdated(const Flight *flight)
{
	return !account_is_same(&flight->account_id, &worker.account_id);
}

/*
 * Lock a flight's request.  Returns false when it is gone; then *later tells
 * whether it is only locked by a session.
 *
 * A request with its id that was not claimed with it is another one: the table
 * may have been emptied, and its sequence begun anew.
 */
static bool
lock_request(const Flight *flight, WorkRow *row, bool *later)
{
	*later = false;
	if (work_lock(flight->row.id, row))
		return row->attempted_at == flight->row.attempted_at &&
			row->attempts == flight->row.attempts &&
			row->has_identity == flight->row.has_identity &&
			memcmp(&row->identity, &flight->row.identity, UUID_LEN) == 0;
	*later = work_exists(flight->row.id);
	return false;
}

/*
 * Store what came of a call that issues a key.  Returns false when that is not
 * possible now.
 */
static bool
store_generate(Flight *flight)
{
	const SeamResult *result = &flight->result;
	WorkRow		row;
	WorkChange	change;
	bool		later;

	if (!lock_request(flight, &row, &later) ||
		(row.status != STATUS_IN_FLIGHT && (row.status != STATUS_REVOKING || row.has_key)))
	{
		/* somebody has deleted or changed the request by hand */
		if (later)
			return false;
		if (result->sqlerrcode == 0)
		{
			WorkRow		copy = flight->row;

			copy.account = flight->account_id;
			work_revoke_copy(&copy, &result->key, "issued for a request that was deleted or "
							 "changed meanwhile");
		}
		worker_due_at(&worker.revoking, GetCurrentTimestamp());
		return true;
	}
	change = worker_no_change(&row);
	change.seam_request_id = result->request_id;
	if (result->sqlerrcode == 0)
		set_issued(&row, &result->key, &change);
	else if (result->in_doubt)
	{
		/* Seam's list settles it, some time after we have given up */
		TimestampTz now = GetCurrentTimestamp();
		int64		since = clock_now() - flight->ended_at;
		int64		took = Max(flight->ended_at - flight->started_at,
							   now - since - row.attempted_at);

		set_error(result, &change);
		change.next_attempt_at = now - since + (int64) settings_settle_delay * 1000;
		change.attempt_timeout = (int) Min(took / 1000 + 1 + settings_settle_delay, INT_MAX / 2);
		worker.doubts_changed = true;
	}
	else if (result->sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION ||
			 flight->failure == HTTP_FAILURE_DESCRIPTORS)
	{
		/* no fault of the request */
		set_error(result, &change);
		change.attempts--;
		row.attempts = 0;
		set_not_issued(&row, true, flight->failure == HTTP_FAILURE_DESCRIPTORS ? LOCKED_PAUSE_US :
					   0, &change);
	}
	else
	{
		set_error(result, &change);
		set_not_issued(&row, flight->outcome == HTTP_NOT_SENT || flight->status == 429,
					   flight->pause, &change);
	}
	worker_change_request(&row, &change);
	return true;
}

/*
 * Store what came of a call that revokes a key.
 */
static bool
store_delete(Flight *flight)
{
	const SeamResult *result = &flight->result;
	WorkRow		row;
	WorkChange	change;
	bool		later;

	if (!lock_request(flight, &row, &later))
		return !later;
	if (row.status != STATUS_REVOKING)
		return true;
	change = worker_no_change(&row);
	change.seam_request_id = result->request_id;
	if (is_outdated(flight) && !result->deleted)
		change.next_attempt_at = GetCurrentTimestamp();
	else if (is_anothers(&row) &&
			 ((result->sqlerrcode == 0 && !result->deleted) ||
			  result->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE))
	{
		/* it may be in another workspace, and not ours to revoke any more */
		set_unsettled(&change);
		change.error = "the instant key was issued with another API key, endpoint or workspace, "
			"and is not found with the present one";
	}
	else if (result->sqlerrcode == 0)
	{
		/* also when there was no such key (any more) */
		change.status = STATUS_REVOKED;
		change.sqlerrcode = 0;
		change.finished = true;
		change.next_attempt_at = DT_NOEND;
	}
	else
	{
		/* a key that lives on is never given up */
		set_error(result, &change);
		change.next_attempt_at = GetCurrentTimestamp() + flight->pause;
	}
	worker_change_request(&row, &change);
	return true;
}

/*
 * qsort and bsearch comparator of UUIDs.
 */
int
worker_compare_uuids(const void *a, const void *b)
{
	return memcmp(a, b, UUID_LEN);
}

/*
 * What a key says of the call that issued it.
 */
static DoubtKey
doubt_key(const SeamKey *key)
{
	DoubtKey	says = {.has_profile = key->has_customization_profile_id};

	says.profile = key->customization_profile_id;
	says.created_at = key->created_at;
	return says;
}

/*
 * The keys of a list that no request and no session's call owns.  Those that are
 * perhaps owned come behind them, *nperhaps.
 */
static int
unowned_keys(Flight *flight, Candidate **candidates, int *nperhaps)
{
	Datum	   *ids = palloc(Max(flight->nkeys, 1) * sizeof(Datum));
	pg_uuid_t  *owned;
	int			nowned;
	int			n = 0;
	int			end = flight->nkeys;
	CallOwners	calls;

	*candidates = palloc(Max(flight->nkeys, 1) * sizeof(Candidate));
	for (int i = 0; i < flight->nkeys; i++)
		ids[i] = UUIDPGetDatum(&flight->keys[i].instant_key_id);
	nowned = work_owned(work_array(ids, NULL, flight->nkeys, UUIDOID), &owned);
	worker_call_owners(&flight->row.identity, flight, &calls);
	qsort(owned, nowned, sizeof(pg_uuid_t), worker_compare_uuids);
	for (int i = 0; i < flight->nkeys; i++)
	{
		SeamKey    *key = &flight->keys[i];
		Candidate	candidate = {.says = doubt_key(key),.key = key};
		bool		perhaps = false;

		CHECK_FOR_INTERRUPTS();
		if (bsearch(&key->instant_key_id, owned, nowned, sizeof(pg_uuid_t), worker_compare_uuids) ||
			bsearch(&key->instant_key_id, calls.keys, calls.nkeys, sizeof(pg_uuid_t),
					worker_compare_uuids))
			continue;
		for (int w = 0; w < calls.nwindows && !perhaps; w++)
			perhaps = doubt_fits(&calls.windows[w], &candidate.says);
		if (perhaps)
			(*candidates)[--end] = candidate;
		else
			(*candidates)[n++] = candidate;
	}
	*nperhaps = flight->nkeys - end;
	memmove(*candidates + n, *candidates + end, *nperhaps * sizeof(Candidate));
	return n;
}

/*
 * The times between which a call may have issued a key, by Seam's clock: both
 * as it was known when the call was made, and as the list's answer tells it, in
 * case one of the clocks has been set meanwhile.
 */
void
worker_set_window(const WorkRow *row, const Flight *list, Doubt *doubt)
{
	/* a time of another endpoint's clock tells nothing */
	bool		has_seam_time = row->has_seam_time && account_has_endpoint(&row->account,
																		   &list->account_id);
	bool		doubtful;
	int64		most;
	int64		least = worker_elapsed_since(row->attempted_at, &most, &doubtful);
	int64		since_end = clock_now() - list->ended_at;
	TimestampTz at_end;
	int64		uncertain;

	worker_seam_time_of(list, &at_end, &uncertain);
	doubt->from = at_end + since_end - most;
	doubt->until = at_end + since_end - least + uncertain;
	doubt->vague = !has_seam_time && most != least;
	if (has_seam_time && doubtful)
	{
		doubt->from = row->seam_time;
		doubt->until = doubt->from + uncertain;
	}
	else if (has_seam_time)
	{
		doubt->from = Min(doubt->from, row->seam_time);
		doubt->until = Max(doubt->until, row->seam_time);
	}
	doubt->from -= DOUBT_MARGIN_US;
	doubt->until += (int64) row->attempt_timeout * 1000 + DOUBT_MARGIN_US;
}

/*
 * The ids of the keys of a group, for a message.
 */
static char *
group_keys(const Candidate *candidates, int n, int group)
{
	StringInfoData ids;
	int			written = 0;

	initStringInfo(&ids);
	for (int c = 0; c < n; c++)
	{
		char		id[UUID_TEXT_LEN + 1];

		if (candidates[c].group != group)
			continue;
		if (written++ == KEYS_IN_MESSAGE)
		{
			appendStringInfoString(&ids, ", and more");
			break;
		}
		uuid_write(id, &candidates[c].key->instant_key_id);
		appendStringInfo(&ids, "%s%s", ids.len ? ", " : "", id);
	}
	return ids.data;
}

/*
 * Of n keys that are perhaps owned, the ids of those that fit the doubt, for a
 * message, or NULL.
 */
static char *
fitting_keys(const Doubt *doubt, Candidate *candidates, int n)
{
	bool		any = false;

	for (int c = 0; c < n; c++)
	{
		bool		fits = doubt_fits(doubt, &candidates[c].says);

		candidates[c].group = fits ? 0 : -1;
		any = any || fits;
	}
	return any ? group_keys(candidates, n, 0) : NULL;
}

/*
 * Why a doubt cannot be settled, and is only reported, or NULL.  perhaps: the ids of
 * keys that fit it and are perhaps owned, or NULL.
 */
static const char *
why_unsettled(const WorkRow *row, const Doubt *doubt, const Candidate *candidates,
			  int ncandidates, const char *perhaps)
{
	if (row->timeline == 0 && doubt->verdict != VERDICT_NO_KEY)
		return psprintf("the answer was lost, and it cannot be told any more whose these instant "
						"keys are: %s",
						group_keys(candidates, ncandidates, doubt->group));

	/*
	 * This may be a copy, whose origin has settled it: what is there is not
	 * ours to take or to revoke.
	 */
	if (row->timeline != (int) GetWALInsertionTimeLine() && doubt->verdict != VERDICT_NO_KEY)
		return psprintf("the answer was lost before a promotion or restore, and these instant keys "
						"may be of this request: %s",
						group_keys(candidates, ncandidates, doubt->group));
	if (doubt->verdict == VERDICT_AMBIGUOUS)
		return psprintf("the answer was lost, and another issuer is at work: any of these instant "
						"keys may be of this request: %s",
						group_keys(candidates, ncandidates, doubt->group));
	if (doubt->vague && doubt->verdict != VERDICT_NO_KEY)
		return psprintf("the answer was lost when the clock was set back, and these instant keys "
						"may be of this request: %s",
						group_keys(candidates, ncandidates, doubt->group));
	if (doubt->verdict != VERDICT_NO_KEY)
		return NULL;
	if (perhaps && row->status == STATUS_REVOKING)
		return psprintf("the answer was lost, and a call that has committed may have issued the "
						"instant keys that are there: %s", perhaps);
	if (is_anothers(row))
		return "the answer was lost, and with the present API key, endpoint and workspace, which "
			"are others, no instant key is found";
	return NULL;
}

/*
 * A doubt that was read is none any more.
 */
static void
settled(WorkRow *known)
{
	known->next_attempt_at = DT_NOEND;
	worker.nunsettled--;
	if (worker.nunsettled == 0)
		worker.ndoubts = 0;
}

/*
 * Put into a change that a key is looked for once more, some time after there was none.
 * After a copy, or when a report is looked at again, it is not known whose keys there are.
 */
static void
look_again(const WorkRow *row, const Doubt *doubt, WorkChange *change)
{
	if (row->timeline == 0)
		return;
	change->look_again = true;
	change->look_again_at = GetCurrentTimestamp() + LATE_KEYS_US;
	change->look_again_from = doubt->from;
	worker.look_again_at = Min(worker.look_again_at, change->look_again_at);
}

/*
 * A list tells nothing about this doubt, known as that: it waits for another one, unless
 * there is no such identity.
 */
static void
store_no_list(Flight *flight, const WorkRow *row, WorkRow *known)
{
	const SeamResult *result = &flight->result;
	WorkChange	change = worker_no_change(row);
	TimestampTz now = GetCurrentTimestamp();

	if (result->not_found && !is_anothers(row))
	{
		/* no identity, no key */
		set_not_issued(row, true, pace_backoff(row->attempts * 3 / 2, BACKOFF_MAX_US,
											   pg_prng_double(&pg_global_prng_state)), &change);
		settled(known);
		worker_change_request(row, &change);
		return;
	}
	if (result->sqlerrcode != 0)
		change.error = psprintf("could not look for an instant key: %s", answer_error_text(result));
	else if (!flight->has_date)
		change.error = "could not look for an instant key: Seam's answer has no Date";
	else
		change.error = "could not look for an instant key: Seam's answer took too long to tell its "
			"clock";
	if (change.sqlerrcode == 0)
		change.sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	if (is_anothers(row) &&
		(result->sqlerrcode == ERRCODE_NO_DATA_FOUND ||
		 result->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE))
	{
		/* the identity may be in another workspace */
		set_unsettled(&change);
		change.error = "the answer was lost, and with the present API key, endpoint and workspace, "
			"which are others, the user identity is not found";
		settled(known);
	}
	else
	{
		/* the longer it has waited, the longer it may wait */
		int64		waited = worker_surely_elapsed_since(row->attempted_at);

		change.next_attempt_at = now + Max(flight->pause, Min(waited / 4, BACKOFF_MAX_US));
		known->next_attempt_at = change.next_attempt_at;
	}
	worker_change_request(row, &change);
}

/*
 * Lock the requests of an identity that are in doubt, ndoubts of those from known on, and
 * see when each may have issued a key.  Fills in rows, doubts, and of: what is known of
 * each.  Returns how many are in doubt still, or -1 when a session has locked one.
 */
static int
lock_doubts(const Flight *flight, WorkRow *known, int ndoubts, WorkRow *rows, Doubt *doubts,
			WorkRow **of)
{
	int			n = 0;

	for (; ndoubts > 0; known++)
	{
		if (known->next_attempt_at == DT_NOEND)
			continue;
		ndoubts--;
		CHECK_FOR_INTERRUPTS();
		if (!work_lock(known->id, &rows[n]))
		{
			/* gone, or locked by a session: then all of them wait */
			if (work_exists(known->id))
				return -1;
			settled(known);
			continue;
		}
		if (rows[n].has_key || (rows[n].status != STATUS_IN_FLIGHT &&
								rows[n].status != STATUS_REVOKING))
		{
			settled(known);
			continue;
		}
		memset(&doubts[n], 0, sizeof(Doubt));
		doubts[n].max_use_count = rows[n].max_use_count;
		doubts[n].has_profile = rows[n].has_profile;
		doubts[n].profile = rows[n].profile;
		doubts[n].wanted = rows[n].status == STATUS_IN_FLIGHT;
		worker_set_window(&rows[n], flight, &doubts[n]);
		of[n++] = known;
	}
	return n;
}

/*
 * Settle the doubts of an identity by the list of its keys.
 */
static bool
store_list(Flight *flight)
{
	const SeamResult *result = &flight->result;
	int			ndoubts;
	WorkRow    *known = worker_doubts_of(&flight->row.identity, &ndoubts);
	WorkRow   **of = palloc(Max(ndoubts, 1) * sizeof(WorkRow *));
	WorkRow    *rows = MemoryContextAllocHuge(CurrentMemoryContext, Max(ndoubts,
																		1) * sizeof(WorkRow));
	Doubt	   *doubts = MemoryContextAllocHuge(CurrentMemoryContext, Max(ndoubts,
																		  1) * sizeof(Doubt));
	Candidate  *candidates;
	int			ncandidates;
	int			nperhaps;
	Bitmapset  *spare = NULL;	/* groups whose keys are not revoked */
	int			n;

	worker_take_answers();
	if (worker_call_is_open(&flight->row.identity) || is_outdated(flight))
		return true;			/* a session issues a key for it right now, or
								 * the account is asked that we have now */
	n = lock_doubts(flight, known, ndoubts, rows, doubts, of);
	if (n < 0)
		return false;
	if (result->sqlerrcode != 0 || !flight->has_date || !worker.clock_known)
	{
		for (int i = 0; i < n; i++)
			store_no_list(flight, &rows[i], of[i]);
		return true;
	}

	ncandidates = unowned_keys(flight, &candidates, &nperhaps);
	doubt_settle(doubts, n, candidates, ncandidates);
	for (int i = 0; i < n; i++)
	{
		WorkChange	change = worker_no_change(&rows[i]);
		const char *perhaps = fitting_keys(&doubts[i], candidates + ncandidates, nperhaps);
		const char *why = why_unsettled(&rows[i], &doubts[i], candidates, ncandidates, perhaps);

		CHECK_FOR_INTERRUPTS();
		if (why)
		{
			set_unsettled(&change);
			change.error = why;
			spare = bms_add_member(spare, doubts[i].group);
		}
		else if (doubts[i].verdict == VERDICT_ADOPT)
			set_issued(&rows[i], candidates[doubts[i].key].key, &change);
		else
		{
			set_not_issued(&rows[i], true, pace_backoff(rows[i].attempts * 3 / 2, BACKOFF_MAX_US,
														pg_prng_double(&pg_global_prng_state)),
						   &change);
			look_again(&rows[i], &doubts[i], &change);
			if (perhaps && rows[i].status == STATUS_IN_FLIGHT)
				ereport(WARNING,
						(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
						 errmsg("request " INT64_FORMAT " in database \"%s\" gets another instant "
								"key, since a synchronous call that has committed may have issued "
								"those that are there: %s",
								rows[i].id, worker.database, perhaps),
						 errdetail("The answers to both were lost.")));
		}
		settled(of[i]);
		worker_change_request(&rows[i], &change);
	}
	for (int c = 0; c < ncandidates; c++)
	{
		if (!candidates[c].revoke || bms_is_member(candidates[c].group, spare))
			continue;
		work_revoke_copy(&rows[candidates[c].group], candidates[c].key,
						 "issued by a call whose answer was lost, and it cannot be told by which "
						 "one");
		worker_due_at(&worker.revoking, GetCurrentTimestamp());
	}
	return true;
}

/*
 * Report the keys of a list that may be of a request whose answer was lost, and which
 * nobody owns.  None was there when that was settled.
 */
static void
report_late_keys(const WorkRow *row, Flight *flight)
{
	Doubt		doubt = {.has_profile = row->has_profile,.profile = row->profile,
	.from = row->look_again_from,.until = DT_NOEND};
	Candidate  *candidates;
	int			nperhaps;
	int			n = unowned_keys(flight, &candidates, &nperhaps);
	const char *report = psprintf("this instant key has appeared after the lost answer to request "
								  "" INT64_FORMAT " was settled, and nobody owns it", row->id);
	char	   *ids = fitting_keys(&doubt, candidates, n);

	if (ids == NULL)
		return;
	for (int i = 0; i < n; i++)
	{
		WorkRow		copy = *row;

		if (candidates[i].group < 0)
			continue;
		copy.id = work_report_key(row, candidates[i].key, report);
		copy.reference = NULL;
		worker_add_notice(&copy, STATUS_FAILED);
	}
	ereport(WARNING,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("an instant key that nobody owns has appeared late, perhaps of request "
					"" INT64_FORMAT " in database \"%s\": %s",
					row->id, worker.database, ids),
			 errdetail("The answer was lost, and seam_ik.settle_delay later there was no such "
					   "key."),
			 errhint("It is in the view seam_instant_key_orphan; seam_retry_instant_key_request() "
					 "revokes it.")));
}

/*
 * See by the list of an identity's keys, some time after a lost answer was settled,
 * whether a key of it has appeared since.  Where that cannot be told now, there will be
 * another list.
 */
static bool
store_late_list(Flight *flight)
{
	const SeamResult *result = &flight->result;
	const char *why = NULL;
	WorkRow		row;
	int			ndoubts;

	worker_take_answers();
	if (!work_lock(flight->row.id, &row))
		return !work_exists(flight->row.id);
	if (row.look_again_from == DT_NOEND)
		return true;
	(void) worker_doubts_of(&row.identity, &ndoubts);
	if (is_anothers(&row))
		why = "The request was made with another API key, endpoint or workspace.";
	else if (is_outdated(flight) || worker.doubts_changed || ndoubts > 0 ||
			 worker_identity_is_busy(&row.identity))
		why = "Other instant keys of the same user identity are always being issued.";
	else if (result->sqlerrcode == 0 && flight->has_date)
		report_late_keys(&row, flight);
	else if (!result->not_found)
		why = "Seam does not tell which instant keys there are.";
	if (why && !is_anothers(&row) && GetCurrentTimestamp() - row.attempted_at < LATE_KEYS_MAX_US)
		return true;
	if (why)
		ereport(WARNING,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("it cannot be told whether an instant key of request " INT64_FORMAT " in "
						"database \"%s\" has appeared late",
						row.id, worker.database),
				 errdetail("%s", why)));
	work_looked_again(row.id);
	return true;
}

/*
 * Store what came of a call, in a transaction.  Returns false when that is not
 * possible now, because a session has locked the request.
 */
bool
worker_store(Flight *flight)
{
	STOP_POINT(flight->op == SEAM_LIST ? "worker-store-list" : "worker-store");
	switch (flight->op)
	{
		case SEAM_GENERATE:
			return store_generate(flight);
		case SEAM_DELETE:
			return store_delete(flight);
		default:
			return flight->again ? store_late_list(flight) : store_list(flight);
	}
}
