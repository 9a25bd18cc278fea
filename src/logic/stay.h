/*-------------------------------------------------------------------------
 *
 * stay.h
 *	  Which key a stay is to have, and when.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STAY_H
#define SEAM_IK_STAY_H

#include "datatype/timestamp.h"

/* How far the newest request of a stay has come. */
typedef enum StayPhase
{
	STAY_NONE,					/* there is no request */
	STAY_WAITS,					/* no call of it is under way, and it has no
								 * key */
	STAY_FLIES,					/* a call was made, and its answer is not
								 * known */
	STAY_HAS_KEY,				/* its key was issued */
	STAY_FAILED,				/* no key of it will be issued */
	STAY_ENDED					/* it was cancelled, or its key is revoked */
} StayPhase;

/* Why the newest request of a stay has ended. */
typedef enum StayEnd
{
	STAY_GOES_ON,				/* it has not, or it made way for a successor */
	STAY_OVER,					/* valid_until has come */
	STAY_UNWANTED,				/* the row is gone, or wants no key */
	STAY_CANCELLED,				/* somebody has cancelled it */
	STAY_LEFT					/* another key was written to the row by hand */
} StayEnd;

/* What the key column of a row shows. */
typedef enum StayShows
{
	STAY_SHOWS_NOTHING,			/* NULL */
	STAY_SHOWS_NEWEST,			/* the key of the newest request */
	STAY_SHOWS_FORMER,			/* the key of an earlier request of the same
								 * stay */
	STAY_SHOWS_OTHER			/* a key that no request of the stay has
								 * issued */
} StayShows;

/* A change of a row, as a trigger sees it. */
typedef struct StayChange
{
	/* The row is gone. */
	bool		deleted;
	/* It has a user identity. */
	bool		has_identity;
	/* It is to have a key. */
	bool		wanted;
	/* The identity is another one than before. */
	bool		identity_changed;
	/* max_use_count or the customization profile is. */
	bool		terms_changed;
	/* It was not wanted before, or it was and is not. */
	bool		wanted_changed;
	/* issue_at or valid_until is another one. */
	bool		dates_changed;
	/* The statement has changed the key column by itself. */
	bool		key_changed;
	/* What that shows now. */
	StayShows	shows;
} StayChange;

/* What becomes of a stay. */
typedef enum StayAct
{
	STAY_NOTHING,				/* nothing */
	STAY_ASK,					/* one more request; what there is is revoked */
	STAY_FOLLOW,				/* the request that waits becomes what the row
								 * says */
	STAY_STOP					/* what there is is cancelled or revoked */
} StayAct;

typedef struct StayPlan
{
	StayAct		act;
	/* Of STAY_STOP: why. */
	StayEnd		end;
	/* Of STAY_STOP: the filled columns become NULL where they show the key. */
	bool		clear;

	/*
	 * Keys of earlier requests are revoked; of STAY_ASK and STAY_STOP that is
	 * so anyway.
	 */
	bool		revoke_formers;
	/* The dates are stored in the newest request, and looked at anew. */
	bool		dates;
	/* The key of the newest request is written to the row again. */
	bool		write_again;
} StayPlan;

/* The newest request of a stay, as it is stored. */
typedef struct StayFacts
{
	StayPhase	phase;
	/* Why it has ended, of STAY_ENDED. */
	StayEnd		end;
	/* It is for a row of a table. */
	bool		has_row;
	/* Nobody has looked at its times since it came or they changed. */
	bool		is_fresh;
	/* The worker has it in its queue, to be sent. */
	bool		is_queued;
	/* The writer is looking at the row. */
	bool		is_looked_at;
	/* Its key is to be written to the row, and is not yet. */
	bool		is_being_written;
	/* Its key could not be. */
	bool		is_unwritten;
	/* An earlier call of it may have issued a key that shows late. */
	bool		is_looked_for;
	/* It renews the key of a predecessor. */
	bool		is_renewal;
	/* When its key is to be issued; DT_NOBEGIN: at once; DT_NOEND: never. */
	TimestampTz issue_at;
	/* When the stay ends; DT_NOEND: never. */
	TimestampTz valid_until;

	/*
	 * Of a renewal: when the key ends that it renews; DT_NOEND: it has ended
	 * already; DT_NOBEGIN: it has, and that was told of while a call was
	 * under way.
	 */
	TimestampTz former_expires_at;

	/*
	 * Of STAY_HAS_KEY: the key's life; DT_NOEND: it has no end.  It was not
	 * created before it was asked for, whatever Seam says.
	 */
	TimestampTz created_at;
	TimestampTz expires_at;
} StayFacts;

/* What time it is, and when renewals are due. */
typedef struct StayClock
{
	/* Seam's time; what a slow answer has told may be before it. */
	TimestampTz now;
	/* It is not later than that, but for a few seconds. */
	TimestampTz latest;
	/* seam_ik.renew_before, in microseconds */
	int64		renew_before;
	/* No key is renewed so soon after it was issued; microseconds. */
	int64		least_age;
} StayClock;

/* What is due of a stay. */
typedef enum StayDue
{
	STAY_SLEEP,					/* nothing, until a time */
	STAY_SEND,					/* the request is to be sent */
	STAY_LOOK,					/* its row is to be looked at, and then it is
								 * to be sent */
	STAY_HOLD,					/* it is not to be sent yet, and leaves the
								 * queue until a time */
	STAY_RENEW,					/* a successor is to renew the key */
	STAY_END,					/* the stay is over: cancel or revoke what
								 * there is */
	STAY_POSTPONE,				/* it has not begun: revoke what there is, and
								 * ask later */
	STAY_LOST,					/* the key that it was to renew has ended: it
								 * has failed, or will be issued too late */
	STAY_FORGET					/* it ended long ago: nothing has to be kept
								 * any more */
} StayDue;

/* A key that is written is looked for again after so long, while that is not done. */
#define STAY_UNWRITTEN_US (60 * INT64CONST(1000000))

/*
 * A stay whose beginning is no farther ahead than this has begun, once its key was asked
 * for: what is known of Seam's time may get better meanwhile.
 */
#define STAY_BEGUN_US (5 * INT64CONST(1000000))

extern bool stay_is_alive(const StayFacts *newest);
extern StayPlan stay_after_change(const StayFacts *newest, const StayChange *change);
extern StayDue stay_due(const StayFacts *newest, const StayClock *clock, TimestampTz *wake_at);
extern TimestampTz stay_clock_estimate(TimestampTz told, int64 delay, TimestampTz local);

#endif							/* SEAM_IK_STAY_H */
