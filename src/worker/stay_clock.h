/*-------------------------------------------------------------------------
 *
 * stay_clock.h
 *	  By what time stays begin, end and are renewed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STAY_CLOCK_H
#define SEAM_IK_STAY_CLOCK_H

#include "logic/stay.h"
#include "seam/account.h"
#include "logic/doubt.h"

extern void stay_clock_learn(const SeamTime *sample, const AccountId *account);
extern bool stay_clock_now(StayClock *clock);

#endif							/* SEAM_IK_STAY_CLOCK_H */
