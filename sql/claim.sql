-- Claiming: who gets what, in which order, and who gets nothing.
\set ECHO none
\i sql/include/refusals.sql
SET search_path = gpu_orch, pg_catalog;

-- The worker and the task of the documentation.
SELECT token AS w1 FROM register_worker('claim-w1', capabilities =>
    '{"services": ["comfyui", "a1111"], "hardware": {"gpu_memory_gb": 24, "gpu_model": "RTX 4090"},
      "models": {"comfyui": ["sdxl", "sd15"], "a1111": ["anything-v3"]},
      "custom_capabilities": {"supports_controlnet": true, "max_batch_size": 4}}') \gset
SELECT submit_task('comfyui', '{"n": "the example"}', '{"hardware": {"gpu_memory_gb": 16}, "models": ["sdxl"],
    "custom_capabilities": {"supports_controlnet": true}}', traceparent => '00-aa-bb-01', timeout => '10 minutes') AS example \gset
-- These it cannot do.
SELECT submit_task('comfyui', '{"n": "too large"}', '{"hardware": {"gpu_memory_gb": 48}}', 100) AS large,
       submit_task('comfyui', '{"n": "other model"}', '{"models": ["flux"]}', 100),
       submit_task('comfyui', '{"n": "other GPU"}', '{"hardware": {"gpu_model": "H100"}}', 100),
       submit_task('comfyui', '{"n": "unknown capability"}', '{"custom_capabilities": {"lora": true}}', 100),
       submit_task('wan2gp', '{"n": "other kind"}', priority => 100) \gset
SELECT worker_id, pool, matches, reasons FROM explain_match(:example) WHERE worker_id = 'claim-w1';
SELECT worker_id, pool, matches, reasons FROM explain_match(:large) WHERE worker_id = 'claim-w1';
SELECT task_id AS claimed_id, lease FROM claim_tasks('claim-w1', :'w1') \gset
\x on
SELECT :claimed_id = task_id AS the_example, state, kind, payload, attempts, worker, started_at = deadline - timeout AS deadline
FROM task(:example);
SELECT l.id = :'lease' AS lease, l.attempt, w.state, w.running FROM gpu_orch.lease l, workers w
WHERE l.task_id = :example AND w.worker_id = 'claim-w1';
\x off
-- The rest is not for it: an empty answer.
SELECT * FROM claim_tasks('claim-w1', :'w1', 10);
SELECT complete_task('claim-w1', :'w1', :claimed_id, :'lease');

-- All columns of a claimed task.
SELECT submit_task('a1111', '{"n": "columns"}', '{"hardware": {"gpu_memory_gb": 24}}', 5, traceparent => '00-aa-bb-01',
                   timeout => '1 hour') AS id \gset
BEGIN;
SELECT task_id = :id AS id, lease IS NOT NULL AS lease, attempt, kind, payload, requirements, priority, tenant,
       deadline - clock() BETWEEN '59 minutes' AND '1 hour' AS deadline, traceparent FROM claim_tasks('claim-w1', :'w1');
ROLLBACK;
-- A claim that was rolled back leaves the task where it stood.
SELECT state, attempts FROM task(:id);
SELECT cancel_task(:id);

-- A worker that names no services serves every kind; one with an empty list none.
SELECT token AS any FROM register_worker('claim-any', capabilities => '{"models": ["claim"]}') \gset
SELECT token AS none FROM register_worker('claim-none', capabilities => '{"services": [], "models": ["claim"]}') \gset
SELECT submit_task('claim-odd', '{"n": 1}', '{"models": ["claim"]}') IS NOT NULL AS submitted;
SELECT payload FROM claim_tasks('claim-none', :'none', 1000);
SELECT payload FROM claim_tasks('claim-any', :'any', 1000) WHERE kind = 'claim-odd';
SELECT count(*) FROM (SELECT terminate_worker(w, true) FROM unnest(ARRAY['claim-any', 'claim-none']) w) x;
SELECT count(cancel_task(task_id)) FROM tasks
WHERE kind IN ('comfyui', 'wan2gp', 'claim-odd') AND state IN ('ready', 'scheduled');

-- Higher priority first, then first in, first out, whatever the shape.
SELECT token AS w2 FROM register_worker('claim-w2', capabilities => '{"services": ["claim-a", "claim-b"], "vram": 24}') \gset
SELECT count(*) FROM submit_tasks('[
    {"kind": "claim-a", "payload": {"n": 1}},
    {"kind": "claim-b", "payload": {"n": 2}},
    {"kind": "claim-a", "payload": {"n": 3}, "priority": 10},
    {"kind": "claim-a", "payload": {"n": 4}, "priority": -1},
    {"kind": "claim-b", "payload": {"n": 5}, "requirements": {"vram": 16}},
    {"kind": "claim-a", "payload": {"n": 6}},
    {"kind": "claim-a", "payload": {"n": 7}, "requirements": {"vram": 32}, "priority": 50},
    {"kind": "claim-b", "payload": {"n": 8}, "priority": 10}]');
SELECT payload, priority, attempt FROM claim_tasks('claim-w2', :'w2');
SELECT payload, priority, attempt FROM claim_tasks('claim-w2', :'w2', max_tasks => 4);
SELECT payload, priority, attempt FROM claim_tasks('claim-w2', :'w2', 1000);
SELECT payload FROM claim_tasks('claim-w2', :'w2');
SELECT running FROM workers WHERE worker_id = 'claim-w2';
-- Given back, they stand where they stood.
SELECT count(release_task('claim-w2', :'w2', task_id, id)) FROM gpu_orch.lease
WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = 'claim-w2');
SELECT payload, attempt FROM claim_tasks('claim-w2', :'w2', 3);

-- Two workers share the rest, and none gets what the other has.
SELECT token AS w3 FROM register_worker('claim-w3', capabilities => '{"services": ["claim-a", "claim-b"], "vram": 48}') \gset
SELECT payload, attempt FROM claim_tasks('claim-w3', :'w3', 2);
SELECT payload, attempt FROM claim_tasks('claim-w2', :'w2', 10);
SELECT payload, attempt FROM claim_tasks('claim-w3', :'w3', 10);

-- max_tasks: 0 is nothing, null is one.
SELECT count(submit_task('claim-a')) FROM generate_series(1, 2);
SELECT count(*) FROM claim_tasks('claim-w2', :'w2', 0);
SELECT count(*) FROM claim_tasks('claim-w2', :'w2', null);
CALL pg_temp.refusals(
    $$claim_tasks('claim-w2', 't', -1)$$,
    $$claim_tasks('claim-w2', 't', 1001)$$,
    $$claim_tasks(null, 't')$$,
    $$claim_tasks('', 't')$$,
    $$claim_tasks('claim-w2', null)$$,
    $$claim_tasks('claim-w2', '')$$,
    -- a token that never was, a worker that never was, and the token of another worker
    $$claim_tasks('claim-w2', 'wrong')$$,
    $$claim_tasks('claim-nobody', 'wrong')$$);
\set VERBOSITY sqlstate
SELECT * FROM claim_tasks('claim-w2', :'w3');
SELECT * FROM heartbeat('claim-w2', :'w3');
SELECT complete_task('claim-w2', :'w3', 1, gen_random_uuid());
SELECT fail_task('claim-w2', :'w3', 1, gen_random_uuid(), 'x');
SELECT release_task('claim-w2', :'w3', 1, gen_random_uuid());
SELECT progress_task('claim-w2', :'w3', 1, gen_random_uuid());
SELECT * FROM complete_and_claim('claim-w2', :'w3', 1, gen_random_uuid());

-- A snapshot that is older than the queue is no good.
\set VERBOSITY default
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM claim_tasks('claim-w2', :'w2');
ROLLBACK;
\set VERBOSITY sqlstate
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM complete_and_claim('claim-w2', :'w2', 1, gen_random_uuid());
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM heartbeat('claim-w2', :'w2');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT register_worker('claim-w2');
ROLLBACK;
\set VERBOSITY default

-- A worker that drains gets nothing new; it may finish.
SELECT drain_worker('claim-w2');
SELECT count(*) FROM claim_tasks('claim-w2', :'w2');
SELECT directive, cancelled, messages FROM heartbeat('claim-w2', :'w2');
SELECT count(*) FROM claim_tasks('claim-w3', :'w3') WHERE kind = 'claim-a';
-- Capabilities are those of the last registration.
SELECT submit_task('claim-new', requirements => '{"vram": 16}') IS NOT NULL AS submitted;
SELECT count(*) FROM claim_tasks('claim-w3', :'w3');
SELECT token AS w3 FROM register_worker('claim-w3', :'w3', '{"services": "claim-new", "vram": 8}') \gset
SELECT count(*) FROM claim_tasks('claim-w3', :'w3');
SELECT token AS w3 FROM register_worker('claim-w3', :'w3', '{"services": "claim-new", "vram": 16}') \gset
SELECT kind, attempt FROM claim_tasks('claim-w3', :'w3');

-- Leave nothing behind.
SELECT count(*) FROM (SELECT terminate_worker(worker_id, true) FROM workers
                      WHERE worker_id LIKE 'claim-%' AND state <> 'terminated') x;
SELECT count(cancel_task(task_id)) FROM tasks WHERE kind LIKE 'claim-%' AND state = 'ready';
SELECT state, count(*) FROM tasks WHERE state NOT IN ('succeeded', 'failed', 'cancelled') GROUP BY state;
SELECT name, detail FROM check_invariants() WHERE NOT holds;
