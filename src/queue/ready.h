/*
 * queue/ready.h
 *	  The queue of claimable tasks.
 */
#ifndef GPU_ORCH_STORE_QUEUE_H
#define GPU_ORCH_STORE_QUEUE_H

#include "queue/ring.h"
#include "db/spi_util.h"
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
	int64 tag; /* fair share; 0: not given yet */
} TaskSlot;

/* Claimable tasks of one shape, counted up to a limit. */
typedef struct ShapeCount
{
	int64 shape;
	int64 count;
} ShapeCount;

/*
 * Whether the capabilities of the worker that claims meet a shape, unknown when no
 * such shape is stored; *model is a digest of the model that it asks for, 0 for none.
 */
typedef Verdict (*ShapeTest)(int64 shape, void *arg, uint32 *model);

typedef struct QueueScan QueueScan;

extern void store_queue_init(void);

extern QueueScan *store_queue_open(int64 capset, int64 worker, int n, ShapeTest test, void *arg);
extern bool store_queue_take(QueueScan *scan, TaskSlot *slot, Snapshot *snapshot);
extern void store_queue_close(QueueScan *scan);

extern void store_queue_tag(TaskSlot *slot, double weight);
extern bool store_queue_put(const TaskSlot *slot, double weight);
extern bool store_queue_remove(int64 task_id, bool wait, TaskSlot *slot);
extern void store_queue_served(int32 tenant, int64 microseconds);
extern int store_queue_count(ShapeCount **counts, int64 limit);
extern bool store_queue_has_room(int64 shape);
extern void store_queue_recheck(void);
extern int64 store_queue_age(TimestampTz now);

extern void store_queue_slot_args(SpiArgs *args, const TaskSlot *slot);
extern void store_queue_slot_read(TaskSlot *slot, uint64 row);

#endif
