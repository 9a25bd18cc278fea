/*-------------------------------------------------------------------------
 *
 * probe.c
 *	  Sees whether a database has the extension, whose it is, and ends.
 *
 * The launcher, which is connected to no database, starts it.  It may meet locks that the
 * database's owner holds, so the launcher ends one that takes too long.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "postmaster/bgworker.h"
#include "shmem/places.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

PGDLLEXPORT void seam_ik_probe_main(Datum main_arg);

/*
 * Main function of the probe: does the database have the extension, who owns it, and does that
 * role own its tables?
 */
void
seam_ik_probe_main(Datum main_arg)
{
	WorkerStart start = places_attach(main_arg, PLACE_MAIN);
	bool		has_extension;
	bool		may_login = false;
	bool		owns_tables = false;
	Oid			owner = InvalidOid;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(start.database, InvalidOid, 0);
	/* ALTER DATABASE ... SET role is not meant for us */
	SetConfigOption("role", "none", PGC_SUSET, PGC_S_OVERRIDE);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute("SELECT e.extowner, r.rolcanlogin, (SELECT pg_catalog.count(*) "
					"OPERATOR(pg_catalog.=) 3 FROM pg_catalog.pg_class c"
					" WHERE c.relnamespace OPERATOR(pg_catalog.=) e.extnamespace AND c.relowner "
					"OPERATOR(pg_catalog.=) e.extowner"
					" AND c.relname OPERATOR(pg_catalog.=) ANY (ARRAY['seam_instant_key_request', "
					"'seam_instant_key_call', 'seam_instant_key_writing']::pg_catalog.name[]))"
					" FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_authid r ON r.oid "
					"OPERATOR(pg_catalog.=) e.extowner"
					" WHERE e.extname OPERATOR(pg_catalog.=) 'seam_ik'", true, 1) != SPI_OK_SELECT)
		elog(ERROR, "SPI failed to look for the extension");
	has_extension = SPI_processed > 0;
	if (has_extension)
	{
		bool		isnull;
		HeapTuple	row = SPI_tuptable->vals[0];

		owner = DatumGetObjectId(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		may_login = DatumGetBool(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
		owns_tables = DatumGetBool(SPI_getbinval(row, SPI_tuptable->tupdesc, 3, &isnull));
	}
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();

	places_report(has_extension, may_login, owns_tables, owner);
	proc_exit(0);
}
