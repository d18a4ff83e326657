/*
 * store_sight.c
 *	  What looks showed of the pods of open ops, as marks in cloud_op.
 *
 * A mark is written when it changes; who looks sees to that. What follows from the
 * marks is leader_reconcile.c's.
 */
#include "postgres.h"

#include "store_sight.h"

/*
 * A list showed an op's pod: its absence must be proved anew. after_answer is when a
 * list was begun that showed it although its delete had been answered; 0: this one says
 * nothing of that.
 */
void
store_sight_listed(int64 op, TimestampTz after_answer)
{
	static SpiQuery query = { "UPDATE gpu_orch.cloud_op SET absent_looks = 0, absent_since = NULL,"
							  " shown_at = coalesce(shown_at, $2) WHERE id = $1",
							  2,
							  { INT8OID, TIMESTAMPTZOID } };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, op);
	spi_arg_time(&args, after_answer);
	spi_run_one(&query, &args, "noting a pod that is there");
	spi_end();
}

/* The provider, asked at that time for the pod of an answered delete alone, showed it. */
void
store_sight_shown(int64 op, TimestampTz at)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.cloud_op SET absent_looks = 0, absent_since = NULL, denied_at = NULL,"
		" shown_at = coalesce(shown_at, $2) WHERE id = $1",
		2,
		{ INT8OID, TIMESTAMPTZOID }
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, op);
	spi_arg_time(&args, at);
	spi_run_one(&query, &args, "noting a pod that is there");
	spi_end();
}

/* The provider, asked for the pod of an answered delete alone, answered at that time that it has none. */
void
store_sight_denied(int64 op, TimestampTz at)
{
	static SpiQuery query = { "UPDATE gpu_orch.cloud_op SET denied_at = $2 WHERE id = $1",
							  2,
							  { INT8OID, TIMESTAMPTZOID } };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, op);
	spi_arg_time(&args, at);
	spi_run_one(&query, &args, "noting a pod that is not there");
	spi_end();
}
