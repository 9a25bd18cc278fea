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

#include "doubt.h"

/*
 * May the key be of this call?
 */
static bool
fits(const Doubt *doubt, const SeamKey *key)
{
	return doubt->has_profile == key->has_customization_profile_id &&
		(!doubt->has_profile ||
		 memcmp(&doubt->profile, &key->customization_profile_id, sizeof(pg_uuid_t)) == 0) &&
		key->created_at >= doubt->from && key->created_at <= doubt->until;
}

/*
 * Give a doubt a candidate, moving others' if need be (an augmenting path).
 * seen tells which candidates were tried.  Returns whether it has got one.
 */
static bool
match(Doubt *doubts, int d, Candidate *candidates, int ncandidates, bool *seen)
{
	for (int c = 0; c < ncandidates; c++)
	{
		if (seen[c] || !fits(&doubts[d], candidates[c].key))
			continue;
		seen[c] = true;
		if (candidates[c].doubt < 0 ||
			match(doubts, candidates[c].doubt, candidates, ncandidates, seen))
		{
			candidates[c].doubt = d;
			return true;
		}
	}
	return false;
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
	bool	   *seen = palloc(Max(ncandidates, 1) * sizeof(bool));
	bool		merged = true;

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

	/* a group has the number of its first doubt */
	while (merged)
	{
		merged = false;
		for (int d = 0; d < ndoubts; d++)
		{
			for (int c = 0; c < ncandidates; c++)
			{
				int			group;

				if (!fits(&doubts[d], candidates[c].key))
					continue;
				group = candidates[c].fits ? Min(doubts[d].group, candidates[c].group) : doubts[d].group;
				merged = merged || !candidates[c].fits || doubts[d].group != group || candidates[c].group != group;
				candidates[c].fits = true;
				doubts[d].group = candidates[c].group = group;
			}
		}
	}

	/* a key goes rather to who wants it */
	for (int wanted = 1; wanted >= 0; wanted--)
	{
		for (int d = 0; d < ndoubts; d++)
		{
			memset(seen, false, ncandidates * sizeof(bool));
			if (doubts[d].wanted == wanted)
				(void) match(doubts, d, candidates, ncandidates, seen);
		}
	}

	for (int group = 0; group < ndoubts; group++)
	{
		Verdict		verdict = VERDICT_NO_KEY;
		const Doubt *first = NULL;

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
			if (candidates[c].group == group && candidates[c].doubt < 0)
				verdict = VERDICT_AMBIGUOUS;
		}
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
	pfree(seen);
}
