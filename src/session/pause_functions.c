/*-------------------------------------------------------------------------
 *
 * pause_functions.c
 *	  To pause the worker of this database, and to have it go on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/as_owner.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "outbox/outbox.h"
#include "shmem/places.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(seam_ik_pause);
PG_FUNCTION_INFO_V1(seam_ik_resume);

/* The longest reason, in bytes; the table has the same as a constraint. */
#define MAX_REASON 200

/*
 * Executes a statement on the table of pauses, %s, as its owner.  reason: its argument, or
 * 0 where it has none.  The worker looks at the table when this transaction commits.
 */
static void
change(FunctionCallInfo fcinfo, const char *sql, Datum reason)
{
	Outbox	   *outbox = outbox_of_function(fcinfo->flinfo->fn_oid);
	Oid			table = get_relname_relid("seam_ik_paused", outbox->schema);
	const char *name = quote_qualified_identifier(get_namespace_name(outbox->schema),
												  "seam_ik_paused");
	Oid			types[] = {TEXTOID};
	AsOwner		as;
	int			settings;

	if (!OidIsValid(table))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table seam_ik_paused of extension seam_ik does not exist")));
	as = as_owner_begin(as_owner_of(table), SECURITY_NOFORCE_RLS);
	settings = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(psprintf(sql, name), reason ? 1 : 0, types, &reason, NULL, false,
							  0) < 0)
		elog(ERROR, "SPI failed to change a pause");
	SPI_finish();
	AtEOXact_GUC(true, settings);
	as_owner_end(as);
	places_wake_at_commit(false);
}

/*
 * seam_ik_pause(reason text) RETURNS void
 *
 * From the commit on the worker sends nothing.  Another reason replaces the former one.
 */
Datum
seam_ik_pause(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("reason must not be NULL"),
				 errhint("Say for others why the outbox waits.")));
	if (VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) > MAX_REASON)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("reason is longer than %d bytes", MAX_REASON)));
	change(fcinfo, "INSERT INTO %s (reason) VALUES ($1)"
		   " ON CONFLICT ((true)) DO UPDATE SET reason = excluded.reason", PG_GETARG_DATUM(0));
	PG_RETURN_VOID();
}

/*
 * seam_ik_resume() RETURNS void
 */
Datum
seam_ik_resume(PG_FUNCTION_ARGS)
{
	change(fcinfo, "DELETE FROM %s", (Datum) 0);
	PG_RETURN_VOID();
}
