/*-------------------------------------------------------------------------
 *
 * date.h
 *	  Dates as HTTP writes them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_DATE_H
#define SEAM_IK_DATE_H

extern bool date_read_imf(const char *text, int64 *unix_time);

#endif							/* SEAM_IK_DATE_H */
