/*-------------------------------------------------------------------------
 *
 * test_pace.c
 *	  How fast requests may follow each other: with a simulated clock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "datatype/timestamp.h"
#include "logic/pace.h"
#include "unit.h"

#define S(seconds) ((int64) ((seconds) * USECS_PER_SEC))

/* ---------- how many at once ---------- */

/*
 * A step of a queue's life: what its requests' ends say, and what may be under way
 * then.
 */
typedef struct Step
{
	const char *what;
	PaceSign	sign;
	int			times;
	double		at;				/* seconds */
	double		asked;			/* of PACE_LIMITED: the pause, seconds */
	int			nflying;
	int			limit;			/* expected */
	double		paused_until;	/* expected; 0: not asked for */
} Step;

static const Step steps[] = {
	{"answers raise nothing at the most", PACE_GOOD, 100, 0, 0, 7, 8, 0},
	{"a 429 halves", PACE_LIMITED, 1, 10, 5, 7, 4, 15},
	{"those that were sent with it do not", PACE_LIMITED, 3, 10.1, 2, 6, 4, 15},
	{"but may ask for more", PACE_LIMITED, 1, 10.2, 6, 3, 4, 16.2},
	{"a round of answers raises by one", PACE_GOOD, 4, 17, 0, 3, 5, 0},
	{"less than a round does not", PACE_GOOD, 4, 18, 0, 4, 5, 0},
	{"no answer raises nothing", PACE_AWAY, 4, 19, 0, 4, 5, 0},
	{"the rest of the round", PACE_GOOD, 1, 20, 0, 4, 6, 0},
	{"a 429 after the pause halves again", PACE_LIMITED, 1, 30, 1, 5, 3, 31},
	{"and again", PACE_LIMITED, 1, 40, 1, 2, 1, 41},
	{"but one may always go", PACE_LIMITED, 1, 50, 1, 0, 1, 51},
	{"no descriptor: no more than are under way", PACE_NO_DESCRIPTOR, 1, 60, 0, 3, 3, 0},
	{"none is under way", PACE_NO_DESCRIPTOR, 1, 61, 0, 0, 1, 0},
	{"in the end it is at its most again", PACE_GOOD, 1000, 70, 0, 0, 8, 0},
};

/*
 * A request that was sent just now ends at this time, in seconds, as do the pauses.
 */
static bool
answer(Pace *pace, PaceSign sign, double at, double asked, int nflying)
{
	PaceAnswer	end = {.sign = sign,.begun_at = S(at),.asked = S(asked),.nflying = nflying};

	return pace_answer(pace, &end, S(at));
}

static void
test_limit(void)
{
	Pace		pace;

	pace_init(&pace, 8);
	for (int i = 0; i < (int) lengthof(steps); i++)
	{
		const Step *step = &steps[i];

		for (int n = 0; n < step->times; n++)
			answer(&pace, step->sign, step->at, step->asked, step->nflying);
		unit_check(pace.limit == step->limit, "%s: %d", step->what, pace.limit);
		if (step->paused_until > 0)
			unit_check(pace.paused_until == S(step->paused_until), "%s: paused until " INT64_FORMAT,
					   step->what, pace.paused_until);
	}
	pace_set_max(&pace, 20);
	unit_check(pace.limit == 20, "a higher setting holds at once: %d", pace.limit);
	answer(&pace, PACE_LIMITED, 80, 1, 19);
	pace_set_max(&pace, 40);
	unit_check(pace.limit == 10, "but not where a 429 has set a slower pace: %d", pace.limit);
	pace_set_max(&pace, 5);
	unit_check(pace.limit == 5, "a lower one always holds: %d", pace.limit);
	pace_resume(&pace, S(80));
	unit_check(pace.paused_until <= S(80), "a pause can be ended");
}

/* ---------- a server that is away, or refuses the API key ---------- */

/* The end of a request, and what is stopped then. */
typedef struct End
{
	const char *what;
	double		begun;			/* seconds: when it was sent; 0: just now */
	double		at;				/* when it ends */
	PaceSign	sign;
	double		asked;			/* by Retry-After */
	bool		free;			/* expected: it costs the request nothing */
	PaceStop	stop;			/* expected */
	PaceMay		may;			/* expected: what may be sent next, */
	double		next;			/* and when; 0: now */
}			End;

static const End ends[] = {
	{"one is away", 0, 1, PACE_AWAY, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"the second", 0, 2, PACE_AWAY, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"the third", 0, 2, PACE_AWAY, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"the fourth", 0, 3, PACE_AWAY, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"an answer breaks the row", 0, 3, PACE_GOOD, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"one again", 0, 4, PACE_AWAY, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"two", 0, 4, PACE_AWAY, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"no descriptor is no answer", 0, 4, PACE_NO_DESCRIPTOR, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"three", 0, 5, PACE_AWAY, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"four", 0, 5, PACE_AWAY, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"five stop it", 0, 5, PACE_AWAY, 0, true, PACE_STOPPED_AWAY, PACE_MAY_LIST, 6},
	{"one that was sent before changes nothing", 1, 5.5, PACE_AWAY, 0, true, PACE_STOPPED_AWAY,
	PACE_MAY_LIST, 6},
	{"nor does it where it was answered", 1, 5.6, PACE_GOOD, 0, false, PACE_STOPPED_AWAY,
	PACE_MAY_LIST, 6},
	{"nor where it was refused", 1, 5.7, PACE_REFUSED, 0, false, PACE_STOPPED_AWAY,
	PACE_MAY_LIST, 6},
	{"a list is not answered", 0, 7, PACE_AWAY, 0, true, PACE_STOPPED_AWAY, PACE_MAY_LIST, 9},
	{"the pause doubles", 0, 9, PACE_AWAY, 0, true, PACE_STOPPED_AWAY, PACE_MAY_LIST, 13},
	{"a list is answered: a POST is next", 0, 13, PACE_GOOD, 0, false, PACE_STOPPED_AWAY,
	PACE_MAY_POST, 0},
	{"which is not answered", 0, 14, PACE_AWAY, 0, true, PACE_STOPPED_AWAY, PACE_MAY_LIST, 22},
	{"Retry-After decides", 0, 22, PACE_AWAY, 2, true, PACE_STOPPED_AWAY, PACE_MAY_LIST, 24},
	{"a longer one, too", 0, 24, PACE_AWAY, 100, true, PACE_STOPPED_AWAY, PACE_MAY_LIST, 124},
	{"the pauses have a longest one", 0, 124, PACE_AWAY, 0, true, PACE_STOPPED_AWAY, PACE_MAY_LIST,
	184},
	{"a 429 is a pause and no failure", 0, 184, PACE_LIMITED, 5, false, PACE_STOPPED_AWAY,
	PACE_MAY_LIST, 189},
	{"a list is answered again", 0, 190, PACE_GOOD, 0, false, PACE_STOPPED_AWAY, PACE_MAY_POST, 0},
	{"no descriptor: the same again", 0, 191, PACE_NO_DESCRIPTOR, 0, false, PACE_STOPPED_AWAY,
	PACE_MAY_POST, 191.1},
	{"a 429 to the POST, too", 0, 192, PACE_LIMITED, 1, false, PACE_STOPPED_AWAY,
	PACE_MAY_POST, 193},
	{"the POST is answered: all go", 0, 194, PACE_GOOD, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"what timed out since before costs nothing", 190, 195, PACE_AWAY, 0, true, PACE_GOES,
	PACE_MAY_SEND, 0},
	{"and begins no row", 190, 195, PACE_AWAY, 0, true, PACE_GOES, PACE_MAY_SEND, 0},
	{"not by five", 190, 195, PACE_AWAY, 0, true, PACE_GOES, PACE_MAY_SEND, 0},
	{"really not", 190, 195, PACE_AWAY, 0, true, PACE_GOES, PACE_MAY_SEND, 0},
	{"not at all", 190, 195, PACE_AWAY, 0, true, PACE_GOES, PACE_MAY_SEND, 0},
	{"one with Retry-After stops at once", 0, 200, PACE_AWAY, 30, true, PACE_STOPPED_AWAY,
	PACE_MAY_LIST, 230},
	{"the server is back, with another key", 0, 230, PACE_REFUSED, 0, false, PACE_STOPPED_REFUSED,
	PACE_MAY_LIST, 240},
	{"it still refuses", 0, 240, PACE_REFUSED, 0, false, PACE_STOPPED_REFUSED, PACE_MAY_LIST, 260},
	{"a 5xx is another reason", 0, 260, PACE_AWAY, 0, true, PACE_STOPPED_AWAY, PACE_MAY_LIST, 261},
	{"and a 401 one again", 0, 261, PACE_REFUSED, 0, false, PACE_STOPPED_REFUSED,
	PACE_MAY_LIST, 271},
	{"a list is accepted", 0, 271, PACE_GOOD, 0, false, PACE_STOPPED_REFUSED, PACE_MAY_POST, 0},
	{"and a POST", 0, 272, PACE_GOOD, 0, false, PACE_GOES, PACE_MAY_SEND, 0},
	{"one 401 stops at once", 0, 280, PACE_REFUSED, 0, false, PACE_STOPPED_REFUSED, PACE_MAY_LIST,
	290},
	{"a day is longer than an hour", 0, 290, PACE_AWAY, 86400, true, PACE_STOPPED_AWAY,
	PACE_MAY_LIST, 3890},
};

static void
test_stop(void)
{
	Pace		pace;
	PaceMay		may;
	int64		again_at;

	pace_init(&pace, 100);
	for (int i = 0; i < (int) lengthof(ends); i++)
	{
		const		End *end = &ends[i];
		PaceAnswer	ended = {.sign = end->sign,.asked = S(end->asked),.nflying = 90};
		int64		now = S(end->at);
		bool		probe = pace.stop != PACE_GOES && end->begun == 0;
		bool		free;
		int			n;

		ended.begun_at = end->begun == 0 ? now : S(end->begun);
		if (probe)
		{
			unit_check(pace_allows(&pace, 90, now, &may, &again_at) == 1, "%s: a probe may be sent",
					   end->what);
			pace_probe_sent(&pace);
			unit_check(pace_allows(&pace, 90, now, &may, &again_at) == 0, "%s: but one only",
					   end->what);
		}
		free = pace_answer(&pace, &ended, now);
		unit_check(free == end->free, "%s: free %d", end->what, free);
		unit_check(pace.stop == end->stop, "%s: stop %d", end->what, pace.stop);
		n = pace_allows(&pace, 0, now, &may, &again_at);
		unit_check(may == end->may, "%s: may %d", end->what, may);
		unit_check(end->next == 0 ? n > 0 : n == 0 && again_at == S(end->next),
				   "%s: %d, next " INT64_FORMAT, end->what, n, again_at);
	}
	pace_resume(&pace, S(300));
	unit_check(pace_allows(&pace, 0, S(300), &may, &again_at) > 0 && may == PACE_MAY_SEND,
			   "a stop can be ended");
	unit_check(!answer(&pace, PACE_AWAY, 301, 0, 0) && pace.stop == PACE_GOES, "and its row");
}

/* ---------- a server that comes and goes, at random ---------- */

/* How the server answers. */
typedef enum Mood
{
	MOOD_WORKS,
	MOOD_AWAY,
	MOOD_ASKS,					/* away, and with Retry-After */
	MOOD_LISTS_ONLY,			/* away, but for lists */
	MOOD_REFUSES,
	MOOD_COUNT
}			Mood;

typedef struct SimFlight
{
	int64		begun_at;
	int64		ends_at;		/* PG_INT64_MAX: there is none */
	bool		list;
	PaceAnswer	answer;
}			SimFlight;

#define SIM_MAX 20
#define SIM_MOODS 40
#define SIM_LATENCY 0.5			/* the longest; seconds */

/* A simulated worker with endless work, its server, and what the judge knows. */
typedef struct Sim
{
	Pace		pace;
	SimFlight	flights[SIM_MAX + 1];	/* and a probe */
	int			nflying;
	int64		now;
	Mood		mood;
	double		asks;			/* MOOD_ASKS: seconds */
	int64		mood_at;		/* since when */
	int			nsent;			/* in this mood, but when answers of the one
								 * before still came */
	int			nposts;			/* of them, not lists */
	int			nended;			/* of them, those that have ended in a row */
	int64		longest;		/* the longest pause that may be under way */
}			Sim;

/*
 * Sends what may be sent.
 */
static void
sim_send(Sim * sim)
{
	PaceMay		may;
	int64		again_at;

	while (pace_allows(&sim->pace, sim->nflying, sim->now, &may, &again_at) > 0)
	{
		SimFlight  *flight = sim->flights;
		int			nsince = 0;

		for (int i = 0; i <= SIM_MAX; i++)
			nsince += sim->flights[i].ends_at != PG_INT64_MAX &&
				sim->flights[i].begun_at > sim->pace.since;
		if (sim->pace.stop != PACE_GOES)
		{
			unit_check(nsince == 0, "%d more are under way beside a probe", nsince);
			unit_check(may != PACE_MAY_SEND, "a probe is a list or one POST");
			pace_probe_sent(&sim->pace);
		}
		else
			unit_check(sim->nflying < sim->pace.limit && may == PACE_MAY_SEND, "more than the "
					   "limit: %d", sim->nflying);
		while (flight->ends_at != PG_INT64_MAX)
			flight++;
		flight->list = may == PACE_MAY_LIST;
		flight->begun_at = sim->now;
		flight->ends_at = sim->now + 1000 + unit_random((int) S(SIM_LATENCY) - 1000);
		memset(&flight->answer, 0, sizeof(PaceAnswer));
		flight->answer.begun_at = sim->now;
		switch (sim->mood)
		{
			case MOOD_WORKS:
				flight->answer.sign = PACE_GOOD;
				break;
			case MOOD_REFUSES:
				flight->answer.sign = PACE_REFUSED;
				break;
			case MOOD_LISTS_ONLY:
				flight->answer.sign = flight->list ? PACE_GOOD : PACE_AWAY;
				break;
			default:
				flight->answer.sign = PACE_AWAY;
				flight->answer.asked = sim->mood == MOOD_ASKS ? S(sim->asks) : 0;
		}
		sim->nflying++;
		if (sim->now > sim->mood_at + S(SIM_LATENCY))
		{
			sim->nsent++;
			sim->nposts += !flight->list;
		}
	}
}

/*
 * The end of a flight, and what must be true then whatever was before.
 */
static void
sim_end(Sim * sim, SimFlight * flight)
{
	PaceStop	before = sim->pace.stop;
	bool		of_mood = flight->begun_at >= sim->mood_at;
	bool		late = flight->begun_at < sim->pace.since;
	bool		free;

	flight->ends_at = PG_INT64_MAX;
	flight->answer.nflying = --sim->nflying;
	free = pace_answer(&sim->pace, &flight->answer, sim->now);
	sim->nended = of_mood ? sim->nended + 1 : 0;
	unit_check(!free || flight->answer.sign == PACE_AWAY, "only what is away is free");
	if (flight->answer.sign == PACE_AWAY && of_mood && sim->nended >= PACE_ROW)
		unit_check(free, "an outage costs no attempt: answer %d of it", sim->nended);
	unit_check(!late || sim->pace.stop == before, "what was sent before a change makes none");
	unit_check(before != PACE_GOES || sim->pace.stop == PACE_GOES ||
			   flight->answer.sign != PACE_GOOD, "an answer stops nothing");
	unit_check(before == PACE_GOES || sim->pace.stop != PACE_GOES ||
			   (flight->answer.sign == PACE_GOOD && !flight->list), "a list alone lets nothing go");
	unit_check(sim->pace.limit == SIM_MAX, "an outage leaves no slower pace: %d", sim->pace.limit);
	if (sim->pace.stop != PACE_GOES && !sim->pace.listed)
	{
		int64		pause = sim->pace.probe_at - sim->now;

		unit_check(pause <= sim->longest, "a pause of " INT64_FORMAT, pause);
		unit_check(late || before == PACE_GOES || pause >= S(1), "a pause of only " INT64_FORMAT,
				   pause);
	}
}

/*
 * What a mood must have come to that has gone on for this long.
 */
static void
sim_judge(Sim * sim)
{
	double		lasted = (double) (sim->now - sim->mood_at) / USECS_PER_SEC;
	double		longest = (double) sim->longest / USECS_PER_SEC;

	if (sim->mood == MOOD_WORKS && lasted > longest + 3 * SIM_LATENCY)
		unit_check(sim->pace.stop == PACE_GOES && sim->nsent > SIM_MAX, "a server that has worked "
				   "for %.1f s gets %d", lasted, sim->nsent);
	if (sim->mood != MOOD_WORKS && sim->mood != MOOD_LISTS_ONLY)
		unit_check(sim->nsent <= PACE_ROW + 2 + lasted, "an outage of %.1f s gets %d",
				   lasted, sim->nsent);
	if (sim->mood == MOOD_LISTS_ONLY)
		unit_check(sim->nsent <= PACE_ROW + 2 + 2 * lasted &&
				   sim->nposts <= PACE_ROW + 2 + lasted, "%.1f s without more than "
				   "lists get %d", lasted, sim->nsent);
}

static void
test_outages(void)
{
	unit_seed(7);
	for (int round = 0; round < 50; round++)
	{
		Sim			sim = {.now = S(1000),.mood = MOOD_WORKS,.mood_at = S(1000)};

		pace_init(&sim.pace, SIM_MAX);
		sim.longest = PACE_AWAY_LONGEST_US;
		for (int i = 0; i <= SIM_MAX; i++)
			sim.flights[i].ends_at = PG_INT64_MAX;
		for (int mood = 0; mood < SIM_MOODS; mood++)
		{
			int64		until = sim.now + S(unit_random(3) == 0 ? 1 : 1 + unit_random(400));

			while (sim.now < until)
			{
				SimFlight  *first = sim.flights;
				PaceMay		may;
				int64		again_at;

				sim_send(&sim);
				for (int i = 1; i <= SIM_MAX; i++)
				{
					if (sim.flights[i].ends_at < first->ends_at)
						first = &sim.flights[i];
				}
				(void) pace_allows(&sim.pace, sim.nflying, sim.now, &may, &again_at);
				if (first->ends_at <= Min(again_at, until))
				{
					sim.now = first->ends_at;
					sim_end(&sim, first);
				}
				else
					sim.now = Min(again_at, until);
				/* there is no more to be seen of a server that works */
				if (sim.mood == MOOD_WORKS && sim.nsent > 2 * SIM_MAX)
					until = sim.now;
			}
			sim_judge(&sim);
			sim.mood = (Mood) unit_random(MOOD_COUNT);
			sim.asks = 1 + unit_random(200);
			sim.longest = Max(sim.pace.stop == PACE_GOES ? PACE_AWAY_LONGEST_US : sim.longest,
							  sim.mood == MOOD_REFUSES ? PACE_REFUSED_LONGEST_US :
							  sim.mood == MOOD_ASKS ? S(sim.asks) : PACE_AWAY_LONGEST_US);
			sim.mood_at = sim.now;
			sim.nsent = sim.nposts = sim.nended = 0;
		}
	}
}

/* ---------- pauses ---------- */

static void
test_pauses(void)
{
	int64		max = S(3600);

	for (int tries = 0; tries < 100; tries++)
	{
		int64		longest = pace_backoff(tries, max, 0);
		int64		shortest = pace_backoff(tries, max, 1);

		unit_check(longest <= max && shortest >= longest / 2 && shortest <= longest,
				   "try %d: " INT64_FORMAT " to " INT64_FORMAT, tries, shortest, longest);
		unit_check(tries == 0 || longest >= pace_backoff(tries - 1, max, 0), "try %d waits no "
				   "less", tries);
	}
	unit_check(pace_backoff(0, max, 0) == S(0.2), "the first pause");
	unit_check(pace_backoff(50, max, 0) == max, "the longest pause");
	unit_check(pace_pause(0, 0, max, 0) == S(0.2), "nothing is asked for");
	unit_check(pace_pause(7, 0, max, 0) == S(7), "more is asked for");
	unit_check(pace_pause(1, 50, max, 0) == max, "less is asked for");
	unit_check(pace_pause(86400, 0, max, 0) == PACE_LONGEST_US, "a day is asked for");
	unit_check(pace_pause(INT_MAX, 0, max, 0) == PACE_LONGEST_US, "as much as can be is asked for");
}

/* ---------- a rate ---------- */

/*
 * Sends as much as it may for some time, in steps of a random length.  Returns how much
 * that was.
 */
static int
send_all(PaceBucket *bucket, int rate, int64 *now, double seconds)
{
	int64		until = *now + S(seconds);
	int64		again_at;
	int			sent = 0;

	while (*now < until)
	{
		int			n = pace_bucket_allows(bucket, rate, *now, &again_at);

		for (int i = 0; i < n; i++)
			pace_bucket_take(bucket);
		sent += n;
		if (n == 0)
			unit_check(again_at > *now && again_at <= *now + S(1.0) / rate + 1, "the next may be "
					   "sent soon");
		*now += 1 + unit_random(2000);
	}
	return sent;
}

static void
test_rate(void)
{
	static const int rates[] = {1, 2, 10, 100, 1000, 100000};

	unit_seed(3);
	for (int i = 0; i < (int) lengthof(rates); i++)
	{
		PaceBucket	bucket = {0};
		int64		now = S(1000);
		int64		again_at;
		int			rate = rates[i];
		int			burst = Max(1, rate / 20);
		int			sent;

		/* a million sent without a limit are not owed to it */
		for (int n = 0; n < 1000000; n++)
			pace_bucket_take(&bucket);
		sent = send_all(&bucket, rate, &now, 20);
		unit_check(sent <= 20 * rate + burst, "%d a second: no more than that: %d", rate, sent);
		unit_check(sent >= 19 * rate - 1 || rate > 1000, "%d a second: as much as that: %d", rate,
				   sent);
		now += S(3600);
		unit_check(pace_bucket_allows(&bucket, rate, now, &again_at) <= burst, "%d a second: an "
				   "idle hour saves nothing up", rate);
	}
	{
		PaceBucket	bucket = {0};
		int64		again_at;

		unit_check(pace_bucket_allows(&bucket, 0, S(5), &again_at) > 1000000 &&
				   again_at == PG_INT64_MAX, "no limit");
	}
}

/* ---------- a workspace that the API key is not for ---------- */

static void
test_workspace(void)
{
	Pace		pace;
	PaceMay		may;
	int64		again_at;
	PaceAnswer	refused = {.sign = PACE_REFUSED,.begun_at = S(1),.may_be_workspace = true};

	pace_init(&pace, 8);
	(void) pace_answer(&pace, &refused, S(1));
	unit_check(pace.stop == PACE_GOES, "a 401 of one workspace holds up no other");
	for (int i = 0; i < PACE_ROW; i++)
		answer(&pace, PACE_AWAY, 2, 0, 0);
	unit_check(pace.stop == PACE_STOPPED_AWAY, "the server is away");
	pace_probe_sent(&pace);
	refused.begun_at = S(10);
	(void) pace_answer(&pace, &refused, S(10));
	(void) pace_allows(&pace, 0, S(10), &may, &again_at);
	unit_check(may == PACE_MAY_POST, "and is back when it answers so");
	answer(&pace, PACE_REFUSED, 11, 0, 0);
	unit_check(pace.stop == PACE_STOPPED_REFUSED, "the API key is refused");
	pace_probe_sent(&pace);
	refused.begun_at = S(30);
	(void) pace_answer(&pace, &refused, S(30));
	(void) pace_allows(&pace, 0, S(30), &may, &again_at);
	unit_check(pace.stop == PACE_STOPPED_REFUSED && may == PACE_MAY_LIST && again_at > S(30),
			   "and not accepted where a workspace is refused");
}

/* ---------- what is left ---------- */

static void
test_time_left(void)
{
	Pace		pace;

	pace_init(&pace, 8);
	unit_check(pace_time_left(&pace, S(0), 10, 20, S(5)) == S(10), "as fast as before");
	unit_check(pace_time_left(&pace, S(0), 10, 0, S(5)) == 0, "nothing is left");
	answer(&pace, PACE_LIMITED, 5, 100, 7);
	unit_check(pace_time_left(&pace, S(0), 10, 20, S(6)) == S(99 + 10), "a pause comes on top");
	unit_check(pace_time_left(&pace, S(0), 10, 20, S(105)) == S(210), "and counts as time when it "
			   "is over");
}

int
main(void)
{
	test_limit();
	test_stop();
	test_workspace();
	test_outages();
	test_pauses();
	test_rate();
	test_time_left();
	return unit_end("pace");
}
