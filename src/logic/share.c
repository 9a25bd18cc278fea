/*-------------------------------------------------------------------------
 *
 * share.c
 *	  Which requests are sent next, where not all may be sent at once?
 *
 * New keys, revocations and lists share what may be sent.  The next one goes to the
 * kind that is due and has had least, so that of two kinds that are due neither gets
 * more than half, whatever the other one's queue is like, and one that begins to be
 * due is served at once.  What a kind did not need is not owed to it later.
 *
 * No kind may have more than half of the requests under way while another one is due,
 * and lists never: what hangs shall not keep the others from being sent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/share.h"

/*
 * Is a kind other than this one due?
 */
static bool
another_is_due(const ShareNeed *need, int kind)
{
	for (int other = 0; other < SHARE_KINDS; other++)
	{
		if (other != kind && need->due[other])
			return true;
	}
	return false;
}

/*
 * Returns how many of one kind may be under way while another one is due, of so many at
 * all.
 */
static int
half_of(int limit)
{
	return Max((limit + 1) / 2, 1);
}

/*
 * Returns how many lists may be under way, of so many requests at all.
 */
int
share_most_lists(int limit)
{
	return half_of(limit);
}

/*
 * What has had least of those that are due and below its part of the requests under
 * way, or -1.
 */
static int
next_kind(const Share *share, const ShareNeed *need, const int *dealt)
{
	int			half = half_of(need->limit);
	int			next = -1;

	for (int kind = 0; kind < SHARE_KINDS; kind++)
	{
		bool		limited = kind == SHARE_LIST || another_is_due(need, kind);

		if (!need->due[kind] || (limited && need->flying[kind] + dealt[kind] >= half))
			continue;
		if (next < 0 || share->had[kind] + dealt[kind] < share->had[next] + dealt[next])
			next = kind;
	}
	return next;
}

/*
 * Deal at most n requests that may be sent now: how many of each kind goes to dealt.
 * What is sent of them share_take() is told.
 */
void
share_deal(Share *share, const ShareNeed *need, int n, int *dealt)
{
	int64		least = PG_INT64_MAX;
	int			next;

	memset(dealt, 0, SHARE_KINDS * sizeof(int));
	for (int kind = 0; kind < SHARE_KINDS; kind++)
	{
		if (need->due[kind])
			least = Min(least, share->had[kind]);
	}
	for (int kind = 0; kind < SHARE_KINDS && least != PG_INT64_MAX; kind++)
	{
		if (!need->due[kind])
			share->had[kind] = Max(share->had[kind], least);
	}
	for (; n > 0 && (next = next_kind(share, need, dealt)) >= 0; n--)
		dealt[next]++;
}

/*
 * So many of a kind are sent.
 */
void
share_take(Share *share, ShareKind kind, int n)
{
	share->had[kind] += n;
}
