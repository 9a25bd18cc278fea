/*-------------------------------------------------------------------------
 *
 * claim.h
 *	  Claims requests that were read and are locked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_CLAIM_H
#define SEAM_IK_CLAIM_H

#include "outbox/work.h"

extern Datum claim_ids(const WorkRow *rows, int n);
extern int	claim_rows(RequestStatus status, const WorkAttempt *attempt, WorkRow *rows, int n);

#endif							/* SEAM_IK_CLAIM_H */
