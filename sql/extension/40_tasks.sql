-- For applications. No function here is SECURITY DEFINER: each finds out in C who calls, goes on as the
-- extension's owner, and pins the search_path before it runs a statement. See api_run().

CREATE FUNCTION gpu_orch.submit_task(
        kind text, payload jsonb DEFAULT '{}', requirements jsonb DEFAULT '{}', priority int DEFAULT 0,
        tenant text DEFAULT 'default', run_at timestamptz DEFAULT NULL, max_attempts int DEFAULT 3,
        timeout interval DEFAULT NULL, idempotency_key text DEFAULT NULL, depends_on bigint[] DEFAULT NULL,
        traceparent text DEFAULT NULL, max_wait interval DEFAULT NULL, start_before timestamptz DEFAULT NULL,
        limit_key text DEFAULT NULL, batch text DEFAULT NULL)
    RETURNS bigint
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_submit_task';
COMMENT ON FUNCTION gpu_orch.submit_task(text, jsonb, jsonb, int, text, timestamptz, int, interval, text, bigint[], text, interval, timestamptz, text, text) IS
    'Submits a task in the caller''s transaction and returns its id; the same idempotency key returns the first task''s id';

CREATE FUNCTION gpu_orch.submit_tasks(tasks jsonb) RETURNS SETOF bigint
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_submit_tasks';
COMMENT ON FUNCTION gpu_orch.submit_tasks(jsonb) IS
    'Submits an array of tasks, objects with the argument names of submit_task() as keys, and returns their ids in order; all or none';

CREATE FUNCTION gpu_orch.cancel_task(task_id bigint) RETURNS boolean
    LANGUAGE C VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'gpu_orch_cancel_task';
COMMENT ON FUNCTION gpu_orch.cancel_task(bigint) IS
    'Cancels a task, or asks the worker that runs it to stop; false when it had ended before';

CREATE FUNCTION gpu_orch.retry_task(task_id bigint) RETURNS boolean
    LANGUAGE C VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'gpu_orch_retry_task';
COMMENT ON FUNCTION gpu_orch.retry_task(bigint) IS
    'Admits a failed or cancelled task again with a new budget of attempts; false when it is neither';

CREATE FUNCTION gpu_orch.forget_task(task_id bigint) RETURNS void
    LANGUAGE C VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'gpu_orch_forget_task';
COMMENT ON FUNCTION gpu_orch.forget_task(bigint) IS
    'Erases the payload, the results and the errors of a task that has ended; the task itself stays until its time is over';

CREATE FUNCTION gpu_orch.may_use_tenant(tenant int) RETURNS boolean
    LANGUAGE C STABLE STRICT
    AS 'MODULE_PATHNAME', 'gpu_orch_may_use_tenant';
COMMENT ON FUNCTION gpu_orch.may_use_tenant(int) IS
    'Whether the calling role may submit and see tasks of a tenant';

-- What task(), explain_match() and why_waiting() run as the owner: these find the tasks that their caller may see.

CREATE FUNCTION gpu_orch.caller_may_use_tenant(tenant int) RETURNS boolean
    LANGUAGE C STABLE STRICT
    AS 'MODULE_PATHNAME', 'gpu_orch_caller_may_use_tenant';
COMMENT ON FUNCTION gpu_orch.caller_may_use_tenant(int) IS
    'The same, for the role that called the function of ours that runs now; for nobody to call';

CREATE FUNCTION gpu_orch.admit() RETURNS bigint
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_admit';
COMMENT ON FUNCTION gpu_orch.admit() IS
    'Releases the tasks that need not wait any longer, as the leader does at each tick; returns how many went on or were cancelled';

CREATE FUNCTION gpu_orch.count_usage() RETURNS bigint
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_count_usage';
COMMENT ON FUNCTION gpu_orch.count_usage() IS
    'Adds the attempts that have ended to what worker_performance and spend_by_day show, as the leader does at each tick; returns how many there were';

-- For workers.

CREATE TYPE gpu_orch.claimed_task AS (
    task_id      bigint,
    lease        uuid,
    attempt      int,
    kind         text,
    payload      jsonb,
    requirements jsonb,
    priority     int,
    tenant       text,
    deadline     timestamptz,
    traceparent  text
);
COMMENT ON TYPE gpu_orch.claimed_task IS 'A task as its worker gets it; the lease proves that the worker holds it';

CREATE TYPE gpu_orch.worker_session AS (
    worker_id          text,
    token              text,
    heartbeat_interval interval,
    pool               text
);
COMMENT ON TYPE gpu_orch.worker_session IS 'What a worker is told when it registers; the token is shown this once';

CREATE FUNCTION gpu_orch.register_worker(
        worker_id text, token text DEFAULT NULL, capabilities jsonb DEFAULT '{}', pool text DEFAULT NULL,
        pod_id text DEFAULT NULL, slots int DEFAULT 1)
    RETURNS gpu_orch.worker_session
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_register_worker';
COMMENT ON FUNCTION gpu_orch.register_worker(text, text, jsonb, text, text, int) IS
    'Begins a session of a worker that takes so many tasks at once: revokes the last one, releases its leases, and returns the token for all other calls';

CREATE FUNCTION gpu_orch.goodbye(worker_id text, token text, broken text DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_goodbye';
COMMENT ON FUNCTION gpu_orch.goodbye(text, text, text) IS
    'Ends a worker by its own wish: what it still holds goes back at no cost, and its pod is deleted; broken says why it cannot work where it is';

CREATE FUNCTION gpu_orch.heartbeat(
        worker_id text, token text, stats jsonb DEFAULT NULL, holding uuid[] DEFAULT NULL,
        acked bigint DEFAULT NULL,
        OUT directive text, OUT cancelled bigint[], OUT messages jsonb)
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_heartbeat';
COMMENT ON FUNCTION gpu_orch.heartbeat(text, text, jsonb, uuid[], bigint) IS
    'Says that a worker lives and which leases it holds; returns what it should do (continue, drain, stop) and which tasks to abandon';

CREATE FUNCTION gpu_orch.claim_tasks(worker_id text, token text, max_tasks int DEFAULT 1)
    RETURNS SETOF gpu_orch.claimed_task
    LANGUAGE C VOLATILE ROWS 1
    AS 'MODULE_PATHNAME', 'gpu_orch_claim_tasks';
COMMENT ON FUNCTION gpu_orch.claim_tasks(text, text, int) IS
    'Leases up to max_tasks of the tasks that the worker can do, best first';

CREATE FUNCTION gpu_orch.complete_task(worker_id text, token text, task_id bigint, lease uuid,
                                       result jsonb DEFAULT NULL)
    RETURNS boolean
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_complete_task';
COMMENT ON FUNCTION gpu_orch.complete_task(text, text, bigint, uuid, jsonb) IS
    'Ends an attempt with its result; false when the lease is no longer this worker''s, true again when repeated';

CREATE FUNCTION gpu_orch.complete_tasks(
        worker_id text, token text, task_ids bigint[], leases uuid[], results jsonb[] DEFAULT NULL)
    RETURNS SETOF bigint
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_complete_tasks';
COMMENT ON FUNCTION gpu_orch.complete_tasks(text, text, bigint[], uuid[], jsonb[]) IS
    'Ends many running attempts as succeeded in one commit; returns the tasks for which complete_task() would be true';

CREATE FUNCTION gpu_orch.fail_task(worker_id text, token text, task_id bigint, lease uuid, error text,
                                   failure text DEFAULT 'task', retry boolean DEFAULT true)
    RETURNS boolean
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_fail_task';
COMMENT ON FUNCTION gpu_orch.fail_task(text, text, bigint, uuid, text, text, boolean) IS
    'Ends an attempt as failed by the task, by the platform, or rejected for good; the task is retried where that may help';

CREATE FUNCTION gpu_orch.release_task(worker_id text, token text, task_id bigint, lease uuid)
    RETURNS boolean
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_release_task';
COMMENT ON FUNCTION gpu_orch.release_task(text, text, bigint, uuid) IS
    'Gives a task back to its place, at no cost to its attempts';

CREATE FUNCTION gpu_orch.progress_task(worker_id text, token text, task_id bigint, lease uuid,
                                       fraction double precision DEFAULT NULL, stage text DEFAULT NULL)
    RETURNS boolean
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_progress_task_share';
COMMENT ON FUNCTION gpu_orch.progress_task(text, text, bigint, uuid, double precision, text) IS
    'Notes how far a running attempt is; false when the lease is no longer this worker''s';

CREATE FUNCTION gpu_orch.complete_and_claim(worker_id text, token text, task_id bigint, lease uuid,
                                            result jsonb DEFAULT NULL, max_tasks int DEFAULT 1)
    RETURNS SETOF gpu_orch.claimed_task
    LANGUAGE C VOLATILE ROWS 1
    AS 'MODULE_PATHNAME', 'gpu_orch_complete_and_claim';
COMMENT ON FUNCTION gpu_orch.complete_and_claim(text, text, bigint, uuid, jsonb, int) IS
    'Completes a task and claims the next ones in one commit; fenced it raises GO001, repeated it returns what the first call claimed';
