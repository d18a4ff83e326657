/*
 * store/cancel.c
 *	  Requests to cancel running tasks: all access to cancel_request.
 *
 * A request is a row of its own, and not a mark on the lease: an application that asks
 * in an open transaction then holds up neither the worker that ends the attempt nor its
 * heartbeats. The request is about the task. An attempt that ends while the request is
 * not committed does not see it, and the task may be ready again by then: the leader
 * cancels it there.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/inject.h"
#include "db/ext_guard.h"
#include "store/cancel.h"
#include "store/lease.h"
#include "store/waiting.h"

/* How many requests one pass of the leader looks at. */
#define CANCEL_BATCH 1000

/* Why a task was cancelled that did not run. */
#define BY_REQUEST "cancelled by request"

/*
 * Ask the holder of a running task to stop, once this transaction commits. False when the
 * task does not run. The caller has the task's row locked.
 */
bool
store_cancel_request(int64 task_id, TimestampTz now)
{
	static SpiQuery query = {
		"WITH held AS MATERIALIZED (SELECT task_id FROM gpu_orch.lease WHERE task_id = $1),"
		" asked AS (INSERT INTO gpu_orch.cancel_request (task_id, requested_at)"
		"           SELECT task_id, $2 FROM held ON CONFLICT DO NOTHING) "
		"SELECT 1 FROM held"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool held;

	if (ext_is_older_schema())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task " INT64_FORMAT " runs and cannot be cancelled now", task_id),
				 errdetail("The schema of the version before cannot hold the request."),
				 errhint("Run ALTER EXTENSION gpu_orch UPDATE.")));
	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_arg_time(&args, now);
	held = spi_run(&query, &args) == 1;
	spi_end();
	if (held)
		ForceSyncCommit();
	return held;
}

/* Whether somebody has asked to cancel a task. */
bool
store_cancel_requested(int64 task_id)
{
	static SpiQuery query = { "SELECT 1 FROM gpu_orch.cancel_request WHERE task_id = $1" };
	SpiArgs args = SPI_ARGS_INIT;
	bool requested;

	if (ext_is_older_schema())
		return false;
	spi_begin();
	spi_arg_int8(&args, task_id);
	requested = spi_read(&query, &args, 1) == 1;
	spi_end();
	return requested;
}

/* Drop what is left of a request to cancel a task that has ended and is tried again. */
void
store_cancel_forget(int64 task_id)
{
	static SpiQuery query = { "DELETE FROM gpu_orch.cancel_request WHERE task_id = $1" };
	SpiArgs args = SPI_ARGS_INIT;

	if (ext_is_older_schema())
		return;
	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_run(&query, &args);
	spi_end();
}

/*
 * The tasks that a worker runs and somebody asked to cancel, as a bigint[] in the current
 * memory context.
 */
Datum
store_cancel_of_worker(int64 worker)
{
	static SpiQuery query = {
		"SELECT coalesce(pg_catalog.array_agg(l.task_id ORDER BY l.task_id), '{}')"
		" FROM gpu_orch.lease l JOIN gpu_orch.cancel_request c ON c.task_id = l.task_id"
		" WHERE l.worker = $1"
	};
	static SpiQuery older = {
		"SELECT coalesce(pg_catalog.array_agg(task_id ORDER BY task_id), '{}')"
		" FROM gpu_orch.lease WHERE worker = $1 AND cancel_requested"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool isnull;
	Datum tasks;

	spi_begin();
	spi_arg_int8(&args, worker);
	spi_read(ext_is_older_schema() ? &older : &query, &args, 1);
	tasks = SPI_datumTransfer(spi_datum(0, 1, &isnull), false, -1);
	spi_end();
	return tasks;
}

/*
 * Settle the requests whose tasks do not run any more: those that wait or are ready again
 * are cancelled, and the requests of ended ones are dropped. One bounded pass of the
 * leader, which waits for nobody; the task of a claim that is not committed keeps its
 * request. Returns how many tasks were cancelled; *more is set where the pass was cut short.
 */
int64
store_cancel_admit(TimestampTz now, bool *more)
{
	static SpiQuery idle = {
		"SELECT c.task_id, EXISTS (SELECT 1 FROM gpu_orch.waiting w WHERE w.task_id = c.task_id)"
		" OR EXISTS (SELECT 1 FROM gpu_orch.ready_queue r WHERE r.task_id = c.task_id) "
		"FROM gpu_orch.cancel_request c WHERE NOT EXISTS"
		" (SELECT 1 FROM gpu_orch.lease l WHERE l.task_id = c.task_id) "
		"ORDER BY c.task_id LIMIT $1 FOR UPDATE OF c SKIP LOCKED"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 *tasks;
	bool *stands;
	int64 cancelled = 0;
	bool settled = false;
	int n;

	if (ext_is_older_schema())
		return 0;
	spi_begin();
	spi_arg_int8(&args, CANCEL_BATCH);
	n = (int) spi_run(&idle, &args);
	tasks = palloc((n + 1) * sizeof(int64));
	stands = palloc((n + 1) * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		tasks[i] = spi_int8(i, 1);
		stands[i] = spi_bool(i, 2);
	}
	for (int i = 0; i < n; i++)
	{
		TaskSlot slot;

		if (stands[i])
		{
			if (!store_waiting_take(tasks[i], false, &slot) &&
				!store_queue_remove(tasks[i], false, &slot))
				continue;
			INJECT("cancel.settled");
			store_lease_end_without(&slot, BY_REQUEST, now);
			cancelled++;
		}
		store_cancel_forget(tasks[i]);
		settled = true;
	}
	spi_end();
	*more |= settled && n == CANCEL_BATCH;
	return cancelled;
}
