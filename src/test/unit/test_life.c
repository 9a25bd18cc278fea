/*-------------------------------------------------------------------------
 *
 * test_life.c
 *	  The lives of an identity's requests, at random, through all that decides
 *	  about them; and a judge that knows whose each key really is.
 *
 * Answers are lost, keys are created when nobody waits any more, workers die,
 * requests are cancelled, servers promoted, accounts changed, reports looked at
 * again, and other issuers are at work.  In the end all faults are over, and:
 *
 *	- no second key was asked for while a first one might live;
 *	- no key was revoked that was owned, or might be;
 *	- each request has exactly one key, or none, as it says, or it is reported;
 *	- each key that lives is owned once, or named in a report.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/reply.h"
#include "logic/outcome.h"
#include "logic/window.h"
#include "unit.h"

#define REQUESTS_MAX 4
#define KEYS_MAX 64
#define STEPS 60
#define DRAIN_STEPS 400
#define MAX_ATTEMPTS 4

/* Of the settings; milliseconds. */
#define REQUEST_TIMEOUT 3000
#define SETTLE_DELAY 2000

#define MS(n) ((int64) (n) * 1000)

/* A request, and the truth about its attempt. */
typedef struct Life
{
	OutcomeRequest row;
	int			count;
	int			profile;
	int			key;			/* that it has, or -1 */
	int64		attempted_at;
	int			timeout;		/* milliseconds */
	int			account;		/* of the attempt */
	bool		flying;			/* this worker has the call */
	bool		told;			/* the answer will come */
	ReplyKind	kind;			/* which it is */
	int			created;		/* the key of the attempt, or -1 */
	bool		cancelled;		/* by its owner */
} Life;

/* A key at Seam. */
typedef struct Key
{
	int			maker;			/* a request, or -1: another issuer */
	int			count;
	int			profile;
	int			account;
	int64		created_at;
	bool		dead;
	bool		doomed;			/* it waits for its revocation */
	bool		taken;			/* a request had it, or has it */
	bool		reported;		/* a person knows */
} Key;

typedef struct World
{
	int64		now;
	int			account;		/* the present one */
	bool		others;			/* another issuer is at work */
	bool		faults;			/* there are any */
	Life		lives[REQUESTS_MAX];
	int			nlives;
	Key			keys[KEYS_MAX];
	int			nkeys;
	long		round;
} World;

/* What has happened in all worlds: a judge who has seen nothing judges nothing. */
static struct
{
	long		adopted;
	long		adopted_unwanted;
	long		reissued;
	long		revoked;
	long		reported[TEXT_WHICH_CALL + 1];
	long		issued;
	long		failed;
	long		unlisted;
}			seen;

/* Returns whether it happens, once in n times; never where there are no faults. */
static bool
fault(const World *w, uint32 n)
{
	return w->faults && unit_random(n) == 0;
}

/* Returns whether a request has the key, or had it: then it is no candidate. */
static bool
is_owned(const World *w, int k)
{
	return w->keys[k].taken;
}

/* Returns whether a key is there, and opens the door, as far as its request knows. */
static bool
lives_on(const World *w, int k)
{
	return !w->keys[k].dead && w->keys[k].created_at <= w->now;
}

/* Returns whether a request is in doubt: its attempt may have a key, and nobody waits for it. */
static bool
in_doubt(const Life *life)
{
	return !life->flying && life->key < 0 && (life->row.status == STATUS_IN_FLIGHT ||
											  life->row.status == STATUS_REVOKING);
}

/* Writes an outcome to a request; found is the key that it takes. */
static void
change(World *w, Life *life, const Outcome *outcome, int found)
{
	bool		unwanted = life->row.status == STATUS_REVOKING;

	life->row.status = outcome->status;
	life->row.next_attempt_at = outcome->next_attempt_at;
	life->row.attempts = outcome->attempts;
	life->row.sqlerrcode = outcome->sqlerrcode;
	if (outcome->attempt_timeout > 0)
		life->timeout = outcome->attempt_timeout;
	if (outcome->takes_key)
	{
		unit_check(!is_owned(w, found), "round %ld: a key that is owned is taken", w->round);
		unit_check(!w->keys[found].doomed && lives_on(w, found), "round %ld: a key that is "
				   "revoked is taken", w->round);
		life->key = found;
		w->keys[found].taken = true;
		life->row.has_key = true;
	}
	if (outcome->status == STATUS_FAILED &&
		outcome->sqlerrcode == ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN)
	{
		seen.reported[outcome->text]++;

		/*
		 * what is not found with the present account is named by the request
		 * itself
		 */
		for (int k = 0; k < w->nkeys; k++)
			w->keys[k].reported |= w->keys[k].maker == life - w->lives &&
				w->keys[k].account != w->account;
	}
	unit_check(outcome->status != STATUS_CANCELLED &&
			   (outcome->status != STATUS_REVOKED || unwanted),
			   "round %ld: what is wanted is not given up", w->round);
	unit_check(outcome->finished == (outcome->status == STATUS_ISSUED ||
									 outcome->status == STATUS_FAILED ||
									 outcome->status == STATUS_REVOKED) ||
			   life->row.has_key, "round %ld: an end", w->round);
}

/* ---------- what happens ---------- */

/* A worker, or a session's call, makes an attempt; what comes of it is known to nobody. */
static void
attempt(World *w, Life *life, bool by_call)
{
	int			i = (int) (life - w->lives);
	int64		due = MS(REQUEST_TIMEOUT + SETTLE_DELAY);

	for (int k = 0; k < w->nkeys; k++)
	{
		const Key  *key = &w->keys[k];

		unit_check(w->others || key->maker != i || key->dead || key->doomed || key->taken,
				   "round %ld: a second key is asked for, and the first one lives", w->round);
	}
	unit_check(life->row.is_call == by_call, "round %ld: what a call has asked for is sent again",
			   w->round);
	life->row.status = STATUS_IN_FLIGHT;
	life->row.attempts++;
	life->row.origin = ORIGIN_OURS;
	life->row.next_attempt_at = w->now + due;
	life->attempted_at = w->now;
	life->timeout = REQUEST_TIMEOUT + SETTLE_DELAY;
	life->account = w->account;
	life->flying = !by_call;
	life->created = -1;
	if (!by_call && fault(w, 3))
	{
		static const ReplyKind refusals[] = {REPLY_NOT_SENT, REPLY_NO_DESCRIPTOR,
			REPLY_LIMITED, REPLY_KEY_REFUSED, REPLY_REFUSED, REPLY_NOTHING_THERE
		};

		life->kind = refusals[unit_random(lengthof(refusals))];
		return;
	}
	life->kind = by_call || fault(w, 2) ? REPLY_DOUBT : REPLY_DONE;
	if (life->kind == REPLY_DONE || unit_random(2) == 0)
	{
		Key		   *key = &w->keys[w->nkeys];

		memset(key, 0, sizeof(*key));
		key->maker = i;
		key->count = life->count;
		key->profile = life->profile;
		key->account = life->account;
		key->created_at = w->now + (life->kind == REPLY_DONE ? 0 : due / 100 * unit_random(101));
		life->created = w->nkeys++;
	}
}

/* The answer to an attempt comes, or nobody waits for it any more. */
static void
answer(World *w, Life *life)
{
	OutcomeCall call = {.found = true,.kind = life->kind,.pause = MS(unit_random(500)),
		.max_attempts = MAX_ATTEMPTS,.now = w->now,.settle_delay = SETTLE_DELAY,
		.timeout = window_timeout(life->attempted_at, w->now, SETTLE_DELAY)
	};
	Outcome		outcome;

	/* in an outage a lost answer, and what was not sent, uses up no attempt */
	call.is_free = (life->kind == REPLY_DOUBT || life->kind == REPLY_NOT_SENT) && fault(w, 3);
	/* what we take for granted: a key is in the list by then */
	if (life->created >= 0)
		w->keys[life->created].created_at = Min(w->keys[life->created].created_at,
												w->now + MS(SETTLE_DELAY));
	life->flying = false;
	outcome = outcome_of_generate(&call, &life->row);
	unit_check(outcome.act == OUTCOME_CHANGE, "round %ld: an answer changes the request", w->round);
	unit_check(outcome.takes_key == (life->kind == REPLY_DONE), "round %ld: a key that was issued "
			   "is taken", w->round);
	seen.issued += outcome.status == STATUS_ISSUED;
	seen.failed += outcome.status == STATUS_FAILED;
	change(w, life, &outcome, life->created);
}

/* A key is asked to be revoked: the request's, or one of nobody's. */
static void
revoke(World *w, Life *life)
{
	OutcomeCall call = {.found = true,.kind = fault(w, 3) ? REPLY_DOUBT : REPLY_DONE,
		.pause = MS(100),.max_attempts = MAX_ATTEMPTS,.now = w->now
	};
	Key		   *key = &w->keys[life->key];
	Outcome		outcome;

	life->row.anothers = life->account != w->account;
	if (key->account != w->account && call.kind == REPLY_DONE)
		call.kind = REPLY_NOTHING_THERE;
	else if (call.kind == REPLY_DONE || unit_random(2) == 0)
	{
		if (key->dead)
			call.kind = REPLY_NOTHING_THERE;
		key->dead = true;
	}
	call.outdated = fault(w, 10);
	outcome = outcome_of_delete(&call, &life->row);
	unit_check(w->others || outcome.status != STATUS_REVOKED || key->dead,
			   "round %ld: what is said to be revoked is dead", w->round);
	if (outcome.status == STATUS_FAILED)
		key->reported = true;
	change(w, life, &outcome, -1);
}

/* Fills in a request's doubt. */
static Doubt
doubt_of(const Life *life)
{
	Doubt		doubt = {.max_use_count = life->count,.has_profile = life->profile != 0};

	doubt.profile.data[0] = (unsigned char) life->profile;
	doubt.wanted = life->row.status == STATUS_IN_FLIGHT;
	doubt.elsewhere = life->row.anothers;
	doubt.from = life->attempted_at;
	doubt.until = life->attempted_at + MS(life->timeout);
	return doubt;
}

/* Checks what a list's decision does with a key. */
static void
judge_key(World *w, int k, int c, const Candidate *candidates, const Outcome *outcomes,
		  const int *lives, const Doubt *doubts, int n)
{
	const Candidate *candidate = &candidates[c];
	Key		   *key = &w->keys[k];
	bool		doubted = false;

	for (int d = 0; d < n; d++)
	{
		bool		reported = outcomes[d].sqlerrcode == ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN &&
		outcomes[d].status == STATUS_FAILED;

		doubted |= lives[d] == key->maker && !reported;
		/* one that may have its key elsewhere is reported for that one's sake */
		if (doubts[d].group == candidate->group && reported &&
			outcomes[d].text != TEXT_NO_KEY_ELSEWHERE)
		{
			key->reported = true;
			unit_check(!candidate->revoke, "round %ld: a reported key is revoked", w->round);
		}
		if (outcomes[d].takes_key && doubts[d].key == c)
			unit_check(w->others || (key->maker >= 0 && key->count == w->lives[lives[d]].count &&
									 key->profile == w->lives[lives[d]].profile),
					   "round %ld: a key that was not asked for is adopted", w->round);
	}
	if (!candidate->revoke)
		return;
	unit_check(key->maker < 0 || !w->lives[key->maker].row.is_call ||
			   w->lives[key->maker].row.status == STATUS_REVOKING,
			   "round %ld: the key of a call that has committed is revoked", w->round);
	unit_check(w->others || doubted, "round %ld: a key is revoked, and its request has none",
			   w->round);
	key->doomed = true;
	seen.revoked++;
}

/* The list of the identity's keys comes. */
static void
list_keys(World *w)
{
	OutcomeList list = {.kind = fault(w, 6) ? REPLY_DOUBT : REPLY_DONE,.status = 200,
		.has_date = !fault(w, 10),.clock_known = true,.pause = MS(200),
		.max_attempts = MAX_ATTEMPTS,.now = w->now
	};
	OutcomeRequest rows[REQUESTS_MAX];
	Doubt		doubts[REQUESTS_MAX];
	Outcome		outcomes[REQUESTS_MAX];
	int			lives[REQUESTS_MAX];
	Candidate	candidates[KEYS_MAX];
	int			keys[KEYS_MAX];
	int			n = 0;
	int			nkeys = 0;

	for (int i = 0; i < w->nlives; i++)
	{
		Life	   *life = &w->lives[i];

		if (life->flying)
			return;				/* the identity is busy */
		if (!in_doubt(life))
			continue;
		if (life->attempted_at + MS(life->timeout) > w->now || life->row.next_attempt_at > w->now)
			return;
		life->row.anothers = life->account != w->account;
		lives[n] = i;
		rows[n] = life->row;
		doubts[n++] = doubt_of(life);
	}
	if (n == 0)
		return;
	if (!outcome_list_tells(&list))
	{
		for (int d = 0; d < n; d++)
		{
			Outcome		outcome = outcome_of_no_list(&list, &rows[d], w->now - doubts[d].from);

			unit_check(outcome.status == rows[d].status, "round %ld: no list tells nothing",
					   w->round);
			change(w, &w->lives[lives[d]], &outcome, -1);
		}
		seen.unlisted++;
		return;
	}
	for (int k = 0; k < w->nkeys; k++)
	{
		if (!lives_on(w, k) || w->keys[k].account != w->account || w->keys[k].doomed ||
			is_owned(w, k))
			continue;
		memset(&candidates[nkeys], 0, sizeof(Candidate));
		candidates[nkeys].says.has_profile = w->keys[k].profile != 0;
		candidates[nkeys].says.profile.data[0] = (unsigned char) w->keys[k].profile;
		candidates[nkeys].says.created_at = w->keys[k].created_at;
		keys[nkeys++] = k;
	}
	outcome_of_list(&list, rows, n, doubts, candidates, nkeys, outcomes);
	for (int c = 0; c < nkeys; c++)
		judge_key(w, keys[c], c, candidates, outcomes, lives, doubts, n);
	for (int d = 0; d < n; d++)
	{
		seen.adopted += outcomes[d].takes_key && rows[d].status == STATUS_IN_FLIGHT;
		seen.adopted_unwanted += outcomes[d].takes_key && rows[d].status == STATUS_REVOKING;
		seen.reissued += outcomes[d].status == STATUS_PENDING;
		change(w, &w->lives[lives[d]], &outcomes[d],
			   outcomes[d].takes_key ? keys[doubts[d].key] : -1);
	}
}

/* A new request. */
static void
enqueue(World *w)
{
	Life	   *life = &w->lives[w->nlives];

	if (w->nlives == REQUESTS_MAX)
		return;
	w->nlives++;
	memset(life, 0, sizeof(*life));
	life->key = life->created = -1;
	life->count = 1 + (int) (unit_random(3) == 0);
	life->profile = (int) (unit_random(3) == 0);
	life->row.next_attempt_at = DT_NOBEGIN;
	if (fault(w, 4) && w->nkeys < KEYS_MAX - 8)
	{
		/*
		 * a session's call, whose answer is lost: its request is there when
		 * it commits
		 */
		life->row.is_call = true;
		attempt(w, life, true);
	}
}

/* Its owner does not want it any more, as seam_cancel_instant_key_request() has it. */
static void
cancel(World *w, Life *life)
{
	OutcomeRequest *row = &life->row;

	if (row->status == STATUS_PENDING)
		row->status = STATUS_CANCELLED;
	else if (row->status == STATUS_IN_FLIGHT)
		row->status = STATUS_REVOKING;
	else if (row->status == STATUS_ISSUED)
	{
		row->status = STATUS_REVOKING;
		row->next_attempt_at = DT_NOBEGIN;
	}
	else
		return;
	life->cancelled = true;
}

/* A report is looked at again, as seam_retry_instant_key_request() has it. */
static void
retry(Life *life)
{
	OutcomeRequest *row = &life->row;

	if (row->status != STATUS_FAILED ||
		row->sqlerrcode != ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN)
		return;
	row->status = row->has_key || life->cancelled ? STATUS_REVOKING : STATUS_IN_FLIGHT;
	row->origin = ORIGIN_UNKNOWN;
	row->next_attempt_at = DT_NOBEGIN;
}

/* The worker does what is due: one thing, or all. */
static void
work(World *w)
{
	bool		doubts = false;

	for (int i = 0; i < w->nlives; i++)
		doubts |= in_doubt(&w->lives[i]);
	for (int i = 0; i < w->nlives; i++)
	{
		Life	   *life = &w->lives[i];

		if (unit_random(2) == 0)
			continue;
		if (life->flying)
		{
			/* no call takes longer than that */
			if (unit_random(3) == 0 || life->attempted_at + MS(REQUEST_TIMEOUT - 600) <= w->now)
				answer(w, life);
		}
		else if (life->row.next_attempt_at > w->now)
			continue;
		else if (life->row.status == STATUS_PENDING && !doubts && w->nkeys < KEYS_MAX - 8)
			attempt(w, life, false);
		else if (life->row.status == STATUS_REVOKING && life->key >= 0)
			revoke(w, life);
	}
	list_keys(w);
	for (int k = 0; k < w->nkeys; k++)
		w->keys[k].dead |= w->keys[k].doomed && w->keys[k].account == w->account;
}

/* What else may happen. */
static void
disturb(World *w)
{
	switch (unit_random(12))
	{
		case 0:
		case 1:
		case 2:
			enqueue(w);
			break;
		case 3:
			if (w->nlives > 0)
				cancel(w, &w->lives[unit_random(w->nlives)]);
			break;
		case 4:
			/* the worker dies, or the server does */
			for (int i = 0; i < w->nlives; i++)
				w->lives[i].flying = false;
			break;
		case 5:
			/* a standby is promoted */
			for (int i = 0; i < w->nlives && unit_random(3) == 0; i++)
			{
				w->lives[i].flying = false;
				if (w->lives[i].row.origin == ORIGIN_OURS)
					w->lives[i].row.origin = ORIGIN_BEFORE;
			}
			break;
		case 6:
			if (unit_random(4) == 0)
				w->account = (int) unit_random(2);
			break;
		case 7:
			if (w->nlives > 0)
				retry(&w->lives[unit_random(w->nlives)]);
			break;
		case 8:
			if (w->others && w->nkeys < KEYS_MAX - 8)
			{
				Key		   *key = &w->keys[w->nkeys++];

				memset(key, 0, sizeof(*key));
				key->maker = -1;
				key->count = 1;
				key->account = w->account;
				key->created_at = w->now;
			}
			break;
		default:
			break;
	}
}

/* ---------- the judge ---------- */

/* Whether a request has come to an end. */
static bool
has_ended(const Life *life)
{
	return life->row.status == STATUS_CANCELLED || life->row.status == STATUS_REVOKED ||
		life->row.status == STATUS_FAILED || life->row.status == STATUS_ISSUED;
}

static void
judge_end(World *w)
{
	for (int i = 0; i < w->nlives; i++)
	{
		const Life *life = &w->lives[i];

		unit_check(has_ended(life), "round %ld: request %d ends, not in status %d", w->round, i,
				   life->row.status);
		unit_check((life->row.status == STATUS_ISSUED) <= (life->key >= 0 &&
														   !w->keys[life->key].dead),
				   "round %ld: request %d is issued, and its key lives", w->round, i);
		unit_check(!life->cancelled || life->row.status != STATUS_ISSUED,
				   "round %ld: request %d was cancelled, and has a key", w->round, i);
	}
	for (int k = 0; k < w->nkeys; k++)
	{
		const Key  *key = &w->keys[k];
		int			owners = 0;

		for (int i = 0; i < w->nlives; i++)
			owners += w->lives[i].row.status == STATUS_ISSUED && w->lives[i].key == k;
		unit_check(owners <= 1, "round %ld: key %d has two owners", w->round, k);
		unit_check(w->others || key->dead || owners == 1 || key->reported,
				   "round %ld: key %d of request %d lives, and nobody knows", w->round, k,
				   key->maker);
		unit_check(key->maker >= 0 || w->others, "round %ld: another issuer", w->round);
	}
}

/* Lives through one world. */
static void
live(long round)
{
	World		w = {.now = MS(1000000),.faults = true,.round = round};
	bool		ended = false;

	w.others = unit_random(4) == 0;
	for (int step = 0; step < STEPS; step++)
	{
		w.now += MS(unit_random(800));
		disturb(&w);
		work(&w);
	}

	/*
	 * all is well again; a key of the other account is revoked there, or
	 * reported
	 */
	w.faults = false;
	for (int step = 0; step < DRAIN_STEPS && !ended; step++)
	{
		w.now += MS(5000);
		work(&w);
		ended = true;
		for (int i = 0; i < w.nlives; i++)
			ended = ended && has_ended(&w.lives[i]);
	}
	for (int account = 0; account <= 1; account++)
	{
		w.account = account;
		work(&w);
	}
	judge_end(&w);
}

int
main(int argc, char **argv)
{
	long		rounds = argc > 1 ? atol(argv[1]) : 20000;
	static const OutcomeText reports[] = {TEXT_KEY_ELSEWHERE, TEXT_NO_KEY_ELSEWHERE, TEXT_WHOSE,
	TEXT_BEFORE_PROMOTION, TEXT_OTHER_ISSUER, TEXT_WHICH_CALL};

	unit_seed(7);
	for (long round = 0; round < rounds; round++)
		live(round);

	/* it has all happened */
	unit_check(seen.issued > rounds / 100 && seen.failed > rounds / 100, "keys and refusals");
	unit_check(seen.adopted > rounds / 100 && seen.adopted_unwanted > rounds / 100, "adoptions");
	unit_check(seen.reissued > rounds / 100 && seen.revoked > rounds / 100, "keys that cannot be "
			   "told apart");
	unit_check(seen.unlisted > rounds / 100, "lists that tell nothing");
	for (int i = 0; i < (int) lengthof(reports); i++)
		unit_check(seen.reported[reports[i]] > rounds / 1000, "reports %d: %ld", reports[i],
				   seen.reported[reports[i]]);
	return unit_end("life");
}
