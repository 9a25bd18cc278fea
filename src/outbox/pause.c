/*-------------------------------------------------------------------------
 *
 * pause.c
 *	  A pause of a database's worker, at somebody's wish.
 *
 * It is the row of a table, so that it begins and ends with a transaction and outlives a
 * restart.  Who reads it runs nobody's code: the table is scanned past the executor,
 * because its owner might have given it policies or rules.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "base/compat.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "outbox/pause.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/*
 * Returns whether the outbox of the extension in this schema is paused, and then why,
 * palloc'd, and since when.  Sees what has committed.  Where somebody has dropped the
 * table there is no pause.  Raises what opening a table raises.
 */
bool
pause_read(Oid schema, char **reason, TimestampTz *since)
{
	Oid			oid = get_relname_relid("seam_ik_paused", schema);
	Relation	table = OidIsValid(oid) ? try_table_open(oid, AccessShareLock) : NULL;
	AttrNumber	reason_number;
	AttrNumber	since_number;
	bool		found = false;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (table == NULL)
		return false;
	reason_number = get_attnum(oid, "reason");
	since_number = get_attnum(oid, "since");
	if (table->rd_rel->relkind != RELKIND_RELATION ||
		get_atttype(oid, reason_number) != TEXTOID ||
		get_atttype(oid, since_number) != TIMESTAMPTZOID)
	{
		table_close(table, AccessShareLock);
		return false;
	}
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(table, NULL);
	scan = scan_table(table, snapshot);
	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, reason_number, &isnull);

		*reason = isnull ? pstrdup("") : TextDatumGetCString(value);
		value = slot_getattr(slot, since_number, &isnull);
		*since = isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
		found = true;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(table, AccessShareLock);
	return found;
}
