/*-------------------------------------------------------------------------
 *
 * own_write.c
 *	  Which change of a user's row is our own.
 *
 * A key that we write to a row, or clear there, is no change that the row's trigger is to
 * act on.  It is told from what users' code changes meanwhile by the key that the row shows
 * before and after: that has no other row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "outbox/own_write.h"

/* A key, or NULL. */
typedef struct Shown
{
	bool		is_null;
	pg_uuid_t	key;
} Shown;

static bool is_writing;
static Shown before;
static Shown after;

/*
 * A key, or NULL, as it is kept here.
 */
static Shown
shown(const pg_uuid_t *key)
{
	Shown		result = {.is_null = key == NULL};

	if (key)
		result.key = *key;
	return result;
}

/*
 * Are these the same?
 */
static bool
is_same(const Shown *a, const pg_uuid_t *b)
{
	if (a->is_null || b == NULL)
		return a->is_null && b == NULL;
	return memcmp(&a->key, b, UUID_LEN) == 0;
}

/*
 * A row is going to be written that shows the first key, or NULL, and will show the second
 * one.
 */
void
own_write_begin(const pg_uuid_t *from, const pg_uuid_t *to)
{
	before = shown(from);
	after = shown(to);
	is_writing = true;
}

/*
 * It was, or the transaction has ended.
 */
void
own_write_end(void)
{
	is_writing = false;
}

/*
 * Is the change from this key, or NULL, to that one our own?
 */
bool
own_write_is(const pg_uuid_t *from, const pg_uuid_t *to)
{
	return is_writing && is_same(&before, from) && is_same(&after, to);
}
