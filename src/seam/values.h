/*-------------------------------------------------------------------------
 *
 * values.h
 *	  Values as Seam's API writes them: times and URLs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_VALUES_H
#define SEAM_IK_VALUES_H

#include "datatype/timestamp.h"

extern bool values_read_time(const char *text, TimestampTz *time);
extern char *values_read_url(const char *text);

#endif							/* SEAM_IK_VALUES_H */
