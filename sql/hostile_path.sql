-- What a caller puts into its search_path is not found by our statements, also not by those of the functions
-- that pin theirs in C; and the caller's own path is as it was.
CREATE SCHEMA hijack;
CREATE FUNCTION hijack.equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$;
CREATE FUNCTION hijack.equal(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$;
CREATE OPERATOR hijack.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hijack.equal);
CREATE OPERATOR hijack.= (LEFTARG = int, RIGHTARG = int, FUNCTION = hijack.equal);
SELECT gpu_orch.create_tenant('hijack', 10);
SELECT token FROM gpu_orch.register_worker('hijack', capabilities => '{"services": ["hijack"]}') \gset
SELECT gpu_orch.submit_task('hijack', '1', tenant => 'hijack') AS one, gpu_orch.submit_task('hijack', '2', tenant => 'hijack') AS two,
       gpu_orch.submit_task('hijack', '3', tenant => 'hijack') AS three \gset
SELECT gpu_orch.submit_task('hijack', '4', depends_on => ARRAY[:one, :two, :three]) IS NOT NULL AS submitted;
SELECT gpu_orch.admit() > 0 AS admitted;

SET search_path = hijack, pg_catalog;
SELECT 1::bigint = 1::bigint;
BEGIN;
SELECT task_id, lease, payload FROM gpu_orch.claim_tasks('hijack', :'token') \gset
SHOW search_path;
SELECT gpu_orch.complete_task('hijack', :'token', :task_id, :'lease') AS first;
SELECT gpu_orch.complete_task('hijack', :'token', :task_id, :'lease') AS repeated;
SHOW search_path;
SELECT task_id, lease FROM gpu_orch.claim_tasks('hijack', :'token') \gset
SELECT task_id, lease FROM gpu_orch.complete_and_claim('hijack', :'token', :task_id, :'lease') \gset
SELECT gpu_orch.complete_tasks('hijack', :'token', ARRAY[:task_id], ARRAY[:'lease'::uuid]) OPERATOR(pg_catalog.=) :task_id AS ended;
SHOW search_path;
SAVEPOINT failed;
\set VERBOSITY sqlstate
SELECT * FROM gpu_orch.complete_and_claim('hijack', :'token', :task_id, pg_catalog.gen_random_uuid());
\set VERBOSITY default
ROLLBACK TO failed;
SHOW search_path;
COMMIT;
RESET search_path;

SELECT gpu_orch.admit() > 0 AS admitted;
SELECT payload FROM gpu_orch.claim_tasks('hijack', :'token');
SELECT gpu_orch.terminate_worker('hijack', true);
SELECT count(gpu_orch.cancel_task(task_id)) FROM gpu_orch.tasks WHERE kind = 'hijack' AND state = 'ready';
SET client_min_messages = warning;
DROP SCHEMA hijack CASCADE;
