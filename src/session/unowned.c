/*-------------------------------------------------------------------------
 *
 * unowned.c
 *	  Instant keys that Seam has, and no row of this database.
 *
 * The last net under every assumption that the outbox makes.  Seam is asked first, and the
 * database afterwards, in one snapshot: so a key that comes to its row meanwhile is not
 * taken for one that has none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/as_owner.h"
#include "catalog/pg_type.h"
#include "config/settings.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "outbox/our_triggers.h"
#include "outbox/outbox.h"
#include "session/functions.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(seam_unowned_instant_keys);

/* The result's columns. */
enum
{
	UNOWNED_INSTANT_KEY_ID,
	UNOWNED_USER_IDENTITY_ID,
	UNOWNED_CREATED_AT,
	UNOWNED_EXPIRES_AT,
	UNOWNED_NCOLUMNS
};

/*
 * Of the keys $1, of the identities $2, created at $3, those of which the outbox knows
 * nothing: %1$s is its table, %2$s that of calls.  A key that is revoked since $4, when
 * Seam was asked, was alive then.  What is reported (08007) is owned by nobody.  The call
 * of a transaction that is open, and a request whose answer was lost, may have any key of
 * the identity that was created since they began: 5 s are as in a settlement.
 */
#define SELECT_UNKNOWN \
	"SELECT k.i FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) WITH ORDINALITY" \
	" k(id, identity, created, i)" \
	" WHERE NOT EXISTS (SELECT FROM %1$s r WHERE (r.instant_key).instant_key_id = k.id" \
	" AND (r.status IN ('pending', 'in_flight', 'revoking')" \
	" OR (r.status = 'issued' AND r.sqlstate IS DISTINCT FROM '08007')" \
	" OR (r.status = 'revoked' AND r.finished_at >= $4)))" \
	" AND NOT EXISTS (SELECT FROM %2$s c WHERE k.identity = ANY (c.user_identity_ids)" \
	" AND (c.seam_time IS NULL OR k.created >= c.seam_time - interval '5 s'))" \
	" AND NOT EXISTS (SELECT FROM %1$s r WHERE r.user_identity_id = k.identity" \
	" AND r.status IN ('in_flight', 'revoking') AND r.next_attempt_at IS NOT NULL" \
	" AND (r.instant_key).instant_key_id IS NULL" \
	" AND (r.seam_time IS NULL OR k.created >= r.seam_time - interval '5 s')) ORDER BY k.i"

/*
 * Of the keys $1 those that no row of a user's table has: %1$s is the table, %2$s the
 * column.  The first is for a column of type uuid, which may have an index.
 */
#define SELECT_NOT_IN_UUIDS \
	"SELECT k.i FROM unnest($1::uuid[]) WITH ORDINALITY k(id, i) WHERE NOT EXISTS" \
	" (SELECT FROM %1$s AS t WHERE t.%2$s OPERATOR(pg_catalog.=) k.id) ORDER BY k.i"
#define SELECT_NOT_IN_TEXTS \
	"SELECT k.i FROM unnest($1::uuid[]) WITH ORDINALITY k(id, i) WHERE k.id::text NOT IN" \
	" (SELECT lower(btrim(t.%2$s::text)) FROM %1$s AS t WHERE t.%2$s IS NOT NULL) ORDER BY k.i"

/* The keys that Seam has told, or are left of them. */
typedef struct Keys
{
	MemoryContext context;		/* the function's, where the arrays are */
	int			n;				/* how many there are */
	int			size;			/* how many the arrays have room for */
	Datum	   *columns[UNOWNED_NCOLUMNS];	/* uuid, uuid, timestamptz,
											 * timestamptz */
} Keys;

/*
 * SeamKeyConsumer: keeps what is told of a key.
 */
static void
keep_key(const SeamKey *key, void *arg)
{
	Keys	   *keys = arg;
	MemoryContext old = MemoryContextSwitchTo(keys->context);
	pg_uuid_t  *ids;

	CHECK_FOR_INTERRUPTS();
	if (keys->n == keys->size)
	{
		keys->size = Max(keys->size * 2, 64);
		for (int i = 0; i < UNOWNED_NCOLUMNS; i++)
			keys->columns[i] = keys->columns[i] == NULL ? palloc(keys->size * sizeof(Datum)) :
				repalloc_huge(keys->columns[i], keys->size * sizeof(Datum));
	}
	ids = palloc(2 * sizeof(pg_uuid_t));
	ids[0] = key->instant_key_id;
	ids[1] = key->user_identity_id;
	keys->columns[UNOWNED_INSTANT_KEY_ID][keys->n] = UUIDPGetDatum(&ids[0]);
	keys->columns[UNOWNED_USER_IDENTITY_ID][keys->n] = UUIDPGetDatum(&ids[1]);
	keys->columns[UNOWNED_CREATED_AT][keys->n] = TimestampTzGetDatum(key->created_at);
	keys->columns[UNOWNED_EXPIRES_AT][keys->n] = TimestampTzGetDatum(key->expires_at);
	keys->n++;
	MemoryContextSwitchTo(old);
}

/*
 * Returns a column of the keys as an array, palloc'd.
 */
static Datum
column_array(const Keys *keys, int column, Oid type)
{
	int16		length;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	return PointerGetDatum(construct_array(keys->columns[column], keys->n, type, length, by_value,
										   align));
}

/*
 * Keeps of the keys those whose numbers, from 1 on, a query over them returns in order; it
 * sees the active snapshot.  args: the first is the array of ids, which is filled in here.
 * SPI is connected.
 */
static void
keep_those_of(Keys *keys, const char *query, int nargs, Oid *types, Datum *args)
{
	args[0] = column_array(keys, UNOWNED_INSTANT_KEY_ID, UUIDOID);
	if (SPI_execute_with_args(query, nargs, types, args, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI failed to look for instant keys");
	keys->n = (int) SPI_processed;
	for (int i = 0; i < keys->n; i++)
	{
		bool		isnull;
		int64		number = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
														 SPI_tuptable->tupdesc, 1, &isnull));

		for (int c = 0; c < UNOWNED_NCOLUMNS; c++)
			keys->columns[c][i] = keys->columns[c][number - 1];
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Keeps the keys of which the outbox knows nothing; asked: when Seam was.  SPI is
 * connected, by the owner of the outbox.
 */
static void
keep_unknown(Keys *keys, const Outbox *outbox, TimestampTz asked)
{
	Oid			types[] = {UUIDARRAYOID, UUIDARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID};
	Datum		args[] = {(Datum) 0, column_array(keys, UNOWNED_USER_IDENTITY_ID, UUIDOID),
		column_array(keys, UNOWNED_CREATED_AT, TIMESTAMPTZOID), TimestampTzGetDatum(asked)
	};

	keep_those_of(keys, psprintf(SELECT_UNKNOWN, outbox->name, outbox->calls), lengthof(types),
				  types, args);
}

/*
 * Keeps the keys that are in no column that a trigger of ours fills.  Each table is read as
 * its owner, so that neither missing privileges nor row security hide a row.  SPI is
 * connected.
 */
static void
keep_without_row(Keys *keys)
{
	List	   *triggers = our_triggers_read();
	const OurTrigger *former = NULL;
	const char *former_column = NULL;
	ListCell   *lc;

	foreach(lc, triggers)
	{
		const OurTrigger *trigger = lfirst(lc);
		char	   *column = our_trigger_column(trigger, "instant_key_id");
		bool		is_uuid;
		Oid			types[] = {UUIDARRAYOID};
		Datum		args[1];
		AsOwner		as;

		/* two triggers of a table name the same column, as a rule */
		if (column == NULL || (former && former->table == trigger->table &&
							   strcmp(former_column, column) == 0))
			continue;
		former = trigger;
		former_column = column;
		is_uuid = getBaseType(get_atttype(trigger->table, get_attnum(trigger->table, column))) ==
			UUIDOID;
		as = as_owner_begin(as_owner_of(trigger->table), AS_OWNER_OF_USERS_TABLE);
		keep_those_of(keys, psprintf(is_uuid ? SELECT_NOT_IN_UUIDS : SELECT_NOT_IN_TEXTS,
									 trigger->table_name, quote_identifier(column)),
					  lengthof(types), types, args);
		as_owner_end(as);
	}
}

/*
 * Keeps the keys that no row of the database has, as it is now.  asked: when Seam was.
 */
static void
keep_unowned(Keys *keys, const Outbox *outbox, TimestampTz asked)
{
	int			settings = NewGUCNestLevel();
	AsOwner		as = as_owner_begin(outbox->owner, SECURITY_NOFORCE_RLS);

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	/* also where the transaction has an older snapshot */
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	keep_unknown(keys, outbox, asked);
	keep_without_row(keys);
	SPI_finish();
	PopActiveSnapshot();
	as_owner_end(as);
	AtEOXact_GUC(true, settings);
}

/*
 * seam_unowned_instant_keys(user_identity_id uuid) RETURNS TABLE (instant_key_id uuid,
 *		user_identity_id uuid, created_at timestamptz, expires_at timestamptz)
 *
 * Of the identity's keys, or for a NULL of the workspace's.
 */
Datum
seam_unowned_instant_keys(PG_FUNCTION_ARGS)
{
	Outbox	   *outbox = outbox_of_function(fcinfo->flinfo->fn_oid);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SeamRequest request = {.op = SEAM_LIST};
	Keys		keys = {.context = CurrentMemoryContext};
	TimestampTz asked = GetCurrentTimestamp();
	SeamAccount account;
	SeamResult	result;

	if (!PG_ARGISNULL(0))
		request.user_identity_id = PG_GETARG_UUID_P(0);
	InitMaterializedSRF(fcinfo, 0);
	settings_account(&account);
	functions_call(fcinfo->flinfo->fn_oid, &account, &request, keep_key, &keys, &result);
	if (keys.n > 0)
		keep_unowned(&keys, outbox, asked);
	for (int i = 0; i < keys.n; i++)
	{
		Datum		values[UNOWNED_NCOLUMNS];
		bool		nulls[UNOWNED_NCOLUMNS] = {0};

		for (int c = 0; c < UNOWNED_NCOLUMNS; c++)
			values[c] = keys.columns[c][i];
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
