/*
 * store/drop.c
 *	  Our tables are not dropped while pods depend on them.
 *
 * Whatever takes the extension away, by DROP EXTENSION, by its schema, by its
 * owner or table by table, comes to drop the tables that name the pods. The hook
 * looks into them then, and raises an error if there is a pod that would bill on
 * with nobody left who knows of it. It reads the tables itself, since whoever
 * drops them need not have a right to read. What a script of the extension drops
 * is its own affair. Of a dropped database nothing is seen here.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "executor/tuptable.h"
#include "base/guc.h"
#include "miscadmin.h"
#include "store/drop.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* The tables without which a pod is not known any more, or not ended. */
static const char *const guarded[] = { "worker", "worker_profile", "cloud_op", "spend",
									   "pool",	 "installation",   NULL };

static object_access_hook_type previous_hook = NULL;

/* Is the text in this column one of these? A column that is not there holds nothing. */
static bool
holds(TupleTableSlot *row, AttrNumber column, const char *const *values)
{
	bool isnull;
	Datum value;
	char *found;

	if (column == InvalidAttrNumber)
		return false;
	value = slot_getattr(row, column, &isnull);
	if (isnull)
		return false;
	found = TextDatumGetCString(value);
	for (int i = 0; values[i] != NULL; i++)
		if (strcmp(found, values[i]) == 0)
			return true;
	return false;
}

/*
 * Count the rows of a table of ours whose column `in` holds one of `values` and whose
 * column `out` holds none of `excluded`; without `out` all that the first finds. A table
 * that is gone has none.
 */
static int64
count_rows(Oid namespace, const char *table, const char *in, const char *const *values,
		   const char *out, const char *const *excluded)
{
	Oid oid = get_relname_relid(table, namespace);
	Relation rel;
	AttrNumber in_number;
	AttrNumber out_number;
	TableScanDesc scan;
	TupleTableSlot *row;
	Snapshot snapshot;
	int64 n = 0;

	if (!OidIsValid(oid) || get_rel_relkind(oid) != RELKIND_RELATION)
		return 0;
	rel = table_open(oid, AccessShareLock);
	in_number = get_attnum(oid, in);
	out_number = out == NULL ? InvalidAttrNumber : get_attnum(oid, out);
	/* What committed before we had the lock counts, whatever the isolation level. */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	row = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		CHECK_FOR_INTERRUPTS();
		if (holds(row, in_number, values) && (out == NULL || !holds(row, out_number, excluded)))
			n++;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return n;
}

/* Raise 2BP01 if a pod may live, or a call to the provider is not settled. */
static void
refuse_if_needed(Oid namespace)
{
	static const char *const cloud[] = { "cloud", NULL };
	static const char *const terminated[] = { "terminated", NULL };
	static const char *const open[] = { "planned", "sent", "unknown", NULL };
	int64 workers = count_rows(namespace, "worker", "origin", cloud, "state", terminated);
	int64 ops = count_rows(namespace, "cloud_op", "state", open, NULL, NULL);

	if (workers == 0 && ops == 0)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
		 errmsg("gpu_orch cannot be dropped while it has pods"),
		 errdetail(INT64_FORMAT " cloud workers are not terminated, and " INT64_FORMAT
								" calls to the provider are not settled.",
				   workers, ops),
		 errhint(
			 "Call gpu_orch.kill_fleet() and wait until the workers are terminated. Where the "
			 "leader cannot do that, or this is a copy: SET gpu_orch.allow_drop = on, drop, and "
			 "end what is left with the program gpu-orch-sweep.")));
}

/* Whether a relation is one of the guarded tables of an extension that is there. */
static bool
is_guarded(Oid relation, Oid *namespace)
{
	char *name;
	char *schema;

	if (get_rel_relkind(relation) != RELKIND_RELATION)
		return false;
	*namespace = get_rel_namespace(relation);
	schema = get_namespace_name(*namespace);
	if (schema == NULL || strcmp(schema, "gpu_orch") != 0)
		return false;
	name = get_rel_name(relation);
	for (int i = 0; guarded[i] != NULL; i++)
		if (strcmp(guarded[i], name) == 0)
			return OidIsValid(get_extension_oid("gpu_orch", true));
	return false;
}

static void
on_object_access(ObjectAccessType access, Oid class, Oid object, int sub_object, void *arg)
{
	Oid namespace;

	if (previous_hook != NULL)
		previous_hook(access, class, object, sub_object, arg);
	if (access != OAT_DROP || class != RelationRelationId || sub_object != 0 ||
		creating_extension || guc_allow_drop ||
		(((ObjectAccessDrop *) arg)->dropflags & PERFORM_DELETION_INTERNAL) != 0)
		return;
	if (is_guarded(object, &namespace))
		refuse_if_needed(namespace);
}

/* Take our place among the hooks. To be called from _PG_init, once for a server. */
void
store_drop_init(void)
{
	previous_hook = object_access_hook;
	object_access_hook = on_object_access;
}
