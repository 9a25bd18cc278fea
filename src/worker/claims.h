/*-------------------------------------------------------------------------
 *
 * claims.h
 *	  Which requests are sent now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_CLAIMS_H
#define SEAM_IK_CLAIMS_H

extern void claims_take(void);
extern int	claims_allowance(int64 *again_at);
extern int64 claims_list_due(void);

#endif							/* SEAM_IK_CLAIMS_H */
