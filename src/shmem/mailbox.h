/*-------------------------------------------------------------------------
 *
 * mailbox.h
 *	  What passes between sessions that call Seam and the worker: wishes and hints.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_MAILBOX_H
#define SEAM_IK_MAILBOX_H

#include "access/transam.h"
#include "logic/doubt.h"
#include "storage/latch.h"
#include "utils/uuid.h"

/* The most elements that one intent is for. */
#define MAILBOX_ELEMENTS 256

/* Bytes of what a session is told of a wish that is refused, with the NUL. */
#define MAILBOX_REFUSAL 256

/* What has become of a wish. */
typedef enum MailboxAnswer
{
	MAILBOX_WAITS,				/* nothing yet */
	MAILBOX_RECORDED,			/* the intent is in the journal */
	MAILBOX_REFUSED				/* it cannot be */
} MailboxAnswer;

/* What a session is told of its wish. */
typedef struct MailboxReply
{
	/* Recorded: is Seam's time of the record known? */
	bool		has_seam_time;
	/* Then it is this. */
	TimestampTz seam_time;
	/* Refused: why. */
	char		refusal[MAILBOX_REFUSAL];
} MailboxReply;

/* A session's wish: this intent is to be recorded. */
typedef struct MailboxWish
{
	/* A random number that no other intent has. */
	pg_uuid_t	call_id;

	/*
	 * The (sub)transaction that makes the call, and inserts what it has
	 * issued.
	 */
	FullTransactionId transaction;
	/* The transaction that this one is of. */
	FullTransactionId top;
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
	/* Milliseconds after the record within which a key may be created. */
	int			timeout;
	/* As in AccountId. */
	uint64		account;
	/* As in AccountId. */
	uint64		api_key;
	/* How many elements there are. */
	int			n;
	/* Whom the keys are for: n of them. */
	pg_uuid_t	identities[MAILBOX_ELEMENTS];
} MailboxWish;

/* A key that was issued for an element of an intent. */
typedef struct MailboxKey
{
	/* The element, from 0 on. */
	int			element;
	/* Its key. */
	pg_uuid_t	key;
} MailboxKey;

/* What a session knows of what became of an intent. */
typedef struct MailboxHint
{
	/* Of these elements, bit by bit, the request was sent, or is about to be. */
	uint64		begun[MAILBOX_ELEMENTS / 64];
	/* Of these surely no key was issued, and none will be. */
	uint64		none[MAILBOX_ELEMENTS / 64];
	/* When its calls had ended, by the local clock; 0: that is not known. */
	TimestampTz ended_at;
	/* Of how many of them the key is known. */
	int			nkeys;
	/* Which these are, and their keys. */
	MailboxKey	keys[MAILBOX_ELEMENTS];
} MailboxHint;

/* What a session leaves at the end of a call, or of a transaction. */
typedef struct MailboxNote
{
	/* The session's database; InvalidOid: there is no note. */
	Oid			database;
	/* A transaction with intents that has ended, or 0. */
	uint64		ended;
	/* Did that one roll back? */
	bool		rolled_back;
	/* The first of the subtransactions that rolled back, or 0, of: */
	uint64		aborted;
	/* The transaction that these are of. */
	uint64		top;
	/* Seam's time, by an answer. */
	SeamTime	seam_time;
	/* AccountId's account whose clock that is of. */
	uint64		account;
} MailboxNote;

/* for the hooks */
extern void mailbox_request_shared(void);
extern void mailbox_startup_shared(void);

/* for sessions */
extern bool mailbox_is_there(void);
extern void mailbox_wish(const MailboxWish *wish, Latch *latch);
extern MailboxAnswer mailbox_answer(MailboxReply *reply);
extern void mailbox_withdraw(void);
extern void mailbox_hint_begun(const pg_uuid_t *call_id, int element);
extern void mailbox_hint_none(const pg_uuid_t *call_id, int element, int n);
extern void mailbox_hint_key(const pg_uuid_t *call_id, int element, const pg_uuid_t *key);
extern void mailbox_hint_ended(const pg_uuid_t *call_id, TimestampTz at);
extern void mailbox_hints_ended(TimestampTz at);
extern bool mailbox_note_ended(uint64 top, bool rolled_back);
extern void mailbox_note_aborted(uint64 top, uint64 transaction);
extern void mailbox_note_clock(const SeamTime *seam_time, uint64 account);

/* for the worker */
extern int	mailbox_nslots(void);
extern uint32 mailbox_count(int slot);
extern MailboxWish *mailbox_read_wish(int slot, uint32 *state);
extern bool mailbox_fulfil(int slot, uint32 state, bool has_seam_time, TimestampTz seam_time);
extern void mailbox_refuse(int slot, uint32 state, const char *why);
extern bool mailbox_take_note(int slot, MailboxNote *note);
extern bool mailbox_read_hint(int slot, const pg_uuid_t *call_id, MailboxHint *hint);
extern bool mailbox_listen(void);

#endif							/* SEAM_IK_MAILBOX_H */
