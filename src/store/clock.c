/*
 * store/clock.c
 *	  What a clock that was set means for open rows: their times are moved along.
 *
 * A time that may be from after a step forward stays as it is, by which something
 * takes longer rather than less; a step back moves all. Rows that somebody has locked
 * are passed over where nothing but an earlier or later end depends on them. What is
 * paid for is store/spend.c's.
 */
#include "postgres.h"

#include "store/clock.h"

#define SECONDS "$1 * interval '1 microsecond'"
#define MOVED(time) \
	time " = CASE WHEN $1 < 0 OR " time " <= $2 THEN " time " + " SECONDS " ELSE " time " END"

static SpiQuery shifts[] = {
	/* Looks at what is there are compared with when it was asked for, and wait for its due time. */
	{ "UPDATE gpu_orch.cloud_op SET due_at = due_at + " SECONDS
	  ", " MOVED("sent_at") ", " MOVED("answered_at") ", " MOVED("absent_since") ", " MOVED(
		  "denied_at") " WHERE state IN ('planned', 'sent', 'unknown')" },
	/* An attempt has its task's timeout whatever the clock shows. */
	{ "UPDATE gpu_orch.lease l SET deadline = l.deadline + " SECONDS
	  " FROM (SELECT task_id FROM gpu_orch.lease WHERE deadline IS NOT NULL"
	  "       AND ($1 < 0 OR claimed_at <= $2) ORDER BY task_id FOR NO KEY UPDATE SKIP LOCKED) s"
	  " WHERE l.task_id = s.task_id AND l.deadline IS NOT NULL" },
	/* Nothing is passed over for longer than it was to be. */
	{ "UPDATE gpu_orch.offer o SET backoff_until = o.backoff_until + " SECONDS
	  " FROM (SELECT id FROM gpu_orch.offer WHERE $1 < 0 AND $2 IS NOT NULL"
	  "       AND backoff_until IS NOT NULL ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) s"
	  " WHERE o.id = s.id" },
	{ "UPDATE gpu_orch.image_breaker b SET retry_at = b.retry_at + " SECONDS
	  " FROM (SELECT image FROM gpu_orch.image_breaker WHERE $1 < 0 AND $2 IS NOT NULL"
	  "       AND retry_at IS NOT NULL ORDER BY image FOR NO KEY UPDATE SKIP LOCKED) s"
	  " WHERE b.image = s.image" },
};

/* The clock was stepped by so many microseconds, at some time after `since`. */
void
store_clock_shift(int64 step, TimestampTz since)
{
	for (int i = 0; i < lengthof(shifts); i++)
	{
		SpiArgs args = SPI_ARGS_INIT;

		spi_begin();
		spi_arg_int8(&args, step);
		spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(since), false);
		spi_run(&shifts[i], &args);
		spi_end();
	}
}
