/*-------------------------------------------------------------------------
 *
 * outcome.h
 *	  What becomes of a request, after an answer, and after a list of keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_OUTCOME_H
#define SEAM_IK_OUTCOME_H

#include "datatype/timestamp.h"
#include "logic/reply.h"
#include "logic/doubt.h"

/* A key may appear after there was none: it is looked for so much later; microseconds. */
#define OUTCOME_LATE_US (300 * INT64CONST(1000000))

/* The states of a request: column status of the outbox. */
typedef enum RequestStatus
{
	STATUS_PENDING,				/* waits for an attempt */
	STATUS_IN_FLIGHT,			/* an attempt was made; its answer is not
								 * known */
	STATUS_ISSUED,				/* has its key */
	STATUS_FAILED,				/* has none, or (08007) nobody knows */
	STATUS_CANCELLED,			/* no key was asked for, or a person has
								 * looked */
	STATUS_REVOKING,			/* its key is to be revoked, if it has one */
	STATUS_REVOKED,				/* no key of it is alive */
	STATUS_COUNT
} RequestStatus;

/* Of which history is the attempt: the server's that we are, or another one's? */
typedef enum OutcomeOrigin
{
	ORIGIN_OURS,				/* this timeline */
	ORIGIN_BEFORE,				/* another one: there was a promotion or a
								 * restore */
	ORIGIN_UNKNOWN				/* a copy was adopted, or a report is looked
								 * at again */
} OutcomeOrigin;

/* A request, as its row is now. */
typedef struct OutcomeRequest
{
	RequestStatus status;

	/*
	 * Whether a session's call has asked for the key, in a transaction that
	 * has committed, and its answer was lost.
	 */
	bool		is_call;

	/* Whether a key is its own already. */
	bool		has_key;

	/* Whether a row of a user waits for the key. */
	bool		has_target;

	/* How many attempts were made. */
	int			attempts;

	/* It renews a key that is alive, and is tried for as long as that is. */
	bool		persists;

	/*
	 * Whether the last one was made with another account than the present
	 * one, or perhaps so.
	 */
	bool		anothers;
	OutcomeOrigin origin;

	/* Its error, as a SQLSTATE; 0: none. */
	int			sqlerrcode;

	/* When it is due; DT_NOBEGIN: at once; DT_NOEND: not at all. */
	TimestampTz next_attempt_at;

	/* How long it would wait before another attempt, in microseconds. */
	int64		backoff;
} OutcomeRequest;

/* What is to be done. */
typedef enum OutcomeAct
{
	OUTCOME_CHANGE,				/* change the request, as the rest tells */
	OUTCOME_WAIT,				/* nothing now: a session has locked the
								 * request */
	OUTCOME_NOTHING,			/* nothing at all */
	OUTCOME_REVOKE_COPY			/* the key that was issued is nobody's: have
								 * it revoked */
} OutcomeAct;

/* Which error the request has then.  The worker has the words. */
typedef enum OutcomeText
{
	TEXT_KEPT,					/* the one that it has */
	TEXT_NONE,					/* none */
	TEXT_FOUND,					/* the call's key, whose answer was lost, was
								 * found */
	TEXT_ANSWER,				/* what the answer says */

	/* of a list that tells nothing */
	TEXT_LIST_FAILED,			/* what the list's answer says */
	TEXT_LIST_WITHOUT_DATE,
	TEXT_LIST_TOO_SLOW,			/* and Seam's clock is not known */

	/* reports: a person has to look */
	TEXT_KEY_ELSEWHERE,			/* the key is not found with the present
								 * account */
	TEXT_IDENTITY_ELSEWHERE,	/* nor is the user identity */
	TEXT_NO_KEY_ELSEWHERE,		/* nor is any key of it */
	TEXT_WHOSE,					/* it is not known any more whose the keys are */
	TEXT_BEFORE_PROMOTION,
	TEXT_OTHER_ISSUER,
	TEXT_CLOCK_SET_BACK,
	TEXT_WHICH_CALL				/* it cannot be told by which call */
} OutcomeText;

/* What becomes of a request. */
typedef struct Outcome
{
	OutcomeAct	act;
	RequestStatus status;

	/* As in OutcomeRequest. */
	TimestampTz next_attempt_at;
	int			attempts;

	/* Whether it has come to its end, but for its row. */
	bool		finished;

	/* Whether the key of the answer, or the one that was found, is its own. */
	bool		takes_key;

	/* Its error, and the SQLSTATE where the error is not what an answer says. */
	OutcomeText text;
	int			sqlerrcode;

	/*
	 * Milliseconds from the attempt on in which a key may be created; 0: as
	 * recorded.
	 */
	int			attempt_timeout;

	/* Whether a key is looked for once more, and when. */
	bool		look_again;
	TimestampTz look_again_at;
} Outcome;

/* The end of a call that issues, or revokes, a key. */
typedef struct OutcomeCall
{
	/*
	 * Whether the request that was claimed is there still, and could be
	 * locked.
	 */
	bool		found;
	bool		locked_by_others;

	/* What came of the call, and whether Seam has refused it by 403. */
	ReplyKind	kind;
	bool		forbidden;

	/*
	 * Whether it was made in a workspace that the request was given: then a
	 * 401 may say that the API key is not for that one.
	 */
	bool		may_be_workspace;

	/* Whether the account has changed since it was sent. */
	bool		outdated;

	/*
	 * Before another try, as the answer and the attempts have it;
	 * microseconds.
	 */
	int64		pause;

	/*
	 * Whether the attempt does not count, because Seam was away when it was
	 * made.
	 */
	bool		is_free;

	/* seam_ik.max_attempts */
	int			max_attempts;

	/* The local time now, and how long ago the call ended; microseconds. */
	TimestampTz now;
	int64		ended_ago;

	/* From the claim until the key must be in Seam's list; milliseconds. */
	int			timeout;

	/* Of that, after the call has ended: seam_ik.settle_delay; milliseconds. */
	int			settle_delay;
} OutcomeCall;

/* A list of an identity's keys, and when it is looked at. */
typedef struct OutcomeList
{
	/* What came of it, and its status. */
	ReplyKind	kind;
	int			status;

	/* Whether its answer has a Date, and Seam's clock is known. */
	bool		has_date;
	bool		clock_known;

	/* Before another list, as the answer has it; microseconds. */
	int64		pause;

	/* Whether all wait for Seam to be back, and this doubt for nothing else. */
	bool		is_free;

	int			max_attempts;
	TimestampTz now;
} OutcomeList;

/* What becomes of a request whose key is looked for once more. */
typedef enum LateOutcome
{
	LATE_WAIT,					/* nothing now: a session has locked the
								 * request */
	LATE_GONE,					/* nothing at all */
	LATE_AGAIN,					/* another list will tell */
	LATE_LOOK,					/* report what is there; that is the end */
	LATE_END,					/* that is the end */
	LATE_UNKNOWN_ACCOUNT,		/* the end; it cannot be told, for these
								 * reasons */
	LATE_UNKNOWN_BUSY,
	LATE_UNKNOWN_LIST
} LateOutcome;

/* A second list, some time after there was no key. */
typedef struct LateFacts
{
	bool		found;
	bool		locked_by_others;

	/* Whether a key is looked for still. */
	bool		wanted;
	bool		anothers;

	/* Whether the account has changed since the list was sent. */
	bool		outdated;

	/* Whether another key of the identity is being issued, or may be. */
	bool		busy;

	/* What came of the list, and whether it has a Date. */
	ReplyKind	kind;
	bool		has_date;

	/* How long ago the attempt was made, at least; microseconds. */
	int64		age;
} LateFacts;

extern Outcome outcome_of_generate(const OutcomeCall *call, const OutcomeRequest *request);
extern Outcome outcome_of_delete(const OutcomeCall *call, const OutcomeRequest *request);
extern bool outcome_list_tells(const OutcomeList *list);
extern Outcome outcome_of_no_list(const OutcomeList *list, const OutcomeRequest *request,
								  int64 waited);
extern void outcome_of_list(const OutcomeList *list, const OutcomeRequest *requests, int n,
							Doubt *doubts, Candidate *candidates, int ncandidates,
							Outcome *outcomes);
extern LateOutcome outcome_of_late_list(const LateFacts *facts);

#endif							/* SEAM_IK_OUTCOME_H */
