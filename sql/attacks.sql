-- What an attacker may try who has a role of ours, or none, and what comes of it.
\set ECHO none
\i sql/include/refusals.sql
\set ECHO all
SET client_min_messages = warning;
CREATE ROLE attacks_app IN ROLE gpu_orch_submitter;
CREATE ROLE attacks_victim IN ROLE gpu_orch_submitter;
CREATE ROLE attacks_ops IN ROLE gpu_orch_operator;
CREATE ROLE attacks_pod IN ROLE gpu_orch_worker;
CREATE SCHEMA attacks AUTHORIZATION attacks_app;
GRANT USAGE ON SCHEMA attacks TO PUBLIC;
SELECT gpu_orch.create_tenant('attacks'), gpu_orch.grant_tenant('attacks', 'attacks_victim');
SET ROLE attacks_victim;
SELECT gpu_orch.submit_task('attacks', '"secret"', tenant => 'attacks', run_at => gpu_orch.clock() + '1 day') AS secret \gset
RESET ROLE;

-- Code of the attacker that runs in somebody else's session has the attacker's rights, and not that one's.
SET ROLE attacks_app;
CREATE TABLE attacks.target AS SELECT :secret::bigint AS id;
CREATE FUNCTION attacks.try(id bigint) RETURNS text LANGUAGE plpgsql SECURITY DEFINER IMMUTABLE AS $$
DECLARE
    said text := '';
    call text;
    n bigint;
BEGIN
    FOREACH call IN ARRAY ARRAY['gpu_orch.task(%s)', 'gpu_orch.explain_match(%s)', 'gpu_orch.why_waiting(%s)', 'gpu_orch.cancel_task(%s)',
            'gpu_orch.retry_task(%s)', $c$gpu_orch.submit_task('attacks', tenant => 'attacks')$c$, $c$gpu_orch.register_worker('attacks-%s')$c$,
            'gpu_orch.pause()', 'gpu_orch.tasks']
    LOOP
        BEGIN
            EXECUTE format('SELECT count(*) FROM ' || call, id) INTO n;
            said := said || n || ' ';
        EXCEPTION WHEN OTHERS THEN
            said := said || SQLSTATE || ' ';
        END;
    END LOOP;
    RETURN said;
END
$$;
CREATE VIEW attacks.bait AS SELECT attacks.try(id) FROM attacks.target;
GRANT SELECT ON attacks.bait TO PUBLIC;
-- The same without the attribute, for what the server runs as the owner of a table.
CREATE FUNCTION attacks.index_me(id bigint) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
    $$ DECLARE said text; BEGIN said := attacks.try(id); RAISE WARNING '%', said; RETURN said; END $$;
ALTER FUNCTION attacks.try SECURITY INVOKER;
SELECT attacks.try(id) FROM attacks.target;
CREATE INDEX baited ON attacks.target (attacks.index_me(id));
RESET ROLE;
-- By a superuser, by an operator, by whom it concerns.
VACUUM ANALYZE attacks.target;
REINDEX TABLE attacks.target;
ALTER FUNCTION attacks.try SECURITY DEFINER;
SELECT * FROM attacks.bait;
SET ROLE attacks_ops;
SELECT * FROM attacks.bait;
SET ROLE attacks_victim;
SELECT * FROM attacks.bait;
RESET ROLE;
SELECT state FROM gpu_orch.tasks WHERE task_id = :secret;

-- Who called is known again after a call within the call, and after one that failed.
CREATE FUNCTION attacks.meddle() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF pg_trigger_depth() = 1 THEN
        PERFORM gpu_orch.submit_task('attacks-within', run_at => '2100-01-01');
        BEGIN
            PERFORM gpu_orch.create_tenant('default');
        EXCEPTION WHEN OTHERS THEN
        END;
    END IF;
    RETURN NEW;
END
$$;
ALTER FUNCTION attacks.meddle OWNER TO attacks_ops;
CREATE TRIGGER meddle BEFORE INSERT ON gpu_orch.waiting FOR EACH ROW EXECUTE FUNCTION attacks.meddle();
SET ROLE attacks_app;
SELECT count(*) FROM gpu_orch.submit_tasks('[{"kind": "attacks", "idempotency_key": "attacks 1", "run_at": "2100-01-01"},
                                             {"kind": "attacks", "idempotency_key": "attacks 2", "run_at": "2100-01-01"}]');
SHOW search_path;
SELECT current_user;
RESET ROLE;
DROP TRIGGER meddle ON gpu_orch.waiting;
SELECT kind, submitted_by, count(*) FROM gpu_orch.tasks WHERE kind LIKE 'attacks%' AND tenant = 'default' GROUP BY 1, 2 ORDER BY 1, 2;

-- A number of 8 bytes can take 131 kB to print. What would be printed for whoever reads it is refused before.
CREATE TABLE attacks.json AS
SELECT ('[' || array_to_string(array_fill('1e131071'::text, ARRAY[8100]), ',') || ']')::jsonb AS huge,
       ('{"a": {"b": [' || array_to_string(array_fill('1e900'::text, ARRAY[1200]), ',') || ']}}')::jsonb AS many,
       ('[' || array_to_string(array_fill('1e900'::text, ARRAY[1100]), ',') || ']')::jsonb AS fine, '1e-16383'::jsonb AS long;
SELECT token FROM gpu_orch.register_worker('attacks', capabilities => '{"services": ["attacks-json"]}') \gset
SELECT gpu_orch.submit_task('attacks-json', '{"n": [1.5, -20, 1e18, 0.000001, 1e300]}') IS NOT NULL AS submitted;
SELECT task_id, lease, payload FROM gpu_orch.claim_tasks('attacks', :'token') \gset
CREATE TABLE attacks.worker AS SELECT 'attacks'::text AS id, :'token'::text AS token, :task_id::bigint AS task, :'lease'::uuid AS lease;
SET search_path = gpu_orch, pg_catalog;
CALL pg_temp.refusals(
    $$attacks.json, submit_task('attacks-json', huge)$$,
    $$attacks.json, submit_task('attacks-json', many)$$,
    $$attacks.json, submit_task('attacks-json', long)$$,
    $$attacks.json, submit_task('attacks-json', requirements => jsonb_build_object('hardware', jsonb_build_object('gpu_memory_gb', huge -> 0)))$$,
    $$attacks.json, submit_task('attacks-json', requirements => '{"hardware": {"gpu_memory_gb": 1.000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000}}')$$,
    $$attacks.json, submit_tasks(jsonb_build_array(jsonb_build_object('kind', 'attacks-json', 'payload', huge)))$$,
    $$attacks.json, submit_tasks(jsonb_build_array(jsonb_build_object('kind', 'attacks-json', 'priority', huge -> 0)))$$,
    $$attacks.json, attacks.worker w, complete_task(w.id, w.token, w.task, w.lease, huge)$$,
    $$attacks.json, attacks.worker w, complete_and_claim(w.id, w.token, w.task, w.lease, many)$$,
    $$attacks.json, attacks.worker w, complete_tasks(w.id, w.token, ARRAY[w.task], ARRAY[w.lease], ARRAY[huge])$$,
    $$attacks.json, attacks.worker w, heartbeat(w.id, w.token, jsonb_build_object('load', huge -> 0))$$,
    $$attacks.json, attacks.worker w, register_worker(w.id, w.token, jsonb_build_object('custom_capabilities', jsonb_build_object('n', long)))$$,
    $$attacks.json, satisfies('{}', jsonb_build_object('hardware', jsonb_build_object('gpu_memory_gb', huge -> 0)))$$,
    $$attacks.json, create_pool('attacks', 'i', '{L4}', 0, 1, jsonb_build_object('max_price_per_hour', huge -> 0))$$,
    $$attacks.json, create_pool('attacks', 'i', '{L4}', 0, 1, jsonb_build_object('policy_options', huge))$$);
SELECT complete_task(w.id, w.token, w.task, w.lease, fine) FROM attacks.json, attacks.worker w;
SELECT length(result::text) FROM tasks WHERE task_id = :task_id;
SELECT terminate_worker('attacks', true);
RESET search_path;

-- A pod's role changes neither its password nor its settings: others log in by it too.
ALTER ROLE attacks_pod LOGIN;
GRANT gpu_orch_worker TO attacks_ops;
SET ROLE attacks_pod;
ALTER ROLE attacks_pod PASSWORD 'mine';
ALTER ROLE attacks_pod SET default_transaction_isolation = 'serializable';
ALTER ROLE attacks_pod IN DATABASE contrib_regression SET statement_timeout = '1ms';
ALTER ROLE attacks_pod RESET ALL;
SET ROLE attacks_ops;
ALTER ROLE attacks_ops SET work_mem = '5MB';
RESET ROLE;
ALTER ROLE attacks_pod SET work_mem = '5MB';
ALTER ROLE attacks_pod RESET ALL;

-- What a database can do without. It says what it changes, and repeated it changes nothing.
BEGIN;
SELECT h AS hardened FROM gpu_orch.harden_database() h WHERE h !~ 'left to do' OR h ~ 'attacks_pod|DATABASE' ORDER BY 1;
SELECT count(*) AS again FROM gpu_orch.harden_database() h WHERE h LIKE 'revoked%';
SET ROLE attacks_pod;
CALL pg_temp.refusals($$pg_advisory_lock(1)$$, $$pg_try_advisory_xact_lock_shared(1, 2)$$, $$lo_creat(-1)$$, $$pg_terminate_backend(1)$$);
ROLLBACK;

SELECT count(gpu_orch.cancel_task(task_id)) FROM gpu_orch.tasks WHERE kind LIKE 'attacks%';
DROP SCHEMA attacks CASCADE;
SELECT gpu_orch.revoke_tenant('attacks', 'attacks_victim');
DROP ROLE attacks_app, attacks_victim, attacks_ops, attacks_pod;
