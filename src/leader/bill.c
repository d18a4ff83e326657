/*
 * leader/bill.c
 *	  Reading what the provider bills, each hour, and what follows from it.
 *
 * A pod that is billed for a time after we held it for gone is asked for by its id; if
 * it is there it is counted on, and a delete is announced. A bill that is not read
 * stops nothing.
 */
#include "postgres.h"

#include "base/clock.h"
#include "leader/look.h"
#include "decide/pod_name.h"
#include "store/bill.h"
#include "store/event.h"
#include "store/op.h"
#include "store/spend.h"
#include "utils/timestamp.h"

/* Time between two readings, and until one that failed is repeated. */
#define BILL_INTERVAL USECS_PER_HOUR
#define BILL_RETRY (10 * USECS_PER_MINUTE)

/* Start reading the bills, if it is time. */
void
leader_bill_send(Leader *leader, TimestampTz now)
{
	char *error = NULL;

	/* A clock that was set back must not put it off. */
	leader->next_bill = Min(leader->next_bill, now + BILL_INTERVAL);
	if (leader->bill_in_flight || leader->next_bill > now ||
		leader_gate_room(leader, CLOUD_BILLING, now) == 0)
		return;
	leader->next_bill = now + BILL_RETRY;
	leader->bill_in_flight =
		cloud_start_billing(leader->cloud, TAG_BILLING, store_bill_since(now), &error);
	if (leader->bill_in_flight)
		leader_gate_started(leader, CLOUD_BILLING);
}

/*
 * Store the bills that were read, compare them with what we counted, and ask for the billed pods
 * that should be gone.
 */
static void
apply(Leader *leader, void *arg)
{
	const CloudAnswer *answer = arg;
	TimestampTz now = clock_now();
	int n = answer->n_bills;
	char **pod_ids = palloc_extended((n + 1) * sizeof(char *), MCXT_ALLOC_HUGE);
	TimestampTz *hours = palloc_extended((n + 1) * sizeof(TimestampTz), MCXT_ALLOC_HUGE);
	int64 *amounts = palloc_extended((n + 1) * sizeof(int64), MCXT_ALLOC_HUGE);
	char **unexpected;
	int n_unexpected;

	for (int i = 0; i < n; i++)
	{
		pod_ids[i] = answer->bills[i].pod_id;
		hours[i] = answer->bills[i].hour;
		amounts[i] = answer->bills[i].amount_micros;
	}
	store_bill_write(pod_ids, hours, amounts, n, now);
	store_bill_watch(now);
	n_unexpected = store_bill_unexpected(&unexpected, LOOK_MAX_ASKED, now);
	for (int i = 0; i < n_unexpected; i++)
		leader_look_ask(leader, unexpected[i], LOOK_BILLED);
}

/* The bills were read, or not. Those of another account say nothing of our pods. */
void
leader_bill_answer(Leader *leader, CloudAnswer *answer)
{
	leader->bill_in_flight = false;
	if (answer->verdict == CLOUD_OK && leader_look_has_sign(leader, 0) &&
		leader_step(leader, "comparing the bills", apply, answer))
		leader->next_bill = clock_now() + BILL_INTERVAL;
}

/* A pod that was asked for since it is billed. */
typedef struct Billed
{
	const char *pod_id;
	const CloudPod *pod; /* NULL: it is not there */
} Billed;

/*
 * A billed pod that is there and ours was paid for all the time: count it on, and announce its
 * delete.
 */
static void
bill_apply_told(Leader *leader, void *arg)
{
	const Billed *billed = arg;
	const CloudPod *pod = billed->pod;
	TimestampTz now = clock_now();
	BillPast past;

	if (!store_installation_read(&leader->installation) || leader->installation.hold ||
		!store_bill_past(billed->pod_id, &past) || past.ended_at == 0)
		return;
	if (pod == NULL || !pod_name_is_of(pod->name, pod->env_installation, leader->installation.id))
	{
		store_bill_looked(billed->pod_id, now);
		return;
	}
	store_spend_open_pod(pod->id, past.pool,
						 pod->price_micros > 0 ? pod->price_micros : past.price_micros,
						 PRICE_PROVIDER, past.ended_at);
	store_op_plan_delete(0, past.pool, pod->name, pod->id, "billed_pod", NULL, now);
	store_event("billed_pod", pod->name, store_detail("pod_id", pod->id), now);
}

/* The answer about a pod that was asked for since it is billed; NULL: there is none. */
void
leader_bill_told(Leader *leader, const CloudPod *pod, const char *pod_id)
{
	Billed billed = { .pod_id = pod_id, .pod = pod };

	(void) leader_step(leader, "looking at a pod that is billed", bill_apply_told, &billed);
}
