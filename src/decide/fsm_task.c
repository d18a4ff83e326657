/*
 * decide/fsm_task.c
 *	  What becomes of a task when an attempt ends.
 *
 * Pure: no PostgreSQL header, no clock, no setting. Faults of the task are
 * counted against max_attempts, losses of the platform against max_losses, and
 * neither against the other: a good task must survive a few lost pods, and a task
 * that kills its workers must not kill them for ever.
 */
#include <stddef.h>
#include <string.h>

#include "decide/fsm_task.h"

/* Decide. Depends on nothing but its argument. */
TaskVerdict
fsm_task_after(const AttemptEnd *end)
{
	TaskVerdict verdict = { NEXT_READY, end->faults, end->losses, false };
	bool platform;

	if (end->outcome == OUTCOME_SUCCEEDED)
	{
		verdict.next = NEXT_SUCCEEDED;
		return verdict;
	}
	platform = end->outcome == OUTCOME_LOST ||
		(end->outcome == OUTCOME_FAILED && end->failure == FAILURE_PLATFORM);
	if (platform)
		verdict.losses++;
	else if (end->outcome != OUTCOME_RELEASED)
		verdict.faults++;

	if (end->cancel_requested)
		verdict.next = NEXT_CANCELLED;
	else if (end->outcome == OUTCOME_FAILED && (end->failure == FAILURE_REJECTED || !end->retry))
		verdict.next = NEXT_FAILED;
	else if (platform && verdict.losses >= end->max_losses)
	{
		verdict.next = NEXT_FAILED;
		verdict.quarantined = true;
	}
	else if (!platform && verdict.faults >= end->max_attempts)
		verdict.next = NEXT_FAILED;
	else if (end->outcome == OUTCOME_FAILED || end->outcome == OUTCOME_TIMEOUT)
		verdict.next = NEXT_RETRY;
	return verdict;
}

/* The name that the attempt table keeps. */
const char *
fsm_task_outcome_name(AttemptOutcome outcome)
{
	static const char *const names[] = { "succeeded", "failed", "timeout", "lost", "released" };

	return names[outcome];
}

/* The name that the attempt table keeps; NULL for no failure. */
const char *
fsm_task_failure_name(FailureClass failure)
{
	static const char *const names[] = { NULL, "task", "platform", "rejected" };

	return names[failure];
}

/* Read a failure class as callers write it; false if there is none of that name. */
bool
fsm_task_failure_parse(const char *name, FailureClass *failure)
{
	for (int i = FAILURE_TASK; i <= FAILURE_REJECTED; i++)
		if (strcmp(name, fsm_task_failure_name((FailureClass) i)) == 0)
		{
			*failure = (FailureClass) i;
			return true;
		}
	return false;
}
