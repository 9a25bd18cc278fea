/*-------------------------------------------------------------------------
 *
 * check.h
 *	  What is told of an installation: the lines of seam_ik_check().
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_CHECK_H
#define SEAM_IK_CHECK_H

#include "outbox/outbox.h"
#include "seam/answer.h"
#include "seam/seam.h"

/* What the lines of a check know of each other. */
typedef struct Check
{
	Oid			function;		/* the one that was called */
	Outbox	   *outbox;			/* of its extension; NULL: it cannot be used */
	int64		started_at;		/* clock_now()'s clock */
	bool		has_account;	/* there is a key that may call */
	SeamAccount account;		/* then, with that key */
	bool		asked;			/* Seam was asked */
	bool		connected;		/* and could be reached */
	SeamResult	result;			/* what it answered */
	int64		took;			/* microseconds, until the answer */
	bool		has_clock;		/* the answer told Seam's time */
	int64		clock_ahead;	/* Seam's clock less ours, in seconds */
} Check;

/* A line. */
typedef struct Line
{
	bool		ok;				/* nothing has to be done */
	const char *detail;			/* palloc'd or static */
	const char *hint;			/* what to do: the same, or NULL */
} Line;

/* Fills in a line, which is not ok until it says so; may throw. */
typedef void (*CheckLook) (Check *check, Line *line);

/* lines about Seam */
extern void check_api_key(Check *check, Line *line);
extern void check_endpoint(Check *check, Line *line);
extern void check_answer(Check *check, Line *line);
extern void check_clock(Check *check, Line *line);

#endif							/* SEAM_IK_CHECK_H */
