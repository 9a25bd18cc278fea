/*-------------------------------------------------------------------------
 *
 * row_key.c
 *	  The primary key of a row of a user's table, as jsonb and back.
 *
 * The outbox finds a row again by it, after hours or in a restored copy, so its
 * text form must not depend on a session's settings.
 *
 * The same values in other columns are another row.  So the columns are stored, too.
 * Within a database they are known by their numbers, which stay when a column is renamed,
 * and are never used again.  In a copy that was restored from a dump a table's columns
 * are numbered anew, and only their names tell.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "outbox/row_key.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/*
 * Set what makes values' text forms the same everywhere; postgres_fdw sends its
 * values likewise.  Undone by reset_text_forms().
 */
static int
set_text_forms(void)
{
	static const char *const settings[][2] = {
		{"datestyle", "ISO"}, {"intervalstyle", "postgres"}, {"extra_float_digits", "3"},
		{"bytea_output", "hex"}, {"timezone", "UTC"}, {"lc_monetary", "C"},
		{"search_path", "pg_catalog"},
	};
	int			level = NewGUCNestLevel();

	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/*
 * Undo set_text_forms(), which has returned this level.
 */
static void
reset_text_forms(int level)
{
	AtEOXact_GUC(true, level);
}

/*
 * Is the table made into partitions by the column?  Those of its partitions'
 * partitions do not count: the answer must be the same for each of them.
 */
static bool
column_moves(Relation root, AttrNumber attnum)
{
	PartitionKey key = RelationGetPartitionKey(root);

	for (int i = 0; key && i < key->partnatts; i++)
	{
		if (key->partattrs[i] == attnum)
			return true;
	}
	return false;
}

/*
 * The qualified name of an operator: "schema.name", palloc'd.
 */
static char *
operator_name(Oid operator)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	name = psprintf("%s.%s", quote_identifier(get_namespace_name(form->oprnamespace)),
					NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return name;
}

/*
 * The primary key of the table that the relation is, or is a partition of; its
 * column numbers are those of the relation.  palloc'd; NULL when there is none.  One that
 * is checked later than at once is none: two rows may have the same one meanwhile.
 * (PostgreSQL takes it for a primary key from version 17 on.)
 */
RowKey *
row_key_of(Relation rel)
{
	List	   *ancestors = rel->rd_rel->relispartition ?
	get_partition_ancestors(RelationGetRelid(rel)) : NIL;
	Oid			root_oid = ancestors ? llast_oid(ancestors) : RelationGetRelid(rel);
	Relation	root = table_open(root_oid, AccessShareLock);
	RowKey	   *row_key = NULL;
	Oid			index_oid = InvalidOid;
	Relation	index;

	(void) RelationGetIndexList(root);
	index_oid = root->rd_pkindex;
	index = OidIsValid(index_oid) ? relation_open(index_oid, AccessShareLock) : NULL;
	if (index && index->rd_index->indimmediate)
	{
		row_key = palloc0(sizeof(RowKey));
		row_key->root = root_oid;
		row_key->is_partitioned = root->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
		row_key->ncolumns = IndexRelationGetNumberOfKeyAttributes(index);
		row_key->columns = palloc0(row_key->ncolumns * sizeof(RowKeyColumn));
		row_key->all_move = row_key->is_partitioned;
		for (int i = 0; i < row_key->ncolumns; i++)
		{
			RowKeyColumn *column = &row_key->columns[i];
			Form_pg_attribute att = TupleDescAttr(RelationGetDescr(root),
												  index->rd_index->indkey.values[i] - 1);
			bool		is_varlena;

			column->name = pstrdup(NameStr(att->attname));
			column->root_attnum = att->attnum;
			column->attnum = get_attnum(RelationGetRelid(rel), column->name);
			column->type = getBaseType(att->atttypid);
			getTypeOutputInfo(column->type, &column->output, &is_varlena);
			column->is_integer = column->type == INT2OID || column->type == INT4OID ||
				column->type == INT8OID;
			column->is_plain = column->is_integer || column->type == UUIDOID ||
				column->type == TEXTOID ||
				column->type == VARCHAROID || column->type == BPCHAROID ||
				column->type == NAMEOID ||
				column->type == NUMERICOID || column->type == BOOLOID || column->type == OIDOID;
			column->moves = column_moves(root, att->attnum);
			row_key->all_move = row_key->all_move && column->moves;
			column->equal = operator_name(get_opfamily_member(index->rd_opfamily[i],
															  index->rd_opcintype[i],
															  index->rd_opcintype[i],
															  BTEqualStrategyNumber));
		}
	}
	if (index)
		relation_close(index, AccessShareLock);
	table_close(root, AccessShareLock);
	return row_key;
}

/*
 * The names of the key's columns as text[], palloc'd.
 */
Datum
row_key_names(const RowKey *row_key)
{
	Datum		names[INDEX_MAX_KEYS];

	for (int i = 0; i < row_key->ncolumns; i++)
		names[i] = CStringGetTextDatum(row_key->columns[i].name);
	return PointerGetDatum(construct_array(names, row_key->ncolumns, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/*
 * Their numbers as int2[], palloc'd: those in the root, or in the relation that
 * row_key_of() was asked for.
 */
Datum
row_key_numbers(const RowKey *row_key, bool of_root)
{
	Datum		numbers[INDEX_MAX_KEYS];

	for (int i = 0; i < row_key->ncolumns; i++)
	{
		const RowKeyColumn *column = &row_key->columns[i];

		numbers[i] = Int16GetDatum(of_root ? column->root_attnum : column->attnum);
	}
	return PointerGetDatum(construct_array(numbers, row_key->ncolumns, INT2OID, sizeof(int16),
										   true, TYPALIGN_SHORT));
}

/*
 * Is the key of the columns that a request says?  names and numbers are as
 * row_key_names() and row_key_numbers() made them of the same relation, or NULL where
 * the request does not say them.
 */
bool
row_key_is(const RowKey *row_key, const Datum *names, const Datum *numbers)
{
	if (numbers)
		return DatumGetBool(OidFunctionCall2(F_ARRAY_EQ, *numbers, row_key_numbers(row_key,
																				   false)));
	return names == NULL ||
		DatumGetBool(OidFunctionCall2Coll(F_ARRAY_EQ, C_COLLATION_OID, *names,
										  row_key_names(row_key)));
}

/*
 * Names of columns, from row_key_names(), for a message: palloc'd.
 */
char *
row_key_columns(Datum names)
{
	StringInfoData list;
	Datum	   *name;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(names), TEXTOID, -1, false, TYPALIGN_INT, &name, NULL, &n);
	initStringInfo(&list);
	for (int i = 0; i < n; i++)
		appendStringInfo(&list, "%s%s", i == 0 ? "" : ", ", TextDatumGetCString(name[i]));
	return list.data;
}

/*
 * A row's primary key as a jsonb array, palloc'd, and a hash of it.  The hash
 * leaves out what changes when a row moves between partitions, if anything
 * else is there.  Of an integer it is the number itself: rows that are inserted
 * one after another are neighbours in an index then.
 */
Datum
row_key_value(RowKey *row_key, TupleDesc desc, HeapTuple row, int64 *hash)
{
	StringInfoData json;
	uint32		sum = 0;
	int			nhashed = 0;
	bool		ordered = false;
	int			level = -1;
	Datum		value;

	initStringInfo(&json);
	for (int i = 0; i < row_key->ncolumns; i++)
	{
		RowKeyColumn *column = &row_key->columns[i];
		bool		isnull;
		Datum		datum = heap_getattr(row, column->attnum, desc, &isnull);
		int			begin;

		if (!column->is_plain && level < 0)
			level = set_text_forms();
		appendStringInfoChar(&json, i == 0 ? '[' : ',');
		begin = json.len;
		if (isnull)
			appendStringInfoString(&json, "null");
		else if (column->is_integer)
		{
			char		digits[32];
			int64		number = column->type == INT8OID ? DatumGetInt64(datum) :
			column->type == INT4OID ? DatumGetInt32(datum) : DatumGetInt16(datum);

			appendBinaryStringInfo(&json, digits, pg_lltoa(number, digits));
			if ((!column->moves || row_key->all_move) && nhashed == 0)
			{
				ordered = true;
				*hash = number;
			}
		}
		else
			escape_json(&json, OidOutputFunctionCall(column->output, datum));
		if (!column->moves || row_key->all_move)
		{
			sum = hash_combine(sum, hash_bytes((unsigned char *) json.data + begin,
											   json.len - begin));
			nhashed++;
		}
	}
	appendStringInfoChar(&json, ']');
	if (level >= 0)
		reset_text_forms(level);
	value = DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
	pfree(json.data);
	if (!ordered || nhashed > 1)
		*hash = (int64) sum;
	return value;
}

/*
 * The table that the key is of, qualified and quoted, with ONLY where a table
 * that inherits from it is not meant: palloc'd.
 */
char *
row_key_table(RowKey *row_key)
{
	const char *name =
	quote_qualified_identifier(get_namespace_name(get_rel_namespace(row_key->root)),
							   get_rel_name(row_key->root));

	return psprintf("%s%s", row_key->is_partitioned ? "" : "ONLY ", name);
}

/*
 * Append the condition that finds the row, whose values are arguments from this
 * number on.
 */
void
row_key_where(RowKey *row_key, StringInfo sql, int first_arg)
{
	for (int i = 0; i < row_key->ncolumns; i++)
		appendStringInfo(sql, "%s%s OPERATOR(%s) $%d", i == 0 ? " WHERE " : " AND ",
						 quote_identifier(row_key->columns[i].name),
						 row_key->columns[i].equal, first_arg + i);
}

/*
 * The arguments for row_key_where() and their types, from what
 * row_key_value() made.  Returns false when the table's primary key has become
 * another one since.  Raises what the types' input functions raise.
 */
bool
row_key_args(RowKey *row_key, Datum key, Datum *args, Oid *types)
{
	int			level = -1;
	bool		ok = true;

	for (int i = 0; i < row_key->ncolumns && level < 0; i++)
	{
		if (!row_key->columns[i].is_plain)
			level = set_text_forms();
	}

	for (int i = 0; ok && i < row_key->ncolumns; i++)
	{
		RowKeyColumn *column = &row_key->columns[i];

		LOCAL_FCINFO(fcinfo, 2);
		Datum		value;
		Oid			input;
		Oid			param;

		InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
		fcinfo->args[0].value = key;
		fcinfo->args[0].isnull = false;
		fcinfo->args[1].value = Int32GetDatum(i);
		fcinfo->args[1].isnull = false;
		value = jsonb_array_element_text(fcinfo);
		ok = !fcinfo->isnull;
		if (!ok)
			break;
		getTypeInputInfo(column->type, &input, &param);
		args[i] = OidInputFunctionCall(input, TextDatumGetCString(value), param, -1);
		types[i] = column->type;
	}
	if (level >= 0)
		reset_text_forms(level);
	return ok;
}
