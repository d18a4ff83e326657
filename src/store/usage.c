/*
 * store/usage.c
 *	  What is counted of the queue and of the history, so that views need not: all
 *	  access to queue_count, usage_day, share_day, spend_day and counted.
 *
 * Each attempt is added to usage_day and share_day once, when it has ended: counted.at of 'usage' is
 * the end up to which all are. A day of spend_day is written once, when it has been over
 * for a day, from what can be computed again while the rows of that day are there.
 * Counts only: decides nothing, and no decision looks here.
 */
#include "postgres.h"

#include "store/usage.h"
#include "utils/timestamp.h"

/* The most attempts that one step adds. */
#define USAGE_BATCH 5000

/* An attempt's end is older than this when it is added, in microseconds. */
#define USAGE_LAG USECS_PER_SEC

/* Note how far something is counted. */
static void
note(const char *what, TimestampTz at)
{
	static SpiQuery query = { "INSERT INTO gpu_orch.counted AS c (what, at) VALUES ($1, $2)"
							  " ON CONFLICT (what) DO UPDATE SET at = excluded.at" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, what);
	spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	spi_run_one(&query, &args, "noting how far was counted");
	spi_end();
}

/* How far something is counted; the beginning of time where it never was. */
static TimestampTz
counted(const char *what)
{
	static SpiQuery query = { "SELECT at FROM gpu_orch.counted WHERE what = $1" };
	SpiArgs args = SPI_ARGS_INIT;
	TimestampTz at = DT_NOBEGIN;

	spi_begin();
	spi_arg_text(&args, what);
	if (spi_read(&query, &args, 1) == 1)
		at = spi_time(0, 1);
	spi_end();
	return at;
}

/* Keep others from counting the same until the end of the transaction; returns how far it is counted. */
static TimestampTz
lock_counted(const char *what)
{
	static SpiQuery make = { "INSERT INTO gpu_orch.counted (what, at) VALUES ($1, '-infinity')"
							 " ON CONFLICT DO NOTHING" };
	static SpiQuery lock = { "SELECT at FROM gpu_orch.counted WHERE what = $1 FOR UPDATE" };
	SpiArgs args = SPI_ARGS_INIT;
	TimestampTz at;

	spi_begin();
	spi_arg_text(&args, what);
	spi_run(&make, &args);
	spi_run_one(&lock, &args, "locking what is counted");
	at = spi_time(0, 1);
	spi_end();
	return at;
}

/* Count the tasks that have not ended; writes what differs from the last count. */
void
store_queue_depth_count(TimestampTz now)
{
	static SpiQuery query = {
		"WITH found AS MATERIALIZED (SELECT * FROM gpu_orch.count_queue()),"
		" gone AS (DELETE FROM gpu_orch.queue_count c WHERE NOT EXISTS (SELECT 1 FROM found f"
		"  WHERE f.kind = c.kind AND f.state = c.state AND f.tenant = c.tenant) RETURNING 1),"
		" here AS (INSERT INTO gpu_orch.queue_count AS c (kind, state, tenant, tasks, oldest)"
		"  SELECT kind, state, tenant, tasks, oldest FROM found"
		"  ON CONFLICT (kind, state, tenant) DO UPDATE"
		"  SET tasks = excluded.tasks, oldest = excluded.oldest"
		"  WHERE (c.tasks, c.oldest) IS DISTINCT FROM (excluded.tasks, excluded.oldest) RETURNING 1) "
		"SELECT 1 FROM gone UNION ALL SELECT 1 FROM here"
	};
	bool differs;

	spi_begin();
	differs = spi_run(&query, NULL) > 0;
	spi_end();
	if (differs)
		note("queue", now);
}

/*
 * The time up to which each attempt that has ended can be seen, and at most USAGE_BATCH of
 * them not yet counted. A transaction that is open may still bring ends from its time on.
 */
static TimestampTz
next_end(TimestampTz from, TimestampTz now)
{
	static SpiQuery query = {
		"SELECT coalesce((SELECT a.ended_at FROM gpu_orch.attempt a"
		"  WHERE a.ended_at > $1 AND a.ended_at <= u.until"
		"  ORDER BY a.ended_at OFFSET $3 LIMIT 1), u.until)"
		" FROM (SELECT $2 - greatest(pg_catalog.transaction_timestamp() - least("
		"  (SELECT min(s.xact_start) FROM pg_catalog.pg_stat_activity s"
		"   WHERE s.datname = pg_catalog.current_database() AND s.backend_xid IS NOT NULL"
		"   AND s.pid <> pg_catalog.pg_backend_pid()),"
		"  (SELECT min(p.prepared) FROM pg_catalog.pg_prepared_xacts p"
		"   WHERE p.database = pg_catalog.current_database())), '0') AS until) u"
	};
	SpiArgs args = SPI_ARGS_INIT;
	TimestampTz until;

	spi_begin();
	spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(from), false);
	spi_arg_time(&args, now - USAGE_LAG);
	spi_arg_int8(&args, USAGE_BATCH - 1);
	spi_read(&query, &args, 1);
	until = spi_time(0, 1);
	spi_end();
	return until;
}

/* Whether any attempt ended after from, until then. */
static bool
any_ended(TimestampTz from, TimestampTz until)
{
	static SpiQuery query = {
		"SELECT 1 FROM gpu_orch.attempt WHERE ended_at > $1 AND ended_at <= $2 LIMIT 1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool any;

	spi_begin();
	spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(from), false);
	spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(until), false);
	any = spi_read(&query, &args, 1) == 1;
	spi_end();
	return any;
}

/* The beginning of the first day that is not in spend_day; 0: no pod was ever paid for. */
static TimestampTz
first_day(void)
{
	static SpiQuery query = {
		"SELECT date_trunc('day', min(started_at), 'UTC') FROM gpu_orch.spend"
	};
	TimestampTz day = counted("spend");

	if (!TIMESTAMP_NOT_FINITE(day))
		return day;
	spi_begin();
	spi_read(&query, NULL, 1);
	day = spi_time(0, 1);
	spi_end();
	return day;
}

/* Add attempts that have ended to usage_day and share_day, each once; returns how many. */
int64
store_usage_count(TimestampTz now)
{
	static SpiQuery query = {
		"WITH ended AS MATERIALIZED ("
		"  SELECT a.worker, t.tenant, a.claimed_at, a.ended_at, a.outcome = 'succeeded' AS good,"
		"   a.final_state IS NOT NULL AS final"
		"  FROM gpu_orch.attempt a JOIN gpu_orch.task t ON t.id = a.task_id"
		"  WHERE a.ended_at > $1 AND a.ended_at <= $2 AND a.worker IS NOT NULL),"
		" worked AS (INSERT INTO gpu_orch.usage_day AS u (day, worker, attempts, succeeded, took)"
		"  SELECT (e.ended_at AT TIME ZONE 'UTC')::date, e.worker, count(*),"
		"   count(*) FILTER (WHERE e.good), sum(extract(epoch FROM e.ended_at - e.claimed_at))"
		"  FROM ended e GROUP BY 1, 2"
		"  ON CONFLICT (day, worker) DO UPDATE SET attempts = u.attempts + excluded.attempts,"
		"   succeeded = u.succeeded + excluded.succeeded, took = u.took + excluded.took),"
		" shared AS (INSERT INTO gpu_orch.share_day AS h"
		"  (day, pool, tenant, image, tasks, seconds, dollars)"
		"  SELECT d::date, coalesce(s.pool, 0), e.tenant, coalesce(f.image, ''),"
		"   count(*) FILTER (WHERE e.final AND e.ended_at < x.ends"
		"                    AND (s.ended_at IS NULL OR s.ended_at >= e.ended_at)),"
		"   sum(p.seconds), sum(p.seconds * s.price_micros) / 3600000000"
		"  FROM ended e JOIN gpu_orch.spend s ON s.worker = e.worker AND s.started_at < e.ended_at"
		"   AND (s.ended_at IS NULL OR s.ended_at > e.claimed_at)"
		"  LEFT JOIN gpu_orch.worker_profile f ON f.worker = e.worker,"
		"  LATERAL generate_series(date_trunc('day', e.claimed_at AT TIME ZONE 'UTC'),"
		"   e.ended_at AT TIME ZONE 'UTC', interval '1 day') d,"
		"  LATERAL (SELECT d AT TIME ZONE 'UTC' AS starts,"
		"   (d + interval '1 day') AT TIME ZONE 'UTC' AS ends) x,"
		"  LATERAL (SELECT extract(epoch FROM least(e.ended_at, coalesce(s.ended_at, e.ended_at),"
		"    x.ends) - greatest(e.claimed_at, s.started_at, x.starts)) AS seconds) p"
		"  WHERE p.seconds > 0 GROUP BY 1, 2, 3, 4"
		"  ON CONFLICT (day, pool, tenant, image) DO UPDATE SET tasks = h.tasks + excluded.tasks,"
		"   seconds = h.seconds + excluded.seconds, dollars = h.dollars + excluded.dollars) "
		"SELECT count(*) FROM ended"
	};
	TimestampTz from = counted("usage");
	TimestampTz until = next_end(from, now);
	SpiArgs args = SPI_ARGS_INIT;
	int64 n;

	/* Where nothing ended, only a day of spend waits to hear of it. An unused database stays empty. */
	if (!any_ended(from, until) && (until - USECS_PER_MINUTE <= from || first_day() == 0))
		return 0;
	from = lock_counted("usage");
	if (until <= from)
		return 0;
	spi_begin();
	spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(from), false);
	spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(until), false);
	spi_run(&query, &args);
	n = spi_int8(0, 1);
	spi_end();
	note("usage", until);
	return n;
}

/* Write the next day of spend_day, if it has been over for a day and is counted. */
void
store_spend_sum_day(TimestampTz now)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.spend_day (day, pool, tenant, image, pods, tasks, seconds, dollars)"
		" SELECT s.day, s.pool, s.tenant, s.image, s.pods, s.tasks, s.seconds, s.dollars"
		" FROM gpu_orch.spend_of_days(($1 AT TIME ZONE 'UTC')::date, ($1 AT TIME ZONE 'UTC')::date) s"
	};
	TimestampTz day = first_day();
	SpiArgs args = SPI_ARGS_INIT;

	if (day == 0 || day + 2 * USECS_PER_DAY > now || counted("usage") < day + USECS_PER_DAY)
		return;
	spi_begin();
	spi_arg_time(&args, day);
	spi_run(&query, &args);
	spi_end();
	note("spend", day + USECS_PER_DAY);
}
