-- What a database that lets pods in can do without.

CREATE FUNCTION gpu_orch.harden_database() RETURNS SETOF text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $harden$
DECLARE
    routine regprocedure;
    role pg_roles;
BEGIN
    IF NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) THEN
        RAISE EXCEPTION 'the extension''s owner "%" is no superuser', current_user
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = 'Functions of the server and the database itself are changed.',
                  HINT = 'Run the statements of docs/security.md as a superuser.';
    END IF;
    -- Locks that fill the table which all sessions share, large objects that fill the disk, and the ends of
    -- other sessions of the same role.
    FOR routine IN
        SELECT p.oid FROM pg_proc p CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND a.grantee = 0
          AND p.proname ~ ('^(pg_(try_)?advisory_(xact_)?lock(_shared)?|pg_(cancel|terminate)_backend|'
                           'lo_(creat|create|from_bytea|open|put|truncate|truncate64|unlink)|lowrite)$')
        ORDER BY p.proname, p.oid
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', routine);
        RETURN NEXT format('revoked from PUBLIC: EXECUTE on %s', routine);
    END LOOP;
    IF EXISTS (SELECT 1 FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
               WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type = 'TEMPORARY') THEN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
        RETURN NEXT format('revoked from PUBLIC: TEMPORARY on database %I', current_database());
    END IF;
    IF EXISTS (SELECT 1 FROM pg_namespace n, aclexplode(n.nspacl) a
               WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE') THEN
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
        RETURN NEXT 'revoked from PUBLIC: CREATE on schema public';
    END IF;
    -- Roles belong to the whole cluster, so they are left to who administers it.
    FOR role IN
        SELECT r.* FROM pg_roles r WHERE r.rolcanlogin AND NOT r.rolsuper AND r.rolconnlimit = -1
           AND pg_has_role(r.oid, 'gpu_orch_worker', 'MEMBER') ORDER BY r.rolname
    LOOP
        RETURN NEXT format('left to do: ALTER ROLE %I CONNECTION LIMIT n, three for each worker that logs in as this role', role.rolname);
    END LOOP;
    FOR role IN
        SELECT r.* FROM pg_roles r WHERE r.rolcanlogin AND NOT r.rolsuper AND pg_has_role(r.oid, 'gpu_orch_worker', 'MEMBER')
           AND NOT EXISTS (SELECT 1 FROM pg_db_role_setting s, unnest(s.setconfig) c
                           WHERE s.setrole = r.oid AND c LIKE 'idle_in_transaction_session_timeout=%') ORDER BY r.rolname
    LOOP
        RETURN NEXT format('left to do: ALTER ROLE %I SET idle_in_transaction_session_timeout = ''1min''', role.rolname);
    END LOOP;
    IF EXISTS (SELECT 1 FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
               WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type = 'CONNECT') THEN
        RETURN NEXT format('left to do: REVOKE CONNECT ON DATABASE %I FROM PUBLIC, once each role that needs it has it by itself', current_database());
    END IF;
END
$harden$;
COMMENT ON FUNCTION gpu_orch.harden_database() IS
    'Takes from PUBLIC in this database what a leaked login could stop the server with; says what it changed, and what is left to do for roles';
