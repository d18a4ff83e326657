/*
 * base/claim_stats.c
 *	  Counters of what workers' calls did, in shared memory.
 *
 * A call adds to two or three atomic counters when it is over, and to nothing
 * else: no lock, no row, no message. So a call that raises an error is not
 * counted, a call whose transaction rolls back later is, and the counters begin
 * at zero when the server does. They explain and never decide. Latencies are of
 * the machine's monotonic clock, not of base/clock.c's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "base/claim_stats.h"
#include "base/clock.h"
#include "fmgr.h"
#include "funcapi.h"
#include "port/pg_bitutils.h"
#include "base/shmem.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(gpu_orch_claim_counters);
PG_FUNCTION_INFO_V1(gpu_orch_reset_claim_stats);

static const char *const call_names[CLAIM_CALLS] = {
	[CALL_CLAIM] = "claim_tasks",	   [CALL_COMPLETE_AND_CLAIM] = "complete_and_claim",
	[CALL_COMPLETE] = "complete_task", [CALL_FAIL] = "fail_task",
	[CALL_RELEASE] = "release_task",
};

/* Rows that the call of this process passed over so far. */
static int skipped = 0;

/* Set all counters to zero; begins with the atomics themselves where they are new. */
static void
clear(ClaimStats *stats, void (*set)(volatile pg_atomic_uint64 *, uint64))
{
	set(&stats->since, (uint64) clock_now());
	for (int c = 0; c < CLAIM_CALLS; c++)
	{
		CallStats *call = &stats->calls[c];

		set(&call->claimed, 0);
		set(&call->empty, 0);
		set(&call->skipped, 0);
		set(&call->ended, 0);
		set(&call->repeated, 0);
		set(&call->fenced, 0);
		for (int i = 0; i < LATENCY_BUCKETS; i++)
			set(&call->latency[i], 0);
	}
}

/* Make the counters, in shared memory that nobody else sees yet. */
void
claim_stats_init(ClaimStats *stats)
{
	clear(stats, pg_atomic_init_u64);
}

/* A call begins. */
void
claim_stats_begin(ClaimMeter *meter, ClaimCall call)
{
	meter->call = call;
	INSTR_TIME_SET_CURRENT(meter->start);
	skipped = 0;
}

/* The running call of this process passed over a ready row that another claim was at. */
void
claim_stats_skip(void)
{
	skipped++;
}

/*
 * A call is over: what became of its attempt, and how many tasks it claimed, or
 * CLAIMED_NOT_ASKED. Needs preloading, which every call that is counted does.
 */
void
claim_stats_count(const ClaimMeter *meter, EndAnswer answer, int claimed)
{
	CallStats *stats = &shmem_state()->claims.calls[meter->call];
	instr_time took;
	uint64 microseconds;
	int bucket;

	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, meter->start);
	microseconds = INSTR_TIME_GET_MICROSEC(took);
	bucket = microseconds == 0 ? 0 : pg_leftmost_one_pos64(microseconds) + 1;
	pg_atomic_fetch_add_u64(&stats->latency[Min(bucket, LATENCY_BUCKETS - 1)], 1);

	if (claimed > 0)
		pg_atomic_fetch_add_u64(&stats->claimed, claimed);
	else if (claimed == 0)
		pg_atomic_fetch_add_u64(&stats->empty, 1);
	if (skipped > 0)
		pg_atomic_fetch_add_u64(&stats->skipped, skipped);
	if (answer == END_ENDED)
		pg_atomic_fetch_add_u64(&stats->ended, 1);
	else if (answer == END_REPEATED)
		pg_atomic_fetch_add_u64(&stats->repeated, 1);
	else if (answer == END_FENCED)
		pg_atomic_fetch_add_u64(&stats->fenced, 1);
}

static Datum
read_counter(pg_atomic_uint64 *counter)
{
	return Int64GetDatum((int64) pg_atomic_read_u64(counter));
}

/* SQL: claim_counters() -> one row for each call; none where the library is not preloaded. */
Datum
gpu_orch_claim_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int c = 0; c < CLAIM_CALLS && shmem_available(); c++)
	{
		ClaimStats *stats = &shmem_state()->claims;
		CallStats *call = &stats->calls[c];
		Datum latency[LATENCY_BUCKETS];
		Datum values[9];
		bool nulls[9] = { false };

		for (int i = 0; i < LATENCY_BUCKETS; i++)
			latency[i] = read_counter(&call->latency[i]);
		values[0] = CStringGetTextDatum(call_names[c]);
		values[1] = read_counter(&call->claimed);
		values[2] = read_counter(&call->empty);
		values[3] = read_counter(&call->skipped);
		values[4] = read_counter(&call->ended);
		values[5] = read_counter(&call->repeated);
		values[6] = read_counter(&call->fenced);
		values[7] = PointerGetDatum(construct_array(latency, LATENCY_BUCKETS, INT8OID, 8,
													FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		values[8] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&stats->since));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static void
set_counter(volatile pg_atomic_uint64 *counter, uint64 value)
{
	pg_atomic_write_u64(counter, value);
}

/* SQL: reset_claim_stats() -> void. Of the whole server; calls under way may still count. */
Datum
gpu_orch_reset_claim_stats(PG_FUNCTION_ARGS)
{
	shmem_require();
	clear(&shmem_state()->claims, set_counter);
	PG_RETURN_VOID();
}
