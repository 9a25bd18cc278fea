/*-------------------------------------------------------------------------
 *
 * stat_view.c
 *	  The rows of the view seam_ik_stat, and how to begin anew.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "shmem/stats.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(seam_ik_stat_rows);
PG_FUNCTION_INFO_V1(seam_ik_stat_reset);

/* The columns: these, the counters, and what is made of the times. */
enum
{
	ROW_DATABASE,
	ROW_ROUTE,
	ROW_SINCE,
	ROW_COUNTERS,
	ROW_SQLSTATES = ROW_COUNTERS + STAT_TIME,
	ROW_TIME,
	ROW_MEAN,
	ROW_P50,
	ROW_P95,
	ROW_P99,
	ROW_MAX,
	ROW_NCOLUMNS
};

/*
 * Returns the counts of SQLSTATEs as a jsonb object, palloc'd.
 */
static Datum
sqlstates(const StatCounts *counts)
{
	StringInfoData json;
	char		separator = '{';

	initStringInfo(&json);
	for (int i = 0; i < STAT_STATES; i++)
	{
		if (counts->state_counts[i] == 0)
			continue;
		appendStringInfo(&json, "%c\"%s\":" UINT64_FORMAT, separator,
						 counts->states[i] == 0 ? "others" : unpack_sql_state(counts->states[i]),
						 counts->state_counts[i]);
		separator = ',';
	}
	appendStringInfoString(&json, separator == '{' ? "{}" : "}");
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

/*
 * Fills in a row; times are in milliseconds.
 */
static void
fill_row(const StatCounts *counts, Datum *values, bool *nulls)
{
	static const double shares[] = {0.50, 0.95, 0.99};
	uint64		n = counts->counters[STAT_REQUESTS];
	double		time = (double) counts->counters[STAT_TIME];
	int64		max = (int64) counts->counters[STAT_MAX];

	for (int c = 0; c < STAT_TIME; c++)
		values[ROW_COUNTERS + c] = Int64GetDatum((int64) counts->counters[c]);
	values[ROW_SQLSTATES] = sqlstates(counts);
	values[ROW_TIME] = Float8GetDatum(time / 1000);
	values[ROW_MEAN] = Float8GetDatum(n == 0 ? 0 : time / (double) n / 1000);
	for (int s = 0; s < (int) lengthof(shares); s++)
		values[ROW_P50 + s] = Float8GetDatum(latency_share(counts->buckets, shares[s], max) / 1000);
	values[ROW_MAX] = Float8GetDatum((double) max / 1000);
	for (int c = ROW_MEAN; c <= ROW_MAX; c++)
		nulls[c] = n == 0;
}

/*
 * seam_ik_stat_rows() RETURNS TABLE (...), see the script
 *
 * A row for each database and route.  Places of databases that are gone are given back.
 */
Datum
seam_ik_stat_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	StatCounts *counts = palloc(STAT_ROUTES * sizeof(StatCounts));

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < stats_places(); i++)
	{
		Oid			database;
		TimestampTz since;

		if (!stats_get(i, &database, &since, counts))
			continue;
		if (!SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(database)))
		{
			stats_forget(database);
			continue;
		}
		for (int r = 0; r < STAT_ROUTES; r++)
		{
			Datum		values[ROW_NCOLUMNS] = {0};
			bool		nulls[ROW_NCOLUMNS] = {0};

			values[ROW_DATABASE] = ObjectIdGetDatum(database);
			values[ROW_ROUTE] = CStringGetTextDatum(stats_route_name(r));
			values[ROW_SINCE] = TimestampTzGetDatum(since);
			fill_row(&counts[r], values, nulls);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}

/*
 * seam_ik_stat_reset() RETURNS void
 *
 * The counts of this database begin anew.
 */
Datum
seam_ik_stat_reset(PG_FUNCTION_ARGS)
{
	stats_reset(MyDatabaseId);
	PG_RETURN_VOID();
}
