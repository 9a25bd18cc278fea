/*-------------------------------------------------------------------------
 *
 * flights.h
 *	  Requests of the worker on their way over the network.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_FLIGHTS_H
#define SEAM_IK_FLIGHTS_H

#include "lib/ilist.h"
#include "logic/doubt.h"
#include "outbox/work.h"
#include "seam/account.h"
#include "seam/answer.h"

/* A request on its way, or ended and not stored yet. */
typedef struct Flight
{
	/* in the list of those that are unused, fly or have ended */
	dlist_node	node;
	SeamOp		op;
	/* the request of the outbox; of a list only the identity counts */
	WorkRow		row;
	/* a list that looks for a late key */
	bool		again;
	/* what tells the account that it was sent with */
	AccountId	account_id;
	/* of what follows */
	MemoryContext context;
	/* when it was sent: clock_now()'s clock */
	int64		started_at;
	/* that it was sent with */
	SeamAccount account;
	HttpRequest http;
	StringInfoData body;

	/* it has ended: what follows is there then */
	bool		has_ended;
	SeamResult	result;
	HttpOutcome outcome;
	HttpFailure failure;
	/* of HTTP; 0: there was no answer */
	int			status;
	/* before the request may be tried again, in microseconds */
	int64		pause;
	/* an answer told Seam's clock, */
	bool		has_date;
	/* namely so */
	SeamTime	date;
	/* clock_now()'s clock */
	int64		ended_at;
	/* of a list: nkeys keys in a chunk for keys_size */
	SeamKey    *keys;
	int			nkeys;
	int			keys_size;
	/* it is stored by the step under way */
	bool		stored;
} Flight;

extern void flights_set_up(void);
extern void flights_use_account(void);
extern void flights_set_max(void);
extern Flight *flights_claim(SeamOp op, const WorkRow *row);
extern void flights_start_claimed(void);
extern void flights_forget_claimed(void);
extern bool flights_store(bool (*store) (Flight *flight));
extern void flights_free_stored(void);
extern void flights_keep_stored(void);
extern int	flights_flying(void);
extern int	flights_flying_lists(void);
extern bool flights_any(void);
extern bool flights_any_ended(void);
extern Flight *flights_next(Flight *flight);
extern bool flights_is_busy(const pg_uuid_t *identity);
extern void flights_wait(int64 wake_at);

#endif							/* SEAM_IK_FLIGHTS_H */
