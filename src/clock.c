/*
 * clock.c
 *	  The time that every decision is taken at: the server's clock plus an offset
 *	  that tests set.
 *
 * Our C code calls clock_now() and our SQL calls gpu_orch.clock(), never now()
 * or GetCurrentTimestamp(), so that a test moves hours in one call. The offset
 * lives in shared memory; without preloading it is zero. It may be changed only
 * where gpu_orch.test_clock was set at server start.
 */
#include "postgres.h"

#include "clock.h"
#include "errors.h"
#include "fmgr.h"
#include "guc.h"
#include "shmem.h"
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

/* SQL: clock() -> timestamptz */
Datum
gpu_orch_clock(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(clock_now());
}

/*
 * SQL: advance_clock(by interval) -> timestamptz. Moves the clock of the whole
 * server and wakes the leader. Raises 55000 unless gpu_orch.test_clock is on.
 */
Datum
gpu_orch_advance_clock(PG_FUNCTION_ARGS)
{
	Interval   *by = PG_GETARG_INTERVAL_P(0);
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
	after = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													TimestampTzGetDatum(before),
													IntervalPGetDatum(by)));
	pg_atomic_fetch_add_u64(&shmem_state()->clock_offset, after - before);
	shmem_set_leader_latch();
	PG_RETURN_TIMESTAMPTZ(clock_now());
}
