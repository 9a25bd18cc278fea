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
#include "logic/doubt.h"
#include "seam/account.h"
#include "port/atomics.h"
#include "datatype/timestamp.h"
#include "seam/seam.h"
#include "storage/dsm.h"
#include "storage/latch.h"
#include "storage/spin.h"

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
 * What is wanted of the worker: the low bits of IntentSlot.state.  The others
 * count the wishes, so that a late fulfilment does not meet another wish.
 */
#define WISH_NONE 0
#define WISH_RECORD 1			/* record the intent */
#define WISH_RECORDED 2			/* that was done */
#define WISH_MASK 3

/* An intent that is to be recorded. */
typedef struct IntentWish
{
	Latch	   *latch;			/* whom to tell */
	FullTransactionId transaction;	/* may be a subtransaction, of: */
	FullTransactionId top;
	int			max_use_count;	/* 0: left to Seam */
	bool		has_profile;
	pg_uuid_t	profile;
	int			timeout;		/* milliseconds */
	AccountId	account;
	int			ncalls;
	IntentCall	call;			/* when there is one */
	dsm_handle	segment;		/* of IntentCalls, when there are more */
} IntentWish;

/* What a session has to tell; 0 where there is nothing. */
typedef struct IntentNews
{
	Oid			database;		/* InvalidOid: there is no news */
	int64		answered;		/* id of an intent that has come to its end,
								 * of: */
	FullTransactionId transaction;
	IntentCall	answer;			/* when it had one call */
	TimestampTz answered_at;
	SeamTime	seam_time;
	AccountId	account;		/* whose clock that is of */
	uint64		ended;			/* a transaction that has ended, with intents */
	uint64		aborted;		/* the first of the subtransactions that
								 * rolled back, of: */
	uint64		top;
} IntentNews;

/* Of so many databases: a place may have had a session of another one before. */
#define NEWS 2

/*
 * A backend's place.  The worker of its database fulfils the wish, and takes the
 * news, which may outlive the session.
 */
typedef struct IntentSlot
{
	pg_atomic_uint32 state;		/* of the wish */
	slock_t		lock;			/* of the following, held for copies only */
	Oid			database;		/* of the wish */
	IntentWish	wish;
	int64		id;				/* of the intent when it is recorded, or 0 */
	bool		listening;		/* the worker sleeps until it is woken for
								 * news */
	IntentNews	news[NEWS];
} IntentSlot;

extern void intent_request_shared(void);
extern void intent_startup_shared(void);
extern void intent_begin(const SeamAccount *account, const SeamRequest *request,
						 int ncalls, const pg_uuid_t **identities);
extern void intent_call(int i, CallState state, const pg_uuid_t *key);
extern void intent_seam_time(const HttpAnswer *answer);
extern void intent_end(void);

/* for the worker */
extern int	intent_nslots(void);
extern uint32 intent_count(int i);
extern uint32 intent_read_wish(int i, IntentWish *wish);
extern int64 intent_read_recorded(int i, IntentWish *wish);
extern bool intent_take_news(int i, IntentNews *news);
extern bool intent_listen(void);
extern bool intent_fulfil(int i, uint32 state, Latch *latch, int64 id);

#endif							/* SEAM_IK_INTENT_H */
