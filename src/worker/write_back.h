/*-------------------------------------------------------------------------
 *
 * write_back.h
 *	  Write an issued key to the row that it was issued for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WRITE_BACK_H
#define SEAM_IK_WRITE_BACK_H

#include "outbox/outbox.h"

typedef enum WriteBackOutcome
{
	WRITE_BACK_DONE,
	WRITE_BACK_SKIPPED,			/* nothing is to be done (any more) */
	WRITE_BACK_LOCKED,			/* a session has locked the request */
	WRITE_BACK_REVOKE			/* the key is not wanted there */
} WriteBackOutcome;

extern void write_back_define(void);
extern WriteBackOutcome write_back(Outbox *outbox, int64 id, const char **reason);
extern void write_back_clean_up(void);

#endif							/* SEAM_IK_WRITE_BACK_H */
