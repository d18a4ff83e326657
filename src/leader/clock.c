/*
 * leader/clock.c
 *	  What follows when somebody sets the server's clock.
 *
 * A step shows against the time since the machine's start, which nobody sets. Open
 * rows are moved along, so that nothing is paid for, proved or overdue for time that
 * did not pass, and nothing waits for time that passes twice. Workers are given time
 * to speak again. Must decide nothing: what a time means is its reader's affair.
 */
#include "postgres.h"

#include "base/clock.h"
#include "leader/leader.h"
#include "store/clock.h"
#include "store/event.h"
#include "store/spend.h"
#include "utils/timestamp.h"

/* A shorter step makes nobody silent. */
#define HARMLESS_STEP USECS_PER_SEC

/* Move the rows along. */
static void
follow(Leader *leader, void *arg)
{
	leader->clocks_compared = false;
	store_spend_shift(leader->stepped, leader->stepped_since);
	store_clock_shift(leader->stepped, leader->stepped_since);
	store_event("clock_step", "installation",
				store_detail("seconds", psprintf("%.3f", (double) leader->stepped / USECS_PER_SEC)),
				clock_now());
}

/* Let every silence count from now on, also where the time that it counted from is yet to come. */
static void
give_grace(int64 step)
{
	ShmemState *state = shmem_state();

	if (step > -HARMLESS_STEP && step < HARMLESS_STEP)
		return;
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	state->grace_since = clock_now();
	LWLockRelease(state->lock);
}

/*
 * Find out whether the server's clock was set since the last call, and make up for it. To be
 * called outside of transactions, before anything is ended for its age. Returns false if the rows
 * could not be moved along: the next call tries again.
 */
bool
leader_watch_clock(Leader *leader)
{
	TimestampTz since;
	int64 step = clock_step(&since);

	if (step != 0)
	{
		give_grace(step);
		leader_look_clock_set(leader, step);
	}
	if (leader->stepped == 0)
		leader->stepped_since = since;
	leader->stepped += step;
	if (leader->stepped == 0)
		return true;
	if (!leader_step(leader, "following the clock", follow, NULL))
		return false;
	leader->stepped = 0;
	return true;
}
