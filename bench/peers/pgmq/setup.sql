-- A queue table in the shape of pgmq's.
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS bench_pgmq CASCADE;
CREATE SCHEMA bench_pgmq;
CREATE TABLE bench_pgmq.q (
    msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    read_ct int NOT NULL DEFAULT 0,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    vt timestamptz NOT NULL,
    message jsonb,
    headers jsonb
);
CREATE INDEX q_vt ON bench_pgmq.q (vt);
CREATE FUNCTION bench_pgmq.enqueue(tasks int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO bench_pgmq.q (vt, message)
    SELECT clock_timestamp(), jsonb_build_object('seed', n, 'prompt', 'a cat') FROM generate_series(1, tasks) n
$$;
SELECT bench_pgmq.enqueue(:backlog);
VACUUM ANALYZE bench_pgmq.q;
