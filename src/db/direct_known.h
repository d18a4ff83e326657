/*
 * db/direct_known.h
 *	  What a backend knows of a table that it reads and writes without a planner. For
 *	  table.c, which learns it, and direct.c, which goes by it.
 */
#ifndef GPU_ORCH_DIRECT_KNOWN_H
#define GPU_ORCH_DIRECT_KNOWN_H

#include "db/direct.h"

/* All of it lies in its context, and none of it changes once it is published but the last two. */
typedef struct DirectKnown
{
	MemoryContext context;
	uint64 changes; /* the table's count of changes at which all this was learned */
	AttrNumber places[DIRECT_MAX_COLUMNS + 1]; /* by number; 0: the table has no such column */
	int n_columns;							   /* that the description has */
	Oid index;	  /* that direct_find() uses; invalid: the table has none */
	Oid sequence; /* of the identity column id; invalid: the table has none */
	EState *estate;
	int n_indexes;
	Oid *indexes;
	IndexInfo **infos;
	int n_defaults; /* columns that the description does not know and that are not just null */
	AttrNumber *default_places;
	ExprState **defaults;
	bool has_checks;	  /* constraints other than not null and unique */
	bool *forbids_null;	  /* by column of the table, in whole words: NOT NULL */
	TupleTableSlot *slot; /* of the table's own layout, for the row that is being inserted */
	DirectRow row;
	TupleTableSlot *read;	   /* for a row that is read; NULL: not made yet */
	LocalTransactionId reader; /* the transaction that has it, or had it when it failed */
} DirectKnown;

extern void direct_refuse(const DirectTable *table, const char *detail);
extern bool direct_is_heap(Relation rel);

#endif
