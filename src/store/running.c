/*
 * store/running.c
 *	  A tenant's limit of running tasks, kept exactly: two claims never share the
 *	  last place, and none waits for the transaction of another one.
 *
 * Leases are counted as they stand, whether their claims have committed or not, and
 * until their ends have. So a lease counts from the moment in which it is made, and
 * claims need to keep out of each other's way only from the count until then: for
 * that long a lock is held that no SQL statement takes. A claim that finds the limit
 * reached by others in progress treats it as reached: they may yet roll back, and
 * then the leader admits the task again.
 */
#include "postgres.h"

#include "db/spi_util.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "store/lease.h"
#include "store/running.h"
#include "store/tenant.h"

/* How many tasks a tenant may run at once; -1 for any number. */
static int32
limit_of(int32 tenant)
{
	static SpiQuery query = {
		"SELECT max_running FROM gpu_orch.tenant WHERE id = $1 AND max_running IS NOT NULL"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int32 limit = -1;

	spi_begin();
	spi_arg_int4(&args, tenant);
	if (spi_read(&query, &args, 1) == 1)
		limit = spi_int4(0, 1);
	spi_end();
	return limit;
}

/* The lock that claims of a tenant's tasks take; named by the table of leases, as SQL names no lock. */
static LOCKTAG
lock_tag(const RunningPlace *place)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, place->leases, (Oid) place->tenant, 0);
	return tag;
}

/*
 * Whether a tenant may run one more task. If so, the caller makes the lease at once
 * and then calls store_running_leave(), while other claims of that tenant's tasks
 * wait; after an error they do not.
 */
bool
store_running_enter(int32 tenant, RunningPlace *place)
{
	LOCKTAG tag;
	int32 limit = tenant == DEFAULT_TENANT ? -1 : limit_of(tenant);
	bool room;

	place->counted = limit >= 0;
	if (!place->counted)
		return true;
	place->tenant = tenant;
	place->leases = store_lease_table();
	tag = lock_tag(place);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	room = store_lease_count_tenant(tenant, limit) < limit;
	if (!room)
		(void) LockRelease(&tag, ExclusiveLock, false);
	return room;
}

/* The lease stands. */
void
store_running_leave(const RunningPlace *place)
{
	LOCKTAG tag;

	if (!place->counted)
		return;
	tag = lock_tag(place);
	(void) LockRelease(&tag, ExclusiveLock, false);
}
