/*-------------------------------------------------------------------------
 *
 * share.h
 *	  Which requests are sent next, where not all may be sent at once?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_SHARE_H
#define SEAM_IK_SHARE_H

/* Kinds of requests; of two that have had as much, the first goes first. */
typedef enum ShareKind
{
	SHARE_NEW,					/* a new key, which somebody waits for */
	SHARE_REVOKE,				/* a key that is to be revoked */
	SHARE_LIST					/* a list that settles doubts */
} ShareKind;

#define SHARE_KINDS 3

typedef struct Share
{
	int64		had[SHARE_KINDS];	/* how many of a kind were sent, or how
									 * many it might have had while it needed
									 * none */
} Share;

/* What there is to deal with. */
typedef struct ShareNeed
{
	int			limit;			/* requests that may be under way at once */
	int			flying[SHARE_KINDS];	/* those that are */
	bool		due[SHARE_KINDS];	/* there are requests of the kind to send */
} ShareNeed;

extern void share_deal(Share *share, const ShareNeed *need, int n, int *dealt);
extern int	share_most_lists(int limit);
extern void share_take(Share *share, ShareKind kind, int n);

#endif							/* SEAM_IK_SHARE_H */
