/*-------------------------------------------------------------------------
 *
 * places.h
 *	  In which databases processes of ours are, and how sessions reach them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_PLACES_H
#define SEAM_IK_PLACES_H

#include "nodes/nodes.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "datatype/timestamp.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

/* A database that has a process of ours, or shall have none. */
typedef struct Place
{
	Oid			database;		/* InvalidOid: the place is free */
	int			holds;			/* commands that want no process of ours there */
	bool		dropping;		/* one of them is DROP DATABASE */
	uint64		ticket;			/* of the process that was registered last: no
								 * other may take this place; 0: none may */
	bool		changed;		/* the extension may have come or gone */
	bool		managed;		/* the launcher waits for its process's end */
	bool		starting;		/* a process is registered, and not there yet */
	bool		expected;		/* it says that its end is no failure */
	pg_atomic_uint32 wakes;		/* what its worker has to look at: bits, by
								 * WakeKind */
	pid_t		pid;			/* of the process, or 0 */
	Latch	   *latch;			/* likewise; processes' latches outlive them */

	/* what the probe found */
	bool		has_extension;	/* the extension is there */
	bool		may_login;		/* its owner may */
	bool		owns_tables;	/* its owner owns the outbox's, too */
	Oid			owner;			/* of the extension */
} Place;

/* Steps of the local clock that are remembered. */
#define CLOCK_STEPS 16

/* The local clock was set: times up to this one, as it went before, are of before. */
typedef struct ClockStep
{
	TimestampTz until;			/* on the local clock as it was before */
	int64		by;				/* microseconds */
} ClockStep;

/* The workers' watch over the local clock. */
typedef struct ClockWatch
{
	slock_t		lock;			/* of all that follows */
	TimestampTz since;			/* 0: not yet */
	int64		since_at;		/* the same on clock_now()'s clock */
	int64		looked_at;		/* last, on clock_now()'s clock */
	int64		offset;			/* to the monotonic clock */
	int			nsteps;			/* ever; the last ones are remembered */
	ClockStep	steps[CLOCK_STEPS]; /* the last ones, in a ring */
} ClockWatch;

/* Which databases have which process of ours. */
typedef struct Places
{
	LWLock	   *lock;			/* of all that follows */
	Latch	   *launcher;		/* NULL: there is none now */
	bool		scan;			/* databases came or went */
	ConditionVariable left;		/* a process has left its database */
	ClockWatch	clock;			/* has a lock of its own */
	uint64		tickets;		/* how many were given out */
	int			nplaces;		/* of the next */
	Place		places[FLEXIBLE_ARRAY_MEMBER];	/* in no order */
} Places;

/* What a worker is told at its start. */
typedef struct WorkerStart
{
	Oid			database;		/* to which it connects */
	uint64		ticket;			/* for its place */
	Oid			owner;			/* of the extension; InvalidOid: find out */
	bool		careful;		/* the last one has ended badly */
} WorkerStart;

/* What a worker is woken for. */
typedef enum WakeKind
{
	WAKE_WORK,					/* something is due */
	WAKE_DOUBTS,				/* what is in doubt has changed */
	WAKE_INTENTS,				/* sessions have something to tell */
	WAKE_JUDGE,					/* a prepared transaction has ended */
	WAKE_KINDS
} WakeKind;

/* for the hooks */
extern void places_request_shared(void);
extern void places_startup_shared(void);
extern Oid	places_utility_begins(const Node *stmt);
extern void places_wait_until_left(Oid database);
extern void places_release(int code, Datum database);
extern bool places_ends_prepared(const Node *stmt);
extern void places_prepared_has_ended(void);

/* for sessions */
extern bool places_preloaded(void);
extern void places_wake_at_commit(bool reread);
extern void places_wake_now(WakeKind kind);

/* for the worker */
extern WorkerStart places_attach(Datum main_arg);
extern uint32 places_calls(void);
extern bool places_want_exit(void);
extern bool places_want_drop(void);
extern void places_expect_exit(void);
extern void places_report(bool has_extension, bool may_login, bool owns_tables, Oid owner);

/* for the launcher */
extern Places *places;
extern Place *places_get(Oid database, bool make);
extern void places_free(Place *place);

#endif							/* SEAM_IK_PLACES_H */
