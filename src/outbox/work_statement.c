/*-------------------------------------------------------------------------
 *
 * work_statement.c
 *	  Statements on the outbox's tables, and what surrounds them.
 *
 * Everything happens in a short transaction between work_begin() and work_end().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/as_owner.h"
#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "outbox/work_statement.h"

/* How long a statement waits for a lock on the table. */
#define LOCK_TIMEOUT "1s"

static Outbox outbox;			/* as work_begin() found it */
static int	guc_level;

/* What our statements have in common. */
static StatementSet set = {.letters = "rcwa",.nbigints = WORK_OUR_ARGS};

/*
 * Begin to work on the outbox, in a transaction.  Returns false when the
 * extension is not there any more, or was created anew.
 */
bool
work_begin(void)
{
	static const char *const settings[][2] = {
		/* every statement has its index, whatever the statistics say */
		{"enable_seqscan", "off"}, {"enable_hashjoin", "off"}, {"enable_mergejoin", "off"},
		{"enable_bitmapscan", "off"}, {"enable_indexscan", "on"}, {"plan_cache_mode",
		"force_generic_plan"}, {"jit", "off"},
		{"lock_timeout", LOCK_TIMEOUT},
	};
	Outbox		found;
	const char *names[4];

	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	guc_level = NewGUCNestLevel();
	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (!OidIsValid(outbox.schema))
	{
		bool		isnull;

		if (SPI_execute("SELECT extnamespace FROM pg_catalog.pg_extension WHERE extname = "
						"'seam_ik'", true, 1) != SPI_OK_SELECT)
			elog(ERROR, "SPI_execute failed");
		if (SPI_processed == 0)
			return false;
		outbox.schema = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0],
													   SPI_tuptable->tupdesc, 1, &isnull));
	}
	/* another table of that name knows nothing of the calls under way */
	if (!outbox_find(outbox.schema, &found) || (OidIsValid(outbox.table) &&
												found.table != outbox.table))
		return false;
	outbox = found;				/* an error leaves it as it was */
	names[0] = outbox.name;
	names[1] = outbox.calls;
	names[2] = outbox.writing;
	names[3] = outbox.attempts;
	statement_set_names(&set, names, outbox.table,
						get_atttype(outbox.table, get_attnum(outbox.table, "instant_key")),
						outbox.knows_columns);
	return true;
}

/*
 * Undo work_begin(), before the commit.
 */
void
work_end(void)
{
	AtEOXact_GUC(true, guc_level);
	SPI_finish();
	PopActiveSnapshot();
}

/*
 * Runs a function in a subtransaction of its own, at whose end deferred constraints are
 * checked.  Returns NULL when it is done, or else, in CurrentMemoryContext, the error that
 * has undone it.
 */
ErrorData *
work_try(void (*function) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ConstraintsSetStmt immediate = {.type = T_ConstraintsSetStmt};
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		function(arg);
		AfterTriggerSetState(&immediate);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * May an error be of one request only?  Otherwise none can be changed at present: what is
 * locked, full, or cancelled, is so for all.
 */
bool
work_is_of_one(int sqlerrcode)
{
	int			category = ERRCODE_TO_CATEGORY(sqlerrcode);

	return category != ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES) &&
		category != ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION) &&
		category != ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK) &&
		sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE;
}

/*
 * The outbox that work_begin() found.
 */
Outbox *
work_outbox(void)
{
	return &outbox;
}

/*
 * Do all tables belong to the role that we are connected as?  Another owner's triggers and rules
 * would run in our name.
 */
bool
work_is_ours(void)
{
	static const char *const others[] = {"seam_instant_key_call", "seam_instant_key_writing",
	"seam_instant_key_attempt"};

	for (int i = 0; i < (int) lengthof(others); i++)
	{
		/* an older script has not made it */
		if (i == 2 && !outbox.knows_columns)
			continue;
		if (as_owner_of(get_relname_relid(others[i], outbox.schema)) != GetUserId())
			return false;
	}
	return outbox.owner == GetUserId();
}

/*
 * Executes a statement.  args and nulls have WORK_MAX_ARGS places, of which the first
 * WORK_OUR_ARGS are filled in here; nulls may be NULL.  Its result is in SPI_tuptable
 * and SPI_processed.
 */
void
work_execute(WorkStatement *statement, Datum *args, const char *nulls)
{
	args[0] = Int64GetDatum((int64) GetSystemIdentifier());
	args[1] = Int64GetDatum(outbox.origin);
	statement_execute(&set, statement, args, nulls, InvalidSnapshot);
}

/*
 * The last statement's result, a column of UUIDs: how many, and they, in
 * CurrentMemoryContext.
 */
int
work_uuids(pg_uuid_t **ids)
{
	int			n = (int) SPI_processed;

	*ids = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(pg_uuid_t));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		(*ids)[i] = *DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1,
												 &isnull));
	}
	return n;
}

/*
 * The type of a key in the table.
 */
Oid
work_key_type(void)
{
	return set.row_type;
}

/*
 * An int8[] of ids, in CurrentMemoryContext.
 */
Datum
work_ids(const int64 *ids, int n)
{
	Datum	   *values = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(work_array(values, NULL, n, INT8OID));
}

/*
 * An array of n values, or NULLs, in CurrentMemoryContext.
 */
ArrayType *
work_array(Datum *values, bool *nulls, int n, Oid type)
{
	int			lower = 1;
	int16		length;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	return construct_md_array(values, nulls, 1, &n, &lower, type, length, by_value, align);
}
