/*
 * queue/ready.h
 *	  The queue of claimable tasks.
 */
#ifndef GPU_ORCH_QUEUE_READY_H
#define GPU_ORCH_QUEUE_READY_H

#include "db/spi_util.h"
#include "queue/scan.h"
#include "utils/snapshot.h"

/* A task that stands somewhere, with what it carries from state to state. */
typedef struct TaskSlot
{
	int64 task_id;
	int64 shape;
	int32 priority;
	int32 tenant;  /* 0: the default tenant */
	int32 attempt; /* number of the next attempt, or of the running one */
	int32 faults;
	int32 losses;
	int64 tag;			 /* fair share; 0: not given yet */
	ItemPointerData row; /* where the task's row was seen, a hint; invalid: not known */
} TaskSlot;

/*
 * Whether the capabilities of the worker that claims meet a shape, as *matches; *model
 * is a digest of the model that it asks for, 0 for none. False when no such shape is
 * stored.
 */
typedef bool (*ShapeTest)(int64 shape, void *arg, bool *matches, uint32 *model);

typedef struct QueueClaim QueueClaim;

extern void store_queue_init(void);

extern QueueClaim *store_queue_open(int64 capset, int64 worker, int n, ShapeTest test, void *arg);
extern bool store_queue_take(QueueClaim *claim, TaskSlot *slot, Snapshot *snapshot);
extern void store_queue_close(QueueClaim *claim);

extern void store_queue_tag(TaskSlot *slot, double weight);
extern bool store_queue_put(const TaskSlot *slot, double weight);
extern bool store_queue_remove(int64 task_id, bool wait, TaskSlot *slot);
extern void store_queue_served(int32 tenant, int64 microseconds);
extern int store_queue_count(ShapeCount **counts, int64 limit);
extern bool store_queue_has_room(int64 shape, int32 tenant);
extern bool store_queue_refused(TimestampTz since, int *at, int32 *tenant);
extern void store_queue_content(int32 tenant);
extern void store_queue_recheck(void);
extern int64 store_queue_age(TimestampTz now);

extern void store_queue_slot_args(SpiArgs *args, const TaskSlot *slot);
extern void store_queue_slot_read(TaskSlot *slot, uint64 row);

#endif
