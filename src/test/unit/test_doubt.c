/*-------------------------------------------------------------------------
 *
 * test_doubt.c
 *	  Whose is a found key: a table of cases, and random cases against a judge
 *	  that tries every assignment of keys to requests.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/doubt.h"
#include "unit.h"

#define DOUBTS_MAX 5
#define KEYS_MAX 5

/* A request whose answer was lost. */
typedef struct DoubtCase
{
	int			profile;		/* 0: none */
	int			count;
	int			from;
	int			until;
	bool		unwanted;
} DoubtCase;

/* A key that nobody owns. */
typedef struct KeyCase
{
	int			profile;		/* 0: none */
	int			created;
} KeyCase;

typedef struct Case
{
	const char *name;
	int			ndoubts;
	DoubtCase	doubts[DOUBTS_MAX];
	int			nkeys;
	KeyCase		keys[KEYS_MAX];

	/* what is expected of each request: its key, or one of these */
	int			expected[DOUBTS_MAX];
} Case;

#define NONE (-1)				/* no key was issued */
#define MIXED (-2)				/* keys are revoked, and issued anew */
#define OTHERS (-3)				/* another issuer is at work */

static const Case cases[] = {
	{"no key", 1, {{0, 1, 0, 9}}, 0, {{0}}, {NONE}},
	{"no key for different counts", 2, {{0, 1, 0, 9}, {0, 2, 0, 9}}, 0, {{0}}, {NONE, NONE}},
	{"no fitting key for different counts",
	2, {{0, 1, 0, 9}, {0, 2, 0, 9}}, 1, {{0, 12}}, {NONE, NONE}},
	{"a key within the window", 1, {{0, 1, 0, 9}}, 1, {{0, 5}}, {0}},
	{"a key at the window's beginning", 1, {{0, 1, 3, 9}}, 1, {{0, 3}}, {0}},
	{"a key at the window's end", 1, {{0, 1, 3, 9}}, 1, {{0, 9}}, {0}},
	{"a key before the window", 1, {{0, 1, 3, 9}}, 1, {{0, 2}}, {NONE}},
	{"a key after the window", 1, {{0, 1, 3, 9}}, 1, {{0, 10}}, {NONE}},
	{"a key with a profile that was not asked for", 1, {{0, 1, 0, 9}}, 1, {{1, 5}}, {NONE}},
	{"a key without the profile that was asked for", 1, {{1, 1, 0, 9}}, 1, {{0, 5}}, {NONE}},
	{"a key with another profile", 1, {{1, 1, 0, 9}}, 1, {{2, 5}}, {NONE}},
	{"more keys than requests", 1, {{0, 1, 0, 9}}, 2, {{0, 4}, {0, 5}}, {OTHERS}},
	{"two alike, one key: the first has it",
	2, {{0, 1, 0, 9}, {0, 1, 0, 9}}, 1, {{0, 5}}, {0, NONE}},
	{"the one that wants a key has it",
	2, {{0, 1, 0, 9, true}, {0, 1, 0, 9}}, 1, {{0, 5}}, {NONE, 0}},
	{"two alike, two keys", 2, {{0, 1, 0, 9}, {0, 1, 0, 9}}, 2, {{0, 5}, {0, 6}}, {0, 1}},
	{"different counts, one key", 2, {{0, 1, 0, 9}, {0, 2, 0, 9}}, 1, {{0, 5}}, {MIXED, MIXED}},
	{"different counts at different times",
	2, {{0, 1, 0, 3}, {0, 2, 5, 9}}, 2, {{0, 6}, {0, 2}}, {1, 0}},
	{"different counts and profiles", 2, {{0, 1, 0, 9}, {1, 2, 0, 9}}, 2, {{1, 6}, {0, 6}}, {1, 0}},
	{"overlapping windows: a key makes way",
	2, {{0, 1, 0, 9}, {0, 1, 0, 5}}, 2, {{0, 3}, {0, 8}}, {1, 0}},
	{"three keys for two, in a chain",
	2, {{0, 1, 0, 5}, {0, 1, 4, 9}}, 3, {{0, 1}, {0, 4}, {0, 8}}, {OTHERS, OTHERS}},
	{"another issuer for one profile does not touch the other",
	2, {{0, 1, 0, 9}, {1, 1, 0, 9}}, 3, {{0, 1}, {0, 2}, {1, 3}}, {OTHERS, 2}},
};

/* Turns a number into a UUID. */
static pg_uuid_t
uuid(int n)
{
	pg_uuid_t	id = {{0}};

	id.data[UUID_LEN - 1] = (unsigned char) n;
	return id;
}

/* Settles a case. */
static void
settle(const Case *c, Doubt *doubts, Candidate *candidates)
{
	memset(doubts, 0, DOUBTS_MAX * sizeof(Doubt));
	memset(candidates, 0, KEYS_MAX * sizeof(Candidate));
	for (int d = 0; d < c->ndoubts; d++)
	{
		doubts[d].max_use_count = c->doubts[d].count;
		doubts[d].has_profile = c->doubts[d].profile != 0;
		doubts[d].profile = uuid(c->doubts[d].profile);
		doubts[d].wanted = !c->doubts[d].unwanted;
		doubts[d].from = c->doubts[d].from;
		doubts[d].until = c->doubts[d].until;
	}
	for (int k = 0; k < c->nkeys; k++)
	{
		candidates[k].says.has_profile = c->keys[k].profile != 0;
		candidates[k].says.profile = uuid(c->keys[k].profile);
		candidates[k].says.created_at = c->keys[k].created;
	}
	doubt_settle(doubts, c->ndoubts, candidates, c->nkeys);
}

/* What was decided about a request, as the table states it. */
static int
decided(const Doubt *doubt)
{
	switch (doubt->verdict)
	{
		case VERDICT_NO_KEY:
			return NONE;
		case VERDICT_REISSUE:
			return MIXED;
		case VERDICT_AMBIGUOUS:
			return OTHERS;
		default:
			return doubt->key;
	}
}

/* ---------- the judge ---------- */

/* What the judge finds in a case. */
typedef struct Judgement
{
	bool		fits[DOUBTS_MAX][KEYS_MAX];
	int			group_of_doubt[DOUBTS_MAX];
	int			group_of_key[KEYS_MAX]; /* -1: it fits no request */
	bool		explained[DOUBTS_MAX];	/* by group: each key has a request */
	int			most_wanted[DOUBTS_MAX];	/* by group: requests that want a
											 * key, and have one, at best */
} Judgement;

/*
 * Tries every assignment of keys, from k on, to requests; each key that fits some
 * request of the group must have one.
 */
static void
try_assignments(const Case *c, Judgement *j, int group, int k, unsigned taken, int wanted)
{
	while (k < c->nkeys && j->group_of_key[k] != group)
		k++;
	if (k == c->nkeys)
	{
		j->explained[group] = true;
		j->most_wanted[group] = Max(j->most_wanted[group], wanted);
		return;
	}
	for (int d = 0; d < c->ndoubts; d++)
	{
		if (j->fits[d][k] && !(taken & (1u << d)))
			try_assignments(c, j, group, k + 1, taken | (1u << d), wanted + !c->doubts[d].unwanted);
	}
}

/*
 * Judges a case: which requests and keys hang together, and whether the keys of
 * each group can be explained by its requests alone.
 */
static void
judge(const Case *c, Judgement *j)
{
	bool		changed = true;

	memset(j, 0, sizeof(*j));
	for (int k = 0; k < c->nkeys; k++)
		j->group_of_key[k] = -1;
	for (int d = 0; d < c->ndoubts; d++)
	{
		j->group_of_doubt[d] = d;
		for (int k = 0; k < c->nkeys; k++)
			j->fits[d][k] = c->doubts[d].profile == c->keys[k].profile &&
				c->keys[k].created >= c->doubts[d].from && c->keys[k].created <= c->doubts[d].until;
	}
	while (changed)
	{
		changed = false;
		for (int d = 0; d < c->ndoubts; d++)
		{
			for (int k = 0; k < c->nkeys; k++)
			{
				int			group;

				if (!j->fits[d][k])
					continue;
				group = j->group_of_key[k] < 0 ? j->group_of_doubt[d] :
					Min(j->group_of_doubt[d], j->group_of_key[k]);
				changed = changed || j->group_of_doubt[d] != group || j->group_of_key[k] != group;
				j->group_of_doubt[d] = j->group_of_key[k] = group;
			}
		}
	}
	for (int group = 0; group < c->ndoubts; group++)
		try_assignments(c, j, group, 0, 0, 0);
}

/*
 * Checks what was decided against the judge.
 */
static void
check_against_judge(const Case *c, const Doubt *doubts, const Candidate *candidates, long round)
{
	Judgement	j;
	int			adopted_by[KEYS_MAX];

	judge(c, &j);
	for (int k = 0; k < c->nkeys; k++)
		adopted_by[k] = -1;
	for (int d = 0; d < c->ndoubts; d++)
	{
		if (doubts[d].verdict != VERDICT_ADOPT)
			continue;
		unit_check(j.fits[d][doubts[d].key],
				   "round %ld: request %d adopts a key that does not fit", round, d);
		unit_check(adopted_by[doubts[d].key] < 0,
				   "round %ld: key %d is adopted twice", round, doubts[d].key);
		adopted_by[doubts[d].key] = d;
	}
	for (int group = 0; group < c->ndoubts; group++)
	{
		int			first = -1;
		int			nkeys = 0;
		int			nadopted = 0;
		int			nwanted = 0;
		bool		alike = true;

		for (int d = 0; d < c->ndoubts; d++)
		{
			if (j.group_of_doubt[d] != group)
				continue;
			if (first < 0)
				first = d;
			alike = alike && c->doubts[d].count == c->doubts[first].count;
		}
		if (first < 0)
			continue;
		for (int k = 0; k < c->nkeys; k++)
			nkeys += j.group_of_key[k] == group;
		for (int d = 0; d < c->ndoubts; d++)
		{
			if (j.group_of_doubt[d] != group)
				continue;
			if (nkeys == 0)
				unit_check(doubts[d].verdict == VERDICT_NO_KEY,
						   "round %ld: request %d has no key", round, d);
			else if (!j.explained[group])
				unit_check(doubts[d].verdict == VERDICT_AMBIGUOUS,
						   "round %ld: another issuer, request %d", round, d);
			else if (!alike)
				unit_check(doubts[d].verdict == VERDICT_REISSUE,
						   "round %ld: request %d cannot be told apart", round, d);
			else
				unit_check(doubts[d].verdict == VERDICT_ADOPT ||
						   doubts[d].verdict == VERDICT_NO_KEY,
						   "round %ld: request %d has a key or none", round, d);
			nadopted += doubts[d].verdict == VERDICT_ADOPT;
			nwanted += doubts[d].verdict == VERDICT_ADOPT && !c->doubts[d].unwanted;
		}
		if (j.explained[group] && alike)
		{
			unit_check(nadopted == nkeys,
					   "round %ld: every key of group %d has its request", round, group);
			unit_check(nwanted == j.most_wanted[group],
					   "round %ld: %d of group %d have what they want, %d could",
					   round, nwanted, group, j.most_wanted[group]);
		}
	}
	for (int k = 0; k < c->nkeys; k++)
	{
		int			group = j.group_of_key[k];
		bool		revoke = false;

		for (int d = 0; d < c->ndoubts && group >= 0; d++)
			revoke = revoke ||
				(j.group_of_doubt[d] == group && doubts[d].verdict == VERDICT_REISSUE);
		unit_check(candidates[k].revoke == revoke,
				   "round %ld: key %d is revoked when it cannot be told apart, and only then",
				   round, k);
	}
}

/* Makes a small random case, in which much overlaps. */
static void
random_case(Case *c)
{
	int			counts = 1 + (int) unit_random(2);
	int			profiles = 1 + (int) unit_random(2);

	memset(c, 0, sizeof(*c));
	c->ndoubts = 1 + (int) unit_random(DOUBTS_MAX);
	c->nkeys = (int) unit_random(KEYS_MAX + 1);
	for (int d = 0; d < c->ndoubts; d++)
	{
		c->doubts[d].profile = (int) unit_random(profiles);
		c->doubts[d].count = (int) unit_random(counts);
		c->doubts[d].from = (int) unit_random(10);
		c->doubts[d].until = c->doubts[d].from + (int) unit_random(6);
		c->doubts[d].unwanted = unit_random(3) == 0;
	}
	for (int k = 0; k < c->nkeys; k++)
	{
		c->keys[k].profile = (int) unit_random(profiles);
		c->keys[k].created = (int) unit_random(14);
	}
}

int
main(int argc, char **argv)
{
	long		rounds = argc > 1 ? atol(argv[1]) : 100000;
	Doubt		doubts[DOUBTS_MAX];
	Candidate	candidates[KEYS_MAX];

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		settle(&cases[i], doubts, candidates);
		for (int d = 0; d < cases[i].ndoubts; d++)
			unit_check(decided(&doubts[d]) == cases[i].expected[d],
					   "%s: request %d: %d where %d is expected",
					   cases[i].name, d, decided(&doubts[d]), cases[i].expected[d]);
		check_against_judge(&cases[i], doubts, candidates, -1 - i);
	}
	unit_seed(1);
	for (long round = 0; round < rounds; round++)
	{
		Case		c;

		random_case(&c);
		settle(&c, doubts, candidates);
		check_against_judge(&c, doubts, candidates, round);
	}
	return unit_end("doubt");
}
