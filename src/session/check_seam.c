/*-------------------------------------------------------------------------
 *
 * check_seam.c
 *	  What seam_ik_check() tells of Seam: the API key, the way there, the answer.
 *
 * One request is made: the list of the keys of an identity that nobody has, which changes
 * nothing.  It ends within twice seam_ik.connect_timeout, counted from the beginning of
 * the check.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "config/settings.h"
#include "net/http.h"
#include "seam/answer.h"
#include "seam/exchange.h"
#include "session/check.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* What is left of the time for all but the request, in milliseconds. */
#define RESERVE_MS 100

/* From so many seconds on that the clocks differ it is told of. */
#define MAX_AHEAD_S 5

/* The exchange. */
typedef struct Probe
{
	Exchange	exchange;		/* first, because callbacks get this */
	SeamRequest request;		/* the list that is asked for */
	Check	   *check;			/* what is found out goes there */
} Probe;

/*
 * The line "API key".
 */
void
check_api_key(Check *check, Line *line)
{
	settings_account(&check->account);
	check->has_account = true;
	line->detail = psprintf("%s, %s", seam_api_key_kind(check->account.api_key),
							settings_api_key_place(&line->hint));
	line->ok = line->hint == NULL;
}

/*
 * Exchange.request
 */
static void
probe_request(Exchange *exchange, int64 i, SeamRequest *request)
{
	*request = ((Probe *) exchange)->request;
}

/*
 * Exchange.done: notes what Seam has answered.
 */
static bool
probe_done(Exchange *exchange, int64 i, const HttpAnswer *answer, bool earlier_doubt)
{
	Check	   *check = ((Probe *) exchange)->check;
	int64		unix_time;

	check->asked = true;
	check->connected = answer->outcome != HTTP_NOT_SENT;
	answer_read(exchange->account, &((Probe *) exchange)->request, answer, NULL, NULL,
				&check->result);
	check->has_clock = http_date(answer, &unix_time);
	if (check->has_clock)
		check->clock_ahead = unix_time -
			(int64) timestamptz_to_time_t(GetCurrentTimestamp());
	return true;
}

/*
 * The line "endpoint": asks Seam.
 */
void
check_endpoint(Check *check, Line *line)
{
	Probe		probe = {.check = check,.request = {.op = SEAM_LIST}};
	Exchange   *exchange = &probe.exchange;
	int64		now = clock_now();
	int64		left = 2 * (int64) settings_connect_timeout - (now - check->started_at) / 1000 -
	RESERVE_MS;

	if (!check->has_account)
	{
		line->detail = "not tried, because there is no API key";
		return;
	}
	probe.request.user_identity_id =
		DatumGetUUIDP(DirectFunctionCall1(gen_random_uuid, (Datum) 0));
	exchange->account = &check->account;
	exchange->op = SEAM_LIST;
	exchange->n = exchange->max_parallel = 1;
	exchange->max_answer = ANSWER_MAX_SIZE;
	exchange->connect_timeout = settings_connect_timeout;
	exchange->request_timeout = (int) Max(Min(left, settings_request_timeout), 1);
	exchange->request = probe_request;
	exchange->done = probe_done;
	http_check_free();
	exchange_run(exchange);
	check->took = clock_now() - now;
	line->ok = check->asked && check->connected;
	if (line->ok)
	{
		line->detail = psprintf("%s can be reached%s", check->account.endpoint,
								strncmp(check->account.endpoint, "https:", 6) == 0 ?
								", and its certificate is good" : ", without TLS");
		return;
	}
	line->detail = psprintf("%s: %s%s%s", check->account.endpoint, check->result.message,
							check->result.detail ? ": " : "",
							check->result.detail ? check->result.detail : "");
	line->hint = check->result.hint;
}

/*
 * The line "answer".
 */
void
check_answer(Check *check, Line *line)
{
	if (!check->asked || !check->connected)
	{
		line->detail = "there was none";
		return;
	}
	/* an identity that Seam does not know has no keys either */
	line->ok = check->result.sqlerrcode == 0 || check->result.kind == REPLY_NOTHING_THERE;
	if (line->ok)
	{
		line->detail = psprintf("a list was answered after %.1f ms", (double) check->took / 1000);
		return;
	}
	line->detail = psprintf("%s%s%s", check->result.message, check->result.detail ? ": " : "",
							check->result.detail ? check->result.detail : "");
	line->hint = check->result.hint;
}

/*
 * The line "clock".
 */
void
check_clock(Check *check, Line *line)
{
	int64		ahead = check->clock_ahead;

	if (!check->has_clock)
	{
		line->detail = "no answer has told Seam's time";
		return;
	}
	line->ok = ahead >= -MAX_AHEAD_S && ahead <= MAX_AHEAD_S;
	line->detail = line->ok ? "Seam's clock and ours agree" :
		psprintf("Seam's clock is " INT64_FORMAT " s %s ours", ahead < 0 ? -ahead : ahead,
				 ahead < 0 ? "behind" : "ahead of");
	line->hint = line->ok ? NULL : "Have the server's clock kept by NTP.";
}
