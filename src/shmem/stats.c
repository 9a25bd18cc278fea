/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  Counts of requests, by database and route.
 *
 * They are atomic, so that counting takes no lock; which place a database has is found
 * once by each process.  A clean stop of the server writes them to a file, which its next
 * start reads and removes; what has counted until a crash is lost.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "miscadmin.h"
#include "port/atomics.h"
#include "shmem/stats.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

/* Databases that have counts; others count nothing. */
#define PLACES 64

/* In the data directory, where the server's own statistics are. */
#define STATS_FILE "pg_stat/seam_ik.stat"

/* The form of the file. */
#define STATS_MAGIC 0x5ea31001

/* A route's counts; the atomic form of StatCounts. */
typedef struct Route
{
	pg_atomic_uint64 counters[STAT_COUNTERS];
	pg_atomic_uint64 buckets[LATENCY_BUCKETS];
	pg_atomic_uint32 states[STAT_STATES];
	pg_atomic_uint64 state_counts[STAT_STATES];
} Route;

/* A database's place. */
typedef struct StatPlace
{
	Oid			database;		/* InvalidOid: free; under the lock */
	TimestampTz since;			/* when counting began; under the lock */
	Route		routes[STAT_ROUTES];
} StatPlace;

/* In shared memory. */
typedef struct Stats
{
	LWLock	   *lock;
	StatPlace	places[PLACES];
} Stats;

/* A place in the file. */
typedef struct Saved
{
	Oid			database;
	TimestampTz since;
	StatCounts	routes[STAT_ROUTES];
} Saved;

static Stats *stats;			/* NULL: not preloaded */
static StatPlace *mine;			/* of this process's database, or NULL */

/*
 * shmem_request_hook
 */
void
stats_request_shared(void)
{
	RequestAddinShmemSpace(sizeof(Stats));
	RequestNamedLWLockTranche("seam_ik_stats", 1);
}

/*
 * Makes all counts of a place 0, in a process that is alone or holds the lock.
 */
static void
clear(StatPlace *place, bool init)
{
	for (int r = 0; r < STAT_ROUTES; r++)
	{
		Route	   *route = &place->routes[r];

		for (int i = 0; i < STAT_COUNTERS; i++)
			init ? pg_atomic_init_u64(&route->counters[i], 0) :
				pg_atomic_write_u64(&route->counters[i], 0);
		for (int i = 0; i < LATENCY_BUCKETS; i++)
			init ? pg_atomic_init_u64(&route->buckets[i], 0) :
				pg_atomic_write_u64(&route->buckets[i], 0);
		for (int i = 0; i < STAT_STATES; i++)
		{
			init ? pg_atomic_init_u32(&route->states[i], 0) :
				pg_atomic_write_u32(&route->states[i], 0);
			init ? pg_atomic_init_u64(&route->state_counts[i], 0) :
				pg_atomic_write_u64(&route->state_counts[i], 0);
		}
	}
	place->since = GetCurrentTimestamp();
}

/*
 * Copies the counts of a route.
 */
static void
copy_counts(Route *route, StatCounts *counts)
{
	for (int i = 0; i < STAT_COUNTERS; i++)
		counts->counters[i] = pg_atomic_read_u64(&route->counters[i]);
	for (int i = 0; i < LATENCY_BUCKETS; i++)
		counts->buckets[i] = pg_atomic_read_u64(&route->buckets[i]);
	for (int i = 0; i < STAT_STATES; i++)
	{
		counts->states[i] = (int) pg_atomic_read_u32(&route->states[i]);
		counts->state_counts[i] = pg_atomic_read_u64(&route->state_counts[i]);
	}
}

/*
 * Puts counts into a route.
 */
static void
restore_counts(Route *route, const StatCounts *counts)
{
	for (int i = 0; i < STAT_COUNTERS; i++)
		pg_atomic_write_u64(&route->counters[i], counts->counters[i]);
	for (int i = 0; i < LATENCY_BUCKETS; i++)
		pg_atomic_write_u64(&route->buckets[i], counts->buckets[i]);
	for (int i = 0; i < STAT_STATES; i++)
	{
		pg_atomic_write_u32(&route->states[i], (uint32) counts->states[i]);
		pg_atomic_write_u64(&route->state_counts[i], counts->state_counts[i]);
	}
}

/*
 * on_shmem_exit callback of the postmaster: after a clean stop keeps the counts.
 */
static void
save(int code, Datum arg)
{
	uint32		magic = STATS_MAGIC;
	FILE	   *file;
	bool		ok;

	if (code != 0 || stats == NULL)
		return;
	file = AllocateFile(STATS_FILE ".tmp", PG_BINARY_W);
	ok = file && fwrite(&magic, sizeof(magic), 1, file) == 1;
	for (int i = 0; ok && i < PLACES; i++)
	{
		StatPlace  *place = &stats->places[i];
		static Saved saved;

		if (!OidIsValid(place->database))
			continue;
		saved.database = place->database;
		saved.since = place->since;
		for (int r = 0; r < STAT_ROUTES; r++)
			copy_counts(&place->routes[r], &saved.routes[r]);
		ok = fwrite(&saved, sizeof(saved), 1, file) == 1;
	}
	if (file && FreeFile(file) != 0)
		ok = false;
	if (ok)
		(void) durable_rename(STATS_FILE ".tmp", STATS_FILE, LOG);
	else
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", STATS_FILE ".tmp")));
		unlink(STATS_FILE ".tmp");
	}
}

/*
 * Takes up the counts that a clean stop has kept.  A file of another form is no loss.
 */
static void
restore(void)
{
	uint32		magic = 0;
	FILE	   *file = AllocateFile(STATS_FILE, PG_BINARY_R);

	if (file == NULL)
		return;
	if (fread(&magic, sizeof(magic), 1, file) == 1 && magic == STATS_MAGIC)
	{
		for (int i = 0; i < PLACES; i++)
		{
			static Saved saved;

			if (fread(&saved, sizeof(saved), 1, file) != 1)
				break;
			stats->places[i].database = saved.database;
			stats->places[i].since = saved.since;
			for (int r = 0; r < STAT_ROUTES; r++)
				restore_counts(&stats->places[i].routes[r], &saved.routes[r]);
		}
	}
	FreeFile(file);
	/* after a crash it would be of before */
	unlink(STATS_FILE);
}

/*
 * shmem_startup_hook
 */
void
stats_startup_shared(void)
{
	bool		found;

	stats = ShmemInitStruct("seam_ik stats", sizeof(Stats), &found);
	if (!IsUnderPostmaster)
		on_shmem_exit(save, (Datum) 0);
	if (found)
		return;
	memset(stats, 0, sizeof(Stats));
	stats->lock = &GetNamedLWLockTranche("seam_ik_stats")->lock;
	for (int i = 0; i < PLACES; i++)
		clear(&stats->places[i], true);
	restore();
}

/*
 * Finds the place of this process's database, or a free one for it.  Returns whether
 * there is one.
 */
static bool
find_place(void)
{
	StatPlace  *free_place = NULL;

	if (mine && mine->database == MyDatabaseId)
		return true;
	mine = NULL;
	if (stats == NULL || !OidIsValid(MyDatabaseId))
		return false;
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	for (int i = 0; i < PLACES && mine == NULL; i++)
	{
		if (stats->places[i].database == MyDatabaseId)
			mine = &stats->places[i];
		else if (!OidIsValid(stats->places[i].database) && free_place == NULL)
			free_place = &stats->places[i];
	}
	if (mine == NULL && free_place)
	{
		mine = free_place;
		clear(mine, false);
		mine->database = MyDatabaseId;
	}
	LWLockRelease(stats->lock);
	return mine != NULL;
}

/*
 * An HTTP request of this process has ended.
 */
void
stats_try(StatRoute route, const StatTry *attempt)
{
	pg_atomic_uint64 *counters;
	uint64		max;

	if (!find_place())
		return;
	counters = mine->routes[route].counters;
	pg_atomic_fetch_add_u64(&counters[STAT_REQUESTS], 1);
	if (attempt->status >= 200 && attempt->status < 600)
		pg_atomic_fetch_add_u64(&counters[STAT_2XX + attempt->status / 100 - 2], 1);
	else
		pg_atomic_fetch_add_u64(&counters[STAT_NO_ANSWER], 1);
	if (attempt->again)
		pg_atomic_fetch_add_u64(&counters[STAT_RETRIES], 1);
	/* where nothing could be sent there was no connection, old or new */
	if (attempt->sent > 0)
		pg_atomic_fetch_add_u64(&counters[attempt->opened ? STAT_OPENED : STAT_REUSED], 1);
	pg_atomic_fetch_add_u64(&counters[STAT_SENT], attempt->sent);
	pg_atomic_fetch_add_u64(&counters[STAT_RECEIVED], attempt->received);
	pg_atomic_fetch_add_u64(&counters[STAT_TIME], attempt->took);
	pg_atomic_fetch_add_u64(&mine->routes[route].buckets[latency_bucket(attempt->took)], 1);
	max = pg_atomic_read_u64(&counters[STAT_MAX]);
	while ((uint64) attempt->took > max &&
		   !pg_atomic_compare_exchange_u64(&counters[STAT_MAX], &max, attempt->took));
}

/*
 * What this process has called for has ended so; 0: well.
 */
void
stats_end(StatRoute route, int sqlerrcode, bool in_doubt)
{
	Route	   *counts;
	int			i;

	if ((sqlerrcode == 0 && !in_doubt) || !find_place())
		return;
	counts = &mine->routes[route];
	if (in_doubt)
		pg_atomic_fetch_add_u64(&counts->counters[STAT_DOUBTS], 1);
	if (sqlerrcode == 0)
		return;
	for (i = 0; i < STAT_STATES - 1; i++)
	{
		uint32		state = pg_atomic_read_u32(&counts->states[i]);

		if (state == 0)
		{
			if (pg_atomic_compare_exchange_u32(&counts->states[i], &state, (uint32) sqlerrcode))
				break;
		}
		if (state == (uint32) sqlerrcode)
			break;
	}
	pg_atomic_fetch_add_u64(&counts->state_counts[i], 1);
}

/*
 * Counts one more of something.
 */
void
stats_add(StatRoute route, StatCounter counter)
{
	if (find_place())
		pg_atomic_fetch_add_u64(&mine->routes[route].counters[counter], 1);
}

/*
 * Returns how many places there are; 0 without shared memory of ours.
 */
int
stats_places(void)
{
	return stats ? PLACES : 0;
}

/*
 * Copies a place, from 0 on: whose it is, since when it counts, and the counts of its
 * STAT_ROUTES routes.  Returns whether it is anybody's.
 */
bool
stats_get(int number, Oid *database, TimestampTz *since, StatCounts *counts)
{
	StatPlace  *place = &stats->places[number];
	bool		found;

	LWLockAcquire(stats->lock, LW_SHARED);
	found = OidIsValid(place->database);
	*database = place->database;
	*since = place->since;
	for (int r = 0; found && r < STAT_ROUTES; r++)
		copy_counts(&place->routes[r], &counts[r]);
	LWLockRelease(stats->lock);
	return found;
}

/*
 * Makes all counts of a database 0.
 */
void
stats_reset(Oid database)
{
	for (int i = 0; i < stats_places(); i++)
	{
		LWLockAcquire(stats->lock, LW_EXCLUSIVE);
		if (stats->places[i].database == database)
			clear(&stats->places[i], false);
		LWLockRelease(stats->lock);
	}
}

/*
 * Gives the place of a database back that is gone.
 */
void
stats_forget(Oid database)
{
	for (int i = 0; i < stats_places(); i++)
	{
		LWLockAcquire(stats->lock, LW_EXCLUSIVE);
		if (stats->places[i].database == database)
			stats->places[i].database = InvalidOid;
		LWLockRelease(stats->lock);
	}
}

/*
 * Returns what the view calls a route, static.
 */
const char *
stats_route_name(StatRoute route)
{
	static const char *const names[STAT_ROUTES] = {
		[STAT_SESSION] = "session",
		[STAT_OUTBOX] = "outbox",
		[STAT_RENEWAL] = "renewal",
		[STAT_REVOCATION] = "revocation",
		[STAT_LIST] = "list",
	};

	return names[route];
}
