/*
 * leader/useless.c
 *	  Pods that a list shows as being of no use: running without a GPU, running with
 *	  nothing in them, or starting their container again and again.
 *
 * Looks at one pod at a time and names the cause; whether the move is made is
 * leader/reconcile.c's affair. When containers started is kept in the process: a new
 * leader begins to count anew.
 */
#include "postgres.h"

#include "leader/leader.h"
#include "store/holder.h"
#include "store/worker.h"

/* Starts of a container, without a task answered for between them, that are a loop. */
#define MOST_STARTS 5

/* Starts that differ by less are the same one: clocks and answers are whole seconds, and late. */
#define SAME_START (3 * USECS_PER_SEC)

/* Lists in a row that must show a pod without a GPU. */
#define BELIEVED_LISTS 2

/* Starts further apart than this are no loop. */
#define LOOP_PACE (10 * USECS_PER_MINUTE)

/* What lists showed of one pod's container. */
typedef struct PodStart
{
	char pod_id[64];
	TimestampTz started; /* by our clock and its uptime */
	int again;			 /* later starts, one soon after another */
	int without_gpu;	 /* lists in a row that showed it without one */
} PodStart;

/* Return the entry of a pod, made with this start of its container where there is none. */
static PodStart *
find_start(Leader *leader, const char *pod_id, TimestampTz started)
{
	PodStart *start;
	bool found;

	if (leader->starts == NULL)
	{
		HASHCTL control = { 0 };

		control.keysize = sizeof(((PodStart *) 0)->pod_id);
		control.entrysize = sizeof(PodStart);
		control.hcxt = leader->memory;
		leader->starts = hash_create("starts of containers", 64, &control,
									 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	start = hash_search(leader->starts, pod_id, HASH_ENTER, &found);
	if (!found)
	{
		start->started = started;
		start->again = 0;
		start->without_gpu = 0;
	}
	return start;
}

/*
 * Whether the container of a pod starts again and again: its uptime falls back in list after list.
 */
static bool
restarts(PodStart *start, const WorkerInfo *worker, TimestampTz started)
{
	if (worker->held > 0 || (worker->claimed && worker->registrations == 0))
	{
		start->started = started;
		start->again = 0;
	}
	else if (started - start->started > SAME_START)
	{
		start->again = started - start->started > LOOP_PACE ? 0 : start->again + 1;
		start->started = started;
	}
	return start->again >= MOST_STARTS;
}

/*
 * Return the cause for which a listed pod is of no use to its worker, or NULL. Also notes whether
 * anything runs in the pod: a boot that takes too long is named after that.
 */
const char *
leader_useless_pod(Leader *leader, const WorkerInfo *worker, const CloudPod *pod, TimestampTz now)
{
	bool running = pod->status != NULL && strcmp(pod->status, "RUNNING") == 0;
	bool no_runtime = running && !pod->has_runtime;
	TimestampTz started = now - Max(pod->uptime, 0) * USECS_PER_SEC;
	PodStart *start;

	if (worker->state != WS_INITIALIZING && worker->state != WS_ACTIVE)
	{
		if (leader->starts != NULL)
			hash_search(leader->starts, pod->id, HASH_REMOVE, NULL);
		return NULL;
	}
	if (worker->state == WS_INITIALIZING && no_runtime != worker->no_runtime &&
		store_holder_try(KEPT_WORKER, worker->no, false, now))
		store_worker_set_runtime(worker->no, no_runtime);
	if (!running)
		return NULL;
	start = find_start(leader, pod->id, started);
	start->without_gpu = pod->gpu_count == 0 ? start->without_gpu + 1 : 0;
	if (start->without_gpu >= BELIEVED_LISTS)
		return "no_gpu";
	return pod->uptime >= 0 && restarts(start, worker, started) ? "restart_loop" : NULL;
}
