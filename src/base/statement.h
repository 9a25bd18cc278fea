/*-------------------------------------------------------------------------
 *
 * statement.h
 *	  SQL statements whose plans are kept.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_STATEMENT_H
#define SEAM_IK_STATEMENT_H

#include "catalog/pg_type.h"
#include "executor/spi.h"

/* Arguments of one statement, at most. */
#define STATEMENT_MAX_ARGS 20

/* Names that one set of statements leaves open, at most. */
#define STATEMENT_MAX_NAMES 4

/* Among the types of arguments: StatementSet.row_type. */
#define STATEMENT_ROW_TYPE RECORDOID
/* and arrays of it */
#define STATEMENT_ROW_ARRAY RECORDARRAYOID

/*
 * What the statements of a set have in common.  The first two members are given
 * where it is defined, the others by statement_set_names().
 */
typedef struct StatementSet
{
	/* %x in a text stands for the name whose place here the letter x has */
	const char *letters;

	/* how many bigints the arguments of each statement begin with */
	int			nbigints;

	/* in TopMemoryContext */
	char	   *names[STATEMENT_MAX_NAMES];

	/* which table the first name is of */
	Oid			table;

	/* the type that STATEMENT_ROW_TYPE stands for, or InvalidOid */
	Oid			row_type;

	/* what is between %{ and %} belongs to the texts */
	bool		optional;

	/* counts the changes of the names and the three members below them */
	int			version;
} StatementSet;

/* A statement; its plan is made when it is first executed. */
typedef struct Statement
{
	const char *sql;			/* see StatementSet */
	Oid			types[STATEMENT_MAX_ARGS];	/* of the arguments behind the
											 * set's; InvalidOid ends them */
	SPIPlanPtr	plan;			/* kept, or NULL */
	int			version;		/* of the set that it was made for */
} Statement;

extern void statement_set_names(StatementSet *set, const char *const *names, Oid table,
								Oid row_type, bool optional);
extern void statement_execute(const StatementSet *set, Statement *statement, Datum *args,
							  const char *nulls, Snapshot snapshot);

#endif							/* SEAM_IK_STATEMENT_H */
