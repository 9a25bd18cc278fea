/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings (GUCs) of seam_ik.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_SETTINGS_H
#define SEAM_IK_SETTINGS_H

#include "nodes/nodes.h"
#include "seam/seam.h"

extern int	settings_connect_timeout;	/* milliseconds */
extern int	settings_request_timeout;	/* milliseconds */
extern int	settings_max_retries;
extern int	settings_max_concurrency;
extern int	settings_progress_interval; /* milliseconds, 0: off */
extern int	settings_max_list_size; /* kilobytes */
extern bool settings_worker;
extern int	settings_rate_limit;	/* requests a second, 0: none */
extern int	settings_max_attempts;
extern int	settings_renew_before;	/* seconds */
extern int	settings_retention; /* seconds, -1: for ever */
extern int	settings_settle_delay;	/* milliseconds */
extern bool settings_revoke_on_rollback;
extern bool settings_notify;
extern bool settings_keep_attempts;

extern void settings_define(void);
extern ErrorContextCallback *settings_utility_begins(const Node *stmt);
extern void settings_account(SeamAccount *account);
extern void settings_choose_workspace(SeamAccount *account, const pg_uuid_t *workspace);
extern char *settings_api_key_place(const char **hint);
extern ErrorContextCallback *settings_hide_statement(void);

#endif							/* SEAM_IK_SETTINGS_H */
