/*-------------------------------------------------------------------------
 *
 * account.c
 *	  Which account of Seam a request was made with, as far as that is known.
 *
 * A key belongs to a workspace.  With a personal access token or a console session
 * the workspace is set; an API key belongs to one workspace by itself, which each
 * key that Seam answers names.  So a rotated API key is no other account where the
 * workspace is set, or has been seen with both.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/uuid.h"
#include "seam/account.h"
#include "common/hashfn.h"

/* The halves of AccountId.account; a workspace that is not set is 0. */
#define ENDPOINT(account) ((uint32) ((account) >> 32))
#define WORKSPACE(account) ((uint32) (account))

/*
 * A hash of a text that is never 0, except that of the empty text.
 */
static uint32
hash_text(const char *text)
{
	return text[0] == '\0' ? 0 : Max(hash_bytes((const unsigned char *) text, (int) strlen(text)),
									 1);
}

/*
 * What tells this account from others.
 */
AccountId
account_id(const SeamAccount *account)
{
	AccountId	id = {0};

	id.account = ((uint64) hash_text(account->endpoint) << 32) | hash_text(account->workspace_id);
	id.api_key = hash_bytes_extended((const unsigned char *) account->api_key,
									 strlen(account->api_key), 0);
	id.has_workspace = uuid_read(account->workspace_id, &id.workspace);
	id.chooses = seam_chooses_workspace(account->api_key);
	return id;
}

/*
 * Are these the same endpoint, workspace setting and API key?
 */
bool
account_is_same(const AccountId *a, const AccountId *b)
{
	return a->account == b->account && a->api_key == b->api_key;
}

/*
 * Do these have the same endpoint, and so the same clock?
 */
bool
account_has_endpoint(const AccountId *a, const AccountId *b)
{
	return ENDPOINT(a->account) == ENDPOINT(b->account);
}

/*
 * An answer to a request of this account has named its workspace.
 */
void
account_learn_workspace(AccountId *account, const pg_uuid_t *workspace)
{
	account->has_workspace = true;
	account->workspace = *workspace;
}

/*
 * Can a request that was given this workspace be made there with this account?
 */
static AccountMatch
reaches(const AccountId *now, const pg_uuid_t *workspace)
{
	if (now->chooses)
		return ACCOUNT_OURS;
	if (!now->has_workspace)
		return ACCOUNT_PERHAPS;
	return memcmp(&now->workspace, workspace, UUID_LEN) == 0 ? ACCOUNT_OURS : ACCOUNT_ANOTHERS;
}

/*
 * Is what was requested with the one account of the other, which we have now?  given: the
 * workspace that the request was given, in which it is asked for again, or NULL.
 */
AccountMatch
account_match(const AccountId *then, const pg_uuid_t *given, const AccountId *now)
{
	AccountMatch there = given ? reaches(now, given) : ACCOUNT_OURS;

	/* a key that was found in a user's row */
	if (then->account == 0)
		return there;
	if (!account_has_endpoint(then, now))
		return ACCOUNT_ANOTHERS;
	if (given)
		return there;
	if (WORKSPACE(then->account) != 0 && WORKSPACE(now->account) != 0)
		return WORKSPACE(then->account) == WORKSPACE(now->account) ? ACCOUNT_OURS :
			ACCOUNT_ANOTHERS;
	if (account_is_same(then, now))
		return ACCOUNT_OURS;
	if (!then->has_workspace || !now->has_workspace)
		return ACCOUNT_PERHAPS;
	return memcmp(&then->workspace, &now->workspace, UUID_LEN) == 0 ? ACCOUNT_OURS :
		ACCOUNT_ANOTHERS;
}
