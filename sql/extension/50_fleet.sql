-- For operators.

CREATE FUNCTION gpu_orch.create_pool(name text, image text, gpu_types text[], min_workers int DEFAULT 0,
                                     max_workers int DEFAULT 10, options jsonb DEFAULT '{}')
    RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_create_pool';
COMMENT ON FUNCTION gpu_orch.create_pool(text, text, text[], int, int, jsonb) IS
    'Adds a pool: which image to run on which GPU types, in order of preference, and how many workers it may have';

CREATE FUNCTION gpu_orch.alter_pool(name text, options jsonb) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_alter_pool';
COMMENT ON FUNCTION gpu_orch.alter_pool(text, jsonb) IS
    'Changes options of a pool; what runs already keeps its pod';

CREATE FUNCTION gpu_orch.drop_pool(name text) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_drop_pool';
COMMENT ON FUNCTION gpu_orch.drop_pool(text) IS
    'Drops a pool: its workers finish what they hold and their pods are deleted';

CREATE FUNCTION gpu_orch.spawn_worker(pool text, count int DEFAULT 1) RETURNS SETOF text
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_spawn_worker';
COMMENT ON FUNCTION gpu_orch.spawn_worker(text, int) IS
    'Announces pods outside of the pool''s policy but within its limits, and returns the ids of their workers';

CREATE FUNCTION gpu_orch.drain_worker(worker_id text) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_drain_worker';
COMMENT ON FUNCTION gpu_orch.drain_worker(text) IS
    'Lets a worker finish what it holds and gives it nothing new; its pod is deleted afterwards';

CREATE FUNCTION gpu_orch.terminate_worker(worker_id text, force boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_terminate_worker';
COMMENT ON FUNCTION gpu_orch.terminate_worker(text, boolean) IS
    'Ends a worker and its pod now; one that is running tasks only by force, and its tasks go back to their places';

CREATE FUNCTION gpu_orch.create_tenant(name text, max_running int DEFAULT NULL, weight numeric DEFAULT 1) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_create_tenant';
COMMENT ON FUNCTION gpu_orch.create_tenant(text, int, numeric) IS
    'Adds a tenant; max_running is how many of its tasks may run at once, null for no limit, weight its share beside the others';

CREATE FUNCTION gpu_orch.alter_tenant(name text, max_running int, weight numeric DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_alter_tenant';
COMMENT ON FUNCTION gpu_orch.alter_tenant(text, int, numeric) IS
    'Changes how many of a tenant''s tasks may run at once, null for no limit, and its share, null to leave it; tasks that are ready keep their places';

CREATE FUNCTION gpu_orch.grant_tenant(tenant text, role name) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_grant_tenant';
COMMENT ON FUNCTION gpu_orch.grant_tenant(text, name) IS
    'Lets a role, and the members of it, submit for a tenant';

CREATE FUNCTION gpu_orch.revoke_tenant(tenant text, role name) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_revoke_tenant';
COMMENT ON FUNCTION gpu_orch.revoke_tenant(text, name) IS
    'Takes back what grant_tenant() gave';

CREATE FUNCTION gpu_orch.drop_tenant(tenant text) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_drop_tenant';
COMMENT ON FUNCTION gpu_orch.drop_tenant(text) IS
    'Drops a tenant of which no task waits or runs, and all its grants; what its tasks did and cost stays';

CREATE FUNCTION gpu_orch.grant_holds(role_id oid, role name, cluster text) RETURNS boolean
    LANGUAGE C STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'gpu_orch_grant_holds';
COMMENT ON FUNCTION gpu_orch.grant_holds(oid, name, text) IS
    'Whether a row of tenant_grant still means the role that it was made for';

CREATE VIEW gpu_orch.tenant_grants AS
SELECT n.name AS tenant, coalesce(r.rolname, g.role) AS role, r.oid IS NOT NULL AS in_force
FROM gpu_orch.tenant_grant g
JOIN gpu_orch.tenant n ON n.id = g.tenant
LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.role_id AND gpu_orch.grant_holds(g.role_id, g.role, g.cluster);
COMMENT ON VIEW gpu_orch.tenant_grants IS
    'Which roles may submit for which tenants; not in force is what came from another cluster, until adopt_installation() or grant_tenant()';

CREATE FUNCTION gpu_orch.set_budget(pool text, per text, amount numeric, hard boolean DEFAULT true) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_set_budget';
COMMENT ON FUNCTION gpu_orch.set_budget(text, text, numeric, boolean) IS
    'Sets how many dollars a pool, or with null all pods together, may cost per hour, day or month; null removes the budget';

CREATE FUNCTION gpu_orch.pause() RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_pause';
COMMENT ON FUNCTION gpu_orch.pause() IS
    'Stops the creation of pods; tasks are served and pods are deleted as before';

CREATE FUNCTION gpu_orch.resume() RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_resume';
COMMENT ON FUNCTION gpu_orch.resume() IS
    'Goes on creating pods after pause() or kill_fleet()';

CREATE FUNCTION gpu_orch.kill_fleet() RETURNS bigint
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_kill_fleet';
COMMENT ON FUNCTION gpu_orch.kill_fleet() IS
    'Ends every pod of ours, those that show up later too, and creates none until resume(); returns how many deletes are owed now';

CREATE FUNCTION gpu_orch.prune(dry_run boolean DEFAULT true, OUT relation text, OUT rows bigint) RETURNS SETOF record
    LANGUAGE C VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'gpu_orch_prune';
COMMENT ON FUNCTION gpu_orch.prune(boolean) IS
    'How many rows of each relation are over by the settings of retention; without dry_run removes some 10,000 of each now, as the leader does little by little, and says how many';

CREATE FUNCTION gpu_orch.adopt_installation() RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_adopt_installation';
COMMENT ON FUNCTION gpu_orch.adopt_installation() IS
    'Makes this copy of the database the one that acts for the fleet; call it only where the original is gone';

CREATE FUNCTION gpu_orch.run_cycle(dry_run boolean DEFAULT false) RETURNS jsonb
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_run_cycle';
COMMENT ON FUNCTION gpu_orch.run_cycle(boolean) IS
    'Has the leader run one cycle and waits for it; with dry_run it decides here and changes nothing';

CREATE FUNCTION gpu_orch.reconcile_now() RETURNS jsonb
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_reconcile_now';
COMMENT ON FUNCTION gpu_orch.reconcile_now() IS
    'Has the leader compare the provider''s pods with our rows and waits for the outcome';

CREATE FUNCTION gpu_orch.explain_scaling(pool text, OUT term text, OUT value numeric, OUT bound boolean,
                                         OUT note text)
    RETURNS SETOF record
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'gpu_orch_explain_scaling';
COMMENT ON FUNCTION gpu_orch.explain_scaling(text) IS
    'What would be decided for a pool now, and every number that enters the decision; bound marks the one that decided';

CREATE FUNCTION gpu_orch.leader_status(
        OUT preloaded boolean, OUT pid int, OUT doing text, OUT started_at timestamptz,
        OUT last_tick timestamptz, OUT ticks bigint, OUT memory_bytes bigint, OUT failed_starts int,
        OUT last_error text, OUT last_error_at timestamptz, OUT api_ok boolean, OUT api_error text,
        OUT api_last_success timestamptz, OUT api_retry_at timestamptz, OUT last_reconcile timestamptz)
    LANGUAGE C VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'gpu_orch_leader_status';
COMMENT ON FUNCTION gpu_orch.leader_status() IS
    'What the leader says of itself and of the provider, from shared memory; pid is null where no leader runs';
