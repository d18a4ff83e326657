/*
 * api/claim.c
 *	  For workers: claim tasks, and end attempts.
 *
 * Each call authenticates by the session token. An end is guarded by (task,
 * lease, worker): a late answer changes nothing and is reported as fenced, while
 * the same answer repeated by the worker that gave it is true again. Claiming
 * locks no worker row: a claim that races a drain is one more task to finish.
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/check.h"
#include "base/claim_stats.h"
#include "base/clock.h"
#include "common/hashfn.h"
#include "base/errors.h"
#include "fmgr.h"
#include "funcapi.h"
#include "base/guc.h"
#include "base/inject.h"
#include "queue/match.h"
#include "store/attempt.h"
#include "store/lease.h"
#include "store/lease_room.h"
#include "store/running.h"
#include "store/task.h"
#include "store/tenant.h"
#include "store/waiting.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/uuid.h"
#include "base/wake.h"

#define MAX_CLAIM 1000

/* A worker's row is told that it is busy at most this often, in microseconds. */
#define BUSY_RESOLUTION USECS_PER_SEC

API_FUNCTION(gpu_orch_claim_tasks);
API_FUNCTION(gpu_orch_complete_task);
API_FUNCTION(gpu_orch_complete_tasks);
API_FUNCTION(gpu_orch_fail_task);
API_FUNCTION(gpu_orch_release_task);
API_FUNCTION(gpu_orch_progress_task);
API_FUNCTION(gpu_orch_progress_task_share);
API_FUNCTION(gpu_orch_complete_and_claim);

/* A digest of the model that a shape asks for, 0 for none. */
static uint32
model_digest(const char *kind, Jsonb *requirements)
{
	JsonbValue key = { .type = jbvString, .val.string = { .val = "models", .len = 6 } };
	JsonbValue *models = findJsonbValueFromContainer(&requirements->root, JB_FOBJECT, &key);
	Jsonb *value;

	if (models == NULL)
		return 0;
	value = JsonbValueToJsonb(models);
	return hash_combine(
		hash_any((const unsigned char *) kind, strlen(kind)),
		hash_any((const unsigned char *) VARDATA(value), VARSIZE(value) - VARHDRSZ));
}

/* Who claims, with the capabilities once they were wanted. */
typedef struct Claimant
{
	WorkerCall *worker;
	MemoryContext context; /* of the call */
	Jsonb *capabilities;   /* NULL: not read yet */
} Claimant;

/*
 * The capabilities with which a worker was authenticated. It may have registered with
 * others since: then its token is not good any more.
 */
static Jsonb *
capabilities_of(Claimant *claimant)
{
	WorkerCall *worker = claimant->worker;
	MemoryContext outer;

	if (claimant->capabilities != NULL)
		return claimant->capabilities;
	outer = MemoryContextSwitchTo(claimant->context);
	claimant->capabilities = store_worker_capabilities(worker->no);
	MemoryContextSwitchTo(outer);
	if (match_shape_id(match_capabilities_canonical(claimant->capabilities)) != worker->capset)
		api_refuse_token(worker->id);
	return claimant->capabilities;
}

/* Whether a worker serves a shape, see ShapeTest. */
static bool
worker_serves(int64 shape, void *arg, bool *matches, uint32 *model)
{
	Jsonb *capabilities = capabilities_of(arg);
	char *kind;
	Jsonb *requirements;

	if (!store_shape_load(shape, &kind, &requirements))
		return false;
	*model = model_digest(kind, requirements);
	*matches = match_satisfies(capabilities, requirements, kind, NULL);
	return true;
}

/*
 * Claim up to n tasks for a worker and put them into the result. A task that does
 * not fit its tenant's limit goes back to the held ones; the limit of leases of a worker
 * ends the batch. Returns how many were claimed.
 */
static int
claim(ReturnSetInfo *result, WorkerCall *worker, int n, const pg_uuid_t *claimed_after,
	  TimestampTz now)
{
	QueueClaim *queue;
	TaskSlot slot;
	Snapshot snapshot;
	Claimant claimant = { worker, CurrentMemoryContext };
	int claimed_count = 0;

	if (worker->state != WS_ACTIVE || n == 0)
		return 0;
	n = store_lease_room(worker, n);
	if (n == 0 && claimed_after == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_LIMIT),
				 errmsg("worker \"%s\" holds as many leases as it may", worker->id),
				 errhint("End or release some of its tasks. A worker that takes many at once says "
						 "so with \"slots\" when it registers.")));
	if (n == 0)
		return 0;
	queue = store_queue_open(worker->capset, worker->no, n, worker_serves, &claimant);
	while (claimed_count < n && store_queue_take(queue, &slot, &snapshot))
	{
		ClaimedTask claimed;
		RunningPlace place;

		if (!store_running_enter(slot.tenant, &place))
		{
			store_waiting_hold(&slot, now);
			wake_at_commit(WAKE_DECIDE);
			continue;
		}
		INJECT("claim.taken");
		store_lease_create(&slot, worker->no, claimed_after, now, snapshot, &claimed);
		store_running_leave(&place);
		tuplestore_putvalues(result->setResult, result->setDesc, claimed.values, claimed.nulls);
		claimed_count++;
	}
	store_queue_close(queue);
	store_lease_room_claimed(worker->no, claimed_count);
	return claimed_count;
}

/*
 * A claim is flushed before its answer leaves, whatever synchronous_commit says. With
 * gpu_orch.async_claims the caller's synchronous_commit decides: what else he wrote in the
 * transaction is his.
 */
static void
commit_claim(void)
{
	if (!guc_async_claims)
		ForceSyncCommit();
}

static int
claim_count(FunctionCallInfo fcinfo, int arg)
{
	int n = PG_ARGISNULL(arg) ? 1 : PG_GETARG_INT32(arg);

	if (n < 0 || n > MAX_CLAIM)
		api_refuse("max_tasks", psprintf("%d is out of range.", n),
				   psprintf("Use a value from 0 to %d.", MAX_CLAIM));
	return n;
}

/* How many tasks a call that asked for n has claimed, as the counters want it. */
static int
tasks_claimed(const ReturnSetInfo *result, int n)
{
	return n == 0 ? CLAIMED_NOT_ASKED : (int) tuplestore_tuple_count(result->setResult);
}

/* The arguments worker_id and token, checked. */
static void
authenticate(FunctionCallInfo fcinfo, WorkerCall *worker)
{
	api_begin_change();
	api_authenticate(api_text(fcinfo, 0, "worker_id", MAX_NAME_LENGTH),
					 api_text(fcinfo, 1, "token", MAX_NAME_LENGTH), worker);
}

/* The arguments of a call about a running attempt. */
typedef struct AttemptCall
{
	WorkerCall worker;
	int64 task_id;
	pg_uuid_t *lease;
	TimestampTz now;
	ClaimMeter meter;
} AttemptCall;

/*
 * Tell a worker's row that it is busy, now and then. The last thing that a call does: it
 * locks the row, and a call that has it locked and waits for somebody else would keep
 * others from it.
 */
static void
touch_busy(const WorkerCall *worker, TimestampTz now)
{
	if (now - worker->busy_at > BUSY_RESOLUTION)
		store_worker_touch_busy(worker->no, now);
}

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
}

/* End an attempt; true also for the repetition of an end that took place. */
static bool
end_attempt(AttemptCall *call, const LeaseEnd *end)
{
	EndAnswer answer = END_FENCED;

	ForceSyncCommit();
	if (store_lease_end(call->worker.no, call->task_id, call->lease, end, call->now))
		answer = END_ENDED;
	else if (store_attempt_was_ended(call->worker.no, call->task_id, call->lease, end))
		answer = END_REPEATED;
	claim_stats_count(&call->meter, answer, CLAIMED_NOT_ASKED);
	return answer != END_FENCED;
}

/* End the only attempt of a call. */
static bool
end_one_attempt(AttemptCall *call, const LeaseEnd *end)
{
	bool ended = end_attempt(call, end);

	touch_busy(&call->worker, call->now);
	return ended;
}

static Jsonb *
result_argument(FunctionCallInfo fcinfo, int arg)
{
	Jsonb *result;

	if (PG_ARGISNULL(arg))
		return NULL;
	result = PG_GETARG_JSONB_P(arg);
	api_check_json("result", result, guc_max_payload_bytes);
	return result;
}

/* SQL: claim_tasks(worker_id, token, max_tasks) -> setof claimed_task */
static Datum
gpu_orch_claim_tasks_body(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	WorkerCall worker;
	ClaimMeter meter;
	int n = claim_count(fcinfo, 2);

	claim_stats_begin(&meter, CALL_CLAIM);
	authenticate(fcinfo, &worker);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	INJECT("claim.begin");
	if (claim(result, &worker, n, NULL, clock_now()) > 0)
		commit_claim();
	INJECT("claim.leased");
	claim_stats_count(&meter, END_NONE, tasks_claimed(result, n));
	return (Datum) 0;
}

/* SQL: complete_task(worker_id, token, task_id, lease, result) -> boolean */
static Datum
gpu_orch_complete_task_body(PG_FUNCTION_ARGS)
{
	AttemptCall call;
	LeaseEnd end = { .outcome = OUTCOME_SUCCEEDED };
	bool ended;

	claim_stats_begin(&call.meter, CALL_COMPLETE);
	end.result = result_argument(fcinfo, 4);
	begin_attempt_call(fcinfo, &call);
	ended = end_one_attempt(&call, &end);
	INJECT("complete.ended");
	PG_RETURN_BOOL(ended);
}

/*
 * SQL: complete_tasks(worker_id, token, task_ids, leases, results) -> setof bigint.
 * Completes many in one commit; returns the ids for which complete_task() would
 * have returned true.
 */
static Datum
gpu_orch_complete_tasks_body(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *returned = (ReturnSetInfo *) fcinfo->resultinfo;
	AttemptCall call;
	ArrayType *arrays[3] = { 0 };
	const Oid types[3] = { INT8OID, UUIDOID, JSONBOID };
	const int16 lengths[3] = { 8, UUID_LEN, -1 };
	const char aligns[3] = { TYPALIGN_DOUBLE, TYPALIGN_CHAR, TYPALIGN_INT };
	static const char *const names[3] = { "task_ids", "leases", "results" };
	Datum *values[3];
	bool *nulls[3];
	int counts[3];

	authenticate(fcinfo, &call.worker);
	for (int i = 0; i < 3; i++)
	{
		if (PG_ARGISNULL(i + 2))
		{
			if (i < 2)
				api_refuse(names[i], "It is null.", "Pass an array, one element for each task.");
			counts[i] = counts[0];
			continue;
		}
		arrays[i] = PG_GETARG_ARRAYTYPE_P(i + 2);
		deconstruct_array(arrays[i], types[i], lengths[i], i == 0 && FLOAT8PASSBYVAL, aligns[i],
						  &values[i], &nulls[i], &counts[i]);
		if (counts[i] != counts[0])
			api_refuse(names[i],
					   psprintf("It has %d elements and task_ids has %d.", counts[i], counts[0]),
					   "Pass arrays of one length.");
	}
	if (counts[0] > MAX_CLAIM)
		api_refuse("task_ids", psprintf("It has %d elements.", counts[0]),
				   psprintf("Complete at most %d tasks in one call.", MAX_CLAIM));
	call.now = clock_now();
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < counts[0]; i++)
	{
		LeaseEnd end = { .outcome = OUTCOME_SUCCEEDED };
		bool isnull = false;

		claim_stats_begin(&call.meter, CALL_COMPLETE);
		if (nulls[0][i] || nulls[1][i])
			api_refuse(names[nulls[0][i] ? 0 : 1], "An element is null.",
					   "Pass the task_id and the lease of each claimed task.");
		if (arrays[2] != NULL && !nulls[2][i])
		{
			end.result = DatumGetJsonbP(values[2][i]);
			api_check_json("results", end.result, guc_max_payload_bytes);
		}
		call.task_id = DatumGetInt64(values[0][i]);
		call.lease = DatumGetUUIDP(values[1][i]);
		INJECT("complete.batch");
		if (end_attempt(&call, &end))
			tuplestore_putvalues(returned->setResult, returned->setDesc, &values[0][i], &isnull);
	}
	touch_busy(&call.worker, call.now);
	return (Datum) 0;
}

/*
 * SQL: complete_and_claim(worker_id, token, task_id, lease, result, max_tasks) ->
 * setof claimed_task. One commit for both. Raises GO001 when it is fenced;
 * repeated, it returns the leases that the first call made and that still run.
 */
static Datum
gpu_orch_complete_and_claim_body(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	AttemptCall call;
	LeaseEnd end = { .outcome = OUTCOME_SUCCEEDED };
	int n = claim_count(fcinfo, 5);

	claim_stats_begin(&call.meter, CALL_COMPLETE_AND_CLAIM);
	end.result = result_argument(fcinfo, 4);
	begin_attempt_call(fcinfo, &call);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	ForceSyncCommit();
	if (store_lease_end(call.worker.no, call.task_id, call.lease, &end, call.now))
	{
		INJECT("fused.completed");
		claim(result, &call.worker, n, call.lease, call.now);
		INJECT("fused.claimed");
		claim_stats_count(&call.meter, END_ENDED, tasks_claimed(result, n));
	}
	else if (store_attempt_was_ended(call.worker.no, call.task_id, call.lease, &end))
	{
		ClaimedTask *made;
		int count = store_lease_made_after(call.worker.no, call.lease, &made);

		for (int i = 0; i < count; i++)
			tuplestore_putvalues(result->setResult, result->setDesc, made[i].values, made[i].nulls);
		claim_stats_count(&call.meter, END_REPEATED, CLAIMED_NOT_ASKED);
	}
	else
	{
		claim_stats_count(&call.meter, END_FENCED, CLAIMED_NOT_ASKED);
		ereport(
			ERROR,
			(errcode(ERRCODE_GPU_ORCH_LEASE_LOST),
			 errmsg("worker \"%s\" no longer holds task " INT64_FORMAT, call.worker.id,
					call.task_id),
			 errdetail("The lease ended by a deadline, a lost heartbeat or a new registration."),
			 errhint("Discard the result and claim again.")));
	}
	touch_busy(&call.worker, call.now);
	return (Datum) 0;
}

/*
 * SQL: fail_task(worker_id, token, task_id, lease, error, failure, retry) ->
 * boolean
 */
static Datum
gpu_orch_fail_task_body(PG_FUNCTION_ARGS)
{
	AttemptCall call;
	LeaseEnd end = { .outcome = OUTCOME_FAILED };
	char *failure;

	claim_stats_begin(&call.meter, CALL_FAIL);
	failure = PG_ARGISNULL(5) ? "task" : text_to_cstring(PG_GETARG_TEXT_PP(5));
	if (!fsm_task_failure_parse(failure, &end.failure))
		api_refuse("failure", psprintf("\"%s\" is not a class of failures.", failure),
				   "Use task, platform or rejected.");
	end.retry = PG_ARGISNULL(6) || PG_GETARG_BOOL(6);
	if (!PG_ARGISNULL(4))
	{
		char *error = text_to_cstring(PG_GETARG_TEXT_PP(4));

		if (strlen(error) > MAX_ERROR_BYTES)
			api_refuse("error", psprintf("It has %zu bytes.", strlen(error)),
					   psprintf("Pass at most %d bytes, the most telling ones.", MAX_ERROR_BYTES));
		end.error = error;
	}
	begin_attempt_call(fcinfo, &call);
	INJECT("fail");
	PG_RETURN_BOOL(end_one_attempt(&call, &end));
}

/* SQL: release_task(worker_id, token, task_id, lease) -> boolean */
static Datum
gpu_orch_release_task_body(PG_FUNCTION_ARGS)
{
	AttemptCall call;
	LeaseEnd end = { .outcome = OUTCOME_RELEASED };

	claim_stats_begin(&call.meter, CALL_RELEASE);
	begin_attempt_call(fcinfo, &call);
	INJECT("release");
	PG_RETURN_BOOL(end_one_attempt(&call, &end));
}

/* Note the progress of a running attempt; share is NULL where it is not told. */
static Datum
note_progress(FunctionCallInfo fcinfo, const float8 *share)
{
	AttemptCall call;
	float4 fraction = share == NULL ? 0 : (float4) *share;
	char *stage;
	bool held;

	if (share != NULL && !(*share >= 0 && *share <= 1))
		api_refuse("fraction", "It is not between 0 and 1.", "Pass the share that is done.");
	stage = api_text_or_null(fcinfo, 5, "stage", MAX_NAME_LENGTH);
	begin_attempt_call(fcinfo, &call);
	INJECT("progress");
	held = store_lease_progress(call.worker.no, call.task_id, call.lease,
								share == NULL ? NULL : &fraction, stage, call.now);
	touch_busy(&call.worker, call.now);
	PG_RETURN_BOOL(held);
}

/* SQL: progress_task(worker_id, token, task_id, lease, fraction, stage) -> boolean */
static Datum
gpu_orch_progress_task_share_body(PG_FUNCTION_ARGS)
{
	float8 share = PG_ARGISNULL(4) ? 0 : PG_GETARG_FLOAT8(4);

	return note_progress(fcinfo, PG_ARGISNULL(4) ? NULL : &share);
}

/* The same of the schema before, whose fraction is a real. */
static Datum
gpu_orch_progress_task_body(PG_FUNCTION_ARGS)
{
	float8 share = PG_ARGISNULL(4) ? 0 : PG_GETARG_FLOAT4(4);

	return note_progress(fcinfo, PG_ARGISNULL(4) ? NULL : &share);
}
