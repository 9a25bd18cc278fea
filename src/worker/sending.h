/*-------------------------------------------------------------------------
 *
 * sending.h
 *	  How much the worker may send now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_SENDING_H
#define SEAM_IK_SENDING_H

#include "logic/pace.h"
#include "net/request.h"
#include "shmem/activity.h"

extern void sending_set_up(void);
extern void sending_resume(void);
extern void sending_trust_account(void);
extern int64 sending_backoff(int attempts);
extern bool sending_answer(const HttpAnswer *http, int64 id, int attempts,
						   bool may_be_workspace, int64 begun_at, int nflying, int64 now);
extern int64 sending_pause(const HttpAnswer *answer, int attempts);
extern int	sending_take_given_back(const int64 **ids);
extern int	sending_allowance(int nflying, int64 now, PaceMay *may, int64 *again_at);
extern int	sending_failed_probes(void);
extern bool sending_is_stopped(void);
extern void sending_sent(void);
extern int	sending_limit(void);
extern void sending_take(void);
extern WorkerState sending_state(int64 now, int64 *until);

#endif							/* SEAM_IK_SENDING_H */
