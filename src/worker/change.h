/*-------------------------------------------------------------------------
 *
 * change.h
 *	  Changes of requests, and what follows from them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_CHANGE_H
#define SEAM_IK_CHANGE_H

#include "outbox/work.h"

extern WorkChange change_none(const WorkRow *row);
extern void change_request(const WorkRow *row, WorkChange *change);
extern void change_add_notice(const WorkRow *row, RequestStatus status);
extern int	change_count_notices(void);
extern void change_forget_notices(int n);
extern void change_send_notices(void);

#endif							/* SEAM_IK_CHANGE_H */
