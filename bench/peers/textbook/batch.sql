WITH next AS (
    SELECT id FROM bench_textbook.task WHERE state = 'ready'
    ORDER BY priority DESC, id LIMIT 50 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE bench_textbook.task t SET state = 'running', worker = :client_id, started_at = now()
    FROM next WHERE t.id = next.id RETURNING t.id, t.payload
)
SELECT coalesce(array_agg(id), '{}') AS ids, array_agg(payload) AS payloads FROM claimed \gset
UPDATE bench_textbook.task SET state = 'done', finished_at = now(), result = '{"ok": true}'
WHERE id = ANY (:ids) AND state = 'running' AND worker = :client_id;
\set r random(1, 10)
\if :r = 1
SELECT bench_textbook.enqueue(500);
\endif
