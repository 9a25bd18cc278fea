/*-------------------------------------------------------------------------
 *
 * credentials.h
 *	  The account that the worker sends its requests with.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_CREDENTIALS_H
#define SEAM_IK_CREDENTIALS_H

#include "seam/account.h"
#include "seam/seam.h"

extern bool credentials_refresh(bool idle, bool *changed);
extern bool credentials_are_missing(int64 *look_at);
extern void credentials_look_now(void);
extern const SeamAccount *credentials_account(void);
extern const AccountId *credentials_id(void);
extern bool credentials_are_others(const AccountId *of, const pg_uuid_t *given);
extern bool credentials_choose_workspace(void);
extern bool credentials_have_changed(const AccountId *since);
extern void credentials_learn_workspace(const AccountId *account, const pg_uuid_t *workspace);
extern char *credentials_url(SeamOp op);

#endif							/* SEAM_IK_CREDENTIALS_H */
