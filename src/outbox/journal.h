/*-------------------------------------------------------------------------
 *
 * journal.h
 *	  The journal of synchronous calls: intents in and out, and what their
 *	  transactions have left in the outbox.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_JOURNAL_H
#define SEAM_IK_JOURNAL_H

#include "access/transam.h"
#include "datatype/timestamp.h"
#include "seam/account.h"
#include "utils/uuid.h"

/* An intent, as the journal has it. */
typedef struct JournalRow
{
	/* What tells it from all others. */
	pg_uuid_t	call_id;
	/* The (sub)transaction that makes the call. */
	FullTransactionId transaction;
	/* The transaction that this one is of. */
	FullTransactionId top;
	/* How many elements it is for. */
	int			n;
	/* Whom their keys are for: n of them, in a chunk of their own. */
	pg_uuid_t  *identities;
	/* 0: left to Seam. */
	int			max_use_count;
	/* Is there a customization profile? */
	bool		has_profile;
	/* Which. */
	pg_uuid_t	profile;
	/* Was it given a workspace?  Else it is the settings'. */
	bool		has_workspace;
	/* Which. */
	pg_uuid_t	workspace;
	/* When it was recorded, by the local clock. */
	TimestampTz requested_at;
	/* Milliseconds after that within which a key may be created. */
	int			timeout;
	/* Is requested_at known by Seam's clock? */
	bool		has_seam_time;
	/* Then it is this. */
	TimestampTz seam_time;
	/* With which account the call is made, whose workspace is not known. */
	AccountId	account;
	/* On which timeline it was recorded. */
	int			timeline;

	/*
	 * It was recorded in these files, and not in others that these are a copy
	 * of.
	 */
	bool		is_ours;
} JournalRow;

/* What is known of an element of an intent. */
typedef enum JournalElement
{
	/* A key may exist. */
	JOURNAL_UNKNOWN,
	/* Surely no key was issued. */
	JOURNAL_NONE,
	/* This key was. */
	JOURNAL_KEY
} JournalElement;

/* A key that an intent's transaction has put into the outbox. */
typedef struct JournalKey
{
	/* For whom it was issued. */
	pg_uuid_t	identity;
	/* Its id. */
	pg_uuid_t	key;
} JournalKey;

/* Which rows of the outbox are looked at. */
typedef enum JournalRows
{
	/* Those that are committed, or will be if their transaction is. */
	JOURNAL_ROWS_LIVING,

	/*
	 * Those of a transaction that has rolled back, as long as they are still
	 * there.
	 */
	JOURNAL_ROWS_DEAD
} JournalRows;

extern int	journal_read(JournalRow **rows);
extern void journal_insert(JournalRow **rows, int n, TimestampTz now);
extern void journal_delete(const JournalRow *const *rows, int n, bool *locked);
extern void journal_have_rows(const JournalRow *const *rows, int n, bool *have);
extern int	journal_keys(const JournalRow *row, JournalRows which, JournalKey **keys);
extern void journal_add_orphans(const JournalRow *row, const JournalElement *elements,
								const pg_uuid_t *keys, const char *report);
extern int	journal_orphans(pg_uuid_t **ids);

#endif							/* SEAM_IK_JOURNAL_H */
