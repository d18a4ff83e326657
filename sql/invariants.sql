-- Invariants: all hold, and each is found out when it is broken.
SET search_path = gpu_orch, pg_catalog;
SELECT name, holds, detail FROM check_invariants();
SELECT token FROM register_worker('inv', capabilities => '{"services": "inv"}') \gset
SELECT submit_task('inv', max_attempts => 2) AS id \gset
SELECT lease FROM claim_tasks('inv', :'token') \gset
SELECT submit_task('inv') AS ready \gset
CREATE VIEW pg_temp.broken AS
SELECT name, regexp_replace(detail, '\m(task|op) \d+', '\1 N', 'g') AS detail FROM check_invariants() WHERE NOT holds;
-- A pod's worker as it should be.
SELECT create_pool('inv', 'image', '{L4}', options => '{"budget_per_hour": 1}');
CREATE FUNCTION pg_temp.pod(state text, pod_id text, bills boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    no bigint;
    pool int := (SELECT id FROM gpu_orch.pool WHERE name = 'inv' AND dropped_at IS NULL);
BEGIN
    INSERT INTO gpu_orch.worker (id, origin, pool, state, state_since, created_at)
    VALUES ('inv-pod', 'cloud', pool, state, gpu_orch.clock(), gpu_orch.clock()) RETURNING worker.no INTO no;
    INSERT INTO gpu_orch.worker_profile (worker, pod_id) VALUES (no, pod_id);
    IF bills THEN
        INSERT INTO gpu_orch.spend (worker, pool, price_micros, started_at) VALUES (no, pool, 700000, gpu_orch.clock());
    END IF;
    RETURN no;
END
$$;
BEGIN;
SELECT pg_temp.pod('active', 'p1', true) IS NOT NULL AS made;
SELECT * FROM pg_temp.broken;
ROLLBACK;

-- I2
BEGIN;
SELECT pg_temp.pod('spawning', null, false) IS NOT NULL AS broken;
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I3: nowhere, and in two places
BEGIN;
DELETE FROM gpu_orch.ready_queue WHERE task_id = :ready;
SELECT * FROM pg_temp.broken;
ROLLBACK;
BEGIN;
INSERT INTO gpu_orch.ready_queue SELECT shape, task_id, ~priority, tag, tenant, attempt, faults, losses FROM gpu_orch.lease WHERE task_id = :id;
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I3: a task that has succeeded and stands somewhere all the same
BEGIN;
INSERT INTO gpu_orch.attempt (task_id, attempt, ended_at, outcome, final_state) VALUES (:ready, 1, clock(), 'succeeded', 'succeeded');
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I3: a worker that is gone
BEGIN;
UPDATE gpu_orch.worker SET state = 'terminated' WHERE id = 'inv';
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I4
BEGIN;
UPDATE gpu_orch.lease SET faults = 2 WHERE task_id = :id;
SELECT * FROM pg_temp.broken;
ROLLBACK;
BEGIN;
SELECT complete_task('inv', :'token', :id, :'lease');
INSERT INTO gpu_orch.attempt (task_id, attempt, ended_at, outcome) VALUES (:id, 2, clock(), 'succeeded');
SELECT * FROM pg_temp.broken WHERE name NOT LIKE 'I3: a task%';
ROLLBACK;
-- I5: too little, too much
BEGIN;
SELECT pg_temp.pod('active', 'p1', false) IS NOT NULL AS broken;
SELECT * FROM pg_temp.broken;
ROLLBACK;
BEGIN;
SELECT pg_temp.pod('terminated', null, true) IS NOT NULL AS broken;
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I5: a pod that no worker has
BEGIN;
INSERT INTO gpu_orch.cloud_op (kind, state, nonce, pod_name, pod_id, planned_at) VALUES ('delete', 'planned', 'n', 'double', 'p2', clock());
SELECT * FROM pg_temp.broken;
INSERT INTO gpu_orch.spend (pod_id, price_micros, started_at) VALUES ('p2', 1, clock());
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I6
BEGIN;
UPDATE gpu_orch.offer SET price_micros = 500000;
SELECT count(*) FROM spawn_worker('inv', 2);
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.cloud_op SET price_micros = 500001 WHERE kind = 'create';
UPDATE gpu_orch.cloud_op SET price_micros = 500011 WHERE kind = 'create';
SELECT * FROM pg_temp.broken;
ROLLBACK;
BEGIN;
UPDATE gpu_orch.offer SET price_micros = 500000;
SELECT count(*) FROM spawn_worker('inv', 2);
SELECT set_budget(null, 'month', 0.7);
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.budget SET set_at = clock() - interval '1 minute';
UPDATE gpu_orch.pool SET max_workers = 1 WHERE name = 'inv';
SELECT * FROM pg_temp.broken;
SELECT alter_pool('inv', '{}');
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I7
BEGIN;
SELECT pg_temp.pod('terminated', 'p1', false) IS NOT NULL AS broken;
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I8: a create may be asked for by an operator; a decision that it names must be there
BEGIN;
UPDATE gpu_orch.offer SET price_micros = 500000;
SELECT spawn_worker('inv') IS NOT NULL AS made;
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.cloud_op SET decision = 0 WHERE kind = 'create';
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I10
BEGIN;
SELECT drain_worker('inv');
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.worker SET state = 'active' WHERE id = 'inv';
SELECT * FROM pg_temp.broken;
ROLLBACK;

SELECT terminate_worker('inv', true), drop_pool('inv'), cancel_task(:id), cancel_task(:ready);
SELECT name, detail FROM check_invariants() WHERE NOT holds;
