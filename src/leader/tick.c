/*
 * leader/tick.c
 *	  What the leader does at each tick, in order: begin, admit, end what is
 *	  overdue, decide, ask the provider.
 *
 * Each step is a transaction of its own and recomputes what it needs from the
 * tables, so a step that failed is made up for at the next tick. A decision that
 * changes something locks its pool first and reads afterwards; it is the only place, besides
 * spawn_worker(), where a pod is announced. Calls are started here, after the
 * commit of the row that announces them, and never inside a transaction.
 */
#include "postgres.h"

#include "base/clock.h"
#include "commands/async.h"
#include "base/guc.h"
#include "base/inject.h"
#include "db/xact_part.h"
#include "leader/leader.h"
#include "miscadmin.h"
#include "store/breaker.h"
#include "store/dependency.h"
#include "store/event.h"
#include "store/fleet.h"
#include "store/holder.h"
#include "store/kill.h"
#include "store/lease.h"
#include "store/offer_stats.h"
#include "store/offer.h"
#include "store/op.h"
#include "store/passed.h"
#include "store/places_wanted.h"
#include "store/tenant.h"
#include "store/waiting.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "base/wake.h"

/* Passes over the waiting tasks in one step, so that the leader looks up now and then. */
#define MAX_ADMIT_PASSES 10

/* An answer this long after a call's own time limit is not coming. */
#define ANSWER_MARGIN (30 * USECS_PER_SEC)

/* How often the queue is searched for rows that a restore wrote into it. */
#define RECHECK_INTERVAL (60 * USECS_PER_SEC)

/* A due time that could not be met is looked at again after this. */
#define DUE_RETRY (100 * INT64CONST(1000))

/* Begin this leader's reign in the installation, once there is one. */
static void
begin(Leader *leader, void *arg)
{
	TimestampTz now = clock_now();
	char before[INSTALLATION_ID_LENGTH + 1];

	strlcpy(before, leader->installation.id, sizeof(before));
	if (!store_installation_check(&leader->installation, leader->epoch == 0, now))
	{
		leader->epoch = 0;
		return;
	}
	if (leader->epoch == 0 || strcmp(before, leader->installation.id) != 0)
	{
		leader->epoch = 0;
		store_installation_take(now);
		leader->epoch = store_installation_new_leader();
		leader_look_first(leader);
		INJECT("leader.reign");
	}
	INJECT("leader.begin");
	store_op_unanswered(leader->epoch, now - (guc_us(guc_http_timeout) + ANSWER_MARGIN), now);
}

/* Let through what need not wait any longer; *arg, a bool, is set if work became claimable by it. */
static void
admit(Leader *leader, void *arg)
{
	bool *claimable = arg;
	TimestampTz now = clock_now();
	bool more = true;

	INJECT("leader.admit");
	for (int pass = 0; more && pass < MAX_ADMIT_PASSES; pass++)
	{
		bool made_ready;

		CHECK_FOR_INTERRUPTS();
		(void) store_waiting_admit(now, &made_ready, &more);
		*claimable |= made_ready;
	}
}

/*
 * Tell those who listen for work. In a transaction of its own: anybody may fill the server's
 * queue of notifications, and then this fails, and nothing else.
 */
static void
notify(Leader *leader, void *arg)
{
	Async_Notify("gpu_orch_tasks", "");
}

/* End the attempts whose task's own timeout has passed. */
static void
end_overdue(Leader *leader, void *arg)
{
	TimestampTz now = clock_now();
	LeaseEnd end = { .outcome = OUTCOME_TIMEOUT,
					 .failure = FAILURE_TASK,
					 .retry = true,
					 .error = "the task's timeout passed" };

	INJECT("leader.overdue");
	store_lease_demand(LEASES_PAST_DEADLINE, now);
	store_lease_end_all(LEASES_PAST_DEADLINE, 0, now, (Datum) 0, &end, now);
	leader->next_due = store_waiting_next_due();
}

/*
 * End leases of workers that are gone: a claim locks no worker, so it may have raced its worker's
 * end.
 */
static void
end_unheld(Leader *leader, void *arg)
{
	TimestampTz now = clock_now();
	LeaseEnd end = { .outcome = OUTCOME_LOST, .error = "the worker had been ended" };

	INJECT("leader.unheld");
	store_lease_demand(LEASES_OF_ENDED, now);
	store_lease_end_all(LEASES_OF_ENDED, 0, 0, (Datum) 0, &end, now);
}

/* Move up what has waited for long, and look for changes and rows that nobody announced. */
static void
keep_queue(Leader *leader, void *arg)
{
	TimestampTz now = clock_now();

	INJECT("leader.queue");
	if (store_dependency_repair(now) > 0)
		wake_at_commit(WAKE_DECIDE | WAKE_NOTIFY);
	if (store_queue_age(now) > 0)
		wake_at_commit(WAKE_DECIDE);
	leader->next_recheck = Min(leader->next_recheck, now + RECHECK_INTERVAL);
	if (leader->next_recheck <= now)
	{
		store_queue_recheck();
		store_places_wanted_watch(now);
		leader->next_recheck = now + RECHECK_INTERVAL;
	}
}

/* Admit tasks now; flags are those that commits have set. */
bool
leader_admit(Leader *leader, uint32 flags)
{
	bool claimable = (flags & WAKE_NOTIFY) != 0;
	bool good = leader_step(leader, "admitting tasks", admit, &claimable);

	if (good && claimable)
		(void) leader_step(leader, "telling those who listen", notify, NULL);
	return good;
}

/* Admit tasks that this tick made room for, so that a cycle ends with what follows from it. */
static bool
admit_next(Leader *leader)
{
	uint32 flags = wake_take(ADMIT_FLAGS);

	return flags == 0 || leader_admit(leader, flags);
}

/* End attempts that are overdue, admit tasks whose time has come, and find the next due time. */
bool
leader_end_overdue(Leader *leader)
{
	bool good = leader_admit(leader, 0);

	good &= leader_step(leader, "ending overdue attempts", end_overdue, NULL);
	if (leader->next_due != 0)
		leader->next_due = Max(leader->next_due, clock_now() + DUE_RETRY);
	return good;
}

/* A move of one worker, and the rule by which it was moved. */
typedef struct Move
{
	int64 worker;
	const char *cause;
	TimestampTz now;
	const WorkerRule *rule; /* NULL: it was not moved */
} Move;

static void
move(void *arg)
{
	Move *one = arg;

	one->rule = store_worker_move(one->worker, one->cause, NULL, one->now);
	INJECT("leader.moved");
}

/*
 * Move one worker. A failure is noted and leaves the others alone; a row that somebody keeps is
 * for the next tick, and nobody keeps it for ever where the worker must be moved. Returns NULL if
 * the worker was not moved.
 */
static const WorkerRule *
try_move(int64 worker, const char *cause, bool must, TimestampTz now)
{
	Move one = { .worker = worker, .cause = cause, .now = now };
	ErrorData *error;

	if (!store_holder_try(KEPT_WORKER, worker, must, now))
		return NULL;
	error = xact_part(move, &one);
	if (error == NULL)
		return one.rule;
	leader_note_error("moving a worker", error->message);
	return NULL;
}

/* Do to each worker what the plan says, but declare no more of them lost; returns how many moved. */
static int
act(Leader *leader, const PlanResult *plan, int lost_room, TimestampTz now)
{
	int moved = 0;
	int lost = 0;

	for (int i = 0; i < plan->n_actions; i++)
	{
		const PlanAction *action = &plan->actions[i];
		const WorkerRule *rule;

		/* A claim that raced the drain is one more task to finish. */
		if (strcmp(action->cause, "drained") == 0 &&
			store_lease_count_worker(action->worker, 1) > 0)
			continue;
		if (action->kind == PLAN_LOST && lost >= lost_room)
			continue;
		rule = try_move(action->worker, action->cause,
						action->kind == PLAN_TERMINATE || action->kind == PLAN_LOST, now);
		if (rule == NULL)
			continue;
		moved++;
		lost += action->kind == PLAN_LOST;
		if (rule->to == WS_TERMINATING || rule->to == WS_TERMINATED)
		{
			leader->actions.workers_terminated++;
			if (plan_offer_blame(action->cause) != BLAME_NOBODY)
				leader->actions.workers_failed++;
		}
	}
	return moved;
}

static void
follow_roles(Leader *leader, void *arg)
{
	store_tenant_follow_roles(false, clock_now());
}

/*
 * Run a step that plans the fleet, in a memory context that ends with it: a plan of 10,000 workers
 * takes megabytes, and a cycle makes several. `arg` must not point into it afterwards.
 */
static bool
plan_step(Leader *leader, const char *doing, LeaderStep step, void *arg)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(outer, "gpu_orch plan of the fleet", ALLOCSET_DEFAULT_SIZES);
	bool done;

	MemoryContextSwitchTo(context);
	done = leader_step(leader, doing, step, arg);
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(context);
	return done;
}

/*
 * Decide for the pools up to the first one for which something is to be done, from one plan and
 * without a lock; *arg is advanced to that pool. The pools after it wait, since a pool that is
 * full leaves its tasks to the next one.
 */
static void
decide_quiet(Leader *leader, void *arg)
{
	PoolRow **next = arg;
	TimestampTz now = clock_now();
	FleetPlan fleet;

	if (!store_fleet_plan(&fleet, now))
		return;
	for (int i = 0; i < fleet.n_pools; i++, (*next)++)
	{
		const FleetPool *pool = &fleet.pools[i];

		if ((*next)->name == NULL || pool->row.id != (*next)->id || pool->plan.create > 0 ||
			pool->plan.n_actions > 0 || pool->plan.scaled_in)
			return;
		(void) store_decision(pool->row.id, pool->row.policy, &pool->plan, 0, now);
		INJECT("leader.quiet");
	}
}

/* Decide for one pool and commit its intents. */
static void
decide_pool(Leader *leader, void *arg)
{
	const PoolRow *named = arg;
	TimestampTz now = clock_now();
	FleetPlan fleet;
	FleetPool *pool = NULL;
	const char *refused = NULL;
	int64 decision;
	bool alone = store_holder_try(KEPT_INSTALLATION, 0, false, now);
	int ended;
	int room;

	if (!store_pool_lock(named->id))
	{
		store_holder_note(KEPT_POOL, named->id);
		return;
	}
	if (!store_fleet_plan(&fleet, now))
		return;
	for (int i = 0; i < fleet.n_pools; i++)
		if (fleet.pools[i].row.id == named->id)
			pool = &fleet.pools[i];
	if (pool == NULL)
		return;
	room = leader_gate_room(leader, CLOUD_CREATE, now);
	if (room == 0)
		refused = "the provider cannot be used now";
	else if (!alone)
		refused = "a session is creating pods or changing a budget";
	else if (!store_breaker_is_free(pool->row.image))
		refused = "a session is changing a pool of the same image";
	else
		refused = leader_look_refuses(leader, now);
	pool->plan.create = Min(pool->plan.create, Max(room, 1));
	if (pool->plan.create > 0 &&
		(refused != NULL || !store_fleet_can_place(&pool->row, &refused, now)))
	{
		pool->plan.create = 0;
		pool->plan.bound_by = refused;
	}

	INJECT("leader.decide");
	ended = act(leader, &pool->plan, pool->input.lost_room, now);
	decision = store_decision(pool->row.id, pool->row.policy, &pool->plan, ended, now);
	INJECT("leader.decided");
	if (pool->plan.scaled_in)
		store_pool_scaled_in(pool->row.id, now);
	for (int i = 0; i < pool->plan.create; i++)
	{
		if (store_fleet_intend(&pool->row, &leader->installation, decision, &refused, now) == NULL)
		{
			ereport(DEBUG1,
					(errmsg("gpu_orch: pool \"%s\" gets no pod: %s", named->name, refused)));
			break;
		}
		INJECT("intent.planned");
		leader->actions.workers_spawned++;
	}
}

/* What kill_fleet() could not end, since somebody had the worker's row. */
static void
end_fleet(Leader *leader, void *arg)
{
	TimestampTz now = clock_now();
	Installation installation;
	WorkerInfo *workers;
	int n;

	/* Somebody may be ending the kill. */
	if (!store_installation_share(&installation) || !installation.killing || installation.hold)
		return;
	n = store_worker_list(&workers);
	INJECT("leader.kill");
	for (int i = 0; i < n; i++)
		if (store_kill_concerns(&workers[i]) && try_move(workers[i].no, "kill", true, now) != NULL)
			leader->actions.workers_terminated++;
}

/* Workers that registered themselves: lost or drained, they are only let go. */
static void
decide_external(Leader *leader, void *arg)
{
	TimestampTz now = clock_now();
	FleetPlan fleet;

	INJECT("leader.external");
	if (store_fleet_plan(&fleet, now))
		(void) act(leader, &fleet.external_plan, fleet.external.lost_room, now);
}

/* Processes that share a worker's id, and what was said of a worker an hour ago. */
static void
watch_workers(TimestampTz now)
{
	Rival *rivals;
	int n = rivals_refused(now - 2 * USECS_PER_MINUTE, &rivals);
	AlertCase cases[RIVALS];

	for (int i = 0; i < n; i++)
	{
		cases[i].subject = rivals[i].name;
		cases[i].detail = "another process asks to register as this worker, which is alive";
	}
	store_alert_all(ALERT_WORKER_ID_SHARED, cases, n, now);
	store_alert_expire(ALERT_WORKER_BROKEN, now - USECS_PER_HOUR, now);
	store_alert_expire(ALERT_POD_REBOUND, now - USECS_PER_HOUR, now);
}

/* What pods taught of their offers and images, and whom the tasks pass over. */
static void
tick_learn(Leader *leader, void *arg)
{
	TimestampTz now = clock_now();

	store_offer_learn(now);
	INJECT("leader.learn");
	store_offer_watch(now);
	store_breaker_watch(now);
	store_passed_watch(now);
	watch_workers(now);
}

/* Creates that were never sent, of workers that were ended meanwhile: there is no pod. */
static void
abandon_planned(TimestampTz now)
{
	CloudOpRow *ops;
	int n = store_op_abandoned(&ops);

	for (int i = 0; i < n; i++)
	{
		WorkerRow worker;
		CloudOpRow op;

		if (!store_holder_try(KEPT_WORKER, ops[i].worker, true, now) ||
			!store_worker_lock(ops[i].worker, &worker) || !store_op_lock(ops[i].id, &op) ||
			op.state != OP_PLANNED)
			continue;
		store_op_answer(op.id, OP_ABSENT, 0, "not sent",
						"the worker was ended before its pod was asked for", NULL, 0, now);
		(void) store_worker_move(worker.no, "never_created", NULL, now);
	}
}

/* Read the pools' names, and make sure that every owed delete is announced. */
static void
prepare(Leader *leader, void *arg)
{
	PoolRow **pools = arg;
	TimestampTz now = clock_now();
	int n = store_pool_list(pools);
	int64 unpriced;

	(*pools)[n].name = NULL;
	abandon_planned(now);
	unpriced = store_offer_count_unpriced();
	if (unpriced > leader->unpriced)
		leader->next_catalog = 0;
	else if (unpriced > 0)
		leader->next_catalog = Min(leader->next_catalog, leader->last_catalog + CATALOG_RETRY);
	leader->unpriced = unpriced;
	store_op_plan_owed_deletes(now);
	INJECT("leader.owed");
	store_op_watch_deletes(now);
}

/* Who keeps the rows that the leader has something to do to. */
static void
watch_holders(Leader *leader, void *arg)
{
	INJECT("leader.held");
	store_holder_watch(clock_now());
}

/* What the fleet looks like after the cycle, for run_cycle() and status(). */
static void
summarise(Leader *leader, void *arg)
{
	FleetPlan fleet;

	TimestampTz now = clock_now();

	if (!store_fleet_plan(&fleet, now))
		return;
	INJECT("leader.summed");
	*(CycleSummary *) arg = fleet.summary;
	store_fleet_watch(&fleet, now);
}

/* One whole cycle. */
void
leader_tick(Leader *leader)
{
	ShmemState *state = shmem_state();
	CycleSummary summary = { 0 };
	PoolRow *pools = NULL;
	uint64 answering;
	uint64 reset_before = pg_atomic_read_u64(&state->tasks_reset);
	int64 epoch_before = leader->epoch;
	bool good;
	TimestampTz now;

	now = clock_now();
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	answering = state->cycle_asked;
	if (state->last_tick != 0 &&
		now - state->last_tick > guc_us(guc_cycle_interval) + guc_us(guc_heartbeat_timeout))
		state->grace_since = now;
	LWLockRelease(state->lock);
	leader->decide_at = 0;

	good = leader_step(leader, "beginning", begin, NULL);
	/* An epoch that was not committed is nobody's. */
	if (!good && leader->epoch != epoch_before)
		leader->epoch = 0;
	if (good)
	{
		leader_open_cloud(leader);
		good &= leader_end_overdue(leader);
	}
	if (good && leader->epoch != 0)
	{
		good &= leader_watch_clock(leader);
		good &= leader_step(leader, "ending leases of ended workers", end_unheld, NULL);
		good &= leader_step(leader, "keeping the queue in order", keep_queue, NULL);
		if (leader->installation.killing)
			good &= plan_step(leader, "ending the fleet", end_fleet, NULL);
		good &= plan_step(leader, "deciding for external workers", decide_external, NULL);
		good &= leader_step(leader, "learning from pods", tick_learn, NULL);
		if (leader_step(leader, "reading pools", prepare, &pools))
		{
			PoolRow *next = pools;

			if (!plan_step(leader, "deciding for quiet pools", decide_quiet, &next))
				next = pools;
			for (; next->name != NULL; next++)
				good &= leader_watch_clock(leader) &&
					plan_step(leader, "deciding for a pool", decide_pool, next);
		}
		good &= leader_step(leader, "planning deletes", prepare, &pools);
		good &= admit_next(leader);
		good &= leader_step(leader, "following the roles of tenants", follow_roles, NULL);
		good &= plan_step(leader, "summing up", summarise, &summary);
	}
	else if (leader->verdict == GUARD_ABSENT || leader->verdict == GUARD_STANDBY ||
			 leader->verdict == GUARD_SUBSCRIBER)
		leader->epoch = 0;

	if (leader->verdict == GUARD_GO)
		good &= leader_step(leader, "looking who keeps rows", watch_holders, NULL);

	now = clock_now();
	leader->next_tick = now + guc_us(guc_cycle_interval);
	summary.workers_promoted = leader->actions.workers_promoted;
	summary.workers_failed = leader->actions.workers_failed;
	summary.workers_spawned = leader->actions.workers_spawned;
	summary.workers_terminated = leader->actions.workers_terminated;
	summary.tasks_reset = (int64) (pg_atomic_read_u64(&state->tasks_reset) - reset_before);
	memset(&leader->actions, 0, sizeof(CycleSummary));
	pg_atomic_fetch_add_u64(&state->ticks, 1);
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	state->last_tick = now;
	state->leader_memory = (int64) MemoryContextMemAllocated(TopMemoryContext, true);
	state->cycle = summary;
	state->cycle_done = answering;
	state->cycle_failed = !good;
	if (leader->verdict != GUARD_GO)
		strlcpy(state->api_error, ext_guard_explain(leader->verdict), SHMEM_TEXT);
	LWLockRelease(state->lock);
	if (leader->verdict != GUARD_GO || leader->epoch == 0)
		leader_answer_reconcile(PG_UINT64_MAX, true);
	ConditionVariableBroadcast(&state->answered);
}
