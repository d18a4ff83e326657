-- Everything is revoked from everybody, and each role gets what it is for.

-- Not from PUBLIC alone: a site's default privileges may have granted what the script made to any role.
DO $revoke$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('REVOKE ALL ON %s FROM %s CASCADE', o.name,
                      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
        FROM (SELECT 'SCHEMA gpu_orch', nspowner, coalesce(nspacl, acldefault('n', nspowner))
              FROM pg_namespace WHERE nspname = 'gpu_orch'
              UNION ALL
              SELECT format(CASE relkind WHEN 'S' THEN 'SEQUENCE gpu_orch.%I' ELSE 'TABLE gpu_orch.%I' END, relname), relowner,
                     coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
              FROM pg_class WHERE relnamespace = 'gpu_orch'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
              UNION ALL
              SELECT format('ROUTINE %s', oid::regprocedure), proowner, coalesce(proacl, acldefault('f', proowner))
              FROM pg_proc WHERE pronamespace = 'gpu_orch'::regnamespace
              UNION ALL
              SELECT format('TYPE gpu_orch.%I', t.typname), t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
              FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
              WHERE t.typnamespace = 'gpu_orch'::regnamespace AND t.typcategory <> 'A' AND coalesce(c.relkind, 'c') = 'c')
             AS o (name, owner, acl)
        CROSS JOIN LATERAL aclexplode(o.acl) a
        WHERE a.grantee <> o.owner
        GROUP BY o.name, a.grantee
    LOOP
        EXECUTE statement;
    END LOOP;
END
$revoke$;

GRANT USAGE ON SCHEMA gpu_orch TO gpu_orch_admin, gpu_orch_operator, gpu_orch_submitter, gpu_orch_worker,
    gpu_orch_monitor;

GRANT EXECUTE ON FUNCTION
    gpu_orch.clock(),
    gpu_orch.satisfies(jsonb, jsonb, text),
    gpu_orch.match_reasons(jsonb, jsonb, text),
    gpu_orch.match_keys(jsonb, jsonb, text)
    TO gpu_orch_submitter, gpu_orch_worker, gpu_orch_monitor;

GRANT EXECUTE ON FUNCTION
    gpu_orch.submit_task(text, jsonb, jsonb, int, text, timestamptz, int, interval, text, bigint[], text, interval, timestamptz, text, text),
    gpu_orch.submit_tasks(jsonb),
    gpu_orch.cancel_task(bigint),
    gpu_orch.retry_task(bigint),
    gpu_orch.forget_task(bigint),
    gpu_orch.may_use_tenant(int),
    gpu_orch.task(bigint),
    gpu_orch.explain_match(bigint),
    gpu_orch.why_waiting(bigint)
    TO gpu_orch_submitter;

GRANT EXECUTE ON FUNCTION
    gpu_orch.register_worker(text, text, jsonb, text, text, int),
    gpu_orch.goodbye(text, text, text),
    gpu_orch.heartbeat(text, text, jsonb, uuid[], bigint),
    gpu_orch.claim_tasks(text, text, int),
    gpu_orch.complete_task(text, text, bigint, uuid, jsonb),
    gpu_orch.complete_tasks(text, text, bigint[], uuid[], jsonb[]),
    gpu_orch.fail_task(text, text, bigint, uuid, text, text, boolean),
    gpu_orch.release_task(text, text, bigint, uuid),
    gpu_orch.progress_task(text, text, bigint, uuid, double precision, text),
    gpu_orch.complete_and_claim(text, text, bigint, uuid, jsonb, int)
    TO gpu_orch_worker, gpu_orch_operator;

GRANT SELECT ON
    gpu_orch.tasks, gpu_orch.submissions, gpu_orch.attempts, gpu_orch.workers, gpu_orch.pools, gpu_orch.offers, gpu_orch.image_breakers, gpu_orch.queue_depth,
    gpu_orch.task_queue_analysis, gpu_orch.orchestrator_status, gpu_orch.active_workers_health,
    gpu_orch.recent_task_activity, gpu_orch.worker_performance, gpu_orch.cloud_ops, gpu_orch.decisions,
    gpu_orch.events, gpu_orch.alerts, gpu_orch.alert_rule, gpu_orch.cost_estimate, gpu_orch.billing, gpu_orch.foreign_pods, gpu_orch.spend_by_pool,
    gpu_orch.spend_by_day, gpu_orch.spend_by_tenant, gpu_orch.budgets, gpu_orch.budget_state, gpu_orch.tenant_usage, gpu_orch.tenant_grants, gpu_orch.config,
    gpu_orch.mismatches, gpu_orch.claim_stats, gpu_orch.api_stats, gpu_orch.tenant_service, gpu_orch.fairness, gpu_orch.worker_transition
    TO gpu_orch_monitor;
GRANT EXECUTE ON FUNCTION
    gpu_orch.status(),
    gpu_orch.leader_status(),
    gpu_orch.grant_holds(oid, name, text),
    gpu_orch.dollars(bigint, timestamptz, timestamptz),
    gpu_orch.queue_depth_exact(),
    gpu_orch.waiting_reason(text, boolean),
    gpu_orch.spend_of_days(date, date),
    gpu_orch.worker_rules(),
    gpu_orch.claim_counters(),
    gpu_orch.api_counters(),
    gpu_orch.latency_quantile(bigint[], numeric),
    gpu_orch.check_invariants(boolean),
    gpu_orch.explain_scaling(text)
    TO gpu_orch_monitor;

GRANT EXECUTE ON FUNCTION
    gpu_orch.create_pool(text, text, text[], int, int, jsonb),
    gpu_orch.alter_pool(text, jsonb),
    gpu_orch.drop_pool(text),
    gpu_orch.spawn_worker(text, int),
    gpu_orch.drain_worker(text),
    gpu_orch.terminate_worker(text, boolean),
    gpu_orch.create_tenant(text, int, numeric),
    gpu_orch.alter_tenant(text, int, numeric),
    gpu_orch.grant_tenant(text, name),
    gpu_orch.revoke_tenant(text, name),
    gpu_orch.drop_tenant(text),
    gpu_orch.set_budget(text, text, numeric, boolean),
    gpu_orch.pause(),
    gpu_orch.resume(),
    gpu_orch.kill_fleet(),
    gpu_orch.run_cycle(boolean),
    gpu_orch.reconcile_now(),
    gpu_orch.reset_claim_stats(),
    gpu_orch.admit(),
    gpu_orch.count_usage()
    TO gpu_orch_operator;

GRANT EXECUTE ON FUNCTION
    gpu_orch.adopt_installation(),
    gpu_orch.harden_database(),
    gpu_orch.prune(boolean),
    gpu_orch.advance_clock(interval, boolean)
    TO gpu_orch_admin;
