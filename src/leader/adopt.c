/*
 * leader/adopt.c
 *	  Pods of ours that other rows than these announced: those of rows that were
 *	  lost, which are taken back, and those of another owner.
 *
 * A database that was restored, or a standby that was promoted before the last
 * commits reached it, does not know its newest pods. Each of them says in its
 * environment which pool and worker it is, and its registration token follows
 * from its name, so its rows are made anew instead of ending it. Pods that another
 * copy makes under a later epoch are a sign that there are two owners; then this
 * one stops. Announces no delete, and calls nobody.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/guc.h"
#include "base/inject.h"
#include "base/token.h"
#include "leader/leader.h"
#include "decide/pod_name.h"
#include "store/alert.h"
#include "store/event.h"
#include "store/offer.h"
#include "store/op.h"
#include "store/pool.h"
#include "store/secret.h"
#include "store/spend.h"
#include "utils/timestamp.h"

/* The longest name of a worker. */
#define MAX_WORKER_ID 200

/* When a pod was made, by our clock; 0 if the provider does not say. */
static TimestampTz
made_at(const CloudPod *pod, TimestampTz provider_now, TimestampTz now)
{
	return pod->created_at == 0 ? 0 : pod->created_at + (now - provider_now);
}

/* Whether a pod says which worker it is, in the words of one that we have made. */
static bool
names_its_worker(const CloudPod *pod)
{
	return pod->env_op != NULL && strcmp(pod->env_op, pod_name_nonce(pod->name)) == 0 &&
		pod->env_pool != NULL && pod->env_worker != NULL && pod->env_worker[0] != '\0' &&
		strlen(pod->env_worker) <= MAX_WORKER_ID;
}

/* Make the rows that a pod would have if its create had been answered just now. */
static void
adopt_take_back(const CloudPod *pod, int32 pool, TimestampTz made, TimestampTz now)
{
	const char *nonce = pod_name_nonce(pod->name);
	char token[TOKEN_LENGTH + 1];
	uint8 digest[PG_SHA256_DIGEST_LENGTH];
	int64 worker = store_worker_create(pod->env_worker, WO_CLOUD, pool, WS_INITIALIZING, now);
	int64 price = pod->price_micros > 0 ? pod->price_micros : store_offer_ceiling(pool);

	store_secret_token(nonce, token);
	token_digest(token, digest);
	explicit_bzero(token, sizeof(token));
	store_worker_set_registration(worker, digest);
	store_worker_set_pod(worker, pod->id, pod->gpu_type, pod->data_center, pod->price_micros, now);
	INJECT("reconcile.restore");
	store_op_restore(worker, pool, nonce, pod->name, pod->id, price, made, now);
	store_spend_open(worker, pool, price, pod->price_micros > 0 ? PRICE_PROVIDER : PRICE_ASSUMED,
					 made);
	store_spend_pod(worker, pod->id, -1, now);
	store_event_added("restored_pod", pod->env_worker, worker, WS_INITIALIZING,
					  store_detail("pod_id", pod->id), now);
}

/*
 * Judge a pod of ours that no row knows. Returns true if the pod is no orphan: its rows were made
 * anew, or a row may still turn out to want it. A pod is taken back if it is younger than
 * orphan_grace, or was made before this copy took over; until orphan_grace has passed since then,
 * no pod is an orphan. Runs in a step of the leader.
 */
bool
leader_adopt_pod(Leader *leader, const CloudPod *pod, TimestampTz provider_now, TimestampTz now,
				 ReconcileSummary *summary)
{
	int64 grace = guc_us(guc_orphan_grace);
	TimestampTz taken_over = leader->installation.taken_over_at;
	TimestampTz made = made_at(pod, provider_now, now);
	WorkerRow worker;
	int32 pool;

	if (made != 0 && (now - made < grace || made < taken_over) && names_its_worker(pod) &&
		store_pool_find(pod->env_pool, false, &pool) &&
		!store_worker_find(pod->env_worker, false, &worker))
	{
		adopt_take_back(pod, pool, Min(made, now), now);
		summary->adopted++;
		return true;
	}
	return taken_over != 0 && now - taken_over < grace;
}

/*
 * Go on hold if a complete list shows a pod of ours under a later epoch than ours, made since we
 * act: only another copy, adopted or promoted, can have made it. arg is the list's answer; runs as
 * a step of the leader.
 */
void
leader_watch_owner(Leader *leader, void *arg)
{
	const CloudAnswer *answer = arg;
	Installation *installation = &leader->installation;
	TimestampTz now = clock_now();
	TimestampTz provider_now = answer->provider_time ? answer->provider_time : now;
	int64 epoch;

	if (!store_installation_read(installation) || installation->hold)
		return;
	for (int i = 0; i < answer->n_pods; i++)
	{
		const CloudPod *pod = &answer->pods[i];

		if (pod->name == NULL ||
			!pod_name_is_of(pod->name, pod->env_installation, installation->id) ||
			pod_name_epoch(pod->name) <= installation->epoch ||
			made_at(pod, provider_now, now) <=
				Max(installation->created_at, installation->taken_over_at))
			continue;
		/* Somebody may have adopted this copy meanwhile: the next list tells whose the fleet is then. */
		store_installation_take(now);
		epoch = installation->epoch;
		if (!store_installation_read(installation) || installation->hold ||
			installation->epoch != epoch)
			return;
		store_installation_hold(
			installation, ALERT_SECOND_OWNER,
			psprintf("taken over by another copy, which made pod %s, %s", pod->id, pod->name), now);
		store_installation_saw_epoch(pod_name_epoch(pod->name));
		return;
	}
}
