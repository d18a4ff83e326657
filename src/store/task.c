/*
 * store/task.c
 *	  Tasks and their shapes: all access to task and shape.
 *
 * A task's row is never changed, but for what is erased of it. Submitting takes no lock that another submitter could
 * hold, except on the same idempotency key. Where a task stands is not known here: see
 * store/waiting.c.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_type_d.h"
#include "db/direct.h"
#include "base/errors.h"
#include "base/guc.h"
#include "base/inject.h"
#include "queue/match.h"
#include "store/dependency.h"
#include "store/task.h"
#include "store/tenant.h"
#include "store/waiting.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

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

static const DirectColumn shape_columns[] = { SHAPE_COLUMNS(DIRECT_ENTRY, DIRECT_LATER) };
static const DirectColumn task_columns[] = { TASK_COLUMNS(DIRECT_ENTRY, DIRECT_LATER) };

static DirectTable shape_table =
	DIRECT_TABLE("shape", shape_columns, .index_name = "shape_id", .index_key = { SHAPE_ID });
static DirectTable task_table =
	DIRECT_TABLE("task", task_columns, .index_name = "task_pkey", .index_key = { TASK_ID });

/* Whether a shape is stored; an error if it is one of another form. */
static bool
find_shape(int64 id, const char *form, const char *kind)
{
	Relation rel = direct_open(&shape_table);
	TupleTableSlot *row = direct_slot(&shape_table, rel);
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
	direct_slot_done(&shape_table, row);
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
							"VALUES ($1, $2, $3, $4, $5)" };
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
 * What a ready task of a shape demands, for a shape whose row was removed. False if there is no
 * such task.
 */
static bool
load_from_task(int64 shape, char **kind, Jsonb **requirements)
{
	static SpiQuery query = {
		"SELECT kind, requirements FROM gpu_orch.task WHERE id ="
		" (SELECT task_id FROM gpu_orch.ready_queue WHERE shape = $1 LIMIT 1)"
	};
	MemoryContext context = CurrentMemoryContext;
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_int8(&args, shape);
	found = spi_read(&query, &args, 1) == 1;
	if (found)
	{
		bool isnull;
		Datum value = spi_datum(0, 2, &isnull);
		MemoryContext inner = MemoryContextSwitchTo(context);

		*requirements = DatumGetJsonbPCopy(value);
		MemoryContextSwitchTo(inner);
		*kind = spi_text(0, 1);
	}
	spi_end();
	return found;
}

/*
 * What a shape demands, by its id. A shape never changes, so one that a transaction
 * in progress stores is read as well. Where the row is missing, a ready task tells: retention
 * removes rows while tasks are submitted, retried and released. False if there is none, as when
 * that transaction was rolled back. Results are allocated in the current memory context.
 */
bool
store_shape_load(int64 shape, char **kind, Jsonb **requirements)
{
	Relation rel = direct_open(&shape_table);
	TupleTableSlot *row = direct_slot(&shape_table, rel);
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
	direct_slot_done(&shape_table, row);
	direct_close(rel);
	return found || load_from_task(shape, kind, requirements);
}

/* The id of an earlier task with the same key, or 0; an error if its body differs. */
static int64
find_by_key(const NewTask *task, int64 shape)
{
	static SpiQuery query = {
		"SELECT id, shape = $3 AND priority = $4 AND max_attempts = $5"
		" AND payload IN ($6, " ERASED_PAYLOAD ")"
		" AND timeout IS NOT DISTINCT FROM $7 AND run_at IS NOT DISTINCT FROM $8"
		" AND ARRAY(SELECT parent FROM gpu_orch.task_dependency d WHERE d.task_id = task.id"
		"           ORDER BY parent) = ARRAY(SELECT p FROM unnest($9::bigint[]) p ORDER BY p) "
		"FROM gpu_orch.task WHERE tenant = $1 AND idempotency_key = $2"
	};
	SpiArgs args = SPI_ARGS_INIT;
	Datum *parents = palloc((task->n_parents + 1) * sizeof(Datum));
	int64 id = 0;
	bool same = true;

	for (int i = 0; i < task->n_parents; i++)
		parents[i] = Int64GetDatum(task->parents[i]);
	spi_lock_for_write("task");
	spi_begin();
	spi_arg_int4(&args, task->tenant);
	spi_arg_text(&args, task->idempotency_key);
	spi_arg_int8(&args, shape);
	spi_arg_int4(&args, task->priority);
	spi_arg_int4(&args, task->max_attempts);
	spi_arg_jsonb(&args, task->payload);
	spi_arg(&args, INTERVALOID, IntervalPGetDatum(task->timeout), task->timeout == NULL);
	spi_arg_time(&args, task->run_at);
	spi_arg(&args, INT8ARRAYOID,
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
		"RETURNING id"
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
	spi_arg(&args, INTERVALOID, IntervalPGetDatum(task->timeout), task->timeout == NULL);
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

/* Insert a task that has none; *place is where its row is. */
static int64
insert_plain(const NewTask *task, int64 shape, TimestampTz now, ItemPointer place)
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
	*place = row->tid;
	direct_close(rel);
	return id;
}

/*
 * Store a task and place it. Returns its id, or that of the earlier task with
 * the same idempotency key. Works at every isolation level. The memo serves the
 * submissions of one call.
 */
int64
store_task_submit(const NewTask *task, ShapeMemo *memo, TimestampTz now)
{
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
		id = insert_plain(task, shape, now, &slot.row);

	store_dependency_add(id, task->parents, task->n_parents);

	INJECT("submit.stored");
	slot.task_id = id;
	slot.shape = shape;
	slot.priority = task->priority;
	slot.tenant = task->tenant;
	slot.attempt = 1;
	store_waiting_place(&slot, task->run_at, task->n_parents > 0, now);
	return id;
}

/*
 * Read a task's row into a slot, to be given back by the caller; NULL if there is none. It is
 * looked for where it was seen, unless that is NULL or invalid, and by its index then. A
 * snapshot from before the table's lock does not see rows that a TRUNCATE took out and its
 * transaction put back, so a row that is missing is looked for once more.
 */
static TupleTableSlot *
read_task(int64 task_id, ItemPointer seen, Snapshot snapshot)
{
	Relation rel = direct_open(&task_table);
	TupleTableSlot *row = direct_slot(&task_table, rel);
	ScanKeyData key;
	bool found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(task_id));
	found = seen != NULL && ItemPointerIsValid(seen) &&
		direct_find_near(rel, snapshot, seen, row) &&
		direct_int8(&task_table, row, TASK_ID) == task_id;
	if (!found)
		found = direct_find(&task_table, rel, snapshot, &key, 1, row, NULL);
	if (!found)
	{
		Snapshot later = direct_snapshot();

		found = direct_find(&task_table, rel, later, &key, 1, row, NULL);
		direct_release(later);
	}
	if (found)
		slot_getallattrs(row);
	else
	{
		direct_slot_done(&task_table, row);
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
store_task_body(const TaskSlot *slot, Snapshot snapshot, TaskBody *body)
{
	ItemPointerData seen = slot->row;
	TupleTableSlot *row = read_task(slot->task_id, &seen, snapshot);
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
	direct_slot_done(&task_table, row);
	return true;
}

/* How often a task may be tried. */
int32
store_task_max_attempts(int64 task_id)
{
	Snapshot snapshot = direct_snapshot();
	TupleTableSlot *row = read_task(task_id, NULL, snapshot);
	int32 max_attempts;

	if (row == NULL)
		elog(ERROR, "gpu_orch: task " INT64_FORMAT " does not exist", task_id);
	max_attempts = direct_int4(&task_table, row, TASK_MAX_ATTEMPTS);
	direct_slot_done(&task_table, row);
	direct_release(snapshot);
	return max_attempts;
}

/* The tenant of a task, read without a lock; false if there is no such task. */
bool
store_task_tenant(int64 task_id, int32 *tenant)
{
	Snapshot snapshot = direct_snapshot();
	TupleTableSlot *row = read_task(task_id, NULL, snapshot);

	if (row != NULL)
	{
		*tenant = direct_int4(&task_table, row, TASK_TENANT);
		direct_slot_done(&task_table, row);
	}
	direct_release(snapshot);
	return row != NULL;
}

/*
 * Take the locks of the tables that hold a task and its state, for whoever reads where a task
 * is before he moves it.
 */
void
store_task_lock_places(void)
{
	static const char *const places[] = { "task", "waiting", "ready_queue", "lease", "attempt" };

	for (int i = 0; i < lengthof(places); i++)
		spi_lock_for_write(places[i]);
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
		"FOR NO KEY UPDATE"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	store_task_lock_places();
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
	static SpiQuery query = { "SELECT " TASK_STANDS("$1") };
	SpiArgs args = SPI_ARGS_INIT;
	bool stands;

	store_task_lock_places();
	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_read(&query, &args, 1);
	stands = spi_bool(0, 1);
	spi_end();
	return stands;
}

/* Whether the payload of a task was erased. */
bool
store_task_is_erased(int64 task_id)
{
	static SpiQuery query = {
		"SELECT 1 FROM gpu_orch.task WHERE id = $1 AND payload = " ERASED_PAYLOAD
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool erased;

	spi_begin();
	spi_arg_int8(&args, task_id);
	erased = spi_read(&query, &args, 1) == 1;
	spi_end();
	return erased;
}

/* Keep a task from being removed until the end of the transaction. False if it does not exist. */
static bool
keep_task(int64 task_id)
{
	static SpiQuery query = { "SELECT 1 FROM gpu_orch.task WHERE id = $1 FOR KEY SHARE" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_arg_int8(&args, task_id);
	return spi_run(&query, &args) == 1;
}

/* A task that was submitted after this is too young to be removed. */
static TimestampTz
may_be_removed(TimestampTz now)
{
	return now - MIN_RETENTION_TASKS / 2 * USECS_PER_MINUTE;
}

/*
 * Whether all of these tasks exist, as far as the role may know: one of a tenant
 * that it may not use does not. If not, *missing is the first that does not. Those that
 * exist are not removed before the end of the transaction.
 */
bool
store_task_parents_exist(const int64 *parents, int n_parents, Oid role, TimestampTz now,
						 int64 *missing)
{
	static SpiQuery query = { "SELECT tenant, submitted_at FROM gpu_orch.task WHERE id = $1" };
	bool exist = true;

	spi_lock_for_write("task");
	spi_begin();
	for (int i = 0; exist && i < n_parents; i++)
	{
		SpiArgs args = SPI_ARGS_INIT;

		spi_arg_int8(&args, parents[i]);
		exist = spi_read(&query, &args, 1) == 1 && store_tenant_allows(spi_int4(0, 1), role) &&
			(spi_time(0, 2) > may_be_removed(now) || keep_task(parents[i]));
		*missing = parents[i];
	}
	spi_end();
	return exist;
}
