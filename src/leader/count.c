/*
 * leader/count.c
 *	  What the leader counts about once a second, for views that must not count.
 *
 * Each count is a step of its own. A long one is rested from for some times as long, so
 * that counting takes a fifth of a core at most, however much there is to count.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/inject.h"
#include "db/ext_guard.h"
#include "leader/leader.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "store/usage.h"

/* The time between two counts, and at most, in microseconds. */
#define COUNT_INTERVAL USECS_PER_SEC
#define COUNT_REST_MAX USECS_PER_MINUTE

/* Rest so many times as long as a count took. */
#define COUNT_REST 4

static void
count_queue(Leader *leader, void *arg)
{
	INJECT("leader.count");
	if (!ext_is_older_schema())
		store_queue_depth_count(clock_now());
}

static void
count_usage(Leader *leader, void *arg)
{
	if (!ext_is_older_schema())
		*(int64 *) arg = store_usage_count(clock_now());
}

static void
sum_day(Leader *leader, void *arg)
{
	if (!ext_is_older_schema())
		store_spend_sum_day(clock_now());
}

/* When a count that was put off by a clock that was then set back is due at the latest. */
void
leader_count_clip(Leader *leader, TimestampTz now)
{
	leader->next_count = Min(leader->next_count, now + COUNT_REST_MAX);
}

/* Count, if it is time. */
void
leader_count(Leader *leader, TimestampTz now)
{
	instr_time start;
	instr_time took;
	int64 ended = 0;

	if (leader->next_count > now)
		return;
	INSTR_TIME_SET_CURRENT(start);
	(void) leader_step(leader, "counting the queue", count_queue, NULL);
	(void) leader_step(leader, "counting what ended", count_usage, &ended);
	(void) leader_step(leader, "summing up a day", sum_day, NULL);
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);
	leader->next_count = clock_now() +
		Min(Max(COUNT_REST * (int64) INSTR_TIME_GET_MICROSEC(took), COUNT_INTERVAL),
			COUNT_REST_MAX);
}
