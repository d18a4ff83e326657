-- From 0.1.0. assemble.awk puts the parts of the install script in where a line begins with @.
--
-- The leader's steps hold this table in share mode: none runs during the update, and none sees half of it. The lock also
-- has every session read the version of the extension anew.
LOCK TABLE gpu_orch.installation IN ACCESS EXCLUSIVE MODE;
ALTER TABLE gpu_orch.installation SET (fillfactor = 100);
ALTER TABLE gpu_orch.installation RESET (fillfactor);
SET LOCAL search_path = pg_catalog, pg_temp;

-- What is there before. What is made from here on gets no right that a site's default privileges grant.
CREATE TEMP TABLE gpu_orch_before AS
    SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_extension e ON e.extname = 'gpu_orch' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
                                  AND d.refobjid = e.oid AND d.deptype = 'e';

-- Tables.
ALTER TABLE gpu_orch.task ADD max_wait interval, ADD start_before timestamptz, ADD limit_key text, ADD batch text;
-- Who did it. Rows from before have none, so the defaults come after.
ALTER TABLE gpu_orch.event ADD session_role name, ADD application text, ADD address inet, ADD leader bigint, ADD digest bytea;
CREATE INDEX task_tenant ON gpu_orch.task (tenant, id);

-- Functions whose arguments changed; those with fewer go, or calls would fit both.
DROP FUNCTION gpu_orch.submit_task(text, jsonb, jsonb, int, text, timestamptz, int, interval, text, bigint[], text);

@replace

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
DROP TABLE pg_temp.gpu_orch_before;

-- Types and domains were left to everybody.
REVOKE ALL ON DOMAIN gpu_orch.attempt_outcome, gpu_orch.failure_class, gpu_orch.final_state, gpu_orch.op_state, gpu_orch.task_state,
    gpu_orch.waiting_state, gpu_orch.worker_state FROM PUBLIC;
REVOKE ALL ON TYPE gpu_orch.claimed_task, gpu_orch.worker_session FROM PUBLIC;

-- Rows that come with the extension.
DELETE FROM gpu_orch.alert_rule;
@rows gpu_orch.alert_rule
DELETE FROM gpu_orch.worker_transition;
@rows gpu_orch.worker_transition
