/*
 * decide/scale.c
 *	  Decide the size of one pool, and what becomes of each of its workers.
 *
 * Pure: no PostgreSQL header, no clock, no memory of its own, no randomness. The same
 * input gives the same result, so that the leader, dry runs, explanations, the
 * simulator and the tests share it. It decides and does nothing: store/worker.c
 * makes the moves (and looks again for leases under its lock), store/op.c the intents.
 *
 * What holds whatever the input:
 *	- Every pod of the pool that is not proved gone has a place; places and creates
 *	  together never pass max_workers.
 *	- Capacity is what claims or will: spawning, initializing, active. Draining and
 *	  terminating workers are none; spawning ones whose create is in doubt are.
 *	- A ready worker is never retired because others are booting.
 *	- External workers have no place; they only lessen the demand.
 *
 * docs/scaling.md explains each rule, term and parameter.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "decide/offer.h"
#include "decide/scale.h"

/* Workers leave for their age while at most one in so many ready ones drains. */
#define EXPIRE_SHARE 5

/* More registrations than this are a loop if each took less than so many seconds. */
#define MOST_REGISTRATIONS 5
#define REGISTRATION_PACE 120.0

/* A worker that has never claimed is of no use once tasks for it have waited so many seconds. */
#define NEVER_CLAIMED_AFTER 600.0

/* One evaluation: the pool's workers as they will be once all verdicts are carried out. */
typedef struct Plan
{
	const PlanInput *in;
	PlanResult *out;
	int booting; /* spawning and initializing */
	int active;
	int busy; /* active, with a lease */
	int draining;
	int min;		 /* min_workers, never above max_workers */
	int waiting;	 /* tasks that want a worker of this pool */
	int lost;		 /* declared lost by this plan */
	int recalled;	 /* taken back from draining by this plan */
	int replacement; /* wanted for a worker that is too old */
	int wants;		 /* what the policy wants, before any bound */
} Plan;

/* Says of a worker without a verdict whether a step may take it. */
typedef bool (*Eligible)(const Plan *plan, const PlanWorker *worker);

const PlanOption plan_options[] = {
	{ "tasks_per_worker", "tasks", false, offsetof(PlanPool, tasks_per_worker), 3, 0.001, 1e6,
	  "waiting tasks for each worker above which queue_ratio adds workers" },
	{ "scale_up_multiplier", "factor", false, offsetof(PlanPool, scale_up_multiplier), 1.0, 0.01,
	  100, "times tasks_per_worker: where queue_ratio begins to add workers" },
	{ "scale_down_multiplier", "factor", false, offsetof(PlanPool, scale_down_multiplier), 0.9,
	  0.01, 100,
	  "times tasks_per_worker: where queue_ratio begins to want fewer; never above scale_up_multiplier" },
	{ "scale_down_grace", "s", false, offsetof(PlanPool, scale_down_grace), 60, 0, 86400,
	  "least time between two scale-ins" },
	{ "spawning_grace", "s", false, offsetof(PlanPool, spawning_grace), 180, 0, 86400,
	  "least age of a booting pod before it may be cancelled for want of demand" },
	{ "drain_settle", "s", false, offsetof(PlanPool, drain_settle), 5, 0, 3600,
	  "least time in draining, so that a claim that raced the drain is seen" },
	{ "fixed_workers", "workers", true, offsetof(PlanPool, fixed_workers), 0, 0, 100000,
	  "what policy fixed wants" },
	{ "max_create_per_cycle", "workers", true, offsetof(PlanPool, max_create_per_cycle), 0, 0,
	  100000, "most creates in one evaluation; 0 sets no limit" },
	{ "offers_by_price", "flag", true, offsetof(PlanPool, offers_by_price), 0, 0, 1,
	  "1: the cheapest offer goes first; 0: the preferred one" },
};

const int n_plan_options = sizeof(plan_options) / sizeof(plan_options[0]);

static const char *const policy_names[] = { "queue_ratio", "one_to_one", "fixed" };

/* The name of a policy, which is also the name of its term. */
const char *
plan_policy_name(PlanPolicy policy)
{
	return policy_names[policy];
}

/* Read a policy's name; false, and *policy untouched, if there is none of that name. */
bool
plan_policy_parse(const char *name, PlanPolicy *policy)
{
	for (int i = 0; i <= POLICY_FIXED; i++)
		if (strcmp(name, policy_names[i]) == 0)
		{
			*policy = (PlanPolicy) i;
			return true;
		}
	return false;
}

/* Write a value where the option keeps it. */
static void
store_option(PlanPool *pool, const PlanOption *option, double value)
{
	char *place = (char *) pool + option->offset;
	int whole = (int) value;

	if (option->whole)
		memcpy(place, &whole, sizeof(whole));
	else
		memcpy(place, &value, sizeof(value));
}

/* Give every parameter its default. */
void
plan_pool_init(PlanPool *pool)
{
	memset(pool, 0, sizeof(*pool));
	pool->policy = POLICY_QUEUE_RATIO;
	pool->max_workers = 10;
	pool->idle_timeout = 300;
	pool->spawn_timeout = 600;
	pool->drain_timeout = 600;
	pool->heartbeat_timeout = 30;
	for (int i = 0; i < n_plan_options; i++)
		store_option(pool, &plan_options[i], plan_options[i].normal);
}

/* Set a policy option. NULL, or a constant that says why not; then nothing has changed. */
const char *
plan_option_set(PlanPool *pool, const char *name, double value)
{
	for (int i = 0; i < n_plan_options; i++)
	{
		const PlanOption *option = &plan_options[i];

		if (strcmp(name, option->name) != 0)
			continue;
		if (!(value >= option->lowest && value <= option->highest))
			return "out of range";
		if (option->whole && value != floor(value))
			return "not a whole number";
		store_option(pool, option, value);
		return NULL;
	}
	return "no such policy option";
}

/* Add a term to the explanation. */
static void term(Plan *plan, const char *name, double value, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void
term(Plan *plan, const char *name, double value, const char *format, ...)
{
	PlanTerm *new_term = &plan->out->terms[plan->out->n_terms++];
	va_list args;

	new_term->name = name;
	new_term->value = value;
	new_term->bound = false;
	va_start(args, format);
	vsnprintf(new_term->note, sizeof(new_term->note), format, args);
	va_end(args);
}

/* The least whole number that is not below x, within 0 and INT_MAX; forgives rounding errors. */
static int
whole_above(double x)
{
	x = ceil(x - 1e-9);
	if (!(x > 0))
		return 0;
	return x < INT_MAX ? (int) x : INT_MAX;
}

/* Sum without overflow. */
static int
add(int a, int b)
{
	return a > INT_MAX - b ? INT_MAX : a + b;
}

static int
least(int a, int b)
{
	return a < b ? a : b;
}

static int
most(int a, int b)
{
	return a > b ? a : b;
}

/* Is it one of the pool's own, with a place? */
static bool
has_place(const PlanWorker *worker)
{
	return worker->origin == WO_CLOUD && worker->state != WS_TERMINATED;
}

/* Is a worker that should speak silent for too long? One that never spoke is so since it came. */
static bool
is_silent(const Plan *plan, const PlanWorker *worker)
{
	double silence = worker->silence < 0 ? worker->state_age : worker->silence;

	return (worker->state == WS_ACTIVE || worker->state == WS_DRAINING) &&
		silence > plan->in->pool.heartbeat_timeout;
}

/* What claims now or will once it has booted. */
static int
capacity(const Plan *plan)
{
	return plan->booting + plan->active;
}

/*
 * Decide what becomes of worker i, which has no verdict yet, and count it as what it will
 * be. While the plan is made, actions[i] belongs to workers[i].
 */
static void
verdict(Plan *plan, int i, PlanActionKind kind, const char *cause)
{
	const PlanWorker *worker = &plan->in->workers[i];
	PlanAction *action = &plan->out->actions[i];

	action->kind = kind;
	action->worker = worker->no;
	action->cause = cause;
	if (!has_place(worker))
		return;

	if (worker->state == WS_SPAWNING || worker->state == WS_INITIALIZING)
		plan->booting--;
	else if (worker->state == WS_DRAINING)
		plan->draining--;
	else if (worker->state == WS_ACTIVE)
	{
		plan->active--;
		plan->busy -= worker->held > 0;
	}

	if (kind == PLAN_DRAIN)
		plan->draining++;
	else if (kind == PLAN_UNDRAIN)
	{
		plan->active++;
		plan->busy += worker->held > 0;
	}
}

/*
 * Among the pool's workers that are eligible and have no verdict yet: the index of the
 * youngest, or the oldest; of two of one age, the one with the higher number is the
 * younger. -1: none.
 */
static int
pick(const Plan *plan, Eligible eligible, bool oldest)
{
	int best = -1;

	for (int i = 0; i < plan->in->n_workers; i++)
	{
		const PlanWorker *worker = &plan->in->workers[i];
		const PlanWorker *other = &plan->in->workers[best < 0 ? i : best];
		bool younger =
			worker->age < other->age || (worker->age == other->age && worker->no > other->no);

		if (plan->out->actions[i].kind == PLAN_KEEP && has_place(worker) &&
			eligible(plan, worker) && (best < 0 || younger != oldest))
			best = i;
	}
	return best;
}

static bool
is_booting(const Plan *plan, const PlanWorker *worker)
{
	(void) plan;
	return worker->state == WS_SPAWNING || worker->state == WS_INITIALIZING;
}

/* Booting, and old enough to be cancelled; a create under way is left alone. */
static bool
is_cancellable(const Plan *plan, const PlanWorker *worker)
{
	return worker->state == WS_INITIALIZING && worker->age > plan->in->pool.spawning_grace;
}

static bool
is_idle(const Plan *plan, const PlanWorker *worker)
{
	(void) plan;
	return worker->state == WS_ACTIVE && worker->held == 0;
}

/*
 * Idle for long, and ready for as long as it took to boot: what was dear to get is not
 * given up at once. A boot counts as no longer than the spawn timeout.
 */
static bool
is_idle_for_long(const Plan *plan, const PlanWorker *worker)
{
	return is_idle(plan, worker) && worker->idle > plan->in->pool.idle_timeout &&
		worker->state_age >= fmin(worker->booted_in, plan->in->pool.spawn_timeout);
}

static bool
is_active(const Plan *plan, const PlanWorker *worker)
{
	(void) plan;
	return worker->state == WS_ACTIVE;
}

static bool
is_too_old(const Plan *plan, const PlanWorker *worker)
{
	return plan->in->pool.max_worker_age > 0 && worker->age > plan->in->pool.max_worker_age;
}

static bool
is_expired(const Plan *plan, const PlanWorker *worker)
{
	return worker->state == WS_ACTIVE && is_too_old(plan, worker);
}

static bool
is_recallable(const Plan *plan, const PlanWorker *worker)
{
	return worker->state == WS_DRAINING && worker->recallable && !is_silent(plan, worker) &&
		!is_too_old(plan, worker);
}

/* Count the pool's workers as the snapshot has them. */
static void
count(Plan *plan)
{
	PlanResult *out = plan->out;

	for (int i = 0; i < plan->in->n_workers; i++)
	{
		const PlanWorker *worker = &plan->in->workers[i];

		if (!has_place(worker))
			continue;
		out->n_total++;
		out->n_spawning += worker->state == WS_SPAWNING;
		out->n_initializing += worker->state == WS_INITIALIZING;
		out->n_active += worker->state == WS_ACTIVE;
		out->n_busy += worker->state == WS_ACTIVE && worker->held > 0;
		out->n_draining += worker->state == WS_DRAINING;
		out->n_terminating += worker->state == WS_TERMINATING;
	}
	out->n_idle = out->n_active - out->n_busy;
	plan->booting = out->n_spawning + out->n_initializing;
	plan->active = out->n_active;
	plan->busy = out->n_busy;
	plan->draining = out->n_draining;
}

/* The cause for which an active worker is of no use; NULL: it may be of some. */
static const char *
useless_for(const PlanWorker *worker)
{
	if (worker->state != WS_ACTIVE || worker->held > 0)
		return NULL;
	if (worker->registrations > MOST_REGISTRATIONS &&
		worker->state_age < worker->registrations * REGISTRATION_PACE)
		return "restart_loop";
	if (!worker->claimed && worker->passed_over > NEVER_CLAIMED_AFTER)
		return "never_claimed";
	return NULL;
}

/* End what is silent, what never spoke, what is of no use, and what does not finish. */
static void
scale_end_failed(Plan *plan)
{
	const PlanPool *pool = &plan->in->pool;

	for (int i = 0; i < plan->in->n_workers; i++)
	{
		const PlanWorker *worker = &plan->in->workers[i];

		if (is_silent(plan, worker))
		{
			/* One that cannot be ended yet takes nobody's room. */
			if (worker->kept)
				verdict(plan, i, PLAN_LOST, "heartbeat_lost");
			else if (plan->lost < plan->in->lost_room)
			{
				verdict(plan, i, PLAN_LOST, "heartbeat_lost");
				plan->lost++;
			}
		}
		else if (!has_place(worker))
			continue;
		else if (worker->state == WS_INITIALIZING &&
				 worker->state_age >
					 plan_offer_spawn_timeout(pool->spawn_timeout, worker->boot_expected))
			verdict(plan, i, PLAN_TERMINATE, worker->no_runtime ? "no_runtime" : "spawn_timeout");
		else if (useless_for(worker) != NULL)
			verdict(plan, i, PLAN_TERMINATE, useless_for(worker));
		else if (worker->state == WS_DRAINING && worker->held > 0 &&
				 worker->state_age > pool->drain_timeout)
			verdict(plan, i, PLAN_TERMINATE, "drain_timeout");
	}
}

/*
 * Drain workers that are too old, the oldest first, while more than the minimum are ready
 * and no more than a share of the fleet drains at once. Where the minimum stands in the
 * way, returns 1: a replacement is wanted, and must be ready before its predecessor
 * leaves. Where the minimum is the maximum there never is room for one: then they go one
 * by one, each when all the others are ready.
 */
static int
retire_expired(Plan *plan)
{
	int at_once = most(1, plan->active / EXPIRE_SHARE);
	int i;

	while ((i = pick(plan, is_expired, true)) >= 0 && plan->draining < at_once)
	{
		bool full =
			plan->active == plan->in->pool.max_workers && plan->active == plan->out->n_total;

		if (plan->active <= plan->min && !full)
			return 1;
		verdict(plan, i, PLAN_DRAIN, "max_age");
	}
	return 0;
}

/*
 * What the policy wants, before any bound. queue_ratio is the seeds' rule, with a band in
 * which the fleet stays as it is.
 */
static int
policy_wants(const Plan *plan)
{
	const PlanPool *pool = &plan->in->pool;
	double up = pool->tasks_per_worker * pool->scale_up_multiplier;
	double down = pool->tasks_per_worker * pool->scale_down_multiplier;
	int now = capacity(plan);
	int wants;

	if (pool->policy == POLICY_FIXED)
		return pool->fixed_workers;
	if (pool->policy == POLICY_ONE_TO_ONE)
		return add(plan->waiting, plan->busy);
	wants = whole_above(plan->waiting / up);
	return wants > now ? wants : least(now, whole_above(plan->waiting / fmin(up, down)));
}

/* The idle workers that are wanted beside the busy ones: none once a soft budget is used up. */
static int
buffer(const Plan *plan)
{
	return plan->in->soft_budget != NULL ? 0 : plan->in->pool.idle_buffer;
}

/* The workers that the busy ones and the buffer come to; policy fixed has no buffer. */
static int
busy_plus_buffer(const Plan *plan)
{
	return plan->in->pool.policy == POLICY_FIXED ? 0 : add(plan->busy, buffer(plan));
}

/* How many workers there should be: the largest of what is wanted, within max_workers. */
static void
decide_desired(Plan *plan)
{
	PlanResult *out = plan->out;

	if (plan->in->unreadable)
	{
		plan->wants = out->desired = capacity(plan);
		out->bound_by = "unreadable";
		return;
	}
	plan->wants = policy_wants(plan);
	out->desired = plan->wants;
	out->bound_by = policy_names[plan->in->pool.policy];
	if (plan->min > out->desired)
	{
		out->desired = plan->min;
		out->bound_by = "min_workers";
	}
	if (busy_plus_buffer(plan) > out->desired)
	{
		out->desired = busy_plus_buffer(plan);
		out->bound_by = "busy_plus_buffer";
	}
	if (plan->replacement > 0)
	{
		out->desired = add(out->desired, plan->replacement);
		out->bound_by = "replacement";
	}
	if (out->desired > plan->in->pool.max_workers)
	{
		out->desired = plan->in->pool.max_workers;
		out->bound_by = "max_workers";
	}
}

/*
 * Decide how many workers there should be and, where capacity is short of it, take back
 * what drains only for want of demand. A busy one taken back may itself be a reason for
 * more, so each is followed by a new decision.
 */
static void
decide_and_recall(Plan *plan)
{
	int i;

	decide_desired(plan);
	while (!plan->in->hold && capacity(plan) < plan->out->desired &&
		   (i = pick(plan, is_recallable, false)) >= 0)
	{
		verdict(plan, i, PLAN_UNDRAIN, "undrain");
		plan->recalled++;
		decide_desired(plan);
	}
}

/* Explain decide_and_recall. */
static void
term_desired(Plan *plan)
{
	const PlanPool *pool = &plan->in->pool;
	const PlanResult *out = plan->out;

	term(plan, "lost", plan->lost, "declared lost now");
	term(plan, "recalled", plan->recalled, "draining workers taken back now");
	term(plan, "capacity", capacity(plan), "spawning + initializing + active, after what ends now");
	if (pool->policy == POLICY_QUEUE_RATIO)
	{
		term(plan, "tasks_per_worker", pool->tasks_per_worker, "waiting tasks for each worker");
		term(plan, "scale_up_multiplier", pool->scale_up_multiplier, "times tasks_per_worker");
		term(plan, "scale_down_multiplier", pool->scale_down_multiplier, "times tasks_per_worker");
		term(plan, "queue_ratio", plan->wants, "%d waiting, capacity %d", plan->waiting,
			 capacity(plan));
	}
	else if (pool->policy == POLICY_ONE_TO_ONE)
		term(plan, "one_to_one", plan->wants, "%d waiting + %d busy", plan->waiting, plan->busy);
	else
		term(plan, "fixed", plan->wants, "fixed_workers");
	term(plan, "min_workers", plan->min, "of %d asked for", pool->min_workers);
	if (pool->policy != POLICY_FIXED)
		term(plan, "busy_plus_buffer", busy_plus_buffer(plan), "%d busy + idle_buffer %d",
			 plan->busy, buffer(plan));
	if (plan->in->unreadable)
		term(plan, "unreadable", 1, "the pool's row cannot be read: its fleet stays as it is");
	if (plan->in->soft_budget != NULL)
		term(plan, "soft_budget", 1, "%s is used up: no idle buffer", plan->in->soft_budget);
	term(plan, "replacement", plan->replacement, "for a worker older than max_worker_age");
	term(plan, "max_workers", pool->max_workers, "%s",
		 pool->max_workers == 0 ? "emergency stop" : "places at most");
	term(plan, "desired", out->desired, "by %s", out->bound_by);
}

/* Retire at once what max_workers does not allow: booting pods, then idle workers, then busy. */
static void
shed_excess(Plan *plan)
{
	int max = plan->in->pool.max_workers;
	int i;

	while (capacity(plan) > max && (i = pick(plan, is_booting, false)) >= 0)
		verdict(plan, i, PLAN_TERMINATE, "surplus");
	while (capacity(plan) > max && (i = pick(plan, is_idle, false)) >= 0)
		verdict(plan, i, PLAN_DRAIN, "surplus");
	while (capacity(plan) > max && (i = pick(plan, is_active, false)) >= 0)
		verdict(plan, i, PLAN_DRAIN, "surplus");
}

/* Lower *creates to what one limit leaves, which `by`, where not NULL, tells more of; the limit that lowered it last decided. */
static void
limit(Plan *plan, const char *name, int room, const char *by, int *creates)
{
	if (room != PLAN_NO_LIMIT)
		term(plan, name, room, "creates allowed%s%s", by != NULL ? " by " : "",
			 by != NULL ? by : "");
	if (*creates > most(room, 0))
	{
		*creates = most(room, 0);
		plan->out->bound_by = name;
	}
}

/* A condition under which there are no creates at all. */
static void
gate(Plan *plan, const char *name, bool closed, int *creates)
{
	term(plan, name, closed, "%s", closed ? "no creates" : "no");
	if (closed && *creates > 0)
	{
		*creates = 0;
		plan->out->bound_by = name;
	}
}

/* How many pods to create: what is short, as far as everything that limits it allows. */
static void
decide_creates(Plan *plan)
{
	const PlanInput *in = plan->in;
	PlanResult *out = plan->out;
	int creates = most(0, out->desired - capacity(plan));
	int step = in->pool.max_create_per_cycle;

	term(plan, "short", creates, "desired - capacity");
	gate(plan, "hold", in->hold, &creates);
	gate(plan, "paused", in->paused, &creates);
	gate(plan, "first_look_owed", !in->first_look_done, &creates);
	if (in->request_refused)
		gate(plan, "request_refused", true, &creates);
	limit(plan, "image_breaker", in->image_room, NULL, &creates);
	limit(plan, "places_left", most(0, in->pool.max_workers - out->n_total), NULL, &creates);
	limit(plan, "budget_room", in->budget_room, in->budget, &creates);
	limit(plan, "rate_room", in->rate_room, NULL, &creates);
	limit(plan, "max_create_per_cycle", step > 0 ? step : PLAN_NO_LIMIT, NULL, &creates);
	out->create = creates;
	term(plan, "create", creates, "intents to commit now");
}

/*
 * Retire what no demand keeps: booting pods that are past their grace, the youngest first,
 * and workers that have been idle for long, the youngest first. Every waiting task keeps a
 * worker, whatever the policy wants. Ready workers are counted against ready workers
 * alone, so that none leaves for the sake of one that has yet to boot.
 */
static void
scale_in(Plan *plan)
{
	const PlanInput *in = plan->in;
	int wanted = least(capacity(plan), add(plan->busy, plan->waiting));
	int keep = most(plan->out->desired, wanted);
	bool too_soon =
		in->since_last_scale_in >= 0 && in->since_last_scale_in < in->pool.scale_down_grace;
	int i;

	term(plan, "keep", keep, "the larger of desired and busy + waiting");
	term(plan, "scale_down_grace", in->pool.scale_down_grace, "s between scale-ins: %s",
		 too_soon ? "not over yet" : "over");
	term(plan, "spawning_grace", in->pool.spawning_grace, "s before a booting pod is cancelled");
	if (too_soon)
		return;
	while (capacity(plan) > keep && (i = pick(plan, is_cancellable, false)) >= 0)
	{
		verdict(plan, i, PLAN_TERMINATE, "surplus");
		plan->out->scaled_in = true;
	}
	while (plan->active > keep && (i = pick(plan, is_idle_for_long, false)) >= 0)
	{
		verdict(plan, i, PLAN_DRAIN, "idle");
		plan->out->scaled_in = true;
	}
}

/* End what has drained. Comes after recall: taking one back costs nothing, a new pod a boot. */
static void
end_drained(Plan *plan)
{
	for (int i = 0; i < plan->in->n_workers; i++)
	{
		const PlanWorker *worker = &plan->in->workers[i];

		if (plan->out->actions[i].kind == PLAN_KEEP && worker->state == WS_DRAINING &&
			worker->held == 0 && worker->state_age >= plan->in->pool.drain_settle)
			verdict(plan, i, PLAN_TERMINATE, "drained");
	}
}

/* Explain the snapshot, and the settings that lifetimes obey. */
static void
term_input(Plan *plan)
{
	const PlanInput *in = plan->in;
	const PlanResult *out = plan->out;
	int in_doubt = 0;

	for (int i = 0; i < in->n_workers; i++)
		in_doubt += has_place(&in->workers[i]) && in->workers[i].create_open;

	term(plan, "claimable", in->claimable, "tasks that this pool's workers match");
	term(plan, "external_idle", in->matching_external, "external workers that could serve them");
	term(plan, "waiting", plan->waiting, "claimable - external_idle");
	term(plan, "spawning", out->n_spawning, "%d workers with a create that is not settled",
		 in_doubt);
	term(plan, "initializing", out->n_initializing, "spawn_timeout %g s", in->pool.spawn_timeout);
	term(plan, "active", out->n_active, "heartbeat_timeout %g s, max_worker_age %g s",
		 in->pool.heartbeat_timeout, in->pool.max_worker_age);
	term(plan, "idle", out->n_idle, "idle_timeout %g s", in->pool.idle_timeout);
	term(plan, "busy", out->n_busy, "active workers with a lease");
	term(plan, "draining", out->n_draining, "no capacity; drain_timeout %g s, drain_settle %g s",
		 in->pool.drain_timeout, in->pool.drain_settle);
	term(plan, "terminating", out->n_terminating, "no capacity, but a place until proved gone");
	term(plan, "places", out->n_total, "each bills until proved gone");
	if (in->lost_room != PLAN_NO_LIMIT)
		term(plan, "lost_room", in->lost_room, "workers that may be declared lost now");
}

/*
 * Evaluate one pool. The input is only read; result->actions must have room for as
 * many actions as there are workers, everything else in *result is written anew. Never fails:
 * parameters are checked where they are set.
 */
void
plan_scale(const PlanInput *input, PlanResult *result)
{
	PlanAction *actions = result->actions;
	Plan plan = { .in = input, .out = result };

	memset(result, 0, sizeof(*result));
	result->actions = actions;
	if (input->n_workers > 0)
		memset(actions, 0, sizeof(*actions) * input->n_workers);
	plan.min = least(input->pool.min_workers, input->pool.max_workers);
	plan.waiting = most(0, input->claimable - input->matching_external);

	count(&plan);
	term_input(&plan);
	if (!input->hold)
	{
		scale_end_failed(&plan);
		if (!input->unreadable)
		{
			shed_excess(&plan);
			plan.replacement = retire_expired(&plan);
		}
	}
	decide_and_recall(&plan);
	term_desired(&plan);
	decide_creates(&plan);
	if (!input->hold)
	{
		if (!input->unreadable)
			scale_in(&plan);
		end_drained(&plan);
	}

	for (int i = 0; i < input->n_workers; i++)
		if (actions[i].kind != PLAN_KEEP)
			actions[result->n_actions++] = actions[i];
	for (int i = 0; i < result->n_terms; i++)
		result->terms[i].bound = strcmp(result->terms[i].name, result->bound_by) == 0;
}
