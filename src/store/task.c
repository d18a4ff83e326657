/*
 * store/task.c
 *	  Tasks, their shapes and dependencies, and the tasks that wait: all access to
 *	  task, shape, task_dependency and waiting.
 *
 * A task stands in exactly one place: waiting, ready_queue, lease, or ended with
 * a final attempt. What keeps it waiting is settled before it stands in
 * ready_queue, in this order: its time, the tasks it depends on, its tenant's
 * limit and the queue's room for its shape. Submitting takes no lock that another submitter could hold, except on
 * the same idempotency key.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_type_d.h"
#include "db/direct.h"
#include "base/errors.h"
#include "base/inject.h"
#include "queue/match.h"
#include "storage/bufmgr.h"
#include "store/cancel.h"
#include "store/lease.h"
#include "store/task.h"
#include "store/tenant.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

/* How many waiting tasks one pass of the leader looks at, for each reason. */
#define ADMIT_BATCH 1000

/* Whether a task has not ended: it waits, is ready or runs. */
#define STANDS(task) \
	"(EXISTS (SELECT 1 FROM gpu_orch.waiting x WHERE x.task_id = " task ")" \
	" OR EXISTS (SELECT 1 FROM gpu_orch.ready_queue x WHERE x.task_id = " task ")" \
	" OR EXISTS (SELECT 1 FROM gpu_orch.lease x WHERE x.task_id = " task "))"

#define SLOT_COLUMNS "shape, task_id, priority, tenant, attempt, faults, losses, tag"

/* clang-format off */
#define SHAPE_COLUMNS(COLUMN, LATER) \
	COLUMN(SHAPE_ID, id, INT8OID) \
	COLUMN(SHAPE_FORM, form, TEXTOID) \
	COLUMN(SHAPE_KIND, kind, TEXTOID) \
	COLUMN(SHAPE_REQUIREMENTS, requirements, JSONBOID) \
	COLUMN(SHAPE_ISOLATION, isolation, TEXTOID) \
	COLUMN(SHAPE_CREATED_AT, created_at, TIMESTAMPTZOID)

#define TASK_COLUMNS(COLUMN, LATER) \
	COLUMN(TASK_ID, id, INT8OID) \
	COLUMN(TASK_SHAPE, shape, INT8OID) \
	COLUMN(TASK_TENANT, tenant, INT4OID) \
	COLUMN(TASK_PRIORITY, priority, INT4OID) \
	COLUMN(TASK_MAX_ATTEMPTS, max_attempts, INT4OID) \
	COLUMN(TASK_SUBMITTED_AT, submitted_at, TIMESTAMPTZOID) \
	COLUMN(TASK_RUN_AT, run_at, TIMESTAMPTZOID) \
	COLUMN(TASK_TIMEOUT, timeout, INTERVALOID) \
	COLUMN(TASK_KIND, kind, TEXTOID) \
	COLUMN(TASK_SUBMITTED_BY, submitted_by, NAMEOID) \
	COLUMN(TASK_IDEMPOTENCY_KEY, idempotency_key, TEXTOID) \
	COLUMN(TASK_TRACEPARENT, traceparent, TEXTOID) \
	COLUMN(TASK_REQUIREMENTS, requirements, JSONBOID) \
	COLUMN(TASK_PAYLOAD, payload, JSONBOID)

#define DEPENDENCY_COLUMNS(COLUMN, LATER) \
	COLUMN(DEPENDENCY_TASK_ID, task_id, INT8OID) \
	COLUMN(DEPENDENCY_PARENT, parent, INT8OID)
/* clang-format on */

enum
{
	SHAPE_COLUMN_0,
	SHAPE_COLUMNS(DIRECT_NUMBER, DIRECT_NUMBER)
};
enum
{
	TASK_COLUMN_0,
	TASK_COLUMNS(DIRECT_NUMBER, DIRECT_NUMBER)
};
enum
{
	DEPENDENCY_COLUMN_0,
	DEPENDENCY_COLUMNS(DIRECT_NUMBER, DIRECT_NUMBER)
};

static const DirectColumn shape_columns[] = { SHAPE_COLUMNS(DIRECT_ENTRY, DIRECT_LATER) };
static const DirectColumn task_columns[] = { TASK_COLUMNS(DIRECT_ENTRY, DIRECT_LATER) };
static const DirectColumn dependency_columns[] = { DEPENDENCY_COLUMNS(DIRECT_ENTRY, DIRECT_LATER) };

static DirectTable shape_table =
	DIRECT_TABLE("shape", shape_columns, .index_name = "shape_id", .index_key = { SHAPE_ID });
static DirectTable task_table =
	DIRECT_TABLE("task", task_columns, .index_name = "task_pkey", .index_key = { TASK_ID });
static DirectTable by_child =
	DIRECT_TABLE("task_dependency", dependency_columns, .index_name = "task_dependency_pkey",
				 .index_key = { DEPENDENCY_TASK_ID, DEPENDENCY_PARENT });
static DirectTable by_parent =
	DIRECT_TABLE("task_dependency", dependency_columns, .index_name = "task_dependency_parent",
				 .index_key = { DEPENDENCY_PARENT });

/* Whether a shape is stored; an error if it is one of another form. */
static bool
find_shape(int64 id, const char *form, const char *kind)
{
	Relation rel = direct_open(&shape_table);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	Snapshot snapshot = direct_snapshot();
	ScanKeyData key;
	bool found;
	bool isnull;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	found = direct_find(&shape_table, rel, snapshot, &key, 1, row, NULL);
	if (found &&
		strcmp(TextDatumGetCString(direct_datum(&shape_table, row, SHAPE_FORM, &isnull)), form) !=
			0)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("requirements for kind \"%s\" have the same digest as other requirements",
						kind),
				 errhint("Add a requirement that every worker meets, such as "
						 "{\"hardware\": {\"gpu_memory_gb\": 0}}.")));
	ExecDropSingleTupleTableSlot(row);
	direct_release(snapshot);
	direct_close(rel);
	return found;
}

/*
 * The id of the shape of (kind, requirements), stored if it is new. Two
 * submitters of the same new shape may both store it; the id is the same.
 */
static int64
intern_shape(const char *kind, Jsonb *requirements, ShapeMemo *memo, TimestampTz now)
{
	static SpiQuery add = { "INSERT INTO gpu_orch.shape (id, form, kind, requirements, created_at) "
							"VALUES ($1, $2, $3, $4, $5)",
							5,
							{ INT8OID, TEXTOID, TEXTOID, JSONBOID, TIMESTAMPTZOID } };
	char *form = match_canonical(kind, requirements, NULL);
	int64 id = match_shape_id(form);

	if (memo->form != NULL && strcmp(memo->form, form) == 0)
		return id;
	if (!find_shape(id, form, kind))
	{
		SpiArgs args = SPI_ARGS_INIT;

		spi_begin();
		spi_arg_int8(&args, id);
		spi_arg_text(&args, form);
		spi_arg_text(&args, kind);
		spi_arg_jsonb(&args, requirements);
		spi_arg_time(&args, now);
		spi_run_one(&add, &args, "storing a shape");
		spi_end();
	}
	memo->form = MemoryContextStrdup(memo->context, form);
	return id;
}

/*
 * What a shape demands, by its id. A shape never changes, so one that a transaction
 * in progress stores is read as well. False if there is none, as when that one was
 * rolled back. Results are allocated in the current memory context.
 */
bool
store_shape_load(int64 shape, char **kind, Jsonb **requirements)
{
	Relation rel = direct_open(&shape_table);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	SnapshotData snapshot;
	ScanKeyData key;
	bool found;

	InitDirtySnapshot(snapshot);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(shape));
	found = direct_find(&shape_table, rel, &snapshot, &key, 1, row, NULL);
	if (found)
	{
		bool isnull;

		*kind = TextDatumGetCString(direct_datum(&shape_table, row, SHAPE_KIND, &isnull));
		*requirements =
			DatumGetJsonbPCopy(direct_datum(&shape_table, row, SHAPE_REQUIREMENTS, &isnull));
	}
	ExecDropSingleTupleTableSlot(row);
	direct_close(rel);
	return found;
}

/* The id of an earlier task with the same key, or 0; an error if its body differs. */
static int64
find_by_key(const NewTask *task, int64 shape)
{
	static SpiQuery query = {
		"SELECT id, shape = $3 AND priority = $4 AND max_attempts = $5 AND payload = $6"
		" AND timeout IS NOT DISTINCT FROM $7 AND run_at IS NOT DISTINCT FROM $8"
		" AND ARRAY(SELECT parent FROM gpu_orch.task_dependency d WHERE d.task_id = task.id"
		"           ORDER BY parent) = ARRAY(SELECT p FROM unnest($9::bigint[]) p ORDER BY p) "
		"FROM gpu_orch.task WHERE tenant = $1 AND idempotency_key = $2",
		9,
		{ INT4OID, TEXTOID, INT8OID, INT4OID, INT4OID, JSONBOID, INTERVALOID, TIMESTAMPTZOID,
		  INT8ARRAYOID }
	};
	SpiArgs args = SPI_ARGS_INIT;
	Datum *parents = palloc((task->n_parents + 1) * sizeof(Datum));
	int64 id = 0;
	bool same = true;

	for (int i = 0; i < task->n_parents; i++)
		parents[i] = Int64GetDatum(task->parents[i]);
	spi_begin();
	spi_arg_int4(&args, task->tenant);
	spi_arg_text(&args, task->idempotency_key);
	spi_arg_int8(&args, shape);
	spi_arg_int4(&args, task->priority);
	spi_arg_int4(&args, task->max_attempts);
	spi_arg_jsonb(&args, task->payload);
	spi_arg(&args, IntervalPGetDatum(task->timeout), task->timeout == NULL);
	spi_arg_time(&args, task->run_at);
	spi_arg(&args,
			PointerGetDatum(construct_array(parents, task->n_parents, INT8OID, 8, FLOAT8PASSBYVAL,
											TYPALIGN_DOUBLE)),
			false);
	if (spi_read(&query, &args, 1) == 1)
	{
		id = spi_int8(0, 1);
		same = spi_bool(0, 2);
	}
	spi_end();
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_KEY_REUSED),
				 errmsg("idempotency key \"%s\" was used before with a different task",
						task->idempotency_key),
				 errdetail("The key belongs to task " INT64_FORMAT ".", id),
				 errhint("Use a new key for a new task; repeat a submission with the same "
						 "arguments.")));
	return id;
}

/* Insert a task that has an idempotency key; 0 when somebody else committed the same key. */
static int64
insert_with_key(const NewTask *task, int64 shape, TimestampTz now)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.task (shape, tenant, priority, max_attempts, submitted_at, run_at,"
		" timeout, kind, submitted_by, idempotency_key, traceparent, requirements, payload) "
		"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) "
		"ON CONFLICT (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING "
		"RETURNING id",
		13,
		{ INT8OID, INT4OID, INT4OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INTERVALOID, TEXTOID,
		  TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID }
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 id = 0;

	spi_begin();
	spi_arg_int8(&args, shape);
	spi_arg_int4(&args, task->tenant);
	spi_arg_int4(&args, task->priority);
	spi_arg_int4(&args, task->max_attempts);
	spi_arg_time(&args, now);
	spi_arg_time(&args, task->run_at);
	spi_arg(&args, IntervalPGetDatum(task->timeout), task->timeout == NULL);
	spi_arg_text(&args, task->kind);
	spi_arg_text(&args, task->submitted_by);
	spi_arg_text(&args, task->idempotency_key);
	spi_arg_text(&args, task->traceparent);
	spi_arg_jsonb(&args, task->requirements);
	spi_arg_jsonb(&args, task->payload);
	if (spi_run(&query, &args) == 1)
		id = spi_int8(0, 1);
	spi_end();
	return id;
}

/* Insert a task that has none. */
static int64
insert_plain(const NewTask *task, int64 shape, TimestampTz now)
{
	Relation rel = direct_open(&task_table);
	DirectRow *row = direct_new_row(&task_table);
	Datum *values = row->values;
	bool *nulls = row->nulls;
	int64 id = direct_next_id(&task_table);

	values[TASK_ID] = Int64GetDatum(id);
	values[TASK_SHAPE] = Int64GetDatum(shape);
	values[TASK_TENANT] = Int32GetDatum(task->tenant);
	values[TASK_PRIORITY] = Int32GetDatum(task->priority);
	values[TASK_MAX_ATTEMPTS] = Int32GetDatum(task->max_attempts);
	values[TASK_SUBMITTED_AT] = TimestampTzGetDatum(now);
	values[TASK_RUN_AT] = TimestampTzGetDatum(task->run_at);
	nulls[TASK_RUN_AT] = task->run_at == 0;
	values[TASK_TIMEOUT] = IntervalPGetDatum(task->timeout);
	nulls[TASK_TIMEOUT] = task->timeout == NULL;
	values[TASK_KIND] = CStringGetTextDatum(task->kind);
	values[TASK_SUBMITTED_BY] = DirectFunctionCall1(namein, CStringGetDatum(task->submitted_by));
	nulls[TASK_IDEMPOTENCY_KEY] = true;
	nulls[TASK_TRACEPARENT] = task->traceparent == NULL;
	values[TASK_TRACEPARENT] =
		task->traceparent ? CStringGetTextDatum(task->traceparent) : (Datum) 0;
	values[TASK_REQUIREMENTS] = JsonbPGetDatum(task->requirements);
	values[TASK_PAYLOAD] = JsonbPGetDatum(task->payload);
	direct_insert(row, rel);
	direct_close(rel);
	return id;
}

static void place(const TaskSlot *slot, TimestampTz due_at, bool depends_on_others,
				  TimestampTz now);

/*
 * Store a task and place it. Returns its id, or that of the earlier task with
 * the same idempotency key. Works at every isolation level. The memo serves the
 * submissions of one call.
 */
int64
store_task_submit(const NewTask *task, ShapeMemo *memo, TimestampTz now)
{
	static SpiQuery depend = {
		"INSERT INTO gpu_orch.task_dependency (task_id, parent) VALUES ($1, $2)",
		2,
		{ INT8OID, INT8OID }
	};
	TaskSlot slot = { 0 };
	int64 shape = intern_shape(task->kind, task->requirements, memo, now);
	int64 id = 0;

	if (task->idempotency_key != NULL)
	{
		id = find_by_key(task, shape);
		if (id != 0)
			return id;
		id = insert_with_key(task, shape, now);
		if (id == 0)
			return find_by_key(task, shape);
	}
	else
		id = insert_plain(task, shape, now);

	if (task->n_parents > 0)
	{
		spi_begin();
		for (int i = 0; i < task->n_parents; i++)
		{
			SpiArgs edge = SPI_ARGS_INIT;

			spi_arg_int8(&edge, id);
			spi_arg_int8(&edge, task->parents[i]);
			spi_run_one(&depend, &edge, "storing a dependency");
		}
		spi_end();
	}

	INJECT("submit.stored");
	slot.task_id = id;
	slot.shape = shape;
	slot.priority = task->priority;
	slot.tenant = task->tenant;
	slot.attempt = 1;
	place(&slot, task->run_at, task->n_parents > 0, now);
	return id;
}

/* Read a task's row into a slot, to be dropped by the caller; NULL if there is none. */
static TupleTableSlot *
read_task(int64 task_id, Snapshot snapshot)
{
	Relation rel = direct_open(&task_table);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(task_id));
	if (direct_find(&task_table, rel, snapshot, &key, 1, row, NULL))
		slot_getallattrs(row);
	else
	{
		ExecDropSingleTupleTableSlot(row);
		row = NULL;
	}
	direct_close(rel);
	return row;
}

static Datum
copy_column(TupleTableSlot *row, int column)
{
	bool isnull;
	Datum value = direct_datum(&task_table, row, column, &isnull);

	return isnull ? (Datum) 0 : datumCopy(value, false, -1);
}

/* Read what a claim hands out, into the current memory context. False if there is no such task. */
bool
store_task_body(int64 task_id, Snapshot snapshot, TaskBody *body)
{
	TupleTableSlot *row = read_task(task_id, snapshot);
	Datum timeout;
	bool isnull;

	if (row == NULL)
		return false;
	body->kind = copy_column(row, TASK_KIND);
	body->payload = copy_column(row, TASK_PAYLOAD);
	body->requirements = copy_column(row, TASK_REQUIREMENTS);
	body->traceparent = copy_column(row, TASK_TRACEPARENT);
	timeout = direct_datum(&task_table, row, TASK_TIMEOUT, &isnull);
	body->timeout = isnull ? 0 : interval_length(DatumGetIntervalP(timeout));
	ExecDropSingleTupleTableSlot(row);
	return true;
}

/* How often a task may be tried. */
int32
store_task_max_attempts(int64 task_id)
{
	Snapshot snapshot = direct_snapshot();
	TupleTableSlot *row = read_task(task_id, snapshot);
	int32 max_attempts;

	if (row == NULL)
		elog(ERROR, "gpu_orch: task " INT64_FORMAT " does not exist", task_id);
	max_attempts = direct_int4(&task_table, row, TASK_MAX_ATTEMPTS);
	ExecDropSingleTupleTableSlot(row);
	direct_release(snapshot);
	return max_attempts;
}

/* The tenant of a task, read without a lock; false if there is no such task. */
bool
store_task_tenant(int64 task_id, int32 *tenant)
{
	Snapshot snapshot = direct_snapshot();
	TupleTableSlot *row = read_task(task_id, snapshot);

	if (row != NULL)
	{
		*tenant = DatumGetInt32(row->tts_values[TASK_TENANT]);
		ExecDropSingleTupleTableSlot(row);
	}
	direct_release(snapshot);
	return row != NULL;
}

/*
 * Read what is fixed about a task and lock it against a concurrent cancel or
 * retry until the end of the transaction. False if there is no such task.
 */
bool
store_task_lock(int64 task_id, TaskRow *task)
{
	static SpiQuery query = {
		"SELECT id, shape, tenant, priority, max_attempts, run_at FROM gpu_orch.task WHERE id = $1 "
		"FOR NO KEY UPDATE",
		1,
		{ INT8OID }
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_int8(&args, task_id);
	found = spi_run(&query, &args) == 1;
	if (found)
	{
		task->id = spi_int8(0, 1);
		task->shape = spi_int8(0, 2);
		task->tenant = spi_int4(0, 3);
		task->priority = spi_int4(0, 4);
		task->max_attempts = spi_int4(0, 5);
		task->run_at = spi_time(0, 6);
	}
	spi_end();
	return found;
}

/* Whether a task has not ended. */
bool
store_task_stands(int64 task_id)
{
	static SpiQuery query = { "SELECT " STANDS("$1"), 1, { INT8OID } };
	SpiArgs args = SPI_ARGS_INIT;
	bool stands;

	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_read(&query, &args, 1);
	stands = spi_bool(0, 1);
	spi_end();
	return stands;
}

/*
 * Whether all of these tasks exist, as far as the role may know: one of a tenant
 * that it may not use does not. If not, *missing is the first that does not.
 */
bool
store_task_parents_exist(const int64 *parents, int n_parents, Oid role, int64 *missing)
{
	static SpiQuery query = { "SELECT tenant FROM gpu_orch.task WHERE id = $1", 1, { INT8OID } };
	bool exist = true;

	spi_begin();
	for (int i = 0; exist && i < n_parents; i++)
	{
		SpiArgs args = SPI_ARGS_INIT;

		spi_arg_int8(&args, parents[i]);
		exist = spi_read(&query, &args, 1) == 1 && store_tenant_allows(spi_int4(0, 1), role);
		*missing = parents[i];
	}
	spi_end();
	return exist;
}

static void
wait_in(const TaskSlot *slot, const char *state, TimestampTz due_at, TimestampTz now)
{
	static SpiQuery query = { "INSERT INTO gpu_orch.waiting (" SLOT_COLUMNS
							  ", state, due_at, since) "
							  "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
							  11,
							  { INT8OID, INT8OID, INT4OID, INT4OID, INT4OID, INT4OID, INT4OID,
								INT8OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID } };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	store_queue_slot_args(&args, slot);
	spi_arg_text(&args, state);
	spi_arg_time(&args, due_at);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "making a task wait");
	spi_end();
}

/* Whether a row of task_dependency names a task in the column that leads the table's index. */
static bool
depends(DirectTable *table, int64 task_id)
{
	Relation rel = direct_open(table);
	bool found = false;

	/* Most installations have no dependencies at all. */
	if (RelationGetNumberOfBlocks(rel) > 0)
	{
		TupleTableSlot *row = table_slot_create(rel, NULL);
		Snapshot snapshot = direct_snapshot();
		ScanKeyData key;

		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(task_id));
		found = direct_find(table, rel, snapshot, &key, 1, row, NULL);
		ExecDropSingleTupleTableSlot(row);
		direct_release(snapshot);
	}
	direct_close(rel);
	return found;
}

/* Whether a task depends on one that has not succeeded. */
static bool
is_blocked(int64 task_id)
{
	static SpiQuery query = {
		"SELECT 1 FROM gpu_orch.task_dependency d WHERE d.task_id = $1 AND NOT EXISTS"
		" (SELECT 1 FROM gpu_orch.attempt a"
		"  WHERE a.task_id = d.parent AND a.final_state = 'succeeded')",
		1,
		{ INT8OID }
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool blocked;

	if (!depends(&by_child, task_id))
		return false;
	spi_begin();
	spi_arg_int8(&args, task_id);
	blocked = spi_read(&query, &args, 1) > 0;
	spi_end();
	return blocked;
}

/*
 * Put a task that stands nowhere where it belongs now: scheduled until due_at,
 * blocked behind others, held for its tenant's limit or for want of room for its
 * shape, or ready.
 */
static void
place(const TaskSlot *slot, TimestampTz due_at, bool depends_on_others, TimestampTz now)
{
	bool limited;
	double weight;

	if (due_at > now)
		wait_in(slot, "scheduled", due_at, now);
	else if (depends_on_others && is_blocked(slot->task_id))
		wait_in(slot, "blocked", 0, now);
	else
	{
		TaskSlot held = *slot;

		store_tenant_terms(slot->tenant, &limited, &weight);
		if (!limited && store_queue_put(slot, weight))
			return;
		store_queue_tag(&held, weight);
		wait_in(&held, "held", 0, now);
	}
}

/* Put a task back that ran, was given back or is tried again. */
void
store_task_place(const TaskSlot *slot, TimestampTz due_at, TimestampTz now)
{
	place(slot, due_at, true, now);
}

/* Put a task that does not fit its tenant's limit among the held ones. */
void
store_task_hold(const TaskSlot *slot, TimestampTz now)
{
	wait_in(slot, "held", 0, now);
}

/*
 * Take a task out of the waiting ones. False when it is not there; without wait also
 * when somebody else has it locked.
 */
bool
store_task_unwait(int64 task_id, bool wait, TaskSlot *slot)
{
	static SpiQuery waiting = {
		"DELETE FROM gpu_orch.waiting WHERE task_id = $1 RETURNING " SLOT_COLUMNS, 1, { INT8OID }
	};
	static SpiQuery passing = {
		"DELETE FROM gpu_orch.waiting WHERE task_id = (SELECT task_id FROM gpu_orch.waiting"
		" WHERE task_id = $1 FOR UPDATE SKIP LOCKED) RETURNING " SLOT_COLUMNS,
		1,
		{ INT8OID }
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_int8(&args, task_id);
	found = spi_run(wait ? &waiting : &passing, &args) == 1;
	if (found)
		store_queue_slot_read(slot, 0);
	spi_end();
	return found;
}

/*
 * Admit the tasks that waited for this one alone. Only shortens the wait: two
 * parents that end at the same time each see the other running, and the leader
 * finds what they left. Returns whether any task depends on this one.
 */
bool
store_task_release_dependents(int64 task_id, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.waiting w SET state = 'held', since = $2 WHERE w.state = 'blocked'"
		" AND w.task_id IN (SELECT b.task_id FROM gpu_orch.task_dependency d"
		"  JOIN gpu_orch.waiting b ON b.task_id = d.task_id WHERE d.parent = $1"
		"  AND b.state = 'blocked' FOR UPDATE OF b SKIP LOCKED)"
		" AND NOT EXISTS (SELECT 1 FROM gpu_orch.task_dependency d WHERE d.task_id = w.task_id"
		"                 AND d.parent <> $1 AND NOT EXISTS"
		"                 (SELECT 1 FROM gpu_orch.attempt a"
		"                  WHERE a.task_id = d.parent AND a.final_state = 'succeeded'))",
		2,
		{ INT8OID, TIMESTAMPTZOID }
	};
	SpiArgs args = SPI_ARGS_INIT;

	if (!depends(&by_parent, task_id))
		return false;
	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_end();
	return true;
}

/* Scheduled tasks whose time has come go on to the next question. */
static int64
admit_due(TimestampTz now)
{
	static SpiQuery query = {
		"WITH due AS (SELECT task_id FROM gpu_orch.waiting WHERE state = 'scheduled' AND due_at <= $1"
		"             ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED) "
		"UPDATE gpu_orch.waiting w SET due_at = NULL, since = $1, state ="
		" CASE WHEN EXISTS (SELECT 1 FROM gpu_orch.task_dependency d"
		"                   WHERE d.task_id = w.task_id) THEN 'blocked' ELSE 'held' END "
		"FROM due WHERE w.task_id = due.task_id",
		2,
		{ TIMESTAMPTZOID, INT8OID }
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 n;

	spi_begin();
	spi_arg_time(&args, now);
	spi_arg_int8(&args, ADMIT_BATCH);
	n = (int64) spi_run(&query, &args);
	spi_end();
	return n;
}

/*
 * Blocked tasks whose parents ended: held if all succeeded, cancelled if one did
 * not. Looks at one window of them at each call and goes round, so that a million
 * blocked tasks never stand in the way of the rest.
 */
static int64
admit_blocked(TimestampTz now)
{
	static int64 looked_up_to = 0;
	static SpiQuery window = {
		"SELECT w.task_id, p.failed, p.open FROM (SELECT task_id FROM gpu_orch.waiting"
		"  WHERE state = 'blocked' AND task_id > $1 ORDER BY task_id LIMIT $2) w, LATERAL ("
		"  SELECT min(d.parent) FILTER (WHERE a.final_state IN ('failed', 'cancelled')) AS failed,"
		"         count(*) FILTER (WHERE a.final_state IS NULL) AS open"
		"  FROM gpu_orch.task_dependency d LEFT JOIN LATERAL"
		"       (SELECT a.final_state FROM gpu_orch.attempt a WHERE a.task_id = d.parent"
		"        AND NOT " STANDS("d.parent") "        ORDER BY a.attempt DESC LIMIT 1) a ON true"
											  "  WHERE d.task_id = w.task_id) p ORDER BY w.task_id",
		2,
		{ INT8OID, INT8OID }
	};
	static SpiQuery release = {
		"UPDATE gpu_orch.waiting SET state = 'held', since = $2 WHERE state = 'blocked' AND task_id ="
		" (SELECT task_id FROM gpu_orch.waiting WHERE task_id = $1 FOR UPDATE SKIP LOCKED)",
		2,
		{ INT8OID, TIMESTAMPTZOID }
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 done = 0;
	int n;
	struct
	{
		int64 task_id;
		int64 failed;
		int64 open;
	} * rows;

	spi_begin();
	spi_arg_int8(&args, looked_up_to);
	spi_arg_int8(&args, ADMIT_BATCH);
	n = (int) spi_read(&window, &args, 0);
	rows = palloc((n + 1) * sizeof(*rows));
	for (int i = 0; i < n; i++)
	{
		rows[i].task_id = spi_int8(i, 1);
		rows[i].failed = spi_int8(i, 2);
		rows[i].open = spi_int8(i, 3);
	}
	looked_up_to = n < ADMIT_BATCH ? 0 : rows[n - 1].task_id;
	for (int i = 0; i < n; i++)
	{
		if (rows[i].failed != 0)
		{
			char *why = psprintf("task " INT64_FORMAT ", which it depends on, did not succeed",
								 rows[i].failed);
			TaskSlot slot;

			if (store_task_unwait(rows[i].task_id, false, &slot))
			{
				store_lease_end_without(&slot, why, now);
				done++;
			}
		}
		else if (rows[i].open == 0)
		{
			SpiArgs one = SPI_ARGS_INIT;

			spi_arg_int8(&one, rows[i].task_id);
			spi_arg_time(&one, now);
			done += (int64) spi_run(&release, &one);
		}
	}
	spi_end();
	return done;
}

/*
 * Make the tasks ready that the last statement deleted from the waiting ones,
 * returning their SLOT_COLUMNS. One whose shape has no room goes back. Returns how
 * many became ready. Must run inside spi_begin().
 */
static int64
put_deleted(uint64 n, TimestampTz now)
{
	TaskSlot *slots = palloc((n + 1) * sizeof(TaskSlot));
	int64 ready = 0;

	for (uint64 i = 0; i < n; i++)
		store_queue_slot_read(&slots[i], i);
	for (uint64 i = 0; i < n; i++)
	{
		bool limited;
		double weight;

		store_tenant_terms(slots[i].tenant, &limited, &weight);
		if (store_queue_put(&slots[i], weight))
			ready++;
		else
			wait_in(&slots[i], "held", 0, now);
	}
	return ready;
}

/*
 * Held tasks for which there is room become ready. Of a limited tenant, at most
 * as many ready tasks stand there for each shape as it has room.
 */
static int64
admit_held(TimestampTz now)
{
	static SpiQuery unlimited = {
		"WITH free AS MATERIALIZED (SELECT w.task_id FROM gpu_orch.waiting w"
		"              WHERE w.state = 'held' AND w.tenant = ANY (ARRAY(SELECT 0 UNION ALL"
		"               SELECT t.id FROM gpu_orch.tenant t WHERE t.max_running IS NULL))"
		"              LIMIT $1 FOR UPDATE SKIP LOCKED),"
		" gone AS (DELETE FROM gpu_orch.waiting w USING free WHERE w.task_id = free.task_id"
		"          RETURNING w.*) "
		"SELECT " SLOT_COLUMNS " FROM gone ORDER BY task_id",
		1,
		{ INT8OID }
	};
	static SpiQuery limited = {
		"WITH t AS MATERIALIZED (SELECT t.id, t.max_running -"
		"            (SELECT count(*) FROM gpu_orch.lease l WHERE l.tenant = t.id AND l.tenant <> 0)"
		"            AS room"
		"           FROM gpu_orch.tenant t WHERE t.max_running IS NOT NULL AND EXISTS"
		"            (SELECT 1 FROM gpu_orch.waiting w WHERE w.tenant = t.id AND w.state = 'held')),"
		" s AS MATERIALIZED (SELECT t.id, h.shape, t.room -"
		"            (SELECT count(*) FROM gpu_orch.ready_queue r"
		"             WHERE r.shape = h.shape AND r.tenant = t.id) AS room"
		"           FROM t, LATERAL (SELECT DISTINCT w.shape FROM gpu_orch.waiting w"
		"                            WHERE w.tenant = t.id AND w.state = 'held') h"
		"           WHERE t.room > 0),"
		" free AS MATERIALIZED (SELECT f.task_id FROM s, LATERAL"
		"           (SELECT w.task_id FROM gpu_orch.waiting w WHERE w.tenant = s.id"
		"            AND w.state = 'held' AND w.shape = s.shape"
		"            ORDER BY w.priority DESC, w.task_id LIMIT greatest(s.room, 0)"
		"            FOR UPDATE SKIP LOCKED) f),"
		" gone AS (DELETE FROM gpu_orch.waiting w USING free WHERE w.task_id = free.task_id"
		"          RETURNING w.*) "
		"SELECT " SLOT_COLUMNS " FROM gone ORDER BY priority DESC, task_id",
		0,
		{ 0 }
	};
	static SpiQuery any = { "SELECT 1 FROM gpu_orch.waiting WHERE state = 'held' LIMIT 1",
							0,
							{ 0 } };
	SpiArgs args = SPI_ARGS_INIT;
	int64 n = 0;

	spi_begin();
	if (spi_read(&any, NULL, 1) > 0)
	{
		spi_arg_int8(&args, ADMIT_BATCH);
		n = put_deleted(spi_run(&unlimited, &args), now);
		n += put_deleted(spi_run(&limited, NULL), now);
	}
	spi_end();
	return n;
}

/*
 * Release whatever need not wait any longer: one bounded pass. Returns how many
 * rows it moved, so that the caller can come back at once while there are any;
 * *made_ready says whether work became claimable.
 */
int64
store_task_admit(TimestampTz now, bool *made_ready)
{
	int64 moved = store_cancel_admit(now) + admit_due(now) + admit_blocked(now);
	int64 ready = admit_held(now);

	*made_ready = ready > 0;
	return moved + ready;
}

/* When the next scheduled task or running deadline is due; 0 for never. */
TimestampTz
store_task_next_due(void)
{
	static SpiQuery query = {
		"SELECT least((SELECT min(due_at) FROM gpu_orch.waiting WHERE state = 'scheduled'),"
		"             (SELECT min(deadline) FROM gpu_orch.lease WHERE deadline IS NOT NULL))",
		0,
		{ 0 }
	};
	TimestampTz due;

	spi_begin();
	spi_read(&query, NULL, 1);
	due = spi_time(0, 1);
	spi_end();
	return due;
}
