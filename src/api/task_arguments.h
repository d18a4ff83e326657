/*
 * api/task_arguments.h
 *	  What a task may be that an application submits.
 */
#ifndef GPU_ORCH_API_TASK_ARGUMENTS_H
#define GPU_ORCH_API_TASK_ARGUMENTS_H

#include "api/check.h"
#include "store/task.h"

#define TASK_LATER_ARGUMENTS 4

extern const char *const task_later_arguments[TASK_LATER_ARGUMENTS];

extern int32 task_tenant(const char *name);
extern void task_default(NewTask *task);
extern void task_set_parents(NewTask *task, int64 *parents, int n);
extern void task_refuse_later(const char *argument);
extern void task_check(NewTask *task);
extern void task_read(NewTask *task, const JsonbValue *element);

#endif
