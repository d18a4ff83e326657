-- The textbook table with a column of requirements.
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS bench_where_filter CASCADE;
CREATE SCHEMA bench_where_filter;
CREATE TABLE bench_where_filter.task (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    requirements jsonb NOT NULL,
    state text NOT NULL DEFAULT 'ready',
    priority int NOT NULL DEFAULT 0,
    payload jsonb NOT NULL,
    worker int,
    started_at timestamptz,
    finished_at timestamptz,
    result jsonb
);
CREATE INDEX ready ON bench_where_filter.task (priority DESC, id) WHERE state = 'ready';

-- Adds tasks that are spread evenly over the first requirements.
CREATE FUNCTION bench_where_filter.enqueue(tasks int, kinds int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO bench_where_filter.task (requirements, payload)
    SELECT jsonb_build_object('services', jsonb_build_array('service' || 1 + n % kinds)),
           jsonb_build_object('seed', n, 'prompt', 'a cat')
    FROM generate_series(1, tasks) n
$$;
SELECT bench_where_filter.enqueue(:backlog, 80);
VACUUM ANALYZE bench_where_filter.task;
