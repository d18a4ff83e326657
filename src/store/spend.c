/*
 * store/spend.c
 *	  What the pods cost: all access to spend.
 *
 * An interval opens before the pod can bill and closes when its end is proved. It
 * belongs to a worker, or, where no worker has the pod, to the pod alone. Its price
 * is never zero: until the provider names the pod's own price, it is the catalog's,
 * or the most that it may be. Whether something may be spent is
 * store/budget.c's affair.
 */
#include "postgres.h"

#include "store/alert.h"
#include "store/spend.h"

static const char *const price_names[] = { "assumed", "catalog", "provider" };

/* Begin to count what a worker's pod costs, in doubt or not, unless it is being counted. */
void
store_spend_open(int64 worker, int32 pool, int64 price_micros, SpendPrice price_from,
				 TimestampTz from)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.spend (worker, pool, price_micros, price_from, started_at)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (worker) WHERE ended_at IS NULL DO NOTHING"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, worker);
	spi_arg(&args, INT4OID, Int32GetDatum(pool), pool == 0);
	spi_arg_int8(&args, price_micros);
	spi_arg_text(&args, price_names[price_from]);
	spi_arg_time(&args, from);
	spi_run(&query, &args);
	spi_end();
}

/*
 * The same for a pod that no worker has: a double, or one that no row knows (pool 0).
 * One that was counted and taken for gone was paid for all the time.
 */
void
store_spend_open_pod(const char *pod_id, int32 pool, int64 price_micros, SpendPrice price_from,
					 TimestampTz from)
{
	static SpiQuery query = {
		"WITH again AS (UPDATE gpu_orch.spend SET ended_at = NULL WHERE id ="
		"  (SELECT max(id) FROM gpu_orch.spend WHERE pod_id = $1 AND worker IS NULL) RETURNING id) "
		"INSERT INTO gpu_orch.spend (pod_id, pool, price_micros, price_from, started_at)"
		" SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT 1 FROM again)"
		" ON CONFLICT (pod_id) WHERE ended_at IS NULL AND worker IS NULL DO NOTHING"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, pod_id);
	spi_arg(&args, INT4OID, Int32GetDatum(pool), pool == 0);
	spi_arg_int8(&args, price_micros);
	spi_arg_text(&args, price_names[price_from]);
	spi_arg_time(&args, from);
	spi_run(&query, &args);
	spi_end();
}

/*
 * The pod of a worker, and the price that the provider names for it; one that is
 * not positive is not known. The first such price holds from the interval's start,
 * another one from now on: what was paid until now stays as it was.
 */
void
store_spend_pod(int64 worker, const char *pod_id, int64 price_micros, TimestampTz now)
{
	static SpiQuery first = {
		"UPDATE gpu_orch.spend SET pod_id = coalesce($2, pod_id),"
		" price_micros = CASE WHEN price_from <> 'provider' THEN coalesce($3, price_micros)"
		"                     ELSE price_micros END,"
		" price_from = CASE WHEN $3 IS NULL THEN price_from ELSE 'provider' END"
		" WHERE worker = $1 AND ended_at IS NULL"
		" AND ($3 IS NOT NULL AND price_from <> 'provider' OR pod_id IS DISTINCT FROM coalesce($2, pod_id))"
	};
	static SpiQuery later = {
		"WITH past AS (UPDATE gpu_orch.spend SET ended_at = greatest(started_at, $3)"
		" WHERE worker = $1 AND ended_at IS NULL AND price_micros <> $2"
		" RETURNING pool, pod_id, ended_at) "
		"INSERT INTO gpu_orch.spend (worker, pool, pod_id, price_micros, price_from, started_at)"
		" SELECT $1, pool, pod_id, $2, 'provider', ended_at FROM past"
	};
	SpiArgs args = SPI_ARGS_INIT;
	SpiArgs later_args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, worker);
	spi_arg_text(&args, pod_id);
	spi_arg(&args, INT8OID, Int64GetDatum(price_micros), price_micros <= 0);
	spi_run(&first, &args);
	if (price_micros > 0)
	{
		spi_arg_int8(&later_args, worker);
		spi_arg_int8(&later_args, price_micros);
		spi_arg_time(&later_args, now);
		spi_run(&later, &later_args);
	}
	spi_end();
}

/* Whether a pod is being counted at a price that the provider has not said of it. */
bool
store_spend_any_unsaid(void)
{
	static SpiQuery query = {
		"SELECT 1 FROM gpu_orch.spend WHERE ended_at IS NULL AND worker IS NOT NULL"
		" AND price_from <> 'provider' LIMIT 1"
	};
	bool any;

	spi_begin();
	any = spi_read(&query, NULL, 1) == 1;
	spi_end();
	return any;
}

/* The pod of a worker came to be at a time, not before: an earlier start is moved there. */
void
store_spend_since(int64 worker, TimestampTz from, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.spend SET started_at = least($2, $3) WHERE worker = $1"
		" AND ended_at IS NULL AND started_at < least($2, $3)"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, worker);
	spi_arg_time(&args, from);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_end();
}

/* End the count, if one runs; 0 means that the pod never was, and costs nothing. */
void
store_spend_close(int64 worker, TimestampTz at)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.spend SET ended_at = greatest(started_at, coalesce($2, started_at))"
		" WHERE worker = $1 AND ended_at IS NULL"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, worker);
	spi_arg_time(&args, at);
	spi_run(&query, &args);
	spi_end();
}

/* End the count of a pod that no worker has, if one runs. */
void
store_spend_close_pod(const char *pod_id, TimestampTz at)
{
	static SpiQuery query = { "UPDATE gpu_orch.spend SET ended_at = greatest(started_at, $2)"
							  " WHERE pod_id = $1 AND ended_at IS NULL AND worker IS NULL" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, pod_id);
	spi_arg_time(&args, at);
	spi_run(&query, &args);
	spi_end();
}

/* The pod that was taken for gone is there: it was paid for all the time. */
void
store_spend_reopen(int64 worker)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.spend SET ended_at = NULL WHERE id ="
		" (SELECT id FROM gpu_orch.spend WHERE worker = $1 ORDER BY id DESC LIMIT 1)"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, worker);
	spi_run(&query, &args);
	spi_end();
}

/*
 * The clock was stepped by so many microseconds, at some time after `since`: what
 * is being counted is moved along, so that only time that passed is paid for. What
 * may have begun after a step forward stays, which is rather too much than too
 * little; a step back moves all.
 */
void
store_spend_shift(int64 step, TimestampTz since)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.spend SET started_at = started_at + $1 * interval '1 microsecond'"
		" WHERE ended_at IS NULL AND ($1 < 0 OR started_at <= $2)"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, step);
	spi_arg_time(&args, since);
	spi_run(&query, &args);
	spi_end();
}

/* Raise or clear the alert for pods that are counted at an assumed price. */
void
store_spend_watch(TimestampTz now)
{
	static SpiQuery query = {
		"SELECT string_agg(DISTINCT coalesce(p.name, 'none'), ', ') FROM"
		" (SELECT pool FROM gpu_orch.spend WHERE ended_at IS NULL AND price_from = 'assumed'"
		"  UNION ALL SELECT pool FROM gpu_orch.cloud_op WHERE kind = 'create' AND price_assumed"
		"  AND state = 'planned') s"
		" LEFT JOIN gpu_orch.pool p ON p.id = s.pool"
	};
	char *pools;
	char *detail = NULL;

	spi_begin();
	spi_read(&query, NULL, 1);
	pools = spi_text(0, 1);
	if (pools != NULL)
		detail =
			psprintf("pods are counted at the most that they may cost; their pools: %s", pools);
	store_alert(ALERT_PRICE_UNKNOWN, "fleet", detail, now);
	spi_end();
}
