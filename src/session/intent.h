/*-------------------------------------------------------------------------
 *
 * intent.h
 *	  The protection of a call that issues keys: they follow their transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_INTENT_H
#define SEAM_IK_INTENT_H

#include "seam/answer.h"

/* The protection of a call, or of a batch of n of them. */
typedef struct Protection Protection;

/* Returns for whom element i (0 to n - 1) of a batch is. */
typedef const pg_uuid_t *(*IntentIdentity) (const void *arg, int64 i);

extern Protection *intent_begin(Oid function, const SeamAccount *account,
								const SeamRequest *request, int64 n,
								IntentIdentity identity, const void *arg,
								void (*check) (void *arg), void *check_arg);
extern void intent_call(Protection *protection, int64 i);
extern void intent_ended(Protection *protection, int64 i, const SeamResult *result,
						 const HttpAnswer *answer);

#endif							/* SEAM_IK_INTENT_H */
