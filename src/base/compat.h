/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between the supported versions of PostgreSQL (15 to
 *	  19) and of libcurl (7.76 and later), so that no other file asks for a
 *	  version.
 *
 * A file that includes curl.h includes it before this one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_COMPAT_H
#define SEAM_IK_COMPAT_H

#include "storage/latch.h"
#include "utils/jsonb.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

#if PG_VERSION_NUM < 150000
#error "seam_ik needs PostgreSQL 15 or later"
#endif

/* The mark of a function that does not return; 18 put it in front. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/*
 * A wait event set that lives as long as the session.  From 17 on a set may
 * belong to a resource owner; ours must outlive the transaction.
 */
#if PG_VERSION_NUM >= 170000
#define create_session_wait_event_set(nevents) \
	CreateWaitEventSet(NULL, (nevents))
#else
#define create_session_wait_event_set(nevents) \
	CreateWaitEventSet(TopMemoryContext, (nevents))
#endif

/* A scan of a whole table; 19 asks what it is for. */
#if PG_VERSION_NUM >= 190000
#define scan_table(table, snapshot) table_beginscan((table), (snapshot), 0, NULL, SO_NONE)
#else
#define scan_table(table, snapshot) table_beginscan((table), (snapshot), 0, NULL)
#endif

/* What pg_stat_activity shows; from 17 on an extension can name its waits. */
#if PG_VERSION_NUM >= 170000
#define wait_event_seam() WaitEventExtensionNew("SeamApiCall")
#define wait_event_worker_idle() WaitEventExtensionNew("SeamIkIdle")
#else
#define wait_event_seam() PG_WAIT_EXTENSION
#define wait_event_worker_idle() PG_WAIT_EXTENSION
#endif

/* Does the role own the database? */
#if PG_VERSION_NUM >= 160000
#define database_ownercheck(database, role) \
	object_ownercheck(DatabaseRelationId, (database), (role))
#else
#define database_ownercheck(database, role) \
	pg_database_ownercheck((database), (role))
#endif

/* May the role do that in the schema? */
#if PG_VERSION_NUM >= 160000
#define schema_aclcheck(schema, role, mode) \
	object_aclcheck(NamespaceRelationId, (schema), (role), (mode))
#else
#define schema_aclcheck(schema, role, mode) \
	pg_namespace_aclcheck((schema), (role), (mode))
#endif

/* All settings, and how many there are. */
#if PG_VERSION_NUM >= 160000
#define guc_variables(n) get_guc_variables(n)
#else
#define guc_variables(n) (*(n) = GetNumConfigOptions(), get_guc_variables())
#endif

/* An entry of pg_stat_activity, from 1 on. */
#if PG_VERSION_NUM >= 160000
#define local_beentry(i) pgstat_get_local_beentry_by_index(i)
#else
#define local_beentry(i) pgstat_fetch_stat_local_beentry(i)
#endif

/* A number of this process's own, less than MaxBackends in a session. */
#if PG_VERSION_NUM >= 170000
#define MY_PROC_NUMBER MyProcNumber
#else
#define MY_PROC_NUMBER (MyProc->pgprocno)
#endif

/* From 17 on a background worker may connect as a role without LOGIN. */
#if PG_VERSION_NUM >= 170000
#define CAN_CONNECT_WITHOUT_LOGIN true
#define CONNECT_WITHOUT_LOGIN BGWORKER_BYPASS_ROLELOGINCHECK
#else
#define CAN_CONNECT_WITHOUT_LOGIN false
#define CONNECT_WITHOUT_LOGIN 0
#endif

/* From 19 on the server itself ends one that is in a command's way. */
#if PG_VERSION_NUM >= 190000
#define BGWORKER_LEAVES_DATABASE BGWORKER_INTERRUPTIBLE
#else
#define BGWORKER_LEAVES_DATABASE 0
#endif

/* What a signal handler was called with, to be passed on. */
#if PG_VERSION_NUM >= 190000
#define SIGNAL_GIVEN postgres_signal_arg, pg_siginfo
#else
#define SIGNAL_GIVEN postgres_signal_arg
#endif

/*
 * Builds a jsonb piece by piece: jsonb_push() for each token, then jsonb_built().
 * A builder begins zeroed; 19 gave the server one of its own.
 */
#if PG_VERSION_NUM >= 190000
typedef JsonbInState JsonbBuilder;
#define jsonb_push(builder, token, value) \
	pushJsonbValue((builder), (token), (value))
#else
typedef struct JsonbBuilder
{
	JsonbParseState *state;		/* the server's, while it is built */
	JsonbValue *result;			/* what was built last */
} JsonbBuilder;
#define jsonb_push(builder, token, value) \
	((void) ((builder)->result = pushJsonbValue(&(builder)->state, (token), (value))))
#endif
#define jsonb_built(builder) JsonbValueToJsonb((builder)->result)

#ifdef LIBCURL_VERSION_NUM

#if LIBCURL_VERSION_NUM < 0x074c00
#error "seam_ik needs libcurl 7.76 or later"
#endif

/*
 * CURLOPT_PREREQFUNCTION (7.80): called just before a request is sent on a
 * connection.  Older versions do with a body that cannot be rewound, and know
 * nothing of GOAWAY.  Define SEAM_IK_NO_PREREQ to test that way, and without what
 * came later, with a newer libcurl.
 */
#if LIBCURL_VERSION_NUM >= 0x075000 && !defined(SEAM_IK_NO_PREREQ)
#define HAVE_CURL_PREREQ 1
#endif

/* CURLOPT_PROTOCOLS_STR (7.85) replaces a bit mask that is now deprecated. */
#if LIBCURL_VERSION_NUM >= 0x075500
#define HAVE_CURL_PROTOCOLS_STR 1
#endif

/* CURLOPT_QUICK_EXIT (7.87): do not join a thread that is still resolving. */
#if LIBCURL_VERSION_NUM >= 0x075700 && !defined(SEAM_IK_NO_PREREQ)
#define HAVE_CURL_QUICK_EXIT 1
#endif

/* The same for the whole multi handle (8.20). */
#if LIBCURL_VERSION_NUM >= 0x081400 && !defined(SEAM_IK_NO_PREREQ)
#define HAVE_CURLM_QUICK_EXIT 1
#endif

#endif							/* LIBCURL_VERSION_NUM */

#endif							/* SEAM_IK_COMPAT_H */
