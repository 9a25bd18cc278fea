/*-------------------------------------------------------------------------
 *
 * answer.c
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

#include "logic/answer.h"

/*
 * Returns what became of a request.
 */
AnswerKind
answer_kind(const AnswerFacts *facts)
{
	/* The first row that matches decides; the statuses are of whole answers. */
	static const struct
	{
		int			from;
		int			to;
		AnswerKind	kind;
	}			statuses[] = {
		{300, 400, ANSWER_REFUSED},
		{401, 401, ANSWER_KEY_REFUSED},
		{402, 407, ANSWER_REFUSED},
		{409, 428, ANSWER_REFUSED},
		{429, 429, ANSWER_LIMITED},
		{430, 499, ANSWER_REFUSED},
	};

	if (facts->no_descriptor)
		return ANSWER_NO_DESCRIPTOR;
	if (!facts->sent)
		return ANSWER_NOT_SENT;
	if (!facts->whole)
		return ANSWER_DOUBT;
	if (facts->status >= 200 && facts->status <= 299)
		return facts->usable ? ANSWER_DONE : ANSWER_DOUBT;
	if (facts->status == 404 && facts->nothing_there)
		return ANSWER_NOTHING_THERE;
	for (int i = 0; i < (int) lengthof(statuses); i++)
	{
		if (facts->status >= statuses[i].from && facts->status <= statuses[i].to)
			return statuses[i].kind;
	}
	return ANSWER_DOUBT;
}

/*
 * Returns whether a request may be made once more, and whether that may help.
 */
bool
answer_try_again(const AnswerFacts *facts, bool idempotent)
{
	if (facts->hopeless)
		return false;
	switch (answer_kind(facts))
	{
		case ANSWER_NOT_SENT:
		case ANSWER_NO_DESCRIPTOR:
		case ANSWER_LIMITED:
			return true;
		case ANSWER_DOUBT:
			return idempotent;
		default:
			return false;
	}
}
