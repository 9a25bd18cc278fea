/*-------------------------------------------------------------------------
 *
 * stop_point.c
 *	  Places where a test build can be held, to be killed there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/stop_point.h"

#ifdef SEAM_IK_STOP_POINTS

#include <unistd.h>

/* In the data directory, which is where every process of the server is. */
#define FOLDER "seam_ik_stop"

/* Between two looks. */
#define PAUSE_US 1000

/*
 * When there is a file of this name in FOLDER, the process takes it, by renaming
 * it to NAME.PID, and stays until that is gone.  Of several processes one does.
 * It does not look at interrupts, may be called anywhere, and never throws.
 */
void
stop_point(const char *name)
{
	char		armed[MAXPGPATH];
	char		taken[MAXPGPATH];

	snprintf(armed, sizeof(armed), FOLDER "/%s", name);
	snprintf(taken, sizeof(taken), FOLDER "/%s.%d", name, (int) getpid());
	if (rename(armed, taken) != 0)
		return;
	while (access(taken, F_OK) == 0)
		pg_usleep(PAUSE_US);
}

#endif							/* SEAM_IK_STOP_POINTS */
