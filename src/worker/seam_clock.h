/*-------------------------------------------------------------------------
 *
 * seam_clock.h
 *	  What time it is at Seam.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_SEAM_CLOCK_H
#define SEAM_IK_SEAM_CLOCK_H

#include "logic/window.h"
#include "seam/account.h"

extern void seam_clock_set_endpoint(const AccountId *account);
extern bool seam_clock_is_known(void);
extern void seam_clock_now(bool *known, TimestampTz *time);
extern SeamNow seam_clock_by(const SeamTime *answer);
extern void seam_clock_learn(const SeamTime *answer, const AccountId *account);

#endif							/* SEAM_IK_SEAM_CLOCK_H */
