/*-------------------------------------------------------------------------
 *
 * script.c
 *	  Which version of the extension's script a database has, and whether the
 *	  library is fit for it.
 *
 * A newer library works with the tables of an older script, until ALTER EXTENSION
 * UPDATE.  An older library cannot know what a newer script has made: it refuses, when
 * the script is run and when the outbox is looked for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "fmgr.h"
#include "outbox/script.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(seam_ik_requires);

/*
 * A version, "MAJOR.MINOR", as a number that is greater for a later one.  What is
 * written otherwise counts as 0, so nothing is refused because of it.
 */
static int64
number_of(const char *version)
{
	int			major,
				minor;

	return sscanf(version, "%d.%d", &major, &minor) == 2 ? ((int64) major << 32) + minor : 0;
}

/*
 * Is the library fit for a script of this version?  Raises 55000 when the script is
 * newer.
 */
static void
check_version(const char *script)
{
	if (number_of(script) > number_of(SEAM_IK_VERSION))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the library of extension seam_ik is older than its script"),
				 errdetail("The library is of version %s, the script of version %s.",
						   SEAM_IK_VERSION, script),
				 errhint("Install version %s of seam_ik, and restart the server.", script)));
}

/*
 * Is the library fit for the script that this database has?  Raises 55000 when the
 * script is newer.
 */
void
script_check(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("seam_ik"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(rel), &isnull);

		if (!isnull)
			version = TextDatumGetCString(datum);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (version)
	{
		check_version(version);
		pfree(version);
	}
}

/*
 * seam_ik_requires(script text): what the extension's scripts begin with.  Raises 55000
 * when the library is older than a script of that version.
 */
Datum
seam_ik_requires(PG_FUNCTION_ARGS)
{
	char	   *script = text_to_cstring(PG_GETARG_TEXT_PP(0));

	check_version(script);
	PG_RETURN_VOID();
}
