/*
 * store/fleet.c
 *	  The whole fleet at one moment, what the planner makes of it, and the one way
 *	  to announce a new pod.
 *
 * Everything that a decision depends on is read here, under one `now`, and handed
 * to the pure planner; the leader, dry runs and explanations all come this way.
 * Nothing is decided here that the planner could decide, and nothing is sent.
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/inject.h"
#include "base/token.h"
#include "miscadmin.h"
#include "queue/match.h"
#include "decide/place.h"
#include "store/breaker.h"
#include "store/budget.h"
#include "store/event.h"
#include "store/fleet.h"
#include "store/holder.h"
#include "store/offer_stats.h"
#include "store/offer.h"
#include "store/op.h"
#include "queue/ready.h"
#include "store/spend.h"
#include "store/task.h"

/* More claimable tasks of one shape than this make no difference to a decision. */
#define COUNT_LIMIT 10000

/* After a start or a pause of ours, silence proves nothing for as long as two heartbeats. */
#define GRACE_HEARTBEATS 2

static double
seconds_since(TimestampTz then, TimestampTz now)
{
	return then == 0 ? -1 : (double) (now - then) / USECS_PER_SEC;
}

static PlanWorker
plan_worker(const WorkerInfo *worker, TimestampTz now)
{
	PlanWorker plan = { .no = worker->no,
						.state = worker->state,
						.origin = worker->origin,
						.held = (int) worker->held,
						.age = seconds_since(worker->created_at, now),
						.state_age = seconds_since(worker->state_since, now),
						.silence = seconds_since(worker->last_heartbeat, now),
						.create_open = worker->create_open,
						.recallable = worker->recallable,
						.boot_expected = worker->boot_expected,
						.booted_in = worker->booted_in,
						.no_runtime = worker->no_runtime,
						.claimed = worker->claimed,
						.registrations = worker->registrations,
						.passed_over = seconds_since(worker->passed_since, now),
						.kept = store_holder_kept(worker->no) };

	plan.idle = seconds_since(Max(worker->busy_at, worker->state_since), now);
	return plan;
}

/* Whether a worker is of an origin, and of a pool unless that is 0. */
static bool
is_of(const WorkerInfo *worker, WorkerOrigin origin, int32 pool)
{
	return worker->origin == origin && (pool == 0 || worker->pool == pool);
}

/* Hand the workers of an origin, and of a pool unless that is 0, to the planner. */
static void
take_workers(PlanInput *input, const WorkerInfo *workers, int n_workers, WorkerOrigin origin,
			 int32 pool, TimestampTz now)
{
	PlanWorker *taken;
	int n = 0;

	for (int w = 0; w < n_workers; w++)
		n += is_of(&workers[w], origin, pool);
	taken = palloc((n + 1) * sizeof(PlanWorker));
	for (int w = 0; w < n_workers; w++)
		if (is_of(&workers[w], origin, pool))
			taken[input->n_workers++] = plan_worker(&workers[w], now);
	input->workers = taken;
}

/* How many workers of a pool exist, or may exist, at the provider. */
static int
live_workers(const PlanInput *input)
{
	int live = 0;

	for (int i = 0; i < input->n_workers; i++)
		live += input->workers[i].origin == WO_CLOUD;
	return live;
}

/* What a pool's workers offer, as far as it is declared. */
static CapabilitySet
offered_by(const PoolRow *pool)
{
	CapabilitySet set = { .capabilities = pool->capabilities };

	if (pool->capabilities != NULL)
		set.digest = match_shape_id(match_capabilities_canonical(pool->capabilities));
	return set;
}

/*
 * Give each shape's claimable tasks to the first pool whose workers meet it; a
 * pool that is full passes them on to the next, if there is one.
 */
static void
assign_demand(FleetPlan *fleet)
{
	CapabilitySet anything = { 0 };
	CapabilitySet *offered = palloc((fleet->n_pools + 1) * sizeof(CapabilitySet));
	ShapeCount *counts;
	IdleSet *idle;
	int n = store_queue_count(&counts, COUNT_LIMIT);
	int n_idle = store_worker_idle_external(&idle);

	for (int p = 0; p < fleet->n_pools; p++)
		offered[p] = offered_by(&fleet->pools[p].row);
	for (int i = 0; i < n; i++)
	{
		FleetPool *taker = NULL;

		CHECK_FOR_INTERRUPTS();
		fleet->summary.queued += counts[i].count;
		if (!store_meets(&anything, counts[i].shape))
			continue;
		for (int p = 0; p < fleet->n_pools; p++)
		{
			FleetPool *pool = &fleet->pools[p];
			bool full = pool->row.unreadable != NULL ||
				live_workers(&pool->input) >= pool->row.plan.max_workers;

			if (pool->row.dropped || pool->row.plan.max_workers == 0 ||
				!store_meets(&offered[p], counts[i].shape))
				continue;
			if (taker == NULL || !full)
				taker = pool;
			if (!full)
				break;
		}
		if (taker == NULL)
			continue;
		taker->input.claimable =
			(int) Min((int64) PG_INT32_MAX, taker->input.claimable + counts[i].count);
		for (int s = 0; s < n_idle; s++)
			if (idle[s].workers > 0 && store_meets(&idle[s].set, counts[i].shape))
			{
				taker->input.matching_external += idle[s].workers;
				idle[s].workers = 0;
			}
	}
}

/* Whether a budget is one that a pool's pods count in. */
static bool
counts_in(const BudgetRow *budget, const PoolRow *pool)
{
	return budget->pool == 0 || budget->pool == pool->id;
}

/*
 * What the budgets leave to a pool at the price of the dearest offer within its price
 * limit: how many more pods, by which hard budget, and which soft one is used up. Where no
 * offer is within the limit placing tells so, and the room is not limited.
 */
static void
fill_budgets(FleetPool *pool, const BudgetRow *budgets, int n_budgets)
{
	OfferRow *offers;
	int64 limit = pool->row.max_price_micros;
	int64 price = 0;
	bool any = false;
	int n = store_offer_list(pool->row.id, &offers);

	for (int i = 0; i < n; i++)
		if (limit < 0 || offers[i].price_micros <= limit)
		{
			price = Max(price, offers[i].price_micros);
			any = true;
		}
	pool->input.budget_room = PLAN_NO_LIMIT;
	for (int i = 0; i < n_budgets; i++)
	{
		const BudgetRow *budget = &budgets[i];
		int room;

		if (!counts_in(budget, &pool->row))
			continue;
		if (!budget->plan.hard)
		{
			if (plan_budget_left(&budget->plan) <= 0)
				pool->input.soft_budget = budget->name;
			continue;
		}
		if (!any)
			continue;
		room = plan_budget_room(&budget->plan, price);
		if (room < pool->input.budget_room)
		{
			pool->input.budget_room = room;
			pool->input.budget = budget->name;
		}
	}
}

static void
add_status(CycleSummary *summary, const PlanResult *plan)
{
	summary->spawning += plan->n_spawning;
	summary->initializing += plan->n_initializing;
	summary->active += plan->n_active;
	summary->idle += plan->n_idle;
	summary->busy += plan->n_busy;
	summary->draining += plan->n_draining;
	summary->terminating += plan->n_terminating;
	summary->total += plan->n_total;
	summary->desired += plan->desired;
}

/* How many more creates the rate limit allows now. */
static int
rate_left(TimestampTz now)
{
	return (int) Max((int64) 0,
					 guc_spawn_rate_limit - store_op_creates_since(now - USECS_PER_MINUTE));
}

/* Note the pools and workers whose rows make no sense. */
static void
note_unreadable(FleetPlan *fleet, const WorkerInfo *workers, int n_workers)
{
	AlertCase *next = palloc((fleet->n_pools + n_workers + 1) * sizeof(AlertCase));

	fleet->unreadable = next;
	for (int p = 0; p < fleet->n_pools; p++)
		if (fleet->pools[p].row.unreadable != NULL)
			*next++ = (AlertCase){ fleet->pools[p].row.name, fleet->pools[p].row.unreadable };
	for (int w = 0; w < n_workers; w++)
		if (workers[w].unreadable != NULL)
			*next++ = (AlertCase){ psprintf("worker %s", workers[w].id),
								   psprintf("its state \"%s\" is none", workers[w].unreadable) };
	fleet->n_unreadable = next - fleet->unreadable;
}

/*
 * How many workers one look may declare lost: none while silence proves nothing, else a
 * share of those that should speak, so that one error of ours does not end them all.
 */
static int
lost_room(const PlanInput *input, bool grace)
{
	int speaking = 0;
	int room;

	if (grace)
		return 0;
	for (int i = 0; i < input->n_workers; i++)
		speaking += input->workers[i].state == WS_ACTIVE || input->workers[i].state == WS_DRAINING;
	room = Max(1, speaking * guc_kill_cap_percent / 100);
	return room < speaking ? room : PLAN_NO_LIMIT;
}

/*
 * Read everything and plan all pools. Writes nothing. False when there is no
 * installation yet, which is to say that no leader has been here. Results are
 * allocated in the current memory context.
 */
bool
store_fleet_plan(FleetPlan *fleet, TimestampTz now)
{
	ShmemState *shared = shmem_state();
	WorkerInfo *workers;
	PoolRow *pools;
	BudgetRow *budgets;
	int n_budgets;
	int n_workers;
	int rate_room;
	bool grace;
	bool first_look_done;

	memset(fleet, 0, sizeof(FleetPlan));
	if (!store_installation_read(&fleet->installation))
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	first_look_done = shared->first_look_done;
	grace = now - shared->grace_since < GRACE_HEARTBEATS * guc_us(guc_heartbeat_interval);
	LWLockRelease(shared->lock);
	rate_room = rate_left(now);
	n_budgets = store_budget_list(&budgets);

	n_workers = store_worker_list(&workers);
	fleet->n_pools = store_pool_list(&pools);
	fleet->pools = palloc0((fleet->n_pools + 1) * sizeof(FleetPool));
	for (int p = 0; p < fleet->n_pools; p++)
	{
		FleetPool *pool = &fleet->pools[p];

		pool->row = pools[p];
		pool->input.pool = pools[p].plan;
		pool->input.hold = fleet->installation.hold;
		pool->input.unreadable = pools[p].unreadable != NULL;
		pool->input.paused = fleet->installation.paused;
		pool->input.first_look_done = first_look_done;
		fill_budgets(pool, budgets, n_budgets);
		pool->input.rate_room = rate_room;
		pool->input.image_room = store_breaker_room(pool->row.image, now);
		pool->input.request_refused = store_offer_all_refuse(pool->row.id);
		pool->input.since_last_scale_in = seconds_since(pools[p].last_scale_in, now);
		take_workers(&pool->input, workers, n_workers, WO_CLOUD, pools[p].id, now);
		pool->input.lost_room = lost_room(&pool->input, grace);
	}

	plan_pool_init(&fleet->external.pool);
	fleet->external.pool.heartbeat_timeout = guc_heartbeat_timeout / 1000.0;
	fleet->external.first_look_done = true;
	fleet->external.since_last_scale_in = -1;
	take_workers(&fleet->external, workers, n_workers, WO_EXTERNAL, 0, now);
	fleet->external.lost_room = lost_room(&fleet->external, grace);
	fleet->external_plan.actions = palloc((fleet->external.n_workers + 1) * sizeof(PlanAction));
	plan_scale(&fleet->external, &fleet->external_plan);
	for (int i = 0; i < fleet->external.n_workers; i++)
	{
		if (fleet->external.workers[i].state != WS_ACTIVE)
			continue;
		fleet->summary.active++;
		if (fleet->external.workers[i].held > 0)
			fleet->summary.busy++;
		else
			fleet->summary.idle++;
	}

	note_unreadable(fleet, workers, n_workers);
	assign_demand(fleet);
	for (int p = 0; p < fleet->n_pools; p++)
	{
		FleetPool *pool = &fleet->pools[p];

		pool->plan.actions = palloc((pool->input.n_workers + 1) * sizeof(PlanAction));
		plan_scale(&pool->input, &pool->plan);
		add_status(&fleet->summary, &pool->plan);
		fleet->summary.workers_spawned += pool->plan.create;
		for (int i = 0; i < pool->plan.n_actions; i++)
			fleet->summary.workers_terminated += pool->plan.actions[i].kind == PLAN_TERMINATE ||
				pool->plan.actions[i].kind == PLAN_LOST;
	}
	fleet->summary.workers_spawned = Min(fleet->summary.workers_spawned, rate_room);
	return true;
}

/*
 * Return, as a phrase, the hard budget that forbids a pod of this price now, or NULL. A price that
 * is not known breaks every hard budget.
 */
static const char *
budget_against(const PoolRow *pool, int64 price, const BudgetRow *budgets, int n_budgets)
{
	for (int i = 0; i < n_budgets; i++)
		if (counts_in(&budgets[i], pool) && budgets[i].plan.hard &&
			plan_budget_room(&budgets[i].plan, price) == 0)
			return psprintf("%s would be exceeded", budgets[i].name);
	return NULL;
}

/*
 * Choose the offer of a pool's next pod, among those that every hard budget allows at
 * their own price. NULL, with what stands against it in *refused, when there is none, or
 * when the rate limit is reached.
 */
static OfferRow *
choose_offer(const PoolRow *pool, const char **refused, TimestampTz now)
{
	OfferRow *offers;
	PlaceOffer *places;
	PlaceInput place = { .mode = pool->plan.offers_by_price ? PLACE_CHEAPEST : PLACE_PREFERENCE,
						 .max_price_micros = pool->max_price_micros };
	BudgetRow *budgets;
	int n = store_offer_list(pool->id, &offers);
	int n_budgets = store_budget_list(&budgets);
	int best;

	places = palloc((n + 1) * sizeof(PlaceOffer));
	for (int i = 0; i < n; i++)
	{
		places[i].ordinal = offers[i].ordinal;
		places[i].price_micros = offers[i].price_micros;
		places[i].available = offers[i].backoff_until <= now;
		places[i].failures = offers[i].refusals;
		places[i].refusal = budget_against(pool, offers[i].price_micros, budgets, n_budgets);
	}
	place.offers = places;
	place.n_offers = n;
	best = plan_place(&place, refused);
	if (best < 0)
		return NULL;
	if (rate_left(now) == 0)
	{
		*refused = "the spawn rate limit is reached";
		return NULL;
	}
	return &offers[best];
}

/* Whether a pool has an offer that its next pod could be asked of now. */
bool
store_fleet_can_place(const PoolRow *pool, const char **refused, TimestampTz now)
{
	return choose_offer(pool, refused, now) != NULL;
}

/*
 * Announce one new pod of a pool: its worker, and the create. Returns the
 * worker's id, or NULL with what stands against it in *refused. The caller has
 * locked the installation and the pool, and counted its places: so nobody else
 * announces a pod meanwhile, and budgets and the rate limit hold.
 */
const char *
store_fleet_intend(const PoolRow *pool, const Installation *installation, int64 decision,
				   const char **refused, TimestampTz now)
{
	OfferRow *chosen = choose_offer(pool, refused, now);
	char random[TOKEN_LENGTH + 1];
	char *id;
	int64 worker;
	int64 price;
	bool canary;

	if (chosen == NULL)
		return NULL;
	if (store_offer_all_refuse(pool->id))
	{
		*refused = "every offer says that the request is wrong; alter the pool";
		return NULL;
	}
	if (!store_breaker_admits(pool->image, &canary, now))
	{
		*refused = "pods of its image failed in a row, and it is not time for the next one";
		return NULL;
	}
	price = chosen->price_micros > 0 ? chosen->price_micros : store_offer_ceiling(pool->id);
	token_make(random);
	id = psprintf("%s-%.8s", pool->name, random);
	worker = store_worker_create(id, WO_CLOUD, pool->id, WS_SPAWNING, now);
	INJECT("intent.worker");
	store_worker_set_pod(worker, NULL, chosen->gpu_type, chosen->data_center, chosen->price_micros,
						 now);
	store_offer_expect(worker, pool->image, chosen);
	if (canary)
		store_breaker_send_canary(pool->image, worker);
	store_op_plan_create(worker, chosen, installation, price, decision, now);
	store_event_added("intent", id, worker, WS_SPAWNING, NULL, now);
	return id;
}

/* Raise or clear the alerts about money and about rows, for a fleet as it was planned just now. */
void
store_fleet_watch(const FleetPlan *fleet, TimestampTz now)
{
	StringInfoData hard;
	StringInfoData soft;
	BudgetRow *budgets;
	int n = store_budget_list(&budgets);

	initStringInfo(&hard);
	initStringInfo(&soft);
	for (int i = 0; i < fleet->n_pools; i++)
	{
		const FleetPool *pool = &fleet->pools[i];

		if (strcmp(pool->plan.bound_by, "budget_room") == 0)
			appendStringInfo(&hard, "%spool %s gets no more pods by %s", hard.len > 0 ? "; " : "",
							 pool->row.name, pool->input.budget);
	}
	for (int i = 0; i < n; i++)
		if (!budgets[i].plan.hard && plan_budget_left(&budgets[i].plan) <= 0)
			appendStringInfo(&soft, "%s%s: %s", soft.len > 0 ? "; " : "", budgets[i].owner,
							 budgets[i].name);
	store_alert_all(ALERT_POISONED_ROW, fleet->unreadable, fleet->n_unreadable, now);
	store_alert(ALERT_BUDGET_HARD, "fleet", hard.len > 0 ? hard.data : NULL, now);
	store_alert(ALERT_BUDGET_SOFT, "fleet", soft.len > 0 ? soft.data : NULL, now);
	store_spend_watch(now);
}
