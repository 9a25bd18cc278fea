/*-------------------------------------------------------------------------
 *
 * fates.h
 *	  What has become of the transactions of open intents.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_FATES_H
#define SEAM_IK_FATES_H

extern void fates_look_at_all(void);
extern void fates_look_at(uint64 top, uint64 from, int64 at);
extern int64 fates_due(bool *all);
extern void fates_take(bool look);
extern void fates_log(const char *why);

#endif							/* SEAM_IK_FATES_H */
