/*
 * db/ext_guard.c
 *	  Does the schema in this database fit the library, and may the leader act on it?
 *
 * A library serves the schema of its own version and the one before, whole: between
 * a restart with a new library and ALTER EXTENSION UPDATE all goes on. Every session
 * refuses another schema. The version is read from pg_extension and kept until the
 * relation cache tells of a change of the table `installation`; the head of each update
 * script locks that table, so the script also excludes the leader's steps.
 *
 * Whether this copy of the database may act for its pods is another question; see
 * store/installation.c.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "db/ext_guard.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#define VERSION_BEFORE "0.1.0"

/* The schema in this database, as far as the library knows it. */
typedef enum Schema
{
	SCHEMA_NOT_READ,
	SCHEMA_THIS,
	SCHEMA_BEFORE,
	SCHEMA_OTHER
} Schema;

static Schema schema = SCHEMA_NOT_READ;
static Oid installation = InvalidOid;

static void
relation_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == installation)
		schema = SCHEMA_NOT_READ;
}

/*
 * Read the extension's row of pg_extension. False where the extension is not in this
 * database. The version is allocated in the current memory context.
 */
static bool
read_extension(char **version, Oid *owner)
{
	Relation rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple row;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("gpu_orch"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	row = systable_getnext(scan);
	*version = NULL;
	if (HeapTupleIsValid(row))
	{
		bool isnull;
		Datum value =
			heap_getattr(row, Anum_pg_extension_extversion, RelationGetDescr(rel), &isnull);

		*version = TextDatumGetCString(value);
		*owner = ((Form_pg_extension) GETSTRUCT(row))->extowner;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return *version != NULL;
}

/* Learn which schema is there. Needs a transaction. */
static Schema
read_schema(void)
{
	static bool registered = false;
	char *version;
	Oid owner;

	if (schema != SCHEMA_NOT_READ)
		return schema;
	if (!registered)
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	registered = true;
	installation = get_relname_relid("installation", get_namespace_oid("gpu_orch", true));
	if (!read_extension(&version, &owner) || !OidIsValid(installation))
		return SCHEMA_OTHER;
	schema = strcmp(version, GPU_ORCH_VERSION) == 0 ? SCHEMA_THIS :
		strcmp(version, VERSION_BEFORE) == 0		? SCHEMA_BEFORE :
													  SCHEMA_OTHER;
	pfree(version);
	return schema;
}

/* Raise 55000 unless the library serves the schema of this database. */
void
ext_require(void)
{
	Schema found = read_schema();
	char *version;
	Oid owner;

	if (found == SCHEMA_THIS || found == SCHEMA_BEFORE)
		return;
	(void) read_extension(&version, &owner);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 version == NULL ?
				 errmsg("the extension gpu_orch is not in this database") :
				 errmsg("this server does not serve version %s of the extension gpu_orch", version),
			 errdetail("The library that the server has loaded serves the versions %s and %s.",
					   VERSION_BEFORE, GPU_ORCH_VERSION),
			 errhint("If the library of that version is installed, restart the server; otherwise "
					 "install it. An older extension is updated by ALTER EXTENSION gpu_orch "
					 "UPDATE.")));
}

/* Whether the schema is the one before the library's own, which lacks what is new. */
bool
ext_is_older_schema(void)
{
	return read_schema() == SCHEMA_BEFORE;
}

/*
 * May the leader act? Takes the locks that DROP EXTENSION and an update of it conflict
 * with, in share mode and without waiting, until the end of the transaction. Needs a
 * transaction of the leader; raises no error of its own.
 */
GuardVerdict
ext_guard_check(void)
{
	LOCKTAG tag;
	Oid extension;
	Schema found;

	if (RecoveryInProgress())
		return GUARD_STANDBY;
	extension = get_extension_oid("gpu_orch", true);
	if (!OidIsValid(extension))
		return GUARD_ABSENT;
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 0);
	if (LockAcquire(&tag, AccessShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return GUARD_BUSY;
	if (get_extension_oid("gpu_orch", true) != extension)
		return GUARD_ABSENT;
	(void) read_schema();
	if (!OidIsValid(installation))
		return GUARD_ABSENT;
	if (!ConditionalLockRelationOid(installation, AccessShareLock))
		return GUARD_BUSY;
	found = read_schema();
	return found == SCHEMA_THIS || found == SCHEMA_BEFORE ? GUARD_GO : GUARD_VERSION;
}

/* The role that owns the extension, which must be there. */
Oid
ext_owner(void)
{
	char *version;
	Oid owner;

	if (!read_extension(&version, &owner))
		elog(ERROR, "gpu_orch: the extension is gone");
	pfree(version);
	return owner;
}

/* What to show an operator for a verdict. */
const char *
ext_guard_explain(GuardVerdict verdict)
{
	switch (verdict)
	{
		case GUARD_GO:
			return "acting";
		case GUARD_BUSY:
			return "waiting: the extension is being changed";
		case GUARD_ABSENT:
			return "waiting: the extension is not in this database";
		case GUARD_VERSION:
			return "waiting: the library does not serve this version of the extension; "
				   "restart the server or run ALTER EXTENSION gpu_orch UPDATE";
		case GUARD_STANDBY:
			return "waiting: this server is a standby";
		case GUARD_SUBSCRIBER:
			return "waiting: a subscription replicates another installation to this database";
	}
	return "unknown";
}
