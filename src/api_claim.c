/*
 * api_claim.c
 *	  For workers: claim tasks, and end attempts.
 *
 * Each call authenticates by the session token. An end is guarded by (task,
 * lease, worker): a late answer changes nothing and is reported as fenced, while
 * the same answer repeated by the worker that gave it is true again. Claiming
 * locks no worker row: a claim that races a drain is one more task to finish.
 */
#include "postgres.h"

#include "access/xact.h"
#include "api_check.h"
#include "clock.h"
#include "errors.h"
#include "fmgr.h"
#include "funcapi.h"
#include "guc.h"
#include "match.h"
#include "store_lease.h"
#include "store_task.h"
#include "store_tenant.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/uuid.h"
#include "wake.h"

#define MAX_CLAIM 1000

/* Verdicts that a backend remembers at most. */
#define CACHE_LIMIT 100000

/* A worker's row is told that it is busy at most this often, in microseconds. */
#define BUSY_RESOLUTION USECS_PER_SEC

PG_FUNCTION_INFO_V1(gpu_orch_claim_tasks);
PG_FUNCTION_INFO_V1(gpu_orch_complete_task);
PG_FUNCTION_INFO_V1(gpu_orch_fail_task);
PG_FUNCTION_INFO_V1(gpu_orch_release_task);
PG_FUNCTION_INFO_V1(gpu_orch_progress_task);
PG_FUNCTION_INFO_V1(gpu_orch_complete_and_claim);

/*
 * Whether capabilities meet a shape. Both are named by digests of their canonical
 * forms, so a verdict never goes stale: other capabilities are another entry.
 */
typedef struct Verdict
{
	struct
	{
		int64		capset;
		int64		shape;
	}			key;
	bool		matches;
} Verdict;

static HTAB *verdicts = NULL;

static bool
worker_serves(int64 shape, void *arg)
{
	WorkerRow  *worker = arg;
	Verdict		wanted;
	Verdict    *verdict;
	bool		found;
	char	   *kind;
	Jsonb	   *requirements;
	bool		matches;

	if (verdicts != NULL && hash_get_num_entries(verdicts) >= CACHE_LIMIT)
	{
		hash_destroy(verdicts);
		verdicts = NULL;
	}
	if (verdicts == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = sizeof(wanted.key);
		control.entrysize = sizeof(Verdict);
		control.hcxt = TopMemoryContext;
		verdicts = hash_create("gpu_orch verdicts", 256, &control,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	memset(&wanted, 0, sizeof(wanted));
	wanted.key.capset = worker->capset;
	wanted.key.shape = shape;
	verdict = hash_search(verdicts, &wanted.key, HASH_FIND, NULL);
	if (verdict != NULL)
		return verdict->matches;

	if (!store_shape_load(shape, &kind, &requirements))
		return false;
	matches = match_satisfies(store_worker_capabilities(worker->no), requirements, kind, NULL);
	verdict = hash_search(verdicts, &wanted.key, HASH_ENTER, &found);
	verdict->matches = matches;
	return matches;
}

/*
 * Claim up to n tasks for a worker and put them into the result. A task that does
 * not fit its tenant's limit goes back to the held ones; one whose tenant another
 * claim is at ends the batch.
 */
static void
claim(ReturnSetInfo *result, WorkerRow *worker, int n, const pg_uuid_t *claimed_after,
	  TimestampTz now)
{
	QueueScan  *queue;
	TaskSlot	slot;
	bool		holds_tenant = false;

	if (worker->state != WS_ACTIVE)
		return;
	queue = store_queue_open(worker_serves, worker);
	while (n > 0 && store_queue_take(queue, &slot))
	{
		ClaimedTask claimed;
		TenantRoom	room = store_tenant_take_room(slot.tenant, &holds_tenant);

		if (room == TENANT_BUSY)
		{
			store_queue_put(&slot);
			break;
		}
		if (room == TENANT_FULL)
		{
			store_task_hold(&slot, now);
			wake_at_commit(WAKE_DECIDE);
			continue;
		}
		store_lease_create(&slot, worker->no, claimed_after, now, &claimed);
		tuplestore_putvalues(result->setResult, result->setDesc, claimed.values, claimed.nulls);
		n--;
	}
	store_queue_close(queue);
}

static int
claim_count(FunctionCallInfo fcinfo, int arg)
{
	int			n = PG_ARGISNULL(arg) ? 1 : PG_GETARG_INT32(arg);

	if (n < 0 || n > MAX_CLAIM)
		api_refuse("max_tasks", psprintf("%d is out of range.", n),
				   psprintf("Use a value from 0 to %d.", MAX_CLAIM));
	return n;
}

/* The arguments worker_id and token, checked. */
static void
authenticate(FunctionCallInfo fcinfo, WorkerRow *worker)
{
	api_begin_change();
	api_authenticate(api_text(fcinfo, 0, "worker_id", MAX_NAME_LENGTH),
					 api_text(fcinfo, 1, "token", MAX_NAME_LENGTH), worker);
}

/* The arguments of a call about a running attempt. */
typedef struct AttemptCall
{
	WorkerRow	worker;
	int64		task_id;
	pg_uuid_t  *lease;
	TimestampTz now;
} AttemptCall;

static void
begin_attempt_call(FunctionCallInfo fcinfo, AttemptCall *call)
{
	authenticate(fcinfo, &call->worker);
	if (PG_ARGISNULL(2))
		api_refuse("task_id", "It is null.", "Pass the task_id of the claimed task.");
	if (PG_ARGISNULL(3))
		api_refuse("lease", "It is null.", "Pass the lease of the claimed task.");
	call->task_id = PG_GETARG_INT64(2);
	call->lease = PG_GETARG_UUID_P(3);
	call->now = clock_now();
	if (call->now - call->worker.busy_at > BUSY_RESOLUTION)
		store_worker_touch_busy(call->worker.no, call->now);
}

/* End an attempt; true also for the repetition of an end that took place. */
static bool
end_attempt(AttemptCall *call, const LeaseEnd *end)
{
	ForceSyncCommit();
	return store_lease_end(call->worker.no, call->task_id, call->lease, end, call->now) ||
		store_lease_was_ended(call->worker.no, call->task_id, call->lease, end);
}

static Jsonb *
result_argument(FunctionCallInfo fcinfo, int arg)
{
	Jsonb	   *result;

	if (PG_ARGISNULL(arg))
		return NULL;
	result = PG_GETARG_JSONB_P(arg);
	api_check_json("result", result, guc_max_payload_bytes);
	return result;
}

/* SQL: claim_tasks(worker_id, token, max_tasks) -> setof claimed_task */
Datum
gpu_orch_claim_tasks(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	WorkerRow	worker;
	int			n = claim_count(fcinfo, 2);

	authenticate(fcinfo, &worker);
	InitMaterializedSRF(fcinfo, 0);
	claim(result, &worker, n, NULL, clock_now());
	return (Datum) 0;
}

/* SQL: complete_task(worker_id, token, task_id, lease, result) -> boolean */
Datum
gpu_orch_complete_task(PG_FUNCTION_ARGS)
{
	AttemptCall call;
	LeaseEnd	end = {.outcome = OUTCOME_SUCCEEDED};

	end.result = result_argument(fcinfo, 4);
	begin_attempt_call(fcinfo, &call);
	PG_RETURN_BOOL(end_attempt(&call, &end));
}

/*
 * SQL: complete_and_claim(worker_id, token, task_id, lease, result, max_tasks) ->
 * setof claimed_task. One commit for both. Raises GO001 when it is fenced;
 * repeated, it returns the leases that the first call made and that still run.
 */
Datum
gpu_orch_complete_and_claim(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	AttemptCall call;
	LeaseEnd	end = {.outcome = OUTCOME_SUCCEEDED};
	int			n = claim_count(fcinfo, 5);

	end.result = result_argument(fcinfo, 4);
	begin_attempt_call(fcinfo, &call);
	InitMaterializedSRF(fcinfo, 0);
	ForceSyncCommit();
	if (store_lease_end(call.worker.no, call.task_id, call.lease, &end, call.now))
		claim(result, &call.worker, n, call.lease, call.now);
	else if (store_lease_was_ended(call.worker.no, call.task_id, call.lease, &end))
	{
		ClaimedTask *made;
		int			count = store_lease_made_after(call.worker.no, call.lease, &made);

		for (int i = 0; i < count; i++)
			tuplestore_putvalues(result->setResult, result->setDesc, made[i].values,
								 made[i].nulls);
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_LEASE_LOST),
				 errmsg("worker \"%s\" no longer holds task " INT64_FORMAT, call.worker.id,
						call.task_id),
				 errdetail("The lease ended by a deadline, a lost heartbeat or a new registration."),
				 errhint("Discard the result and claim again.")));
	return (Datum) 0;
}

/*
 * SQL: fail_task(worker_id, token, task_id, lease, error, failure, retry) ->
 * boolean
 */
Datum
gpu_orch_fail_task(PG_FUNCTION_ARGS)
{
	AttemptCall call;
	LeaseEnd	end = {.outcome = OUTCOME_FAILED};
	char	   *failure;

	failure = PG_ARGISNULL(5) ? "task" : text_to_cstring(PG_GETARG_TEXT_PP(5));
	if (!fsm_task_failure_parse(failure, &end.failure))
		api_refuse("failure", psprintf("\"%s\" is not a class of failures.", failure),
				   "Use task, platform or rejected.");
	end.retry = PG_ARGISNULL(6) || PG_GETARG_BOOL(6);
	if (!PG_ARGISNULL(4))
	{
		char	   *error = text_to_cstring(PG_GETARG_TEXT_PP(4));

		if (strlen(error) > MAX_ERROR_BYTES)
			api_refuse("error", psprintf("It has %zu bytes.", strlen(error)),
					   psprintf("Pass at most %d bytes, the most telling ones.", MAX_ERROR_BYTES));
		end.error = error;
	}
	begin_attempt_call(fcinfo, &call);
	PG_RETURN_BOOL(end_attempt(&call, &end));
}

/* SQL: release_task(worker_id, token, task_id, lease) -> boolean */
Datum
gpu_orch_release_task(PG_FUNCTION_ARGS)
{
	AttemptCall call;
	LeaseEnd	end = {.outcome = OUTCOME_RELEASED};

	begin_attempt_call(fcinfo, &call);
	PG_RETURN_BOOL(end_attempt(&call, &end));
}

/* SQL: progress_task(worker_id, token, task_id, lease, fraction, stage) -> boolean */
Datum
gpu_orch_progress_task(PG_FUNCTION_ARGS)
{
	AttemptCall call;
	float4		fraction = 0;
	char	   *stage;

	if (!PG_ARGISNULL(4))
	{
		fraction = PG_GETARG_FLOAT4(4);
		if (!(fraction >= 0 && fraction <= 1))
			api_refuse("fraction", "It is not between 0 and 1.", "Pass the share that is done.");
	}
	stage = api_text_or_null(fcinfo, 5, "stage", MAX_NAME_LENGTH);
	begin_attempt_call(fcinfo, &call);
	PG_RETURN_BOOL(store_lease_progress(call.worker.no, call.task_id, call.lease,
										PG_ARGISNULL(4) ? NULL : &fraction, stage, call.now));
}
