/*-------------------------------------------------------------------------
 *
 * our_triggers.c
 *	  The triggers of users' tables that call functions of the extension.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "outbox/our_triggers.h"
#include "outbox/trigger_plan.h"
#include "utils/builtins.h"

/* What is cloned for a partition is its parent's. */
#define SELECT_TRIGGERS \
	"SELECT t.tgrelid, pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.||) '.'" \
	" OPERATOR(pg_catalog.||) pg_catalog.quote_ident(c.relname), t.tgname, t.tgenabled," \
	" p.proname, t.tgargs" \
	" FROM pg_catalog.pg_extension e" \
	" JOIN pg_catalog.pg_depend d" \
	" ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass" \
	" AND d.refobjid = e.oid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass" \
	" JOIN pg_catalog.pg_proc p ON p.oid = d.objid" \
	" JOIN pg_catalog.pg_trigger t ON t.tgfoid = p.oid AND t.tgparentid = 0" \
	" JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid" \
	" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace" \
	" WHERE e.extname = 'seam_ik' AND p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype" \
	" ORDER BY t.tgrelid, t.tgname"

/*
 * Returns what pg_trigger has of arguments, each with a NUL behind it, as a list of
 * palloc'd strings.
 */
static List *
split_arguments(bytea * arguments)
{
	const char *p = VARDATA_ANY(arguments);
	const char *end = p + VARSIZE_ANY_EXHDR(arguments);
	List	   *list = NIL;

	while (p < end)
	{
		list = lappend(list, pnstrdup(p, end - p));
		p += strlen(llast(list)) + 1;
	}
	return list;
}

/*
 * Returns the triggers of the database that call functions of the extension, OurTrigger *,
 * sorted by table.  SPI is connected; everything is palloc'd in its context.  Raises what
 * SPI raises.
 */
List *
our_triggers_read(void)
{
	List	   *list = NIL;

	if (SPI_execute(SELECT_TRIGGERS, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI failed to look for triggers");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		OurTrigger *trigger = palloc0(sizeof(OurTrigger));
		bool		isnull;

		trigger->table = DatumGetObjectId(SPI_getbinval(row, desc, 1, &isnull));
		trigger->table_name = SPI_getvalue(row, desc, 2);
		trigger->name = SPI_getvalue(row, desc, 3);
		trigger->enabled = DatumGetChar(SPI_getbinval(row, desc, 4, &isnull));
		trigger->function = SPI_getvalue(row, desc, 5);
		trigger->arguments = split_arguments(DatumGetByteaPP(SPI_getbinval(row, desc, 6, &isnull)));
		list = lappend(list, trigger);
	}
	return list;
}

/*
 * Returns the column that a trigger names for a field, palloc'd, or NULL where it names
 * none.
 */
char *
our_trigger_column(const OurTrigger *trigger, const char *field)
{
	ListCell   *lc;

	foreach(lc, trigger->arguments)
	{
		char	   *column;
		char	   *name = trigger_split_argument(lfirst(lc), &column);

		if (column && strcmp(name, field) == 0)
			return column;
	}
	return NULL;
}
