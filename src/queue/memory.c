/*
 * queue/memory.c
 *	  Asks for the shared memory of the claim engine, and shares out its locks.
 *
 * Knows how much ring.c, places.c and tag.c need, and nothing of what they keep
 * there. After a restart all of it is zero and is learned from the tables again.
 */
#include "postgres.h"

#include "base/guc.h"
#include "miscadmin.h"
#include "queue/memory.h"
#include "queue/places.h"
#include "queue/ring.h"
#include "queue/tag.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#define QUEUE_LOCKS "gpu_orch_queue"
#define RING_LOCKS "gpu_orch_ring"

/* The locks of the tranche QUEUE_LOCKS. */
enum
{
	LOCK_PLACES,
	LOCK_PREPARED,
	LOCK_TAGS,
	N_LOCKS
};

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static void
request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(queue_places_size());
	RequestAddinShmemSpace(queue_ring_size());
	RequestAddinShmemSpace(queue_tag_size());
	RequestNamedLWLockTranche(QUEUE_LOCKS, N_LOCKS);
	RequestNamedLWLockTranche(RING_LOCKS, guc_max_capability_sets);
}

static void
startup(void)
{
	LWLockPadded *locks;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	locks = GetNamedLWLockTranche(QUEUE_LOCKS);
	queue_places_startup(&locks[LOCK_PLACES].lock);
	queue_ring_startup(&locks[LOCK_PREPARED].lock, GetNamedLWLockTranche(RING_LOCKS));
	queue_tag_startup(&locks[LOCK_TAGS].lock);
	LWLockRelease(AddinShmemInitLock);
}

/*
 * Ask for the claim engine's shared memory. To be called from _PG_init while the
 * server preloads libraries, and only then.
 */
void
queue_memory_init_hooks(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
}
