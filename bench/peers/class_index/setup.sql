-- One table with a class for each task and an index that is ordered in each class.
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS bench_class_index CASCADE;
CREATE SCHEMA bench_class_index;
CREATE TABLE bench_class_index.class (id int PRIMARY KEY, requirements jsonb NOT NULL UNIQUE);
INSERT INTO bench_class_index.class
SELECT n, jsonb_build_object('services', jsonb_build_array('service' || n)) FROM generate_series(1, 80) n;
CREATE TABLE bench_class_index.task (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    class int NOT NULL,
    state text NOT NULL DEFAULT 'ready',
    priority int NOT NULL DEFAULT 0,
    payload jsonb NOT NULL,
    worker int,
    started_at timestamptz,
    finished_at timestamptz,
    result jsonb
);
CREATE INDEX ready ON bench_class_index.task (class, priority DESC, id) WHERE state = 'ready';

-- Adds tasks that are spread evenly over the first classes.
CREATE FUNCTION bench_class_index.enqueue(tasks int, classes int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO bench_class_index.task (class, payload)
    SELECT c.id, jsonb_build_object('seed', n, 'prompt', 'a cat')
    FROM generate_series(1, tasks) n
         JOIN bench_class_index.class c
         ON c.requirements = jsonb_build_object('services', jsonb_build_array('service' || 1 + n % classes))
    ORDER BY n
$$;
SELECT bench_class_index.enqueue(:backlog, 80);
VACUUM ANALYZE bench_class_index.task;
