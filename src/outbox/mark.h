/*-------------------------------------------------------------------------
 *
 * mark.h
 *	  What outlives a crash of which users' tables the writer writes to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_MARK_H
#define SEAM_IK_MARK_H

#include "datatype/timestamp.h"
#include "utils/array.h"

/* What is noted of a user's table. */
typedef struct Mark
{
	Oid			table;			/* the user's */
	int			crashes;		/* of the server, one after another, while its
								 * rows were written */
	int			stuck;			/* processes, one after another, that its code
								 * has cost */
	TimestampTz not_before;		/* nothing is written before, then;
								 * DT_NOBEGIN: no pause */
	bool		changed;		/* its code is another one than at the last
								 * crash */
} Mark;

extern int	mark_count_crashes(Oid **counted);
extern int	mark_read(Mark **marks);
extern void mark_begin(Oid table);
extern void mark_end_suspect(Oid table);
extern void mark_forget(Oid table);
extern void mark_retry(Oid table, int crashes);
extern void mark_stuck(Oid table, TimestampTz until);
extern void mark_leave(void);

#endif							/* SEAM_IK_MARK_H */
