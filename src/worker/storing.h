/*-------------------------------------------------------------------------
 *
 * storing.h
 *	  Stores what came of flights, whatever may keep one of them from it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STORING_H
#define SEAM_IK_STORING_H

extern void storing_run(void);

#endif							/* SEAM_IK_STORING_H */
