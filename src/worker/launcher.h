/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The launcher, which starts a worker for each database that has the
 *	  extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_LAUNCHER_H
#define SEAM_IK_LAUNCHER_H

extern void launcher_define(void);

#endif							/* SEAM_IK_LAUNCHER_H */
