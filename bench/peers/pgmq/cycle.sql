\set id 0
WITH visible AS (
    SELECT msg_id FROM bench_pgmq.q WHERE vt <= clock_timestamp() ORDER BY msg_id LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE bench_pgmq.q SET vt = clock_timestamp() + interval '1 hour', read_ct = read_ct + 1
FROM visible WHERE q.msg_id = visible.msg_id
RETURNING q.msg_id AS id, read_ct, enqueued_at, vt, message, headers \aset
DELETE FROM bench_pgmq.q WHERE msg_id = :id RETURNING msg_id;
\set r random(1, 500)
\if :r = 1
SELECT bench_pgmq.enqueue(500);
\endif
