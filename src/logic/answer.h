/*-------------------------------------------------------------------------
 *
 * answer.h
 *	  What an answer says of the request: was it done, was it not, or is that in
 *	  doubt?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ANSWER_H
#define SEAM_IK_ANSWER_H

/* What the transport tells of the end of a request, and the parser of its answer. */
typedef struct AnswerFacts
{
	/* Whether a byte of the request may have left. */
	bool		sent;

	/* Whether a whole answer came, and its HTTP status; 0 where not even that came. */
	bool		whole;
	int			status;

	/* Whether the body is what the API promises for a status of 2xx. */
	bool		usable;

	/* Whether Seam itself says that there is no such thing (404 with an error object). */
	bool		nothing_there;

	/* Whether this process had no file descriptor for a connection. */
	bool		no_descriptor;

	/* Whether another try would end the same way: out of time, certificate, too large. */
	bool		hopeless;
} AnswerFacts;

/* What became of a request. */
typedef enum AnswerKind
{
	ANSWER_DONE,				/* it was done */
	ANSWER_NOTHING_THERE,		/* nothing was done, for what it is about does not exist */
	ANSWER_NOT_SENT,			/* nothing was done: it did not leave */
	ANSWER_NO_DESCRIPTOR,		/* the same, for want of a file descriptor */
	ANSWER_LIMITED,				/* nothing was done: the rate is limited */
	ANSWER_KEY_REFUSED,			/* nothing was done: the API key is not accepted */
	ANSWER_REFUSED,				/* nothing was done */
	ANSWER_DOUBT,				/* it may have been done */
	ANSWER_KINDS
} AnswerKind;

extern AnswerKind answer_kind(const AnswerFacts *facts);
extern bool answer_try_again(const AnswerFacts *facts, bool idempotent);

#endif							/* SEAM_IK_ANSWER_H */
