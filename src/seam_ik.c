/*-------------------------------------------------------------------------
 *
 * seam_ik.c
 *	  Module entry: puts the parts together, and nothing else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "ledger/intent.h"
#include "worker/launcher.h"
#include "outbox/outbox.h"
#include "shmem/places.h"
#include "config/settings.h"

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
