/*
 * store/lease.h
 *	  Running attempts, and how they end.
 */
#ifndef GPU_ORCH_STORE_LEASE_H
#define GPU_ORCH_STORE_LEASE_H

#include "decide/fsm_task.h"
#include "queue/ready.h"
#include "utils/uuid.h"

/* One end of a running attempt, as asked for. */
typedef struct LeaseEnd
{
	AttemptOutcome outcome;
	FailureClass failure;
	bool retry;
	const char *error; /* may be NULL */
	Jsonb *result;	   /* may be NULL */
} LeaseEnd;

/* Which leases to end, of all that a condition selects. */
typedef enum LeaseSet
{
	LEASES_OF_WORKER,  /* a worker's, for others; those that somebody is at are left */
	LEASES_OF_SESSION, /* all of a worker that asks for it; waits for whoever is at one */
	LEASES_NOT_NAMED,  /* a worker's, claimed before a time and not in a list */
	LEASES_PAST_DEADLINE,
	LEASES_OF_ENDED /* claimed, or left, while their worker was being ended */
} LeaseSet;

/* A claimed task, column for column as the type claimed_task. */
#define CLAIMED_COLUMNS 10
typedef struct ClaimedTask
{
	Datum values[CLAIMED_COLUMNS];
	bool nulls[CLAIMED_COLUMNS];
} ClaimedTask;

extern void store_lease_create(const TaskSlot *slot, int64 worker, const pg_uuid_t *claimed_after,
							   TimestampTz now, Snapshot snapshot, ClaimedTask *claimed);
extern int store_lease_made_after(int64 worker, const pg_uuid_t *claimed_after,
								  ClaimedTask **claimed);
extern bool store_lease_end(int64 worker, int64 task_id, const pg_uuid_t *lease,
							const LeaseEnd *end, TimestampTz now);
extern int64 store_lease_end_all(LeaseSet set, int64 worker, TimestampTz before, Datum named,
								 const LeaseEnd *end, TimestampTz now);
extern void store_lease_demand(LeaseSet which, TimestampTz now);
extern bool store_lease_end_unheld(int64 task_id, const LeaseEnd *end, TimestampTz now);
extern void store_lease_end_without(const TaskSlot *slot, const char *why, TimestampTz now);
extern bool store_lease_progress(int64 worker, int64 task_id, const pg_uuid_t *lease,
								 const float4 *fraction, const char *stage, TimestampTz now);
extern int64 store_lease_count_worker(int64 worker, int64 limit);
extern int64 store_lease_count_tenant(int32 tenant, int64 limit);
extern Oid store_lease_table(void);

#endif
