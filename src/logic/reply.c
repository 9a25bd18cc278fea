/*-------------------------------------------------------------------------
 *
 * reply.c
 *	  What an answer says of the request: was it done, was it not, or is that in
 *	  doubt?
 *
 * This is the one place that knows what "in doubt" is.  A request for a key is
 * not idempotent, and Seam knows no idempotency key, so what is not surely in
 * another row of the table is in doubt: a status of 5xx, or 408, may come from a
 * proxy that has given up waiting, and a body that cannot be read may be about a
 * key.  A redirect is never followed; Seam does nothing before it answers one,
 * and neither does it before it answers with any other status of 4xx.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/reply.h"

/*
 * Returns what became of a request.
 */
ReplyKind
reply_kind(const ReplyFacts *facts)
{
	/* The first row that matches decides; the statuses are of whole answers. */
	static const struct
	{
		int			from;
		int			to;
		ReplyKind	kind;
	}			statuses[] = {
		{300, 400, REPLY_REFUSED},
		{401, 401, REPLY_KEY_REFUSED},
		{402, 407, REPLY_REFUSED},
		{409, 428, REPLY_REFUSED},
		{429, 429, REPLY_LIMITED},
		{430, 499, REPLY_REFUSED},
	};

	if (facts->no_descriptor)
		return REPLY_NO_DESCRIPTOR;
	if (!facts->sent)
		return REPLY_NOT_SENT;
	if (!facts->whole)
		return REPLY_DOUBT;
	if (facts->status >= 200 && facts->status <= 299)
		return facts->usable ? REPLY_DONE : REPLY_DOUBT;
	if (facts->status == 404 && facts->nothing_there)
		return REPLY_NOTHING_THERE;
	for (int i = 0; i < (int) lengthof(statuses); i++)
	{
		if (facts->status >= statuses[i].from && facts->status <= statuses[i].to)
			return statuses[i].kind;
	}
	return REPLY_DOUBT;
}

/*
 * Returns whether a request may be made once more, and whether that may help.
 */
bool
reply_try_again(const ReplyFacts *facts, bool idempotent)
{
	if (facts->hopeless)
		return false;
	switch (reply_kind(facts))
	{
		case REPLY_NOT_SENT:
		case REPLY_NO_DESCRIPTOR:
		case REPLY_LIMITED:
			return true;
		case REPLY_DOUBT:
			return idempotent;
		default:
			return false;
	}
}
