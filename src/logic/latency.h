/*-------------------------------------------------------------------------
 *
 * latency.h
 *	  Times counted in fixed buckets, and what share of them is below which.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_LATENCY_H
#define SEAM_IK_LATENCY_H

/* Four for each power of 2 of microseconds; the last takes whatever is over an hour. */
#define LATENCY_BUCKETS 124

extern int	latency_bucket(int64 us);
extern double latency_share(const uint64 *counts, double share, int64 max);

#endif							/* SEAM_IK_LATENCY_H */
