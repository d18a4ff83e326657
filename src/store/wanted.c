/*
 * store/wanted.c
 *	  Whether a create that was announced is still to be sent.
 *
 * Between the decision and the sending may lie hours, if the provider cannot be used. All
 * that was true then is looked at again, in the transaction that marks the create as sent.
 * Reads only; what follows is leader/send.c's.
 */
#include "postgres.h"

#include "store/budget.h"
#include "store/fleet.h"
#include "store/wanted.h"
#include "utils/memutils.h"

/* A create that is sent sooner than this after the decision is still what was decided. */
#define FRESH (5 * USECS_PER_SEC)

/* How many workers of a pool have a pod, or may have one. */
static int64
count_places(int32 pool)
{
	static SpiQuery query = { "SELECT count(*) FROM gpu_orch.worker"
							  " WHERE pool = $1 AND origin = 'cloud' AND state <> 'terminated'" };
	SpiArgs args = SPI_ARGS_INIT;
	int64 n;

	spi_begin();
	spi_arg_int4(&args, pool);
	spi_read(&query, &args, 1);
	n = spi_int8(0, 1);
	spi_end();
	return n;
}

/* Why an offer cannot be taken; NULL if it can. */
static const char *
offer_problem(int64 offer, TimestampTz now)
{
	static SpiQuery query = {
		"SELECT coalesce(backoff_until > $2, false) FROM gpu_orch.offer WHERE id = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	const char *problem = NULL;

	spi_begin();
	spi_arg_int8(&args, offer);
	spi_arg_time(&args, now);
	if (spi_read(&query, &args, 1) == 0)
		problem = "the pool's offers were changed";
	else if (spi_bool(0, 1))
		problem = "its offer is passed over now";
	spi_end();
	return problem;
}

/* Whether a decision of the planner asked for it, and not a person. */
static bool
was_decided(int64 op)
{
	static SpiQuery query = { "SELECT decision IS NOT NULL FROM gpu_orch.cloud_op WHERE id = $1" };
	SpiArgs args = SPI_ARGS_INIT;
	bool decided;

	spi_begin();
	spi_arg_int8(&args, op);
	decided = spi_read(&query, &args, 1) == 1 && spi_bool(0, 1);
	spi_end();
	return decided;
}

/* Whether a pool has, with what boots, more workers than it would keep now. */
static bool
has_surplus(int32 pool, TimestampTz now)
{
	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "gpu_orch plan of the fleet", ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(context);
	FleetPlan fleet = { 0 };
	bool surplus = false;

	(void) store_fleet_plan(&fleet, now);
	for (int i = 0; i < fleet.n_pools; i++)
	{
		const PlanResult *plan = &fleet.pools[i].plan;

		if (fleet.pools[i].row.id != pool)
			continue;
		for (int t = 0; t < plan->n_terms; t++)
			if (strcmp(plan->terms[t].name, "keep") == 0)
				surplus =
					plan->n_spawning + plan->n_initializing + plan->n_active > plan->terms[t].value;
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(context);
	return surplus;
}

/*
 * Why a planned create of a pool must not be sent any more; NULL: it is
 * still wanted. The installation is the caller's to look at.
 */
const char *
store_wanted_problem(const CloudOpRow *op, const PoolRow *pool, TimestampTz now)
{
	const char *problem;

	if (pool == NULL || pool->dropped)
		return "its pool was dropped";
	if (count_places(pool->id) > pool->plan.max_workers)
		return "the pool may have fewer workers now";
	problem = store_budget_broken(pool->id);
	if (problem != NULL)
		return problem;
	problem = offer_problem(op->offer, now);
	if (problem == NULL && now - op->planned_at > FRESH && was_decided(op->id) &&
		has_surplus(pool->id, now))
		problem = "nothing needs it any more";
	return problem;
}
