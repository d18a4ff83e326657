/*
 * leader/send.c
 *	  What the leader asks of the provider: the list, the prices, and the ops that
 *	  are announced and due.
 *
 * A call is started after the commit that marks its op as sent, and never inside
 * a transaction. A create is sent once; deletes go before creates.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/guc.h"
#include "base/inject.h"
#include "base/secret_file.h"
#include "base/token.h"
#include "leader/leader.h"
#include "store/fleet.h"
#include "store/holder.h"
#include "store/offer.h"
#include "store/op.h"
#include "store/secret.h"
#include "store/spend.h"
#include "store/wanted.h"
#include "utils/timestamp.h"

/* The longest connection string that a file may hold. */
#define MAX_DSN_BYTES 4096

/* Delay before an op is looked at again that could not be sent. */
#define START_RETRY (5 * USECS_PER_SEC)

/* Of so many ops the one is chosen that shows whether calls work again. */
#define PROBE_CHOICE 50

/* An offer whose create could not even be made is passed over for so long. */
#define REFUSED_RETRY (60 * USECS_PER_SEC)

/* Start reading the provider's list, if it is time and nothing stands against it. */
static void
start_list(Leader *leader, TimestampTz now)
{
	ShmemState *state = shmem_state();
	char *error = NULL;
	bool asked;

	LWLockAcquire(state->lock, LW_SHARED);
	asked = state->reconcile_done < state->reconcile_asked;
	if (leader->cloud != NULL && leader->list_started == 0)
		leader->reconcile_answering = state->reconcile_asked;
	LWLockRelease(state->lock);
	if (leader->cloud == NULL || leader->list_started != 0)
		return;
	if (asked)
		leader->next_reconcile = now;
	if (asked && leader_gate_is_quiet(leader, CLOUD_LIST, now))
	{
		leader_answer_reconcile(leader->reconcile_answering, true);
		return;
	}
	if (!asked && (leader->next_reconcile > now || leader_gate_opens(leader, CLOUD_LIST) > now))
		return;
	if (cloud_start_list(leader->cloud, TAG_LIST, &error))
	{
		INJECT("list.called");
		leader->list_started = now;
		leader_look_list_begins(leader);
		leader_gate_started(leader, CLOUD_LIST);
	}
	else
	{
		leader_gate_fail(leader, CLOUD_LIST, error, error);
		leader_answer_reconcile(leader->reconcile_answering, true);
	}
}

/* Start reading the provider's prices, now and then. */
static void
start_catalog(Leader *leader, TimestampTz now)
{
	char *error = NULL;

	if (leader->cloud == NULL || leader->catalog_in_flight || leader->next_catalog > now ||
		leader_gate_opens(leader, CLOUD_CATALOG) > now)
		return;
	leader->last_catalog = now;
	leader->next_catalog = now + CATALOG_RETRY;
	if (cloud_start_catalog(leader->cloud, TAG_CATALOG, &error))
	{
		leader->catalog_in_flight = true;
		leader_gate_started(leader, CLOUD_CATALOG);
	}
	else
		leader_gate_fail(leader, CLOUD_CATALOG, error, error);
}

/* One op on its way out. */
typedef struct Sending
{
	CloudOpRow op;
	bool go;		 /* committed as sent: make the call */
	bool called_off; /* not wanted any more: decide anew */
	PoolRow *pool;
	char token[TOKEN_LENGTH + 1];
	char *worker_id;
	char *error; /* why the call could not be made */
} Sending;

/* Call off a create that was never sent and is not wanted any more. */
static void
call_off(Sending *sending, const char *why, TimestampTz now)
{
	const CloudOpRow *op = &sending->op;

	sending->called_off = true;
	store_op_answer(op->id, OP_ABSENT, 0, "not sent", why, NULL, 0, now);
	(void) store_worker_move(op->worker, "not_sent", why, now);
}

/*
 * Whether a create may be sent now. Calls it off if it is not wanted any more. Sets the pool.
 * Locks the installation until the commit, so that no create is marked as sent after a pause was
 * committed.
 */
static bool
may_send_create(Sending *sending, const Installation *installation, TimestampTz now)
{
	const char *problem;
	PoolRow *pools;
	int n;

	if (installation->killing)
	{
		call_off(sending, "an operator ended the fleet", now);
		return false;
	}
	if (installation->paused)
		return false;
	n = store_pool_list(&pools);
	for (int i = 0; i < n; i++)
		if (pools[i].id == sending->op.pool)
			sending->pool = &pools[i];
	if (sending->pool != NULL && sending->pool->unreadable != NULL)
	{
		store_op_postpone(sending->op.id, now + START_RETRY);
		return false;
	}
	problem = store_wanted_problem(&sending->op, sending->pool, now);
	if (problem != NULL)
		call_off(sending, problem, now);
	return problem == NULL;
}

/* Commit that an op is about to be sent, and make what its call needs. */
static void
mark_sent(Leader *leader, void *arg)
{
	Sending *sending = arg;
	TimestampTz now = clock_now();
	Installation installation;
	WorkerRow worker;
	uint8 digest[PG_SHA256_DIGEST_LENGTH];

	/* Nobody is waited for who may wait for the installation: then it is sent later. */
	if (!(sending->op.kind == OP_CREATE ? store_installation_share(&installation) :
										  store_installation_read(&installation)) ||
		installation.hold)
		return;
	/* Another leader came after this one. */
	if (installation.leader_epoch != leader->epoch)
		return;
	if (sending->op.worker != 0 &&
		(!store_holder_try(KEPT_WORKER, sending->op.worker, sending->op.kind == OP_DELETE, now) ||
		 (sending->op.kind == OP_CREATE && !store_worker_lock(sending->op.worker, &worker))))
		return;
	if (!store_op_lock(sending->op.id, &sending->op) || sending->op.state != OP_PLANNED)
		return;
	if (sending->op.kind == OP_CREATE)
	{
		if (worker.state != WS_SPAWNING || !may_send_create(sending, &installation, now))
			return;
		store_secret_token(sending->op.nonce, sending->token);
		token_digest(sending->token, digest);
		store_worker_set_registration(worker.no, digest);
		store_spend_open(worker.no, sending->op.pool, sending->op.price_micros,
						 sending->op.price_assumed ? PRICE_ASSUMED : PRICE_CATALOG, now);
		INJECT("send.spend");
		sending->worker_id = worker.id;
	}
	store_op_sent(sending->op.id, leader->epoch, now);
	INJECT("send.marked");
	sending->go = true;
}

/*
 * The call could not even be made, and nothing left this machine. A delete is
 * planned again; a create asks for something that cannot be, and is refused.
 */
static void
send_take_back(Leader *leader, void *arg)
{
	Sending *sending = arg;
	const CloudOpRow *op = &sending->op;
	TimestampTz now = clock_now();

	if (op->kind == OP_DELETE)
	{
		store_op_answer(op->id, OP_PLANNED, 0, "not sent", sending->error, NULL, now + START_RETRY,
						now);
		return;
	}
	store_op_answer(op->id, OP_REFUSED, 0, "not sent", sending->error, NULL, 0, now);
	store_spend_close(op->worker, 0);
	(void) store_worker_move(op->worker, "create_refused", sending->error, now);
	store_offer_refused(op->offer, now + REFUSED_RETRY, now);
}

/* Put off an op that an error keeps from being sent, so that others go first. */
static void
postpone(Leader *leader, void *arg)
{
	const Sending *sending = arg;

	store_op_postpone(sending->op.id, clock_now() + START_RETRY);
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
	CloudPodSpec spec = { 0 };
	CloudEnv *env = palloc((JB_ROOT_COUNT(pool->env) + 8) * sizeof(CloudEnv));
	JsonbIterator *iterator = JsonbIteratorInit(&pool->env->root);
	JsonbIteratorToken token;
	JsonbValue item;
	char *key = NULL;
	int n = 0;
	const char *data_centers[1];
	char *secret_dsn = NULL;
	bool started;

	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(item.val.string.val, item.val.string.len);
		else if (token == WJB_VALUE && item.type == jbvString)
			n = add_env(env, n, key, pnstrdup(item.val.string.val, item.val.string.len));
	}
	if (guc_worker_dsn_file[0] != '\0')
	{
		const char *wrong;

		secret_dsn = secret_file_text(guc_worker_dsn_file, MAX_DSN_BYTES, &wrong);
		if (secret_dsn == NULL)
		{
			*error = psprintf("gpu_orch.worker_dsn_file cannot be used: %s", wrong);
			return false;
		}
	}
	n = add_env(env, n, "GPU_ORCH_DSN", secret_dsn ? secret_dsn : guc_worker_dsn);
	n = add_env(env, n, "GPU_ORCH_INSTALLATION", leader->installation.id);
	n = add_env(env, n, "GPU_ORCH_OP", sending->op.nonce);
	n = add_env(env, n, "GPU_ORCH_POOL", pool->name);
	n = add_env(env, n, "GPU_ORCH_WORKER_ID", sending->worker_id);
	n = add_env(env, n, "GPU_ORCH_TOKEN", sending->token);

	spec.name = sending->op.pod_name;
	spec.image = pool->image;
	spec.gpu_type = sending->op.gpu_type;
	spec.gpu_count = sending->op.gpu_count;
	spec.cloud_type = sending->op.cloud_type;
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
	started = cloud_start_create(leader->cloud, sending->op.id, &spec, error);
	if (secret_dsn != NULL)
		explicit_bzero(secret_dsn, strlen(secret_dsn));
	return started;
}

static void
send_op(Leader *leader, const CloudOpRow *op)
{
	Sending sending = { .op = *op };
	bool started;

	if (op->kind == OP_CREATE)
		INJECT("intent.committed");
	if (!leader_step(leader, "sending an op", mark_sent, &sending))
	{
		sending.op = *op;
		(void) leader_step(leader, "postponing an op", postpone, &sending);
		return;
	}
	if (sending.called_off)
		leader->decide_at = clock_now();
	if (!sending.go)
		return;
	if (sending.op.kind == OP_CREATE)
	{
		INJECT("send.committed");
		started = call_create(leader, &sending, &sending.error);
		INJECT("send.called");
		explicit_bzero(sending.token, sizeof(sending.token));
	}
	else
	{
		INJECT("delete.committed");
		started =
			cloud_start_delete(leader->cloud, sending.op.id, sending.op.pod_id, &sending.error);
		INJECT("delete.called");
	}
	if (started)
		leader_gate_started(leader, sending.op.kind == OP_CREATE ? CLOUD_CREATE : CLOUD_DELETE);
	else
		(void) leader_step(leader, "taking an op back", send_take_back, &sending);
}

/* The ops that may be sent now: deletes before creates. */
typedef struct DueOps
{
	CloudOpRow *deletes;
	int n_deletes;
	int room_deletes; /* how many may be started */
	CloudOpRow *creates;
	int n_creates;
	int room_creates;
} DueOps;

/*
 * Read the due ops of a kind, as many as there is room for. While one call must show whether calls
 * work, it is the one that has failed least.
 */
static int
read_due_ops(CloudOpRow **ops, OpKind kind, int room, TimestampTz now)
{
	int n = room > 0 ? store_op_due(ops, kind, Max(room, PROBE_CHOICE), now) : 0;

	if (room == 1)
		for (int i = 1; i < n; i++)
			if ((*ops)[i].tries < (*ops)[0].tries)
				(*ops)[0] = (*ops)[i];
	return Min(n, room);
}

static void
read_due(Leader *leader, void *arg)
{
	DueOps *due = arg;
	TimestampTz now = clock_now();
	bool may_create;

	if (!store_installation_read(&leader->installation) || leader->installation.hold)
		return;
	LWLockAcquire(shmem_state()->lock, LW_SHARED);
	may_create = shmem_state()->first_look_done;
	LWLockRelease(shmem_state()->lock);
	due->n_deletes = read_due_ops(&due->deletes, OP_DELETE, due->room_deletes, now);
	/* While the fleet is being ended they are called off. */
	if (may_create &&
		(leader->installation.killing ||
		 (!leader->installation.paused && leader_look_refuses(leader, now) == NULL)))
		due->n_creates = read_due_ops(&due->creates, OP_CREATE, due->room_creates, now);
	leader->next_op_due = store_op_next_due(now);
}

/*
 * Return how many calls of a kind the gates and the window allow. Creates, which may take a minute
 * to be answered, leave a part of the window to deletes and lists.
 */
static void
find_room(const Leader *leader, DueOps *due, TimestampTz now)
{
	int reserved = Min(2, Max(1, guc_api_concurrency / 4));
	int in_flight = cloud_in_flight(leader->cloud);
	int creating = leader->gates[CLOUD_CREATE].in_flight;

	due->room_deletes =
		Min(leader_gate_room(leader, CLOUD_DELETE, now), Max(2, guc_api_concurrency) - in_flight);
	due->room_creates = Min(
		leader_gate_room(leader, CLOUD_CREATE, now),
		Min(guc_api_concurrency - in_flight, Max(1, guc_api_concurrency - reserved) - creating));
}

/*
 * Set the time of the next turn to when a gate opens that keeps ops waiting, or questions without
 * which nothing is proved.
 */
static void
wait_for_gates(Leader *leader, TimestampTz now)
{
	static const CloudCall calls[] = { CLOUD_DELETE, CLOUD_CREATE, CLOUD_GET, CLOUD_ACCOUNT };

	for (int i = 0; i < lengthof(calls); i++)
	{
		TimestampTz opens = leader_gate_opens(leader, calls[i]);

		if (opens > now && (leader->next_op_due == 0 || opens < leader->next_op_due))
			leader->next_op_due = opens;
	}
}

/* Ask whatever is due, as far as the provider and its window allow. */
void
leader_send(Leader *leader)
{
	DueOps due = { 0 };
	TimestampTz now = clock_now();

	if (leader->verdict != GUARD_GO || leader->epoch == 0)
		return;
	leader_stats_show_gates(leader);
	leader_gate_tell(leader);
	if (leader->cloud == NULL)
		return;
	start_list(leader, now);
	start_catalog(leader, now);
	leader_bill_send(leader, now);
	leader_look_send(leader, now);
	/* An answer ends this turn's wait when the window is full; read_due() sets it otherwise. */
	leader->next_op_due = 0;
	find_room(leader, &due, now);
	if ((due.room_deletes > 0 || due.room_creates > 0) &&
		leader_step(leader, "reading due ops", read_due, &due))
	{
		for (int i = 0; i < due.n_deletes; i++)
		{
			/* A pod that only a worker named is asked for first: it may be somebody else's. */
			if (due.deletes[i].verified)
				send_op(leader, &due.deletes[i]);
			else
				leader_look_ask(leader, due.deletes[i].pod_id, due.deletes[i].id);
		}
		leader_look_send(leader, now);
		find_room(leader, &due, now);
		for (int i = 0; i < Min(due.n_creates, due.room_creates); i++)
			send_op(leader, &due.creates[i]);
	}
	wait_for_gates(leader, now);
}
