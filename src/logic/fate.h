/*-------------------------------------------------------------------------
 *
 * fate.h
 *	  What becomes of an intent when its transaction has ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_FATE_H
#define SEAM_IK_FATE_H

/* What the server tells of the (sub)transaction of an intent. */
typedef enum FateXact
{
	/* It goes on, is prepared, or has committed and waits for a standby. */
	FATE_XACT_OPEN,
	/* It has committed, with all that it is part of. */
	FATE_XACT_COMMITTED,
	/* It rolled back, or was open when the server ended. */
	FATE_XACT_ABORTED,
	/* It is so old, or so far in the future, that the commit log cannot tell. */
	FATE_XACT_UNKNOWN
} FateXact;

/* What is known of an intent, in the order in which it has to be asked. */
typedef struct FateFacts
{
	/*
	 * The transaction, asked before the snapshot was taken that shows the
	 * rows.
	 */
	FateXact	xact;
	/* There is a committed request of this call and this transaction. */
	bool		has_row;
	/* It cannot be ruled out that the call has issued a key. */
	bool		may_have_key;
	/* It was recorded in the files that this server runs on, and in no copy. */
	bool		is_ours;
	/* It was recorded on the timeline that the server writes now. */
	bool		same_timeline;
} FateFacts;

/* What is to be done about the intent. */
typedef enum Fate
{
	/* Nothing yet. */
	FATE_WAIT,
	/* Its keys have their owner, or there are none: it is deleted. */
	FATE_DELETE,
	/* Its keys are revoked, and it is deleted. */
	FATE_REVOKE,

	/*
	 * Its keys may be alive, nobody can tell whose they are: reported, and
	 * deleted.
	 */
	FATE_REPORT_DELETED,		/* its transaction committed, and its row is
								 * gone */
	FATE_REPORT_OLD,			/* its transaction is too old */
	FATE_REPORT_TIMELINE,		/* it ended with a promotion or restore */
	FATE_REPORT_COPY			/* in the server that this is a copy of it may
								 * have committed */
} Fate;

extern Fate fate_of(const FateFacts *facts);

#endif							/* SEAM_IK_FATE_H */
