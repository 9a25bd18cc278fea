/*-------------------------------------------------------------------------
 *
 * intents.h
 *	  The intents that are open, as the worker knows them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_INTENTS_H
#define SEAM_IK_INTENTS_H

#include "lib/ilist.h"
#include "logic/fate.h"
#include "nodes/pg_list.h"
#include "outbox/journal.h"

/* A recorded intent, from its wish until the journal has it no more. */
typedef struct Intent
{
	/* In the list of those that are being recorded, open, or to be deleted. */
	dlist_node	node;
	/* In the list of those that count as open until the doubts are read. */
	dlist_node	lingering_node;
	/* As the journal has it. */
	JournalRow	row;
	/* What is known of each element. */
	JournalElement *elements;
	/* The keys of those whose key is known. */
	pg_uuid_t  *keys;

	/*
	 * Each one's place among those of its identity; NULL: it does not count
	 * as open.
	 */
	struct IntentUse *uses;
	/* Whose mailbox has a hint; -1: it is not known, or there is none. */
	int			slot;

	/*
	 * In the list of those about which that mailbox may tell more, if it is
	 * in one.
	 */
	dlist_node	slot_node;
	/* Is it? */
	bool		in_slot;
	/* When its calls had ended, by the local clock; 0: that is not known. */
	TimestampTz ended_at;
	/* All mailboxes were searched for a hint. */
	bool		searched;
	/* It was read from the journal, and not recorded by this process. */
	bool		was_read;
	/* The state of the wish that it is recorded for. */
	uint32		wish;
	/* What a former worker has recorded for the same wish, or NULL. */
	struct Intent *former;

	/*
	 * Why the step under way cannot record it, in step_context(); NULL: it
	 * can.
	 */
	char	   *refusal;
	/* Somebody has told that its transaction has ended. */
	bool		look;
	/* What the step under way has found of its transaction. */
	FateXact	xact;
	/* What the step under way has decided. */
	Fate		fate;
	/* A session has locked its row in the journal. */
	bool		locked;
	/* It counts as open until the doubts are read. */
	bool		lingers;

	/*
	 * The journal has it no more, or will not when the step under way
	 * commits.
	 */
	bool		gone;
} Intent;

extern void intents_set_up(void);
extern Intent *intents_new(const JournalRow *row);
extern void intents_open(Intent *intent);
extern void intents_close(Intent *intent);
extern void intents_discard(Intent *intent);
extern void intents_free(Intent *intent);
extern Intent *intents_next(const Intent *intent);
extern Intent *intents_find_former(const pg_uuid_t *call_id);
extern void intents_read_slot(int slot);
extern void intents_read_hint(Intent *intent, bool ended);
extern void intents_read_rows(Intent *intent, JournalRows which);
extern bool intents_has(const Intent *intent, JournalElement what);
extern bool intents_are_open(const pg_uuid_t *identity);
extern int	intents_keys(const pg_uuid_t *identity, pg_uuid_t **keys);
extern List *intents_identities(List *list);
extern void intents_doubts_were_read(void);

#endif							/* SEAM_IK_INTENTS_H */
