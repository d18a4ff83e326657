-- Submitting tasks: what is stored, where a task stands then, and what is refused.
\set ECHO none
\i sql/include/refusals.sql
SET search_path = gpu_orch, pg_catalog;

-- The kind is enough.
SELECT submit_task('submit-plain') AS plain \gset
\x on
SELECT state, kind, payload, requirements, priority, tenant, attempts, max_attempts, worker, progress, stage,
       cancel_requested, result, error, run_at, started_at, ended_at, deadline, timeout, cost, idempotency_key,
       submitted_by = current_user AS by_us, clock() - submitted_at < interval '1 minute' AS now, traceparent
FROM task(:plain);
-- Every argument, by the names that callers write.
SELECT submit_task(kind => 'submit-full', payload => '{"prompt": "a lighthouse"}',
                   requirements => '{"hardware": {"gpu_memory_gb": 16}}', priority => -7, tenant => 'default',
                   run_at => clock() - interval '1 hour', max_attempts => 5, timeout => '90 seconds',
                   idempotency_key => 'submit-full-1', depends_on => ARRAY[:plain, :plain]::bigint[],
                   traceparent => '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01') AS full \gset
SELECT state, kind, payload, requirements, priority, tenant, attempts, max_attempts, timeout,
       run_at < submitted_at AS run_at_kept, idempotency_key, traceparent
FROM task(:full);
\x off
-- Nulls are defaults.
SELECT submit_task('submit-null', null, null, null, null, null, null, null, null, null, null) AS id \gset
SELECT state, payload, requirements, priority, tenant, max_attempts, timeout FROM task(:id);

-- Where a task stands: before its time, behind another task, claimable; its time goes before the others.
SELECT submit_task('submit-state', '{"n": 1}', run_at => clock() + interval '1 hour'),
       submit_task('submit-state', '{"n": 2}', run_at => clock() + interval '1 hour', depends_on => ARRAY[:plain]),
       submit_task('submit-state', '{"n": 3}', depends_on => ARRAY[:plain]),
       submit_task('submit-state', '{"n": 4}', run_at => clock() - interval '1 hour'),
       submit_task('submit-state', '{"n": 5}', depends_on => '{}') \gset
SELECT payload, state, attempts FROM tasks WHERE kind = 'submit-state' ORDER BY payload;
-- Nothing moves before its time; afterwards the first is claimable and the second waits for its parent.
SELECT admit();
SELECT advance_clock('1 hour 1 second') IS NOT NULL AS an_hour_later;
SELECT admit() > 0 AS moved;
SELECT state, count(*) FROM tasks WHERE kind = 'submit-state' GROUP BY state ORDER BY state;

-- A submission belongs to the caller's transaction.
BEGIN;
SELECT submit_task('submit-undone') > 0 AS submitted;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT submit_task('submit-serializable') > 0 AS submitted;
COMMIT;
SELECT kind, state FROM tasks WHERE kind IN ('submit-undone', 'submit-serializable');

-- Refused, each with a hint, and nothing is stored.
SELECT count(*) AS before FROM tasks \gset
CALL pg_temp.refusals(
    $$submit_task('submit', '{"gpu_orch": "erased"}')$$,
    $$submit_task(null)$$,
    $$submit_task('')$$,
    $$submit_task(repeat('k', 201))$$,
    $$submit_task(E'line\nfeed')$$,
    $$submit_task(' ')$$,
    $$submit_task(' x')$$,
    $$submit_task('x ')$$,
    $$submit_task('x', jsonb_build_object('blob', repeat('x', 1100000)))$$,
    $$submit_task('x', (repeat('[', 64) || repeat(']', 64))::jsonb)$$,
    $$submit_task('x', (repeat('[', 65) || repeat(']', 65))::jsonb)$$,
    $$submit_task('x', requirements => '[1]')$$,
    $$submit_task('x', requirements => '{"hardware": {"gpu_memory_gb": {"$least": 1}}}')$$,
    $$submit_task('x', priority => 1000001)$$,
    $$submit_task('x', priority => -1000001)$$,
    $$submit_task('x', tenant => '')$$,
    $$submit_task('x', tenant => 'nobody')$$,
    $$submit_task('x', run_at => 'infinity')$$,
    $$submit_task('x', max_attempts => 0)$$,
    $$submit_task('x', max_attempts => -1)$$,
    $$submit_task('x', max_attempts => 1001)$$,
    $$submit_task('x', timeout => '0')$$,
    $$submit_task('x', timeout => '-1 second')$$,
    $$submit_task('x', idempotency_key => '')$$,
    $$submit_task('x', idempotency_key => repeat('k', 201))$$,
    $$submit_task('x', depends_on => ARRAY[9223372036854775807])$$,
    $$submit_task('x', depends_on => ARRAY[0]::bigint[])$$,
    $$submit_task('x', depends_on => ARRAY[null]::bigint[])$$,
    $$submit_task('x', depends_on => '{{1},{2}}')$$,
    $$submit_task('x', depends_on => ARRAY(SELECT generate_series(1, 1001)))$$,
    $$submit_task('x', traceparent => '')$$,
    $$submit_task('x', traceparent => repeat('t', 201))$$);
-- One of them was fit to be stored: 64 levels.
SELECT count(*) - :before AS stored FROM tasks;

-- A timeout is an absolute length, whatever the clocks of the session's time zone do: a day has 24
-- hours, and a month 30 days.
SELECT submit_task('submit-timeout', timeout => '1 day') AS day \gset
SELECT submit_tasks('[{"kind": "submit-timeout", "timeout": "1 mon -1 day 00:00:01.5"}]') AS month \gset
SELECT timeout FROM tasks WHERE task_id IN (:day, :month) ORDER BY 1;
SELECT cancel_task(:day), cancel_task(:month);

-- The same key is the same task, whatever became of it; another body is an error.
SELECT submit_task('submit-key', '{"a": 1}', '{"hardware": {"vram": 8}}', 3, max_attempts => 2, timeout => '1 min',
                   idempotency_key => 'k1', depends_on => ARRAY[:plain, :full]) AS keyed \gset
SELECT :keyed = submit_task('submit-key', '{"a": 1}', '{"hardware": {"vram": 8.0}}', 3, max_attempts => 2,
                            timeout => '60 s', idempotency_key => 'k1', depends_on => ARRAY[:full, :plain, :full]) AS same;
SELECT cancel_task(:keyed);
SELECT :keyed = submit_task('submit-key', '{"a": 1}', '{"hardware": {"vram": 8}}', 3, max_attempts => 2,
                            timeout => '1 min', idempotency_key => 'k1', depends_on => ARRAY[:plain, :full]) AS same;
SELECT (SELECT submit_task('submit-key-2', idempotency_key => 'k2'))
     = (SELECT submit_task('submit-key-2', idempotency_key => 'k2')) AS same_within_one_statement;
SELECT submit_task('submit-key-3', idempotency_key => 'K2') IS NOT NULL AS keys_are_exact;
SELECT count(*) AS before FROM tasks \gset
CALL pg_temp.refusals(
    $$submit_task('submit-other', idempotency_key => 'k2')$$,
    $$submit_task('submit-key-2', '{"b": 1}', idempotency_key => 'k2')$$,
    $$submit_task('submit-key-2', requirements => '{"b": 1}', idempotency_key => 'k2')$$,
    $$submit_task('submit-key-2', priority => 1, idempotency_key => 'k2')$$,
    $$submit_task('submit-key-2', run_at => '2030-01-01', idempotency_key => 'k2')$$,
    $$submit_task('submit-key-2', max_attempts => 1, idempotency_key => 'k2')$$,
    $$submit_task('submit-key-2', timeout => '1 hour', idempotency_key => 'k2')$$,
    $$submit_task('submit-key-2', idempotency_key => 'k2',
                  depends_on => ARRAY(SELECT task_id FROM tasks WHERE kind = 'submit-plain'))$$);
SELECT count(*) - :before AS stored FROM tasks;
-- A key belongs to its tenant.
SELECT create_tenant('submit-tenant');
SELECT submit_task('submit-other', idempotency_key => 'k2', tenant => 'submit-tenant') > 0 AS another_task;

-- Many at once, with the same names as keys; the ids come in order.
SELECT array_agg(id ORDER BY n) AS ids FROM submit_tasks(jsonb_build_array(
    '{"kind": "submit-many", "payload": {"n": 1}}'::jsonb,
    jsonb_build_object('kind', 'submit-many', 'payload', '{"n": 2}'::jsonb, 'requirements', '{"hardware": {"vram": 8}}'::jsonb,
                       'priority', 9, 'tenant', 'submit-tenant', 'run_at', '2000-01-02 00:00+00', 'max_attempts', 1,
                       'timeout', '1 minute', 'idempotency_key', 'm2', 'depends_on', jsonb_build_array(:plain),
                       'traceparent', '00-aa-bb-01'),
    jsonb '{"kind": "submit-many", "payload": 3, "timeout": 90.5, "priority": null, "tenant": null, "run_at": null,
      "max_attempts": null, "requirements": null, "idempotency_key": null, "depends_on": null, "traceparent": null}'
    )) WITH ORDINALITY AS s(id, n) \gset
SET timezone = 'UTC';
SELECT t.state, t.payload, t.requirements, t.priority, t.tenant, t.run_at, t.max_attempts, t.timeout,
       t.idempotency_key, t.traceparent
FROM unnest(:'ids'::bigint[]) WITH ORDINALITY AS i(id, n), task(i.id) t ORDER BY n;
RESET timezone;
SELECT bool_and(a < b) AS ascending FROM (SELECT id AS a, lead(id) OVER (ORDER BY n) AS b
    FROM unnest(:'ids'::bigint[]) WITH ORDINALITY AS i(id, n)) x;
SELECT count(*) FROM submit_tasks('[]');
SELECT count(DISTINCT id), count(*) FROM submit_tasks(
    '[{"kind": "submit-twin", "idempotency_key": "t"}, {"kind": "submit-twin", "idempotency_key": "t"}]') AS id;

-- All or none: one bad task refuses the batch.
SELECT count(*) AS before FROM tasks \gset
CALL pg_temp.refusals(
    $$submit_tasks(null)$$,
    $$submit_tasks('{"kind": "x"}')$$,
    $$submit_tasks('"x"')$$,
    $$submit_tasks('[1]')$$,
    $$submit_tasks('[[]]')$$,
    $$submit_tasks('[{"kind": "x"}, {}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "prioritaet": 1}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": 7}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": ""}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "requirements": 7}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "priority": "1"}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "priority": 1.5}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "priority": 1e30}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "max_attempts": 0}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "timeout": -1}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "timeout": "soon"}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "timeout": []}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "run_at": "whenever"}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "run_at": 7}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "run_at": "infinity"}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "tenant": "nobody"}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "depends_on": 7}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "depends_on": ["a"]}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "x", "depends_on": [9223372036854775807]}]')$$,
    $$submit_tasks('[{"kind": "x"}, {"kind": "submit-full", "idempotency_key": "submit-full-1"}]')$$,
    $$submit_tasks(jsonb_build_array(jsonb_build_object('kind', 'x', 'payload', repeat('x', 1100000))))$$,
    $$submit_tasks((SELECT jsonb_agg('{"kind": "x"}'::jsonb) FROM generate_series(1, 10001)))$$);
-- Which of many elements is wrong is in the context of the error.
DO $$
DECLARE
    context text;
BEGIN
    PERFORM gpu_orch.submit_tasks('[{"kind": "x"}, {"kind": "x"}, {"kind": "x", "priority": "1"}, {"kind": "x"}]');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
    RAISE INFO '%: %', SQLERRM, split_part(context, E'\n', 1);
END
$$;
SELECT count(*) - :before AS stored FROM tasks;

-- A task may depend on one of an earlier statement of the same transaction.
BEGIN;
SELECT submit_task('submit-parent') AS parent \gset
SELECT submit_tasks(jsonb_build_array(
    jsonb_build_object('kind', 'submit-child', 'depends_on', jsonb_build_array(:parent)))) AS child \gset
SELECT state FROM task(:child);
COMMIT;

-- Leave nothing behind.
SELECT count(cancel_task(task_id)) > 0 AS cancelled FROM tasks WHERE state IN ('scheduled', 'blocked', 'held', 'ready');
