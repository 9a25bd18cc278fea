/*-------------------------------------------------------------------------
 *
 * stay_times.h
 *	  When something is due of a stay, as far as the worker knows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STAY_TIMES_H
#define SEAM_IK_STAY_TIMES_H

#include "outbox/work.h"

extern void stay_times_look(void);
extern void stay_times_set(TimestampTz time);
extern TimestampTz stay_times_next(void);
extern bool stay_times_after(const WorkRow *row, WorkChange *change);

#endif							/* SEAM_IK_STAY_TIMES_H */
