/*
 * store/sight.c
 *	  What looks showed of the pods of open ops, as marks in cloud_op.
 *
 * A mark is written when it changes; who looks sees to that. What follows from the
 * marks is leader/reconcile.c's.
 */
#include "postgres.h"

#include "store/sight.h"

/* A complete list did not show an op's pod, for the first time in a row. */
void
store_sight_absent(int64 op, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.cloud_op SET absent_looks = 1, absent_since = $2 WHERE id = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, op);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "noting an absence");
	spi_end();
}

/*
 * An op's pod was shown: its absence must be proved anew. alone: to a question for that
 * pod alone, of which lists, which may be late, undo nothing.
 */
void
store_sight_shown(int64 op, bool alone)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.cloud_op SET absent_looks = 0, absent_since = NULL,"
		" denied_at = CASE WHEN $2 THEN NULL ELSE denied_at END WHERE id = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, op);
	spi_arg_bool(&args, alone);
	spi_run_one(&query, &args, "noting a pod that is there");
	spi_end();
}

/* The provider, asked for the pod of an answered delete alone, answered at that time that it has none. */
void
store_sight_denied(int64 op, TimestampTz at)
{
	static SpiQuery query = { "UPDATE gpu_orch.cloud_op SET denied_at = $2 WHERE id = $1" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, op);
	spi_arg_time(&args, at);
	spi_run_one(&query, &args, "noting a pod that is not there");
	spi_end();
}
