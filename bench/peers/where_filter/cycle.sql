\set id 0
UPDATE bench_where_filter.task SET state = 'running', worker = :client_id, started_at = now()
WHERE id = (SELECT id FROM bench_where_filter.task
            WHERE state = 'ready'
                  AND '{"services": ["service1", "service2", "service3", "service4",
                                     "service5", "service6", "service7", "service8"]}'::jsonb @> requirements
            ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, payload \aset
UPDATE bench_where_filter.task SET state = 'done', finished_at = now(), result = '{"ok": true}'
WHERE id = :id AND state = 'running' AND worker = :client_id;
\set r random(1, 500)
\if :r = 1
SELECT bench_where_filter.enqueue(500, 8);
\endif
