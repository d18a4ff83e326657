/*
 * test_scale_properties.c
 *	  What must hold of every scaling decision, over many random snapshots (the same in
 *	  each run): the limits, the legality of moves, and that deciding again adds nothing.
 */
#include <stdio.h>
#include <string.h>

#include "unit.h"

#define MAX_WORKERS 24
#define ROUNDS 100000

/* One property: how it is called, and the first round that broke it. */
typedef struct Property
{
	const char *name;
	int broken_in; /* -1: none */
} Property;

enum
{
	P_PLACES,
	P_LIMITS,
	P_GATES,
	P_DESIRED,
	P_BOUND,
	P_LEGAL,
	P_ONCE,
	P_READY,
	P_BUSY,
	P_HOLD,
	P_EXTERNAL,
	P_DRAINING,
	P_SETTLES,
	P_SAME,
	P_COUNT
};

static Property properties[P_COUNT] = {
	{ "places and creates never pass max_workers", -1 },
	{ "creates never pass a budget, the rate or the step", -1 },
	{ "no create while paused, on hold or before the first look", -1 },
	{ "desired is within the minimum and the maximum", -1 },
	{ "exactly one term decided, and it is named", -1 },
	{ "every action is a legal move", -1 },
	{ "a worker has at most one action", -1 },
	{ "idle, surplus and max_age leave the minimum of ready workers", -1 },
	{ "a busy worker is drained for its age or a lowered maximum alone", -1 },
	{ "on hold nothing acts", -1 },
	{ "an external worker is lost or drained, and has no place", -1 },
	{ "a draining worker is never capacity", -1 },
	{ "carried out and decided again: no create, no new retirement", -1 },
	{ "the same input gives the same result", -1 },
};

static void
check(int property, int round, bool holds)
{
	if (!holds && properties[property].broken_in < 0)
		properties[property].broken_in = round;
}

/* A number of seconds on either side of a timeout, or right at it. */
static double
around(uint64_t *seed, double timeout)
{
	return timeout * draw(seed, 0, 4) / 2;
}

static void
random_input(uint64_t *seed, PlanInput *input, PlanWorker *workers)
{
	PlanPool *pool = &input->pool;

	input_init(input, workers, draw(seed, 0, MAX_WORKERS));
	pool->policy = (PlanPolicy) draw(seed, 0, POLICY_FIXED);
	pool->max_workers = draw(seed, 0, 3) == 0 ? 0 : draw(seed, 1, 30);
	pool->min_workers = draw(seed, 0, pool->max_workers > 0 ? pool->max_workers : 5);
	pool->idle_buffer = draw(seed, 0, 3) == 0 ? draw(seed, 0, 5) : 0;
	pool->fixed_workers = draw(seed, 0, 40);
	pool->tasks_per_worker = draw(seed, 1, 50) / 10.0;
	pool->scale_up_multiplier = draw(seed, 5, 20) / 10.0;
	pool->scale_down_multiplier = draw(seed, 5, 20) / 10.0;
	pool->max_worker_age = draw(seed, 0, 1) * 3600;
	pool->max_create_per_cycle = draw(seed, 0, 2) == 0 ? draw(seed, 1, 5) : 0;
	input->claimable = draw(seed, 0, 1) * draw(seed, 0, 60);
	input->matching_external = draw(seed, 0, 3) == 0 ? draw(seed, 0, 5) : 0;
	input->hold = draw(seed, 0, 15) == 0;
	input->paused = draw(seed, 0, 7) == 0;
	input->first_look_done = draw(seed, 0, 7) != 0;
	input->budget_room = draw(seed, 0, 3) == 0 ? draw(seed, -1, 5) : PLAN_NO_LIMIT;
	input->rate_room = draw(seed, 0, 3) == 0 ? draw(seed, 0, 5) : PLAN_NO_LIMIT;
	input->lost_room = draw(seed, 0, 3) == 0 ? draw(seed, 0, 3) : PLAN_NO_LIMIT;
	input->since_last_scale_in = draw(seed, -1, 4) * 30;

	for (int i = 0; i < input->n_workers; i++)
	{
		PlanWorker *worker = &workers[i];

		memset(worker, 0, sizeof(*worker));
		worker->no = i + 1;
		worker->state = (WorkerState) draw(seed, 0, WS_TERMINATED);
		worker->origin = draw(seed, 0, 5) == 0 ? WO_EXTERNAL : WO_CLOUD;
		if (worker->origin == WO_EXTERNAL)
			worker->state = draw(seed, 0, 2) == 0 ? WS_DRAINING : WS_ACTIVE;
		if (worker->state == WS_ACTIVE || worker->state == WS_DRAINING)
		{
			worker->held = draw(seed, 0, 2);
			worker->silence = draw(seed, 0, 5) == 0 ? around(seed, pool->heartbeat_timeout) : 1;
			worker->idle = worker->held > 0 ? 0 : around(seed, pool->idle_timeout);
		}
		else
			worker->silence = -1;
		worker->state_age = around(seed, 600);
		worker->age = worker->state_age + around(seed, 3600);
		worker->create_open = worker->state == WS_SPAWNING && draw(seed, 0, 1);
		worker->recallable = worker->state == WS_DRAINING && draw(seed, 0, 1);
	}
}

/* The worker that an action is about. */
static PlanWorker *
worker_of(const PlanAction *action, PlanWorker *workers)
{
	return &workers[action->worker - 1];
}

static void
check_actions(int round, const PlanInput *input, const PlanResult *plan, PlanWorker *workers)
{
	int ready_retired = 0;
	int ready_lost = 0;
	int min = input->pool.min_workers;
	bool room_for_more = min < input->pool.max_workers;

	for (int i = 0; i < plan->n_actions; i++)
	{
		const PlanAction *action = &plan->actions[i];
		const PlanWorker *worker = worker_of(action, workers);
		bool drained = same(action->cause, "drained");
		bool lost = action->kind == PLAN_LOST;

		check(P_LEGAL, round,
			  fsm_worker_find(worker->state, worker->origin, action->cause) != NULL);
		check(P_ONCE, round, i == 0 || plan->actions[i - 1].worker < action->worker);
		check(P_EXTERNAL, round, worker->origin == WO_CLOUD || lost || drained);
		check(P_BUSY, round,
			  action->kind != PLAN_DRAIN || worker->held == 0 || same(action->cause, "max_age") ||
				  same(action->cause, "surplus"));
		if (worker->origin == WO_CLOUD && worker->state == WS_ACTIVE)
		{
			ready_lost += lost;
			ready_retired += !lost;
		}
	}
	/* where no replacement can ever be first, one at a time may pass below */
	if (ready_retired > 0 && room_for_more)
		check(P_READY, round, plan->n_active - ready_lost - ready_retired >= min);
}

static void
check_numbers(int round, const PlanInput *input, const PlanResult *plan)
{
	int max = input->pool.max_workers;
	int min = input->pool.min_workers < max ? input->pool.min_workers : max;
	int step = input->pool.max_create_per_cycle;

	check(P_PLACES, round,
		  plan->create >= 0 && (plan->create == 0 || plan->n_total + plan->create <= max));
	check(P_LIMITS, round,
		  plan->create == 0 ||
			  (plan->create <= input->budget_room && plan->create <= input->rate_room &&
			   (step == 0 || plan->create <= step)));
	check(P_GATES, round,
		  plan->create == 0 || !(input->paused || input->hold || !input->first_look_done));
	check(P_DESIRED, round, plan->desired >= min && plan->desired <= max);
	check(P_BOUND, round, n_bound(plan) == 1 && plan->n_terms <= PLAN_MAX_TERMS);
	check(P_HOLD, round, !input->hold || plan->n_actions == 0);
}

/* The snapshot as it will be when the plan has been carried out and no time has passed. */
static void
carry_out(PlanInput *input, const PlanResult *plan, PlanWorker *workers)
{
	for (int i = 0; i < plan->n_actions; i++)
	{
		PlanWorker *worker = worker_of(&plan->actions[i], workers);
		const WorkerRule *rule =
			fsm_worker_find(worker->state, worker->origin, plan->actions[i].cause);

		if (rule == NULL)
			continue;
		worker->state = rule->to;
		worker->state_age = 0;
		worker->recallable = same(rule->cause, "idle") || same(rule->cause, "surplus");
	}
	for (int i = 0; i < plan->create; i++)
	{
		PlanWorker worker = { .no = input->n_workers + 1,
							  .state = WS_SPAWNING,
							  .origin = WO_CLOUD,
							  .silence = -1,
							  .create_open = true };

		workers[input->n_workers++] = worker;
	}
	if (plan->scaled_in)
		input->since_last_scale_in = 0;
}

/* Carry the plan out and decide again: nothing follows but the end of what has drained. */
static void
check_settles(int round, PlanInput *input, const PlanResult *plan, PlanWorker *workers)
{
	PlanAction actions[MAX_WORKERS + 64];
	PlanResult again = { .actions = actions };

	carry_out(input, plan, workers);
	plan_scale(input, &again);
	/* what a limit put off may follow now, and the next may leave for its age */
	if (input->lost_room != PLAN_NO_LIMIT || input->pool.max_worker_age > 0)
		return;
	if (input->pool.max_create_per_cycle == 0 && input->budget_room == PLAN_NO_LIMIT &&
		input->rate_room == PLAN_NO_LIMIT)
		check(P_SETTLES, round, again.create == 0);
	for (int i = 0; i < again.n_actions; i++)
		check(P_SETTLES, round,
			  again.actions[i].kind == PLAN_TERMINATE && same(again.actions[i].cause, "drained"));
}

/* Without its draining workers that stay so, a pool of endless room creates the same. */
static void
check_draining(int round, const PlanInput *input, const PlanWorker *workers)
{
	PlanWorker others[MAX_WORKERS];
	PlanAction actions[MAX_WORKERS];
	PlanInput with = *input;
	PlanInput without;
	PlanResult a = { .actions = actions };
	PlanResult b = { .actions = actions };
	int n = 0;

	for (int i = 0; i < input->n_workers; i++)
		if (workers[i].state != WS_DRAINING)
			others[n++] = workers[i];
	with.pool.max_workers = 1000;
	with.pool.max_worker_age = 0;
	with.lost_room = 0;
	without = with;
	without.workers = others;
	without.n_workers = n;
	plan_scale(&with, &a);
	plan_scale(&without, &b);
	check(P_DRAINING, round,
		  term_value(&a, "recalled") > 0 || (a.desired == b.desired && a.create == b.create));
}

void
test_scale_properties(void)
{
	uint64_t seed = 20240229;
	PlanWorker workers[MAX_WORKERS + 64];
	PlanAction actions[MAX_WORKERS + 64];
	PlanAction actions_again[MAX_WORKERS + 64];
	PlanInput input;
	int creating = 0;
	int retiring = 0;

	for (int round = 0; round < ROUNDS; round++)
	{
		PlanResult plan = { .actions = actions };
		PlanResult again = { .actions = actions_again };

		random_input(&seed, &input, workers);
		plan_scale(&input, &plan);
		plan_scale(&input, &again);
		check(P_SAME, round,
			  plan.desired == again.desired && plan.create == again.create &&
				  plan.n_actions == again.n_actions &&
				  memcmp(plan.terms, again.terms, sizeof(plan.terms)) == 0);
		creating += plan.create > 0;
		retiring += plan.n_actions > 0;
		check_numbers(round, &input, &plan);
		check_actions(round, &input, &plan, workers);
		check_draining(round, &input, workers);
		check_settles(round, &input, &plan, workers);
	}
	ok(creating > ROUNDS / 50 && retiring > ROUNDS / 10,
	   "property: the snapshots are of all sorts (%d of %d create, %d act)", creating, ROUNDS,
	   retiring);
	for (int i = 0; i < P_COUNT; i++)
		ok(properties[i].broken_in < 0, "property: %s (first broken in round %d)",
		   properties[i].name, properties[i].broken_in);
}
