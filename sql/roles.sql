-- Roles: what each may do, and that it may do nothing else.
\set ECHO none
\i sql/include/refusals.sql

-- Who may call what: (s)ubmitter, (w)orker, (m)onitor, (o)perator, (a)dmin.
CREATE TEMP TABLE role AS SELECT * FROM (VALUES (1, 's', 'gpu_orch_submitter'), (2, 'w', 'gpu_orch_worker'),
    (3, 'm', 'gpu_orch_monitor'), (4, 'o', 'gpu_orch_operator'), (5, 'a', 'gpu_orch_admin')) AS r(n, letter, name);
SELECT p.proname AS function, string_agg(CASE WHEN has_function_privilege(r.name, p.oid, 'EXECUTE') THEN r.letter ELSE '-' END, '' ORDER BY r.n) AS who
FROM pg_proc p, role r WHERE p.pronamespace = 'gpu_orch'::regnamespace GROUP BY p.oid, p.proname ORDER BY 1;
SELECT c.relname AS relation, string_agg(CASE WHEN has_table_privilege(r.name, c.oid, 'SELECT') THEN r.letter ELSE '-' END, '' ORDER BY r.n) AS who
FROM pg_class c, role r WHERE c.relnamespace = 'gpu_orch'::regnamespace AND c.relkind = 'v' GROUP BY c.oid, c.relname ORDER BY 1;
-- Nobody writes to a relation directly, and nobody reads a base table.
SELECT c.relname, r.name FROM pg_class c, role r WHERE c.relnamespace = 'gpu_orch'::regnamespace AND c.relkind IN ('r', 'v')
  AND (has_table_privilege(r.name, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
       OR c.relkind = 'r' AND has_table_privilege(r.name, c.oid, 'SELECT')) ORDER BY r.n;

CREATE ROLE roles_nobody;
CREATE ROLE roles_app IN ROLE gpu_orch_submitter;
CREATE ROLE roles_worker IN ROLE gpu_orch_worker;
CREATE ROLE roles_watch IN ROLE gpu_orch_monitor;
CREATE ROLE roles_ops IN ROLE gpu_orch_operator;
CREATE ROLE roles_admin IN ROLE gpu_orch_admin;
SET search_path = gpu_orch, pg_catalog;

SET ROLE roles_nobody;
CALL pg_temp.refusals($$gpu_orch.submit_task('roles')$$, $$gpu_orch.tasks$$, $$gpu_orch.clock()$$, $$gpu_orch.satisfies('{}', '{}')$$);
RESET ROLE;

SET ROLE roles_app;
SELECT submit_task('roles') AS task \gset
SELECT state, submitted_by FROM task(:task);
SELECT cancel_task(:task), retry_task(:task);
SELECT count(*) FROM submit_tasks('[{"kind": "roles"}]');
SELECT count(*) >= 0 AS explained FROM explain_match(:task);
CALL pg_temp.refusals($$tasks$$, $$task$$, $$ready_queue$$, $$worker$$, $$status()$$, $$admit()$$, $$register_worker('roles')$$,
    $$claim_tasks('roles', 'x')$$, $$create_pool('roles', 'i', '{L4}')$$, $$create_tenant('roles')$$, $$pause()$$,
    $$run_cycle(true)$$, $$check_invariants()$$, $$advance_clock('1 s')$$, $$leader_status()$$, $$worker_rules()$$);
RESET ROLE;

-- A worker's role registers with a token only; making an external worker is an operator's affair.
SET ROLE roles_worker;
CALL pg_temp.refusals($$register_worker('roles')$$, $$submit_task('roles')$$, $$cancel_task(1)$$, $$task(1)$$, $$tasks$$,
    $$status()$$, $$drain_worker('roles')$$, $$terminate_worker('roles')$$, $$worker_profile$$, $$spawn_worker('roles')$$);
SET ROLE roles_ops;
SELECT token FROM register_worker('roles', capabilities => '{"services": "roles"}') \gset
SET ROLE roles_worker;
CALL pg_temp.refusals($$register_worker('roles')$$);
SELECT token FROM register_worker('roles', :'token', '{"services": "roles"}') \gset
SELECT directive FROM heartbeat('roles', :'token');
SELECT task_id, lease FROM claim_tasks('roles', :'token') \gset
SELECT complete_task('roles', :'token', :task_id, :'lease');
RESET ROLE;

SET ROLE roles_watch;
SELECT count(*) FROM tasks WHERE kind = 'roles';
SELECT state FROM workers WHERE worker_id = 'roles';
SELECT count(*) > 0 AS status FROM jsonb_object_keys(status());
SELECT name, detail FROM check_invariants() WHERE NOT holds;
CALL pg_temp.refusals($$task(1)$$, $$submit_task('roles')$$, $$heartbeat('roles', 'x')$$, $$run_cycle(true)$$, $$pause()$$, $$task$$,
    $$worker_profile$$, $$installation$$, $$grant_tenant('roles', 'roles_watch')$$);
-- Settings that hold paths or connection strings are not shown to it.
SELECT name, setting FROM config WHERE name IN ('gpu_orch.worker_dsn', 'gpu_orch.runpod_api_key_file', 'gpu_orch.max_losses') ORDER BY 1;
RESET ROLE;

SET ROLE roles_ops;
SELECT create_pool('roles', 'i', '{L4}'), create_tenant('roles'), pause(), resume();
SELECT admit() >= 0 AS admitted, jsonb_typeof(run_cycle(dry_run => true)) AS dry_run;
SELECT drain_worker('roles'), terminate_worker('roles', true), drop_pool('roles');
CALL pg_temp.refusals($$adopt_installation()$$, $$advance_clock('1 s')$$, $$may_use_tenant(0)$$, $$task$$);
SELECT actor FROM events WHERE subject = 'roles' AND kind = 'pool_created';
SET ROLE roles_admin;
SELECT adopt_installation();
SELECT advance_clock('0') IS NOT NULL AS clock;
CALL pg_temp.refusals($$task$$, $$installation$$);
RESET ROLE;

-- An application's wrapper: whoever may call it needs no rights here. Its owner is the one who submits.
CREATE ROLE roles_gate IN ROLE gpu_orch_submitter;
CREATE SCHEMA roles_gateway AUTHORIZATION roles_gate;
SET ROLE roles_gate;
CREATE FUNCTION roles_gateway.submit() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
    $$SELECT gpu_orch.submit_task('roles', tenant => 'roles')$$;
CREATE FUNCTION roles_gateway.state(task bigint) RETURNS text LANGUAGE sql SECURITY DEFINER AS
    $$SELECT state FROM gpu_orch.task($1)$$;
GRANT USAGE ON SCHEMA roles_gateway TO roles_nobody;
SET ROLE roles_nobody;
CALL pg_temp.refusals($$roles_gateway.submit()$$);
RESET ROLE;
SELECT grant_tenant('roles', 'roles_gate');
SET ROLE roles_nobody;
SELECT roles_gateway.submit() AS task \gset
SELECT roles_gateway.state(:task);
CALL pg_temp.refusals($$gpu_orch.submit_task('roles')$$);
RESET ROLE;
SELECT submitted_by FROM tasks WHERE kind = 'roles' AND tenant = 'roles';

SELECT count(cancel_task(task_id)) FROM tasks WHERE kind = 'roles' AND state = 'ready';
SELECT revoke_tenant('roles', 'roles_gate');
SET client_min_messages = warning;
DROP SCHEMA roles_gateway CASCADE;
DROP ROLE roles_gate, roles_nobody, roles_app, roles_worker, roles_watch, roles_ops, roles_admin;
