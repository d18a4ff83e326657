/*
 * store/trigger.c
 *	  No triggers, foreign keys or rules on the hot tables.
 *
 * Rows of these tables are written without the executor where that matters, and by
 * statements elsewhere. A trigger would run for some and not for others, so it is refused
 * when somebody makes it. What was there before stays. Must not look at other tables.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "store/trigger.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static const char *const hot[] = { "task", "ready_queue", "lease", "attempt" };

static object_access_hook_type previous_hook = NULL;

/* The table that a new row of a catalog is about: its column there, the row found by its id. */
static Oid
table_of(Oid catalog, Oid index, AttrNumber id_column, AttrNumber table_column, Oid object)
{
	Relation rel = table_open(catalog, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple row;
	Oid table = InvalidOid;

	ScanKeyInit(&key, id_column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object));
	scan = systable_beginscan(rel, index, true, SnapshotSelf, 1, &key);
	row = systable_getnext(scan);
	if (row != NULL)
	{
		bool isnull;

		table = DatumGetObjectId(heap_getattr(row, table_column, RelationGetDescr(rel), &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return table;
}

/* Refuse an object on a hot table. */
static void
refuse_if_hot(Oid table, const char *what)
{
	Oid namespace = get_namespace_oid("gpu_orch", true);

	if (!OidIsValid(table) || !OidIsValid(namespace) || get_rel_namespace(table) != namespace)
		return;
	for (int i = 0; i < lengthof(hot); i++)
	{
		if (strcmp(get_rel_name(table), hot[i]) != 0)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table gpu_orch.%s can have no %s", hot[i], what),
				 errdetail(
					 "Its rows are written partly without the executor, which would pass it over."),
				 errhint("Publish the table, and have it on a subscriber's copy.")));
	}
}

static void
on_object_access(ObjectAccessType access, Oid class, Oid object, int sub_object, void *arg)
{
	if (previous_hook != NULL)
		previous_hook(access, class, object, sub_object, arg);
	if (access != OAT_POST_CREATE || creating_extension)
		return;
	if (class == TriggerRelationId)
		refuse_if_hot(table_of(class, TriggerOidIndexId, Anum_pg_trigger_oid,
							   Anum_pg_trigger_tgrelid, object),
					  "trigger, foreign key or deferrable constraint");
	else if (class == RewriteRelationId)
		refuse_if_hot(table_of(class, RewriteOidIndexId, Anum_pg_rewrite_oid,
							   Anum_pg_rewrite_ev_class, object),
					  "rule");
}

/* Take our place among the hooks. To be called from _PG_init, once for a server. */
void
store_trigger_init(void)
{
	previous_hook = object_access_hook;
	object_access_hook = on_object_access;
}
