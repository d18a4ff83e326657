/*
 * queue/ready.c
 *	  The queue of claimable tasks: all access to ready_queue.
 *
 * The index (shape, rank, tag, task_id) holds the tasks of each shape in the order
 * in which they are claimed. A claim takes the next entry of its capability set's
 * ring (queue/ring.c) and deletes that row without ever waiting for another
 * claimer. When the ring is empty, one claimer looks into the index: from the
 * bounds of the matching shapes (queue/places.c) it merges their rows in order,
 * passing over what others are taking. A row that comes back is a new row.
 *
 * Nothing here knows about workers, leases or limits.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xact.h"
#include "base/claim_stats.h"
#include "base/guc.h"
#include "base/inject.h"
#include "db/direct.h"
#include "miscadmin.h"
#include "queue/ready.h"
#include "queue/scan.h"
#include "queue/tag.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
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
	COLUMN(READY_LOSSES, losses, INT4OID) \
	LATER(READY_TASK_ROW, task_row, TIDOID)
/* clang-format on */

enum
{
	READY_COLUMN_0,
	READY_COLUMNS(DIRECT_NUMBER, DIRECT_NUMBER)
};

static const DirectColumn ready_columns[] = { READY_COLUMNS(DIRECT_ENTRY, DIRECT_LATER) };

static DirectTable ready_queue = DIRECT_TABLE(
	"ready_queue", ready_columns, .index_name = "ready_queue_head",
	.index_key = { READY_SHAPE, READY_RANK, READY_TAG, READY_TASK_ID }, .deletes = true);

/* What this transaction did to the queue, for the rings; see at_end(). */
static struct
{
	QueueId queue;
	bool put;
	QueueKey first_put;
	bool took;
	QueueKey first_taken;
} done;

struct QueueClaim
{
	QueueTable files;  /* the index is NULL until it is needed; then it stays open */
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
	bool alone;			  /* it takes what it finds for itself, not from the ring */
	Found *own;			  /* what it found for itself; NULL: it did not look yet */
	int own_next;
};

static int32
tenant_of(TupleTableSlot *row)
{
	return direct_int4(&ready_queue, row, READY_TENANT);
}

/* Open the index of the queue, before anything is held that others wait for. */
static void
open_index(QueueTable *files)
{
	if (files->index == NULL)
		files->index = index_open(direct_index(&ready_queue), AccessShareLock);
}

/* The queue as this session knew it last, for what is noted in memory alone. */
static struct
{
	QueueId id;
	uint64 changes; /* of the table's definition then; 0: never known */
} last_known;

/* Open the queue; with its index, unless that may be left to open_index(). */
static void
open_queue(QueueTable *files, bool with_index)
{
	files->table = direct_open(&ready_queue);
	files->index = NULL;
	files->tenant_of = tenant_of;
	last_known.id = queue_scan_id(files->table);
	last_known.changes = ready_queue.changes;
	if (with_index)
		open_index(files);
}

static void
close_queue(QueueTable *files)
{
	if (files->index != NULL)
		index_close(files->index, NoLock);
	direct_close(files->table);
}

/* See queue_scan_discover(). */
static void
discover(QueueTable *files)
{
	open_index(files);
	queue_scan_discover(files);
}

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
has_rows(QueueClaim *claim, int64 shape)
{
	ShapeView view;
	Found *found;
	bool seen;

	if (!queue_places_find(claim->ring.set.queue, shape, &view, true))
		return false;
	found = queue_scan_rows(&claim->files, &view, 1, 1, false);
	seen = found->n > 0 || !found->settled;
	pfree(found);
	return seen;
}

/*
 * Judge shapes of which it is not known yet whether the capability set meets them;
 * they are to be asked for again afterwards. A shape that is not stored was rolled back
 * together with its rows, or is about to be stored: nothing is noted of it. It comes
 * before the rows of its tasks, so where these stand and it is still not there it is
 * missing, as during a restore: this claim passes over as many shapes as are missing.
 */
static void
judge(QueueClaim *claim, const int64 *shapes, int n)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(outer, "gpu_orch verdicts", ALLOCSET_DEFAULT_SIZES);

	claim->n_missing = 0;
	for (int i = 0; i < n; i++)
	{
		uint32 model = 0;
		bool matches;
		bool stored;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		stored = claim->test(shapes[i], claim->arg, &matches, &model);
		if (!stored && has_rows(claim, shapes[i]))
		{
			stored = claim->test(shapes[i], claim->arg, &matches, &model);
			claim->n_missing += !stored;
		}
		if (stored)
			queue_places_set_verdict(&claim->ring.set, shapes[i], matches, model);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
}

/*
 * Find rows of all shapes that the capability set meets. NULL, when that has to be asked
 * again after learn_shapes(), with what is to be learned in *unknown; n_unknown -1
 * stands for everything.
 */
static Found *
find_rows(QueueClaim *claim, int want, int64 **unknown, int *n_unknown)
{
	Found *found = NULL;
	ShapeView *views;
	int n_views = queue_places_candidates(&claim->ring.set, &views, unknown, n_unknown);

	if (n_views < 0)
		*n_unknown = -1;
	else if (*n_unknown <= claim->n_missing)
		found = queue_scan_rows(&claim->files, views, n_views, want, done.put);
	pfree(views);
	return found;
}

/* Learn what find_rows() has found to be unknown. */
static void
learn_shapes(QueueClaim *claim, int64 *unknown, int n_unknown)
{
	if (n_unknown >= 0)
		judge(claim, unknown, n_unknown);
	else if (claim->ring.set.index < 0)
		queue_places_enter_set(&claim->ring.set);
	else
		discover(&claim->files);
}

static void
give_up_fill(int code, Datum claim)
{
	queue_ring_abandon_fill(&((QueueClaim *) DatumGetPointer(claim))->ring);
}

/*
 * Fill the ring, or find out that this claim has to look for itself. True when nothing
 * is claimable; else the ring is to be asked again. However the fill ends, by an
 * error or the end of the session too, others may fill the ring then.
 */
static bool
fill_ring(QueueClaim *claim)
{
	Found *found;
	int64 *unknown;
	int n_unknown;
	int want = claim->wanted;

	CHECK_FOR_INTERRUPTS();
	open_index(&claim->files);
	switch (queue_ring_begin_fill(&claim->ring, &want))
	{
		case FILL_OTHERS:
			return false;
		case FILL_BUSY:
			claim->alone = true;
			return false;
		case FILL_BEGUN:
			break;
	}
	PG_ENSURE_ERROR_CLEANUP(give_up_fill, PointerGetDatum(claim));
	{
		INJECT("claim.fill");
		found = find_rows(claim, want, &unknown, &n_unknown);
	}
	PG_END_ENSURE_ERROR_CLEANUP(give_up_fill, PointerGetDatum(claim));
	if (found == NULL || (found->n == 0 && found->paused))
	{
		queue_ring_abandon_fill(&claim->ring);
		if (found == NULL)
			learn_shapes(claim, unknown, n_unknown);
		return false;
	}
	if (!queue_ring_end_fill(&claim->ring, found->entries, found->n, found->all,
							 found->settled && n_unknown == 0))
	{
		claim->alone = true;
		claim->own = found;
		claim->own_next = 0;
	}
	return found->n == 0;
}

/*
 * The next entry for a claim that looks for itself alone: in a transaction that
 * made rows claimable, which sees them in their places while nobody else does, or when
 * the ring could not be had. False when there is none.
 */
static bool
take_own(QueueClaim *claim, RingEntry *entry)
{
	open_index(&claim->files);
	while (claim->own == NULL || claim->own_next == claim->own->n)
	{
		int64 *unknown;
		int n_unknown;

		CHECK_FOR_INTERRUPTS();
		claim->own = find_rows(claim, claim->wanted, &unknown, &n_unknown);
		claim->own_next = 0;
		if (claim->own == NULL)
			learn_shapes(claim, unknown, n_unknown);
		else if (claim->own->n == 0 && !claim->own->paused)
			return false;
	}
	*entry = claim->own->entries[claim->own_next++];
	return true;
}

/*
 * Begin to claim up to n rows for a worker with these capabilities. Must be closed
 * before the function that opened it returns; everything is in the current memory
 * context.
 */
QueueClaim *
store_queue_open(int64 capset, int64 worker, int n, ShapeTest test, void *arg)
{
	QueueClaim *claim = palloc0(sizeof(QueueClaim));

	open_queue(&claim->files, false);
	claim->row = direct_slot(&ready_queue, claim->files.table);
	queue_ring_init(&claim->ring, queue_scan_id(claim->files.table), capset);
	claim->worker = worker;
	claim->model = guc_locality_window > 0 ? queue_ring_warm_model(worker) : 0;
	claim->wanted = n;
	claim->test = test;
	claim->arg = arg;
	return claim;
}

static void
read_row(TupleTableSlot *row, TaskSlot *slot)
{
	Datum task_row;
	bool isnull;

	slot->shape = direct_int8(&ready_queue, row, READY_SHAPE);
	slot->task_id = direct_int8(&ready_queue, row, READY_TASK_ID);
	slot->priority = ~direct_int4(&ready_queue, row, READY_RANK);
	slot->tag = direct_int8(&ready_queue, row, READY_TAG);
	slot->tenant = direct_int4(&ready_queue, row, READY_TENANT);
	slot->attempt = direct_int4(&ready_queue, row, READY_ATTEMPT);
	slot->faults = direct_int4(&ready_queue, row, READY_FAULTS);
	slot->losses = direct_int4(&ready_queue, row, READY_LOSSES);
	task_row = direct_datum(&ready_queue, row, READY_TASK_ROW, &isnull);
	if (isnull)
		ItemPointerSetInvalid(&slot->row);
	else
		slot->row = *(ItemPointer) DatumGetPointer(task_row);
}

/*
 * Read an entry's row, if it is still there; of a row that is newer than the snapshot, with a new one. Vacuum may
 * have cut off its page before we had the table's lock, but not since. A snapshot from before a command of ours
 * would show what this call has taken already: others may have filled the ring with it meanwhile, and the server
 * raises an error where a row is deleted again by a later command.
 */
static bool
fetch(QueueClaim *claim, RingEntry *entry, TaskSlot *slot)
{
	bool fresh = false;

	if (claim->snapshot != NULL && claim->snapshot->curcid != GetCurrentCommandId(false))
	{
		direct_release(claim->snapshot);
		claim->snapshot = NULL;
	}
	if (ItemPointerGetBlockNumber(&entry->tid) >= claim->n_blocks)
		claim->n_blocks = RelationGetNumberOfBlocks(claim->files.table);
	if (ItemPointerGetBlockNumber(&entry->tid) >= claim->n_blocks)
		return false;
	for (;;)
	{
		if (claim->snapshot == NULL)
		{
			claim->snapshot = direct_snapshot();
			fresh = true;
		}
		if (table_tuple_fetch_row_version(claim->files.table, &entry->tid, claim->snapshot,
										  claim->row))
		{
			read_row(claim->row, slot);
			return slot->task_id == entry->key.task_id && slot->shape == entry->shape;
		}
		if (fresh)
			return false;
		direct_release(claim->snapshot);
		claim->snapshot = NULL;
	}
}

/*
 * Take the next row that nobody else is taking: delete it and return what stood
 * there, and the snapshot that saw it. False when nothing is left. Never waits for
 * another transaction.
 */
bool
store_queue_take(QueueClaim *claim, TaskSlot *slot, Snapshot *snapshot)
{
	for (;;)
	{
		RingEntry entry;
		TM_FailureData failure;
		RingAnswer answer;
		bool own;

		own = done.put || claim->alone;
		if (!own)
			answer = queue_ring_pop(&claim->ring, claim->model, &entry);
		else
			answer = take_own(claim, &entry) ? RING_TOOK : RING_EMPTY;
		if (answer == RING_EMPTY || (answer == RING_FILL && fill_ring(claim)))
			return false;
		if (answer == RING_FILL)
			continue;
		if (!fetch(claim, &entry, slot) ||
			table_tuple_delete(claim->files.table, &entry.tid, GetCurrentCommandId(true),
							   claim->snapshot, InvalidSnapshot, false, &failure, false) != TM_Ok)
		{
			if (!own)
				queue_ring_missed(&claim->ring);
			claim_stats_skip();
			continue;
		}
		note(&done.took, &done.first_taken, claim->ring.set.queue, &entry.key);
		queue_tag_claimed(claim->ring.set.queue, slot->shape, slot->tag);
		queue_ring_set_warm_model(claim->worker, entry.model);
		claim->took = true;
		*snapshot = claim->snapshot;
		return true;
	}
}

/* Give back what store_queue_open() took. */
void
store_queue_close(QueueClaim *claim)
{
	direct_slot_done(&ready_queue, claim->row);
	if (claim->snapshot != NULL)
		direct_release(claim->snapshot);
	close_queue(&claim->files);
	if (claim->took)
		CommandCounterIncrement();
	pfree(claim);
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
	ItemPointerSetInvalid(&slot->row);
}

/* Give a task that is about to wait for its tenant's room its place among the others. */
void
store_queue_tag(TaskSlot *slot, double weight)
{
	QueueTable files;
	QueueId queue;

	open_queue(&files, false);
	queue = queue_scan_id(files.table);
	if (!queue_places_known(queue))
		discover(&files);
	if (slot->tag == 0)
		slot->tag = queue_tag_next(queue, slot->shape, slot->tenant, weight);
	close_queue(&files);
}

/* Insert the row of a task that is to be claimable, and tell the places of it. */
static void
insert_row(Relation table, QueueId queue, const TaskSlot *slot, const QueueKey *key)
{
	DirectRow *row = direct_new_row(&ready_queue);

	row->values[READY_SHAPE] = Int64GetDatum(slot->shape);
	row->values[READY_TASK_ID] = Int64GetDatum(slot->task_id);
	row->values[READY_RANK] = Int32GetDatum(key->rank);
	row->values[READY_TAG] = Int64GetDatum(key->tag);
	row->values[READY_TENANT] = Int32GetDatum(slot->tenant);
	row->values[READY_ATTEMPT] = Int32GetDatum(slot->attempt);
	row->values[READY_FAULTS] = Int32GetDatum(slot->faults);
	row->values[READY_LOSSES] = Int32GetDatum(slot->losses);
	row->values[READY_TASK_ROW] = PointerGetDatum(&slot->row);
	row->nulls[READY_TASK_ROW] = !ItemPointerIsValid(&slot->row);
	direct_insert(row, table);
	/* Nearly never does it have none now; then the leader's recheck finds the row. */
	(void) queue_places_put(queue, slot->shape, slot->tenant, key, false);
	note(&done.put, &done.first_put, queue, key);
	CommandCounterIncrement();
}

/*
 * Make a task claimable once this transaction commits; weight is its tenant's. A
 * task that was ready before keeps its tag and thereby its place. False, and
 * nothing changed, when its shape gets no place in the queue, unless it has to be put
 * whether it does or not.
 */
static bool
put(const TaskSlot *slot, double weight, bool anyhow)
{
	QueueTable files;
	QueueId queue;
	PlaceAnswer answer;

	open_queue(&files, false);
	queue = queue_scan_id(files.table);
	while ((answer = queue_places_reserve(queue, slot->shape, slot->tenant)) == PLACE_QUEUE_UNKNOWN)
		discover(&files);
	if (answer == PLACE_GIVEN || anyhow)
	{
		QueueKey key = { ~slot->priority, slot->tag, slot->task_id };

		INJECT("queue.reserved");
		if (key.tag == 0)
			key.tag = queue_tag_next(queue, slot->shape, slot->tenant, weight);
		insert_row(files.table, queue, slot, &key);
	}
	close_queue(&files);
	return answer == PLACE_GIVEN;
}

/* Make a task claimable, see put(). */
bool
store_queue_put(const TaskSlot *slot, double weight)
{
	return put(slot, weight, false);
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
								"RETURNING " REMOVED_COLUMNS };
	static SpiQuery passing = {
		"DELETE FROM gpu_orch.ready_queue WHERE task_id = (SELECT task_id FROM gpu_orch.ready_queue"
		" WHERE task_id = $1 FOR UPDATE SKIP LOCKED) RETURNING " REMOVED_COLUMNS
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

		note(&done.took, &done.first_taken, queue_scan_id(table), &key);
		direct_close(table);
	}
	return found;
}

/* A tenant's task held a worker for so long: its later tasks bear the difference. */
void
store_queue_served(int32 tenant, int64 microseconds)
{
	if (last_known.changes == 0 || last_known.changes != ready_queue.changes)
	{
		QueueTable files;

		open_queue(&files, false);
		close_queue(&files);
	}
	queue_tag_served(last_known.id, tenant, microseconds);
}

/* Whether a task of a shape and a tenant could become ready: places for shapes are shared. */
bool
store_queue_has_room(int64 shape, int32 tenant)
{
	Relation table = direct_open(&ready_queue);
	bool room = queue_places_room(queue_scan_id(table), shape, tenant);

	direct_close(table);
	return room;
}

/* See queue_places_refused(). */
bool
store_queue_refused(TimestampTz since, int *at, int32 *tenant)
{
	Relation table = direct_open(&ready_queue);
	bool refused = queue_places_refused(queue_scan_id(table), since, at, tenant);

	direct_close(table);
	return refused;
}

/* See queue_places_content(). */
void
store_queue_content(int32 tenant)
{
	Relation table = direct_open(&ready_queue);

	queue_places_content(queue_scan_id(table), tenant);
	direct_close(table);
}

/* See queue_scan_recheck(). For the leader. */
void
store_queue_recheck(void)
{
	QueueTable files;

	open_queue(&files, true);
	queue_scan_recheck(&files);
	close_queue(&files);
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
		"RETURNING r.shape, r.task_id, ~old.top, r.tenant, r.attempt, r.faults, r.losses, r.tag"
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
		(void) put(&slots[i], 1, true);
	spi_end();
	return n;
}

/*
 * Count the claimable tasks of each shape that has any, each up to limit. Returns the
 * number of shapes; the array is allocated in the current memory context.
 */
int
store_queue_count(ShapeCount **counts, int64 limit)
{
	QueueTable files;
	int n;

	open_queue(&files, true);
	n = queue_scan_count(&files, limit, counts);
	close_queue(&files);
	return n;
}
