/*-------------------------------------------------------------------------
 *
 * reload.h
 *	  Settings of a process that lives for long, as a new session would get them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_RELOAD_H
#define SEAM_IK_RELOAD_H

extern void reload_prepare(void);
extern void reload_settings(void);

#endif							/* SEAM_IK_RELOAD_H */
