/*
 * queue/scan.c
 *	  Looking into the index of the queue: for the rows that are claimable now, in
 *	  order, and for what became unknown or was never known.
 *
 * Reads index entries and the rows behind them as they are at this moment, without
 * a snapshot: a row that a transaction in progress put or took is told from one that
 * is gone. What a look learns raises the bounds (queue/bound.c). Takes and changes
 * nothing.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/multixact.h"
#include "access/nbtree.h"
#include "access/xact.h"
#include "base/compat.h"
#include "lib/binaryheap.h"
#include "miscadmin.h"
#include "queue/ring.h"
#include "queue/tag.h"
#include "db/spi_util.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/procarray.h"
#include "queue/scan.h"
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

/* Index entries after which a look pauses, if it got anywhere, so that it can be cancelled. */
#define LOOK_LIMIT 50000

/* One look at one shape: where it goes on, and what it learned so far. */
typedef struct Look
{
	ShapeView view;
	QueueKey next;	  /* nothing below it is left to look at */
	bool touched;	  /* it learned something */
	bool ended;		  /* nothing at all is left */
	bool bound_found; /* learned.bound is final */
	bool gap_open;	  /* nothing claimable was seen yet */
	ShapeBound learned;
} Look;

/* What stands behind an index entry. */
typedef enum RowState
{
	ROW_GONE,
	ROW_INSERTED, /* by a transaction in progress */
	ROW_TAKEN,	  /* deleted or locked by a transaction in progress */
	ROW_CLAIMABLE
} RowState;

/* The queue that a table holds now. */
QueueId
store_look_queue(Relation table)
{
	QueueId id = { MyDatabaseId, compat_relation_file(table) };

	return id;
}

/*
 * Set up scan keys for the rows of a shape from a place on. Returns how many; sub
 * holds the members of the row comparison and must live as long as the keys.
 */
static int
place_keys(int64 shape, const QueueKey *from, ScanKey keys, ScanKey sub)
{
	ScanKeyInit(&keys[0], KEY_SHAPE, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(shape));
	ScanKeyEntryInitialize(&sub[0], SK_ROW_MEMBER, KEY_RANK, BTGreaterEqualStrategyNumber, INT4OID,
						   InvalidOid, F_BTINT4CMP, Int32GetDatum(from->rank));
	ScanKeyEntryInitialize(&sub[1], SK_ROW_MEMBER, KEY_TAG, BTGreaterEqualStrategyNumber, INT8OID,
						   InvalidOid, F_BTINT8CMP, Int64GetDatum(from->tag));
	ScanKeyEntryInitialize(&sub[2], SK_ROW_MEMBER | SK_ROW_END, KEY_TASK_ID,
						   BTGreaterEqualStrategyNumber, INT8OID, InvalidOid, F_BTINT8CMP,
						   Int64GetDatum(from->task_id));
	memset(&keys[1], 0, sizeof(ScanKeyData));
	keys[1].sk_flags = SK_ROW_HEADER;
	keys[1].sk_attno = KEY_RANK;
	keys[1].sk_strategy = BTGreaterEqualStrategyNumber;
	keys[1].sk_argument = PointerGetDatum(sub);
	return 2;
}

/* Begin to read index entries, whatever stands behind them. */
static IndexScanDesc
begin_scan(Relation table, Relation index, int n_keys)
{
	IndexScanDesc scan = compat_index_beginscan(table, index, SnapshotAny, n_keys);

	scan->xs_want_itup = true;
	return scan;
}

/* Go to the first entry of the shape after this one, or of all. */
static void
next_shape(IndexScanDesc scan, const int64 *shape)
{
	ScanKeyData key;

	ScanKeyInit(&key, KEY_SHAPE, shape ? BTGreaterStrategyNumber : BTGreaterEqualStrategyNumber,
				shape ? F_INT8GT : F_INT8GE, Int64GetDatum(shape ? *shape : PG_INT64_MIN));
	index_rescan(scan, &key, 1, NULL, 0);
}

/* The shape and place of the index entry that the scan is at. */
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

/*
 * What stands at a row's place now, and which transaction in progress put or took it.
 * *buffer is kept pinned from call to call. *dead is set when nobody can see the
 * row any more. Rows of this table are never updated.
 */
static RowState
look_at_row(Relation table, ItemPointer tid, Buffer *buffer, TransactionId *xid, bool *dead)
{
	HeapTupleData tuple;
	RowState row = ROW_GONE;
	OffsetNumber offset = ItemPointerGetOffsetNumber(tid);
	TransactionId dead_after;
	Page page;

	*dead = true;
	*buffer = ReleaseAndReadBuffer(*buffer, table, ItemPointerGetBlockNumber(tid));
	LockBuffer(*buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(*buffer);
	if (offset <= PageGetMaxOffsetNumber(page) && ItemIdIsNormal(PageGetItemId(page, offset)))
	{
		ItemId item = PageGetItemId(page, offset);

		tuple.t_self = *tid;
		tuple.t_tableOid = RelationGetRelid(table);
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		switch (HeapTupleSatisfiesVacuumHorizon(&tuple, *buffer, &dead_after))
		{
			case HEAPTUPLE_LIVE:
				row = is_locked(tuple.t_data, xid) ? ROW_TAKEN : ROW_CLAIMABLE;
				break;
			case HEAPTUPLE_INSERT_IN_PROGRESS:
				row = ROW_INSERTED;
				*xid = HeapTupleHeaderGetXmin(tuple.t_data);
				break;
			case HEAPTUPLE_DELETE_IN_PROGRESS:
				row = ROW_TAKEN;
				*xid = HeapTupleHeaderGetUpdateXid(tuple.t_data);
				break;
			case HEAPTUPLE_RECENTLY_DEAD:
			case HEAPTUPLE_DEAD:
				break;
		}
		*dead = row == ROW_GONE && HeapTupleIsSurelyDead(&tuple, GlobalVisTestFor(table));
	}
	LockBuffer(*buffer, BUFFER_LOCK_UNLOCK);
	return row;
}

/*
 * Begin to look at a shape where nothing can be claimable before. own: a gap may hide
 * rows of this transaction.
 */
static void
begin_look(Look *look, const ShapeView *view, bool own)
{
	const ShapeBound *bound = &view->bound;
	bool gap = bound->n_gap_xids > 0 && !own;

	look->view = *view;
	for (int i = 0; gap && i < bound->n_gap_xids; i++)
		gap = TransactionIdIsInProgress(bound->gap_xids[i]);
	look->learned = *bound;
	look->bound_found = gap;
	look->next = gap ? bound->gap_end : bound->bound;
	look->gap_open = true;
	look->touched = look->ended = false;
	if (!gap)
		look->learned.n_gap_xids = 0;
}

/* Note a row that is not gone; xid is the transaction that has it, if one has. */
static void
learn(Look *look, const QueueKey *key, RowState row, TransactionId xid)
{
	ShapeBound *learned = &look->learned;
	int i;

	if (!look->bound_found)
		learned->bound = *key;
	look->bound_found = true;
	if (!look->gap_open)
		return;
	if (row != ROW_CLAIMABLE)
	{
		for (i = 0; i < learned->n_gap_xids; i++)
			if (learned->gap_xids[i] == xid)
				return;
		if (i < MAX_GAP_XIDS)
		{
			learned->gap_xids[learned->n_gap_xids++] = xid;
			return;
		}
	}
	look->gap_open = false;
	learned->gap_end = *key;
}

/* Keep what a look learned, for those that come after. */
static void
end_look(Look *look)
{
	ShapeBound *learned = &look->learned;

	if (!look->touched)
		return;
	if (!look->bound_found)
	{
		learned->work = !look->ended;
		learned->bound = look->next;
	}
	if (look->gap_open)
		learned->gap_end = look->ended ? QUEUE_KEY_LAST : look->next;
	queue_bound_raise(&look->view, learned);
}

/* The shape that is to be looked at next stands first in the heap. */
static int
sooner(Datum a, Datum b, void *arg)
{
	const Look *x = (const Look *) DatumGetPointer(a);
	const Look *y = (const Look *) DatumGetPointer(b);

	return queue_key_before(&x->next, &y->next) ? 1 : queue_key_before(&y->next, &x->next) ? -1 : 0;
}

/* One look for rows, and what is needed on the way. */
typedef struct Search
{
	Relation table;
	IndexScanDesc scan;
	Buffer buffer;
	int want;
	int looked; /* index entries */
	bool own;	/* rows of this transaction count as claimable */
	Found *found;
} Search;

/*
 * Collect a shape's claimable rows from where its look stands, up to a limit that
 * another shape has, or until there are enough.
 */
static void
look_on(Search *search, Look *look, const QueueKey *limit)
{
	ScanKeyData keys[2];
	ScanKeyData sub[3];
	Found *found = search->found;
	ItemPointer tid;

	look->touched = true;
	index_rescan(search->scan, keys, place_keys(look->view.shape, &look->next, keys, sub), NULL, 0);
	while ((tid = index_getnext_tid(search->scan, ForwardScanDirection)) != NULL)
	{
		TransactionId xid = InvalidTransactionId;
		RowState row;
		QueueKey key;
		bool dead;

		(void) read_entry(search->scan, &key);
		look->next = key;
		if (found->n == search->want || queue_key_before(limit, &key))
			return;
		if (++search->looked > LOOK_LIMIT && (!look->bound_found || look->gap_open))
		{
			found->paused = true;
			return;
		}
		row = look_at_row(search->table, tid, &search->buffer, &xid, &dead);
		search->scan->kill_prior_tuple = dead;
		if (row == ROW_GONE)
			continue;
		learn(look, &key, row, xid);
		if (row == ROW_INSERTED && search->own && TransactionIdIsCurrentTransactionId(xid))
			row = ROW_CLAIMABLE;
		if (row != ROW_CLAIMABLE)
			found->settled = false;
		else
		{
			RingEntry *entry = &found->entries[found->n++];

			entry->key = key;
			entry->shape = look->view.shape;
			entry->tid = *tid;
			entry->model = look->view.model;
			entry->passed = 0;
		}
	}
	look->ended = true;
}

/* Merge the matching shapes' rows in order. */
static void
collect(Search *search, const ShapeView *views, int n_views)
{
	Found *found = search->found;
	binaryheap *heap = binaryheap_allocate(n_views, sooner, NULL);
	Look *looks = palloc(n_views * sizeof(Look));

	for (int i = 0; i < n_views; i++)
	{
		begin_look(&looks[i], &views[i], search->own);
		if (looks[i].bound_found)
			found->settled = false;
		binaryheap_add_unordered(heap, PointerGetDatum(&looks[i]));
	}
	binaryheap_build(heap);
	while (found->n < search->want && !found->paused && !binaryheap_empty(heap))
	{
		Look *look = (Look *) DatumGetPointer(binaryheap_remove_first(heap));
		QueueKey limit = QUEUE_KEY_LAST;

		if (!binaryheap_empty(heap))
			limit = ((Look *) DatumGetPointer(binaryheap_first(heap)))->next;
		look_on(search, look, &limit);
		if (!look->ended)
			binaryheap_add(heap, PointerGetDatum(look));
		else
			end_look(look);
	}
	while (!binaryheap_empty(heap))
		end_look((Look *) DatumGetPointer(binaryheap_remove_first(heap)));
	binaryheap_free(heap);
	pfree(looks);
}

/*
 * Find up to want claimable rows of these shapes, in order; the result is allocated
 * in the current memory context. own: rows that this transaction made claimable
 * count too.
 */
Found *
store_look(Relation table, Oid index_oid, const ShapeView *views, int n_views, int want, bool own)
{
	Found *found = palloc(sizeof(Found));
	Search search = { .table = table, .want = Min(want, RING_SIZE), .own = own, .found = found };

	found->n = 0;
	found->paused = false;
	found->settled = true;
	if (n_views > 0)
	{
		Relation index = index_open(index_oid, AccessShareLock);

		search.scan = begin_scan(table, index, 2);
		collect(&search, views, n_views);
		index_endscan(search.scan);
		index_close(index, NoLock);
		if (BufferIsValid(search.buffer))
			ReleaseBuffer(search.buffer);
	}
	found->all = !found->paused && found->n < search.want;
	return found;
}

/* Restore the tags that tenants have reached, from where their tasks stand. */
static void
restore_tags(QueueId queue)
{
	static SpiQuery tags = { "WITH t AS (SELECT tenant, tag FROM gpu_orch.ready_queue UNION ALL"
							 "           SELECT tenant, tag FROM gpu_orch.lease UNION ALL"
							 "           SELECT tenant, tag FROM gpu_orch.waiting) "
							 "SELECT tenant, max(tag) FROM t GROUP BY tenant UNION ALL "
							 "SELECT $1, greatest((SELECT max(tag) FROM gpu_orch.lease),"
							 "                    (SELECT min(tag) FROM gpu_orch.ready_queue), 0)",
							 1,
							 { INT4OID } };
	SpiArgs args = SPI_ARGS_INIT;
	uint64 n;

	spi_begin();
	spi_arg_int4(&args, QUEUE_VIRTUAL_TIME);
	n = spi_read(&tags, &args, 0);
	for (uint64 i = 0; i < n; i++)
		queue_tag_restore(queue, spi_int4(i, 1), spi_int8(i, 2));
	spi_end();
}

/*
 * Register the shapes that have rows, each from its first one on that is not gone,
 * and the tags that tenants have reached: after a restart, or when the table was
 * rewritten. One backend does it while the others wait.
 */
void
store_look_discover(Relation table, Oid index_oid)
{
	QueueId queue = store_look_queue(table);
	LOCKTAG lock;
	Relation index;
	IndexScanDesc scan;
	int64 shape;
	QueueKey place;
	Buffer buffer = InvalidBuffer;
	ItemPointer tid;

	SET_LOCKTAG_ADVISORY(lock, MyDatabaseId, RelationGetRelid(table), 0, 2);
	(void) LockAcquire(&lock, ExclusiveLock, false, false);
	if (!queue_bound_is_known(queue))
	{
		restore_tags(queue);
		index = index_open(index_oid, AccessShareLock);
		scan = begin_scan(table, index, 1);
		next_shape(scan, NULL);
		while ((tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
		{
			TransactionId xid;
			bool dead;

			CHECK_FOR_INTERRUPTS();
			shape = read_entry(scan, &place);
			if (look_at_row(table, tid, &buffer, &xid, &dead) == ROW_GONE)
			{
				scan->kill_prior_tuple = dead;
				continue;
			}
			(void) queue_bound_lower(queue, shape, &place);
			next_shape(scan, &shape);
		}
		index_endscan(scan);
		index_close(index, NoLock);
		if (BufferIsValid(buffer))
			ReleaseBuffer(buffer);
		queue_bound_set_known(queue);
	}
	(void) LockRelease(&lock, ExclusiveLock, false);
}

/*
 * Look for rows that stand below their shape's bound: rows that came into the table
 * without store_queue_put(), as a restore of a dump writes them. And look at every
 * shape that may have work, so that one whose tasks nobody claims any more, as they
 * were cancelled, gives up its place. For the leader.
 */
void
store_look_recheck(Relation table, Oid index_oid)
{
	QueueId queue = store_look_queue(table);
	Relation index;
	IndexScanDesc scan;
	ShapeView view;
	Buffer buffer = InvalidBuffer;
	int64 shape = PG_INT64_MIN;
	bool searched = false;
	bool found = false;
	ItemPointer tid;

	if (!queue_bound_is_known(queue))
		store_look_discover(table, index_oid);
	for (int i = 0; queue_bound_look_at(i, queue, &view); i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (view.bound.work)
			pfree(store_look(table, index_oid, &view, 1, 1, false));
	}
	index = index_open(index_oid, AccessShareLock);
	scan = begin_scan(table, index, 1);
	next_shape(scan, NULL);
	while ((tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
	{
		TransactionId xid;
		QueueKey place;
		int64 at = read_entry(scan, &place);
		bool dead;

		CHECK_FOR_INTERRUPTS();
		if (!searched || at != shape)
		{
			searched = true;
			shape = at;
			if (!queue_bound_find(queue, shape, &view))
				view.bound.work = false;
		}
		if (!view.bound.work || queue_key_before(&place, &view.bound.bound))
		{
			RowState row = look_at_row(table, tid, &buffer, &xid, &dead);

			scan->kill_prior_tuple = dead;
			if (row == ROW_GONE)
				continue;
			found = true;
			(void) queue_bound_lower(queue, shape, &place);
			queue_ring_disturb(queue, &place);
		}
		next_shape(scan, &shape);
	}
	index_endscan(scan);
	index_close(index, NoLock);
	if (BufferIsValid(buffer))
		ReleaseBuffer(buffer);
	if (found)
		restore_tags(queue);
}
