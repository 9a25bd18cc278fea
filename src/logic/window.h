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
#include "logic/stretches.h"

/*
 * How far Seam's clock, as its Date header tells it, and the time of a key's
 * creation may be apart, besides what is known of the delay: the hosts behind an API
 * have clocks of their own.
 */
#define WINDOW_MARGIN_US (5 * INT64CONST(1000000))

/* An answer that took longer tells too little of Seam's clock. */
#define WINDOW_DELAY_US (2 * INT64CONST(1000000))

/*
 * A time of Seam's clock, as the Date of an answer has told it, which has whole seconds,
 * and is of some time within the call.  Zeroed: none.
 */
typedef struct SeamTime
{
	TimestampTz time;

	/*
	 * When the answer had come, on a clock that nobody sets; 0: there is
	 * none.
	 */
	int64		at;

	/* How long before that the request was sent, in microseconds. */
	int64		delay;
} SeamTime;

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

	/*
	 * From then on a key of it can have been created for so long;
	 * milliseconds.
	 */
	int			timeout;

	/*
	 * Seam's time when it was recorded, or a little later, where that was
	 * known.
	 */
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

extern bool window_learn(SeamTime *best, const SeamTime *answer);
extern TimestampTz window_seam_time(const SeamTime *best, int64 at);
extern SeamNow window_seam_now(const SeamTime *best, const SeamTime *answer, int64 now);
extern Window window_of(const WindowFacts *facts);
extern int	window_timeout(int64 claimed_at, int64 ended_at, int settle_delay);
extern int64 window_list_at(int timeout, int64 surely_ago, int64 now);

#endif							/* SEAM_IK_WINDOW_H */
