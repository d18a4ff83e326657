/*
 * store/task.h
 *	  Tasks and their shapes.
 */
#ifndef GPU_ORCH_STORE_TASK_H
#define GPU_ORCH_STORE_TASK_H

#include "datatype/timestamp.h"
#include "queue/ready.h"

/* SQL: whether a task has not ended: it waits, is ready or runs. */
#define TASK_STANDS(task) \
	"(EXISTS (SELECT 1 FROM gpu_orch.waiting x WHERE x.task_id = " task ")" \
	" OR EXISTS (SELECT 1 FROM gpu_orch.ready_queue x WHERE x.task_id = " task ")" \
	" OR EXISTS (SELECT 1 FROM gpu_orch.lease x WHERE x.task_id = " task "))"

/* What stands in task.payload once the payload is erased, also as SQL, and in attempt.error. */
#define ERASED_KEY "gpu_orch"
#define ERASED_VALUE "erased"
#define ERASED_PAYLOAD "'{\"" ERASED_KEY "\": \"" ERASED_VALUE "\"}'::jsonb"
#define ERASED_ERROR "'erased'"

/* What a caller submits; checked before it comes here. */
typedef struct NewTask
{
	const char *kind;
	Jsonb *payload;
	Jsonb *requirements;
	int32 priority;
	int32 tenant;
	TimestampTz run_at; /* 0: at once */
	int32 max_attempts;
	Interval *timeout; /* NULL: none */
	const char *idempotency_key;
	const char *traceparent;
	const char *submitted_by;
	int64 *parents;
	int n_parents;
} NewTask;

/* What is fixed about a task. */
typedef struct TaskRow
{
	int64 id;
	int64 shape;
	int32 tenant;
	int32 priority;
	int32 max_attempts;
	TimestampTz run_at; /* 0: at once */
} TaskRow;

/* What a claim hands out of a task; the Datums are of the columns' types, 0 for null. */
typedef struct TaskBody
{
	Datum kind;
	Datum payload;
	Datum requirements;
	Datum traceparent;
	int64 timeout; /* in microseconds; 0: none */
} TaskBody;

/*
 * How long an interval is, in microseconds. A day has 24 hours and a month 30 days, so
 * that no time zone has a say. The interval is finite and not longer than a year.
 */
static inline int64
interval_length(const Interval *interval)
{
	return interval->time +
		(interval->day + interval->month * (int64) DAYS_PER_MONTH) * USECS_PER_DAY;
}

/* The shape of the task submitted last, for the next one of the same call. */
typedef struct ShapeMemo
{
	MemoryContext context; /* lives as long as the call */
	char *form;			   /* NULL: none */
} ShapeMemo;

extern int64 store_task_submit(const NewTask *task, ShapeMemo *memo, TimestampTz now);
extern bool store_task_body(const TaskSlot *slot, Snapshot snapshot, TaskBody *body);
extern int32 store_task_max_attempts(int64 task_id);
extern bool store_task_tenant(int64 task_id, int32 *tenant);
extern bool store_task_lock(int64 task_id, TaskRow *task);
extern void store_task_lock_places(void);
extern bool store_task_stands(int64 task_id);
extern bool store_task_is_erased(int64 task_id);
extern bool store_task_parents_exist(const int64 *parents, int n_parents, Oid role, TimestampTz now,
									 int64 *missing);

extern bool store_shape_load(int64 shape, char **kind, Jsonb **requirements);

#endif
