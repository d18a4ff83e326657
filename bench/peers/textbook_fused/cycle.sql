WITH finished AS (
    UPDATE bench_textbook_fused.task SET state = 'done', finished_at = now(), result = '{"ok": true}'
    WHERE id = :task_id AND state = 'running' AND worker = :client_id
)
UPDATE bench_textbook_fused.task SET state = 'running', worker = :client_id, started_at = now()
WHERE id = (SELECT id FROM bench_textbook_fused.task WHERE state = 'ready'
            ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id AS task_id, payload \aset
\set r random(1, 500)
\if :r = 1
SELECT bench_textbook_fused.enqueue(500);
\endif
