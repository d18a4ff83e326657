-- The ground that the rest stands on: a schema that is ours alone, the clock, the roles and the domains.

-- The script runs as a superuser. Names that it leaves unqualified are found in pg_catalog and nowhere
-- else: not in our own schema, in which somebody could have put an operator that fits better.
SET LOCAL search_path = pg_catalog, pg_temp;

-- The server accepts a schema of our name that is there already. Somebody else's could be dropped by
-- that one, with all that is in it. A restored dump has made an empty one before.
DO $schema$
DECLARE
    owner pg_catalog.pg_roles;
    stranger text;
BEGIN
    SELECT r.* INTO owner FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
    WHERE n.nspname = 'gpu_orch';
    IF NOT owner.rolsuper THEN
        RAISE EXCEPTION 'schema "gpu_orch" belongs to role "%", which is no superuser', owner.rolname
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = 'The owner of the schema could drop everything in it.',
                  HINT = 'Drop or rename the schema, and create the extension again.';
    END IF;
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0) INTO stranger FROM pg_catalog.pg_depend d
    WHERE d.refclassid = 'pg_catalog.pg_namespace'::regclass AND d.refobjid = 'gpu_orch'::regnamespace
      AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_extension e WHERE d.classid = e.tableoid AND d.objid = e.oid)
    ORDER BY 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'schema "gpu_orch" is not empty: it holds %', stranger
            USING ERRCODE = 'duplicate_object',
                  DETAIL = 'Nothing that was there before can be trusted.',
                  HINT = 'Drop or rename the schema, and create the extension again.';
    END IF;
    ALTER SCHEMA gpu_orch OWNER TO CURRENT_USER;
END
$schema$;

-- Stable, as the time of a statement is, so that a condition on it can use an index; it is asked anew at each call.
CREATE FUNCTION gpu_orch.clock() RETURNS timestamptz
    LANGUAGE C STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'gpu_orch_clock';
COMMENT ON FUNCTION gpu_orch.clock() IS
    'The time that gpu_orch decides by: the server''s clock, moved by advance_clock() on test servers';

CREATE FUNCTION gpu_orch.advance_clock("by" interval, passed boolean DEFAULT true) RETURNS timestamptz
    LANGUAGE C VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'gpu_orch_advance_clock';
COMMENT ON FUNCTION gpu_orch.advance_clock(interval, boolean) IS
    'Moves the clock of gpu_orch on a server started with gpu_orch.test_clock = on; returns the new time';

-- Roles belong to the cluster, so an earlier installation may have left them. One that could be used
-- to log in or to gain rights is not ours.
DO $roles$
DECLARE
    name text;
    role pg_catalog.pg_roles;
BEGIN
    FOREACH name IN ARRAY ARRAY['gpu_orch_admin', 'gpu_orch_operator', 'gpu_orch_submitter',
                                'gpu_orch_worker', 'gpu_orch_monitor']
    LOOP
        SELECT * INTO role FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) name;
        IF NOT FOUND THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', name);
        ELSIF role.rolcanlogin OR role.rolsuper OR role.rolcreaterole OR role.rolbypassrls THEN
            RAISE EXCEPTION 'role "%" exists and has attributes that gpu_orch does not accept', name
                USING ERRCODE = 'duplicate_object',
                      DETAIL = 'A role of gpu_orch is NOLOGIN, without SUPERUSER, CREATEROLE and BYPASSRLS.',
                      HINT = 'Rename the role or take these attributes from it.';
        END IF;
    END LOOP;
END
$roles$;

GRANT gpu_orch_monitor TO gpu_orch_operator;
GRANT gpu_orch_submitter TO gpu_orch_operator;
GRANT gpu_orch_operator TO gpu_orch_admin;

CREATE DOMAIN gpu_orch.task_state AS text
    CHECK (VALUE IN ('scheduled', 'blocked', 'held', 'ready', 'running', 'succeeded', 'failed', 'cancelled'));
COMMENT ON DOMAIN gpu_orch.task_state IS 'Where a task stands on its way';

CREATE DOMAIN gpu_orch.waiting_state AS text
    CHECK (VALUE IN ('scheduled', 'blocked', 'held'));
COMMENT ON DOMAIN gpu_orch.waiting_state IS 'Why a task is not claimable yet';

CREATE DOMAIN gpu_orch.final_state AS text
    CHECK (VALUE IN ('succeeded', 'failed', 'cancelled'));
COMMENT ON DOMAIN gpu_orch.final_state IS 'How a task ended';

CREATE DOMAIN gpu_orch.attempt_outcome AS text
    CHECK (VALUE IN ('succeeded', 'failed', 'timeout', 'lost', 'released', 'cancelled'));
COMMENT ON DOMAIN gpu_orch.attempt_outcome IS 'How one attempt ended';

CREATE DOMAIN gpu_orch.failure_class AS text
    CHECK (VALUE IN ('task', 'platform', 'rejected'));
COMMENT ON DOMAIN gpu_orch.failure_class IS 'Whose fault it was: the task''s, the machine''s, or a refusal for good';

CREATE DOMAIN gpu_orch.worker_state AS text
    CHECK (VALUE IN ('spawning', 'initializing', 'active', 'draining', 'terminating', 'terminated'));
COMMENT ON DOMAIN gpu_orch.worker_state IS 'Where a worker stands; the legal moves are in worker_transition';

CREATE DOMAIN gpu_orch.op_state AS text
    CHECK (VALUE IN ('planned', 'sent', 'unknown', 'done', 'refused', 'absent'));
COMMENT ON DOMAIN gpu_orch.op_state IS
    'Where a call to the provider stands: announced, on its way, of unknown outcome, effective, refused, or settled as without effect';
