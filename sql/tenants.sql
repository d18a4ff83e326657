-- Tenants: how much of their work runs at once, who may submit for them, and who may see it.
\set ECHO none
\i sql/include/refusals.sql
SET search_path = gpu_orch, pg_catalog;
SELECT token FROM register_worker('tenants', capabilities => '{"services": ["ten-a", "ten-b"]}') \gset
CREATE VIEW pg_temp.usage AS SELECT tenant, max_running, running, ready, held FROM tenant_usage WHERE tenant LIKE 'ten-%' ORDER BY tenant;

-- A limited tenant's tasks are held until there is room; an unlimited one's are ready at once.
SELECT create_tenant('ten-two', 2), create_tenant('ten-free');
SELECT count(submit_task('ten-a', jsonb_build_object('n', 'two ' || n), tenant => 'ten-two')) FROM generate_series(1, 4) n;
SELECT submit_task('ten-b', '{"n": "two b"}', tenant => 'ten-two') IS NOT NULL AS submitted;
SELECT submit_task('ten-a', '{"n": "free"}', tenant => 'ten-free') IS NOT NULL AS submitted;
SELECT * FROM pg_temp.usage;
SELECT kind, state, tenant, reason, tasks FROM queue_depth_exact() WHERE tenant LIKE 'ten-%' ORDER BY 1, 2, 3;
-- For each shape as many become ready as the tenant has room; the limit itself is exact at the claim.
SELECT admit() > 0 AS moved;
SELECT admit();
SELECT kind, state, tenant, reason, tasks FROM queue_depth_exact() WHERE tenant LIKE 'ten-%' ORDER BY 1, 2, 3;
SELECT tenant, payload FROM claim_tasks('tenants', :'token', 10);
SELECT * FROM pg_temp.usage;
SELECT admit();
-- Room for one more, and no more than one.
CREATE VIEW pg_temp.held AS
SELECT t.tenant, t.payload ->> 'n' AS task, l.task_id, l.id AS lease FROM gpu_orch.lease l JOIN tasks t USING (task_id);
SELECT complete_task('tenants', :'token', task_id, lease) FROM pg_temp.held WHERE task = 'two 1';
SELECT admit() > 0 AS moved;
SELECT kind, state, tenant, tasks FROM queue_depth_exact() WHERE tenant = 'ten-two' ORDER BY 1, 2, 3;
SELECT tenant, payload FROM claim_tasks('tenants', :'token', 10);
SELECT * FROM pg_temp.usage;

-- A tenant at its limit does not stand in the way of others behind it.
SELECT alter_tenant('ten-two', 4);
SELECT submit_task('ten-b', '{"n": "two first"}', priority => 10, tenant => 'ten-two') IS NOT NULL AS submitted;
SELECT admit() > 0 AS moved;
SELECT * FROM pg_temp.usage;
SELECT alter_tenant('ten-two', 2);
SELECT submit_task('ten-b', '{"n": "free behind"}', tenant => 'ten-free') IS NOT NULL AS submitted;
SELECT tenant, payload FROM claim_tasks('tenants', :'token', 10);
SELECT * FROM pg_temp.usage;
-- Limits change: none, nothing, some.
SELECT alter_tenant('ten-two', null);
SELECT admit() > 0 AS moved;
SELECT tenant, max_running, running, ready, held FROM pg_temp.usage;
SELECT alter_tenant('ten-two', 0);
SELECT tenant, payload FROM claim_tasks('tenants', :'token', 10);
SELECT * FROM pg_temp.usage;
SELECT admit();
SELECT alter_tenant('ten-two', 20);
SELECT admit() > 0 AS moved;
SELECT tenant, payload FROM claim_tasks('tenants', :'token', 10);
-- A task that failed, or was given back, waits for room as well.
SELECT alter_tenant('ten-two', 0);
SELECT release_task('tenants', :'token', task_id, lease) FROM pg_temp.held WHERE task = 'two b';
SELECT fail_task('tenants', :'token', task_id, lease, 'x') FROM pg_temp.held WHERE task = 'two 2';
SELECT advance_clock('1 minute') IS NOT NULL AS later;
SELECT admit() > 0 AS moved;
SELECT payload ->> 'n' AS task, state FROM tasks WHERE payload ->> 'n' IN ('two b', 'two 2') ORDER BY 1;
SELECT alter_tenant('ten-two', 20);
SELECT admit() > 0 AS moved;
SELECT payload, attempt FROM claim_tasks('tenants', :'token', 10) ORDER BY 1;
SELECT complete_task('tenants', :'token', task_id, lease) FROM pg_temp.held;
-- Higher priority first among the held, too.
SELECT alter_tenant('ten-two', 1);
SELECT submit_task('ten-a', '{"n": "low"}', tenant => 'ten-two'),
       submit_task('ten-a', '{"n": "high"}', priority => 5, tenant => 'ten-two') \gset
SELECT admit() > 0 AS moved;
SELECT payload FROM claim_tasks('tenants', :'token', 10);
SELECT payload FROM complete_and_claim('tenants', :'token', (SELECT task_id FROM pg_temp.held), (SELECT lease FROM pg_temp.held));
SELECT admit() > 0 AS moved;
SELECT payload FROM claim_tasks('tenants', :'token', 10);
SELECT complete_task('tenants', :'token', task_id, lease) FROM pg_temp.held;

-- Refused.
CALL pg_temp.refusals(
    $$create_tenant('')$$,
    $$create_tenant(null)$$,
    $$create_tenant(repeat('x', 201))$$,
    $$create_tenant('ten-two')$$,
    $$create_tenant('default')$$,
    $$create_tenant('ten-new', -1)$$,
    $$alter_tenant('ten-nobody', 1)$$,
    $$alter_tenant('default', 1)$$,
    $$alter_tenant('ten-two', -1)$$,
    $$grant_tenant('ten-nobody', 'gpu_orch_submitter')$$,
    $$grant_tenant('default', 'gpu_orch_submitter')$$,
    $$grant_tenant('ten-two', 'ten_nobody')$$,
    $$grant_tenant('ten-two', null)$$,
    $$revoke_tenant('ten-nobody', 'gpu_orch_submitter')$$);

-- Who may: roles that were granted the tenant and their members; everybody for the default one.
CREATE ROLE ten_app IN ROLE gpu_orch_submitter;
CREATE ROLE ten_member IN ROLE ten_app;
CREATE ROLE ten_other IN ROLE gpu_orch_submitter;
CREATE ROLE ten_operator IN ROLE gpu_orch_operator;
SELECT grant_tenant('ten-two', 'ten_app'), grant_tenant('ten-two', 'ten_app');
SELECT submit_task('ten-a', '{"n": "secret"}', tenant => 'ten-two', idempotency_key => 'ten') AS secret \gset
-- For whoever may not, the task is not there, and the tenant might not be.
SET ROLE ten_other;
SELECT submit_task('ten-a', '{"n": "own"}') IS NOT NULL AS submitted;
SELECT count(*) FROM task(:secret);
SELECT count(*) FROM explain_match(:secret);
CREATE TEMP TABLE secret AS SELECT :secret AS id;
CALL pg_temp.refusals(
    $$submit_task('ten-a', tenant => 'ten-two')$$,
    $$submit_task('ten-a', tenant => 'ten-nobody')$$,
    $$submit_task('ten-a', tenant => 'ten-two', idempotency_key => 'ten')$$,
    $$submit_tasks('[{"kind": "ten-a"}, {"kind": "ten-a", "tenant": "ten-two"}]')$$,
    $$submit_task('ten-a', depends_on => ARRAY(SELECT id::bigint FROM secret))$$,
    $$submit_tasks((SELECT jsonb_build_array(jsonb_build_object('kind', 'ten-a', 'depends_on', jsonb_build_array(id))) FROM secret))$$,
    $$secret, cancel_task(id)$$,
    $$secret, retry_task(id)$$,
    $$cancel_task(0)$$);
-- For whoever may, it is.
RESET ROLE;
SET ROLE ten_member;
SELECT submit_task('ten-a', '{"n": "member"}', tenant => 'ten-two', depends_on => ARRAY[:secret]) IS NOT NULL AS submitted;
SELECT state, tenant FROM task(:secret);
SELECT matches FROM explain_match(:secret) WHERE worker_id = 'tenants';
SELECT cancel_task(:secret), retry_task(:secret);
RESET ROLE;
SET ROLE ten_operator;
SELECT state, tenant FROM task(:secret);
SELECT submit_task('ten-a', '{"n": "operator"}', tenant => 'ten-two') IS NOT NULL AS submitted;
RESET ROLE;
SELECT payload ->> 'n' AS task, submitted_by FROM tasks WHERE payload ->> 'n' IN ('own', 'member', 'operator') ORDER BY 1;
SELECT revoke_tenant('ten-two', 'ten_app'), revoke_tenant('ten-two', 'ten_app');
SET ROLE ten_member;
SELECT count(*) FROM task(:secret);
CALL pg_temp.refusals($$submit_task('ten-a', tenant => 'ten-two')$$);
RESET ROLE;
-- A grant is to the role and not to its name: it survives a rename, and who has the name later does not get it.
SELECT grant_tenant('ten-two', 'ten_app');
ALTER ROLE ten_app RENAME TO ten_renamed;
CREATE ROLE ten_app IN ROLE gpu_orch_submitter;
SET ROLE ten_member;
SELECT count(*) FROM task(:secret);
SET ROLE ten_app;
SELECT count(*) FROM task(:secret);
CALL pg_temp.refusals($$submit_task('ten-a', tenant => 'ten-two')$$);
RESET ROLE;
SELECT * FROM tenant_grants WHERE tenant LIKE 'ten-%';
-- What is not in force can be revoked by the name that it had, and what is in force by the name of now alone.
SELECT revoke_tenant('ten-two', 'ten_app');
SELECT * FROM tenant_grants WHERE tenant LIKE 'ten-%';
-- Elsewhere the number alone says nothing: another person may have it. Those of the names get it by adoption.
UPDATE gpu_orch.tenant_grant SET cluster = 'elsewhere', role = 'ten_app';
SET ROLE ten_member;
SELECT count(*) FROM task(:secret);
RESET ROLE;
SELECT * FROM tenant_grants WHERE tenant LIKE 'ten-%';
BEGIN;
SELECT revoke_tenant('ten-two', 'ten_app');
SELECT count(*) FROM tenant_grants WHERE tenant LIKE 'ten-%';
ROLLBACK;
BEGIN;
SELECT adopt_installation();
SELECT * FROM tenant_grants WHERE tenant LIKE 'ten-%';
ROLLBACK;
-- After pg_upgrade both are as they were.
UPDATE gpu_orch.tenant_grant SET role = 'ten_renamed';
SELECT * FROM tenant_grants WHERE tenant LIKE 'ten-%';
SELECT adopt_installation();
SELECT role, cluster <> 'elsewhere' AS ours FROM gpu_orch.tenant_grant;
-- A role that is gone takes its grants with it.
DROP ROLE ten_renamed;
SELECT * FROM tenant_grants WHERE tenant LIKE 'ten-%';
SELECT adopt_installation();
SELECT * FROM tenant_grants WHERE tenant LIKE 'ten-%';
SELECT detail FROM events WHERE subject = 'ten-two' AND kind = 'tenant_revoked' ORDER BY event DESC LIMIT 1;

-- Dropped once nothing of it is left to do; what it did stays, under its name, which is free again.
SELECT create_tenant('ten-gone'), grant_tenant('ten-gone', 'ten_app'), submit_task('ten-c', tenant => 'ten-gone', run_at => clock() + interval '1 day') AS gone \gset
CALL pg_temp.refusals($$drop_tenant('ten-gone')$$, $$drop_tenant('default')$$, $$drop_tenant('ten-nobody')$$);
SELECT cancel_task(:gone), drop_tenant('ten-gone');
SELECT tenant, state FROM tasks WHERE task_id = :gone;
SELECT count(*) FROM tenant_usage WHERE tenant = 'ten-gone';
SELECT count(*) FROM tenant_grants WHERE tenant = 'ten-gone';
SET ROLE ten_app;
SELECT count(*) FROM task(:gone);
CALL pg_temp.refusals($$submit_task('ten-c', tenant => 'ten-gone')$$);
RESET ROLE;
CALL pg_temp.refusals($$drop_tenant('ten-gone')$$);
CREATE TEMP TABLE ten_gone AS SELECT :gone::bigint AS id;
CALL pg_temp.refusals($$ten_gone, retry_task(id)$$);
SELECT create_tenant('ten-gone'), drop_tenant('ten-gone');

SELECT kind, subject, detail FROM events WHERE subject IN ('ten-two', 'ten-free') AND kind <> 'tenant_altered' ORDER BY event;

SELECT count(cancel_task(task_id)) FROM tasks WHERE kind LIKE 'ten-%' AND state IN ('ready', 'held', 'blocked');
SELECT terminate_worker('tenants');
DROP TABLE secret;
DROP ROLE ten_app, ten_member, ten_other, ten_operator;
SELECT name, detail FROM check_invariants() WHERE NOT holds;
