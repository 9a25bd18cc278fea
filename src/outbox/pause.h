/*-------------------------------------------------------------------------
 *
 * pause.h
 *	  A pause of a database's worker, at somebody's wish.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_PAUSE_H
#define SEAM_IK_PAUSE_H

#include "datatype/timestamp.h"

extern bool pause_read(Oid schema, char **reason, TimestampTz *since);

#endif							/* SEAM_IK_PAUSE_H */
