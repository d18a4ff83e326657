/*
 * store/attempt.c
 *	  Ended attempts: all access to attempt.
 *
 * One row for each, written when it ends and never changed, but for what is erased of it; the last one of a task
 * carries the final state and the result. A task that is cancelled before it ran has
 * a row without a lease.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "db/direct.h"
#include "store/attempt.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

/* clang-format off */
#define ATTEMPT_COLUMNS(COLUMN, LATER) \
	COLUMN(ATTEMPT_TASK_ID, task_id, INT8OID) \
	COLUMN(ATTEMPT_NUMBER, attempt, INT4OID) \
	COLUMN(ATTEMPT_WORKER, worker, INT8OID) \
	COLUMN(ATTEMPT_LEASE, lease, UUIDOID) \
	COLUMN(ATTEMPT_CLAIMED_AT, claimed_at, TIMESTAMPTZOID) \
	COLUMN(ATTEMPT_ENDED_AT, ended_at, TIMESTAMPTZOID) \
	COLUMN(ATTEMPT_OUTCOME, outcome, TEXTOID) \
	COLUMN(ATTEMPT_FAILURE, failure, TEXTOID) \
	COLUMN(ATTEMPT_FINAL_STATE, final_state, TEXTOID) \
	COLUMN(ATTEMPT_ERROR, error, TEXTOID) \
	COLUMN(ATTEMPT_RESULT, result, JSONBOID)
/* clang-format on */

enum
{
	ATTEMPT_COLUMN_0,
	ATTEMPT_COLUMNS(DIRECT_NUMBER, DIRECT_NUMBER)
};

static const DirectColumn attempt_columns[] = { ATTEMPT_COLUMNS(DIRECT_ENTRY, DIRECT_LATER) };

static DirectTable attempt_table =
	DIRECT_TABLE("attempt", attempt_columns, .index_name = "attempt_pkey",
				 .index_key = { ATTEMPT_TASK_ID, ATTEMPT_NUMBER });

static void
set_text(Datum *values, bool *nulls, int column, const char *value)
{
	nulls[column] = value == NULL;
	values[column] = value ? CStringGetTextDatum(value) : (Datum) 0;
}

/*
 * Write down the end of an attempt; final_state NULL where the task goes on, lease
 * NULL and worker 0 where it never ran.
 */
void
store_attempt_record(const TaskSlot *slot, int64 worker, const pg_uuid_t *lease,
					 TimestampTz claimed_at, const char *outcome, const char *failure,
					 const char *final_state, const char *error, Jsonb *result, TimestampTz now)
{
	Relation rel = direct_open(&attempt_table);
	DirectRow *row = direct_new_row(&attempt_table);
	Datum *values = row->values;
	bool *nulls = row->nulls;

	values[ATTEMPT_TASK_ID] = Int64GetDatum(slot->task_id);
	values[ATTEMPT_NUMBER] = Int32GetDatum(slot->attempt);
	values[ATTEMPT_WORKER] = Int64GetDatum(worker);
	nulls[ATTEMPT_WORKER] = worker == 0;
	values[ATTEMPT_LEASE] = UUIDPGetDatum(lease);
	nulls[ATTEMPT_LEASE] = lease == NULL;
	values[ATTEMPT_CLAIMED_AT] = TimestampTzGetDatum(claimed_at);
	nulls[ATTEMPT_CLAIMED_AT] = claimed_at == 0;
	values[ATTEMPT_ENDED_AT] = TimestampTzGetDatum(now);
	set_text(values, nulls, ATTEMPT_OUTCOME, outcome);
	set_text(values, nulls, ATTEMPT_FAILURE, failure);
	set_text(values, nulls, ATTEMPT_FINAL_STATE, final_state);
	set_text(values, nulls, ATTEMPT_ERROR, error);
	values[ATTEMPT_RESULT] = JsonbPGetDatum(result);
	nulls[ATTEMPT_RESULT] = result == NULL;
	direct_insert(row, rel);
	direct_close(rel);
}

/*
 * Whether this worker ended this attempt before with the same answer: then the
 * call repeats one whose answer was lost, and is true again.
 */
bool
store_attempt_was_ended(int64 worker, int64 task_id, const pg_uuid_t *lease, const LeaseEnd *end)
{
	static SpiQuery query = {
		"SELECT 1 FROM gpu_orch.attempt WHERE task_id = $1 AND lease = $2 AND worker = $3"
		" AND outcome = $4 AND failure IS NOT DISTINCT FROM $5"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_arg(&args, UUIDOID, UUIDPGetDatum(lease), false);
	spi_arg_int8(&args, worker);
	spi_arg_text(&args, fsm_task_outcome_name(end->outcome));
	spi_arg_text(&args, fsm_task_failure_name(end->failure));
	found = spi_read(&query, &args, 1) == 1;
	spi_end();
	return found;
}

/* The last ended attempt of a task; false if none has ended. */
bool
store_attempt_last(int64 task_id, int32 *attempt, bool *final, bool *succeeded)
{
	static SpiQuery query = {
		"SELECT attempt, final_state IS NOT NULL, coalesce(final_state = 'succeeded', false)"
		" FROM gpu_orch.attempt WHERE task_id = $1 ORDER BY attempt DESC LIMIT 1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_int8(&args, task_id);
	found = spi_read(&query, &args, 1) == 1;
	if (found)
	{
		*attempt = spi_int4(0, 1);
		*final = spi_bool(0, 2);
		*succeeded = spi_bool(0, 3);
	}
	spi_end();
	return found;
}

/*
 * Whether the end of an attempt is written, be it by a transaction that has not committed
 * yet and may still fail.
 */
bool
store_attempt_exists(int64 task_id, int32 attempt)
{
	Relation rel = direct_open(&attempt_table);
	TupleTableSlot *row = direct_slot(&attempt_table, rel);
	SnapshotData snapshot;
	ScanKeyData keys[2];
	bool found;

	InitDirtySnapshot(snapshot);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(task_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(attempt));
	found = direct_find(&attempt_table, rel, &snapshot, keys, 2, row, NULL);
	direct_slot_done(&attempt_table, row);
	direct_close(rel);
	return found;
}

/* A task that had ended goes on: its last attempt is not its end any more. */
void
store_attempt_reopen(int64 task_id, int32 attempt)
{
	static SpiQuery query = { "UPDATE gpu_orch.attempt SET final_state = NULL"
							  " WHERE task_id = $1 AND attempt = $2 AND final_state IS NOT NULL" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_arg_int4(&args, attempt);
	spi_run_one(&query, &args, "letting a task go on");
	spi_end();
}
