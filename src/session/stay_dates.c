/*-------------------------------------------------------------------------
 *
 * stay_dates.c
 *	  When a row's stay begins and ends.
 *
 * A date is its beginning where a stay begins, and its end, which is the next midnight,
 * where it ends: nobody is locked out before the last night is over.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "catalog/pg_type.h"
#include "pgtime.h"
#include "session/stay_dates.h"
#include "shmem/places.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/*
 * Raise 22008: the time is not one that a timestamptz can be.
 */
pg_noreturn static void
out_of_range(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("timestamp out of range")));
}

/*
 * A time of a zone's clocks.
 */
static TimestampTz
in_zone(Timestamp time, pg_tz * zone)
{
	struct pg_tm tm;
	fsec_t		fraction;
	TimestampTz result;

	if (TIMESTAMP_NOT_FINITE(time))
		return time;
	if (timestamp2tm(time, NULL, &tm, &fraction, NULL, NULL) != 0)
		out_of_range();
	result = time + DetermineTimeZoneOffset(&tm, zone) * USECS_PER_SEC;
	if (!IS_VALID_TIMESTAMP(result))
		out_of_range();
	return result;
}

/*
 * The midnight with which a date begins, by no zone.
 */
static Timestamp
midnight(DateADT date)
{
	if (DATE_IS_NOBEGIN(date))
		return DT_NOBEGIN;
	if (DATE_IS_NOEND(date))
		return DT_NOEND;
	if (date >= TIMESTAMP_END_JULIAN - POSTGRES_EPOCH_JDATE)
		out_of_range();
	return date * USECS_PER_DAY;
}

/*
 * The time that a row says in the column of a field: that of F_ISSUE_AT is DT_NOBEGIN where
 * it is NULL, or there is no column, and that of F_VALID_UNTIL DT_NOEND.
 */
TimestampTz
stay_date(TriggerPlan *plan, TriggerData *td, HeapTuple row, int f)
{
	TimestampTz none = f == F_ISSUE_AT ? DT_NOBEGIN : DT_NOEND;
	AttrNumber	column = plan->bindings[f].column;
	TupleDesc	desc = RelationGetDescr(td->tg_relation);
	pg_tz	   *zone = plan->time_zone ? pg_tzset(plan->time_zone) : session_timezone;
	bool		isnull;
	Datum		value;
	DateADT		date;

	if (column == 0)
		return none;
	value = heap_getattr(row, column, desc, &isnull);
	if (isnull)
		return none;
	switch (getBaseType(TupleDescAttr(desc, column - 1)->atttypid))
	{
		case TIMESTAMPTZOID:
			return DatumGetTimestampTz(value);
		case TIMESTAMPOID:
			return in_zone(DatumGetTimestamp(value), zone);
		default:
			date = DatumGetDateADT(value);
			if (f == F_VALID_UNTIL && !DATE_NOT_FINITE(date))
				date++;
			return in_zone(midnight(date), zone);
	}
}

/*
 * Is a stay that ends at this time surely over?  Only Seam's clock tells, which this
 * session knows where the worker has told it; else the worker will see.
 */
bool
stay_is_over(TimestampTz valid_until)
{
	TimestampTz now;

	return valid_until != DT_NOEND && places_seam_time(clock_now(), &now) && valid_until <= now;
}
