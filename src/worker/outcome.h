/*-------------------------------------------------------------------------
 *
 * outcome.h
 *	  The changes that outcomes make to a request.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_OUTCOME_H
#define SEAM_IK_OUTCOME_H

#include "worker/flights.h"

extern void outcome_issued(const WorkRow *row, const SeamKey *key, WorkChange *change);
extern void outcome_not_issued(const WorkRow *row, bool retry, int64 pause, WorkChange *change);
extern void outcome_error(const SeamResult *result, WorkChange *change);
extern void outcome_unsettled(WorkChange *change);
extern bool outcome_is_anothers(const WorkRow *row);
extern bool outcome_is_outdated(const Flight *flight);

#endif							/* SEAM_IK_OUTCOME_H */
