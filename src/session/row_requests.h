/*-------------------------------------------------------------------------
 *
 * row_requests.h
 *	  Requests follow rows that move.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ROW_REQUESTS_H
#define SEAM_IK_ROW_REQUESTS_H

#include "outbox/outbox.h"

extern void row_requests_follow(Outbox *outbox, const Target *from, const Target *to);
extern bool row_requests_move(Outbox *outbox, const SeamRequest *request, const Target *target,
							  bool finished_too,
							  bool (*is_gone) (Datum target_key, void *arg), void *arg);

#endif							/* SEAM_IK_ROW_REQUESTS_H */
