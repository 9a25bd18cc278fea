/*
 * movable_clock.c: the time of day is wrong by as many seconds as the file OFFSET_FILE,
 * a macro of the build, says.
 *
 * The file holds two integers of 64 bits: the seconds, and the id of a process (or 0)
 * that is held up for two seconds after it has read the clock once more.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void
map(void)
{
	offset = mmap(NULL, 2 * sizeof(*offset), PROT_READ | PROT_WRITE, MAP_SHARED,
				  open(OFFSET_FILE, O_RDWR | O_CLOEXEC), 0);
}

int
clock_gettime(clockid_t clock, struct timespec *at)
{
	int			rc = syscall(SYS_clock_gettime, clock, at);

	if (rc == 0 && clock == CLOCK_REALTIME && offset != NULL)
		at->tv_sec += *offset;
	return rc;
}

int
gettimeofday(struct timeval *at, void *zone)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (offset != NULL && offset[1] == getpid())
	{
		offset[1] = 0;
		sleep(2);
	}
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *at)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (at != NULL)
		*at = now.tv_sec;
	return now.tv_sec;
}
