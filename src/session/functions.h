/*-------------------------------------------------------------------------
 *
 * functions.h
 *	  What the SQL functions and the triggers share: a call whose failure is
 *	  raised.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_FUNCTIONS_H
#define SEAM_IK_FUNCTIONS_H

#include "fmgr.h"
#include "seam/answer.h"

extern const pg_uuid_t *functions_user_identity(FunctionCallInfo fcinfo, int arg);
extern int	functions_max_use_count(FunctionCallInfo fcinfo, int arg);
extern const pg_uuid_t *functions_workspace(FunctionCallInfo fcinfo, int arg);
extern void functions_call(Oid function, const SeamAccount *account, const SeamRequest *request,
						   SeamKeyConsumer consume, void *arg, SeamResult *result);

#endif							/* SEAM_IK_FUNCTIONS_H */
