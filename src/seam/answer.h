/*-------------------------------------------------------------------------
 *
 * answer.h
 *	  What an answer of Seam's means, and the words in which it is told.
 *
 * A failure is a value (SeamResult), so that a function can raise it and a table
 * can hold it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ANSWER_H
#define SEAM_IK_ANSWER_H

#include "logic/pace.h"
#include "logic/reply.h"
#include "net/http.h"
#include "seam/keys.h"
#include "seam/seam.h"

/* An answer about one key is a kilobyte; this is the limit.  Lists have their own. */
#define ANSWER_MAX_SIZE (1024 * 1024)

/* What came of a request. */
typedef struct SeamResult
{
	int			sqlerrcode;		/* 0: it was done */
	const char *message;		/* without a full stop */
	const char *detail;			/* or NULL */
	const char *hint;			/* or NULL */
	const char *request_id;		/* Seam's, or NULL */
	ReplyKind	kind;			/* what became of it */
	bool		deleted;		/* delete: false when there was no such key */
	SeamKey		key;			/* generate, get */
} SeamResult;

extern bool answer_leaves_doubt(const HttpAnswer *answer);
extern bool answer_try_again(const HttpAnswer *answer, SeamOp op);
extern void answer_pace(const HttpAnswer *answer, PaceAnswer *pace);
extern char *answer_error_text(const SeamResult *result);
extern void answer_read(const SeamAccount *account, const SeamRequest *request,
						const HttpAnswer *answer, SeamKeyConsumer consume,
						void *arg, SeamResult *result);

#endif							/* SEAM_IK_ANSWER_H */
