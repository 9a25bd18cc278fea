/*-------------------------------------------------------------------------
 *
 * pausing.c
 *	  Whether somebody has paused the outbox of this database.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "outbox/pause.h"
#include "outbox/work_statement.h"
#include "worker/pausing.h"
#include "worker/step.h"

static bool is_paused;

/*
 * In a step, before anything is claimed in it: reads whether there is a pause.  Logs when
 * one begins or ends.
 */
void
pausing_read(void)
{
	char	   *reason;
	TimestampTz since;
	bool		paused = pause_read(work_outbox()->schema, &reason, &since);

	if (paused && !is_paused)
		ereport(LOG,
				(errmsg("the outbox of database \"%s\" is paused: %s", step_database(), reason),
				 errhint("seam_ik_resume() ends that.")));
	if (!paused && is_paused)
		ereport(LOG,
				(errmsg("the outbox of database \"%s\" goes on after a pause", step_database())));
	is_paused = paused;
}

/*
 * Returns whether there is one, as it was read last.
 */
bool
pausing_is_on(void)
{
	return is_paused;
}
