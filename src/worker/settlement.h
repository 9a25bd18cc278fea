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

extern bool settlement_store(Flight *flight);

#endif							/* SEAM_IK_SETTLEMENT_H */
