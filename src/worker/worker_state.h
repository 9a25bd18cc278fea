/*-------------------------------------------------------------------------
 *
 * worker_state.h
 *	  What the parts of the worker share.  Private to worker*.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WORKER_STATE_H
#define SEAM_IK_WORKER_STATE_H

#include "logic/doubt.h"
#include "net/http.h"
#include "ledger/work_calls.h"
#include "lib/ilist.h"
#include "nodes/pg_list.h"
#include "logic/pace.h"
#include "seam/answer.h"
#include "outbox/work.h"
#include "outbox/work_statement.h"

/* The longest pause between two tries of a call, and of a revocation. */
#define BACKOFF_MAX_US PACE_LONGEST_US

/* The longest pause between two tries to write a row. */
#define WRITE_BACK_BACKOFF_MAX_US (60 * INT64CONST(1000000))

/* A key may appear after a doubt was settled: it is looked for so much later. */
#define LATE_KEYS_US (300 * INT64CONST(1000000))

/* After a transaction of ours failed. */
#define ERROR_PAUSE_US (1 * INT64CONST(1000000))

/*
 * What was issued is known for so long: a call that began soon after it ended
 * may need to know whose its key is.  It is longer than DOUBT_MARGIN_US and
 * CLOCK_DELAY_US together.
 */
#define KEEP_AT_LEAST_US (10 * INT64CONST(1000000))

/* While a result cannot be stored. */
#define LOCKED_PAUSE_US (100 * INT64CONST(1000))

/* A call on its way, or ended and not stored yet. */
typedef struct Flight
{
	dlist_node	node;			/* in worker.unused, .flying or .ended */
	SeamOp		op;
	WorkRow		row;			/* of a list only the identity */
	bool		again;			/* a list that looks for a late key */
	AccountId	account_id;		/* that it is sent with */
	MemoryContext context;		/* of what follows */
	int64		started_at;		/* clock_now()'s clock */
	SeamAccount account;		/* that it was sent with */
	HttpRequest http;
	StringInfoData body;

	/* when it has ended */
	SeamResult	result;
	HttpOutcome outcome;
	HttpFailure failure;
	int			status;
	int64		pause;			/* before another try, microseconds */
	bool		has_date;
	TimestampTz date;			/* Seam's clock */
	int64		ended_at;
	SeamKey    *keys;			/* of a list */
	int			nkeys;
	int			keys_size;
	bool		stored;			/* in the transaction under way */
} Flight;

/* What is to be told when the transaction has committed. */
typedef struct Notice
{
	int64		id;
	char	   *reference;		/* or NULL */
	RequestStatus status;
} Notice;

typedef struct Worker
{
	char		database[NAMEDATALEN];
	MemoryContext turn;			/* reset each time round */
	HttpRun    *run;
	uint32		wait_event;
	dlist_head	unused;
	dlist_head	flying;
	dlist_head	ended;
	int			nflying;

	bool		account_known;
	MemoryContext account_context;	/* of account and urls */
	MemoryContext old_accounts; /* whose URLs calls under way may have */
	SeamAccount account;
	AccountId	account_id;		/* of that, with what answers have told */
	char	   *urls[SEAM_DELETE + 1];
	bool		account_warned;
	int64		account_look_at;	/* when to look for one again:
									 * clock_now()'s clock */

	Pace		pace;
	PaceBucket	bucket;			/* of rate_limit */
	bool		refused;		/* Seam does not accept the API key */
	int64		probe_at;
	int64		probe_pause;

	/* the endpoint's clock: at clock_at it was clock, or a little later */
	bool		clock_known;
	TimestampTz clock;
	int64		clock_at;
	int64		clock_delay;	/* what the sample took */

	WorkQueue	pending;
	WorkQueue	revoking;
	WorkQueue	write_backs;
	WorkQueue	cancelled;
	TimestampTz look_again_at;	/* when to look for late keys */
	bool		doubts_changed;
	int			ndoubts;
	int			nunsettled;		/* of them */
	WorkRow    *doubts;			/* by identity; next_attempt_at is DT_NOEND
								 * for a settled one; in a context of their
								 * own */
	MemoryContext doubts_context;
	int64	   *to_write;		/* ids of requests whose row is to be written */
	int			nto_write;

	List	   *notices;		/* of Notice *, in turn */
	List	   *claimed;		/* of Flight *, in turn: to be started at
								 * commit */
	int64		retry_at;		/* after a locked request */
	int64		paused_until;	/* after an error */
	int64		housekeeping_at;
	bool		clock_was_set;	/* pauses may be too long since then */
	int64		intents_at;		/* when to look at sessions' calls, unasked */
	bool		gone;			/* the extension is */
	bool		disowned;		/* its owner, or its tables', is not who we
								 * are */
	bool		careful;		/* the last worker may have died of a row */
} Worker;

/* What sessions' calls own of an identity's keys. */
typedef struct CallOwners
{
	int			nkeys;
	pg_uuid_t  *keys;
	int			nwindows;
	Doubt	   *windows;		/* of which only profile and times are set */
} CallOwners;

/* What is left when a process leaves that may have no successor. */
typedef struct Remaining
{
	int			n;
	StringInfoData identities;	/* of the first ones, as text */
} Remaining;

extern Worker worker;

/* worker.c */
extern ErrorData *worker_transaction(void (*function) (void *arg), void *arg);
extern ErrorData *worker_work(void (*function) (void *arg), void *arg);
extern bool worker_step(void (*function) (void), bool patient, const char *what);
extern void worker_check_interrupts(void);
extern void worker_log_error(const ErrorData *error, const char *what);
extern void worker_add_remaining(Remaining *remaining, const pg_uuid_t *identity);
extern const char *worker_and_more(const Remaining *remaining);

/* worker_calls.c */
extern bool worker_refresh_account(void);
extern int	worker_send_allowance(int64 now, int64 *again_at);
extern bool worker_is_due(const WorkQueue *queue);
extern int64 worker_list_due(void);
extern bool worker_identity_is_busy(const pg_uuid_t *identity);
extern void worker_read_doubts(void);
extern WorkRow *worker_doubts_of(const pg_uuid_t *identity, int *n);
extern void worker_learn_clock(const SeamTime *sample, const AccountId *account);
extern bool worker_watch_clock(void);
extern int64 worker_elapsed_since(TimestampTz time, int64 *most, bool *doubtful);
extern int64 worker_surely_elapsed_since(TimestampTz time);
extern int64 worker_monotonic(TimestampTz time, TimestampTz now, int64 http);
extern void worker_seam_time_of(const Flight *flight, TimestampTz *at_end, int64 *uncertain);
extern void worker_seam_time(bool *known, TimestampTz *time);
extern void worker_claim_calls(void);
extern void worker_start_flight(Flight *flight);
extern void worker_flight_ended(Flight *flight);
extern void worker_free_flight(Flight *flight);

/* worker_intents.c */
extern int64 worker_process_intents(bool look);
extern void worker_finish_calls(void);

/* worker_hear.c */
extern void worker_take_answers(void);

/* worker_known.c */
extern bool worker_calls_are_known(void);
extern bool worker_call_is_open(const pg_uuid_t *identity);
extern void worker_call_owners(const pg_uuid_t *id, const Flight *list, CallOwners *owners);
extern List *worker_called_identities(List *list);

/* worker_answers.c */
extern void worker_need_answers(const pg_uuid_t *id);
extern void worker_write_needed_answers(void);
extern int64 worker_tidy_calls(void);

/* worker_judge.c */
extern void worker_log_calls(const char *why);

/* worker_rows.c */
extern void worker_write_rows(void);

/* worker_results.c */
extern void worker_set_window(const WorkRow *row, const Flight *list, Doubt *doubt);
extern int	worker_compare_uuids(const void *a, const void *b);
extern void worker_due_at(WorkQueue *queue, TimestampTz time);
extern void worker_add_notice(const WorkRow *row, RequestStatus status);
extern WorkChange worker_no_change(const WorkRow *row);
extern void worker_change_request(const WorkRow *row, WorkChange *change);
extern bool worker_store(Flight *flight);

#endif							/* SEAM_IK_WORKER_STATE_H */
