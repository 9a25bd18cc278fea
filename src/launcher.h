/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The life of the outbox's processes: one launcher, and a worker for each
 *	  database that has the extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_LAUNCHER_H
#define SEAM_IK_LAUNCHER_H

/* What a worker is told at its start. */
typedef struct WorkerStart
{
	Oid			database;
	Oid			owner;			/* of the extension; InvalidOid: find out */
	bool		careful;		/* the last one has ended badly */
} WorkerStart;

/* What a worker is woken for. */
typedef enum WakeKind
{
	WAKE_WORK,					/* something is due */
	WAKE_DOUBTS,				/* what is in doubt has changed */
	WAKE_RECORD,				/* an intent is to be recorded */
	WAKE_JUDGE,					/* a transaction with intents has ended */
	WAKE_KINDS
} WakeKind;

extern void launcher_define(void);
extern bool launcher_is_there(void);
extern void launcher_wake_at_commit(bool reread);
extern void launcher_wake_now(WakeKind kind);

/* for the worker */
extern WorkerStart launcher_attach(Datum main_arg);
extern uint32 launcher_calls(void);
extern bool launcher_wants_exit(void);
extern void launcher_expect_exit(void);

#endif							/* SEAM_IK_LAUNCHER_H */
