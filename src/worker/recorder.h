/*-------------------------------------------------------------------------
 *
 * recorder.h
 *	  The worker as the keeper of the journal.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_RECORDER_H
#define SEAM_IK_RECORDER_H

extern void recorder_set_up(void);
extern int64 recorder_run(bool look);
extern bool recorder_has_read(void);
extern void recorder_finish(void);

#endif							/* SEAM_IK_RECORDER_H */
