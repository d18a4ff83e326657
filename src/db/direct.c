/*
 * db/direct.c
 *	  Rows of our own tables, read and written without a planner: for the hot path,
 *	  where SPI costs several times what the row does.
 *
 * Looks a row up by one index, inserts one with all of its index entries, deletes
 * one. It checks no right and runs no trigger: callers pass legal rows, and hot tables
 * have none of these. Columns, indexes and CHECK constraints that somebody added are
 * honoured; see table.c for how they are known.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/subtrans.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "catalog/index.h"
#include "commands/sequence.h"
#include "db/direct_known.h"
#include "db/spi_util.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*
 * A snapshot that sees what committed until now and what this transaction did; to
 * be given back with direct_release().
 */
Snapshot
direct_snapshot(void)
{
	return RegisterSnapshot(GetTransactionSnapshot());
}

void
direct_release(Snapshot snapshot)
{
	UnregisterSnapshot(snapshot);
}

/*
 * A slot for a row of an open table, to be given back with direct_slot_done(). The table keeps
 * one; whoever asks while that one is in use gets one made for him.
 */
TupleTableSlot *
direct_slot(DirectTable *table, Relation rel)
{
	DirectKnown *known = table->known;

	if (known->reader == compat_local_xid())
		return table_slot_create(rel, NULL);
	/* One that an error took from its user still names a buffer, whose pin went with that transaction. */
	if (known->reader != InvalidLocalTransactionId)
	{
		pfree(known->read);
		known->read = NULL;
	}
	if (known->read == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(known->context);

		known->read =
			MakeSingleTupleTableSlot(known->slot->tts_tupleDescriptor, table_slot_callbacks(rel));
		MemoryContextSwitchTo(old);
	}
	known->reader = compat_local_xid();
	return known->read;
}

void
direct_slot_done(DirectTable *table, TupleTableSlot *slot)
{
	DirectKnown *known = table->known;

	if (slot == known->read)
	{
		ExecClearTuple(slot);
		known->reader = InvalidLocalTransactionId;
	}
	else
		ExecDropSingleTupleTableSlot(slot);
}

/*
 * Put the first row that the keys select by the table's index into the slot.
 * False when there is none. The keys name columns of the index, counted from 1;
 * their collations are filled in. *tid, unless NULL, is what the index points to.
 */
bool
direct_find(DirectTable *table, Relation rel, Snapshot snapshot, ScanKey keys, int n_keys,
			TupleTableSlot *row, ItemPointer tid)
{
	Relation index = index_open(table->known->index, AccessShareLock);
	IndexScanDesc scan = compat_index_beginscan(rel, index, snapshot, n_keys);
	bool found = false;

	for (int i = 0; i < n_keys; i++)
		keys[i].sk_collation = index->rd_indcollation[keys[i].sk_attno - 1];
	index_rescan(scan, keys, n_keys, NULL, 0);
	while (!found && index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		ItemPointerData entry = scan->xs_heaptid;

		found = index_fetch_heap(scan, row);
		if (found && tid != NULL)
			*tid = entry;
	}
	index_endscan(scan);
	index_close(index, NoLock);
	return found;
}

/* Count the rows that the keys select by the table's index, as direct_find() does, up to a limit. */
int64
direct_count(DirectTable *table, Relation rel, Snapshot snapshot, ScanKey keys, int n_keys,
			 int64 limit)
{
	Relation index = index_open(table->known->index, AccessShareLock);
	TupleTableSlot *row = direct_slot(table, rel);
	IndexScanDesc scan = compat_index_beginscan(rel, index, snapshot, n_keys);
	int64 n = 0;

	index_rescan(scan, keys, n_keys, NULL, 0);
	while (n < limit && index_getnext_slot(scan, ForwardScanDirection, row))
	{
		CHECK_FOR_INTERRUPTS();
		n++;
	}
	index_endscan(scan);
	direct_slot_done(table, row);
	index_close(index, NoLock);
	return n;
}

/*
 * Put the row into the slot whose index entries pointed to tid once. False when
 * there is none now; there may also be another row, so the caller compares it.
 */
bool
direct_find_near(Relation rel, Snapshot snapshot, ItemPointer tid, TupleTableSlot *row)
{
	IndexFetchTableData *fetch = table_index_fetch_begin(rel);
	ItemPointerData at = *tid;
	bool again = false;
	bool found;

	if (ItemPointerGetBlockNumber(tid) >= RelationGetNumberOfBlocks(rel))
		found = false;
	else
		found = table_index_fetch_tuple(fetch, &at, snapshot, row, &again, NULL);
	table_index_fetch_end(fetch);
	return found;
}

/*
 * A row to fill in, without nulls until the caller says so, and to give to
 * direct_insert(). The table must be open. The row is good until the next one of its
 * table. A column that the schema lacks may be filled in; its value goes nowhere.
 */
DirectRow *
direct_new_row(DirectTable *table)
{
	memset(table->known->row.nulls, false, sizeof(table->known->row.nulls));
	return &table->known->row;
}

/* The next value of an open table's identity column id. */
int64
direct_next_id(DirectTable *table)
{
	if (!OidIsValid(table->known->sequence))
		direct_refuse(table,
					  psprintf("The sequence of its ids is not named %s_id_seq.", table->name));
	return nextval_internal(table->known->sequence, false);
}

/* Check the constraints of an operator, as the executor does. */
static void
check_constraints(Relation rel, TupleTableSlot *slot)
{
	EState *estate = CreateExecutorState();
	ResultRelInfo *target = makeNode(ResultRelInfo);

	InitResultRelInfo(target, rel, 0, NULL, 0);
	ExecConstraints(target, slot, estate);
	FreeExecutorState(estate);
}

/*
 * Whether a column is null that may not be, eight columns at a time; what stands behind the last
 * column of a slot, up to a whole word, is masked.
 */
static bool
has_forbidden_null(const DirectKnown *known, const TupleTableSlot *slot)
{
	int n = slot->tts_tupleDescriptor->natts;

	for (int i = 0; i < n; i += (int) sizeof(uint64))
	{
		uint64 nulls;
		uint64 forbidden;

		memcpy(&nulls, slot->tts_isnull + i, sizeof(nulls));
		memcpy(&forbidden, known->forbids_null + i, sizeof(forbidden));
		if (nulls & forbidden)
			return true;
	}
	return false;
}

/* Lay a row out as the table has it, with what the description does not know filled in. */
static TupleTableSlot *
lay_out(const DirectRow *row, ExprContext *econtext)
{
	DirectKnown *known = row->known;
	TupleTableSlot *slot = known->slot;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (int number = 1; number <= known->n_columns; number++)
	{
		int at = known->places[number] - 1;

		if (at < 0)
			continue;
		slot->tts_values[at] = row->values[number];
		slot->tts_isnull[at] = row->nulls[number];
	}
	ExecStoreVirtualTuple(slot);
	econtext->ecxt_scantuple = slot;
	for (int i = 0; i < known->n_defaults; i++)
	{
		int at = known->default_places[i] - 1;
		bool isnull;
		Datum value = ExecEvalExprSwitchContext(known->defaults[i], econtext, &isnull);

		slot->tts_values[at] = value;
		slot->tts_isnull[at] = isnull;
	}
	return slot;
}

/* Put the entry of a row into one index. */
static void
insert_entry(Relation rel, Oid index_oid, IndexInfo *info, TupleTableSlot *slot, EState *estate)
{
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS];
	Relation index = index_open(index_oid, RowExclusiveLock);

	/* What an access method keeps for its next insertion must not outlive the index's lock. */
	info->ii_Context = GetPerTupleMemoryContext(estate);
	info->ii_AmCache = NULL;
	FormIndexDatum(info, slot, estate, values, nulls);
	index_insert(index, values, nulls, &slot->tts_tid, rel,
				 info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, false, info);
	compat_index_insert_cleanup(index, info);
	info->ii_AmCache = NULL;
	index_close(index, NoLock);
}

/*
 * Insert a row of direct_new_row(), with its index entries; row->tid is its place then.
 * Raises 23505 where a unique index has one like it, and 23514 or 23502 where a constraint that
 * somebody added does not hold.
 */
void
direct_insert(DirectRow *row, Relation rel)
{
	DirectKnown *known = row->known;
	ExprContext *econtext = GetPerTupleExprContext(known->estate);
	TupleTableSlot *slot = lay_out(row, econtext);

	if (known->has_checks || has_forbidden_null(known, slot))
		check_constraints(rel, slot);
	table_tuple_insert(rel, slot, GetCurrentCommandId(true), 0, NULL);
	row->tid = slot->tts_tid;

	for (int i = 0; i < known->n_indexes; i++)
	{
		IndexInfo *info = known->infos[i];

		if (info->ii_ReadyForInserts &&
			(info->ii_PredicateState == NULL || ExecQual(info->ii_PredicateState, econtext)))
			insert_entry(rel, known->indexes[i], info, slot, known->estate);
	}
	econtext->ecxt_scantuple = NULL;
	ResetExprContext(econtext);
}

/*
 * Delete the row in the slot, waiting for whoever changes it. False when it is
 * gone; then *changed tells whether that is because it was updated, so that it has
 * to be looked up again.
 */
bool
direct_delete(Relation rel, TupleTableSlot *row, Snapshot snapshot, bool *changed)
{
	TM_FailureData failure;
	TM_Result result = table_tuple_delete(rel, &row->tts_tid, GetCurrentCommandId(true), snapshot,
										  InvalidSnapshot, true, &failure, false);

	*changed = result == TM_Updated;
	return result == TM_Ok;
}

/*
 * The transaction of a multixact, but ours, that keeps the row from writers, or from who deletes it;
 * invalid if none is open.
 */
static TransactionId
open_member(MultiXactId multi, bool only_locks, bool deletes)
{
	TransactionId xid = InvalidTransactionId;
	MultiXactMember *members;
	int n = GetMultiXactIdMembers(multi, &members, false, only_locks);

	for (int i = 0; i < n && !TransactionIdIsValid(xid); i++)
		if ((deletes || members[i].status != MultiXactStatusForKeyShare) &&
			!TransactionIdIsCurrentTransactionId(members[i].xid) &&
			TransactionIdIsInProgress(members[i].xid))
			xid = members[i].xid;
	if (n > 0)
		pfree(members);
	return xid;
}

/* The transaction that keeps a row of this header from these; invalid if none is open. */
static TransactionId
keeper(HeapTupleHeader header, bool deletes)
{
	TransactionId xmax = HeapTupleHeaderGetRawXmax(header);

	if (header->t_infomask & HEAP_XMAX_INVALID)
		return InvalidTransactionId;
	if (header->t_infomask & HEAP_XMAX_IS_MULTI)
		return open_member(xmax, HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask), deletes);
	if ((!deletes && HEAP_XMAX_IS_KEYSHR_LOCKED(header->t_infomask)) ||
		!TransactionIdIsInProgress(xmax))
		return InvalidTransactionId;
	return xmax;
}

/*
 * The open transaction, of another session, that has changed or locked the row of a table of ours
 * at that place, so that nobody else may change it, or delete it; invalid if there is none. Waits
 * for no row.
 */
TransactionId
direct_locked_by(const char *table, ItemPointer tid, bool deletes)
{
	Relation rel = table_open(spi_table(table), AccessShareLock);
	TupleTableSlot *row;
	TransactionId xid = InvalidTransactionId;

	if (!direct_is_heap(rel))
	{
		table_close(rel, AccessShareLock);
		return xid;
	}
	row = table_slot_create(rel, NULL);
	if (table_tuple_fetch_row_version(rel, tid, SnapshotAny, row) && TTS_IS_BUFFERTUPLE(row))
	{
		BufferHeapTupleTableSlot *held = (BufferHeapTupleTableSlot *) row;
		HeapTupleHeaderData header;

		LockBuffer(held->buffer, BUFFER_LOCK_SHARE);
		header = *held->base.tuple->t_data;
		LockBuffer(held->buffer, BUFFER_LOCK_UNLOCK);
		xid = keeper(&header, deletes);
		if (TransactionIdIsValid(xid))
			xid = SubTransGetTopmostTransaction(xid);
		if (TransactionIdIsValid(xid) && TransactionIdIsCurrentTransactionId(xid))
			xid = InvalidTransactionId;
	}
	ExecDropSingleTupleTableSlot(row);
	table_close(rel, AccessShareLock);
	return xid;
}

/*
 * The value of a column of the description; null where the schema lacks the column. What
 * it points to belongs to the slot.
 */
Datum
direct_datum(const DirectTable *table, TupleTableSlot *row, int column, bool *isnull)
{
	AttrNumber place = table->known->places[column];

	*isnull = true;
	return place == 0 ? (Datum) 0 : slot_getattr(row, place, isnull);
}

/* A bigint or timestamptz column that is not null. */
int64
direct_int8(const DirectTable *table, TupleTableSlot *row, int column)
{
	bool isnull;
	Datum value = direct_datum(table, row, column, &isnull);

	Assert(!isnull);
	return DatumGetInt64(value);
}

/* An integer column that is not null. */
int32
direct_int4(const DirectTable *table, TupleTableSlot *row, int column)
{
	bool isnull;
	Datum value = direct_datum(table, row, column, &isnull);

	Assert(!isnull);
	return DatumGetInt32(value);
}

/* A bigint or timestamptz column; 0 where it is null. */
int64
direct_int8_or_0(const DirectTable *table, TupleTableSlot *row, int column)
{
	bool isnull;
	Datum value = direct_datum(table, row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}
