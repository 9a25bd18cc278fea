/*-------------------------------------------------------------------------
 *
 * url.h
 *	  Where requests may go.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_URL_H
#define SEAM_IK_URL_H

extern bool url_is_loopback(const char *host);
extern const char *url_problem(const char *url);

#endif							/* SEAM_IK_URL_H */
