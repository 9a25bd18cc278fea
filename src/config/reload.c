/*-------------------------------------------------------------------------
 *
 * reload.c
 *	  Settings of a process that lives for long, as a new session would get them.
 *
 * PostgreSQL reads what ALTER DATABASE and ALTER ROLE have set when a session begins, and
 * then never again.  Such a value hides the configuration file's, which the process does
 * not keep; so a value that was taken back could not be undone by setting another one.
 *
 * Therefore those values are declared to be of the configuration file before that is
 * read: PostgreSQL itself then replaces them by what the file says, or takes them for
 * removed from it, with all that belongs to this.  Afterwards come the command line's,
 * which never change and were kept, and what pg_db_role_setting says now.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_db_role_setting.h"
#include "base/compat.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "config/reload.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* A setting of the server's command line. */
typedef struct LineSetting
{
	const char *name;			/* the server's text */
	char	   *value;			/* palloc'd */
} LineSetting;

static List *line_settings = NIL;	/* of LineSetting *, in TopMemoryContext */

/*
 * Keep the settings of the command line.  To be called before the process connects to its
 * database, whose settings may hide them.
 */
void
reload_prepare(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	int			n;
	struct config_generic **all = guc_variables(&n);

	for (int i = 0; i < n; i++)
	{
		const char *value;
		LineSetting *setting;

		if (all[i]->source != PGC_S_ARGV || all[i]->context < PGC_BACKEND)
			continue;
		value = GetConfigOption(all[i]->name, true, false);
		if (value == NULL)
			continue;
		setting = palloc(sizeof(LineSetting));
		setting->name = all[i]->name;
		setting->value = pstrdup(value);
		line_settings = lappend(line_settings, setting);
	}
	MemoryContextSwitchTo(old);
}

/*
 * Does such a value come from ALTER DATABASE or ALTER ROLE?
 */
static bool
is_of_catalog(GucSource source)
{
	return source == PGC_S_GLOBAL || source == PGC_S_DATABASE ||
		source == PGC_S_USER || source == PGC_S_DATABASE_USER;
}

/*
 * Declare what ALTER DATABASE and ALTER ROLE have set to be of the configuration file.
 */
static void
disown_catalog_settings(void)
{
	int			n;
	struct config_generic **all = guc_variables(&n);

	for (int i = 0; i < n; i++)
	{
		if (is_of_catalog(all[i]->source))
			all[i]->source = PGC_S_FILE;
		if (is_of_catalog(all[i]->reset_source))
			all[i]->reset_source = PGC_S_FILE;
	}
}

/*
 * Give every setting the value that a session of this database and role would get if it
 * began now; what this process has set with a source that comes after theirs stays.
 *
 * Must be called in a transaction, without nested levels of settings.  Raises what opening
 * pg_db_role_setting raises: then no setting has changed.  If anything else fails, the
 * process ends, because nobody would know what its settings are.
 */
void
reload_settings(void)
{
	Relation	relation = table_open(DbRoleSettingRelationId, AccessShareLock);
	Snapshot	snapshot;
	Oid			role = GetSessionUserId();
	ListCell   *lc;

	/* from here on nothing is waited for */
	LockRelationOid(DbRoleSettingDatidRolidIndexId, AccessShareLock);
	snapshot = RegisterSnapshot(GetCatalogSnapshot(DbRoleSettingRelationId));
	HOLD_INTERRUPTS();
	PG_TRY();
	{
		disown_catalog_settings();
		ProcessConfigFile(PGC_SIGHUP);
		foreach(lc, line_settings)
		{
			LineSetting *setting = lfirst(lc);

			(void) set_config_option(setting->name, setting->value, PGC_SUSET, PGC_S_ARGV,
									 GUC_ACTION_SET, true, DEBUG2, false);
		}
		ApplySetting(snapshot, MyDatabaseId, role, relation, PGC_S_DATABASE_USER);
		ApplySetting(snapshot, InvalidOid, role, relation, PGC_S_USER);
		ApplySetting(snapshot, MyDatabaseId, InvalidOid, relation, PGC_S_DATABASE);
		ApplySetting(snapshot, InvalidOid, InvalidOid, relation, PGC_S_GLOBAL);
	}
	PG_CATCH();
	{
		EmitErrorReport();
		proc_exit(1);
	}
	PG_END_TRY();
	RESUME_INTERRUPTS();
	UnregisterSnapshot(snapshot);
	table_close(relation, AccessShareLock);
}
