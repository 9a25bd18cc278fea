/*-------------------------------------------------------------------------
 *
 * own_write.h
 *	  Which change of a user's row is our own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_OWN_WRITE_H
#define SEAM_IK_OWN_WRITE_H

#include "utils/uuid.h"

extern void own_write_begin(const pg_uuid_t *from, const pg_uuid_t *to);
extern void own_write_end(void);
extern bool own_write_is(const pg_uuid_t *from, const pg_uuid_t *to);

#endif							/* SEAM_IK_OWN_WRITE_H */
