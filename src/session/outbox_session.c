/*-------------------------------------------------------------------------
 *
 * outbox_session.c
 *	  What a session does as the owner of the outbox.
 *
 * EXECUTE on a function is all that its caller needs, so the statements run as
 * the owner of the table.  They see the latest state of a request also in a
 * transaction with an older snapshot: the worker goes on meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "session/outbox_session.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

static StatementSet set = {.letters = "rc"};

/*
 * Become the owner of the outbox, whom no operator or function of the caller's
 * may deceive.  An error undoes it with the (sub)transaction.
 */
Session
outbox_session_begin(Outbox *outbox)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		/* every statement has its index, whatever the statistics say */
		{"enable_seqscan", "off"}, {"enable_bitmapscan", "off"}, {"enable_indexscan", "on"},
		{"plan_cache_mode", "force_generic_plan"},
	};
	Session		session = {.outbox = outbox};

	session.as = as_owner_begin(outbox->owner, SECURITY_NOFORCE_RLS);
	session.settings = NewGUCNestLevel();
	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	return session;
}

/*
 * Be the caller again, with the caller's settings.
 */
void
outbox_session_end(Session *session)
{
	SPI_finish();
	AtEOXact_GUC(true, session->settings);
	as_owner_end(session->as);
}

/*
 * Executes a statement, as the owner of the outbox: %r in it is the table of requests, %c
 * that of calls, and %{ and %} are around what the first may not know of.  nulls tells which
 * arguments are NULL, as SPI wants it, or is NULL.  It sees what has been committed by now.
 * Its result is in SPI_tuptable and SPI_processed.
 */
void
outbox_session_execute(Session *session, Statement *statement, Datum *args, const char *nulls)
{
	const Outbox *outbox = session->outbox;
	const char *const names[] = {outbox->name, outbox->calls};

	statement_set_names(&set, names, outbox->table, InvalidOid, outbox->knows_columns);
	CommandCounterIncrement();
	statement_execute(&set, statement, args, nulls, GetLatestSnapshot());
}

/*
 * A column (counted from 1) of a row of the result.
 */
Datum
outbox_session_column(uint64 row, int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, isnull);
}
