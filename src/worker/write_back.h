/*-------------------------------------------------------------------------
 *
 * write_back.h
 *	  Writes issued keys to rows of a user's table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WRITE_BACK_H
#define SEAM_IK_WRITE_BACK_H

#include "logic/table_pace.h"
#include "outbox/outbox.h"

/* What has come of a row. */
typedef enum RowOutcome
{
	ROW_SKIPPED,				/* nothing is to be done any more, or a
								 * session has locked the request: its turn
								 * comes again */
	ROW_WRITTEN,
	ROW_LOOKED_AT,				/* it wants the key */
	ROW_CLEARED,				/* it does not show the key (any more) */
	ROW_LOCKED,					/* a session has locked the row, or its table */
	ROW_UNWANTED,				/* it does not want the key: why */
	ROW_ALONE,					/* something is unusual, that is dealt with
								 * when it is written alone */
	ROW_LATER					/* the others have taken long enough */
} RowOutcome;

/* Rows of one table that are written together. */
typedef struct RowBatch
{
	Oid			table;
	int			n;
	int64		ids[TABLE_PACE_ROWS];	/* of the requests */

	/* what has come of it */
	RowOutcome	outcomes[TABLE_PACE_ROWS];
	int64		took[TABLE_PACE_ROWS];	/* microseconds; of those that were
										 * written */
	const char *reason;			/* of ROW_LOCKED and ROW_UNWANTED */
	bool		looks[TABLE_PACE_ROWS]; /* it was only looked at, */
	bool		clears[TABLE_PACE_ROWS];	/* or is to be cleared */
	int64		hashes[TABLE_PACE_ROWS];	/* target_hash of the request, */
	int64		stays[TABLE_PACE_ROWS]; /* and its stay_id, or 0 */
} RowBatch;

extern void write_back(Outbox *outbox, RowBatch *batch);
extern void write_back_clean_up(void);
extern int64 write_back_since(void);

#endif							/* SEAM_IK_WRITE_BACK_H */
