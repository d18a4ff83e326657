-- Plans: no page of a view, and no view that sums up, walks through all tasks or all attempts.
SET search_path = gpu_orch, pg_catalog;
-- The tables that a statement would read as a whole. What functions within it read is told by the counters of this transaction.
CREATE FUNCTION pg_temp.walks(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    plan jsonb;
    whole text[];
    before bigint := (SELECT sum(seq_scan) FROM pg_stat_xact_user_tables WHERE relid IN ('task'::regclass, 'attempt'::regclass));
BEGIN
    EXECUTE 'EXPLAIN (FORMAT JSON) ' || statement INTO plan;
    SELECT array_agg(DISTINCT r #>> '{}' ORDER BY r #>> '{}') INTO whole
    FROM jsonb_path_query(plan, 'strict $.**?(@."Node Type" like_regex "Seq Scan")."Relation Name"') r
    WHERE r #>> '{}' IN ('task', 'attempt');
    EXECUTE format('SELECT count(*) FROM (%s) x', statement);
    IF (SELECT sum(seq_scan) FROM pg_stat_xact_user_tables WHERE relid IN ('task'::regclass, 'attempt'::regclass)) > before THEN
        whole := whole || 'was read'::text;
    END IF;
    RETURN array_to_string(whole, ', ');
END
$$;
-- A history: 30000 ended tasks, one in 500 failed, and 10000 that wait.
BEGIN;
SELECT create_tenant('plans');
SELECT submit_task('plans') AS first \gset
SELECT shape FROM gpu_orch.task WHERE id = :first \gset
CREATE TEMP TABLE made AS
WITH t AS (INSERT INTO gpu_orch.task (shape, tenant, priority, max_attempts, submitted_at, kind, submitted_by, requirements, payload)
    SELECT :shape, CASE WHEN n % 10 = 0 THEN (SELECT id FROM gpu_orch.tenant WHERE name = 'plans') ELSE 0 END,
           0, 3, clock() - interval '10 days' + n * interval '10 s', 'plans', current_user, '{}', '{}'
    FROM generate_series(1, 40000) n RETURNING id, tenant, submitted_at)
SELECT t.*, row_number() OVER (ORDER BY id) AS n FROM t;
INSERT INTO gpu_orch.attempt (task_id, attempt, lease, claimed_at, ended_at, outcome, failure, final_state)
SELECT id, 1, gen_random_uuid(), submitted_at, submitted_at + interval '5 s', CASE WHEN n % 500 = 0 THEN 'failed' ELSE 'succeeded' END,
       CASE WHEN n % 500 = 0 THEN 'task' END, CASE WHEN n % 500 = 0 THEN 'failed' ELSE 'succeeded' END
FROM made WHERE n <= 30000;
INSERT INTO gpu_orch.ready_queue SELECT :shape, id, -1, n, tenant, 1, 0, 0 FROM made WHERE n BETWEEN 30001 AND 38000;
INSERT INTO gpu_orch.waiting SELECT id, 'blocked', NULL, :shape, tenant, 0, 1, 0, 0, 0, submitted_at FROM made WHERE n > 38000;
ANALYZE gpu_orch.task, gpu_orch.attempt, gpu_orch.ready_queue, gpu_orch.waiting, gpu_orch.lease;
SELECT id AS middle FROM made WHERE n = 15000 \gset

CREATE TEMP TABLE statement (n int GENERATED ALWAYS AS IDENTITY, page text);
INSERT INTO statement (page)
SELECT format('SELECT * FROM tasks WHERE %s ORDER BY task_id DESC LIMIT 20', w)
FROM unnest(ARRAY['true', 'task_id < :middle', $$state = 'failed'$$, $$state = 'failed' AND task_id < :middle$$,
                  $$state = 'ready' AND task_id < :middle$$, $$state IN ('blocked', 'held', 'scheduled')$$, $$state = 'running'$$,
                  $$state = 'succeeded'$$, $$kind = 'plans' AND state = 'failed'$$, $$kind = 'plans'$$, $$tenant = 'plans'$$,
                  $$submitted_at < clock() - interval '1 day'$$]) w
UNION ALL SELECT 'SELECT * FROM tasks WHERE task_id = :middle'
UNION ALL SELECT 'SELECT * FROM task(:middle)'
UNION ALL SELECT 'SELECT * FROM why_waiting(:middle)'
UNION ALL SELECT 'SELECT t.* FROM (SELECT task_id FROM submissions WHERE tenant_id = (SELECT tenant_id FROM tenant_usage WHERE tenant = ''plans'')
    AND task_id < :middle ORDER BY task_id DESC LIMIT 20) s JOIN tasks t USING (task_id) ORDER BY task_id DESC'
UNION ALL SELECT 'SELECT * FROM attempts ORDER BY task_id DESC, attempt DESC LIMIT 20'
UNION ALL SELECT 'SELECT * FROM attempts WHERE (task_id, attempt) < (:middle, 1) ORDER BY task_id DESC, attempt DESC LIMIT 20'
UNION ALL SELECT 'SELECT * FROM attempts ORDER BY ended_at DESC LIMIT 20'
UNION ALL SELECT 'SELECT * FROM attempts WHERE final_state = ''failed'' AND task_id < :middle ORDER BY task_id DESC LIMIT 20'
UNION ALL SELECT 'SELECT * FROM queue_depth_exact()'
UNION ALL SELECT 'SELECT * FROM check_invariants()'
UNION ALL SELECT 'SELECT status()'
-- Each view but those that are pages of the rows themselves.
UNION ALL SELECT format('SELECT * FROM %I', c.relname) FROM pg_class c
WHERE c.relnamespace = 'gpu_orch'::regnamespace AND c.relkind = 'v' AND c.relname NOT IN ('tasks', 'submissions', 'attempts');
SELECT count(*) > 40 AS statements FROM statement;
SELECT page, w.walks FROM statement, LATERAL (SELECT pg_temp.walks(replace(page, ':middle', :'middle')) AS walks) w
WHERE w.walks <> '' ORDER BY n;
-- It can tell.
SELECT pg_temp.walks('SELECT count(*) FROM attempts') AS walks;
ROLLBACK;
