-- What CREATE EXTENSION makes: roles, rights, comments, pinned search paths, what goes into dumps.

-- A role of ours that could log in, or gain rights, is not accepted.
SET client_min_messages = warning;
DO $$
BEGIN
    CREATE ROLE gpu_orch_monitor;
EXCEPTION WHEN duplicate_object THEN
END
$$;
\set VERBOSITY terse
ALTER ROLE gpu_orch_monitor LOGIN;
CREATE EXTENSION gpu_orch;
ALTER ROLE gpu_orch_monitor NOLOGIN BYPASSRLS;
CREATE EXTENSION gpu_orch;
ALTER ROLE gpu_orch_monitor NOBYPASSRLS CREATEROLE;
CREATE EXTENSION gpu_orch;
ALTER ROLE gpu_orch_monitor NOCREATEROLE;

-- It does not care for the caller's search path, and it has a schema of its own.
CREATE SCHEMA decoy;
CREATE FUNCTION decoy.round(numeric, int) RETURNS numeric LANGUAGE sql AS 'SELECT 1 / 0.0';
SET search_path = decoy, pg_catalog;
CREATE EXTENSION gpu_orch;
RESET search_path;
DROP SCHEMA decoy CASCADE;
SELECT extversion, extnamespace::regnamespace, extrelocatable FROM pg_extension WHERE extname = 'gpu_orch';
ALTER EXTENSION gpu_orch SET SCHEMA public;

SELECT rolname, rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication AS more,
       ARRAY(SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid ORDER BY g.rolname) AS member_of
FROM pg_roles r WHERE rolname LIKE 'gpu\_orch\_%' ORDER BY rolname;

-- Everything that the extension owns.
CREATE TEMP TABLE object AS
SELECT classid, objid, pg_describe_object(classid, objid, 0) AS name FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'gpu_orch');
SELECT count(*) > 50 AS objects FROM object;

-- Each table, view, function, domain and type tells what it is. The next queries find what is wrong.
SELECT o.name AS without_comment FROM object o
LEFT JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid
WHERE coalesce(c.relkind, 'r') IN ('r', 'v', 'm', 'p') AND obj_description(o.objid, o.classid::regclass::name) IS NULL
  AND NOT EXISTS (SELECT 1 FROM pg_type t WHERE o.classid = 'pg_type'::regclass AND t.oid = o.objid
                  AND (t.typelem <> 0 OR t.typtype = 'c' AND t.typrelid IN
                       (SELECT objid FROM object WHERE classid = 'pg_class'::regclass)))
ORDER BY 1;
SELECT o.name AS open_to_public, a.privilege_type FROM object o
LEFT JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
LEFT JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid
CROSS JOIN LATERAL aclexplode(CASE WHEN p.oid IS NULL THEN c.relacl
                                   ELSE coalesce(p.proacl, acldefault('f', p.proowner)) END) a
WHERE a.grantee = 0
UNION ALL SELECT 'schema gpu_orch', a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a
WHERE n.nspname = 'gpu_orch' AND a.grantee = 0 ORDER BY 1, 2;
-- Functions in C pin it themselves: see hostile_path.sql. Those that run as their owner decide over no rights.
SELECT p.oid::regprocedure AS not_pinned FROM object o JOIN pg_proc p ON p.oid = o.objid
WHERE o.classid = 'pg_proc'::regclass AND (p.prosecdef OR p.prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c'))
  AND NOT EXISTS (SELECT 1 FROM unnest(p.proconfig) s WHERE s ~ '^search_path=.*pg_catalog.*pg_temp"?$')
ORDER BY 1;
SELECT p.oid::regprocedure AS runs_as_owner FROM object o JOIN pg_proc p ON p.oid = o.objid
WHERE o.classid = 'pg_proc'::regclass AND p.prosecdef ORDER BY 1;
SELECT c.relname AS base_table_granted, a.grantee::regrole, a.privilege_type
FROM object o JOIN pg_class c ON c.oid = o.objid CROSS JOIN LATERAL aclexplode(c.relacl) a
WHERE o.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'S') AND a.grantee <> c.relowner
ORDER BY 1, 2, 3;
SELECT c.relname AS hot_table_slowed FROM pg_class c
WHERE c.oid IN ('gpu_orch.ready_queue'::regclass, 'gpu_orch.lease'::regclass, 'gpu_orch.attempt'::regclass,
                'gpu_orch.task'::regclass)
  AND (c.relhastriggers OR c.relrowsecurity OR EXISTS (SELECT 1 FROM pg_constraint k
       WHERE k.contype = 'f' AND c.oid IN (k.conrelid, k.confrelid)));

-- The moves of a worker are those that the library knows.
SELECT count(*) > 30 AS rules FROM gpu_orch.worker_transition;

-- Each table can be replicated: its rows are found by a key, or by all of their columns.
SELECT c.relname AS not_replicable FROM pg_class c
WHERE c.relnamespace = 'gpu_orch'::regnamespace AND c.relkind IN ('r', 'p') AND NOT CASE c.relreplident
    WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
    WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
    ELSE c.relreplident = 'f' END;
-- And holds no row of the install script, which would meet itself where a subscriber copies it.
CREATE FUNCTION pg_temp.is_empty(relation regclass, OUT is_empty boolean) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s)', relation) INTO is_empty;
END $$;
SELECT c.relname AS not_empty FROM object o JOIN pg_class c ON c.oid = o.objid
WHERE o.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p')
  AND NOT pg_temp.is_empty(c.oid);

-- User data goes into dumps, the numbers that were given out too; the moves come with the extension. Nothing
-- stands in a dumped table yet: a restore would meet it.
SELECT c.relname AS in_dumps, c.relkind AS kind FROM pg_extension e, unnest(e.extconfig) WITH ORDINALITY AS d(oid, n)
JOIN pg_class c USING (oid) WHERE e.extname = 'gpu_orch' ORDER BY 2 DESC, 1;
SELECT c.relname AS not_in_dumps FROM object o JOIN pg_class c ON c.oid = o.objid
WHERE o.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'S', 'p', 'm')
  AND NOT c.oid = ANY ((SELECT extconfig FROM pg_extension WHERE extname = 'gpu_orch')::oid[])
ORDER BY 1;
SELECT d.relation AS not_empty FROM pg_extension e, unnest(e.extconfig) AS t(oid),
       LATERAL (SELECT t.oid::regclass AS relation) d JOIN pg_class c ON c.oid = d.relation
WHERE e.extname = 'gpu_orch' AND c.relkind = 'r'
  AND NOT pg_temp.is_empty(d.relation);

-- It can go and come back.
DROP EXTENSION gpu_orch;
SELECT count(*) AS left_behind FROM pg_proc WHERE pronamespace = to_regnamespace('gpu_orch');
CREATE EXTENSION gpu_orch;
