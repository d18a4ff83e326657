\set id 0
UPDATE bench_textbook.task SET state = 'running', worker = :client_id, started_at = now()
WHERE id = (SELECT id FROM bench_textbook.task WHERE state = 'ready'
            ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, payload \aset
UPDATE bench_textbook.task SET state = 'done', finished_at = now(), result = '{"ok": true}'
WHERE id = :id AND state = 'running' AND worker = :client_id;
\set r random(1, 500)
\if :r = 1
SELECT bench_textbook.enqueue(500);
\endif
