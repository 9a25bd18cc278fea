/*-------------------------------------------------------------------------
 *
 * candidates.c
 *	  The keys of a list that nobody owns.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/uuid.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "outbox/work_statement.h"
#include "worker/candidates.h"
#include "worker/intents.h"

/* Ids in one message. */
#define KEYS_IN_MESSAGE 20

/*
 * What a key says of the call that issued it.
 */
static DoubtKey
doubt_key(const SeamKey *key)
{
	DoubtKey	says = {.has_profile = key->has_customization_profile_id};

	says.profile = key->customization_profile_id;
	says.created_at = key->created_at;
	return says;
}

/*
 * Finds the keys of a list that no request owns, and no open intent, in
 * CurrentMemoryContext.  Returns how many there are.
 */
int
candidates_find(Flight *flight, Candidate **candidates)
{
	Datum	   *ids = palloc(Max(flight->nkeys, 1) * sizeof(Datum));
	pg_uuid_t  *owned;
	int			nowned;
	pg_uuid_t  *intents;
	int			nintents;
	int			n = 0;

	*candidates = palloc(Max(flight->nkeys, 1) * sizeof(Candidate));
	for (int i = 0; i < flight->nkeys; i++)
		ids[i] = UUIDPGetDatum(&flight->keys[i].instant_key_id);
	nowned = work_owned(work_array(ids, NULL, flight->nkeys, UUIDOID), &owned);
	nintents = intents_keys(&flight->row.identity, &intents);
	owned = repalloc_huge(owned, (nowned + nintents + 1) * sizeof(pg_uuid_t));
	if (nintents > 0)
		memcpy(owned + nowned, intents, nintents * sizeof(pg_uuid_t));
	nowned += nintents;
	qsort(owned, nowned, sizeof(pg_uuid_t), uuid_compare);
	for (int i = 0; i < flight->nkeys; i++)
	{
		SeamKey    *key = &flight->keys[i];
		Candidate	candidate = {.says = doubt_key(key),.key = key};

		CHECK_FOR_INTERRUPTS();
		if (!bsearch(&key->instant_key_id, owned, nowned, sizeof(pg_uuid_t), uuid_compare))
			(*candidates)[n++] = candidate;
	}
	return n;
}

/*
 * The ids of the keys of a group, for a message.
 */
char *
candidates_of_group(const Candidate *candidates, int n, int group)
{
	StringInfoData ids;
	int			written = 0;

	initStringInfo(&ids);
	for (int c = 0; c < n; c++)
	{
		char		id[UUID_TEXT_LEN + 1];

		if (candidates[c].group != group)
			continue;
		if (written++ == KEYS_IN_MESSAGE)
		{
			appendStringInfoString(&ids, ", and more");
			break;
		}
		uuid_write(id, &candidates[c].key->instant_key_id);
		appendStringInfo(&ids, "%s%s", ids.len ? ", " : "", id);
	}
	return ids.data;
}

/*
 * Marks those of n keys that fit the doubt by group 0, the others by -1.  Returns the ids
 * of those that fit, for a message, or NULL.
 */
char *
candidates_fitting(const Doubt *doubt, Candidate *candidates, int n)
{
	bool		any = false;

	for (int c = 0; c < n; c++)
	{
		bool		fits = doubt_fits(doubt, &candidates[c].says);

		candidates[c].group = fits ? 0 : -1;
		any = any || fits;
	}
	return any ? candidates_of_group(candidates, n, 0) : NULL;
}
