/*-------------------------------------------------------------------------
 *
 * claim.h
 *	  Claims requests that were read and are locked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_CLAIM_H
#define SEAM_IK_CLAIM_H

#include "datatype/timestamp.h"
#include "logic/outcome.h"
#include "seam/account.h"

/* The attempt that is about to be made. */
typedef struct WorkAttempt
{
	int			timeout;		/* milliseconds */
	int			revoke_timeout; /* of a revocation */
	bool		has_seam_time;	/* Seam's clock is known */
	TimestampTz seam_time;		/* if so: what it says */
	TimestampTz stays_at;		/* by what time of Seam's stays go on;
								 * DT_NOEND: that is not known */
	AccountId	account;		/* that it is made with */
} WorkAttempt;

extern void claim_requests(RequestStatus status, const WorkAttempt *attempt, TimestampTz now,
						   const int64 *ids, int n, bool *claimed);

#endif							/* SEAM_IK_CLAIM_H */
