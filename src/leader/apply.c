/*
 * leader/apply.c
 *	  What an answer of the provider changes: one transaction for each.
 *
 * A create is settled by a reliable answer, by the registration of its worker, or
 * by looking; an outcome that is not known is written down as such and nothing is
 * sent again. A delete stays a debt until the provider shows the pod gone, which
 * only leader/reconcile.c decides. What an answer means for the calls to come is
 * leader/gate.c's.
 */
#include "postgres.h"

#include "decide/backoff.h"
#include "base/clock.h"
#include "base/guc.h"
#include "base/inject.h"
#include "leader/leader.h"
#include "store/event.h"
#include "store/holder.h"
#include "store/op.h"
#include "store/offer.h"
#include "store/spend.h"
#include "store/worker.h"
#include "utils/timestamp.h"

/* Backoff of an offer without capacity, and of a delete that failed, in ms. */
#define OFFER_BASE_MS 30000
#define OFFER_CAP_MS (15 * 60 * 1000)
#define DELETE_BASE_MS 1000
#define DELETE_CAP_MS (60 * 1000)

static const char *
reason_name(CloudReason reason)
{
	static const char *const names[] = { [CR_NONE] = NULL,
										 [CR_CAPACITY] = "capacity",
										 [CR_INVALID] = "invalid",
										 [CR_IMAGE] = "image",
										 [CR_AUTH] = "auth",
										 [CR_FORBIDDEN] = "forbidden",
										 [CR_BALANCE] = "balance",
										 [CR_RATE] = "rate",
										 [CR_NOT_FOUND] = "not_found",
										 [CR_CONFLICT] = "conflict",
										 [CR_SERVER] = "server",
										 [CR_NETWORK] = "network",
										 [CR_UNREADABLE] = "unreadable" };

	return names[reason];
}

/* Whether a refusal says something about our account, and nothing about what was asked for. */
static bool
concerns_account(const CloudAnswer *answer)
{
	return answer->reason == CR_AUTH || answer->reason == CR_BALANCE || answer->reason == CR_RATE;
}

/*
 * Learn the difference between the provider's clock and ours from a list: the provider dated its
 * answer after we asked for it, and the date leaves out less than a second. Never too late.
 */
static void
compare_clocks(Leader *leader, const CloudAnswer *list)
{
	leader->clocks_compared = list->provider_time != 0 && leader->list_started != 0;
	leader->provider_epoch = leader->list_started - list->provider_time - USECS_PER_SEC;
}

/*
 * Bring a time of the provider to our clock, never too late. Returns `known`, the time that is
 * known without the provider, where the clocks were not compared.
 */
TimestampTz
leader_when(const Leader *leader, TimestampTz provider_time, TimestampTz known)
{
	return leader->clocks_compared && provider_time != 0 ? leader->provider_epoch + provider_time :
														   known;
}

static void
look_soon(Leader *leader)
{
	leader->next_reconcile = Min(leader->next_reconcile, clock_now() + LOOK_SOON_MS * (int64) 1000);
}

/*
 * Lock the op that an answer belongs to, and its worker before it. False also where somebody keeps
 * the worker for longer than a call takes: then the lists settle what the answer said.
 */
static bool
lock_op(const CloudAnswer *answer, CloudOpRow *op, WorkerRow *worker)
{
	if (!store_op_read(answer->tag, op))
		return false;
	if (op->worker != 0 &&
		(!store_holder_try_now(op->worker, clock_now()) || !store_worker_lock(op->worker, worker)))
		return false;
	return store_op_lock(answer->tag, op);
}

/*
 * The provider made a pod for a create. It is the worker's, whatever a registration said before,
 * unless the provider has named another one already or the worker has ended without it.
 */
static void
create_made(Leader *leader, const CloudAnswer *answer, const CloudOpRow *op,
			const WorkerRow *worker, TimestampTz now)
{
	const CloudPod *pod = &answer->pods[0];

	if (op->state == OP_DONE && op->pod_id != NULL && strcmp(op->pod_id, pod->id) != 0 &&
		(op->verified || worker->state == WS_TERMINATING || worker->state == WS_TERMINATED))
	{
		store_spend_open_pod(pod->id, op->pool,
							 pod->price_micros > 0 ? pod->price_micros : op->price_micros,
							 pod->price_micros > 0 ? PRICE_PROVIDER : PRICE_ASSUMED,
							 Max(op->sent_at, leader_when(leader, pod->created_at, op->sent_at)));
		store_op_plan_delete(0, op->pool, op->pod_name, pod->id, "double_pod", NULL, now);
		store_event("double_pod", op->pod_name, store_detail("pod_id", pod->id), now);
		return;
	}
	INJECT("create.made");
	store_op_answer(op->id, OP_DONE, answer->http_status, NULL, NULL, pod->id, 0, now);
	store_op_verify(op->id);
	store_worker_set_pod(worker->no, pod->id, pod->gpu_type, pod->data_center, pod->price_micros,
						 now);
	store_spend_pod(worker->no, pod->id, pod->price_micros, now);
	store_spend_since(worker->no, leader_when(leader, pod->created_at, op->sent_at), now);
	store_offer_accepted(op->offer, pod->price_micros, now);
	INJECT("create.recorded");
	if (store_worker_move(worker->no, "pod_created", NULL, now) != NULL)
		leader->actions.workers_promoted++;
}

/* The provider has proved that it made no pod. */
static void
create_refused(const CloudAnswer *answer, const CloudOpRow *op, const WorkerRow *worker,
			   TimestampTz now)
{
	store_op_answer(op->id, OP_REFUSED, answer->http_status, reason_name(answer->reason),
					answer->message, NULL, 0, now);
	store_spend_close(worker->no, 0);
	if (store_worker_move(worker->no, "create_refused", answer->message, now) == NULL)
		(void) store_worker_move(worker->no, "never_created", answer->message, now);
	INJECT("create.refused");
	if (!concerns_account(answer) && answer->reason != CR_IMAGE)
		store_offer_refused(op->offer,
							now +
								1000 *
									backoff_ms(store_offer_refusals(op->offer) + 1, OFFER_BASE_MS,
											   OFFER_CAP_MS, (uint64) op->id),
							now);
}

static void
apply_create(Leader *leader, void *arg)
{
	const CloudAnswer *answer = arg;
	TimestampTz now = clock_now();
	CloudOpRow op;
	WorkerRow worker;

	if (!lock_op(answer, &op, &worker))
		return;
	if (answer->verdict == CLOUD_OK)
	{
		create_made(leader, answer, &op, &worker, now);
		return;
	}
	/* Settled meanwhile by a registration or a list, which know better. */
	if (op.state != OP_SENT || op.epoch != leader->epoch)
		return;
	switch (answer->verdict)
	{
		case CLOUD_OK:
			break;
		case CLOUD_REFUSED:
			create_refused(answer, &op, &worker, now);
			break;
		case CLOUD_UNKNOWN:
			store_op_answer(op.id, OP_UNKNOWN, answer->http_status, reason_name(answer->reason),
							answer->message, NULL, 0, now);
			INJECT("create.unknown");
			store_event("create_unknown", op.pod_name, store_detail("why", answer->message), now);
			look_soon(leader);
			break;
		case CLOUD_NOT_SENT:
			store_op_answer(op.id, OP_PLANNED, 0, reason_name(answer->reason), answer->message,
							NULL, leader_gate_opens(leader, CLOUD_CREATE), now);
			store_spend_close(worker.no, 0);
			break;
	}
}

static void
apply_delete(Leader *leader, void *arg)
{
	const CloudAnswer *answer = arg;
	TimestampTz now = clock_now();
	CloudOpRow op;
	WorkerRow worker;
	bool heard = answer->verdict == CLOUD_OK ||
		(answer->verdict == CLOUD_REFUSED && answer->reason == CR_NOT_FOUND);

	if (!lock_op(answer, &op, &worker) || op.state != OP_SENT || op.epoch != leader->epoch)
		return;
	if (heard)
	{
		store_op_answer(op.id, OP_SENT, answer->verdict == CLOUD_OK ? 204 : 404,
						reason_name(answer->reason), NULL, NULL, 0, now);
		INJECT("delete.recorded");
		if (answer->verdict == CLOUD_OK)
			leader_look_ask(leader, op.pod_id, op.id);
		look_soon(leader);
	}
	else
	{
		INJECT("delete.failed");
		store_op_answer(
			op.id, OP_PLANNED, answer->http_status, reason_name(answer->reason), answer->message,
			NULL,
			now +
				1000 *
					Max(answer->retry_after_ms,
						backoff_ms(op.tries, DELETE_BASE_MS, DELETE_CAP_MS, (uint64) op.id)),
			now);
	}
}

/* Take over the provider's prices. */
static void
apply_catalog(Leader *leader, void *arg)
{
	const CloudAnswer *answer = arg;
	TimestampTz now = clock_now();

	INJECT("catalog.apply");
	for (int i = 0; i < answer->n_offers; i++)
	{
		const CloudOffer *offer = &answer->offers[i];

		/* A type's prices are told anew for each of its data centres. */
		if (i > 0 && strcmp(offer->gpu_type, offer[-1].gpu_type) == 0 &&
			offer->price_secure_micros == offer[-1].price_secure_micros &&
			offer->price_community_micros == offer[-1].price_community_micros)
			continue;
		if (offer->price_secure_micros > 0)
			store_offer_price_by_type(offer->gpu_type, "SECURE", offer->price_secure_micros, now);
		if (offer->price_community_micros > 0)
			store_offer_price_by_type(offer->gpu_type, "COMMUNITY", offer->price_community_micros,
									  now);
	}
}

/* Note that a list was dealt with, and answer the sessions that wait for it. */
static void
finish_list(Leader *leader, bool complete)
{
	ShmemState *state = shmem_state();

	INJECT("list.finished");
	leader->list_started = 0;
	if (complete)
	{
		LWLockAcquire(state->lock, LW_EXCLUSIVE);
		state->last_reconcile = clock_now();
		if (leader->reconcile_answering >= state->reconcile_asked)
			state->first_look_done = true;
		LWLockRelease(state->lock);
	}
	leader_answer_reconcile(leader->reconcile_answering, !complete);
}

static void
apply_list(Leader *leader, const CloudAnswer *answer)
{
	bool complete =
		answer->verdict == CLOUD_OK && answer->complete && leader_look_list_holds(leader);

	INJECT("list.answered");
	/* Before the rows are looked at, so that they may ask for an earlier look. */
	leader->next_reconcile = clock_now() + guc_us(guc_reconcile_interval);
	if (complete)
	{
		compare_clocks(leader, answer);
		complete = leader_step(leader, "looking for a second owner", leader_watch_owner,
							   unconstify(CloudAnswer *, answer)) &&
			leader_step(leader, "comparing pods with workers", leader_reconcile,
						unconstify(CloudAnswer *, answer));
	}
	finish_list(leader, complete);
}

/*
 * Apply one answer. Must be called outside of transactions. An error is noted and leaves the op as
 * it was; looking settles the op later.
 */
void
leader_apply(Leader *leader, CloudAnswer *answer)
{
	const char *what = answer->reason == CR_NONE ? "failed" : reason_name(answer->reason);

	if (answer->tag == TAG_TRY_KEY)
	{
		leader_key_tried(leader, answer, what);
		return;
	}
	leader_gate_note(leader, answer, what);
	leader_stats_note(answer, what);
	if (leader_look_answer(leader, answer))
		return;
	switch (answer->call)
	{
		case CLOUD_CREATE:
			INJECT("create.answered");
			(void) leader_step(leader, "applying the answer to a create", apply_create, answer);
			INJECT("create.applied");
			break;
		case CLOUD_DELETE:
			INJECT("delete.answered");
			(void) leader_step(leader, "applying the answer to a delete", apply_delete, answer);
			break;
		case CLOUD_LIST:
			apply_list(leader, answer);
			break;
		case CLOUD_CATALOG:
			leader->catalog_in_flight = false;
			leader->next_catalog = clock_now() +
				(answer->verdict == CLOUD_OK &&
						 leader_step(leader, "applying prices", apply_catalog, answer) ?
					 CATALOG_INTERVAL :
					 CATALOG_RETRY);
			break;
		case CLOUD_BILLING:
			leader_bill_answer(leader, answer);
			break;
		case CLOUD_GET:
		case CLOUD_ACCOUNT:
			break;
	}
}
