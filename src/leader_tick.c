/*
 * leader_tick.c
 *	  What the leader does at each tick, in order: begin, admit, end what is
 *	  overdue, decide, ask the provider.
 *
 * Each step is a transaction of its own and recomputes what it needs from the
 * tables, so a step that failed is made up for at the next tick. A decision locks
 * its pool first and reads afterwards; it is the only place, besides
 * spawn_worker(), where a pod is announced. Calls are started here, after the
 * commit of the row that announces them, and never inside a transaction.
 */
#include "postgres.h"

#include "clock.h"
#include "commands/async.h"
#include "guc.h"
#include "leader.h"
#include "miscadmin.h"
#include "store_event.h"
#include "store_fleet.h"
#include "store_lease.h"
#include "store_op.h"
#include "store_task.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "wake.h"

/* Passes over the waiting tasks in one step, so that the leader looks up now and then. */
#define MAX_ADMIT_PASSES 10

#define CATALOG_RETRY_MS (60 * 1000)

/* Delay before a call that could not be started is tried again. */
#define START_RETRY_MS 5000

static TimestampTz
after_ms(TimestampTz time, int64 ms)
{
	return time + ms * 1000;
}

/* Begin this leader's reign in the installation, once. */
static void
begin(Leader *leader, void *arg)
{
	TimestampTz now = clock_now();

	store_installation_ensure(&leader->installation, now);
	if (leader->epoch == 0)
	{
		leader->epoch = store_installation_new_leader();
		store_op_orphaned_sends(leader->epoch, now);
	}
}

/* Release what need not wait, and tell the listeners that there is work. */
static void
admit(Leader *leader, void *arg)
{
	uint32		flags = *(uint32 *) arg;
	TimestampTz now = clock_now();
	bool		notify = (flags & WAKE_NOTIFY) != 0;

	for (int pass = 0; pass < MAX_ADMIT_PASSES; pass++)
	{
		bool		made_ready;

		CHECK_FOR_INTERRUPTS();
		if (store_task_admit(now, &made_ready) == 0)
			break;
		notify = notify || made_ready;
	}
	if (notify)
		Async_Notify("gpu_orch_tasks", "");
	leader->next_due = store_task_next_due();
}

/* Admit now; flags are those that commits have set. */
void
leader_admit(Leader *leader, uint32 flags)
{
	(void) leader_step(leader, "admitting tasks", admit, &flags);
}

/* End the attempts whose task's own timeout has passed. */
static void
end_overdue(Leader *leader, void *arg)
{
	TimestampTz now = clock_now();
	LeaseEnd	end = {
		.outcome = OUTCOME_TIMEOUT,
		.failure = FAILURE_TASK,
		.retry = true,
		.error = "the task's timeout passed"
	};

	store_lease_end_all(LEASES_PAST_DEADLINE, 0, now, (Datum) 0, &end, now);
}

/* Do to each worker what the plan says; returns how many moved. */
static int
act(Leader *leader, const PlanResult *plan, TimestampTz now)
{
	int			moved = 0;

	for (int i = 0; i < plan->n_actions; i++)
	{
		const PlanAction *action = &plan->actions[i];
		const WorkerRule *rule;

		/* A claim that raced the drain is one more task to finish. */
		if (strcmp(action->cause, "drained") == 0 && store_lease_count_worker(action->worker) > 0)
			continue;
		rule = store_worker_move(action->worker, action->cause, NULL, now);
		if (rule == NULL)
			continue;
		moved++;
		if (rule->to == WS_TERMINATING || rule->to == WS_TERMINATED)
		{
			leader->actions.workers_terminated++;
			if (action->kind == PLAN_LOST || strcmp(action->cause, "spawn_timeout") == 0)
				leader->actions.workers_failed++;
		}
	}
	return moved;
}

/* Decide for one pool and commit its intents. */
static void
decide_pool(Leader *leader, void *arg)
{
	const char *name = arg;
	TimestampTz now = clock_now();
	FleetPlan	fleet;
	FleetPool  *pool = NULL;
	int32		id;
	int64		decision;
	int			ended;

	/* A dropped pool is not found, but nothing is created for it either. */
	(void) store_pool_find(name, true, &id);
	if (!store_fleet_plan(&fleet, now))
		return;
	for (int i = 0; i < fleet.n_pools; i++)
		if (strcmp(fleet.pools[i].row.name, name) == 0)
			pool = &fleet.pools[i];
	if (pool == NULL)
		return;

	ended = act(leader, &pool->plan, now);
	decision = store_decision(pool->row.id, pool->row.policy, &pool->plan, ended, now);
	if (pool->plan.scaled_in)
		store_pool_scaled_in(pool->row.id, now);
	for (int i = 0; i < pool->plan.create; i++)
	{
		const char *refused = NULL;

		if (store_fleet_intend(&pool->row, leader->installation.id, decision, &refused, now) == NULL)
		{
			ereport(DEBUG1, (errmsg("gpu_orch: pool \"%s\" gets no pod: %s", name, refused)));
			break;
		}
		leader->actions.workers_spawned++;
	}
}

/* Workers that registered themselves: lost or drained, they are only let go. */
static void
decide_external(Leader *leader, void *arg)
{
	TimestampTz now = clock_now();
	FleetPlan	fleet;

	if (store_fleet_plan(&fleet, now))
		(void) act(leader, &fleet.external_plan, now);
}

/* Read the pools' names, and make sure that every owed delete is announced. */
static void
prepare(Leader *leader, void *arg)
{
	PoolRow   **pools = arg;
	int			n = store_pool_list(pools);

	(*pools)[n].name = NULL;
	store_op_plan_owed_deletes(clock_now());
}

/* What the fleet looks like after the cycle, for run_cycle() and status(). */
static void
summarise(Leader *leader, void *arg)
{
	FleetPlan	fleet;

	if (store_fleet_plan(&fleet, clock_now()))
		*(CycleSummary *) arg = fleet.summary;
}

/* Start reading the provider's list, if it is time and nothing stands against it. */
static void
start_list(Leader *leader, TimestampTz now)
{
	ShmemState *state = shmem_state();
	char	   *error = NULL;
	bool		asked;

	LWLockAcquire(state->lock, LW_SHARED);
	asked = state->reconcile_done < state->reconcile_asked;
	if (leader->cloud != NULL && leader->list_started == 0)
		leader->reconcile_answering = state->reconcile_asked;
	LWLockRelease(state->lock);
	if (leader->cloud == NULL || leader->list_started != 0 ||
		(!asked && (leader->next_reconcile > now || leader->api_retry_at > now)))
		return;
	if (!cloud_start_list(leader->cloud, TAG_LIST, &error))
	{
		leader_api_failed(leader, error, -1);
		return;
	}
	leader->list_started = now;
}

/* Start reading the provider's prices, now and then. */
static void
start_catalog(Leader *leader, TimestampTz now)
{
	char	   *error = NULL;

	if (leader->cloud == NULL || leader->catalog_in_flight || leader->next_catalog > now ||
		leader->api_retry_at > now)
		return;
	leader->next_catalog = after_ms(now, CATALOG_RETRY_MS);
	if (cloud_start_catalog(leader->cloud, TAG_CATALOG, &error))
		leader->catalog_in_flight = true;
	else
		leader_api_failed(leader, error, -1);
}

/* One whole cycle. */
void
leader_tick(Leader *leader)
{
	ShmemState *state = shmem_state();
	CycleSummary summary = {0};
	PoolRow    *pools = NULL;
	uint64		answering;
	uint64		reset_before = pg_atomic_read_u64(&state->tasks_reset);
	TimestampTz now;

	LWLockAcquire(state->lock, LW_SHARED);
	answering = state->cycle_asked;
	LWLockRelease(state->lock);
	leader->decide_at = 0;
	memset(&leader->actions, 0, sizeof(CycleSummary));

	if (leader_step(leader, "beginning", begin, NULL))
	{
		leader_open_cloud(leader);
		leader_admit(leader, 0);
		(void) leader_step(leader, "ending overdue attempts", end_overdue, NULL);
		(void) leader_step(leader, "deciding for external workers", decide_external, NULL);
		if (leader_step(leader, "reading pools", prepare, &pools))
			for (int i = 0; pools[i].name != NULL; i++)
				(void) leader_step(leader, "deciding for a pool", decide_pool, pools[i].name);
		(void) leader_step(leader, "planning deletes", prepare, &pools);
		(void) leader_step(leader, "summing up", summarise, &summary);
		start_list(leader, clock_now());
		start_catalog(leader, clock_now());
	}
	else if (leader->verdict == GUARD_ABSENT || leader->verdict == GUARD_STANDBY)
		leader->epoch = 0;

	now = clock_now();
	leader->next_tick = after_ms(now, guc_cycle_interval);
	summary.workers_promoted = leader->actions.workers_promoted;
	summary.workers_failed = leader->actions.workers_failed;
	summary.workers_spawned = leader->actions.workers_spawned;
	summary.workers_terminated = leader->actions.workers_terminated;
	summary.tasks_reset = (int64) (pg_atomic_read_u64(&state->tasks_reset) - reset_before);
	pg_atomic_fetch_add_u64(&state->ticks, 1);
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	state->last_tick = now;
	state->leader_memory = (int64) MemoryContextMemAllocated(TopMemoryContext, true);
	state->cycle = summary;
	state->cycle_done = answering;
	if (leader->verdict != GUARD_GO && state->reconcile_done < state->reconcile_asked)
	{
		state->reconcile_done = state->reconcile_asked;
		state->reconcile_failed = true;
		strlcpy(state->api_error, ext_guard_explain(leader->verdict), SHMEM_TEXT);
	}
	LWLockRelease(state->lock);
	ConditionVariableBroadcast(&state->answered);
}

/* One op on its way out. */
typedef struct Sending
{
	CloudOpRow	op;
	bool		go;				/* committed as sent: make the call */
	PoolRow    *pool;
	char		token[TOKEN_LENGTH + 1];
	char	   *worker_id;
} Sending;

/* Commit that an op is about to be sent, and make what its call needs. */
static void
mark_sent(Leader *leader, void *arg)
{
	Sending    *sending = arg;
	TimestampTz now = clock_now();
	WorkerRow	worker;
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	PoolRow    *pools;
	int			n;

	/* Worker before op, as everywhere. */
	if (sending->op.worker != 0 && !store_worker_lock(sending->op.worker, &worker))
		return;
	if (!store_op_lock(sending->op.id, &sending->op) || sending->op.state != OP_PLANNED)
		return;
	if (sending->op.kind == OP_CREATE)
	{
		if (worker.state != WS_SPAWNING)
		{
			store_op_answer(sending->op.id, OP_ABSENT, 0, "not sent",
							"the worker was ended before its pod was asked for", NULL, 0, now);
			(void) store_worker_move(worker.no, "never_created", NULL, now);
			return;
		}
		n = store_pool_list(&pools);
		for (int i = 0; i < n; i++)
			if (pools[i].id == sending->op.pool)
				sending->pool = &pools[i];
		if (sending->pool == NULL)
			return;
		worker_token_make(sending->token);
		worker_token_digest(sending->token, digest);
		store_worker_set_registration(worker.no, digest);
		store_spend_open(worker.no, sending->op.pool, sending->op.price_micros, now);
		sending->worker_id = worker.id;
	}
	store_op_sent(sending->op.id, leader->epoch, now);
	sending->go = true;
}

/* Nothing left this machine: the op may be sent another time. */
static void
unmark_sent(Leader *leader, void *arg)
{
	Sending    *sending = arg;
	TimestampTz now = clock_now();

	store_op_answer(sending->op.id, OP_PLANNED, 0, "not sent", NULL, NULL,
					after_ms(now, START_RETRY_MS), now);
	if (sending->op.kind == OP_CREATE)
		store_spend_close(sending->op.worker, 0);
}

static int
add_env(CloudEnv *env, int n, const char *name, const char *value)
{
	env[n].name = name;
	env[n].value = value;
	return n + 1;
}

/* The pod of a create, as the provider is asked for it. */
static bool
call_create(Leader *leader, const Sending *sending, char **error)
{
	const PoolRow *pool = sending->pool;
	CloudPodSpec spec = {0};
	CloudEnv   *env = palloc((JB_ROOT_COUNT(pool->env) + 8) * sizeof(CloudEnv));
	JsonbIterator *iterator = JsonbIteratorInit(&pool->env->root);
	JsonbIteratorToken token;
	JsonbValue	item;
	char	   *key = NULL;
	int			n = 0;
	const char *data_centers[1];

	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(item.val.string.val, item.val.string.len);
		else if (token == WJB_VALUE && item.type == jbvString)
			n = add_env(env, n, key, pnstrdup(item.val.string.val, item.val.string.len));
	}
	n = add_env(env, n, "GPU_ORCH_DSN", guc_worker_dsn);
	n = add_env(env, n, "GPU_ORCH_INSTALLATION", leader->installation.id);
	n = add_env(env, n, "GPU_ORCH_OP", sending->op.nonce);
	n = add_env(env, n, "GPU_ORCH_POOL", pool->name);
	n = add_env(env, n, "GPU_ORCH_WORKER_ID", sending->worker_id);
	n = add_env(env, n, "GPU_ORCH_TOKEN", sending->token);

	spec.name = sending->op.pod_name;
	spec.image = pool->image;
	spec.gpu_type = sending->op.gpu_type;
	spec.gpu_count = pool->gpu_count;
	spec.cloud_type = pool->cloud_type;
	if (sending->op.data_center != NULL)
	{
		data_centers[0] = sending->op.data_center;
		spec.data_centers = data_centers;
		spec.n_data_centers = 1;
	}
	spec.container_disk_gb = pool->container_disk_gb;
	spec.volume_id = pool->volume_id;
	spec.volume_mount_path = pool->volume_mount_path;
	spec.args = pool->args;
	spec.template_id = pool->template_id;
	spec.registry_id = pool->registry_id;
	spec.min_cuda_version = pool->min_cuda_version;
	spec.ports = (const char *const *) pool->ports;
	spec.n_ports = pool->n_ports;
	spec.env = env;
	spec.n_env = n;
	return cloud_start_create(leader->cloud, sending->op.id, &spec, error);
}

static void
send_op(Leader *leader, const CloudOpRow *op)
{
	Sending		sending = {.op = *op};
	char	   *error = NULL;
	bool		started;

	if (!leader_step(leader, "sending an op", mark_sent, &sending) || !sending.go)
		return;
	if (sending.op.kind == OP_CREATE)
	{
		started = call_create(leader, &sending, &error);
		explicit_bzero(sending.token, sizeof(sending.token));
	}
	else
		started = cloud_start_delete(leader->cloud, sending.op.id, sending.op.pod_id, &error);
	if (!started)
	{
		(void) leader_step(leader, "taking an op back", unmark_sent, &sending);
		leader_api_failed(leader, error, -1);
	}
}

/* The ops that may be sent now: deletes before creates. */
typedef struct DueOps
{
	CloudOpRow *deletes;
	int			n_deletes;
	CloudOpRow *creates;
	int			n_creates;
	int			room;
} DueOps;

static void
read_due(Leader *leader, void *arg)
{
	DueOps	   *due = arg;
	TimestampTz now = clock_now();
	bool		may_create;

	if (!store_installation_read(&leader->installation) || leader->installation.hold)
		return;
	LWLockAcquire(shmem_state()->lock, LW_SHARED);
	may_create = shmem_state()->first_look_done;
	LWLockRelease(shmem_state()->lock);
	due->n_deletes = store_op_due(&due->deletes, OP_DELETE, due->room, now);
	if (may_create && !leader->installation.paused)
		due->n_creates = store_op_due(&due->creates, OP_CREATE, due->room - due->n_deletes, now);
	leader->next_op_due = store_op_next_due(now);
}

/* Send what is announced and due, as far as the provider and its window allow. */
void
leader_send(Leader *leader)
{
	DueOps		due = {0};

	if (leader->cloud == NULL || leader->verdict != GUARD_GO || leader->epoch == 0 ||
		leader->api_retry_at > clock_now())
		return;
	due.room = guc_api_concurrency - cloud_in_flight(leader->cloud);
	if (due.room <= 0 || !leader_step(leader, "reading due ops", read_due, &due))
		return;
	for (int i = 0; i < due.n_deletes; i++)
		send_op(leader, &due.deletes[i]);
	for (int i = 0; i < due.n_creates; i++)
		send_op(leader, &due.creates[i]);
}
