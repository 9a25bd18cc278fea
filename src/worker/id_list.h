/*-------------------------------------------------------------------------
 *
 * id_list.h
 *	  Ids of requests that are taken from the beginning of a list.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ID_LIST_H
#define SEAM_IK_ID_LIST_H

/* A list is full when it has so many. */
#define ID_LIST_MAX 50000

/* Ids of requests, in turn. */
typedef struct IdList
{
	int64	   *ids;			/* in TopMemoryContext */
	int			first;			/* those before are done with */
	int			end;			/* behind the last one */
	int			size;			/* for how many there is memory */
} IdList;

extern bool id_list_add(IdList *list, int64 id);
extern int	id_list_length(const IdList *list);

#endif							/* SEAM_IK_ID_LIST_H */
