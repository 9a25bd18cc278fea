/*
 * early_malloc.c: makes AddressSanitizer ready before the constructor of some library
 * takes a lock, which hangs it: linked to be initialized first, it calls malloc.
 */
#include <stdlib.h>

__attribute__((constructor)) static void
early(void)
{
	free(malloc(1));
}
