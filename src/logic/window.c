/*-------------------------------------------------------------------------
 *
 * window.c
 *	  When can a key have been created that a lost answer was about?
 *
 * Seam tells when a key was created by its own clock, an attempt is recorded by
 * the local one.  What joins them are the Date headers of Seam's answers: Seam's
 * clock showed a Date, or up to a second more, at some time within the call.  The
 * answer that came fastest tells the most, and is kept for a minute.
 *
 * So there are two ways to know when an attempt was made, by Seam's clock:
 *
 *	- from now back: Seam's time now, less the time since.  It is right if the
 *	  local clock was not set since, or was watched, and if Seam's was not set.
 *	- as it was recorded: Seam's time, as it was known when the attempt was made.
 *	  It is right whatever has become of the local clock.  But it is not there
 *	  where no answer had come before, or where the attempt was made at another
 *	  endpoint.
 *
 * Where the local clock was set, or not watched, since, the second one counts
 * alone, if it is there.  Else both count, in case Seam's clock was set between.
 * The first one alone is vague where the local clock has shown the time twice:
 * a key within it may be adopted by nobody.
 *
 * What is found in too wide a window is another's key.  What lies outside of too
 * narrow a one is a second key.  The second is worse: at each bound stands the
 * time that is surely not too late, or not too early.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "logic/window.h"

/* An answer that tells Seam's clock is kept for so long, if none tells it better. */
#define KEPT_US (60 * INT64CONST(1000000))

/* A Date has whole seconds: the clock showed up to this more. */
#define DATE_US USECS_PER_SEC

/* Seam's time as it was recorded with an attempt is uncertain by no more than this. */
#define RECORDED_US (WINDOW_DELAY_US + DATE_US)

/*
 * Takes what an answer tells of Seam's clock, if that is better than the best that is
 * known of it, or contradicts it: then Seam's was set.  Returns whether it was taken.
 */
bool
window_learn(SeamTime *best, const SeamTime *answer)
{
	if (answer->delay > WINDOW_DELAY_US)
		return false;
	if (best->at != 0)
	{
		int64		off = answer->time - window_seam_time(best, answer->at);

		if (answer->delay >= best->delay && answer->at - best->at < KEPT_US &&
			off < WINDOW_MARGIN_US && off > -WINDOW_MARGIN_US)
			return false;
	}
	*best = *answer;
	return true;
}

/*
 * Returns Seam's time, which is known, at a time of the monotonic clock; it may be later by
 * what window_seam_now() states.
 */
TimestampTz
window_seam_time(const SeamTime *best, int64 at)
{
	return best->time + (at - best->at);
}

/*
 * Returns what time it is at Seam, by an answer, and by the best one, if there is one.
 * The answer itself tells it badly where it took long, so the best one is taken, unless
 * they contradict each other.
 */
SeamNow
window_seam_now(const SeamTime *best, const SeamTime *answer, int64 now)
{
	SeamNow		by_answer = {window_seam_time(answer, now), answer->delay + DATE_US};
	SeamNow		by_best = {0, best->delay + DATE_US};

	if (best->at == 0 ||
		answer->time < window_seam_time(best, answer->at - answer->delay) - WINDOW_MARGIN_US ||
		answer->time > window_seam_time(best, answer->at) + by_best.uncertain + WINDOW_MARGIN_US)
		return by_answer;
	by_best.time = window_seam_time(best, now);
	return by_best;
}

/*
 * Returns when a key of an attempt can have been created.
 */
Window
window_of(const WindowFacts *facts)
{
	Window		window;

	if (facts->has_seam_time && !facts->ago.sure)
	{
		window.from = facts->seam_time;
		window.until = facts->seam_time + RECORDED_US;
	}
	else
	{
		window.from = facts->now.time - facts->ago.most;
		window.until = facts->now.time - facts->ago.least + facts->now.uncertain;
		if (facts->has_seam_time && facts->seam_time < window.from)
			window.from = facts->seam_time;
		if (facts->has_seam_time && facts->seam_time > window.until)
			window.until = facts->seam_time + RECORDED_US;
	}
	window.vague = !facts->has_seam_time && facts->ago.least != facts->ago.most;
	window.from -= WINDOW_MARGIN_US;
	window.until += (int64) facts->timeout * 1000 + WINDOW_MARGIN_US;
	return window;
}

/*
 * Returns for how long after an attempt was recorded a key of it can be created, in
 * milliseconds, when its call was given up at ended_at and Seam's list is complete
 * settle_delay (milliseconds) later.
 */
int
window_timeout(int64 claimed_at, int64 ended_at, int settle_delay)
{
	return (int) Min((ended_at - claimed_at) / 1000 + 1 + settle_delay, INT_MAX / 2);
}

/*
 * Returns when Seam's list can be asked for the key of an attempt, on the monotonic clock,
 * when that was recorded surely_ago microseconds before now, and has this timeout in
 * milliseconds.
 */
int64
window_list_at(int timeout, int64 surely_ago, int64 now)
{
	return now + (int64) timeout * 1000 - surely_ago;
}
