/*-------------------------------------------------------------------------
 *
 * wakes.h
 *	  Stays for which something is due.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WAKES_H
#define SEAM_IK_WAKES_H

extern void wakes_look_at_keys(void);
extern bool wakes_take(bool may_ask);
extern int64 wakes_next(bool may_ask);

#endif							/* SEAM_IK_WAKES_H */
