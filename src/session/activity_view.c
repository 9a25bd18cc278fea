/*-------------------------------------------------------------------------
 *
 * activity_view.c
 *	  The rows of the view seam_ik_activity.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "shmem/activity.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(seam_ik_activity_rows);

/* The columns. */
enum
{
	ROW_DATABASE,
	ROW_PID,
	ROW_WHAT,
	ROW_SINCE,
	ROW_DONE,
	ROW_FAILED,
	ROW_TOTAL,
	ROW_STATE,
	ROW_UNTIL,
	ROW_UNDER_WAY,
	ROW_LIMIT,
	ROW_TURNED_AT,
	ROW_NCOLUMNS
};

/*
 * seam_ik_activity_rows() RETURNS TABLE (datid oid, pid int, what text, since timestamptz,
 *		done bigint, failed bigint, total bigint, state text, state_until timestamptz,
 *		under_way int, max_under_way int, turned_at timestamptz)
 *
 * What each process of the server says of itself.
 */
Datum
seam_ik_activity_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < activity_places(); i++)
	{
		Activity	activity;
		Datum		values[ROW_NCOLUMNS] = {0};
		bool		nulls[ROW_NCOLUMNS] = {0};
		bool		is_worker;

		if (!activity_get(i, &activity))
			continue;
		is_worker = activity.what == ACTIVITY_WORKER;
		values[ROW_DATABASE] = ObjectIdGetDatum(activity.database);
		values[ROW_PID] = Int32GetDatum(activity.pid);
		values[ROW_WHAT] = CStringGetTextDatum(activity_what_name(activity.what));
		values[ROW_SINCE] = TimestampTzGetDatum(activity.since);
		values[ROW_DONE] = Int64GetDatum(activity.done);
		values[ROW_FAILED] = Int64GetDatum(activity.failed);
		values[ROW_TOTAL] = Int64GetDatum(activity.total);
		nulls[ROW_TOTAL] = activity.total == 0;
		values[ROW_STATE] = CStringGetTextDatum(activity_state_name(activity.state));
		values[ROW_UNTIL] = TimestampTzGetDatum(activity.until);
		values[ROW_UNDER_WAY] = Int32GetDatum(activity.under_way);
		values[ROW_LIMIT] = Int32GetDatum(activity.limit);
		values[ROW_TURNED_AT] = TimestampTzGetDatum(activity.turned_at);
		nulls[ROW_STATE] = nulls[ROW_UNDER_WAY] = nulls[ROW_LIMIT] = !is_worker;
		nulls[ROW_UNTIL] = !is_worker || activity.until == 0;
		nulls[ROW_TURNED_AT] = !is_worker || activity.turned_at == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
