/*
 * store/waiting.h
 *	  Tasks that wait, and what lets them go on.
 */
#ifndef GPU_ORCH_STORE_WAITING_H
#define GPU_ORCH_STORE_WAITING_H

#include "queue/ready.h"

/* The columns of a TaskSlot in waiting and in lease, in the order of store_queue_slot_read(). */
#define SLOT_COLUMNS "shape, task_id, priority, tenant, attempt, faults, losses, tag"

/* How many waiting tasks one pass of the leader looks at, at each gate. */
#define ADMIT_BATCH 1000

/* The gates that a task passes on its way to being ready, in their order. */
typedef enum WaitGate
{
	GATE_SCHEDULED, /* until its time has come */
	GATE_BLOCKED,	/* until the tasks that it depends on have succeeded */
	GATE_HELD,		/* until its tenant's limit and the queue have room for its shape */
	WAIT_GATES		/* how many there are; past the last one it is ready */
} WaitGate;

extern void store_waiting_place(const TaskSlot *slot, TimestampTz due_at, bool depends_on_others,
								TimestampTz now);
extern void store_waiting_hold(const TaskSlot *slot, TimestampTz now);
extern bool store_waiting_take(int64 task_id, bool wait, TaskSlot *slot);
extern bool store_waiting_lock(int64 task_id, WaitGate gate, TaskSlot *slot);
extern bool store_waiting_pass(const TaskSlot *slot, WaitGate gate, TimestampTz now);
extern int64 store_waiting_admit(TimestampTz now, bool *made_ready, bool *more);
extern TimestampTz store_waiting_next_due(void);

#endif
