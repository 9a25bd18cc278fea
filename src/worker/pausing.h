/*-------------------------------------------------------------------------
 *
 * pausing.h
 *	  Whether somebody has paused the outbox of this database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_PAUSING_H
#define SEAM_IK_PAUSING_H

extern void pausing_read(void);
extern bool pausing_is_on(void);

#endif							/* SEAM_IK_PAUSING_H */
