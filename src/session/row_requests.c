/*-------------------------------------------------------------------------
 *
 * row_requests.c
 *	  Requests follow rows that move.
 *
 * A row may get another primary key, or go to another partition.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "session/outbox_session.h"
#include "session/row_requests.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

/*
 * The request says the same of its target as the trigger's table, but for the values of
 * its key: $1 the hash, $2 the table, $3 and $4 the columns of the key, $5 the origin: in
 * a copy columns may have other numbers.
 */
#define SAME_TARGET \
	"target_hash = $1 AND target_table = $2" \
	"%{ AND CASE WHEN target_numbers IS NOT NULL AND origin = $5 THEN target_numbers = $3" \
	" ELSE target_columns IS NULL OR target_columns = $4 END%}"
#define TARGET_TYPES INT8OID, REGCLASSOID, INT2ARRAYOID, TEXTARRAYOID, INT8OID
#define SAME_TARGET_ARGS(o, t) \
	Int64GetDatum((t)->hash), ObjectIdGetDatum((t)->table), (t)->numbers, (t)->columns, \
	Int64GetDatum((o)->origin)

static Statement find_target =
{
	.sql = "SELECT request_id, target_key"
	" FROM %r WHERE " SAME_TARGET " AND user_identity_id = $6"
	" AND status IN ('pending', 'in_flight', 'issued', 'failed') AND (next_attempt_at IS NOT "
	"NULL OR $7) AND seam_workspace IS NOT DISTINCT FROM $8",
	.types = {TARGET_TYPES, UUIDOID, BOOLOID, UUIDOID}
};

static Statement follow =
{
	.sql = "UPDATE %r SET target_key = $7, target_hash = $8%{, target_partition = nullif($9, 0)%}"
	" WHERE " SAME_TARGET " AND target_key = $6",
	.types = {TARGET_TYPES, JSONBOID, JSONBOID, INT8OID, OIDOID}
};

static Statement move_request =
{
	.sql = "UPDATE %r SET target_key = $2%{, target_partition = $3%} WHERE request_id = $1",
	.types = {INT8OID, JSONBOID, OIDOID}
};

/*
 * A row has moved: its requests follow it.
 */
void
row_requests_follow(Outbox *outbox, const Target *from, const Target *to)
{
	Session		session = outbox_session_begin(outbox);
	Datum		args[STATEMENT_MAX_ARGS] = {SAME_TARGET_ARGS(outbox, from), from->key,
	to->key, Int64GetDatum(to->hash), ObjectIdGetDatum(to->partition)};

	outbox_session_execute(&session, &follow, args, NULL);
	outbox_session_end(&session);
}

/*
 * A row was inserted that may be one that moves between partitions, from a row
 * that has a request already: one for the same identity whose row is gone, which
 * is_gone() knows.  Then the request's target is this row from now on.
 *
 * Only a request that is not done with yet is looked for, unless finished_too.
 * Returns whether there was one.
 */
bool
row_requests_move(Outbox *outbox, const SeamRequest *request, const Target *target,
				  bool finished_too, bool (*is_gone) (Datum target_key, void *arg),
				  void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	Session		session = outbox_session_begin(outbox);
	Datum		args[STATEMENT_MAX_ARGS] = {SAME_TARGET_ARGS(outbox, target),
		UUIDPGetDatum(request->user_identity_id), BoolGetDatum(finished_too),
	UUIDPGetDatum(request->workspace)};
	char		nulls[STATEMENT_MAX_ARGS];
	int			n;
	int64	   *ids;
	Datum	   *keys;

	memset(nulls, ' ', sizeof(nulls));
	if (request->workspace == NULL)
		nulls[7] = 'n';
	outbox_session_execute(&session, &find_target, args, nulls);
	MemoryContextSwitchTo(caller);
	n = (int) SPI_processed;
	ids = palloc(Max(n, 1) * sizeof(int64));
	keys = palloc(Max(n, 1) * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		ids[i] = DatumGetInt64(outbox_session_column(i, 1, &isnull));
		keys[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(outbox_session_column(i, 2, &isnull)));
	}
	outbox_session_end(&session);

	/* not as the owner of the outbox: to look for a row runs its table's code */
	for (int i = 0; i < n; i++)
	{
		Datum		move[] = {Int64GetDatum(ids[i]), target->key,
		ObjectIdGetDatum(target->partition)};

		if (!is_gone(keys[i], arg))
			continue;
		session = outbox_session_begin(outbox);
		outbox_session_execute(&session, &move_request, move, NULL);
		outbox_session_end(&session);
		return true;
	}
	return false;
}
