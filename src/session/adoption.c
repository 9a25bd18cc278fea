/*-------------------------------------------------------------------------
 *
 * adoption.c
 *	  What came along with a copy of the database becomes ours.
 *
 * A copy, a dump or a subscription brings requests along that their origin may still send;
 * they wait until somebody says that it will not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "session/outbox_session.h"
#include "shmem/places.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(seam_adopt_instant_key_requests);

static Statement adopt =
{
	/*
	 * timeline 0 is nobody's: what was in doubt is reported.  Columns and
	 * partitions may have other numbers here.
	 */
	.sql = "UPDATE %r SET enqueued_by = CASE WHEN system_identifier = $1 THEN enqueued_by END,"
	" system_identifier = $1, origin = $2, timeline_id = 0%{, target_numbers = NULL, "
	"target_partition = NULL%},"
	/* what sleeps sleeps on */
	" next_attempt_at = CASE WHEN next_attempt_at IS NOT NULL THEN "
	"'-infinity'::timestamptz END, "
	"look_again_at = NULL"
	" WHERE (next_attempt_at IS NOT NULL OR wake_at IS NOT NULL AND finished_at IS NULL) AND "
	"origin <> $2",
	.types = {INT8OID, INT8OID}
};

static Statement adopt_finished =
{
	.sql = "UPDATE %r SET enqueued_by = CASE WHEN system_identifier = $1 THEN enqueued_by END,"
	" system_identifier = $1, origin = $2, look_again_at = NULL%{, target_numbers = NULL, "
	"target_partition = NULL%}"
	" WHERE next_attempt_at IS NULL AND origin <> $2",
	.types = {INT8OID, INT8OID}
};

static Statement pass_ids =
{
	/* a subscription brings rows along, and leaves the sequence as it is */
	.sql = "SELECT setval($1, id) FROM (SELECT max(request_id) AS id FROM %r) AS m"
	" WHERE id > coalesce(pg_sequence_last_value($1), 0)",
	.types = {REGCLASSOID}
};

static Statement report_calls =
{
	/* of calls that have committed there is nothing to know in a copy */
	.sql = "WITH c AS (DELETE FROM %c WHERE origin <> $2 RETURNING *)"
	" INSERT INTO %r (user_identity_id, max_use_count, customization_profile_id, status, "
	"attempted_at,"
	" attempt_timeout, seam_time, finished_at, sqlstate, error, transaction_id,"
	" account, api_key_hash, timeline_id, system_identifier, origin, seam_workspace)"
	" SELECT i, max_use_count, customization_profile_id, 'failed', requested_at,"
	" attempt_timeout, seam_time, now(), '08007', '" REPORT_OF_COPY "', transaction_id,"
	" account, api_key_hash, timeline_id, $1, $2, seam_workspace"
	" FROM c, unnest(user_identity_ids) AS u(i)"
	" WHERE" CALL_IS_OPEN_ELSEWHERE("%r"),
	.types = {INT8OID, INT8OID}
};

/*
 * seam_adopt_instant_key_requests() RETURNS bigint
 */
Datum
seam_adopt_instant_key_requests(PG_FUNCTION_ARGS)
{
	Outbox	   *outbox = outbox_of_function(fcinfo->flinfo->fn_oid);
	Session		session = outbox_session_begin(outbox);
	Datum		args[] = {Int64GetDatum((int64) GetSystemIdentifier()),
	Int64GetDatum(outbox->origin)};
	Datum		sequence[] =
	{ObjectIdGetDatum(get_relname_relid("seam_instant_key_request_request_id_seq",
										outbox->schema))};
	int64		n;

	outbox_session_execute(&session, &adopt, args, NULL);
	n = (int64) SPI_processed;
	outbox_session_execute(&session, &adopt_finished, args, NULL);
	outbox_session_execute(&session, &pass_ids, sequence, NULL);
	outbox_session_execute(&session, &report_calls, args, NULL);
	n += (int64) SPI_processed;
	places_wake_at_commit(true);
	places_wake_writer_at_commit();
	outbox_session_end(&session);
	PG_RETURN_INT64(n);
}
