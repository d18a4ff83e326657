/*
 * decide/fsm_task.h
 *	  What becomes of a task when an attempt ends. Pure.
 */
#ifndef GPU_ORCH_FSM_TASK_H
#define GPU_ORCH_FSM_TASK_H

#include <stdbool.h>

typedef enum AttemptOutcome
{
	OUTCOME_SUCCEEDED,
	OUTCOME_FAILED,
	OUTCOME_TIMEOUT, /* the task's own deadline passed */
	OUTCOME_LOST,	 /* the worker is gone, or the claim's answer was */
	OUTCOME_RELEASED /* given back untouched */
} AttemptOutcome;

typedef enum FailureClass
{
	FAILURE_NONE,
	FAILURE_TASK,
	FAILURE_PLATFORM,
	FAILURE_REJECTED
} FailureClass;

typedef enum TaskNext
{
	NEXT_SUCCEEDED,
	NEXT_FAILED,
	NEXT_CANCELLED,
	NEXT_READY, /* back to its place, at once */
	NEXT_RETRY	/* back after a delay */
} TaskNext;

typedef struct AttemptEnd
{
	AttemptOutcome outcome;
	FailureClass failure;
	bool retry; /* the worker thinks that another attempt may help */
	bool cancel_requested;
	int faults; /* ended attempts that were the task's fault, before this one */
	int losses; /* ended attempts that were the platform's fault, before this one */
	int max_attempts;
	int max_losses;
} AttemptEnd;

typedef struct TaskVerdict
{
	TaskNext next;
	int faults; /* after this attempt */
	int losses;
	bool quarantined; /* failed for losing too many workers */
} TaskVerdict;

extern TaskVerdict fsm_task_after(const AttemptEnd *end);
extern const char *fsm_task_outcome_name(AttemptOutcome outcome);
extern const char *fsm_task_failure_name(FailureClass failure);
extern bool fsm_task_failure_parse(const char *name, FailureClass *failure);

#endif
