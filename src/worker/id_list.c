/*-------------------------------------------------------------------------
 *
 * id_list.c
 *	  Ids of requests that are taken from the beginning of a list.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "worker/id_list.h"

/*
 * Adds an id to a list.  Returns false when that is full.
 */
bool
id_list_add(IdList *list, int64 id)
{
	if (list->first == list->end)
		list->first = list->end = 0;
	if (list->end == list->size)
	{
		int			size = Max(list->size * 2, 64);

		if (list->end - list->first >= ID_LIST_MAX)
			return false;
		if (list->first > 0)
			memmove(list->ids, list->ids + list->first,
					(list->end - list->first) * sizeof(int64));
		list->end -= list->first;
		list->first = 0;
		if (list->ids == NULL)
			list->ids = MemoryContextAlloc(TopMemoryContext, size * sizeof(int64));
		else
			list->ids = repalloc(list->ids, size * sizeof(int64));
		list->size = size;
	}
	list->ids[list->end++] = id;
	return true;
}

/*
 * Returns how many ids are in a list.
 */
int
id_list_length(const IdList *list)
{
	return list->end - list->first;
}
