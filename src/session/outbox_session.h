/*-------------------------------------------------------------------------
 *
 * outbox_session.h
 *	  What a session does as the owner of the outbox.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_OUTBOX_SESSION_H
#define SEAM_IK_OUTBOX_SESSION_H

#include "base/as_owner.h"
#include "base/statement.h"
#include "outbox/outbox.h"

/* A use of SPI as the owner of the outbox. */
typedef struct Session
{
	Outbox	   *outbox;			/* the caller's */
	AsOwner		as;				/* who the caller is */
	int			settings;		/* nest level */
} Session;

extern Session outbox_session_begin(Outbox *outbox);
extern void outbox_session_end(Session *session);
extern void outbox_session_execute(Session *session, Statement *statement, Datum *args,
								   const char *nulls);
extern Datum outbox_session_column(uint64 row, int number, bool *isnull);

#endif							/* SEAM_IK_OUTBOX_SESSION_H */
