-- From 0.1.0. assemble.awk puts the parts of the install script in where a line begins with @.
--
-- All tables are locked first, or an update beside others' calls would end in a deadlock: either all of them within a
-- moment, or none, and again. The leader's steps hold the table of the installation, so none runs during the update. That the
-- definition of that table changes has every session read the version of the extension anew.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $lock$
DECLARE
    -- What calls lock first comes first: those that are in progress end, and new ones wait before they hold anything.
    tables text := (SELECT string_agg(format('gpu_orch.%I', c.relname), ', '
                        ORDER BY array_position(ARRAY['worker', 'tenant', 'shape', 'task'], c.relname::text), c.oid)
                    FROM pg_class c WHERE c.relnamespace = 'gpu_orch'::regnamespace AND c.relkind = 'r');
BEGIN
    SET LOCAL lock_timeout = '300ms';
    LOOP
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tables);
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(random() * 0.3);
        END;
    END LOOP;
    SET LOCAL lock_timeout = 0;
END
$lock$;
ALTER TABLE gpu_orch.installation SET (fillfactor = 100);
ALTER TABLE gpu_orch.installation RESET (fillfactor);

-- What is there before. What is made from here on gets no right that a site's default privileges grant.
CREATE TEMP TABLE gpu_orch_before AS
    SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_extension e ON e.extname = 'gpu_orch' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
                                  AND d.refobjid = e.oid AND d.deptype = 'e';

-- Functions whose arguments changed; those from before go, or calls would fit both.
DROP FUNCTION gpu_orch.submit_task(text, jsonb, jsonb, int, text, timestamptz, int, interval, text, bigint[], text);
DROP FUNCTION gpu_orch.register_worker(text, text, jsonb, text, text);
DROP FUNCTION gpu_orch.progress_task(text, text, bigint, uuid, real, text);
DROP FUNCTION gpu_orch.check_invariants();

-- Tables, and what was filled in by hand and is a view now.
DROP VIEW gpu_orch.alerts;
DROP TABLE gpu_orch.alert_rule, gpu_orch.worker_transition;
ALTER TABLE gpu_orch.shape REPLICA IDENTITY FULL;
ALTER TABLE gpu_orch.budget REPLICA IDENTITY FULL;
ALTER TABLE gpu_orch.task ADD max_wait interval, ADD start_before timestamptz, ADD limit_key text, ADD batch text;
CREATE INDEX task_tenant ON gpu_orch.task (tenant, id);
ALTER TABLE gpu_orch.ready_queue ADD task_row tid, ADD PRIMARY KEY (task_id);
DROP INDEX gpu_orch.ready_queue_task;
CREATE INDEX attempt_ended ON gpu_orch.attempt (ended_at);
CREATE INDEX attempt_unsuccessful ON gpu_orch.attempt (task_id) WHERE final_state <> 'succeeded';
ALTER TABLE gpu_orch.worker_profile ADD slots int NOT NULL DEFAULT 1 CHECK (slots BETWEEN 1 AND 1000), ADD registered_by name;
ALTER TABLE gpu_orch.tenant ADD dropped_at timestamptz, DROP CONSTRAINT tenant_name_key;
CREATE UNIQUE INDEX tenant_name ON gpu_orch.tenant (name) WHERE dropped_at IS NULL;
@new TABLE gpu_orch.usage_day
@new TABLE gpu_orch.share_day
@new TABLE gpu_orch.spend_day
@new TABLE gpu_orch.queue_count
@new TABLE gpu_orch.counted

-- The final state of a task that was retried is not its end any more.
UPDATE gpu_orch.attempt a SET final_state = NULL
FROM (SELECT task_id FROM gpu_orch.waiting UNION ALL SELECT task_id FROM gpu_orch.ready_queue UNION ALL SELECT task_id FROM gpu_orch.lease) s
WHERE a.task_id = s.task_id AND a.final_state IS NOT NULL;

-- Grants followed names; from now on they follow the roles that have these names.
ALTER TABLE gpu_orch.tenant_grant RENAME TO tenant_grant_by_name;
ALTER TABLE gpu_orch.tenant_grant_by_name RENAME CONSTRAINT tenant_grant_pkey TO tenant_grant_by_name_pkey;
ALTER TABLE gpu_orch.tenant_grant_by_name DROP CONSTRAINT tenant_grant_tenant_fkey;
@new TABLE gpu_orch.tenant_grant
INSERT INTO gpu_orch.tenant_grant (tenant, role_id, role, cluster)
    SELECT g.tenant, r.oid, g.role, (SELECT system_identifier::text FROM pg_control_system())
    FROM gpu_orch.tenant_grant_by_name g JOIN pg_roles r ON r.rolname = g.role;
ALTER EXTENSION gpu_orch DROP TABLE gpu_orch.tenant_grant_by_name;
DROP TABLE gpu_orch.tenant_grant_by_name;

-- What waits is looked at once, as if it had just begun to wait.
DROP INDEX gpu_orch.task_dependency_parent, gpu_orch.waiting_held;
CREATE INDEX task_dependency_parent ON gpu_orch.task_dependency (parent, task_id);
CREATE INDEX waiting_held ON gpu_orch.waiting (tenant, shape, priority DESC, task_id) WHERE state = 'held';
@new TABLE gpu_orch.dependency_check
INSERT INTO gpu_orch.dependency_check (task_id) SELECT w.task_id FROM gpu_orch.waiting w WHERE w.state = 'blocked';

-- Who did it. Rows from before have none, so the defaults come after.
ALTER TABLE gpu_orch.event ADD session_role name, ADD application text, ADD address inet, ADD leader bigint, ADD digest bytea;
CREATE INDEX event_subject ON gpu_orch.event (subject);

@new TABLE gpu_orch.cancel_request
@replace

-- A request to cancel is a row of its own.
INSERT INTO gpu_orch.cancel_request (task_id, requested_at) SELECT l.task_id, gpu_orch.clock() FROM gpu_orch.lease l WHERE l.cancel_requested;
ALTER TABLE gpu_orch.lease DROP cancel_requested;

-- why_waiting() asks the one with the tenant now.
DROP FUNCTION gpu_orch.shape_has_room(bigint);

-- What columns are filled with from now on.
ALTER TABLE gpu_orch.event ALTER session_role SET DEFAULT SESSION_USER,
    ALTER application SET DEFAULT nullif(current_setting('application_name'), ''),
    ALTER address SET DEFAULT inet_client_addr(),
    ALTER leader SET DEFAULT gpu_orch.acting_leader();

-- Rights on what is new.
DO $revoke$
DECLARE
    made record;
    grantee text;
BEGIN
    FOR made IN
        SELECT d.classid, d.objid,
               CASE d.classid WHEN 'pg_catalog.pg_proc'::regclass THEN 'FUNCTION ' || d.objid::regprocedure
                    WHEN 'pg_catalog.pg_class'::regclass THEN
                        CASE WHEN c.relkind = 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || d.objid::regclass
                    ELSE 'TYPE ' || d.objid::regtype END AS object,
               coalesce(p.proacl, c.relacl, t.typacl, acldefault('f', p.proowner), acldefault('T', t.typowner)) AS acl,
               coalesce(p.proowner, c.relowner, t.typowner) AS owner
        FROM pg_depend d JOIN pg_extension e ON e.extname = 'gpu_orch' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
                                            AND d.refobjid = e.oid AND d.deptype = 'e'
        LEFT JOIN pg_proc p ON d.classid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.objid
        LEFT JOIN pg_class c ON d.classid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'v', 'S')
        LEFT JOIN pg_type t ON d.classid = 'pg_catalog.pg_type'::regclass AND t.oid = d.objid AND t.typtype IN ('c', 'd')
        WHERE coalesce(p.oid, c.oid, t.oid) IS NOT NULL
          AND NOT EXISTS (SELECT 1 FROM pg_temp.gpu_orch_before b WHERE b.classid = d.classid AND b.objid = d.objid)
    LOOP
        FOR grantee IN
            SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
            FROM aclexplode(made.acl) a WHERE a.grantee <> made.owner
        LOOP
            EXECUTE format('REVOKE ALL ON %s FROM %s', made.object, grantee);
        END LOOP;
    END LOOP;
END
$revoke$;
GRANT EXECUTE ON FUNCTION
    gpu_orch.submit_task(text, jsonb, jsonb, int, text, timestamptz, int, interval, text, bigint[], text, interval, timestamptz, text, text)
    TO gpu_orch_submitter;
GRANT EXECUTE ON FUNCTION
    gpu_orch.register_worker(text, text, jsonb, text, text, int), gpu_orch.goodbye(text, text, text),
    gpu_orch.progress_task(text, text, bigint, uuid, double precision, text)
    TO gpu_orch_worker, gpu_orch_operator;
GRANT SELECT ON
    gpu_orch.submissions, gpu_orch.alerts, gpu_orch.alert_rule, gpu_orch.spend_by_day, gpu_orch.budget_state, gpu_orch.worker_transition, gpu_orch.tenant_grants
    TO gpu_orch_monitor;
GRANT EXECUTE ON FUNCTION
    gpu_orch.grant_holds(oid, name, text), gpu_orch.queue_depth_exact(), gpu_orch.waiting_reason(text, boolean), gpu_orch.spend_of_days(date, date), gpu_orch.worker_rules(),
    gpu_orch.check_invariants(boolean)
    TO gpu_orch_monitor;
GRANT EXECUTE ON FUNCTION gpu_orch.count_usage(), gpu_orch.drop_tenant(text) TO gpu_orch_operator;
GRANT EXECUTE ON FUNCTION gpu_orch.forget_task(bigint) TO gpu_orch_submitter;
GRANT EXECUTE ON FUNCTION gpu_orch.harden_database(), gpu_orch.prune(boolean) TO gpu_orch_admin;
DROP TABLE pg_temp.gpu_orch_before;

-- Types and domains were left to everybody.
REVOKE ALL ON DOMAIN gpu_orch.attempt_outcome, gpu_orch.failure_class, gpu_orch.final_state, gpu_orch.op_state, gpu_orch.task_state,
    gpu_orch.waiting_state, gpu_orch.worker_state FROM PUBLIC;
REVOKE ALL ON TYPE gpu_orch.claimed_task, gpu_orch.worker_session FROM PUBLIC;

-- Dumps hold the new tables.
DO $dump$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['tenant_grant', 'dependency_check', 'dependency_check_id_seq', 'cancel_request', 'usage_day',
                                    'share_day', 'spend_day', 'queue_count', 'counted']
    LOOP
        PERFORM pg_extension_config_dump(format('gpu_orch.%I', relation), '');
    END LOOP;
END
$dump$;
