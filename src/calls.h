/*-------------------------------------------------------------------------
 *
 * calls.h
 *	  Calls of Seam's API to their end: retries, pauses, timeouts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_CALLS_H
#define SEAM_IK_CALLS_H

#include "http.h"
#include "seam.h"

/* How far a set of calls is; what a cancelled statement says. */
typedef struct CallsState
{
	int64		total;
	int64		done;			/* ended, in whatever way */
	int64		issued;			/* counted by the caller */
	int64		in_doubt;		/* sent, and no answer yet */
} CallsState;

/*
 * A set of n calls of one account.  The caller fills in the first part, and
 * the callbacks see its own struct around this one.
 */
typedef struct Calls
{
	const SeamAccount *account;
	const char *url;
	int64		n;
	int			max_parallel;

	/*
	 * Write the body of call i to body, which has SEAM_GENERATE_BODY_SIZE
	 * bytes, and return its length.
	 */
	size_t		(*body) (struct Calls *calls, int64 i, char *body);

	/*
	 * Call i ended with this answer, which is gone afterwards.  Returns
	 * whether calls that were not begun yet shall be.
	 */
	bool		(*done) (struct Calls *calls, int64 i, const HttpAnswer *answer);

	CallsState	state;
} Calls;

extern void calls_run(Calls *calls);

#endif							/* SEAM_IK_CALLS_H */
