/*-------------------------------------------------------------------------
 *
 * row_tables.h
 *	  The users' tables whose rows the writer writes, and what is known against them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ROW_TABLES_H
#define SEAM_IK_ROW_TABLES_H

#include "datatype/timestamp.h"
#include "logic/table_pace.h"
#include "nodes/pg_list.h"
#include "worker/id_list.h"

/* A user's table. */
typedef struct RowTable
{
	Oid			oid;
	TablePace	pace;
	IdList		due;			/* rows to be written */
	IdList		alone;			/* likewise, each by itself */
	bool		marked;			/* before its code has run in this process */
	int			crashes;		/* as its mark says */
	int			suspects;		/* rows left of those that may have crashed
								 * the server */
	bool		retry;			/* somebody has retried, though it is held */
	int64		aside_until;	/* after an error of ours with it:
								 * clock_now()'s clock */
	TimestampTz not_before;		/* its code did not end: nothing is written
								 * before */
	int64		warn_at;		/* of rows that cannot be looked at: not
								 * before */
} RowTable;

extern const List *row_tables(void);
extern RowTable *row_table_of(Oid oid);
extern bool row_table_is_held(const RowTable *table);
extern void row_table_set_aside(RowTable *table);
extern int	row_table_rows(const RowTable *table);
extern bool row_table_is_due(const RowTable *table, int64 now);
extern bool row_tables_any_due(void);
extern bool row_tables_set_up(void);
extern void row_tables_look_soon(void);
extern void row_tables_look(void);
extern bool row_table_note(RowTable *table);
extern void row_table_trust(RowTable *table);
extern void row_table_retry(RowTable *table);
extern void row_tables_rest(void);

#endif							/* SEAM_IK_ROW_TABLES_H */
