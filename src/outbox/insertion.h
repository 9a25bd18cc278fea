/*-------------------------------------------------------------------------
 *
 * insertion.h
 *	  A table of the extension, open for the insertion of rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_INSERTION_H
#define SEAM_IK_INSERTION_H

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"

/* A column that rows are inserted with. */
typedef struct InsertionColumn
{
	/* Its name. */
	const char *name;
	/* The type that it must have; InvalidOid: seam_instant_key. */
	Oid			type;

	/*
	 * It may be missing: until ALTER EXTENSION UPDATE, a former version has
	 * made the table.
	 */
	bool		later;
} InsertionColumn;

/* The table, open; it lives in a memory context and belongs to a resource owner. */
typedef struct Insertion
{
	/* The table, with a lock for the transaction. */
	Relation	table;
	/* How many columns rows are inserted with. */
	int			ncolumns;
	/* Their numbers in the table; InvalidAttrNumber: missing. */
	AttrNumber *numbers;
	/* The executor's state, for the next two. */
	EState	   *estate;
	/* The table, with its indexes. */
	ResultRelInfo *result;
	/* The row to insert. */
	TupleTableSlot *slot;
} Insertion;

extern void insertion_open(Insertion *insertion, Oid table, const InsertionColumn *columns,
						   int ncolumns);
extern void insertion_row(Insertion *insertion, const Datum *values, const bool *nulls);
extern void insertion_update(Insertion *insertion, TupleTableSlot *row, const Datum *values,
							 const bool *nulls, const bool *replaces);
extern void insertion_close(Insertion *insertion);

#endif							/* SEAM_IK_INSERTION_H */
