/*
 * store/offer.c
 *	  What the provider offers to a pool: all access to offer.
 *
 * An offer is a GPU type in a data centre, or in any. It has a price once the catalog or a
 * pod told one, and is passed over for a while after a refusal. What is learned of an offer is
 * not noted where somebody has its row locked: it is learned again.
 */
#include "postgres.h"

#include "store/offer.h"

/* What a GPU is taken to cost per hour while no price at all is known: more than any does. */
#define DEAREST_GPU_MICROS (10 * INT64CONST(1000000))

/*
 * Make a pool's offers from its GPU types and data centres, in order of
 * preference: each type in each data centre before the next type, each once. An
 * offer that stays keeps its id and all that is known of it, but not a price that
 * was for another number of GPUs or another cloud.
 */
void
store_offer_make(int32 pool)
{
#define WANTED \
	"WITH wanted AS (SELECT p.id AS pool, p.gpu_count, p.cloud_type, g.gpu_type, d.data_center," \
	"  (pg_catalog.row_number() OVER (ORDER BY min(g.n), min(d.n)))::int AS ordinal" \
	" FROM gpu_orch.pool p, LATERAL unnest(p.gpu_types) WITH ORDINALITY AS g(gpu_type, n)," \
	"  LATERAL unnest(CASE WHEN p.data_centers = '{}' THEN ARRAY[NULL] ELSE p.data_centers END)" \
	"          WITH ORDINALITY AS d(data_center, n)" \
	" WHERE p.id = $1 GROUP BY p.id, g.gpu_type, d.data_center) "
	static SpiQuery drop = { WANTED "DELETE FROM gpu_orch.offer o WHERE o.pool = $1 AND NOT EXISTS"
									" (SELECT 1 FROM wanted w WHERE w.gpu_type = o.gpu_type"
									"  AND w.data_center IS NOT DISTINCT FROM o.data_center)" };
	static SpiQuery add = {
		WANTED
		"INSERT INTO gpu_orch.offer AS o (pool, ordinal, gpu_type, data_center, gpu_count, cloud_type)"
		" SELECT pool, ordinal, gpu_type, data_center, gpu_count, cloud_type FROM wanted"
		" ON CONFLICT (pool, gpu_type, data_center) DO UPDATE SET ordinal = excluded.ordinal,"
		" gpu_count = excluded.gpu_count, cloud_type = excluded.cloud_type,"
		" price_micros = CASE WHEN (o.gpu_count, o.cloud_type) = (excluded.gpu_count, excluded.cloud_type)"
		"                     THEN o.price_micros END,"
		" price_at = CASE WHEN (o.gpu_count, o.cloud_type) = (excluded.gpu_count, excluded.cloud_type)"
		"                 THEN o.price_at END"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int4(&args, pool);
	spi_run(&drop, &args);
	spi_run(&add, &args);
	spi_end();
}

/* The offers of a pool in order of preference. */
int
store_offer_list(int32 pool, OfferRow **offers)
{
	static SpiQuery query = {
		"SELECT id, pool, ordinal, gpu_type, data_center, coalesce(price_micros, -1), backoff_until,"
		" refusals, gpu_count, cloud_type FROM gpu_orch.offer WHERE pool = $1 ORDER BY ordinal"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int n;

	spi_begin();
	spi_arg_int4(&args, pool);
	n = (int) spi_read(&query, &args, 0);
	*offers = SPI_palloc((n + 1) * sizeof(OfferRow));
	for (int i = 0; i < n; i++)
	{
		OfferRow *offer = &(*offers)[i];

		offer->id = spi_int8(i, 1);
		offer->pool = spi_int4(i, 2);
		offer->ordinal = spi_int4(i, 3);
		offer->gpu_type = spi_text(i, 4);
		offer->data_center = spi_text(i, 5);
		offer->price_micros = spi_int8(i, 6);
		offer->backoff_until = spi_time(i, 7);
		offer->refusals = spi_int4(i, 8);
		offer->gpu_count = spi_int4(i, 9);
		offer->cloud_type = spi_text(i, 10);
	}
	spi_end();
	return n;
}

/*
 * The most that a pod of a pool may cost per hour, as far as anybody can tell while
 * its offer has no price: what the pool may pay, else the dearest known price of a
 * GPU. Pool 0: of any pod, with the dearest known price of a pod.
 */
int64
store_offer_ceiling(int32 pool)
{
	static SpiQuery of_pool = {
		"SELECT greatest(1, coalesce((p.max_price_per_hour * 1000000)::bigint,"
		" (SELECT max(ceil(o.price_micros::numeric / o.gpu_count))::bigint FROM gpu_orch.offer o)"
		"  * p.gpu_count, $2 * p.gpu_count)) FROM gpu_orch.pool p WHERE p.id = $1"
	};
	static SpiQuery of_any = {
		"SELECT coalesce(max(price_micros), $1) FROM gpu_orch.offer WHERE price_micros > 0"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 price = DEAREST_GPU_MICROS;

	spi_begin();
	if (pool != 0)
		spi_arg_int4(&args, pool);
	spi_arg_int8(&args, DEAREST_GPU_MICROS);
	if (spi_read(pool != 0 ? &of_pool : &of_any, &args, 1) == 1)
		price = spi_int8(0, 1);
	spi_end();
	return price;
}

/* How many offers of pools in use have no price that is known. */
int64
store_offer_count_unpriced(void)
{
	static SpiQuery query = {
		"SELECT count(*) FROM gpu_orch.offer o JOIN gpu_orch.pool p ON p.id = o.pool"
		" WHERE p.dropped_at IS NULL AND o.price_micros IS NULL"
	};
	int64 n;

	spi_begin();
	spi_read(&query, NULL, 1);
	n = spi_int8(0, 1);
	spi_end();
	return n;
}

/* How often an offer was refused since it last gave a pod. */
int32
store_offer_refusals(int64 offer)
{
	static SpiQuery query = { "SELECT refusals FROM gpu_orch.offer WHERE id = $1" };
	SpiArgs args = SPI_ARGS_INIT;
	int32 refusals = 0;

	spi_begin();
	spi_arg_int8(&args, offer);
	if (spi_read(&query, &args, 1) == 1)
		refusals = spi_int4(0, 1);
	spi_end();
	return refusals;
}

/*
 * Note that an offer was refused, and until when it is passed over. While it is passed over
 * this changes nothing: creates that were under way together are refused for one reason.
 */
void
store_offer_refused(int64 offer, TimestampTz backoff_until, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.offer SET refusals = refusals + 1, backoff_until = $2"
		" WHERE id IN (SELECT id FROM gpu_orch.offer WHERE id = $1"
		"  AND (backoff_until IS NULL OR backoff_until <= $3) FOR NO KEY UPDATE SKIP LOCKED)"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, offer);
	spi_arg_time(&args, backoff_until);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_end();
}

/* Note that an offer gave a pod, at this price (negative: not said). */
void
store_offer_accepted(int64 offer, int64 price_micros, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.offer SET refusals = 0, backoff_until = NULL,"
		" price_micros = coalesce($2, price_micros),"
		" price_at = CASE WHEN $2 IS NULL THEN price_at ELSE $3 END"
		" WHERE id IN (SELECT id FROM gpu_orch.offer WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED)"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, offer);
	spi_arg(&args, INT8OID, Int64GetDatum(price_micros), price_micros <= 0);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_end();
}

/*
 * Set the price of all offers of a GPU type in pools of a cloud type, from the
 * price of one GPU. Returns how many changed.
 */
int64
store_offer_price_by_type(const char *gpu_type, const char *cloud_type, int64 price_micros,
						  TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.offer o SET price_micros = $3 * c.gpu_count, price_at = $4"
		" FROM (SELECT x.id, p.gpu_count FROM gpu_orch.offer x JOIN gpu_orch.pool p ON p.id = x.pool"
		"  WHERE x.gpu_type = $1 AND p.cloud_type = $2"
		"  AND x.price_micros IS DISTINCT FROM $3 * p.gpu_count"
		"  FOR NO KEY UPDATE OF x SKIP LOCKED) c WHERE o.id = c.id"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 n;

	spi_begin();
	spi_arg_text(&args, gpu_type);
	spi_arg_text(&args, cloud_type);
	spi_arg_int8(&args, price_micros);
	spi_arg_time(&args, now);
	n = (int64) spi_run(&query, &args);
	spi_end();
	return n;
}
