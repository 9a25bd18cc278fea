/*-------------------------------------------------------------------------
 *
 * moved_row.h
 *	  Tells the INSERT of a row that moves between partitions from any other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_MOVED_ROW_H
#define SEAM_IK_MOVED_ROW_H

#include "commands/trigger.h"
#include "fmgr.h"
#include "outbox/row_key.h"

/* A row that leaves a partition, or may be about to. */
typedef struct MovedRow
{
	Oid			relid;			/* the partition; InvalidOid: there is no row */
	ItemPointerData tid;		/* of the version that it leaves there */
	HeapTuple	row;			/* BEFORE UPDATE: as it will be; AFTER DELETE:
								 * as it was */
	Oid			to_relid;		/* AFTER INSERT: the row that has used the
								 * note up, or InvalidOid */
	ItemPointerData to_tid;
	RowKey	   *row_key;		/* of the partition, or NULL: not known */
} MovedRow;

extern void moved_row_note(FunctionCallInfo fcinfo, TriggerData *td, HeapTuple row,
						   RowKey *row_key);
extern bool moved_row_take(FunctionCallInfo fcinfo, TriggerData *td, MovedRow *moved);
extern bool moved_row_is(const MovedRow *moved, TriggerData *td, HeapTuple row, RowKey *row_key);
extern bool moved_row_seen_everywhere(TriggerData *td, Oid function);

#endif							/* SEAM_IK_MOVED_ROW_H */
