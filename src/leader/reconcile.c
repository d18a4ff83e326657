/*
 * leader/reconcile.c
 *	  The provider's list of pods against our rows, in both directions.
 *
 * The list was complete and was read before the rows. Only pods that carry this
 * installation's exact id are touched. Nothing is declared gone or not wanted on
 * one observation, nor without a sign that it was made in our account; a fresh
 * heartbeat beats any list; and if too many pods at once would have to be believed
 * gone or not wanted, none is (leader/look.c has the signs). What this step wants of
 * the provider it announces as deletes, which are sent like any other.
 *
 * What has to be written for a pod or an op is a subtransaction of its own, so that a
 * row that cannot be written spoils nothing else. What has not changed is not written.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/guc.h"
#include "base/inject.h"
#include "cloud/text.h"
#include "db/xact_part.h"
#include "leader/look.h"
#include "miscadmin.h"
#include "decide/pod_name.h"
#include "store/alert.h"
#include "store/event.h"
#include "store/foreign.h"
#include "store/holder.h"
#include "store/offer.h"
#include "store/op.h"
#include "store/sight.h"
#include "store/spend.h"
#include "store/worker.h"
#include "utils/timestamp.h"

/* A new pod may be missing from lists for so long. */
#define LIST_LAG (60 * USECS_PER_SEC)

/* A deleted pod may be listed for so long before its delete is sent again. */
#define DELETE_LAG (30 * USECS_PER_SEC)

/* A pod whose absence nothing but lists can tell must be missing from them for so long. */
#define LISTS_ALONE (10 * USECS_PER_MINUTE)

typedef struct Round
{
	Leader *leader;
	const CloudAnswer *answer;
	TimestampTz started; /* when the list was asked for */
	TimestampTz now;
	uint64 number;
	WorkerInfo *workers;
	int n_workers;
	bool *seen;		 /* by index of workers */
	CloudOpRow *ops; /* open ones */
	int n_ops;
	bool *op_seen;
	HTAB *by_pod;		   /* pod id to index of workers */
	HTAB *by_name;		   /* pod name to index of ops, creates only */
	HTAB *deletes;		   /* pod id to index of ops, deletes only */
	const CloudPod **ours; /* pods of the list, in order of their making */
	int n_ours;
	char **our_names;
	char **our_ids;
	const CloudPod **orphans; /* those that no row wants, for long enough */
	int n_orphans;
	bool sign;			 /* what the list does not show may be taken for gone */
	bool doubted;		 /* too many pods are missing from it */
	const char *useless; /* why the pod in hand will do no work */
	bool unsaid;		 /* a pod counts at a price that the provider has not said of it */
	ReconcileSummary summary;
} Round;

typedef struct IndexEntry
{
	char key[64];
	int index;
} IndexEntry;

static HTAB *
make_index(const char *name)
{
	HASHCTL control = { 0 };

	control.keysize = 64;
	control.entrysize = sizeof(IndexEntry);
	control.hcxt = CurrentMemoryContext;
	return hash_create(name, 64, &control, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

static void
add_index(HTAB *index, const char *key, int value)
{
	bool found;
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
	round->unsaid = store_spend_any_unsaid();
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
 * Return the index of the open delete of a listed pod, -1 if there is none. One that nothing but a
 * registration told of is of the pod that bears its name: the id may be another pod's, which the
 * list shows for as long as that lives.
 */
static int
open_delete(const Round *round, const CloudPod *pod)
{
	int index = find_index(round->deletes, pod->id);

	if (index >= 0 && !round->ops[index].verified &&
		strcmp(round->ops[index].pod_name, pod->name) != 0)
		return -1;
	return index;
}

/* Whether an earlier list said the same of a pod, long enough ago. */
static bool
confirmed(Round *round, const char *pod_id, bool shown, Absence **absence)
{
	return leader_look_confirmed(round->leader, pod_id, shown, round->number, round->started,
								 round->now, absence);
}

/* What has to be done for one pod, or for one worker or op by its index. */
typedef void (*RoundStep)(Round *round, int index, const CloudPod *pod);

/* A step that is run by itself, and what it is for. */
typedef struct StepAlone
{
	Round *round;
	RoundStep step;
	int index;
	const CloudPod *pod;
} StepAlone;

static void
run_step(void *arg)
{
	const StepAlone *one = arg;

	one->step(one->round, one->index, one->pod);
}

/* Call `step` by itself. An error is noted and undoes this step alone; false then. */
static bool
alone(Round *round, RoundStep step, int index, const CloudPod *pod)
{
	StepAlone one = { .round = round, .step = step, .index = index, .pod = pod };
	ErrorData *error = xact_part(run_step, &one);

	if (error != NULL)
		leader_note_error("comparing a pod with its row", error->message);
	return error == NULL;
}

/*
 * Lock a worker. Returns false without waiting if another transaction has it: one open transaction
 * must not stop a whole list.
 */
static bool
lock_worker(const Round *round, int64 no, WorkerRow *worker)
{
	return store_holder_try(KEPT_WORKER, no, true, round->now) && store_worker_lock(no, worker);
}

/* Return the provider's time, as the list was dated; ours if it was not. */
static TimestampTz
provider_now(const Round *round)
{
	return round->answer->provider_time ? round->answer->provider_time : round->now;
}

/*
 * Adopt the pod of an open create: one of unknown outcome, or one that was sent in a history that
 * these rows have lost.
 */
static void
adopt(Round *round, int index, const CloudPod *pod)
{
	const CloudOpRow *op = &round->ops[index];
	WorkerRow worker;
	CloudOpRow locked;

	if (!lock_worker(round, op->worker, &worker) || !store_op_lock(op->id, &locked) ||
		(locked.state != OP_PLANNED && locked.state != OP_SENT && locked.state != OP_UNKNOWN))
		return;
	if (locked.state == OP_PLANNED)
		store_spend_open(worker.no, op->pool, op->price_micros,
						 op->price_assumed ? PRICE_ASSUMED : PRICE_CATALOG,
						 pod->created_at == 0 ?
							 op->planned_at :
							 round->now - Max(provider_now(round) - pod->created_at, 0));
	store_op_answer(op->id, OP_DONE, 0, "adopted", NULL, pod->id, 0, round->now);
	store_op_verify(op->id);
	store_worker_set_pod(worker.no, pod->id, pod->gpu_type, pod->data_center, pod->price_micros,
						 round->now);
	store_spend_pod(worker.no, pod->id, pod->price_micros, round->now);
	(void) store_worker_move(worker.no, "pod_adopted", NULL, round->now);
	round->op_seen[index] = true;
	INJECT("reconcile.adopt");
	/* Creates do work, though their answers may be lost. */
	leader_gate_lift(round->leader, CLOUD_CREATE);
	round->summary.adopted++;
}

/*
 * Give a worker the pod that the provider shows under its create's name, where a registration had
 * named an id that the provider does not show under it.
 */
static void
rebind(Round *round, const CloudOpRow *op, const CloudPod *pod)
{
	WorkerRow worker;

	if (!lock_worker(round, op->worker, &worker))
		return;
	store_op_rebind(op, pod->id, round->now);
	store_worker_set_pod(op->worker, pod->id, pod->gpu_type, pod->data_center, pod->price_micros,
						 round->now);
	store_spend_pod(op->worker, pod->id, pod->price_micros, round->now);
}

/*
 * Open the spend of a pod that no worker has, from its making on, as far as that is known. op is
 * the create that the pod came from, NULL if no row knows it.
 */
static void
count_pod(Round *round, const CloudPod *pod, const CloudOpRow *op)
{
	bool said = pod->price_micros > 0;
	TimestampTz known = op && op->sent_at ? op->sent_at : round->now;
	TimestampTz from = leader_when(round->leader, pod->created_at, known);
	int64 price = said ? pod->price_micros : op ? op->price_micros : store_offer_ceiling(0);

	store_spend_open_pod(pod->id, op ? op->pool : 0, price, said ? PRICE_PROVIDER : PRICE_ASSUMED,
						 Min(op ? Max(from, known) : from, round->now));
}

static void
plan_delete(Round *round, const char *kind, int64 worker, int32 pool, const CloudPod *pod)
{
	store_op_plan_delete(worker, pool, pod->name, pod->id, kind, NULL, round->now);
	store_event(kind, pod->name, store_detail("pod_id", pod->id), round->now);
	round->summary.orphans++;
}

/* A pod of ours of a create that is settled, and that the create's worker does not have. */
static void
settled_pod(Round *round, const CloudOpRow *op, const CloudPod *pod)
{
	bool again = store_op_was_deleted(pod->id);
	bool late = !again && (op->state == OP_REFUSED || op->state == OP_ABSENT);
	bool second = op->pod_id != NULL && strcmp(op->pod_id, pod->id) != 0;
	bool claimed = second && !op->verified;

	/*
	 * A pod whose delete was just proved may still be shown for a moment, and one that
	 * registered may not be shown yet.
	 */
	if (!late && (again || !second || claimed) && !confirmed(round, pod->id, true, NULL))
		return;
	if (claimed)
	{
		rebind(round, op, pod);
		return;
	}
	if (late)
	{
		store_spend_open(op->worker, op->pool,
						 pod->price_micros > 0 ? pod->price_micros : op->price_micros,
						 pod->price_micros > 0 ? PRICE_PROVIDER : PRICE_CATALOG,
						 op->sent_at ? op->sent_at : round->now);
		store_spend_pod(op->worker, pod->id, -1, round->now);
	}
	else if (second)
		count_pod(round, pod, op);
	else
		store_spend_reopen(op->worker);
	INJECT("reconcile.settled");
	/* The worker's own pod is another one than a double. */
	plan_delete(round,
				late	   ? "late_pod" :
					second ? "double_pod" :
							 "returned_pod",
				second ? 0 : op->worker, op->pool, pod);
}

/* Whether a pod that no row knows is old enough to be an orphan. */
static bool
is_old(const Round *round, const CloudPod *pod, const Absence *absence)
{
	int64 age =
		pod->created_at != 0 ? provider_now(round) - pod->created_at : round->now - absence->since;

	return age >= guc_us(guc_orphan_grace);
}

/* A pod of ours that no row wants is deleted. */
static void
end_orphan(Round *round, int index, const CloudPod *pod)
{
	count_pod(round, pod, NULL);
	INJECT("reconcile.orphan");
	plan_delete(round, "orphan_pod", 0, 0, pod);
}

/* A pod of ours that no live worker has. */
static void
unclaimed_pod(Round *round, int index, const CloudPod *pod)
{
	int open = find_index(round->by_name, pod->name);
	Absence *absence;
	CloudOpRow op;

	if (open >= 0 && !round->op_seen[open])
		adopt(round, open, pod);
	else if (open_delete(round, pod) >= 0)
		return;
	else if (store_op_find_by_name(pod->name, &op))
	{
		if (op.state == OP_DONE || op.state == OP_REFUSED || op.state == OP_ABSENT)
			settled_pod(round, &op, pod);
	}
	else if (round->leader->installation.killing)
		end_orphan(round, index, pod);
	else if (!leader_adopt_pod(round->leader, pod, provider_now(round), round->now,
							   &round->summary) &&
			 confirmed(round, pod->id, true, &absence) && is_old(round, pod, absence))
		round->orphans[round->n_orphans++] = pod;
}

/* The provider's price of a worker's pod is another one than we have. */
static void
change_price(Round *round, int index, const CloudPod *pod)
{
	const WorkerInfo *worker = &round->workers[index];

	if (!store_holder_try(KEPT_WORKER, worker->no, false, round->now))
		return;
	if (pod->price_micros != worker->price_micros)
		store_worker_set_pod(worker->no, NULL, NULL, NULL, pod->price_micros, round->now);
	INJECT("reconcile.price");
	store_spend_pod(worker->no, pod->id, pod->price_micros, round->now);
}

/* The provider shows a pod failed before its worker spoke. */
static void
reconcile_end_failed(Round *round, int index, const CloudPod *pod)
{
	const WorkerInfo *worker = &round->workers[index];

	if (store_holder_try(KEPT_WORKER, worker->no, true, round->now))
	{
		INJECT("reconcile.failed");
		(void) store_worker_move(worker->no, "pod_failed", pod->status, round->now);
	}
}

/* The provider shows that a pod will do no work; round->useless says how. */
static void
end_useless(Round *round, int index, const CloudPod *pod)
{
	const WorkerInfo *worker = &round->workers[index];

	if (store_holder_try(KEPT_WORKER, worker->no, true, round->now))
		(void) store_worker_move(worker->no, round->useless, NULL, round->now);
}

/* Compare a listed pod with its worker: price, failure, use. */
static void
claimed_pod(Round *round, int index, const CloudPod *pod)
{
	const WorkerInfo *worker = &round->workers[index];
	const char *useless = leader_useless_pod(round->leader, worker, pod, round->now);

	round->seen[index] = true;
	if (pod->price_micros > 0 && worker->state != WS_TERMINATING &&
		(pod->price_micros != worker->price_micros || round->unsaid))
		(void) alone(round, change_price, index, pod);
	if (worker->state == WS_INITIALIZING && pod->status != NULL &&
		(strcmp(pod->status, "EXITED") == 0 || strcmp(pod->status, "ERROR") == 0))
		(void) alone(round, reconcile_end_failed, index, pod);
	else if (useless != NULL)
	{
		round->useless = useless;
		(void) alone(round, end_useless, index, pod);
	}
}

static void
send_again(Round *round, int index, const CloudPod *pod)
{
	store_op_send_again(round->ops[index].id, round->now);
}

static void
seen_again(Round *round, int index, const CloudPod *pod)
{
	store_sight_shown(round->ops[index].id, false);
}

/* Deal with a listed pod that has an open delete. */
static void
still_there(Round *round, int index)
{
	const CloudOpRow *op = &round->ops[index];

	round->op_seen[index] = true;
	if (op->state == OP_SENT && op->answered_at != 0 &&
		round->started - op->answered_at > DELETE_LAG)
		(void) alone(round, send_again, index, NULL);
	else
	{
		if (op->absent_looks > 0)
			(void) alone(round, seen_again, index, NULL);
		if (op->state == OP_SENT && op->http_status == 204)
			leader_look_ask(round->leader, op->pod_id, op->id);
	}
}

static void
note_absent(Round *round, int index, const CloudPod *pod)
{
	INJECT("reconcile.absent");
	store_sight_absent(round->ops[index].id, round->now);
}

/*
 * Return the time until which the pod of a delete is billed: the first time that the
 * provider reported it missing. An HTTP success only says that the delete was accepted,
 * so the pod is asked for by its id. Where only lists say that it is gone, bill until now.
 */
static TimestampTz
ended_at(const Round *round, const CloudOpRow *op)
{
	const Absence *absence = hash_search(round->leader->absences, op->pod_id, HASH_FIND, NULL);
	TimestampTz ended = op->http_status != 204 ? op->absent_since :
		op->denied_at != 0					   ? op->denied_at :
												 round->now;

	/* It may have been gone before the delete. */
	return absence != NULL && absence->gone_at != 0 ? Min(ended, absence->gone_at) : ended;
}

/*
 * Whether lists prove that a deleted pod is gone. Where the delete was accepted, the pod must also
 * have been missing when asked for by its id, since lists may leave out what is there.
 */
static bool
is_believed(const Round *round, const CloudOpRow *op)
{
	return op->http_status != 204 || op->denied_at != 0 ||
		round->started - op->absent_since >= LISTS_ALONE;
}

/* Two lists agree that the pod of a delete is gone. */
static void
prove_delete(Round *round, int index, const CloudPod *pod)
{
	const CloudOpRow *op = &round->ops[index];
	WorkerRow worker;
	CloudOpRow locked;
	TimestampTz ended = ended_at(round, op);

	if ((op->worker != 0 && !lock_worker(round, op->worker, &worker)) ||
		!store_op_lock(op->id, &locked) || locked.state != OP_SENT)
		return;
	store_op_answer(op->id, OP_DONE, op->http_status, "proved", NULL, NULL, 0, round->now);
	INJECT("reconcile.proved");
	if (op->worker == 0)
		store_spend_close_pod(op->pod_id, ended);
	else
		store_spend_close(op->worker, ended);
	/* A pod that no worker has, or whose worker was ended before, ends by itself. */
	if (op->worker == 0 ||
		store_worker_move(op->worker, "pod_absent_proved", NULL, round->now) == NULL)
		store_event("pod_ended", op->pod_name, store_detail("pod_id", op->pod_id), round->now);
}

/* Delete debts whose pod this list does not show. */
static void
settle_deletes(Round *round)
{
	Leader *leader = round->leader;

	for (int i = 0; i < round->n_ops; i++)
	{
		const CloudOpRow *op = &round->ops[i];
		TimestampTz since = op->absent_since;

		if (op->kind != OP_DELETE || op->state != OP_SENT || op->answered_at == 0 ||
			op->http_status == 0 || op->answered_at > round->started || round->op_seen[i])
			continue;
		if (op->absent_looks == 0)
		{
			(void) alone(round, note_absent, i, NULL);
			since = round->now;
		}
		else if (round->started - since >= leader_look_gap())
		{
			if (is_believed(round, op))
			{
				(void) alone(round, prove_delete, i, NULL);
				continue;
			}
			since = round->now;
		}
		if (op->http_status == 204 && op->denied_at == 0)
			leader_look_ask(leader, op->pod_id, op->id);
		leader->next_reconcile = Min(leader->next_reconcile, since + leader_look_gap());
	}
}

/* Two lists agree that a create made nothing. */
static void
prove_create(Round *round, int index, const CloudPod *pod)
{
	const CloudOpRow *op = &round->ops[index];
	WorkerRow worker;
	CloudOpRow locked;

	if (!lock_worker(round, op->worker, &worker) || !store_op_lock(op->id, &locked) ||
		locked.state != OP_UNKNOWN)
		return;
	store_op_answer(op->id, OP_ABSENT, 0, "absent", "two complete lists did not show the pod", NULL,
					0, round->now);
	INJECT("reconcile.nothing");
	store_spend_close(op->worker, 0);
	if (store_worker_move(op->worker, "create_absent", NULL, round->now) == NULL)
		(void) store_worker_move(op->worker, "never_created", NULL, round->now);
}

/* Creates of unknown outcome whose name this list does not show. */
static void
settle_creates(Round *round)
{
	int64 settle = guc_us(guc_settle_time);
	int64 timeout = guc_us(guc_http_timeout);

	for (int i = 0; i < round->n_ops; i++)
	{
		const CloudOpRow *op = &round->ops[i];

		if (op->kind != OP_CREATE || op->state != OP_UNKNOWN || round->op_seen[i] ||
			round->started < op->sent_at)
			continue;
		if (op->absent_looks == 0)
			(void) alone(round, note_absent, i, NULL);
		else if (round->started - op->absent_since >= settle &&
				 round->started >= op->sent_at + timeout + settle)
			(void) alone(round, prove_create, i, NULL);
	}
}

/* Whether a worker has, or had, a pod that lists may show. */
static bool
may_be_listed(const WorkerInfo *worker)
{
	return worker->origin == WO_CLOUD && worker->pod_id != NULL && worker->state != WS_SPAWNING;
}

/* Whether a worker's pod should be in any list by now: it is old enough, and nobody ends it. */
static bool
should_be_listed(const Round *round, const WorkerInfo *worker)
{
	return may_be_listed(worker) && worker->state != WS_TERMINATING &&
		round->started - worker->state_since >= LIST_LAG;
}

/* Whether `some` of n are more than one list is believed about. */
static bool
is_too_many(int some, int n)
{
	return some > Max(2, n * guc_kill_cap_percent / 100);
}

/*
 * Doubt the list if it differs from our rows by too much: in missing pods, or in pods that no row
 * wants. Raises and clears the alert, and writes an event when the doubt begins.
 */
static void
doubt_list(Round *round)
{
	LeaderLook *look = round->leader->look;
	int live = 0;
	int missing = 0;
	char *detail = NULL;

	for (int i = 0; i < round->n_workers; i++)
	{
		if (!should_be_listed(round, &round->workers[i]))
			continue;
		live++;
		missing += !round->seen[i];
	}
	round->doubted = is_too_many(missing, live) ||
		(guc_kill_cap_percent < 100 && missing > 2 && missing * 2 > live);
	if (round->doubted)
		detail = psprintf("%d of %d pods are missing from it", missing, live);
	else if (is_too_many(round->n_orphans, round->n_ours))
	{
		detail = psprintf("no row wants %d of the %d pods in it", round->n_orphans, round->n_ours);
		round->n_orphans = 0;
	}
	if (detail != NULL && !look->doubted)
		store_event("list_not_believed", "installation", store_detail("why", detail), round->now);
	look->doubted = detail != NULL;
	store_alert(ALERT_LIST_NOT_BELIEVED, "installation", detail, round->now);
}

/*
 * End a worker whose pod is gone, though nobody deleted it. The pod is paid for until it was first
 * seen to be gone.
 */
static void
end_gone(Round *round, int index, const CloudPod *pod)
{
	const WorkerInfo *worker = &round->workers[index];
	const Absence *absence = hash_search(round->leader->absences, worker->pod_id, HASH_FIND, NULL);

	if (!store_holder_try(KEPT_WORKER, worker->no, true, round->now) ||
		store_worker_move(worker->no, "pod_gone", NULL, round->now) == NULL)
		return;
	store_spend_close(worker->no, Max(absence->gone_at, worker->last_heartbeat));
	round->leader->actions.workers_failed++;
}

/*
 * Whether a worker is heard: its word counts for more than a list that misses its pod. It does not
 * where the provider has never shown that pod, of which nothing but the worker's word tells.
 */
static bool
is_heard(const Round *round, const WorkerInfo *worker)
{
	CloudOpRow op;

	return worker->last_heartbeat != 0 &&
		round->now - worker->last_heartbeat < 3 * guc_us(guc_heartbeat_interval) &&
		(!store_op_latest(worker->no, OP_CREATE, &op) || op.verified);
}

/*
 * Deal with workers whose pod this list does not show. Each such pod is asked for by its id at
 * once, since it is paid for until then. It is gone if that finds none either, and if the pod is
 * old enough for lists and its worker not heard. If the list is doubted, two questions are needed,
 * for a few pods at a time.
 */
static void
missing_pods(Round *round)
{
	int room =
		round->doubted ? Max(2, round->n_workers * guc_kill_cap_percent / 100) : round->n_workers;

	for (int i = 0; i < round->n_workers; i++)
	{
		const WorkerInfo *worker = &round->workers[i];
		Absence *absence;
		bool twice;

		if (round->seen[i] || !may_be_listed(worker))
			continue;
		twice = confirmed(round, worker->pod_id, false, &absence);
		if (absence->gone_at == 0)
			leader_look_ask(round->leader, worker->pod_id, 0);
		if (!should_be_listed(round, worker) || is_heard(round, worker))
		{
			absence->since = round->now;
			absence->denials = 0;
			continue;
		}
		round->summary.missing++;
		if (!twice)
			continue;
		if (absence->denials < (round->doubted ? 2 : 1))
			leader_look_ask(round->leader, worker->pod_id, 0);
		else if (room-- > 0)
			(void) alone(round, end_gone, i, NULL);
	}
}

/*
 * For qsort(): the older pod first, one without a date last. Of two pods with one name the older
 * one stays.
 */
static int
compare_age(const void *a, const void *b)
{
	const CloudPod *left = *(const CloudPod *const *) a;
	const CloudPod *right = *(const CloudPod *const *) b;

	if (left->created_at != right->created_at)
		return left->created_at == 0 ||
				(right->created_at != 0 && left->created_at > right->created_at) ?
			1 :
			-1;
	return strcmp(left->id, right->id);
}

/* What somebody else wrote about a pod, as one short line; empty for NULL. */
static char *
fit_to_show(const char *text)
{
	return cloud_text_clean(text ? text : "", "", NULL, 0);
}

/* Store the pods that are not ours, for people who wonder about the bill. */
static void
show_foreign(const Round *round)
{
	ForeignPods *foreign = palloc0(sizeof(ForeignPods));

	for (int i = 0; i < round->answer->n_pods && foreign->n < FOREIGN_KEPT; i++)
	{
		const CloudPod *pod = &round->answer->pods[i];

		if (is_ours(round, pod))
			continue;
		foreign->ids[foreign->n] = pod->id;
		foreign->names[foreign->n] = fit_to_show(pod->name);
		foreign->gpu_types[foreign->n] = fit_to_show(pod->gpu_type);
		foreign->statuses[foreign->n] = fit_to_show(pod->status);
		foreign->prices[foreign->n++] = pod->price_micros;
	}
	store_foreign_listed(foreign, round->now);
}

/*
 * Find our pods in the list. A pod whose id only its worker named is verified if the list shows it
 * under our name.
 */
static void
find_ours(Round *round)
{
	int n = round->answer->n_pods;

	round->our_names = palloc((n + 1) * sizeof(char *));
	round->our_ids = palloc((n + 1) * sizeof(char *));
	round->ours = palloc((n + 1) * sizeof(CloudPod *));
	round->orphans = palloc((n + 1) * sizeof(CloudPod *));
	for (int i = 0; i < n; i++)
	{
		const CloudPod *pod = &round->answer->pods[i];

		if (is_ours(round, pod))
			round->ours[round->n_ours++] = pod;
	}
	qsort(round->ours, round->n_ours, sizeof(CloudPod *), compare_age);
	for (int i = 0; i < round->n_ours; i++)
	{
		round->our_names[i] = round->ours[i]->name;
		round->our_ids[i] = round->ours[i]->id;
	}
	store_op_verify_listed(round->our_names, round->our_ids, round->n_ours);
	round->summary.pods = round->n_ours;
	round->summary.foreign = n - round->n_ours;
}

/*
 * Deal with a pod of ours that no live worker has. If the pod of a planned create could not be
 * adopted, nothing is created until it is.
 */
static void
take_unclaimed(Round *round, const CloudPod *pod)
{
	int open = find_index(round->by_name, pod->name);
	bool planned = open >= 0 && round->ops[open].state == OP_PLANNED;

	(void) alone(round, unclaimed_pod, 0, pod);
	if (planned && !round->op_seen[open])
		round->leader->look->adoption_owed = true;
	if (open >= 0)
		round->op_seen[open] = true;
}

/* Conclude from the list as a whole. */
static void
conclude(Round *round)
{
	doubt_list(round);
	for (int i = 0; i < round->n_orphans && !round->doubted; i++)
		(void) alone(round, end_orphan, 0, round->orphans[i]);
	if (round->sign)
	{
		if (!round->doubted)
		{
			settle_deletes(round);
			settle_creates(round);
		}
		missing_pods(round);
	}
	store_op_plan_owed_deletes(round->now);
	store_op_verify_listed(round->our_names, round->our_ids, round->n_ours);
}

/*
 * Compare the provider's list with our rows. arg is the answer of a complete list; runs as a step
 * of the leader.
 */
void
leader_reconcile(Leader *leader, void *arg)
{
	static uint64 rounds = 0;
	ShmemState *state = shmem_state();
	Round round = { .leader = leader, .answer = arg, .started = leader->list_started };

	round.now = clock_now();
	round.number = ++rounds;
	if (!store_installation_read(&leader->installation))
		return;
	INJECT("reconcile.begin");
	find_ours(&round);
	show_foreign(&round);
	round.sign = leader_look_has_sign(leader, round.n_ours);
	read_rows(&round);
	INJECT("reconcile.rows");
	leader->look->adoption_owed = false;
	for (int i = 0; i < round.n_ours; i++)
	{
		const CloudPod *pod = round.ours[i];
		int index;
		int op;

		CHECK_FOR_INTERRUPTS();
		if ((op = open_delete(&round, pod)) >= 0)
			still_there(&round, op);
		if ((index = find_index(round.by_pod, pod->id)) >= 0)
			claimed_pod(&round, index, pod);
		else if (!leader->installation.hold)
			take_unclaimed(&round, pod);
	}
	if (!leader->installation.hold)
		conclude(&round);
	INJECT("reconcile.end");
	leader_look_forget_others(leader, round.number);
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	state->reconcile = round.summary;
	LWLockRelease(state->lock);
}
