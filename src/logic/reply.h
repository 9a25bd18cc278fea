/*-------------------------------------------------------------------------
 *
 * reply.h
 *	  What an answer says of the request: was it done, was it not, or is that in
 *	  doubt?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_REPLY_H
#define SEAM_IK_REPLY_H

/* What the transport tells of the end of a request, and the parser of its answer. */
typedef struct ReplyFacts
{
	/* Whether a byte of the request may have left. */
	bool		sent;

	/*
	 * Whether a whole answer came, and its HTTP status; 0 where not even that
	 * came.
	 */
	bool		whole;
	int			status;

	/* Whether the body is what the API promises for a status of 2xx. */
	bool		usable;

	/*
	 * Whether Seam itself says that there is no such thing (404 with an error
	 * object).
	 */
	bool		nothing_there;

	/* Whether this process had no file descriptor for a connection. */
	bool		no_descriptor;

	/*
	 * Whether another try would end the same way: out of time, certificate,
	 * too large.
	 */
	bool		hopeless;
} ReplyFacts;

/* What became of a request. */
typedef enum ReplyKind
{
	REPLY_DONE,					/* it was done */
	REPLY_NOTHING_THERE,		/* nothing was done, for what it is about does
								 * not exist */
	REPLY_NOT_SENT,				/* nothing was done: it did not leave */
	REPLY_NO_DESCRIPTOR,		/* the same, for want of a file descriptor */
	REPLY_LIMITED,				/* nothing was done: the rate is limited */
	REPLY_KEY_REFUSED,			/* nothing was done: the API key is not
								 * accepted */
	REPLY_REFUSED,				/* nothing was done */
	REPLY_DOUBT,				/* it may have been done */
	REPLY_KINDS
} ReplyKind;

extern ReplyKind reply_kind(const ReplyFacts *facts);
extern bool reply_try_again(const ReplyFacts *facts, bool idempotent);

#endif							/* SEAM_IK_REPLY_H */
