/*-------------------------------------------------------------------------
 *
 * candidates.h
 *	  The keys of a list that nobody owns.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_CANDIDATES_H
#define SEAM_IK_CANDIDATES_H

#include "logic/doubt.h"
#include "worker/flights.h"

extern int	candidates_find(Flight *list, Candidate **candidates);
extern char *candidates_of_group(const Candidate *candidates, int n, int group);
extern char *candidates_fitting(const Doubt *doubt, Candidate *candidates, int n);

#endif							/* SEAM_IK_CANDIDATES_H */
