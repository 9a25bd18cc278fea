/*-------------------------------------------------------------------------
 *
 * sending.h
 *	  How much the worker may send now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_SENDING_H
#define SEAM_IK_SENDING_H

#include "net/request.h"

extern void sending_set_up(void);
extern void sending_resume(void);
extern void sending_trust_account(void);
extern int64 sending_backoff(int attempts);
extern int64 sending_answer(const HttpAnswer *answer, int attempts, int nflying, int64 now);
extern void sending_account_answered(bool refused, bool answered, int64 now);
extern int	sending_allowance(int nflying, int64 now, int64 *again_at);
extern int	sending_limit(void);
extern void sending_take(void);

#endif							/* SEAM_IK_SENDING_H */
