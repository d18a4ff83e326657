/*
 * store/bill.c
 *	  What the provider bills, beside what we counted: all access to bill.
 *
 * The bill is the last witness: a pod that no list and no look shows is still found in
 * it. Bills come an hour to a day late, so that a day is compared when it has been over
 * for a day. Only pods that we have counted are kept, for KEPT. Must not change what we
 * counted.
 */
#include "postgres.h"

#include "store/alert.h"
#include "store/bill.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Bills are removed when they are that old. */
#define KEPT (90 * USECS_PER_DAY)

/* Sums of a day may differ by so many millionths of a dollar, and by one part in so many. */
#define MAY_DIFFER 10000
#define MAY_DIFFER_PART 50

/* The beginning of the last day (UTC) that the provider has billed in full. */
static TimestampTz
complete_day(TimestampTz now)
{
	return now - now % USECS_PER_DAY - 2 * USECS_PER_DAY;
}

/* Return the time from which bills have to be read. */
TimestampTz
store_bill_since(TimestampTz now)
{
	return complete_day(now);
}

/* Store n bills of pods that we have counted, and delete the oldest bills. */
void
store_bill_write(char *const *pod_ids, const TimestampTz *hours, const int64 *amounts, int n,
				 TimestampTz now)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.bill AS b (pod_id, hour, amount_micros, read_at)"
		" SELECT r.pod_id, r.hour, sum(r.amount), $4 FROM unnest($1, $2, $3) AS r(pod_id, hour, amount)"
		" WHERE EXISTS (SELECT 1 FROM gpu_orch.spend s WHERE s.pod_id = r.pod_id)"
		" GROUP BY r.pod_id, r.hour"
		" ON CONFLICT (pod_id, hour) DO UPDATE SET amount_micros = excluded.amount_micros,"
		" read_at = excluded.read_at WHERE b.amount_micros <> excluded.amount_micros"
	};
	static SpiQuery forget = { "DELETE FROM gpu_orch.bill WHERE hour < $1" };
	SpiArgs args = SPI_ARGS_INIT;
	SpiArgs forget_args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text_array(&args, pod_ids, n);
	spi_arg_int8_array(&args, hours, n, TIMESTAMPTZOID);
	spi_arg_int8_array(&args, amounts, n, INT8OID);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_arg_time(&forget_args, now - KEPT);
	spi_run(&forget, &forget_args);
	spi_end();
}

/* Raise or clear the alert for a complete day whose bill is not what we counted. */
void
store_bill_watch(TimestampTz now)
{
	static SpiQuery query = {
		"SELECT (SELECT coalesce(sum(amount_micros), 0)::bigint FROM gpu_orch.bill"
		"        WHERE hour >= $1 AND hour < $2),"
		" (SELECT coalesce(sum(price_micros *"
		"          extract(epoch FROM least(coalesce(ended_at, $2), $2) - greatest(started_at, $1)) / 3600), 0)::bigint"
		"  FROM gpu_orch.spend WHERE pod_id IS NOT NULL AND started_at < $2"
		"  AND (ended_at IS NULL OR ended_at > $1)),"
		" to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
	};
	SpiArgs args = SPI_ARGS_INIT;
	TimestampTz day = complete_day(now);
	char *detail = NULL;
	int64 billed;
	int64 counted;
	int64 apart;

	spi_begin();
	spi_arg_time(&args, day);
	spi_arg_time(&args, day + USECS_PER_DAY);
	spi_read(&query, &args, 1);
	billed = spi_int8(0, 1);
	counted = spi_int8(0, 2);
	apart = Max(billed, counted) - Min(billed, counted);
	if (apart > MAY_DIFFER && apart > Max(billed, counted) / MAY_DIFFER_PART)
		detail = psprintf("for %s (UTC) %.2f dollars are billed, and %.2f were counted",
						  spi_text(0, 3), billed / 1000000.0, counted / 1000000.0);
	store_alert(ALERT_BILLING_MISMATCH, "account", detail, now);
	spi_end();
}

/*
 * Read the pods that are billed for an hour that began after we held them for gone, and that were
 * not asked for since; at most `limit`.
 */
int
store_bill_unexpected(char ***pod_ids, int limit, TimestampTz now)
{
	static SpiQuery query = {
		"SELECT b.pod_id FROM gpu_orch.bill b"
		" WHERE b.hour >= $1 AND b.looked_at IS NULL AND b.amount_micros > 0 AND NOT EXISTS"
		" (SELECT 1 FROM gpu_orch.spend s WHERE s.pod_id = b.pod_id"
		"  AND (s.ended_at IS NULL OR s.ended_at > b.hour))"
		" GROUP BY b.pod_id ORDER BY min(b.hour), b.pod_id LIMIT $2"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int n;

	spi_begin();
	spi_arg_time(&args, complete_day(now));
	spi_arg_int8(&args, limit);
	n = (int) spi_read(&query, &args, 0);
	*pod_ids = SPI_palloc((n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		(*pod_ids)[i] = spi_text(i, 1);
	spi_end();
	return n;
}

/* Note that a billed pod was asked for and is gone: the hours billed so far need no other look. */
void
store_bill_looked(const char *pod_id, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.bill SET looked_at = $2 WHERE pod_id = $1 AND looked_at IS NULL AND hour <= $2"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, pod_id);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_end();
}

/* Read the last spend interval of a pod; false if there is none. */
bool
store_bill_past(const char *pod_id, BillPast *past)
{
	static SpiQuery query = {
		"SELECT pool, price_micros, ended_at FROM gpu_orch.spend WHERE pod_id = $1"
		" ORDER BY ended_at DESC NULLS FIRST, id DESC LIMIT 1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_text(&args, pod_id);
	found = spi_read(&query, &args, 1) == 1;
	if (found)
	{
		past->pool = spi_int4(0, 1);
		past->price_micros = spi_int8(0, 2);
		past->ended_at = spi_time(0, 3);
	}
	spi_end();
	return found;
}
