/*
 * base/shmem.h
 *	  The one struct that we keep in shared memory.
 */
#ifndef GPU_ORCH_SHMEM_H
#define GPU_ORCH_SHMEM_H

#include "base/claim_stats.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "base/provider_stats.h"
#include "base/rivals.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#define SHMEM_TEXT 256

/* What a commit may ask of the leader; see base/wake.h. */
#define WAKE_DECIDE 1 /* look again: something changed */
#define WAKE_NOTIFY 2 /* work became claimable: tell the listeners */
#define WAKE_ADMIT 4  /* what waits may be released */

/* Flags that have waiting tasks looked at, and the listeners told. */
#define ADMIT_FLAGS (WAKE_ADMIT | WAKE_NOTIFY)

/* Counters of one cycle, in the words of run_cycle(). */
typedef struct CycleSummary
{
	int64 queued;
	int64 spawning;
	int64 initializing;
	int64 active;
	int64 idle;
	int64 busy;
	int64 draining;
	int64 terminating;
	int64 total;
	int64 desired;
	int64 workers_promoted;
	int64 workers_failed;
	int64 workers_spawned;
	int64 workers_terminated;
	int64 tasks_reset;
} CycleSummary;

/* What the last complete reconcile saw. */
typedef struct ReconcileSummary
{
	int64 pods;	   /* pods of ours that the provider showed */
	int64 foreign; /* pods of the account that are not ours */
	int64 adopted;
	int64 orphans; /* pods of ours without a row that wants them */
	int64 missing; /* rows whose pod was not shown */
} ReconcileSummary;

typedef struct ShmemState
{
	LWLock *lock; /* guards the fields below it, not the atomics */

	/* the leader: who it is and how it does */
	int leader_pid;				/* 0: none */
	struct Latch *leader_latch; /* of leader_pid's PGPROC; never a private latch */
	TimestampTz leader_started;
	TimestampTz last_tick;
	TimestampTz grace_since; /* silence of workers before this proves nothing */
	TimestampTz last_error_at;
	int failed_starts;	 /* consecutive, slept off before connecting */
	int64 leader_memory; /* bytes in its memory contexts after the last tick */
	char leader_doing[SHMEM_TEXT];
	char last_error[SHMEM_TEXT];

	/* the provider, as the leader sees it */
	bool api_ok;
	bool first_look_done;
	TimestampTz api_last_success;
	TimestampTz api_retry_at; /* when all that waits will have been tried again */
	char api_error[SHMEM_TEXT];
	TimestampTz last_reconcile;
	ProviderStats provider;

	CycleSummary cycle;
	ReconcileSummary reconcile;

	Rival rivals[RIVALS];

	/* requests of run_cycle() and reconcile_now(): asked for, and answered up to */
	uint64 cycle_asked;
	uint64 cycle_done;
	bool cycle_failed; /* a step of the newest answered cycle did */
	uint64 reconcile_asked;
	uint64 reconcile_done;
	bool reconcile_failed; /* the newest answered reconcile could not be completed */
	ConditionVariable answered;

	pg_atomic_uint64 wakes;			/* how often somebody set the leader's latch */
	pg_atomic_uint32 wake_flags;	/* WAKE_* not yet taken by the leader */
	pg_atomic_uint64 clock_offset;	/* microseconds, two's complement */
	pg_atomic_uint64 clock_stepped; /* that part of it in which no time passed */
	pg_atomic_uint64 ticks;
	pg_atomic_uint64 tasks_reset; /* leases ended by loss or deadline, ever */
	ClaimStats claims;
} ShmemState;

extern void shmem_init_hooks(void);
extern bool shmem_available(void);
extern ShmemState *shmem_state(void);
extern void shmem_require(void);
extern void shmem_set_leader_latch(void);
extern void shmem_look_first(void);

#endif
