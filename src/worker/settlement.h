/*-------------------------------------------------------------------------
 *
 * settlement.h
 *	  How doubts are settled by Seam's list of keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_SETTLEMENT_H
#define SEAM_IK_SETTLEMENT_H

#include "worker/flights.h"

/* A key may appear after a doubt was settled: it is looked for so much later. */
#define SETTLEMENT_LATE_US (300 * INT64CONST(1000000))

extern bool settlement_store(Flight *flight);

#endif							/* SEAM_IK_SETTLEMENT_H */
