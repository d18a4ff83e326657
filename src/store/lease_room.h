/*
 * store/lease_room.h
 *	  How many more leases a worker may take.
 */
#ifndef GPU_ORCH_STORE_LEASE_ROOM_H
#define GPU_ORCH_STORE_LEASE_ROOM_H

#include "store/worker.h"

extern void store_lease_room_init(void);
extern int store_lease_room(const WorkerCall *worker, int n);
extern void store_lease_room_claimed(int64 worker, int n);
extern void store_lease_room_ended(int64 worker);

#endif
