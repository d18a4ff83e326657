/*
 * test_fleet.c
 *	  Fleets lived through: a small world of pods that boot, die, are refused or left
 *	  unanswered, and of tasks that come and go, steered by plan_scale alone. It never
 *	  passes its maximum, makes no illegal move, buys no more than it was asked for, ends
 *	  with the minimum, and then rests.
 */
#include <string.h>

#include "unit.h"

#define MAX_PODS 128
#define TICK 5.0
#define HOUR 3600.0
#define NEVER 1e18

/* A worker, and what the world knows of it that the planner does not. */
typedef struct Pod
{
	PlanWorker worker; /* the planner's view */
	double due;		   /* when the provider or the boot comes on */
	double task_end;
	bool dead; /* silent from now on */
} Pod;

typedef struct World
{
	PlanPool pool;
	uint64_t seed;
	double now;
	double last_scale_in; /* negative: never */
	bool faults;
	Pod pods[MAX_PODS];
	int n_pods;
	int queued;
	int submitted;
	int done;
	int created;
	int failed;	 /* creates and workers that the world took away */
	int expired; /* drained for their age */
	int actions;
	int least_active; /* since it was last set */
	bool over_max;
	bool illegal;
} World;

static void
world_init(World *world, PlanPolicy policy, int min, int max, uint64_t seed)
{
	memset(world, 0, sizeof(*world));
	plan_pool_init(&world->pool);
	world->pool.policy = policy;
	world->pool.min_workers = min;
	world->pool.max_workers = max;
	world->pool.tasks_per_worker = 2;
	world->seed = seed;
	world->last_scale_in = -1;
	world->least_active = INT_MAX;
}

/* True in one of a hundred cases for each percent, where the world has faults. */
static bool
fault(World *world, int percent)
{
	return world->faults && draw(&world->seed, 1, 100) <= percent;
}

/* Move a worker; its task goes back where the move takes it from a holder. */
static void
move(World *world, Pod *pod, const char *cause)
{
	const WorkerRule *rule = fsm_worker_find(pod->worker.state, pod->worker.origin, cause);

	if (rule == NULL)
	{
		world->illegal = true;
		return;
	}
	pod->worker.state = rule->to;
	pod->worker.state_age = 0;
	pod->worker.recallable = same(cause, "idle") || same(cause, "surplus");
	if (rule->to == WS_INITIALIZING)
		pod->due = fault(world, 15) ? NEVER : world->now + draw(&world->seed, 30, 120);
	if (rule->to == WS_TERMINATING)
	{
		pod->due = world->now + draw(&world->seed, 10, 90);
		world->queued += pod->worker.held;
		pod->worker.held = 0;
	}
}

/* The provider answers a create, or the look for an unanswered one ends. */
static void
answer_create(World *world, Pod *pod)
{
	if (fault(world, 5) && pod->due < NEVER && pod->worker.state_age < 600)
		pod->due = world->now + 600;
	else
	{
		bool refused = fault(world, 10);

		pod->worker.create_open = false;
		world->failed += refused;
		move(world, pod,
			 refused ? (pod->worker.state_age > 600 ? "create_absent" : "create_refused") :
					   "pod_created");
	}
}

/* A worker speaks, finishes, claims, or falls silent. */
static void
work(World *world, Pod *pod)
{
	PlanWorker *worker = &pod->worker;

	if (!pod->dead && draw(&world->seed, 0, 999) == 0 && world->faults)
	{
		pod->dead = true;
		world->failed++;
	}
	if (pod->dead)
	{
		worker->silence += TICK;
		return;
	}
	worker->silence = 0;
	worker->idle += TICK;
	if (worker->held > 0)
	{
		worker->idle = 0;
		if (world->now >= pod->task_end)
		{
			worker->held = 0;
			world->done++;
		}
	}
	if (worker->held == 0 && worker->state == WS_ACTIVE && world->queued > 0)
	{
		worker->held = 1;
		world->queued--;
		pod->task_end = world->now + draw(&world->seed, 20, 200);
	}
}

/* Time goes on for one pod. */
static void
live(World *world, Pod *pod)
{
	PlanWorker *worker = &pod->worker;

	worker->age += TICK;
	worker->state_age += TICK;
	if (worker->state == WS_SPAWNING && world->now >= pod->due)
		answer_create(world, pod);
	else if (worker->state == WS_INITIALIZING && world->now >= pod->due)
	{
		move(world, pod, "registered");
		worker->silence = worker->idle = 0;
	}
	else if (worker->state == WS_ACTIVE || worker->state == WS_DRAINING)
		work(world, pod);
	else if (worker->state == WS_TERMINATING && world->now >= pod->due)
		move(world, pod, "pod_absent_proved");
}

/* Ask the planner, and carry out what it says. */
static void
steer(World *world)
{
	PlanInput input;
	PlanWorker workers[MAX_PODS];
	PlanAction actions[MAX_PODS];
	PlanResult plan = { .actions = actions };

	for (int i = 0; i < world->n_pods; i++)
		workers[i] = world->pods[i].worker;
	input_init(&input, workers, world->n_pods);
	input.pool = world->pool;
	input.claimable = world->queued;
	input.since_last_scale_in = world->last_scale_in < 0 ? -1 : world->now - world->last_scale_in;
	plan_scale(&input, &plan);

	world->actions += plan.n_actions;
	world->over_max |= plan.n_total + plan.create > world->pool.max_workers;
	if (plan.n_active < world->least_active)
		world->least_active = plan.n_active;
	if (plan.scaled_in)
		world->last_scale_in = world->now;
	for (int i = 0; i < plan.n_actions; i++)
		for (int j = 0; j < world->n_pods; j++)
			if (world->pods[j].worker.no == plan.actions[i].worker)
			{
				world->expired += same(plan.actions[i].cause, "max_age");
				world->failed += same(plan.actions[i].cause, "spawn_timeout") ||
					same(plan.actions[i].cause, "drain_timeout");
				move(world, &world->pods[j], plan.actions[i].cause);
			}
	for (int i = 0; i < plan.create && world->n_pods < MAX_PODS; i++)
	{
		Pod pod = { .due = world->now + draw(&world->seed, 1, 10) };

		pod.worker.no = ++world->created;
		pod.worker.state = WS_SPAWNING;
		pod.worker.origin = WO_CLOUD;
		pod.worker.silence = -1;
		pod.worker.create_open = true;
		world->pods[world->n_pods++] = pod;
	}
}

/* Live for some seconds; in each tick a task comes with the given chance in a thousand. */
static void
run_world(World *world, double seconds, int arrivals)
{
	double until = world->now + seconds;

	while (world->now < until)
	{
		int alive = 0;
		bool arrives = draw(&world->seed, 1, 1000) <= arrivals;

		world->now += TICK;
		world->queued += arrives;
		world->submitted += arrives;
		for (int i = 0; i < world->n_pods; i++)
			live(world, &world->pods[i]);
		for (int i = 0; i < world->n_pods; i++)
			if (world->pods[i].worker.state != WS_TERMINATED)
				world->pods[alive++] = world->pods[i];
		world->n_pods = alive;
		steer(world);
	}
}

/* Are there exactly so many workers, all active? */
static bool
rests_at(const World *world, int active)
{
	for (int i = 0; i < world->n_pods; i++)
		if (world->pods[i].worker.state != WS_ACTIVE)
			return false;
	return world->n_pods == active;
}

/* A day of changing load in a world of faults, then silence. */
static void
test_storm(PlanPolicy policy, int min, int max, int buffer)
{
	bool bounded = true;
	bool frugal = true;
	bool finished = true;
	bool rests = true;
	bool still = true;
	int busiest = 0;

	for (uint64_t seed = 1; seed <= 6; seed++)
	{
		World world;
		int rest = min + buffer;

		world_init(&world, policy, min, max, seed * 7919);
		world.pool.idle_buffer = buffer;
		world.pool.fixed_workers = policy == POLICY_FIXED ? 3 : 0;
		if (policy == POLICY_FIXED)
			rest = 3;
		else if (buffer > 0)
			rest = min > buffer ? min : buffer;
		world.faults = true;
		for (int i = 0; i < 12; i++)
		{
			run_world(&world, HOUR, draw(&world.seed, 0, 400));
			run_world(&world, HOUR, draw(&world.seed, 0, 20));
		}
		busiest = world.created > busiest ? world.created : busiest;
		world.faults = false;
		run_world(&world, 6 * HOUR, 0);
		bounded &= !world.over_max && !world.illegal;
		frugal &= world.created <= world.submitted + rest + world.failed;
		finished &= world.queued == 0 && world.done == world.submitted;
		rests &= rests_at(&world, rest);
		world.actions = world.created = 0;
		run_world(&world, 24 * HOUR, 0);
		still &= world.actions == 0 && world.created == 0;
	}
	ok(bounded, "fleet, %s: never above max_workers, no illegal move", plan_policy_name(policy));
	ok(frugal && busiest > 0,
	   "fleet, %s: no more pods than tasks, rest and faults ask for (at most %d)",
	   plan_policy_name(policy), busiest);
	ok(finished, "fleet, %s: every task is done in the end", plan_policy_name(policy));
	ok(rests, "fleet, %s: and what should rest is left", plan_policy_name(policy));
	ok(still, "fleet, %s: which then lives through a day of silence unchanged",
	   plan_policy_name(policy));
}

/* A light and steady load does not make the fleet come and go with each task. */
static void
test_steady(PlanPolicy policy, double pods_per_task)
{
	World world;

	world_init(&world, policy, 1, 10, 4711);
	run_world(&world, HOUR, 100);
	world.actions = world.created = 0;
	run_world(&world, 24 * HOUR, 100);
	ok(world.submitted > 1500 && world.created < pods_per_task * world.submitted,
	   "fleet, %s: %d tasks of a steady day need %d more pods", plan_policy_name(policy),
	   world.submitted, world.created);
}

/* Workers are replaced as they grow old, and never are fewer ready than the minimum. */
static void
test_ageing(void)
{
	World world;

	world_init(&world, POLICY_QUEUE_RATIO, 2, 4, 99);
	world.pool.max_worker_age = 2 * HOUR;
	run_world(&world, HOUR, 50);
	world.least_active = INT_MAX;
	run_world(&world, 24 * HOUR, 50);
	ok(world.expired >= 20 && world.least_active >= 2 && !world.over_max,
	   "fleet: %d workers leave for their age, at least %d stay ready", world.expired,
	   world.least_active);

	world_init(&world, POLICY_QUEUE_RATIO, 2, 2, 99);
	world.pool.max_worker_age = 2 * HOUR;
	run_world(&world, HOUR, 50);
	world.least_active = INT_MAX;
	run_world(&world, 24 * HOUR, 50);
	ok(world.expired >= 20 && world.least_active >= 1 && !world.over_max,
	   "fleet: without room for a replacement %d leave one by one", world.expired);
}

/* The emergency stop empties the fleet, and lifting it brings the fleet back. */
static void
test_stop(void)
{
	World world;

	world_init(&world, POLICY_ONE_TO_ONE, 1, 8, 5);
	run_world(&world, HOUR, 500);
	world.pool.max_workers = 0;
	world.created = 0;
	run_world(&world, HOUR, 0);
	ok(world.created == 0 && rests_at(&world, 0) && !world.illegal,
	   "fleet: max_workers 0 empties it");
	world.pool.max_workers = 8;
	run_world(&world, 6 * HOUR, 0);
	ok(world.done == world.submitted && rests_at(&world, 1),
	   "fleet: and 8 brings it back to finish");
}

void
test_fleet(void)
{
	test_storm(POLICY_QUEUE_RATIO, 1, 12, 0);
	test_storm(POLICY_ONE_TO_ONE, 0, 12, 2);
	test_storm(POLICY_FIXED, 0, 12, 0);
	test_steady(POLICY_QUEUE_RATIO, 0.05);
	test_steady(POLICY_ONE_TO_ONE, 0.2);
	test_ageing();
	test_stop();
}
