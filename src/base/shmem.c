/*
 * base/shmem.c
 *	  Shared memory: the leader's whereabouts, what it last did, and the flags by
 *	  which commits wake it.
 *
 * No pointer into a process's own memory is kept here; the leader's latch is the
 * one of its PGPROC, which lives in shared memory too. Nothing here decides
 * anything: after a restart it is all zero, and everything that matters is read
 * from tables again.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/heard.h"
#include "miscadmin.h"
#include "base/shmem.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#define SHMEM_NAME "gpu_orch"

/* The locks of the tranche. */
enum
{
	LOCK_STATE,
	LOCK_HEARD,
	N_LOCKS
};

static ShmemState *state = NULL;
static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static void
shmem_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(ShmemState)));
	RequestAddinShmemSpace(heard_size());
	RequestNamedLWLockTranche(SHMEM_NAME, N_LOCKS);
}

static void
shmem_startup(void)
{
	bool found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	state = ShmemInitStruct(SHMEM_NAME, sizeof(ShmemState), &found);
	if (!found)
	{
		memset(state, 0, sizeof(ShmemState));
		state->lock = &GetNamedLWLockTranche(SHMEM_NAME)[LOCK_STATE].lock;
		ConditionVariableInit(&state->answered);
		pg_atomic_init_u64(&state->wakes, 0);
		pg_atomic_init_u32(&state->wake_flags, 0);
		pg_atomic_init_u64(&state->clock_offset, 0);
		pg_atomic_init_u64(&state->clock_stepped, 0);
		pg_atomic_init_u64(&state->ticks, 0);
		pg_atomic_init_u64(&state->tasks_reset, 0);
		claim_stats_init(&state->claims);
		state->provider.since = clock_now();
	}
	heard_startup(&GetNamedLWLockTranche(SHMEM_NAME)[LOCK_HEARD].lock);
	LWLockRelease(AddinShmemInitLock);
}

/*
 * Ask for our shared memory. To be called from _PG_init while the server preloads
 * libraries, and only then.
 */
void
shmem_init_hooks(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/* Whether the library was preloaded. */
bool
shmem_available(void)
{
	return state != NULL;
}

/* The struct; NULL without preloading. */
ShmemState *
shmem_state(void)
{
	return state;
}

/*
 * Raise 55000 unless the library was preloaded: what writes depends on the
 * leader, and the leader on preloading.
 */
void
shmem_require(void)
{
	if (state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("gpu_orch is not loaded by this server"),
				 errdetail("Functions that write need the background worker that is started with "
						   "the server."),
				 errhint("Add gpu_orch to shared_preload_libraries, set gpu_orch.database to this "
						 "database, and restart the server.")));
}

/*
 * Wake the leader, if there is one. Cheap; may be called from a commit callback. It is
 * counted as well, since a wait within a step of the leader may use up the latch.
 */
void
shmem_set_leader_latch(void)
{
	if (state == NULL)
		return;
	pg_atomic_fetch_add_u64(&state->wakes, 1);
	LWLockAcquire(state->lock, LW_SHARED);
	if (state->leader_latch != NULL)
		SetLatch(state->leader_latch);
	LWLockRelease(state->lock);
}

/*
 * Have the leader read the provider's list once more before it creates anything. A
 * list that is being read now does not count: it may be of another account, or of
 * before a person looked.
 */
void
shmem_look_first(void)
{
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	state->first_look_done = false;
	state->reconcile_asked++;
	LWLockRelease(state->lock);
}
