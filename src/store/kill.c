/*
 * store/kill.c
 *	  The end of the whole fleet: every worker with a pod, known or in doubt.
 *
 * Only announces: the deletes are sent like any other. Pods that no row knows are
 * found by the lists that come, which is leader/reconcile.c's.
 */
#include "postgres.h"

#include "store/installation.h"
#include "store/kill.h"
#include "store/op.h"
#include "store/worker.h"

/* How many pods are owed a delete that is not proved. */
static int64
count_owed(void)
{
	static SpiQuery query = {
		"SELECT count(*) FROM gpu_orch.cloud_op"
		" WHERE kind = 'delete' AND state IN ('planned', 'sent', 'unknown')"
	};
	int64 n;

	spi_begin();
	spi_read(&query, NULL, 1);
	n = spi_int8(0, 1);
	spi_end();
	return n;
}

/*
 * Stop creating, end every cloud worker, and announce a delete for each pod that is
 * known. Returns how many deletes are owed, older ones included. Locks the installation,
 * then the workers in the order of their numbers, and waits for who has them. A worker
 * whose row cannot be read has its alert, and is ended once that is mended.
 */
int64
store_kill_fleet(TimestampTz now)
{
	WorkerInfo *workers;
	int n;

	store_installation_kill(now);
	n = store_worker_list(&workers);
	for (int i = 0; i < n; i++)
		if (workers[i].origin == WO_CLOUD && workers[i].unreadable == NULL)
			(void) store_worker_move(workers[i].no, "kill", NULL, now);
	store_op_plan_owed_deletes(now);
	return count_owed();
}
