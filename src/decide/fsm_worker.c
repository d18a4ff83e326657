/*
 * decide/fsm_worker.c
 *	  The legal moves of a worker: from which state, for which cause, to which state.
 *
 * Pure: no PostgreSQL header, no clock, no memory of its own. It says which move is
 * legal and under which number; whether it is wise is decide/scale.c's affair, and
 * making it is store/worker.c's.
 *
 * Rules are numbered in blocks of a hundred for each state that they leave, in steps
 * of ten. One that ends in five is the external worker's form of the rule before it, or
 * came to a block whose tens are used up.
 * A number is never given to another move: events keep it for good.
 *
 * Some rules stay where they are. They name things that may arrive late or twice and
 * must then be accepted, not refused: the answer of a create whose pod was already
 * found or has already spoken, and a container that starts again and registers anew.
 */
#include <stddef.h>
#include <string.h>

#include "decide/fsm_worker.h"

const WorkerRule worker_rules[] = {
	{ 100, WS_SPAWNING, WS_INITIALIZING, WO_CLOUD, "pod_created",
	  "the provider answered with a pod" },
	{ 110, WS_SPAWNING, WS_INITIALIZING, WO_CLOUD, "pod_adopted",
	  "the pod was found in a list of the provider" },
	{ 120, WS_SPAWNING, WS_ACTIVE, WO_CLOUD, "registered",
	  "the worker spoke before any answer of the provider was read" },
	{ 130, WS_SPAWNING, WS_TERMINATED, WO_CLOUD, "create_refused",
	  "the provider refused the create" },
	{ 140, WS_SPAWNING, WS_TERMINATED, WO_CLOUD, "create_absent",
	  "the unanswered create was settled: no such pod" },
	{ 150, WS_SPAWNING, WS_TERMINATING, WO_CLOUD, "surplus",
	  "more workers than the pool may have; the create must still be looked for" },
	{ 160, WS_SPAWNING, WS_TERMINATING, WO_CLOUD, "terminate",
	  "an operator ended it; the create must still be looked for" },
	{ 170, WS_SPAWNING, WS_TERMINATING, WO_CLOUD, "kill",
	  "an operator ended the fleet; the create must still be looked for" },
	{ 180, WS_SPAWNING, WS_TERMINATED, WO_CLOUD, "not_sent",
	  "the create was called off before it was sent" },

	{ 200, WS_INITIALIZING, WS_ACTIVE, WO_CLOUD, "registered", "the worker spoke" },
	{ 210, WS_INITIALIZING, WS_INITIALIZING, WO_CLOUD, "pod_created",
	  "the answer of the create came after its pod was found in a list" },
	{ 220, WS_INITIALIZING, WS_TERMINATING, WO_CLOUD, "spawn_timeout",
	  "the worker did not speak within the spawn timeout" },
	{ 230, WS_INITIALIZING, WS_TERMINATING, WO_CLOUD, "pod_failed",
	  "the provider shows the pod failed before the worker spoke" },
	{ 240, WS_INITIALIZING, WS_TERMINATING, WO_CLOUD, "surplus",
	  "the booting pod is not wanted any more" },
	{ 250, WS_INITIALIZING, WS_TERMINATING, WO_CLOUD, "terminate", "an operator ended it" },
	{ 260, WS_INITIALIZING, WS_TERMINATING, WO_CLOUD, "kill", "an operator ended the fleet" },
	{ 270, WS_INITIALIZING, WS_TERMINATED, WO_CLOUD, "pod_gone",
	  "the provider shows the pod gone" },
	{ 280, WS_INITIALIZING, WS_TERMINATING, WO_CLOUD, "no_runtime",
	  "the pod is running, and nothing has come up in it within the spawn timeout" },
	{ 285, WS_INITIALIZING, WS_TERMINATING, WO_CLOUD, "no_gpu",
	  "the provider shows the pod running without a GPU" },
	{ 290, WS_INITIALIZING, WS_TERMINATING, WO_CLOUD, "restart_loop",
	  "its container starts again and again" },

	{ 300, WS_ACTIVE, WS_ACTIVE, WO_ANY, "registered",
	  "the worker started again; its session is a new one" },
	{ 305, WS_ACTIVE, WS_TERMINATING, WO_CLOUD, "never_claimed",
	  "it has never claimed, and tasks that it could claim have waited for long" },
	{ 310, WS_ACTIVE, WS_ACTIVE, WO_CLOUD, "pod_created",
	  "the answer of the create came after the worker spoke" },
	{ 315, WS_ACTIVE, WS_TERMINATING, WO_CLOUD, "restart_loop",
	  "its container starts again and again" },
	{ 320, WS_ACTIVE, WS_DRAINING, WO_ANY, "drain", "an operator asked for it" },
	{ 325, WS_ACTIVE, WS_TERMINATING, WO_CLOUD, "no_gpu",
	  "the provider shows the pod running without a GPU" },
	{ 330, WS_ACTIVE, WS_DRAINING, WO_CLOUD, "idle",
	  "held no lease for the idle timeout, and no demand keeps it" },
	{ 335, WS_ACTIVE, WS_TERMINATING, WO_CLOUD, "goodbye",
	  "the worker ended by itself, and said so" },
	{ 340, WS_ACTIVE, WS_DRAINING, WO_CLOUD, "surplus", "more workers than the pool may have" },
	{ 345, WS_ACTIVE, WS_TERMINATED, WO_EXTERNAL, "goodbye",
	  "the worker ended by itself, and said so; no pod of ours to delete" },
	{ 350, WS_ACTIVE, WS_DRAINING, WO_CLOUD, "max_age",
	  "older than the pool lets a worker become" },
	{ 355, WS_ACTIVE, WS_TERMINATING, WO_CLOUD, "broken", "the worker found that it cannot work" },
	{ 360, WS_ACTIVE, WS_TERMINATING, WO_CLOUD, "heartbeat_lost",
	  "silent for the heartbeat timeout" },
	{ 365, WS_ACTIVE, WS_TERMINATED, WO_EXTERNAL, "heartbeat_lost",
	  "silent for the heartbeat timeout; no pod of ours to delete" },
	{ 370, WS_ACTIVE, WS_TERMINATING, WO_CLOUD, "terminate", "an operator ended it" },
	{ 375, WS_ACTIVE, WS_TERMINATED, WO_EXTERNAL, "terminate",
	  "an operator ended it; no pod of ours to delete" },
	{ 380, WS_ACTIVE, WS_TERMINATING, WO_CLOUD, "kill", "an operator ended the fleet" },
	{ 385, WS_ACTIVE, WS_TERMINATED, WO_EXTERNAL, "broken",
	  "the worker found that it cannot work; no pod of ours to delete" },
	{ 390, WS_ACTIVE, WS_TERMINATED, WO_CLOUD, "pod_gone", "the provider shows the pod gone" },
	{ 395, WS_ACTIVE, WS_INITIALIZING, WO_CLOUD, "pod_rebound",
	  "whoever registered was not in the pod that the provider shows, which has yet to speak" },

	{ 400, WS_DRAINING, WS_DRAINING, WO_ANY, "registered",
	  "the worker started again; its session is a new one" },
	{ 410, WS_DRAINING, WS_DRAINING, WO_CLOUD, "pod_created",
	  "the answer of the create came after the worker spoke" },
	{ 420, WS_DRAINING, WS_ACTIVE, WO_ANY, "undrain",
	  "demand returned, or an operator took it back" },
	{ 430, WS_DRAINING, WS_TERMINATING, WO_CLOUD, "drained", "holds no lease any more" },
	{ 435, WS_DRAINING, WS_TERMINATED, WO_EXTERNAL, "drained",
	  "holds no lease any more; no pod of ours to delete" },
	{ 440, WS_DRAINING, WS_TERMINATING, WO_CLOUD, "drain_timeout",
	  "still holds a lease after the drain timeout" },
	{ 445, WS_DRAINING, WS_TERMINATING, WO_CLOUD, "broken",
	  "the worker found that it cannot work" },
	{ 450, WS_DRAINING, WS_TERMINATING, WO_CLOUD, "heartbeat_lost",
	  "silent for the heartbeat timeout" },
	{ 455, WS_DRAINING, WS_TERMINATED, WO_EXTERNAL, "heartbeat_lost",
	  "silent for the heartbeat timeout; no pod of ours to delete" },
	{ 460, WS_DRAINING, WS_TERMINATING, WO_CLOUD, "terminate", "an operator ended it" },
	{ 465, WS_DRAINING, WS_TERMINATED, WO_EXTERNAL, "terminate",
	  "an operator ended it; no pod of ours to delete" },
	{ 470, WS_DRAINING, WS_TERMINATING, WO_CLOUD, "kill", "an operator ended the fleet" },
	{ 475, WS_DRAINING, WS_TERMINATED, WO_EXTERNAL, "broken",
	  "the worker found that it cannot work; no pod of ours to delete" },
	{ 480, WS_DRAINING, WS_TERMINATED, WO_CLOUD, "pod_gone", "the provider shows the pod gone" },

	{ 500, WS_TERMINATING, WS_TERMINATING, WO_CLOUD, "pod_created",
	  "the answer of the create came after the end was decided; the delete has a pod now" },
	{ 510, WS_TERMINATING, WS_TERMINATING, WO_CLOUD, "pod_adopted",
	  "the pod was found after the end was decided; the delete has a pod now" },
	{ 520, WS_TERMINATING, WS_TERMINATED, WO_CLOUD, "pod_gone", "the provider shows the pod gone" },
	{ 530, WS_TERMINATING, WS_TERMINATED, WO_CLOUD, "pod_absent_proved",
	  "the delete was answered, and looks since then agree that the pod is gone" },
	{ 540, WS_TERMINATING, WS_TERMINATED, WO_CLOUD, "never_created",
	  "its create was refused, or settled as absent" },
};

const int n_worker_rules = sizeof(worker_rules) / sizeof(worker_rules[0]);

/* The rule for this state, origin and cause; NULL: the move is illegal. */
const WorkerRule *
fsm_worker_find(WorkerState from, WorkerOrigin origin, const char *cause)
{
	for (int i = 0; i < n_worker_rules; i++)
	{
		const WorkerRule *rule = &worker_rules[i];

		if (rule->from == from && (rule->origin & origin) != 0 && strcmp(rule->cause, cause) == 0)
			return rule;
	}
	return NULL;
}

static const char *const state_names[WS_COUNT] = { "spawning", "initializing", "active",
												   "draining", "terminating",  "terminated" };

/* The name that tables and views show. */
const char *
fsm_worker_state_name(WorkerState state)
{
	return state_names[state];
}

/* Read a state's name; false, and *state untouched, if there is none of that name. */
bool
fsm_worker_state_parse(const char *name, WorkerState *state)
{
	for (int i = 0; i < WS_COUNT; i++)
		if (strcmp(name, state_names[i]) == 0)
		{
			*state = (WorkerState) i;
			return true;
		}
	return false;
}

/* The name that tables show; "any" for a rule that holds for both. */
const char *
fsm_worker_origin_name(WorkerOrigin origin)
{
	static const char *const names[] = { NULL, "cloud", "external", "any" };

	return names[origin];
}

/* The set of states, one bit each, that a worker of this origin can come to from one state. */
static unsigned
reachable(const WorkerRule *rules, int n_rules, WorkerOrigin origin, WorkerState from)
{
	unsigned seen = 1u << from;
	unsigned before;

	do
	{
		before = seen;
		for (int i = 0; i < n_rules; i++)
			if ((rules[i].origin & origin) != 0 && (seen & (1u << rules[i].from)) != 0)
				seen |= 1u << rules[i].to;
	} while (seen != before);
	return seen;
}

/* What is wrong with this one rule, alone or beside those before it; NULL: nothing. */
static const char *
check_rule(const WorkerRule *rules, int i)
{
	const WorkerRule *rule = &rules[i];

	if (rule->from < 0 || rule->from >= WS_COUNT || rule->to < 0 || rule->to >= WS_COUNT ||
		rule->origin < WO_CLOUD || rule->origin > WO_ANY)
		return "a rule names no state or origin of ours";
	if (rule->from == WS_TERMINATED)
		return "a rule leaves the final state";
	if (rule->rule / 100 != (int) rule->from + 1 || rule->rule % 5 != 0)
		return "a rule's number is not of its state's block";
	if (rule->cause[0] == '\0' || rule->comment[0] == '\0')
		return "a rule has no cause or no comment";
	if (i > 0 && rules[i - 1].rule >= rule->rule)
		return "the rules' numbers do not ascend";
	for (int j = 0; j < i; j++)
		if (rules[j].from == rule->from && (rules[j].origin & rule->origin) != 0 &&
			strcmp(rules[j].cause, rule->cause) == 0)
			return "two rules answer one state, origin and cause";
	return NULL;
}

/*
 * Is this table well formed? NULL if so, else what is wrong with it: see check_rule;
 * besides, a cloud worker must come from spawning to every state and from each of them
 * to terminated, and an external one, which begins as active, must always come to
 * terminated and never to terminating, since no delete is owed for it.
 */
const char *
fsm_worker_check(const WorkerRule *rules, int n_rules)
{
	unsigned external;

	for (int i = 0; i < n_rules; i++)
	{
		const char *wrong = check_rule(rules, i);

		if (wrong != NULL)
			return wrong;
	}
	external = reachable(rules, n_rules, WO_EXTERNAL, WS_ACTIVE);
	if (reachable(rules, n_rules, WO_CLOUD, WS_SPAWNING) != (1u << WS_COUNT) - 1)
		return "a cloud worker cannot come to every state";
	if (external & (1u << WS_TERMINATING))
		return "a delete would be owed for an external worker";
	for (int i = 0; i < WS_COUNT; i++)
	{
		WorkerState state = (WorkerState) i;

		if (!(reachable(rules, n_rules, WO_CLOUD, state) & (1u << WS_TERMINATED)))
			return "a cloud worker cannot always end";
		if ((external & (1u << state)) &&
			!(reachable(rules, n_rules, WO_EXTERNAL, state) & (1u << WS_TERMINATED)))
			return "an external worker cannot always end";
	}
	return NULL;
}
