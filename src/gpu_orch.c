/*
 * gpu_orch.c
 *	  What happens when the library is loaded: settings, shared memory, the
 *	  transaction callbacks, the hook and the leader are registered, and nothing else is done.
 */
#include "postgres.h"

#include "fmgr.h"
#include "base/guc.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "base/shmem.h"
#include "store/drop.h"
#include "store/trigger.h"
#include "store/lease_room.h"
#include "store/own_role.h"
#include "queue/memory.h"
#include "queue/ready.h"
#include "base/wake.h"

PG_MODULE_MAGIC;

/* Seconds after which the postmaster starts a leader that ended again. */
#define RESTART_SECONDS 5

PGDLLEXPORT void _PG_init(void);

static void
register_leader(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_SECONDS;
	strlcpy(worker.bgw_library_name, "gpu_orch", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "gpu_orch_leader_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "gpu_orch leader", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "gpu_orch leader", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

/* Called once by each process that loads the library, or once by the postmaster. */
void
_PG_init(void)
{
	guc_init();
	wake_init();
	store_queue_init();
	store_lease_room_init();
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	shmem_init_hooks();
	queue_memory_init_hooks();
	store_drop_init();
	store_trigger_init();
	store_own_role_init();
	if (guc_database != NULL && guc_database[0] != '\0')
		register_leader();
}
