/*
 * store/running.h
 *	  A tenant's limit of running tasks, kept exactly.
 */
#ifndef GPU_ORCH_STORE_RUNNING_H
#define GPU_ORCH_STORE_RUNNING_H

/* One place of a tenant's limit, from the count until the lease stands. */
typedef struct RunningPlace
{
	bool counted; /* the tenant has a limit */
	Oid leases;	  /* the table of leases */
	int32 tenant;
} RunningPlace;

extern bool store_running_enter(int32 tenant, RunningPlace *place);
extern void store_running_leave(const RunningPlace *place);

#endif
