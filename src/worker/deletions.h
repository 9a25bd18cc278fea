/*-------------------------------------------------------------------------
 *
 * deletions.h
 *	  Intents about which is decided, until the journal has them no more.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_DELETIONS_H
#define SEAM_IK_DELETIONS_H

#include "worker/intents.h"

extern void deletions_add(Intent *intent);
extern int64 deletions_due(void);
extern void deletions_take(void);

/* the same inside another step */
extern void deletions_do(void *arg);
extern void deletions_done(void *arg);
extern void deletions_failed(void *arg, const ErrorData *error);

#endif							/* SEAM_IK_DELETIONS_H */
