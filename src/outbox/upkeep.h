/*-------------------------------------------------------------------------
 *
 * upkeep.h
 *	  What is done to the outbox's tables now and then.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_UPKEEP_H
#define SEAM_IK_UPKEEP_H

#include "outbox/work.h"

extern bool upkeep_delete_old(TimestampTz before, ArrayType *keep);
extern void upkeep_warn_of_others(void);
extern void upkeep_end_pauses(const RequestStatus *statuses, int n, TimestampTz until,
							  TimestampTz began_after);
extern void upkeep_end_task_pauses(TimestampTz until);
extern void upkeep_put_off_looks(TimestampTz at);

#endif							/* SEAM_IK_UPKEEP_H */
