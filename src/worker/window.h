/*-------------------------------------------------------------------------
 *
 * window.h
 *	  When the key of a lost answer can have been created.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WINDOW_H
#define SEAM_IK_WINDOW_H

#include "worker/flights.h"
#include "logic/doubt.h"

extern void window_set(const WorkRow *row, const Flight *list, Doubt *doubt);

#endif							/* SEAM_IK_WINDOW_H */
