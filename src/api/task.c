/*
 * api/task.c
 *	  For applications: submit, cancel, retry and forget tasks.
 *
 * Arguments are checked completely before anything is stored; one bad task of a
 * batch refuses the batch. Who may submit for a tenant is decided for the caller.
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/check.h"
#include "base/caller.h"
#include "catalog/pg_type_d.h"
#include "base/clock.h"
#include "base/errors.h"
#include "fmgr.h"
#include "funcapi.h"
#include "base/guc.h"
#include "base/inject.h"
#include "queue/match.h"
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
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "base/wake.h"

#define MAX_ATTEMPTS 1000
#define MAX_PARENTS 1000
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

/* The tenant of that name, if the caller may submit for it; the two are not told apart. */
static int32
resolve_tenant(const char *name)
{
	int32 tenant;

	api_check_text("tenant", name, MAX_NAME_LENGTH);
	if (!store_tenant_find(name, &tenant) || !store_tenant_allows(tenant, caller_role()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not submit for tenant \"%s\"", caller_name(), name),
				 errhint("An operator makes tenants with create_tenant() and lets a role use one "
						 "with grant_tenant().")));
	return tenant;
}

/* Whether a payload is what stands for one that was erased. */
static bool
says_erased(Jsonb *payload)
{
	JsonbValue space;
	JsonbValue *value;

	if (!JB_ROOT_IS_OBJECT(payload) || JB_ROOT_COUNT(payload) != 1)
		return false;
	value = getKeyJsonValueFromContainer(&payload->root, ERASED_KEY, strlen(ERASED_KEY), &space);
	return value != NULL && value->type == jbvString &&
		value->val.string.len == strlen(ERASED_VALUE) &&
		memcmp(value->val.string.val, ERASED_VALUE, strlen(ERASED_VALUE)) == 0;
}

/* Refuse anything about a task that cannot be, and give its timeout an absolute length. */
static void
check_task(NewTask *task)
{
	int64 missing;

	api_check_text("kind", task->kind, MAX_NAME_LENGTH);
	if (task->kind[0] == ' ' || task->kind[strlen(task->kind) - 1] == ' ')
		api_refuse("kind", "It begins or ends with a blank.", "Leave the blank out.");
	api_check_json("payload", task->payload, guc_max_payload_bytes);
	if (says_erased(task->payload))
		api_refuse("payload", "It is what stands for an erased payload.", "Use any other value.");
	match_require_requirements(task->requirements, "requirements");
	if (task->priority < -MAX_PRIORITY || task->priority > MAX_PRIORITY)
		api_refuse("priority", psprintf("%d is out of range.", task->priority),
				   psprintf("Use a value from %d to %d.", -MAX_PRIORITY, MAX_PRIORITY));
	if (task->priority > guc_max_priority && !api_is_operator())
		api_refuse("priority", psprintf("%d is above gpu_orch.max_priority.", task->priority),
				   psprintf("Use a value of at most %d; only operators may use a higher one.",
							guc_max_priority));
	if (task->max_attempts < 1 || task->max_attempts > MAX_ATTEMPTS)
		api_refuse("max_attempts", psprintf("%d is out of range.", task->max_attempts),
				   psprintf("Use a value from 1 to %d.", MAX_ATTEMPTS));
	if (task->run_at != 0 && TIMESTAMP_NOT_FINITE(task->run_at))
		api_refuse("run_at", "It is infinite.", "Use a time that comes, or null for at once.");
	if (task->timeout != NULL &&
		DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(task->timeout),
										  IntervalPGetDatum(&(Interval){ 0 }))) <= 0)
		api_refuse("timeout", "It is not longer than zero.",
				   "Use a positive interval, or null for no limit.");
	if (task->timeout != NULL &&
		DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(task->timeout),
										  IntervalPGetDatum(&(Interval){ .month = 12 }))) > 0)
		api_refuse("timeout", "It is longer than a year.",
				   "Use a shorter interval, or null for no limit.");
	if (task->timeout != NULL)
	{
		Interval *absolute = palloc0(sizeof(Interval));

		absolute->time = interval_length(task->timeout);
		task->timeout = absolute;
	}
	if (task->idempotency_key != NULL)
		api_check_text("idempotency_key", task->idempotency_key, MAX_NAME_LENGTH);
	if (task->traceparent != NULL)
		api_check_text("traceparent", task->traceparent, MAX_NAME_LENGTH);
	if (task->n_parents > 0 &&
		!store_task_parents_exist(task->parents, task->n_parents, caller_role(), clock_now(),
								  &missing))
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_UNKNOWN_OBJECT),
				 errmsg("task " INT64_FORMAT ", named in depends_on, does not exist", missing),
				 errhint("Submit the tasks that others depend on first.")));
}

static int
compare_int8(const void *a, const void *b)
{
	int64 left = *(const int64 *) a;
	int64 right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

/* Set the parents of a task: sorted, each once. */
static void
set_parents(NewTask *task, int64 *parents, int n)
{
	if (n > MAX_PARENTS)
		api_refuse("depends_on", psprintf("It names %d tasks.", n),
				   psprintf("Name at most %d.", MAX_PARENTS));
	qsort(parents, n, sizeof(int64), compare_int8);
	task->parents = parents;
	task->n_parents = 0;
	for (int i = 0; i < n; i++)
		if (i == 0 || parents[i] != parents[i - 1])
			parents[task->n_parents++] = parents[i];
}

static void
default_task(NewTask *task)
{
	memset(task, 0, sizeof(NewTask));
	task->max_attempts = 3;
	task->payload = api_empty_object();
	task->requirements = api_empty_object();
	task->submitted_by = caller_name();
}

/* Arguments of submit_task() that have a column, and no effect yet. */
static const char *const later_arguments[] = { "max_wait", "start_before", "limit_key", "batch" };

static void
refuse_later(const char *argument)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("argument \"%s\" is not served yet", argument),
			 errdetail("A task that was taken in with it would not be treated as it asks."),
			 errhint("Leave it out, or pass null.")));
}

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
	default_task(&task);
	task.kind = api_text(fcinfo, 0, "kind", MAX_NAME_LENGTH);
	if (!PG_ARGISNULL(1))
		task.payload = PG_GETARG_JSONB_P(1);
	if (!PG_ARGISNULL(2))
		task.requirements = PG_GETARG_JSONB_P(2);
	if (!PG_ARGISNULL(3))
		task.priority = PG_GETARG_INT32(3);
	if (!PG_ARGISNULL(4))
		task.tenant = resolve_tenant(text_to_cstring(PG_GETARG_TEXT_PP(4)));
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
		set_parents(&task, parents, n);
	}
	task.traceparent = api_text_or_null(fcinfo, 10, "traceparent", MAX_NAME_LENGTH);
	for (int i = 0; i < lengthof(later_arguments); i++)
		if (11 + i < PG_NARGS() && !PG_ARGISNULL(11 + i))
			refuse_later(later_arguments[i]);
	check_task(&task);
	INJECT("submit");
	PG_RETURN_INT64(store_task_submit(&task, &memo, clock_now()));
}

/* A member of a task in submit_tasks(). */
typedef enum TaskKey
{
	KEY_DEPENDS_ON,
	KEY_IDEMPOTENCY_KEY,
	KEY_KIND,
	KEY_MAX_ATTEMPTS,
	KEY_PAYLOAD,
	KEY_PRIORITY,
	KEY_REQUIREMENTS,
	KEY_RUN_AT,
	KEY_TENANT,
	KEY_TIMEOUT,
	KEY_TRACEPARENT
} TaskKey;

static const char *const task_keys[] = { "depends_on",	 "idempotency_key", "kind",
										 "max_attempts", "payload",			"priority",
										 "requirements", "run_at",			"tenant",
										 "timeout",		 "traceparent" };

static char *
json_text(const char *key, const JsonbValue *value)
{
	if (value->type != jbvString)
		api_refuse(key, "It is not a string.", "Pass a JSON string.");
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static int64
json_integer(const char *key, const JsonbValue *value, int64 least, int64 most)
{
	Datum number;

	if (value->type != jbvNumeric)
		api_refuse(key, "It is not a number.", "Pass a whole number.");
	number = NumericGetDatum(value->val.numeric);
	if (!DatumGetBool(DirectFunctionCall2(
			numeric_eq, number, DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0)))))
		api_refuse(key, "It is not a whole number.", "Pass a whole number.");
	if (DatumGetBool(
			DirectFunctionCall2(numeric_lt, number, NumericGetDatum(int64_to_numeric(least)))) ||
		DatumGetBool(
			DirectFunctionCall2(numeric_gt, number, NumericGetDatum(int64_to_numeric(most)))))
		api_refuse(key, "It is out of range.",
				   psprintf("Use a value from " INT64_FORMAT " to " INT64_FORMAT ".", least, most));
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
}

/* Copy a member that is itself JSON. */
static Jsonb *
json_json(const JsonbValue *value)
{
	return JsonbValueToJsonb(unconstify(JsonbValue *, value));
}

static void
json_parents(NewTask *task, const JsonbValue *value)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue item;
	int64 *parents;
	int n = 0;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		api_refuse("depends_on", "It is not an array.", "Pass an array of task ids.");
	parents = palloc((JsonContainerSize(value->val.binary.data) + 1) * sizeof(int64));
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
		if (token == WJB_ELEM)
			parents[n++] = json_integer("depends_on", &item, 1, PG_INT64_MAX);
	set_parents(task, parents, n);
}

static void
set_member(NewTask *task, const char *key, const JsonbValue *value)
{
	int found = -1;

	for (int i = 0; i < lengthof(task_keys); i++)
		if (strcmp(task_keys[i], key) == 0)
			found = i;
	for (int i = 0; i < lengthof(later_arguments); i++)
		if (strcmp(later_arguments[i], key) == 0)
		{
			if (value->type != jbvNull)
				refuse_later(key);
			return;
		}
	if (found < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key \"%s\" of a task in \"tasks\" is not known", key),
				 errhint("The keys are those of the arguments of submit_task().")));
	if (value->type == jbvNull && found != KEY_PAYLOAD)
		return;

	switch ((TaskKey) found)
	{
		case KEY_DEPENDS_ON:
			json_parents(task, value);
			break;
		case KEY_IDEMPOTENCY_KEY:
			task->idempotency_key = json_text(key, value);
			break;
		case KEY_KIND:
			task->kind = json_text(key, value);
			break;
		case KEY_MAX_ATTEMPTS:
			task->max_attempts = (int32) json_integer(key, value, 1, MAX_ATTEMPTS);
			break;
		case KEY_PAYLOAD:
			task->payload = json_json(value);
			break;
		case KEY_PRIORITY:
			task->priority = (int32) json_integer(key, value, -MAX_PRIORITY, MAX_PRIORITY);
			break;
		case KEY_REQUIREMENTS:
			task->requirements = json_json(value);
			break;
		case KEY_RUN_AT:
			task->run_at = DatumGetTimestampTz(
				DirectFunctionCall3(timestamptz_in, CStringGetDatum(json_text(key, value)),
									ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
			break;
		case KEY_TENANT:
			task->tenant = resolve_tenant(json_text(key, value));
			break;
		case KEY_TIMEOUT:
		{
			char *text = value->type == jbvNumeric ?
				psprintf("%s seconds",
						 DatumGetCString(DirectFunctionCall1(
							 numeric_out, NumericGetDatum(value->val.numeric)))) :
				json_text(key, value);

			task->timeout = DatumGetIntervalP(
				DirectFunctionCall3(interval_in, CStringGetDatum(text),
									ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
			break;
		}
		case KEY_TRACEPARENT:
			task->traceparent = json_text(key, value);
			break;
	}
}

/* Read one object of submit_tasks(). */
static void
api_read_task(NewTask *task, const JsonbValue *element)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue item;
	char *key = NULL;

	if (element->type != jbvBinary || !JsonContainerIsObject(element->val.binary.data))
		api_refuse("tasks", "An element is not an object.",
				   "Pass an array of objects, each a task.");
	default_task(task);
	iterator = JsonbIteratorInit(element->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(item.val.string.val, item.val.string.len);
		else if (token == WJB_VALUE)
			set_member(task, key, &item);
	}
	if (task->kind == NULL)
		api_refuse("tasks", "A task has no \"kind\".", "Give each task the key \"kind\".");
	check_task(task);
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
		api_read_task(&task, &element);
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
