/*
 * db/direct.h
 *	  Rows of our own tables, read and written without a planner; and the description
 *	  of such a table, which stands in one place.
 *
 * A description is a list macro with one line for each column, and two users of it:
 *
 *	  #define LEASE_COLUMNS(COLUMN, LATER) \
 *		COLUMN(LEASE_TASK_ID, task_id, INT8OID) \
 *		COLUMN(LEASE_ID, id, UUIDOID)
 *
 *	  enum { LEASE_COLUMN_0, LEASE_COLUMNS(DIRECT_NUMBER, DIRECT_NUMBER) };
 *	  static const DirectColumn lease_columns[] = { LEASE_COLUMNS(DIRECT_ENTRY, DIRECT_LATER) };
 *
 * So the numbers count from 1. They name a column in every version of the schema;
 * where the column stands in the table is learned from the catalog. LATER columns
 * are those that the schema before this one does not have.
 */
#ifndef GPU_ORCH_DIRECT_H
#define GPU_ORCH_DIRECT_H

#include "access/skey.h"
#include "access/tableam.h"
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#define DIRECT_MAX_COLUMNS 32
#define DIRECT_MAX_KEYS 4

#define DIRECT_NUMBER(number, name, type) number,
#define DIRECT_ENTRY(number, name, type) { #name, type, false },
#define DIRECT_LATER(number, name, type) { #name, type, true },

/* One column; the type is the one below a domain. */
typedef struct DirectColumn
{
	const char *name;
	Oid type;
	bool later;
} DirectColumn;

/*
 * A table of ours, its columns, and the index that direct_find() uses. Declared
 * static in the file that owns the table. What stands below the description is this
 * backend's knowledge of the table; table.c alone changes it.
 */
typedef struct DirectTable
{
	const char *name;
	const DirectColumn *columns;
	int n_columns;
	const char *index_name;			/* NULL: rows are never looked up */
	int index_key[DIRECT_MAX_KEYS]; /* numbers of the columns that it begins with; 0 ends them */
	bool index_is_partial;			/* the rows that are looked up are in it */
	bool deletes;					/* rows are deleted without the executor */

	struct DirectTable *next; /* of the tables that were opened ever */
	Oid relid;				  /* invalid: to be looked up by name */
	uint64 changes;			  /* of the definition, as the relation cache tells */
	struct DirectKnown *known;
} DirectTable;

/* A row that is being made. The arrays are indexed by the numbers of the description. */
typedef struct DirectRow
{
	Datum values[DIRECT_MAX_COLUMNS + 1];
	bool nulls[DIRECT_MAX_COLUMNS + 1];
	ItemPointerData tid; /* set by direct_insert() */
	struct DirectKnown *known;
} DirectRow;

#define DIRECT_TABLE(table, column_array, ...) \
	{ \
		.name = (table), .columns = (column_array), .n_columns = lengthof(column_array), \
		__VA_ARGS__ \
	}

extern Relation direct_open(DirectTable *table);
extern void direct_close(Relation rel);
extern Oid direct_index(const DirectTable *table);

extern TupleTableSlot *direct_slot(DirectTable *table, Relation rel);
extern void direct_slot_done(DirectTable *table, TupleTableSlot *slot);
extern Snapshot direct_snapshot(void);
extern void direct_release(Snapshot snapshot);
extern bool direct_find(DirectTable *table, Relation rel, Snapshot snapshot, ScanKey keys,
						int n_keys, TupleTableSlot *row, ItemPointer tid);
extern int64 direct_count(DirectTable *table, Relation rel, Snapshot snapshot, ScanKey keys,
						  int n_keys, int64 limit);
extern bool direct_find_near(Relation rel, Snapshot snapshot, ItemPointer tid, TupleTableSlot *row);
extern DirectRow *direct_new_row(DirectTable *table);
extern int64 direct_next_id(DirectTable *table);
extern void direct_insert(DirectRow *row, Relation rel);
extern bool direct_delete(Relation rel, TupleTableSlot *row, Snapshot snapshot, bool *changed);
extern TransactionId direct_locked_by(const char *table, ItemPointer tid, bool deletes);

extern Datum direct_datum(const DirectTable *table, TupleTableSlot *row, int column, bool *isnull);
extern int64 direct_int8(const DirectTable *table, TupleTableSlot *row, int column);
extern int32 direct_int4(const DirectTable *table, TupleTableSlot *row, int column);
extern int64 direct_int8_or_0(const DirectTable *table, TupleTableSlot *row, int column);

#endif
