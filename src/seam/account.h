/*-------------------------------------------------------------------------
 *
 * account.h
 *	  Which account of Seam a request was made with, as far as that is known.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ACCOUNT_H
#define SEAM_IK_ACCOUNT_H

#include "seam/seam.h"

/*
 * What tells accounts apart.  The API key stands apart from the rest, because it may
 * be rotated within a workspace.
 */
typedef struct AccountId
{
	/* the endpoint, and the workspace as it is set; 0: nothing is known */
	uint64		account;

	/* a hash of the API key */
	uint64		api_key;

	/* the workspace, as it is set or as an answer has told it */
	bool		has_workspace;
	pg_uuid_t	workspace;		/* if so */

	/* the API key is for several workspaces: a request may name another one */
	bool		chooses;
} AccountId;

/* Is a request of the account that we have now? */
typedef enum AccountMatch
{
	ACCOUNT_OURS,				/* yes: what is not found does not exist */
	ACCOUNT_PERHAPS,			/* nobody can tell */
	ACCOUNT_ANOTHERS			/* no */
} AccountMatch;

extern AccountId account_id(const SeamAccount *account);
extern bool account_is_same(const AccountId *a, const AccountId *b);
extern bool account_has_endpoint(const AccountId *a, const AccountId *b);
extern void account_learn_workspace(AccountId *account, const pg_uuid_t *workspace);
extern AccountMatch account_match(const AccountId *then, const pg_uuid_t *given,
								  const AccountId *now);

#endif							/* SEAM_IK_ACCOUNT_H */
