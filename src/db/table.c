/*
 * db/table.c
 *	  Opens tables of ours, and learns from the catalog how each differs from its
 *	  description.
 *
 * A table may have columns, indexes and constraints that an operator added, and its
 * columns may stand elsewhere than in a fresh installation. What is learned is
 * checked after the table's lock is held: the invalidation that tells of a change
 * arrives with the lock. It is learned as a whole and published at once, so an error
 * in between leaves what was known before. A table that cannot be written as its
 * description says is refused (55000), never written otherwise.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "base/compat.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class_d.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "db/direct_known.h"
#include "db/ext_guard.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* Tables that this backend has opened ever. */
static DirectTable *tables = NULL;

/* The relation cache forgets a relation: what we learned of it, or by it, may be wrong. */
static void
relation_changed(Datum arg, Oid relid)
{
	for (DirectTable *table = tables; table != NULL; table = table->next)
	{
		bool ours = !OidIsValid(relid) || relid == table->relid;

		for (int i = 0; !ours && table->known != NULL && i < table->known->n_indexes; i++)
			ours = relid == table->known->indexes[i];
		if (ours)
			table->changes++;
	}
}

/* Refuse a table that is not what its description says. */
void
direct_refuse(const DirectTable *table, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table gpu_orch.%s is not as this library of gpu_orch knows it", table->name),
			 errdetail("%s", detail),
			 errhint("Undo what changed the table. After an update of the library, restart the "
					 "server and run ALTER EXTENSION gpu_orch UPDATE.")));
}

/* Find the table by its name; the result is good until the relation cache tells of a change. */
static void
look_up(DirectTable *table)
{
	Oid namespace = get_namespace_oid("gpu_orch", true);

	table->relid = OidIsValid(namespace) ? get_relname_relid(table->name, namespace) : InvalidOid;
	if (!OidIsValid(table->relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table gpu_orch.%s does not exist", table->name),
				 errhint("Run CREATE EXTENSION gpu_orch in this database, or drop it and create "
						 "it anew.")));
}

/* The number of the column of that name in the description; 0 if there is none. */
static int
number_of(const DirectTable *table, const char *name)
{
	for (int i = 0; i < table->n_columns; i++)
		if (strcmp(table->columns[i].name, name) == 0)
			return i + 1;
	return 0;
}

/*
 * Whether a value of the description's type may be put into a column as it is: the column is of that
 * type, or of a domain of ours, which is told with the type, and nothing computes or rounds it.
 */
static bool
takes_type(Form_pg_attribute column, Oid type, Oid schema)
{
	HeapTuple row;
	bool ours;

	if (column->atttypmod != -1 || column->attgenerated != '\0')
		return false;
	if (column->atttypid == type)
		return true;
	row = SearchSysCache1(TYPEOID, ObjectIdGetDatum(column->atttypid));
	ours = HeapTupleIsValid(row) && ((Form_pg_type) GETSTRUCT(row))->typnamespace == schema;
	if (HeapTupleIsValid(row))
		ReleaseSysCache(row);
	return ours && getBaseType(column->atttypid) == type;
}

/* Learn where each column of the description stands. */
static void
learn_columns(const DirectTable *table, Relation rel, DirectKnown *known)
{
	TupleDesc layout = RelationGetDescr(rel);

	Assert(table->n_columns <= DIRECT_MAX_COLUMNS);
	known->n_columns = table->n_columns;
	for (int i = 0; i < layout->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(layout, i);
		int number = column->attisdropped ? 0 : number_of(table, NameStr(column->attname));

		if (number == 0)
			continue;
		if (!takes_type(column, table->columns[number - 1].type, RelationGetNamespace(rel)))
			direct_refuse(table,
						  psprintf("Its column \"%s\" is of type %s%s instead of %s.",
								   NameStr(column->attname),
								   format_type_with_typemod(column->atttypid, column->atttypmod),
								   column->attgenerated ? ", generated," : "",
								   format_type_be(table->columns[number - 1].type)));
		known->places[number] = column->attnum;
	}
	for (int number = 1; number <= table->n_columns; number++)
		if (known->places[number] == 0 &&
			!(table->columns[number - 1].later && ext_is_older_schema()))
			direct_refuse(table,
						  psprintf("It has no column \"%s\".", table->columns[number - 1].name));
}

/*
 * Learn what to put into the columns that the description does not know: their
 * default, or what they are generated from, or null.
 */
static void
learn_defaults(const DirectTable *table, Relation rel, DirectKnown *known)
{
	TupleDesc layout = RelationGetDescr(rel);

	known->default_places = palloc(layout->natts * sizeof(AttrNumber));
	known->defaults = palloc(layout->natts * sizeof(ExprState *));
	/* What is generated comes after the values that it is generated from. */
	for (int i = 0; i < 2 * layout->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(layout, i % layout->natts);
		bool generated = i >= layout->natts;
		Node *value;

		if (column->attisdropped || compat_is_virtual(column) ||
			generated != (column->attgenerated != '\0') ||
			number_of(table, NameStr(column->attname)) != 0)
			continue;
		value = build_column_default(rel, column->attnum);
		if (value != NULL)
		{
			known->default_places[known->n_defaults] = column->attnum;
			known->defaults[known->n_defaults++] =
				ExecInitExpr(expression_planner((Expr *) value), NULL);
		}
		else if (column->attnotnull || DomainHasConstraints(column->atttypid))
			direct_refuse(
				table,
				psprintf("Its column \"%s\" may not be null, or not any value, has no default, and "
						 "is not known to this library.",
						 NameStr(column->attname)));
	}
}

/* Whether an index is the one that rows are looked up by: an ascending btree whose first columns are the key. */
static bool
is_lookup_index(const DirectTable *table, const DirectKnown *known, Relation index)
{
	int n = 0;

	if (table->index_name == NULL || strcmp(RelationGetRelationName(index), table->index_name) != 0)
		return false;
	while (n < DIRECT_MAX_KEYS && table->index_key[n] != 0)
		n++;
	if (!index->rd_index->indisvalid || index->rd_rel->relam != BTREE_AM_OID ||
		IndexRelationGetNumberOfKeyAttributes(index) < n ||
		(!table->index_is_partial && RelationGetIndexPredicate(index) != NIL))
		return false;
	for (int i = 0; i < n; i++)
		if (index->rd_index->indkey.values[i] != known->places[table->index_key[i]] ||
			index->rd_indoption[i] != 0)
			return false;
	return true;
}

/* Learn the table's indexes, and whether rows can be put into each of them. */
static void
learn_indexes(const DirectTable *table, Relation rel, DirectKnown *known)
{
	List *list = RelationGetIndexList(rel);
	ListCell *cell;

	known->indexes = palloc(list_length(list) * sizeof(Oid));
	known->infos = palloc(list_length(list) * sizeof(IndexInfo *));
	foreach (cell, list)
	{
		Relation index = index_open(lfirst_oid(cell), RowExclusiveLock);
		IndexInfo *info = BuildIndexInfo(index);

		if (index->rd_index->indisexclusion || !index->rd_index->indimmediate)
			direct_refuse(
				table,
				psprintf("Its index \"%s\" belongs to an exclusion constraint or to one that can "
						 "be deferred.",
						 RelationGetRelationName(index)));
		if (info->ii_Predicate != NIL)
			info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate, known->estate);
		if (is_lookup_index(table, known, index))
			known->index = RelationGetRelid(index);
		known->indexes[known->n_indexes] = RelationGetRelid(index);
		known->infos[known->n_indexes++] = info;
		index_close(index, NoLock);
	}
	list_free(list);
	if (table->index_name != NULL && !OidIsValid(known->index))
		direct_refuse(table,
					  psprintf("Its index \"%s\" is missing, not valid, or of another kind.",
							   table->index_name));
}

/* Learn which columns may not be null: ours, and those that somebody made so. */
static void
learn_not_null(Relation rel, DirectKnown *known)
{
	TupleDesc desc = RelationGetDescr(rel);

	known->forbids_null = palloc0(TYPEALIGN(sizeof(uint64), desc->natts));
	for (int i = 0; i < desc->natts; i++)
		known->forbids_null[i] =
			TupleDescAttr(desc, i)->attnotnull && !TupleDescAttr(desc, i)->attisdropped;
}

/*
 * Learn all of a table whose lock is held. Nothing is published unless all of it was
 * learned. What was known before lives until the end of the transaction, for a
 * caller that is still at a row of it.
 */
static void
learn(DirectTable *table, Relation rel)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "gpu_orch table", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	DirectKnown *known = palloc0(sizeof(DirectKnown));

	known->context = context;
	known->changes = table->changes;
	known->estate = CreateExecutorState();
	learn_columns(table, rel, known);
	learn_defaults(table, rel, known);
	learn_indexes(table, rel, known);
	known->sequence =
		get_relname_relid(psprintf("%s_id_seq", table->name), RelationGetNamespace(rel));
	known->has_checks = rel->rd_att->constr != NULL && rel->rd_att->constr->num_check > 0;
	learn_not_null(rel, known);
	/* With the values of columns that were added after a row was written. */
	known->slot =
		MakeTupleTableSlot(CreateTupleDescCopyConstr(RelationGetDescr(rel)), &TTSOpsVirtual);
	known->slot->tts_tableOid = RelationGetRelid(rel);
	known->row.known = known;
	MemoryContextSwitchTo(old);

	MemoryContextSetParent(context, TopMemoryContext);
	if (table->known != NULL)
		MemoryContextSetParent(table->known->context, TopTransactionContext);
	table->known = known;
}

/*
 * Whether the rows of a relation are in its own heap and nowhere else, as those of a view, of a
 * foreign table, of a partitioned one or of one with heirs are not.
 */
bool
direct_is_heap(Relation rel)
{
	return rel->rd_rel->relkind == RELKIND_RELATION &&
		rel->rd_tableam == GetHeapamTableAmRoutine() &&
		!(rel->rd_rel->relhassubclass &&
		  find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL);
}

/* Refuse a table in which the server would look elsewhere for rows, or hide, check or keep them otherwise. */
static void
check_kind(const DirectTable *table, Relation rel)
{
	if (!direct_is_heap(rel) || rel->rd_rel->relispartition)
		direct_refuse(table,
					  "It is not an ordinary table of its own with the access method heap, or "
					  "others inherit from it.");
	if (rel->rd_rel->relrowsecurity && rel->rd_rel->relforcerowsecurity)
		direct_refuse(table, "Row level security is forced on its owner.");
	if (table->deletes)
		CheckCmdReplicaIdentity(rel, CMD_DELETE);
}

/* Whether an open relation is still the one of the table's name. */
static bool
has_name(const DirectTable *table, Relation rel)
{
	return strcmp(RelationGetRelationName(rel), table->name) == 0 &&
		RelationGetNamespace(rel) == get_namespace_oid("gpu_orch", true);
}

/*
 * Open a table for writing; the lock is kept until the end of the transaction. Raises
 * 42P01 where the extension is not installed, and 55000 where the table is not as its
 * description says.
 */
Relation
direct_open(DirectTable *table)
{
	if (table->changes == 0)
	{
		if (tables == NULL)
			CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		table->changes = 1;
		table->next = tables;
		tables = table;
	}
	for (;;)
	{
		Relation rel;

		if (!OidIsValid(table->relid))
			look_up(table);
		LockRelationOid(table->relid, RowExclusiveLock);
		/* A table of which no change was told, with the lock held, is there. */
		if (table->known != NULL && table->known->changes == table->changes)
			return table_open(table->relid, NoLock);
		rel = try_table_open(table->relid, NoLock);
		if (rel != NULL && has_name(table, rel))
		{
			/*
			 * With the lock held nobody can change what is learned here but by what waits for us
			 * before it counts: an index that is made or dropped concurrently.
			 */
			check_kind(table, rel);
			learn(table, rel);
			return rel;
		}
		if (rel != NULL)
			table_close(rel, NoLock);
		UnlockRelationOid(table->relid, RowExclusiveLock);
		table->relid = InvalidOid;
		CHECK_FOR_INTERRUPTS();
	}
}

/* Close a table; its lock is kept. */
void
direct_close(Relation rel)
{
	table_close(rel, NoLock);
}

/* The index that rows of an open table are looked up by. */
Oid
direct_index(const DirectTable *table)
{
	return table->known->index;
}
