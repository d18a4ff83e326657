WITH visible AS (
    SELECT msg_id FROM bench_pgmq.q WHERE vt <= clock_timestamp() ORDER BY msg_id LIMIT 50 FOR UPDATE SKIP LOCKED
), hidden AS (
    UPDATE bench_pgmq.q SET vt = clock_timestamp() + interval '1 hour', read_ct = read_ct + 1
    FROM visible WHERE q.msg_id = visible.msg_id RETURNING q.msg_id, message
)
SELECT coalesce(array_agg(msg_id), '{}') AS ids, array_agg(message) AS messages FROM hidden \gset
DELETE FROM bench_pgmq.q WHERE msg_id = ANY (:ids) RETURNING msg_id;
\set r random(1, 10)
\if :r = 1
SELECT bench_pgmq.enqueue(500);
\endif
