/*-------------------------------------------------------------------------
 *
 * unit.h
 *	  What every unit test shares: checks that are counted, and random numbers.
 *
 * A unit test is a plain C program.  It links what it tests with nothing of the
 * server but stubs of palloc and pfree, so what asks a clock, SPI or ereport does
 * not link.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SEAM_IK_UNIT_H
#define SEAM_IK_UNIT_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Count a check; where it fails, print where, and the printf arguments that follow.
 */
#define unit_check(condition, ...) \
	unit_count((condition), __FILE__, __LINE__, __VA_ARGS__)

extern void unit_count(bool ok, const char *file, int line, const char *format,...)
			__attribute__((format(printf, 4, 5)));
extern void unit_seed(uint64_t seed);
extern uint32_t unit_random(uint32_t below);
extern int	unit_end(const char *name);

#endif							/* SEAM_IK_UNIT_H */
