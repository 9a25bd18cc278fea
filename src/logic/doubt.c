/*-------------------------------------------------------------------------
 *
 * doubt.c
 *	  Which keys belong to calls whose answers were lost?
 *
 * Seam knows no idempotency key and a key does not say which request it came
 * from, nor how often it may be used.  What it says is its user identity, its
 * customization profile, and when it was created.  That decides, under one
 * assumption: that nobody else issues keys for the same identity at that time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/doubt.h"

/*
 * Doubts times keys of one identity that are looked at one by one; with more,
 * nobody is to wait for it.
 */
#define PAIRS_MAX 100000

/* The turns in which doubts get keys: see has_turn(). */
#define TURNS 4

/*
 * May the key be of this call?
 */
bool
doubt_fits(const Doubt *doubt, const DoubtKey *key)
{
	return doubt->has_profile == key->has_profile &&
		(!doubt->has_profile || memcmp(&doubt->profile, &key->profile, sizeof(pg_uuid_t)) == 0) &&
		key->created_at >= doubt->from && key->created_at <= doubt->until;
}

/*
 * Give a doubt a candidate, moving others' if need be (an augmenting path).
 * seen tells which candidates were tried.  Returns whether it has got one.
 */
static bool
match(Doubt *doubts, int d, Candidate *candidates, int ncandidates, bool *seen)
{
	/* one that is free, before another has to give way */
	for (int taken = 0; taken <= 1; taken++)
	{
		for (int c = 0; c < ncandidates; c++)
		{
			if (seen[c] || (candidates[c].doubt >= 0) != taken || !doubt_fits(&doubts[d],
																			  &candidates[c].says))
				continue;
			seen[c] = true;
			if (!taken || match(doubts, candidates[c].doubt, candidates, ncandidates, seen))
			{
				candidates[c].doubt = d;
				return true;
			}
		}
	}
	return false;
}

/*
 * Returns whether a doubt has its turn: first those whose keys would be in the list, and
 * of these first those that want one.
 */
static bool
has_turn(const Doubt *doubt, int turn)
{
	return doubt->elsewhere == (turn >= 2) && doubt->wanted == (turn % 2 == 0);
}

/*
 * The usual case, and that of a batch: may each key that fits be of each of the
 * doubts?  Then give the keys to them in turn.
 */
static bool
match_alike(Doubt *doubts, int ndoubts, Candidate *candidates, int ncandidates)
{
	Doubt		all = doubts[0];	/* when a key may be of all of them */
	Doubt		any = doubts[0];	/* or of any */
	int			c = 0;

	for (int d = 1; d < ndoubts; d++)
	{
		if (doubts[d].has_profile != all.has_profile ||
			(all.has_profile && memcmp(&doubts[d].profile, &all.profile, sizeof(pg_uuid_t)) != 0))
			return false;
		all.from = Max(all.from, doubts[d].from);
		all.until = Min(all.until, doubts[d].until);
		any.from = Min(any.from, doubts[d].from);
		any.until = Max(any.until, doubts[d].until);
	}
	for (c = 0; c < ncandidates; c++)
	{
		if (doubt_fits(&any, &candidates[c].says) != doubt_fits(&all, &candidates[c].says))
			return false;
	}
	for (int d = 0; d < ndoubts; d++)
		doubts[d].group = 0;
	for (c = 0; c < ncandidates; c++)
	{
		candidates[c].fits = doubt_fits(&all, &candidates[c].says);
		candidates[c].group = candidates[c].fits ? 0 : -1;
	}
	c = 0;
	for (int turn = 0; turn < TURNS; turn++)
	{
		for (int d = 0; d < ndoubts; d++)
		{
			if (!has_turn(&doubts[d], turn))
				continue;
			while (c < ncandidates && !candidates[c].fits)
				c++;
			if (c < ncandidates)
				candidates[c++].doubt = d;
		}
	}
	return true;
}

/*
 * Group the doubts and keys that may belong together, and give as many doubts as
 * possible a key, in turn.
 */
static void
match_groups(Doubt *doubts, int ndoubts, Candidate *candidates, int ncandidates)
{
	bool	   *seen = palloc(Max(ncandidates, 1) * sizeof(bool));
	bool		merged = true;

	/* a group has the number of its first doubt */
	while (merged)
	{
		merged = false;
		for (int d = 0; d < ndoubts; d++)
		{
			for (int c = 0; c < ncandidates; c++)
			{
				int			group;

				if (!doubt_fits(&doubts[d], &candidates[c].says))
					continue;
				group = candidates[c].fits ? Min(doubts[d].group, candidates[c].group) :
					doubts[d].group;
				merged = merged || !candidates[c].fits || doubts[d].group != group ||
					candidates[c].group != group;
				candidates[c].fits = true;
				doubts[d].group = candidates[c].group = group;
			}
		}
	}
	for (int turn = 0; turn < TURNS; turn++)
	{
		for (int d = 0; d < ndoubts; d++)
		{
			if (!has_turn(&doubts[d], turn))
				continue;
			memset(seen, false, ncandidates * sizeof(bool));
			(void) match(doubts, d, candidates, ncandidates, seen);
		}
	}
	pfree(seen);
}

/*
 * Decide about the doubts of one identity, and about the keys that nobody owns.
 *
 * Doubts and keys that may belong together, directly or through others, are one
 * group, for which one thing is decided: with more keys than doubts another
 * issuer is at work; where all its doubts asked for the same, any of them may
 * have any of its keys; else nobody can tell whose key is whose.
 */
void
doubt_settle(Doubt *doubts, int ndoubts, Candidate *candidates, int ncandidates)
{
	bool		too_many = (int64) ndoubts * ncandidates > PAIRS_MAX;

	for (int d = 0; d < ndoubts; d++)
	{
		doubts[d].group = d;
		doubts[d].verdict = VERDICT_NO_KEY;
	}
	for (int c = 0; c < ncandidates; c++)
	{
		candidates[c].fits = candidates[c].revoke = false;
		candidates[c].doubt = candidates[c].group = -1;
	}
	if (ndoubts == 0)
		return;
	if (!match_alike(doubts, ndoubts, candidates, ncandidates))
	{
		if (!too_many)
			match_groups(doubts, ndoubts, candidates, ncandidates);
		else
		{
			/* all of it is one group, in which keys have no owners */
			for (int d = 0; d < ndoubts; d++)
				doubts[d].group = 0;
			for (int c = 0; c < ncandidates; c++)
				candidates[c].group = 0;
		}
	}

	for (int group = 0; group < ndoubts; group++)
	{
		Verdict		verdict = VERDICT_NO_KEY;
		const Doubt *first = NULL;
		bool		any = false;	/* there is a key */

		if (doubts[group].group != group)
			continue;
		for (int d = 0; d < ndoubts; d++)
		{
			if (doubts[d].group != group)
				continue;
			if (first && first->max_use_count != doubts[d].max_use_count)
				verdict = VERDICT_REISSUE;
			else if (first == NULL)
				first = &doubts[d];
		}
		for (int c = 0; c < ncandidates; c++)
		{
			if (candidates[c].group != group)
				continue;
			any = true;
			if (candidates[c].doubt < 0)
				verdict = VERDICT_AMBIGUOUS;
		}
		if (!any)
			verdict = VERDICT_NO_KEY;
		for (int d = 0; d < ndoubts; d++)
		{
			if (doubts[d].group == group)
				doubts[d].verdict = verdict;
		}
		for (int c = 0; c < ncandidates; c++)
		{
			if (candidates[c].group != group)
				continue;
			candidates[c].revoke = verdict == VERDICT_REISSUE;
			if (verdict == VERDICT_NO_KEY)
			{
				doubts[candidates[c].doubt].verdict = VERDICT_ADOPT;
				doubts[candidates[c].doubt].key = c;
			}
		}
	}
}
