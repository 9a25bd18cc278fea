/*-------------------------------------------------------------------------
 *
 * as_owner.h
 *	  To do something as the owner of a relation.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_AS_OWNER_H
#define SEAM_IK_AS_OWNER_H

#include "miscadmin.h"

/* Who the caller is, to be that again. */
typedef struct AsOwner
{
	Oid			user;			/* the current user */
	int			context;		/* its SECURITY_... flags */
} AsOwner;

/* In a user's table: what it brings along may do nothing but what it is there for. */
#define AS_OWNER_OF_USERS_TABLE (SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS)

extern Oid	as_owner_of(Oid relation);
extern AsOwner as_owner_begin(Oid owner, int flags);
extern void as_owner_end(AsOwner as);

#endif							/* SEAM_IK_AS_OWNER_H */
