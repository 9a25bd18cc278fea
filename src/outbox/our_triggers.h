/*-------------------------------------------------------------------------
 *
 * our_triggers.h
 *	  The triggers of users' tables that call functions of the extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_OUR_TRIGGERS_H
#define SEAM_IK_OUR_TRIGGERS_H

#include "nodes/pg_list.h"

/* A trigger of a user's table. */
typedef struct OurTrigger
{
	/* whose it is; the root, where that gave it to its partitions */
	Oid			table;
	/* qualified and quoted */
	char	   *table_name;
	char	   *name;
	/* as in pg_trigger: D for one that is disabled */
	char		enabled;
	/* the name of its function */
	char	   *function;
	/* field=column pairs, as they were given */
	List	   *arguments;
} OurTrigger;

extern List *our_triggers_read(void);
extern char *our_trigger_column(const OurTrigger *trigger, const char *field);

#endif							/* SEAM_IK_OUR_TRIGGERS_H */
