/*-------------------------------------------------------------------------
 *
 * stay_dates.h
 *	  When a row's stay begins and ends.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STAY_DATES_H
#define SEAM_IK_STAY_DATES_H

#include "outbox/trigger_plan.h"

extern TimestampTz stay_date(TriggerPlan *plan, TriggerData *td, HeapTuple row, int f);
extern bool stay_is_over(TimestampTz valid_until);

#endif							/* SEAM_IK_STAY_DATES_H */
