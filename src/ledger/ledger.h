/*-------------------------------------------------------------------------
 *
 * ledger.h
 *	  What sessions' synchronous calls own, for the rest of the worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_LEDGER_H
#define SEAM_IK_LEDGER_H

#include "logic/doubt.h"
#include "nodes/pg_list.h"
#include "worker/flights.h"

/*
 * What was issued is known for so long: a call that began soon after it ended may need to
 * know whose its key is.
 */
#define KEEP_AT_LEAST_US (10 * INT64CONST(1000000))

/* What sessions' calls own of an identity's keys. */
typedef struct CallOwners
{
	int			nkeys;
	pg_uuid_t  *keys;
	int			nwindows;
	Doubt	   *windows;		/* of which only profile and times are set */
} CallOwners;

/* worker_intents.c */
extern int64 worker_process_intents(bool look);
extern void worker_finish_calls(void);

/* worker_hear.c */
extern void worker_take_answers(void);

/* worker_known.c */
extern bool worker_calls_are_known(void);
extern bool worker_call_is_open(const pg_uuid_t *identity);
extern bool worker_identity_is_busy(const pg_uuid_t *identity);
extern void worker_call_owners(const pg_uuid_t *id, const Flight *list, CallOwners *owners);
extern List *worker_called_identities(List *list);

/* worker_answers.c */
extern void worker_need_answers(const pg_uuid_t *id);
extern void worker_write_needed_answers(void);
extern int64 worker_tidy_calls(void);

/* worker_judge.c */
extern void worker_log_calls(const char *why);

#endif							/* SEAM_IK_LEDGER_H */
