/*-------------------------------------------------------------------------
 *
 * late_keys.h
 *	  Keys that appear after a doubt was settled.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_LATE_KEYS_H
#define SEAM_IK_LATE_KEYS_H

#include "worker/flights.h"

extern bool late_keys_store(Flight *flight);

#endif							/* SEAM_IK_LATE_KEYS_H */
