/*-------------------------------------------------------------------------
 *
 * http.h
 *	  The transport: n HTTP requests at once, waited for the PostgreSQL way.
 *
 * One engine for every user: a single call is n = 1, a batch is n.  It knows
 * nothing of Seam and nothing of SQL.  What goes wrong with a request is a
 * value in its HttpAnswer; what is thrown is only a failure of the process
 * itself (out of memory, no descriptor for the wait event set).
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_HTTP_H
#define SEAM_IK_HTTP_H

#include "net/request.h"

/* What is under way, of one caller. */
typedef struct HttpRun HttpRun;

extern const char *http_library(void);
extern bool http_date(const HttpAnswer *answer, int64 *unix_time);

extern HttpRun *http_begin(const HttpProfile *profile, int max_parallel);
extern void http_keep(HttpRun *run);
extern void http_check_free(void);
extern void http_set_parallel(HttpRun *run, int max_parallel);
extern void http_set_profile(HttpRun *run, const HttpProfile *profile);
extern void http_start(HttpRun *run, HttpRequest *req);
extern HttpRequest *http_wait(HttpRun *run, int64 wake_at, uint32 wait_event);
extern bool http_was_sent(const HttpRequest *req);
extern void http_release(HttpRequest *req);
extern void http_finish(HttpRun *run);

#endif							/* SEAM_IK_HTTP_H */
