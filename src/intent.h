/*-------------------------------------------------------------------------
 *
 * intent.h
 *	  Synchronous calls tell the worker what they are about to do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_INTENT_H
#define SEAM_IK_INTENT_H

#include "access/transam.h"
#include "port/atomics.h"
#include "seam.h"
#include "storage/dsm.h"
#include "storage/latch.h"

/* What is known of a call. */
typedef enum CallState
{
	CALL_NOT_BEGUN,
	CALL_BEGUN,					/* a key may exist */
	CALL_ISSUED,
	CALL_NOT_ISSUED
} CallState;

/* One element of an intent. */
typedef struct IntentCall
{
	pg_uuid_t	identity;
	pg_uuid_t	key;			/* CALL_ISSUED */
	uint32		state;			/* CallState; read by the worker at the end */
} IntentCall;

/*
 * What is wanted of the worker: the low bits of IntentSlot.wish.  The others
 * count the wishes, so that a late fulfilment does not meet another wish.
 */
#define WISH_NONE 0
#define WISH_RECORD 1			/* record the intent */
#define WISH_RECORDED 2			/* that was done */
#define WISH_MASK 3

/*
 * A backend's place, written by it but where noted.  A wish of the worker's and
 * an answer to the intent before may be there at once.
 */
typedef struct IntentSlot
{
	pg_atomic_uint32 wish;		/* the worker makes it WISH_RECORDED */
	Oid			database;
	Latch	   *latch;
	FullTransactionId transaction;
	int			max_use_count;	/* 0: left to Seam */
	bool		has_profile;
	pg_uuid_t	profile;
	int			timeout;		/* milliseconds */
	uint64		account;
	int			ncalls;
	IntentCall	call;			/* when there is one */
	dsm_handle	segment;		/* of IntentCalls, when there are more */
	int64		id;				/* of the recorded intent; the worker's */

	/* an intent that has come to its end; the worker makes it 0 */
	pg_atomic_uint64 answered;	/* its id */
	IntentCall	answer;			/* when it had one call */
} IntentSlot;

extern void intent_define(void);
extern void intent_begin(const SeamAccount *account, const SeamRequest *request,
						 int ncalls, const pg_uuid_t **identities);
extern void intent_call(int i, CallState state, const pg_uuid_t *key);
extern void intent_end(void);
extern uint64 intent_account(const SeamAccount *account);

/* for the worker */
extern int	intent_nslots(void);
extern IntentSlot *intent_slot(int i);

#endif							/* SEAM_IK_INTENT_H */
