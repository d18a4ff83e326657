-- A task whose only worker is behind 200000 tasks that it cannot do is claimed as fast as the first.
SET search_path = gpu_orch, pg_catalog;
-- How many entries of the queue's indexes, and rows by sequential scans, this session has looked at; good for
-- differences within one transaction.
CREATE FUNCTION pg_temp.looked_at() RETURNS bigint LANGUAGE sql AS $$
    SELECT (pg_stat_get_xact_tuples_returned('gpu_orch.ready_queue'::regclass) + sum(pg_stat_get_xact_tuples_returned(indexrelid)))::bigint
    FROM pg_index WHERE indrelid = 'gpu_orch.ready_queue'::regclass
$$;
SELECT token FROM register_worker('deep', capabilities => '{"services": ["deep"]}') \gset
SELECT token AS other FROM register_worker('deep-other', capabilities => '{"services": ["deep-other"]}') \gset
SELECT count(submit_task('deep-other', priority => 100)) FROM generate_series(1, 10);
WITH first AS (SELECT q.*, t.kind, t.submitted_at, t.submitted_by, t.requirements, t.payload FROM gpu_orch.ready_queue q
               JOIN gpu_orch.task t ON t.id = q.task_id WHERE t.kind = 'deep-other' LIMIT 1),
 task AS (INSERT INTO gpu_orch.task (shape, tenant, priority, max_attempts, submitted_at, kind, submitted_by, requirements, payload)
          SELECT shape, 0, 100, 3, submitted_at, kind, submitted_by, requirements, payload FROM first, generate_series(1, 200000)
          RETURNING id, shape)
INSERT INTO gpu_orch.ready_queue SELECT shape, id, ~100, 1000000000000000, 0, 1, 0, 0 FROM task;
SELECT submit_task('deep', '{"n": "last"}') IS NOT NULL AS submitted;
SELECT count(*) FROM gpu_orch.ready_queue r JOIN gpu_orch.shape s ON s.id = r.shape WHERE s.kind LIKE 'deep%';

BEGIN;
SELECT pg_temp.looked_at() AS before \gset
SELECT payload FROM claim_tasks('deep', :'token', 10);
SELECT pg_temp.looked_at() - :before BETWEEN 1 AND 50 AS few;
COMMIT;
-- An empty answer is no dearer.
BEGIN;
SELECT pg_temp.looked_at() AS before \gset
SELECT count(*) FROM claim_tasks('deep', :'token');
SELECT pg_temp.looked_at() - :before <= 50 AS few;
COMMIT;
-- A batch looks at what it takes, and where it begins does not matter.
BEGIN;
SELECT pg_temp.looked_at() AS before \gset
SELECT count(*) FROM claim_tasks('deep-other', :'other', 100);
SELECT pg_temp.looked_at() - :before BETWEEN 100 AND 200 AS few;
COMMIT;
-- A thousand shapes that do not match cost one look each.
SELECT count(submit_task('deep-other', requirements => jsonb_build_object('n', n))) FROM generate_series(1, 1000) n;
SELECT submit_task('deep', '{"n": "among many shapes"}') IS NOT NULL AS submitted;
BEGIN;
SELECT pg_temp.looked_at() AS before \gset
SELECT payload FROM claim_tasks('deep', :'token');
SELECT pg_temp.looked_at() - :before BETWEEN 1 AND 1500 AS few;
COMMIT;

-- A shape that was rolled back with more tasks than one look goes over is not held against those that come later.
SELECT token AS late FROM register_worker('deep-late', capabilities => '{"services": ["deep-late", "deep-gone"]}') \gset
BEGIN;
SELECT submit_task('deep-late') IS NOT NULL AS submitted;
INSERT INTO gpu_orch.ready_queue SELECT q.shape, n, q.rank, q.tag, 0, 1, 0, 0
    FROM gpu_orch.ready_queue q JOIN gpu_orch.task t ON t.id = q.task_id, generate_series(10000000, 10060000) n WHERE t.kind = 'deep-late';
ROLLBACK;
SELECT count(*) FROM claim_tasks('deep-late', :'late');
SELECT submit_task('deep-late', '{"n": "after the rollback"}') IS NOT NULL AS submitted;
SELECT payload FROM claim_tasks('deep-late', :'late');
-- Nor is one that is missing for a while with its tasks, as during a restore, and it keeps no other task from being
-- claimed. A task tells what its shape demands.
SELECT submit_task('deep-gone', '{"n": "of a missing shape"}', priority => 50) IS NOT NULL AS submitted,
       submit_task('deep-late', '{"n": "of another one"}') IS NOT NULL AS submitted;
CREATE TEMPORARY TABLE gone AS SELECT * FROM gpu_orch.task WHERE kind = 'deep-gone';
DELETE FROM gpu_orch.shape WHERE kind = 'deep-gone';
DELETE FROM gpu_orch.task WHERE kind = 'deep-gone';
SELECT payload FROM claim_tasks('deep-late', :'late', 10);
INSERT INTO gpu_orch.task SELECT * FROM gone;
SELECT payload FROM claim_tasks('deep-late', :'late', 10);

SELECT terminate_worker('deep-late', true);
SELECT terminate_worker('deep', true), terminate_worker('deep-other', true);
TRUNCATE gpu_orch.ready_queue, gpu_orch.attempt, gpu_orch.task;

-- What a ring holds may be gone, and vacuum have cut off the page where it stood.
SELECT token FROM register_worker('deep', capabilities => '{"services": ["deep"]}') \gset
SELECT count(submit_task('deep')) FROM generate_series(1, 20);
SELECT count(*) FROM claim_tasks('deep', :'token', 1);
SELECT count(cancel_task(task_id)) FROM gpu_orch.ready_queue;
VACUUM gpu_orch.ready_queue;
SELECT count(*) FROM claim_tasks('deep', :'token', 10);
SELECT terminate_worker('deep', true);
TRUNCATE gpu_orch.ready_queue, gpu_orch.waiting, gpu_orch.lease, gpu_orch.attempt, gpu_orch.task;
