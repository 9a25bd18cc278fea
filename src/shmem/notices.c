/*-------------------------------------------------------------------------
 *
 * notices.c
 *	  What a worker has the writer of its database tell those who listen.
 *
 * Each place has a ring of bytes in shared memory, with one that writes it, the worker,
 * and one that reads it, the writer.  A notice stays there until the writer's transaction
 * that has told of it has committed, so it outlives either of them.  A crash of the server
 * loses what is there; it also ends all sessions that listened.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "shmem/notices.h"
#include "shmem/places.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

/* Bytes of a ring: of hundreds of notices, or of 38 with the longest reference. */
#define RING_SIZE 8192

/* A notice in the ring is this, and then the reference. */
typedef struct Head
{
	int64		id;
	uint8		status;
	bool		has_reference;
	uint8		length;			/* of the reference */
} Head;

typedef struct Ring
{
	Oid			database;		/* whose notices these are; another one may
								 * have the place by now */
	pg_atomic_uint64 written;	/* bytes that were ever written, */
	pg_atomic_uint64 read;		/* and read */
	pg_atomic_uint32 was_full;	/* the worker waits for room */
	char		bytes[RING_SIZE];
} Ring;

static Ring *rings;				/* by number of place */

/*
 * The size of all rings, in bytes.
 */
static Size
shared_size(void)
{
	return mul_size(places_number(), sizeof(Ring));
}

/*
 * shmem_request_hook
 */
void
notices_request_shared(void)
{
	RequestAddinShmemSpace(shared_size());
}

/*
 * shmem_startup_hook: also called in the postmaster after a crash, when everything
 * begins anew.
 */
void
notices_startup_shared(void)
{
	bool		found;

	rings = ShmemInitStruct("seam_ik notices", shared_size(), &found);
	for (int i = 0; !found && i < places_number(); i++)
	{
		rings[i].database = InvalidOid;
		pg_atomic_init_u64(&rings[i].written, 0);
		pg_atomic_init_u64(&rings[i].read, 0);
		pg_atomic_init_u32(&rings[i].was_full, 0);
	}
}

/*
 * Copy n bytes into the ring, or out of it, at a position.
 */
static void
copy(Ring *ring, uint64 position, char *bytes, Size n, bool into)
{
	for (Size done = 0; done < n;)
	{
		Size		at = (position + done) % RING_SIZE;
		Size		piece = Min(n - done, RING_SIZE - at);

		if (into)
			memcpy(ring->bytes + at, bytes + done, piece);
		else
			memcpy(bytes + done, ring->bytes + at, piece);
		done += piece;
	}
}

/*
 * From the worker: have this told.  Returns false when there is no room now; WAKE_ROOM
 * tells when there may be again.
 */
bool
notices_put(const Notice *notice)
{
	Ring	   *ring = &rings[places_my_number()];
	Head		head = {.id = notice->id,.status = notice->status,
	.has_reference = notice->has_reference};
	uint64		position;

	if (ring->database != MyDatabaseId)
	{
		/*
		 * of a database that had the place before: nobody reads it. No
		 * position goes back, because our writer may have one already.
		 */
		pg_atomic_write_u64(&ring->read, pg_atomic_read_u64(&ring->written));
		pg_write_barrier();
		ring->database = MyDatabaseId;
	}
	head.length = notice->has_reference ? strlen(notice->reference) : 0;
	position = pg_atomic_read_u64(&ring->written);
	if (position - pg_atomic_read_u64(&ring->read) + sizeof(head) + head.length > RING_SIZE)
	{
		/* before another look, or the writer may have just made room */
		(void) pg_atomic_exchange_u32(&ring->was_full, 1);
		if (position - pg_atomic_read_u64(&ring->read) + sizeof(head) + head.length > RING_SIZE)
			return false;
	}
	pg_memory_barrier();
	copy(ring, position, (char *) &head, sizeof(head), true);
	copy(ring, position + sizeof(head), (char *) notice->reference, head.length, true);
	pg_write_barrier();
	pg_atomic_write_u64(&ring->written, position + sizeof(head) + head.length);
	return true;
}

/*
 * From the writer: the position of the first notice that was not told yet.
 */
uint64
notices_begin(void)
{
	return pg_atomic_read_u64(&rings[places_my_number()].read);
}

/*
 * Read the notice at the position, and move that on.  Returns false when there is none.
 */
bool
notices_get(uint64 *position, Notice *notice)
{
	Ring	   *ring = &rings[places_my_number()];
	Head		head;

	if (ring->database != MyDatabaseId || pg_atomic_read_u64(&ring->written) == *position)
		return false;
	pg_read_barrier();
	copy(ring, *position, (char *) &head, sizeof(head), false);
	copy(ring, *position + sizeof(head), notice->reference, head.length, false);
	notice->reference[head.length] = '\0';
	notice->id = head.id;
	notice->status = head.status;
	notice->has_reference = head.has_reference;
	*position += sizeof(head) + head.length;
	return true;
}

/*
 * What comes before the position was told: there is room again.  Returns whether the worker
 * waits for that.
 */
bool
notices_done(uint64 position)
{
	Ring	   *ring = &rings[places_my_number()];

	pg_memory_barrier();
	pg_atomic_write_u64(&ring->read, position);
	pg_memory_barrier();
	return pg_atomic_exchange_u32(&ring->was_full, 0) != 0;
}
