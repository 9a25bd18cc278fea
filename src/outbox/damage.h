/*-------------------------------------------------------------------------
 *
 * damage.h
 *	  Reads a queue around rows that cannot be read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_DAMAGE_H
#define SEAM_IK_DAMAGE_H

#include "datatype/timestamp.h"

/* How far a queue has been read: its next_attempt_at and request_id. */
typedef struct WorkMark
{
	TimestampTz time;			/* next_attempt_at */
	int64		id;				/* request_id */
} WorkMark;

/*
 * Reads at most limit rows of a queue that come after the mark, and returns how many; keep:
 * moves the mark to the last of them, and adds them to those that arg has.  May throw.
 */
typedef int (*DamageRead) (void *arg, WorkMark *mark, int limit, bool keep);

extern bool damage_read(DamageRead read, void *arg, WorkMark *mark, TimestampTz due, int limit);

#endif							/* SEAM_IK_DAMAGE_H */
