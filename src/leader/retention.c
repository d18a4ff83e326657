/*
 * leader/retention.c
 *	  Removing what is over, in small steps.
 *
 * Each step is a transaction of its own over one window of one rule, and is rested from for
 * some times as long as it took, so that removing takes a twentieth of a core at most, however much
 * there is. Where a rule goes on is remembered here alone. Once a day it begins anew and looks at
 * all rows, those that were kept for a reason and those behind young ones too. In between it goes
 * on from the first young row: a minute in which nothing became old enough costs a glance at
 * each rule. What is removed, and why, is store/retention.c's affair.
 */
#include "postgres.h"

#include "base/clock.h"
#include "db/ext_guard.h"
#include "leader/leader.h"
#include "portability/instr_time.h"
#include "store/retention.h"

/* The time until all rules are glanced at again when there is nothing to do. */
#define RETENTION_INTERVAL USECS_PER_MINUTE

/* Rest so many times as long as a step took, and at most so long. */
#define RETENTION_REST 19
#define RETENTION_REST_MAX USECS_PER_MINUTE

/* How often a rule begins anew, and the least time between two checkpoints of it. */
#define RETENTION_AGAIN USECS_PER_DAY

/* What the leader remembers of a rule. */
typedef struct RetentionWalk
{
	RetentionPlace place;
	TimestampTz began;		  /* when the walk began at the beginning; 0: it has yet to */
	bool all;				  /* it goes on to the last row, behind young ones too */
	RetentionPlace young;	  /* before the first young one of these */
	int64 removed;			  /* since the last checkpoint */
	TimestampTz checkpointed; /* 0: not yet */
} RetentionWalk;

/* One step over one rule. */
typedef struct RetentionStep
{
	int rule;
	RetentionWalk walk; /* as it is once the step is committed */
	bool more;			/* there was a full window */
} RetentionStep;

static void
take_step(Leader *leader, void *arg)
{
	RetentionStep *step = arg;
	RetentionWalk *walk = &step->walk;
	RetentionSum sum = { 0 };
	TimestampTz now = clock_now();

	if (ext_is_older_schema())
		return;
	if (walk->began == 0 || walk->began > now || now - walk->began >= RETENTION_AGAIN)
	{
		walk->place = RETENTION_BEGIN;
		walk->young = RETENTION_NOWHERE;
		walk->all = true;
		walk->began = now;
	}
	step->more =
		store_retention_step(step->rule, &walk->place, walk->all ? &walk->young : NULL, &sum, now);
	walk->removed += sum.rows[0];
	if (!step->more && walk->all)
	{
		walk->all = false;
		if (walk->young.id != RETENTION_NOWHERE.id)
			walk->place = walk->young;
	}
	if (!step->more && walk->removed > 0 &&
		(walk->checkpointed == 0 || walk->checkpointed > now ||
		 now - walk->checkpointed >= RETENTION_AGAIN))
	{
		store_retention_checkpoint(step->rule, walk->removed, now);
		walk->removed = 0;
		walk->checkpointed = now;
	}
}

/* When a step that was put off by a clock that was then set back is due at the latest. */
void
leader_retention_clip(Leader *leader, TimestampTz now)
{
	leader->next_retention = Min(leader->next_retention, now + RETENTION_REST_MAX);
}

/* Remove a little of what is over, if it is time. */
void
leader_retention(Leader *leader, TimestampTz now)
{
	static RetentionWalk walks[RETENTION_RULES];
	static int rule = 0;
	static int64 epoch = 0;

	/* The rows may be those of another installation. */
	if (epoch != leader->epoch)
	{
		memset(walks, 0, sizeof(walks));
		rule = 0;
		epoch = leader->epoch;
	}
	else if (leader->next_retention > now)
		return;
	for (; rule < RETENTION_RULES; rule++)
	{
		RetentionStep step = { .rule = rule, .walk = walks[rule] };
		instr_time start;
		instr_time took;

		INSTR_TIME_SET_CURRENT(start);
		if (leader_step(leader, "removing what is over", take_step, &step))
			walks[rule] = step.walk;
		INSTR_TIME_SET_CURRENT(took);
		INSTR_TIME_SUBTRACT(took, start);
		if (step.more)
		{
			leader->next_retention = clock_now() +
				Min(RETENTION_REST * (int64) INSTR_TIME_GET_MICROSEC(took), RETENTION_REST_MAX);
			return;
		}
	}
	rule = 0;
	leader->next_retention = clock_now() + RETENTION_INTERVAL;
}
