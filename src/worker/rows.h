/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  Writes issued keys to the rows that they are for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ROWS_H
#define SEAM_IK_ROWS_H

/* The longest pause between two tries to write a row. */
#define ROWS_LONGEST_PAUSE_US (60 * INT64CONST(1000000))

extern void rows_set_up(bool careful);
extern void rows_claim(void);
extern void rows_forget(void);
extern bool rows_any(void);
extern void rows_write(void);

#endif							/* SEAM_IK_ROWS_H */
