/*-------------------------------------------------------------------------
 *
 * watched.h
 *	  An exchange of a session that others can watch.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WATCHED_H
#define SEAM_IK_WATCHED_H

#include "seam/answer.h"
#include "seam/exchange.h"

extern void watched_run(Exchange *exchange);
extern void watched_ended(const Exchange *exchange, const SeamResult *result);

#endif							/* SEAM_IK_WATCHED_H */
