/*
 * stalled_lookups.c: lookups of names with "stalled" in them take STALLED_SECONDS, a
 * macro of the build, and then fail; all others go their way.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
			struct addrinfo **result)
{
	int			(*next) (const char *, const char *, const struct addrinfo *,
						 struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");

	if (node == NULL || strstr(node, "stalled") == NULL)
		return next(node, service, hints, result);
	sleep(STALLED_SECONDS);
	return EAI_AGAIN;
}
