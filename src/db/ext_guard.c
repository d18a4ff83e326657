/*
 * db/ext_guard.c
 *	  May the leader act in this transaction?
 *
 * The first thing in each of the leader's transactions. The extension may be
 * dropped, updated or created again at any moment, so its presence is asked of
 * pg_extension under a lock that DROP and ALTER EXTENSION conflict with, taken
 * without waiting. Whether this copy of the database may act for its pods is
 * another question; see store_installation.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "db/ext_guard.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "db/spi_util.h"
#include "storage/lmgr.h"
#include "storage/lock.h"

/* Versions of the extension that this library serves. */
static const char *const served[] = { "0.1.0", NULL };

/*
 * Take the extension's lock in share mode until the end of the transaction and
 * say whether to go on. Needs a transaction of the leader; raises no error of
 * its own.
 */
GuardVerdict
ext_guard_check(void)
{
	static SpiQuery version = {
		"SELECT extversion::text FROM pg_catalog.pg_extension WHERE oid = $1", 1, { OIDOID }
	};
	SpiArgs args = SPI_ARGS_INIT;
	GuardVerdict verdict = GUARD_ABSENT;
	LOCKTAG tag;
	Oid extension;

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

	spi_begin();
	spi_arg(&args, ObjectIdGetDatum(extension), false);
	if (spi_read(&version, &args, 1) == 1)
	{
		char *found = spi_text(0, 1);

		verdict = GUARD_VERSION;
		for (int i = 0; served[i] != NULL; i++)
			if (strcmp(served[i], found) == 0)
				verdict = GUARD_GO;
	}
	spi_end();
	return verdict;
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
	}
	return "unknown";
}
