-- Eight queues with one consumer each, filled with batches of 50 events; needs the extension pgq.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgq;
DROP SCHEMA IF EXISTS bench_pgq CASCADE;
SELECT pgq.drop_queue(queue_name, true) FROM pgq.queue WHERE queue_name LIKE 'bench\_pgq\_%';
CREATE SCHEMA bench_pgq;

-- Adds batches of 50 events to a queue. A tick sees what was committed before it, so each is a transaction of its own.
CREATE PROCEDURE bench_pgq.enqueue(queue text, batches int) LANGUAGE plpgsql AS $$
BEGIN
    FOR batch IN 1..batches LOOP
        PERFORM pgq.insert_event(queue, 'task', jsonb_build_object('seed', n, 'prompt', 'a cat')::text)
        FROM generate_series(1, 50) n;
        COMMIT;
        PERFORM pgq.ticker(queue);
        COMMIT;
    END LOOP;
END
$$;

SELECT pgq.create_queue('bench_pgq_' || n), pgq.set_queue_config('bench_pgq_' || n, 'ticker_max_count', '1'),
       pgq.register_consumer('bench_pgq_' || n, 'worker')
FROM generate_series(0, 7) n;
SELECT format('CALL bench_pgq.enqueue(%L, %s)', 'bench_pgq_' || n, :backlog / 400) FROM generate_series(0, 7) n \gexec
VACUUM ANALYZE;
