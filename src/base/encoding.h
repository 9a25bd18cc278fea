/*-------------------------------------------------------------------------
 *
 * encoding.h
 *	  Text from the network in the database's encoding.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_ENCODING_H
#define SEAM_IK_ENCODING_H

#include "lib/stringinfo.h"

extern char *encoding_from_utf8(const char *utf8);
extern void encoding_append_foreign(StringInfo buf, const char *utf8,
									int max_chars, const char *const *secrets);

#endif							/* SEAM_IK_ENCODING_H */
