/*-------------------------------------------------------------------------
 *
 * test_latency.c
 *	  Times in buckets: each has its bucket, and shares are as near as a bucket is wide.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/latency.h"
#include "unit.h"

/* the server's own is not linked */
#undef qsort

#define TIMES 1000

static int
compare(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}

/*
 * Returns the least time that is in the bucket or a later one.
 */
static int64
lower_end(int bucket)
{
	int64		low = 0;
	int64		high = INT64_MAX;

	while (low < high)
	{
		int64		middle = low + (high - low) / 2;

		if (latency_bucket(middle) < bucket)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * Every time is in the bucket whose ends are around it, and buckets follow each other.
 */
static void
test_buckets(void)
{
	for (int i = 0; i < LATENCY_BUCKETS; i++)
	{
		int64		lower = lower_end(i);

		unit_check(latency_bucket(lower) == i, "bucket %d", i);
		unit_check(i == 0 || latency_bucket(lower - 1) == i - 1, "before bucket %d", i);
		unit_check(i < 5 || (lower - lower_end(i - 1)) * 4 <= lower_end(i - 1),
				   "the width of %d", i - 1);
	}
	unit_check(latency_bucket(-1) == 0, "a negative time");
	unit_check(latency_bucket(INT64_MAX) == LATENCY_BUCKETS - 1, "the longest time");
	unit_check(lower_end(LATENCY_BUCKETS - 1) >= INT64CONST(3600) * 1000000 / 2,
			   "an hour is told from half of one");
}

/*
 * Shares of random times, against the sorted times.
 */
static void
test_shares(void)
{
	static const double shares[] = {0.01, 0.5, 0.95, 0.99, 1.0};

	for (int round = 0; round < 200; round++)
	{
		uint64		counts[LATENCY_BUCKETS] = {0};
		int64		times[TIMES];
		int			n = 1 + (int) unit_random(TIMES);
		uint32		most = 1 + unit_random(round % 2 ? 1000 : 2000000000);

		for (int i = 0; i < n; i++)
		{
			times[i] = unit_random(most);
			counts[latency_bucket(times[i])]++;
		}
		qsort(times, n, sizeof(int64), compare);
		for (int s = 0; s < (int) lengthof(shares); s++)
		{
			int			rank = Max((int) (shares[s] * n + 0.999999), 1);
			double		true_time = (double) times[Min(rank, n) - 1];
			double		told = latency_share(counts, shares[s], times[n - 1]);

			unit_check(told >= true_time * 0.79 - 1 && told <= true_time * 1.26 + 1,
					   "share %.2f of %d: %.0f is told for %.0f", shares[s], n, told, true_time);
			unit_check(told <= (double) times[n - 1], "no more than the greatest");
		}
	}
}

int
main(void)
{
	uint64		none[LATENCY_BUCKETS] = {0};

	unit_seed(1);
	test_buckets();
	test_shares();
	unit_check(latency_share(none, 0.5, 0) == 0, "no time at all");
	return unit_end("latency");
}
