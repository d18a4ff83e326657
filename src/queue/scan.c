/*
 * queue/scan.c
 *	  Scans of the index of the queue: for the rows that are claimable now, in
 *	  order, and for what became unknown or was never known.
 *
 * Reads index entries and the rows behind them as they are at this moment, without
 * a snapshot: a row that a transaction in progress put or took is told from one that
 * is gone. What a scan learns raises the bounds (queue/bound.c), so that what it walked
 * over in vain need not be walked over again. Takes and changes nothing; holds no lock
 * that others wait for, and can be cancelled at each entry.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/multixact.h"
#include "access/nbtree.h"
#include "access/xact.h"
#include "base/compat.h"
#include "catalog/pg_class.h"
#include "db/spi_util.h"
#include "lib/binaryheap.h"
#include "miscadmin.h"
#include "queue/scan.h"
#include "queue/tag.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/procarray.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Columns of its index ready_queue_head. */
enum
{
	KEY_SHAPE = 1,
	KEY_RANK,
	KEY_TAG,
	KEY_TASK_ID
};

/*
 * Index entries after which a scan ends: with what it found, or once it can leave so
 * much behind that the next one need not walk over.
 */
#define SCAN_LIMIT 10000

/* In place of a place: nothing is known of the shape, and nothing is to be learned. */
#define NO_VIEW (-1)

/* A gap of fewer entries is not worth stepping over. */
#define SHORTEST_GAP 8

/* One scan of one shape: where it goes on, and what it learned so far. */
typedef struct ShapeScan
{
	ShapeView view;
	QueueKey next;	  /* nothing below it is left to look at */
	bool touched;	  /* it learned something */
	bool ended;		  /* nothing at all is left */
	bool bound_found; /* learned.bound is final */
	bool gap_holds;	  /* the view's gap lies ahead and may be stepped over */
	int walked;		  /* entries of the run that this scan looked at */
	QueueGap run;	  /* the rows without a claimable one in which the scan is now */
	ShapeBound learned;
} ShapeScan;

/* What stands behind an index entry. */
typedef enum RowState
{
	ROW_GONE,
	ROW_INSERTED, /* by a transaction in progress */
	ROW_TAKEN,	  /* deleted, updated or locked by a transaction in progress */
	ROW_CLAIMABLE
} RowState;

/* The queue that a table holds now. */
QueueId
queue_scan_id(Relation table)
{
	QueueId id = { MyDatabaseId, compat_relation_file(table) };

	return id;
}

/* Entries that are being read; the server keeps pointers to the members of the keys. */
typedef struct Entries
{
	IndexScanDesc scan;
	ScanKeyData keys[2];
	ScanKeyData members[4]; /* of a row comparison */
} Entries;

/* Have the key be: the columns from this one on, up to the last, are at least this. */
static void
row_key(Entries *entries, ScanKey key, int from_column, int64 shape, const QueueKey *from)
{
	ScanKey member = entries->members;

	if (from_column == KEY_SHAPE)
		ScanKeyEntryInitialize(member++, SK_ROW_MEMBER, KEY_SHAPE, BTGreaterEqualStrategyNumber,
							   INT8OID, InvalidOid, F_BTINT8CMP, Int64GetDatum(shape));
	ScanKeyEntryInitialize(member++, SK_ROW_MEMBER, KEY_RANK, BTGreaterEqualStrategyNumber, INT4OID,
						   InvalidOid, F_BTINT4CMP, Int32GetDatum(from->rank));
	ScanKeyEntryInitialize(member++, SK_ROW_MEMBER, KEY_TAG, BTGreaterEqualStrategyNumber, INT8OID,
						   InvalidOid, F_BTINT8CMP, Int64GetDatum(from->tag));
	ScanKeyEntryInitialize(member, SK_ROW_MEMBER | SK_ROW_END, KEY_TASK_ID,
						   BTGreaterEqualStrategyNumber, INT8OID, InvalidOid, F_BTINT8CMP,
						   Int64GetDatum(from->task_id));
	memset(key, 0, sizeof(ScanKeyData));
	key->sk_flags = SK_ROW_HEADER;
	key->sk_attno = from_column;
	key->sk_strategy = BTGreaterEqualStrategyNumber;
	key->sk_argument = PointerGetDatum(entries->members);
}

/* Begin to read index entries, whatever stands behind them, by one key or two. */
static void
begin_entries(Entries *entries, const QueueTable *queue, int n_keys)
{
	entries->scan = compat_index_beginscan(queue->table, queue->index, SnapshotAny, n_keys);
	entries->scan->xs_want_itup = true;
}

/* Go to the entries of a shape from a key on; for two keys. */
static void
go_to_key(Entries *entries, int64 shape, const QueueKey *from)
{
	ScanKeyInit(&entries->keys[0], KEY_SHAPE, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(shape));
	row_key(entries, &entries->keys[1], KEY_RANK, shape, from);
	index_rescan(entries->scan, entries->keys, 2, NULL, 0);
}

/* Go to the entries of a shape from a key on, and of the shapes after it; for one key. */
static void
go_on_from(Entries *entries, int64 shape, const QueueKey *from)
{
	row_key(entries, &entries->keys[0], KEY_SHAPE, shape, from);
	index_rescan(entries->scan, entries->keys, 1, NULL, 0);
}

/* Go to the first entry of the shape after this one, or of all; for one key. */
static void
go_to_next_shape(Entries *entries, const int64 *shape)
{
	ScanKeyInit(&entries->keys[0], KEY_SHAPE,
				shape ? BTGreaterStrategyNumber : BTGreaterEqualStrategyNumber,
				shape ? F_INT8GT : F_INT8GE, Int64GetDatum(shape ? *shape : PG_INT64_MIN));
	index_rescan(entries->scan, entries->keys, 1, NULL, 0);
}

/* Go on to the next entry; NULL if there is none. */
static ItemPointer
next_entry(Entries *entries)
{
	CHECK_FOR_INTERRUPTS();
	return index_getnext_tid(entries->scan, ForwardScanDirection);
}

/* The shape and the key of the index entry that the scan is at. */
static int64
read_entry(IndexScanDesc scan, QueueKey *key)
{
	bool isnull;

	key->rank = DatumGetInt32(index_getattr(scan->xs_itup, KEY_RANK, scan->xs_itupdesc, &isnull));
	key->tag = DatumGetInt64(index_getattr(scan->xs_itup, KEY_TAG, scan->xs_itupdesc, &isnull));
	key->task_id =
		DatumGetInt64(index_getattr(scan->xs_itup, KEY_TASK_ID, scan->xs_itupdesc, &isnull));
	return DatumGetInt64(index_getattr(scan->xs_itup, KEY_SHAPE, scan->xs_itupdesc, &isnull));
}

/* Whether another transaction locks a live row; *xid is that one, unless there are several. */
static bool
is_locked(HeapTupleHeader row, TransactionId *xid)
{
	if ((row->t_infomask & HEAP_XMAX_INVALID) || !HEAP_XMAX_IS_LOCKED_ONLY(row->t_infomask))
		return false;
	if (row->t_infomask & HEAP_XMAX_IS_MULTI)
		return MultiXactIdIsRunning(HeapTupleHeaderGetRawXmax(row), true);
	*xid = HeapTupleHeaderGetRawXmax(row);
	return !TransactionIdIsCurrentTransactionId(*xid) && TransactionIdIsInProgress(*xid);
}

/* What one row version is to a claimer, and which transaction in progress has it. */
static RowState
version_state(HeapTuple tuple, Buffer buffer, TransactionId *xid)
{
	TransactionId dead_after;

	switch (HeapTupleSatisfiesVacuumHorizon(tuple, buffer, &dead_after))
	{
		case HEAPTUPLE_LIVE:
			return is_locked(tuple->t_data, xid) ? ROW_TAKEN : ROW_CLAIMABLE;
		case HEAPTUPLE_INSERT_IN_PROGRESS:
			*xid = HeapTupleHeaderGetXmin(tuple->t_data);
			return ROW_INSERTED;
		case HEAPTUPLE_DELETE_IN_PROGRESS:
			*xid = HeapTupleHeaderGetUpdateXid(tuple->t_data);
			return ROW_TAKEN;
		case HEAPTUPLE_RECENTLY_DEAD:
		case HEAPTUPLE_DEAD:
			break;
	}
	return ROW_GONE;
}

/*
 * What stands behind an index entry now, and which transaction in progress put or
 * took it. The entry points to the first of the versions of a row that were updated
 * within the page, as somebody may do by hand: *tid becomes the one that stands.
 * *buffer is kept pinned from call to call. *dead is set when nobody can see any of
 * the versions any more.
 */
static RowState
row_state(Relation table, ItemPointer tid, Buffer *buffer, TransactionId *xid, bool *dead)
{
	HeapTupleData tuple;
	RowState row = ROW_GONE;
	OffsetNumber offset = ItemPointerGetOffsetNumber(tid);
	TransactionId updated_by = InvalidTransactionId;
	bool first = true;
	Page page;

	*dead = true;
	*buffer = ReleaseAndReadBuffer(*buffer, table, ItemPointerGetBlockNumber(tid));
	LockBuffer(*buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(*buffer);
	while (offset >= FirstOffsetNumber && offset <= PageGetMaxOffsetNumber(page))
	{
		ItemId item = PageGetItemId(page, offset);

		if (first && ItemIdIsRedirected(item))
		{
			first = false;
			offset = ItemIdGetRedirect(item);
			continue;
		}
		if (!ItemIdIsNormal(item))
			break;
		ItemPointerSet(&tuple.t_self, ItemPointerGetBlockNumber(tid), offset);
		tuple.t_tableOid = RelationGetRelid(table);
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		/* Another row may have come to where the versions went on. */
		if ((first && HeapTupleIsHeapOnly(&tuple)) ||
			(TransactionIdIsValid(updated_by) &&
			 !TransactionIdEquals(updated_by, HeapTupleHeaderGetXmin(tuple.t_data))))
			break;
		row = version_state(&tuple, *buffer, xid);
		if (row != ROW_GONE)
		{
			*dead = false;
			*tid = tuple.t_self;
			break;
		}
		if (*dead)
			*dead = HeapTupleIsSurelyDead(&tuple, GlobalVisTestFor(table));
		if (!HeapTupleIsHotUpdated(&tuple))
			break;
		first = false;
		updated_by = HeapTupleHeaderGetUpdateXid(tuple.t_data);
		offset = ItemPointerGetOffsetNumber(&tuple.t_data->t_ctid);
	}
	LockBuffer(*buffer, BUFFER_LOCK_UNLOCK);
	return row;
}

/* The next entry that a scan is at: look at its row, and have the index forget it if it is dead. */
static RowState
entry_state(const QueueTable *queue, IndexScanDesc scan, ItemPointer tid, Buffer *buffer,
			TransactionId *xid)
{
	bool dead;
	RowState row = row_state(queue->table, tid, buffer, xid, &dead);

	scan->kill_prior_tuple = dead && !scan->xactStartedInRecovery;
	return row;
}

static bool
in_gap(const QueueGap *gap, const QueueKey *key)
{
	return queue_key_before(&gap->start, key) && queue_key_before(key, &gap->end);
}

/* A run of rows without a claimable one begins behind a key. */
static void
begin_run(ShapeScan *shape, const QueueKey *after)
{
	shape->run.start = *after;
	shape->run.length = 0;
	shape->run.n_xids = 0;
	shape->walked = 0;
}

/* A run ends before a key: it is worth keeping if it is the longest. */
static void
end_run(ShapeScan *shape, const QueueKey *before)
{
	shape->run.end = *before;
	if (shape->run.length >= SHORTEST_GAP && shape->run.length > shape->learned.gap.length)
		shape->learned.gap = shape->run;
}

/* Add a transaction to those of a run; false if it cannot be waited for, or there is no room. */
static bool
join_run(ShapeScan *shape, TransactionId xid)
{
	QueueGap *run = &shape->run;

	if (!TransactionIdIsValid(xid))
		return false;
	for (int i = 0; i < run->n_xids; i++)
		if (run->xids[i] == xid)
			return true;
	if (run->n_xids == MAX_GAP_XIDS)
		return false;
	run->xids[run->n_xids++] = xid;
	return true;
}

/* The first row that is not gone stands at a key. */
static void
find_bound(ShapeScan *shape, const QueueKey *key)
{
	if (shape->bound_found)
		return;
	shape->bound_found = true;
	shape->learned.bound = *key;
	begin_run(shape, &QUEUE_KEY_FIRST);
}

/* Note a row that is not gone; xid is the transaction that has it, if one has. */
static void
learn(ShapeScan *shape, const QueueKey *key, RowState row, TransactionId xid)
{
	find_bound(shape, key);
	if (row != ROW_CLAIMABLE && join_run(shape, xid))
		shape->run.length++;
	else
	{
		end_run(shape, key);
		begin_run(shape, key);
	}
}

/* Step over the gap that lies ahead: as if its entries had been looked at. */
static void
step_over(ShapeScan *shape)
{
	const QueueGap *gap = &shape->view.bound.gap;
	bool joined = true;

	shape->gap_holds = false;
	if (!shape->bound_found && gap->n_xids == 0)
	{
		shape->learned.passed += gap->length;
		shape->learned.gap.length = 0;
	}
	else
	{
		find_bound(shape, &shape->next);
		for (int i = 0; joined && i < gap->n_xids; i++)
			joined = join_run(shape, gap->xids[i]);
		if (joined)
			shape->run.length += gap->length;
		else
		{
			end_run(shape, &shape->next);
			shape->run = *gap;
			shape->walked = 0;
		}
	}
	shape->next = gap->end;
}

/*
 * Begin to scan a shape where nothing can be claimable before. own: a gap may hide
 * rows of this transaction.
 */
static void
begin_shape(ShapeScan *shape, const ShapeView *view, bool own)
{
	const QueueGap *gap = &view->bound.gap;
	bool holds = queue_gap_holds(gap);

	shape->view = *view;
	shape->learned = view->bound;
	if (!holds)
		shape->learned.gap.length = 0;
	shape->gap_holds = holds && !(own && gap->n_xids > 0);
	shape->next = view->bound.bound;
	shape->touched = shape->ended = shape->bound_found = false;
	begin_run(shape, &QUEUE_KEY_FIRST);
}

/* Keep what a scan learned of a shape, for those that come after. */
static void
end_shape(ShapeScan *shape)
{
	ShapeBound *learned = &shape->learned;
	QueueKey at = shape->ended ? QUEUE_KEY_LAST : shape->next;

	if (!shape->touched || shape->view.index == NO_VIEW)
		return;
	if (shape->bound_found)
	{
		learned->work = true;
		end_run(shape, &at);
	}
	else
	{
		learned->work = !shape->ended;
		learned->bound = at;
	}
	if (!queue_key_before(&learned->bound, &learned->gap.end))
		learned->gap.length = 0;
	queue_places_raise(&shape->view, learned);
}

/* The shape that is to be scanned next stands first in the heap. */
static int
sooner(Datum a, Datum b, void *arg)
{
	const ShapeScan *x = (const ShapeScan *) DatumGetPointer(a);
	const ShapeScan *y = (const ShapeScan *) DatumGetPointer(b);

	return queue_key_before(&x->next, &y->next) ? 1 : queue_key_before(&y->next, &x->next) ? -1 : 0;
}

/* One search for rows, over one or several shapes. */
typedef struct Search
{
	const QueueTable *queue;
	Entries entries;
	Buffer buffer;
	int64 want;
	int64 n;	/* rows found */
	int looked; /* index entries */
	int passed; /* of these, before the bound of their shape */
	bool own;	/* rows of this transaction count as claimable */
	bool paused;
	bool settled;
	RingEntry *rows; /* NULL: they are counted only */
} Search;

/*
 * Whether a search should end here: something was found and it took long, or so much
 * was walked over that the next search need not. Otherwise it must go on, as nobody
 * would ever come further.
 */
static bool
took_long(const Search *search, const ShapeScan *shape)
{
	return shape->view.index != NO_VIEW &&
		((search->n > 0 && search->looked >= SCAN_LIMIT) || search->passed >= SCAN_LIMIT ||
		 shape->walked >= SCAN_LIMIT);
}

/*
 * Collect a shape's claimable rows from where its scan stands, up to a limit that
 * another shape has, or until there are enough.
 */
static void
scan_on(Search *search, ShapeScan *shape, const QueueKey *limit)
{
	ItemPointer tid;

	shape->touched = true;
	go_to_key(&search->entries, shape->view.shape, &shape->next);
	while ((tid = next_entry(&search->entries)) != NULL)
	{
		TransactionId xid = InvalidTransactionId;
		RowState row;
		QueueKey key;

		(void) read_entry(search->entries.scan, &key);
		shape->next = key;
		if (search->n == search->want || queue_key_before(limit, &key))
			return;
		if (took_long(search, shape))
		{
			search->paused = true;
			return;
		}
		if (shape->gap_holds && in_gap(&shape->view.bound.gap, &key))
		{
			if (shape->view.bound.gap.n_xids > 0)
				search->settled = false;
			step_over(shape);
			if (queue_key_before(limit, &shape->next))
				return;
			go_to_key(&search->entries, shape->view.shape, &shape->next);
			continue;
		}
		search->looked++;
		row = entry_state(search->queue, search->entries.scan, tid, &search->buffer, &xid);
		if (row == ROW_GONE)
		{
			if (shape->bound_found)
			{
				shape->run.length++;
				shape->walked++;
			}
			else
			{
				shape->learned.passed++;
				search->passed++;
			}
			continue;
		}
		learn(shape, &key, row, xid);
		if (row == ROW_INSERTED && search->own && TransactionIdIsCurrentTransactionId(xid))
			row = ROW_CLAIMABLE;
		if (row != ROW_CLAIMABLE)
			search->settled = false;
		else
		{
			if (search->rows != NULL)
			{
				RingEntry *entry = &search->rows[search->n];

				entry->key = key;
				entry->shape = shape->view.shape;
				entry->tid = *tid;
				entry->model = shape->view.model;
				entry->passed = 0;
			}
			search->n++;
		}
	}
	shape->ended = true;
}

/* Merge the matching shapes' rows in order. */
static void
collect(Search *search, const ShapeView *views, int n_views)
{
	binaryheap *heap = binaryheap_allocate(n_views, sooner, NULL);
	ShapeScan *shapes = palloc_extended(n_views * sizeof(ShapeScan), MCXT_ALLOC_HUGE);

	begin_entries(&search->entries, search->queue, 2);
	for (int i = 0; i < n_views; i++)
	{
		begin_shape(&shapes[i], &views[i], search->own);
		binaryheap_add_unordered(heap, PointerGetDatum(&shapes[i]));
	}
	binaryheap_build(heap);
	while (search->n < search->want && !search->paused && !binaryheap_empty(heap))
	{
		ShapeScan *shape = (ShapeScan *) DatumGetPointer(binaryheap_remove_first(heap));
		QueueKey limit = QUEUE_KEY_LAST;

		if (!binaryheap_empty(heap))
			limit = ((ShapeScan *) DatumGetPointer(binaryheap_first(heap)))->next;
		scan_on(search, shape, &limit);
		if (!shape->ended)
			binaryheap_add(heap, PointerGetDatum(shape));
		else
			end_shape(shape);
	}
	while (!binaryheap_empty(heap))
		end_shape((ShapeScan *) DatumGetPointer(binaryheap_remove_first(heap)));
	binaryheap_free(heap);
	pfree(shapes);
	index_endscan(search->entries.scan);
	if (BufferIsValid(search->buffer))
		ReleaseBuffer(search->buffer);
}

/*
 * Find up to want claimable rows of these shapes, in order; the result is allocated
 * in the current memory context. own: rows that this transaction made claimable
 * count too.
 */
Found *
queue_scan_rows(const QueueTable *queue, const ShapeView *views, int n_views, int want, bool own)
{
	Found *found = palloc(sizeof(Found));
	Search search = { .queue = queue,
					  .want = Min(want, RING_SIZE),
					  .own = own,
					  .settled = true,
					  .rows = found->entries };

	if (n_views > 0)
		collect(&search, views, n_views);
	found->n = (int) search.n;
	found->paused = search.paused;
	found->settled = search.settled;
	found->all = !search.paused && search.n < search.want;
	return found;
}

/* Count a shape's claimable rows up to what the search wants; at least one if there is any. */
static int64
count_shape(Search *search, ShapeView *view)
{
	QueueId id = queue_scan_id(search->queue->table);
	const QueueKey limit = QUEUE_KEY_LAST;

	do
	{
		ShapeScan shape;

		search->n = search->looked = search->passed = 0;
		search->paused = false;
		begin_shape(&shape, view, false);
		scan_on(search, &shape, &limit);
		end_shape(&shape);
	} while (search->n == 0 && search->paused && queue_places_find(id, view->shape, view, true));
	return search->n;
}

/*
 * The next shape that may have rows, as a view for a scan. On a standby nobody tells
 * the places of what changes: there the shapes are read from the index, by a scan
 * that is at the last one.
 */
static bool
next_shape(QueueId id, Entries *standby, int *index, ShapeView *view)
{
	QueueKey key;

	if (standby == NULL)
		return queue_places_next(index, id, view);
	go_to_next_shape(standby, (*index)++ > 0 ? &view->shape : NULL);
	if (next_entry(standby) == NULL)
		return false;
	*view = (ShapeView){ .index = NO_VIEW, .shape = read_entry(standby->scan, &key) };
	view->bound.bound = QUEUE_KEY_FIRST;
	return true;
}

/*
 * Count the claimable rows of each shape that has any, each up to limit. Returns the
 * number of shapes; the array is allocated in the current memory context. counts may be
 * NULL. Raises the bounds of shapes on the way, and has those that have no rows give up
 * their places.
 */
int
queue_scan_count(const QueueTable *queue, int64 limit, ShapeCount **counts)
{
	QueueId id = queue_scan_id(queue->table);
	bool standby = RecoveryInProgress();
	Entries shapes;
	Search search = { .queue = queue, .want = limit };
	ShapeView view;
	int index = 0;
	int max = 64;
	int n = 0;

	if (counts != NULL)
		*counts = palloc(max * sizeof(ShapeCount));
	if (standby)
		begin_entries(&shapes, queue, 1);
	else if (!queue_places_known(id))
		queue_scan_discover(queue);
	begin_entries(&search.entries, queue, 2);
	while (next_shape(id, standby ? &shapes : NULL, &index, &view))
	{
		int64 count = count_shape(&search, &view);

		if (count == 0)
			continue;
		if (counts != NULL && n == max)
			*counts = repalloc_huge(*counts, (max *= 2) * sizeof(ShapeCount));
		if (counts != NULL)
			(*counts)[n] = (ShapeCount){ view.shape, count };
		n++;
	}
	index_endscan(search.entries.scan);
	if (standby)
		index_endscan(shapes.scan);
	if (BufferIsValid(search.buffer))
		ReleaseBuffer(search.buffer);
	return n;
}

/* Restore the tags that tenants have reached, from where their tasks stand. */
static void
restore_tags(QueueId queue)
{
	static SpiQuery tags = {
		"WITH t AS (SELECT tenant, tag FROM gpu_orch.ready_queue UNION ALL"
		"           SELECT tenant, tag FROM gpu_orch.lease UNION ALL"
		"           SELECT tenant, tag FROM gpu_orch.waiting) "
		"SELECT tenant, max(tag) FROM t GROUP BY tenant UNION ALL "
		"SELECT $1, greatest((SELECT max(tag) FROM gpu_orch.lease),"
		"                    (SELECT min(tag) FROM gpu_orch.ready_queue), 0)"
	};
	SpiArgs args = SPI_ARGS_INIT;
	uint64 n;

	queue_tag_begin(queue);
	spi_begin();
	spi_arg_int4(&args, QUEUE_VIRTUAL_TIME);
	n = spi_read(&tags, &args, 0);
	for (uint64 i = 0; i < n; i++)
		queue_tag_restore(queue, spi_int4(i, 1), spi_int8(i, 2));
	spi_end();
}

/* Give the shape of a row that a scan is at a place, and lower its bound to the row. */
static bool
register_row(const QueueTable *queue, TupleTableSlot *row, ItemPointer tid, int64 shape,
			 const QueueKey *key)
{
	int32 tenant = 0;

	if (table_tuple_fetch_row_version(queue->table, tid, SnapshotAny, row))
		tenant = queue->tenant_of(row);
	ExecClearTuple(row);
	return queue_places_put(queue_scan_id(queue->table), shape, tenant, key, true);
}

/*
 * Register the shapes that have rows, each from its first one on that is not gone,
 * and the tags that tenants have reached: after a restart, or when the table was
 * rewritten. One backend does it while the others wait, at a lock that no SQL
 * statement takes.
 */
void
queue_scan_discover(const QueueTable *queue)
{
	QueueId id = queue_scan_id(queue->table);
	LOCKTAG lock;
	Entries entries;
	TupleTableSlot *row;
	Buffer buffer = InvalidBuffer;
	ItemPointer tid;

	SET_LOCKTAG_OBJECT(lock, MyDatabaseId, RelationRelationId, RelationGetRelid(queue->table), 0);
	(void) LockAcquire(&lock, ExclusiveLock, false, false);
	if (!queue_places_known(id))
	{
		restore_tags(id);
		row = table_slot_create(queue->table, NULL);
		begin_entries(&entries, queue, 1);
		go_to_next_shape(&entries, NULL);
		while ((tid = next_entry(&entries)) != NULL)
		{
			TransactionId xid;
			QueueKey key;
			int64 shape = read_entry(entries.scan, &key);

			if (entry_state(queue, entries.scan, tid, &buffer, &xid) == ROW_GONE)
				continue;
			(void) register_row(queue, row, tid, shape, &key);
			go_to_next_shape(&entries, &shape);
		}
		index_endscan(entries.scan);
		ExecDropSingleTupleTableSlot(row);
		if (BufferIsValid(buffer))
			ReleaseBuffer(buffer);
		queue_places_set_known(id);
	}
	(void) LockRelease(&lock, ExclusiveLock, false);
}

/*
 * Look for rows that no claim would find: where nothing is thought to stand, and of
 * shapes without a place. So stand rows that came
 * into the table without queue_ready_put(), as a restore of a dump writes them, or
 * that somebody updated. And look at every shape that may have work, so that one whose
 * tasks nobody claims any more, as they were cancelled, gives up its place. For the
 * leader.
 */
void
queue_scan_recheck(const QueueTable *queue)
{
	QueueId id = queue_scan_id(queue->table);
	Entries entries;
	ShapeView view;
	TupleTableSlot *slot;
	Buffer buffer = InvalidBuffer;
	int64 shape = 0;
	bool begun = false;
	bool known = false; /* the shape has work, as far as is known */
	bool hides = false; /* and a gap in which nothing is thought to stand, by anybody */
	bool found = false;
	ItemPointer tid;

	(void) queue_scan_count(queue, 1, NULL);
	slot = table_slot_create(queue->table, NULL);
	begin_entries(&entries, queue, 1);
	go_to_next_shape(&entries, NULL);
	while ((tid = next_entry(&entries)) != NULL)
	{
		TransactionId xid;
		QueueKey key;
		int64 at = read_entry(entries.scan, &key);

		if (!begun || at != shape)
		{
			begun = true;
			shape = at;
			known = queue_places_find(id, shape, &view, false) && view.bound.work;
			hides = known && view.bound.gap.length > 0 && view.bound.gap.n_xids == 0;
		}
		/* Where claims look they find it. */
		if (known && !queue_key_before(&key, &view.bound.bound) &&
			!(hides && in_gap(&view.bound.gap, &key)))
		{
			if (hides && queue_key_before(&key, &view.bound.gap.start))
				go_on_from(&entries, shape, &view.bound.gap.start);
			else if (!hides || queue_key_before(&view.bound.gap.start, &key))
				go_to_next_shape(&entries, &shape);
			continue;
		}
		if (entry_state(queue, entries.scan, tid, &buffer, &xid) == ROW_GONE)
			continue;
		if (register_row(queue, slot, tid, shape, &key))
		{
			found = true;
			queue_ring_disturb(id, &key);
		}
		go_to_next_shape(&entries, &shape);
	}
	index_endscan(entries.scan);
	ExecDropSingleTupleTableSlot(slot);
	if (BufferIsValid(buffer))
		ReleaseBuffer(buffer);
	if (found)
		restore_tags(id);
}
