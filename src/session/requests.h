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

#endif							/* SEAM_IK_REQUESTS_H */
