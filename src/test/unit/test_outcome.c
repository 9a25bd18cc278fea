/*-------------------------------------------------------------------------
 *
 * test_outcome.c
 *	  What becomes of a request after an answer, and after a list: tables of cases.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/reply.h"
#include "logic/outcome.h"
#include "unit.h"

/* The server's headers turn this into its own one, which is not linked. */
#undef snprintf

#define S(seconds) ((int64) ((seconds) * USECS_PER_SEC))

/* The local time at which all is decided here. */
#define NOW S(1000)

/* A time at which a request is due, if nothing has changed that. */
#define DUE S(77)

static const char *const status_words[STATUS_COUNT] = {
	"pending", "in_flight", "issued", "failed", "cancelled", "revoking", "revoked"
};

/* ---------- what an answer says ---------- */

static void
test_answers(void)
{
	static const struct
	{
		const char *name;
		ReplyFacts	facts;
		ReplyKind	kind;
		bool		again;		/* a call that is not idempotent may be
								 * repeated */
		bool		again_idempotent;
	}			cases[] = {
		{"not sent", {.sent = false}, REPLY_NOT_SENT, true, true},
		{"not sent, for the time was over", {.hopeless = true}, REPLY_NOT_SENT, false, false},
		{"no descriptor", {.no_descriptor = true}, REPLY_NO_DESCRIPTOR, true, true},
		{"nothing came", {.sent = true}, REPLY_DOUBT, false, true},
		{"half an answer", {.sent = true,.status = 200,.usable = true}, REPLY_DOUBT, false, true},
		{"half of a refusal", {.sent = true,.status = 400}, REPLY_DOUBT, false, true},
		{"half of a 429", {.sent = true,.status = 429}, REPLY_DOUBT, false, true},
		{"too large", {.sent = true,.status = 200,.hopeless = true}, REPLY_DOUBT, false, false},
		{"done", {true, true, 200, true}, REPLY_DONE, false, false},
		{"done, created", {true, true, 201, true}, REPLY_DONE, false, false},
		{"unreadable", {true, true, 200, false}, REPLY_DOUBT, false, true},
		{"no content", {true, true, 204, false}, REPLY_DOUBT, false, true},
		{"less than that", {true, true, 199, true}, REPLY_DOUBT, false, true},
		{"a redirect", {true, true, 302}, REPLY_REFUSED, false, false},
		{"invalid", {true, true, 400}, REPLY_REFUSED, false, false},
		{"the API key", {true, true, 401}, REPLY_KEY_REFUSED, false, false},
		{"forbidden", {true, true, 403}, REPLY_REFUSED, false, false},
		{"a proxy's 404", {true, true, 404}, REPLY_REFUSED, false, false},
		{"Seam's 404", {true, true, 404,.nothing_there = true}, REPLY_NOTHING_THERE, false, false},
		{"timed out there", {true, true, 408}, REPLY_DOUBT, false, true},
		{"the rate", {true, true, 429}, REPLY_LIMITED, true, true},
		{"unknown", {true, true, 499}, REPLY_REFUSED, false, false},
		{"it failed there", {true, true, 500}, REPLY_DOUBT, false, true},
		{"a gateway", {true, true, 503}, REPLY_DOUBT, false, true},
		{"more than that", {true, true, 999}, REPLY_DOUBT, false, true},
	};

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		unit_check(reply_kind(&cases[i].facts) == cases[i].kind, "%s: kind %d", cases[i].name,
				   reply_kind(&cases[i].facts));
		unit_check(reply_try_again(&cases[i].facts, false) == cases[i].again,
				   "%s: is a call for a key repeated", cases[i].name);
		unit_check(reply_try_again(&cases[i].facts, true) == cases[i].again_idempotent,
				   "%s: is a list repeated", cases[i].name);
	}

	/* whatever is not surely done, and not surely not, is in doubt */
	for (int status = 0; status <= 1000; status++)
	{
		ReplyFacts	facts = {.sent = true,.whole = true,.status = status};

		unit_check((reply_kind(&facts) == REPLY_DOUBT) ==
				   (status < 300 || status == 408 || status >= 500), "status %d", status);
		facts.whole = false;
		unit_check(reply_kind(&facts) == REPLY_DOUBT, "half of a %d", status);
	}
}

/* ---------- after a call ---------- */

/* What a request is when its call has ended. */
typedef enum State
{
	WANTED,						/* in flight, */
	LAST_TRY,					/* for the last time */
	UNWANTED,					/* to be revoked meanwhile */
	CHANGED,					/* by hand: it has a key by now */
	ENDED,						/* by hand */
	GONE,						/* deleted */
	LOCKED,						/* by a session */
	STATES
} State;

#define MAX_ATTEMPTS 12

static OutcomeRequest
request_in(State state)
{
	OutcomeRequest request = {.status = STATUS_IN_FLIGHT,.attempts = 3,.next_attempt_at = DUE,
	.backoff = S(3)};

	if (state == LAST_TRY)
		request.attempts = MAX_ATTEMPTS;
	if (state == UNWANTED || state == CHANGED)
		request.status = STATUS_REVOKING;
	if (state == CHANGED)
		request.has_key = true;
	if (state == ENDED)
		request.status = STATUS_CANCELLED;
	return request;
}

static OutcomeCall
call_in(State state, ReplyKind kind)
{
	OutcomeCall call = {
		.found = state != GONE && state != LOCKED,.locked_by_others = state == LOCKED,
		.kind = kind,.pause = S(7),.max_attempts = MAX_ATTEMPTS,.now = NOW,
		.ended_ago = S(2),.timeout = 9000,.settle_delay = 5000
	};

	return call;
}

/*
 * Writes an outcome in a line: what is done, the status, when it is due (in seconds from
 * now), the attempts and SQLSTATE, if these have changed.
 */
static const char *
words(const OutcomeRequest *request, const Outcome *outcome)
{
	static char line[200];
	char		due[40];

	if (outcome->act == OUTCOME_WAIT)
		return "wait";
	if (outcome->act == OUTCOME_NOTHING)
		return "nothing";
	if (outcome->act == OUTCOME_REVOKE_COPY)
		return "revoke a copy";
	if (outcome->next_attempt_at == DT_NOBEGIN)
		snprintf(due, sizeof(due), "at once");
	else if (outcome->next_attempt_at == DT_NOEND)
		snprintf(due, sizeof(due), "never");
	else if (outcome->next_attempt_at == request->next_attempt_at)
		snprintf(due, sizeof(due), "as it was");
	else
		snprintf(due, sizeof(due), "in %g s",
				 (double) (outcome->next_attempt_at - NOW) / USECS_PER_SEC);
	snprintf(line, sizeof(line), "%s %s%s%s%s%s%s", status_words[outcome->status], due,
			 outcome->finished ? ", ended" : "", outcome->takes_key ? ", with its key" : "",
			 outcome->attempts < request->attempts ? ", not counted" : "",
			 outcome->look_again ? ", looked for again" : "",
			 outcome->sqlerrcode == ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN ? ", 08007" :
			 outcome->sqlerrcode == ERRCODE_CONNECTION_FAILURE ? ", 08006" : "");
	return line;
}

/* The rules, one by one; -1: any. */
static const struct
{
	int			kind;
	int			state;
	const char *outcome;
}			generate_rules[] = {
	{-1, LOCKED, "wait"},
	{REPLY_DONE, GONE, "revoke a copy"},
	{REPLY_DONE, CHANGED, "revoke a copy"},
	{REPLY_DONE, ENDED, "revoke a copy"},
	{-1, GONE, "nothing"},
	{-1, CHANGED, "nothing"},
	{-1, ENDED, "nothing"},
	{REPLY_DONE, WANTED, "issued never, ended, with its key"},
	{REPLY_DONE, LAST_TRY, "issued never, ended, with its key"},
	{REPLY_DONE, UNWANTED, "revoking at once, with its key, not counted"},
	{REPLY_DOUBT, UNWANTED, "revoking in 3 s"},
	{REPLY_DOUBT, -1, "in_flight in 3 s"},
	{REPLY_KEY_REFUSED, UNWANTED, "revoked never, ended, not counted"},
	{REPLY_NO_DESCRIPTOR, UNWANTED, "revoked never, ended, not counted"},
	{-1, UNWANTED, "revoked never, ended"},
	{REPLY_KEY_REFUSED, -1, "pending in 0 s, not counted"},
	{REPLY_NO_DESCRIPTOR, -1, "pending in 0.1 s, not counted"},
	{REPLY_NOT_SENT, LAST_TRY, "failed never, ended"},
	{REPLY_LIMITED, LAST_TRY, "failed never, ended"},
	{REPLY_NOT_SENT, -1, "pending in 7 s"},
	{REPLY_LIMITED, -1, "pending in 7 s"},
	{-1, -1, "failed never, ended"},
};

static void
test_generate(void)
{
	for (int kind = 0; kind < REPLY_KINDS; kind++)
	{
		for (int state = 0; state < STATES; state++)
		{
			OutcomeRequest request = request_in(state);
			OutcomeCall call = call_in(state, kind);
			Outcome		outcome = outcome_of_generate(&call, &request);
			int			rule = 0;

			while ((generate_rules[rule].kind >= 0 && generate_rules[rule].kind != kind) ||
				   (generate_rules[rule].state >= 0 && generate_rules[rule].state != state))
				rule++;
			unit_check(strcmp(words(&request, &outcome), generate_rules[rule].outcome) == 0,
					   "answer %d, state %d: \"%s\" where \"%s\" is expected", kind, state,
					   words(&request, &outcome), generate_rules[rule].outcome);
			if (outcome.act != OUTCOME_CHANGE)
				continue;
			unit_check(outcome.text == (kind == REPLY_DONE ? TEXT_NONE : TEXT_ANSWER),
					   "answer %d, state %d: text %d", kind, state, outcome.text);
			unit_check(outcome.attempt_timeout == (kind == REPLY_DOUBT ? 9000 : 0),
					   "answer %d: timeout %d", kind, outcome.attempt_timeout);

			/* with a row of a user's to be written */
			request.has_target = true;
			outcome = outcome_of_generate(&call, &request);
			unit_check((outcome.next_attempt_at == DT_NOBEGIN) == (kind == REPLY_DONE),
					   "answer %d, state %d: the row is written when there is a key", kind, state);
		}
	}
}

/*
 * A 401 in a workspace that the request was given: it may be of that one alone.
 */
static void
test_refused_in_workspace(void)
{
	static const struct
	{
		const char *what;
		int			state;
		bool		outdated;
		bool		persists;
		const char *outcome;
	}			cases[] = {
		{"it is tried again later", WANTED, false, false, "pending in 7 s"},
		{"not for ever", LAST_TRY, false, false, "failed never, ended"},
		{"but as long as the key lives that it renews", LAST_TRY, false, true, "pending in 7 s"},
		{"nobody wants it any more", UNWANTED, false, false, "revoked never, ended"},
		{"another API key may be for it", WANTED, true, false, "pending in 0 s, not counted"},
	};

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		OutcomeRequest request = request_in(cases[i].state);
		OutcomeCall call = call_in(cases[i].state, REPLY_KEY_REFUSED);
		Outcome		outcome;

		request.persists = cases[i].persists;
		call.may_be_workspace = true;
		call.outdated = cases[i].outdated;
		outcome = outcome_of_generate(&call, &request);
		unit_check(strcmp(words(&request, &outcome), cases[i].outcome) == 0, "%s: %s",
				   cases[i].what, words(&request, &outcome));
	}
}

/* ---------- after a revocation ---------- */

typedef enum Account
{
	OURS,
	ANOTHERS,					/* the request's, */
	OUTDATED					/* or the call's */
} Account;

static const struct
{
	int			kind;
	bool		forbidden;
	int			account;
	const char *outcome;
	OutcomeText text;
}			delete_rules[] = {
	{REPLY_DONE, false, -1, "revoked never, ended", TEXT_KEPT},
	{-1, true, OUTDATED, "revoking in 0 s", TEXT_KEPT},
	{-1, false, OUTDATED, "revoking in 0 s", TEXT_KEPT},
	{-1, true, ANOTHERS, "failed never, ended, 08007", TEXT_KEY_ELSEWHERE},
	{REPLY_NOTHING_THERE, false, ANOTHERS, "failed never, ended, 08007", TEXT_KEY_ELSEWHERE},
	{REPLY_NOTHING_THERE, false, OURS, "revoked never, ended", TEXT_KEPT},
	{-1, true, -1, "revoking in 7 s", TEXT_ANSWER},
	{-1, false, -1, "revoking in 7 s", TEXT_ANSWER},
};

static void
test_delete(void)
{
	OutcomeRequest request = {.status = STATUS_REVOKING,.has_key = true,.attempts = 3,
	.next_attempt_at = DUE};
	OutcomeRequest ended = {.status = STATUS_FAILED};
	OutcomeCall call;
	Outcome		outcome;

	for (int kind = 0; kind < REPLY_KINDS; kind++)
	{
		for (int account = OURS; account <= OUTDATED; account++)
		{
			for (int forbidden = 0; forbidden <= (kind == REPLY_REFUSED ? 1 : 0); forbidden++)
			{
				int			rule = 0;

				call = call_in(WANTED, kind);
				call.forbidden = forbidden;
				call.outdated = account == OUTDATED;
				request.anothers = account == ANOTHERS;
				outcome = outcome_of_delete(&call, &request);
				while ((delete_rules[rule].kind >= 0 && delete_rules[rule].kind != kind) ||
					   delete_rules[rule].forbidden != forbidden ||
					   (delete_rules[rule].account >= 0 && delete_rules[rule].account != account))
					rule++;
				unit_check(strcmp(words(&request, &outcome), delete_rules[rule].outcome) == 0,
						   "answer %d, account %d: \"%s\" where \"%s\" is expected", kind, account,
						   words(&request, &outcome), delete_rules[rule].outcome);
				unit_check(outcome.text == delete_rules[rule].text,
						   "answer %d, account %d: text %d", kind, account, outcome.text);
			}
		}
		call = call_in(LOCKED, kind);
		outcome = outcome_of_delete(&call, &request);
		unit_check(outcome.act == OUTCOME_WAIT, "answer %d: locked", kind);
		call = call_in(GONE, kind);
		outcome = outcome_of_delete(&call, &request);
		unit_check(outcome.act == OUTCOME_NOTHING, "answer %d: deleted", kind);
		call = call_in(WANTED, kind);
		outcome = outcome_of_delete(&call, &ended);
		unit_check(outcome.act == OUTCOME_NOTHING, "answer %d: changed", kind);
	}
}

/* ---------- after a list that tells nothing ---------- */

static void
test_no_list(void)
{
	static const struct
	{
		const char *name;
		ReplyKind	kind;
		int			status;
		bool		dated;
		bool		unwanted;
		bool		anothers;
		bool		last_try;
		bool		waits_long;
		const char *outcome;
		OutcomeText text;
	}			cases[] = {
		{"it fails", REPLY_DOUBT, 500, false, false, false, false, false,
		"in_flight in 7 s, 08007", TEXT_LIST_FAILED},
		{"it fails for long", REPLY_DOUBT, 500, false, false, false, false, true,
		"in_flight in 250 s, 08007", TEXT_LIST_FAILED},
		{"it fails for one that is not wanted", REPLY_LIMITED, 429, false, true, false, false,
		false, "revoking in 7 s, 08007", TEXT_LIST_FAILED},
		{"it has no Date", REPLY_DONE, 200, false, false, false, false, false,
		"in_flight in 7 s, 08007", TEXT_LIST_WITHOUT_DATE},
		{"it took too long", REPLY_DONE, 200, true, false, false, false, false,
		"in_flight in 7 s, 08007", TEXT_LIST_TOO_SLOW},
		{"there is no such identity", REPLY_NOTHING_THERE, 404, true, false, false, false, false,
		"pending in 3 s, 08007", TEXT_KEPT},
		{"nor is it wanted", REPLY_NOTHING_THERE, 404, true, true, false, false, false,
		"revoked never, ended, 08007", TEXT_KEPT},
		{"nor may it be tried again", REPLY_NOTHING_THERE, 404, true, false, false, true, false,
		"failed never, ended, 08006", TEXT_KEPT},
		{"a proxy's 404", REPLY_REFUSED, 404, true, false, false, false, false,
		"in_flight in 7 s, 08007", TEXT_LIST_FAILED},
		{"no such identity with this account", REPLY_NOTHING_THERE, 404, true, false, true, false,
		false, "failed never, ended, 08007", TEXT_IDENTITY_ELSEWHERE},
		{"a 404 with this account", REPLY_REFUSED, 404, true, false, true, false, false,
		"failed never, ended, 08007", TEXT_IDENTITY_ELSEWHERE},
		{"forbidden with this account", REPLY_REFUSED, 403, true, true, true, false, false,
		"failed never, ended, 08007", TEXT_IDENTITY_ELSEWHERE},
		{"forbidden", REPLY_REFUSED, 403, true, false, false, false, false,
		"in_flight in 7 s, 08007", TEXT_LIST_FAILED},
		{"the API key with this account", REPLY_KEY_REFUSED, 401, true, false, true, false, false,
		"in_flight in 7 s, 08007", TEXT_LIST_FAILED},
	};

	OutcomeList told = {.kind = REPLY_DONE,.has_date = true,.clock_known = true};

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		OutcomeRequest request = request_in(cases[i].unwanted ? UNWANTED :
											cases[i].last_try ? LAST_TRY : WANTED);
		OutcomeList list = {.kind = cases[i].kind,.status = cases[i].status,
			.has_date = cases[i].dated,.pause = S(7),.max_attempts = MAX_ATTEMPTS,.now = NOW
		};
		Outcome		outcome;

		request.anothers = cases[i].anothers;
		request.sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
		unit_check(!outcome_list_tells(&list), "%s: it tells nothing", cases[i].name);
		outcome = outcome_of_no_list(&list, &request, S(cases[i].waits_long ? 1000 : 20));
		unit_check(strcmp(words(&request, &outcome), cases[i].outcome) == 0 &&
				   outcome.text == cases[i].text, "%s: \"%s\", text %d", cases[i].name,
				   words(&request, &outcome), outcome.text);

		/*
		 * one that has no error yet, for its worker has died, gets one if it
		 * waits on
		 */
		request.sqlerrcode = 0;
		outcome = outcome_of_no_list(&list, &request, 0);
		unit_check((outcome.status != STATUS_IN_FLIGHT && outcome.status != STATUS_FAILED) ||
				   outcome.sqlerrcode != 0 || cases[i].last_try, "%s: an error", cases[i].name);
	}
	unit_check(outcome_list_tells(&told), "a list that tells");
	told.clock_known = false;
	unit_check(!outcome_list_tells(&told), "a list when Seam's clock is not known");
}

/* ---------- after a list ---------- */

#define LISTED_MAX 3

/* A request in doubt; its window is from 10 to 20 if nothing else is said. */
typedef struct Listed
{
	int			count;
	bool		unwanted;
	OutcomeOrigin origin;
	bool		anothers;
	bool		vague;
	bool		last_try;
	bool		is_call;
	int			from;
} Listed;

/* Expected: for each request, and which keys are revoked (a bit each). */
static const struct
{
	const char *name;
	int			n;
	Listed		requests[LISTED_MAX];
	int			nkeys;
	int			keys[LISTED_MAX];
	const char *outcomes[LISTED_MAX];
	OutcomeText texts[LISTED_MAX];
	unsigned	revoked;
}			list_cases[] = {
	{"no key", 1, {{1}}, 0, {0}, {"pending in 3 s, looked for again, 08007"}, {TEXT_KEPT}, 0},
	{"no key, and no more tries", 1, {{1,.last_try = true}}, 0, {0},
	{"failed never, ended, looked for again, 08006"}, {TEXT_KEPT}, 0},
	{"no key, nor is one wanted", 1, {{1, true}}, 0, {0},
	{"revoked never, ended, looked for again, 08007"}, {TEXT_KEPT}, 0},
	{"its key", 1, {{1}}, 1, {15}, {"issued never, ended, with its key"}, {TEXT_NONE}, 0},
	{"its key, which is not wanted", 1, {{1, true}}, 1, {15},
	{"revoking at once, with its key, not counted"}, {TEXT_NONE}, 0},
	{"another's key", 1, {{1}}, 1, {30}, {"pending in 3 s, looked for again, 08007"}, {TEXT_KEPT},
	0},
	{"different ones", 2, {{1}, {2}}, 1, {15}, {"pending in 3 s, looked for again, 08007",
	"pending in 3 s, looked for again, 08007"}, {TEXT_KEPT, TEXT_KEPT}, 1},
	{"another issuer", 1, {{1}}, 2, {15, 16}, {"failed never, ended, 08007"}, {TEXT_OTHER_ISSUER},
	0},
	{"a promotion, and a key", 1, {{1,.origin = ORIGIN_BEFORE}}, 1, {15},
	{"failed never, ended, 08007"}, {TEXT_BEFORE_PROMOTION}, 0},
	{"a promotion, and no key", 1, {{1,.origin = ORIGIN_BEFORE}}, 0, {0},
	{"pending in 3 s, looked for again, 08007"}, {TEXT_KEPT}, 0},
	{"a report looked at again, and a key", 1, {{1,.origin = ORIGIN_UNKNOWN}}, 1, {15},
	{"failed never, ended, 08007"}, {TEXT_WHOSE}, 0},
	{"a report looked at again, and no key", 1, {{1,.origin = ORIGIN_UNKNOWN}}, 0, {0},
	{"pending in 3 s, 08007"}, {TEXT_KEPT}, 0},
	{"a vague window, and a key", 1, {{1,.vague = true}}, 1, {15},
	{"failed never, ended, 08007"}, {TEXT_CLOCK_SET_BACK}, 0},
	{"a vague window, and no key", 1, {{1,.vague = true}}, 0, {0},
	{"pending in 3 s, looked for again, 08007"}, {TEXT_KEPT}, 0},
	{"another account, and a key", 1, {{1,.anothers = true}}, 1, {15},
	{"issued never, ended, with its key"}, {TEXT_NONE}, 0},
	{"another account, and no key", 1, {{1,.anothers = true}}, 0, {0},
	{"failed never, ended, 08007"}, {TEXT_NO_KEY_ELSEWHERE}, 0},
	{"a call's key", 1, {{1,.is_call = true}}, 1, {15},
	{"issued never, ended, with its key, 08007"}, {TEXT_FOUND}, 0},
	{"a call's key, which is not wanted any more", 1, {{1, true,.is_call = true}}, 1, {15},
	{"revoking at once, with its key, not counted"}, {TEXT_NONE}, 0},
	{"a call without a key", 1, {{1,.is_call = true}}, 0, {0},
	{"failed never, ended, looked for again, 08006"}, {TEXT_KEPT}, 0},

	/* all of a group, or none */
	{"a call, and a request for another key", 2, {{1,.is_call = true}, {2}}, 1, {15},
	{"failed never, ended, 08007", "failed never, ended, 08007"},
	{TEXT_WHICH_CALL, TEXT_WHICH_CALL}, 0},
	{"a call that is not wanted, and a request for another key", 2,
		{{1, true,.is_call = true}, {2}}, 1, {15},
		{"revoked never, ended, looked for again, 08007",
	"pending in 3 s, looked for again, 08007"}, {TEXT_KEPT, TEXT_KEPT}, 1},
	{"one of two alike is of before a promotion", 2, {{1,.origin = ORIGIN_BEFORE}, {1}}, 1, {15},
	{"failed never, ended, 08007", "failed never, ended, 08007"},
	{TEXT_BEFORE_PROMOTION, TEXT_BEFORE_PROMOTION}, 0},
	{"the other one is", 2, {{1}, {1,.origin = ORIGIN_BEFORE}}, 1, {15},
	{"failed never, ended, 08007", "failed never, ended, 08007"},
	{TEXT_BEFORE_PROMOTION, TEXT_BEFORE_PROMOTION}, 0},
	{"one of two different ones is vague", 2, {{1}, {2,.vague = true}}, 1, {15},
	{"failed never, ended, 08007", "failed never, ended, 08007"},
	{TEXT_CLOCK_SET_BACK, TEXT_CLOCK_SET_BACK}, 0},
	{"one of two different ones is of another account", 2, {{1,.anothers = true}, {2}}, 1, {15},
	{"failed never, ended, 08007", "pending in 3 s, looked for again, 08007"},
	{TEXT_NO_KEY_ELSEWHERE, TEXT_KEPT}, 1},
	{"one of two alike is: the other one has the key", 2, {{1,.anothers = true}, {1, true}}, 1,
	{15}, {"failed never, ended, 08007", "revoking at once, with its key, not counted"},
	{TEXT_NO_KEY_ELSEWHERE, TEXT_NONE}, 0},
	{"they do not belong together", 2, {{1}, {1,.vague = true,.from = 100}}, 1, {15},
	{"issued never, ended, with its key", "pending in 3 s, looked for again, 08007"},
	{TEXT_NONE, TEXT_KEPT}, 0},
	{"a group beside another one", 3, {{1}, {1,.from = 100}, {2,.from = 105}}, 2, {15, 110},
	{"issued never, ended, with its key", "pending in 3 s, looked for again, 08007",
	"pending in 3 s, looked for again, 08007"}, {TEXT_NONE, TEXT_KEPT, TEXT_KEPT}, 2},
};

static void
test_list(void)
{
	OutcomeList list = {.kind = REPLY_DONE,.status = 200,.has_date = true,.clock_known = true,
	.pause = S(7),.max_attempts = MAX_ATTEMPTS,.now = NOW};

	for (int i = 0; i < (int) lengthof(list_cases); i++)
	{
		OutcomeRequest requests[LISTED_MAX];
		Doubt		doubts[LISTED_MAX] = {{0}};
		Candidate	candidates[LISTED_MAX] = {{{0}}};
		Outcome		outcomes[LISTED_MAX];
		unsigned	revoked = 0;

		for (int r = 0; r < list_cases[i].n; r++)
		{
			const Listed *listed = &list_cases[i].requests[r];

			requests[r] = request_in(listed->unwanted ? UNWANTED : listed->last_try ? LAST_TRY :
									 WANTED);
			requests[r].origin = listed->origin;
			requests[r].anothers = listed->anothers;
			requests[r].is_call = listed->is_call;
			requests[r].sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
			doubts[r].max_use_count = listed->count;
			doubts[r].wanted = !listed->unwanted;
			doubts[r].vague = listed->vague;
			doubts[r].elsewhere = listed->anothers;
			doubts[r].from = listed->from > 0 ? listed->from : 10;
			doubts[r].until = doubts[r].from + 10;
		}
		for (int k = 0; k < list_cases[i].nkeys; k++)
			candidates[k].says.created_at = list_cases[i].keys[k];
		outcome_of_list(&list, requests, list_cases[i].n, doubts, candidates,
						list_cases[i].nkeys, outcomes);
		for (int r = 0; r < list_cases[i].n; r++)
		{
			unit_check(strcmp(words(&requests[r], &outcomes[r]), list_cases[i].outcomes[r]) == 0 &&
					   outcomes[r].text == list_cases[i].texts[r],
					   "%s: request %d: \"%s\", text %d", list_cases[i].name, r,
					   words(&requests[r], &outcomes[r]), outcomes[r].text);
			unit_check(!outcomes[r].look_again || outcomes[r].look_again_at == NOW + S(300),
					   "%s: request %d: when it is looked for again", list_cases[i].name, r);
		}
		for (int k = 0; k < list_cases[i].nkeys; k++)
			revoked |= (unsigned) candidates[k].revoke << k;
		unit_check(revoked == list_cases[i].revoked, "%s: revoked: %x", list_cases[i].name,
				   revoked);
	}
}

/* ---------- after a late list ---------- */

static void
test_late_list(void)
{
	static const struct
	{
		const char *name;
		LateFacts	facts;
		LateOutcome outcome;
	}			cases[] = {
		{"locked", {false, true, true,.kind = REPLY_DONE,.has_date = true}, LATE_WAIT},
		{"deleted", {false, false, true,.kind = REPLY_DONE,.has_date = true}, LATE_GONE},
		{"looked for already", {true, false, false,.kind = REPLY_DONE,.has_date = true},
		LATE_GONE},
		{"a list", {true, false, true,.kind = REPLY_DONE,.has_date = true}, LATE_LOOK},
		{"a list, late", {true, false, true,.kind = REPLY_DONE,.has_date = true,
		.age = S(9999)}, LATE_LOOK},
		{"another account", {true, false, true, true,.kind = REPLY_DONE,.has_date = true},
		LATE_UNKNOWN_ACCOUNT},
		{"it changes", {true, false, true, false, true,.kind = REPLY_DONE,.has_date = true},
		LATE_AGAIN},
		{"others are issued", {true, false, true,.busy = true,.kind = REPLY_DONE,
		.has_date = true}, LATE_AGAIN},
		{"others are always issued", {true, false, true,.busy = true,.kind = REPLY_DONE,
		.has_date = true,.age = S(3600)}, LATE_UNKNOWN_BUSY},
		{"no Date", {true, false, true,.kind = REPLY_DONE}, LATE_AGAIN},
		{"never a Date", {true, false, true,.kind = REPLY_DONE,.age = S(3600)},
		LATE_UNKNOWN_LIST},
		{"it fails", {true, false, true,.kind = REPLY_DOUBT,.age = S(3599)}, LATE_AGAIN},
		{"it always fails", {true, false, true,.kind = REPLY_REFUSED,.age = S(3601)},
		LATE_UNKNOWN_LIST},
		{"no such identity", {true, false, true,.kind = REPLY_NOTHING_THERE,.has_date = true},
		LATE_END},
	};

	for (int i = 0; i < (int) lengthof(cases); i++)
		unit_check(outcome_of_late_list(&cases[i].facts) == cases[i].outcome, "%s: %d",
				   cases[i].name, outcome_of_late_list(&cases[i].facts));
}

int
main(void)
{
	test_answers();
	test_generate();
	test_refused_in_workspace();
	test_delete();
	test_no_list();
	test_list();
	test_late_list();
	return unit_end("outcome");
}
