-- A job table in the shape of River's, with every index that a job of a single queue enters.
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS bench_river CASCADE;
CREATE SCHEMA bench_river;
CREATE TYPE bench_river.job_state AS ENUM
    ('available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running', 'scheduled');
CREATE TABLE bench_river.job (
    id bigserial PRIMARY KEY,
    state bench_river.job_state NOT NULL DEFAULT 'available',
    attempt smallint NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL DEFAULT 25,
    attempted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    finalized_at timestamptz,
    scheduled_at timestamptz NOT NULL DEFAULT now(),
    priority smallint NOT NULL DEFAULT 1,
    args jsonb NOT NULL,
    attempted_by text[],
    errors jsonb[],
    kind text NOT NULL DEFAULT 'bench',
    metadata jsonb NOT NULL DEFAULT '{}',
    queue text NOT NULL DEFAULT 'default',
    tags varchar(255)[] NOT NULL DEFAULT '{}',
    unique_key bytea,
    CHECK ((state IN ('cancelled', 'completed', 'discarded')) = (finalized_at IS NOT NULL))
);
CREATE INDEX ON bench_river.job (kind);
CREATE INDEX ON bench_river.job (state, finalized_at) WHERE finalized_at IS NOT NULL;
CREATE INDEX ON bench_river.job (state, queue, priority, scheduled_at, id);
CREATE INDEX ON bench_river.job USING gin (args);
CREATE INDEX ON bench_river.job USING gin (metadata);
CREATE UNIQUE INDEX ON bench_river.job (unique_key) WHERE unique_key IS NOT NULL;
CREATE FUNCTION bench_river.enqueue(tasks int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO bench_river.job (args)
    SELECT jsonb_build_object('seed', n, 'prompt', 'a cat') FROM generate_series(1, tasks) n
$$;
SELECT bench_river.enqueue(:backlog);
VACUUM ANALYZE bench_river.job;
