-- Job and queue tables in the shape of Graphile Worker's.
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS bench_graphile CASCADE;
CREATE SCHEMA bench_graphile;
CREATE TABLE bench_graphile.queue (
    id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    queue_name text NOT NULL UNIQUE,
    locked_at timestamptz,
    locked_by text,
    is_available boolean NOT NULL GENERATED ALWAYS AS (locked_at IS NULL) STORED
);
CREATE TABLE bench_graphile.job (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    job_queue_id int,
    task_id int NOT NULL DEFAULT 1,
    payload json NOT NULL,
    priority smallint NOT NULL DEFAULT 0,
    run_at timestamptz NOT NULL DEFAULT now(),
    attempts smallint NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL DEFAULT 25 CHECK (max_attempts >= 1),
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    key text UNIQUE CHECK (length(key) > 0 AND length(key) <= 512),
    locked_at timestamptz,
    locked_by text,
    revision int NOT NULL DEFAULT 0,
    flags jsonb,
    is_available boolean NOT NULL GENERATED ALWAYS AS (locked_at IS NULL AND attempts < max_attempts) STORED
);
CREATE INDEX ON bench_graphile.job (priority, run_at) INCLUDE (id, task_id, job_queue_id) WHERE is_available = true;
CREATE INDEX ON bench_graphile.job (priority, run_at) INCLUDE (id, task_id)
    WHERE is_available = true AND job_queue_id IS NULL;
CREATE FUNCTION bench_graphile.enqueue(tasks int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO bench_graphile.job (payload)
    SELECT json_build_object('seed', n, 'prompt', 'a cat') FROM generate_series(1, tasks) n
$$;
SELECT bench_graphile.enqueue(:backlog);
VACUUM ANALYZE bench_graphile.job;
