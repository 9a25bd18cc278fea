/*-------------------------------------------------------------------------
 *
 * work_statement.h
 *	  Statements on the outbox's tables, and what surrounds them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_WORK_STATEMENT_H
#define SEAM_IK_WORK_STATEMENT_H

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "outbox/outbox.h"
#include "utils/array.h"
#include "utils/uuid.h"

#define WORK_MAX_ARGS 16

/* Every statement's first arguments are this system's id and our rows' origin. */
#define WORK_OUR_ARGS 2
#define OURS " origin = $2 "

/* Among the types: seam_instant_key. */
#define WORK_KEY_TYPE RECORDOID

/* A statement, whose plan is made when it is first executed, and kept. */
typedef struct WorkStatement
{
	const char *sql;			/* %r is the table of requests, %c that of
								 * calls, %w that of the writer's marks */
	Oid			types[WORK_MAX_ARGS];	/* of the arguments from $3 on */
	SPIPlanPtr	plan;
	int			names;			/* for which names of the tables that was made */
} WorkStatement;

extern bool work_begin(void);
extern void work_end(void);
extern ErrorData *work_try(void (*function) (void *arg), void *arg);
extern bool work_is_of_one(int sqlerrcode);
extern Outbox *work_outbox(void);
extern bool work_is_ours(void);
extern ArrayType *work_array(Datum *values, bool *nulls, int n, Oid type);
extern void work_execute(WorkStatement *statement, Datum *args, const char *nulls);
extern int	work_uuids(pg_uuid_t **ids);
extern Oid	work_key_type(void);

#endif							/* SEAM_IK_WORK_STATEMENT_H */
