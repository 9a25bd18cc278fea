/*-------------------------------------------------------------------------
 *
 * worker_known.h
 *	  Synchronous calls that the worker knows of.  Private to worker_known.c,
 *	  worker_hear.c, worker_answers.c, worker_judge.c and worker_intents.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WORKER_KNOWN_H
#define SEAM_IK_WORKER_KNOWN_H

#include "utils/hsearch.h"
#include "ledger/ledger.h"
#include "ledger/work_calls.h"
#include "storage/dsm.h"
#include "worker/credentials.h"
#include "worker/doubts.h"
#include "worker/flights.h"
#include "worker/queues.h"
#include "worker/remaining.h"
#include "worker/seam_clock.h"
#include "worker/step.h"
#include "base/uuid.h"

/* Sessions' answers are looked for, while they come, this often, */
#define ANSWERS_US (200 * INT64CONST(1000))

/* and for so long after the last one, before sessions are asked to wake us, */
#define QUIET_US (1 * INT64CONST(1000000))

/* and written so long after the first one. */
#define WRITE_US (50 * INT64CONST(1000))

/* While a session has locked a call. */
#define LEDGER_LOCKED_PAUSE_US (100 * INT64CONST(1000))

/* All transactions are looked at, while there are calls, this often. */
#define LOOK_AGAIN_US (10 * INT64CONST(1000000))

/* A recorded call. */
typedef struct Open
{
	dlist_node	node;			/* in added, a transaction's calls, or kept */
	dlist_node	dirty_node;		/* in dirty or written, if dirty is set */
	CallRow		row;
	struct Transaction *transaction;	/* in whose calls it is */
	struct Use *uses;			/* one for each of its elements */
	dsm_segment *segment;		/* with what becomes of a batch's calls */
	int			slot;			/* -1: its session is gone */
	uint32		wish;			/* in added: the state of that, */
	Latch	   *latch;			/* whom to tell, */
	FullTransactionId top;		/* and its transaction */
	bool		waiting;		/* what came of it is not known yet */
	bool		dirty;			/* its table row is behind, */
	bool		written;		/* if the transaction under way fails */
	bool		done;			/* in the transaction under way */
	bool		loaded;			/* its top transaction is not known */
	int64		forget_at;		/* in kept: clock_now()'s clock */
} Open;

/* An element of a recorded call. */
typedef struct Use
{
	dlist_node	node;			/* in its identity's uses */
	Open	   *open;
} Use;

/* A user identity of recorded calls. */
typedef struct Identity
{
	pg_uuid_t	id;				/* hash key */
	dlist_head	uses;			/* those of dirty calls at the end */
	int			nwaiting;		/* elements whose answers are not known yet */
	FullTransactionId written_by;	/* its answers are, by this one */
} Identity;

/* A transaction with calls that has not ended, as far as we know. */
typedef struct Transaction
{
	uint64		top;			/* hash key */
	dlist_node	node;			/* in transactions */
	dlist_head	calls;
	bool		look;			/* at what has become of it */
	bool		judged;			/* in the transaction under way */
	bool		locked;			/* a call of it is, by a session */
	uint64		aborted;		/* 0, or at subtransactions from this one on */
} Transaction;

/* All that is known. */
typedef struct Known
{
	bool		loaded;			/* what a former worker has recorded */
	Open	  **of_slot;		/* the last one of each session's place */
	uint32	   *seen;			/* intent_count() of each, as it was looked at */
	HTAB	   *identities;		/* of Identity; NULL before known_set_up() */
	HTAB	   *by_top;			/* of Transaction */
	dlist_head	transactions;
	dlist_head	kept;			/* Opens that committed, by forget_at, about */
	dlist_head	dirty;			/* Opens whose rows are to be written */
	dlist_head	written;		/* those that the transaction under way writes */
	int			nloaded;		/* calls whose top transaction is not known */
	int			nwaiting;		/* of all elements */
	int64		write_at;		/* when to write what is dirty */
	int64		look_at;		/* when to look at all transactions */
} Known;

extern Known known;

/* worker_known.c */
extern bool ledger_step(void (*run) (void *arg), bool patient, const char *what);
extern void known_set_up(void);
extern Open *known_new(const CallRow *row, const IntentCall *from);
extern void known_free(Open *open);
extern void known_add_uses(Open *open);
extern void known_remove_uses(Open *open);
extern void known_set_waiting(Open *open, bool waiting);
extern void known_set_dirty(Open *open);
extern void known_set_written(Open *open);
extern void known_add_to_transaction(Open *open, FullTransactionId top);
extern Open *known_next_open(const Open *open);
extern void known_leave_transaction(Open *open);
extern void known_keep(Open *open);

/* worker_hear.c */
extern void calls_load(void *arg);
extern void calls_extend_window(CallRow *row, TimestampTz until);
extern void calls_look_at(uint64 top, uint64 aborted);
extern void calls_take_news(int s);
extern bool calls_listen(dlist_head *added);
extern void calls_listen_again(void);

/* worker_answers.c */
extern int64 calls_write_answers(int64 now);
extern int64 calls_watch_batches(int64 now);

/* worker_judge.c */
extern int64 calls_judge(int64 now, bool look);

#endif							/* SEAM_IK_WORKER_KNOWN_H */
