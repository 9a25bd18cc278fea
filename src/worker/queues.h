/*-------------------------------------------------------------------------
 *
 * queues.h
 *	  When something in the outbox is due, as far as this process knows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_QUEUES_H
#define SEAM_IK_QUEUES_H

#include "outbox/work.h"

extern void queues_set_up(void);
extern void queues_look_at_all(void);
extern void queues_read_in_full(void);
extern void queues_be_careful(const ErrorData *error);
extern void queues_due_at(RequestStatus status, TimestampTz time);
extern void queues_at_once(RequestStatus status, int64 id);
extern bool queues_is_due(RequestStatus status);
extern void queues_none_due(RequestStatus status);
extern bool queues_reads_all(RequestStatus status);
extern TimestampTz queues_next(RequestStatus status);
extern int	queues_claim(RequestStatus status, const WorkAttempt *attempt, ArrayType *held,
						 int limit, WorkRow **rows);
extern void queues_look_again_at(TimestampTz time);
extern TimestampTz queues_next_look(void);
extern int	queues_claim_looks(int limit, WorkRow **rows);

#endif							/* SEAM_IK_QUEUES_H */
