/*
 * store/fleet.h
 *	  The whole fleet at one moment, what the planner makes of it, and the one way
 *	  to announce a new pod.
 */
#ifndef GPU_ORCH_STORE_FLEET_H
#define GPU_ORCH_STORE_FLEET_H

#include "decide/scale.h"
#include "base/shmem.h"
#include "store/alert.h"
#include "store/installation.h"
#include "store/pool.h"
#include "store/worker.h"

/* One pool with what it was planned from. */
typedef struct FleetPool
{
	PoolRow row;
	PlanInput input;
	PlanResult plan;
} FleetPool;

typedef struct FleetPlan
{
	Installation installation;
	FleetPool *pools;
	int n_pools;
	PlanInput external; /* workers without a pool of ours */
	PlanResult external_plan;
	AlertCase *unreadable; /* pools and workers whose rows make no sense */
	int n_unreadable;
	CycleSummary summary; /* status and, where planned, actions */
} FleetPlan;

extern bool store_fleet_plan(FleetPlan *fleet, TimestampTz now);
extern const char *store_fleet_intend(const PoolRow *pool, const Installation *installation,
									  int64 decision, const char **refused, TimestampTz now);
extern bool store_fleet_can_place(const PoolRow *pool, const char **refused, TimestampTz now);
extern void store_fleet_watch(const FleetPlan *fleet, TimestampTz now);

#endif
