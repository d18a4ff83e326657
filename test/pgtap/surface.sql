-- The installed surface as callers see it: names, argument types, results, and who may use what. Runs in a
-- database that has the extension and pgtap.
BEGIN;
SELECT no_plan();

SELECT has_extension('gpu_orch');
SELECT schema_privs_are('gpu_orch', role, ARRAY['USAGE'])
FROM unnest(ARRAY['gpu_orch_admin', 'gpu_orch_operator', 'gpu_orch_submitter', 'gpu_orch_worker', 'gpu_orch_monitor']) role;
SELECT has_role(role)
FROM unnest(ARRAY['gpu_orch_admin', 'gpu_orch_operator', 'gpu_orch_submitter', 'gpu_orch_worker', 'gpu_orch_monitor']) role;

-- Functions: argument types in order, the result, and the role that is granted them.
CREATE TEMPORARY TABLE surface (name text, arguments text[], result text, role text);
INSERT INTO surface VALUES
    ('submit_task', '{text,jsonb,jsonb,integer,text,timestamp with time zone,integer,interval,text,bigint[],text,interval,timestamp with time zone,text,text}', 'bigint', 'gpu_orch_submitter'),
    ('submit_tasks', '{jsonb}', 'setof bigint', 'gpu_orch_submitter'),
    ('cancel_task', '{bigint}', 'boolean', 'gpu_orch_submitter'),
    ('retry_task', '{bigint}', 'boolean', 'gpu_orch_submitter'),
    ('forget_task', '{bigint}', 'void', 'gpu_orch_submitter'),
    ('task', '{bigint}', 'setof gpu_orch.tasks', 'gpu_orch_submitter'),
    ('explain_match', '{bigint}', 'setof record', 'gpu_orch_submitter'),
    ('why_waiting', '{bigint}', 'setof record', 'gpu_orch_submitter'),
    ('satisfies', '{jsonb,jsonb,text}', 'boolean', 'gpu_orch_submitter'),
    ('match_reasons', '{jsonb,jsonb,text}', 'text[]', 'gpu_orch_submitter'),
    ('register_worker', '{text,text,jsonb,text,text,integer}', 'gpu_orch.worker_session', 'gpu_orch_worker'),
    ('goodbye', '{text,text,text}', 'void', 'gpu_orch_worker'),
    ('heartbeat', '{text,text,jsonb,uuid[],bigint}', 'record', 'gpu_orch_worker'),
    ('claim_tasks', '{text,text,integer}', 'setof gpu_orch.claimed_task', 'gpu_orch_worker'),
    ('complete_task', '{text,text,bigint,uuid,jsonb}', 'boolean', 'gpu_orch_worker'),
    ('fail_task', '{text,text,bigint,uuid,text,text,boolean}', 'boolean', 'gpu_orch_worker'),
    ('release_task', '{text,text,bigint,uuid}', 'boolean', 'gpu_orch_worker'),
    ('progress_task', '{text,text,bigint,uuid,double precision,text}', 'boolean', 'gpu_orch_worker'),
    ('complete_and_claim', '{text,text,bigint,uuid,jsonb,integer}', 'setof gpu_orch.claimed_task', 'gpu_orch_worker'),
    ('create_pool', '{text,text,text[],integer,integer,jsonb}', 'void', 'gpu_orch_operator'),
    ('alter_pool', '{text,jsonb}', 'void', 'gpu_orch_operator'),
    ('drop_pool', '{text}', 'void', 'gpu_orch_operator'),
    ('spawn_worker', '{text,integer}', 'setof text', 'gpu_orch_operator'),
    ('drain_worker', '{text}', 'void', 'gpu_orch_operator'),
    ('terminate_worker', '{text,boolean}', 'void', 'gpu_orch_operator'),
    ('set_budget', '{text,text,numeric,boolean}', 'void', 'gpu_orch_operator'),
    ('pause', '{}', 'void', 'gpu_orch_operator'),
    ('resume', '{}', 'void', 'gpu_orch_operator'),
    ('kill_fleet', '{}', 'bigint', 'gpu_orch_operator'),
    ('run_cycle', '{boolean}', 'jsonb', 'gpu_orch_operator'),
    ('reconcile_now', '{}', 'jsonb', 'gpu_orch_operator'),
    ('grant_tenant', '{text,name}', 'void', 'gpu_orch_operator'),
    ('revoke_tenant', '{text,name}', 'void', 'gpu_orch_operator'),
    ('status', '{}', 'jsonb', 'gpu_orch_monitor'),
    ('explain_scaling', '{text}', 'setof record', 'gpu_orch_monitor'),
    ('check_invariants', '{boolean}', 'setof record', 'gpu_orch_monitor'),
    ('queue_depth_exact', '{}', 'setof record', 'gpu_orch_monitor'),
    ('prune', '{boolean}', 'setof record', 'gpu_orch_admin'),
    ('adopt_installation', '{}', 'void', 'gpu_orch_admin');
SELECT has_function('gpu_orch', name, arguments::name[]) FROM surface;
SELECT function_returns('gpu_orch', name, arguments::name[], result) FROM surface;
SELECT function_privs_are('gpu_orch', name, arguments::name[], role, ARRAY['EXECUTE']) FROM surface;
SELECT volatility_is('gpu_orch', 'satisfies', ARRAY['jsonb', 'jsonb', 'text'], 'immutable');
SELECT volatility_is('gpu_orch', 'claim_tasks', ARRAY['text', 'text', 'integer'], 'volatile');

-- Views are for monitors to read; tables are for nobody. (Of a relation that is missing this fails as well.)
SELECT table_privs_are('gpu_orch', v, 'gpu_orch_monitor', ARRAY['SELECT'])
FROM unnest(ARRAY['tasks', 'workers', 'pools', 'offers', 'image_breakers', 'orchestrator_status', 'active_workers_health',
                  'recent_task_activity', 'worker_performance', 'task_queue_analysis', 'queue_depth', 'cost_estimate', 'billing', 'foreign_pods',
                  'spend_by_pool', 'spend_by_tenant', 'spend_by_day', 'submissions', 'budgets', 'decisions', 'events', 'alerts', 'cloud_ops', 'claim_stats', 'api_stats', 'tenant_usage', 'config']) v;
SELECT table_privs_are('gpu_orch', t, role, ARRAY[]::text[])
FROM unnest(ARRAY['task', 'ready_queue', 'lease', 'attempt', 'worker', 'worker_profile', 'offer_stats', 'image_breaker', 'cloud_op',
                  'spend', 'usage_day', 'share_day', 'spend_day', 'queue_count', 'counted', 'bill', 'foreign_pod', 'budget', 'installation', 'installation_secret']) t,
     unnest(ARRAY['gpu_orch_operator', 'gpu_orch_submitter', 'gpu_orch_worker', 'gpu_orch_monitor']) role;

SELECT * FROM finish();
ROLLBACK;
