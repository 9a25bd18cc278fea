/*-------------------------------------------------------------------------
 *
 * stats.h
 *	  Counts of requests, by database and route.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STATS_H
#define SEAM_IK_STATS_H

#include "datatype/timestamp.h"
#include "logic/latency.h"

/* Who makes requests, and for what. */
typedef enum StatRoute
{
	STAT_SESSION,				/* sessions' own calls */
	STAT_OUTBOX,				/* the worker, for new keys */
	STAT_RENEWAL,				/* the worker, for keys in place of others */
	STAT_REVOCATION,			/* the worker, to revoke */
	STAT_LIST,					/* the worker, for what an identity has */
	STAT_ROUTES
} StatRoute;

/* What is counted. */
typedef enum StatCounter
{
	STAT_REQUESTS,				/* HTTP requests that have ended */
	STAT_NO_ANSWER,				/* of these: there was none */
	STAT_2XX,					/* of these: by the status of the answer */
	STAT_3XX,
	STAT_4XX,
	STAT_5XX,
	STAT_RETRIES,				/* of these: not the first for their purpose */
	STAT_DOUBTS,				/* calls of which it was not known whether
								 * they were done */
	STAT_DOUBTS_FOUND,			/* of these: the key was found */
	STAT_DOUBTS_NONE,			/* of these: there was none */
	STAT_DOUBTS_REPORTED,		/* of these: a person has to look */
	STAT_OPENED,				/* connections that were made */
	STAT_REUSED,				/* requests on one that was there */
	STAT_SENT,					/* bytes */
	STAT_RECEIVED,				/* bytes */
	STAT_TIME,					/* microseconds of all requests together */
	STAT_MAX,					/* of the longest */
	STAT_COUNTERS
} StatCounter;

/* SQLSTATEs that are told apart; the last takes all others. */
#define STAT_STATES 16

/* An HTTP request that has ended. */
typedef struct StatTry
{
	int			status;			/* of the answer; 0: there was none */
	bool		again;			/* it is not the first for its purpose */
	bool		opened;			/* a connection was made for it */
	int64		sent;			/* bytes of the request, with headers */
	int64		received;		/* bytes of the answer, with headers */
	int64		took;			/* microseconds */
} StatTry;

/* The counts of a database and route. */
typedef struct StatCounts
{
	uint64		counters[STAT_COUNTERS];	/* by StatCounter */
	uint64		buckets[LATENCY_BUCKETS];	/* of times, by latency_bucket() */
	int			states[STAT_STATES];	/* SQLSTATEs, packed; 0: none */
	uint64		state_counts[STAT_STATES];	/* of failures with these */
} StatCounts;

extern void stats_request_shared(void);
extern void stats_startup_shared(void);
extern void stats_try(StatRoute route, const StatTry *attempt);
extern void stats_end(StatRoute route, int sqlerrcode, bool in_doubt);
extern void stats_add(StatRoute route, StatCounter counter);
extern int	stats_places(void);
extern bool stats_get(int place, Oid *database, TimestampTz *since, StatCounts *counts);
extern void stats_reset(Oid database);
extern void stats_forget(Oid database);
extern const char *stats_route_name(StatRoute route);

#endif							/* SEAM_IK_STATS_H */
