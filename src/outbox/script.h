/*-------------------------------------------------------------------------
 *
 * script.h
 *	  Which version of the extension's script a database has.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_SCRIPT_H
#define SEAM_IK_SCRIPT_H

extern void script_check(void);

#endif							/* SEAM_IK_SCRIPT_H */
