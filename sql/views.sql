-- Views: their columns, and what they show of tasks, workers and money.
SET search_path = gpu_orch, pg_catalog;
SELECT c.relname AS view, string_agg(a.attname, ', ' ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'gpu_orch'::regnamespace AND c.relkind = 'v' GROUP BY c.relname ORDER BY 1;
-- None of them shows a token, a digest or an environment variable.
SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'gpu_orch'::regnamespace AND c.relkind = 'v' AND a.attname ~ 'token|digest|nonce|^env$';

-- A small day: tasks in every state, a worker that runs two of them, one that is silent, and a pod that has ended.
SELECT token FROM register_worker('views-w1', capabilities => '{"services": "views"}') \gset
SELECT worker_id AS silent FROM register_worker('views-w2', capabilities => '{"services": "other"}') \gset
SELECT create_tenant('views-limited', 0);
SELECT count(*) FROM submit_tasks('[
    {"kind": "views", "payload": 1, "priority": 9}, {"kind": "views", "payload": 2, "priority": 8},
    {"kind": "views", "payload": 3, "priority": 7, "max_attempts": 1}, {"kind": "views", "payload": 4, "priority": 6},
    {"kind": "views", "payload": 5, "priority": 5, "timeout": "1 minute"},
    {"kind": "views", "payload": 6}, {"kind": "views", "payload": 7}, {"kind": "views", "payload": 8, "run_at": "2100-01-01 00:00+00"},
    {"kind": "views", "payload": 9, "tenant": "views-limited"}]');
SELECT submit_task('views', '10', depends_on => ARRAY(SELECT task_id FROM tasks WHERE kind = 'views' AND payload = '8')) IS NOT NULL AS submitted;
CREATE TEMP TABLE claimed AS SELECT * FROM claim_tasks('views-w1', :'token', 5);
SELECT advance_clock('10 seconds') IS NOT NULL AS later;
SELECT payload, CASE payload::int WHEN 1 THEN complete_task('views-w1', :'token', task_id, lease, '"done"')
    WHEN 2 THEN fail_task('views-w1', :'token', task_id, lease, 'try again')
    WHEN 3 THEN fail_task('views-w1', :'token', task_id, lease, 'hopeless')
    WHEN 5 THEN progress_task('views-w1', :'token', task_id, lease, 0.5, 'sampling') END AS done
FROM claimed ORDER BY priority DESC;
SELECT cancel_task(task_id) FROM tasks WHERE kind = 'views' AND payload IN ('4', '7') ORDER BY payload;

SELECT payload, state, priority, tenant, attempts, worker, stage, progress, cancel_requested AS cancel, result, error,
       started_at IS NOT NULL AS started, ended_at - started_at BETWEEN '10 s' AND '20 s' AS took, deadline - started_at AS allowed, cost
FROM tasks WHERE kind = 'views' ORDER BY payload::int;
SELECT t.payload, a.attempt, a.worker, a.ended_at - a.claimed_at BETWEEN '10 s' AND '20 s' AS took, a.outcome, a.failure, a.final_state, a.error
FROM attempts a JOIN tasks t USING (task_id) WHERE t.kind = 'views' ORDER BY payload::int;
SELECT kind, state, tenant, reason, tasks, clock() - oldest BETWEEN '10 s' AND '1 minute' AS oldest, as_of <= clock() AS as_of
FROM queue_depth_exact() WHERE kind = 'views' ORDER BY state, tenant;
SELECT tenant, max_running, running, ready, held FROM tenant_usage WHERE tenant = 'views-limited';
SELECT worker_id, origin, pool, state, running, epoch, capabilities, stats, busy_at - registered_at > '9 s' AS busy_later
FROM workers WHERE worker_id LIKE 'views-%' ORDER BY 1;
SELECT kind, attempt, outcome, final_state, worker, took BETWEEN '10 s' AND '20 s' AS took, error FROM recent_task_activity
WHERE kind = 'views' AND claimed_at IS NOT NULL ORDER BY task_id;

-- Health: fresh, half the heartbeat timeout silent, past the task's deadline.
SELECT directive FROM heartbeat('views-w1', :'token', '{"gpu_utilization": 0.5}');
SELECT advance_clock('6 seconds') IS NOT NULL AS later;
SELECT count_usage() > 0 AS counted, count_usage() AS again;
SELECT worker_id, attempts, succeeded, success_percent, mean_time BETWEEN '10 s' AND '20 s' AS mean_time
FROM worker_performance WHERE worker_id LIKE 'views-%';
SELECT worker_id, state, heartbeat_age >= '6 s' AS age, stage, progress, running_for > '10 s' AS running, health, stats
FROM active_workers_health WHERE worker_id LIKE 'views-%' ORDER BY 1;
SELECT fail_task('views-w1', :'token', task_id, lease, 'cancelled') FROM claimed WHERE payload = '4';
SELECT advance_clock('1 minute') IS NOT NULL AS later;
SELECT directive FROM heartbeat('views-w1', :'token');
SELECT worker_id, health FROM active_workers_health WHERE worker_id LIKE 'views-%' ORDER BY 1;

-- Everything at a glance agrees with the parts.
SELECT s.waiting = (SELECT count(*) FROM tasks WHERE state IN ('scheduled', 'blocked', 'held')) AS waiting,
       s.ready = (SELECT count(*) FROM tasks WHERE state = 'ready') AND s.queued = s.ready AS ready,
       s.running = (SELECT count(*) FROM tasks WHERE state = 'running') AS running,
       s.active = (SELECT count(*) FROM workers WHERE state = 'active') AS active,
       s.external = (SELECT count(*) FROM workers WHERE state <> 'terminated' AND origin = 'external') AS external,
       s.leader_runs, s.provider_ok FROM orchestrator_status s;
SELECT k FROM jsonb_object_keys(status()) k ORDER BY 1;
SELECT status() -> 'leader' ->> 'runs' AS leader_runs, (status() -> 'tasks' ->> 'running')::int AS running;
SELECT preloaded, pid FROM leader_status();

-- Money: what a pod costs while it bills, and what its tasks cost.
SELECT create_pool('views-pool', 'image', '{L4}');
INSERT INTO gpu_orch.worker (id, origin, pool, state, state_since, created_at)
SELECT n, 'cloud', (SELECT id FROM gpu_orch.pool WHERE name = 'views-pool' AND dropped_at IS NULL), 'terminated', clock(), clock()
FROM unnest(ARRAY['views-pod1', 'views-pod2']) n;
INSERT INTO gpu_orch.worker_profile (worker, pod_id, price_micros, ended_because)
SELECT no, 'p-' || id, 720000, 'pod_gone' FROM gpu_orch.worker WHERE id LIKE 'views-pod_';
INSERT INTO gpu_orch.spend (worker, pool, pod_id, price_micros, started_at, ended_at)
SELECT no, pool, 'p-' || id, 720000, '2026-01-01 10:00+00', '2026-01-01 11:30+00' FROM gpu_orch.worker WHERE id LIKE 'views-pod_';
SELECT worker_id, pool, pod_id, price_per_hour, seconds, cost FROM cost_estimate WHERE pool = 'views-pool' ORDER BY 1;
-- An interval without a pod is a create that was never answered with one; a pod whose price changes has two.
INSERT INTO gpu_orch.spend (worker, pool, price_micros, started_at, ended_at)
SELECT no, pool, 720000, '2026-01-01 10:00+00', '2026-01-01 10:00+00' FROM gpu_orch.worker WHERE id = 'views-pod1';
SELECT pool, pods, seconds, cost, price_per_hour FROM spend_by_pool WHERE pool = 'views-pool';
UPDATE gpu_orch.attempt SET worker = (SELECT no FROM gpu_orch.worker WHERE id = 'views-pod1'),
       claimed_at = '2026-01-01 12:00+00', ended_at = '2026-01-01 12:00:50+00'
WHERE task_id = (SELECT task_id FROM tasks WHERE kind = 'views' AND payload = '1');
-- By the price that held then, and pods that had nothing to do in a row of their own.
INSERT INTO gpu_orch.spend (worker, pool, pod_id, price_micros, started_at, ended_at)
SELECT w.no, w.pool, 'p-views-pod1', x.price, a.claimed_at + x.starts, a.claimed_at + x.ends
FROM gpu_orch.worker w JOIN gpu_orch.attempt a ON a.worker = w.no,
     (VALUES (360000, interval '-10 seconds', interval '25 seconds'), (720000, '25 seconds', '60 seconds')) x(price, starts, ends)
WHERE w.id = 'views-pod1';
SELECT payload, worker, cost FROM tasks WHERE kind = 'views' AND payload = '1';
DELETE FROM gpu_orch.usage_day;
DELETE FROM gpu_orch.share_day;
DELETE FROM gpu_orch.counted;
SELECT count_usage() > 0 AS counted;
SELECT day, pool, tenant, image, pods, tasks, seconds, round(cost, 4) AS cost FROM spend_by_day ORDER BY 1, 2, 3;
SELECT tenant, seconds, round(cost, 4) AS cost FROM spend_by_tenant ORDER BY 1;
SELECT round(sum(t.cost), 4) = (SELECT round(sum(c.cost), 4) FROM cost_estimate c) AS all_spent FROM spend_by_tenant t;
SELECT dollars(340000, '2026-01-01 10:00+00', '2026-01-01 11:30+00'), dollars(null, clock(), clock());

-- The settings, with their defaults. Where the workers connect to is not shown.
SELECT name, unit, default_setting, description IS NOT NULL AS described FROM config WHERE name NOT IN ('gpu_orch.database') ORDER BY 1;

SELECT drop_pool('views-pool');
DELETE FROM gpu_orch.spend WHERE worker IN (SELECT no FROM gpu_orch.worker WHERE id LIKE 'views-pod_');
SELECT terminate_worker('views-w1', true), terminate_worker('views-w2');
SELECT count(cancel_task(task_id)) FROM tasks WHERE kind = 'views' AND state IN ('ready', 'held', 'blocked', 'scheduled');
DELETE FROM gpu_orch.worker WHERE id LIKE 'views-pod_';
