/*-------------------------------------------------------------------------
 *
 * calls.h
 *	  Calls of Seam's API to their end: retries, pauses, timeouts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_CALLS_H
#define SEAM_IK_CALLS_H

#include "net/http.h"
#include "seam/seam.h"

/*
 * A set of n calls of one kind and account.  The caller fills in the first
 * part; its callbacks may see a struct of its own around this one.
 */
typedef struct Calls
{
	const SeamAccount *account;
	SeamOp		op;
	int64		n;
	int			max_parallel;
	size_t		max_answer;		/* bytes */
	int			progress_interval;	/* milliseconds between notices, 0: none */

	/* Fill in the request of call i, whose op is set; it is written at once. */
	void		(*request) (struct Calls *calls, int64 i, SeamRequest *request);

	/*
	 * Call i ended with this answer, which is gone afterwards. earlier_doubt:
	 * a try before the last one may have done it (idempotent calls only).
	 * Returns whether anything more shall be sent.
	 */
	bool		(*done) (struct Calls *calls, int64 i, const HttpAnswer *answer,
						 bool earlier_doubt);

	/*
	 * This answer, a 429 or a 503 with Retry-After, keeps the calls for which no request has been
	 * filled in from beginning for too long: they are not made.  Not needed
	 * for a single call.
	 */
	void		(*held_up) (struct Calls *calls, const HttpAnswer *answer);

	/* What to say of a statement that does not come to its end. */
	int64		ended;			/* calls that ended, in whatever way */
	int64		succeeded;		/* of these, counted by done */
	int64		in_doubt;		/* of these, counted by done */
	pg_uuid_t	issued_id;		/* the last key, set by done */
	int64		sent;			/* under way and sent */
} Calls;

extern void calls_run(Calls *calls);
extern void calls_check_interrupts(Calls *calls);

#endif							/* SEAM_IK_CALLS_H */
