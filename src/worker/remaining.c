/*-------------------------------------------------------------------------
 *
 * remaining.c
 *	  Identities to be named when a process leaves that may have no successor.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/uuid.h"
#include "worker/remaining.h"

/* Identities in one line of the log. */
#define IDENTITIES_PER_LINE 100

/*
 * One more identity that is left.
 */
void
remaining_add(Remaining *remaining, const pg_uuid_t *identity)
{
	char		id[UUID_TEXT_LEN + 1];

	if (remaining->identities.data == NULL)
		initStringInfo(&remaining->identities);
	if (remaining->n++ >= IDENTITIES_PER_LINE)
		return;
	uuid_write(id, identity);
	appendStringInfo(&remaining->identities, "%s%s", remaining->identities.len ? ", " : "", id);
}

/*
 * Warns of them with this message, if there are any: their keys may be alive.
 */
void
remaining_warn(const Remaining *remaining, const char *message)
{
	if (remaining->n > 0)
		ereport(WARNING,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg_internal("%s", message),
				 errdetail("User identities: %s%s.", remaining->identities.data,
						   remaining->n > IDENTITIES_PER_LINE ? ", and more" : "")));
}
