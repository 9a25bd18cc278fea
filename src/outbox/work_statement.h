/*-------------------------------------------------------------------------
 *
 * work_statement.h
 *	  Statements on the outbox's tables, and what surrounds them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WORK_STATEMENT_H
#define SEAM_IK_WORK_STATEMENT_H

#include "base/statement.h"
#include "outbox/outbox.h"
#include "utils/array.h"
#include "utils/uuid.h"

#define WORK_MAX_ARGS STATEMENT_MAX_ARGS

/*
 * So many times work_try() is called in one transaction: other processes are told of so
 * many subtransactions at little cost.
 */
#define WORK_ALONE_AT_ONCE 64

/* Every statement's first arguments are this system's id and our rows' origin. */
#define WORK_OUR_ARGS 2
#define OURS " origin = $2 "

/* Among the types: seam_instant_key. */
#define WORK_KEY_TYPE STATEMENT_ROW_TYPE
#define WORK_KEY_ARRAY STATEMENT_ROW_ARRAY

/*
 * A statement of ours; %r in its text is the table of requests, %c that of calls, %w that
 * of the writer's marks; its types are those of the arguments from $3 on.
 */
typedef Statement WorkStatement;

extern bool work_begin(void);
extern void work_end(void);
extern ErrorData *work_try(void (*function) (void *arg), void *arg);
extern bool work_is_of_one(int sqlerrcode);
extern Outbox *work_outbox(void);
extern bool work_is_ours(void);
extern Datum work_ids(const int64 *ids, int n);
extern ArrayType *work_array(Datum *values, bool *nulls, int n, Oid type);
extern void work_execute(WorkStatement *statement, Datum *args, const char *nulls);
extern int	work_uuids(pg_uuid_t **ids);
extern Oid	work_key_type(void);

#endif							/* SEAM_IK_WORK_STATEMENT_H */
