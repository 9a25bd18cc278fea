/*-------------------------------------------------------------------------
 *
 * exchange.h
 *	  One request to Seam, or n, carried to the end: retries, pauses, timeouts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_EXCHANGE_H
#define SEAM_IK_EXCHANGE_H

#include "net/http.h"
#include "seam/seam.h"

/*
 * An exchange of n requests of one kind and account.  The caller fills in the
 * first two parts; its callbacks may see a struct of its own around this one.
 */
typedef struct Exchange
{
	const SeamAccount *account; /* whose requests they are */
	SeamOp		op;				/* of all of them */
	int64		n;				/* how many there are */
	int			max_parallel;	/* under way at once */
	int			connect_timeout;	/* milliseconds, of each try */
	int			request_timeout;	/* milliseconds, of each request with its
									 * retries and pauses */
	int			max_retries;	/* of each request */
	size_t		max_answer;		/* bytes */
	int			progress_interval;	/* milliseconds between notices, 0: none */

	/*
	 * Fills in request i, whose op is set; what it points to need not outlive
	 * the callback.
	 */
	void		(*request) (struct Exchange *exchange, int64 i, SeamRequest *request);

	/*
	 * Takes the end of request i: its answer, which is gone afterwards.
	 * earlier_doubt: a try before the last one may have done it (idempotent
	 * requests only).  Returns whether anything more shall be sent.
	 */
	bool		(*done) (struct Exchange *exchange, int64 i, const HttpAnswer *answer,
						 bool earlier_doubt);

	/*
	 * Takes a 429 that keeps the requests that were not filled in yet from
	 * beginning for too long: they are not made.  Not needed for a single
	 * one.
	 */
	void		(*held_up) (struct Exchange *exchange, const HttpAnswer *answer);

	/*
	 * Takes the end of a try of any request; again: it was not its first one.
	 * NULL: nobody wants to know.
	 */
	void		(*tried) (struct Exchange *exchange, const HttpAnswer *answer, bool again);

	/* What to say of a statement that does not come to its end. */
	int64		ended;			/* requests that ended, in whatever way */
	int64		succeeded;		/* of these, counted by done */
	int64		in_doubt;		/* of these, counted by done */
	pg_uuid_t	issued_id;		/* the last key, set by done */
	int64		sent;			/* under way and sent */
} Exchange;

extern void exchange_run(Exchange *exchange);
extern void exchange_check_interrupts(Exchange *exchange);

#endif							/* SEAM_IK_EXCHANGE_H */
