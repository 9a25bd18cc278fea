/*-------------------------------------------------------------------------
 *
 * window.c
 *	  When the key of a lost answer can have been created.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "utils/timestamp.h"
#include "worker/local_clock.h"
#include "worker/seam_clock.h"
#include "worker/window.h"

/*
 * The times between which a call may have issued a key, by Seam's clock: both
 * as it was known when the call was made, and as the list's answer tells it, in
 * case one of the clocks has been set meanwhile.
 */
void
window_set(const WorkRow *row, const Flight *list, Doubt *doubt)
{
	/* a time of another endpoint's clock tells nothing */
	bool		has_seam_time = row->has_seam_time && account_has_endpoint(&row->account,
																		   &list->account_id);
	bool		doubtful;
	int64		most;
	int64		least = local_clock_elapsed_since(row->attempted_at, &most, &doubtful);
	int64		since_end = clock_now() - list->ended_at;
	TimestampTz at_end;
	int64		uncertain;

	seam_clock_of_answer(&list->date, &at_end, &uncertain);
	doubt->from = at_end + since_end - most;
	doubt->until = at_end + since_end - least + uncertain;
	doubt->vague = !has_seam_time && most != least;
	if (has_seam_time && doubtful)
	{
		doubt->from = row->seam_time;
		doubt->until = doubt->from + uncertain;
	}
	else if (has_seam_time)
	{
		doubt->from = Min(doubt->from, row->seam_time);
		doubt->until = Max(doubt->until, row->seam_time);
	}
	doubt->from -= DOUBT_MARGIN_US;
	doubt->until += (int64) row->attempt_timeout * 1000 + DOUBT_MARGIN_US;
}
