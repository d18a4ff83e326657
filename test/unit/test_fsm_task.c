/*
 * test_fsm_task.c
 *	  What becomes of a task when an attempt ends: faults and losses are counted apart.
 */
#include "decide/fsm_task.h"
#include "unit.h"

void
test_fsm_task(void)
{
	static const struct
	{
		const char *what;
		AttemptEnd end;
		TaskVerdict wants;
	} cases[] = {
		{ "a success ends it, even the last one",
		  { OUTCOME_SUCCEEDED, FAILURE_NONE, false, true, 9, 9, 1, 1 },
		  { NEXT_SUCCEEDED, 9, 9, false } },
		{ "a fault is tried again",
		  { OUTCOME_FAILED, FAILURE_TASK, true, false, 0, 0, 3, 5 },
		  { NEXT_RETRY, 1, 0, false } },
		{ "until the attempts are used up",
		  { OUTCOME_FAILED, FAILURE_TASK, true, false, 2, 0, 3, 5 },
		  { NEXT_FAILED, 3, 0, false } },
		{ "losses do not use up attempts",
		  { OUTCOME_LOST, FAILURE_NONE, true, false, 2, 3, 3, 5 },
		  { NEXT_READY, 2, 4, false } },
		{ "but too many of them quarantine it",
		  { OUTCOME_LOST, FAILURE_NONE, true, false, 0, 4, 3, 5 },
		  { NEXT_FAILED, 0, 5, true } },
		{ "a timeout is the task's fault",
		  { OUTCOME_TIMEOUT, FAILURE_NONE, true, false, 0, 0, 3, 5 },
		  { NEXT_RETRY, 1, 0, false } },
		{ "a platform failure is a loss",
		  { OUTCOME_FAILED, FAILURE_PLATFORM, true, false, 0, 0, 3, 5 },
		  { NEXT_RETRY, 0, 1, false } },
		{ "what was rejected is not tried again",
		  { OUTCOME_FAILED, FAILURE_REJECTED, true, false, 0, 0, 3, 5 },
		  { NEXT_FAILED, 1, 0, false } },
		{ "nor what the worker gave up",
		  { OUTCOME_FAILED, FAILURE_TASK, false, false, 0, 0, 3, 5 },
		  { NEXT_FAILED, 1, 0, false } },
		{ "what is released goes back and counts nothing",
		  { OUTCOME_RELEASED, FAILURE_NONE, true, false, 1, 1, 3, 5 },
		  { NEXT_READY, 1, 1, false } },
		{ "what was to be cancelled is not tried again",
		  { OUTCOME_LOST, FAILURE_NONE, true, true, 0, 0, 3, 5 },
		  { NEXT_CANCELLED, 0, 1, false } },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		TaskVerdict got = fsm_task_after(&cases[i].end);

		ok(got.next == cases[i].wants.next && got.faults == cases[i].wants.faults &&
			   got.losses == cases[i].wants.losses && got.quarantined == cases[i].wants.quarantined,
		   "task: %s", cases[i].what);
	}
}
