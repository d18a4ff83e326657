SELECT sum(t.tick_event_seq)::bigint
FROM pgq.queue q JOIN pgq.subscription s ON s.sub_queue = q.queue_id
     JOIN pgq.tick t ON t.tick_queue = s.sub_queue AND t.tick_id = s.sub_last_tick
WHERE q.queue_name LIKE 'bench\_pgq\_%';
