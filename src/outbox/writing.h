/*-------------------------------------------------------------------------
 *
 * writing.h
 *	  What the writer reads and notes of requests whose rows are to be written.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WRITING_H
#define SEAM_IK_WRITING_H

#include "executor/spi.h"
#include "outbox/outbox.h"
#include "utils/array.h"

/* The longest pause between two tries to write a row. */
#define WRITING_LONGEST_PAUSE_US (60 * INT64CONST(1000000))

/* The SQLSTATE of requests whose rows wait until their table's code is another one. */
#define WRITING_HELD_SQLSTATE ERRCODE_CRASH_SHUTDOWN

/* The columns of the result of writing_lock(). */
enum
{
	WRITING_REQUEST_ID = 1,
	WRITING_TARGET_KEY,
	WRITING_TARGET_FIELDS,
	WRITING_USER_IDENTITY_ID,
	WRITING_INSTANT_KEY,
	WRITING_TASK,
	WRITING_KEYS,
	WRITING_REPLACES_KEY,
	WRITING_TARGET_HASH,
	WRITING_STAY_ID,
	WRITING_HAS_NEWER_STAY,
	WRITING_SEAM_WORKSPACE,
	WRITING_TARGET_COLUMNS,
	WRITING_TARGET_NUMBERS,
	WRITING_TARGET_PARTITION
};

extern SPITupleTable *writing_lock(Oid table, const int64 *ids, int n);
extern SPITupleTable *writing_written(const int64 *ids, int n);
extern void writing_row_locked(const int64 *ids, int n, const char *error);
extern SPITupleTable *writing_failed(int64 id, int sqlerrcode, const char *error);
extern bool writing_revoke(int64 id, const char *reason);
extern void writing_put_off(const int64 *ids, int n, TimestampTz until);
extern SPITupleTable *writing_hold(const int64 *ids, int n, const char *error);
extern void writing_release(Oid table);
extern void writing_lock_retried(Oid table);
extern bool writing_any(void);
extern int	writing_tasks(int limit, int64 *ids, Oid *tables, TimestampTz *next);
extern void writing_looked(const int64 *ids, int n);
extern void writing_cleared(const int64 *ids, int n, const char *error);
extern void writing_put_off_tasks(const int64 *ids, int n, TimestampTz until, const char *error);
extern SPITupleTable *writing_ends(const int64 *ids, int n);

#endif							/* SEAM_IK_WRITING_H */
