/*-------------------------------------------------------------------------
 *
 * table_pace.c
 *	  How the rows of a user's table are written, as those before them tell.
 *
 * Rows of one table are written together, which is much faster.  But a row whose
 * triggers fail takes the others of its transaction along, and one whose triggers are slow
 * makes the tables behind it wait.  So such a table's rows go one by one, each when no
 * other table has any, until they have behaved for a while.  Several such tables share the
 * time, not the turns: behind each row that sleeps come many that are only not quick.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "logic/table_pace.h"

/* After so many quick rows in turn they are written together again. */
#define QUICK_ROWS 20

/* The pauses of a table whose code has to be ended with its process. */
#define PAUSE_FIRST_US (8 * INT64CONST(1000000))
#define PAUSE_MAX_US (60 * INT64CONST(1000000))

/*
 * The table has rows again: it is not owed what others have used meanwhile.  served is what
 * the table had used that was served last.
 */
void
table_pace_join(TablePace *pace, int64 served)
{
	pace->used = Max(pace->used, served);
}

/*
 * A row was written, or has failed, within took microseconds.
 */
void
table_pace_row(TablePace *pace, bool failed, int64 took)
{
	pace->used += took;
	if (failed || took > TABLE_PACE_SLOW_US)
	{
		pace->one_by_one = true;
		pace->quick = 0;
	}
	else if (pace->one_by_one && ++pace->quick >= QUICK_ROWS)
		pace->one_by_one = false;
	if (!failed)
		pace->stuck = 0;
}

/*
 * Rows that were written together have failed, one of them or their commit.
 */
void
table_pace_batch_failed(TablePace *pace)
{
	pace->one_by_one = true;
	pace->quick = 0;
}

/*
 * May another row be written in the transaction of nrows others, the last of which took
 * last_took microseconds, and all of them all_took?
 */
bool
table_pace_goes_on(int nrows, int64 last_took, int64 all_took)
{
	return nrows < TABLE_PACE_ROWS && last_took <= TABLE_PACE_SLOW_US &&
		all_took < TABLE_PACE_BATCH_US;
}

/*
 * How long a table waits, in microseconds, whose code had to be ended with its process for
 * the stuck-th time in turn.
 */
int64
table_pace_pause(int stuck)
{
	return Min(PAUSE_FIRST_US << Min(Max(stuck, 1) - 1, 16), PAUSE_MAX_US);
}
