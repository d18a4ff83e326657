/*
 * store/passed.c
 *	  Workers that have never claimed although tasks wait that they could claim: since
 *	  when is noted (passed_since of worker_profile).
 *
 * Looks, at each tick, at pods' workers that are ready and have never held a lease; of
 * a fleet at work there are none. What becomes of one is decide/scale.c's affair.
 */
#include "postgres.h"

#include "store/meets.h"
#include "store/passed.h"
#include "queue/ready.h"
#include "store/worker.h"

/* A worker that has never claimed, and what is noted of it. */
typedef struct Passed
{
	CapabilitySet set;
	bool noted;
} Passed;

static int
read_candidates(Passed **candidates)
{
	static SpiQuery query = {
		"SELECT w.no, f.passed_since IS NOT NULL, w.capset FROM gpu_orch.worker w"
		" JOIN gpu_orch.worker_profile f ON f.worker = w.no"
		" WHERE w.state <> 'terminated' AND w.state = 'active' AND w.origin = 'cloud'"
		" AND f.image IS NOT NULL AND f.learned < 2 AND w.busy_at <= f.registered_at"
		" AND NOT EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.worker = w.no)"
		" ORDER BY w.no FOR NO KEY UPDATE OF f SKIP LOCKED"
	};
	int n;

	spi_begin();
	n = (int) spi_run(&query, NULL);
	*candidates = SPI_palloc((n + 1) * sizeof(Passed));
	for (int i = 0; i < n; i++)
	{
		(*candidates)[i].set =
			(CapabilitySet){ .worker = spi_int8(i, 1), .digest = spi_int8(i, 3) };
		(*candidates)[i].noted = spi_bool(i, 2);
	}
	spi_end();
	return n;
}

/* Whether any of these shapes' tasks could be claimed by a worker. */
static bool
could_claim(CapabilitySet *set, const ShapeCount *shapes, int n_shapes)
{
	for (int i = 0; i < n_shapes; i++)
		if (store_meets(set, shapes[i].shape))
			return true;
	return false;
}

static void
passed_note(int64 worker, bool passed, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.worker_profile SET passed_since = $2 WHERE worker = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, worker);
	spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(now), !passed);
	spi_run_one(&query, &args, "noting that tasks pass a worker over");
	spi_end();
}

/*
 * Note of each worker that has never claimed whether tasks wait that it could claim,
 * from now on or no longer.
 */
void
store_passed_watch(TimestampTz now)
{
	Passed *candidates;
	int n = read_candidates(&candidates);
	ShapeCount *shapes;
	int n_shapes = n > 0 ? store_queue_count(&shapes, 1) : 0;

	for (int i = 0; i < n; i++)
	{
		bool passed = could_claim(&candidates[i].set, shapes, n_shapes);

		if (passed != candidates[i].noted)
			passed_note(candidates[i].set.worker, passed, now);
	}
}
