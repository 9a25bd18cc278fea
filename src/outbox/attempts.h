/*-------------------------------------------------------------------------
 *
 * attempts.h
 *	  The tries of requests, which are kept with them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ATTEMPTS_H
#define SEAM_IK_ATTEMPTS_H

#include "datatype/timestamp.h"

/* A try of a request of the outbox, which has ended. */
typedef struct Attempt
{
	int64		request_id;		/* whose it is */
	int			number;			/* the request's attempts by then */
	bool		revokes;		/* the key was to be revoked, not issued */
	TimestampTz attempted_at;	/* when it was recorded, just before it was
								 * sent */
	int64		took;			/* microseconds from then on */
	int			http_status;	/* 0: there was no answer */
	int			sqlerrcode;		/* 0: it succeeded */
	const char *error;			/* what went wrong, where something did */
	const char *seam_request_id;	/* Seam's, or NULL */
}			Attempt;

extern void attempts_insert(const Attempt * attempts, int n);

#endif							/* SEAM_IK_ATTEMPTS_H */
