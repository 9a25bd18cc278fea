/*-------------------------------------------------------------------------
 *
 * step.h
 *	  Steps of the worker and the writer: transactions of their own, and what follows from them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STEP_H
#define SEAM_IK_STEP_H

#include "libpq/pqsignal.h"
#include "shmem/places.h"
#include "utils/elog.h"
#include "utils/palloc.h"

/* After a step failed. */
#define STEP_ERROR_PAUSE_US (1 * INT64CONST(1000000))

/* The same, where only a lock was in the way. */
#define STEP_LOCKED_PAUSE_US (100 * INT64CONST(1000))

/* The same error again is logged so much later. */
#define STEP_SILENCE_US (60 * INT64CONST(1000000))

/*
 * A step: what is done in one transaction, and what follows when it has committed or
 * failed.
 */
typedef struct Step
{
	/* does the work, inside the transaction; may throw */
	void		(*run) (void *arg);

	/*
	 * draws the consequences of the commit; must not throw; NULL: there are
	 * none
	 */
	void		(*committed) (void *arg);

	/*
	 * undoes in memory what run() has noted there, after this error, or NULL
	 * when the outbox is not ours any more; must not throw; NULL: nothing is
	 * to be undone
	 */
	void		(*failed) (void *arg, const ErrorData *error);
	/* handed to each of them */
	void	   *arg;

	/*
	 * completes the log line "the outbox could not ..."; NULL: an error is
	 * not logged
	 */
	const char *what;
	/* waits for locks, and does not give up after 20 ms */
	bool		patient;
	/* works without the outbox, which may be gone */
	bool		bare;
} Step;

/* What the last step that works on the outbox has found. */
typedef enum OutboxState
{
	OUTBOX_OURS,
	OUTBOX_GONE,				/* the extension is */
	OUTBOX_DISOWNED				/* its owner, or its tables', is not our role */
} OutboxState;

extern void step_start(Datum main_arg, PlaceRole role, pqsigfunc on_sigterm);
extern bool step_reload(void);
extern int64 step_reload_due(void);
extern MemoryContext step_context(void);
extern bool step_take(const Step *step);
extern int64 step_pause_after(const ErrorData *error);
extern OutboxState step_outbox(void);
extern void step_check_interrupts(void);
extern void step_read_database(void);
extern const char *step_database(void);

#endif							/* SEAM_IK_STEP_H */
