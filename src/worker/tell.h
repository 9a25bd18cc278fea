/*-------------------------------------------------------------------------
 *
 * tell.h
 *	  Tells those who listen of the ends of requests.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_TELL_H
#define SEAM_IK_TELL_H

#include "executor/spi.h"
#include "outbox/work.h"
#include "utils/elog.h"

extern void tell_ends(SPITupleTable *ends, int n, RequestStatus status);
extern bool tell_is_in_the_way(const ErrorData *error);
extern bool tell(void);
extern int64 tell_not_before(void);

#endif							/* SEAM_IK_TELL_H */
