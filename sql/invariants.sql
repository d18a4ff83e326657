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
    named text := CASE WHEN EXISTS (SELECT 1 FROM gpu_orch.worker WHERE id = 'inv-pod') THEN 'inv-pod2' ELSE 'inv-pod' END;
    pool int := (SELECT id FROM gpu_orch.pool WHERE name = 'inv' AND dropped_at IS NULL);
BEGIN
    INSERT INTO gpu_orch.worker (id, origin, pool, state, state_since, created_at)
    VALUES (named, 'cloud', pool, state, gpu_orch.clock(), gpu_orch.clock()) RETURNING worker.no INTO no;
    INSERT INTO gpu_orch.worker_profile (worker, pod_id) VALUES (no, pod_id);
    INSERT INTO gpu_orch.event (at, kind, subject, worker, to_state, actor) VALUES (gpu_orch.clock(), 'made', named, no, state, current_user);
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

-- I1: two workers with one pod, a worker that another pod speaks for, and creates whose worker is not there or has another pod
BEGIN;
SELECT pg_temp.pod('active', 'p1', true) AS one, pg_temp.pod('draining', 'p2', true) AS two \gset
UPDATE gpu_orch.worker_profile SET pod_id = 'p1' WHERE worker = :two;
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.worker_profile SET pod_id = 'p2', bound_pod_id = 'p3' WHERE worker = :two;
SELECT * FROM pg_temp.broken;
ROLLBACK;
BEGIN;
SELECT pg_temp.pod('active', 'p1', true) AS one \gset
INSERT INTO gpu_orch.cloud_op (kind, state, nonce, worker, pod_name, pod_id, planned_at, requested_by)
VALUES ('create', 'done', 'n', :one, 'gpo', 'p1', clock(), 'me');
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.cloud_op SET pod_id = 'p2' WHERE nonce = 'n';
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.cloud_op SET worker = 0 WHERE nonce = 'n';
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.cloud_op SET state = 'unknown', price_micros = 1 WHERE nonce = 'n';
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
-- I4: an end without a reason, and a number that was left out
BEGIN;
SELECT fail_task('inv', :'token', :id, :'lease', 'no good', retry => false);
UPDATE gpu_orch.attempt SET failure = null WHERE task_id = :id;
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.attempt SET error = null WHERE task_id = :id;
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.attempt SET error = 'no good', attempt = 2 WHERE task_id = :id;
SELECT * FROM pg_temp.broken;
ROLLBACK;
BEGIN;
UPDATE gpu_orch.ready_queue SET attempt = 2 WHERE task_id = :ready;
SELECT * FROM pg_temp.broken;
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
SELECT * FROM pg_temp.broken WHERE name LIKE 'I5%';
INSERT INTO gpu_orch.spend (pod_id, price_micros, started_at) VALUES ('p2', 1, clock());
SELECT * FROM pg_temp.broken WHERE name LIKE 'I5%';
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
BEGIN;
UPDATE gpu_orch.offer SET price_micros = 500000;
SELECT count(*) FROM spawn_worker('inv');
UPDATE gpu_orch.cloud_op SET price_micros = null WHERE kind = 'create';
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
BEGIN;
UPDATE gpu_orch.offer SET price_micros = 500000;
SELECT spawn_worker('inv') IS NOT NULL AS made;
UPDATE gpu_orch.cloud_op SET requested_by = null WHERE kind = 'create';
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I8: a delete has the cause of a move of its worker, or an event tells of its pod
BEGIN;
SELECT pg_temp.pod('terminating', 'p1', true) AS one \gset
UPDATE gpu_orch.event SET kind = 'drained', from_state = 'draining' WHERE worker = :one;
INSERT INTO gpu_orch.cloud_op (kind, state, nonce, worker, pod_name, pod_id, planned_at, cause)
VALUES ('delete', 'planned', 'n', :one, 'gpo', 'p1', clock(), 'drained');
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.cloud_op SET cause = 'idle' WHERE nonce = 'n';
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.cloud_op SET cause = 'late_pod' WHERE nonce = 'n';
SELECT * FROM pg_temp.broken;
INSERT INTO gpu_orch.event (at, kind, subject, actor) VALUES (clock(), 'late_pod', 'gpo', current_user);
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.cloud_op SET cause = null WHERE nonce = 'n';
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I9: a worker that speaks, is idle and takes nothing
BEGIN;
SELECT complete_task('inv', :'token', :id, :'lease');
UPDATE gpu_orch.worker SET state_since = clock() - interval '3 minutes', busy_at = clock() - interval '3 minutes', last_heartbeat = clock()
WHERE id = 'inv';
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.task SET submitted_at = clock() - interval '3 minutes' WHERE id = :ready;
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.worker_profile SET capabilities = '{"services": "others"}' WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = 'inv');
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I10
BEGIN;
SELECT drain_worker('inv');
SELECT * FROM pg_temp.broken;
UPDATE gpu_orch.worker SET state = 'active' WHERE id = 'inv';
SELECT * FROM pg_temp.broken;
SELECT drain_worker('inv');
SELECT * FROM pg_temp.broken;
DELETE FROM gpu_orch.event WHERE subject = 'inv';
SELECT * FROM pg_temp.broken;
ROLLBACK;
-- I10: a pod of which it was proved that it is gone
BEGIN;
INSERT INTO gpu_orch.event (at, kind, subject, actor) VALUES (clock(), 'orphan_pod', 'gpo', current_user);
INSERT INTO gpu_orch.cloud_op (kind, state, nonce, pod_name, pod_id, planned_at, cause) VALUES ('delete', 'done', 'n', 'gpo', 'p1', clock(), 'orphan_pod');
SELECT * FROM pg_temp.broken;
INSERT INTO gpu_orch.event (at, kind, subject, actor) VALUES (clock(), 'pod_ended', 'gpo', current_user);
SELECT * FROM pg_temp.broken;
ROLLBACK;

-- Of what is over, the newest and others that change with each minute are looked at; or all.
SELECT low, high FROM check_window(1, 100000, 20000, false) ORDER BY high DESC LIMIT 1;
SELECT count(*) AS windows, bool_and(high - low = 19999) AS as_large FROM check_window(1, 100000, 20000, false);
SELECT * FROM check_window(1, 100000, 20000, true);
SELECT * FROM check_window(1, 100, 20000, false);
SELECT * FROM check_window(1, 30000, 20000, false) ORDER BY low;
BEGIN;
CREATE TEMP TABLE seen AS SELECT w.* FROM check_window(1, 100000, 20000, false) w;
SELECT advance_clock('1 minute') IS NOT NULL AS later;
INSERT INTO seen SELECT w.* FROM check_window(1, 100000, 20000, false) w;
SELECT count(DISTINCT low) > 1 AS moved FROM seen;
ROLLBACK;
BEGIN;
DELETE FROM gpu_orch.ready_queue WHERE task_id = :ready;
SELECT name, holds FROM check_invariants(full => true) WHERE NOT holds;
ROLLBACK;

SELECT terminate_worker('inv', true), drop_pool('inv'), cancel_task(:id), cancel_task(:ready);
SELECT name, detail FROM check_invariants() WHERE NOT holds;
