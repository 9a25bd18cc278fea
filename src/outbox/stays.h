/*-------------------------------------------------------------------------
 *
 * stays.h
 *	  The requests of a stay, as a session reads and changes them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STAYS_H
#define SEAM_IK_STAYS_H

#include "logic/stay.h"
#include "nodes/pg_list.h"
#include "outbox/outbox.h"

/* A request of a stay. */
typedef struct StayRequest
{
	/* request_id */
	int64		id;
	/* The first request of the stay. */
	int64		stay_id;
	/* The request that comes after it; 0: it is the newest. */
	int64		successor_id;
	/* How far it has come; what else stay_after_change() needs. */
	StayFacts	facts;
	/* It failed, and it is not known whether a key of it is alive. */
	bool		reported;
	/* Its key, if it has one. */
	bool		has_key;
	pg_uuid_t	key;
	/* text, or 0 for NULL; in the context that the stay was read in */
	Datum		reference;
	/* An oid, or 0 for NULL. */
	Datum		enqueued_by;
	/* Its row of the outbox. */
	TupleTableSlot *slot;
} StayRequest;

/* The requests of a stay, by their ids, the newest one last; what is alive is locked. */
typedef struct Stay
{
	Outbox	   *outbox;
	int			n;
	StayRequest *requests;
	/* What is to be changed of the newest one, if has_changed. */
	struct StayValues *newest;
	bool		has_changed;
} Stay;

/* A row of a user's table, as one of its triggers looks for its requests. */
typedef struct StayRow
{
	const Target *target;
	/* The trigger's argument that says which column shows the key. */
	const char *slot;
	/* Those of all triggers of the table that keep keys: of char *. */
	List	   *slots;
	/* Whom the row was for until now, or NULL. */
	const pg_uuid_t *guest;
	/* It is gone. */
	bool		is_gone;
} StayRow;

extern bool stays_may_be_of(Outbox *outbox, int64 hash);
extern void stays_of_row(Outbox *outbox, const StayRow *row, Stay *stay);
extern bool stays_of_request(Outbox *outbox, int64 id, int64 hash, Stay *stay);
extern void stays_release(Stay *stay);
extern const StayRequest *stays_newest(const Stay *stay);
extern bool stays_is_for(const StayRequest *request, const pg_uuid_t *identity);
extern StayShows stays_shows(const Stay *stay, const pg_uuid_t *shown);
extern void stays_revoke_formers(Stay *stay);
extern void stays_stop(Stay *stay, StayEnd end, bool clear, bool keep);
extern int64 stays_ask(Stay *stay, const SeamRequest *request, const Target *target,
					   OutboxStay *what);
extern void stays_follow(Stay *stay, const SeamRequest *request, const pg_uuid_t *shown);
extern void stays_set_dates(Stay *stay, TimestampTz issue_at, TimestampTz valid_until);
extern void stays_write_again(Stay *stay);
extern void stays_apply(Stay *stay);

#endif							/* SEAM_IK_STAYS_H */
