/*
 * store_queue.h
 *	  The queue of claimable tasks.
 */
#ifndef GPU_ORCH_STORE_QUEUE_H
#define GPU_ORCH_STORE_QUEUE_H

#include "spi_util.h"

/* A task that stands somewhere, with what it carries from state to state. */
typedef struct TaskSlot
{
	int64		task_id;
	int64		shape;
	int32		priority;
	int32		tenant;			/* 0: the default tenant */
	int32		attempt;		/* number of the next attempt, or of the running one */
	int32		faults;
	int32		losses;
} TaskSlot;

/* Claimable tasks of one shape, counted up to a limit. */
typedef struct ShapeCount
{
	int64		shape;
	int64		count;
} ShapeCount;

/* Whether the worker that claims serves a shape. */
typedef bool (*ShapeTest) (int64 shape, void *arg);

typedef struct QueueScan QueueScan;

extern QueueScan *store_queue_open(ShapeTest test, void *arg);
extern bool store_queue_take(QueueScan *scan, TaskSlot *slot);
extern void store_queue_close(QueueScan *scan);

extern void store_queue_put(const TaskSlot *slot);
extern bool store_queue_remove(int64 task_id, TaskSlot *slot);
extern int	store_queue_count(ShapeCount **counts, int64 limit);

extern void store_queue_slot_args(SpiArgs *args, const TaskSlot *slot);
extern void store_queue_slot_read(TaskSlot *slot, uint64 row);

#endif
