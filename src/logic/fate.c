/*-------------------------------------------------------------------------
 *
 * fate.c
 *	  What becomes of an intent when its transaction has ended.
 *
 * There are two witnesses.  A committed request of the call: the key has its owner.
 * The commit log, where there is no such request: the key of what rolled back is
 * revoked.  Where both are silent, or contradict each other, a person has to look: a
 * key that is wrongly revoked locks a guest out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/fate.h"

/* What a fact must be for a row of the table below to match. */
typedef enum FateWanted
{
	ANY,
	NO,
	YES
} FateWanted;

/* A row of the table: the first one that matches decides. */
typedef struct FateRule
{
	int			xact;			/* FateXact, or -1: any */
	FateWanted	has_row;
	FateWanted	may_have_key;
	FateWanted	is_ours;
	FateWanted	same_timeline;
	Fate		fate;
} FateRule;

static const FateRule rules[] = {
	/* its request may be there, and not be seen yet */
	{FATE_XACT_OPEN, ANY, ANY, ANY, ANY, FATE_WAIT},
	{-1, YES, ANY, ANY, ANY, FATE_DELETE},
	{-1, NO, NO, ANY, ANY, FATE_DELETE},
	{FATE_XACT_COMMITTED, NO, YES, ANY, ANY, FATE_REPORT_DELETED},
	/* in a copy what was open looks as if it had rolled back */
	{-1, NO, YES, NO, ANY, FATE_REPORT_COPY},
	{FATE_XACT_UNKNOWN, NO, YES, YES, ANY, FATE_REPORT_OLD},

	/*
	 * the commit may be lost with the former primary, and the client told of
	 * it
	 */
	{FATE_XACT_ABORTED, NO, YES, YES, NO, FATE_REPORT_TIMELINE},
	{FATE_XACT_ABORTED, NO, YES, YES, YES, FATE_REVOKE},
};

/*
 * Is the fact as the rule wants it?
 */
static bool
fits(FateWanted wanted, bool fact)
{
	return wanted == ANY || (wanted == YES) == fact;
}

/*
 * Returns what is to be done about an intent of which these facts are known.
 */
Fate
fate_of(const FateFacts *facts)
{
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		const FateRule *rule = &rules[i];

		if ((rule->xact < 0 || rule->xact == (int) facts->xact) &&
			fits(rule->has_row, facts->has_row) &&
			fits(rule->may_have_key, facts->may_have_key) &&
			fits(rule->is_ours, facts->is_ours) &&
			fits(rule->same_timeline, facts->same_timeline))
			return rule->fate;
	}
	return FATE_WAIT;			/* not reached: the table is complete */
}
