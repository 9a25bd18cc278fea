/*-------------------------------------------------------------------------
 *
 * seam_ik.c
 *	  Module entry: puts the parts together, and nothing else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "intent.h"
#include "launcher.h"
#include "outbox.h"
#include "places.h"
#include "settings.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

/*
 * Called when the library is loaded.
 */
void
_PG_init(void)
{
	settings_define();
	outbox_define();
	places_define();
	launcher_define();
	intent_define();
}
