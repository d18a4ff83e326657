-- CREATE EXTENSION trusts nothing that somebody else made before: neither a schema of our name, nor anything
-- in it, nor what the site grants by default.
SET client_min_messages = warning;
CREATE ROLE hostile_owner;
CREATE ROLE hostile_anon;
CREATE DATABASE hostile_install OWNER hostile_owner;
\c hostile_install
SET client_min_messages = warning;
\set VERBOSITY sqlstate

-- The database's owner makes the schema first, with an operator that fits a CHECK of ours better than the one
-- of pg_catalog does, or leaves it empty in order to drop it later.
SET ROLE hostile_owner;
CREATE SCHEMA gpu_orch;
CREATE FUNCTION gpu_orch.above(a numeric, b int) RETURNS boolean LANGUAGE plpgsql AS
    $$BEGIN EXECUTE 'ALTER ROLE hostile_owner SUPERUSER'; RETURN true; END$$;
CREATE OPERATOR gpu_orch.> (LEFTARG = numeric, RIGHTARG = int, FUNCTION = gpu_orch.above);
RESET ROLE;
CREATE EXTENSION gpu_orch;
DROP SCHEMA gpu_orch CASCADE;
SET ROLE hostile_owner;
CREATE SCHEMA gpu_orch;
RESET ROLE;
CREATE EXTENSION gpu_orch;

-- A superuser's schema has to be empty, of objects of any kind.
DROP SCHEMA gpu_orch;
CREATE SCHEMA gpu_orch;
CREATE TEMP TABLE attempt (kind text, answer text);
CREATE PROCEDURE pg_temp.install_beside(kind text, definition text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE definition;
    BEGIN
        CREATE EXTENSION gpu_orch;
        INSERT INTO attempt VALUES (kind, 'installed');
        DROP EXTENSION gpu_orch;
    EXCEPTION WHEN OTHERS THEN
        INSERT INTO attempt VALUES (kind, SQLSTATE);
    END;
    DROP SCHEMA gpu_orch CASCADE;
    CREATE SCHEMA gpu_orch;
END
$$;
CREATE FUNCTION public.hostile(numeric, int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION public.hostile(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION public.hostile(numeric) RETURNS numeric LANGUAGE sql AS 'SELECT 1.0';
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT * FROM (VALUES
        ('table', 'CREATE TABLE gpu_orch.task (id int)'), ('view', 'CREATE VIEW gpu_orch.tasks AS SELECT 1 AS id'),
        ('materialized view', 'CREATE MATERIALIZED VIEW gpu_orch.tasks AS SELECT 1 AS id'),
        ('sequence', 'CREATE SEQUENCE gpu_orch.task_id_seq'), ('domain', 'CREATE DOMAIN gpu_orch.int4 AS text'),
        ('composite type', 'CREATE TYPE gpu_orch.text AS (a int)'), ('enum', $e$CREATE TYPE gpu_orch.bool AS ENUM ('t')$e$),
        ('range', 'CREATE TYPE gpu_orch.jsonb AS RANGE (subtype = int)'), ('shell type', 'CREATE TYPE gpu_orch.name'),
        ('function', $f$CREATE FUNCTION gpu_orch.round(numeric, int) RETURNS numeric LANGUAGE sql AS 'SELECT 1.0'$f$),
        ('function of ours', $f$CREATE FUNCTION gpu_orch.clock() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'$f$),
        ('procedure', 'CREATE PROCEDURE gpu_orch.admit() LANGUAGE sql AS ''SELECT 1'''),
        ('aggregate', 'CREATE AGGREGATE gpu_orch.count(int) (SFUNC = int4pl, STYPE = int)'),
        ('operator', 'CREATE OPERATOR gpu_orch.> (LEFTARG = numeric, RIGHTARG = int, FUNCTION = public.hostile)'),
        ('unary operator', 'CREATE OPERATOR gpu_orch.- (RIGHTARG = numeric, FUNCTION = public.hostile)'),
        ('operator class', 'CREATE OPERATOR CLASS gpu_orch.int8_ops FOR TYPE int USING btree AS OPERATOR 1 <'),
        ('operator family', 'CREATE OPERATOR FAMILY gpu_orch.int8_ops USING btree'),
        ('collation', 'CREATE COLLATION gpu_orch."default" FROM "C"'),
        ('conversion', 'CREATE CONVERSION gpu_orch.hostile FOR ''LATIN1'' TO ''UTF8'' FROM iso8859_1_to_utf8'),
        ('text search configuration', 'CREATE TEXT SEARCH CONFIGURATION gpu_orch.simple (COPY = pg_catalog.simple)'),
        ('text search dictionary', 'CREATE TEXT SEARCH DICTIONARY gpu_orch.simple (TEMPLATE = pg_catalog.simple)'),
        ('default privileges', 'ALTER DEFAULT PRIVILEGES IN SCHEMA gpu_orch GRANT EXECUTE ON FUNCTIONS TO hostile_anon'),
        ('nothing', 'SELECT 1'),
        ('rights to create', 'GRANT ALL ON SCHEMA gpu_orch TO PUBLIC, hostile_anon')) AS v (kind, definition)
    LOOP
        CALL pg_temp.install_beside(one.kind, one.definition);
    END LOOP;
    -- Operators that fit better than those of pg_catalog.
    FOR one IN SELECT DISTINCT format('operator %s (%s, %s)', o.oprname, a.l, a.r) AS kind,
                      format('CREATE OPERATOR gpu_orch.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.hostile)', o.oprname, a.l, a.r) AS definition
               FROM pg_operator o, (VALUES ('numeric', 'int'), ('text', 'text')) a (l, r)
               WHERE o.oprname IN ('=', '<>', '<', '>', '<=', '>=', '||', '~', '+', '-', '*', '/', '->', '->>')
    LOOP
        CALL pg_temp.install_beside(one.kind, one.definition);
    END LOOP;
END
$$;
SELECT answer, count(*), string_agg(kind, ', ' ORDER BY kind) FILTER (WHERE answer = 'installed') AS kinds FROM attempt GROUP BY answer ORDER BY answer;

-- What a site grants by default reaches nothing of ours, and nobody keeps rights in the schema.
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO hostile_anon, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO hostile_anon, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON ROUTINES TO hostile_anon, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO hostile_anon, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO hostile_anon, PUBLIC;
GRANT ALL ON SCHEMA gpu_orch TO hostile_anon WITH GRANT OPTION;
CREATE EXTENSION gpu_orch;
SELECT nspname AS has_rights FROM pg_namespace
WHERE nspname = 'gpu_orch' AND (has_schema_privilege('hostile_anon', oid, 'CREATE') OR has_schema_privilege('hostile_anon', oid, 'USAGE'));
SELECT count(*) > 50 AS functions, count(*) FILTER (WHERE has_function_privilege('hostile_anon', oid, 'EXECUTE')) AS has_rights
FROM pg_proc WHERE pronamespace = 'gpu_orch'::regnamespace;
SELECT count(*) > 50 AS relations, count(*) FILTER (WHERE CASE relkind
           WHEN 'S' THEN has_sequence_privilege('hostile_anon', oid, 'USAGE, SELECT, UPDATE')
           ELSE has_table_privilege('hostile_anon', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                OR has_any_column_privilege('hostile_anon', oid, 'SELECT, INSERT, UPDATE, REFERENCES') END) AS has_rights
FROM pg_class WHERE relnamespace = 'gpu_orch'::regnamespace AND relkind IN ('r', 'v', 'm', 'p', 'S');
SELECT typname AS has_rights FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE typnamespace = 'gpu_orch'::regnamespace AND typcategory <> 'A' AND coalesce(c.relkind, 'c') = 'c' AND has_type_privilege('hostile_anon', t.oid, 'USAGE');

-- The schema that is left belongs to who installed, and may be used again.
DROP EXTENSION gpu_orch;
SELECT nspowner::regrole = current_user::regrole AS ours FROM pg_namespace WHERE nspname = 'gpu_orch';
CREATE EXTENSION gpu_orch;

\c contrib_regression
SET client_min_messages = warning;
DROP DATABASE hostile_install WITH (FORCE);
DROP ROLE hostile_owner, hostile_anon;
