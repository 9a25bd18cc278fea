/*-------------------------------------------------------------------------
 *
 * stop_point.h
 *	  Places where a test build can be held, to be killed there.
 *
 * Compiled in with -DSEAM_IK_STOP_POINTS only.  PostgreSQL's own injection
 * points came with 17, and distributions build without them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STOP_POINT_H
#define SEAM_IK_STOP_POINT_H

#ifdef SEAM_IK_STOP_POINTS
extern void stop_point(const char *name);
#define STOP_POINT(name) stop_point(name)
#else
#define STOP_POINT(name) ((void) 0)
#endif

#endif							/* SEAM_IK_STOP_POINT_H */
