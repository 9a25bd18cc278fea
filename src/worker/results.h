/*-------------------------------------------------------------------------
 *
 * results.h
 *	  What becomes of a request when its flight has ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_RESULTS_H
#define SEAM_IK_RESULTS_H

#include "worker/flights.h"

/* So much later it is tried again what a session's lock has kept from being stored. */
#define RESULTS_LOCKED_PAUSE_US (100 * INT64CONST(1000))

/* Requests that were locked together, with those of their flights. */
typedef struct ResultsLocked
{
	WorkRow    *rows;			/* by id */
	int			n;
} ResultsLocked;

extern void results_lock(const int64 *ids, int n, ResultsLocked *locked);
extern bool results_store(Flight *flight, const ResultsLocked *locked);

#endif							/* SEAM_IK_RESULTS_H */
