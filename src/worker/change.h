/*-------------------------------------------------------------------------
 *
 * change.h
 *	  Changes of requests, and what follows from them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_CHANGE_H
#define SEAM_IK_CHANGE_H

#include "logic/outcome.h"
#include "outbox/work.h"
#include "seam/answer.h"

extern OutcomeRequest change_facts(const WorkRow *row);
extern WorkChange change_of(const WorkRow *row, const Outcome *outcome, const SeamResult *result,
							const SeamKey *key, const char *keys);
extern void change_needs_writer(void);
extern void change_add(const WorkRow *row, WorkChange *change);
extern void change_make(void);
extern void change_request(const WorkRow *row, WorkChange *change);
extern void change_add_notice(const WorkRow *row, RequestStatus status);
extern int	change_count_notices(void);
extern void change_forget_notices(int n);
extern void change_send_notices(void);

#endif							/* SEAM_IK_CHANGE_H */
