/*-------------------------------------------------------------------------
 *
 * test_table_pace.c
 *	  How the rows of a user's table are written, as those before them tell.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "logic/table_pace.h"
#include "unit.h"

#define MS(ms) ((int64) (ms) * 1000)

/*
 * A step of a table's life: rows that were written, or have failed.
 */
typedef struct Row
{
	const char *what;
	int			times;
	bool		failed;
	int64		took;
	bool		one_by_one;		/* expected afterwards */
} Row;

static const Row rows[] = {
	{"quick rows go together", 100, false, MS(1), false},
	{"as quick as it must be", 1, false, MS(5), false},
	{"one that is slow", 1, false, MS(6), true},
	{"some that are quick do not count yet", 19, false, MS(1), true},
	{"the twentieth does", 1, false, MS(1), false},
	{"one that fails, quickly", 1, true, 0, true},
	{"some are quick", 19, false, 0, true},
	{"and another one fails", 1, true, 0, true},
	{"it begins anew", 19, false, 0, true},
	{"and then they go together", 1, false, 0, false},
};

static void
test_rows(void)
{
	TablePace	pace = {0};

	for (int i = 0; i < (int) lengthof(rows); i++)
	{
		for (int n = 0; n < rows[i].times; n++)
			table_pace_row(&pace, rows[i].failed, rows[i].took);
		unit_check(pace.one_by_one == rows[i].one_by_one, "%s: %d", rows[i].what,
				   pace.one_by_one);
	}
	table_pace_batch_failed(&pace);
	unit_check(pace.one_by_one, "rows that failed together go one by one");
	pace.stuck = 2;
	table_pace_row(&pace, true, 0);
	unit_check(pace.stuck == 2, "a row that fails tells nothing of what does not end");
	table_pace_row(&pace, false, 0);
	unit_check(pace.stuck == 0, "one that is written does");
}

/*
 * Batches: how many rows are written together, each of which takes so long.
 */
static const struct
{
	int64		took;
	int			n;
}			batches[] = {
	{0, TABLE_PACE_ROWS}, {100, TABLE_PACE_ROWS}, {MS(1), 20}, {MS(4), 5}, {MS(5), 4}, {MS(6), 1},
	{MS(1500), 1},
};

static void
test_batches(void)
{
	for (int i = 0; i < (int) lengthof(batches); i++)
	{
		int			n = 1;

		while (table_pace_goes_on(n, batches[i].took, n * batches[i].took))
			n++;
		unit_check(n == batches[i].n, "rows of %d us: %d together", (int) batches[i].took, n);
	}
}

/*
 * Pauses of a table whose code does not end grow, and have an end.
 */
static void
test_pauses(void)
{
	int64		last = 0;

	for (int stuck = 1; stuck < 100; stuck++)
	{
		int64		pause = table_pace_pause(stuck);

		unit_check(pause > last || (pause == last && pause == MS(60000)),
				   "pause %d is %d ms", stuck, (int) (pause / 1000));
		last = pause;
	}
}

/*
 * Tables whose rows go one by one share the time: one row of 1.5 s and 250 of 6 ms.
 */
static void
test_shares(void)
{
	TablePace	slow = {0};
	TablePace	medium = {0};
	int			nslow = 0;
	int			nmedium = 0;

	while (nslow < 10)
	{
		bool		is_slow = slow.used <= medium.used;

		table_pace_row(is_slow ? &slow : &medium, false, is_slow ? MS(1500) : MS(6));
		if (is_slow)
			nslow++;
		else
			nmedium++;
	}
	unit_check(nmedium == 2250, "%d rows beside %d slow ones", nmedium, nslow);
	medium = (TablePace)
	{
		0
	};
	table_pace_join(&medium, slow.used);
	unit_check(medium.used == slow.used, "a table that comes later is not owed the past");
	table_pace_join(&slow, 0);
	unit_check(medium.used == slow.used, "and none loses what it has used");
}

int
main(void)
{
	test_rows();
	test_batches();
	test_pauses();
	test_shares();
	return unit_end("table_pace");
}
