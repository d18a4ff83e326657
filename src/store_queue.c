/*
 * store_queue.c
 *	  The queue of claimable tasks: all access to ready_queue.
 *
 * A claim works on the index (shape, priority DESC, task_id) directly. It jumps
 * from shape to shape, so its cost is the number of shapes with work, not the
 * number of tasks; it asks the caller which shapes match, takes the best of
 * their heads, and deletes that row without ever waiting for another claimer. A
 * row that somebody else is taking is passed over, and its update chain is not
 * followed: a row that comes back is a new row.
 *
 * Nothing here knows about workers, leases or limits.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "compat.h"
#include "executor/tuptable.h"
#include "store_queue.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Columns of ready_queue. */
enum
{
	COL_SHAPE = 1,
	COL_TASK_ID,
	COL_PRIORITY,
	COL_TENANT,
	COL_ATTEMPT,
	COL_FAULTS,
	COL_LOSSES
};

/* The best row known of one shape. */
typedef struct Head
{
	TaskSlot	slot;
	ItemPointerData tid;
	IndexScanDesc scan;			/* opened when the row after the head is wanted */
	bool		empty;
} Head;

struct QueueScan
{
	Relation	table;
	Relation	index;
	Snapshot	snapshot;
	TupleTableSlot *row;
	Head	   *heads;
	int			n_heads;
	int			max_heads;
};

static int32
attribute(TupleTableSlot *row, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(row, column, &isnull);

	Assert(!isnull);
	return DatumGetInt32(value);
}

static int64
attribute8(TupleTableSlot *row, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(row, column, &isnull);

	Assert(!isnull);
	return DatumGetInt64(value);
}

static void
read_row(TupleTableSlot *row, TaskSlot *slot)
{
	slot->shape = attribute8(row, COL_SHAPE);
	slot->task_id = attribute8(row, COL_TASK_ID);
	slot->priority = attribute(row, COL_PRIORITY);
	slot->tenant = attribute(row, COL_TENANT);
	slot->attempt = attribute(row, COL_ATTEMPT);
	slot->faults = attribute(row, COL_FAULTS);
	slot->losses = attribute(row, COL_LOSSES);
}

/* Whether a stands before b: higher priority first, then first in, first out. */
static bool
before(const TaskSlot *a, const TaskSlot *b)
{
	if (a->priority != b->priority)
		return a->priority > b->priority;
	return a->task_id < b->task_id;
}

/*
 * Find the head of each shape with work that the test accepts, under a fresh
 * snapshot. The result lives in the current memory context and must be closed
 * before the function that opened it returns.
 */
QueueScan *
store_queue_open(ShapeTest test, void *arg)
{
	QueueScan  *queue = palloc0(sizeof(QueueScan));
	Oid			namespace = get_namespace_oid("gpu_orch", false);
	IndexScanDesc scan;
	ScanKeyData key;
	int64		last = PG_INT64_MIN;
	bool		first = true;

	queue->table = table_open(get_relname_relid("ready_queue", namespace), RowExclusiveLock);
	queue->index = index_open(get_relname_relid("ready_queue_head", namespace), AccessShareLock);
	queue->snapshot = RegisterSnapshot(GetTransactionSnapshot());
	queue->row = table_slot_create(queue->table, NULL);
	queue->max_heads = 16;
	queue->heads = palloc(queue->max_heads * sizeof(Head));

	scan = compat_index_beginscan(queue->table, queue->index, queue->snapshot, 1);
	for (;;)
	{
		Head	   *head;

		ScanKeyInit(&key, 1, first ? BTGreaterEqualStrategyNumber : BTGreaterStrategyNumber,
					first ? F_INT8GE : F_INT8GT, Int64GetDatum(last));
		index_rescan(scan, &key, 1, NULL, 0);
		if (!index_getnext_slot(scan, ForwardScanDirection, queue->row))
			break;
		first = false;
		last = attribute8(queue->row, COL_SHAPE);
		if (!test(last, arg))
			continue;
		if (queue->n_heads == queue->max_heads)
		{
			queue->max_heads *= 2;
			queue->heads = repalloc(queue->heads, queue->max_heads * sizeof(Head));
		}
		head = &queue->heads[queue->n_heads++];
		memset(head, 0, sizeof(Head));
		read_row(queue->row, &head->slot);
		head->tid = queue->row->tts_tid;
	}
	index_endscan(scan);
	return queue;
}

/* Move a head to the row after it. */
static void
advance(QueueScan *queue, Head *head)
{
	TaskSlot	passed = head->slot;

	if (head->scan == NULL)
	{
		ScanKeyData key;

		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(passed.shape));
		head->scan = compat_index_beginscan(queue->table, queue->index, queue->snapshot, 1);
		index_rescan(head->scan, &key, 1, NULL, 0);
	}
	while (index_getnext_slot(head->scan, ForwardScanDirection, queue->row))
	{
		read_row(queue->row, &head->slot);
		if (before(&passed, &head->slot))
		{
			head->tid = queue->row->tts_tid;
			return;
		}
	}
	head->empty = true;
}

/*
 * Take the best row that nobody else is taking: delete it and return what stood
 * there. False when nothing is left. Never waits for another transaction.
 */
bool
store_queue_take(QueueScan *queue, TaskSlot *slot)
{
	for (;;)
	{
		Head	   *best = NULL;
		TM_FailureData failure;
		TM_Result	result;

		for (int i = 0; i < queue->n_heads; i++)
			if (!queue->heads[i].empty &&
				(best == NULL || before(&queue->heads[i].slot, &best->slot)))
				best = &queue->heads[i];
		if (best == NULL)
			return false;

		result = table_tuple_delete(queue->table, &best->tid, GetCurrentCommandId(true),
									queue->snapshot, InvalidSnapshot, false, &failure, false);
		*slot = best->slot;
		advance(queue, best);
		if (result == TM_Ok)
		{
			CommandCounterIncrement();
			return true;
		}
	}
}

/* Give back what store_queue_open() took. */
void
store_queue_close(QueueScan *queue)
{
	for (int i = 0; i < queue->n_heads; i++)
		if (queue->heads[i].scan != NULL)
			index_endscan(queue->heads[i].scan);
	ExecDropSingleTupleTableSlot(queue->row);
	UnregisterSnapshot(queue->snapshot);
	index_close(queue->index, AccessShareLock);
	table_close(queue->table, NoLock);
	pfree(queue->heads);
	pfree(queue);
}

/* Add a slot's seven columns as arguments, in the order of the columns. */
void
store_queue_slot_args(SpiArgs *args, const TaskSlot *slot)
{
	spi_arg_int8(args, slot->shape);
	spi_arg_int8(args, slot->task_id);
	spi_arg_int4(args, slot->priority);
	spi_arg_int4(args, slot->tenant);
	spi_arg_int4(args, slot->attempt);
	spi_arg_int4(args, slot->faults);
	spi_arg_int4(args, slot->losses);
}

/* Read a slot from the first seven columns of a result row. */
void
store_queue_slot_read(TaskSlot *slot, uint64 row)
{
	slot->shape = spi_int8(row, 1);
	slot->task_id = spi_int8(row, 2);
	slot->priority = spi_int4(row, 3);
	slot->tenant = spi_int4(row, 4);
	slot->attempt = spi_int4(row, 5);
	slot->faults = spi_int4(row, 6);
	slot->losses = spi_int4(row, 7);
}

/* Make a task claimable. */
void
store_queue_put(const TaskSlot *slot)
{
	static SpiQuery put = {
		"INSERT INTO gpu_orch.ready_queue (shape, task_id, priority, tenant, attempt, faults, losses) "
		"VALUES ($1, $2, $3, $4, $5, $6, $7)",
		7, {INT8OID, INT8OID, INT4OID, INT4OID, INT4OID, INT4OID, INT4OID}
	};
	SpiArgs		args = SPI_ARGS_INIT;

	spi_begin();
	store_queue_slot_args(&args, slot);
	spi_run_one(&put, &args, "making a task claimable");
	spi_end();
}

/*
 * Take one task out by its id, waiting for a claimer that is at it. False when
 * it is not there.
 */
bool
store_queue_remove(int64 task_id, TaskSlot *slot)
{
	static SpiQuery query = {
		"DELETE FROM gpu_orch.ready_queue WHERE task_id = $1 "
		"RETURNING shape, task_id, priority, tenant, attempt, faults, losses",
		1, {INT8OID}
	};
	SpiArgs		args = SPI_ARGS_INIT;
	bool		found;

	spi_begin();
	spi_arg_int8(&args, task_id);
	found = spi_run(&query, &args) == 1;
	if (found)
		store_queue_slot_read(slot, 0);
	spi_end();
	return found;
}

/*
 * Count the claimable tasks of each shape, each up to limit. Returns the number
 * of shapes; the array is allocated in the current memory context.
 */
int
store_queue_count(ShapeCount **counts, int64 limit)
{
	static SpiQuery query = {
		"WITH RECURSIVE s AS ("
		" (SELECT shape FROM gpu_orch.ready_queue ORDER BY shape LIMIT 1)"
		" UNION ALL"
		" SELECT (SELECT r.shape FROM gpu_orch.ready_queue r WHERE r.shape > s.shape"
		"         ORDER BY r.shape LIMIT 1)"
		" FROM s WHERE s.shape IS NOT NULL) "
		"SELECT shape, (SELECT count(*) FROM (SELECT 1 FROM gpu_orch.ready_queue r"
		"                                     WHERE r.shape = s.shape LIMIT $1) c) "
		"FROM s WHERE shape IS NOT NULL",
		1, {INT8OID}
	};
	SpiArgs		args = SPI_ARGS_INIT;
	int			n;

	spi_begin();
	spi_arg_int8(&args, limit);
	n = (int) spi_read(&query, &args, 0);
	*counts = SPI_palloc((n + 1) * sizeof(ShapeCount));
	for (int i = 0; i < n; i++)
	{
		(*counts)[i].shape = spi_int8(i, 1);
		(*counts)[i].count = spi_int8(i, 2);
	}
	spi_end();
	return n;
}
