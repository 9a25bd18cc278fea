/*-------------------------------------------------------------------------
 *
 * row_key.h
 *	  The primary key of a row of a user's table, as jsonb and back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ROW_KEY_H
#define SEAM_IK_ROW_KEY_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "lib/stringinfo.h"
#include "utils/relcache.h"

/* A column of a primary key. */
typedef struct RowKeyColumn
{
	char	   *name;			/* not quoted */
	AttrNumber	attnum;			/* in the rows that row_key_value() sees */
	AttrNumber	root_attnum;	/* in the root */
	Oid			type;			/* without its domain */
	Oid			output;			/* function */
	bool		is_integer;		/* its values are numbers in jsonb */
	bool		is_plain;		/* its text form depends on no setting */
	bool		moves;			/* partitions are made by it */
	char	   *equal;			/* operator, qualified */
} RowKeyColumn;

/* The primary key of a table: the root, where it is partitioned. */
typedef struct RowKey
{
	Oid			root;			/* that table */
	bool		is_partitioned; /* it has partitions */
	int			ncolumns;		/* of the key */
	RowKeyColumn *columns;		/* in the order of the key */
	bool		all_move;		/* partitions are made by each of them */
} RowKey;

extern RowKey *row_key_of(Relation rel);
extern Datum row_key_names(const RowKey *row_key);
extern Datum row_key_numbers(const RowKey *row_key, bool of_root);
extern bool row_key_is(const RowKey *row_key, const Datum *names, const Datum *numbers);
extern char *row_key_columns(Datum names);
extern Datum row_key_value(RowKey *row_key, TupleDesc desc, HeapTuple row, int64 *hash);
extern char *row_key_table(RowKey *row_key);
extern void row_key_where(RowKey *row_key, StringInfo sql, int first_arg);
extern bool row_key_args(RowKey *row_key, Datum key, Datum *args, Oid *types);

#endif							/* SEAM_IK_ROW_KEY_H */
