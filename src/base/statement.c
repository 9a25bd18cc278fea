/*-------------------------------------------------------------------------
 *
 * statement.c
 *	  SQL statements whose plans are kept.
 *
 * A plan lives as long as the process, in CacheMemoryContext, where SPI keeps it.
 * It is made anew when a name in its text means another table, or the table is
 * called otherwise: statement_set_names() is told each time and compares.  Whatever
 * else changes (columns, indexes, statistics) PostgreSQL's plan cache sees by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/statement.h"
#include "lib/stringinfo.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/*
 * Says what the set's statements mean from now on: as many names as it has letters,
 * which are copied, and the other members of StatementSet.  Throws when out of memory;
 * the set is as it was then.
 */
void
statement_set_names(StatementSet *set, const char *const *names, Oid table,
					Oid row_type, bool optional)
{
	int			n = (int) strlen(set->letters);
	char	   *copies[STATEMENT_MAX_NAMES];
	bool		same = set->version > 0 && set->table == table &&
	set->row_type == row_type && set->optional == optional;

	for (int i = 0; same && i < n; i++)
		same = strcmp(set->names[i], names[i]) == 0;
	if (same)
		return;
	for (int i = 0; i < n; i++)
		copies[i] = MemoryContextStrdup(TopMemoryContext, names[i]);
	for (int i = 0; i < n; i++)
	{
		if (set->names[i])
			pfree(set->names[i]);
		set->names[i] = copies[i];
	}
	set->table = table;
	set->row_type = row_type;
	set->optional = optional;
	set->version++;
}

/*
 * Returns the statement's text for the set's names, palloc'd.
 */
static char *
text_of(const StatementSet *set, const Statement *statement)
{
	StringInfoData text;
	bool		skip = false;

	initStringInfo(&text);
	for (const char *sql = statement->sql; *sql; sql++)
	{
		const char *letter;

		if (sql[0] == '%' && (sql[1] == '{' || sql[1] == '}'))
			skip = *++sql == '{' && !set->optional;
		else if (skip)
			continue;
		else if (sql[0] == '%' && sql[1] != '\0' && (letter = strchr(set->letters, sql[1])) != NULL)
		{
			appendStringInfoString(&text, set->names[letter - set->letters]);
			sql++;
		}
		else
			appendStringInfoChar(&text, *sql);
	}
	return text.data;
}

/*
 * Makes the statement's plan for the set as it is now, and keeps it.
 */
static void
prepare(const StatementSet *set, Statement *statement)
{
	Oid			types[STATEMENT_MAX_ARGS];
	int			nargs = 0;
	SPIPlanPtr	plan;

	if (statement->plan)
		SPI_freeplan(statement->plan);
	statement->plan = NULL;
	while (nargs < set->nbigints)
		types[nargs++] = INT8OID;
	for (int i = 0; nargs < STATEMENT_MAX_ARGS && OidIsValid(statement->types[i]); i++)
	{
		Oid			type = statement->types[i];

		if (type == STATEMENT_ROW_TYPE)
			type = set->row_type;
		else if (type == STATEMENT_ROW_ARRAY)
			type = get_array_type(set->row_type);
		types[nargs++] = type;
	}
	plan = SPI_prepare(text_of(set, statement), nargs, types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	statement->plan = plan;
	statement->version = set->version;
}

/*
 * Executes a statement, between SPI_connect() and SPI_finish(), with all of its
 * arguments; nulls is as SPI wants it, or NULL.  It sees what the snapshot sees, or for
 * InvalidSnapshot what is committed and visible by now.  Its result is in SPI_tuptable
 * and SPI_processed, in SPI's memory context; CurrentMemoryContext stays.
 */
void
statement_execute(const StatementSet *set, Statement *statement, Datum *args,
				  const char *nulls, Snapshot snapshot)
{
	MemoryContext caller = CurrentMemoryContext;
	int			rc;

	if (statement->version != set->version)
		prepare(set, statement);
	rc = SPI_execute_snapshot(statement->plan, args, nulls, snapshot, InvalidSnapshot,
							  false, true, 0);
	MemoryContextSwitchTo(caller);	/* SPI has left its own */
	if (rc < 0)
		elog(ERROR, "SPI_execute_snapshot failed: %s", SPI_result_code_string(rc));
}
