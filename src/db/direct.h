/*
 * db/direct.h
 *	  Rows of our own tables, read and written without a planner.
 */
#ifndef GPU_ORCH_DIRECT_H
#define GPU_ORCH_DIRECT_H

#include "access/skey.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/*
 * A table of ours, by its name and the name of the index that direct_find() uses.
 * Declared static in the store_ file that owns the table; the rest is this
 * backend's knowledge of it.
 */
typedef struct DirectTable
{
	const char *name;
	const char *index_name; /* NULL: rows are never looked up */
	Oid relid;				/* invalid: not looked up yet */
	Oid index;
	Oid sequence;	/* of its identity column id; invalid: it has none */
	int generation; /* of the knowledge below; see db/direct.c */
	MemoryContext context;
	EState *estate;
	int n_indexes;
	Oid *indexes;
	IndexInfo **infos;
	TupleTableSlot *row; /* for direct_new_row() */
} DirectTable;

extern Relation direct_open(DirectTable *table);
extern void direct_close(Relation rel);
extern Snapshot direct_snapshot(void);
extern void direct_release(Snapshot snapshot);
extern bool direct_find(DirectTable *table, Relation rel, Snapshot snapshot, ScanKey keys,
						int n_keys, TupleTableSlot *row, ItemPointer tid);
extern bool direct_find_near(Relation rel, Snapshot snapshot, ItemPointer tid, TupleTableSlot *row);
extern TupleTableSlot *direct_new_row(DirectTable *table, Relation rel);
extern int64 direct_next_id(DirectTable *table);
extern void direct_insert(DirectTable *table, Relation rel, TupleTableSlot *row);
extern bool direct_delete(Relation rel, TupleTableSlot *row, Snapshot snapshot, bool *changed);

extern int64 direct_int8(TupleTableSlot *row, int column);
extern int32 direct_int4(TupleTableSlot *row, int column);
extern int64 direct_int8_or_0(TupleTableSlot *row, int column);

#endif
