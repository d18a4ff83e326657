\set id 0
UPDATE bench_class_index.task SET state = 'running', worker = :client_id, started_at = now()
WHERE id = (SELECT head.id
            FROM unnest('{1,2,3,4,5,6,7,8}'::int[]) matching,
                 LATERAL (SELECT id, priority FROM bench_class_index.task
                          WHERE class = matching AND state = 'ready'
                          ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED) head
            ORDER BY head.priority DESC, head.id LIMIT 1)
RETURNING id, payload \aset
UPDATE bench_class_index.task SET state = 'done', finished_at = now(), result = '{"ok": true}'
WHERE id = :id AND state = 'running' AND worker = :client_id;
\set r random(1, 500)
\if :r = 1
SELECT bench_class_index.enqueue(500, 8);
\endif
