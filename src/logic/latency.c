/*-------------------------------------------------------------------------
 *
 * latency.c
 *	  Times counted in fixed buckets, and what share of them is below which.
 *
 * A power of 2 has four buckets of the same width, so a bucket's times differ by at most
 * a quarter of its lower end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/latency.h"
#include "port/pg_bitutils.h"

/*
 * Returns the bucket of a time in microseconds; a negative one counts as 0.
 */
int
latency_bucket(int64 us)
{
	int			power;

	if (us < 4)
		return us < 0 ? 0 : (int) us;
	power = pg_leftmost_one_pos64((uint64) us);
	return Min((power - 1) * 4 + (int) ((us >> (power - 2)) & 3), LATENCY_BUCKETS - 1);
}

/*
 * Returns the least time of a bucket, in microseconds; that of LATENCY_BUCKETS is where
 * the last would end.
 */
static int64
lower_end(int bucket)
{
	int			power = bucket / 4 + 1;

	if (bucket < 4)
		return bucket;
	return (int64) (4 + bucket % 4) << (power - 2);
}

/*
 * Returns the time, in microseconds, below which this share (over 0, at most 1) of those
 * is that are counted, LATENCY_BUCKETS counts: as if they lay evenly within a bucket; max
 * is the greatest of them.  0 when there are none.
 */
double
latency_share(const uint64 *counts, double share, int64 max)
{
	uint64		all = 0;
	double		left;

	for (int i = 0; i < LATENCY_BUCKETS; i++)
		all += counts[i];
	left = share * (double) all;
	for (int i = 0; all > 0 && i < LATENCY_BUCKETS; i++)
	{
		if (counts[i] > 0 && left <= (double) counts[i])
		{
			double		lower = (double) lower_end(i);
			double		time = lower + ((double) lower_end(i + 1) - lower) *
			(left / (double) counts[i]);

			return Min(time, (double) max);
		}
		left -= (double) counts[i];
	}
	return (double) (all > 0 ? max : 0);
}
