/*-------------------------------------------------------------------------
 *
 * test_share.c
 *	  Which requests are sent next: cases, and random queues with a judge.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/share.h"
#include "unit.h"

/* One deal after another, all of which are sent. */
typedef struct Deal
{
	const char *what;
	int			limit;
	int			flying[SHARE_KINDS];
	bool		due[SHARE_KINDS];
	int			n;
	int			dealt[SHARE_KINDS]; /* expected */
}			Deal;

static const Deal deals[] = {
	{"nothing is due", 100, {0, 0, 0}, {false, false, false}, 100, {0, 0, 0}},
	{"new keys alone get all", 100, {0, 0, 0}, {true, false, false}, 100, {100, 0, 0}},
	{"revocations alone, too", 100, {0, 0, 0}, {false, true, false}, 100, {0, 100, 0}},
	{"lists half of what may fly", 100, {0, 0, 0}, {false, false, true}, 100, {0, 0, 50}},
	{"and no more where they fly", 100, {0, 0, 50}, {false, false, true}, 50, {0, 0, 0}},
	{"nothing may be sent", 100, {0, 0, 0}, {true, true, true}, 0, {0, 0, 0}},
	{"a new key goes before revocations that have had all", 100, {0, 9, 0}, {true, true, false}, 1,
	{1, 0, 0}},
	{"new keys leave the others half", 100, {0, 0, 0}, {true, true, false}, 10, {5, 5, 0}},
	{"lists are a third kind", 100, {0, 0, 0}, {true, true, true}, 9, {3, 3, 3}},
	{"who has half in flight waits", 100, {50, 0, 0}, {true, true, false}, 10, {0, 10, 0}},
	{"unless no other is due", 100, {50, 0, 0}, {true, false, false}, 10, {10, 0, 0}},
	{"one at a time: new", 1, {0, 0, 0}, {true, true, true}, 1, {1, 0, 0}},
	{"then a revocation", 1, {0, 0, 0}, {true, true, true}, 1, {0, 1, 0}},
	{"then a list", 1, {0, 0, 0}, {true, true, true}, 1, {0, 0, 1}},
	{"then new again", 1, {0, 0, 0}, {true, true, true}, 1, {1, 0, 0}},
};

/* The first of those where one may be sent at a time. */
#define FIRST_SINGLE 11

static void
test_deals(void)
{
	for (int i = 0; i < (int) lengthof(deals); i++)
	{
		const		Deal *deal = &deals[i];
		Share		share = {{0}};
		ShareNeed	need = {.limit = deal->limit};
		int			dealt[SHARE_KINDS];
		int			from = deal->limit > 1 ? i : FIRST_SINGLE;

		/* those of one at a time follow each other, the others begin anew */
		for (int before = from; before <= i; before++)
		{
			memcpy(need.flying, deals[before].flying, sizeof(need.flying));
			memcpy(need.due, deals[before].due, sizeof(need.due));
			share_deal(&share, &need, deals[before].n, dealt);
			for (int kind = 0; kind < SHARE_KINDS; kind++)
				share_take(&share, kind, dealt[kind]);
		}
		unit_check(memcmp(dealt, deal->dealt, sizeof(dealt)) == 0, "%s: %d %d %d", deal->what,
				   dealt[0], dealt[1], dealt[2]);
	}
}

/*
 * A kind that is not due for a moment keeps what it has had more than another one.
 */
static void
test_pause(void)
{
	Share		share = {{0}};
	ShareNeed	need = {.limit = 100};
	int			dealt[SHARE_KINDS];

	share_take(&share, SHARE_NEW, 5);
	need.due[SHARE_REVOKE] = true;
	share_deal(&share, &need, 1, dealt);
	share_take(&share, SHARE_REVOKE, dealt[SHARE_REVOKE]);
	need.due[SHARE_NEW] = true;
	share_deal(&share, &need, 4, dealt);
	unit_check(dealt[SHARE_NEW] == 0 && dealt[SHARE_REVOKE] == 4, "after a pause: %d %d",
			   dealt[SHARE_NEW], dealt[SHARE_REVOKE]);
}

/*
 * Lists may be half of what is under way, and one at least.
 */
static void
test_most_lists(void)
{
	static const int most[][2] = {{1, 1}, {2, 1}, {3, 2}, {100, 50}};

	for (int i = 0; i < (int) lengthof(most); i++)
		unit_check(share_most_lists(most[i][0]) == most[i][1], "lists of %d", most[i][0]);
}

/*
 * What is due comes and goes at random, and what is dealt is sometimes not there.
 * While two kinds are both due without a break, neither gets more than the other but for
 * what two deals are; and whatever may be sent is sent.
 */
static void
test_random(void)
{
	unit_seed(11);
	for (int round = 0; round < 60; round++)
	{
		Share		share = {{0}};
		ShareNeed	need = {.limit = 1 + unit_random(100)};
		int64		got[SHARE_KINDS][SHARE_KINDS] = {{0}};	/* by the first while
															 * both are due */
		int			half = (need.limit + 1) / 2;

		for (int turn = 0; turn < 300; turn++)
		{
			int			n = unit_random(need.limit + 1);
			int			dealt[SHARE_KINDS];
			int			ndue = 0;
			int			sum = 0;

			for (int kind = 0; kind < SHARE_KINDS; kind++)
			{
				if (unit_random(20) == 0)
					need.due[kind] = !need.due[kind];
				ndue += need.due[kind];
			}
			share_deal(&share, &need, n, dealt);
			for (int kind = 0; kind < SHARE_KINDS; kind++)
			{
				unit_check(dealt[kind] == 0 || need.due[kind], "what is not due gets nothing");
				unit_check(dealt[kind] <= half || (ndue == 1 && kind != SHARE_LIST), "%d of %d at "
						   "once", dealt[kind], need.limit);
				share_take(&share, kind, dealt[kind]);
				sum += dealt[kind];
			}
			unit_check(sum == n || (ndue == 0 && sum == 0) ||
					   (ndue == 1 && need.due[SHARE_LIST] && sum == half), "%d of %d are dealt",
					   sum, n);
			for (int pair = 0; pair < SHARE_KINDS * SHARE_KINDS; pair++)
			{
				int			a = pair / SHARE_KINDS;
				int			b = pair % SHARE_KINDS;

				if (a == b || !need.due[a] || !need.due[b])
					got[a][b] = got[b][a] = 0;
				else
					got[a][b] += dealt[a];
			}
			for (int pair = 0; pair < SHARE_KINDS * SHARE_KINDS; pair++)
			{
				int			a = pair / SHARE_KINDS;
				int			b = pair % SHARE_KINDS;

				unit_check(got[a][b] <= got[b][a] + 2 * need.limit + 1, "of two that are due one "
						   "gets " INT64_FORMAT ", the other " INT64_FORMAT, got[a][b], got[b][a]);
			}
		}
	}
}

int
main(void)
{
	test_deals();
	test_pause();
	test_most_lists();
	test_random();
	return unit_end("share");
}
