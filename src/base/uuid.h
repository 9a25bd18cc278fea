/*-------------------------------------------------------------------------
 *
 * uuid.h
 *	  The text form of a uuid, and uuids in arrays.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_UUID_H
#define SEAM_IK_UUID_H

#include "utils/uuid.h"

/* Length of a uuid's text form. */
#define UUID_TEXT_LEN 36

/*
 * Compares two uuids, for qsort and bsearch.
 */
static inline int
uuid_compare(const void *a, const void *b)
{
	return memcmp(a, b, UUID_LEN);
}

extern bool uuid_read(const char *text, pg_uuid_t *uuid);
extern void uuid_write(char *to, const pg_uuid_t *uuid);

#endif							/* SEAM_IK_UUID_H */
