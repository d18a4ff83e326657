-- The clock, the roles and the domains that everything else uses.

CREATE FUNCTION gpu_orch.clock() RETURNS timestamptz
    LANGUAGE C VOLATILE PARALLEL SAFE
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
