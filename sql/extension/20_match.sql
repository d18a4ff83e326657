-- Matching of capabilities against requirements.

CREATE FUNCTION gpu_orch.satisfies(capabilities jsonb, requirements jsonb, kind text DEFAULT NULL) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'gpu_orch_satisfies';
COMMENT ON FUNCTION gpu_orch.satisfies(jsonb, jsonb, text) IS
    'Whether a worker with these capabilities may take a task with these requirements and of this kind';

CREATE FUNCTION gpu_orch.match_reasons(capabilities jsonb, requirements jsonb, kind text DEFAULT NULL) RETURNS text[]
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'gpu_orch_match_reasons';
COMMENT ON FUNCTION gpu_orch.match_reasons(jsonb, jsonb, text) IS
    'Why satisfies() says no: each mismatch as a sentence; an empty array when it says yes';

CREATE FUNCTION gpu_orch.match_keys(capabilities jsonb, requirements jsonb, kind text DEFAULT NULL) RETURNS text[]
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'gpu_orch_match_keys';
COMMENT ON FUNCTION gpu_orch.match_keys(jsonb, jsonb, text) IS
    'The requirement that each reason of match_reasons() is about, in the same order';

REVOKE ALL ON FUNCTION gpu_orch.satisfies(jsonb, jsonb, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION gpu_orch.match_reasons(jsonb, jsonb, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION gpu_orch.match_keys(jsonb, jsonb, text) FROM PUBLIC;
