/*-------------------------------------------------------------------------
 *
 * window.h
 *	  When can a key have been created that a lost answer was about?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WINDOW_H
#define SEAM_IK_WINDOW_H

#include "datatype/timestamp.h"
#include "logic/local_clock.h"

/*
 * How far Seam's clock, as its Date header tells it, and the time of a key's
 * creation may be apart, besides what is known of the delay: the hosts behind an API
 * have clocks of their own.
 */
#define WINDOW_MARGIN_US (5 * INT64CONST(1000000))

/* An answer that took longer tells too little of Seam's clock. */
#define WINDOW_DELAY_US (2 * INT64CONST(1000000))

/* An answer's Date, which has whole seconds, is of some time within the call. */
typedef struct SeamDate
{
	/* the Date */
	TimestampTz time;

	/* When the answer had come, on the monotonic clock. */
	int64		at;

	/* How long before that the request was sent, in microseconds. */
	int64		delay;
} SeamDate;

/* What is known of Seam's clock: the best answer.  Zeroed: nothing. */
typedef struct SeamClock
{
	bool		known;
	SeamDate	date;
} SeamClock;

/* What time it is at Seam: this, or up to so much later, in microseconds. */
typedef struct SeamNow
{
	TimestampTz time;
	int64		uncertain;
} SeamNow;

/* What is known of an attempt, and of the time when it is looked at. */
typedef struct WindowFacts
{
	/* How long ago it was recorded, before the request was sent. */
	Ago			ago;

	/* From then on a key of it can have been created for so long; milliseconds. */
	int			timeout;

	/* Seam's time when it was recorded, or a little later, where that was known. */
	bool		has_seam_time;
	TimestampTz seam_time;

	/* Seam's time now. */
	SeamNow		now;
} WindowFacts;

/* When a key can have been created, by Seam's clock. */
typedef struct Window
{
	TimestampTz from;
	TimestampTz until;

	/* Whether it may be that two times are meant, and all between them. */
	bool		vague;
} Window;

extern void window_learn(SeamClock *clock, const SeamDate *date);
extern TimestampTz window_seam_time(const SeamClock *clock, int64 at);
extern SeamNow window_seam_now(const SeamClock *clock, const SeamDate *date, int64 now);
extern Window window_of(const WindowFacts *facts);
extern int	window_timeout(int64 claimed_at, int64 ended_at, int settle_delay);
extern int64 window_list_at(int timeout, int64 surely_ago, int64 now);

#endif							/* SEAM_IK_WINDOW_H */
