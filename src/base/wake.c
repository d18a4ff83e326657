/*
 * base/wake.c
 *	  Waking the leader when a transaction commits.
 *
 * A function that made work claimable, or ended some, calls wake_at_commit();
 * when its transaction commits, the leader's latch is set once. A wake-up lost
 * or in vain costs time, never correctness: the leader looks at the tables anew
 * at each tick.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/wake.h"

static uint32 pending = 0;

static void
at_commit(XactEvent event, void *arg)
{
	uint32 flags = pending;
	uint32 before;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			pending = 0;
			return;
		default:
			return;
	}
	pending = 0;
	if (flags == 0 || !shmem_available())
		return;
	before = pg_atomic_fetch_or_u32(&shmem_state()->wake_flags, flags);
	if ((before | flags) != before)
		shmem_set_leader_latch();
}

/* Register the commit callback. To be called once, from _PG_init. */
void
wake_init(void)
{
	RegisterXactCallback(at_commit, NULL);
}

/*
 * Wake the leader with WAKE_* flags if and when the current transaction commits.
 */
void
wake_at_commit(uint32 flags)
{
	pending |= flags;
}

/*
 * The flags that commits have set and the leader has not taken. While a flag is
 * set, further commits do not wake the leader for it.
 */
uint32
wake_pending(void)
{
	return pg_atomic_read_u32(&shmem_state()->wake_flags);
}

/* Take flags, before acting on them; returns those that were set. For the leader. */
uint32
wake_take(uint32 flags)
{
	return pg_atomic_fetch_and_u32(&shmem_state()->wake_flags, ~flags) & flags;
}
