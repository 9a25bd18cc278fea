/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  Rows of users' tables that the writer is to write keys to, table by table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ROWS_H
#define SEAM_IK_ROWS_H

#include "datatype/timestamp.h"

extern bool rows_write(void);
extern void rows_look_at_tasks(void);
extern TimestampTz rows_next_task(void);
extern int64 rows_due(void);
extern void rows_rest(void);
extern void rows_note_stuck(void);

#endif							/* SEAM_IK_ROWS_H */
