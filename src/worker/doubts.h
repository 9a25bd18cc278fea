/*-------------------------------------------------------------------------
 *
 * doubts.h
 *	  The requests that are in doubt, by user identity.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_DOUBTS_H
#define SEAM_IK_DOUBTS_H

#include "logic/window.h"
#include "outbox/work.h"
#include "worker/flights.h"

extern void doubts_set_up(void);
extern void doubts_read_anew(void);
extern bool doubts_are_stale(void);
extern void doubts_read(void);
extern void doubts_add(const WorkRow *row, const WorkChange *change);
extern int	doubts_unsettled(void);
extern WorkRow *doubts_of(const WorkRow *row, int *n);
extern bool doubts_are_older(const WorkRow *row, int64 asked_at);
extern void doubts_settled(WorkRow *doubt);
extern const WorkRow *doubts_next(const WorkRow *doubt);
extern const WorkRow *doubts_next_identity(const WorkRow *first, int64 *due);
extern const WorkRow *doubts_first(void);
extern ArrayType *doubts_identities(void);
extern Window doubts_window(const WorkRow *row, const Flight *list);

#endif							/* SEAM_IK_DOUBTS_H */
