/*-------------------------------------------------------------------------
 *
 * multi.h
 *	  libcurl's multi handles: the one for new requests, and those that are
 *	  used until what is under way in them has ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_MULTI_H
#define SEAM_IK_MULTI_H

#include "net/handle.h"

/* Connections that outlive a batch. */
#define MULTI_KEEP 8

/*
 * Takes a handle, which has left its multi handle, because libcurl is done with
 * its request, and what libcurl says of that.  Called with signals blocked; must
 * not throw.
 */
typedef void (*MultiConsumer) (Handle *handle, CURLcode rc);

extern void multi_init(void);
extern void multi_look_at_idle(void);
extern void multi_set_connections(int n);
extern void multi_trim(void);
extern uint32 multi_trust(const char *trust);
extern bool multi_add(Handle *handle);
extern void multi_remove(Handle *handle);
extern void multi_leave(const Handle *handle);
extern bool multi_is_broken(const Handle *handle);
extern bool multi_turn(int64 *now, int64 until, bool look, uint32 wait_event,
					   MultiConsumer ended, bool *latch, bool *ready);
extern bool multi_end_lookups(MultiConsumer ended);
extern void multi_clean(void);

#endif							/* SEAM_IK_MULTI_H */
