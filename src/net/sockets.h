/*-------------------------------------------------------------------------
 *
 * sockets.h
 *	  The sockets of libcurl: counted as PostgreSQL wants it, and waited for in
 *	  a WaitEventSet.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_SOCKETS_H
#define SEAM_IK_SOCKETS_H

#include <curl/curl.h>

#include "base/compat.h"
#include "storage/latch.h"

/*
 * An account of open sockets.  A multi handle has one of those that are open for
 * it, a request one of those that were opened for it and may be closed unseen.
 */
typedef struct SocketAccount
{
	int			n;				/* how many are open */
} SocketAccount;

extern int	sockets_wanted(CURL *easy, curl_socket_t fd, int what, void *multi, void *entry);
extern curl_socket_t sockets_open(SocketAccount *multi, SocketAccount *request,
								  const struct curl_sockaddr *address, bool *none_left);
extern int	sockets_close(void *data, curl_socket_t fd);
extern void sockets_settle(SocketAccount *request);
extern void sockets_close_all(SocketAccount *multi);
extern bool sockets_idle_closed(const SocketAccount *multi);
extern int	sockets_next_lookup(int fd, SocketAccount **multi);
extern void sockets_watch(void);
extern int	sockets_wait(long timeout_ms, WaitEvent *events, int max_events, uint32 wait_event);
extern SocketAccount *sockets_ready(const WaitEvent *event, int *what);

#endif							/* SEAM_IK_SOCKETS_H */
