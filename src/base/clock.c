/*
 * base/clock.c
 *	  The time that every decision is taken at: the server's clock plus an offset
 *	  that tests set.
 *
 * Our C code calls clock_now() and our SQL calls gpu_orch.clock(), never now()
 * or GetCurrentTimestamp(), so that a test moves hours in one call. The offset
 * lives in shared memory; without preloading it is zero. It may be changed only
 * where gpu_orch.test_clock was set at server start.
 */
#include "postgres.h"

#include <time.h>

#include "base/clock.h"
#include "base/errors.h"
#include "fmgr.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(gpu_orch_clock);
PG_FUNCTION_INFO_V1(gpu_orch_advance_clock);

/*
 * The current time. Needs no transaction and no lock.
 */
TimestampTz
clock_now(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (shmem_available())
		now += (int64) pg_atomic_read_u64(&shmem_state()->clock_offset);
	return now;
}

/* A difference between two clocks that only a step makes in one of them, in microseconds. */
#define LEAST_STEP (USECS_PER_SEC / 2)

/* The time since the machine's start, in microseconds: nobody sets it. */
static int64
time_passed(void)
{
	struct timespec passed;

#ifdef CLOCK_BOOTTIME
	clock_gettime(CLOCK_BOOTTIME, &passed);
#else
	clock_gettime(CLOCK_MONOTONIC, &passed);
#endif
	return passed.tv_sec * USECS_PER_SEC + passed.tv_nsec / 1000;
}

/* How often two clocks are read, until nothing came between. */
#define MAX_READINGS 10

/*
 * How far the server's clock is ahead of the time that passed, in microseconds. False
 * if the two could not be read at the same moment, since the machine is too busy.
 */
static bool
read_clocks(int64 *ahead)
{
	for (int i = 0; i < MAX_READINGS; i++)
	{
		int64 before = time_passed();
		TimestampTz now = GetCurrentTimestamp();

		*ahead = now - before;
		if (time_passed() - before < LEAST_STEP / 10)
			return true;
	}
	return false;
}

/*
 * By how many microseconds the server's clock was set forward, or back, since this
 * process called last; 0 if it was not. *since is what clock_now() was then, 0 at the
 * first call. Time that advance_clock() lets pass is no step.
 */
int64
clock_step(TimestampTz *since)
{
	static TimestampTz last = 0;
	static int64 ahead = 0;
	int64 ahead_now;
	int64 step;

	*since = last;
	if (!read_clocks(&ahead_now))
		return 0;
	if (shmem_available())
		ahead_now += (int64) pg_atomic_read_u64(&shmem_state()->clock_stepped);
	step = last == 0 ? 0 : ahead_now - ahead;
	if (step > -LEAST_STEP && step < LEAST_STEP)
		step = 0;
	if (last == 0 || step != 0)
		ahead = ahead_now;
	last = clock_now();
	return step;
}

/* SQL: clock() -> timestamptz */
Datum
gpu_orch_clock(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(clock_now());
}

/*
 * SQL: advance_clock(by interval, passed boolean) -> timestamptz. Moves the clock of
 * the whole server and wakes the leader: as if the time had passed, or as if somebody
 * had set the clock. Raises 55000 unless gpu_orch.test_clock is on.
 */
Datum
gpu_orch_advance_clock(PG_FUNCTION_ARGS)
{
	Interval *by = PG_GETARG_INTERVAL_P(0);
	TimestampTz before;
	TimestampTz after;

	shmem_require();
	if (!guc_test_clock)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the clock of gpu_orch cannot be moved"),
				 errhint("Set gpu_orch.test_clock = on in the configuration of a test server and "
						 "restart it.")));
	before = clock_now();
	after = DatumGetTimestampTz(DirectFunctionCall2(
		timestamptz_pl_interval, TimestampTzGetDatum(before), IntervalPGetDatum(by)));
	pg_atomic_fetch_add_u64(&shmem_state()->clock_offset, after - before);
	if (!PG_GETARG_BOOL(1))
		pg_atomic_fetch_add_u64(&shmem_state()->clock_stepped, after - before);
	shmem_set_leader_latch();
	PG_RETURN_TIMESTAMPTZ(clock_now());
}
