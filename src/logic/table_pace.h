/*-------------------------------------------------------------------------
 *
 * table_pace.h
 *	  How the rows of a user's table are written, as those before them tell.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_TABLE_PACE_H
#define SEAM_IK_TABLE_PACE_H

/* Rows that are written together: at most so many, for at most so long. */
#define TABLE_PACE_ROWS 100
#define TABLE_PACE_BATCH_US (20 * INT64CONST(1000))

/* A row that takes longer is slow. */
#define TABLE_PACE_SLOW_US (5 * INT64CONST(1000))

/* After so many crashes no row of the table is written any more. */
#define TABLE_PACE_CRASHES 3

/* What the rows of a table have shown. */
typedef struct TablePace
{
	bool		one_by_one;		/* each in a transaction of its own, after
								 * other tables */
	int			quick;			/* rows that were quick since then, one after
								 * another */
	int64		used;			/* what its rows have taken, microseconds: of
								 * tables whose rows go one by one, the one
								 * with the least is next */
	int			stuck;			/* how often its code did not even end when it
								 * was cancelled, since a row was last written */
} TablePace;

extern void table_pace_join(TablePace *pace, int64 served);
extern void table_pace_row(TablePace *pace, bool failed, int64 took);
extern void table_pace_batch_failed(TablePace *pace);
extern bool table_pace_goes_on(int nrows, int64 last_took, int64 all_took);
extern int64 table_pace_pause(int stuck);

#endif							/* SEAM_IK_TABLE_PACE_H */
