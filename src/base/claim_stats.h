/*
 * base/claim_stats.h
 *	  Counters of what workers' calls did, in shared memory.
 */
#ifndef GPU_ORCH_CLAIM_STATS_H
#define GPU_ORCH_CLAIM_STATS_H

#include "port/atomics.h"
#include "portability/instr_time.h"

/* The calls that are counted, each by itself. */
typedef enum ClaimCall
{
	CALL_CLAIM,
	CALL_COMPLETE_AND_CLAIM,
	CALL_COMPLETE,
	CALL_FAIL,
	CALL_RELEASE
} ClaimCall;

#define CLAIM_CALLS (CALL_RELEASE + 1)

/*
 * Bucket 0 holds what took less than a microsecond, bucket i what took from
 * 2^(i-1) to less than 2^i, and the last one all from 2^20, a second, on.
 */
#define LATENCY_BUCKETS 22

typedef struct CallStats
{
	pg_atomic_uint64 claimed;  /* tasks */
	pg_atomic_uint64 empty;	   /* calls that asked for tasks and got none */
	pg_atomic_uint64 skipped;  /* ready rows passed over, as another claim was at them */
	pg_atomic_uint64 ended;	   /* calls that ended an attempt */
	pg_atomic_uint64 repeated; /* calls that repeated an end that took place */
	pg_atomic_uint64 fenced;   /* calls whose lease was no longer the worker's */
	pg_atomic_uint64 latency[LATENCY_BUCKETS]; /* calls */
} CallStats;

typedef struct ClaimStats
{
	pg_atomic_uint64 since; /* TimestampTz */
	CallStats calls[CLAIM_CALLS];
} ClaimStats;

/* A call while it runs; lives on the stack of the function called. */
typedef struct ClaimMeter
{
	ClaimCall call;
	instr_time start;
} ClaimMeter;

/* What became of the attempt that a call is about. */
typedef enum EndAnswer
{
	END_NONE, /* the call is about none */
	END_ENDED,
	END_REPEATED,
	END_FENCED
} EndAnswer;

/* In place of a number of claimed tasks: the call asked for none. */
#define CLAIMED_NOT_ASKED (-1)

extern void claim_stats_init(ClaimStats *stats);
extern void claim_stats_begin(ClaimMeter *meter, ClaimCall call);
extern void claim_stats_skip(void);
extern void claim_stats_count(const ClaimMeter *meter, EndAnswer answer, int claimed);

#endif
