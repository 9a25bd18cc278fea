/*-------------------------------------------------------------------------
 *
 * clock.h
 *	  A clock that never jumps.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_CLOCK_H
#define SEAM_IK_CLOCK_H

extern int64 clock_now(void);

#endif							/* SEAM_IK_CLOCK_H */
