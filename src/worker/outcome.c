/*-------------------------------------------------------------------------
 *
 * outcome.c
 *	  The changes that outcomes make to a request.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "config/settings.h"
#include "utils/timestamp.h"
#include "worker/credentials.h"
#include "worker/outcome.h"

/*
 * The change to a request that a key was issued for, or adopted.
 */
void
outcome_issued(const WorkRow *row, const SeamKey *key, WorkChange *change)
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
void
outcome_not_issued(const WorkRow *row, bool retry, int64 pause, WorkChange *change)
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
 * Put a failure into a change.
 */
void
outcome_error(const SeamResult *result, WorkChange *change)
{
	change->sqlerrcode = result->sqlerrcode;
	change->error = answer_error_text(result);
}

/*
 * Put into a change that a person has to look: its error is to be set.
 */
void
outcome_unsettled(WorkChange *change)
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
bool
outcome_is_anothers(const WorkRow *row)
{
	return account_match(&row->account, credentials_id()) != ACCOUNT_OURS;
}

/*
 * Did the account change while this call was under way?  Then what it has not found
 * tells nothing about the account that we have now.
 */
bool
outcome_is_outdated(const Flight *flight)
{
	return !account_is_same(&flight->account_id, credentials_id());
}
