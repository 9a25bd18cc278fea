/*-------------------------------------------------------------------------
 *
 * places.h
 *	  In which databases processes of ours are, and how sessions reach them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_PLACES_H
#define SEAM_IK_PLACES_H

#include "logic/stretches.h"
#include "nodes/nodes.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "datatype/timestamp.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

/*
 * Users' code that goes on for so long, though it was cancelled before, costs the writer its
 * process.
 */
#define PLACES_USERS_CODE_LIMIT_US (4 * INT64CONST(1000000))

/* The processes that a database may have at once. */
typedef enum PlaceRole
{
	PLACE_MAIN,					/* the probe, and then the worker */
	PLACE_WRITER,
	PLACE_ROLES
} PlaceRole;

/* A process of ours in a database, or that there is none. */
typedef struct PlaceProcess
{
	uint64		ticket;			/* of the process that was registered last: no
								 * other may come here; 0: none may */
	bool		managed;		/* the launcher waits for its end */
	bool		starting;		/* it is registered, and not there yet */
	bool		expected;		/* it says that its end is no failure */
	pg_atomic_uint32 wakes;		/* what it has to look at: bits, by WakeKind */
	pid_t		pid;			/* of the process, or 0 */
	Latch	   *latch;			/* likewise; processes' latches outlive them */
} PlaceProcess;

/* A database that has a process of ours, or shall have none. */
typedef struct Place
{
	Oid			database;		/* InvalidOid: the place is free */
	int			holds;			/* commands that want no process of ours there */
	bool		dropping;		/* one of them is DROP DATABASE */
	bool		changed;		/* the extension may have come or gone */
	PlaceProcess processes[PLACE_ROLES];	/* of ours, by what they are for */

	/* of the writer */
	int64		writer_at;		/* when one is to be started, unasked, on
								 * clock_now()'s clock; 0: never */
	pg_atomic_uint64 write_from;	/* the least id of the requests whose rows
									 * have become due since it looked */
	pg_atomic_uint64 users_code_at; /* since when it runs users' code, on
									 * clock_now()'s clock; 0: it does not */
	bool		marks_counted;	/* what its marks tell of a crash of the
								 * server is counted: later ones tell of none */
	Oid			stuck_table;	/* whose code did not let the last one go, or
								 * InvalidOid */

	/*
	 * from clock_now()'s clock to Seam's, as the worker knows it; 0: it does
	 * not
	 */
	pg_atomic_uint64 seam_offset;

	/* what the probe found */
	bool		has_extension;	/* the extension is there */
	bool		may_login;		/* its owner may */
	bool		owns_tables;	/* its owner owns the outbox's, too */
	Oid			owner;			/* of the extension */
} Place;

/* The workers' watch over the local clock. */
typedef struct ClockWatch
{
	slock_t		lock;			/* of what follows */
	Stretches	clock;			/* what is known of it */
} ClockWatch;

/* Which databases have which process of ours. */
typedef struct Places
{
	LWLock	   *lock;			/* of all that follows */
	Latch	   *launcher;		/* NULL: there is none now */
	bool		scan;			/* databases came or went */
	bool		crashed;		/* the server has, before it started */
	ConditionVariable left;		/* a process has left its database */
	ClockWatch	clock;			/* has a lock of its own */
	uint64		tickets;		/* how many were given out */
	int			nplaces;		/* of the next */
	Place		places[FLEXIBLE_ARRAY_MEMBER];	/* in no order */
} Places;

/* What a process is told at its start. */
typedef struct WorkerStart
{
	Oid			database;		/* to which it connects */
	uint64		ticket;			/* for its place */
	Oid			owner;			/* of the extension; InvalidOid: find out */
} WorkerStart;

/* What a process is woken for. */
typedef enum WakeKind
{
	WAKE_WORK,					/* something is due */
	WAKE_DOUBTS,				/* what is in doubt has changed */
	WAKE_INTENTS,				/* sessions have something to tell */
	WAKE_FATES,					/* a prepared transaction has ended */
	WAKE_ROOM,					/* there is room again for what is to be told */
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
extern void places_wake_writer_at_commit(void);
extern void places_wake_now(WakeKind kind);
extern bool places_seam_time(int64 at, TimestampTz *time);

/* for the worker and the writer */
extern WorkerStart places_attach(Datum main_arg, PlaceRole role);
extern int	places_my_number(void);
extern void places_wake_other(PlaceRole role, WakeKind kind);
extern void places_rows_due(int64 id);
extern uint32 places_calls(void);
extern bool places_is_called(void);
extern bool places_want_exit(void);
extern bool places_want_drop(void);
extern void places_expect_exit(void);
extern void places_tell_seam_offset(int64 offset);
extern void places_report(bool has_extension, bool may_login, bool owns_tables, Oid owner);

/* for the writer */
extern int64 places_write_from(void);
extern void places_in_users_code(bool begins);
extern void places_write_at(int64 at);
extern bool places_tell_of_crash(void);
extern void places_crash_counted(void);
extern Oid	places_stuck_table(void);
extern void places_note_stuck(Oid table);

/* for the launcher */
extern Places *places;
extern Place *places_get(Oid database, bool make);
extern void places_free(Place *place);

/* for the rings */
extern int	places_number(void);

#endif							/* SEAM_IK_PLACES_H */
