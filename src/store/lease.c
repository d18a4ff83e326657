/*
 * store/lease.c
 *	  Running attempts, and how they end: all access to lease.
 *
 * A lease ends by being deleted under the guard (task, lease, worker); whoever
 * deletes the row decides what becomes of the task, so nothing is ended twice.
 * Every end is durable before its answer leaves.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "decide/backoff.h"
#include "db/direct.h"
#include "executor/tuptable.h"
#include "base/guc.h"
#include "base/inject.h"
#include "base/shmem.h"
#include "store/attempt.h"
#include "store/cancel.h"
#include "store/dependency.h"
#include "store/holder.h"
#include "store/lease.h"
#include "store/lease_room.h"
#include "store/task.h"
#include "store/tenant.h"
#include "store/waiting.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "base/wake.h"

/* The longest delay between two attempts, in milliseconds. */
#define RETRY_CAP_MS (60 * 60 * 1000)

/* clang-format off */
#define LEASE_COLUMNS(COLUMN, LATER) \
	COLUMN(LEASE_TASK_ID, task_id, INT8OID) \
	COLUMN(LEASE_ID, id, UUIDOID) \
	COLUMN(LEASE_WORKER, worker, INT8OID) \
	COLUMN(LEASE_SHAPE, shape, INT8OID) \
	COLUMN(LEASE_TENANT, tenant, INT4OID) \
	COLUMN(LEASE_PRIORITY, priority, INT4OID) \
	COLUMN(LEASE_ATTEMPT, attempt, INT4OID) \
	COLUMN(LEASE_FAULTS, faults, INT4OID) \
	COLUMN(LEASE_LOSSES, losses, INT4OID) \
	COLUMN(LEASE_TAG, tag, INT8OID) \
	COLUMN(LEASE_CLAIMED_AT, claimed_at, TIMESTAMPTZOID) \
	COLUMN(LEASE_DEADLINE, deadline, TIMESTAMPTZOID) \
	COLUMN(LEASE_CLAIMED_AFTER, claimed_after, UUIDOID) \
	COLUMN(LEASE_PROGRESS, progress, FLOAT4OID) \
	COLUMN(LEASE_STAGE, stage, TEXTOID) \
	COLUMN(LEASE_PROGRESS_AT, progress_at, TIMESTAMPTZOID)
/* clang-format on */

enum
{
	LEASE_COLUMN_0,
	LEASE_COLUMNS(DIRECT_NUMBER, DIRECT_NUMBER)
};

static const DirectColumn lease_columns[] = { LEASE_COLUMNS(DIRECT_ENTRY, DIRECT_LATER) };

static DirectTable lease_table = DIRECT_TABLE("lease", lease_columns, .index_name = "lease_pkey",
											  .index_key = { LEASE_TASK_ID }, .deletes = true);
static DirectTable by_worker = DIRECT_TABLE("lease", lease_columns, .index_name = "lease_worker",
											.index_key = { LEASE_WORKER });
static DirectTable by_tenant =
	DIRECT_TABLE("lease", lease_columns, .index_name = "lease_tenant",
				 .index_key = { LEASE_TENANT }, .index_is_partial = true);

/* Copy the current result row into a claimed task that outlives spi_end(). */
static void
read_claimed(ClaimedTask *claimed, uint64 row)
{
	for (int i = 0; i < CLAIMED_COLUMNS; i++)
	{
		Form_pg_attribute column = TupleDescAttr(SPI_tuptable->tupdesc, i);
		Datum value = spi_datum(row, i + 1, &claimed->nulls[i]);

		claimed->values[i] = claimed->nulls[i] ?
			(Datum) 0 :
			SPI_datumTransfer(value, column->attbyval, column->attlen);
	}
}

#define CLAIMED_SELECT \
	"l.task_id, l.id, l.attempt, t.kind, t.payload, t.requirements, l.priority," \
	" coalesce((SELECT n.name FROM gpu_orch.tenant n WHERE n.id = l.tenant), 'default')," \
	" l.deadline, t.traceparent "

/* Where the entries of a lease's index pointed to when this session made it. */
typedef struct LeasePlace
{
	int64 task_id;
	ItemPointerData tid;
} LeasePlace;

#define RECENT_LEASES 64

static LeasePlace recent_leases[RECENT_LEASES];

/* The place of the task's lease, if it is among the last that this session made. */
static LeasePlace *
recent_lease(int64 task_id)
{
	return &recent_leases[(uint64) task_id % RECENT_LEASES];
}

/*
 * A new fencing token: a random UUID, version 4. Random bits are fetched for some at
 * once, as most of what they cost does not depend on how many they are.
 */
static void
make_lease_id(pg_uuid_t *id)
{
	static uint8 bits[32 * UUID_LEN];
	static int used = sizeof(bits);

	if (used == sizeof(bits))
	{
		if (!pg_strong_random(bits, sizeof(bits)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not obtain random bits for a lease")));
		used = 0;
	}
	memcpy(id->data, bits + used, UUID_LEN);
	memset(bits + used, 0, UUID_LEN);
	used += UUID_LEN;
	id->data[6] = (id->data[6] & 0x0f) | 0x40;
	id->data[8] = (id->data[8] & 0x3f) | 0x80;
}

/*
 * Lease a task that was taken out of the queue to a worker. claimed_after is the
 * lease whose completion asked for it, or NULL; the snapshot sees the task. What is
 * claimed is allocated in the current memory context.
 */
void
store_lease_create(const TaskSlot *slot, int64 worker, const pg_uuid_t *claimed_after,
				   TimestampTz now, Snapshot snapshot, ClaimedTask *claimed)
{
	Relation rel = direct_open(&lease_table);
	DirectRow *row = direct_new_row(&lease_table);
	Datum *values = row->values;
	bool *nulls = row->nulls;
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));
	TaskBody body;

	if (!store_task_body(slot, snapshot, &body))
		elog(ERROR, "gpu_orch: task " INT64_FORMAT " is ready and does not exist", slot->task_id);
	make_lease_id(id);
	values[LEASE_TASK_ID] = Int64GetDatum(slot->task_id);
	values[LEASE_ID] = UUIDPGetDatum(id);
	values[LEASE_WORKER] = Int64GetDatum(worker);
	values[LEASE_SHAPE] = Int64GetDatum(slot->shape);
	values[LEASE_TENANT] = Int32GetDatum(slot->tenant);
	values[LEASE_PRIORITY] = Int32GetDatum(slot->priority);
	values[LEASE_ATTEMPT] = Int32GetDatum(slot->attempt);
	values[LEASE_FAULTS] = Int32GetDatum(slot->faults);
	values[LEASE_LOSSES] = Int32GetDatum(slot->losses);
	values[LEASE_TAG] = Int64GetDatum(slot->tag);
	values[LEASE_CLAIMED_AT] = TimestampTzGetDatum(now);
	values[LEASE_DEADLINE] = TimestampTzGetDatum(now + body.timeout);
	nulls[LEASE_DEADLINE] = body.timeout == 0;
	values[LEASE_CLAIMED_AFTER] = UUIDPGetDatum(claimed_after);
	nulls[LEASE_CLAIMED_AFTER] = claimed_after == NULL;
	nulls[LEASE_PROGRESS] = nulls[LEASE_STAGE] = nulls[LEASE_PROGRESS_AT] = true;

	memset(claimed, 0, sizeof(ClaimedTask));
	claimed->values[0] = values[LEASE_TASK_ID];
	claimed->values[1] = values[LEASE_ID];
	claimed->values[2] = values[LEASE_ATTEMPT];
	claimed->values[3] = body.kind;
	claimed->values[4] = body.payload;
	claimed->values[5] = body.requirements;
	claimed->values[6] = values[LEASE_PRIORITY];
	claimed->values[7] = CStringGetTextDatum(store_tenant_name(slot->tenant));
	claimed->values[8] = values[LEASE_DEADLINE];
	claimed->nulls[8] = nulls[LEASE_DEADLINE];
	claimed->values[9] = body.traceparent;
	claimed->nulls[9] = body.traceparent == (Datum) 0;

	INJECT("claim.lease");
	direct_insert(row, rel);
	recent_lease(slot->task_id)->task_id = slot->task_id;
	recent_lease(slot->task_id)->tid = row->tid;
	direct_close(rel);
}

/* The leases that a completed lease's fused call made and that are still held. */
int
store_lease_made_after(int64 worker, const pg_uuid_t *claimed_after, ClaimedTask **claimed)
{
	static SpiQuery query = { "SELECT " CLAIMED_SELECT
							  "FROM gpu_orch.lease l JOIN gpu_orch.task t ON t.id = l.task_id "
							  "WHERE l.worker = $1 AND l.claimed_after = $2 ORDER BY l.task_id" };
	SpiArgs args = SPI_ARGS_INIT;
	int n;

	spi_begin();
	spi_arg_int8(&args, worker);
	spi_arg(&args, UUIDOID, UUIDPGetDatum(claimed_after), false);
	n = (int) spi_read(&query, &args, 0);
	*claimed = SPI_palloc((n + 1) * sizeof(ClaimedTask));
	for (int i = 0; i < n; i++)
		read_claimed(&(*claimed)[i], i);
	spi_end();
	return n;
}

/*
 * Write the attempt of a lease that was just deleted, and send the task where it
 * goes next.
 */
static void
settle(const TaskSlot *slot, int64 worker, const pg_uuid_t *lease, TimestampTz claimed_at,
	   const LeaseEnd *end, TimestampTz now)
{
	bool succeeded = end->outcome == OUTCOME_SUCCEEDED;
	AttemptEnd attempt = { .outcome = end->outcome,
						   .failure = end->failure,
						   .retry = end->retry,
						   .cancel_requested = !succeeded && store_cancel_requested(slot->task_id),
						   .faults = slot->faults,
						   .losses = slot->losses,
						   .max_attempts = succeeded ? 0 : store_task_max_attempts(slot->task_id),
						   .max_losses = guc_max_losses };
	TaskVerdict verdict = fsm_task_after(&attempt);
	TaskSlot next = *slot;
	const char *final_state = NULL;
	const char *error = end->error;
	TimestampTz due_at = 0;

	switch (verdict.next)
	{
		case NEXT_SUCCEEDED:
			final_state = "succeeded";
			break;
		case NEXT_FAILED:
			final_state = "failed";
			break;
		case NEXT_CANCELLED:
			final_state = "cancelled";
			break;
		case NEXT_READY:
			break;
		case NEXT_RETRY:
			due_at = now +
				1000 *
					backoff_ms(verdict.faults + verdict.losses, guc_retry_delay, RETRY_CAP_MS,
							   (uint64) slot->task_id);
			break;
	}
	if (verdict.quarantined)
		error = psprintf("quarantined after losing %d workers%s%s", verdict.losses,
						 end->error ? ": " : "", end->error ? end->error : "");

	INJECT("lease.settled");
	store_attempt_record(slot, worker, lease, claimed_at, fsm_task_outcome_name(end->outcome),
						 fsm_task_failure_name(end->failure), final_state, error, end->result, now);
	store_queue_served(slot->tenant, Max(now - claimed_at, 0));
	ForceSyncCommit();

	if (final_state == NULL)
	{
		next.attempt++;
		next.faults = verdict.faults;
		next.losses = verdict.losses;
		store_waiting_place(&next, due_at, true, now);
		wake_at_commit(WAKE_DECIDE | WAKE_NOTIFY);
	}
	else
	{
		bool alone = !store_dependency_ended(slot->task_id);

		wake_at_commit(alone && slot->tenant == DEFAULT_TENANT ? WAKE_DECIDE :
																 WAKE_DECIDE | WAKE_ADMIT);
	}
}

#define ENDED_COLUMNS SLOT_COLUMNS ", worker, id, claimed_at"

#define ENDED_COLUMN_COUNT 11

/*
 * Settle each of the leases that the last statement deleted, returning their
 * ENDED_COLUMNS. Returns how many there were. Must run inside spi_begin().
 */
static int64
settle_deleted(const LeaseEnd *end, TimestampTz now)
{
	SPITupleTable *deleted = SPI_tuptable;
	uint64 n = SPI_processed;

	for (uint64 i = 0; i < n; i++)
	{
		Datum values[ENDED_COLUMN_COUNT];
		bool nulls[ENDED_COLUMN_COUNT];
		TaskSlot slot;

		heap_deform_tuple(deleted->vals[i], deleted->tupdesc, values, nulls);
		slot.shape = DatumGetInt64(values[0]);
		slot.task_id = DatumGetInt64(values[1]);
		slot.priority = DatumGetInt32(values[2]);
		slot.tenant = DatumGetInt32(values[3]);
		slot.attempt = DatumGetInt32(values[4]);
		slot.faults = DatumGetInt32(values[5]);
		slot.losses = DatumGetInt32(values[6]);
		slot.tag = DatumGetInt64(values[7]);
		ItemPointerSetInvalid(&slot.row);
		settle(&slot, DatumGetInt64(values[8]), DatumGetUUIDP(values[9]),
			   DatumGetTimestampTz(values[10]), end, now);
	}
	return (int64) n;
}

typedef enum LeaseFound
{
	LEASE_ABSENT,  /* or not this worker's */
	LEASE_CHANGED, /* somebody updated it meanwhile: look again */
	LEASE_DELETED
} LeaseFound;

/* Put the task's lease into the slot; false where there is none. */
static bool
find_lease(Relation rel, TupleTableSlot *row, Snapshot snapshot, int64 task_id)
{
	LeasePlace *place = recent_lease(task_id);
	ScanKeyData key;

	/* A place that was never used is that of task 0, which does not exist. */
	if (place->task_id == task_id && ItemPointerIsValid(&place->tid) &&
		direct_find_near(rel, snapshot, &place->tid, row) &&
		direct_int8(&lease_table, row, LEASE_TASK_ID) == task_id)
		return true;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(task_id));
	return direct_find(&lease_table, rel, snapshot, &key, 1, row, NULL);
}

/* Delete a lease for its holder, waiting for whoever changes it; its row is left in the slot. */
static LeaseFound
delete_lease(Relation rel, TupleTableSlot *row, Snapshot snapshot, int64 worker, int64 task_id,
			 const pg_uuid_t *lease)
{
	bool changed;
	bool isnull;

	if (!find_lease(rel, row, snapshot, task_id) ||
		direct_int8(&lease_table, row, LEASE_WORKER) != worker ||
		memcmp(DatumGetUUIDP(direct_datum(&lease_table, row, LEASE_ID, &isnull)), lease,
			   UUID_LEN) != 0)
		return LEASE_ABSENT;
	if (direct_delete(rel, row, snapshot, &changed))
		return LEASE_DELETED;
	return changed ? LEASE_CHANGED : LEASE_ABSENT;
}

/*
 * End one running attempt for its holder. False, and nothing changed, when the
 * lease is not this worker's. Waits for whoever changes the lease at the moment.
 */
bool
store_lease_end(int64 worker, int64 task_id, const pg_uuid_t *lease, const LeaseEnd *end,
				TimestampTz now)
{
	Relation rel = direct_open(&lease_table);
	TupleTableSlot *row = direct_slot(&lease_table, rel);
	LeaseFound found = LEASE_ABSENT;
	bool looked_again = false;

	/*
	 * The statement's snapshot nearly always sees it; if not, a newer one settles the
	 * matter. It will not do where this statement has changed something itself.
	 */
	if (GetActiveSnapshot()->curcid == GetCurrentCommandId(false))
		found = delete_lease(rel, row, GetActiveSnapshot(), worker, task_id, lease);
	while (found == LEASE_CHANGED || (found == LEASE_ABSENT && !looked_again))
	{
		Snapshot snapshot = direct_snapshot();

		looked_again = true;
		found = delete_lease(rel, row, snapshot, worker, task_id, lease);
		direct_release(snapshot);
	}
	if (found == LEASE_DELETED)
	{
		TaskSlot slot = { .task_id = task_id,
						  .shape = direct_int8(&lease_table, row, LEASE_SHAPE),
						  .priority = direct_int4(&lease_table, row, LEASE_PRIORITY),
						  .tenant = direct_int4(&lease_table, row, LEASE_TENANT),
						  .attempt = direct_int4(&lease_table, row, LEASE_ATTEMPT),
						  .faults = direct_int4(&lease_table, row, LEASE_FAULTS),
						  .losses = direct_int4(&lease_table, row, LEASE_LOSSES),
						  .tag = direct_int8(&lease_table, row, LEASE_TAG) };

		settle(&slot, worker, lease, direct_int8(&lease_table, row, LEASE_CLAIMED_AT), end, now);
		CommandCounterIncrement();
		store_lease_room_ended(worker);
	}
	direct_slot_done(&lease_table, row);
	direct_close(rel);
	return found == LEASE_DELETED;
}

/*
 * SQL: the workers that hold a lease and have ended, as ended(worker). One step for each worker that
 * holds a lease, however many have ended.
 */
#define ENDED_HOLDERS \
	"WITH RECURSIVE holder AS (" \
	" (SELECT worker FROM gpu_orch.lease ORDER BY worker LIMIT 1)" \
	" UNION ALL" \
	" SELECT (SELECT l.worker FROM gpu_orch.lease l WHERE l.worker > h.worker" \
	"         ORDER BY l.worker LIMIT 1)" \
	" FROM holder h WHERE h.worker IS NOT NULL)," \
	" ended AS MATERIALIZED (SELECT h.worker FROM holder h WHERE h.worker IS NOT NULL" \
	"  AND (SELECT w.state FROM gpu_orch.worker w WHERE w.no = h.worker) IS DISTINCT FROM 'active'" \
	"  AND (SELECT w.state FROM gpu_orch.worker w WHERE w.no = h.worker)" \
	"      IS DISTINCT FROM 'draining') "

/*
 * End many running attempts at once: a lost worker's, those whose claim was
 * never answered, those past their deadline. Returns how many.
 */
int64
store_lease_end_all(LeaseSet set, int64 worker, TimestampTz before, Datum named,
					const LeaseEnd *end, TimestampTz now)
{
	static SpiQuery of_worker = {
		"DELETE FROM gpu_orch.lease WHERE task_id IN"
		" (SELECT task_id FROM gpu_orch.lease WHERE worker = $1 FOR UPDATE SKIP LOCKED) "
		"RETURNING " ENDED_COLUMNS
	};
	static SpiQuery of_session = {
		"DELETE FROM gpu_orch.lease WHERE worker = $1 RETURNING " ENDED_COLUMNS
	};
	/* For a heartbeat, which waits for nobody: a lease that somebody is at is for the next one. */
	static SpiQuery not_named = {
		"DELETE FROM gpu_orch.lease WHERE task_id IN"
		" (SELECT task_id FROM gpu_orch.lease WHERE worker = $1 AND claimed_at < $2"
		"  AND id <> ALL ($3) FOR UPDATE SKIP LOCKED) "
		"RETURNING " ENDED_COLUMNS
	};
	static SpiQuery past_deadline = {
		"DELETE FROM gpu_orch.lease WHERE task_id IN"
		" (SELECT task_id FROM gpu_orch.lease WHERE deadline < $1 ORDER BY deadline LIMIT 1000"
		"  FOR UPDATE SKIP LOCKED) "
		"RETURNING " ENDED_COLUMNS
	};
	static SpiQuery of_ended = {
		ENDED_HOLDERS
		"DELETE FROM gpu_orch.lease WHERE task_id IN"
		" (SELECT l.task_id FROM ended e, LATERAL"
		"   (SELECT x.task_id FROM gpu_orch.lease x WHERE x.worker = e.worker LIMIT 1000"
		"    FOR UPDATE SKIP LOCKED) l LIMIT 1000) "
		"RETURNING " ENDED_COLUMNS
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 n;

	spi_begin();
	switch (set)
	{
		case LEASES_OF_WORKER:
			spi_arg_int8(&args, worker);
			spi_run(&of_worker, &args);
			break;
		case LEASES_OF_SESSION:
			spi_arg_int8(&args, worker);
			spi_run(&of_session, &args);
			break;
		case LEASES_NOT_NAMED:
			spi_arg_int8(&args, worker);
			spi_arg_time(&args, before);
			spi_arg(&args, UUIDARRAYOID, named, false);
			spi_run(&not_named, &args);
			break;
		case LEASES_PAST_DEADLINE:
			spi_arg_time(&args, before);
			spi_run(&past_deadline, &args);
			break;
		case LEASES_OF_ENDED:
			spi_run(&of_ended, NULL);
			break;
	}
	n = settle_deleted(end, now);
	spi_end();
	if (n > 0)
		pg_atomic_fetch_add_u64(&shmem_state()->tasks_reset, n);
	return n;
}

/*
 * Lock some of the leases that are to be ended: past their deadline, or of workers that have ended.
 * Those that somebody keeps are remembered, and had at last. To be called before anything else is
 * locked, as a lease may be waited for.
 */
void
store_lease_demand(LeaseSet which, TimestampTz now)
{
	static SpiQuery overdue = {
		"SELECT task_id FROM gpu_orch.lease WHERE deadline < $1 ORDER BY deadline LIMIT 100"
	};
	static SpiQuery ended = {
		ENDED_HOLDERS
		"SELECT l.task_id FROM ended e JOIN gpu_orch.lease l ON l.worker = e.worker LIMIT 100"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 *tasks;
	int n;

	Assert(which == LEASES_PAST_DEADLINE || which == LEASES_OF_ENDED);
	spi_lock_for_write("lease");
	spi_begin();
	if (which == LEASES_PAST_DEADLINE)
		spi_arg_time(&args, now);
	n = (int) spi_read(which == LEASES_PAST_DEADLINE ? &overdue : &ended, &args, 0);
	tasks = SPI_palloc((n + 1) * sizeof(int64));
	for (int i = 0; i < n; i++)
		tasks[i] = spi_int8(i, 1);
	spi_end();
	for (int i = 0; i < n; i++)
		(void) store_holder_try(KEPT_LEASE, tasks[i], true, now);
}

/*
 * End a running attempt whose worker was ended: nobody holds it. False where there is
 * none, its worker lives, or somebody is about to end it.
 */
bool
store_lease_end_unheld(int64 task_id, const LeaseEnd *end, TimestampTz now)
{
	static SpiQuery query = {
		"DELETE FROM gpu_orch.lease WHERE task_id IN"
		" (SELECT l.task_id FROM gpu_orch.lease l WHERE l.task_id = $1"
		"  AND NOT EXISTS (SELECT 1 FROM gpu_orch.worker w WHERE w.no = l.worker"
		"   AND w.state IN ('active', 'draining')) FOR UPDATE SKIP LOCKED) "
		"RETURNING " ENDED_COLUMNS
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 n;

	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_run(&query, &args);
	n = settle_deleted(end, now);
	spi_end();
	return n > 0;
}

/* End a task that waits or is ready: cancelled, with the reason. */
void
store_lease_end_without(const TaskSlot *slot, const char *why, TimestampTz now)
{
	store_attempt_record(slot, 0, NULL, 0, "cancelled", NULL, "cancelled", why, NULL, now);
	CommandCounterIncrement();
	(void) store_dependency_ended(slot->task_id);
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE | WAKE_ADMIT);
}

/* Note how far a running attempt is. False when the lease is not this worker's. */
bool
store_lease_progress(int64 worker, int64 task_id, const pg_uuid_t *lease, const float4 *fraction,
					 const char *stage, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.lease SET progress = coalesce($4, progress), stage = coalesce($5, stage),"
		" progress_at = $6 WHERE task_id = $1 AND id = $2 AND worker = $3"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool held;

	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_arg(&args, UUIDOID, UUIDPGetDatum(lease), false);
	spi_arg_int8(&args, worker);
	spi_arg(&args, FLOAT4OID, fraction ? Float4GetDatum(*fraction) : (Datum) 0, fraction == NULL);
	spi_arg_text(&args, stage);
	spi_arg_time(&args, now);
	held = spi_run(&query, &args) == 1;
	spi_end();
	return held;
}

/*
 * How many leases stand or may stand, counted up to a limit: those whose claims or ends have not
 * committed count too, be their transactions prepared. They are those that the key selects by the
 * table's index.
 */
static int64
count_leases(DirectTable *table, RegProcedure equal, Datum key, int64 limit)
{
	Relation rel = direct_open(table);
	SnapshotData dirty;
	ScanKeyData scan_key;
	int64 n;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&scan_key, 1, BTEqualStrategyNumber, equal, key);
	n = direct_count(table, rel, &dirty, &scan_key, 1, limit);
	direct_close(rel);
	return n;
}

/* How many leases a worker holds, or may hold. */
int64
store_lease_count_worker(int64 worker, int64 limit)
{
	return count_leases(&by_worker, F_INT8EQ, Int64GetDatum(worker), limit);
}

/* The same of a limited tenant. */
int64
store_lease_count_tenant(int32 tenant, int64 limit)
{
	return count_leases(&by_tenant, F_INT4EQ, Int32GetDatum(tenant), limit);
}

/* The number of the table of leases, with the lock that writes need. */
Oid
store_lease_table(void)
{
	Relation rel = direct_open(&lease_table);
	Oid relid = RelationGetRelid(rel);

	direct_close(rel);
	return relid;
}
