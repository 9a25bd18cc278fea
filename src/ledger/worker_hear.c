/*-------------------------------------------------------------------------
 *
 * worker_hear.c
 *	  What sessions tell of their synchronous calls: what they are about to do,
 *	  what came of it, and that a transaction has ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "config/settings.h"
#include "utils/memutils.h"
#include "ledger/worker_known.h"

static bool see_all = true;

/*
 * The shared results of a batch, mapped for as long as we want, or NULL when
 * they are gone, or are not those of a batch of this size.
 */
static dsm_segment *
attach(dsm_handle handle, int n)
{
	dsm_segment *segment = dsm_find_mapping(handle);

	if (segment == NULL)
		segment = dsm_attach(handle);
	if (segment == NULL)
		return NULL;
	dsm_pin_mapping(segment);
	if (dsm_segment_map_length(segment) >= mul_size(n, sizeof(IntentCall)))
		return segment;
	dsm_detach(segment);
	return NULL;
}

/*
 * A call whose answer is not known may have begun until this time.
 */
void
calls_extend_window(CallRow *row, TimestampTz until)
{
	int64		timeout = (until - row->requested_at) / 1000 + settings_settle_delay;

	row->timeout = (int) Min(Max(row->timeout, timeout), INT_MAX / 2);
}

/*
 * A call has ended at this time, and its answer is not known: so much is known of the
 * time within which a key of it may be made, unless the clock was set back meanwhile.
 */
static void
end_window(CallRow *row, TimestampTz at)
{
	if (at >= row->requested_at)
		row->timeout = 0;
	calls_extend_window(row, at);
}

/*
 * In a transaction: read what a former worker has recorded.
 */
void
calls_load(void *arg)
{
	CallRow    *rows;
	int			n = work_calls(&rows);
	IntentWish	wish;
	int		   *called = palloc(intent_nslots() * sizeof(int)); /* sessions that have */
	int			ncalled = 0;

	for (int s = 0; s < intent_nslots(); s++)
	{
		if (intent_read_recorded(s, &wish) != 0)
			called[ncalled++] = s;
	}
	for (int i = 0; i < n; i++)
	{
		Open	   *open = known_new(&rows[i], rows[i].calls);
		CallRow    *row = &open->row;

		for (int c = 0; c < ncalled && !row->answered && row->is_ours; c++)
		{
			int			s = called[c];

			/* its session may be alive, and have it still */
			if (intent_read_recorded(s, &wish) != row->id ||
				!FullTransactionIdEquals(wish.transaction, row->transaction))
				continue;
			if (row->n > 1 && wish.ncalls == row->n)
				open->segment = attach(wish.segment, row->n);
			known.of_slot[s] = open;
			open->slot = s;
		}
		known_add_uses(open);
		if (row->owned)
		{
			known_keep(open);
			continue;
		}
		known_set_waiting(open, !row->answered);
		known_add_to_transaction(open, row->transaction);
		open->loaded = true;
		known.nloaded++;
	}
	known.loaded = true;
	known.look_at = 0;
}

/*
 * Take over what is known of a call that has ended.  Of a batch only what may have
 * issued a key is of interest from now on.
 */
static void
take_answer(Open *open, const IntentNews *news)
{
	CallRow    *row = &open->row;
	int			n = 0;

	/* the session may have gone on when that was too late */
	if (row->owned)
		return;
	known_remove_uses(open);
	if (row->n == 1)
		row->calls[0] = news->answer;
	else if (open->segment)
		memcpy(row->calls, dsm_segment_address(open->segment), row->n * sizeof(IntentCall));
	row->answered = true;
	for (int i = 0; i < row->n; i++)
	{
		if (row->calls[i].state == CALL_BEGUN)
			row->answered = false;
		if (row->calls[i].state == CALL_BEGUN || row->calls[i].state == CALL_ISSUED)
			row->calls[n++] = row->calls[i];
	}
	row->n = n;
	if (!row->answered)
		end_window(row, news->answered_at);
	if (open->segment)
		dsm_detach(open->segment);
	open->segment = NULL;
	/* what is not known now will not be told any more, but waits for the end */
	known_add_uses(open);
	known_set_waiting(open, !row->answered);
	known_set_dirty(open);
}

/*
 * Have a transaction, or all, looked at.
 */
void
calls_look_at(uint64 top, uint64 aborted)
{
	Transaction *transaction = hash_search(known.by_top, &top, HASH_FIND, NULL);
	dlist_iter	it;

	if (transaction && aborted == 0)
		transaction->look = true;
	else if (transaction)
		transaction->aborted = transaction->aborted ? Min(transaction->aborted, aborted) : aborted;
	if (known.nloaded == 0 && top != 0)
		return;
	dlist_foreach(it, &known.transactions)
		dlist_container(Transaction, node, it.cur)->look = true;
}

/*
 * The call that a session's news are about, or NULL.  Ids begin anew when the
 * extension is created anew, so the transaction is compared, too.
 */
static Open *
find_answered(int s, const IntentNews *news)
{
	Open	   *open = known.of_slot[s];

	if (news->answered == 0)
		return NULL;
	if (open && open->row.id == news->answered && FullTransactionIdEquals(open->row.transaction,
																		  news->transaction))
		return open;
	if (known.nloaded == 0)
		return NULL;
	for (open = known_next_open(NULL); open; open = known_next_open(open))
	{
		if (open->loaded && open->row.id == news->answered &&
			FullTransactionIdEquals(open->row.transaction, news->transaction))
			break;
	}
	return open;
}

/*
 * Take what the session in this place has left.
 */
void
calls_take_news(int s)
{
	IntentNews	news;
	Open	   *open;

	if (!intent_take_news(s, &news))
		return;
	if (news.seam_time.at != 0)
		seam_clock_learn(&news.seam_time, &news.account);
	open = find_answered(s, &news);
	if (open)
		take_answer(open, &news);
	if (news.aborted != 0)
		calls_look_at(news.top, news.aborted);
	if (news.ended != 0)
		calls_look_at(news.ended, 0);
}

/*
 * Take the wish of the session in this place, if it has one, as an Open at added's end.
 */
static void
take_wish(int s, dlist_head *added)
{
	IntentWish	wish;
	uint32		state = intent_read_wish(s, &wish);
	CallRow		row = {0};
	dsm_segment *segment = NULL;
	Open	   *open;

	if (state == 0)
		return;
	row.n = wish.ncalls;
	row.transaction = wish.transaction;
	row.max_use_count = wish.max_use_count;
	row.has_profile = wish.has_profile;
	row.profile = wish.profile;
	row.timeout = wish.timeout;
	row.account = wish.account;
	row.is_ours = true;
	if (row.n > 1)
	{
		segment = attach(wish.segment, row.n);
		if (segment == NULL)
			return;				/* its session has given up */
	}
	open = known_new(&row, segment ? dsm_segment_address(segment) : &wish.call);
	open->segment = segment;
	for (int i = 0; i < row.n; i++)
		open->row.calls[i].state = CALL_BEGUN;	/* for all that we know */
	open->slot = s;
	open->wish = state;
	open->latch = wish.latch;
	open->top = wish.top;
	dlist_push_tail(added, &open->node);
}

/*
 * Have all taken anew the next time: what was taken could not be recorded.
 */
void
calls_listen_again(void)
{
	see_all = true;
}

/*
 * Take what sessions have left, and what they want: Opens at the end of added.
 *
 * What a session has left before its wish is taken with it, since it makes the
 * wish afterwards.  Returns whether there was anything.
 */
bool
calls_listen(dlist_head *added)
{
	bool		heard = false;

	for (int s = 0; s < intent_nslots(); s++)
	{
		uint32		count = intent_count(s);

		if (count == known.seen[s] && !see_all)
			continue;
		pg_read_barrier();
		take_wish(s, added);
		calls_take_news(s);
		known.seen[s] = count;
		heard = true;
	}
	see_all = false;
	return heard;
}

/*
 * Take the answers that sessions have left.
 */
void
worker_take_answers(void)
{
	for (int s = 0; s < intent_nslots() && known.loaded; s++)
	{
		if (intent_count(s) != known.seen[s])
			calls_take_news(s);
	}
}
