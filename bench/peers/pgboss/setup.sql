-- A job table in the shape of one partition of pg-boss's.
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS bench_pgboss CASCADE;
CREATE SCHEMA bench_pgboss;
CREATE TYPE bench_pgboss.job_state AS ENUM ('created', 'retry', 'active', 'completed', 'cancelled', 'failed');
CREATE TABLE bench_pgboss.job (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL DEFAULT 'bench',
    priority int NOT NULL DEFAULT 0,
    data jsonb,
    state bench_pgboss.job_state NOT NULL DEFAULT 'created',
    retry_limit int NOT NULL DEFAULT 2,
    retry_count int NOT NULL DEFAULT 0,
    retry_delay int NOT NULL DEFAULT 0,
    retry_backoff boolean NOT NULL DEFAULT false,
    expire_seconds int NOT NULL DEFAULT 900,
    deletion_seconds int NOT NULL DEFAULT 604800,
    singleton_key text,
    group_id text,
    start_after timestamptz NOT NULL DEFAULT now(),
    created_on timestamptz NOT NULL DEFAULT now(),
    started_on timestamptz,
    completed_on timestamptz,
    keep_until timestamptz NOT NULL DEFAULT now() + interval '14 days',
    output jsonb,
    policy text DEFAULT 'standard',
    heartbeat_on timestamptz,
    heartbeat_seconds int,
    blocked boolean NOT NULL DEFAULT false,
    PRIMARY KEY (name, id),
    CHECK (name = 'bench')
);
CREATE INDEX ON bench_pgboss.job (name, priority DESC, created_on, start_after) WHERE state < 'active' AND NOT blocked;
CREATE INDEX ON bench_pgboss.job (name, state, blocked, start_after) WHERE state IN ('created', 'retry', 'active', 'failed');
CREATE INDEX ON bench_pgboss.job (name, created_on);
CREATE INDEX ON bench_pgboss.job (name, completed_on) WHERE completed_on IS NOT NULL;
CREATE FUNCTION bench_pgboss.enqueue(tasks int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO bench_pgboss.job (data)
    SELECT jsonb_build_object('seed', n, 'prompt', 'a cat') FROM generate_series(1, tasks) n
$$;
SELECT bench_pgboss.enqueue(:backlog);
VACUUM ANALYZE bench_pgboss.job;
