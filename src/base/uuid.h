/*-------------------------------------------------------------------------
 *
 * uuid.h
 *	  UUIDs in arrays.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_UUID_H
#define SEAM_IK_UUID_H

#include "utils/uuid.h"

/*
 * qsort and bsearch comparator of UUIDs.
 */
static inline int
uuid_compare(const void *a, const void *b)
{
	return memcmp(a, b, UUID_LEN);
}

#endif							/* SEAM_IK_UUID_H */
