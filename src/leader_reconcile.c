/*
 * leader_reconcile.c
 *	  The provider's list of pods against our rows, in both directions.
 *
 * The list was complete and was read before the rows. Only pods that carry this
 * installation's exact id are touched. Nothing is declared gone or not wanted on
 * one observation; a fresh heartbeat beats any list; and if too many pods at once
 * would have to be believed gone, none is. What this step wants of the provider
 * it announces as deletes, which are sent like any other.
 */
#include "postgres.h"

#include "clock.h"
#include "guc.h"
#include "leader.h"
#include "miscadmin.h"
#include "pod_name.h"
#include "store_event.h"
#include "store_op.h"
#include "store_worker.h"
#include "utils/timestamp.h"

/* Two observations that agree must be this far apart, in microseconds. */
#define OBSERVATION_GAP (5 * USECS_PER_SEC)

/* A new pod may be missing from lists for so long. */
#define LIST_LAG (60 * USECS_PER_SEC)

/* A deleted pod may be listed for so long before its delete is sent again. */
#define DELETE_LAG (30 * USECS_PER_SEC)

/* Something that one list showed and another one must confirm. */
typedef struct Absence
{
	char		pod_id[64];
	TimestampTz since;
	uint64		round;			/* the reconcile that saw it last */
} Absence;

typedef struct Round
{
	Leader	   *leader;
	const CloudAnswer *answer;
	TimestampTz started;		/* when the list was asked for */
	TimestampTz now;
	uint64		number;
	WorkerInfo *workers;
	int			n_workers;
	bool	   *seen;			/* by index of workers */
	CloudOpRow *ops;			/* open ones */
	int			n_ops;
	bool	   *op_seen;
	HTAB	   *by_pod;			/* pod id to index of workers */
	HTAB	   *by_name;		/* pod name to index of ops, creates only */
	HTAB	   *deletes;		/* pod id to index of ops, deletes only */
	ReconcileSummary summary;
} Round;

typedef struct IndexEntry
{
	char		key[64];
	int			index;
} IndexEntry;

static HTAB *
make_index(const char *name)
{
	HASHCTL		control = {0};

	control.keysize = 64;
	control.entrysize = sizeof(IndexEntry);
	control.hcxt = CurrentMemoryContext;
	return hash_create(name, 64, &control, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

static void
add_index(HTAB *index, const char *key, int value)
{
	bool		found;
	IndexEntry *entry = hash_search(index, key, HASH_ENTER, &found);

	entry->index = value;
}

static int
find_index(HTAB *index, const char *key)
{
	IndexEntry *entry = hash_search(index, key, HASH_FIND, NULL);

	return entry ? entry->index : -1;
}

/* Read the rows, after the list. */
static void
read_rows(Round *round)
{
	round->n_workers = store_worker_list(&round->workers);
	round->n_ops = store_op_open(&round->ops);
	round->seen = palloc0((round->n_workers + 1) * sizeof(bool));
	round->op_seen = palloc0((round->n_ops + 1) * sizeof(bool));
	round->by_pod = make_index("workers by pod");
	round->by_name = make_index("creates by name");
	round->deletes = make_index("deletes by pod");
	for (int i = 0; i < round->n_workers; i++)
		if (round->workers[i].origin == WO_CLOUD && round->workers[i].pod_id != NULL)
			add_index(round->by_pod, round->workers[i].pod_id, i);
	for (int i = 0; i < round->n_ops; i++)
	{
		if (round->ops[i].kind == OP_CREATE)
			add_index(round->by_name, round->ops[i].pod_name, i);
		else if (round->ops[i].pod_id != NULL)
			add_index(round->deletes, round->ops[i].pod_id, i);
	}
}

/* Whether a pod carries this installation's id. */
static bool
is_ours(const Round *round, const CloudPod *pod)
{
	return pod->name != NULL &&
		pod_name_is_of(pod->name, pod->env_installation, round->leader->installation.id);
}

/*
 * Note that this round saw something odd about a pod. True when an earlier round
 * did too, long enough ago.
 */
static bool
confirmed(Round *round, const char *pod_id, TimestampTz *since)
{
	bool		found;
	Absence    *absence = hash_search(round->leader->absences, pod_id, HASH_ENTER, &found);

	if (!found)
		absence->since = round->now;
	absence->round = round->number;
	if (since != NULL)
		*since = absence->since;
	if (!found)
		round->leader->next_reconcile =
			Min(round->leader->next_reconcile, round->now + OBSERVATION_GAP);
	return found && round->now - absence->since >= OBSERVATION_GAP;
}

/* Forget what this round did not see again. */
static void
forget_others(Round *round)
{
	HASH_SEQ_STATUS scan;
	Absence    *absence;

	hash_seq_init(&scan, round->leader->absences);
	while ((absence = hash_seq_search(&scan)) != NULL)
		if (absence->round != round->number)
			hash_search(round->leader->absences, absence->pod_id, HASH_REMOVE, NULL);
}

/*
 * Lock a worker, or leave it for the next look if somebody else has it: one open
 * transaction must not void what a list says of all others.
 */
static bool
lock_worker(int64 no, WorkerRow *worker)
{
	return store_worker_is_free(no) && store_worker_lock(no, worker);
}

/* A pod of a create whose outcome was not known: it is ours, and it is there. */
static void
adopt(Round *round, const CloudOpRow *op, const CloudPod *pod)
{
	WorkerRow	worker;
	CloudOpRow	locked;

	if (!lock_worker(op->worker, &worker) || !store_op_lock(op->id, &locked) ||
		(locked.state != OP_SENT && locked.state != OP_UNKNOWN))
		return;
	store_op_answer(op->id, OP_DONE, 0, "adopted", NULL, pod->id, 0, round->now);
	store_worker_set_pod(worker.no, pod->id, pod->gpu_type, pod->data_center, pod->price_micros);
	store_spend_update(worker.no, pod->id, pod->price_micros);
	(void) store_worker_move(worker.no, "pod_adopted", NULL, round->now);
	round->summary.adopted++;
}

static void
plan_delete(Round *round, const char *kind, int64 worker, int32 pool, const CloudPod *pod)
{
	store_op_plan_delete(worker, pool, pod->name, pod->id, round->now);
	store_event(kind, pod->name, store_detail("pod_id", pod->id), round->now);
	round->summary.orphans++;
}

/* A pod of ours that no live worker has. */
static void
unclaimed_pod(Round *round, const CloudPod *pod)
{
	int			open = find_index(round->by_name, pod->name);
	TimestampTz provider_now =
		round->answer->provider_time ? round->answer->provider_time : round->now;
	CloudOpRow	op;

	if (open >= 0 && round->ops[open].state != OP_PLANNED)
	{
		round->op_seen[open] = true;
		adopt(round, &round->ops[open], pod);
	}
	else if (find_index(round->deletes, pod->id) >= 0)
		return;
	else if (store_op_find_by_name(pod->name, &op))
	{
		bool		late = op.state == OP_REFUSED || op.state == OP_ABSENT;
		bool		second = op.pod_id != NULL && strcmp(op.pod_id, pod->id) != 0;

		/* A pod whose delete was just proved may still be shown for a moment. */
		if (!late && !second && !confirmed(round, pod->id, NULL))
			return;
		if (late)
			store_spend_open(op.worker, op.pool, Max(pod->price_micros, op.price_micros),
							 op.sent_at ? op.sent_at : round->now);
		else if (!second)
			store_spend_reopen(op.worker);
		/* The worker's own pod is another one than a double. */
		plan_delete(round, late ? "late_pod" : second ? "double_pod" : "returned_pod",
					second ? 0 : op.worker, op.pool, pod);
	}
	else if (confirmed(round, pod->id, NULL) &&
			 provider_now - pod->created_at >= (int64) guc_orphan_grace * 1000 &&
			 round->summary.orphans < Max(2, round->answer->n_pods * guc_kill_cap_percent / 100))
		plan_delete(round, "orphan_pod", 0, 0, pod);
}

/* A pod that a worker has: is it as it should be? */
static void
claimed_pod(Round *round, int index, const CloudPod *pod)
{
	const WorkerInfo *worker = &round->workers[index];

	round->seen[index] = true;
	if (pod->price_micros > 0 && pod->price_micros != worker->price_micros &&
		worker->state != WS_TERMINATING)
	{
		store_worker_set_pod(worker->no, NULL, NULL, NULL, pod->price_micros);
		/* What was paid until now stays as it was. */
		store_spend_close(worker->no, round->now);
		store_spend_open(worker->no, worker->pool, pod->price_micros, round->now);
		store_spend_update(worker->no, pod->id, -1);
	}
	if (worker->state == WS_INITIALIZING && pod->status != NULL &&
		(strcmp(pod->status, "EXITED") == 0 || strcmp(pod->status, "ERROR") == 0) &&
		store_worker_is_free(worker->no))
		(void) store_worker_move(worker->no, "pod_failed", pod->status, round->now);
}

/* A pod whose delete was answered is still there: whose it is does not matter. */
static void
still_there(Round *round, int index)
{
	const CloudOpRow *op = &round->ops[index];

	round->op_seen[index] = true;
	if (op->state == OP_SENT && op->answered_at != 0 &&
		round->started - op->answered_at > DELETE_LAG)
		store_op_send_again(op->id, round->now);
}

/* Delete debts whose pod this list does not show. */
static void
settle_deletes(Round *round)
{
	for (int i = 0; i < round->n_ops; i++)
	{
		const CloudOpRow *op = &round->ops[i];
		WorkerRow	worker;
		CloudOpRow	locked;
		TimestampTz ended;

		if (op->kind != OP_DELETE || op->state != OP_SENT || op->answered_at == 0 ||
			op->http_status == 0 || op->answered_at > round->started || round->op_seen[i])
			continue;
		if (op->http_status != 204 &&
			(op->absent_looks == 0 || round->now - op->absent_since < OBSERVATION_GAP))
		{
			store_op_absent_look(op->id, round->now);
			round->leader->next_reconcile =
				Min(round->leader->next_reconcile, round->now + OBSERVATION_GAP);
			continue;
		}
		if ((op->worker != 0 && !lock_worker(op->worker, &worker)) ||
			!store_op_lock(op->id, &locked) || locked.state != OP_SENT)
			continue;
		ended = op->http_status == 204 ? op->answered_at : round->now;
		store_op_answer(op->id, OP_DONE, op->http_status, "proved", NULL, NULL, 0, round->now);
		if (op->worker == 0)
			continue;
		store_spend_close(op->worker, ended);
		(void) store_worker_move(op->worker, "pod_absent_proved", NULL, round->now);
	}
}

/* Creates of unknown outcome whose name this list does not show. */
static void
settle_creates(Round *round)
{
	int64		settle = (int64) guc_settle_time * 1000;
	int64		timeout = (int64) guc_http_timeout * 1000;

	for (int i = 0; i < round->n_ops; i++)
	{
		const CloudOpRow *op = &round->ops[i];
		WorkerRow	worker;
		CloudOpRow	locked;

		if (op->kind != OP_CREATE || op->state != OP_UNKNOWN || round->op_seen[i] ||
			round->started < op->sent_at)
			continue;
		if (op->absent_looks == 0 || round->started - op->absent_since < settle ||
			round->started < op->sent_at + timeout + settle)
		{
			store_op_absent_look(op->id, round->now);
			continue;
		}
		if (!lock_worker(op->worker, &worker) || !store_op_lock(op->id, &locked) ||
			locked.state != OP_UNKNOWN)
			continue;
		store_op_answer(op->id, OP_ABSENT, 0, "absent",
						"two complete lists did not show the pod", NULL, 0, round->now);
		store_spend_close(op->worker, 0);
		if (store_worker_move(op->worker, "create_absent", NULL, round->now) == NULL)
			(void) store_worker_move(op->worker, "never_created", NULL, round->now);
	}
}

/* Workers whose pod this list does not show. */
static void
missing_pods(Round *round)
{
	int		   *gone = palloc((round->n_workers + 1) * sizeof(int));
	int			n_gone = 0;
	int			live = 0;

	for (int i = 0; i < round->n_workers; i++)
	{
		const WorkerInfo *worker = &round->workers[i];

		if (worker->origin != WO_CLOUD || worker->pod_id == NULL ||
			(worker->state != WS_INITIALIZING && worker->state != WS_ACTIVE &&
			 worker->state != WS_DRAINING))
			continue;
		live++;
		if (round->seen[i] || round->started - worker->state_since < LIST_LAG ||
			(worker->last_heartbeat != 0 &&
			 round->now - worker->last_heartbeat < (int64) guc_heartbeat_interval * 3000))
			continue;
		round->summary.missing++;
		if (confirmed(round, worker->pod_id, NULL))
			gone[n_gone++] = i;
	}
	if (n_gone > Max(2, live * guc_kill_cap_percent / 100))
	{
		store_event("list_not_believed", "installation",
					store_detail("why", psprintf("%d of %d pods are missing from it", n_gone, live)),
					round->now);
		return;
	}
	for (int i = 0; i < n_gone; i++)
	{
		const WorkerInfo *worker = &round->workers[gone[i]];

		if (store_worker_is_free(worker->no) &&
			store_worker_move(worker->no, "pod_gone", NULL, round->now) != NULL)
		{
			store_spend_close(worker->no, round->now);
			round->leader->actions.workers_failed++;
		}
	}
}

/*
 * Compare. arg is the answer of a complete list; runs as a step of the leader.
 */
void
leader_reconcile(Leader *leader, void *arg)
{
	static uint64 rounds = 0;
	ShmemState *state = shmem_state();
	Round		round = {.leader = leader, .answer = arg, .started = leader->list_started};

	round.now = clock_now();
	round.number = ++rounds;
	if (!store_installation_read(&leader->installation))
		return;
	read_rows(&round);
	for (int i = 0; i < round.answer->n_pods; i++)
	{
		const CloudPod *pod = &round.answer->pods[i];
		int			index;
		int			op;

		CHECK_FOR_INTERRUPTS();
		if (!is_ours(&round, pod))
		{
			round.summary.foreign++;
			continue;
		}
		round.summary.pods++;
		if ((op = find_index(round.deletes, pod->id)) >= 0)
			still_there(&round, op);
		if ((index = find_index(round.by_pod, pod->id)) >= 0)
			claimed_pod(&round, index, pod);
		else if (!leader->installation.hold)
			unclaimed_pod(&round, pod);
	}
	if (!leader->installation.hold)
	{
		settle_deletes(&round);
		settle_creates(&round);
		missing_pods(&round);
		store_op_plan_owed_deletes(round.now);
	}
	forget_others(&round);
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	state->reconcile = round.summary;
	LWLockRelease(state->lock);
}
