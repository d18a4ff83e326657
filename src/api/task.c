/*
 * api/task.c
 *	  For applications: submit, cancel, retry and forget tasks.
 *
 * What a task may be is said in task_arguments.c; one bad task of a batch refuses the batch.
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/task_arguments.h"
#include "base/caller.h"
#include "catalog/pg_type_d.h"
#include "base/clock.h"
#include "base/errors.h"
#include "fmgr.h"
#include "funcapi.h"
#include "base/inject.h"
#include "miscadmin.h"
#include "base/shmem.h"
#include "store/attempt.h"
#include "store/cancel.h"
#include "store/dependency.h"
#include "store/lease.h"
#include "store/retention.h"
#include "store/task.h"
#include "store/tenant.h"
#include "store/waiting.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "base/wake.h"

#define MAX_BATCH 10000

API_FUNCTION(gpu_orch_submit_task);
API_FUNCTION(gpu_orch_submit_tasks);
API_FUNCTION(gpu_orch_cancel_task);
API_FUNCTION(gpu_orch_retry_task);
API_FUNCTION(gpu_orch_forget_task);
API_FUNCTION(gpu_orch_may_use_tenant);
API_PURE_FUNCTION(gpu_orch_caller_may_use_tenant);
API_FUNCTION(gpu_orch_task);
API_FUNCTION(gpu_orch_explain_match);
API_FUNCTION(gpu_orch_why_waiting);
API_FUNCTION(gpu_orch_admit);
API_FUNCTION(gpu_orch_shape_has_room);

/* Begin a call that takes in tasks: its commit will be flushed and wake the leader. */
static void
begin_submit(void)
{
	shmem_require();
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE | WAKE_NOTIFY);
}

/*
 * SQL: submit_task(kind, payload, requirements, priority, tenant, run_at,
 * max_attempts, timeout, idempotency_key, depends_on, traceparent, max_wait,
 * start_before, limit_key, batch) -> bigint; the schema before this one ends with
 * traceparent
 */
static Datum
gpu_orch_submit_task_body(PG_FUNCTION_ARGS)
{
	NewTask task;
	ShapeMemo memo = { CurrentMemoryContext, NULL };

	begin_submit();
	task_default(&task);
	task.kind = api_text(fcinfo, 0, "kind", MAX_NAME_LENGTH);
	if (!PG_ARGISNULL(1))
		task.payload = PG_GETARG_JSONB_P(1);
	if (!PG_ARGISNULL(2))
		task.requirements = PG_GETARG_JSONB_P(2);
	if (!PG_ARGISNULL(3))
		task.priority = PG_GETARG_INT32(3);
	if (!PG_ARGISNULL(4))
		task.tenant = task_tenant(text_to_cstring(PG_GETARG_TEXT_PP(4)));
	if (!PG_ARGISNULL(5))
		task.run_at = PG_GETARG_TIMESTAMPTZ(5);
	if (!PG_ARGISNULL(6))
		task.max_attempts = PG_GETARG_INT32(6);
	if (!PG_ARGISNULL(7))
		task.timeout = PG_GETARG_INTERVAL_P(7);
	task.idempotency_key = api_text_or_null(fcinfo, 8, "idempotency_key", MAX_NAME_LENGTH);
	if (!PG_ARGISNULL(9))
	{
		ArrayType *array = PG_GETARG_ARRAYTYPE_P(9);
		Datum *elements;
		bool *nulls;
		int64 *parents;
		int n;

		if (ARR_NDIM(array) > 1)
			api_refuse("depends_on", "It has more than one dimension.", "Pass a plain array.");
		deconstruct_array(array, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, &nulls,
						  &n);
		parents = palloc((n + 1) * sizeof(int64));
		for (int i = 0; i < n; i++)
		{
			if (nulls[i])
				api_refuse("depends_on", "It contains a null.", "Name tasks by their ids.");
			parents[i] = DatumGetInt64(elements[i]);
		}
		task_set_parents(&task, parents, n);
	}
	task.traceparent = api_text_or_null(fcinfo, 10, "traceparent", MAX_NAME_LENGTH);
	for (int i = 0; i < TASK_LATER_ARGUMENTS; i++)
		if (11 + i < PG_NARGS() && !PG_ARGISNULL(11 + i))
			task_refuse_later(task_later_arguments[i]);
	task_check(&task);
	INJECT("submit");
	PG_RETURN_INT64(store_task_submit(&task, &memo, clock_now()));
}

/* Say in the context of an error at which element of submit_tasks() it came up. */
static void
tell_element(void *number)
{
	errcontext("element %d of the array \"tasks\", counted from 0", *(int *) number);
}

/*
 * SQL: submit_tasks(tasks jsonb) -> setof bigint, in the order of the array. All
 * tasks are stored or none.
 */
static Datum
gpu_orch_submit_tasks_body(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = clock_now();
	Jsonb *tasks;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue element;
	MemoryContext scratch;
	MemoryContext outer = CurrentMemoryContext;
	ShapeMemo memo = { CurrentMemoryContext, NULL };
	int number = 0;
	ErrorContextCallback context = { .callback = tell_element, .arg = &number };

	begin_submit();
	if (PG_ARGISNULL(0))
		api_refuse("tasks", "It is null.", "Pass an array of objects, each a task.");
	tasks = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_ARRAY(tasks) || JB_ROOT_IS_SCALAR(tasks))
		api_refuse("tasks", "It is not an array.", "Pass an array of objects, each a task.");
	if (JB_ROOT_COUNT(tasks) > MAX_BATCH)
		api_refuse("tasks", psprintf("It holds %u tasks.", JB_ROOT_COUNT(tasks)),
				   psprintf("Submit at most %d at a time.", MAX_BATCH));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	scratch = AllocSetContextCreate(outer, "gpu_orch submit", ALLOCSET_DEFAULT_SIZES);
	iterator = JsonbIteratorInit(&tasks->root);
	context.previous = error_context_stack;
	error_context_stack = &context;
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		NewTask task;
		Datum id;
		bool isnull = false;

		if (token != WJB_ELEM)
			continue;
		MemoryContextSwitchTo(scratch);
		task_read(&task, &element);
		id = Int64GetDatum(store_task_submit(&task, &memo, now));
		INJECT("submit.batch");
		tuplestore_putvalues(result->setResult, result->setDesc, &id, &isnull);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(scratch);
		number++;
	}
	error_context_stack = context.previous;
	MemoryContextDelete(scratch);
	return (Datum) 0;
}

/*
 * Lock a task that the caller may touch; one of another tenant does not exist for the
 * caller, who therefore does not wait for a session that has it locked either.
 */
static void
lock_task(int64 task_id, TaskRow *task)
{
	int32 tenant;

	if (!store_task_tenant(task_id, &tenant) || !store_tenant_allows(tenant, caller_role()) ||
		!store_task_lock(task_id, task))
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_UNKNOWN_OBJECT),
				 errmsg("task " INT64_FORMAT " does not exist", task_id),
				 errhint("Check the id; tasks of tenants that you may not use are not shown.")));
}

/*
 * SQL: cancel_task(task_id) -> boolean. True when the task is cancelled, or its
 * worker has been asked to stop; false when it had ended before.
 */
static Datum
gpu_orch_cancel_task_body(PG_FUNCTION_ARGS)
{
	int64 task_id = PG_GETARG_INT64(0);
	TimestampTz now = clock_now();
	LeaseEnd unheld = { .outcome = OUTCOME_LOST, .error = "the worker had been ended" };
	TaskRow task;
	TaskSlot slot;

	api_begin_change();
	lock_task(task_id, &task);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (store_waiting_take(task_id, true, &slot) || store_queue_remove(task_id, true, &slot))
		{
			INJECT("cancel");
			store_lease_end_without(&slot, "cancelled by request", now);
			PG_RETURN_BOOL(true);
		}
		if (store_cancel_request(task_id, now))
		{
			/* Of a worker that is gone nobody would hear of it. */
			(void) store_lease_end_unheld(task_id, &unheld, now);
			PG_RETURN_BOOL(true);
		}

		/* It moved between our looks, or it has ended. */
		if (!store_task_stands(task_id))
			PG_RETURN_BOOL(false);
	}
}

/* Refuse to try a task again for good. */
static void
refuse_retry(int64 task_id, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_GPU_ORCH_ILLEGAL_MOVE),
			 errmsg("task " INT64_FORMAT " cannot be tried again", task_id),
			 errdetail("%s", detail), errhint("%s", hint)));
}

/* Refuse to try a task again that would only be cancelled again, for the sake of its parent. */
static void
refuse_failed_parent(int64 task_id)
{
	int64 parent;
	ParentsVerdict verdict = store_dependency_judge(task_id, &parent);

	if (verdict == PARENTS_FAILED)
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_ILLEGAL_MOVE),
				 errmsg("task " INT64_FORMAT " cannot be tried again yet", task_id),
				 errdetail("It depends on task " INT64_FORMAT ", which did not succeed.", parent),
				 errhint("Call retry_task(" INT64_FORMAT ") first.", parent)));
	if (verdict == PARENTS_GONE)
		refuse_retry(
			task_id,
			psprintf("It depends on task " INT64_FORMAT ", which does not exist any more.", parent),
			"Submit it anew, without that dependency.");
}

/*
 * SQL: retry_task(task_id) -> boolean. Admits a failed or cancelled task again
 * with a new budget of attempts, not before its time; false when it is not in one of
 * these states.
 */
static Datum
gpu_orch_retry_task_body(PG_FUNCTION_ARGS)
{
	int64 task_id = PG_GETARG_INT64(0);
	TimestampTz now = clock_now();
	TaskRow task;
	TaskSlot slot = { 0 };
	int32 attempt;
	bool final;
	bool succeeded;

	api_begin_change();
	lock_task(task_id, &task);
	if (!store_attempt_last(task_id, &attempt, &final, &succeeded) || !final || succeeded ||
		store_task_stands(task_id))
		PG_RETURN_BOOL(false);
	if (store_task_is_erased(task_id))
		refuse_retry(task_id, "Its payload was erased.", "Submit it anew.");
	if (store_tenant_is_dropped(task.tenant))
		refuse_retry(task_id, "Its tenant was dropped.", "Submit it anew, for another tenant.");
	store_dependency_keep_parents(task_id);
	refuse_failed_parent(task_id);
	slot.task_id = task_id;
	slot.shape = task.shape;
	slot.tenant = task.tenant;
	slot.priority = task.priority;
	slot.attempt = attempt + 1;
	begin_submit();
	INJECT("retry");
	store_cancel_forget(task_id);
	store_attempt_reopen(task_id, attempt);
	store_waiting_place(&slot, task.run_at, true, now);
	PG_RETURN_BOOL(true);
}

/*
 * SQL: forget_task(task_id) -> void. Erases what a task that has ended was given and what it
 * returned. Raises GO004 for one that has not ended.
 */
static Datum
gpu_orch_forget_task_body(PG_FUNCTION_ARGS)
{
	int64 task_id = PG_GETARG_INT64(0);
	TaskRow task;

	api_begin_change();
	lock_task(task_id, &task);
	if (store_task_stands(task_id))
		ereport(
			ERROR,
			(errcode(ERRCODE_GPU_ORCH_ILLEGAL_MOVE),
			 errmsg("task " INT64_FORMAT " has not ended", task_id),
			 errdetail("Its worker needs the payload."),
			 errhint("Wait for its end, or call cancel_task(" INT64_FORMAT ") first.", task_id)));
	INJECT("forget");
	if (store_retention_forget(task_id, clock_now()))
		ForceSyncCommit();
	PG_RETURN_VOID();
}

/* SQL: may_use_tenant(tenant int) -> boolean */
static Datum
gpu_orch_may_use_tenant_body(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(store_tenant_allows(PG_GETARG_INT32(0), caller_role()));
}

/*
 * SQL: caller_may_use_tenant(tenant int) -> boolean. For statements that a function of ours
 * runs as the owner: the answer is for the role that called that function.
 */
Datum
gpu_orch_caller_may_use_tenant(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(store_tenant_allows(PG_GETARG_INT32(0), caller_role()));
}

/* Return the rows of a statement about the task that is the only argument. */
static Datum
rows_about_task(FunctionCallInfo fcinfo, SpiQuery *query)
{
	SpiArgs args = SPI_ARGS_INIT;

	spi_arg_int8(&args, PG_GETARG_INT64(0));
	api_return_rows(fcinfo, query, &args);
	return (Datum) 0;
}

/* SQL: task(task_id) -> setof tasks, as in the view */
static Datum
gpu_orch_task_body(PG_FUNCTION_ARGS)
{
	static SpiQuery query = { "SELECT * FROM gpu_orch.task_for_caller($1)" };

	return rows_about_task(fcinfo, &query);
}

/* SQL: explain_match(task_id) -> setof (worker_id, pool, matches, reasons) */
static Datum
gpu_orch_explain_match_body(PG_FUNCTION_ARGS)
{
	static SpiQuery query = { "SELECT * FROM gpu_orch.explain_match_for_caller($1)" };

	return rows_about_task(fcinfo, &query);
}

/* SQL: why_waiting(task_id) -> setof (reason, subject, workers, detail, hint) */
static Datum
gpu_orch_why_waiting_body(PG_FUNCTION_ARGS)
{
	static SpiQuery query = { "SELECT * FROM gpu_orch.why_waiting_for_caller($1)" };

	return rows_about_task(fcinfo, &query);
}

/*
 * SQL: shape_has_room(shape, tenant) -> boolean; true where the library is not preloaded.
 * The schema before asks without a tenant.
 */
static Datum
gpu_orch_shape_has_room_body(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!shmem_available() ||
				   store_queue_has_room(PG_GETARG_INT64(0),
										PG_NARGS() < 2 ? DEFAULT_TENANT : PG_GETARG_INT32(1)));
}

/*
 * SQL: admit() -> bigint. What the leader does at each tick: release the tasks
 * that need not wait any longer. Returns how many went on or were cancelled.
 */
static Datum
gpu_orch_admit_body(PG_FUNCTION_ARGS)
{
	TimestampTz now = clock_now();
	int64 total;
	bool made_ready;
	bool more;

	shmem_require();
	total = store_dependency_repair(now);
	do
	{
		CHECK_FOR_INTERRUPTS();
		total += store_waiting_admit(now, &made_ready, &more);
		if (made_ready)
			wake_at_commit(WAKE_DECIDE | WAKE_NOTIFY);
	} while (more);
	PG_RETURN_INT64(total);
}
