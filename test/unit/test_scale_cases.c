/*
 * test_scale_cases.c
 *	  Scaling decisions one by one: each is a snapshot, what must be decided and which term
 *	  must have decided. Those marked "example" are the worked examples of docs/scaling.md.
 */
#include <stdio.h>
#include <string.h>

#include "unit.h"

#define MAX_WORKERS 64

static PlanWorker fleet[MAX_WORKERS];
static PlanInput in;
static PlanResult plan;

/* A new case: no workers, no work, defaults except for the policy. */
static void
begin(PlanPolicy policy, int min, int max, int claimable)
{
	input_init(&in, fleet, 0);
	in.pool.policy = policy;
	in.pool.min_workers = min;
	in.pool.max_workers = max;
	in.claimable = claimable;
}

/*
 * More workers of one kind, numbered on from 1, each a second younger than the one before:
 * long past the spawning grace, not idle for long, heard of a second ago. Returns the first.
 */
static PlanWorker *
workers(int count, WorkerState state, int held)
{
	PlanWorker *first = &fleet[in.n_workers];

	for (int i = 0; i < count; i++)
	{
		PlanWorker worker = { .no = in.n_workers + 1,
							  .state = state,
							  .origin = WO_CLOUD,
							  .held = held,
							  .age = 1000 - in.n_workers,
							  .state_age = 100,
							  .idle = held ? 0 : 10,
							  .silence = state == WS_ACTIVE || state == WS_DRAINING ? 1 : -1 };

		fleet[in.n_workers++] = worker;
	}
	return first;
}

/* The actions as text, in the order of the workers: "drain 3 idle, lost 4 heartbeat_lost". */
static const char *
actions_text(void)
{
	static const char *const verbs[] = { "keep", "drain", "undrain", "terminate", "lost" };
	static char text[1000];
	size_t used = 0;

	text[0] = '\0';
	for (int i = 0; i < plan.n_actions; i++)
		used += snprintf(text + used, sizeof(text) - used, "%s%s %d %s", i > 0 ? ", " : "",
						 verbs[plan.actions[i].kind], (int) plan.actions[i].worker,
						 plan.actions[i].cause);
	return text;
}

/* Decide, and compare. */
static void
expect(const char *what, int desired, int create, const char *bound_by, const char *actions)
{
	static PlanAction room[MAX_WORKERS];
	bool holds;

	plan.actions = room;
	plan_scale(&in, &plan);
	holds = plan.desired == desired && plan.create == create && same(plan.bound_by, bound_by) &&
		same(actions_text(), actions) && n_bound(&plan) == 1;
	ok(holds, "scale: %s", what);
	if (!holds)
	{
		note("wanted desired %d create %d bound by %s, actions [%s]", desired, create, bound_by,
			 actions);
		note("got    desired %d create %d bound by %s, actions [%s], %d terms bound", plan.desired,
			 plan.create, plan.bound_by, actions_text(), n_bound(&plan));
	}
}

static void
test_queue_ratio(void)
{
	begin(POLICY_QUEUE_RATIO, 0, 10, 0);
	expect("nothing to do, nobody there", 0, 0, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 1);
	expect("the first task gets a worker", 1, 1, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 10);
	expect("example 1: 10 waiting, nobody there: one worker for each 3", 4, 4, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 9);
	workers(3, WS_ACTIVE, 1);
	expect("exactly the threshold is not above it", 3, 0, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 10);
	workers(3, WS_ACTIVE, 1);
	expect("one task above it is", 4, 1, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 28);
	workers(10, WS_ACTIVE, 0)->idle = 1000;
	expect("example 2: inside the band nothing moves", 10, 0, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 10);
	workers(1, WS_SPAWNING, 0)->create_open = true;
	workers(1, WS_INITIALIZING, 0);
	workers(1, WS_ACTIVE, 1);
	expect("example 3: what is coming counts, in doubt or not", 4, 1, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 12);
	in.pool.scale_up_multiplier = 2;
	workers(2, WS_ACTIVE, 1);
	expect("the up multiplier raises the threshold", 2, 0, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 3);
	in.pool.scale_up_multiplier = 1;
	in.pool.scale_down_multiplier = 50;
	workers(1, WS_ACTIVE, 1);
	expect("a down multiplier above the up multiplier counts as it", 1, 0, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 200, 7);
	in.pool.tasks_per_worker = 0.1;
	in.pool.scale_up_multiplier = 0.7;
	expect("an inexact product does not add a worker", 100, 100, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 100, 40);
	in.pool.tasks_per_worker = 1;
	expect("a ratio of one is a worker for each task", 40, 40, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 100);
	expect("max_workers bounds it", 10, 10, "max_workers", "");

	begin(POLICY_QUEUE_RATIO, 2, 10, 1);
	expect("min_workers bounds it from below", 2, 2, "min_workers", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 0);
	in.pool.idle_buffer = 2;
	workers(3, WS_ACTIVE, 1);
	expect("example 4: the buffer stands beside the busy ones", 5, 2, "busy_plus_buffer", "");

	begin(POLICY_QUEUE_RATIO, 0, 4, 0);
	in.pool.idle_buffer = INT_MAX;
	workers(3, WS_ACTIVE, 1);
	expect("the buffer is clamped to max_workers", 4, 1, "max_workers", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 4);
	in.matching_external = 3;
	expect("idle external workers take their share of the demand first", 1, 1, "queue_ratio", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 2);
	in.matching_external = 3;
	expect("and may take all of it", 0, 0, "queue_ratio", "");
}

static void
test_other_policies(void)
{
	begin(POLICY_ONE_TO_ONE, 0, 10, 3);
	workers(2, WS_ACTIVE, 1);
	workers(1, WS_ACTIVE, 0);
	expect("example 5: one_to_one: 3 waiting, 2 busy, 1 idle", 5, 2, "one_to_one", "");

	begin(POLICY_ONE_TO_ONE, 0, 10, 0);
	workers(1, WS_ACTIVE, 4);
	expect("one_to_one counts busy workers, not the leases of one", 1, 0, "one_to_one", "");

	begin(POLICY_ONE_TO_ONE, 0, 10, 1);
	workers(1, WS_DRAINING, 1);
	expect("drain one, queue one: the draining one is no capacity", 1, 1, "one_to_one", "");

	begin(POLICY_ONE_TO_ONE, 0, INT_MAX, INT_MAX);
	workers(1, WS_ACTIVE, 1);
	expect("no overflow at the largest numbers", INT_MAX, INT_MAX - 1, "one_to_one", "");

	begin(POLICY_FIXED, 0, 10, 500);
	in.pool.fixed_workers = 4;
	in.pool.idle_buffer = 3;
	workers(2, WS_ACTIVE, 1);
	expect("fixed wants its number, whatever waits", 4, 2, "fixed", "");

	begin(POLICY_FIXED, 5, 10, 0);
	in.pool.fixed_workers = 4;
	expect("fixed below the minimum", 5, 5, "min_workers", "");

	begin(POLICY_FIXED, 0, 3, 0);
	in.pool.fixed_workers = 4;
	expect("fixed above the maximum", 3, 3, "max_workers", "");
}

static void
test_limits(void)
{
	begin(POLICY_ONE_TO_ONE, 0, 10, 8);
	in.paused = true;
	workers(1, WS_DRAINING, 0);
	expect("paused: no create, lifetimes go on", 8, 0, "paused", "terminate 1 drained");

	begin(POLICY_ONE_TO_ONE, 0, 10, 8);
	in.first_look_done = false;
	workers(1, WS_DRAINING, 0);
	expect("before the first look: no create, lifetimes go on", 8, 0, "first_look_owed",
		   "terminate 1 drained");

	begin(POLICY_ONE_TO_ONE, 0, 2, 8);
	in.hold = true;
	workers(1, WS_DRAINING, 0);
	workers(2, WS_ACTIVE, 0)->silence = 1000;
	workers(3, WS_INITIALIZING, 0)->state_age = 10000;
	expect("on hold nothing acts at all", 2, 0, "max_workers", "");

	begin(POLICY_ONE_TO_ONE, 0, 10, 8);
	in.hold = true;
	in.paused = true;
	expect("on hold: no create", 8, 0, "hold", "");

	begin(POLICY_ONE_TO_ONE, 0, 5, 8);
	workers(2, WS_TERMINATING, 0);
	workers(1, WS_DRAINING, 1);
	workers(1, WS_ACTIVE, 1);
	expect("example 6: what may still bill keeps its place", 5, 1, "places_left", "");
	ok(term_value(&plan, "places_left") == 1 && term_value(&plan, "places") == 4,
	   "scale: and the terms say so");

	begin(POLICY_ONE_TO_ONE, 0, 10, 8);
	in.budget_room = 3;
	in.rate_room = 3;
	in.pool.max_create_per_cycle = 4;
	expect("the tightest limit decides, the first of equal ones", 8, 3, "budget_room", "");
	in.rate_room = 2;
	expect("the rate limit", 8, 2, "rate_room", "");
	in.pool.max_create_per_cycle = 1;
	expect("the step of a cycle", 8, 1, "max_create_per_cycle", "");
	in.budget_room = -1;
	expect("a budget that is overdrawn allows none", 8, 0, "budget_room", "");

	begin(POLICY_ONE_TO_ONE, 0, 10, 8);
	in.budget_room = 3;
	in.budget = "the day budget of the pool";
	in.soft_budget = "the month budget of the installation";
	in.pool.idle_buffer = 9;
	expect("a soft budget that is used up takes the idle buffer, and no work", 8, 3, "budget_room",
		   "");
	ok(term_value(&plan, "busy_plus_buffer") == 0 && term_value(&plan, "soft_budget") == 1,
	   "scale: and the terms say so");
	in.soft_budget = NULL;
	expect("the buffer beside it", 9, 3, "budget_room", "");

	begin(POLICY_ONE_TO_ONE, 0, 10, 2);
	in.budget_room = 2;
	expect("a limit that takes nothing away did not decide", 2, 2, "one_to_one", "");
}

static void
test_scale_in(void)
{
	begin(POLICY_QUEUE_RATIO, 0, 10, 0);
	workers(3, WS_ACTIVE, 0);
	fleet[0].idle = 301;
	fleet[1].idle = 300;
	expect("idle for longer than the timeout, not before", 0, 0, "queue_ratio", "drain 1 idle");
	ok(plan.scaled_in, "scale: and the time of it is to be remembered");

	begin(POLICY_QUEUE_RATIO, 2, 10, 0);
	workers(4, WS_ACTIVE, 0);
	for (int i = 0; i < 4; i++)
		fleet[i].idle = 1000;
	expect("example 7: the newest go, down to the minimum", 2, 0, "min_workers",
		   "drain 3 idle, drain 4 idle");
	in.since_last_scale_in = 59;
	expect("not within the grace of the last scale-in", 2, 0, "min_workers", "");
	in.since_last_scale_in = 60;
	expect("but once it is over", 2, 0, "min_workers", "drain 3 idle, drain 4 idle");

	begin(POLICY_QUEUE_RATIO, 2, 10, 0);
	workers(2, WS_INITIALIZING, 0);
	workers(2, WS_ACTIVE, 0);
	for (int i = 0; i < 4; i++)
	{
		fleet[i].age = 100;
		fleet[i].idle = 1000;
	}
	expect("booting pods do not stand in for ready workers", 2, 0, "min_workers", "");

	begin(POLICY_QUEUE_RATIO, 0, 10, 5);
	workers(5, WS_ACTIVE, 0);
	for (int i = 0; i < 5; i++)
		fleet[i].idle = 1000;
	expect("a waiting task keeps a worker, whatever the ratio wants", 2, 0, "queue_ratio", "");
	in.claimable = 1;
	expect("but not the whole fleet", 1, 0, "queue_ratio",
		   "drain 2 idle, drain 3 idle, drain 4 idle, drain 5 idle");

	begin(POLICY_ONE_TO_ONE, 0, 10, 0);
	workers(3, WS_INITIALIZING, 0);
	fleet[0].age = 500;
	fleet[1].age = 181;
	fleet[2].age = 179;
	workers(1, WS_SPAWNING, 0);
	expect("surplus booting pods are cancelled after their grace, never a create under way", 0, 0,
		   "one_to_one", "terminate 1 surplus, terminate 2 surplus");
	in.claimable = 3;
	expect("of several the youngest that may go", 3, 0, "one_to_one", "terminate 2 surplus");

	begin(POLICY_ONE_TO_ONE, 0, 10, 0);
	workers(3, WS_ACTIVE, 1);
	for (int i = 0; i < 3; i++)
		fleet[i].idle = 1000;
	expect("a busy worker is never retired for want of demand", 3, 0, "one_to_one", "");

	begin(POLICY_FIXED, 0, 10, 0);
	in.pool.fixed_workers = 1;
	workers(2, WS_ACTIVE, 0);
	fleet[0].idle = fleet[1].idle = 1000;
	expect("fixed sheds idle workers like the others", 1, 0, "fixed", "drain 2 idle");
}

static void
test_maximum(void)
{
	begin(POLICY_ONE_TO_ONE, 2, 0, 50);
	workers(1, WS_SPAWNING, 0);
	workers(1, WS_INITIALIZING, 0);
	workers(1, WS_ACTIVE, 0);
	workers(1, WS_ACTIVE, 1);
	workers(1, WS_DRAINING, 1)->recallable = true;
	workers(1, WS_TERMINATING, 0);
	in.since_last_scale_in = 1;
	expect("example 8: max_workers 0 is the emergency stop", 0, 0, "max_workers",
		   "terminate 1 surplus, terminate 2 surplus, drain 3 surplus, drain 4 surplus");

	begin(POLICY_ONE_TO_ONE, 0, 3, 50);
	workers(2, WS_ACTIVE, 1);
	workers(1, WS_ACTIVE, 0);
	workers(1, WS_INITIALIZING, 0)->age = 10;
	workers(1, WS_ACTIVE, 1);
	expect("a lowered maximum: booting first, then idle, at once", 3, 0, "max_workers",
		   "drain 3 surplus, terminate 4 surplus");
	in.pool.max_workers = 2;
	expect("then the newest busy one, which finishes", 2, 0, "max_workers",
		   "drain 3 surplus, terminate 4 surplus, drain 5 surplus");
}

static void
test_recall(void)
{
	begin(POLICY_ONE_TO_ONE, 0, 10, 3);
	workers(2, WS_DRAINING, 0);
	workers(1, WS_DRAINING, 0)->recallable = true;
	workers(1, WS_DRAINING, 1)->recallable = true;
	fleet[3].state_age = 10000;
	expect("example 9: demand takes back what drains for want of it, before it creates", 3, 2,
		   "one_to_one",
		   "terminate 1 drained, terminate 2 drained, undrain 3 undrain, "
		   "terminate 4 drain_timeout");

	begin(POLICY_ONE_TO_ONE, 0, 10, 1);
	workers(2, WS_DRAINING, 0)->recallable = true;
	fleet[1].recallable = true;
	expect("no more of them than are wanted, the youngest first", 1, 0, "one_to_one",
		   "terminate 1 drained, undrain 2 undrain");

	begin(POLICY_ONE_TO_ONE, 0, 10, 1);
	workers(1, WS_DRAINING, 0)->recallable = true;
	fleet[0].silence = 31;
	in.lost_room = 0;
	expect("never a silent one", 1, 1, "one_to_one", "terminate 1 drained");

	begin(POLICY_ONE_TO_ONE, 0, 10, 1);
	in.pool.max_worker_age = 900;
	workers(1, WS_DRAINING, 0)->recallable = true;
	expect("nor one that is too old", 1, 1, "one_to_one", "terminate 1 drained");

	begin(POLICY_ONE_TO_ONE, 0, 10, 1);
	workers(1, WS_DRAINING, 1)->recallable = true;
	expect("a busy one taken back does not serve what waits", 2, 1, "one_to_one",
		   "undrain 1 undrain");

	begin(POLICY_ONE_TO_ONE, 0, 10, 1);
	workers(1, WS_DRAINING, 0)->recallable = true;
	in.paused = true;
	expect("taking back is no create: a pause does not forbid it", 1, 0, "one_to_one",
		   "undrain 1 undrain");
}

static void
test_lifetimes(void)
{
	begin(POLICY_ONE_TO_ONE, 1, 10, 0);
	workers(3, WS_ACTIVE, 1);
	fleet[0].silence = 30;
	fleet[1].silence = 30.1;
	fleet[2].silence = -1;
	expect("lost: silent for longer than the timeout, or never heard of for as long", 1, 0,
		   "one_to_one", "lost 2 heartbeat_lost, lost 3 heartbeat_lost");
	in.lost_room = 1;
	expect("no more of them than may be declared lost", 2, 0, "one_to_one",
		   "lost 2 heartbeat_lost");
	fleet[1].kept = true;
	expect("one that cannot be ended yet takes nobody's room", 1, 0, "one_to_one",
		   "lost 2 heartbeat_lost, lost 3 heartbeat_lost");

	begin(POLICY_ONE_TO_ONE, 1, 10, 0);
	workers(1, WS_ACTIVE, 0)->silence = 60;
	expect("a lost worker is replaced at once", 1, 1, "min_workers", "lost 1 heartbeat_lost");
	in.pool.max_workers = 1;
	expect("but its place is taken until it is proved gone", 1, 0, "places_left",
		   "lost 1 heartbeat_lost");

	begin(POLICY_ONE_TO_ONE, 0, 10, 2);
	workers(2, WS_INITIALIZING, 0);
	fleet[0].state_age = 601;
	expect("spawn_timeout, and a new pod for it", 2, 1, "one_to_one", "terminate 1 spawn_timeout");

	begin(POLICY_ONE_TO_ONE, 0, 10, 0);
	workers(1, WS_SPAWNING, 0)->state_age = 100000;
	expect("a create under way has no timeout: it is settled by looking", 0, 0, "one_to_one", "");

	begin(POLICY_ONE_TO_ONE, 0, 10, 0);
	workers(3, WS_DRAINING, 1);
	fleet[0].state_age = 601;
	fleet[1].state_age = 600;
	fleet[2].held = 0;
	fleet[2].state_age = 4;
	expect("drain_timeout; and a drain is given time to settle", 0, 0, "one_to_one",
		   "terminate 1 drain_timeout");
	fleet[2].state_age = 5000;
	expect("drained, however late", 0, 0, "one_to_one",
		   "terminate 1 drain_timeout, terminate 3 drained");
	fleet[2].state_age = 5;
	expect("drained, as soon as it has settled", 0, 0, "one_to_one",
		   "terminate 1 drain_timeout, terminate 3 drained");
}

static void
test_max_age(void)
{
	begin(POLICY_ONE_TO_ONE, 2, 10, 0);
	in.pool.max_worker_age = 900;
	workers(2, WS_ACTIVE, 0);
	expect("example 10: too old, but a replacement must be ready first", 3, 1, "replacement", "");
	workers(1, WS_ACTIVE, 0)->age = 50;
	expect("now it is: the oldest leaves, and the next wants a replacement", 2, 0, "min_workers",
		   "drain 1 max_age");

	begin(POLICY_ONE_TO_ONE, 2, 2, 0);
	in.pool.max_worker_age = 900;
	workers(2, WS_ACTIVE, 0);
	expect("no room for a replacement: one by one", 2, 0, "places_left", "drain 1 max_age");
	fleet[0].state = WS_DRAINING;
	fleet[0].held = 1;
	expect("the next one waits for it", 2, 0, "places_left", "");

	begin(POLICY_ONE_TO_ONE, 0, 30, 0);
	in.pool.max_worker_age = 900;
	workers(20, WS_ACTIVE, 1);
	expect("a fifth of the fleet at once", 16, 0, "one_to_one",
		   "drain 1 max_age, drain 2 max_age, drain 3 max_age, drain 4 max_age");

	begin(POLICY_ONE_TO_ONE, 0, 10, 0);
	workers(1, WS_ACTIVE, 0)->age = 1e9;
	expect("without a limit nobody is too old", 0, 0, "one_to_one", "");
}

static void
test_external(void)
{
	begin(POLICY_ONE_TO_ONE, 0, 2, 2);
	workers(5, WS_ACTIVE, 0);
	for (int i = 0; i < 5; i++)
	{
		fleet[i].origin = WO_EXTERNAL;
		fleet[i].idle = 10000;
	}
	fleet[1].silence = 1000;
	fleet[2].state = WS_DRAINING;
	fleet[3].state = WS_DRAINING;
	fleet[3].held = 1;
	fleet[3].state_age = 100000;
	expect("external workers: no place, no capacity, never retired", 2, 2, "one_to_one",
		   "lost 2 heartbeat_lost, terminate 3 drained");
	ok(plan.n_total == 0 && plan.n_active == 0, "scale: and they are not counted as the pool's");
}

static void
test_counts(void)
{
	begin(POLICY_QUEUE_RATIO, 0, 100, 0);
	workers(1, WS_SPAWNING, 0);
	workers(2, WS_INITIALIZING, 0);
	workers(3, WS_ACTIVE, 1);
	workers(4, WS_ACTIVE, 0);
	workers(5, WS_DRAINING, 1);
	workers(6, WS_TERMINATING, 0);
	workers(7, WS_TERMINATED, 0);
	expect("a fleet of all sorts", 3, 0, "busy_plus_buffer",
		   "terminate 2 surplus, terminate 3 surplus");
	ok(plan.n_spawning == 1 && plan.n_initializing == 2 && plan.n_active == 7 && plan.n_idle == 4 &&
		   plan.n_busy == 3 && plan.n_draining == 5 && plan.n_terminating == 6 &&
		   plan.n_total == 21,
	   "scale: its counts");
}

/* Each policy option has an effect and bounds; each name reads back. */
static void
test_options(void)
{
	PlanPool pool;
	PlanPool other;
	PlanPolicy policy = POLICY_FIXED;
	bool effective = true;

	plan_pool_init(&pool);
	for (int i = 0; i < n_plan_options; i++)
	{
		const PlanOption *option = &plan_options[i];

		plan_pool_init(&other);
		effective &= plan_option_set(&other, option->name, option->highest) == NULL &&
			memcmp(&pool, &other, sizeof(pool)) != 0 &&
			plan_option_set(&other, option->name, option->normal) == NULL &&
			memcmp(&pool, &other, sizeof(pool)) == 0;
	}
	ok(effective, "options: each changes the pool, and its default is the default");
	ok(same(plan_option_set(&pool, "fixed_workers", 1.5), "not a whole number"),
	   "options: half a worker");
	ok(same(plan_option_set(&pool, "tasks_per_worker", 0), "out of range"),
	   "options: a ratio of nothing");
	ok(same(plan_option_set(&pool, "drain_settle", -1), "out of range"), "options: negative time");
	ok(same(plan_option_set(&pool, "fixed_workers", 0.0 / 0.0), "out of range"),
	   "options: not a number");
	ok(same(plan_option_set(&pool, "TASKS", 1), "no such policy option"),
	   "options: an unknown name");
	ok(memcmp(&pool, &other, sizeof(pool)) == 0, "options: what is refused changes nothing");
	ok(plan_policy_parse("one_to_one", &policy) && policy == POLICY_ONE_TO_ONE &&
		   plan_policy_parse("queue_ratio", &policy) && policy == POLICY_QUEUE_RATIO &&
		   plan_policy_parse("fixed", &policy) && policy == POLICY_FIXED &&
		   !plan_policy_parse("one", &policy) && policy == POLICY_FIXED &&
		   same(plan_policy_name(policy), "fixed"),
	   "options: policies by name");
}

/* Ready workers that are of no use, boots that take too long, and what boots cost. */
static void
test_useless(void)
{
	PlanWorker *worker;

	begin(POLICY_FIXED, 0, 10, 5);
	workers(1, WS_INITIALIZING, 0)->state_age = 601;
	worker = workers(1, WS_INITIALIZING, 0);
	worker->state_age = 601;
	worker->no_runtime = true;
	workers(1, WS_INITIALIZING, 0)->state_age = 599;
	expect("a boot without end is named after what the provider shows", 0, 0, "fixed",
		   "terminate 1 spawn_timeout, terminate 2 no_runtime");

	begin(POLICY_FIXED, 3, 10, 5);
	worker = workers(3, WS_INITIALIZING, 0);
	for (int i = 0; i < 3; i++)
		worker[i].state_age = 200 + i;
	worker[0].boot_expected = 100;
	worker[1].boot_expected = 200;
	expect("what its offer's pods take sets the time of a boot", 3, 1, "min_workers",
		   "terminate 1 spawn_timeout");

	begin(POLICY_FIXED, 3, 10, 5);
	worker = workers(3, WS_ACTIVE, 0);
	for (int i = 0; i < 3; i++)
	{
		worker[i].passed_over = 601;
		worker[i].state_age = 3000;
	}
	worker[1].claimed = true;
	worker[2].passed_over = 599;
	expect("who never claims what waits is of no use", 3, 1, "min_workers",
		   "terminate 1 never_claimed");

	begin(POLICY_FIXED, 4, 10, 5);
	worker = workers(4, WS_ACTIVE, 0);
	for (int i = 0; i < 4; i++)
		worker[i].registrations = 6;
	worker[0].registrations = 5;
	worker[1].state_age = 6 * 120;
	worker[3].held = 1;
	expect("nor is one that registers again and again", 4, 1, "min_workers",
		   "terminate 3 restart_loop");

	begin(POLICY_QUEUE_RATIO, 0, 10, 0);
	worker = workers(3, WS_ACTIVE, 0);
	for (int i = 0; i < 3; i++)
	{
		worker[i].idle = 400;
		worker[i].state_age = 400;
	}
	worker[0].booted_in = 500;
	worker[1].booted_in = 5000;
	worker[2].booted_in = 300;
	expect("one that was ready for less than it took to boot is not idle yet", 0, 0, "queue_ratio",
		   "drain 3 idle");
	worker[0].state_age = 500;
	worker[1].state_age = 600;
	expect("then it is, and no boot counts for more than the spawn timeout", 0, 0, "queue_ratio",
		   "drain 1 idle, drain 2 idle, drain 3 idle");

	begin(POLICY_ONE_TO_ONE, 0, 10, 5);
	in.image_room = 1;
	expect("of a broken image there is one pod at a time", 5, 1, "image_breaker", "");
	in.image_room = 0;
	expect("or none", 5, 0, "image_breaker", "");
	in.request_refused = true;
	expect("a request that is wrong is not repeated", 5, 0, "request_refused", "");
}

void
test_scale_cases(void)
{
	test_useless();
	test_queue_ratio();
	test_other_policies();
	test_limits();
	test_scale_in();
	test_maximum();
	test_recall();
	test_lifetimes();
	test_max_age();
	test_external();
	test_counts();
	test_options();
}
