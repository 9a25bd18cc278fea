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
	/* a list that only tells Seam's time */
	bool		tells_time;
	/* a list that only asks whether Seam works: nothing is stored of it */
	bool		probe;
	/* what tells the account that it was sent with */
	AccountId	account_id;
	/* of what follows */
	MemoryContext context;
	/* when the attempt was recorded: clock_now()'s clock */
	int64		claimed_at;
	/* when it was sent: likewise */
	int64		started_at;
	/* that it was sent with */
	SeamAccount account;
	HttpRequest http;
	StringInfoData body;

	/* it has ended: what follows is there then */
	bool		has_ended;
	SeamResult	result;
	/* of HTTP; 0: there was no answer */
	int			status;
	/* before the request may be tried again, in microseconds */
	int64		pause;
	/* it failed through no fault of the request, which shall not pay for it */
	bool		is_free;
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

	/*
	 * it could not be stored, and is tried again then (clock_now()'s clock,
	 * 0: it has not been tried), after a pause that was so long
	 */
	int64		store_at;
	int64		store_pause;
} Flight;

extern void flights_set_up(void);
extern void flights_use_account(void);
extern void flights_set_max(void);
extern Flight *flights_claim(SeamOp op, const WorkRow *row);
extern void flights_start_claimed(void);
extern void flights_forget_claimed(void);
extern Flight *flights_next_ended(Flight *flight);
extern void flights_free_stored(void);
extern void flights_keep_stored(void);
extern int	flights_flying(void);
extern int	flights_ended(void);
extern int	flights_flying_of(SeamOp op);
extern int64 flights_store_due(void);
extern int	flights_aside(void);
extern Flight *flights_next(Flight *flight);
extern bool flights_choose_workspace(const Flight *flight);
extern bool flights_is_busy(const pg_uuid_t *identity);
extern void flights_wait(int64 wake_at);

#endif							/* SEAM_IK_FLIGHTS_H */
