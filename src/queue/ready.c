/*
 * queue/ready.c
 *	  The queue of claimable tasks: all access to ready_queue.
 *
 * The index (shape, rank, tag, task_id) holds the tasks of each shape in the order
 * in which they are claimed. A claim takes the next entry of its capability set's
 * ring (queue/ring.c) and deletes that row without ever waiting for another
 * claimer. When the ring is empty, one claimer looks into the index: from the
 * bounds of the matching shapes (queue/bound.c) it merges their rows in order,
 * passing over what others are taking. A row that comes back is a new row.
 *
 * Nothing here knows about workers, leases or limits.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/claim_stats.h"
#include "db/direct.h"
#include "base/guc.h"
#include "miscadmin.h"
#include "queue/tag.h"
#include "queue/scan.h"
#include "queue/ready.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* clang-format off */
#define READY_COLUMNS(COLUMN, LATER) \
	COLUMN(READY_SHAPE, shape, INT8OID) \
	COLUMN(READY_TASK_ID, task_id, INT8OID) \
	COLUMN(READY_RANK, rank, INT4OID) \
	COLUMN(READY_TAG, tag, INT8OID) \
	COLUMN(READY_TENANT, tenant, INT4OID) \
	COLUMN(READY_ATTEMPT, attempt, INT4OID) \
	COLUMN(READY_FAULTS, faults, INT4OID) \
	COLUMN(READY_LOSSES, losses, INT4OID)
/* clang-format on */

enum
{
	READY_COLUMN_0,
	READY_COLUMNS(DIRECT_NUMBER, DIRECT_NUMBER)
};

static const DirectColumn ready_columns[] = { READY_COLUMNS(DIRECT_ENTRY, DIRECT_LATER) };

static DirectTable ready_queue =
	DIRECT_TABLE("ready_queue", ready_columns, .index_name = "ready_queue_head",
				 .index_key = { READY_SHAPE, READY_RANK, READY_TAG, READY_TASK_ID });

/* What this transaction did to the queue, for the rings; see at_end(). */
static struct
{
	QueueId queue;
	bool put;
	QueueKey first_put;
	bool took;
	QueueKey first_taken;
} done;

struct QueueScan
{
	Relation table;
	Snapshot snapshot; /* NULL: none taken yet */
	TupleTableSlot *row;
	Ring ring;
	int64 worker;
	uint32 model; /* that the worker holds warm */
	int wanted;	  /* rows that the caller may take */
	ShapeTest test;
	void *arg;
	bool took;
	BlockNumber n_blocks; /* of the table, as far as it was looked at */
	int n_missing;		  /* shapes that are not there, at the last judgement */
	Found *own;			  /* of a transaction that made rows claimable itself; see take_own() */
	int own_next;
};

/*
 * Tell the rings when rows become claimable: before the commit, so that no ring
 * that says it is empty outlives it, and after, so that none is out of order; and
 * after an abort, of the whole or of a part, for the rows that it gives back.
 */
static void
at_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			if (done.put)
				queue_ring_watch(done.queue, &done.first_put, GetTopTransactionId());
			if (done.took)
				queue_ring_watch(done.queue, &done.first_taken, GetTopTransactionId());
			/* FALLTHROUGH */
		case XACT_EVENT_PRE_COMMIT:
			if (done.put)
				queue_ring_disturb(done.queue, &done.first_put);
			return;
		case XACT_EVENT_COMMIT:
			if (done.put)
				queue_ring_disturb(done.queue, &done.first_put);
			break;
		case XACT_EVENT_ABORT:
			if (done.took)
				queue_ring_disturb(done.queue, &done.first_taken);
			break;
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	done.put = done.took = false;
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && done.took)
		queue_ring_disturb(done.queue, &done.first_taken);
}

/* Register the transaction callbacks. To be called once, from _PG_init. */
void
store_queue_init(void)
{
	RegisterXactCallback(at_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

static void
note(bool *any, QueueKey *first, QueueId queue, const QueueKey *key)
{
	done.queue = queue;
	if (!*any || queue_key_before(key, first))
		*first = *key;
	*any = true;
}

/* Whether rows of a shape were seen to stand in the queue; if none does, its place has no work any more. */
static bool
has_rows(QueueScan *queue, int64 shape)
{
	ShapeView view;
	Found *found;
	bool seen;

	if (!queue_bound_find(queue->ring.queue, shape, &view))
		return false;
	found = store_look(queue->table, direct_index(&ready_queue), &view, 1, 1, false);
	seen = found->n > 0 || !found->settled;
	pfree(found);
	return seen;
}

/*
 * Judge shapes of which it is not known yet whether the capability set meets them;
 * they are to be asked for again afterwards. A shape that is not stored was rolled back
 * together with its rows, or is about to be stored: nothing is noted of it. It comes
 * before the rows of its tasks, so where these stand and it is still not there it is
 * missing, as during a restore: this scan passes over as many shapes as are missing.
 */
static void
judge(QueueScan *queue, const int64 *shapes, int n)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(outer, "gpu_orch verdicts", ALLOCSET_DEFAULT_SIZES);

	queue->n_missing = 0;
	for (int i = 0; i < n; i++)
	{
		uint32 model = 0;
		Verdict verdict;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		verdict = queue->test(shapes[i], queue->arg, &model);
		if (verdict == VERDICT_UNKNOWN && has_rows(queue, shapes[i]))
		{
			verdict = queue->test(shapes[i], queue->arg, &model);
			queue->n_missing += verdict == VERDICT_UNKNOWN;
		}
		if (verdict != VERDICT_UNKNOWN)
			queue_ring_set_verdict(&queue->ring, shapes[i], verdict == VERDICT_YES, model);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
}

/*
 * Fill the ring. Returns how many rows were found for it, 0 for none, or -1 when
 * it is to be asked again.
 */
static int
fill_ring(QueueScan *queue)
{
	Ring *ring = &queue->ring;
	Found *found;
	ShapeView *views;
	int64 *unknown;
	int n_views;
	int n_unknown;
	int want = queue->wanted;
	int n;

	CHECK_FOR_INTERRUPTS();
	if (!queue_ring_begin_fill(ring, &want))
		return -1;
	n_views = queue_ring_candidates(ring, &views, &unknown, &n_unknown);
	if (n_views < 0 || n_unknown > queue->n_missing)
	{
		queue_ring_abandon_fill(ring);
		if (n_views < 0)
			store_look_discover(queue->table, direct_index(&ready_queue));
		judge(queue, unknown, n_unknown);
		pfree(views);
		pfree(unknown);
		return -1;
	}
	found = store_look(queue->table, direct_index(&ready_queue), views, n_views, want, false);
	n = found->n;
	if (n == 0 && found->paused)
	{
		queue_ring_abandon_fill(ring);
		n = -1;
	}
	else
		queue_ring_end_fill(ring, found->entries, n, found->all, found->settled && n_unknown == 0);
	pfree(found);
	pfree(views);
	pfree(unknown);
	return n;
}

/*
 * The next entry for a transaction that made rows claimable itself: it sees them
 * in their places, nobody else does, so it looks for itself alone. False when there
 * is none.
 */
static bool
take_own(QueueScan *queue, RingEntry *entry)
{
	while (queue->own == NULL || queue->own_next == queue->own->n)
	{
		ShapeView *views;
		int64 *unknown;
		int n_views;
		int n_unknown;

		CHECK_FOR_INTERRUPTS();
		n_views = queue_ring_candidates(&queue->ring, &views, &unknown, &n_unknown);
		if (n_views < 0 || n_unknown > queue->n_missing)
		{
			if (n_views < 0)
				store_look_discover(queue->table, direct_index(&ready_queue));
			judge(queue, unknown, n_unknown);
			pfree(views);
			pfree(unknown);
			continue;
		}
		queue->own = store_look(queue->table, direct_index(&ready_queue), views, n_views,
								queue->wanted, true);
		queue->own_next = 0;
		pfree(views);
		pfree(unknown);
		if (queue->own->n == 0 && !queue->own->paused)
			return false;
	}
	*entry = queue->own->entries[queue->own_next++];
	return true;
}

/*
 * Begin to claim up to n rows for a worker with these capabilities. Must be closed
 * before the function that opened it returns; everything is in the current memory
 * context.
 */
QueueScan *
store_queue_open(int64 capset, int64 worker, int n, ShapeTest test, void *arg)
{
	QueueScan *queue = palloc0(sizeof(QueueScan));

	queue->table = direct_open(&ready_queue);
	queue->row = table_slot_create(queue->table, NULL);
	queue->ring.queue = store_look_queue(queue->table);
	queue->ring.capset = capset;
	queue->ring.index = -1;
	queue->worker = worker;
	queue->model = guc_locality_window > 0 ? queue_ring_warm_model(worker) : 0;
	queue->wanted = n;
	queue->test = test;
	queue->arg = arg;
	return queue;
}

static void
read_row(TupleTableSlot *row, TaskSlot *slot)
{
	slot->shape = direct_int8(&ready_queue, row, READY_SHAPE);
	slot->task_id = direct_int8(&ready_queue, row, READY_TASK_ID);
	slot->priority = ~direct_int4(&ready_queue, row, READY_RANK);
	slot->tag = direct_int8(&ready_queue, row, READY_TAG);
	slot->tenant = direct_int4(&ready_queue, row, READY_TENANT);
	slot->attempt = direct_int4(&ready_queue, row, READY_ATTEMPT);
	slot->faults = direct_int4(&ready_queue, row, READY_FAULTS);
	slot->losses = direct_int4(&ready_queue, row, READY_LOSSES);
}

/*
 * Read an entry's row, if it is still there; of a row that is newer than the snapshot, with a new one. Vacuum may
 * have cut off its page before we had the table's lock, but not since.
 */
static bool
fetch(QueueScan *queue, RingEntry *entry, TaskSlot *slot)
{
	bool fresh = false;

	if (ItemPointerGetBlockNumber(&entry->tid) >= queue->n_blocks)
		queue->n_blocks = RelationGetNumberOfBlocks(queue->table);
	if (ItemPointerGetBlockNumber(&entry->tid) >= queue->n_blocks)
		return false;
	for (;;)
	{
		if (queue->snapshot == NULL)
		{
			queue->snapshot = direct_snapshot();
			fresh = true;
		}
		if (table_tuple_fetch_row_version(queue->table, &entry->tid, queue->snapshot, queue->row))
		{
			read_row(queue->row, slot);
			return slot->task_id == entry->key.task_id && slot->shape == entry->shape;
		}
		if (fresh)
			return false;
		direct_release(queue->snapshot);
		queue->snapshot = NULL;
	}
}

/*
 * Take the next row that nobody else is taking: delete it and return what stood
 * there, and the snapshot that saw it. False when nothing is left. Never waits for
 * another transaction.
 */
bool
store_queue_take(QueueScan *queue, TaskSlot *slot, Snapshot *snapshot)
{
	for (;;)
	{
		RingEntry entry;
		TM_FailureData failure;
		RingAnswer answer;

		if (!done.put)
			answer = queue_ring_pop(&queue->ring, queue->model, &entry);
		else
			answer = take_own(queue, &entry) ? RING_TOOK : RING_EMPTY;
		if (answer == RING_EMPTY || (answer == RING_FILL && fill_ring(queue) == 0))
			return false;
		if (answer == RING_FILL)
			continue;
		if (!fetch(queue, &entry, slot) ||
			table_tuple_delete(queue->table, &entry.tid, GetCurrentCommandId(true), queue->snapshot,
							   InvalidSnapshot, false, &failure, false) != TM_Ok)
		{
			if (!done.put)
				queue_ring_missed(&queue->ring);
			claim_stats_skip();
			continue;
		}
		note(&done.took, &done.first_taken, queue->ring.queue, &entry.key);
		queue_tag_claimed(queue->ring.queue, slot->shape, slot->tag);
		queue_ring_set_warm_model(queue->worker, entry.model);
		queue->took = true;
		*snapshot = queue->snapshot;
		return true;
	}
}

/* Give back what store_queue_open() took. */
void
store_queue_close(QueueScan *queue)
{
	ExecDropSingleTupleTableSlot(queue->row);
	if (queue->snapshot != NULL)
		direct_release(queue->snapshot);
	direct_close(queue->table);
	if (queue->took)
		CommandCounterIncrement();
	pfree(queue);
}

/* Add a slot's eight columns as arguments, in the order of the columns of waiting and lease. */
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
	spi_arg_int8(args, slot->tag);
}

/* Read a slot from the first eight columns of a result row. */
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
	slot->tag = spi_int8(row, 8);
}

/* Give a task that is about to wait for its tenant's room its place among the others. */
void
store_queue_tag(TaskSlot *slot, double weight)
{
	Relation table = direct_open(&ready_queue);
	QueueId queue = store_look_queue(table);

	if (!queue_bound_is_known(queue))
		store_look_discover(table, direct_index(&ready_queue));
	if (slot->tag == 0)
		slot->tag = queue_tag_next(queue, slot->shape, slot->tenant, weight);
	direct_close(table);
}

/*
 * Make a task claimable once this transaction commits; weight is its tenant's. A
 * task that was ready before keeps its tag and thereby its place. False, and
 * nothing changed, when the queue has no room for another shape.
 */
bool
store_queue_put(const TaskSlot *slot, double weight)
{
	Relation table = direct_open(&ready_queue);
	QueueId queue = store_look_queue(table);
	QueueKey key = { ~slot->priority, slot->tag, slot->task_id };
	DirectRow *row;
	bool room;

	if (!queue_bound_is_known(queue))
		store_look_discover(table, direct_index(&ready_queue));
	room = queue_bound_room(queue, slot->shape);
	if (room)
	{
		if (key.tag == 0)
			key.tag = queue_tag_next(queue, slot->shape, slot->tenant, weight);
		row = direct_new_row(&ready_queue);
		row->values[READY_SHAPE] = Int64GetDatum(slot->shape);
		row->values[READY_TASK_ID] = Int64GetDatum(slot->task_id);
		row->values[READY_RANK] = Int32GetDatum(key.rank);
		row->values[READY_TAG] = Int64GetDatum(key.tag);
		row->values[READY_TENANT] = Int32GetDatum(slot->tenant);
		row->values[READY_ATTEMPT] = Int32GetDatum(slot->attempt);
		row->values[READY_FAULTS] = Int32GetDatum(slot->faults);
		row->values[READY_LOSSES] = Int32GetDatum(slot->losses);
		direct_insert(row, table);
		room = queue_bound_lower(queue, slot->shape, &key);
		if (room)
			note(&done.put, &done.first_put, queue, &key);
		else
		{
			TM_FailureData failure;

			/* Somebody else took the last place since we asked for it. */
			(void) table_tuple_delete(table, &row->tid, GetCurrentCommandId(true),
									  GetActiveSnapshot(), InvalidSnapshot, true, &failure, false);
		}
		CommandCounterIncrement();
	}
	direct_close(table);
	return room;
}

#define REMOVED_COLUMNS "shape, task_id, ~rank, tenant, attempt, faults, losses, tag"

/*
 * Take one task out by its id. False when it is not there; without wait also when
 * somebody else has it locked, such as a claimer that is at it.
 */
bool
store_queue_remove(int64 task_id, bool wait, TaskSlot *slot)
{
	static SpiQuery waiting = { "DELETE FROM gpu_orch.ready_queue WHERE task_id = $1 "
								"RETURNING " REMOVED_COLUMNS,
								1,
								{ INT8OID } };
	static SpiQuery passing = {
		"DELETE FROM gpu_orch.ready_queue WHERE task_id = (SELECT task_id FROM gpu_orch.ready_queue"
		" WHERE task_id = $1 FOR UPDATE SKIP LOCKED) RETURNING " REMOVED_COLUMNS,
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
	if (found)
	{
		Relation table = direct_open(&ready_queue);
		QueueKey key = { ~slot->priority, slot->tag, slot->task_id };

		note(&done.took, &done.first_taken, store_look_queue(table), &key);
		direct_close(table);
	}
	return found;
}

/* A tenant's task held a worker for so long: its later tasks bear the difference. */
void
store_queue_served(int32 tenant, int64 microseconds)
{
	Relation table = direct_open(&ready_queue);

	queue_tag_served(store_look_queue(table), tenant, microseconds);
	direct_close(table);
}

/* Whether a task of a shape could become ready: all places for shapes may be taken. */
bool
store_queue_has_room(int64 shape)
{
	Relation table = direct_open(&ready_queue);
	bool room = queue_bound_room(store_look_queue(table), shape);

	direct_close(table);
	return room;
}

/* See store_look_recheck(). For the leader. */
void
store_queue_recheck(void)
{
	Relation table = direct_open(&ready_queue);

	store_look_recheck(table, direct_index(&ready_queue));
	direct_close(table);
}

/* Heads of each lower priority that one pass of the leader moves up, for each shape. */
#define AGE_BATCH 16

/*
 * Move ready tasks that have waited for gpu_orch.priority_ageing up to the highest
 * priority that waits in their shape, a few of each lower one in their order.
 * Returns how many.
 */
int64
store_queue_age(TimestampTz now)
{
	static SpiQuery query = {
		"WITH RECURSIVE class AS ("
		" (SELECT shape, rank, rank AS top FROM gpu_orch.ready_queue ORDER BY shape, rank LIMIT 1)"
		" UNION ALL"
		" SELECT n.shape, n.rank, CASE WHEN n.shape = c.shape THEN c.top ELSE n.rank END"
		" FROM class c, LATERAL (SELECT r.shape, r.rank FROM gpu_orch.ready_queue r"
		"  WHERE (r.shape, r.rank) > (c.shape, c.rank) ORDER BY r.shape, r.rank LIMIT 1) n),"
		" old AS MATERIALIZED (SELECT h.task_id, c.top FROM class c, LATERAL"
		"  (SELECT r.task_id FROM gpu_orch.ready_queue r WHERE r.shape = c.shape"
		"   AND r.rank = c.rank ORDER BY r.tag, r.task_id LIMIT $2 FOR UPDATE SKIP LOCKED) h,"
		"  gpu_orch.task t WHERE c.rank > c.top AND t.id = h.task_id"
		"  AND greatest(t.submitted_at, t.run_at) <= $1) "
		"DELETE FROM gpu_orch.ready_queue r USING old WHERE r.task_id = old.task_id "
		"RETURNING r.shape, r.task_id, ~old.top, r.tenant, r.attempt, r.faults, r.losses, r.tag",
		2,
		{ TIMESTAMPTZOID, INT8OID }
	};
	SpiArgs args = SPI_ARGS_INIT;
	TaskSlot *slots;
	int64 n;

	if (guc_priority_ageing == 0)
		return 0;
	spi_begin();
	spi_arg_time(&args, now - (int64) guc_priority_ageing * 1000);
	spi_arg_int8(&args, AGE_BATCH);
	n = (int64) spi_run(&query, &args);
	slots = palloc((n + 1) * sizeof(TaskSlot));
	for (int64 i = 0; i < n; i++)
		store_queue_slot_read(&slots[i], i);
	for (int64 i = 0; i < n; i++)
		if (!store_queue_put(&slots[i], 1))
			elog(ERROR, "gpu_orch: no room for a shape that has a place");
	spi_end();
	return n;
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
		1,
		{ INT8OID }
	};
	SpiArgs args = SPI_ARGS_INIT;
	int n;

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
