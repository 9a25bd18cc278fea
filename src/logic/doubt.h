/*-------------------------------------------------------------------------
 *
 * doubt.h
 *	  Which keys belong to calls whose answers were lost?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_DOUBT_H
#define SEAM_IK_DOUBT_H

#include "logic/window.h"
#include "utils/uuid.h"

typedef enum Verdict
{
	VERDICT_NO_KEY,				/* none was issued */
	VERDICT_ADOPT,				/* this key is its own */
	VERDICT_REISSUE,			/* it cannot be told whose a key is: revoke
								 * them */
	VERDICT_AMBIGUOUS			/* more keys than doubts: somebody else issues */
} Verdict;

/* A call of one user identity whose answer was lost. */
typedef struct Doubt
{
	int			max_use_count;	/* 0: left to Seam */
	bool		has_profile;
	pg_uuid_t	profile;
	bool		wanted;			/* false: its key would be revoked anyway */
	bool		elsewhere;		/* its key may be where the list does not show
								 * it */
	TimestampTz from;			/* when a key of it may have been created, by */
	TimestampTz until;			/* Seam's clock */
	bool		vague;			/* our clock was set back about then, and
								 * Seam's was not known */

	/* doubt_settle()'s */
	Verdict		verdict;
	int			key;			/* of VERDICT_ADOPT: index */
	int			group;
} Doubt;

/* What a key says of the call that issued it. */
typedef struct DoubtKey
{
	bool		has_profile;
	pg_uuid_t	profile;
	TimestampTz created_at;		/* by Seam's clock */
} DoubtKey;

/* A key of that identity that nobody owns. */
typedef struct Candidate
{
	DoubtKey	says;
	struct SeamKey *key;		/* the caller's: nothing is decided by it */
	bool		fits;			/* it may be some doubt's */
	bool		revoke;			/* it may be any of several different ones' */
	int			group;
	int			doubt;			/* whose it is, or -1 */
} Candidate;

extern bool doubt_fits(const Doubt *doubt, const DoubtKey *key);
extern void doubt_settle(Doubt *doubts, int ndoubts, Candidate *candidates, int ncandidates);

#endif							/* SEAM_IK_DOUBT_H */
