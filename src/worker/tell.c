/*-------------------------------------------------------------------------
 *
 * tell.c
 *	  Tells those who listen of the ends of requests.
 *
 * What the worker has stored comes through shared memory; requests that sessions have
 * cancelled are in the outbox; and what the writer has written is told of in the same
 * transaction.  A commit that tells holds a lock of the whole cluster.  It does not wait for
 * the disk or a standby, because what is lost by a crash nobody has heard who is still
 * connected, or it is done again.
 *
 * Nobody depends on it.  Where PostgreSQL's queue of notifications is full, because somebody
 * who listens does not read, nothing is told for a while, and all else goes on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "commands/async.h"
#include "config/settings.h"
#include "lib/stringinfo.h"
#include "outbox/writing.h"
#include "shmem/notices.h"
#include "shmem/places.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "worker/queues.h"
#include "worker/step.h"
#include "worker/tell.h"

#define CHANNEL "seam_instant_key"

/* Notices in one transaction, and cancelled requests. */
#define AT_ONCE 1000

/* The longest primary key that is told, in bytes of JSON. */
#define MAX_KEY 4000

/* Where PostgreSQL raises that the queue of notifications is full. */
#define QUEUE_FILE "async.c"

/* When nothing is told after the queue of notifications was full. */
#define SILENCE_US (1 * INT64CONST(1000000))

static int64 silent_until;
static int64 tell_at;			/* not before, after an error: clock_now()'s
								 * clock */

/* What a step tells. */
typedef struct Telling
{
	uint64		position;		/* of the notices that were read */
	int			n;				/* how many they are */
} Telling;

/*
 * What is told of a request: its status, or how a renewal has ended.
 */
static const char *
name_of(RequestStatus status, bool is_renewal)
{
	if (is_renewal && status == STATUS_ISSUED)
		return "renewed";
	if (is_renewal && status == STATUS_FAILED)
		return "renewal_failed";
	return status_names[status];
}

/*
 * Append a text, or null, to a JSON document.
 */
static void
append_text(StringInfo payload, const char *text)
{
	if (text)
		escape_json(payload, text);
	else
		appendStringInfoString(payload, "null");
}

/*
 * In a step: tells of the end of a request: row is what the outbox says of it, of the form
 * that writing_written() returns; reference may be NULL.  Of a row's request it is told
 * which row that is, if there is room for its primary key.
 */
static void
tell_end(HeapTuple row, TupleDesc desc, const char *reference, RequestStatus status)
{
	StringInfoData payload;
	bool		isnull;
	int64		id;
	bool		is_renewal;
	char	   *table;
	char	   *key;

	if (!settings_notify || clock_now() < silent_until)
		return;
	id = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	is_renewal = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull)) && !isnull;
	table = SPI_getvalue(row, desc, 4);
	key = SPI_getvalue(row, desc, 5);
	initStringInfo(&payload);
	appendStringInfo(&payload, "{\"request_id\":" INT64_FORMAT ",\"reference\":", id);
	append_text(&payload, reference);
	appendStringInfo(&payload, ",\"status\":\"%s\"", name_of(status, is_renewal));
	if (table && key && strlen(key) < MAX_KEY)
	{
		appendStringInfoString(&payload, ",\"table\":");
		append_text(&payload, table);
		appendStringInfo(&payload, ",\"key\":%s", key);
	}
	appendStringInfoChar(&payload, '}');
	Async_Notify(CHANNEL, payload.data);
	pfree(payload.data);
}

/*
 * In a step: tells of the ends of n requests, as writing.c returns them.
 */
void
tell_ends(SPITupleTable *ends, int n, RequestStatus status)
{
	for (int i = 0; i < n; i++)
		tell_end(ends->vals[i], ends->tupdesc, SPI_getvalue(ends->vals[i], ends->tupdesc, 2),
				 status);
}

/*
 * After a step has failed: is that because it told of something?  Then the next ones do
 * not, for a while.  A user's trigger may raise that SQLSTATE, too, but not from the file of
 * PostgreSQL's sources that has the queue.
 */
bool
tell_is_in_the_way(const ErrorData *error)
{
	bool		was_silent = clock_now() < silent_until;

	if (error == NULL || was_silent || error->sqlerrcode != ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		error->filename == NULL || strcmp(error->filename, QUEUE_FILE) != 0)
		return false;
	silent_until = clock_now() + SILENCE_US;
	return true;
}

/*
 * The step of tell().
 */
static void
run(void *arg)
{
	Telling    *telling = arg;
	Notice	   *notices = palloc(AT_ONCE * sizeof(Notice));
	int64	   *ids = palloc(AT_ONCE * sizeof(int64));
	SPITupleTable *ends;

	telling->position = notices_begin();
	while (telling->n < AT_ONCE && notices_get(&telling->position, &notices[telling->n]))
	{
		ids[telling->n] = notices[telling->n].id;
		telling->n++;
	}
	ends = telling->n > 0 ? writing_ends(ids, telling->n) : NULL;
	for (int i = 0; i < telling->n; i++)
		tell_end(ends->vals[i], ends->tupdesc,
				 notices[i].has_reference ? notices[i].reference : NULL, notices[i].status);
	if (queues_is_due(STATUS_CANCELLED))
	{
		WorkRow    *rows;
		int			n = queues_claim(STATUS_CANCELLED, NULL, NULL, AT_ONCE, &rows);

		ids = palloc(Max(n, 1) * sizeof(int64));
		for (int i = 0; i < n; i++)
			ids[i] = rows[i].id;
		ends = writing_ends(ids, n);
		for (int i = 0; i < n; i++)
			tell_end(ends->vals[i], ends->tupdesc, rows[i].reference, STATUS_CANCELLED);
	}
}

/*
 * The step has committed.
 */
static void
told(void *arg)
{
	const Telling *telling = arg;

	if (telling->n > 0 && notices_done(telling->position))
		places_wake_other(PLACE_MAIN, WAKE_ROOM);
}

/*
 * The step has failed.  Where the queue of notifications is full, the notices are dropped.
 */
static void
not_told(void *arg, const ErrorData *error)
{
	if (tell_is_in_the_way(error))
		told(arg);
	else
	{
		tell_at = clock_now() + STEP_ERROR_PAUSE_US;
		queues_be_careful(error);
	}
	queues_look_at_all();
}

/*
 * Returns when to tell again after an error, on clock_now()'s clock; 0: there was none.
 */
int64
tell_not_before(void)
{
	return clock_now() < tell_at ? tell_at : 0;
}

/*
 * Tells of all there is to be told.  Returns whether there was anything.
 */
bool
tell(void)
{
	Telling		telling = {0};
	Step		step = {.run = run,.committed = told,.failed = not_told,.arg = &telling,
	.what = "notify of its results",.patient = true};
	uint64		position = notices_begin();
	Notice		notice;

	if (clock_now() < tell_at)
		return false;
	if (!notices_get(&position, &notice) && !queues_is_due(STATUS_CANCELLED))
		return false;
	(void) step_take(&step);
	return telling.n > 0;
}
