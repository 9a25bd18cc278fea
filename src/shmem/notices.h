/*-------------------------------------------------------------------------
 *
 * notices.h
 *	  What a worker has the writer of its database tell those who listen.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_NOTICES_H
#define SEAM_IK_NOTICES_H

/* The longest reference of a request, in bytes. */
#define NOTICE_MAX_REFERENCE 200

/* The end of a request. */
typedef struct Notice
{
	int64		id;				/* of the request */
	int			status;			/* a RequestStatus */
	bool		has_reference;	/* the request has one */
	char		reference[NOTICE_MAX_REFERENCE + 1];	/* if so */
} Notice;

/* for the hooks */
extern void notices_request_shared(void);
extern void notices_startup_shared(void);

/* for the worker */
extern bool notices_put(const Notice *notice);

/* for the writer */
extern uint64 notices_begin(void);
extern bool notices_get(uint64 *position, Notice *notice);
extern bool notices_done(uint64 position);

#endif							/* SEAM_IK_NOTICES_H */
