-- A database with a long history, written straight into the base tables: :ended tasks that have ended in the last 30
-- days, :waiting that wait, 1000 workers in 10 pools whose pods cost something, 100 tenants. For a new cluster without a
-- leader; see bench/history.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET synchronous_commit = off;
INSERT INTO gpu_orch.tenant (name, created_at) SELECT 'tenant' || n, gpu_orch.clock() FROM generate_series(1, 100) n;
INSERT INTO gpu_orch.pool (name, image, gpu_types, min_workers, max_workers, created_at)
SELECT 'pool' || n, 'image:' || n, '{L4}', 0, 0, gpu_orch.clock() FROM generate_series(1, 10) n;
INSERT INTO gpu_orch.shape (id, form, kind, requirements, created_at)
SELECT n, 'kind' || n, 'kind' || n, '{}', gpu_orch.clock() FROM generate_series(1, 10) n;
INSERT INTO gpu_orch.worker (id, origin, pool, state, state_since, created_at)
SELECT 'worker' || n, 'cloud', 1 + n % 10, 'terminated', gpu_orch.clock(), gpu_orch.clock() - interval '30 days' FROM generate_series(1, 1000) n;
INSERT INTO gpu_orch.worker_profile (worker, pod_id, image, learned, ended_because)
SELECT no, 'pod' || no, 'image:' || (1 + no % 10), 3, 'pod_gone' FROM gpu_orch.worker;
INSERT INTO gpu_orch.event (at, kind, subject, worker, to_state, actor)
SELECT gpu_orch.clock(), 'made', id, no, 'terminated', current_user FROM gpu_orch.worker;
INSERT INTO gpu_orch.cloud_op (kind, state, nonce, worker, pod_name, pod_id, planned_at, cause)
SELECT 'delete', 'refused', 'd' || no, no, 'pod' || no, 'pod' || no, gpu_orch.clock(), 'made' FROM gpu_orch.worker;
INSERT INTO gpu_orch.spend (worker, pool, pod_id, price_micros, price_from, started_at, ended_at)
SELECT no, pool, 'pod' || no, 500000, 'provider', gpu_orch.clock() - interval '30 days', gpu_orch.clock() FROM gpu_orch.worker;
INSERT INTO gpu_orch.task (id, shape, tenant, priority, max_attempts, submitted_at, kind, submitted_by, requirements, payload)
SELECT n, 1 + n % 10, n % 101, 0, 3,
       gpu_orch.clock() - interval '30 days' + n * interval '30 days' / (:ended + :waiting), 'kind' || (1 + n % 10), 'bench', '{}',
       jsonb_build_object('prompt', 'a cat', 'seed', n)
FROM generate_series(1, :ended + :waiting) n;
-- One in 500 failed, one in 1000 was tried twice.
INSERT INTO gpu_orch.attempt (task_id, attempt, worker, lease, claimed_at, ended_at, outcome, failure, final_state, error, result)
SELECT t.id, 1, 1 + t.id % 1000, gen_random_uuid(), t.submitted_at, t.submitted_at + interval '200 s', 'failed', 'task',
       CASE WHEN t.id % 1000 <> 0 THEN 'failed' END, 'no good', NULL
FROM gpu_orch.task t WHERE t.id <= :ended AND t.id % 500 = 0;
INSERT INTO gpu_orch.attempt (task_id, attempt, worker, lease, claimed_at, ended_at, outcome, final_state, result)
SELECT t.id, CASE WHEN t.id % 1000 = 0 THEN 2 ELSE 1 END, 1 + t.id % 1000, gen_random_uuid(), t.submitted_at, t.submitted_at + interval '200 s',
       'succeeded', 'succeeded', '{"ok": true}'
FROM gpu_orch.task t WHERE t.id <= :ended AND (t.id % 500 <> 0 OR t.id % 1000 = 0);
INSERT INTO gpu_orch.ready_queue (shape, task_id, rank, tag, tenant, attempt, faults, losses)
SELECT t.shape, t.id, -1, t.id, t.tenant, 1, 0, 0 FROM gpu_orch.task t WHERE t.id > :ended AND t.id % 10 <> 0;
INSERT INTO gpu_orch.waiting (task_id, state, due_at, shape, tenant, priority, attempt, faults, losses, tag, since)
SELECT t.id, 'scheduled', gpu_orch.clock() + interval '1 year', t.shape, t.tenant, 0, 1, 0, 0, 0, t.submitted_at
FROM gpu_orch.task t WHERE t.id > :ended AND t.id % 10 = 0;
SELECT setval('gpu_orch.task_id_seq', :ended + :waiting);
VACUUM ANALYZE;
