/*-------------------------------------------------------------------------
 *
 * seam_clock.h
 *	  What time it is at Seam.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_SEAM_CLOCK_H
#define SEAM_IK_SEAM_CLOCK_H

#include "logic/doubt.h"
#include "seam/account.h"

extern void seam_clock_set_endpoint(const AccountId *account);
extern bool seam_clock_is_known(void);
extern void seam_clock_now(bool *known, TimestampTz *time);
extern void seam_clock_of_answer(const SeamTime *sample, TimestampTz *at_end, int64 *uncertain);
extern void seam_clock_learn(const SeamTime *sample, const AccountId *account);

#endif							/* SEAM_IK_SEAM_CLOCK_H */
