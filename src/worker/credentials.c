/*-------------------------------------------------------------------------
 *
 * credentials.c
 *	  The account that the worker sends its requests with.
 *
 * It is read anew each turn, since the key file may have changed.  What requests under way
 * were made with is kept until none is left of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "config/settings.h"
#include "utils/memutils.h"
#include "worker/credentials.h"
#include "worker/seam_clock.h"
#include "worker/step.h"

/* While there is no API key, it is looked for this often. */
#define LOOK_US (10 * INT64CONST(1000000))

static SeamAccount account;		/* in use; its strings are in current */
static AccountId account_in_use;	/* of that, with what answers have told */
static char *urls[SEAM_DELETE + 1]; /* of each operation, in current */
static bool is_known;			/* there is one */
static MemoryContext current;	/* of account and urls */
static MemoryContext former;	/* parent of those whose URLs requests under
								 * way may have */
static bool is_missing;			/* none could be read the last time */
static int64 look_at;			/* when to look again then: clock_now()'s
								 * clock */

/*
 * In a step: reads the account's settings; arg: where to, in step_context().
 */
static void
read_settings(void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(step_context());

	settings_account(arg);
	MemoryContextSwitchTo(old);
}

/*
 * Keeps a copy of the account, and makes what depends on it.  idle: no request is under
 * way, so that what former ones had may go.
 */
static void
keep(const SeamAccount *read, bool idle)
{
	AccountId	id = account_id(read);
	MemoryContext old;

	seam_clock_set_endpoint(&id);
	if (!account_is_same(&id, &account_in_use))
		account_in_use = id;
	if (former == NULL)
		former = AllocSetContextCreate(TopMemoryContext, "seam_ik former accounts",
									   ALLOCSET_SMALL_SIZES);
	if (current)
		MemoryContextSetParent(current, former);
	if (idle)
		MemoryContextDeleteChildren(former);
	current = AllocSetContextCreate(TopMemoryContext, "seam_ik account", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(current);
	account.endpoint = pstrdup(read->endpoint);
	account.api_key = pstrdup(read->api_key);
	account.workspace_id = pstrdup(read->workspace_id);
	account.ca_file = pstrdup(read->ca_file);
	for (int op = 0; op <= SEAM_DELETE; op++)
		urls[op] = seam_url(&account, op);
	MemoryContextSwitchTo(old);
	is_known = true;
}

/*
 * Returns whether this account is the one in use.
 */
static bool
is_in_use(const SeamAccount *read)
{
	return is_known &&
		strcmp(read->endpoint, account.endpoint) == 0 &&
		strcmp(read->api_key, account.api_key) == 0 &&
		strcmp(read->workspace_id, account.workspace_id) == 0 &&
		strcmp(read->ca_file, account.ca_file) == 0;
}

/*
 * Takes the account as it is set now, also when the key file has changed.  idle: no
 * request is under way.  Returns whether there is one that can be used; *changed: it is
 * another one than before.
 */
bool
credentials_refresh(bool idle, bool *changed)
{
	SeamAccount read = {0};
	Step		step = {.run = read_settings,.arg = &read,.bare = true,.patient = true};

	*changed = false;
	if (!is_missing)
		step.what = "send anything";
	is_missing = !step_take(&step);
	if (is_missing)
	{
		look_at = clock_now() + LOOK_US;
		return false;
	}
	if (is_in_use(&read))
		return true;
	keep(&read, idle);
	*changed = true;
	return true;
}

/*
 * Returns whether there is none now; *at: when to look again, on clock_now()'s clock.
 */
bool
credentials_are_missing(int64 *at)
{
	*at = look_at;
	return is_missing || !is_known;
}

/*
 * Has one that is missing looked for, and told of, anew.
 */
void
credentials_look_now(void)
{
	is_missing = false;
}

/*
 * Returns the account in use.
 */
const SeamAccount *
credentials_account(void)
{
	return &account;
}

/*
 * Returns what tells it from others, with what answers have told.
 */
const AccountId *
credentials_id(void)
{
	return &account_in_use;
}

/*
 * Returns whether a request of this account, which was given this workspace (or NULL), was
 * made with another one than the present one, or perhaps so: then what is not found may
 * exist all the same.
 */
bool
credentials_are_others(const AccountId *of, const pg_uuid_t *given)
{
	return account_match(of, given, &account_in_use) != ACCOUNT_OURS;
}

/*
 * Returns whether a request can be made in the workspace that it was given.
 */
bool
credentials_choose_workspace(void)
{
	return account_in_use.chooses;
}

/*
 * Returns whether the account has changed since it was this one: then what a request has
 * not found tells nothing about the present one.
 */
bool
credentials_have_changed(const AccountId *since)
{
	return !account_is_same(since, &account_in_use);
}

/*
 * Learns from a key in an answer to a request of this account of which workspace the
 * API key is.
 */
void
credentials_learn_workspace(const AccountId *of, const pg_uuid_t *workspace)
{
	if (account_is_same(of, &account_in_use))
		account_learn_workspace(&account_in_use, workspace);
}

/*
 * Returns the URL of an operation; it lives as long as requests that have it.
 */
char *
credentials_url(SeamOp op)
{
	return urls[op];
}
