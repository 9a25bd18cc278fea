/*-------------------------------------------------------------------------
 *
 * unit.c
 *	  What every unit test shares, and stubs of the few functions of the server
 *	  that pure code may call.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <stdarg.h>

#include "unit.h"

/* The server's headers turn these into its own ones, which are not linked. */
#undef printf
#undef vprintf

/* Failures that are printed; the rest is only counted. */
#define PRINTED_MAX 20

static long passed;
static long failed;
static uint64_t state;

/*
 * Counts a check, and prints one that failed.
 */
void
unit_count(bool ok, const char *file, int line, const char *format,...)
{
	va_list		args;

	if (ok)
	{
		passed++;
		return;
	}
	if (failed++ >= PRINTED_MAX)
		return;
	printf("%s:%d: ", file, line);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

/*
 * Begins a sequence of random numbers that is the same on each machine.
 */
void
unit_seed(uint64_t seed)
{
	state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
}

/*
 * Returns a random number from 0 up to, but not including, below.  (Vigna's
 * splitmix64, which is in the public domain, in a few lines.)
 */
uint32_t
unit_random(uint32_t below)
{
	uint64_t	z = (state += UINT64_C(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return (uint32_t) ((z ^ (z >> 31)) % below);
}

/*
 * Prints the counts.  Returns the exit code of the test.
 */
int
unit_end(const char *name)
{
	printf("%s: %ld checks passed, %ld failed\n", name, passed, failed);
	return failed == 0 && passed > 0 ? 0 : 1;
}

/* ---------- stubs of the server ---------- */

/*
 * Returns memory, or ends the test.
 */
void *
palloc(Size size)
{
	void	   *memory = malloc(size);

	if (memory == NULL)
		abort();
	return memory;
}

/*
 * Gives memory back.
 */
void
pfree(void *pointer)
{
	free(pointer);
}
