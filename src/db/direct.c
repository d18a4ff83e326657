/*
 * db/direct.c
 *	  Rows of our own tables, read and written without a planner: for the hot path,
 *	  where SPI costs several times what the row does.
 *
 * Looks a row up by one index, inserts one with all of its index entries, deletes
 * one. It checks no right, no default, no constraint but unique indexes, and runs
 * no trigger: callers pass complete and legal rows, and hot tables have none of
 * these. What it knows of a table's indexes is kept until the relation cache says
 * that something changed, so an index that somebody adds is maintained too.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "base/compat.h"
#include "db/direct.h"
#include "executor/executor.h"
#include "storage/bufmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*
 * Counts changes of any relation's definition; what was learned under an older
 * count is learned again. Starts at 1, so that a DirectTable of zeroes is stale.
 */
static int generation = 0;

static void
relation_changed(Datum arg, Oid relid)
{
	generation++;
}

/*
 * Open a table for writing; the lock is kept until the end of the transaction.
 * Raises 42P01 where the extension is not installed.
 */
Relation
direct_open(DirectTable *table)
{
	if (generation == 0)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		generation = 1;
	}
	if (table->generation != generation)
	{
		Oid namespace = get_namespace_oid("gpu_orch", false);

		if (table->context != NULL)
			MemoryContextDelete(table->context);
		table->context = NULL;
		table->estate = NULL;
		table->relid = get_relname_relid(table->name, namespace);
		table->index =
			table->index_name ? get_relname_relid(table->index_name, namespace) : InvalidOid;
		table->sequence = get_relname_relid(psprintf("%s_id_seq", table->name), namespace);
		if (!OidIsValid(table->relid) || (table->index_name != NULL && !OidIsValid(table->index)))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("table gpu_orch.%s or its index is missing", table->name),
					 errhint("Install the extension anew.")));
		table->generation = generation;
	}
	return table_open(table->relid, RowExclusiveLock);
}

void
direct_close(Relation rel)
{
	table_close(rel, NoLock);
}

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
 * Put the first row that the keys select by the table's index into the slot.
 * False when there is none. The keys name columns of the index, counted from 1;
 * their collations are filled in. *tid, unless NULL, is what the index points to.
 */
bool
direct_find(DirectTable *table, Relation rel, Snapshot snapshot, ScanKey keys, int n_keys,
			TupleTableSlot *row, ItemPointer tid)
{
	Relation index = index_open(table->index, AccessShareLock);
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

/* Learn a table's indexes, in memory that lives as long as the knowledge is good. */
static void
learn_indexes(DirectTable *table, Relation rel)
{
	List *list = RelationGetIndexList(rel);
	MemoryContext old;
	ListCell *cell;

	table->context =
		AllocSetContextCreate(TopMemoryContext, "gpu_orch indexes", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(table->context);
	table->estate = CreateExecutorState();
	table->n_indexes = 0;
	table->indexes = palloc(list_length(list) * sizeof(Oid));
	table->infos = palloc(list_length(list) * sizeof(IndexInfo *));
	foreach (cell, list)
	{
		Relation index = index_open(lfirst_oid(cell), RowExclusiveLock);
		IndexInfo *info = BuildIndexInfo(index);

		if (info->ii_Predicate != NIL)
			info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate, table->estate);
		table->indexes[table->n_indexes] = RelationGetRelid(index);
		table->infos[table->n_indexes++] = info;
		index_close(index, NoLock);
	}
	table->row = MakeTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)), &TTSOpsVirtual);
	MemoryContextSwitchTo(old);
	list_free(list);
}

/*
 * A row to fill in, without nulls until the caller says so, and to give to
 * direct_insert(). It is good until the next one of its table.
 */
TupleTableSlot *
direct_new_row(DirectTable *table, Relation rel)
{
	if (table->estate == NULL)
		learn_indexes(table, rel);
	ExecClearTuple(table->row);
	memset(table->row->tts_isnull, false, table->row->tts_tupleDescriptor->natts * sizeof(bool));
	return table->row;
}

/* The next value of a table's identity column id. */
int64
direct_next_id(DirectTable *table)
{
	return nextval_internal(table->sequence, false);
}

/*
 * Insert a row of direct_new_row(), with its index entries. Raises 23505 where a
 * unique index has one like it.
 */
void
direct_insert(DirectTable *table, Relation rel, TupleTableSlot *row)
{
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS];
	ExprContext *econtext;

	ExecStoreVirtualTuple(row);
	row->tts_tableOid = RelationGetRelid(rel);
	table_tuple_insert(rel, row, GetCurrentCommandId(true), 0, NULL);

	econtext = GetPerTupleExprContext(table->estate);
	econtext->ecxt_scantuple = row;
	for (int i = 0; i < table->n_indexes; i++)
	{
		IndexInfo *info = table->infos[i];
		Relation index;

		if (!info->ii_ReadyForInserts ||
			(info->ii_PredicateState != NULL && !ExecQual(info->ii_PredicateState, econtext)))
			continue;
		index = index_open(table->indexes[i], RowExclusiveLock);
		FormIndexDatum(info, row, table->estate, values, nulls);
		index_insert(index, values, nulls, &row->tts_tid, rel,
					 info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, false, info);
		index_close(index, NoLock);
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

/* A bigint column that is not null. */
int64
direct_int8(TupleTableSlot *row, int column)
{
	bool isnull;
	Datum value = slot_getattr(row, column, &isnull);

	Assert(!isnull);
	return DatumGetInt64(value);
}

/* An integer column that is not null. */
int32
direct_int4(TupleTableSlot *row, int column)
{
	bool isnull;
	Datum value = slot_getattr(row, column, &isnull);

	Assert(!isnull);
	return DatumGetInt32(value);
}

/* A bigint or timestamptz column; 0 where it is null. */
int64
direct_int8_or_0(TupleTableSlot *row, int column)
{
	bool isnull;
	Datum value = slot_getattr(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}
