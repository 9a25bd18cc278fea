/*-------------------------------------------------------------------------
 *
 * requests.h
 *	  What a session does with requests that are in the outbox.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_REQUESTS_H
#define SEAM_IK_REQUESTS_H

#include "outbox/outbox.h"

extern void requests_revoke_key(Outbox *outbox, const pg_uuid_t *key,
								const pg_uuid_t *workspace);
extern void requests_follow_target(Outbox *outbox, const Target *from, const Target *to);
extern bool requests_move_target(Outbox *outbox, const SeamRequest *request,
								 const Target *target, bool finished_too,
								 bool (*is_gone) (Datum target_key, void *arg), void *arg);

#endif							/* SEAM_IK_REQUESTS_H */
