/*-------------------------------------------------------------------------
 *
 * remaining.h
 *	  Identities to be named when a process leaves that may have no successor.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_REMAINING_H
#define SEAM_IK_REMAINING_H

#include "lib/stringinfo.h"
#include "utils/uuid.h"

/* What is left. */
typedef struct Remaining
{
	int			n;
	/* of the first ones, as text */
	StringInfoData identities;
} Remaining;

extern void remaining_add(Remaining *remaining, const pg_uuid_t *identity);
extern void remaining_warn(const Remaining *remaining, const char *message);

#endif							/* SEAM_IK_REMAINING_H */
