/*
 * store/foreign.c
 *	  The account's pods that are not ours: all access to foreign_pod.
 *
 * They are here to be seen, next to ours on one bill. Nothing may follow from them.
 */
#include "postgres.h"

#include "store/foreign.h"

/* What a complete list shows of them. Writes only what has changed. */
void
store_foreign_listed(const ForeignPods *pods, TimestampTz now)
{
	static SpiQuery query = {
		"WITH listed AS (SELECT id, nullif(name, '') AS name, nullif(gpu_type, '') AS gpu_type,"
		"  nullif(status, '') AS status, CASE WHEN price > 0 THEN price END AS price"
		"  FROM unnest($1, $2, $3, $4, $5) AS l(id, name, gpu_type, status, price)),"
		" gone AS (DELETE FROM gpu_orch.foreign_pod f"
		"  WHERE NOT EXISTS (SELECT 1 FROM listed l WHERE l.id = f.pod_id)) "
		"INSERT INTO gpu_orch.foreign_pod AS f (pod_id, name, gpu_type, status, price_micros, first_seen)"
		" SELECT id, name, gpu_type, status, price, $6 FROM listed"
		" ON CONFLICT (pod_id) DO UPDATE SET name = excluded.name, gpu_type = excluded.gpu_type,"
		" status = excluded.status, price_micros = excluded.price_micros"
		" WHERE (f.name, f.gpu_type, f.status, f.price_micros) IS DISTINCT FROM"
		"  (excluded.name, excluded.gpu_type, excluded.status, excluded.price_micros)"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text_array(&args, pods->ids, pods->n);
	spi_arg_text_array(&args, pods->names, pods->n);
	spi_arg_text_array(&args, pods->gpu_types, pods->n);
	spi_arg_text_array(&args, pods->statuses, pods->n);
	spi_arg_int8_array(&args, pods->prices, pods->n, INT8OID);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_end();
}
