/*
 * test_fsm_worker.c
 *	  The table of a worker's legal moves: well formed, and the moves that matter.
 */
#include <string.h>

#include "unit.h"

/* The state after a cause; WS_COUNT where the move is illegal. */
static WorkerState
after(WorkerState from, WorkerOrigin origin, const char *cause)
{
	const WorkerRule *rule = fsm_worker_find(from, origin, cause);

	return rule ? rule->to : WS_COUNT;
}

static void
check_moves(void)
{
	static const struct
	{
		WorkerOrigin origin;
		WorkerState from;
		const char *cause;
		WorkerState to; /* WS_COUNT: illegal */
	} moves[] = {
		{ WO_CLOUD, WS_SPAWNING, "pod_created", WS_INITIALIZING },
		{ WO_CLOUD, WS_SPAWNING, "pod_adopted", WS_INITIALIZING },
		{ WO_CLOUD, WS_SPAWNING, "registered", WS_ACTIVE },
		{ WO_CLOUD, WS_SPAWNING, "create_refused", WS_TERMINATED },
		{ WO_CLOUD, WS_SPAWNING, "create_absent", WS_TERMINATED },
		{ WO_CLOUD, WS_SPAWNING, "terminate", WS_TERMINATING },
		{ WO_CLOUD, WS_SPAWNING, "kill", WS_TERMINATING },
		{ WO_CLOUD, WS_SPAWNING, "spawn_timeout", WS_COUNT },
		{ WO_CLOUD, WS_SPAWNING, "pod_gone", WS_COUNT },
		{ WO_CLOUD, WS_INITIALIZING, "registered", WS_ACTIVE },
		{ WO_CLOUD, WS_INITIALIZING, "spawn_timeout", WS_TERMINATING },
		{ WO_CLOUD, WS_INITIALIZING, "pod_failed", WS_TERMINATING },
		{ WO_CLOUD, WS_INITIALIZING, "surplus", WS_TERMINATING },
		{ WO_CLOUD, WS_INITIALIZING, "pod_gone", WS_TERMINATED },
		{ WO_CLOUD, WS_INITIALIZING, "drain", WS_COUNT },
		{ WO_CLOUD, WS_ACTIVE, "registered", WS_ACTIVE },
		{ WO_CLOUD, WS_ACTIVE, "pod_created", WS_ACTIVE },
		{ WO_CLOUD, WS_ACTIVE, "create_refused", WS_COUNT },
		{ WO_CLOUD, WS_ACTIVE, "drain", WS_DRAINING },
		{ WO_CLOUD, WS_ACTIVE, "idle", WS_DRAINING },
		{ WO_CLOUD, WS_ACTIVE, "max_age", WS_DRAINING },
		{ WO_CLOUD, WS_ACTIVE, "heartbeat_lost", WS_TERMINATING },
		{ WO_CLOUD, WS_ACTIVE, "pod_gone", WS_TERMINATED },
		{ WO_CLOUD, WS_ACTIVE, "drained", WS_COUNT },
		{ WO_CLOUD, WS_DRAINING, "registered", WS_DRAINING },
		{ WO_CLOUD, WS_DRAINING, "undrain", WS_ACTIVE },
		{ WO_CLOUD, WS_DRAINING, "drained", WS_TERMINATING },
		{ WO_CLOUD, WS_DRAINING, "drain_timeout", WS_TERMINATING },
		{ WO_CLOUD, WS_TERMINATING, "registered", WS_COUNT },
		{ WO_CLOUD, WS_TERMINATING, "undrain", WS_COUNT },
		{ WO_CLOUD, WS_TERMINATING, "pod_created", WS_TERMINATING },
		{ WO_CLOUD, WS_TERMINATING, "pod_absent_proved", WS_TERMINATED },
		{ WO_CLOUD, WS_TERMINATING, "never_created", WS_TERMINATED },
		{ WO_CLOUD, WS_TERMINATED, "registered", WS_COUNT },
		{ WO_CLOUD, WS_TERMINATED, "pod_adopted", WS_COUNT },
		{ WO_EXTERNAL, WS_ACTIVE, "drain", WS_DRAINING },
		{ WO_EXTERNAL, WS_ACTIVE, "heartbeat_lost", WS_TERMINATED },
		{ WO_EXTERNAL, WS_ACTIVE, "terminate", WS_TERMINATED },
		{ WO_EXTERNAL, WS_ACTIVE, "idle", WS_COUNT },
		{ WO_EXTERNAL, WS_ACTIVE, "kill", WS_COUNT },
		{ WO_EXTERNAL, WS_ACTIVE, "pod_gone", WS_COUNT },
		{ WO_EXTERNAL, WS_DRAINING, "undrain", WS_ACTIVE },
		{ WO_EXTERNAL, WS_DRAINING, "drained", WS_TERMINATED },
		{ WO_EXTERNAL, WS_DRAINING, "drain_timeout", WS_COUNT },
		{ WO_CLOUD, WS_ACTIVE, "no such cause", WS_COUNT },
	};

	for (unsigned i = 0; i < sizeof(moves) / sizeof(moves[0]); i++)
		ok(after(moves[i].from, moves[i].origin, moves[i].cause) == moves[i].to, "%s %s, %s: %s",
		   fsm_worker_origin_name(moves[i].origin), fsm_worker_state_name(moves[i].from),
		   moves[i].cause,
		   moves[i].to == WS_COUNT ? "illegal" : fsm_worker_state_name(moves[i].to));
}

/* Each kind of damage to the table is noticed. */
static void
check_damage(void)
{
	static const struct
	{
		int rule; /* the rule to damage */
		WorkerRule instead;
		const char *wrong;
	} damages[] = {
		{ 110,
		  { 100, WS_SPAWNING, WS_INITIALIZING, WO_CLOUD, "pod_adopted", "x" },
		  "the rules' numbers do not ascend" },
		{ 110,
		  { 310, WS_SPAWNING, WS_INITIALIZING, WO_CLOUD, "pod_adopted", "x" },
		  "a rule's number is not of its state's block" },
		{ 110,
		  { 110, WS_SPAWNING, WS_TERMINATING, WO_ANY, "pod_created", "x" },
		  "two rules answer one state, origin and cause" },
		{ 110,
		  { 110, WS_SPAWNING, WS_TERMINATING, WO_CLOUD, "", "x" },
		  "a rule has no cause or no comment" },
		{ 540,
		  { 600, WS_TERMINATED, WS_ACTIVE, WO_CLOUD, "registered", "x" },
		  "a rule leaves the final state" },
		{ 540,
		  { 540, WS_TERMINATING, WS_COUNT, WO_CLOUD, "never_created", "x" },
		  "a rule names no state or origin of ours" },
		{ 365,
		  { 365, WS_ACTIVE, WS_TERMINATING, WO_EXTERNAL, "heartbeat_lost", "x" },
		  "a delete would be owed for an external worker" },
	};
	WorkerRule rules[100];

	ok(n_worker_rules <= 100, "the copy has room");
	for (unsigned i = 0; i < sizeof(damages) / sizeof(damages[0]); i++)
	{
		memcpy(rules, worker_rules, sizeof(rules[0]) * n_worker_rules);
		for (int j = 0; j < n_worker_rules; j++)
			if (rules[j].rule == damages[i].rule)
				rules[j] = damages[i].instead;
		ok(same(fsm_worker_check(rules, n_worker_rules), damages[i].wrong), "noticed: %s",
		   damages[i].wrong);
	}
	ok(same(fsm_worker_check(worker_rules, 5), "a cloud worker cannot come to every state"),
	   "noticed: a table that is cut off");
	for (int last = 0; last < n_worker_rules; last++)
		if (worker_rules[last].rule == 500)
			ok(same(fsm_worker_check(worker_rules, last + 1), "a cloud worker cannot always end"),
			   "noticed: a delete that nothing ends");
}

void
test_fsm_worker(void)
{
	const char *wrong = fsm_worker_check(worker_rules, n_worker_rules);
	WorkerState state = WS_ACTIVE;
	bool round = true;

	ok(wrong == NULL, "the table of moves is well formed%s%s", wrong ? ": " : "",
	   wrong ? wrong : "");
	check_damage();
	check_moves();
	for (int i = 0; i < WS_COUNT; i++)
		round &= fsm_worker_state_parse(fsm_worker_state_name((WorkerState) i), &state) &&
			state == (WorkerState) i;
	ok(round, "each state's name reads back as that state");
	ok(!fsm_worker_state_parse("unborn", &state) && state == WS_TERMINATED,
	   "no other name is a state");
	ok(same(fsm_worker_origin_name(WO_ANY), "any"), "a rule for both origins says so");
}
