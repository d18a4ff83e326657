-- One table; a claim and a completion each update its state column.
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS bench_textbook CASCADE;
CREATE SCHEMA bench_textbook;
CREATE TABLE bench_textbook.task (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    state text NOT NULL DEFAULT 'ready',
    priority int NOT NULL DEFAULT 0,
    payload jsonb NOT NULL,
    worker int,
    started_at timestamptz,
    finished_at timestamptz,
    result jsonb
);
CREATE INDEX ready ON bench_textbook.task (priority DESC, id) WHERE state = 'ready';
CREATE FUNCTION bench_textbook.enqueue(tasks int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO bench_textbook.task (payload)
    SELECT jsonb_build_object('seed', n, 'prompt', 'a cat') FROM generate_series(1, tasks) n
$$;
SELECT bench_textbook.enqueue(:backlog);
VACUUM ANALYZE bench_textbook.task;
